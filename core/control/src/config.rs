//! Settings of the reconcilers; defaults are upstream's.

use crate::queue::Controller;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// PEM bundle of the API's authority, for the ConfigMap that every namespace gets.
    pub root_ca: Option<Arc<str>>,
    /// A node whose lease is older is lost.
    pub node_grace_ms: i64,
    /// Evictions from lost nodes, in a thousandth of a node a second.
    pub node_eviction_milli_per_s: i64,
    /// Ended pods beyond so many are deleted, oldest first.
    pub terminated_pods_max: usize,
    /// A pod on a node that does not exist is deleted after so long.
    pub orphan_quarantine_ms: i64,
    /// Directory on nodes under which hostPath volumes are made.
    pub volume_dir: Arc<str>,
    /// Name of the provisioner that makes them.
    pub provisioner: Arc<str>,
    /// Reconcilers that do nothing here: another control does their work.
    pub off: BTreeSet<Controller>,
    /// How often autoscalers are looked at.
    pub autoscaler_period_ms: i64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            root_ca: None,
            node_grace_ms: 40_000,
            node_eviction_milli_per_s: 100,
            terminated_pods_max: 12_500,
            orphan_quarantine_ms: 40_000,
            volume_dir: "/var/lib/diolkos/volumes".into(),
            provisioner: "diolkos.io/host-path".into(),
            off: BTreeSet::new(),
            autoscaler_period_ms: 15_000,
        }
    }
}

/// A name that no reconciler has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownController(pub String);

/// Which reconcilers are off by a list as kube-controller-manager takes it: `*` switches all on, `name` one, `-name` one off. Without `*`
/// only those that are named run.
///
/// # Errors
/// A name that is none.
pub fn switched_off(list: &str) -> Result<BTreeSet<Controller>, UnknownController> {
    let words: Vec<&str> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let named = |word: &str| {
        let name = word.strip_prefix('-').unwrap_or(word);
        Controller::ALL.into_iter().find(|one| one.name() == name).ok_or_else(|| UnknownController(name.to_owned()))
    };
    let mut off = if words.contains(&"*") { BTreeSet::new() } else { Controller::ALL.into() };
    for word in words.into_iter().filter(|word| *word != "*") {
        let one = named(word)?;
        let _ = if word.starts_with('-') { off.insert(one) } else { off.remove(&one) };
    }
    Ok(off)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_controllers() {
        let all: BTreeSet<Controller> = Controller::ALL.into();
        let but = |one: Controller| all.iter().copied().filter(|other| *other != one).collect::<BTreeSet<_>>();
        for (list, expect) in [
            ("*", Ok(BTreeSet::new())),
            ("*,-job, -taint-eviction", Ok([Controller::Job, Controller::TaintEviction].into())),
            ("job", Ok(but(Controller::Job))),
            ("", Ok(all.clone())),
            ("*,-wagon", Err(UnknownController("wagon".to_owned()))),
        ] {
            assert_eq!(switched_off(list), expect, "{list}");
        }
    }
}

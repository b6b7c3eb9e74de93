//! How one root of the mesh follows another without a moment in which two workloads have no root in common.
//!
//! ```text
//! Steady --asked, or old--> Announced --every proxy trusts the new one--> Switched --nothing rests on the old one--> Steady
//! ```
//! While a root is announced it is trusted and signs nothing; after the switch it signs, and the old one is trusted still. A proxy that is away
//! is waited for until every certificate that it can have has expired: then it has none to show and nothing that it could refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A root certificate's name: SHA-256 of it, in hexadecimal.
pub type RootId = Arc<str>;

/// Where the succession stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// One root, trusted and signing.
    Steady,
    /// The next root is trusted too; the old one signs.
    Announced {
        /// Since when, seconds since the epoch.
        since_s: u64,
    },
    /// The next root signs; the old one is trusted still.
    Switched {
        /// Since when, seconds since the epoch.
        since_s: u64,
    },
}

/// A fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants another root.
    Asked,
    /// A look at how things stand.
    Looked(Standing),
}

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// When the root that signs was made, seconds since the epoch.
    pub made_s: u64,
    /// Every proxy that is expected has said so of late: that it trusts both roots (Announced), that nothing of it rests on the old one
    /// (Switched).
    pub all_agree: bool,
}

/// What is to be done. Each order is carried out whole, on disk, before anybody is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Make the next root and trust it.
    Announce,
    /// Sign with the next root from now on.
    Switch,
    /// Trust the old root no longer.
    Withdraw,
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A root older than this is replaced unasked; none: never.
    pub root_age_s: Option<u64>,
    /// The longest that a certificate of a workload can be valid. So long is waited for a proxy that says nothing.
    pub leaf_ttl_s: u64,
}

/// A succession is under way already. Asking again when it is over helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderWay;

impl std::fmt::Display for UnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("one root is just being replaced by another")
    }
}

impl std::error::Error for UnderWay {}

/// What follows from an event.
///
/// # Errors
/// [`UnderWay`]: asked in the middle of it.
pub fn step(phase: Phase, event: Event, limits: &Limits, now_s: u64) -> Result<(Phase, Option<Order>), UnderWay> {
    let announce = Ok((Phase::Announced { since_s: now_s }, Some(Order::Announce)));
    let waited = |since_s: u64| now_s.saturating_sub(since_s) >= limits.leaf_ttl_s;
    match (phase, event) {
        (Phase::Steady, Event::Asked) => announce,
        (Phase::Steady, Event::Looked(it)) => {
            let old = limits.root_age_s.is_some_and(|age| now_s.saturating_sub(it.made_s) >= age);
            if old { announce } else { Ok((phase, None)) }
        }
        (Phase::Announced { .. } | Phase::Switched { .. }, Event::Asked) => Err(UnderWay),
        (Phase::Announced { since_s }, Event::Looked(it)) if it.all_agree || waited(since_s) => {
            Ok((Phase::Switched { since_s: now_s }, Some(Order::Switch)))
        }
        (Phase::Switched { since_s }, Event::Looked(it)) if it.all_agree || waited(since_s) => {
            Ok((Phase::Steady, Some(Order::Withdraw)))
        }
        (Phase::Announced { .. } | Phase::Switched { .. }, Event::Looked(_)) => Ok((phase, None)),
    }
}

/// A report that was not repeated for so long says nothing any more. Proxies repeat theirs while there is more than one root.
pub const REPORT_LIFE_S: u64 = 25;

/// What a proxy says of roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Roots that it trusts.
    pub trusted: BTreeSet<RootId>,
    /// Roots of its own certificates, and of both ends of its open connections.
    pub rests_on: BTreeSet<RootId>,
    /// What rests on another root than the one that signs, in words.
    pub because: Vec<String>,
}

/// Why a proxy keeps a phase from ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lag {
    /// It has said nothing of late.
    Unheard,
    /// It does not trust the next root yet.
    Untold,
    /// Something of it rests on the old root: this, as far as it said.
    Resting(Vec<String>),
}

impl std::fmt::Display for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unheard => write!(f, "says nothing of late"),
            Self::Untold => write!(f, "does not trust the next root yet"),
            Self::Resting(what) if what.is_empty() => write!(f, "rests on the old root"),
            Self::Resting(what) => write!(f, "rests on the old root: {}", what.join(", ")),
        }
    }
}

/// What proxies said last. A proxy that is just being replaced by its successor has two processes.
#[derive(Clone, Debug, Default)]
pub struct Reports(BTreeMap<(Arc<str>, u64), (u64, Report)>);

impl Reports {
    /// Takes a report of one process of a proxy.
    pub fn take(&mut self, proxy: Arc<str>, process: u64, report: Report, now_s: u64) {
        self.0.retain(|_, (at_s, _)| now_s.saturating_sub(*at_s) < REPORT_LIFE_S);
        self.0.insert((proxy, process), (now_s, report));
    }

    /// Forgets all: what was said before the phase changed says nothing about the new one.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Those of the expected proxies that keep the phase from ending, by name, and why.
    pub fn behind(
        &self,
        phase: Phase,
        expected: &BTreeSet<Arc<str>>,
        old: &str,
        next: &str,
        now_s: u64,
    ) -> BTreeMap<Arc<str>, Lag> {
        let lag = |report: &Report| match phase {
            Phase::Announced { .. } if !report.trusted.contains(next) => Some(Lag::Untold),
            Phase::Switched { .. } if report.rests_on.contains(old) => Some(Lag::Resting(report.because.clone())),
            Phase::Steady | Phase::Announced { .. } | Phase::Switched { .. } => None,
        };
        let mut behind: BTreeMap<_, _> = expected.iter().map(|proxy| (proxy.clone(), Lag::Unheard)).collect();
        let fresh = |at_s: u64| now_s.saturating_sub(at_s) < REPORT_LIFE_S;
        let heard = || self.0.iter().filter(|(_, (at_s, _))| fresh(*at_s));
        for ((proxy, _), _) in heard() {
            behind.remove(proxy);
        }
        // Of a proxy's processes one that lags is enough.
        behind.extend(heard().filter_map(|((proxy, _), (_, report))| Some((proxy.clone(), lag(report)?))));
        behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { root_age_s: Some(1_000), leaf_ttl_s: 100 };

    #[test]
    fn the_whole_graph() {
        let now_s = 5_000;
        let looked = |made_s, all_agree| Event::Looked(Standing { made_s, all_agree });
        let mut table = String::new();
        for (at, phase) in [
            ("steady", Phase::Steady),
            ("announced", Phase::Announced { since_s: now_s - 99 }),
            ("announced long ago", Phase::Announced { since_s: now_s - 100 }),
            ("switched", Phase::Switched { since_s: now_s - 99 }),
            ("switched long ago", Phase::Switched { since_s: now_s - 100 }),
        ] {
            for (what, event) in [
                ("asked", Event::Asked),
                ("young root, some disagree", looked(now_s - 999, false)),
                ("young root, all agree", looked(now_s - 999, true)),
                ("old root, some disagree", looked(now_s - 1_000, false)),
                ("old root, all agree", looked(now_s - 1_000, true)),
            ] {
                let to = match step(phase, event, &LIMITS, now_s) {
                    Err(UnderWay) => "refused".to_owned(),
                    Ok((to, order)) if to == phase && order.is_none() => "-".to_owned(),
                    Ok((to, order)) => {
                        let name = match to {
                            Phase::Steady => "steady",
                            Phase::Announced { since_s } if since_s == now_s => "announced",
                            Phase::Switched { since_s } if since_s == now_s => "switched",
                            other => panic!("{other:?} does not begin now"),
                        };
                        format!("{name}, {}", order.map_or("none".into(), |it| format!("{it:?}").to_lowercase()))
                    }
                };
                table += &format!("{at} | {what} | {to}\n");
            }
        }
        let expect = "\
steady | asked | announced, announce
steady | young root, some disagree | -
steady | young root, all agree | -
steady | old root, some disagree | announced, announce
steady | old root, all agree | announced, announce
announced | asked | refused
announced | young root, some disagree | -
announced | young root, all agree | switched, switch
announced | old root, some disagree | -
announced | old root, all agree | switched, switch
announced long ago | asked | refused
announced long ago | young root, some disagree | switched, switch
announced long ago | young root, all agree | switched, switch
announced long ago | old root, some disagree | switched, switch
announced long ago | old root, all agree | switched, switch
switched | asked | refused
switched | young root, some disagree | -
switched | young root, all agree | steady, withdraw
switched | old root, some disagree | -
switched | old root, all agree | steady, withdraw
switched long ago | asked | refused
switched long ago | young root, some disagree | steady, withdraw
switched long ago | young root, all agree | steady, withdraw
switched long ago | old root, some disagree | steady, withdraw
switched long ago | old root, all agree | steady, withdraw
";
        assert_eq!(table, expect);
    }

    #[test]
    fn who_is_waited_for() {
        let expected: BTreeSet<Arc<str>> = ["a", "b"].map(Into::into).into();
        let set = |roots: &[&str]| roots.iter().map(|root| Arc::from(*root)).collect();
        let report = |trusted: &[&str], rests_on: &[&str]| {
            let because = rests_on.iter().map(|root| format!("a connection ({root})")).collect();
            Report { trusted: set(trusted), rests_on: set(rests_on), because }
        };
        let behind = |reports: &Reports, phase, now_s| {
            reports
                .behind(phase, &expected, "old", "next", now_s)
                .iter()
                .map(|(proxy, lag)| format!("{proxy} {lag}"))
                .collect::<Vec<_>>()
                .join("; ")
        };
        let (announced, switched) = (Phase::Announced { since_s: 0 }, Phase::Switched { since_s: 0 });
        let mut reports = Reports::default();
        assert_eq!(
            behind(&reports, announced, 10),
            "a says nothing of late; b says nothing of late",
            "nobody was heard"
        );
        reports.take("a".into(), 1, report(&["old", "next"], &["old"]), 10);
        assert_eq!(behind(&reports, announced, 10), "b says nothing of late");
        assert_eq!(
            behind(&reports, switched, 10),
            "a rests on the old root: a connection (old); b says nothing of late"
        );
        reports.take("b".into(), 1, report(&["old", "next"], &["next"]), 10);
        assert_eq!(behind(&reports, announced, 10), "");
        assert_eq!(behind(&reports, switched, 10), "a rests on the old root: a connection (old)");
        // Its successor is clean, but connections of the old process go on.
        reports.take("a".into(), 2, report(&["old", "next"], &["next"]), 11);
        assert_eq!(behind(&reports, switched, 11), "a rests on the old root: a connection (old)");
        reports.take("a".into(), 1, report(&["old", "next"], &[]), 12);
        assert_eq!(behind(&reports, switched, 12), "");
        assert_eq!(
            behind(&reports, switched, 10 + REPORT_LIFE_S),
            "b says nothing of late",
            "what was not repeated does not count"
        );
        // One that the API does not know, and that speaks all the same, is heard.
        reports.take("c".into(), 1, report(&["old"], &["old"]), 12);
        assert_eq!(behind(&reports, switched, 12), "c rests on the old root: a connection (old)");
        reports.take("c".into(), 1, report(&["old"], &[]), 12);
        assert_eq!(behind(&reports, announced, 12), "c does not trust the next root yet");
    }
}

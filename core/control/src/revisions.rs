//! ControllerRevisions: the templates that a StatefulSet or DaemonSet has had.

use crate::control::Cx;
use crate::names;
use crate::plan::Plan;
use crate::world::controller_ref;
use model::effect::{Body, Change, NewMeta, Propagation};
use model::{ControllerRevision, Doc, Key, Kind, Labels, Meta, PodTemplate};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The label of pods that names their revision.
pub const POD_REVISION: &str = "controller-revision-hash";

/// Revisions of one owner, oldest first, and the one that has its present template.
pub struct Revisions {
    /// All of them.
    pub all: Vec<Arc<ControllerRevision>>,
    /// Index of the present one; None while it is being made.
    pub present: Option<usize>,
    /// Its name, also while it is being made.
    pub name: Arc<str>,
    /// The hash in its name.
    pub hash: Arc<str>,
    /// A namesake is somebody else's: the collision count goes up.
    pub collided: bool,
}

/// Finds, renumbers or makes the revision of `template`.
pub fn sync(
    cx: &Cx,
    owner: (Kind, &Meta),
    template: &PodTemplate,
    collisions: Option<i32>,
    label: &str,
    plan: &mut Plan,
) -> Revisions {
    let meta = owner.1;
    let mut all: Vec<Arc<ControllerRevision>> = cx
        .world
        .dependents_of(&meta.uid, Kind::ControllerRevision)
        .filter_map(|key| cx.world.controller_revisions.get(key))
        .filter(|revision| !revision.meta.is_deleting())
        .cloned()
        .collect();
    all.sort_by(|a, b| (a.number, a.meta.created, &a.meta.key.name).cmp(&(b.number, b.meta.created, &b.meta.key.name)));
    let last = all.last().map_or(0, |revision| revision.number);
    let hash: Arc<str> = names::template_hash(template.body.hash(), collisions).into();
    let equal = all.iter().rposition(|revision| revision.template.as_ref().is_some_and(|t| t.body == template.body));
    if let Some(index) = equal {
        let revision = all[index].clone();
        if revision.number != last {
            // A template that comes back is the newest again: that is how a rollback is recorded.
            plan.update(Kind::ControllerRevision, &revision.meta, Change::RevisionNumber(last + 1));
        }
        let name = revision.meta.key.name.clone();
        let hash = name.rsplit_once('-').map_or_else(|| hash, |(_, hash)| hash.into());
        return Revisions { all, present: Some(index), name, hash, collided: false };
    }
    let name: Arc<str> = format!("{}-{hash}", meta.key.name).into();
    let key = Key { namespace: meta.key.namespace.clone(), name: name.clone() };
    let collided = cx.world.controller_revisions.contains_key(&key);
    if !collided && !meta.is_deleting() {
        let mut labels: Labels = template.labels.clone();
        labels.insert(label.into(), hash.clone());
        let new = NewMeta { key, labels, owners: vec![controller_ref(owner.0, meta)], ..NewMeta::default() };
        plan.create(new, Body::ControllerRevision { number: last + 1, data: recorded(&template.body) });
    }
    Revisions { all, present: None, name, hash, collided }
}

/// The patch that upstream records: it replaces the template whole.
fn recorded(template: &Doc) -> Doc {
    let text = template.text();
    let rest = text.strip_prefix('{').unwrap_or("}");
    let comma = if rest.starts_with('}') { "" } else { "," };
    Doc::new(format!("{{\"spec\":{{\"template\":{{\"$patch\":\"replace\"{comma}{rest}}}}}"))
}

/// Deletes revisions beyond the limit that no pod has, oldest first.
pub fn clean_up(revisions: &Revisions, limit: Option<i32>, in_use: &BTreeSet<&str>, plan: &mut Plan) {
    let unused: Vec<&Arc<ControllerRevision>> = revisions
        .all
        .iter()
        .enumerate()
        .filter(|(index, revision)| Some(*index) != revisions.present && !is_used(revision, in_use))
        .map(|(_, revision)| revision)
        .collect();
    let surplus = unused.len() as i64 - i64::from(limit.unwrap_or(10));
    for revision in unused.into_iter().take(surplus.max(0) as usize) {
        plan.delete(Kind::ControllerRevision, &revision.meta, Propagation::Default);
    }
}

/// Pods of a StatefulSet name the revision, those of a DaemonSet its hash.
fn is_used(revision: &ControllerRevision, in_use: &BTreeSet<&str>) -> bool {
    let name = &*revision.meta.key.name;
    in_use.contains(name) || name.rsplit_once('-').is_some_and(|(_, hash)| in_use.contains(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_replaces_the_template() {
        let doc = recorded(&Doc::new(r#"{"metadata":{},"spec":{}}"#));
        assert_eq!(doc.text(), r#"{"spec":{"template":{"$patch":"replace","metadata":{},"spec":{}}}}"#);
        assert_eq!(recorded(&Doc::new("{}")).text(), r#"{"spec":{"template":{"$patch":"replace"}}}"#);
    }
}

//! Which pods and replica sets belong to a controller: adopts orphans that its selector matches, lets go of own ones that it no longer does.

use crate::plan::Plan;
use crate::world::{World, controller_ref};
use model::effect::MetaPatch;
use model::{Kind, LabelSelector, Meta, Pod};
use std::sync::Arc;

/// What to do about one object that may belong to a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Ours,
    /// It has no controller and matches: make it ours.
    Adopt,
    /// It is ours and does not match: let it go.
    Release,
    /// None of our business.
    Ignore,
}

/// Decides over `object` for the controller `owner`.
pub fn judge(owner: &Meta, selector: &LabelSelector, object: &Meta) -> Claim {
    match object.controller() {
        Some(reference) if reference.uid != owner.uid => Claim::Ignore,
        Some(_) if selector.matches(&object.labels) => Claim::Ours,
        Some(_) if owner.is_deleting() => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner.is_deleting() || object.is_deleting() || !selector.matches(&object.labels) => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// Carries a judgement out. Returns whether the object counts as ours from now on.
pub fn act(claim: Claim, owner: (Kind, &Meta), kind: Kind, object: &Meta, plan: &mut Plan) -> bool {
    match claim {
        Claim::Ours => true,
        Claim::Ignore => false,
        Claim::Adopt => {
            let mut owners = object.owners.clone();
            owners.push(controller_ref(owner.0, owner.1));
            plan.patch_meta(kind, object, MetaPatch { owners: Some(owners), ..MetaPatch::default() });
            true
        }
        Claim::Release => {
            let owners = object.owners.iter().filter(|reference| reference.uid != owner.1.uid).cloned().collect();
            plan.patch_meta(kind, object, MetaPatch { owners: Some(owners), ..MetaPatch::default() });
            false
        }
    }
}

/// The pods of a controller, in order of their names, for which `wanted` holds.
pub fn pods(
    world: &World,
    owner: (Kind, &Meta),
    selector: &LabelSelector,
    wanted: impl Fn(&Pod) -> bool,
    plan: &mut Plan,
) -> Vec<Arc<Pod>> {
    let meta = owner.1;
    let mut ours = Vec::new();
    for pod in world.controlled_pods(&meta.uid).filter(|pod| wanted(pod)) {
        if act(judge(meta, selector, &pod.meta), owner, Kind::Pod, &pod.meta, plan) {
            ours.push(pod.clone());
        }
    }
    for pod in world.orphan_pods(&meta.key.namespace).filter(|pod| wanted(pod)) {
        if act(judge(meta, selector, &pod.meta), owner, Kind::Pod, &pod.meta, plan) {
            ours.push(pod.clone());
        }
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{labels, meta};
    use model::Timestamp;

    #[test]
    fn adoption_table() {
        let selector = LabelSelector::from_labels(&labels(&[("app", "a")]));
        let owner = meta("ns", "owner", 1);
        let mut deleting_owner = owner.clone();
        deleting_owner.deleting = Some(Timestamp(1));
        let stranger = meta("ns", "stranger", 2);
        let object = |label: &str, controller: Option<&Meta>, deleting: bool| {
            let mut object = meta("ns", "pod", 3);
            object.labels = labels(&[("app", label)]);
            object.owners = controller.map(|c| controller_ref(Kind::ReplicaSet, c)).into_iter().collect();
            object.deleting = deleting.then_some(Timestamp(1));
            object
        };
        for (owner_of, object, expect) in [
            (&owner, object("a", Some(&owner), false), Claim::Ours),
            (&owner, object("a", Some(&owner), true), Claim::Ours),
            (&owner, object("b", Some(&owner), false), Claim::Release),
            (&deleting_owner, object("b", Some(&owner), false), Claim::Ignore),
            (&owner, object("a", Some(&stranger), false), Claim::Ignore),
            (&owner, object("a", None, false), Claim::Adopt),
            (&owner, object("b", None, false), Claim::Ignore),
            (&owner, object("a", None, true), Claim::Ignore),
            (&deleting_owner, object("a", None, false), Claim::Ignore),
        ] {
            assert_eq!(judge(owner_of, &selector, &object), expect, "{object:?}");
        }
    }
}

//! Garbage collection by owner references: dependents whose owners are gone are deleted; foreground deletion of an owner waits for the
//! dependents that block it; orphaning takes the owner out of its dependents first.

use crate::control::{Cx, Memory};
use crate::plan::Plan;
use model::effect::{MetaPatch, Propagation};
use model::{Key, Kind, Meta, OwnerRef};

/// Finalizer of an owner that waits for its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner whose dependents are to stay.
pub const ORPHAN: &str = "orphan";

/// An owner that was never seen may yet come: watches of two kinds run apart. So long is it waited for.
const ABSENT_FOR_MS: i64 = 20_000;

fn has(meta: &Meta, finalizer: &str) -> bool {
    meta.finalizers.iter().any(|f| &**f == finalizer)
}

/// Whether a change of an object's metadata is the collector's business.
pub fn concerns(old: Option<&Meta>, new: &Meta) -> bool {
    let waits = new.is_deleting() && (has(new, FOREGROUND) || has(new, ORPHAN));
    match old {
        Some(old) => {
            old.owners != new.owners && !new.owners.is_empty()
                || waits && (old.is_deleting() != new.is_deleting() || old.finalizers != new.finalizers)
        }
        None => !new.owners.is_empty() || waits,
    }
}

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It is there.
    Solid,
    /// It is there, and is being deleted in the foreground: waits for this dependent.
    Waiting,
    /// It is gone.
    Gone,
    /// It was never seen, though its kind is known.
    Missing,
    /// Its kind is not watched: nothing can be said.
    Unknowable,
}

fn judge(cx: &Cx, object: &Meta, owner: &OwnerRef) -> Owner {
    if let Some((kind, key)) = cx.world.by_uid(&owner.uid) {
        // A namespaced owner in another namespace is no owner: upstream treats it as absent.
        if !key.namespace.is_empty() && key.namespace != object.key.namespace {
            return Owner::Gone;
        }
        let Some(meta) = cx.world.meta(*kind, key) else { return Owner::Gone };
        return if meta.is_deleting() && has(meta, FOREGROUND) { Owner::Waiting } else { Owner::Solid };
    }
    if cx.world.is_gone(&owner.uid) {
        return Owner::Gone;
    }
    let kind = Kind::parse(&owner.api_version, &owner.kind).or_else(|| other_kind(cx, owner));
    match kind {
        Some(kind) if cx.world.is_synced(kind) => Owner::Missing,
        _ => Owner::Unknowable,
    }
}

fn other_kind(cx: &Cx, owner: &OwnerRef) -> Option<Kind> {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    cx.world
        .others
        .keys()
        .find(|resource| resource.kind == &*owner.kind && resource.group == group)
        .map(|r| Kind::Other(r))
}

/// Looks at one object: as a dependent, and as an owner that is being deleted.
pub fn reconcile(cx: &Cx, memory: &mut Memory, kind: Kind, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(meta) = cx.world.meta(kind, key) else {
        memory.absent_owners.remove(&(kind, key.clone()));
        return plan;
    };
    if meta.is_deleting() {
        memory.absent_owners.remove(&(kind, key.clone()));
        as_owner(cx, kind, meta, &mut plan);
    } else if !meta.owners.is_empty() {
        as_dependent(cx, memory, kind, meta, &mut plan);
    }
    plan
}

fn as_dependent(cx: &Cx, memory: &mut Memory, kind: Kind, meta: &Meta, plan: &mut Plan) {
    let verdicts: Vec<Owner> = meta.owners.iter().map(|owner| judge(cx, meta, owner)).collect();
    let entry = (kind, meta.key.clone());
    let mut missing_for_good = false;
    if verdicts.contains(&Owner::Missing) {
        let since = *memory.absent_owners.entry(entry).or_insert(cx.now);
        let until = since.plus_ms(ABSENT_FOR_MS);
        missing_for_good = cx.now >= until;
        if !missing_for_good {
            plan.look_again(until);
        }
    } else {
        memory.absent_owners.remove(&entry);
    }
    let dangling = |verdict: Owner| verdict == Owner::Gone || verdict == Owner::Missing && missing_for_good;
    let solid = verdicts.iter().any(|v| matches!(v, Owner::Solid | Owner::Unknowable))
        || !missing_for_good && verdicts.contains(&Owner::Missing);
    let loose = verdicts.iter().any(|v| dangling(*v) || *v == Owner::Waiting);
    if !loose {
        return;
    }
    if solid {
        // Another owner keeps it: the void references go, so that the waiting owners need not wait for it.
        let kept = meta.owners.iter().zip(&verdicts).filter(|(_, v)| !dangling(**v) && **v != Owner::Waiting);
        let owners = Some(kept.map(|(owner, _)| owner.clone()).collect());
        plan.patch_meta(kind, meta, MetaPatch { owners, ..MetaPatch::default() });
        return;
    }
    let waited_for = verdicts.contains(&Owner::Waiting);
    let has_dependents = cx.world.dependents(&meta.uid).next().is_some();
    // In a foreground deletion the whole tree is deleted in the foreground.
    let propagation = if waited_for && has_dependents { Propagation::Foreground } else { Propagation::Background };
    plan.delete(kind, meta, propagation);
}

fn as_owner(cx: &Cx, kind: Kind, meta: &Meta, plan: &mut Plan) {
    if has(meta, ORPHAN) {
        let mut all_free = true;
        for (kind, key) in cx.world.dependents(&meta.uid) {
            let Some(dependent) = cx.world.meta(*kind, key) else { continue };
            all_free = false;
            let owners = Some(dependent.owners.iter().filter(|owner| owner.uid != meta.uid).cloned().collect());
            plan.patch_meta(*kind, dependent, MetaPatch { owners, ..MetaPatch::default() });
        }
        if all_free {
            drop_finalizer(kind, meta, ORPHAN, plan);
        }
        return;
    }
    if !has(meta, FOREGROUND) {
        return;
    }
    let mut blocked = false;
    for (kind, key) in cx.world.dependents(&meta.uid) {
        let Some(dependent) = cx.world.meta(*kind, key) else { continue };
        blocked |= dependent.owners.iter().any(|owner| owner.uid == meta.uid && owner.block_owner_deletion);
        if dependent.is_deleting() {
            continue;
        }
        let others =
            dependent.owners.iter().any(|owner| owner.uid != meta.uid && judge(cx, dependent, owner) == Owner::Solid);
        if others {
            let owners = Some(dependent.owners.iter().filter(|owner| owner.uid != meta.uid).cloned().collect());
            plan.patch_meta(*kind, dependent, MetaPatch { owners, ..MetaPatch::default() });
        } else {
            let has_dependents = cx.world.dependents(&dependent.uid).next().is_some();
            let propagation = if has_dependents { Propagation::Foreground } else { Propagation::Background };
            plan.delete(*kind, dependent, propagation);
        }
    }
    if !blocked {
        drop_finalizer(kind, meta, FOREGROUND, plan);
    }
}

fn drop_finalizer(kind: Kind, meta: &Meta, finalizer: &str, plan: &mut Plan) {
    let finalizers = Some(meta.finalizers.iter().filter(|f| &***f != finalizer).cloned().collect());
    plan.patch_meta(kind, meta, MetaPatch { finalizers, ..MetaPatch::default() });
}

//! Claims and volumes: binding, provisioning of hostPath volumes, reclaiming.

use crate::control::Cx;
use crate::plan::{Plan, Reporter};
use crate::taint_eviction;
use model::cluster::Node;
use model::effect::{Body, Change, MetaPatch, NewMeta, Propagation, Status};
use model::volume::{ClaimPhase, PersistentVolume, PersistentVolumeClaim, ReclaimPolicy, StorageClass, VolumePhase};
use model::{Key, Kind, Labels, Meta, Truth, condition};
use std::sync::Arc;

const SOURCE: &str = "persistentvolume-controller";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Looks at one claim.
pub fn reconcile_claim(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(claim) = cx.world.claims.get(key) else { return plan };
    if !cx.world.all_synced(&[
        Kind::PersistentVolumeClaim,
        Kind::PersistentVolume,
        Kind::StorageClass,
        Kind::Pod,
        Kind::Node,
    ]) {
        return plan;
    }
    if claim.meta.is_deleting() {
        let used = cx.world.pods_mounting(key).any(|pod| !pod.status.phase.is_terminal() || pod.meta.is_deleting());
        if !used {
            unprotect(Kind::PersistentVolumeClaim, &claim.meta, CLAIM_PROTECTION, &mut plan);
        }
        return plan;
    }
    if claim.volume.is_empty() {
        find_volume(cx, claim, &mut plan)
    } else {
        follow_volume(cx, claim, &mut plan)
    }
    plan
}

fn unprotect(kind: Kind, meta: &Meta, finalizer: &str, plan: &mut Plan) {
    if meta.finalizers.iter().any(|f| &**f == finalizer) {
        let finalizers = Some(meta.finalizers.iter().filter(|f| &***f != finalizer).cloned().collect());
        plan.patch_meta(kind, meta, MetaPatch { finalizers, ..MetaPatch::default() });
    }
}

/// A claim that names its volume: bound when the volume says so too, lost when it is gone.
fn follow_volume(cx: &Cx, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let Some(volume) = cx.world.volumes.get(&Key::new("", claim.volume.clone())) else {
        if claim.meta.annotations.contains_key(BIND_COMPLETED) && claim.phase != ClaimPhase::Lost {
            let status = Status::Claim { phase: ClaimPhase::Lost, capacity: None, access_modes: Vec::new() };
            plan.status(Kind::PersistentVolumeClaim, &claim.meta, status);
            let report = Reporter::new(SOURCE, Kind::PersistentVolumeClaim, &claim.meta, cx.now);
            plan.note(
                report.warning("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
            );
        }
        return;
    };
    match &volume.claim {
        Some((namespace, name, uid)) if names(claim, namespace, name) && (uid.is_empty() || *uid == claim.meta.uid) => {
            if uid.is_empty() {
                point_volume(volume, claim, plan);
            }
            finish(claim, volume, plan);
        }
        // The user chose the volume, which is free: point it at the claim.
        None => point_volume(volume, claim, plan),
        Some(_) => {}
    }
}

fn names(claim: &PersistentVolumeClaim, namespace: &str, name: &str) -> bool {
    *claim.meta.key.namespace == *namespace && *claim.meta.key.name == *name
}

fn point_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let change = Change::VolumeClaim(Some((claim.meta.key.clone(), claim.meta.uid.clone())));
    plan.update(Kind::PersistentVolume, &volume.meta, change);
}

/// Writes the claim's side of a binding: the volume's name first, its status when that is there.
fn finish(claim: &PersistentVolumeClaim, volume: &PersistentVolume, plan: &mut Plan) {
    if claim.volume.is_empty() || !claim.meta.annotations.contains_key(BIND_COMPLETED) {
        let mut annotations = Labels::from([(Arc::from(BIND_COMPLETED), Arc::from("yes"))]);
        if claim.volume.is_empty() {
            annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        }
        let change = Change::ClaimVolume { volume: volume.meta.key.name.clone(), annotations };
        plan.update(Kind::PersistentVolumeClaim, &claim.meta, change);
    } else if claim.phase != ClaimPhase::Bound || claim.capacity != Some(volume.capacity) {
        let status = Status::Claim {
            phase: ClaimPhase::Bound,
            capacity: Some(volume.capacity),
            access_modes: volume.access_modes.clone(),
        };
        plan.status(Kind::PersistentVolumeClaim, &claim.meta, status);
    }
}

fn class_of<'a>(cx: &'a Cx, claim: &PersistentVolumeClaim) -> Option<&'a Arc<StorageClass>> {
    cx.world.storage_classes.get(&Key::new("", claim.class.clone()?))
}

/// A claim without a volume: one that was promised to it, one that fits, or a new one.
fn find_volume(cx: &Cx, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if claim.class.is_none() {
        let default =
            cx.world.storage_classes.values().find(|class| class.meta.annotation(DEFAULT_CLASS) == Some("true"));
        if let Some(class) = default {
            plan.update(Kind::PersistentVolumeClaim, &claim.meta, Change::ClaimClass(class.meta.key.name.clone()));
        }
        return;
    }
    let promised = cx.world.volumes.values().find(|volume| {
        volume
            .claim
            .as_ref()
            .is_some_and(|(ns, name, uid)| names(claim, ns, name) && (uid.is_empty() || *uid == claim.meta.uid))
    });
    if let Some(volume) = promised {
        if volume.claim.as_ref().is_some_and(|(_, _, uid)| uid.is_empty()) {
            point_volume(volume, claim, plan);
        }
        return finish(claim, volume, plan);
    }
    let class = class_of(cx, claim);
    let waits = class.is_some_and(|class| class.wait_for_consumer);
    let selected = claim.meta.annotation(SELECTED_NODE);
    let report = Reporter::new(SOURCE, Kind::PersistentVolumeClaim, &claim.meta, cx.now);
    if waits && selected.is_none() {
        if claim.phase == ClaimPhase::Pending && cx.world.pods_mounting(&claim.meta.key).next().is_none() {
            plan.record(
                report.normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
            );
        }
        return;
    }
    // Of claims that wait for their first consumer the scheduler knows best: what was not promised to it above is to be made.
    if !waits && let Some(volume) = best_fit(cx, claim) {
        return point_volume(volume, claim, plan);
    }
    match class {
        Some(class) if class.provisioner == cx.config.provisioner => {
            provision(cx, claim, class, selected, &report, plan)
        }
        Some(class) => {
            let text = format!(
                "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator.",
                class.provisioner
            );
            plan.record(report.normal("ExternalProvisioning", text));
        }
        None => {
            let name = claim.class.as_deref().unwrap_or_default();
            let text = if name.is_empty() {
                "no persistent volumes available for this claim and no storage class is set".to_owned()
            } else {
                format!("storageclass.storage.k8s.io \"{name}\" not found")
            };
            let reason = if name.is_empty() { "FailedBinding" } else { "ProvisioningFailed" };
            plan.record(report.warning(reason, text));
        }
    }
}

/// The smallest free volume that will do.
fn best_fit<'a>(cx: &'a Cx, claim: &PersistentVolumeClaim) -> Option<&'a Arc<PersistentVolume>> {
    let fits = |volume: &PersistentVolume| {
        volume.claim.is_none()
            && !volume.meta.is_deleting()
            && matches!(volume.phase, VolumePhase::Pending | VolumePhase::Available)
            && Some(&volume.class) == claim.class.as_ref()
            && volume.block == claim.block
            && volume.capacity >= claim.request
            && claim.access_modes.iter().all(|mode| volume.access_modes.contains(mode))
            && claim.selector.as_ref().is_none_or(|selector| selector.matches(&volume.meta.labels))
    };
    cx.world
        .volumes
        .values()
        .filter(|volume| fits(volume))
        .min_by_key(|volume| (volume.capacity, volume.meta.key.name.clone()))
}

fn is_usable(node: &Node) -> bool {
    let ready = condition::find(&node.conditions, "Ready").is_some_and(|condition| condition.status == Truth::True);
    ready && !node.unschedulable && !taint_eviction::evicts(node)
}

/// Makes a directory on a node into a volume: on the one that the scheduler chose, else on the one with the fewest volumes.
fn provision(
    cx: &Cx,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    selected: Option<&str>,
    report: &Reporter,
    plan: &mut Plan,
) {
    let on = |node: &Node| {
        let hostname = hostname(node);
        cx.world
            .volumes
            .values()
            .filter(|volume| volume.nodes.as_ref().is_some_and(|nodes| nodes.contains(&hostname)))
            .count()
    };
    let node = match selected {
        Some(name) => cx.world.nodes.get(&Key::new("", name)),
        None => cx
            .world
            .nodes
            .values()
            .filter(|node| is_usable(node))
            .min_by_key(|node| (on(node), node.meta.key.name.clone())),
    };
    if let Some(name) = selected.filter(|_| node.is_none()) {
        // It went before the volume was made: the scheduler is to choose another.
        let annotations = vec![(SELECTED_NODE.into(), None)];
        plan.patch_meta(Kind::PersistentVolumeClaim, &claim.meta, MetaPatch { annotations, ..MetaPatch::default() });
        plan.note(report.warning("ProvisioningFailed", format!("node {name} is gone, another is to be chosen")));
        return;
    }
    let Some(node) = node else {
        plan.record(report.warning("ProvisioningFailed", "no node that could hold the volume is ready"));
        plan.look_again(cx.now.plus_ms(15_000));
        return;
    };
    let name: Arc<str> = format!("pvc-{}", claim.meta.uid).into();
    let annotations = Labels::from([(Arc::from(PROVISIONED_BY), class.provisioner.clone())]);
    let body = Body::HostPathVolume {
        path: format!("{}/{name}", cx.config.volume_dir).into(),
        node: hostname(node),
        capacity: claim.request,
        access_modes: claim.access_modes.clone(),
        class: class.meta.key.name.clone(),
        delete: class.reclaim == ReclaimPolicy::Delete,
        block: claim.block,
        claim: (claim.meta.key.clone(), claim.meta.uid.clone()),
    };
    plan.create(NewMeta { key: Key::new("", name.clone()), annotations, ..NewMeta::default() }, body);
    plan.note(report.normal("ProvisioningSucceeded", format!("Successfully provisioned volume {name}")));
}

fn hostname(node: &Node) -> Arc<str> {
    node.meta.labels.get(HOSTNAME).unwrap_or(&node.meta.key.name).clone()
}

/// Looks at one volume.
pub fn reconcile_volume(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(volume) = cx.world.volumes.get(key) else { return plan };
    if !cx.world.all_synced(&[Kind::PersistentVolumeClaim, Kind::PersistentVolume]) {
        return plan;
    }
    let claim = volume.claim.as_ref().and_then(|(namespace, name, uid)| {
        let claim = cx.world.claims.get(&Key { namespace: namespace.clone(), name: name.clone() })?;
        (uid.is_empty() || claim.meta.uid == *uid).then_some(claim)
    });
    if volume.meta.is_deleting() {
        if claim.is_none_or(|claim| claim.volume != volume.meta.key.name) {
            unprotect(Kind::PersistentVolume, &volume.meta, VOLUME_PROTECTION, &mut plan);
        }
        return plan;
    }
    let promised = volume.claim.as_ref().is_some_and(|(_, _, uid)| uid.is_empty());
    let phase = match (&volume.claim, claim) {
        (None, _) => VolumePhase::Available,
        // Promised to a claim that is not there yet, or made for one that has not taken it yet.
        (Some(_), None) if promised => VolumePhase::Available,
        (Some(_), Some(claim)) if claim.volume == volume.meta.key.name => VolumePhase::Bound,
        (Some(_), Some(_)) => VolumePhase::Available,
        (Some(_), None) => VolumePhase::Released,
    };
    if phase == VolumePhase::Released && volume.reclaim == ReclaimPolicy::Delete {
        plan.delete(Kind::PersistentVolume, &volume.meta, Propagation::Default);
        return plan;
    }
    if phase != volume.phase {
        plan.status(Kind::PersistentVolume, &volume.meta, Status::Volume { phase });
    }
    plan
}

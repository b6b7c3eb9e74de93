//! What the scheduler is told of storage: as the manager reads it out of the API's objects.

use model::scheduling::{ClaimFacts, NodeTerm, StorageClassFacts, VolumeFacts};
use model::selector::{Operator, Requirement};
use model::volume::{ClaimPhase, PersistentVolume, PersistentVolumeClaim, VolumePhase};
use model::{Event, Kind, Object};
use placement::StorageChange;
use std::sync::Arc;

/// Annotation of a volume in here: its handle with the driver. The objects' projections hold none.
pub(crate) const HANDLE: &str = "sim/handle";
/// The driver that attaches volumes.
pub(crate) const DRIVER: &str = "csi.example.com";

fn volume(volume: &PersistentVolume) -> VolumeFacts {
    let on = |nodes: &Vec<Arc<str>>| {
        let hostname =
            Requirement { key: model::scheduling::HOSTNAME.into(), operator: Operator::In, values: nodes.clone() };
        vec![NodeTerm { expressions: vec![hostname], fields: Vec::new() }]
    };
    let handle = volume.meta.annotations.get(HANDLE);
    VolumeFacts {
        name: volume.meta.key.name.clone(),
        labels: volume.meta.labels.clone(),
        class: volume.class.clone(),
        capacity: volume.capacity.units(),
        access_modes: volume.access_modes.clone(),
        block: volume.block,
        claim: volume.claim.clone(),
        node_affinity: volume.nodes.as_ref().map(on),
        csi: handle.map(|handle| (DRIVER.into(), handle.clone())),
        available: matches!(volume.phase, VolumePhase::Available | VolumePhase::Pending),
        deleting: volume.meta.is_deleting(),
    }
}

fn claim(claim: &PersistentVolumeClaim) -> ClaimFacts {
    let meta = &claim.meta;
    ClaimFacts {
        namespace: meta.key.namespace.clone(),
        name: meta.key.name.clone(),
        uid: meta.uid.clone(),
        deleting: meta.is_deleting(),
        volume: claim.volume.clone(),
        bind_completed: meta.annotations.contains_key("pv.kubernetes.io/bind-completed"),
        lost: claim.phase == ClaimPhase::Lost,
        class: claim.class.clone(),
        request: claim.request.units(),
        access_modes: claim.access_modes.clone(),
        selector: claim.selector.clone(),
        block: claim.block,
        selected_node: meta.annotations.get("volume.kubernetes.io/selected-node").cloned().unwrap_or_default(),
        owner_pod: "".into(),
    }
}

/// The change that an event is to the scheduler; None: it is about something else.
pub(crate) fn change(event: &Event) -> Option<StorageChange> {
    Some(match event {
        Event::Applied(Object::PersistentVolume(known)) => StorageChange::Volume(volume(known)),
        Event::Applied(Object::PersistentVolumeClaim(known)) => StorageChange::Claim(claim(known)),
        Event::Applied(Object::StorageClass(known)) => StorageChange::Class(StorageClassFacts {
            name: known.meta.key.name.clone(),
            provisioner: known.provisioner.clone(),
            wait_for_consumer: known.wait_for_consumer,
            allowed: None,
        }),
        Event::Deleted { kind: Kind::PersistentVolume, key, .. } => StorageChange::VolumeGone(key.name.clone()),
        Event::Deleted { kind: Kind::PersistentVolumeClaim, key, .. } => StorageChange::ClaimGone(key.clone()),
        Event::Deleted { kind: Kind::StorageClass, key, .. } => StorageChange::ClassGone(key.name.clone()),
        _ => return None,
    })
}

//! Claims, volumes, classes.

use crate::meta::meta;
use crate::read::{at, items, labels, opt_text, path, quantity, str_at, text, texts};
use crate::scheduling::selector;
use model::volume::{ClaimPhase, PersistentVolume, PersistentVolumeClaim, ReclaimPolicy, StorageClass, VolumePhase};
use serde_json::Value;
use std::sync::Arc;

/// A PersistentVolumeClaim.
pub fn claim(object: &Value) -> PersistentVolumeClaim {
    let (spec, status) = (at(object, "spec"), at(object, "status"));
    PersistentVolumeClaim {
        meta: meta(object),
        class: opt_text(spec, "storageClassName"),
        volume: text(spec, "volumeName"),
        access_modes: texts(spec, "accessModes"),
        request: quantity(path(spec, &["resources", "requests", "storage"])).unwrap_or_default(),
        selector: selector(at(spec, "selector")),
        block: str_at(spec, "volumeMode") == "Block",
        phase: match str_at(status, "phase") {
            "Bound" => ClaimPhase::Bound,
            "Lost" => ClaimPhase::Lost,
            _ => ClaimPhase::Pending,
        },
        capacity: quantity(path(status, &["capacity", "storage"])),
    }
}

/// A PersistentVolume.
pub fn volume(object: &Value) -> PersistentVolume {
    let (spec, status) = (at(object, "spec"), at(object, "status"));
    let claim = spec.get("claimRef").map(|claim| (text(claim, "namespace"), text(claim, "name"), text(claim, "uid")));
    PersistentVolume {
        meta: meta(object),
        class: text(spec, "storageClassName"),
        claim,
        capacity: quantity(path(spec, &["capacity", "storage"])).unwrap_or_default(),
        access_modes: texts(spec, "accessModes"),
        reclaim: reclaim(str_at(spec, "persistentVolumeReclaimPolicy")),
        block: str_at(spec, "volumeMode") == "Block",
        host_path: text(at(spec, "hostPath"), "path"),
        nodes: nodes(path(spec, &["nodeAffinity", "required"])),
        phase: match str_at(status, "phase") {
            "Available" => VolumePhase::Available,
            "Bound" => VolumePhase::Bound,
            "Released" => VolumePhase::Released,
            "Failed" => VolumePhase::Failed,
            _ => VolumePhase::Pending,
        },
    }
}

fn reclaim(text: &str) -> ReclaimPolicy {
    if text == "Delete" { ReclaimPolicy::Delete } else { ReclaimPolicy::Retain }
}

/// Hostnames out of terms that name nothing else.
fn nodes(required: &Value) -> Option<Vec<Arc<str>>> {
    let mut nodes = Vec::new();
    for term in items(required, "nodeSelectorTerms") {
        for requirement in items(term, "matchExpressions") {
            if str_at(requirement, "key") == "kubernetes.io/hostname" && str_at(requirement, "operator") == "In" {
                nodes.extend(texts(requirement, "values"));
            }
        }
    }
    (!nodes.is_empty()).then_some(nodes)
}

/// A StorageClass.
pub fn storage_class(object: &Value) -> StorageClass {
    StorageClass {
        meta: meta(object),
        provisioner: text(object, "provisioner"),
        wait_for_consumer: str_at(object, "volumeBindingMode") == "WaitForFirstConsumer",
        // A class that says nothing deletes, unlike a volume that says nothing.
        reclaim: if str_at(object, "reclaimPolicy") == "Retain" {
            ReclaimPolicy::Retain
        } else {
            ReclaimPolicy::Delete
        },
        parameters: labels(at(object, "parameters")),
    }
}

//! Volumes, claims and storage classes.

use super::{AGE, Column, NAME, Row, age, name, or};
use crate::json::{flag, list, text};
use model::Timestamp;
use serde_json::{Value, json};

/// PersistentVolumes.
pub const VOLUME: &[Column] = &[
    NAME,
    Column::text("Capacity", "Size."),
    Column::text("Access Modes", "Ways in which it can be mounted."),
    Column::text("Reclaim Policy", "What happens to it when its claim is deleted."),
    Column::text("Status", "Whether it is available, bound to a claim or released."),
    Column::text("Claim", "The claim that it is bound to."),
    Column::text("StorageClass", "StorageClass of the pv"),
    Column::text("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
    Column::text("Reason", "Why it failed."),
    AGE,
    Column::text("VolumeMode", "Filesystem or Block.").wide(),
];

/// A PersistentVolume's row.
pub fn volume_row(object: &Value, now: Timestamp) -> Row {
    let (spec, status) = (&object["spec"], &object["status"]);
    let claim = &spec["claimRef"];
    let claim =
        if claim.is_null() { String::new() } else { format!("{}/{}", text(&claim["namespace"]), text(&claim["name"])) };
    Row::plain(vec![
        name(object),
        Value::from(or(text(&spec["capacity"]["storage"]), "0")),
        Value::from(access_modes(&spec["accessModes"])),
        Value::from(text(&spec["persistentVolumeReclaimPolicy"])),
        Value::from(phase(object)),
        Value::from(claim),
        Value::from(class(object)),
        Value::from(or(text(&spec["volumeAttributesClassName"]), "<unset>")),
        Value::from(text(&status["reason"])),
        age(object, now),
        Value::from(or(text(&spec["volumeMode"]), "<unset>")),
    ])
}

/// PersistentVolumeClaims.
pub const CLAIM: &[Column] = &[
    NAME,
    Column::text("Status", "Whether it is bound."),
    Column::text("Volume", "The volume that it is bound to."),
    Column::text("Capacity", "Size of the volume."),
    Column::text("Access Modes", "Ways in which the volume can be mounted."),
    Column::text("StorageClass", "StorageClass of the pvc"),
    Column::text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
    AGE,
    Column::text("VolumeMode", "Filesystem or Block.").wide(),
];

/// A PersistentVolumeClaim's row.
pub fn claim_row(object: &Value, now: Timestamp) -> Row {
    let (spec, status) = (&object["spec"], &object["status"]);
    let volume = text(&spec["volumeName"]);
    let (capacity, modes) = if volume.is_empty() {
        (String::new(), String::new())
    } else {
        (or(text(&status["capacity"]["storage"]), "0").to_owned(), access_modes(&status["accessModes"]))
    };
    Row::plain(vec![
        name(object),
        Value::from(phase(object)),
        Value::from(volume),
        Value::from(capacity),
        Value::from(modes),
        Value::from(class(object)),
        Value::from(or(text(&spec["volumeAttributesClassName"]), "<unset>")),
        age(object, now),
        Value::from(or(text(&spec["volumeMode"]), "<unset>")),
    ])
}

fn phase(object: &Value) -> &str {
    if object["metadata"]["deletionTimestamp"].is_null() { text(&object["status"]["phase"]) } else { "Terminating" }
}

/// The old annotation wins over the field, as in Kubernetes.
fn class(object: &Value) -> &str {
    object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"]
        .as_str()
        .unwrap_or_else(|| text(&object["spec"]["storageClassName"]))
}

/// `RWO,ROX,RWX,RWOP`, in this order and each once.
fn access_modes(modes: &Value) -> String {
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let short: Vec<&str> =
        known.iter().filter(|(long, _)| list(modes).iter().any(|mode| mode == long)).map(|(_, short)| *short).collect();
    short.join(",")
}

/// StorageClasses.
pub const STORAGE_CLASS: &[Column] = &[
    NAME,
    Column::text("Provisioner", "Who makes the volumes."),
    Column::text("ReclaimPolicy", "What happens to a volume when its claim is deleted."),
    Column::text("VolumeBindingMode", "When a claim is bound."),
    Column::text("AllowVolumeExpansion", "Whether volumes can grow."),
    AGE,
];

/// A StorageClass's row.
pub fn storage_class_row(object: &Value, now: Timestamp) -> Row {
    let annotations = &object["metadata"]["annotations"];
    let is_default =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
            .iter()
            .any(|key| annotations[*key] == "true");
    let mut title = text(&object["metadata"]["name"]).to_owned();
    if is_default {
        title.push_str(" (default)");
    }
    Row::plain(vec![
        Value::from(title),
        object["provisioner"].clone(),
        Value::from(or(text(&object["reclaimPolicy"]), "Delete")),
        Value::from(or(text(&object["volumeBindingMode"]), "Immediate")),
        json!(flag(&object["allowVolumeExpansion"])),
        age(object, now),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn claims() {
        let bound = json!({"metadata": {"name": "c"}, "spec": {"volumeName": "v", "storageClassName": "s"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}});
        let cells = claim_row(&bound, NOW).cells;
        assert_eq!(cells[1..6], [json!("Bound"), json!("v"), json!("1Gi"), json!("RWO,RWX"), json!("s")]);
        let pending = json!({"status": {"phase": "Pending", "accessModes": ["ReadWriteOnce"]}});
        assert_eq!(claim_row(&pending, NOW).cells[1..5], [json!("Pending"), json!(""), json!(""), json!("")]);
    }

    #[test]
    fn default_class_says_so() {
        let class = json!({"metadata": {"name": "x", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"});
        assert_eq!(
            storage_class_row(&class, NOW).cells[..4],
            [json!("x (default)"), json!("p"), json!("Delete"), json!("Immediate")]
        );
    }
}

//! Volumes, claims and storage classes.

use crate::behaviour::{Context, Facts, Field, Kind, SPEC};
use crate::cause::{Causes, Path};
use crate::json::{Members, child, existing, fill, fill_text, list, members, same, text};
use crate::quantity;
use crate::table::{self, Column, Row};
use model::{Quantity, Timestamp};
use serde_json::{Value, json};

pub fn find(kind: &str) -> Option<&'static dyn Kind> {
    Some(match kind {
        "PersistentVolume" => &PersistentVolume,
        "PersistentVolumeClaim" => &PersistentVolumeClaim,
        "StorageClass" => &StorageClass,
        _ => return None,
    })
}

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn check_modes(spec: &Value, missing: &str, causes: &mut Causes) {
    let path = SPEC.child("accessModes");
    let modes = list(&spec["accessModes"]);
    if modes.is_empty() {
        causes.required(&path, missing);
    }
    for mode in modes {
        causes.one_of(&path, text(mode), ACCESS_MODES);
    }
    let volume_mode = text(&spec["volumeMode"]);
    if !volume_mode.is_empty() {
        causes.one_of(&SPEC.child("volumeMode"), volume_mode, &["Block", "Filesystem"]);
    }
}

struct PersistentVolume;

impl Kind for PersistentVolume {
    fn facts(&self) -> Facts {
        Facts::plain("", "PersistentVolume").with_status()
    }
    fn defaults(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        if let Some(spec) = child(map, "spec") {
            fill_text(spec, "persistentVolumeReclaimPolicy", "Retain");
            fill(spec, "volumeMode", "Filesystem");
            quantity::canonicalise_list(spec, "capacity");
            if let Some(path) = existing(spec, "hostPath") {
                fill(path, "type", "");
            }
        }
        if let Some(status) = child(map, "status") {
            fill_text(status, "phase", "Pending");
        }
    }
    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        object.insert("status".into(), json!({"phase": "Pending"}));
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        check_modes(spec, "", causes);
        let capacity = SPEC.child("capacity");
        let sizes = members(&spec["capacity"]);
        if sizes.is_empty() {
            causes.required(&capacity, "");
        }
        if sizes.len() != 1 || !sizes.contains_key("storage") {
            causes.not_supported(&capacity, spec["capacity"].clone(), &["storage"]);
        }
        let size = text(&spec["capacity"]["storage"]);
        if !members(&spec["capacity"]).is_empty() && Quantity::parse(size).is_ok_and(|q| q.milli() <= 0) {
            causes.invalid(&capacity.key("storage"), size, "must be greater than zero");
        }
        let policy = text(&spec["persistentVolumeReclaimPolicy"]);
        causes.one_of(&SPEC.child("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
        let sources = [
            "hostPath",
            "local",
            "nfs",
            "csi",
            "iscsi",
            "fc",
            "rbd",
            "cephfs",
            "azureDisk",
            "azureFile",
            "gcePersistentDisk",
        ];
        match sources.iter().filter(|key| !spec[**key].is_null()).count() {
            0 => causes.required(&SPEC, "must specify a volume type"),
            1 => {}
            _ => causes.forbidden(&SPEC, "may not specify more than 1 volume type"),
        }
        if !spec["local"].is_null() && spec["nodeAffinity"].is_null() {
            causes.required(&SPEC.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        for key in ["hostPath", "local", "nfs", "csi"] {
            if !same(&new["spec"][key], &old["spec"][key]) {
                causes.forbidden(
                    &SPEC.child("persistentvolumesource"),
                    "spec.persistentvolumesource is immutable after creation",
                );
            }
        }
        causes.immutable(&SPEC.child("volumeMode"), &new["spec"]["volumeMode"], &old["spec"]["volumeMode"]);
    }
    fn columns(&self) -> &'static [Column] {
        table::VOLUME
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::volume_row(object, now)
    }
}

/// Defaults of a claim, also of those inside a StatefulSet.
pub fn claim_defaults(claim: &mut Members) {
    if let Some(spec) = child(claim, "spec") {
        fill(spec, "volumeMode", "Filesystem");
        if let Some(resources) = child(spec, "resources") {
            crate::pod::defaults::resource_requirements(resources);
        }
    }
    if let Some(status) = child(claim, "status") {
        fill_text(status, "phase", "Pending");
    }
}

struct PersistentVolumeClaim;

impl Kind for PersistentVolumeClaim {
    fn facts(&self) -> Facts {
        Facts::plain("", "PersistentVolumeClaim").with_status()
    }
    fn defaults(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            claim_defaults(map);
        }
    }
    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        object.insert("status".into(), json!({"phase": "Pending"}));
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        check_modes(spec, "at least 1 access mode is required", causes);
        let requests = SPEC.child("resources");
        let size = text(&spec["resources"]["requests"]["storage"]);
        if size.is_empty() {
            causes.required(&requests.key("storage"), "");
        } else if Quantity::parse(size).is_ok_and(|q| q.milli() <= 0) {
            causes.invalid(&requests.key("storage"), size, "must be greater than zero");
        }
        if let Some(class) = spec["storageClassName"].as_str().filter(|class| !class.is_empty()) {
            causes.invalid_each(&SPEC.child("storageClassName"), class, crate::names::subdomain(class));
        }
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        let (after, before) = (&new["spec"], &old["spec"]);
        // Kubernetes leaves `spec` out of this path.
        causes.immutable(&Path::root("volumeMode"), &after["volumeMode"], &before["volumeMode"]);
        let bound = !text(&before["volumeName"]).is_empty();
        let mut free = vec!["resources", "volumeAttributesClassName"];
        if !bound {
            free.push("volumeName");
        }
        // A claim from before there was a default class is given it later.
        if before["storageClassName"].is_null() {
            free.push("storageClassName");
        }
        let fixed = |spec: &Value| -> Value {
            let kept = members(spec).iter().filter(|(key, _)| !free.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
        };
        if !same(&fixed(after), &fixed(before)) {
            causes.forbidden(&SPEC, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
        }
        let size = |spec: &Value| Quantity::parse(text(&spec["resources"]["requests"]["storage"])).ok();
        let path = SPEC.child("resources");
        match (size(after), size(before)) {
            (Some(new), Some(old)) if new < old => {
                causes
                    .forbidden(&path.child("requests").child("storage"), "field can not be less than status.capacity");
            }
            (Some(new), Some(old)) if new > old && !bound => {
                causes.forbidden(&SPEC, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
            }
            _ => {}
        }
    }
    fn columns(&self) -> &'static [Column] {
        table::CLAIM
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::claim_row(object, now)
    }
    fn fields(&self) -> &'static [Field] {
        &[]
    }
}

struct StorageClass;

impl Kind for StorageClass {
    fn facts(&self) -> Facts {
        Facts::plain("storage.k8s.io", "StorageClass")
    }
    fn defaults(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            fill(map, "reclaimPolicy", "Delete");
            fill(map, "volumeBindingMode", "Immediate");
        }
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let provisioner = text(&object["provisioner"]);
        let path = Path::root("provisioner");
        if provisioner.is_empty() {
            causes.required(&path, "");
        } else {
            let lower = provisioner.to_lowercase();
            causes.invalid_each(&path, &lower, crate::names::qualified(&lower));
        }
        causes.one_of(&Path::root("reclaimPolicy"), text(&object["reclaimPolicy"]), &["Delete", "Retain"]);
        let mode = text(&object["volumeBindingMode"]);
        causes.one_of(&Path::root("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        for key in ["parameters", "provisioner"] {
            if !same(&new[key], &old[key]) {
                causes.forbidden(&Path::root(key), format!("updates to {key} are forbidden."));
            }
        }
        for key in ["reclaimPolicy", "volumeBindingMode"] {
            causes.immutable(&Path::root(key), &new[key], &old[key]);
        }
    }
    fn columns(&self) -> &'static [Column] {
        table::STORAGE_CLASS
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::storage_class_row(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(causes: Vec<kube::Cause>) -> Vec<String> {
        causes.iter().map(ToString::to_string).collect()
    }

    fn claim(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({"metadata": {"name": "c", "uid": "u"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": "s", "volumeName": "v", "resources": {"requests": {"storage": "1Gi"}}}});
        change(&mut object);
        PersistentVolumeClaim.defaults(&mut object);
        object
    }

    #[test]
    fn claims() {
        let old = claim(|_| {});
        assert_eq!((&old["spec"]["volumeMode"], &old["status"]["phase"]), (&json!("Filesystem"), &json!("Pending")));
        assert_eq!(texts(PersistentVolumeClaim.validate_create(&old)), [""; 0]);
        assert_eq!(
            texts(PersistentVolumeClaim.validate_create(&claim(|c| c["spec"]["accessModes"] = json!([])))),
            ["spec.accessModes: Required value: at least 1 access mode is required"]
        );
        assert_eq!(
            texts(PersistentVolumeClaim.validate_create(&claim(|c| c["spec"]["resources"] = json!({})))),
            ["spec.resources[storage]: Required value"]
        );
        let grown = claim(|c| c["spec"]["resources"]["requests"]["storage"] = json!("2Gi"));
        assert_eq!(texts(PersistentVolumeClaim.validate_update(&grown, &old)), [""; 0]);
        let shrunk = claim(|c| c["spec"]["resources"]["requests"]["storage"] = json!("1Mi"));
        assert_eq!(texts(PersistentVolumeClaim.validate_update(&shrunk, &old)).len(), 1);
        let moved = claim(|c| c["spec"]["storageClassName"] = json!("other"));
        assert!(
            texts(PersistentVolumeClaim.validate_update(&moved, &old))[0]
                .starts_with("spec: Forbidden: spec is immutable after creation")
        );
    }

    #[test]
    fn classes_are_fixed() {
        let mut old = json!({"metadata": {"name": "s", "uid": "u"}, "provisioner": "example.com/p"});
        StorageClass.defaults(&mut old);
        assert_eq!(texts(StorageClass.validate_create(&old)), [""; 0]);
        let mut new = old.clone();
        new["provisioner"] = json!("example.com/q");
        assert_eq!(
            texts(StorageClass.validate_update(&new, &old)),
            ["provisioner: Forbidden: updates to provisioner are forbidden."]
        );
    }
}

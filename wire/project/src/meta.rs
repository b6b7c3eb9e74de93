//! `metadata`.

use crate::read::{at, flag, items, labels, opt_int, str_at, text, texts, time};
use model::{Key, Meta, OwnerRef};
use serde_json::Value;

/// The metadata of an object.
pub fn meta(object: &Value) -> Meta {
    let meta = at(object, "metadata");
    Meta {
        key: Key { namespace: text(meta, "namespace"), name: text(meta, "name") },
        uid: text(meta, "uid"),
        revision: str_at(meta, "resourceVersion").parse().unwrap_or(0),
        generation: opt_int(meta, "generation").unwrap_or(0),
        labels: labels(at(meta, "labels")),
        annotations: annotations(at(meta, "annotations")),
        owners: items(meta, "ownerReferences").iter().map(owner).collect(),
        finalizers: texts(meta, "finalizers"),
        created: time(meta, "creationTimestamp").unwrap_or_default(),
        deleting: time(meta, "deletionTimestamp"),
        deletion_grace_s: opt_int(meta, "deletionGracePeriodSeconds"),
    }
}

/// All annotations but the one that repeats the whole object: nobody decides by it, and it doubles what is kept.
fn annotations(value: &Value) -> model::Labels {
    let mut annotations = labels(value);
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations
}

fn owner(value: &Value) -> OwnerRef {
    OwnerRef {
        api_version: text(value, "apiVersion"),
        kind: text(value, "kind"),
        name: text(value, "name"),
        uid: text(value, "uid"),
        controller: flag(value, "controller"),
        block_owner_deletion: flag(value, "blockOwnerDeletion"),
    }
}

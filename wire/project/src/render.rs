//! Orders as API calls.
//!
//! Status and changes are merge patches with the uid and the resource version that they were made from, so that the API refuses what
//! is stale; a nought is written as `null`, because these fields are left out when they are nought. Conditions that several
//! writers share (of pods and nodes) are strategic merge patches, which touch only the entries that they name.

mod create;
mod json;
mod status;

use bytes::Bytes;
use json::{map, time};
use model::effect::{Change, MetaPatch, Record, Target};
use model::{Effect, Key, Kind, ResourceType, Timestamp};
use serde_json::{Map, Value, json};

/// Content type of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Strategic merge.
    Strategic,
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`.
    pub grace_s: Option<i64>,
    /// `preconditions.uid`, or empty.
    pub uid: std::sync::Arc<str>,
    /// `preconditions.resourceVersion`, or 0.
    pub revision: u64,
    /// `propagationPolicy`.
    pub propagation: Option<&'static str>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch(PatchKind),
    /// DELETE.
    Delete(DeleteOptions),
}

/// One call of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiCall {
    /// What to do.
    pub verb: Verb,
    /// Resource.
    pub resource: &'static ResourceType,
    /// Namespace and name.
    pub key: Key,
    /// `status`, `scale`, `binding`, ...
    pub subresource: Option<&'static str>,
    /// JSON; empty for a deletion.
    pub body: Bytes,
}

/// The events of the core group, into which records go.
static EVENTS: ResourceType =
    ResourceType { group: "", version: "v1", plural: "events", kind: "Event", namespaced: true };

fn call(verb: Verb, kind: Kind, key: &Key, subresource: Option<&'static str>, body: &Value) -> ApiCall {
    ApiCall { verb, resource: kind.resource(), key: key.clone(), subresource, body: body.to_string().into() }
}

fn patch(target: &Target, kind: PatchKind, subresource: Option<&'static str>, mut body: Map<String, Value>) -> ApiCall {
    let meta = body.entry("metadata").or_insert_with(|| json!({}));
    if let Some(meta) = meta.as_object_mut() {
        meta.insert("uid".into(), json!(&*target.uid));
        if target.revision != 0 {
            meta.insert("resourceVersion".into(), json!(target.revision.to_string()));
        }
    }
    call(Verb::Patch(kind), target.kind, &target.key, subresource, &Value::Object(body))
}

/// The calls that carry an order out, in order. `now` is only told (in records), never decided by.
pub fn render(effect: &Effect, now: Timestamp) -> Vec<ApiCall> {
    vec![match effect {
        Effect::Create(meta, body) => {
            let object = create::object(meta, body);
            call(Verb::Create, body.kind(), &meta.key, None, &object)
        }
        Effect::Update(target, change) => update(target, change),
        Effect::PatchStatus(target, status) => {
            let (kind, body) = status::body(status);
            patch(target, kind, Some("status"), map(json!({ "status": body })))
        }
        Effect::PatchMeta(target, change) => meta(target, change),
        Effect::Delete { target, grace_s, propagation } => {
            let options = DeleteOptions {
                grace_s: *grace_s,
                uid: target.uid.clone(),
                revision: target.revision,
                propagation: propagation.as_str(),
            };
            ApiCall {
                verb: Verb::Delete(options),
                resource: target.kind.resource(),
                key: target.key.clone(),
                subresource: None,
                body: Bytes::new(),
            }
        }
        Effect::Bind { pod, node, annotations } => {
            let mut body = json!({
                "apiVersion": "v1", "kind": "Binding",
                "metadata": { "namespace": &*pod.key.namespace, "name": &*pod.key.name, "uid": &*pod.uid },
                "target": { "apiVersion": "v1", "kind": "Node", "name": &**node },
            });
            if !annotations.is_empty() {
                body["metadata"]["annotations"] =
                    annotations.iter().map(|(key, text)| (key.to_string(), &**text)).collect();
            }
            call(Verb::Create, Kind::Pod, &pod.key, Some("binding"), &body)
        }
        Effect::Evict { pod, grace_s } => {
            let body = json!({
                "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": { "namespace": &*pod.key.namespace, "name": &*pod.key.name },
                "deleteOptions": { "gracePeriodSeconds": grace_s, "preconditions": { "uid": &*pod.uid } },
            });
            call(Verb::Create, Kind::Pod, &pod.key, Some("eviction"), &body)
        }
        Effect::Record(record) => event(record, now),
    }]
}

fn update(target: &Target, change: &Change) -> ApiCall {
    let merge = |body: Value| patch(target, PatchKind::Merge, None, map(body));
    match change {
        Change::ReplicaSet { replicas, min_ready_s, annotations } => {
            let mut spec = Map::new();
            if let Some(replicas) = replicas {
                spec.insert("replicas".into(), json!(replicas));
            }
            if let Some(seconds) = min_ready_s {
                spec.insert("minReadySeconds".into(), json!(seconds));
            }
            merge(json!({ "metadata": { "annotations": json::labels(annotations) }, "spec": spec }))
        }
        Change::Annotations(annotations) => merge(json!({ "metadata": { "annotations": json::labels(annotations) } })),
        Change::Scale { replicas } => {
            // The scale of an object has the object's uid and version, but its own kind.
            patch(target, PatchKind::Merge, Some("scale"), map(json!({ "spec": { "replicas": replicas } })))
        }
        Change::RevisionNumber(number) => merge(json!({ "revision": number })),
        Change::EndpointSlice { ports, endpoints, labels, annotations } => merge(json!({
            "metadata": { "labels": json::labels(labels), "annotations": json::labels(annotations) },
            "ports": json::endpoint_ports(ports),
            "endpoints": json::endpoints(endpoints),
        })),
        Change::Endpoints { subsets, labels, annotations } => merge(json!({
            "metadata": { "labels": json::labels(labels), "annotations": json::labels(annotations) },
            "subsets": json::subsets(subsets),
        })),
        Change::Taints(taints) => merge(json!({ "spec": { "taints": json::taints(taints) } })),
        Change::VolumeClaim(claim) => {
            merge(json!({ "spec": { "claimRef": claim.as_ref().map(|(key, uid)| json::claim_ref(key, uid)) } }))
        }
        Change::ClaimVolume { volume, annotations } => merge(json!({
            "metadata": { "annotations": json::labels(annotations) },
            "spec": { "volumeName": &**volume },
        })),
        Change::ClaimClass(class) => merge(json!({ "spec": { "storageClassName": &**class } })),
        Change::FinalizeNamespace(namespace) => {
            let left: Vec<&str> = namespace.finalizers.iter().map(|f| &**f).filter(|f| *f != "kubernetes").collect();
            let body = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": &*target.key.name, "uid": &*target.uid, "resourceVersion": target.revision.to_string(),
                },
                "spec": { "finalizers": left },
            });
            call(Verb::Update, Kind::Namespace, &target.key, Some("finalize"), &body)
        }
        Change::RootCa(pem) => merge(json!({ "data": { "ca.crt": &**pem } })),
        Change::Suspend(suspend) => merge(json!({ "spec": { "suspend": suspend } })),
    }
}

fn meta(target: &Target, change: &MetaPatch) -> ApiCall {
    let mut meta = Map::new();
    let optional = |entries: &[(std::sync::Arc<str>, Option<std::sync::Arc<str>>)]| -> Value {
        entries.iter().map(|(key, value)| (key.to_string(), json!(value.as_deref()))).collect::<Map<_, _>>().into()
    };
    if !change.labels.is_empty() {
        meta.insert("labels".into(), optional(&change.labels));
    }
    if !change.annotations.is_empty() {
        meta.insert("annotations".into(), optional(&change.annotations));
    }
    if let Some(owners) = &change.owners {
        meta.insert("ownerReferences".into(), json::owners(owners));
    }
    if let Some(finalizers) = &change.finalizers {
        meta.insert("finalizers".into(), finalizers.iter().map(|f| json!(&**f)).collect());
    }
    patch(target, PatchKind::Merge, None, map(json!({ "metadata": meta })))
}

/// A core/v1 Event. Its name is a hash of what it says about whom, so that a repetition meets its forerunner and is counted there.
fn event(record: &Record, now: Timestamp) -> ApiCall {
    let about = &record.about;
    let text = format!("{}/{}/{}/{}/{}", about.uid, record.warning, record.reason, record.message, record.source);
    let name = format!("{}.{:016x}", about.key.name, model::map::stable_hash(text.as_bytes()));
    // Events about cluster-scoped objects live in `default`, as client-go puts them.
    let namespace = if about.key.namespace.is_empty() { "default" } else { &*about.key.namespace };
    let at = time(if record.at.0 == 0 { now } else { record.at });
    let body = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": { "namespace": namespace, "name": &name },
        "involvedObject": {
            "apiVersion": about.kind.resource().api_version(), "kind": about.kind.resource().kind,
            "namespace": &*about.key.namespace, "name": &*about.key.name, "uid": &*about.uid,
            "resourceVersion": if about.revision == 0 { String::new() } else { about.revision.to_string() },
        },
        "type": if record.warning { "Warning" } else { "Normal" },
        "reason": &*record.reason, "message": &*record.message,
        "source": { "component": record.source },
        "reportingComponent": record.source, "reportingInstance": "",
        "firstTimestamp": &at, "lastTimestamp": &at, "count": 1,
    });
    ApiCall {
        verb: Verb::Create,
        resource: &EVENTS,
        key: Key::new(namespace, name),
        subresource: None,
        body: body.to_string().into(),
    }
}

//! Objects to be made.

use super::json::{self, labels, map, owners, strings};
use crate::pod::TEMPLATE_HASH;
use model::effect::{Body, NewMeta, NewPod};
use model::{Doc, Labels};
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn parse(doc: &Doc) -> Map<String, Value> {
    // Templates were JSON when they were read; an empty object is refused by the API, which says why.
    map(serde_json::from_str(doc.text()).unwrap_or(Value::Null))
}

fn metadata(meta: &NewMeta) -> Map<String, Value> {
    let mut value = Map::new();
    value.insert("name".into(), json!(&*meta.key.name));
    if !meta.key.namespace.is_empty() {
        value.insert("namespace".into(), json!(&*meta.key.namespace));
    }
    if !meta.generate_name.is_empty() {
        value.insert("generateName".into(), json!(&*meta.generate_name));
    }
    let mut insert = |field: &str, entries: &Labels| {
        if !entries.is_empty() {
            value.insert(field.into(), labels(entries));
        }
    };
    insert("labels", &meta.labels);
    insert("annotations", &meta.annotations);
    if !meta.owners.is_empty() {
        value.insert("ownerReferences".into(), owners(&meta.owners));
    }
    if !meta.finalizers.is_empty() {
        value.insert("finalizers".into(), strings(&meta.finalizers));
    }
    value
}

/// The whole object.
pub fn object(meta: &NewMeta, body: &Body) -> Value {
    let mut object = match body {
        Body::Pod(pod) => self::pod(meta, pod),
        Body::ReplicaSet { replicas, min_ready_s, selector, template, hash } => {
            let spec = replica_set(*replicas, *min_ready_s, selector, template, hash);
            map(json!({ "metadata": metadata(meta), "spec": spec }))
        }
        Body::ControllerRevision { number, data } => {
            map(json!({ "metadata": metadata(meta), "revision": number, "data": parse(data) }))
        }
        Body::Job { template } | Body::Claim { template } => from_template(meta, template),
        Body::HostPathVolume { .. } => volume(meta, body),
        Body::EndpointSlice { address_type, ports, endpoints } => map(json!({
            "metadata": metadata(meta),
            "addressType": address_type.as_str(),
            "ports": json::endpoint_ports(ports),
            "endpoints": json::endpoints(endpoints),
        })),
        Body::Endpoints { subsets } => map(json!({ "metadata": metadata(meta), "subsets": json::subsets(subsets) })),
        Body::ServiceAccount => map(json!({ "metadata": metadata(meta) })),
        Body::RootCa { pem } => map(json!({ "metadata": metadata(meta), "data": { "ca.crt": &**pem } })),
    };
    let resource = body.kind().resource();
    object.insert("apiVersion".into(), json!(resource.api_version()));
    object.insert("kind".into(), json!(resource.kind));
    object.into()
}

/// An object of a template that has `metadata` and `spec`: names, owners and more labels come on top of the template's metadata.
fn from_template(meta: &NewMeta, template: &Doc) -> Map<String, Value> {
    let mut object = parse(template);
    object.remove("status");
    let mut merged = object.remove("metadata").map(map).unwrap_or_default();
    merged.remove("creationTimestamp");
    for (field, value) in metadata(meta) {
        match (merged.get_mut(&field).and_then(Value::as_object_mut), value) {
            (Some(old), Value::Object(new)) => old.extend(new),
            (_, value) => {
                merged.insert(field, value);
            }
        }
    }
    object.insert("metadata".into(), merged.into());
    object
}

fn replica_set(
    replicas: i32,
    min_ready_s: i32,
    selector: &model::LabelSelector,
    template: &Doc,
    hash: &Arc<str>,
) -> Value {
    let mut template = parse(template);
    let meta = template.entry("metadata").or_insert_with(|| json!({}));
    if let Some(meta) = meta.as_object_mut() {
        let labels = meta.entry("labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(TEMPLATE_HASH.into(), json!(&**hash));
        }
    }
    let mut chosen = json::selector(selector);
    if !chosen["matchLabels"].is_object() {
        chosen["matchLabels"] = json!({});
    }
    chosen["matchLabels"][TEMPLATE_HASH] = json!(&**hash);
    let mut spec = json!({ "replicas": replicas, "selector": chosen, "template": template });
    if min_ready_s != 0 {
        spec["minReadySeconds"] = json!(min_ready_s);
    }
    spec
}

fn pod(meta: &NewMeta, pod: &NewPod) -> Map<String, Value> {
    let mut object = from_template(meta, &pod.template);
    let spec = object.entry("spec").or_insert_with(|| json!({}));
    let Some(spec) = spec.as_object_mut() else { return object };
    for (field, text) in [("nodeName", &pod.node_name), ("hostname", &pod.hostname), ("subdomain", &pod.subdomain)] {
        if !text.is_empty() {
            spec.insert(field.into(), json!(&**text));
        }
    }
    if let Some(node) = &pod.only_node {
        only_node(spec, node);
    }
    append(spec, "tolerations", pod.tolerations.iter().map(json::toleration));
    for (volume, claim) in &pod.claims {
        put_named(spec, "volumes", json!({ "name": &**volume, "persistentVolumeClaim": { "claimName": &**claim } }));
    }
    let env = pod.env.iter().map(|(name, value)| json!({ "name": &**name, "value": &**value }));
    let fields = pod.env_from_field.iter().map(|(name, path)| {
        json!({ "name": &**name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": &**path } } })
    });
    let env: Vec<Value> = env.chain(fields).collect();
    if !env.is_empty() {
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let Some(container) = container.as_object_mut() else { continue };
                for variable in &env {
                    put_named(container, "env", variable.clone());
                }
            }
        }
    }
    object
}

fn append(object: &mut Map<String, Value>, field: &str, more: impl Iterator<Item = Value>) {
    let mut more = more.peekable();
    if more.peek().is_none() {
        return;
    }
    let list = object.entry(field).or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.extend(more);
    }
}

/// Puts `value` into a list in the place of the entry with its name.
fn put_named(object: &mut Map<String, Value>, field: &str, value: Value) {
    let list = object.entry(field).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.retain(|old| old["name"] != value["name"]);
        list.push(value);
    }
}

/// Requires the node of this name: every term of a required affinity has its fields replaced, as upstream's DaemonSet does.
fn only_node(spec: &mut Map<String, Value>, node: &str) {
    let field = json!([{ "key": "metadata.name", "operator": "In", "values": [node] }]);
    let affinity = spec.entry("affinity").or_insert_with(|| json!({}));
    if affinity.is_null() {
        *affinity = json!({});
    }
    let Some(affinity) = affinity.as_object_mut() else { return };
    let node_affinity = affinity.entry("nodeAffinity").or_insert_with(|| json!({}));
    if node_affinity.is_null() {
        *node_affinity = json!({});
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    match node_affinity[REQUIRED]["nodeSelectorTerms"].as_array_mut() {
        Some(terms) if !terms.is_empty() => {
            for term in terms {
                term["matchFields"] = field.clone();
            }
        }
        _ => node_affinity[REQUIRED] = json!({ "nodeSelectorTerms": [{ "matchFields": field }] }),
    }
}

fn volume(meta: &NewMeta, body: &Body) -> Map<String, Value> {
    let Body::HostPathVolume { path, node, capacity, access_modes, class, delete, block, claim } = body else {
        return Map::new();
    };
    let hostnames = json!([{ "key": "kubernetes.io/hostname", "operator": "In", "values": [&**node] }]);
    map(json!({
        "metadata": metadata(meta),
        "spec": {
            "capacity": { "storage": json::quantity(*capacity) },
            "accessModes": strings(access_modes),
            "storageClassName": &**class,
            "persistentVolumeReclaimPolicy": if *delete { "Delete" } else { "Retain" },
            "volumeMode": if *block { "Block" } else { "Filesystem" },
            "hostPath": { "path": &**path, "type": "DirectoryOrCreate" },
            "claimRef": json::claim_ref(&claim.0, &claim.1),
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": hostnames }] } },
        },
    }))
}

//! Nodes, namespaces, events, leases, configuration, quotas.

use super::{AGE, Column, NAME, Row, age, name, number, or, since};
use crate::json::{flag, list, members, text};
use model::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

/// Nodes.
pub const NODE: &[Column] = &[
    NAME,
    Column::text("Status", "The status of the node"),
    Column::text("Roles", "The roles of the node"),
    AGE,
    Column::text("Version", "Version of the node agent."),
    Column::text("Internal-IP", "Address inside the cluster.").wide(),
    Column::text("External-IP", "Address outside the cluster.").wide(),
    Column::text("OS-Image", "Operating system.").wide(),
    Column::text("Kernel-Version", "Kernel.").wide(),
    Column::text("Container-Runtime", "Container runtime and its version.").wide(),
];

/// A Node's row.
pub fn node_row(object: &Value, now: Timestamp) -> Row {
    let (status, info) = (&object["status"], &object["status"]["nodeInfo"]);
    let mut state = match super::condition(object, "Ready") {
        "" => "Unknown".to_owned(),
        "True" => "Ready".to_owned(),
        _ => "NotReady".to_owned(),
    };
    if flag(&object["spec"]["unschedulable"]) {
        state.push_str(",SchedulingDisabled");
    }
    let roles: BTreeSet<&str> = members(&object["metadata"]["labels"])
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    let roles = roles.into_iter().collect::<Vec<_>>().join(",");
    let address = |kind: &str| {
        let found = list(&status["addresses"]).iter().find(|address| address["type"] == kind);
        Value::from(found.map_or("<none>", |address| text(&address["address"])))
    };
    let known = |key: &str| Value::from(or(text(&info[key]), "<unknown>"));
    Row::plain(vec![
        name(object),
        Value::from(state),
        Value::from(or(&roles, "<none>")),
        age(object, now),
        Value::from(text(&info["kubeletVersion"])),
        address("InternalIP"),
        address("ExternalIP"),
        known("osImage"),
        known("kernelVersion"),
        known("containerRuntimeVersion"),
    ])
}

/// Namespaces.
pub const NAMESPACE: &[Column] = &[NAME, Column::text("Status", "The status of the namespace"), AGE];

/// A Namespace's row.
pub fn namespace_row(object: &Value, now: Timestamp) -> Row {
    Row::plain(vec![name(object), Value::from(text(&object["status"]["phase"])), age(object, now)])
}

/// Events.
pub const EVENT: &[Column] = &[
    Column::text("Last Seen", "When it last happened."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "What happened, in a word."),
    Column::text("Object", "What it happened to."),
    Column::text("Subobject", "The part of the object.").wide(),
    Column::text("Source", "Who saw it.").wide(),
    Column::text("Message", "What happened, in words."),
    Column::text("First Seen", "When it first happened.").wide(),
    Column::text("Count", "How often it happened.").wide(),
    Column { priority: 1, ..NAME },
];

/// An Event's row. Both the core kind and `events.k8s.io` are understood.
pub fn event_row(object: &Value, now: Timestamp) -> Row {
    let pick = |core: &str, new: &str| if object[core].is_null() { &object[new] } else { &object[core] };
    let first = match pick("firstTimestamp", "deprecatedFirstTimestamp") {
        Value::Null => since(&object["eventTime"], now),
        at => since(at, now),
    };
    let mut last = match pick("lastTimestamp", "deprecatedLastTimestamp") {
        Value::Null => first.clone(),
        at => since(at, now),
    };
    let mut count = pick("count", "deprecatedCount").as_i64().unwrap_or(0);
    if !object["series"].is_null() {
        last = since(&object["series"]["lastObservedTime"], now);
        count = object["series"]["count"].as_i64().unwrap_or(0);
    } else if count == 0 {
        count = 1;
    }
    let about = pick("involvedObject", "regarding");
    let kind = text(&about["kind"]).to_lowercase();
    let target = match text(&about["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = pick("source", "deprecatedSource");
    let component = or(text(&source["component"]), text(pick("reportingComponent", "reportingController")));
    let instance = or(text(&source["host"]), text(&object["reportingInstance"]));
    let source = if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") };
    Row::plain(vec![
        Value::from(last),
        Value::from(text(&object["type"])),
        Value::from(text(&object["reason"])),
        Value::from(target),
        Value::from(text(&about["fieldPath"])),
        Value::from(source),
        Value::from(text(pick("message", "note")).trim()),
        Value::from(first),
        Value::from(count),
        name(object),
    ])
}

/// Leases.
pub const LEASE: &[Column] = &[NAME, Column::text("Holder", "Who holds it."), AGE];

/// A Lease's row.
pub fn lease_row(object: &Value, now: Timestamp) -> Row {
    Row::plain(vec![name(object), Value::from(text(&object["spec"]["holderIdentity"])), age(object, now)])
}

/// ConfigMaps.
pub const CONFIG_MAP: &[Column] = &[NAME, Column::text("Data", "Number of keys."), AGE];

/// A ConfigMap's row.
pub fn config_map_row(object: &Value, now: Timestamp) -> Row {
    let keys = members(&object["data"]).len() + members(&object["binaryData"]).len();
    Row::plain(vec![name(object), Value::from(keys), age(object, now)])
}

/// Secrets.
pub const SECRET: &[Column] =
    &[NAME, Column::text("Type", "What kind of secret it is."), Column::text("Data", "Number of keys."), AGE];

/// A Secret's row.
pub fn secret_row(object: &Value, now: Timestamp) -> Row {
    Row::plain(vec![
        name(object),
        Value::from(text(&object["type"])),
        Value::from(members(&object["data"]).len()),
        age(object, now),
    ])
}

/// ServiceAccounts.
pub const SERVICE_ACCOUNT: &[Column] = &[NAME, Column::text("Secrets", "Number of secrets."), AGE];

/// A ServiceAccount's row.
pub fn service_account_row(object: &Value, now: Timestamp) -> Row {
    Row::plain(vec![name(object), Value::from(list(&object["secrets"]).len()), age(object, now)])
}

/// ResourceQuotas.
pub const RESOURCE_QUOTA: &[Column] = &[
    NAME,
    Column::text("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
    Column::text(
        "Limit",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    AGE,
];

/// A ResourceQuota's row.
pub fn resource_quota_row(object: &Value, now: Timestamp) -> Row {
    let status = &object["status"];
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in members(&status["hard"]) {
        let part = format!("{resource}: {}/{}", or(text(&status["used"][resource]), "0"), text(hard));
        if resource.starts_with("limits.") { limits.push(part) } else { requests.push(part) }
    }
    Row::plain(vec![name(object), Value::from(requests.join(", ")), Value::from(limits.join(", ")), age(object, now)])
}

/// RuntimeClasses.
pub const RUNTIME_CLASS: &[Column] = &[NAME, Column::text("Handler", "Name of the handler in the runtime."), AGE];

/// A RuntimeClass's row.
pub fn runtime_class_row(object: &Value, now: Timestamp) -> Row {
    Row::plain(vec![name(object), object["handler"].clone(), age(object, now)])
}

/// Webhook configurations.
pub const WEBHOOKS: &[Column] = &[NAME, Column::number("Webhooks", "Number of webhooks."), AGE];

/// A webhook configuration's row.
pub fn webhooks_row(object: &Value, now: Timestamp) -> Row {
    Row::plain(vec![name(object), Value::from(list(&object["webhooks"]).len()), age(object, now)])
}

/// APIServices.
pub const API_SERVICE: &[Column] =
    &[NAME, Column::text("Service", "Who serves it."), Column::text("Available", "Whether it answers."), AGE];

/// An APIService's row.
pub fn api_service_row(object: &Value, now: Timestamp) -> Row {
    let service = &object["spec"]["service"];
    let served_by = if service.is_null() {
        "Local".to_owned()
    } else {
        format!("{}/{}", text(&service["namespace"]), text(&service["name"]))
    };
    let available = or(super::condition(object, "Available"), "Unknown");
    Row::plain(vec![name(object), Value::from(served_by), Value::from(available), age(object, now)])
}

/// PodTemplates.
pub const POD_TEMPLATE: &[Column] = &[
    NAME,
    Column::text("Containers", "Names of each container in the template."),
    Column::text("Images", "Images referenced by each container in the template."),
    Column::text("Pod Labels", "The labels for the pod template."),
];

/// A PodTemplate's row.
pub fn pod_template_row(object: &Value, _now: Timestamp) -> Row {
    let [names, images] = super::container_cells(&object["template"]["spec"]);
    let labels = super::format_labels(&object["template"]["metadata"]["labels"]);
    Row::plain(vec![name(object), names, images, Value::from(labels)])
}

/// Scale subresources.
pub const SCALE: &[Column] = &[
    Column { format: "", ..NAME },
    Column::number("Desired", "Number of wanted pods."),
    Column::number("Available", "Number of pods."),
    AGE,
];

/// A Scale's row.
pub fn scale_row(object: &Value, now: Timestamp) -> Row {
    let (desired, available) = (number(&object["spec"]["replicas"]), number(&object["status"]["replicas"]));
    Row::plain(vec![name(object), desired, available, age(object, now)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn nodes() {
        let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "worker"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "False"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian"}}});
        let cells: Vec<String> = node_row(&node, NOW).cells.iter().map(|cell| text(cell).to_owned()).collect();
        assert_eq!(
            cells,
            [
                "n",
                "NotReady,SchedulingDisabled",
                "control-plane,worker",
                "<unknown>",
                "v1",
                "10.0.0.1",
                "<none>",
                "Debian",
                "<unknown>",
                "<unknown>"
            ]
        );
    }

    #[test]
    fn events() {
        let event = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": " done\n",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            "source": {"component": "kubelet", "host": "n"}, "count": 3,
            "firstTimestamp": "2023-11-14T22:12:20Z", "lastTimestamp": "2023-11-14T22:13:10Z"});
        let cells = event_row(&event, NOW).cells;
        assert_eq!(
            cells,
            [
                json!("10s"),
                json!("Normal"),
                json!("Pulled"),
                json!("pod/p"),
                json!("spec.containers{c}"),
                json!("kubelet, n"),
                json!("done"),
                json!("60s"),
                json!(3),
                json!("e")
            ]
        );
        let new = json!({"eventTime": "2023-11-14T22:13:10.000000Z", "regarding": {"kind": "Node"}, "note": "n", "reportingController": "c"});
        let cells = event_row(&new, NOW).cells;
        assert_eq!(
            (&cells[0], &cells[3], &cells[5], &cells[8]),
            (&json!("10s"), &json!("node"), &json!("c"), &json!(1))
        );
    }

    #[test]
    fn quotas() {
        let quota = json!({"status": {"hard": {"limits.cpu": "2", "pods": "10"}, "used": {"pods": "3"}}});
        assert_eq!(resource_quota_row(&quota, NOW).cells[1..3], [json!("pods: 3/10"), json!("limits.cpu: 0/2")]);
    }
}

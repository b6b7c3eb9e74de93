//! Between the versions of one stored object: `autoscaling/v1` and `v2`, core and `events.k8s.io` Events. Other versions, those of
//! custom resources among them, differ in their `apiVersion` only.

use crate::codec::conform;
use crate::registry::Resource;
use serde_json::{Map, Value, json};

/// An object of one resource as an object of another that is kept in the same place.
pub fn convert(value: Value, from: &Resource, to: &Resource) -> Value {
    if from.group() == to.group() && from.version() == to.version() {
        return value;
    }
    let mut value = match (from.group(), from.version(), to.group(), to.version()) {
        ("autoscaling", "v1", "autoscaling", "v2") => autoscaler_to_v2(value),
        ("autoscaling", "v2", "autoscaling", "v1") => autoscaler_to_v1(value),
        ("", _, "events.k8s.io", _) => event(value, false),
        ("events.k8s.io", _, "", _) => event(value, true),
        _ => value,
    };
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), to.api_version().into());
    }
    if !to.is_kubernetes_own() {
        return value;
    }
    // Fields that one version always prints and the other does not come and go here.
    match conform::conform(to.schema(), value.clone()) {
        Ok(decoded) => decoded.value,
        Err(_) => value,
    }
}

/// Fields of Events: the name in core, and in `events.k8s.io`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn event(mut value: Value, to_core: bool) -> Value {
    if let Some(map) = value.as_object_mut() {
        for (core, events) in EVENT_FIELDS {
            let (from, to) = if to_core { (events, core) } else { (core, events) };
            if let Some(field) = map.remove(from) {
                map.insert(to.to_owned(), field);
            }
        }
    }
    value
}

/// What `v1` cannot say is kept in this annotation, as `v2` JSON, so that an update through `v1` loses nothing.
const KEPT: &str = "autoscaling.alpha.kubernetes.io/v2";

fn is_cpu_utilization(metric: &Value, target: &str) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"][target]["averageUtilization"].is_i64()
}

fn autoscaler_to_v1(mut value: Value) -> Value {
    let mut kept = Map::new();
    for (part, list, target, short) in [
        ("spec", "metrics", "target", "targetCPUUtilizationPercentage"),
        ("status", "currentMetrics", "current", "currentCPUUtilizationPercentage"),
    ] {
        let Some(fields) = value[part].as_object_mut() else { continue };
        if let Some(Value::Array(mut metrics)) = fields.remove(list) {
            if let Some(at) = metrics.iter().position(|metric| is_cpu_utilization(metric, target)) {
                let metric = metrics.remove(at);
                fields.insert(short.to_owned(), metric["resource"][target]["averageUtilization"].clone());
            }
            if !metrics.is_empty() {
                kept.insert(list.to_owned(), Value::Array(metrics));
            }
        }
        for extra in ["behavior", "conditions"] {
            if let Some(field) = fields.remove(extra) {
                kept.insert(extra.to_owned(), field);
            }
        }
    }
    if !kept.is_empty() {
        value["metadata"]["annotations"][KEPT] = Value::Object(kept).to_string().into();
    }
    value
}

fn autoscaler_to_v2(mut value: Value) -> Value {
    let annotations = value["metadata"].get_mut("annotations").and_then(Value::as_object_mut);
    let text = annotations.and_then(|map| map.remove(KEPT));
    let kept: Map<String, Value> =
        text.as_ref().and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for (part, list, target, short, extra) in [
        ("spec", "metrics", "target", "targetCPUUtilizationPercentage", "behavior"),
        ("status", "currentMetrics", "current", "currentCPUUtilizationPercentage", "conditions"),
    ] {
        let Some(fields) = value[part].as_object_mut() else { continue };
        let mut metrics = kept.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        if let Some(percent) = fields.remove(short) {
            let mut amount = json!({"averageUtilization": percent});
            if part == "spec" {
                amount["type"] = "Utilization".into();
            }
            let mut resource = json!({"name": "cpu"});
            resource[target] = amount;
            metrics.insert(0, json!({"type": "Resource", "resource": resource}));
        }
        if !metrics.is_empty() {
            fields.insert(list.to_owned(), Value::Array(metrics));
        }
        if let Some(field) = kept.get(extra) {
            fields.insert(extra.to_owned(), field.clone());
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Format, Kind, decode};
    use crate::registry::Registry;

    fn there_and_back(
        registry: &Registry,
        one: (&str, &str, &str),
        other: (&str, &str, &str),
        body: &Value,
    ) -> (Value, Value) {
        let (one, other) =
            (registry.resource(one.0, one.1, one.2).unwrap(), registry.resource(other.0, other.1, other.2).unwrap());
        let value = decode(&Kind::of(one), Format::Json, body.to_string().as_bytes()).unwrap().value;
        let there = convert(value.clone(), one, other);
        assert_eq!(convert(there.clone(), other, one), value);
        (value, there)
    }

    #[test]
    fn events_are_the_same_object_under_two_names() {
        let body = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "count": 2,
            "reason": "R", "source": {"component": "kubelet"}, "firstTimestamp": "2024-01-01T00:00:00Z", "reportingComponent": "kubelet"});
        let (_, there) =
            there_and_back(&Registry::builtin(), ("", "v1", "events"), ("events.k8s.io", "v1", "events"), &body);
        assert_eq!(there["apiVersion"], "events.k8s.io/v1");
        assert_eq!(
            (&there["note"], &there["deprecatedCount"], &there["reportingController"]),
            (&json!("m"), &json!(2), &json!("kubelet"))
        );
        assert_eq!(there["regarding"], json!({"kind": "Pod", "name": "p"}));
    }

    #[test]
    fn autoscalers_lose_nothing_on_the_way_through_v1() {
        let registry = Registry::builtin();
        let (v1, v2) =
            (("autoscaling", "v1", "horizontalpodautoscalers"), ("autoscaling", "v2", "horizontalpodautoscalers"));
        let simple = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 80,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"}}});
        let (_, there) = there_and_back(&registry, v1, v2, &simple);
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        assert_eq!(
            there["spec"]["metrics"],
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
        );
        let full = json!({"metadata": {"name": "h", "annotations": {"a": "b"}}, "spec": {"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}}]},
            "status": {"conditions": [{"type": "AbleToScale", "status": "True"}]}});
        let (_, there) = there_and_back(&registry, v2, v1, &full);
        assert_eq!(there["spec"]["targetCPUUtilizationPercentage"], 80);
        assert!(there["spec"].get("metrics").is_none());
    }
}

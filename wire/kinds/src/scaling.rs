//! HorizontalPodAutoscalers (autoscaling/v2).

use crate::behaviour::{Context, Facts, Kind, SPEC};
use crate::cause::{Causes, Path};
use crate::json::{Members, child, existing, fill, fill_text, is_empty, list, text};
use crate::names;
use crate::table::{self, Column, Row};
use model::Timestamp;
use serde_json::{Value, json};

pub fn find(kind: &str) -> Option<&'static dyn Kind> {
    (kind == "HorizontalPodAutoscaler").then_some(&HorizontalPodAutoscaler as &dyn Kind)
}

struct HorizontalPodAutoscaler;

impl Kind for HorizontalPodAutoscaler {
    fn facts(&self) -> Facts {
        Facts::plain("autoscaling", "HorizontalPodAutoscaler").with_status()
    }

    fn defaults(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|map| child(map, "spec")) else { return };
        fill(spec, "minReplicas", 1);
        if spec.get("metrics").is_none_or(is_empty) {
            let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
            spec.insert("metrics".into(), json!([cpu]));
        }
        if let Some(behavior) = existing(spec, "behavior") {
            scaling_rules(behavior, "scaleUp", 0, &[("Pods", 4), ("Percent", 100)]);
            scaling_rules(behavior, "scaleDown", -1, &[("Percent", 100)]);
        }
    }

    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        object.insert("status".into(), json!({"currentMetrics": null, "desiredReplicas": 0}));
        crate::json::drop_nulls(&mut object["status"]);
    }

    fn check_new(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        let api_version = text(&spec["scaleTargetRef"]["apiVersion"]);
        if !api_version.contains('/') {
            let path = SPEC.child("scaleTargetRef");
            causes.invalid(&path.child("apiVersion"), api_version, "apiVersion must specify API group");
        }
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        let (least, most) = (spec["minReplicas"].as_i64(), spec["maxReplicas"].as_i64().unwrap_or(0));
        if let Some(least) = least.filter(|least| *least < 1) {
            causes.invalid(&SPEC.child("minReplicas"), least, "must be greater than or equal to 1");
        }
        let outward = |metric: &&Value| matches!(text(&metric["type"]), "Object" | "External");
        if least == Some(0) && !list(&spec["metrics"]).iter().any(|metric| outward(&metric)) {
            let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
            causes.forbidden(&SPEC.child("metrics"), detail);
        }
        if most < 1 {
            causes.required(&SPEC.child("maxReplicas"), "must be set and greater than 0");
        }
        if least.is_some_and(|least| most < least) {
            causes.invalid(&SPEC.child("maxReplicas"), most, "must be greater than or equal to `minReplicas`");
        }
        let target = SPEC.child("scaleTargetRef");
        for key in ["kind", "name"] {
            let value = text(&spec["scaleTargetRef"][key]);
            if value.is_empty() {
                causes.required(&target.child(key), "");
            } else {
                causes.invalid_each(&target.child(key), value, names::path_segment(value));
            }
        }
        let metrics = SPEC.child("metrics");
        for (index, metric) in list(&spec["metrics"]).iter().enumerate() {
            check_metric(metric, &metrics.index(index), causes);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::AUTOSCALER
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::autoscaler_row(object, now)
    }
}

fn scaling_rules(behavior: &mut Members, key: &str, window_s: i64, policies: &[(&str, i64)]) {
    let Some(rules) = child(behavior, key) else { return };
    fill_text(rules, "selectPolicy", "Max");
    if window_s >= 0 {
        fill(rules, "stabilizationWindowSeconds", window_s);
    }
    if rules.get("policies").is_none_or(is_empty) {
        let policies = policies.iter().map(|(kind, value)| json!({"type": kind, "value": value, "periodSeconds": 15}));
        rules.insert("policies".into(), policies.collect());
    }
}

fn check_metric(metric: &Value, path: &Path<'_>, causes: &mut Causes) {
    let kinds = [
        ("Resource", "resource"),
        ("ContainerResource", "containerResource"),
        ("Pods", "pods"),
        ("Object", "object"),
        ("External", "external"),
    ];
    let kind = text(&metric["type"]);
    if kind.is_empty() {
        causes.required(&path.child("type"), "must specify a metric source type");
        return;
    }
    let Some((_, member)) = kinds.iter().find(|(name, _)| *name == kind) else {
        causes.not_supported(
            &path.child("type"),
            kind,
            &["ContainerResource", "External", "Object", "Pods", "Resource"],
        );
        return;
    };
    let source = &metric[*member];
    let at = path.child(member);
    if source.is_null() {
        causes.required(&at, "must populate information for the given metric source");
        return;
    }
    let target = &source["target"];
    if member.ends_with("esource") {
        if text(&source["name"]).is_empty() {
            causes.required(&at.child("name"), "must specify a resource name");
        }
        let (share, value) = (target["averageUtilization"].as_i64(), !target["averageValue"].is_null());
        match (share, value) {
            (None, false) => {
                causes.required(
                    &at.child("target").child("averageUtilization"),
                    "must set either a target raw value or a target utilization",
                );
            }
            (Some(_), true) => {
                causes.forbidden(
                    &at.child("target").child("averageValue"),
                    "may not set both a target raw value and a target utilization",
                );
            }
            (Some(share), false) if share < 1 => {
                causes.invalid(&at.child("target").child("averageUtilization"), share, "must be greater than 0");
            }
            _ => {}
        }
    } else if text(&source["metric"]["name"]).is_empty() {
        causes.required(&at.child("metric").child("name"), "must specify a metric name");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(spec: Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "h"}, "spec": spec});
        HorizontalPodAutoscaler.defaults(&mut object);
        HorizontalPodAutoscaler.validate_create(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn autoscalers() {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        assert_eq!(found(json!({"scaleTargetRef": target, "maxReplicas": 3})), [""; 0]);
        assert_eq!(
            found(json!({"scaleTargetRef": target, "maxReplicas": 1, "minReplicas": 2})),
            ["spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`"]
        );
        assert_eq!(
            found(json!({"maxReplicas": 1, "scaleTargetRef": {"apiVersion": "apps/v1"}})),
            ["spec.scaleTargetRef.kind: Required value", "spec.scaleTargetRef.name: Required value"]
        );
        let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {}}}]);
        assert_eq!(
            found(json!({"scaleTargetRef": target, "maxReplicas": 1, "metrics": metrics})),
            [
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"
            ]
        );
    }

    #[test]
    fn behaviour_is_filled_when_given() {
        let mut object = json!({"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}});
        HorizontalPodAutoscaler.defaults(&mut object);
        let behavior = &object["spec"]["behavior"];
        assert_eq!(behavior["scaleDown"]["stabilizationWindowSeconds"], 60);
        assert_eq!(behavior["scaleDown"]["policies"], json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
        assert_eq!(list(&behavior["scaleUp"]["policies"]).len(), 2);
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    }
}

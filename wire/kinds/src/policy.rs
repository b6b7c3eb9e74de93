//! Disruption budgets and priority classes.

use crate::behaviour::{Facts, Generation, Kind, METADATA, SPEC};
use crate::cause::{Causes, Path};
use crate::json::{fill_text, same, text};
use crate::table::{self, Column, Row};
use crate::{meta, names};
use model::Timestamp;
use serde_json::Value;

pub fn find(kind: &str) -> Option<&'static dyn Kind> {
    Some(match kind {
        "PodDisruptionBudget" => &PodDisruptionBudget,
        "PriorityClass" => &PriorityClass,
        _ => return None,
    })
}

struct PodDisruptionBudget;

impl Kind for PodDisruptionBudget {
    fn facts(&self) -> Facts {
        Facts::reconciled("policy", "PodDisruptionBudget")
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
            causes.invalid(&SPEC, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
        }
        for key in ["minAvailable", "maxUnavailable"] {
            let path = SPEC.child(key);
            match &spec[key] {
                Value::String(share) => {
                    causes.invalid_each(&path, share, names::percent(share));
                    if share.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()).is_some_and(|n| n > 100) {
                        causes.invalid(&path, share.as_str(), "must not be greater than 100%");
                    }
                }
                number => causes.non_negative(&path, number),
            }
        }
        meta::label_selector(&spec["selector"], &SPEC.child("selector"), causes);
        let policy = text(&spec["unhealthyPodEvictionPolicy"]);
        if !policy.is_empty() {
            causes.one_of(&SPEC.child("unhealthyPodEvictionPolicy"), policy, &["AlwaysAllow", "IfHealthyBudget"]);
        }
    }
    fn columns(&self) -> &'static [Column] {
        table::DISRUPTION_BUDGET
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::disruption_budget_row(object, now)
    }
}

struct PriorityClass;

/// Above this, priorities belong to the system.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

impl Kind for PriorityClass {
    fn facts(&self) -> Facts {
        Facts::plain("scheduling.k8s.io", "PriorityClass").counting(Generation::Content)
    }
    fn defaults(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            fill_text(map, "preemptionPolicy", "PreemptLowerPriority");
        }
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let name = text(&object["metadata"]["name"]);
        let value = object["value"].as_i64().unwrap_or(0);
        if name.starts_with("system-") {
            if crate::pod::admission::system_priority(name) != Some(value) {
                let detail = "priority class names with 'system-' prefix are reserved for system use only";
                causes.forbidden(&METADATA.child("name"), detail);
            }
        } else if value > HIGHEST_USER_PRIORITY {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            causes.forbidden(&Path::root("value"), detail);
        }
        let policy = text(&object["preemptionPolicy"]);
        if !policy.is_empty() {
            causes.one_of(&Path::root("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
        }
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        if !same(&new["value"], &old["value"]) {
            causes.forbidden(&Path::root("value"), "may not be changed in an update.");
        }
        causes.immutable(&Path::root("preemptionPolicy"), &new["preemptionPolicy"], &old["preemptionPolicy"]);
    }
    fn columns(&self) -> &'static [Column] {
        table::PRIORITY_CLASS
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::priority_class_row(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(causes: Vec<kube::Cause>) -> Vec<String> {
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn budgets() {
        let check =
            |spec: Value| texts(PodDisruptionBudget.validate_create(&json!({"metadata": {"name": "p"}, "spec": spec})));
        assert_eq!(check(json!({"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}})), [""; 0]);
        assert_eq!(
            check(json!({"minAvailable": 1, "maxUnavailable": 1})),
            [
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set"
            ]
        );
        assert_eq!(check(json!({"maxUnavailable": "x"})).len(), 1);
    }

    #[test]
    fn priorities() {
        let class = |name: &str, value: i64| json!({"metadata": {"name": name, "uid": "u"}, "value": value});
        assert_eq!(texts(PriorityClass.validate_create(&class("a", 5))), [""; 0]);
        assert_eq!(texts(PriorityClass.validate_create(&class("system-node-critical", 2_000_001_000))), [""; 0]);
        assert_eq!(texts(PriorityClass.validate_create(&class("a", 2_000_000_000))).len(), 1);
        assert_eq!(
            texts(PriorityClass.validate_update(&class("a", 6), &class("a", 5))),
            ["value: Forbidden: may not be changed in an update."]
        );
    }
}

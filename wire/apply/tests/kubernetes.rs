//! What Kubernetes' own patch machinery makes of random Deployments, against ours.
//!
//! The answers were recorded from apimachinery 0.37 (`strategicpatch`, `managedfields`).

use diolkos_apply::{FieldManager, strategic_merge};
use kube::Registry;
use serde_json::{Value, json};

fn cases(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a recorded case")).collect()
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// The recorder worked on untyped objects, which lack what Go's types always print (`spec`, `spec.template`, ...). The
/// presence of these counts as a field there and not here.
fn without_presence(fields: &mut Value) {
    const PRINTED: [&str; 8] =
        ["f:spec", "f:template", "f:strategy", "f:metadata", "f:resources", "f:containers", "f:selector", "f:name"];
    let Some(map) = fields.as_object_mut() else { return };
    map.remove(".");
    map.values_mut().for_each(without_presence);
    map.retain(|key, value| !PRINTED.contains(&key.as_str()) || *value != json!({}));
}

fn managers(list: &Value) -> Vec<String> {
    let mut all: Vec<String> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let mut fields = entry["fieldsV1"].clone();
            without_presence(&mut fields);
            let shown = format!("{} {} {} {fields}", entry["manager"], entry["operation"], entry["apiVersion"]);
            (fields != json!({})).then_some(shown)
        })
        .collect();
    all.sort();
    all
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn strategic_merge_patches() {
    let registry = Registry::builtin();
    let schema = registry.by_kind("apps", "v1", "Deployment").expect("a built-in kind").schema();
    for case in cases(include_str!("kubernetes/strategic.jsonl")) {
        let mut object = case["original"].clone();
        let merged = strategic_merge(&mut object, case["patch"].clone(), schema);
        if case["error"] == true {
            assert!(merged.is_err(), "{case}");
            continue;
        }
        merged.unwrap_or_else(|wrong| panic!("{wrong}: {case}"));
        without_nulls(&mut object);
        assert_eq!(object, case["result"], "{case}");
    }
}

#[test]
fn sequences_of_applies_and_updates() {
    let registry = Registry::builtin();
    let schema = registry.by_kind("apps", "v1", "Deployment").expect("a built-in kind").schema();
    for steps in cases(include_str!("kubernetes/server_side.jsonl")) {
        let mut live: Option<Value> = None;
        for step in steps.as_array().into_iter().flatten() {
            let manager = FieldManager {
                schema,
                api_version: "apps/v1",
                manager: step["manager"].as_str().unwrap_or_default(),
                subresource: "",
                reset: FieldManager::reset_fields("", false),
                now: "2024-01-01T00:00:00Z",
            };
            let made = if step["op"] == "apply" {
                manager.apply(live.as_ref(), &step["object"], step["force"] == true).map_err(|wrong| wrong.to_string())
            } else {
                let mut new = step["object"].clone();
                manager.update(live.as_ref(), &mut new);
                Ok(new)
            };
            match (made, step["error"].as_str()) {
                (Ok(object), None) => {
                    assert_eq!(managers(&object["metadata"]["managedFields"]), managers(&step["managers"]), "{step}");
                    let mut plain = object.clone();
                    if let Some(meta) = plain["metadata"].as_object_mut() {
                        meta.remove("managedFields");
                    }
                    assert_eq!(plain, step["result"], "{step}");
                    live = Some(object);
                }
                (Err(wrong), Some(expected)) => assert_eq!(sorted_lines(&wrong), sorted_lines(expected), "{step}"),
                (made, expected) => panic!("{made:?} instead of {expected:?}: {step}"),
            }
        }
    }
}

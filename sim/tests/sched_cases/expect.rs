//! What a case expects, against what is in the API in the end. The end-to-end test of the same cases (`tests/e2e`) reads this file too.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Kind, namespace, name.
pub type Id = (String, String, String);

/// Ok, or what is wrong.
pub type Check = Result<(), String>;

/// What is in the API in the end.
pub struct Seen {
    pub objects: BTreeMap<Id, Value>,
    /// Messages are compared to their end, not up to the filter reasons only.
    pub whole_messages: bool,
}

/// What a pod's `PodScheduled` condition says when it is not scheduled.
pub fn message(pod: &Value) -> &str {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let told = conditions.into_iter().find(|c| c["type"] == json!("PodScheduled") && c["status"] == json!("False"));
    told.and_then(|condition| condition["message"].as_str()).unwrap_or_default()
}

impl Seen {
    fn pod(&self, name: &str) -> Option<&Value> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        self.objects.get(&("Pod".to_owned(), namespace.to_owned(), name.to_owned()))
    }
    fn node_of(&self, name: &str) -> Option<&str> {
        self.pod(name)?["spec"]["nodeName"].as_str()
    }
}

/// `name`, or `namespace/name` outside the default namespace.
fn short(pod: &Value) -> String {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    match pod["metadata"]["namespace"].as_str().unwrap_or("default") {
        "default" => name.to_owned(),
        namespace => format!("{namespace}/{name}"),
    }
}

/// The message up to the filter reasons.
fn head(message: &str) -> &str {
    let marks = ["preemption:", "no new claims"];
    let head = marks.iter().fold(message, |m, mark| m.split_once(mark).map_or(m, |(head, _)| head)).trim();
    // kube-scheduler appends "not found" of a later step to what a pod's storage lacks.
    head.trim_end_matches(" not found")
}

fn names(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The steps after the pods: a list, or one alone.
pub fn steps(case: &Value) -> Vec<&Value> {
    match &case["after"] {
        Value::Array(steps) => steps.iter().collect(),
        Value::Null => Vec::new(),
        step => vec![step],
    }
}

/// Pods that the case itself deletes: nobody's victims, whether a case lists them or not.
fn deleted_by_steps(case: &Value) -> BTreeSet<String> {
    let deletions = steps(case).into_iter().map(|step| &step["delete"]).filter(|body| body["kind"] == json!("Pod"));
    deletions.map(|body| short(&json!({"metadata": {"name": body["name"], "namespace": body["namespace"]}}))).collect()
}

/// Whether everything came as the case says.
pub fn check(seen: &Seen, case: &Value) -> Check {
    let expect = &case["expect"];
    let created: BTreeSet<String> = case["pods"].as_array().into_iter().flatten().map(short).collect();
    if !expect["bound"].is_null() {
        return check_random(seen, expect, &created);
    }
    for (name, expected) in expect["pods"].as_object().into_iter().flatten() {
        check_pod(seen, name, expected)?;
    }
    if !expect["victims"].is_null() {
        let deleted = deleted_by_steps(case);
        let wanted: BTreeSet<String> = names(&expect["victims"]).into_iter().filter(|n| !deleted.contains(n)).collect();
        let gone = |pod: &&Value| {
            let terminating = pod["x_terminating"] == json!(true) || pod["metadata"]["x_terminating"] == json!(true);
            let now = seen.pod(&short(pod));
            !terminating && now.is_none_or(|now| now["metadata"]["deletionTimestamp"].is_string())
        };
        let existing = case["existing_pods"].as_array().into_iter().flatten();
        let got: BTreeSet<String> = existing.filter(gone).map(short).filter(|name| !deleted.contains(name)).collect();
        if wanted != got {
            return Err(format!("victims {got:?} instead of {wanted:?}"));
        }
    }
    check_groups(seen, expect)?;
    if let Some(want) = expect["bound_count"].as_u64() {
        let bound = created.iter().filter(|name| seen.node_of(name).is_some()).count() as u64;
        if bound != want {
            return Err(format!("{bound} bound instead of {want}"));
        }
    }
    check_claims(seen, &expect["pvcs"])?;
    check_domains(seen, &expect["per_domain"], &created)
}

fn check_pod(seen: &Seen, name: &str, expect: &Value) -> Check {
    let Some(pod) = seen.pod(name) else {
        return if expect["deleted"] == json!(true) { Ok(()) } else { Err(format!("{name} is gone")) };
    };
    let (node, said) = (pod["spec"]["nodeName"].as_str(), message(pod));
    if expect["deleted"] == json!(true) {
        return Err(format!("{name} is still there, on {node:?}"));
    }
    if let Some(want) = expect["node"].as_str() {
        return if node == Some(want) { Ok(()) } else { Err(format!("{name} is on {node:?}, not {want}: {said}")) };
    }
    if let Some(any) = expect["one_of"].as_array() {
        let good = any.iter().any(|want| want.as_str() == node);
        return if good { Ok(()) } else { Err(format!("{name} is on {node:?}, not one of {any:?}: {said}")) };
    }
    if let Some(node) = node {
        return Err(format!("{name} is on {node}, though {expect}"));
    }
    let nominated = pod["status"]["nominatedNodeName"].as_str().unwrap_or_default();
    if let Some(want) = expect["nominated"].as_str().filter(|want| *want != nominated) {
        return Err(format!("{name} is nominated to {nominated:?}, not {want:?}"));
    }
    let told = |message| if seen.whole_messages { message } else { head(message) };
    match expect["message"].as_str() {
        Some(want) if told(said) != told(want) => {
            Err(format!("{name}: {:?}\n  instead of {:?}", told(said), told(want)))
        }
        _ => Ok(()),
    }
}

fn check_groups(seen: &Seen, expect: &Value) -> Check {
    for (part, one) in [("same_node", true), ("distinct_nodes", false)] {
        for group in expect[part].as_array().into_iter().flatten().map(names) {
            let nodes: BTreeSet<Option<&str>> = group.iter().map(|name| seen.node_of(name)).collect();
            if nodes.len() != if one { 1 } else { group.len() } {
                return Err(format!("{part}: {group:?} are on {nodes:?}"));
            }
        }
    }
    Ok(())
}

fn check_claims(seen: &Seen, expect: &Value) -> Check {
    for (name, expected) in expect.as_object().into_iter().flatten() {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let id = ("PersistentVolumeClaim".to_owned(), namespace.to_owned(), name.to_owned());
        let claim = seen.objects.get(&id).unwrap_or(&Value::Null);
        let volume = &claim["spec"]["volumeName"];
        let selected = &claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"];
        if *volume != expected["volume"] || *selected != expected["selected_node"] {
            return Err(format!("claim {name}: volume {volume}, selected node {selected}, instead of {expected}"));
        }
    }
    Ok(())
}

/// `per_domain`: `{"key": label, "counts": [..]}`, the sorted numbers of new pods by domain.
fn check_domains(seen: &Seen, expect: &Value, created: &BTreeSet<String>) -> Check {
    let Some(key) = expect["key"].as_str() else { return Ok(()) };
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for node in created.iter().filter_map(|name| seen.node_of(name)) {
        let node = &seen.objects[&("Node".to_owned(), String::new(), node.to_owned())];
        *counts.entry(node["metadata"]["labels"][key].as_str().unwrap_or_default()).or_default() += 1;
    }
    let mut got: Vec<u64> = counts.into_values().collect();
    let mut want: Vec<u64> = expect["counts"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    got.sort_unstable();
    want.sort_unstable();
    if got == want || want.is_empty() { Ok(()) } else { Err(format!("by {key}: {got:?} instead of {want:?}")) }
}

/// Many random pods: how many are bound, and whoever is not was told why.
fn check_random(seen: &Seen, expect: &Value, created: &BTreeSet<String>) -> Check {
    let bound = created.iter().filter(|name| seen.node_of(name).is_some()).count() as f64;
    let least = expect["bound"][0].as_f64().unwrap_or(0.0) * 0.99;
    if bound < least.floor() {
        return Err(format!("{bound} bound, at least {least} wanted"));
    }
    let silent =
        |name: &&String| seen.pod(name).is_some_and(|pod| pod["spec"]["nodeName"].is_null() && message(pod).is_empty());
    created.iter().find(silent).map_or(Ok(()), |name| Err(format!("{name} is pending and says nothing")))
}

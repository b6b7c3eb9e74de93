//! `/diolkos/v1/routes`: weights as they are asked for, beside shares as they were measured.

use super::{State, WINDOW_MS};
use control::Control;
use model::{Key, Kind, Pod, Timestamp};
use scaling::EdgeRate;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The workload that a pod belongs to, as proxies name it: the owner's owner where there is one.
pub(super) fn workload(control: &Control, pod: &Pod) -> Arc<str> {
    let Some(owner) = pod.meta.controller() else { return pod.meta.key.name.clone() };
    let above = control.world().by_uid(&owner.uid).and_then(|(kind, key)| {
        (*kind == Kind::ReplicaSet)
            .then(|| control.world().meta(*kind, key)?.controller().map(|top| top.name.clone()))?
    });
    above.unwrap_or_else(|| owner.name.clone())
}

/// Requests a second that the workloads behind a service answered.
fn measured(control: &Control, rates: &[EdgeRate], namespace: &str, service: &str) -> f64 {
    let key = Key::new(namespace, service);
    let Some(found) = control.world().services.get(&key) else { return 0.0 };
    let workloads: BTreeSet<Arc<str>> = control.world().selected_by(found).map(|pod| workload(control, pod)).collect();
    let hits = |rate: &&EdgeRate| {
        &*rate.key.destination.namespace == namespace && workloads.contains(&rate.key.destination.workload)
    };
    rates.iter().filter(hits).map(|rate| rate.requests_per_s).sum()
}

/// A rule's matches for a person.
fn words(rule: &Value) -> String {
    let matches: Vec<String> = array(&rule["matches"])
        .iter()
        .map(|one| {
            let mut parts = Vec::new();
            match &one["method"] {
                Value::String(method) => parts.push(method.clone()),
                Value::Object(grpc) => {
                    let part = |key: &str| grpc.get(key).and_then(Value::as_str).unwrap_or("*").to_owned();
                    parts.push(format!("{}/{}", part("service"), part("method")));
                }
                _ => {}
            }
            if let Some(path) = one["path"]["value"].as_str() {
                let kind = text(&one["path"]["type"]);
                parts.push(if kind == "Exact" { format!("= {path}") } else { path.to_owned() });
            }
            for (kind, sign) in [("headers", ""), ("queryParams", "?")] {
                parts.extend(
                    array(&one[kind]).iter().map(|h| format!("{sign}{}={}", text(&h["name"]), text(&h["value"]))),
                );
            }
            parts.join(" ")
        })
        .filter(|words| !words.is_empty())
        .collect();
    if matches.is_empty() { "everything".to_owned() } else { matches.join(" or ") }
}

fn rule(control: &Control, rates: &[EdgeRate], namespace: &str, rule: &Value) -> Value {
    let backends = array(&rule["backendRefs"]);
    let measured: Vec<f64> = backends
        .iter()
        .map(|backend| {
            let namespace = backend["namespace"].as_str().unwrap_or(namespace);
            measured(control, rates, namespace, text(&backend["name"]))
        })
        .collect();
    let total: f64 = measured.iter().sum();
    let told: Vec<Value> = backends
        .iter()
        .zip(measured)
        .map(|(backend, rate)| {
            let share = (total > 0.0).then(|| rate / total);
            json!({ "name": backend["name"], "weight": backend["weight"].as_i64().unwrap_or(1), "share": share })
        })
        .collect();
    json!({ "match": words(rule), "backends": told })
}

/// Whether all parents accept the route, and the first reason why not.
fn acceptance(route: &Value) -> (bool, String) {
    let parents = array(&route["status"]["parents"]);
    let bad = parents
        .iter()
        .flat_map(|parent| array(&parent["conditions"]))
        .find(|c| matches!(text(&c["type"]), "Accepted" | "ResolvedRefs") && c["status"] != "True");
    match bad {
        Some(condition) => (false, format!("{}: {}", text(&condition["reason"]), text(&condition["message"]))),
        None if parents.is_empty() => (false, "no parent has answered".to_owned()),
        None => (true, String::new()),
    }
}

/// The answer.
pub fn answer(control: &Control, state: &State, now: Timestamp) -> Value {
    let rates = state.graph.rates(now, WINDOW_MS);
    let routes: Vec<Value> = state
        .routes
        .iter()
        .filter_map(|((kind, key), bytes)| {
            let route: Value = serde_json::from_slice(bytes).ok()?;
            let parents: Vec<String> = array(&route["spec"]["parentRefs"])
                .iter()
                .map(|parent| format!("{} {}", parent["kind"].as_str().unwrap_or("Gateway"), text(&parent["name"])))
                .collect();
            let rules: Vec<Value> =
                array(&route["spec"]["rules"]).iter().map(|one| rule(control, &rates, &key.namespace, one)).collect();
            let (accepted, reason) = acceptance(&route);
            Some(json!({
                "namespace": &*key.namespace, "name": &*key.name, "kind": kind, "parents": parents,
                "hostnames": route["spec"]["hostnames"].as_array().cloned().unwrap_or_default(),
                "accepted": accepted, "reason": reason, "rules": rules,
            }))
        })
        .collect();
    json!({ "routes": routes })
}

//! `metrics.k8s.io/v1beta1`: what `kubectl top` asks.

use control::Control;
use model::selector::LabelSelector;
use model::{Key, Labels};
use project::parse_selector;
use scaling::{PodUsage, Sample};
use serde_json::{Value, json};

/// Paths below this are answered here.
pub const PREFIX: &str = "/apis/metrics.k8s.io/v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// A `Status` of failure.
pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn not_found(plural: &str, name: &str) -> (u16, Value) {
    let message = format!("{plural}.metrics.k8s.io \"{name}\" not found");
    (404, status(404, "NotFound", &message))
}

fn time(sample: Sample) -> String {
    jiff::Timestamp::from_second(sample.at.secs()).map(|at| at.to_string()).unwrap_or_default()
}

fn usage(sample: Sample) -> Value {
    json!({ "cpu": format!("{}n", sample.cpu_nano), "memory": format!("{}Ki", sample.memory_bytes / 1024) })
}

fn meta(key: &Key, labels: &Labels, sample: Sample) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| (key.to_string(), json!(&**value))).collect();
    let mut meta = json!({ "name": &*key.name, "creationTimestamp": time(sample), "labels": labels });
    if !key.namespace.is_empty() {
        meta["namespace"] = json!(&*key.namespace);
    }
    meta
}

/// Seconds between the last two samples.
fn window(history: &std::collections::VecDeque<Sample>) -> String {
    let mut newest = history.iter().rev();
    let span = match (newest.next(), newest.next()) {
        (Some(last), Some(before)) => last.at.since_ms(before.at) / 1000,
        _ => 15,
    };
    format!("{}s", span.max(1))
}

fn node(control: &Control, name: &str) -> Option<Value> {
    let node = control.world().nodes.get(&Key::new("", name))?;
    let used = control.usage().node(name)?;
    let sample = *used.history.back()?;
    Some(json!({
        "kind": "NodeMetrics", "apiVersion": API_VERSION, "metadata": meta(&node.meta.key, &node.meta.labels, sample),
        "timestamp": time(sample), "window": window(&used.history), "usage": usage(sample),
    }))
}

fn pod(control: &Control, key: &Key, used: &PodUsage) -> Option<Value> {
    let pod = control.world().pods.get(key)?;
    let sample = used.latest()?;
    let containers: Vec<Value> =
        used.containers.iter().map(|c| json!({ "name": &*c.name, "usage": usage(c.sample) })).collect();
    Some(json!({
        "kind": "PodMetrics", "apiVersion": API_VERSION, "metadata": meta(key, &pod.meta.labels, sample),
        "timestamp": time(sample), "window": window(&used.history), "containers": containers,
    }))
}

fn list(kind: &str, items: Vec<Value>) -> (u16, Value) {
    (200, json!({ "kind": kind, "apiVersion": API_VERSION, "metadata": {}, "items": items }))
}

/// What the group serves.
fn discovery() -> Value {
    let resource = |name: &str, kind: &str, namespaced: bool| json!({ "name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"] });
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION,
        "resources": [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)],
    })
}

/// Answers what comes after the prefix.
pub fn answer(control: &Control, rest: &str, label_selector: Option<&str>) -> (u16, Value) {
    let selector = match label_selector.map_or(Ok(LabelSelector::default()), parse_selector) {
        Ok(selector) => selector,
        Err(message) => return (400, status(400, "BadRequest", &message)),
    };
    let pods = |namespace: Option<&str>| {
        let all = control.usage().pods();
        let wanted = all.into_iter().filter(|(key, _)| namespace.is_none_or(|ns| ns == &*key.namespace));
        let selected = wanted
            .filter(|(key, _)| control.world().pods.get(*key).is_some_and(|pod| selector.matches(&pod.meta.labels)));
        list("PodMetricsList", selected.filter_map(|(key, used)| pod(control, key, used)).collect())
    };
    let parts: Vec<&str> = rest.trim_matches('/').split('/').collect();
    match parts[..] {
        [""] => (200, discovery()),
        ["nodes"] => {
            let nodes = control.world().nodes.values().filter(|node| selector.matches(&node.meta.labels));
            list("NodeMetricsList", nodes.filter_map(|one| node(control, &one.meta.key.name)).collect())
        }
        ["nodes", name] => node(control, name).map_or_else(|| not_found("nodes", name), |found| (200, found)),
        ["pods"] => pods(None),
        ["namespaces", namespace, "pods"] => pods(Some(namespace)),
        ["namespaces", namespace, "pods", name] => {
            let key = Key::new(namespace, name);
            let found = control.usage().pod(&key).and_then(|used| pod(control, &key, used));
            found.map_or_else(|| not_found("pods", name), |found| (200, found))
        }
        _ => (404, status(404, "NotFound", "the server could not find the requested resource")),
    }
}

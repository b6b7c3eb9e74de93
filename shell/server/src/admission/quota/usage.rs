//! What an object counts against quotas.

use kube::Resource;
use model::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// Resource names of quotas (`pods`, `requests.cpu`, `count/deployments.apps`) to thousandths.
pub type Usage = BTreeMap<String, i64>;

/// What one object of a resource uses.
pub fn of(resource: &Resource, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let (group, plural) = (resource.group(), resource.plural());
    let count = if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") };
    usage.insert(count, 1000);
    match (group, plural) {
        ("", "pods") => pod(object, &mut usage),
        ("", "services") => service(object, &mut usage),
        ("", "persistentvolumeclaims") => {
            usage.insert("persistentvolumeclaims".to_owned(), 1000);
            let asked = quantity(&object["spec"]["resources"]["requests"]["storage"]).unwrap_or(0);
            usage.insert("requests.storage".to_owned(), asked);
        }
        ("", "configmaps" | "replicationcontrollers" | "secrets" | "resourcequotas") => {
            usage.insert(plural.to_owned(), 1000);
        }
        _ => {}
    }
    usage
}

fn quantity(value: &Value) -> Option<i64> {
    Quantity::parse(value.as_str()?).ok().map(Quantity::milli)
}

fn service(object: &Value, usage: &mut Usage) {
    usage.insert("services".to_owned(), 1000);
    let ports = object["spec"]["ports"].as_array().map_or(0, Vec::len) as i64 * 1000;
    match object["spec"]["type"].as_str() {
        Some("LoadBalancer") => {
            usage.insert("services.loadbalancers".to_owned(), 1000);
            usage.insert("services.nodeports".to_owned(), ports);
        }
        Some("NodePort") => drop(usage.insert("services.nodeports".to_owned(), ports)),
        _ => {}
    }
}

fn pod(object: &Value, usage: &mut Usage) {
    // A pod that has ended holds nothing but its own record.
    if matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return;
    }
    usage.insert("pods".to_owned(), 1000);
    let list = |key: &str| object["spec"][key].as_array().map_or(&[][..], Vec::as_slice);
    for field in ["requests", "limits"] {
        let mut sum: BTreeMap<&str, i64> = BTreeMap::new();
        for container in list("containers") {
            for (name, amount) in container["resources"][field].as_object().into_iter().flatten() {
                *sum.entry(name).or_default() += quantity(amount).unwrap_or(0);
            }
        }
        for container in list("initContainers") {
            for (name, amount) in container["resources"][field].as_object().into_iter().flatten() {
                let most = sum.entry(name).or_default();
                *most = (*most).max(quantity(amount).unwrap_or(0));
            }
        }
        for (name, amount) in object["spec"]["overhead"].as_object().into_iter().flatten() {
            // What the runtime needs counts against a limit only where there is one.
            if field == "requests" || sum.contains_key(name.as_str()) {
                *sum.entry(name).or_default() += quantity(amount).unwrap_or(0);
            }
        }
        for (name, amount) in sum {
            usage.insert(format!("{field}.{name}"), amount);
            if field == "requests" && matches!(name, "cpu" | "memory" | "ephemeral-storage") {
                usage.insert(name.to_owned(), amount);
            }
        }
    }
}

/// Adds `other` to `sum`.
pub fn add(sum: &mut Usage, other: &Usage) {
    for (name, amount) in other {
        let total = sum.entry(name.clone()).or_default();
        *total = total.saturating_add(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods() {
        let registry = kube::Registry::builtin();
        let pods = registry.resource("", "v1", "pods").unwrap();
        let usage = of(
            pods,
            &json!({"spec": {
                "containers": [{"resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Ki"}}}, {"resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [{"resources": {"requests": {"cpu": "2"}}}],
                "overhead": {"cpu": "1", "memory": "1Ki"},
            }}),
        );
        let expect = [
            ("count/pods", 1000),
            ("cpu", 3000),
            ("limits.memory", 2_048_000),
            ("memory", 1_024_000),
            ("pods", 1000),
            ("requests.cpu", 3000),
            ("requests.memory", 1_024_000),
        ];
        let expect: Usage = expect.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect();
        assert_eq!(usage, expect);
        let ended = of(pods, &json!({"status": {"phase": "Failed"}}));
        assert_eq!(ended.keys().collect::<Vec<_>>(), ["count/pods"]);
    }
}

//! What Kubernetes' built-in admission plugins do to pods, as functions: the server looks up what they need.

use crate::json::{Members, each_object, list, text};
use serde_json::{Value, json};

/// Where a ServiceAccount's token is mounted.
pub const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or unreachable, unless it says otherwise.
pub fn tolerate_node_trouble(spec: &mut Members) {
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|toleration| {
            let (its_key, effect) = (text(&toleration["key"]), text(&toleration["effect"]));
            (its_key == key || its_key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            tolerations
                .push(json!({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300}));
        }
    }
}

/// Priority: the class's value is copied into the pod. `class` is the PriorityClass that the pod names, or the global
/// default, or `None`.
pub fn set_priority(spec: &mut Members, class: Option<&Value>) {
    let (priority, policy) = match class {
        Some(class) => {
            spec.insert("priorityClassName".into(), class["metadata"]["name"].clone());
            (class["value"].as_i64().unwrap_or(0), text(&class["preemptionPolicy"]))
        }
        None => (0, ""),
    };
    spec.insert("priority".into(), Value::from(priority));
    if spec.get("preemptionPolicy").is_none_or(Value::is_null) {
        let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy };
        spec.insert("preemptionPolicy".into(), Value::from(policy));
    }
}

/// The value of a PriorityClass that always exists.
pub fn system_priority(class: &str) -> Option<i64> {
    match class {
        "system-cluster-critical" => Some(2_000_000_000),
        "system-node-critical" => Some(2_000_001_000),
        _ => None,
    }
}

/// ServiceAccount: names the account (`default` when none), takes over its image pull secrets, and mounts its token into
/// every container that does not mount something there itself. `suffix` makes the volume's name unique.
pub fn use_service_account(spec: &mut Members, account: &Value, suffix: &str) {
    let name = account["metadata"]["name"].clone();
    spec.insert("serviceAccountName".into(), name.clone());
    spec.insert("serviceAccount".into(), name);
    if list(spec.get("imagePullSecrets").unwrap_or(&Value::Null)).is_empty()
        && !list(&account["imagePullSecrets"]).is_empty()
    {
        spec.insert("imagePullSecrets".into(), account["imagePullSecrets"].clone());
    }
    let wanted = match spec.get("automountServiceAccountToken").and_then(Value::as_bool) {
        Some(wanted) => wanted,
        None => account["automountServiceAccountToken"].as_bool().unwrap_or(true),
    };
    if wanted {
        mount_token(spec, suffix);
    }
}

fn mount_token(spec: &mut Members, suffix: &str) {
    let present = list(spec.get("volumes").unwrap_or(&Value::Null))
        .iter()
        .map(|volume| text(&volume["name"]))
        .find(|name| name.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let volume = present.clone().unwrap_or_else(|| format!("kube-api-access-{suffix}"));
    let mut mounted = false;
    for key in ["initContainers", "containers"] {
        for container in each_object(spec, key) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| text(&mount["mountPath"]) != TOKEN_MOUNT) {
                mounts.push(json!({"mountPath": TOKEN_MOUNT, "name": volume, "readOnly": true}));
                mounted = true;
            }
        }
    }
    if !mounted || present.is_some() {
        return;
    }
    let source = json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(source);
    }
}

/// LimitRange-free requests: whether a container asks for nothing, by which the pod's quality-of-service class is found.
///
/// `Guaranteed`: every container's cpu and memory limits are set and equal to its requests; `BestEffort`: no container
/// asks for or is limited in either; else `Burstable`.
pub fn qos_class(pod: &Value) -> &'static str {
    let (mut any, mut all) = (false, true);
    let spec = &pod["spec"];
    for container in list(&spec["containers"]).iter().chain(list(&spec["initContainers"])) {
        let resources = &container["resources"];
        for name in ["cpu", "memory"] {
            let amount = |of: &str| model::Quantity::parse(text(&resources[of][name])).ok().filter(|q| q.milli() > 0);
            let (limit, request) = (amount("limits"), amount("requests"));
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Whether the pod mirrors one that its node runs from a file.
pub fn is_mirror(pod: &Value) -> bool {
    !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_are_added_once() {
        let mut spec = json!({});
        let map = spec.as_object_mut().unwrap();
        tolerate_node_trouble(map);
        tolerate_node_trouble(map);
        assert_eq!(list(&map["tolerations"]).len(), 2);
        let mut all = json!({"tolerations": [{"operator": "Exists"}]});
        tolerate_node_trouble(all.as_object_mut().unwrap());
        assert_eq!(list(&all["tolerations"]).len(), 1);
    }

    #[test]
    fn token_is_mounted_where_nothing_is() {
        let mut spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": TOKEN_MOUNT}]}]});
        let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "p"}]});
        use_service_account(spec.as_object_mut().unwrap(), &account, "x2x");
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(spec["imagePullSecrets"][0]["name"], "p");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-x2x");
        assert_eq!(list(&spec["containers"][1]["volumeMounts"]).len(), 1);
        assert_eq!(list(&spec["volumes"]).len(), 1);
        let once = spec.clone();
        use_service_account(spec.as_object_mut().unwrap(), &account, "other");
        assert_eq!(spec, once, "idempotent");
        let mut off = json!({"automountServiceAccountToken": false, "containers": [{"name": "a"}]});
        use_service_account(off.as_object_mut().unwrap(), &account, "x");
        assert!(off["volumes"].is_null());
    }

    #[test]
    fn qos() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let full = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        assert_eq!(qos_class(&pod(full)), "Guaranteed");
        assert_eq!(qos_class(&pod(json!({"limits": {"cpu": "1"}}))), "Burstable");
    }
}

//! What a node agent may do beyond its role, and what it may not although its role allows it: a stolen node certificate must not
//! reach further than the node's own pods (Kubernetes' node authorizer and NodeRestriction).

use crate::core::Core;
use crate::identity::Identity;
use authz::rbac::Target;
use kube::Status;
use serde_json::Value;

/// Reads that a node's role does not grant: what its own pods refer to. `None`: not a question of this kind.
pub(super) fn decide(core: &Core, node: &str, verb: &str, target: Target<'_>) -> Option<bool> {
    let Target::Resource { group: "", resource, subresource, namespace, name } = target else { return None };
    if name.is_empty() || namespace.is_empty() {
        return None;
    }
    match (resource, subresource, verb) {
        ("secrets" | "configmaps" | "persistentvolumeclaims", "", "get" | "list" | "watch") => {
            Some(pods_of(core, node, namespace).any(|pod| refers(&pod, resource, name)))
        }
        ("serviceaccounts", "token", "create") | ("serviceaccounts", "", "get") => {
            Some(pods_of(core, node, namespace).any(|pod| pod["spec"]["serviceAccountName"] == name))
        }
        _ => None,
    }
}

/// The node's pods in a namespace. A textual look decides which of the namespace's pods are decoded at all.
fn pods_of<'a>(core: &'a Core, node: &'a str, namespace: &str) -> impl Iterator<Item = Value> + 'a {
    let needle = format!("\"nodeName\":{}", Value::from(node));
    let pods = core.store.list("pods", Some(namespace), None, None).items;
    pods.into_iter().filter_map(move |entry| {
        let text = std::str::from_utf8(&entry.record.bytes).ok()?;
        let pod: Value = text.contains(&needle).then(|| serde_json::from_str(text).ok()).flatten()?;
        (pod["spec"]["nodeName"] == node).then_some(pod)
    })
}

/// Whether a pod names a Secret, ConfigMap or claim: in volumes, environment or pull secrets.
fn refers(pod: &Value, resource: &str, name: &str) -> bool {
    fn search(value: &Value, keys: &[&str], name: &str) -> bool {
        match value {
            Value::Object(map) => map.iter().any(|(key, member)| {
                let named = |field: &str| member[field] == name;
                (keys.contains(&key.as_str()) && (named("name") || named("secretName") || named("claimName")))
                    || search(member, keys, name)
            }),
            Value::Array(items) => items.iter().any(|item| search(item, keys, name)),
            _ => false,
        }
    }
    let spec = &pod["spec"];
    match resource {
        "secrets" => {
            let pulls = spec["imagePullSecrets"].as_array().into_iter().flatten();
            search(spec, &["secret", "secretRef", "secretKeyRef"], name)
                || pulls.into_iter().any(|pull| pull["name"] == name)
        }
        "configmaps" => search(spec, &["configMap", "configMapRef", "configMapKeyRef"], name),
        _ => {
            let generated = |volume: &Value| {
                !volume["ephemeral"].is_null()
                    && name
                        == format!(
                            "{}-{}",
                            pod["metadata"]["name"].as_str().unwrap_or(""),
                            volume["name"].as_str().unwrap_or("")
                        )
            };
            search(spec, &["persistentVolumeClaim"], name)
                || spec["volumes"].as_array().into_iter().flatten().any(generated)
        }
    }
}

/// Refuses a node's write to what is not its own. `object` is the body (a creation) or the stored object.
///
/// # Errors
/// 403 with the field's name in it.
pub fn restrict_node(
    who: &Identity,
    verb: &str,
    (group, resource, subresource): (&str, &str, &str),
    name: &str,
    object: &Value,
) -> Result<(), Status> {
    let Some(node) = who.node() else { return Ok(()) };
    let refuse = |detail: String| Err(Status::forbidden(group, resource, name, &detail));
    match (group, resource) {
        ("", "nodes") if name != node => refuse(format!("node {node:?} is not allowed to modify node {name:?}")),
        ("coordination.k8s.io", "leases") => {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            if namespace == "kube-node-lease" && name == node {
                Ok(())
            } else {
                refuse(format!("node {node:?} can only access its own lease in the namespace \"kube-node-lease\""))
            }
        }
        ("", "pods") if verb == "create" && subresource.is_empty() => refuse(format!(
            "pod does not have {:?} annotation, node {node:?} can only create mirror pods",
            "kubernetes.io/config.mirror"
        )),
        ("", "pods") if subresource == "eviction" || subresource == "status" || verb == "delete" => {
            if object["spec"]["nodeName"] == node {
                Ok(())
            } else {
                refuse(format!("node {node:?} can only {verb} pods with spec.nodeName set to itself"))
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s"}},
                {"name": "b", "projected": {"sources": [{"configMap": {"name": "c"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "e", "ephemeral": {}},
            ],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}]}],
        }});
        for (resource, name, expect) in [
            ("secrets", "s", true),
            ("secrets", "pull", true),
            ("secrets", "env", true),
            ("secrets", "c", false),
            ("configmaps", "c", true),
            ("configmaps", "s", false),
            ("persistentvolumeclaims", "claim", true),
            ("persistentvolumeclaims", "p-e", true),
        ] {
            assert_eq!(refers(&pod, resource, name), expect, "{resource}/{name}");
        }
    }

    #[test]
    fn a_node_changes_only_its_own() {
        let who = Identity::user("system:node:n1", ["system:nodes".into()]);
        let check = |verb, of, name, object: Value| restrict_node(&who, verb, of, name, &object).is_ok();
        assert!(check("update", ("", "nodes", "status"), "n1", json!({})));
        assert!(!check("update", ("", "nodes", "status"), "n2", json!({})));
        assert!(check("patch", ("", "pods", "status"), "p", json!({"spec": {"nodeName": "n1"}})));
        assert!(!check("delete", ("", "pods", ""), "p", json!({"spec": {"nodeName": "n2"}})));
        assert!(!check("create", ("", "pods", ""), "p", json!({})));
        let lease = json!({"metadata": {"namespace": "kube-node-lease"}});
        assert!(check("update", ("coordination.k8s.io", "leases", ""), "n1", lease.clone()));
        assert!(!check("update", ("coordination.k8s.io", "leases", ""), "n2", lease));
        assert!(restrict_node(&Identity::anonymous(), "update", ("", "nodes", ""), "n2", &json!({})).is_ok());
    }
}

use super::ensure;
use crate::core::Core;
use client::BoxFuture;
use kube::Status;
use serde_json::{Value, json};

pub(super) const NAMESPACES: [&str; 5] = ["default", "kube-system", "kube-public", "kube-node-lease", "diolkos-system"];

/// Everything but roles and the kubernetes Service, in the order in which it can be created.
pub(super) fn all(core: &Core) -> Vec<Value> {
    let mut objects: Vec<Value> = NAMESPACES
        .iter()
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .collect();
    let what = "Used for system critical pods that must not be moved from their current node.";
    objects.push(priority_class("system-node-critical", 2_000_001_000, what));
    let what =
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.";
    objects.push(priority_class("system-cluster-critical", 2_000_000_000, what));
    objects.push(json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "diolkos.io/host-path",
        "reclaimPolicy": "Delete",
        // The directory is made on the node that the first pod lands on.
        "volumeBindingMode": "WaitForFirstConsumer",
    }));
    // Tools ask the definitions which release of Gateway API a cluster has.
    let release = [
        ("api-approved.kubernetes.io", "https://github.com/kubernetes-sigs/gateway-api/pull/4530"),
        ("gateway.networking.k8s.io/bundle-version", "v1.6.1"),
        ("gateway.networking.k8s.io/channel", "experimental"),
    ];
    for group in ["gateway.networking.k8s.io", "gateway.networking.x-k8s.io"] {
        objects.extend(kube::Registry::bundled_definitions(group, &release));
    }
    if core.registry.load().resource("gateway.networking.k8s.io", "v1", "gatewayclasses").is_some() {
        objects.push(json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "diolkos"},
            "spec": {"controllerName": "diolkos.io/gateway-controller", "description": "Gateways of the platform's own proxy."},
        }));
    }
    objects.push(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": cluster_info(core)},
    }));
    objects
}

fn priority_class(name: &str, value: i64, description: &str) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": description,
    })
}

/// A kubeconfig without a user: what a machine that wants to join needs to know before it trusts us.
fn cluster_info(core: &Core) -> String {
    use base64::Engine;
    let ca = base64::engine::general_purpose::STANDARD.encode(core.pki.authority.certificate_pem());
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster:\n    certificate-authority-data: {ca}\n    server: {}\n",
        core.url()
    )
}

/// The `default` ServiceAccount and the CA that every pod mounts: without them no pod can be created in a namespace. Made along with
/// the namespace, so that `apply` of a namespace and its pods in one file never races a controller.
///
/// # Errors
/// The store's refusal.
pub fn furnish_namespace<'a>(core: &'a Core, namespace: &'a str) -> BoxFuture<'a, Result<(), Status>> {
    // Boxed, because a creation of a namespace ends in these creations.
    Box::pin(furnish(core, namespace))
}

async fn furnish(core: &Core, namespace: &str) -> Result<(), Status> {
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}});
    let ca = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "kube-root-ca.crt",
            "namespace": namespace,
            "annotations": {"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."},
        },
        "data": {"ca.crt": core.pki.authority.certificate_pem()},
    });
    let (account, ca) = tokio::join!(ensure(core, account), ensure(core, ca));
    account.and(ca).map(drop)
}

//! Which code is responsible for which kind.

use crate::behaviour::{Facts, Generation, Kind};
use crate::{
    apps, batch, config, endpoints, gateway, network, node, plain, pod, policy, rbac, scaling, service, storage,
    webhook,
};

struct Custom {
    status: bool,
}

impl Kind for Custom {
    fn facts(&self) -> Facts {
        let facts = Facts::plain("", "").counting(Generation::Content);
        if self.status { facts.with_status() } else { facts }
    }
}

/// What custom resources do: nothing of their own. `status` says whether their definition has the subresource.
pub fn custom(status: bool) -> &'static dyn Kind {
    if status { &Custom { status: true } } else { &Custom { status: false } }
}

/// What the kind does; a kind that is not built in behaves as a custom resource with a status subresource.
pub fn behaviour(group: &str, kind: &str) -> &'static dyn Kind {
    let found: Option<&'static dyn Kind> = match group {
        "" => core(kind),
        "apps" => apps::find(kind),
        "batch" => batch::find(kind),
        "autoscaling" => scaling::find(kind),
        "policy" | "scheduling.k8s.io" => policy::find(kind),
        "rbac.authorization.k8s.io" => rbac::find(kind),
        "storage.k8s.io" => storage::find(kind),
        "discovery.k8s.io" => (kind == "EndpointSlice").then_some(&endpoints::EndpointSlice),
        "networking.k8s.io" => network::find(kind),
        "gateway.networking.k8s.io" | "security.istio.io" => gateway::find(kind),
        "admissionregistration.k8s.io" => webhook::find(kind),
        _ => plain::find(group, kind),
    };
    found.unwrap_or_else(|| custom(true))
}

fn core(kind: &str) -> Option<&'static dyn Kind> {
    match kind {
        "Pod" => Some(&pod::Pod),
        "Service" => Some(&service::Service),
        "Endpoints" => Some(&endpoints::Endpoints),
        "Node" | "Namespace" => node::find(kind),
        "ConfigMap" | "Secret" | "ServiceAccount" => config::find(kind),
        "PersistentVolume" | "PersistentVolumeClaim" => storage::find(kind),
        "ReplicationController" | "PodTemplate" => apps::find(kind),
        _ => plain::find("", kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::Context;
    use crate::table;
    use model::Timestamp;
    use serde_json::json;

    const ALL: &[(&str, &str)] = &[
        ("", "Pod"),
        ("", "Service"),
        ("", "Endpoints"),
        ("", "Node"),
        ("", "Namespace"),
        ("", "ConfigMap"),
        ("", "Secret"),
        ("", "ServiceAccount"),
        ("", "PersistentVolume"),
        ("", "PersistentVolumeClaim"),
        ("", "Event"),
        ("", "ResourceQuota"),
        ("", "LimitRange"),
        ("", "ReplicationController"),
        ("", "PodTemplate"),
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("apps", "ControllerRevision"),
        ("batch", "Job"),
        ("batch", "CronJob"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("policy", "PodDisruptionBudget"),
        ("scheduling.k8s.io", "PriorityClass"),
        ("rbac.authorization.k8s.io", "Role"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("rbac.authorization.k8s.io", "RoleBinding"),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("storage.k8s.io", "StorageClass"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("networking.k8s.io", "Ingress"),
        ("networking.k8s.io", "IngressClass"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("coordination.k8s.io", "Lease"),
        ("events.k8s.io", "Event"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("apiregistration.k8s.io", "APIService"),
        ("certificates.k8s.io", "CertificateSigningRequest"),
        ("node.k8s.io", "RuntimeClass"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        ("gateway.networking.k8s.io", "GatewayClass"),
        ("gateway.networking.k8s.io", "Gateway"),
        ("gateway.networking.k8s.io", "HTTPRoute"),
        ("gateway.networking.k8s.io", "GRPCRoute"),
        ("gateway.networking.k8s.io", "ReferenceGrant"),
        ("security.istio.io", "AuthorizationPolicy"),
        ("security.istio.io", "PeerAuthentication"),
    ];

    #[test]
    fn every_kind_is_known_and_its_rows_fit_its_columns() {
        for (group, name) in ALL {
            let kind = behaviour(group, name);
            assert_eq!((kind.facts().group, kind.facts().kind), (*group, *name));
            let row = kind.row(&json!({"metadata": {"name": "x"}}), Timestamp::from_secs(0));
            assert_eq!(row.cells.len(), kind.columns().len(), "{name}");
            assert_eq!(table::columns(kind).as_array().map(Vec::len), Some(kind.columns().len()));
        }
    }

    #[test]
    fn no_kind_stumbles_over_a_strange_tree() {
        let strange = [
            json!(null),
            json!([]),
            json!("x"),
            json!({"spec": 1, "metadata": []}),
            json!({"metadata": {"labels": 1}, "spec": []}),
        ];
        let context = Context { now: Timestamp::from_secs(0), uid: "u" };
        for (group, name) in ALL {
            let kind = behaviour(group, name);
            for tree in &strange {
                let mut object = tree.clone();
                kind.defaults(&mut object);
                kind.prepare_create(&mut object, &context);
                kind.validate_create(&object);
                kind.row(&object, context.now);
                kind.allocations(&object);
                let mut new = tree.clone();
                kind.prepare_update(&mut new, tree, &context);
                kind.validate_update(&new, tree);
                let mut new = tree.clone();
                kind.prepare_status_update(&mut new, tree);
            }
        }
    }
}

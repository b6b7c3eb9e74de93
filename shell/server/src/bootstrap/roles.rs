//! Kubernetes' default roles and bindings, as far as this platform has what they speak of.

use super::{ensure, target_of};
use crate::access::parse_rules;
use crate::core::Core;
use crate::in_process::system_caller;
use crate::ops::{Made, Part, WriteOptions, change};
use authz::rbac::{Rule, covers};
use kube::Status;
use serde_json::{Map, Value, json};

/// Verbs, groups and resources, each separated by spaces; `core` is the core group.
type RuleRow = (&'static str, &'static str, &'static str);

struct RoleRow {
    name: &'static str,
    /// Part of this aggregate (`admin`, `edit`, `view`).
    part_of: &'static str,
    /// Aggregates the roles that are part of this.
    aggregates: &'static str,
    rules: &'static [RuleRow],
    /// `get` on these paths.
    paths: &'static str,
}

const fn role(name: &'static str, rules: &'static [RuleRow]) -> RoleRow {
    RoleRow { name, part_of: "", aggregates: "", rules, paths: "" }
}

const fn part(name: &'static str, part_of: &'static str, rules: &'static [RuleRow]) -> RoleRow {
    RoleRow { part_of, ..role(name, rules) }
}

const fn aggregate(name: &'static str, part_of: &'static str) -> RoleRow {
    RoleRow { aggregates: name, ..part(name, part_of, &[]) }
}

const fn paths(name: &'static str, paths: &'static str) -> RoleRow {
    RoleRow { paths, ..role(name, &[]) }
}

const READ: &str = "get list watch";
const EDIT: &str = "create delete deletecollection patch update";

const WORKLOADS: &str =
    "daemonsets deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale";
const WORKLOAD_STATUS: &str = "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status";
const ROUTES: &str =
    "gateways listenersets httproutes grpcroutes tlsroutes tcproutes udproutes backendtlspolicies referencegrants";
const MESH_POLICIES: &str = "authorizationpolicies peerauthentications";
const OWN_MESH: &str = "trafficpolicies";

const ROLES: &[RoleRow] = &[
    aggregate("admin", ""),
    aggregate("edit", "admin"),
    aggregate("view", "edit"),
    part(
        "system:aggregate-to-admin",
        "admin",
        &[
            ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            (
                "create delete deletecollection get list patch update watch",
                "rbac.authorization.k8s.io",
                "rolebindings roles",
            ),
        ],
    ),
    part(
        "system:aggregate-to-edit",
        "edit",
        &[
            ("get list watch", "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
            ("impersonate", "core", "serviceaccounts"),
            (EDIT, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
            ("create", "core", "pods/eviction serviceaccounts/token"),
            (
                EDIT,
                "core",
                "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy endpoints",
            ),
            (EDIT, "apps", WORKLOADS),
            (EDIT, "autoscaling", "horizontalpodautoscalers"),
            (EDIT, "batch", "cronjobs jobs"),
            (EDIT, "policy", "poddisruptionbudgets"),
            (EDIT, "networking.k8s.io", "ingresses networkpolicies"),
            (EDIT, "gateway.networking.k8s.io", ROUTES),
            (EDIT, "security.istio.io", MESH_POLICIES),
            (EDIT, "mesh.diolkos.io", OWN_MESH),
            ("create delete deletecollection get list patch update watch", "coordination.k8s.io", "leases"),
        ],
    ),
    part(
        "system:aggregate-to-view",
        "view",
        &[
            (
                READ,
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
            ),
            (
                READ,
                "core",
                "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status",
            ),
            (READ, "core", "namespaces"),
            (READ, "discovery.k8s.io", "endpointslices"),
            (READ, "events.k8s.io", "events"),
            (READ, "apps", WORKLOAD_STATUS),
            (READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            (READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            (READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            (READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
            (
                READ,
                "gateway.networking.k8s.io",
                "gateways gateways/status listenersets listenersets/status httproutes httproutes/status grpcroutes grpcroutes/status tlsroutes tlsroutes/status tcproutes tcproutes/status udproutes udproutes/status backendtlspolicies backendtlspolicies/status referencegrants",
            ),
            (READ, "security.istio.io", MESH_POLICIES),
            (READ, "mesh.diolkos.io", OWN_MESH),
            (READ, "metrics.k8s.io", "pods nodes"),
        ],
    ),
    paths(
        "system:discovery",
        "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
    ),
    paths("system:public-info-viewer", "/healthz /livez /readyz /version /version/"),
    paths("system:monitoring", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),
    paths(
        "system:service-account-issuer-discovery",
        "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
    ),
    // Beside `view`, all that the dashboard shows.
    RoleRow {
        paths: "/diolkos/v1/*",
        ..role(
            "diolkos:dashboard",
            &[
                (READ, "core", "nodes persistentvolumes"),
                (READ, "metrics.k8s.io", "nodes pods"),
                (READ, "gateway.networking.k8s.io", "gatewayclasses"),
            ],
        )
    },
    role(
        "system:basic-user",
        &[
            ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            ("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    role(
        "system:auth-delegator",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    role("system:node-bootstrapper", &[("create get list watch", "certificates.k8s.io", "certificatesigningrequests")]),
    role(
        "system:node",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
            (READ, "core", "services"),
            ("create get list watch", "core", "nodes"),
            ("patch update", "core", "nodes/status"),
            ("patch update", "core", "nodes"),
            (READ, "core", "pods namespaces"),
            ("create delete", "core", "pods"),
            ("patch update", "core", "pods/status"),
            ("create", "core", "pods/eviction"),
            ("create patch update", "core events.k8s.io", "events"),
            ("get", "core", "persistentvolumeclaims persistentvolumes"),
            ("get", "core", "endpoints"),
            ("create get list patch update watch delete", "coordination.k8s.io", "leases"),
            (READ, "storage.k8s.io", "csidrivers csinodes volumeattachments storageclasses"),
            (READ, "node.k8s.io", "runtimeclasses"),
            (READ, "discovery.k8s.io", "endpointslices"),
        ],
    ),
];

const BINDINGS: &[(&str, &str, &[&str])] = &[
    ("cluster-admin", "cluster-admin", &["system:masters"]),
    ("system:discovery", "system:discovery", &["system:authenticated"]),
    ("system:basic-user", "system:basic-user", &["system:authenticated"]),
    ("system:public-info-viewer", "system:public-info-viewer", &["system:authenticated", "system:unauthenticated"]),
    ("system:monitoring", "system:monitoring", &["system:monitoring"]),
    ("system:service-account-issuer-discovery", "system:service-account-issuer-discovery", &["system:serviceaccounts"]),
    ("system:node", "system:node", &["system:nodes"]),
    ("diolkos:node-bootstrapper", "system:node-bootstrapper", &["system:bootstrappers"]),
];

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Makes the roles and bindings, and gives built-in roles the rules that a newer version added. `autoupdate: "false"` stops that.
pub(super) async fn reconcile(core: &Core) -> Result<(), Status> {
    for object in objects() {
        if ensure(core, object.clone()).await? {
            continue;
        }
        if object["kind"] != "ClusterRole" || !object["aggregationRule"].is_null() {
            continue;
        }
        let target = target_of(core, &object)?;
        let Some(have) = core.read(target.key(), "", &target.name) else { continue };
        let held = parse_rules(&have["rules"]);
        let held: Vec<&Rule> = held.iter().collect();
        if have["metadata"]["annotations"][AUTOUPDATE] == "false" || covers(&held, &parse_rules(&object["rules"])) {
            continue;
        }
        let caller = system_caller("kube-apiserver");
        change(core, &caller, &target, Part::Main, WriteOptions::default(), |old| {
            let mut new = old.clone();
            new["rules"] = object["rules"].clone();
            Ok(Made::Object(new))
        })
        .await?;
    }
    Ok(())
}

fn objects() -> Vec<Value> {
    let metadata = |name: &str| {
        json!({
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {AUTOUPDATE: "true"},
        })
    };
    let group = "rbac.authorization.k8s.io/v1";
    let everything = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let mut out = vec![
        json!({"apiVersion": group, "kind": "ClusterRole", "metadata": metadata("cluster-admin"), "rules": everything}),
    ];
    for row in ROLES {
        let mut object = json!({"apiVersion": group, "kind": "ClusterRole", "metadata": metadata(row.name)});
        if !row.part_of.is_empty() {
            object["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{}", row.part_of)] =
                "true".into();
        }
        if row.aggregates.is_empty() {
            object["rules"] = rules(row);
        } else {
            let mut labels = Map::new();
            labels.insert(format!("rbac.authorization.k8s.io/aggregate-to-{}", row.aggregates), "true".into());
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
        }
        out.push(object);
    }
    for (name, role, groups) in BINDINGS {
        let subject = |name: &&str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name});
        out.push(json!({
            "apiVersion": group,
            "kind": "ClusterRoleBinding",
            "metadata": metadata(name),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": groups.iter().map(subject).collect::<Vec<_>>(),
        }));
    }
    out
}

fn rules(row: &RoleRow) -> Value {
    let words = |text: &str| -> Vec<String> {
        text.split(' ')
            .filter(|word| !word.is_empty())
            .map(|word| if word == "core" { String::new() } else { word.to_owned() })
            .collect()
    };
    let mut rules: Vec<Value> = row
        .rules
        .iter()
        .map(|(verbs, groups, resources)| {
            json!({"apiGroups": words(groups), "resources": words(resources), "verbs": words(verbs)})
        })
        .collect();
    if !row.paths.is_empty() {
        rules.push(json!({"nonResourceURLs": words(row.paths), "verbs": ["get"]}));
    }
    rules.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_name_roles_that_are_made() {
        let names: Vec<Value> = objects()
            .into_iter()
            .filter(|object| object["kind"] == "ClusterRole")
            .map(|object| object["metadata"]["name"].clone())
            .collect();
        for (_, role, _) in BINDINGS {
            assert!(names.iter().any(|name| name == role), "{role}");
        }
    }
}

//! Kubernetes' own resources, one row each.

use super::{ALL_VERBS, Form, Resource, Stored, Subresource};
use crate::schema::table::Text;

/// Groups in the order in which kube-apiserver's `/apis` lists them; names that are not here follow.
const GROUPS: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
];

pub(super) fn group_rank(name: &str) -> usize {
    GROUPS.iter().position(|group| *group == name).unwrap_or(GROUPS.len())
}

const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const READ: &[&str] = &["get", "list"];
const READ_WATCH: &[&str] = &["get", "list", "watch"];
const EDIT: &[&str] = &["get", "patch", "update"];
const UPDATE: &[&str] = &["update"];
const CONNECT: &[&str] = &["create", "get"];

struct Row {
    gv: &'static str,
    /// Plural, and singular when it is not the kind in lower case.
    plural: &'static str,
    kind: &'static str,
    /// OpenAPI name of the type's package.
    package: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    verbs: &'static [&'static str],
    /// Name, `group/version/Kind` (empty: the parent's), verbs.
    subresources: &'static [(&'static str, &'static str, &'static [&'static str])],
    /// Where it is kept when that is not its own place.
    stored: Option<(&'static str, &'static str, &'static str)>,
}

const CORE: &str = "io.k8s.api.core.v1";
const APPS: &str = "io.k8s.api.apps.v1";
const STORAGE: &str = "io.k8s.api.storage.v1";
const RBAC: &str = "io.k8s.api.rbac.v1";
const NETWORKING: &str = "io.k8s.api.networking.v1";
const AUTHORIZATION: &str = "io.k8s.api.authorization.v1";
const AUTHENTICATION: &str = "io.k8s.api.authentication.v1";
const METRICS: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1";

const STATUS: (&str, &str, &[&str]) = ("status", "", EDIT);
const SCALE: (&str, &str, &[&str]) = ("scale", "autoscaling/v1/Scale", EDIT);

const fn row(gv: &'static str, plural: &'static str, kind: &'static str, package: &'static str) -> Row {
    Row {
        gv,
        plural,
        kind,
        package,
        short: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL_VERBS,
        subresources: &[],
        stored: None,
    }
}

impl Row {
    const fn short(mut self, short: &'static [&'static str]) -> Self {
        self.short = short;
        self
    }
    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }
    const fn in_category(mut self, categories: &'static [&'static str]) -> Self {
        self.categories = categories;
        self
    }
    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }
    const fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }
    const fn sub(mut self, subresources: &'static [(&'static str, &'static str, &'static [&'static str])]) -> Self {
        self.subresources = subresources;
        self
    }
    const fn stored_as(mut self, key: &'static str, group: &'static str, version: &'static str) -> Self {
        self.stored = Some((key, group, version));
        self
    }
}

/// Namespaces have no deletecollection: kube-apiserver refuses to wipe all of them in one call.
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

/// Not `ephemeralcontainers`, `resize` and `proxy`: nothing would come of them, and discovery says only what is true.
const POD_SUBRESOURCES: &[(&str, &str, &[&str])] = &[
    ("attach", "/v1/PodAttachOptions", CONNECT),
    ("binding", "/v1/Binding", CREATE),
    ("eviction", "policy/v1/Eviction", CREATE),
    ("exec", "/v1/PodExecOptions", CONNECT),
    ("log", "", GET),
    ("portforward", "/v1/PodPortForwardOptions", CONNECT),
    STATUS,
];

const ROWS: &[Row] = &[
    row("v1", "bindings", "Binding", CORE).verbs(CREATE),
    row("v1", "configmaps", "ConfigMap", CORE).short(&["cm"]),
    row("v1", "endpoints", "Endpoints", CORE).short(&["ep"]),
    row("v1", "events", "Event", CORE).short(&["ev"]),
    row("v1", "limitranges", "LimitRange", CORE).short(&["limits"]),
    row("v1", "namespaces", "Namespace", CORE)
        .short(&["ns"])
        .cluster()
        .verbs(NAMESPACE_VERBS)
        .sub(&[("finalize", "", UPDATE), STATUS]),
    row("v1", "nodes", "Node", CORE).short(&["no"]).cluster().sub(&[STATUS]),
    row("v1", "persistentvolumeclaims", "PersistentVolumeClaim", CORE).short(&["pvc"]).sub(&[STATUS]),
    row("v1", "persistentvolumes", "PersistentVolume", CORE).short(&["pv"]).cluster().sub(&[STATUS]),
    row("v1", "pods", "Pod", CORE).short(&["po"]).all().sub(POD_SUBRESOURCES),
    row("v1", "podtemplates", "PodTemplate", CORE),
    row("v1", "replicationcontrollers", "ReplicationController", CORE).short(&["rc"]).all().sub(&[SCALE, STATUS]),
    row("v1", "resourcequotas", "ResourceQuota", CORE).short(&["quota"]).sub(&[STATUS]),
    row("v1", "secrets", "Secret", CORE),
    row("v1", "serviceaccounts", "ServiceAccount", CORE).short(&["sa"]).sub(&[(
        "token",
        "authentication.k8s.io/v1/TokenRequest",
        CREATE,
    )]),
    row("v1", "services", "Service", CORE).short(&["svc"]).all().sub(&[STATUS]),
    row("apiregistration.k8s.io/v1", "apiservices", "APIService", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1")
        .in_category(&["api-extensions"])
        .cluster()
        .verbs(READ_WATCH)
        .sub(&[("status", "", GET)]),
    row("apps/v1", "controllerrevisions", "ControllerRevision", APPS),
    row("apps/v1", "daemonsets", "DaemonSet", APPS).short(&["ds"]).all().sub(&[STATUS]),
    row("apps/v1", "deployments", "Deployment", APPS).short(&["deploy"]).all().sub(&[SCALE, STATUS]),
    row("apps/v1", "replicasets", "ReplicaSet", APPS).short(&["rs"]).all().sub(&[SCALE, STATUS]),
    row("apps/v1", "statefulsets", "StatefulSet", APPS).short(&["sts"]).all().sub(&[SCALE, STATUS]),
    row("events.k8s.io/v1", "events", "Event", "io.k8s.api.events.v1").short(&["ev"]).stored_as("events", "", "v1"),
    row("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", AUTHENTICATION).cluster().verbs(CREATE),
    row("authentication.k8s.io/v1", "tokenreviews", "TokenReview", AUTHENTICATION).cluster().verbs(CREATE),
    row("authorization.k8s.io/v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", AUTHORIZATION)
        .verbs(CREATE),
    row("authorization.k8s.io/v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", AUTHORIZATION)
        .cluster()
        .verbs(CREATE),
    row("authorization.k8s.io/v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", AUTHORIZATION)
        .cluster()
        .verbs(CREATE),
    row("authorization.k8s.io/v1", "subjectaccessreviews", "SubjectAccessReview", AUTHORIZATION)
        .cluster()
        .verbs(CREATE),
    row("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "io.k8s.api.autoscaling.v2")
        .short(&["hpa"])
        .all()
        .sub(&[STATUS]),
    row("autoscaling/v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "io.k8s.api.autoscaling.v1")
        .short(&["hpa"])
        .all()
        .sub(&[STATUS])
        .stored_as("autoscaling/horizontalpodautoscalers", "autoscaling", "v2"),
    row("batch/v1", "cronjobs", "CronJob", "io.k8s.api.batch.v1").short(&["cj"]).all().sub(&[STATUS]),
    row("batch/v1", "jobs", "Job", "io.k8s.api.batch.v1").all().sub(&[STATUS]),
    row(
        "certificates.k8s.io/v1",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        "io.k8s.api.certificates.v1",
    )
    .short(&["csr"])
    .cluster()
    .sub(&[("approval", "", EDIT), STATUS]),
    row("networking.k8s.io/v1", "ingressclasses", "IngressClass", NETWORKING).cluster(),
    row("networking.k8s.io/v1", "ingresses", "Ingress", NETWORKING).short(&["ing"]).sub(&[STATUS]),
    row("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", NETWORKING).short(&["netpol"]),
    row("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", "io.k8s.api.policy.v1")
        .short(&["pdb"])
        .sub(&[STATUS]),
    row("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", RBAC).cluster(),
    row("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", RBAC).cluster(),
    row("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", RBAC),
    row("rbac.authorization.k8s.io/v1", "roles", "Role", RBAC),
    row("storage.k8s.io/v1", "csidrivers", "CSIDriver", STORAGE).cluster(),
    row("storage.k8s.io/v1", "csinodes", "CSINode", STORAGE).cluster(),
    row("storage.k8s.io/v1", "storageclasses", "StorageClass", STORAGE).short(&["sc"]).cluster(),
    row("storage.k8s.io/v1", "volumeattachments", "VolumeAttachment", STORAGE).cluster().sub(&[STATUS]),
    row(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    )
    .short(&["crd", "crds"])
    .in_category(&["api-extensions"])
    .cluster()
    .sub(&[STATUS]),
    row("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", "io.k8s.api.scheduling.v1")
        .short(&["pc"])
        .cluster(),
    row("coordination.k8s.io/v1", "leases", "Lease", "io.k8s.api.coordination.v1"),
    row("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", "io.k8s.api.node.v1").cluster(),
    row("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", "io.k8s.api.discovery.v1"),
    row("metrics.k8s.io/v1beta1", "nodes", "NodeMetrics", METRICS).cluster().verbs(READ).stored_as("", "", ""),
    row("metrics.k8s.io/v1beta1", "pods", "PodMetrics", METRICS).verbs(READ).stored_as("", "", ""),
];

pub(super) fn resources() -> impl Iterator<Item = Resource> {
    ROWS.iter().map(resource)
}

fn resource(row: &'static Row) -> Resource {
    let (group, version) = super::split_api_version(row.gv);
    let singular =
        if row.package == METRICS { row.plural.trim_end_matches('s').to_owned() } else { row.kind.to_lowercase() };
    let stored = row.stored.map_or_else(
        || Stored {
            key: if group.is_empty() {
                Text::Borrowed(row.plural)
            } else {
                Text::Owned(format!("{group}/{}", row.plural))
            },
            group: Text::Borrowed(group),
            version: Text::Borrowed(version),
        },
        |(key, group, version)| Stored { key: key.into(), group: group.into(), version: version.into() },
    );
    Resource {
        group: Text::Borrowed(group),
        version: Text::Borrowed(version),
        plural: Text::Borrowed(row.plural),
        singular: Text::Owned(singular),
        kind: Text::Borrowed(row.kind),
        list_kind: Text::Owned(format!("{}List", row.kind)),
        short_names: row.short.iter().copied().map(Text::Borrowed).collect(),
        categories: row.categories.iter().copied().map(Text::Borrowed).collect(),
        namespaced: row.namespaced,
        verbs: row.verbs,
        subresources: row.subresources.iter().map(|sub| subresource(sub, group, version, row.kind)).collect(),
        stored,
        form: Form::BuiltIn(type_name(row)),
    }
}

fn subresource(
    (name, gvk, verbs): &(&'static str, &'static str, &'static [&'static str]),
    group: &'static str,
    version: &'static str,
    kind: &'static str,
) -> Subresource {
    let mut parts = gvk.split('/');
    let (group, version, kind) = match (parts.next(), parts.next(), parts.next()) {
        (Some(group), Some(version), Some(kind)) => (group, version, kind),
        _ => (group, version, kind),
    };
    Subresource { name, group: group.into(), version: version.into(), kind: kind.into(), verbs }
}

/// The type's name as the table holds it, so that looking it up later makes no text.
fn type_name(row: &'static Row) -> &'static str {
    let table = crate::schema::builtin::table();
    let id = table.named(&format!("{}.{}", row.package, row.kind)).expect("a test looks every built-in type up");
    table.object(id).name.as_ref()
}

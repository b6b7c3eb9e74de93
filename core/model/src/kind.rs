//! Which kind an object is of, and where its resource lives in the API.

use std::fmt;

/// Group, version, plural and kind of one resource of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceType {
    /// API group, `""` for core.
    pub group: &'static str,
    /// Version that the projection reads and the rendering writes.
    pub version: &'static str,
    /// Plural, lower case.
    pub plural: &'static str,
    /// `Deployment`, ...
    pub kind: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl ResourceType {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $group:literal $version:literal $plural:literal $namespaced:literal;)*) => {
        /// The kinds that have a projection of their own, and every other one as `Other` (metadata only).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
            /// A kind of which only metadata is read: Secrets, RBAC, custom resources. The type is interned by whoever
            /// discovers it; their number is bounded by the number of resource types, so it may leak.
            Other(&'static ResourceType),
        }

        impl Kind {
            /// Every kind with a projection of its own.
            pub const TYPED: &'static [Kind] = &[$(Kind::$name,)*];

            /// Where it lives in the API.
            pub const fn resource(self) -> &'static ResourceType {
                match self {
                    $(Kind::$name => &ResourceType {
                        group: $group, version: $version, plural: $plural, kind: stringify!($name), namespaced: $namespaced,
                    },)*
                    Kind::Other(resource) => resource,
                }
            }
        }
    };
}

kinds! {
    /// A pod.
    Pod = "" "v1" "pods" true;
    /// A machine.
    Node = "" "v1" "nodes" false;
    /// A namespace.
    Namespace = "" "v1" "namespaces" false;
    /// An identity for pods.
    ServiceAccount = "" "v1" "serviceaccounts" true;
    /// A configuration map (metadata and the root bundle only).
    ConfigMap = "" "v1" "configmaps" true;
    /// A stable name and address in front of pods.
    Service = "" "v1" "services" true;
    /// The older form of endpoint slices.
    Endpoints = "" "v1" "endpoints" true;
    /// Addresses behind a service.
    EndpointSlice = "discovery.k8s.io" "v1" "endpointslices" true;
    /// A declared rollout of replica sets.
    Deployment = "apps" "v1" "deployments" true;
    /// A number of equal pods.
    ReplicaSet = "apps" "v1" "replicasets" true;
    /// The same in the core group, from before there were replica sets.
    ReplicationController = "" "v1" "replicationcontrollers" true;
    /// Pods with names and claims of their own.
    StatefulSet = "apps" "v1" "statefulsets" true;
    /// A pod on every eligible node.
    DaemonSet = "apps" "v1" "daemonsets" true;
    /// A recorded template of a StatefulSet or DaemonSet.
    ControllerRevision = "apps" "v1" "controllerrevisions" true;
    /// Pods that run to completion.
    Job = "batch" "v1" "jobs" true;
    /// Jobs by the clock.
    CronJob = "batch" "v1" "cronjobs" true;
    /// A bound on voluntary evictions.
    PodDisruptionBudget = "policy" "v1" "poddisruptionbudgets" true;
    /// A named priority.
    PriorityClass = "scheduling.k8s.io" "v1" "priorityclasses" false;
    /// Replicas by measured load.
    HorizontalPodAutoscaler = "autoscaling" "v2" "horizontalpodautoscalers" true;
    /// A request for storage.
    PersistentVolumeClaim = "" "v1" "persistentvolumeclaims" true;
    /// A piece of storage.
    PersistentVolume = "" "v1" "persistentvolumes" false;
    /// How storage is provisioned.
    StorageClass = "storage.k8s.io" "v1" "storageclasses" false;
    /// A heartbeat or a lock.
    Lease = "coordination.k8s.io" "v1" "leases" true;
    /// A resource type that users add.
    CustomResourceDefinition = "apiextensions.k8s.io" "v1" "customresourcedefinitions" false;
}

impl Kind {
    /// The kind of an owner reference, when it is one that has a projection of its own.
    pub fn parse(api_version: &str, kind: &str) -> Option<Kind> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Kind::TYPED.iter().copied().find(|k| k.resource().kind == kind && k.resource().group == group)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource().kind)
    }
}

//! The API resources that the node agent uses.

use client::Resource;

const fn core(plural: &'static str) -> Resource {
    Resource { group: "", version: "v1", plural }
}

pub const PODS: Resource = core("pods");
pub const NODES: Resource = core("nodes");
pub const CONFIG_MAPS: Resource = core("configmaps");
pub const SECRETS: Resource = core("secrets");
pub const SERVICE_ACCOUNTS: Resource = core("serviceaccounts");
pub const CLAIMS: Resource = core("persistentvolumeclaims");
pub const VOLUMES: Resource = core("persistentvolumes");
pub const EVENTS: Resource = core("events");
pub const RUNTIME_CLASSES: Resource = Resource { group: "node.k8s.io", version: "v1", plural: "runtimeclasses" };
pub const LEASES: Resource = Resource { group: "coordination.k8s.io", version: "v1", plural: "leases" };

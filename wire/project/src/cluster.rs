//! Nodes, namespaces, identities, leases, resource definitions; and metadata of everything else.

use crate::meta::meta;
use crate::read::{at, conditions, flag, int, items, path, str_at, text, texts, time};
use crate::scheduling::node_scheduling;
use model::cluster::{ConfigMap, CustomResourceDefinition, Lease, Namespace, Node, Other, ServiceAccount};
use model::map::stable_hash;
use model::taint::{Taint, TaintEffect};
use model::{ResourceType, Truth, condition};
use serde_json::Value;
use std::sync::Arc;

/// A Node.
pub fn node(object: &Value) -> Node {
    let (spec, status) = (at(object, "spec"), at(object, "status"));
    let port = path(status, &["daemonEndpoints", "kubeletEndpoint", "Port"]).as_i64();
    Node {
        meta: meta(object),
        unschedulable: flag(spec, "unschedulable"),
        pod_cidr: text(spec, "podCIDR"),
        taints: items(spec, "taints").iter().filter_map(taint).collect(),
        conditions: conditions(status, "lastHeartbeatTime"),
        addresses: items(status, "addresses").iter().map(|a| (text(a, "type"), text(a, "address"))).collect(),
        agent_port: port.and_then(|port| port.try_into().ok()).unwrap_or(0),
        scheduling: Arc::new(node_scheduling(status)),
    }
}

fn taint(value: &Value) -> Option<Taint> {
    Some(Taint {
        key: text(value, "key"),
        value: text(value, "value"),
        effect: TaintEffect::parse(str_at(value, "effect"))?,
        added: time(value, "timeAdded"),
    })
}

/// A Namespace.
pub fn namespace(object: &Value) -> Namespace {
    let status = at(object, "status");
    Namespace {
        meta: meta(object),
        finalizers: texts(at(object, "spec"), "finalizers"),
        terminating: str_at(status, "phase") == "Terminating",
        conditions: conditions(status, "lastUpdateTime"),
    }
}

/// A ServiceAccount.
pub fn service_account(object: &Value) -> ServiceAccount {
    ServiceAccount { meta: meta(object) }
}

/// A ConfigMap.
pub fn config_map(object: &Value) -> ConfigMap {
    let root_ca = path(object, &["data", "ca.crt"]).as_str().map(|pem| stable_hash(pem.as_bytes()));
    ConfigMap { meta: meta(object), root_ca }
}

/// A Lease.
pub fn lease(object: &Value) -> Lease {
    let spec = at(object, "spec");
    Lease {
        meta: meta(object),
        holder: text(spec, "holderIdentity"),
        duration_s: int(spec, "leaseDurationSeconds", 0),
        renewed: time(spec, "renewTime"),
    }
}

/// A CustomResourceDefinition.
pub fn custom_resource(object: &Value) -> CustomResourceDefinition {
    let (spec, status) = (at(object, "spec"), at(object, "status"));
    let versions = items(spec, "versions");
    let served = |version: &&Value| flag(version, "served");
    let version = versions
        .iter()
        .filter(served)
        .find(|version| flag(version, "storage"))
        .or_else(|| versions.iter().find(served))
        .map_or_else(Default::default, |version| text(version, "name"));
    let established =
        condition::find(&conditions(status, "lastUpdateTime"), "Established").is_some_and(|c| c.status == Truth::True);
    CustomResourceDefinition {
        meta: meta(object),
        group: text(spec, "group"),
        version,
        plural: text(at(spec, "names"), "plural"),
        kind: text(at(spec, "names"), "kind"),
        namespaced: str_at(spec, "scope") == "Namespaced",
        established,
    }
}

/// Any other object.
pub fn other(object: &Value, resource: &'static ResourceType) -> Other {
    Other { resource, meta: meta(object) }
}

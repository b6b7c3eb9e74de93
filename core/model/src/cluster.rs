//! Nodes, namespaces, identities and other things that are about the cluster.

use crate::condition::Condition;
use crate::taint::Taint;
use crate::{Meta, Timestamp, scheduling::NodeScheduling};
use std::sync::Arc;

/// A machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Metadata.
    pub meta: Meta,
    /// `spec.unschedulable`: cordoned.
    pub unschedulable: bool,
    /// `spec.podCIDR`.
    pub pod_cidr: Arc<str>,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
    /// `status.addresses`: type and address.
    pub addresses: Vec<(Arc<str>, Arc<str>)>,
    /// Port of the node agent's HTTPS endpoint (0: unknown).
    pub agent_port: u16,
    /// What the scheduler reads: allocatable resources, images.
    pub scheduling: Arc<NodeScheduling>,
}

impl Node {
    /// The address of this type (`InternalIP`, `Hostname`).
    pub fn address(&self, kind: &str) -> Option<&str> {
        self.addresses.iter().find(|(k, _)| &**k == kind).map(|(_, address)| &**address)
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Metadata.
    pub meta: Meta,
    /// `spec.finalizers`: while `kubernetes` is among them its content is being deleted.
    pub finalizers: Vec<Arc<str>>,
    /// `status.phase` is `Terminating`.
    pub terminating: bool,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
}

/// An identity for pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Metadata.
    pub meta: Meta,
}

/// A configuration map; its data is not read, but for one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// Metadata.
    pub meta: Meta,
    /// `stable_hash` of `data["ca.crt"]`, for the bundle that every namespace gets.
    pub root_ca: Option<u64>,
}

/// A heartbeat or a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Metadata.
    pub meta: Meta,
    /// Who holds it.
    pub holder: Arc<str>,
    /// Seconds that it is good for.
    pub duration_s: i32,
    /// When it was last renewed.
    pub renewed: Option<Timestamp>,
}

/// A resource type that users add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomResourceDefinition {
    /// Metadata.
    pub meta: Meta,
    /// `spec.group`.
    pub group: Arc<str>,
    /// A served version; the storage version when that is served.
    pub version: Arc<str>,
    /// `spec.names.plural`.
    pub plural: Arc<str>,
    /// `spec.names.kind`.
    pub kind: Arc<str>,
    /// `spec.scope` is `Namespaced`.
    pub namespaced: bool,
    /// Condition `Established` holds: the resource is served.
    pub established: bool,
}

/// Any other object: only its metadata is read (for owners, finalizers and namespaces).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its resource.
    pub resource: &'static crate::ResourceType,
    /// Metadata.
    pub meta: Meta,
}

//! Services and the endpoints behind them.

use crate::pod::Protocol;
use crate::{Labels, Meta};
use std::sync::Arc;

/// A stable name and address in front of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Metadata.
    pub meta: Meta,
    /// `spec.type`.
    pub service_type: ServiceType,
    /// `spec.selector`; empty means that somebody else writes the endpoints.
    pub selector: Labels,
    /// `spec.clusterIPs`; `None` is the one entry of a headless service.
    pub cluster_ips: Vec<Arc<str>>,
    /// `spec.externalName`.
    pub external_name: Arc<str>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.sessionAffinity` is `ClientIP`.
    pub client_ip_affinity: bool,
}

impl Service {
    /// `clusterIP: None`.
    pub fn is_headless(&self) -> bool {
        self.cluster_ips.first().is_some_and(|ip| &**ip == "None")
    }
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// A virtual address inside the cluster.
    #[default]
    ClusterIp,
    /// And a port on every node.
    NodePort,
    /// And an address from outside.
    LoadBalancer,
    /// A DNS alias.
    ExternalName,
}

/// `spec.ports` entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, or empty when it is the only one.
    pub name: Arc<str>,
    /// Port of the service.
    pub port: u16,
    /// Port on every node (0: none).
    pub node_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// Port of the pod.
    pub target: TargetPort,
    /// `appProtocol`, or empty.
    pub app_protocol: Arc<str>,
}

/// A port of the pod: its number or its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// Number.
    Number(u16),
    /// Name of a container port.
    Name(Arc<str>),
}

impl Default for TargetPort {
    fn default() -> Self {
        TargetPort::Number(0)
    }
}

/// Addresses behind a service that share ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Metadata; the label `kubernetes.io/service-name` names the service.
    pub meta: Meta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: AddressType,
    /// Ports.
    pub ports: Vec<EndpointPort>,
    /// Endpoints, in order of their address.
    pub endpoints: Vec<Endpoint>,
}

/// `addressType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressType {
    /// IPv4.
    #[default]
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Names.
    Fqdn,
}

impl AddressType {
    /// Kubernetes' spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            AddressType::Ipv4 => "IPv4",
            AddressType::Ipv6 => "IPv6",
            AddressType::Fqdn => "FQDN",
        }
    }
}

/// A port of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointPort {
    /// Name of the service's port, or empty.
    pub name: Arc<str>,
    /// Number; None means every port.
    pub port: Option<u16>,
    /// Transport.
    pub protocol: Protocol,
    /// `appProtocol`, or empty.
    pub app_protocol: Arc<str>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses, mostly one.
    pub addresses: Vec<Arc<str>>,
    /// Takes new connections: serving and not terminating (or not-ready ones are published).
    pub ready: bool,
    /// Answers, whether it is terminating or not.
    pub serving: bool,
    /// Being deleted.
    pub terminating: bool,
    /// Name under a headless service.
    pub hostname: Arc<str>,
    /// Node.
    pub node_name: Arc<str>,
    /// Zone of that node.
    pub zone: Arc<str>,
    /// The pod: namespace/name and uid.
    pub target: Option<TargetRef>,
}

/// A pod that an address belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetRef {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Uid.
    pub uid: Arc<str>,
}

/// The older form: subsets of addresses with their ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Metadata.
    pub meta: Meta,
    /// Subsets.
    pub subsets: Vec<EndpointSubset>,
}

/// Addresses with the same ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSubset {
    /// Ready ones.
    pub addresses: Vec<EndpointAddress>,
    /// The others.
    pub not_ready: Vec<EndpointAddress>,
    /// Ports.
    pub ports: Vec<EndpointPort>,
}

/// An address of a subset.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointAddress {
    /// Address.
    pub ip: Arc<str>,
    /// Name under a headless service.
    pub hostname: Arc<str>,
    /// Node.
    pub node_name: Arc<str>,
    /// The pod.
    pub target: Option<TargetRef>,
}

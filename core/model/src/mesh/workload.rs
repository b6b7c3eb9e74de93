//! Workloads, services, endpoints.

use super::gateway::BackendTls;
use super::subnet::Subnet;
use super::traffic::TrafficPolicy;
use crate::{Key, Labels, Timestamp};
use std::net::IpAddr;
use std::sync::Arc;

/// Something that has addresses and an identity: a pod, or a joined host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Resource name: `pod/NAMESPACE/NAME` or `host/NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// The object's uid: a pod that was replaced under the same name has another.
    pub uid: Arc<str>,
    /// Namespace and name of the object.
    pub key: Key,
    /// ServiceAccount, the last part of its identity.
    pub service_account: Arc<str>,
    /// Node that it runs on; empty for a joined host.
    pub node: Arc<str>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it is in its life.
    pub status: WorkloadStatus,
    /// How others reach it.
    pub tunnel: Tunnel,
    /// Zone, or empty.
    pub zone: Arc<str>,
    /// Region, or empty.
    pub region: Arc<str>,
    /// Name of the thing that made it, for telemetry (`reviews-v1`, the Deployment).
    pub canonical_name: Arc<str>,
    /// Kind of it: `Deployment`, `StatefulSet`, `Pod`, ...
    pub canonical_kind: Arc<str>,
    /// `app.kubernetes.io/name` or `app` label, else the canonical name.
    pub app: Arc<str>,
    /// `app.kubernetes.io/version` or `version` label, or `latest`.
    pub revision: Arc<str>,
    /// Authorization policies of [`Scope::Workload`](super::Scope::Workload) that select it, sorted. Those of wider scope apply without being listed.
    pub authorization_policies: Vec<Key>,
    /// Peer authentications of workload scope that select it, the one that counts first.
    pub peer_authentications: Vec<Key>,
    /// Request authentications of workload scope that select it, sorted.
    pub request_authentications: Vec<Key>,
    /// Its labels, as far as a rule asks callers for labels of these names.
    pub labels: Labels,
}

impl Workload {
    /// `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    pub fn identity(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}/ns/{}/sa/{}", self.key.namespace, self.service_account)
    }
}

/// Where a workload is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadStatus {
    /// Running (readiness is the endpoints' matter).
    #[default]
    Running,
    /// To be deleted: gets no new requests, finishes those that it has.
    Draining,
    /// Ended; its addresses may be another's soon.
    Gone,
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// Straight TCP: it is not in the mesh.
    #[default]
    None,
    /// HTTP/2 CONNECT under mutual TLS on port 15008 of its own address.
    Hbone,
}

/// A name and its virtual addresses. Resource name: `NAMESPACE/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The Service object.
    pub key: Key,
    /// Virtual addresses; none when headless or an external name.
    pub vips: Vec<IpAddr>,
    /// Names that it answers to, the full one first (`reviews.default.svc.cluster.local`), without final dot.
    pub hostnames: Vec<Arc<str>>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// `sessionAffinity: ClientIP`, with its timeout in seconds.
    pub affinity_s: Option<u32>,
    /// DNS answers hold endpoints that are not ready too.
    pub publish_not_ready: bool,
    /// `type: ExternalName`: the DNS name that this one stands for.
    pub external_name: Option<Arc<str>>,
    /// It is outside of the mesh: its endpoints are called without the mesh's TLS, whoever has their addresses.
    pub outside: bool,
    /// Namespaces whose callers see it; empty: all.
    pub export_to: Vec<Arc<str>>,
    /// Blocks of virtual addresses, of a service whose connections go where they were meant to go.
    pub blocks: Vec<Subnet>,
    /// When its object was made, of one that may share addresses or names with others: older ones go first.
    pub created: Timestamp,
    /// It is a subset of this service: it has no name and no address, and is called only by routes.
    pub subset_of: Option<Key>,
}

impl Service {
    /// The service that people know: of a subset the whole.
    pub fn known_as(&self) -> &Key {
        self.subset_of.as_ref().unwrap_or(&self.key)
    }
    /// Whether callers of a namespace see it.
    pub fn is_seen_from(&self, namespace: &str) -> bool {
        self.export_to.is_empty() || self.export_to.iter().any(|to| &**to == namespace)
    }
    /// Key of a service's subset. No Service has a name with `|`.
    pub fn subset_key(service: &Key, subset: &str) -> Key {
        Key { namespace: service.namespace.clone(), name: format!("{}|{subset}", service.name).into() }
    }
}

/// A service's port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Port on the virtual address.
    pub port: u16,
    /// `name`, or empty when there is one port only. An endpoint group's ports carry the same name.
    pub name: Arc<str>,
    /// TCP or UDP.
    pub transport: Transport,
    /// What is spoken on it.
    pub app_protocol: AppProtocol,
    /// Node port, 0 when there is none.
    pub node_port: u16,
    /// How its endpoints are called; none: as the mesh does by itself.
    pub traffic: Option<Arc<TrafficPolicy>>,
    /// TLS that gateways call it under.
    pub tls: Option<Arc<BackendTls>>,
    /// There are no endpoints to choose from: connections go where they were meant to go (ServiceEntry: resolution NONE).
    pub through: bool,
    /// In place of `traffic` for some callers; the first that means a caller counts.
    pub for_callers: Vec<CallerTraffic>,
}

/// How some callers call a port's endpoints: those of a namespace that have all of these labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerTraffic {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Labels; empty: all workloads of the namespace.
    pub labels: Labels,
    /// As the mesh does by itself, when none.
    pub traffic: Option<Arc<TrafficPolicy>>,
}

impl CallerTraffic {
    /// Whether it is for a caller of a namespace, with these labels (none: nothing is known of them).
    pub fn is_for(&self, namespace: &str, labels: Option<&Labels>) -> bool {
        let has = |(name, value): (&Arc<str>, &Arc<str>)| labels.and_then(|labels| labels.get(name)) == Some(value);
        *self.namespace == *namespace && self.labels.iter().all(has)
    }
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// What is spoken on a port: from `appProtocol`, else from the beginning of the port's name (`http-api`), as Istio reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppProtocol {
    /// Not said: the proxy looks at the first bytes.
    #[default]
    Unspecified,
    /// Opaque bytes.
    Tcp,
    /// HTTP/1.1, WebSocket.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC (HTTP/2 without TLS).
    Grpc,
    /// TLS of the application's own: opaque but for SNI.
    Tls,
}

impl AppProtocol {
    /// Whether requests are visible once the protocol is known.
    pub fn is_http(self) -> bool {
        matches!(self, AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc)
    }
    /// Whether an upstream connection speaks HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, AppProtocol::Http2 | AppProtocol::Grpc)
    }
}

/// Some of a service's endpoints: one EndpointSlice. Resource name: `NAMESPACE/SLICE`. A service's endpoints are the union of the
/// groups that name it; an address that occurs twice counts once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointGroup {
    /// The EndpointSlice.
    pub key: Key,
    /// The service that it belongs to.
    pub service: Key,
    /// Port of each endpoint by the service port's name.
    pub ports: Vec<(Arc<str>, u16)>,
    /// Endpoints, sorted by address.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub address: IpAddr,
    /// Resource name of the workload behind it, empty when it is none of ours.
    pub workload: Arc<str>,
    /// Whether it gets requests.
    pub health: Health,
    /// Relative share, 1 by default.
    pub weight: u32,
    /// Region, or empty.
    pub region: Arc<str>,
    /// Zone, or empty.
    pub zone: Arc<str>,
    /// Node, or empty.
    pub node: Arc<str>,
    /// `hostname` of a StatefulSet's pod (for DNS), or empty.
    pub hostname: Arc<str>,
}

impl Endpoint {
    /// An address of which nothing else is known; it is ready.
    pub fn at(address: IpAddr) -> Self {
        Endpoint {
            address,
            workload: "".into(),
            health: Health::Ready,
            weight: 1,
            region: "".into(),
            zone: "".into(),
            node: "".into(),
            hostname: "".into(),
        }
    }
}

/// Whether an endpoint gets requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It gets new requests.
    Ready,
    /// Terminating but serving: only when no endpoint of the service is ready (as kube-proxy does).
    Draining,
    /// No requests.
    #[default]
    NotReady,
}

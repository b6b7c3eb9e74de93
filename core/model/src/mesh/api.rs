//! The objects that people and controllers write, as far as the mesh reads them.
//!
//! References are as written (kind and group as text): whether they hold is for compiling to say, on the object's status.

pub mod istio;

pub use istio::{DestinationRule, FetchedJwks, RequestAuthentication, ResolvedName, ServiceEntry, VirtualService};

use super::attached::{Descriptor, Hedging, RateLimit};
use super::gateway::SubjectName;
use super::policy::{Action, MtlsMode, PolicyRule};
use super::route::{Filter, Fraction, Match, Retry, RouteKind, Session, Timeouts};
use super::workload::ServicePort;
use crate::{Key, LabelSelector, Labels, Meta};
use std::net::IpAddr;
use std::sync::Arc;

/// Any of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// v1 Namespace.
    Namespace(Namespace),
    /// v1 Node.
    Node(Node),
    /// v1 Pod.
    Pod(Pod),
    /// networking.istio.io WorkloadEntry.
    WorkloadEntry(WorkloadEntry),
    /// v1 Service.
    Service(Service),
    /// discovery.k8s.io EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// v1 Secret with certificates.
    TlsSecret(TlsSecret),
    /// gateway.networking.k8s.io GatewayClass.
    GatewayClass(GatewayClass),
    /// gateway.networking.k8s.io Gateway.
    Gateway(Gateway),
    /// gateway.networking.k8s.io ListenerSet.
    ListenerSet(ListenerSet),
    /// gateway.networking.k8s.io BackendTLSPolicy.
    BackendTlsPolicy(BackendTlsPolicy),
    /// v1 ConfigMap with `ca.crt`.
    CaBundle(CaBundle),
    /// HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute.
    Route(Route),
    /// gateway.networking.k8s.io ReferenceGrant.
    ReferenceGrant(ReferenceGrant),
    /// security.istio.io AuthorizationPolicy.
    AuthorizationPolicy(AuthorizationPolicy),
    /// security.istio.io PeerAuthentication.
    PeerAuthentication(PeerAuthentication),
    /// networking.istio.io VirtualService.
    VirtualService(Box<VirtualService>),
    /// networking.istio.io DestinationRule.
    DestinationRule(Box<DestinationRule>),
    /// networking.istio.io ServiceEntry.
    ServiceEntry(Box<ServiceEntry>),
    /// What a DNS name stands for. Not an object of the API.
    ResolvedName(ResolvedName),
    /// security.istio.io RequestAuthentication.
    RequestAuthentication(Box<RequestAuthentication>),
    /// The keys that are served at an address. Not an object of the API.
    FetchedJwks(FetchedJwks),
    /// mesh.diolkos.io TrafficPolicy.
    TrafficPolicy(Box<TrafficPolicy>),
}

/// Kind of an [`Object`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// [`Namespace`].
    Namespace,
    /// [`Node`].
    Node,
    /// [`Pod`].
    Pod,
    /// [`WorkloadEntry`].
    WorkloadEntry,
    /// [`Service`].
    Service,
    /// [`EndpointSlice`].
    EndpointSlice,
    /// [`TlsSecret`].
    TlsSecret,
    /// [`GatewayClass`].
    GatewayClass,
    /// [`Gateway`].
    Gateway,
    /// [`ListenerSet`].
    ListenerSet,
    /// [`BackendTlsPolicy`].
    BackendTlsPolicy,
    /// [`CaBundle`].
    CaBundle,
    /// [`Route`] of one kind.
    Route(RouteKind),
    /// [`ReferenceGrant`].
    ReferenceGrant,
    /// [`AuthorizationPolicy`].
    AuthorizationPolicy,
    /// [`PeerAuthentication`].
    PeerAuthentication,
    /// [`VirtualService`].
    VirtualService,
    /// [`DestinationRule`].
    DestinationRule,
    /// [`ServiceEntry`].
    ServiceEntry,
    /// [`ResolvedName`].
    ResolvedName,
    /// [`RequestAuthentication`].
    RequestAuthentication,
    /// [`FetchedJwks`].
    FetchedJwks,
    /// [`TrafficPolicy`].
    TrafficPolicy,
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Object::Namespace(_) => ObjectKind::Namespace,
            Object::Node(_) => ObjectKind::Node,
            Object::Pod(_) => ObjectKind::Pod,
            Object::WorkloadEntry(_) => ObjectKind::WorkloadEntry,
            Object::Service(_) => ObjectKind::Service,
            Object::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Object::TlsSecret(_) => ObjectKind::TlsSecret,
            Object::GatewayClass(_) => ObjectKind::GatewayClass,
            Object::Gateway(_) => ObjectKind::Gateway,
            Object::ListenerSet(_) => ObjectKind::ListenerSet,
            Object::BackendTlsPolicy(_) => ObjectKind::BackendTlsPolicy,
            Object::CaBundle(_) => ObjectKind::CaBundle,
            Object::Route(route) => ObjectKind::Route(route.kind),
            Object::ReferenceGrant(_) => ObjectKind::ReferenceGrant,
            Object::AuthorizationPolicy(_) => ObjectKind::AuthorizationPolicy,
            Object::PeerAuthentication(_) => ObjectKind::PeerAuthentication,
            Object::VirtualService(_) => ObjectKind::VirtualService,
            Object::DestinationRule(_) => ObjectKind::DestinationRule,
            Object::ServiceEntry(_) => ObjectKind::ServiceEntry,
            Object::ResolvedName(_) => ObjectKind::ResolvedName,
            Object::RequestAuthentication(_) => ObjectKind::RequestAuthentication,
            Object::FetchedJwks(_) => ObjectKind::FetchedJwks,
            Object::TrafficPolicy(_) => ObjectKind::TrafficPolicy,
        }
    }
    /// Its key.
    pub fn key(&self) -> &Key {
        match self {
            Object::Namespace(it) => &it.key,
            Object::Node(it) => &it.key,
            Object::Pod(it) => &it.key,
            Object::WorkloadEntry(it) => &it.key,
            Object::Service(it) => &it.key,
            Object::EndpointSlice(it) => &it.key,
            Object::TlsSecret(it) => &it.key,
            Object::GatewayClass(it) => &it.meta.key,
            Object::Gateway(it) => &it.meta.key,
            Object::ListenerSet(it) => &it.meta.key,
            Object::BackendTlsPolicy(it) => &it.meta.key,
            Object::CaBundle(it) => &it.key,
            Object::Route(it) => &it.meta.key,
            Object::ReferenceGrant(it) => &it.key,
            Object::AuthorizationPolicy(it) => &it.meta.key,
            Object::PeerAuthentication(it) => &it.meta.key,
            Object::VirtualService(it) => &it.meta.key,
            Object::DestinationRule(it) => &it.meta.key,
            Object::ServiceEntry(it) => &it.meta.key,
            Object::ResolvedName(it) => &it.key,
            Object::RequestAuthentication(it) => &it.meta.key,
            Object::FetchedJwks(it) => &it.key,
            Object::TrafficPolicy(it) => &it.meta.key,
        }
    }
}

/// A namespace: selectors look at its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its key (cluster-scoped).
    pub key: Key,
    /// Its labels.
    pub labels: Labels,
}

/// A node: where its pods are, and where gateways listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its key (cluster-scoped).
    pub key: Key,
    /// `topology.kubernetes.io/zone`.
    pub zone: Arc<str>,
    /// `topology.kubernetes.io/region`.
    pub region: Arc<str>,
    /// External addresses, else internal ones.
    pub addresses: Vec<IpAddr>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its key.
    pub key: Key,
    /// Its uid.
    pub uid: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// ServiceAccount.
    pub service_account: Arc<str>,
    /// Node, or empty.
    pub node: Arc<str>,
    /// `status.podIPs`.
    pub addresses: Vec<IpAddr>,
    /// `spec.hostNetwork`: its addresses are its node's.
    pub host_network: bool,
    /// Annotation `diolkos.io/mesh: disabled`.
    pub mesh_disabled: bool,
    /// `deletionTimestamp` is set.
    pub deleting: bool,
    /// Phase Succeeded or Failed.
    pub ended: bool,
    /// Kind and name of its controller; both empty for none.
    pub controller: (Arc<str>, Arc<str>),
}

/// A workload that is no pod: a joined host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Its key.
    pub key: Key,
    /// Its uid.
    pub uid: Arc<str>,
    /// Labels of the workload.
    pub labels: Labels,
    /// ServiceAccount.
    pub service_account: Arc<str>,
    /// `address`, if it is one.
    pub address: Option<IpAddr>,
    /// `address`, if it is a DNS name, lower case; or empty.
    pub host: Arc<str>,
    /// `ports`: of services' ports by name, where they differ.
    pub ports: Vec<(Arc<str>, u16)>,
    /// `weight`; 0 stands for 1.
    pub weight: u32,
    /// `locality`: region and zone.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// `deletionTimestamp` is set.
    pub deleting: bool,
    /// Its proxy speaks HBONE (it joined).
    pub joined: bool,
    /// Which joining it is of, as the host's certificate says too; empty: of one before they were told apart.
    pub joined_id: Arc<str>,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its key.
    pub key: Key,
    /// Which pods; empty: none.
    pub selector: Labels,
    /// `clusterIPs` that are addresses.
    pub vips: Vec<IpAddr>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `sessionAffinity: ClientIP` with its seconds.
    pub affinity_s: Option<u32>,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `externalName` of that type.
    pub external_name: Option<Arc<str>>,
}

/// An EndpointSlice (of addresses; names are left out).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its key.
    pub key: Key,
    /// Label `kubernetes.io/service-name`, or empty.
    pub service: Arc<str>,
    /// Name and number.
    pub ports: Vec<(Arc<str>, u16)>,
    /// Endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Addresses; the first one counts.
    pub addresses: Vec<IpAddr>,
    /// Condition; not said means ready.
    pub ready: bool,
    /// Condition; not said means as `ready`.
    pub serving: bool,
    /// Condition.
    pub terminating: bool,
    /// Kind and name of `targetRef`; both empty for none.
    pub target: (Arc<str>, Arc<str>),
    /// `nodeName`, or empty.
    pub node: Arc<str>,
    /// `zone`, or empty.
    pub zone: Arc<str>,
    /// `hostname`, or empty.
    pub hostname: Arc<str>,
}

/// A Secret with certificates.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsSecret {
    /// Its key.
    pub key: Key,
    /// `tls.crt`.
    pub certificate_chain: Arc<[u8]>,
    /// `tls.key`.
    pub private_key: Arc<[u8]>,
    /// `ca.crt` (of a generic one `cacert` too), PEM; may be empty.
    pub roots: Arc<str>,
    /// It is not of type `kubernetes.io/tls`: only DestinationRules take it.
    pub generic: bool,
    /// Why certificate and key cannot be used, or empty.
    pub flaw: Arc<str>,
}

impl std::fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSecret").field("key", &self.key).field("flaw", &self.flaw).finish_non_exhaustive()
    }
}

/// A GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayClass {
    /// Metadata.
    pub meta: Meta,
    /// `spec.controllerName`.
    pub controller: Arc<str>,
    /// `spec.parametersRef` is set: we have none to refer to.
    pub has_parameters: bool,
}

/// A Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// Metadata.
    pub meta: Meta,
    /// `spec.gatewayClassName`.
    pub class: Arc<str>,
    /// `spec.listeners`.
    pub listeners: Vec<ListenerSpec>,
    /// `spec.addresses`: type and value.
    pub addresses: Vec<(Arc<str>, Arc<str>)>,
    /// `status.addresses` that are addresses: what it was given before.
    pub given: Vec<IpAddr>,
    /// `spec.allowedListeners.namespaces`: whose ListenerSets may add listeners; nobody's when not said.
    pub allowed_sets: AllowedNamespaces,
    /// `spec.infrastructure` labels and annotations, for what is made on its behalf.
    pub infrastructure: (Labels, Labels),
    /// `spec.infrastructure.parametersRef` is set: we have none to refer to.
    pub has_parameters: bool,
    /// `spec.tls.backend.clientCertificateRef`.
    pub client_certificate: Option<Reference>,
    /// `spec.tls.frontend.default.validation`.
    pub frontend: Option<FrontendValidation>,
    /// `spec.tls.frontend.perPort`: in place of the default on that port.
    pub frontend_ports: Vec<(u16, Option<FrontendValidation>)>,
}

/// Which client certificates listeners take, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontendValidation {
    /// `caCertificateRefs`.
    pub roots: Vec<Reference>,
    /// `mode: AllowInsecureFallback`.
    pub insecure_fallback: bool,
}

/// A ListenerSet: more listeners for a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerSet {
    /// Metadata.
    pub meta: Meta,
    /// `spec.parentRef`.
    pub parent: Reference,
    /// `spec.listeners`.
    pub listeners: Vec<ListenerSpec>,
}

/// A BackendTLSPolicy as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTlsPolicy {
    /// Metadata.
    pub meta: Meta,
    /// `spec.targetRefs`, each with its section name (a port's name) or empty. Always of the policy's own namespace.
    pub targets: Vec<(Reference, Arc<str>)>,
    /// `validation.hostname`.
    pub hostname: Arc<str>,
    /// `validation.caCertificateRefs`.
    pub roots: Vec<Reference>,
    /// `validation.wellKnownCACertificates`, or empty.
    pub well_known: Arc<str>,
    /// `validation.subjectAltNames`.
    pub names: Vec<SubjectName>,
}

/// A ConfigMap that holds certificates to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaBundle {
    /// Its key.
    pub key: Key,
    /// `ca.crt`: PEM, one or more certificates.
    pub roots: Arc<str>,
    /// Why it cannot be used, or empty.
    pub flaw: Arc<str>,
}

/// A listener as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Section name.
    pub name: Arc<str>,
    /// Hostname, or empty.
    pub hostname: Arc<str>,
    /// Port.
    pub port: u16,
    /// `HTTP`, `HTTPS`, ...
    pub protocol: Arc<str>,
    /// `tls.mode`, `Terminate` when not said; none without `tls`.
    pub tls_mode: Option<Arc<str>>,
    /// `tls.certificateRefs`.
    pub certificates: Vec<Reference>,
    /// `allowedRoutes.namespaces`.
    pub allowed_namespaces: AllowedNamespaces,
    /// `allowedRoutes.kinds`: group and kind; empty means by protocol.
    pub allowed_kinds: Vec<(Arc<str>, Arc<str>)>,
}

/// From which namespaces routes may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// The gateway's own.
    #[default]
    Same,
    /// All.
    All,
    /// Those whose labels match.
    Selector(LabelSelector),
    /// None (`from: None`, or a word that is not known).
    Nobody,
}

/// A reference to an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Group; the core one is empty.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace; empty: that of the object that refers.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Reference {
    /// The key, seen from an object of `namespace`.
    pub fn key(&self, namespace: &Arc<str>) -> Key {
        let namespace = if self.namespace.is_empty() { namespace } else { &self.namespace };
        Key { namespace: namespace.clone(), name: self.name.clone() }
    }
    /// Whether it is of this group and kind.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        &*self.group == group && &*self.kind == kind
    }
}

/// A route as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Which kind of route.
    pub kind: RouteKind,
    /// Metadata.
    pub meta: Meta,
    /// `spec.parentRefs`.
    pub parents: Vec<ParentRef>,
    /// `spec.hostnames`.
    pub hostnames: Vec<Arc<str>>,
    /// `spec.rules`.
    pub rules: Vec<RuleSpec>,
}

/// Where a route wants to hang.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParentRef {
    /// The object; group and kind are those of a Gateway when not said. A namespace stays empty when not said.
    pub reference: Reference,
    /// Section name, or empty.
    pub section: Arc<str>,
    /// Port.
    pub port: Option<u16>,
}

/// A rule as written; of what refers to nothing already in its compiled form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSpec {
    /// Name, or empty.
    pub name: Arc<str>,
    /// Matches; empty means everything.
    pub matches: Vec<Match>,
    /// Filters.
    pub filters: Vec<FilterSpec>,
    /// Backends.
    pub backends: Vec<BackendRef>,
    /// Limits on time.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Option<Retry>,
    /// `sessionPersistence`; without a name it gets one.
    pub session: Option<Session>,
    /// What in it cannot be used, or empty.
    pub flaw: Arc<str>,
}

/// A filter as written.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterSpec {
    /// One that refers to nothing.
    Plain(Filter),
    /// A mirror.
    Mirror {
        /// Where.
        backend: BackendRef,
        /// Which share.
        fraction: Fraction,
    },
    /// A reference to a filter of somebody's own: there are none here.
    Extension(Reference),
}

/// A backend as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendRef {
    /// The object.
    pub reference: Reference,
    /// Port; a Service needs one.
    pub port: Option<u16>,
    /// Weight.
    pub weight: u32,
    /// Filters.
    pub filters: Vec<FilterSpec>,
}

/// A ReferenceGrant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Its key: it opens its own namespace.
    pub key: Key,
    /// To whom: group, kind and namespace.
    pub from: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
    /// What: group, kind and name; an empty name is any. The namespace is the grant's own.
    pub to: Vec<Reference>,
}

impl ReferenceGrant {
    /// Whether it lets an object of `group`, `kind` and `namespace` refer to `to` in the grant's namespace.
    pub fn permits(&self, (group, kind, namespace): (&str, &str, &str), to: &Reference) -> bool {
        self.from.iter().any(|from| (&*from.0, &*from.1, &*from.2) == (group, kind, namespace))
            && self
                .to
                .iter()
                .any(|granted| granted.is(&to.group, &to.kind) && (granted.name.is_empty() || granted.name == to.name))
    }
}

/// An AuthorizationPolicy as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Metadata.
    pub meta: Meta,
    /// `selector.matchLabels`; empty: all.
    pub selector: Labels,
    /// `targetRefs` (and `targetRef`).
    pub targets: Vec<Reference>,
    /// What it does.
    pub action: Action,
    /// Annotation `istio.io/dry-run: "true"`.
    pub dry_run: bool,
    /// `provider.name`, or empty.
    pub provider: Arc<str>,
    /// Rules.
    pub rules: Vec<PolicyRule>,
}

/// A PeerAuthentication as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Metadata.
    pub meta: Meta,
    /// `selector.matchLabels`; empty: all.
    pub selector: Labels,
    /// `mtls.mode`.
    pub mode: MtlsMode,
    /// `portLevelMtls`.
    pub ports: Vec<(u16, MtlsMode)>,
}

/// What holds for the requests of gateways, routes and services of its namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// Common parts.
    pub meta: Meta,
    /// What it is about, each with a section (name of a listener, rule or port; empty: all of it).
    pub targets: Vec<(Reference, Arc<str>)>,
    /// `rateLimit.local`.
    pub limits: Vec<RateLimit>,
    /// `rateLimit.global`.
    pub global: Option<GlobalLimitSpec>,
    /// `hedging`.
    pub hedging: Option<Hedging>,
    /// `proxyProtocol: Required`, for gateways.
    pub proxy_protocol: bool,
    /// What makes it unusable, or empty.
    pub flaw: Arc<str>,
}

/// A rate limit service, as it is named.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalLimitSpec {
    /// Who is asked.
    pub backend: BackendRef,
    /// `domain`.
    pub domain: Arc<str>,
    /// Patience.
    pub timeout_ms: u64,
    /// Without an answer requests pass.
    pub fail_open: bool,
    /// What it is asked.
    pub descriptors: Vec<Descriptor>,
}

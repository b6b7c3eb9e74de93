//! The nouns of the mesh: what the control plane tells every proxy.
//!
//! These are *compiled* resources, small and joined as little as possible: an [`EndpointGroup`] names its service, a [`Route`] names the
//! services and listeners that it hangs on, a [`Workload`] names the policies that select it. So a change of one object changes one
//! resource, and one encoding of it serves all proxies. `traffic` decides with routes and endpoints, `authz` with policies;
//! `wire/xds` turns each into bytes and back.
//!
//! The objects that people write (Gateway API and Istio kinds), as far as compiling them reads them, are in [`api`].

pub mod api;
pub mod attached;
pub mod gateway;
pub mod headers;
pub mod policy;
pub mod route;
pub mod subnet;
pub mod traffic;
pub mod workload;

pub use attached::AttachedPolicy;
pub use gateway::{BackendTls, ClientValidation, Gateway, Listener, ListenerProtocol, SubjectName, TlsMode};
pub use headers::Headers;
pub use policy::{
    Action, AuthorizationPolicy, Condition, ExtensionProvider, JwtRule, MtlsMode, Operation, PeerAuthentication,
    PolicyRule, RequestAuthentication, Scope, Source,
};
pub use route::{
    Abort, Backend, BackendTarget, Cors, Fault, Filter, Fraction, HeaderModifier, Hostname, Match, MatchMore, Mirror,
    Parent, ParentTarget, PathMatch, PathModifier, Redirect, Response, Retry, Rewrite, Route, RouteKind, Rule, Session,
    TextMatch, Timeouts, ValueMatch,
};
pub use subnet::Subnet;
pub use traffic::TrafficPolicy;
pub use workload::{
    AppProtocol, CallerTraffic, Endpoint, EndpointGroup, Health, Service, ServicePort, Transport, Tunnel, Workload,
    WorkloadStatus,
};

use std::sync::Arc;

/// Any resource, by kind. The kind's xDS type URL is wire's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Something with an address and an identity.
    Workload(Arc<Workload>),
    /// A name and virtual addresses.
    Service(Arc<Service>),
    /// Some of a service's endpoints.
    Endpoints(Arc<EndpointGroup>),
    /// Rules on a service or listener.
    Route(Arc<Route>),
    /// Listeners on host ports.
    Gateway(Arc<Gateway>),
    /// Who may call.
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    /// Whether plain text is taken.
    PeerAuthentication(Arc<PeerAuthentication>),
    /// Whose tokens are taken.
    RequestAuthentication(Arc<RequestAuthentication>),
    /// Who is asked about requests.
    ExtensionProvider(Arc<ExtensionProvider>),
    /// What holds for requests of a gateway, route or service.
    AttachedPolicy(Arc<AttachedPolicy>),
    /// A listener's certificate.
    Secret(Arc<TlsSecret>),
    /// The roots to verify peers with.
    TrustBundle(Arc<TrustBundle>),
}

/// Kind of a [`Resource`], in the order in which a proxy should learn them: what is pointed at before what points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// [`TrustBundle`].
    TrustBundle,
    /// [`TlsSecret`].
    Secret,
    /// [`AuthorizationPolicy`]: before workloads, so that a workload is never known without its policies.
    AuthorizationPolicy,
    /// [`PeerAuthentication`].
    PeerAuthentication,
    /// [`RequestAuthentication`].
    RequestAuthentication,
    /// [`ExtensionProvider`].
    ExtensionProvider,
    /// [`AttachedPolicy`]: before what it hangs on, so that nothing is served without it.
    AttachedPolicy,
    /// [`Workload`].
    Workload,
    /// [`Service`].
    Service,
    /// [`EndpointGroup`].
    Endpoints,
    /// [`Gateway`].
    Gateway,
    /// [`Route`].
    Route,
}

impl ResourceKind {
    /// All kinds in learning order.
    pub const ALL: [ResourceKind; 12] = [
        ResourceKind::TrustBundle,
        ResourceKind::Secret,
        ResourceKind::AuthorizationPolicy,
        ResourceKind::ExtensionProvider,
        ResourceKind::RequestAuthentication,
        ResourceKind::PeerAuthentication,
        ResourceKind::AttachedPolicy,
        ResourceKind::Workload,
        ResourceKind::Service,
        ResourceKind::Endpoints,
        ResourceKind::Gateway,
        ResourceKind::Route,
    ];
}

impl Resource {
    /// Its kind.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Resource::Workload(_) => ResourceKind::Workload,
            Resource::Service(_) => ResourceKind::Service,
            Resource::Endpoints(_) => ResourceKind::Endpoints,
            Resource::Route(_) => ResourceKind::Route,
            Resource::Gateway(_) => ResourceKind::Gateway,
            Resource::AuthorizationPolicy(_) => ResourceKind::AuthorizationPolicy,
            Resource::PeerAuthentication(_) => ResourceKind::PeerAuthentication,
            Resource::RequestAuthentication(_) => ResourceKind::RequestAuthentication,
            Resource::ExtensionProvider(_) => ResourceKind::ExtensionProvider,
            Resource::AttachedPolicy(_) => ResourceKind::AttachedPolicy,
            Resource::Secret(_) => ResourceKind::Secret,
            Resource::TrustBundle(_) => ResourceKind::TrustBundle,
        }
    }
    /// Its name, unique within the kind.
    pub fn name(&self) -> String {
        match self {
            Resource::Workload(it) => it.name.to_string(),
            Resource::Service(it) => it.key.to_string(),
            Resource::Endpoints(it) => it.key.to_string(),
            Resource::Route(it) => it.name.to_string(),
            Resource::Gateway(it) => it.key.to_string(),
            Resource::AuthorizationPolicy(it) => it.key.to_string(),
            Resource::PeerAuthentication(it) => it.key.to_string(),
            Resource::RequestAuthentication(it) => it.key.to_string(),
            Resource::ExtensionProvider(it) => it.name.to_string(),
            Resource::AttachedPolicy(it) => it.key.to_string(),
            Resource::Secret(it) => it.key.to_string(),
            Resource::TrustBundle(it) => it.trust_domain.to_string(),
        }
    }
}

/// Namespaces that speak for the whole mesh: their policies hold everywhere, and what the operator names is looked for from there.
pub const ROOT_NAMESPACES: [&str; 2] = ["diolkos-system", "istio-system"];

/// A certificate chain and its key, for a listener. Sent only to proxies that serve the gateway.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsSecret {
    /// The Secret object.
    pub key: crate::Key,
    /// `tls.crt`, PEM, leaf first.
    pub certificate_chain: Arc<[u8]>,
    /// `tls.key`, PEM.
    pub private_key: Arc<[u8]>,
}

impl std::fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("TlsSecret").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The roots that certificates of a trust domain may chain to. More than one while roots are rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// `cluster.local`.
    pub trust_domain: Arc<str>,
    /// One PEM certificate each.
    pub roots: Vec<Arc<str>>,
    /// The keys that its JWT-SVIDs are signed with, as a JSON Web Key Set (RFC 7517); empty: it has none.
    pub jwks: Arc<str>,
}

//! Diolkos's own resource messages, `type.diolkos.io/mesh.v1.*`: compact, one for each thing that changes by itself.
//!
//! The Rust shapes that programs use are in `model::mesh`; [`crate::convert`] goes between. Field numbers here are a public contract
//! between versions of control plane and proxy: add, never reuse.

pub mod attached;
pub mod request;
mod security;
pub mod traffic;

pub use security::*;

use bytes::Bytes;
use model::mesh::ResourceKind;

/// Type URL of a kind.
pub fn type_url(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::TrustBundle => "type.diolkos.io/mesh.v1.TrustBundle",
        ResourceKind::Secret => "type.diolkos.io/mesh.v1.Secret",
        ResourceKind::AuthorizationPolicy => "type.diolkos.io/mesh.v1.AuthorizationPolicy",
        ResourceKind::PeerAuthentication => "type.diolkos.io/mesh.v1.PeerAuthentication",
        ResourceKind::RequestAuthentication => "type.diolkos.io/mesh.v1.RequestAuthentication",
        ResourceKind::ExtensionProvider => "type.diolkos.io/mesh.v1.ExtensionProvider",
        ResourceKind::AttachedPolicy => "type.diolkos.io/mesh.v1.AttachedPolicy",
        ResourceKind::Workload => "type.diolkos.io/mesh.v1.Workload",
        ResourceKind::Service => "type.diolkos.io/mesh.v1.Service",
        ResourceKind::Endpoints => "type.diolkos.io/mesh.v1.Endpoints",
        ResourceKind::Gateway => "type.diolkos.io/mesh.v1.Gateway",
        ResourceKind::Route => "type.diolkos.io/mesh.v1.Route",
    }
}

/// Kind of a type URL.
pub fn kind_of(type_url_text: &str) -> Option<ResourceKind> {
    ResourceKind::ALL.into_iter().find(|kind| type_url(*kind) == type_url_text)
}

/// Namespace and name.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Key {
    /// Namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// See `model::mesh::Workload`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Workload {
    /// Resource name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Object uid.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// Object.
    #[prost(message, optional, tag = "3")]
    pub key: Option<Key>,
    /// ServiceAccount.
    #[prost(string, tag = "4")]
    pub service_account: String,
    /// Node.
    #[prost(string, tag = "5")]
    pub node: String,
    /// 4 or 16 bytes each, network order.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub addresses: Vec<Bytes>,
    /// 0 running, 1 draining, 2 gone.
    #[prost(uint32, tag = "7")]
    pub status: u32,
    /// 0 none, 1 HBONE.
    #[prost(uint32, tag = "8")]
    pub tunnel: u32,
    /// Zone.
    #[prost(string, tag = "9")]
    pub zone: String,
    /// Region.
    #[prost(string, tag = "10")]
    pub region: String,
    /// Canonical name.
    #[prost(string, tag = "11")]
    pub canonical_name: String,
    /// Canonical kind.
    #[prost(string, tag = "12")]
    pub canonical_kind: String,
    /// App.
    #[prost(string, tag = "13")]
    pub app: String,
    /// Revision.
    #[prost(string, tag = "14")]
    pub revision: String,
    /// Policies that select it.
    #[prost(message, repeated, tag = "15")]
    pub authorization_policies: Vec<Key>,
    /// Peer authentications that select it.
    #[prost(message, repeated, tag = "16")]
    pub peer_authentications: Vec<Key>,
    /// Request authentications that select it.
    #[prost(message, repeated, tag = "20")]
    pub request_authentications: Vec<Key>,
    /// Labels that rules ask for.
    #[prost(message, repeated, tag = "21")]
    pub labels: Vec<Header>,
}

/// See `model::mesh::Service`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Service {
    /// Object.
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// Virtual addresses.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub vips: Vec<Bytes>,
    /// DNS names.
    #[prost(string, repeated, tag = "3")]
    pub hostnames: Vec<String>,
    /// Ports.
    #[prost(message, repeated, tag = "4")]
    pub ports: Vec<ServicePort>,
    /// Headless.
    #[prost(bool, tag = "5")]
    pub headless: bool,
    /// ClientIP affinity's seconds.
    #[prost(uint32, optional, tag = "6")]
    pub affinity_s: Option<u32>,
    /// Publish not-ready addresses.
    #[prost(bool, tag = "7")]
    pub publish_not_ready: bool,
    /// External name.
    #[prost(string, optional, tag = "8")]
    pub external_name: Option<String>,
    /// The service that it is a subset of.
    #[prost(message, optional, tag = "20")]
    pub subset_of: Option<Key>,
    /// Outside of the mesh.
    #[prost(bool, tag = "21")]
    pub outside: bool,
    /// Namespaces that see it.
    #[prost(string, repeated, tag = "22")]
    pub export_to: Vec<String>,
    /// Blocks of virtual addresses.
    #[prost(string, repeated, tag = "23")]
    pub blocks: Vec<String>,
    /// Microseconds since 1970.
    #[prost(int64, tag = "24")]
    pub created: i64,
}

/// See `model::mesh::ServicePort`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ServicePort {
    /// Port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// 0 TCP, 1 UDP.
    #[prost(uint32, tag = "3")]
    pub transport: u32,
    /// 0 unspecified, 1 TCP, 2 HTTP, 3 HTTP/2, 4 gRPC, 5 TLS.
    #[prost(uint32, tag = "4")]
    pub app_protocol: u32,
    /// Node port.
    #[prost(uint32, tag = "5")]
    pub node_port: u32,
    /// TLS that gateways call it under.
    #[prost(message, optional, tag = "6")]
    pub tls: Option<BackendTls>,
    /// How its endpoints are called.
    #[prost(message, optional, tag = "20")]
    pub traffic: Option<traffic::TrafficPolicy>,
    /// Connections go where they were meant to go.
    #[prost(bool, tag = "21")]
    pub through: bool,
    /// For some callers.
    #[prost(message, repeated, tag = "22")]
    pub for_callers: Vec<traffic::CallerTraffic>,
}

/// See `model::mesh::EndpointGroup`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Endpoints {
    /// EndpointSlice.
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// Service.
    #[prost(message, optional, tag = "2")]
    pub service: Option<Key>,
    /// Ports.
    #[prost(message, repeated, tag = "3")]
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    #[prost(message, repeated, tag = "4")]
    pub endpoints: Vec<Endpoint>,
}

/// Port of an endpoint group.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct EndpointPort {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Port.
    #[prost(uint32, tag = "2")]
    pub port: u32,
}

/// See `model::mesh::Endpoint`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Endpoint {
    /// Address.
    #[prost(bytes = "bytes", tag = "1")]
    pub address: Bytes,
    /// Workload.
    #[prost(string, tag = "2")]
    pub workload: String,
    /// 0 not ready, 1 draining, 2 ready.
    #[prost(uint32, tag = "3")]
    pub health: u32,
    /// Weight; 0 stands for 1.
    #[prost(uint32, tag = "4")]
    pub weight: u32,
    /// Zone.
    #[prost(string, tag = "5")]
    pub zone: String,
    /// Node.
    #[prost(string, tag = "6")]
    pub node: String,
    /// Hostname.
    #[prost(string, tag = "7")]
    pub hostname: String,
    /// Region.
    #[prost(string, tag = "8")]
    pub region: String,
}

/// See `model::mesh::Gateway`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Gateway {
    /// Object.
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// Listeners.
    #[prost(message, repeated, tag = "2")]
    pub listeners: Vec<Listener>,
    /// ServiceAccount.
    #[prost(string, tag = "3")]
    pub service_account: String,
    /// Policies that target it.
    #[prost(message, repeated, tag = "4")]
    pub authorization_policies: Vec<Key>,
    /// Own addresses, 4 or 16 bytes each, network order.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub addresses: Vec<Bytes>,
    /// TLS secret that backends are shown.
    #[prost(message, optional, tag = "6")]
    pub client_certificate: Option<Key>,
}

/// See `model::mesh::Listener`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Listener {
    /// Section name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Port.
    #[prost(uint32, tag = "2")]
    pub port: u32,
    /// 1 HTTP, 2 HTTPS, 3 TLS, 4 TCP, 5 UDP.
    #[prost(uint32, tag = "3")]
    pub protocol: u32,
    /// Hostname, empty for all.
    #[prost(string, tag = "4")]
    pub hostname: String,
    /// TLS secrets.
    #[prost(message, repeated, tag = "5")]
    pub certificates: Vec<Key>,
    /// 0 none, 1 terminate, 2 passthrough.
    #[prost(uint32, tag = "6")]
    pub tls: u32,
    /// On the nodes' addresses too.
    #[prost(bool, tag = "7")]
    pub on_nodes: bool,
    /// Which clients.
    #[prost(message, optional, tag = "8")]
    pub clients: Option<ClientValidation>,
    /// Connections begin with a PROXY header.
    #[prost(bool, tag = "9")]
    pub proxy_protocol: bool,
}

/// See `model::mesh::ClientValidation`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ClientValidation {
    /// PEM.
    #[prost(string, repeated, tag = "1")]
    pub roots: Vec<String>,
    /// Others are taken too.
    #[prost(bool, tag = "2")]
    pub insecure_fallback: bool,
}

/// See `model::mesh::BackendTls`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct BackendTls {
    /// Server name.
    #[prost(string, tag = "1")]
    pub hostname: String,
    /// PEM.
    #[prost(string, repeated, tag = "2")]
    pub roots: Vec<String>,
    /// The host's own roots count.
    #[prost(bool, tag = "3")]
    pub system_roots: bool,
    /// DNS names that the certificate may be for.
    #[prost(string, repeated, tag = "4")]
    pub dns_names: Vec<String>,
    /// URIs that the certificate may be for.
    #[prost(string, repeated, tag = "5")]
    pub uris: Vec<String>,
    /// Why it cannot be used.
    #[prost(string, tag = "6")]
    pub flaw: String,
    /// TLS secret that the service is shown.
    #[prost(message, optional, tag = "7")]
    pub certificate: Option<Key>,
    /// Not verified.
    #[prost(bool, tag = "8")]
    pub insecure: bool,
    /// The mesh's own.
    #[prost(bool, tag = "9")]
    pub mesh: bool,
}

/// See `model::mesh::Route`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Route {
    /// Resource name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Object.
    #[prost(message, optional, tag = "2")]
    pub key: Option<Key>,
    /// 1 HTTP, 2 gRPC, 3 TLS, 4 TCP, 5 UDP.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    /// Creation, microseconds since the epoch.
    #[prost(int64, tag = "4")]
    pub created: i64,
    /// Parents.
    #[prost(message, repeated, tag = "5")]
    pub parents: Vec<Parent>,
    /// Rules.
    #[prost(message, repeated, tag = "6")]
    pub rules: Vec<Rule>,
    /// The first rule that matches counts, not the most specific one.
    #[prost(bool, tag = "20")]
    pub ordered: bool,
}

/// See `model::mesh::Parent`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Parent {
    /// Service or Gateway.
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// Section name: set for a listener.
    #[prost(string, tag = "2")]
    pub listener: String,
    /// Port of a service, 0 for all.
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// Hostnames.
    #[prost(string, repeated, tag = "4")]
    pub hostnames: Vec<String>,
    /// Callers' namespace of a consumer route.
    #[prost(string, optional, tag = "5")]
    pub consumer: Option<String>,
}

/// See `model::mesh::Rule`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Rule {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Matches.
    #[prost(message, repeated, tag = "2")]
    pub matches: Vec<Match>,
    /// Filters.
    #[prost(message, repeated, tag = "3")]
    pub filters: Vec<Filter>,
    /// Backends.
    #[prost(message, repeated, tag = "4")]
    pub backends: Vec<Backend>,
    /// Whole-request limit.
    #[prost(uint64, optional, tag = "5")]
    pub request_timeout_ms: Option<u64>,
    /// Per-try limit.
    #[prost(uint64, optional, tag = "6")]
    pub backend_timeout_ms: Option<u64>,
    /// Retries.
    #[prost(message, optional, tag = "7")]
    pub retry: Option<Retry>,
    /// Session persistence.
    #[prost(message, optional, tag = "8")]
    pub session: Option<Session>,
}

/// See `model::mesh::Session`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Session {
    /// Cookie or header.
    #[prost(string, tag = "1")]
    pub name: String,
    /// It is a header.
    #[prost(bool, tag = "2")]
    pub header: bool,
    /// How long a token counts.
    #[prost(uint64, tag = "3")]
    pub absolute_s: u64,
    /// The cookie is kept.
    #[prost(bool, tag = "4")]
    pub permanent: bool,
    /// How long it counts since it was last brought.
    #[prost(uint64, tag = "5")]
    pub idle_s: u64,
}

/// See `model::mesh::Match`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Match {
    /// 0 prefix, 1 exact, 2 regex, 3 text that it begins with.
    #[prost(uint32, tag = "1")]
    pub path_kind: u32,
    /// Path.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Method.
    #[prost(string, optional, tag = "3")]
    pub method: Option<String>,
    /// Headers.
    #[prost(message, repeated, tag = "4")]
    pub headers: Vec<ValueMatch>,
    /// Query parameters.
    #[prost(message, repeated, tag = "5")]
    pub query: Vec<ValueMatch>,
    /// What a VirtualService adds.
    #[prost(message, optional, tag = "20")]
    pub more: Option<traffic::MatchMore>,
}

/// See `model::mesh::ValueMatch`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ValueMatch {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// 0 exact, 1 regex, 2 prefix, 3 present.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// Value.
    #[prost(string, tag = "3")]
    pub value: String,
}

/// See `model::mesh::Filter`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Filter {
    /// Which.
    #[prost(oneof = "FilterKind", tags = "1, 2, 3, 4, 5, 6, 20, 21")]
    pub kind: Option<FilterKind>,
}

/// Alternatives of [`Filter`].
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum FilterKind {
    /// Request headers.
    #[prost(message, tag = "1")]
    RequestHeaders(HeaderModifier),
    /// Response headers.
    #[prost(message, tag = "2")]
    ResponseHeaders(HeaderModifier),
    /// Redirect.
    #[prost(message, tag = "3")]
    Redirect(Redirect),
    /// Rewrite.
    #[prost(message, tag = "4")]
    Rewrite(Rewrite),
    /// Mirror.
    #[prost(message, tag = "5")]
    Mirror(Mirror),
    /// CORS.
    #[prost(message, tag = "6")]
    Cors(Cors),
    /// Failures that are made.
    #[prost(message, tag = "20")]
    Fault(traffic::Fault),
    /// An answer of the proxy's.
    #[prost(message, tag = "21")]
    Respond(traffic::Response),
}

/// A header.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Header {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// See `model::mesh::HeaderModifier`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HeaderModifier {
    /// Set.
    #[prost(message, repeated, tag = "1")]
    pub set: Vec<Header>,
    /// Add.
    #[prost(message, repeated, tag = "2")]
    pub add: Vec<Header>,
    /// Remove.
    #[prost(string, repeated, tag = "3")]
    pub remove: Vec<String>,
}

/// See `model::mesh::PathModifier`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PathModifier {
    /// Whether the matched prefix is replaced, not the whole path.
    #[prost(bool, tag = "1")]
    pub prefix: bool,
    /// By what.
    #[prost(string, tag = "2")]
    pub value: String,
    /// 0 as `prefix` says, 1 the text that matched, 2 what `pattern` matches.
    #[prost(uint32, tag = "20")]
    pub how: u32,
    /// Expression.
    #[prost(string, tag = "21")]
    pub pattern: String,
}

/// See `model::mesh::Redirect`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Redirect {
    /// Scheme.
    #[prost(string, optional, tag = "1")]
    pub scheme: Option<String>,
    /// Host.
    #[prost(string, optional, tag = "2")]
    pub hostname: Option<String>,
    /// Path.
    #[prost(message, optional, tag = "3")]
    pub path: Option<PathModifier>,
    /// Port.
    #[prost(uint32, optional, tag = "4")]
    pub port: Option<u32>,
    /// Status.
    #[prost(uint32, tag = "5")]
    pub status: u32,
}

/// See `model::mesh::Rewrite`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Rewrite {
    /// Host.
    #[prost(string, optional, tag = "1")]
    pub hostname: Option<String>,
    /// Path.
    #[prost(message, optional, tag = "2")]
    pub path: Option<PathModifier>,
}

/// See `model::mesh::Mirror`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Mirror {
    /// Where.
    #[prost(message, optional, tag = "1")]
    pub backend: Option<BackendTarget>,
    /// Share, of `denominator`.
    #[prost(uint32, tag = "2")]
    pub numerator: u32,
    /// Denominator; 0 stands for 100.
    #[prost(uint32, tag = "3")]
    pub denominator: u32,
}

/// See `model::mesh::Cors`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Cors {
    /// Origins.
    #[prost(string, repeated, tag = "1")]
    pub allow_origins: Vec<String>,
    /// Credentials.
    #[prost(bool, tag = "2")]
    pub allow_credentials: bool,
    /// Methods.
    #[prost(string, repeated, tag = "3")]
    pub allow_methods: Vec<String>,
    /// Headers.
    #[prost(string, repeated, tag = "4")]
    pub allow_headers: Vec<String>,
    /// Exposed headers.
    #[prost(string, repeated, tag = "5")]
    pub expose_headers: Vec<String>,
    /// Preflight lifetime.
    #[prost(uint32, tag = "6")]
    pub max_age_s: u32,
    /// Origins by pattern; their names are empty.
    #[prost(message, repeated, tag = "20")]
    pub allow_origin_patterns: Vec<ValueMatch>,
    /// Preflights of other origins go on.
    #[prost(bool, tag = "21")]
    pub pass_unmatched: bool,
}

/// See `model::mesh::BackendTarget`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct BackendTarget {
    /// Service; none when invalid.
    #[prost(message, optional, tag = "1")]
    pub service: Option<Key>,
    /// Port.
    #[prost(uint32, tag = "2")]
    pub port: u32,
    /// Why it is invalid.
    #[prost(string, tag = "3")]
    pub invalid: String,
}

/// See `model::mesh::Backend`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Backend {
    /// Where.
    #[prost(message, optional, tag = "1")]
    pub target: Option<BackendTarget>,
    /// Share.
    #[prost(uint32, tag = "2")]
    pub weight: u32,
    /// Filters.
    #[prost(message, repeated, tag = "3")]
    pub filters: Vec<Filter>,
}

/// See `model::mesh::Retry`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Retry {
    /// Attempts.
    #[prost(uint32, tag = "1")]
    pub attempts: u32,
    /// Back-off.
    #[prost(uint64, optional, tag = "2")]
    pub backoff_ms: Option<u64>,
    /// Codes.
    #[prost(uint32, repeated, tag = "3")]
    pub codes: Vec<u32>,
    /// Statuses of gRPC.
    #[prost(uint32, repeated, tag = "20")]
    pub grpc: Vec<u32>,
    /// Whatever the method.
    #[prost(bool, tag = "21")]
    pub any_method: bool,
    /// Also where it was.
    #[prost(bool, tag = "22")]
    pub same_endpoints: bool,
    /// Farther away.
    #[prost(bool, tag = "23")]
    pub other_localities: bool,
}

//! Istio's networking kinds, as far as compiling them reads them.

use super::Reference;
use crate::mesh::Subnet;
use crate::mesh::policy::JwtRule;
use crate::mesh::route::{Cors, Fault, Fraction, HeaderModifier, Match, Response, Retry, Timeouts};
use crate::mesh::traffic::{Balancer, ConnectionPool, Locality, Outlier, ProxyProtocol, RetryBudget, Warmup};
use crate::mesh::workload::AppProtocol;
use crate::{Key, Labels, Meta};
use std::net::IpAddr;
use std::sync::Arc;

/// networking.istio.io VirtualService.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualService {
    /// Metadata.
    pub meta: Meta,
    /// `spec.hosts`; none for one that others delegate to.
    pub hosts: Vec<Arc<str>>,
    /// `spec.gateways`; empty means `mesh`.
    pub gateways: Vec<Arc<str>>,
    /// `spec.exportTo`; empty means everywhere.
    pub export_to: Vec<Arc<str>>,
    /// `spec.http`.
    pub http: Vec<VirtualRule>,
    /// `spec.tls` and `spec.tcp`, TLS first.
    pub streams: Vec<StreamRule>,
}

/// A rule of `spec.http`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualRule {
    /// `name`, or empty.
    pub name: Arc<str>,
    /// `match`; empty means everything.
    pub matches: Vec<VirtualMatch>,
    /// `route`.
    pub destinations: Vec<Destination>,
    /// `redirect`, `directResponse`, `delegate`: what happens in place of `route`.
    pub instead: Option<Instead>,
    /// `rewrite`.
    pub rewrite: Option<VirtualRewrite>,
    /// `fault`.
    pub fault: Option<Fault>,
    /// `mirror` and `mirrors`.
    pub mirrors: Vec<(Destination, Fraction)>,
    /// `corsPolicy`.
    pub cors: Option<Cors>,
    /// `headers.request` and `headers.response`.
    pub headers: (HeaderModifier, HeaderModifier),
    /// `timeout` and `retries.perTryTimeout`.
    pub timeouts: Timeouts,
    /// `retries`.
    pub retry: Option<Retry>,
    /// What in it cannot be used, or empty: then the rule is left out.
    pub flaw: Arc<str>,
}

/// A match with the gateways that it is for (empty: as the VirtualService says).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualMatch {
    /// `gateways`.
    pub gateways: Vec<Arc<str>>,
    /// The rest of it.
    pub matched: Match,
    /// `uri` is set: a delegate's match may set it when its root does not.
    pub has_path: bool,
}

/// What a rule does in place of routing.
#[derive(Clone, Debug, PartialEq)]
pub enum Instead {
    /// `redirect`.
    Redirect {
        /// `uri` (whole) or `prefixRewrite`.
        path: Option<crate::mesh::route::PathModifier>,
        /// `authority`.
        authority: Option<Arc<str>>,
        /// `scheme`.
        scheme: Option<Arc<str>>,
        /// `port`.
        port: Option<u16>,
        /// `redirectCode`.
        status: u16,
    },
    /// `directResponse`.
    Respond(Response),
    /// `delegate`: the rules of another VirtualService. An empty namespace is the root's own.
    Delegate {
        /// Namespace.
        namespace: Arc<str>,
        /// Name.
        name: Arc<str>,
    },
}

/// `rewrite`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualRewrite {
    /// `authority`.
    pub authority: Option<Arc<str>>,
    /// `uri` or `uriRegexRewrite`.
    pub path: Option<crate::mesh::route::PathModifier>,
}

/// Where requests go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Destination {
    /// `destination.host`.
    pub host: Arc<str>,
    /// `destination.subset`, or empty.
    pub subset: Arc<str>,
    /// `destination.port.number`.
    pub port: Option<u16>,
    /// Its share; 0 with a single destination stands for all.
    pub weight: u32,
    /// `headers.request` and `headers.response`.
    pub headers: (HeaderModifier, HeaderModifier),
}

/// A rule of `spec.tls` or `spec.tcp`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamRule {
    /// It is of `spec.tls`.
    pub tls: bool,
    /// `match`; empty means every connection.
    pub matches: Vec<StreamMatch>,
    /// Where connections go.
    pub destinations: Vec<Destination>,
    /// What in it cannot be used, or empty.
    pub flaw: Arc<str>,
}

/// A match of `spec.tls` or `spec.tcp`: all of its parts must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamMatch {
    /// `gateways`; empty: as the VirtualService says.
    pub gateways: Vec<Arc<str>>,
    /// `port`.
    pub port: Option<u16>,
    /// `sniHosts`.
    pub sni: Vec<Arc<str>>,
    /// `sourceNamespace`.
    pub namespace: Option<Arc<str>>,
    /// `sourceLabels`.
    pub labels: Labels,
    /// `destinationSubnets`.
    pub destinations: Vec<Subnet>,
}

/// networking.istio.io DestinationRule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DestinationRule {
    /// Metadata.
    pub meta: Meta,
    /// `spec.host`.
    pub host: Arc<str>,
    /// `spec.trafficPolicy`.
    pub policy: PolicySpec,
    /// `spec.subsets`.
    pub subsets: Vec<Subset>,
    /// `spec.workloadSelector.matchLabels`: it is for callers of its own namespace that have these labels. None: for all.
    pub callers: Option<Labels>,
    /// Fields that are not carried out, for its status.
    pub ignored: Vec<Arc<str>>,
}

/// A subset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subset {
    /// Name.
    pub name: Arc<str>,
    /// Labels of its endpoints' workloads.
    pub labels: Labels,
    /// `trafficPolicy`: overrides the rule's own, part by part.
    pub policy: PolicySpec,
}

/// A traffic policy as written: what is none is not said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySpec {
    /// `loadBalancer.simple` or `.consistentHash`.
    pub balancer: Option<Balancer>,
    /// `loadBalancer.warmup` (or `warmupDurationSecs`).
    pub warmup: Option<Warmup>,
    /// `loadBalancer.localityLbSetting`.
    pub locality: Option<Locality>,
    /// `connectionPool`.
    pub pool: Option<ConnectionPool>,
    /// `outlierDetection`.
    pub outlier: Option<Outlier>,
    /// `tls`.
    pub tls: Option<TlsSpec>,
    /// `retryBudget`.
    pub retry_budget: Option<RetryBudget>,
    /// `proxyProtocol`.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `portLevelSettings`: in place of the rest for these ports.
    pub ports: Vec<(u16, PolicySpec)>,
}

/// `trafficPolicy.tls` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSpec {
    /// What kind.
    pub mode: TlsOrigination,
    /// `sni`, or empty.
    pub sni: Arc<str>,
    /// `subjectAltNames`.
    pub names: Vec<Arc<str>>,
    /// `credentialName`, or empty.
    pub credential: Arc<str>,
    /// `insecureSkipVerify`.
    pub insecure: bool,
    /// A field that names files, which proxies do not have; or empty.
    pub file: Arc<str>,
}

/// Which TLS is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsOrigination {
    /// None beside the mesh's own.
    #[default]
    None,
    /// The server shows a certificate.
    Simple,
    /// Both do.
    Mutual,
    /// Both show certificates of the mesh.
    Mesh,
}

/// networking.istio.io ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceEntry {
    /// Metadata.
    pub meta: Meta,
    /// `spec.hosts`.
    pub hosts: Vec<Arc<str>>,
    /// `spec.addresses` that are single addresses.
    pub addresses: Vec<IpAddr>,
    /// Those that are blocks of addresses.
    pub blocks: Vec<Subnet>,
    /// The first that is neither, or empty.
    pub bad_address: Arc<str>,
    /// `spec.ports`.
    pub ports: Vec<EntryPort>,
    /// `spec.resolution`.
    pub resolution: Resolution,
    /// `spec.endpoints`.
    pub endpoints: Vec<EntryEndpoint>,
    /// `spec.workloadSelector.labels`; empty: none.
    pub selector: Labels,
    /// `spec.exportTo`: namespaces whose callers see it; empty: all.
    pub export_to: Vec<Arc<str>>,
    /// `spec.location` is MESH_EXTERNAL, and somebody said so.
    pub outside: bool,
    /// `spec.subjectAltNames`.
    pub names: Vec<Arc<str>>,
}

/// A port of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryPort {
    /// Number.
    pub port: u16,
    /// Name.
    pub name: Arc<str>,
    /// From `protocol`.
    pub app_protocol: AppProtocol,
    /// `targetPort`, else the port.
    pub target: u16,
}

/// How a ServiceEntry's endpoints are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// Connections go where they were meant to go.
    #[default]
    None,
    /// Endpoints are addresses.
    Static,
    /// Endpoints, or else hosts, are names.
    Dns,
    /// A resolution that is not known here.
    Unknown,
}

/// An endpoint of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryEndpoint {
    /// `address`: an IP address or a DNS name.
    pub address: Arc<str>,
    /// `ports`.
    pub ports: Vec<(Arc<str>, u16)>,
    /// `labels`.
    pub labels: Labels,
    /// `locality`'s region.
    pub region: Arc<str>,
    /// And zone.
    pub zone: Arc<str>,
    /// `weight`; 0 stands for 1.
    pub weight: u32,
}

/// The addresses of a DNS name that a ServiceEntry asks for, as they were found last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedName {
    /// The name, in lower case; the namespace is empty.
    pub key: Key,
    /// Its addresses, sorted.
    pub addresses: Vec<IpAddr>,
}

/// security.istio.io RequestAuthentication.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestAuthentication {
    /// Metadata.
    pub meta: Meta,
    /// `selector.matchLabels`; empty: all.
    pub selector: Labels,
    /// `targetRefs` (and `targetRef`).
    pub targets: Vec<Reference>,
    /// `jwtRules`, each with the address of its keys if they are not given; the keys are put in when they are fetched.
    pub rules: Vec<(JwtRule, Arc<str>)>,
    /// `timeout` of rules that have an address: how many milliseconds fetching its keys may take.
    pub timeouts: Vec<(Arc<str>, u64)>,
}

/// The keys that are served at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedJwks {
    /// The address; the namespace is empty.
    pub key: Key,
    /// The JSON Web Key Set.
    pub jwks: Arc<str>,
}

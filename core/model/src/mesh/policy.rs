//! Who may call whom: Istio's security kinds, as the proxy gets them.

use crate::Key;
use std::sync::Arc;

/// Where a policy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everywhere (it is in the root namespace and selects nothing).
    Mesh,
    /// All workloads of its namespace.
    Namespace,
    /// Workloads and gateways that list it.
    Workload,
}

/// What an authorization policy does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Takes it; and what no ALLOW policy of the workload matches is refused.
    Allow,
    /// Refuses it, whatever else allows.
    Deny,
    /// Notes it.
    Audit,
    /// Asks an external authorizer.
    Custom,
}

/// `security.istio.io/v1` AuthorizationPolicy. Resource name: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// The object.
    pub key: Key,
    /// Where it holds.
    pub scope: Scope,
    /// What it does.
    pub action: Action,
    /// `istio.io/dry-run: "true"`: decided and reported, not enforced.
    pub dry_run: bool,
    /// For CUSTOM: who is asked, by name.
    pub provider: Arc<str>,
    /// Any of them matching is a match. None: an ALLOW policy that allows nothing, a DENY policy that denies nothing.
    pub rules: Vec<PolicyRule>,
}

/// All of the parts that are there must match; in each part any entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRule {
    /// Who.
    pub from: Vec<Source>,
    /// What.
    pub to: Vec<Operation>,
    /// Under which conditions: all of them.
    pub when: Vec<Condition>,
}

/// `from.source`: all fields that are there must match; in each any value. Texts are Istio's: exact, `prefix*`, `*suffix`, or `*` for present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Peer identities without `spiffe://`: `cluster.local/ns/default/sa/frontend`.
    pub principals: Vec<Arc<str>>,
    /// None of these.
    pub not_principals: Vec<Arc<str>>,
    /// `ISSUER/SUBJECT` of a verified JWT.
    pub request_principals: Vec<Arc<str>>,
    /// None of these.
    pub not_request_principals: Vec<Arc<str>>,
    /// Namespaces of the peer's identity.
    pub namespaces: Vec<Arc<str>>,
    /// None of these.
    pub not_namespaces: Vec<Arc<str>>,
    /// `NAMESPACE/NAME` (or `NAME` in the policy's own, already made whole) of the peer's ServiceAccount, exact.
    pub service_accounts: Vec<Arc<str>>,
    /// None of these.
    pub not_service_accounts: Vec<Arc<str>>,
    /// Address of the peer, as address or CIDR.
    pub ip_blocks: Vec<Arc<str>>,
    /// None of these.
    pub not_ip_blocks: Vec<Arc<str>>,
    /// Address of the first client (X-Forwarded-For or PROXY protocol), as address or CIDR.
    pub remote_ip_blocks: Vec<Arc<str>>,
    /// None of these.
    pub not_remote_ip_blocks: Vec<Arc<str>>,
    /// Trust domains of the peer's identity.
    pub trust_domains: Vec<Arc<str>>,
    /// None of these.
    pub not_trust_domains: Vec<Arc<str>>,
}

/// `to.operation`: all fields that are there must match; in each any value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Host header, case-insensitive.
    pub hosts: Vec<Arc<str>>,
    /// None of these.
    pub not_hosts: Vec<Arc<str>>,
    /// Port of the workload.
    pub ports: Vec<Arc<str>>,
    /// None of these.
    pub not_ports: Vec<Arc<str>>,
    /// HTTP method; gRPC is `POST`.
    pub methods: Vec<Arc<str>>,
    /// None of these.
    pub not_methods: Vec<Arc<str>>,
    /// Path without query; `{*}` is one segment, `{**}` any number.
    pub paths: Vec<Arc<str>>,
    /// None of these.
    pub not_paths: Vec<Arc<str>>,
}

/// `when`: some value of `values` (if there are any) and none of `not_values` matches the attribute `key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `request.headers[x-a]`, `source.ip`, `destination.port`, ...
    pub key: Arc<str>,
    /// Any of them.
    pub values: Vec<Arc<str>>,
    /// None of them.
    pub not_values: Vec<Arc<str>>,
}

/// Whether a workload takes plain text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// As the wider scope says; PERMISSIVE when none does.
    #[default]
    Unset,
    /// Plain text only. (Over HBONE a peer's identity is known all the same.)
    Disable,
    /// Both.
    Permissive,
    /// Only with a verified identity.
    Strict,
}

/// `security.istio.io/v1` PeerAuthentication. Resource name: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// The object.
    pub key: Key,
    /// Where it holds.
    pub scope: Scope,
    /// For all ports.
    pub mode: MtlsMode,
    /// For some ports of the workload, sorted.
    pub ports: Vec<(u16, MtlsMode)>,
    /// When it was made: of several in one scope the oldest counts.
    pub created: crate::Timestamp,
}

/// `security.istio.io/v1` RequestAuthentication. Resource name: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// The object.
    pub key: Key,
    /// Where it holds.
    pub scope: Scope,
    /// Issuers, and how their tokens are found and checked.
    pub rules: Vec<JwtRule>,
    /// Gateways that it targets.
    pub gateways: Vec<Key>,
}

/// Tokens of one issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtRule {
    /// `iss`.
    pub issuer: Arc<str>,
    /// One of these must be in `aud`; empty: any will do.
    pub audiences: Vec<Arc<str>>,
    /// JSON Web Key Set; empty: it is not known (yet), and no token of the issuer holds.
    pub jwks: Arc<str>,
    /// Headers (lower case) with what stands before the token. With none of these three: `Authorization: Bearer` and the query parameter
    /// `access_token`.
    pub from_headers: Vec<(Arc<str>, Arc<str>)>,
    /// Query parameters.
    pub from_params: Vec<Arc<str>>,
    /// Cookies.
    pub from_cookies: Vec<Arc<str>>,
    /// Header that gets the token's payload, base64url; empty: none.
    pub payload_header: Arc<str>,
    /// Headers that get claims: header (lower case) and claim.
    pub claim_headers: Vec<(Arc<str>, Arc<str>)>,
    /// The token stays in the request.
    pub forward: bool,
    /// Claims beside `scope` and `permission` whose text is a list.
    pub space_delimited: Vec<Arc<str>>,
}

/// Somebody who is asked about requests (Istio's `extensionProviders`). Resource name: its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionProvider {
    /// What CUSTOM policies call it.
    pub name: Arc<str>,
    /// Full DNS name of its service.
    pub service: Arc<str>,
    /// From which namespace the service is seen; empty: from a root namespace.
    pub namespace: Arc<str>,
    /// Port of the service.
    pub port: u16,
    /// What it speaks.
    pub kind: ProviderKind,
    /// Without an answer a request passes.
    pub fail_open: bool,
    /// Without an answer a request gets this status.
    pub status_on_error: u16,
    /// How long it may take.
    pub timeout_ms: u64,
}

/// What an authorizer speaks. Names of headers are lower case; `prefix*` and `*suffix` stand for several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// Envoy's ext_authz by gRPC.
    Grpc,
    /// Envoy's ext_authz by HTTP.
    Http {
        /// Put before the path.
        prefix: Arc<str>,
        /// Headers of the request that it gets, beside Authorization.
        send: Vec<Arc<str>>,
        /// Headers that it gets in addition.
        add: Vec<(Arc<str>, Arc<str>)>,
        /// Headers of its answer that go on with a request that passes.
        upstream: Vec<Arc<str>>,
        /// Headers of its answer that a caller who is refused gets; empty: all.
        downstream: Vec<Arc<str>>,
    },
}

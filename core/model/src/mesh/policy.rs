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

//! Messages of policies on who may call, and of what proves who calls.

use super::Key;
use bytes::Bytes;

/// See `model::mesh::AuthorizationPolicy`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthorizationPolicy {
    /// Object.
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// 0 mesh, 1 namespace, 2 workload.
    #[prost(uint32, tag = "2")]
    pub scope: u32,
    /// 0 allow, 1 deny, 2 audit, 3 custom (Istio's own numbers).
    #[prost(uint32, tag = "3")]
    pub action: u32,
    /// Dry run.
    #[prost(bool, tag = "4")]
    pub dry_run: bool,
    /// Rules.
    #[prost(message, repeated, tag = "5")]
    pub rules: Vec<PolicyRule>,
    /// Who is asked.
    #[prost(string, tag = "6")]
    pub provider: String,
}

/// See `model::mesh::PolicyRule`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PolicyRule {
    /// Sources.
    #[prost(message, repeated, tag = "1")]
    pub from: Vec<Source>,
    /// Operations.
    #[prost(message, repeated, tag = "2")]
    pub to: Vec<Operation>,
    /// Conditions.
    #[prost(message, repeated, tag = "3")]
    pub when: Vec<Condition>,
}

/// See `model::mesh::Source`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Source {
    /// Principals.
    #[prost(string, repeated, tag = "1")]
    pub principals: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "2")]
    pub not_principals: Vec<String>,
    /// Request principals.
    #[prost(string, repeated, tag = "3")]
    pub request_principals: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "4")]
    pub not_request_principals: Vec<String>,
    /// Namespaces.
    #[prost(string, repeated, tag = "5")]
    pub namespaces: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "6")]
    pub not_namespaces: Vec<String>,
    /// Service accounts.
    #[prost(string, repeated, tag = "7")]
    pub service_accounts: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "8")]
    pub not_service_accounts: Vec<String>,
    /// Address blocks.
    #[prost(string, repeated, tag = "9")]
    pub ip_blocks: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "10")]
    pub not_ip_blocks: Vec<String>,
    /// Original client's address blocks.
    #[prost(string, repeated, tag = "11")]
    pub remote_ip_blocks: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "12")]
    pub not_remote_ip_blocks: Vec<String>,
    /// Trust domains.
    #[prost(string, repeated, tag = "13")]
    pub trust_domains: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "14")]
    pub not_trust_domains: Vec<String>,
}

/// See `model::mesh::Operation`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Operation {
    /// Hosts.
    #[prost(string, repeated, tag = "1")]
    pub hosts: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "2")]
    pub not_hosts: Vec<String>,
    /// Ports.
    #[prost(string, repeated, tag = "3")]
    pub ports: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "4")]
    pub not_ports: Vec<String>,
    /// Methods.
    #[prost(string, repeated, tag = "5")]
    pub methods: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "6")]
    pub not_methods: Vec<String>,
    /// Paths.
    #[prost(string, repeated, tag = "7")]
    pub paths: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "8")]
    pub not_paths: Vec<String>,
}

/// See `model::mesh::Condition`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Condition {
    /// Attribute.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Values.
    #[prost(string, repeated, tag = "2")]
    pub values: Vec<String>,
    /// Not.
    #[prost(string, repeated, tag = "3")]
    pub not_values: Vec<String>,
}

/// See `model::mesh::PeerAuthentication`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PeerAuthentication {
    /// Object.
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// 0 mesh, 1 namespace, 2 workload.
    #[prost(uint32, tag = "2")]
    pub scope: u32,
    /// 0 unset, 1 disable, 2 permissive, 3 strict (Istio's own numbers).
    #[prost(uint32, tag = "3")]
    pub mode: u32,
    /// By port.
    #[prost(message, repeated, tag = "4")]
    pub ports: Vec<PortMode>,
    /// Creation, microseconds since the epoch.
    #[prost(int64, tag = "5")]
    pub created: i64,
}

/// Mode of one port.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PortMode {
    /// Port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
    /// Mode.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
}

/// See `model::mesh::TlsSecret`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
#[prost(skip_debug)]
pub struct Secret {
    /// Object.
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// PEM chain.
    #[prost(bytes = "bytes", tag = "2")]
    pub certificate_chain: Bytes,
    /// PEM key.
    #[prost(bytes = "bytes", tag = "3")]
    pub private_key: Bytes,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("key", &self.key).finish_non_exhaustive()
    }
}

/// See `model::mesh::TrustBundle`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct TrustBundle {
    /// Trust domain.
    #[prost(string, tag = "1")]
    pub trust_domain: String,
    /// PEM roots.
    #[prost(string, repeated, tag = "2")]
    pub roots: Vec<String>,
    /// JSON Web Key Set; empty: none.
    #[prost(string, tag = "3")]
    pub jwks: String,
}

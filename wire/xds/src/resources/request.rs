//! Messages about requests' tokens and who is asked about requests.

use super::{Header, Key};

/// See `model::mesh::RequestAuthentication`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RequestAuthentication {
    /// Object.
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// 0 mesh, 1 namespace, 2 workload.
    #[prost(uint32, tag = "2")]
    pub scope: u32,
    /// Issuers.
    #[prost(message, repeated, tag = "3")]
    pub rules: Vec<JwtRule>,
    /// Gateways that it targets.
    #[prost(message, repeated, tag = "4")]
    pub gateways: Vec<Key>,
}

/// See `model::mesh::JwtRule`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct JwtRule {
    /// Issuer.
    #[prost(string, tag = "1")]
    pub issuer: String,
    /// Audiences.
    #[prost(string, repeated, tag = "2")]
    pub audiences: Vec<String>,
    /// JSON Web Key Set.
    #[prost(string, tag = "3")]
    pub jwks: String,
    /// Headers: name and prefix.
    #[prost(message, repeated, tag = "4")]
    pub from_headers: Vec<Header>,
    /// Query parameters.
    #[prost(string, repeated, tag = "5")]
    pub from_params: Vec<String>,
    /// Cookies.
    #[prost(string, repeated, tag = "6")]
    pub from_cookies: Vec<String>,
    /// Header for the payload.
    #[prost(string, tag = "7")]
    pub payload_header: String,
    /// Headers for claims: name and claim.
    #[prost(message, repeated, tag = "8")]
    pub claim_headers: Vec<Header>,
    /// The token stays.
    #[prost(bool, tag = "9")]
    pub forward: bool,
    /// Claims that are lists.
    #[prost(string, repeated, tag = "10")]
    pub space_delimited: Vec<String>,
}

/// See `model::mesh::ExtensionProvider`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ExtensionProvider {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Host of the service.
    #[prost(string, tag = "2")]
    pub service: String,
    /// Port.
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// It speaks HTTP, not gRPC.
    #[prost(bool, tag = "4")]
    pub http: bool,
    /// Put before the path.
    #[prost(string, tag = "5")]
    pub prefix: String,
    /// Headers that it gets.
    #[prost(string, repeated, tag = "6")]
    pub send: Vec<String>,
    /// Headers that it gets in addition.
    #[prost(message, repeated, tag = "7")]
    pub add: Vec<Header>,
    /// Headers that go on.
    #[prost(string, repeated, tag = "8")]
    pub upstream: Vec<String>,
    /// Headers that go back.
    #[prost(string, repeated, tag = "9")]
    pub downstream: Vec<String>,
    /// Without an answer requests pass.
    #[prost(bool, tag = "10")]
    pub fail_open: bool,
    /// Status without an answer.
    #[prost(uint32, tag = "11")]
    pub status_on_error: u32,
    /// Patience.
    #[prost(uint64, tag = "12")]
    pub timeout_ms: u64,
    /// From where the service is seen.
    #[prost(string, tag = "13")]
    pub namespace: String,
}

//! Messages of Envoy's external authorization, `envoy.service.auth.v3`, as far as a check needs them.

use std::collections::BTreeMap;

/// Path of the call.
pub const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// A question.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckRequest {
    /// What is known of the request.
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributeContext>,
}

/// What is known of the request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeContext {
    /// Who asks.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Peer>,
    /// Whom.
    #[prost(message, optional, tag = "2")]
    pub destination: Option<Peer>,
    /// For what.
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
}

/// An end of the connection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Peer {
    /// Address.
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
    /// Verified identity, as a URI.
    #[prost(string, tag = "4")]
    pub principal: String,
}

/// An address.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// Of a socket.
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

/// An address of a socket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SocketAddress {
    /// IP address.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Port.
    #[prost(uint32, tag = "3")]
    pub port: u32,
}

/// The request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Of HTTP.
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

/// A request of HTTP.
#[derive(Clone, PartialEq, prost::Message)]

pub struct HttpRequest {
    /// Method.
    #[prost(string, tag = "2")]
    pub method: String,
    /// Headers by lower-case name; several values are joined by a comma.
    #[prost(btree_map = "string, string", tag = "3")]
    pub headers: BTreeMap<String, String>,
    /// Path with query.
    #[prost(string, tag = "4")]
    pub path: String,
    /// Host.
    #[prost(string, tag = "5")]
    pub host: String,
    /// Scheme.
    #[prost(string, tag = "6")]
    pub scheme: String,
    /// `HTTP/1.1`, `HTTP/2`.
    #[prost(string, tag = "10")]
    pub protocol: String,
}

/// The answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckResponse {
    /// `OK` (0) lets the request pass.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// What the caller is answered.
    #[prost(message, optional, tag = "2")]
    pub denied: Option<DeniedResponse>,
    /// What changes on the request.
    #[prost(message, optional, tag = "3")]
    pub ok: Option<OkResponse>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// Of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// What a caller that is refused is answered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeniedResponse {
    /// Status; 403 when there is none.
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    /// Headers.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    /// Body.
    #[prost(string, tag = "3")]
    pub body: String,
}

/// A status of HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct HttpStatus {
    /// Number.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// What changes on a request that may pass.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OkResponse {
    /// Headers to put on it.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    /// Headers to take off.
    #[prost(string, repeated, tag = "5")]
    pub headers_to_remove: Vec<String>,
    /// Headers for the answer.
    #[prost(message, repeated, tag = "6")]
    pub response_headers: Vec<HeaderValueOption>,
}

/// A header, and whether it is added to others of its name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValueOption {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// Not said: it replaces others.
    #[prost(message, optional, tag = "2")]
    pub append: Option<BoolValue>,
}

/// `google.protobuf.BoolValue`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct BoolValue {
    /// The value.
    #[prost(bool, tag = "1")]
    pub value: bool,
}

/// A header.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValue {
    /// Name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

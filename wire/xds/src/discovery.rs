//! Envoy's discovery messages (`envoy.service.discovery.v3`), delta and state-of-the-world, with the field numbers of the public protocol.
//!
//! Written by hand because a dozen messages do not need a code generator; only the fields that either side reads are declared (protobuf
//! skips the rest).

use bytes::Bytes;
use std::collections::BTreeMap;

/// gRPC path of the delta stream.
pub const DELTA_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// gRPC path of the state-of-the-world stream.
pub const SOTW_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Any {
    /// `type.googleapis.com/...`; ours are `type.diolkos.io/...`.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Status {
    /// gRPC code; 3 is INVALID_ARGUMENT.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For a person.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `envoy.config.core.v3.Locality`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Locality {
    /// Region.
    #[prost(string, tag = "1")]
    pub region: String,
    /// Zone.
    #[prost(string, tag = "2")]
    pub zone: String,
    /// Part of a zone.
    #[prost(string, tag = "3")]
    pub sub_zone: String,
}

/// `envoy.config.core.v3.Node`: who asks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// Name of the proxy. Ours: the node's name, or `host/NAME`. It is told apart from the verified identity of the connection.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Envoy's `service_cluster`.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// Free form.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
    /// Where it runs.
    #[prost(message, optional, tag = "4")]
    pub locality: Option<Locality>,
    /// `diolkos`, `envoy`, `gRPC Go`, ...
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
    /// Its version.
    #[prost(string, tag = "7")]
    pub user_agent_version: String,
    /// Feature names (`envoy.lb.does_not_support_overprovisioning`, ...).
    #[prost(string, repeated, tag = "10")]
    pub client_features: Vec<String>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// By name.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

impl Struct {
    /// The text value of a field.
    pub fn text(&self, field: &str) -> Option<&str> {
        match self.fields.get(field)?.kind.as_ref()? {
            ValueKind::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// Which.
    #[prost(oneof = "ValueKind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<ValueKind>,
}

/// The alternatives of [`Value`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ValueKind {
    /// Null.
    #[prost(int32, tag = "1")]
    Null(i32),
    /// Number.
    #[prost(double, tag = "2")]
    Number(f64),
    /// Text.
    #[prost(string, tag = "3")]
    Text(String),
    /// Boolean.
    #[prost(bool, tag = "4")]
    Bool(bool),
    /// Object.
    #[prost(message, tag = "5")]
    Struct(Struct),
    /// Array.
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListValue {
    /// Elements.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

/// `envoy.config.core.v3.ControlPlane`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ControlPlane {
    /// Name of the control plane.
    #[prost(string, tag = "1")]
    pub identifier: String,
}

/// Client to server, delta.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryRequest {
    /// Set in the first request of a stream.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// The resource type.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names to be told of from now on; `*` is all. In a stream's first request of a type, none at all means `*`.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names to be told of no more.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// In a stream's first request of a type: what the client has from an earlier stream, name to version.
    #[prost(btree_map = "string, string", tag = "5")]
    pub initial_resource_versions: BTreeMap<String, String>,
    /// Nonce of the response that this answers; empty when it answers none.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Set: the response was refused.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// `envoy.service.discovery.v3.Resource`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Resource {
    /// Version of this resource alone.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The resource.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// Server to client, delta.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DeltaDiscoveryResponse {
    /// Our server: the configuration's revision up to which this brings the client, with a final `+` when more of it follows.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// New and changed.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// The resource type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be named in the answer.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Gone.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// Who says so.
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlane>,
}

/// [`DeltaDiscoveryResponse`] as a server writes it: on the wire a message field and a bytes field are the same, so every
/// [`Resource`] is encoded once and its bytes are shared by all streams.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SharedDeltaResponse {
    /// As there.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// Encoded [`Resource`] messages.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// As there.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// As there.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// As there.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// As there.
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlane>,
}

/// Client to server, state of the world.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DiscoveryRequest {
    /// Last version that was accepted.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Set in the first request of a stream.
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    /// All names that are wanted; none: all.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// The resource type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Nonce of the response that this answers.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Set: the response was refused.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<Status>,
}

/// Server to client, state of the world.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DiscoveryResponse {
    /// Version of all of it.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Every resource of the type.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Any>,
    /// The resource type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be named in the answer.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Who says so.
    #[prost(message, optional, tag = "6")]
    pub control_plane: Option<ControlPlane>,
}

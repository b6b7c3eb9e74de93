//! Messages of policies that hang on gateways, routes and services.

use super::{Key, Match};

/// See `model::mesh::AttachedPolicy`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AttachedPolicy {
    /// Object.
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    /// Where it holds.
    #[prost(message, repeated, tag = "2")]
    pub targets: Vec<Target>,
    /// Limits that each proxy keeps.
    #[prost(message, repeated, tag = "3")]
    pub limits: Vec<RateLimit>,
    /// A rate limit service.
    #[prost(message, optional, tag = "4")]
    pub global: Option<GlobalLimit>,
    /// Slow requests are sent again.
    #[prost(message, optional, tag = "5")]
    pub hedging: Option<Hedging>,
}

/// See `model::mesh::attached::Hedging`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Hedging {
    /// After so long; none: the time-out of a try.
    #[prost(uint64, optional, tag = "1")]
    pub after_ms: Option<u64>,
    /// Tries beside the first.
    #[prost(uint32, tag = "2")]
    pub most: u32,
    /// gRPC calls, too: statuses that are not the last word, by bit.
    #[prost(uint32, optional, tag = "3")]
    pub grpc: Option<u32>,
}

/// See `model::mesh::attached::PolicyTarget`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Target {
    /// 1 gateway, 2 route, 3 service.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// Gateway or service.
    #[prost(message, optional, tag = "2")]
    pub key: Option<Key>,
    /// Resource name of a route.
    #[prost(string, tag = "3")]
    pub route: String,
    /// Listener, rule or port.
    #[prost(string, tag = "4")]
    pub section: String,
}

/// See `model::mesh::attached::RateLimit`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RateLimit {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Requests that count.
    #[prost(message, repeated, tag = "2")]
    pub matches: Vec<Match>,
    /// What tells requests apart.
    #[prost(message, repeated, tag = "3")]
    pub per: Vec<Part>,
    /// Requests.
    #[prost(uint32, tag = "4")]
    pub requests: u32,
    /// Interval.
    #[prost(uint64, tag = "5")]
    pub interval_ms: u64,
    /// At once.
    #[prost(uint32, tag = "6")]
    pub burst: u32,
}

/// See `model::mesh::attached::GlobalLimit`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct GlobalLimit {
    /// Domain.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// Service.
    #[prost(message, optional, tag = "2")]
    pub service: Option<Key>,
    /// Port.
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// Patience.
    #[prost(uint64, tag = "4")]
    pub timeout_ms: u64,
    /// Without an answer requests pass.
    #[prost(bool, tag = "5")]
    pub fail_open: bool,
    /// What it is asked.
    #[prost(message, repeated, tag = "6")]
    pub descriptors: Vec<Descriptor>,
}

/// See `model::mesh::attached::Descriptor`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Descriptor {
    /// Requests for which it is made.
    #[prost(message, repeated, tag = "1")]
    pub matches: Vec<Match>,
    /// Entries.
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<Entry>,
}

/// A key, and whence its value comes.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Entry {
    /// Key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(message, optional, tag = "2")]
    pub part: Option<Part>,
}

/// See `model::mesh::attached::Part`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Part {
    /// 1 header, 2 query parameter, 3 client address, 4 principal, 5 namespace, 6 method, 7 path, 8 host, 9 fixed.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// Name of a header or parameter, or the fixed value.
    #[prost(string, tag = "2")]
    pub text: String,
}

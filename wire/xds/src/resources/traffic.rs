//! Messages of `model::mesh::traffic`, and what a VirtualService adds to routes.

use super::{BackendTls, Header, ValueMatch};
use bytes::Bytes;

/// See `model::mesh::TrafficPolicy`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct TrafficPolicy {
    /// 0 least request, 1 round robin, 2 random, 3 hash.
    #[prost(uint32, tag = "1")]
    pub balancer: u32,
    /// 0 source address, 1 header, 2 cookie, 3 query parameter.
    #[prost(uint32, tag = "2")]
    pub hash_key: u32,
    /// Name of the header, cookie or parameter.
    #[prost(string, tag = "3")]
    pub hash_name: String,
    /// Path of a cookie that is made.
    #[prost(string, tag = "4")]
    pub cookie_path: String,
    /// Lifetime of a cookie that is made.
    #[prost(uint64, optional, tag = "5")]
    pub cookie_ttl_s: Option<u64>,
    /// Whether the table is Maglev's, not a ring.
    #[prost(bool, tag = "6")]
    pub maglev: bool,
    /// Points of the ring or entries of the table.
    #[prost(uint32, tag = "7")]
    pub entries: u32,
    /// Slow start.
    #[prost(message, optional, tag = "8")]
    pub warmup: Option<Warmup>,
    /// Locality.
    #[prost(message, optional, tag = "9")]
    pub locality: Option<Locality>,
    /// Limits.
    #[prost(message, optional, tag = "10")]
    pub pool: Option<ConnectionPool>,
    /// Outlier ejection.
    #[prost(message, optional, tag = "11")]
    pub outlier: Option<Outlier>,
    /// Retry budget: percentage.
    #[prost(uint32, optional, tag = "13")]
    pub budget_percent: Option<u32>,
    /// Retry budget: retries that are always permitted.
    #[prost(uint32, tag = "14")]
    pub budget_min_concurrency: u32,
    /// TLS that is begun. (12 was it in another form.)
    #[prost(message, optional, tag = "15")]
    pub tls: Option<BackendTls>,
    /// PROXY protocol: 0 none, 1, 2 the version.
    #[prost(uint32, tag = "16")]
    pub proxy_protocol: u32,
}

/// See `model::mesh::traffic::Warmup`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Warmup {
    /// Milliseconds.
    #[prost(uint64, tag = "1")]
    pub duration_ms: u64,
    /// Share at the beginning.
    #[prost(uint32, tag = "2")]
    pub minimum_percent: u32,
    /// In hundredths.
    #[prost(uint32, tag = "3")]
    pub aggression_percent: u32,
}

/// See `model::mesh::traffic::Locality`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Locality {
    /// 0 not said, 1 off, 2 on.
    #[prost(uint32, tag = "1")]
    pub enabled: u32,
    /// From and shares.
    #[prost(message, repeated, tag = "2")]
    pub distribute: Vec<Distribute>,
    /// From and to.
    #[prost(message, repeated, tag = "3")]
    pub failover: Vec<Failover>,
    /// Labels.
    #[prost(string, repeated, tag = "4")]
    pub priority: Vec<String>,
}

/// Shares of the traffic of a locality.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Distribute {
    /// Locality.
    #[prost(string, tag = "1")]
    pub from: String,
    /// Share by locality.
    #[prost(message, repeated, tag = "2")]
    pub to: Vec<Share>,
}

/// A locality's share.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Share {
    /// Locality.
    #[prost(string, tag = "1")]
    pub to: String,
    /// Percentage.
    #[prost(uint32, tag = "2")]
    pub percent: u32,
}

/// Which region is next.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Failover {
    /// Region.
    #[prost(string, tag = "1")]
    pub from: String,
    /// Region.
    #[prost(string, tag = "2")]
    pub to: String,
}

/// See `model::mesh::traffic::ConnectionPool`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct ConnectionPool {
    /// Connections.
    #[prost(uint32, tag = "1")]
    pub max_connections: u32,
    /// Requests that wait.
    #[prost(uint32, tag = "2")]
    pub max_pending: u32,
    /// Requests under way.
    #[prost(uint32, tag = "3")]
    pub max_requests: u32,
    /// Requests on one connection.
    #[prost(uint32, tag = "4")]
    pub max_requests_per_connection: u32,
    /// Retries under way.
    #[prost(uint32, tag = "5")]
    pub max_retries: u32,
    /// Time to connect.
    #[prost(uint64, tag = "6")]
    pub connect_timeout_ms: u64,
    /// Idle time.
    #[prost(uint64, tag = "7")]
    pub idle_timeout_ms: u64,
    /// HTTP/1.1 goes on in HTTP/2.
    #[prost(bool, tag = "8")]
    pub upgrade_to_http2: bool,
    /// Idle time of TCP.
    #[prost(uint64, tag = "9")]
    pub tcp_idle_timeout_ms: u64,
    /// How long TCP may last.
    #[prost(uint64, tag = "10")]
    pub tcp_max_duration_ms: u64,
    /// Streams at once.
    #[prost(uint32, tag = "11")]
    pub max_streams: u32,
    /// Keep-alive.
    #[prost(message, optional, tag = "12")]
    pub keepalive: Option<Keepalive>,
    /// PING frames: from one to the next.
    #[prost(uint64, tag = "13")]
    pub ping_interval_ms: u64,
    /// How long an answer may take; 0: none are sent.
    #[prost(uint64, tag = "14")]
    pub ping_timeout_ms: u64,
}

/// See `model::mesh::traffic::Keepalive`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Keepalive {
    /// Seconds before the first probe.
    #[prost(uint32, tag = "1")]
    pub time_s: u32,
    /// Seconds between probes.
    #[prost(uint32, tag = "2")]
    pub interval_s: u32,
    /// Probes.
    #[prost(uint32, tag = "3")]
    pub probes: u32,
}

/// See `model::mesh::traffic::Outlier`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Outlier {
    /// 5xx in a row.
    #[prost(uint32, tag = "1")]
    pub consecutive_5xx: u32,
    /// 502 to 504 in a row.
    #[prost(uint32, tag = "2")]
    pub consecutive_gateway: u32,
    /// Local failures in a row.
    #[prost(uint32, tag = "3")]
    pub consecutive_local: u32,
    /// Interval.
    #[prost(uint64, tag = "4")]
    pub interval_ms: u64,
    /// First ejection.
    #[prost(uint64, tag = "5")]
    pub base_ejection_ms: u64,
    /// At most so many out.
    #[prost(uint32, tag = "6")]
    pub max_ejection_percent: u32,
    /// At least so many healthy.
    #[prost(uint32, tag = "7")]
    pub min_health_percent: u32,
    /// Statuses that count as failures.
    #[prost(uint32, repeated, tag = "8")]
    pub statuses: Vec<u32>,
}

/// See `model::mesh::CallerTraffic`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct CallerTraffic {
    /// Callers' namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Their labels.
    #[prost(message, repeated, tag = "2")]
    pub labels: Vec<Header>,
    /// How they call.
    #[prost(message, optional, tag = "3")]
    pub traffic: Option<TrafficPolicy>,
}

/// See `model::mesh::MatchMore`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MatchMore {
    /// Paths without regard to case.
    #[prost(bool, tag = "1")]
    pub ignore_case: bool,
    /// Scheme; its name is empty.
    #[prost(message, optional, tag = "2")]
    pub scheme: Option<ValueMatch>,
    /// Method; its name is empty.
    #[prost(message, optional, tag = "3")]
    pub method: Option<ValueMatch>,
    /// Authority; its name is empty.
    #[prost(message, optional, tag = "4")]
    pub authority: Option<ValueMatch>,
    /// Headers that must not match.
    #[prost(message, repeated, tag = "5")]
    pub without_headers: Vec<ValueMatch>,
    /// Port, 0 for any.
    #[prost(uint32, tag = "6")]
    pub port: u32,
    /// Caller's namespace.
    #[prost(string, optional, tag = "7")]
    pub source_namespace: Option<String>,
    /// Caller's labels.
    #[prost(message, repeated, tag = "8")]
    pub source_labels: Vec<Header>,
    /// Blocks of addresses that a connection was meant for.
    #[prost(string, repeated, tag = "9")]
    pub destinations: Vec<String>,
}

/// See `model::mesh::Fault`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Fault {
    /// Delay.
    #[prost(uint64, optional, tag = "1")]
    pub delay_ms: Option<u64>,
    /// Its share, of `delay_denominator`.
    #[prost(uint32, tag = "2")]
    pub delay_numerator: u32,
    /// Denominator.
    #[prost(uint32, tag = "3")]
    pub delay_denominator: u32,
    /// Status that is answered.
    #[prost(uint32, optional, tag = "4")]
    pub abort_status: Option<u32>,
    /// It is gRPC's.
    #[prost(bool, tag = "5")]
    pub abort_grpc: bool,
    /// Its share, of `abort_denominator`.
    #[prost(uint32, tag = "6")]
    pub abort_numerator: u32,
    /// Denominator.
    #[prost(uint32, tag = "7")]
    pub abort_denominator: u32,
}

/// See `model::mesh::Response`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Response {
    /// Status.
    #[prost(uint32, tag = "1")]
    pub status: u32,
    /// Body.
    #[prost(bytes = "bytes", tag = "2")]
    pub body: Bytes,
}

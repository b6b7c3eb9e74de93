//! How a service's endpoints are called: Istio's `trafficPolicy`, as the proxy gets it. One for each port of a service or subset.

use super::gateway::BackendTls;
use std::sync::Arc;

/// What a DestinationRule says of one port. What is none is the mesh's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Who gets the next request.
    pub balancer: Balancer,
    /// New endpoints get less at first.
    pub warmup: Option<Warmup>,
    /// Near endpoints first.
    pub locality: Locality,
    /// Limits on connections and requests.
    pub pool: ConnectionPool,
    /// Endpoints that fail are left out for a while.
    pub outlier: Option<Outlier>,
    /// TLS that is begun with its endpoints, beside the mesh's own.
    pub tls: Option<Arc<BackendTls>>,
    /// How many requests may be retries.
    pub retry_budget: Option<RetryBudget>,
    /// Connections that are passed whole begin with a header that says who opened them.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Who gets the next request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balancer {
    /// Of two drawn ones the less loaded.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// Any.
    Random,
    /// None: connections go where they were meant to go.
    PassThrough,
    /// The same endpoint for the same key.
    Hash {
        /// What of a request is the key.
        key: HashKey,
        /// How keys are spread over endpoints.
        table: HashTable,
    },
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// A header's value; lower-case name.
    Header(Arc<str>),
    /// A cookie. With a lifetime one is made for who has none.
    Cookie {
        /// Name.
        name: Arc<str>,
        /// `Path` of a cookie that is made; empty means none.
        path: Arc<str>,
        /// Lifetime of a cookie that is made, 0: as long as the client's session. None: none is made.
        ttl_s: Option<u64>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Arc<str>),
}

/// How keys are spread over endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTable {
    /// A ring (Ketama's), with at least so many points.
    Ring {
        /// Points on the ring, for all endpoints together.
        points: u32,
    },
    /// Maglev (Eisenbud and others, NSDI 2016), with a table of a prime number of entries.
    Maglev {
        /// Entries.
        entries: u32,
    },
}

/// Slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// How long an endpoint is new.
    pub duration_ms: u64,
    /// Its share at the beginning, in hundredths of its later one.
    pub minimum_percent: u32,
    /// In hundredths: 100 grows evenly, more grows late.
    pub aggression_percent: u32,
}

/// A locality and its percentage.
pub type LocalityShare = (Arc<str>, u32);

/// Near endpoints first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Whether locality counts at all. None: it does when something of the rest is set.
    pub enabled: Option<bool>,
    /// From a locality (`region/zone/*`), which percentage goes to which localities. It excludes the next two.
    pub distribute: Vec<(Arc<str>, Vec<LocalityShare>)>,
    /// When a region has no healthy endpoint, which region is next.
    pub failover: Vec<(Arc<str>, Arc<str>)>,
    /// Of `topology.kubernetes.io/region`, `.../zone` and `kubernetes.io/hostname`: an endpoint that shares the first n with the caller goes
    /// before one that shares fewer.
    pub priority: Vec<Arc<str>>,
}

/// Limits. 0 means none. They hold for each proxy worker, as Envoy's hold for each proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Connections to all endpoints together.
    pub max_connections: u32,
    /// Requests that wait for a connection.
    pub max_pending: u32,
    /// Requests under way.
    pub max_requests: u32,
    /// Requests on one connection.
    pub max_requests_per_connection: u32,
    /// Retries under way.
    pub max_retries: u32,
    /// Time to connect.
    pub connect_timeout_ms: u64,
    /// An HTTP connection without requests.
    pub idle_timeout_ms: u64,
    /// A TCP connection without bytes.
    pub tcp_idle_timeout_ms: u64,
    /// How long a TCP connection may last.
    pub tcp_max_duration_ms: u64,
    /// HTTP/1.1 requests go on in HTTP/2.
    pub upgrade_to_http2: bool,
    /// Streams at once on an HTTP/2 connection.
    pub max_streams: u32,
    /// Endpoints that are silent are asked whether they are still there.
    pub keepalive: Option<Keepalive>,
    /// So is the other end of an HTTP/2 connection, in HTTP/2's own way.
    pub pings: Option<Pings>,
}

/// PING frames on an HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pings {
    /// From one answer to the next question.
    pub interval_ms: u64,
    /// A connection on which no answer came for so long is over.
    pub timeout_ms: u64,
}

/// TCP's keep-alive. What is 0 is as the system has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Seconds of silence before the first probe.
    pub time_s: u32,
    /// Seconds between probes.
    pub interval_s: u32,
    /// Probes without an answer after which the connection is over.
    pub probes: u32,
}

/// Endpoints that fail are left out for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Answers 5xx in a row (failures to connect count as such); 0: not looked at.
    pub consecutive_5xx: u32,
    /// Answers 502, 503, 504 in a row; 0: not looked at.
    pub consecutive_gateway: u32,
    /// Failures to connect, resets and time-outs in a row, when they are counted by themselves; 0: they count with the others.
    pub consecutive_local: u32,
    /// How often ejected endpoints are looked at again.
    pub interval_ms: u64,
    /// First ejection; the n-th in a row lasts n times as long.
    pub base_ejection_ms: u64,
    /// At most this part of a pool is out, but one endpoint may always be.
    pub max_ejection_percent: u32,
    /// When fewer than this part is healthy, all are called, ejected or not.
    pub min_health_percent: u32,
    /// Statuses that count as failures in a row, in place of 500 to 599; empty: those.
    pub statuses: Vec<u16>,
}

impl Default for Outlier {
    /// Istio's defaults.
    fn default() -> Self {
        Outlier {
            consecutive_5xx: 5,
            consecutive_gateway: 0,
            consecutive_local: 0,
            interval_ms: 10_000,
            base_ejection_ms: 30_000,
            max_ejection_percent: 10,
            min_health_percent: 0,
            statuses: Vec::new(),
        }
    }
}

/// How many of a service's requests may be retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Percentage of requests.
    pub percent: u32,
    /// Retries under way that are always permitted.
    pub min_concurrency: u32,
}

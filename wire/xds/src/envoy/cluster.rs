//! Clusters and their endpoints.
use super::message::{Message, address, ads, extension};
use super::peer::{Peers, by_mark, by_provider, mark};
use bytes::Bytes;
use model::Key;
use model::mesh::traffic::{Balancer, ConnectionPool, HashTable, Keepalive, Outlier, Pings};
use model::mesh::{BackendTls, SubjectName, TrafficPolicy};
use std::net::SocketAddr;

const UPSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
/// Where Debian and its kin keep the certificates that a host trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const HTTP_OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// How a cluster's endpoints are called, beside what is spoken.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// In plain text.
    Plain,
    /// Under the mesh's TLS, those endpoints that are marked.
    Marked(Peers<'a>),
    /// All under the mesh's TLS, with certificates of the client's provider of this name.
    Provider(&'a str, Peers<'a>),
    /// Under TLS that they end themselves, showing this secret.
    Own(&'a BackendTls, Option<&'a Key>),
}

/// A cluster.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// Its name.
    pub name: &'a str,
    /// HTTP/2 is spoken.
    pub http2: bool,
    /// What a DestinationRule says.
    pub policy: Option<&'a TrafficPolicy>,
    /// TLS.
    pub call: Call<'a>,
    /// For gRPC, which refuses a cluster whose balancing it does not know.
    pub grpc: bool,
    /// Localities have shares.
    pub shares: bool,
}

/// `envoy.config.cluster.v3.Cluster` whose endpoints come on the same stream.
pub fn cluster(of: &Cluster<'_>) -> Bytes {
    let default = TrafficPolicy::default();
    let policy = of.policy.unwrap_or(&default);
    let http2 = of.http2 || policy.pool.upgrade_to_http2;
    // explicit_http_config { http2_protocol_options | http_protocol_options }
    // http2_protocol_options { max_concurrent_streams, allow_connect, connection_keepalive { interval, timeout } }
    let explicit = match http2 {
        true => {
            let pings = |it: Pings| Message::new().duration_ms(1, it.interval_ms).duration_ms(2, it.timeout_ms);
            let options = Message::new().wrapped_some(2, policy.pool.max_streams).number(5, 1);
            Message::new().child(2, options.maybe(15, policy.pool.pings.map(pings)))
        }
        false => Message::new().child(1, Message::new()),
    };
    let options = Message::new().child(3, explicit);
    let options = options.maybe(1, common_http(&policy.pool));
    let options =
        Message::new().text(1, "envoy.extensions.upstreams.http.v3.HttpProtocolOptions").any(2, HTTP_OPTIONS, options);
    let connect_ms = if policy.pool.connect_timeout_ms > 0 { policy.pool.connect_timeout_ms } else { 4_000 };
    let message = Message::new()
        .text(1, of.name)
        // type EDS, eds_cluster_config, connect_timeout
        .number(2, 3)
        .child(3, Message::new().child(1, ads()))
        .duration_ms(4, connect_ms)
        .child(36, options)
        .maybe(10, circuit_breakers(policy))
        // upstream_connection_options { tcp_keepalive }
        .maybe(30, policy.pool.keepalive.map(|it| Message::new().child(1, keepalive(it))))
        .maybe(19, policy.outlier.as_ref().map(outlier_detection));
    let message = match of.call {
        Call::Plain => message,
        Call::Marked(peers) => by_mark(message, &Peers { http2, ..peers }),
        Call::Provider(instance, peers) => by_provider(message, instance, &peers),
        Call::Own(tls, certificate) => message.child(24, upstream_tls(tls, certificate, http2)),
    };
    // common_lb_config { healthy_panic_threshold, locality_weighted_lb_config }
    let common = Message::new();
    let common = match &policy.outlier {
        Some(outlier) => common.percent(1, outlier.min_health_percent),
        None => common,
    };
    let common = common.maybe(3, of.shares.then(Message::new));
    let message = if of.grpc { balanced_for_grpc(message, &policy.balancer) } else { balanced(message, policy) };
    message.maybe(27, (policy.outlier.is_some() || of.shares).then_some(common)).finish()
}

/// `lb_policy` and what belongs to it.
fn balanced(message: Message, policy: &TrafficPolicy) -> Message {
    // slow_start_window, aggression { default_value, runtime_key }, min_weight_percent
    let slow_start = policy.warmup.map(|warmup| {
        let aggression = Message::new().double(1, f64::from(warmup.aggression_percent.max(1)) / 100.0);
        let message = Message::new().duration_ms(1, warmup.duration_ms).child(2, aggression.text(2, "aggression"));
        message.percent(3, warmup.minimum_percent.min(100))
    });
    match &policy.balancer {
        // LEAST_REQUEST, least_request_lb_config { slow_start_config }
        Balancer::LeastRequest => message.number(6, 1).child(37, Message::new().maybe(3, slow_start)),
        // ROUND_ROBIN, round_robin_lb_config { slow_start_config }
        Balancer::RoundRobin => message.number(6, 0).child(56, Message::new().maybe(1, slow_start)),
        Balancer::Random | Balancer::PassThrough => message.number(6, 3),
        // MAGLEV, maglev_lb_config { table_size }
        Balancer::Hash { table: HashTable::Maglev { entries }, .. } => {
            message.number(6, 5).child(52, Message::new().wrapped(1, u64::from(prime(*entries))))
        }
        ring @ Balancer::Hash { .. } => balanced_for_grpc(message, ring),
    }
}

/// The first prime from a number on, up to the largest table that Envoy takes.
fn prime(from: u32) -> u32 {
    let is_prime = |n: u32| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (from.max(2)..=5_000_011).find(|n| is_prime(*n)).unwrap_or(5_000_011)
}

/// In turn, or by a ring.
fn balanced_for_grpc(message: Message, balancer: &Balancer) -> Message {
    match balancer {
        Balancer::LeastRequest | Balancer::RoundRobin | Balancer::Random | Balancer::PassThrough => {
            message.number(6, 0)
        }
        Balancer::Hash { table, .. } => {
            let ring = match table {
                HashTable::Ring { points } => Message::new().wrapped(1, u64::from(*points)),
                HashTable::Maglev { .. } => Message::new(),
            };
            // RING_HASH, ring_hash_lb_config { minimum_ring_size }
            message.number(6, 2).child(23, ring)
        }
    }
}

/// `TcpKeepalive`.
fn keepalive(it: Keepalive) -> Message {
    Message::new().wrapped_some(1, it.probes).wrapped_some(2, it.time_s).wrapped_some(3, it.interval_s)
}

/// `HttpProtocolOptions.common_http_protocol_options`.
fn common_http(pool: &ConnectionPool) -> Option<Message> {
    let message =
        if pool.idle_timeout_ms > 0 { Message::new().duration_ms(1, pool.idle_timeout_ms) } else { Message::new() };
    let any = pool.idle_timeout_ms > 0 || pool.max_requests_per_connection > 0;
    any.then(|| message.wrapped_some(6, pool.max_requests_per_connection))
}

/// `CircuitBreakers`, for the priority DEFAULT.
fn circuit_breakers(policy: &TrafficPolicy) -> Option<Message> {
    let pool = &policy.pool;
    let any = pool.max_connections + pool.max_pending + pool.max_requests + pool.max_retries > 0;
    let budget = policy
        .retry_budget
        .map(|budget| Message::new().percent(1, budget.percent).wrapped(2, u64::from(budget.min_concurrency)));
    (any || budget.is_some()).then(|| {
        let limits = [(2, pool.max_connections), (3, pool.max_pending), (4, pool.max_requests), (5, pool.max_retries)];
        let thresholds =
            limits.into_iter().fold(Message::new(), |message, (tag, limit)| message.wrapped_some(tag, limit));
        Message::new().child(1, thresholds.maybe(8, budget))
    })
}

/// `OutlierDetection`: failures in a row, and not success rates, which a DestinationRule cannot ask for.
fn outlier_detection(outlier: &Outlier) -> Message {
    let counted = |message: Message, (count, enforcing): (u32, u32), limit: u32| match limit {
        0 => message.wrapped(enforcing, 0),
        limit => message.wrapped(count, u64::from(limit)).wrapped(enforcing, 100),
    };
    let message = counted(Message::new(), (1, 5), outlier.consecutive_5xx)
        .duration_ms(2, outlier.interval_ms)
        .duration_ms(3, outlier.base_ejection_ms)
        .wrapped(4, u64::from(outlier.max_ejection_percent))
        .wrapped(6, 0);
    let message = counted(message, (10, 11), outlier.consecutive_gateway);
    // split_external_local_origin_errors; always_eject_one_host
    let message = match outlier.consecutive_local {
        0 => message,
        limit => counted(message.number(12, 1), (13, 14), limit).wrapped(15, 0),
    };
    message.wrapped(25, 1)
}

/// TLS to a service that ends it itself: an `UpstreamTlsContext`. The client's certificate comes by SDS.
fn upstream_tls(tls: &BackendTls, certificate: Option<&Key>, http2: bool) -> Message {
    let name = |kind: u64, text: &str| Message::new().number(1, kind).child(2, Message::new().text(1, text));
    // SanType DNS 2, URI 3
    let names = tls.names.iter().map(|it| match it {
        SubjectName::Dns(text) => name(2, text),
        SubjectName::Uri(text) => name(3, text),
    });
    let own = tls.names.is_empty().then(|| name(2, &tls.hostname));
    // DataSource { filename 1, inline_bytes 2 }
    let roots = match tls.system_roots {
        true => Message::new().text(1, SYSTEM_ROOTS),
        false => Message::new().bytes(2, tls.roots.join("\n").as_bytes()),
    };
    let validation = Message::new().child(1, roots).children(15, names.chain(own));
    let secret = certificate.map(|key| Message::new().text(1, &key.to_string()).child(2, ads()));
    let common = Message::new().maybe(3, (!tls.insecure).then_some(validation)).maybe(6, secret);
    let common = if http2 { common.text(4, "h2") } else { common };
    let context = Message::new().child(1, common).text(2, &tls.hostname);
    extension("envoy.transport_sockets.tls", 3, UPSTREAM_TLS, context)
}

/// A cluster whose endpoint is wherever a captured connection was going.
pub fn passthrough(name: &str) -> Bytes {
    // type ORIGINAL_DST, lb_policy CLUSTER_PROVIDED
    Message::new().text(1, name).number(2, 4).duration_ms(4, 4_000).number(6, 6).finish()
}

/// An endpoint and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalEndpoint<'a> {
    /// 0 is asked first.
    pub priority: u32,
    /// Region.
    pub region: &'a str,
    /// Zone.
    pub zone: &'a str,
    /// Address.
    pub address: SocketAddr,
    /// Its share within its locality.
    pub weight: u32,
    /// It takes the mesh's TLS.
    pub marked: bool,
    /// The share of its locality; 0: as many as it has endpoints.
    pub locality_weight: u32,
}

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`, of sorted endpoints.
pub fn assignment<'a>(cluster: &str, endpoints: impl IntoIterator<Item = LocalEndpoint<'a>>) -> Bytes {
    let mut groups: Vec<(LocalEndpoint<'a>, Vec<Message>)> = Vec::new();
    for it in endpoints {
        let at = Message::new().child(1, address(&it.address.ip().to_string(), it.address.port()));
        // endpoint, health_status HEALTHY, metadata, load_balancing_weight
        let endpoint = Message::new().child(1, at).number(2, 1).maybe(3, it.marked.then(mark));
        let endpoint = endpoint.wrapped(4, u64::from(it.weight.max(1)));
        let place = |it: &LocalEndpoint<'a>| (it.priority, it.region, it.zone);
        match groups.last_mut() {
            Some((first, endpoints)) if place(first) == place(&it) => endpoints.push(endpoint),
            _ => groups.push((it, vec![endpoint])),
        }
    }
    let localities = groups.into_iter().map(|(first, endpoints)| {
        let weight = if first.locality_weight > 0 { u64::from(first.locality_weight) } else { endpoints.len() as u64 };
        let locality = Message::new().text(1, first.region).text(2, first.zone);
        // locality { region, zone }, lb_endpoints, load_balancing_weight, priority
        Message::new().child(1, locality).children(2, endpoints).wrapped(3, weight).number(5, u64::from(first.priority))
    });
    Message::new().text(1, cluster).children(2, localities).finish()
}

//! networking.istio.io DestinationRule and ServiceEntry.

use super::duration::duration_ms;
use super::virtual_service::host_of;
use super::{app_protocol, port};
use crate::meta::meta;
use crate::read::{at, flag, items, labels, opt_int, path, str_at, text, texts};
use model::mesh::Subnet;
use model::mesh::api::istio::{
    DestinationRule, EntryEndpoint, EntryPort, PolicySpec, Resolution, ServiceEntry, Subset, TlsOrigination, TlsSpec,
};
use model::mesh::traffic::{
    Balancer, ConnectionPool, HashKey, HashTable, Keepalive, Locality, Outlier, Pings, ProxyProtocol, RetryBudget,
    Warmup,
};
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;

/// Entries of a ring or table at most: each worker keeps one for each port that it calls.
const MOST_ENTRIES: u32 = 1 << 20;
/// Linux takes no more (`MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPCNT`).
const MOST_KEEPALIVE_S: u32 = 32_767;
const MOST_PROBES: u32 = 127;
/// Envoy's own default for a ring.
const RING_POINTS: u32 = 1_024;
/// The prime that the Maglev paper and Envoy use.
const MAGLEV_ENTRIES: u32 = 65_537;

pub(super) fn destination_rule(value: &Value) -> DestinationRule {
    let spec = at(value, "spec");
    let mut ignored = Vec::new();
    let subset = |it: &Value, ignored: &mut Vec<Arc<str>>| Subset {
        name: text(it, "name"),
        labels: labels(at(it, "labels")),
        policy: policy(at(it, "trafficPolicy"), ignored),
    };
    DestinationRule {
        meta: meta(value),
        host: host_of(value, "host"),
        policy: policy(at(spec, "trafficPolicy"), &mut ignored),
        subsets: items(spec, "subsets").iter().map(|it| subset(it, &mut ignored)).collect(),
        callers: Some(at(spec, "workloadSelector")).filter(|it| it.is_object()).map(|it| labels(at(it, "matchLabels"))),
        ignored,
    }
}

fn number(value: &Value, name: &str) -> u32 {
    opt_int(value, name).and_then(|it| u32::try_from(it).ok()).unwrap_or(0)
}

fn policy(value: &Value, ignored: &mut Vec<Arc<str>>) -> PolicySpec {
    let balancer = at(value, "loadBalancer");
    let pool = at(value, "connectionPool");
    let outlier = at(value, "outlierDetection");
    if at(value, "tunnel").is_object() {
        ignored.push("trafficPolicy.tunnel".into());
    }
    let http = at(pool, "http");
    let pinged = at(http, "http2KeepAlive");
    let said = [
        (
            "connectionPool.http.http2KeepAlive: interval and timeout are needed",
            pinged.is_object() && pings(pinged).is_none(),
        ),
        ("loadBalancer.zoneAwareLbSetting", at(balancer, "zoneAwareLbSetting").is_object()),
    ];
    ignored.extend(said.into_iter().filter(|(_, said)| *said).map(|(name, _)| name.into()));
    let budget = at(value, "retryBudget");
    PolicySpec {
        balancer: self::balancer(balancer),
        warmup: warmup(balancer),
        locality: locality(balancer),
        pool: pool.is_object().then(|| self::pool(pool)),
        outlier: outlier.is_object().then(|| self::outlier(outlier)),
        tls: tls(at(value, "tls")),
        retry_budget: budget.is_object().then(|| RetryBudget {
            percent: at(budget, "percent").as_f64().unwrap_or(20.0).clamp(0.0, 100.0) as u32,
            min_concurrency: opt_int(budget, "minRetryConcurrency").map_or(3, |it| u32::try_from(it).unwrap_or(0)),
        }),
        proxy_protocol: match str_at(at(value, "proxyProtocol"), "version") {
            _ if !at(value, "proxyProtocol").is_object() => None,
            "V2" => Some(ProxyProtocol::V2),
            _ => Some(ProxyProtocol::V1),
        },
        ports: items(value, "portLevelSettings")
            .iter()
            .map(|it| (port(at(it, "port"), "number"), policy(it, ignored)))
            .collect(),
    }
}

fn balancer(value: &Value) -> Option<Balancer> {
    let hash = at(value, "consistentHash");
    if hash.is_object() {
        return Some(hashed(hash));
    }
    match str_at(value, "simple") {
        "ROUND_ROBIN" => Some(Balancer::RoundRobin),
        "RANDOM" => Some(Balancer::Random),
        "PASSTHROUGH" => Some(Balancer::PassThrough),
        "LEAST_REQUEST" | "LEAST_CONN" => Some(Balancer::LeastRequest),
        _ => None,
    }
}

fn hashed(value: &Value) -> Balancer {
    let cookie = at(value, "httpCookie");
    let header = str_at(value, "httpHeaderName");
    let query = text(value, "httpQueryParameterName");
    let key = if !header.is_empty() {
        HashKey::Header(header.to_ascii_lowercase().into())
    } else if cookie.is_object() {
        HashKey::Cookie {
            name: text(cookie, "name"),
            path: text(cookie, "path"),
            ttl_s: duration_ms(str_at(cookie, "ttl")).map(|ms| ms / 1_000),
        }
    } else if !query.is_empty() {
        HashKey::Query(query)
    } else {
        HashKey::SourceIp
    };
    let (ring, maglev) = (at(value, "ringHash"), at(value, "maglev"));
    let entries = |size: u32, default: u32| if size == 0 { default } else { size.min(MOST_ENTRIES) };
    let table = if maglev.is_object() {
        HashTable::Maglev { entries: entries(number(maglev, "tableSize"), MAGLEV_ENTRIES) }
    } else {
        let size = number(ring, "minimumRingSize").max(number(value, "minimumRingSize"));
        HashTable::Ring { points: entries(size, RING_POINTS) }
    };
    Balancer::Hash { key, table }
}

fn warmup(value: &Value) -> Option<Warmup> {
    let said = at(value, "warmup");
    let hundredths = |name: &str, default: f64| (at(said, name).as_f64().unwrap_or(default).clamp(0.0, 1e4)) as u32;
    let duration = duration_ms(str_at(said, "duration")).or_else(|| duration_ms(str_at(value, "warmupDurationSecs")));
    duration.filter(|ms| *ms > 0).map(|duration_ms| Warmup {
        duration_ms,
        minimum_percent: hundredths("minimumPercent", 10.0).min(100),
        aggression_percent: (at(said, "aggression").as_f64().unwrap_or(1.0).clamp(0.01, 100.0) * 100.0) as u32,
    })
}

fn locality(value: &Value) -> Option<Locality> {
    let said = at(value, "localityLbSetting");
    let pairs = |it: &Value| -> Vec<(Arc<str>, u32)> {
        let entries = at(it, "to").as_object().into_iter().flatten();
        let share = |value: &Value| value.as_u64().and_then(|it| u32::try_from(it).ok());
        entries.filter_map(|(to, value)| Some((to.as_str().into(), share(value)?))).collect()
    };
    said.is_object().then(|| Locality {
        enabled: at(said, "enabled").as_bool(),
        distribute: items(said, "distribute").iter().map(|it| (text(it, "from"), pairs(it))).collect(),
        failover: items(said, "failover").iter().map(|it| (text(it, "from"), text(it, "to"))).collect(),
        priority: texts(said, "failoverPriority"),
    })
}

fn pool(value: &Value) -> ConnectionPool {
    let (tcp, http) = (at(value, "tcp"), at(value, "http"));
    let ms = |value: &Value, name: &str| duration_ms(str_at(value, name)).unwrap_or(0);
    ConnectionPool {
        max_connections: number(tcp, "maxConnections"),
        max_pending: number(http, "http1MaxPendingRequests"),
        max_requests: number(http, "http2MaxRequests"),
        max_requests_per_connection: number(http, "maxRequestsPerConnection"),
        max_retries: number(http, "maxRetries"),
        connect_timeout_ms: ms(tcp, "connectTimeout"),
        idle_timeout_ms: ms(http, "idleTimeout"),
        tcp_idle_timeout_ms: ms(tcp, "idleTimeout"),
        tcp_max_duration_ms: ms(tcp, "maxConnectionDuration"),
        upgrade_to_http2: str_at(http, "h2UpgradePolicy") == "UPGRADE",
        max_streams: number(http, "maxConcurrentStreams"),
        keepalive: keepalive(at(tcp, "tcpKeepalive")),
        pings: pings(at(http, "http2KeepAlive")),
    }
}

fn pings(value: &Value) -> Option<Pings> {
    let ms = |name: &str| duration_ms(str_at(value, name)).filter(|ms| *ms > 0);
    Some(Pings { interval_ms: ms("interval")?, timeout_ms: ms("timeout")? })
}

/// Of times below a second one second is left: sockets count in them.
fn keepalive(value: &Value) -> Option<Keepalive> {
    let seconds = |name: &str| {
        let ms = duration_ms(str_at(value, name)).unwrap_or(0);
        u32::try_from(ms.div_ceil(1_000)).unwrap_or(u32::MAX).min(MOST_KEEPALIVE_S)
    };
    value.is_object().then(|| Keepalive {
        time_s: seconds("time"),
        interval_s: seconds("interval"),
        probes: number(value, "probes").min(MOST_PROBES),
    })
}

fn outlier(value: &Value) -> Outlier {
    let default = Outlier::default();
    let opt = |name: &str| opt_int(value, name).and_then(|it| u32::try_from(it).ok());
    let percent = |name: &str, default: u32| opt(name).unwrap_or(default).min(100);
    let ms = |name: &str, default: u64| duration_ms(str_at(value, name)).filter(|ms| *ms > 0).unwrap_or(default);
    let split = flag(value, "splitExternalLocalOriginErrors");
    Outlier {
        consecutive_5xx: opt("consecutive5xxErrors").unwrap_or(default.consecutive_5xx),
        consecutive_gateway: opt("consecutiveGatewayErrors").or(opt("consecutiveErrors")).unwrap_or(0),
        consecutive_local: if split { opt("consecutiveLocalOriginFailures").unwrap_or(5) } else { 0 },
        interval_ms: ms("interval", default.interval_ms),
        base_ejection_ms: ms("baseEjectionTime", default.base_ejection_ms),
        max_ejection_percent: percent("maxEjectionPercent", default.max_ejection_percent),
        min_health_percent: percent("minHealthPercent", default.min_health_percent),
        statuses: items(value, "outlierDetectionHttpErrorCodes")
            .iter()
            .filter_map(|it| u16::try_from(it.as_u64()?).ok())
            .collect(),
    }
}

fn tls(value: &Value) -> Option<TlsSpec> {
    let mode = match str_at(value, "mode") {
        "SIMPLE" => TlsOrigination::Simple,
        "MUTUAL" => TlsOrigination::Mutual,
        "ISTIO_MUTUAL" => TlsOrigination::Mesh,
        // Within the mesh it is mutual TLS whatever is asked for: the tunnel's.
        "DISABLE" => TlsOrigination::None,
        _ => return None,
    };
    let said = |name: &&&str| !str_at(value, name).is_empty();
    let files = ["clientCertificate", "privateKey", "caCertificates", "caCrl"];
    let file = files.iter().find(said).filter(|name| **name != "caCertificates" || str_at(value, name) != "system");
    Some(TlsSpec {
        mode,
        sni: text(value, "sni"),
        names: texts(value, "subjectAltNames"),
        credential: text(value, "credentialName"),
        insecure: at(value, "insecureSkipVerify") == &Value::Bool(true),
        file: file.copied().unwrap_or_default().into(),
    })
}

pub(super) fn service_entry(value: &Value) -> ServiceEntry {
    let spec = at(value, "spec");
    let said = texts(spec, "addresses");
    let single = |text: &Arc<str>| -> Option<IpAddr> {
        let whole = if text.contains(':') { "/128" } else { "/32" };
        text.strip_suffix(whole).unwrap_or(text).parse().ok()
    };
    let blocks = said.iter().filter(|text| single(text).is_none());
    let bad = blocks.clone().find(|text| Subnet::parse(text).is_none());
    ServiceEntry {
        meta: meta(value),
        hosts: texts(spec, "hosts").iter().map(|host| host.to_ascii_lowercase().into()).collect(),
        addresses: said.iter().filter_map(single).collect(),
        blocks: blocks.filter_map(|text| Subnet::parse(text)).collect(),
        bad_address: bad.cloned().unwrap_or_default(),
        ports: items(spec, "ports").iter().map(entry_port).collect(),
        resolution: match str_at(spec, "resolution") {
            "" | "NONE" => Resolution::None,
            "STATIC" => Resolution::Static,
            "DNS" | "DNS_ROUND_ROBIN" => Resolution::Dns,
            _ => Resolution::Unknown,
        },
        endpoints: items(spec, "endpoints").iter().map(entry_endpoint).collect(),
        selector: labels(path(spec, &["workloadSelector", "labels"])),
        export_to: exported(spec, &meta(value).key.namespace),
        outside: str_at(spec, "location") == "MESH_EXTERNAL",
        names: texts(spec, "subjectAltNames"),
    }
}

/// `exportTo` as namespaces; none: all. `~`, nobody, is a name that no namespace has.
fn exported(spec: &Value, own: &Arc<str>) -> Vec<Arc<str>> {
    let to = texts(spec, "exportTo");
    if to.iter().any(|to| &**to == "*") {
        return Vec::new();
    }
    to.into_iter().map(|to| if &*to == "." { own.clone() } else { to }).collect()
}

fn entry_port(value: &Value) -> EntryPort {
    let number = port(value, "number");
    let target = port(value, "targetPort");
    EntryPort {
        port: number,
        name: text(value, "name"),
        app_protocol: app_protocol(&str_at(value, "protocol").to_ascii_lowercase(), str_at(value, "name")),
        target: if target == 0 { number } else { target },
    }
}

fn entry_endpoint(value: &Value) -> EntryEndpoint {
    let (region, zone) = locality_of(value);
    EntryEndpoint {
        address: text(value, "address"),
        ports: named_ports(value),
        labels: labels(at(value, "labels")),
        region,
        zone,
        weight: number(value, "weight"),
    }
}

/// `ports` of a WorkloadEntry.
pub(super) fn named_ports(value: &Value) -> Vec<(Arc<str>, u16)> {
    let entries = at(value, "ports").as_object().into_iter().flatten();
    let number = |value: &Value| value.as_u64().and_then(|it| u16::try_from(it).ok());
    entries.filter_map(|(name, value)| Some((name.as_str().into(), number(value)?))).collect()
}

/// Region and zone of `locality: region/zone/subzone`.
pub(super) fn locality_of(value: &Value) -> (Arc<str>, Arc<str>) {
    let mut parts = str_at(value, "locality").split('/');
    (parts.next().unwrap_or_default().into(), parts.next().unwrap_or_default().into())
}

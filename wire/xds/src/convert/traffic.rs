//! Traffic policies.

use super::{DecodeError, arcs, number, pick, port_in, strings};
use crate::resources::traffic as wire;
use model::mesh::TrafficPolicy;
use model::mesh::traffic::{
    Balancer, ConnectionPool, HashKey, HashTable, Keepalive, Locality, Outlier, Pings, ProxyProtocol, RetryBudget,
    Warmup,
};
use std::sync::Arc;

const PROXY_PROTOCOL: &[(u32, Option<ProxyProtocol>)] =
    &[(0, None), (1, Some(ProxyProtocol::V1)), (2, Some(ProxyProtocol::V2))];

/// A proxy does not trust the sizes that it is told.
const MOST_ENTRIES: u32 = 1 << 22;

impl From<&TrafficPolicy> for wire::TrafficPolicy {
    fn from(it: &TrafficPolicy) -> Self {
        let mut out = wire::TrafficPolicy {
            warmup: it.warmup.map(|it| wire::Warmup {
                duration_ms: it.duration_ms,
                minimum_percent: it.minimum_percent,
                aggression_percent: it.aggression_percent,
            }),
            locality: (it.locality != Locality::default()).then(|| locality_out(&it.locality)),
            pool: (it.pool != ConnectionPool::default()).then(|| pool_out(it.pool)),
            outlier: it.outlier.as_ref().map(outlier_out),
            tls: it.tls.as_ref().map(|tls| (&**tls).into()),
            proxy_protocol: number(it.proxy_protocol, PROXY_PROTOCOL),
            budget_percent: it.retry_budget.map(|it| it.percent),
            budget_min_concurrency: it.retry_budget.map_or(0, |it| it.min_concurrency),
            ..Default::default()
        };
        match &it.balancer {
            Balancer::LeastRequest => {}
            Balancer::RoundRobin => out.balancer = 1,
            Balancer::Random => out.balancer = 2,
            Balancer::PassThrough => out.balancer = 4,
            Balancer::Hash { key, table } => hash_out(key, *table, &mut out),
        }
        out
    }
}

fn hash_out(key: &HashKey, table: HashTable, out: &mut wire::TrafficPolicy) {
    out.balancer = 3;
    match key {
        HashKey::SourceIp => {}
        HashKey::Header(name) => (out.hash_key, out.hash_name) = (1, name.to_string()),
        HashKey::Cookie { name, path, ttl_s } => {
            (out.hash_key, out.hash_name) = (2, name.to_string());
            (out.cookie_path, out.cookie_ttl_s) = (path.to_string(), *ttl_s);
        }
        HashKey::Query(name) => (out.hash_key, out.hash_name) = (3, name.to_string()),
    }
    (out.maglev, out.entries) = match table {
        HashTable::Ring { points } => (false, points),
        HashTable::Maglev { entries } => (true, entries),
    };
}

impl TryFrom<wire::TrafficPolicy> for TrafficPolicy {
    type Error = DecodeError;
    fn try_from(it: wire::TrafficPolicy) -> Result<Self, DecodeError> {
        let balancer = match it.balancer {
            0 => Balancer::LeastRequest,
            1 => Balancer::RoundRobin,
            2 => Balancer::Random,
            3 => hash_in(&it)?,
            4 => Balancer::PassThrough,
            other => return Err(DecodeError::Unknown { field: "balancer", value: other.to_string() }),
        };
        let budget = |percent| RetryBudget { percent, min_concurrency: it.budget_min_concurrency };
        Ok(TrafficPolicy {
            balancer,
            warmup: it.warmup.map(|it| Warmup {
                duration_ms: it.duration_ms,
                minimum_percent: it.minimum_percent,
                aggression_percent: it.aggression_percent,
            }),
            locality: it.locality.map(locality_in).transpose()?.unwrap_or_default(),
            pool: it.pool.map(pool_in).unwrap_or_default(),
            outlier: it.outlier.map(outlier_in).transpose()?,
            tls: it.tls.map(TryInto::try_into).transpose()?.map(Arc::new),
            retry_budget: it.budget_percent.map(budget),
            proxy_protocol: pick(it.proxy_protocol, "proxy_protocol", PROXY_PROTOCOL)?,
        })
    }
}

fn hash_in(it: &wire::TrafficPolicy) -> Result<Balancer, DecodeError> {
    let name = it.hash_name.as_str();
    let key = match it.hash_key {
        0 => HashKey::SourceIp,
        1 => HashKey::Header(name.into()),
        2 => HashKey::Cookie { name: name.into(), path: it.cookie_path.as_str().into(), ttl_s: it.cookie_ttl_s },
        3 => HashKey::Query(name.into()),
        other => return Err(DecodeError::Unknown { field: "hash_key", value: other.to_string() }),
    };
    if it.entries == 0 || it.entries > MOST_ENTRIES {
        return Err(DecodeError::Unknown { field: "entries", value: it.entries.to_string() });
    }
    let table = match it.maglev {
        true => HashTable::Maglev { entries: it.entries },
        false => HashTable::Ring { points: it.entries },
    };
    Ok(Balancer::Hash { key, table })
}

fn locality_out(it: &Locality) -> wire::Locality {
    let share = |(to, percent): &(Arc<str>, u32)| wire::Share { to: to.to_string(), percent: *percent };
    wire::Locality {
        enabled: it.enabled.map_or(0, |on| if on { 2 } else { 1 }),
        distribute: it
            .distribute
            .iter()
            .map(|(from, to)| wire::Distribute { from: from.to_string(), to: to.iter().map(share).collect() })
            .collect(),
        failover: it
            .failover
            .iter()
            .map(|(from, to)| wire::Failover { from: from.to_string(), to: to.to_string() })
            .collect(),
        priority: strings(&it.priority),
    }
}

fn locality_in(it: wire::Locality) -> Result<Locality, DecodeError> {
    let shares = |to: Vec<wire::Share>| to.into_iter().map(|it| (it.to.into(), it.percent)).collect();
    Ok(Locality {
        enabled: pick(it.enabled, "enabled", &[(0, None), (1, Some(false)), (2, Some(true))])?,
        distribute: it.distribute.into_iter().map(|it| (it.from.into(), shares(it.to))).collect(),
        failover: it.failover.into_iter().map(|it| (it.from.into(), it.to.into())).collect(),
        priority: arcs(it.priority),
    })
}

fn pool_out(it: ConnectionPool) -> wire::ConnectionPool {
    wire::ConnectionPool {
        max_connections: it.max_connections,
        max_pending: it.max_pending,
        max_requests: it.max_requests,
        max_requests_per_connection: it.max_requests_per_connection,
        max_retries: it.max_retries,
        connect_timeout_ms: it.connect_timeout_ms,
        idle_timeout_ms: it.idle_timeout_ms,
        upgrade_to_http2: it.upgrade_to_http2,
        tcp_idle_timeout_ms: it.tcp_idle_timeout_ms,
        tcp_max_duration_ms: it.tcp_max_duration_ms,
        max_streams: it.max_streams,
        keepalive: it.keepalive.map(|it| wire::Keepalive {
            time_s: it.time_s,
            interval_s: it.interval_s,
            probes: it.probes,
        }),
        ping_interval_ms: it.pings.map_or(0, |it| it.interval_ms),
        ping_timeout_ms: it.pings.map_or(0, |it| it.timeout_ms),
    }
}

fn pool_in(it: wire::ConnectionPool) -> ConnectionPool {
    ConnectionPool {
        max_connections: it.max_connections,
        max_pending: it.max_pending,
        max_requests: it.max_requests,
        max_requests_per_connection: it.max_requests_per_connection,
        max_retries: it.max_retries,
        connect_timeout_ms: it.connect_timeout_ms,
        idle_timeout_ms: it.idle_timeout_ms,
        upgrade_to_http2: it.upgrade_to_http2,
        tcp_idle_timeout_ms: it.tcp_idle_timeout_ms,
        tcp_max_duration_ms: it.tcp_max_duration_ms,
        max_streams: it.max_streams,
        keepalive: it.keepalive.map(|it| Keepalive { time_s: it.time_s, interval_s: it.interval_s, probes: it.probes }),
        pings: Some(Pings { interval_ms: it.ping_interval_ms, timeout_ms: it.ping_timeout_ms })
            .filter(|it| it.interval_ms > 0 && it.timeout_ms > 0),
    }
}

fn outlier_out(it: &Outlier) -> wire::Outlier {
    wire::Outlier {
        consecutive_5xx: it.consecutive_5xx,
        consecutive_gateway: it.consecutive_gateway,
        consecutive_local: it.consecutive_local,
        interval_ms: it.interval_ms,
        base_ejection_ms: it.base_ejection_ms,
        max_ejection_percent: it.max_ejection_percent,
        min_health_percent: it.min_health_percent,
        statuses: it.statuses.iter().map(|it| u32::from(*it)).collect(),
    }
}

fn outlier_in(it: wire::Outlier) -> Result<Outlier, DecodeError> {
    Ok(Outlier {
        consecutive_5xx: it.consecutive_5xx,
        consecutive_gateway: it.consecutive_gateway,
        consecutive_local: it.consecutive_local,
        interval_ms: it.interval_ms,
        base_ejection_ms: it.base_ejection_ms,
        max_ejection_percent: it.max_ejection_percent,
        min_health_percent: it.min_health_percent,
        statuses: it.statuses.into_iter().map(|it| port_in(it, "statuses")).collect::<Result<_, _>>()?,
    })
}

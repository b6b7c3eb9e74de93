//! The measured call graph: counters that proxies report, as rates over a window.

use model::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A workload as proxies name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Namespace, or empty when unknown.
    pub namespace: Arc<str>,
    /// Workload (Deployment, ...), or `unknown`.
    pub workload: Arc<str>,
}

/// What calls what, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeKey {
    /// Who calls.
    pub source: Peer,
    /// Who answers.
    pub destination: Peer,
    /// Service that was called, or empty.
    pub service: Arc<str>,
    /// Its namespace.
    pub service_namespace: Arc<str>,
    /// `http`, `grpc` or `tcp`.
    pub protocol: Arc<str>,
    /// Whether both ends showed a certificate.
    pub mtls: bool,
}

/// Counters since the proxy's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests.
    pub requests: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Requests by latency, one for each bound and one beyond.
    pub buckets: Vec<u64>,
    /// Bytes either way.
    pub bytes: u64,
}

impl Counters {
    fn since(&self, before: &Counters) -> Counters {
        // Counters that have shrunk were begun anew by a restarted proxy: all of them is growth.
        if self.requests < before.requests || self.bytes < before.bytes {
            return self.clone();
        }
        let bucket = |index: usize| before.buckets.get(index).copied().unwrap_or(0);
        Counters {
            requests: self.requests - before.requests,
            errors: self.errors.saturating_sub(before.errors),
            buckets: self
                .buckets
                .iter()
                .enumerate()
                .map(|(index, count)| count.saturating_sub(bucket(index)))
                .collect(),
            bytes: self.bytes - before.bytes,
        }
    }

    fn add(&mut self, more: &Counters) {
        self.requests += more.requests;
        self.errors += more.errors;
        self.bytes += more.bytes;
        self.buckets.resize(self.buckets.len().max(more.buckets.len()), 0);
        for (sum, count) in self.buckets.iter_mut().zip(&more.buckets) {
            *sum += count;
        }
    }
}

/// What one edge grew by over a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// Which.
    pub key: EdgeKey,
    /// By how much.
    pub counters: Counters,
    /// In how long.
    pub seconds: f64,
}

/// One edge over the window.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeRate {
    /// Which.
    pub key: EdgeKey,
    /// Requests a second.
    pub requests_per_s: f64,
    /// Failed of all.
    pub error_share: f64,
    /// Median latency in milliseconds.
    pub p50_ms: Option<f64>,
    /// 99th percentile of latency in milliseconds.
    pub p99_ms: Option<f64>,
    /// Bytes a second, both ways.
    pub bytes_per_s: f64,
}

/// Which proxy reported, and whether as the caller's side.
type Reporter = (Arc<str>, bool);

/// Samples of one edge from one reporter, oldest first.
type Series = VecDeque<(Timestamp, Counters)>;

/// Edges beyond this number are not followed: proxies bound their cardinality, a broken one must not fill the memory.
const EDGES_MAX: usize = 50_000;

/// The graph.
#[derive(Debug, Default)]
pub struct Graph {
    bounds_ms: Vec<f64>,
    edges: BTreeMap<(EdgeKey, Reporter), Series>,
}

impl Graph {
    /// Takes in what one proxy reports. `at_source` of an edge says that its caller is on that node.
    pub fn observe(
        &mut self,
        node: &Arc<str>,
        at: Timestamp,
        bounds_ms: &[f64],
        edges: Vec<(EdgeKey, bool, Counters)>,
    ) {
        if self.bounds_ms.len() != bounds_ms.len() {
            self.bounds_ms = bounds_ms.to_vec();
        }
        let mut merged: BTreeMap<(EdgeKey, bool), Counters> = BTreeMap::new();
        for (key, at_source, counters) in edges {
            merged.entry((key, at_source)).or_default().add(&counters);
        }
        for ((key, at_source), counters) in merged {
            let id = (key, (node.clone(), at_source));
            if self.edges.len() >= EDGES_MAX && !self.edges.contains_key(&id) {
                continue;
            }
            let series = self.edges.entry(id).or_default();
            if series.back().is_none_or(|(last, _)| *last < at) {
                series.push_back((at, counters));
            }
        }
    }

    /// Forgets what is older than the window (but for the sample just before it, from which growth is counted).
    pub fn forget(&mut self, before: Timestamp) {
        for series in self.edges.values_mut() {
            while series.len() > 1 && series[1].0 < before {
                series.pop_front();
            }
        }
        self.edges.retain(|_, series| series.back().is_some_and(|(last, _)| *last >= before));
    }

    /// Edges with growth within the last `window_ms`, as rates.
    pub fn rates(&self, now: Timestamp, window_ms: i64) -> Vec<EdgeRate> {
        self.growth(now, window_ms, false).iter().map(|it| self.rate_of(it)).collect()
    }

    /// A growth as a rate.
    pub fn rate_of(&self, growth: &Growth) -> EdgeRate {
        self.rate(&growth.key, &growth.counters, growth.seconds)
    }

    /// Edges with growth within the last `window_ms`, by key. An edge that both of its sides report is told as the caller saw it;
    /// with `by_service` only if both name the same service: a caller's side names the service that a route led to, the called one's the service
    /// that was asked for, and the traffic of each is wanted.
    pub fn growth(&self, now: Timestamp, window_ms: i64, by_service: bool) -> Vec<Growth> {
        let since = now.plus_ms(-window_ms);
        let mut grown: BTreeMap<(&EdgeKey, bool), (Counters, i64)> = BTreeMap::new();
        for ((key, (_, at_source)), series) in &self.edges {
            let Some((last, latest)) = series.back() else { continue };
            let first = series.iter().rev().find(|(at, _)| *at <= since).or_else(|| series.front());
            let Some((begun, before)) = first.filter(|(at, _)| at < last) else { continue };
            let entry = grown.entry((key, *at_source)).or_default();
            entry.0.add(&latest.since(before));
            entry.1 = entry.1.max(last.since_ms(*begun));
        }
        // The two sides may call the Service by other names, so they tell of the same edge when its ends are the same.
        let ends = |key: &EdgeKey| {
            let service = by_service.then(|| (key.service_namespace.clone(), key.service.clone()));
            (key.source.clone(), key.destination.clone(), service)
        };
        let by_source: BTreeSet<_> =
            grown.keys().filter(|(_, at_source)| *at_source).map(|(key, _)| ends(key)).collect();
        let told_by_source = |key: &EdgeKey| by_source.contains(&ends(key));
        grown
            .iter()
            .filter(|((key, at_source), (counters, span))| {
                *span > 0 && (*at_source || !told_by_source(key)) && (counters.requests > 0 || counters.bytes > 0)
            })
            .map(|((key, _), (counters, span))| Growth {
                key: (*key).clone(),
                counters: counters.clone(),
                seconds: *span as f64 / 1000.0,
            })
            .collect()
    }

    fn rate(&self, key: &EdgeKey, counters: &Counters, seconds: f64) -> EdgeRate {
        EdgeRate {
            key: key.clone(),
            requests_per_s: counters.requests as f64 / seconds,
            error_share: if counters.requests == 0 { 0.0 } else { counters.errors as f64 / counters.requests as f64 },
            p50_ms: quantile(&self.bounds_ms, &counters.buckets, 0.5),
            p99_ms: quantile(&self.bounds_ms, &counters.buckets, 0.99),
            bytes_per_s: counters.bytes as f64 / seconds,
        }
    }
}

/// A quantile out of a histogram, interpolated within its bucket; beyond the last bound it is that bound.
fn quantile(bounds: &[f64], buckets: &[u64], q: f64) -> Option<f64> {
    let total: u64 = buckets.iter().sum();
    if total == 0 || bounds.is_empty() {
        return None;
    }
    let rank = q * total as f64;
    let mut seen = 0.0;
    for (index, count) in buckets.iter().enumerate() {
        let count = *count as f64;
        if count > 0.0 && seen + count >= rank {
            let Some(upper) = bounds.get(index) else { break };
            let lower = if index == 0 { 0.0 } else { bounds[index - 1] };
            return Some(lower + (upper - lower) * ((rank - seen) / count));
        }
        seen += count;
    }
    bounds.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(requests: u64, errors: u64) -> Counters {
        Counters { requests, errors, buckets: vec![requests / 2, requests - requests / 2, 0], bytes: requests * 10 }
    }

    fn key(mtls: bool) -> EdgeKey {
        EdgeKey { mtls, ..EdgeKey::default() }
    }

    #[test]
    fn rates_come_from_growth_within_the_window() {
        let mut graph = Graph::default();
        let node: Arc<str> = "n".into();
        for (second, requests) in [(0, 1000), (30, 1300), (60, 1600), (90, 1900)] {
            let edges = vec![(key(true), true, counters(requests, requests / 10)), (key(true), false, counters(1, 0))];
            graph.observe(&node, Timestamp::from_secs(second), &[10.0, 20.0], edges);
        }
        let rates = graph.rates(Timestamp::from_secs(90), 60_000);
        assert_eq!(rates.len(), 1, "the caller's side counts");
        assert!((rates[0].requests_per_s - 10.0).abs() < 1e-9);
        assert!((rates[0].error_share - 0.1).abs() < 1e-9);
        assert_eq!(rates[0].p50_ms, Some(10.0));
    }

    #[test]
    fn a_service_behind_a_route_and_the_one_before_it_both_have_traffic() {
        let mut graph = Graph::default();
        let named = |service: &str| EdgeKey { service: service.into(), ..EdgeKey::default() };
        for (second, requests) in [(0, 0), (10, 20)] {
            let told = |service: &str, at_source| (named(service), at_source, counters(requests, 0));
            let edges =
                vec![told("reviews-v1", true), told("reviews", false), told("plain", true), told("plain", false)];
            graph.observe(&"n".into(), Timestamp::from_secs(second), &[10.0, 20.0], edges);
        }
        let names = |by_service| {
            let growth = graph.growth(Timestamp::from_secs(10), 10_000, by_service);
            growth.iter().map(|it| it.key.service.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["plain", "reviews-v1"]);
        assert_eq!(names(true), ["plain", "reviews", "reviews-v1"]);
    }

    #[test]
    fn a_restarted_proxy_counts_from_nought() {
        let mut graph = Graph::default();
        let node: Arc<str> = "n".into();
        for (second, requests) in [(0, 1000), (10, 50)] {
            graph.observe(
                &node,
                Timestamp::from_secs(second),
                &[10.0, 20.0],
                vec![(key(false), false, counters(requests, 0))],
            );
        }
        let rates = graph.rates(Timestamp::from_secs(10), 60_000);
        assert!((rates[0].requests_per_s - 5.0).abs() < 1e-9);
        graph.forget(Timestamp::from_secs(100));
        assert!(graph.rates(Timestamp::from_secs(100), 60_000).is_empty());
    }
}

//! Own counters in Prometheus' text form. Cardinality is bounded by construction: labels are verbs, registered resources and status codes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in seconds, as kube-apiserver's SLIs have them, thinned.
const BOUNDS_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// More label sets than this are counted under `other`: a safety net, since every label comes from a closed set.
const MAX_SERIES: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    group: String,
    resource: String,
    subresource: String,
}

#[derive(Default)]
struct Series {
    codes: BTreeMap<u16, u64>,
    buckets: [u64; BOUNDS_S.len()],
    count: u64,
    sum_s: f64,
}

/// The server's metrics.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Labels, Series>>,
    /// Requests being worked on that only read.
    pub reads: AtomicI64,
    /// Requests being worked on that change something.
    pub mutations: AtomicI64,
    /// Open watches, logs, execs.
    pub streams: AtomicI64,
    /// Open connections.
    pub connections: AtomicI64,
    /// Requests refused because too many were in flight.
    pub rejected: AtomicU64,
    /// Requests whose handler panicked.
    pub panics: AtomicU64,
    /// Refused credentials.
    pub unauthenticated: AtomicU64,
}

/// Counts down when dropped.
pub struct Gauge<'a>(&'a AtomicI64);

impl<'a> Gauge<'a> {
    /// Counts up.
    pub fn enter(gauge: &'a AtomicI64) -> Gauge<'a> {
        gauge.fetch_add(1, Ordering::Relaxed);
        Gauge(gauge)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a finished request. `group` and `resource` must be registered ones, or empty.
    pub fn observe(
        &self,
        verb: &'static str,
        group: &str,
        resource: &str,
        subresource: &str,
        code: u16,
        took: Duration,
    ) {
        let labels = Labels {
            verb,
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
        };
        let mut requests = self.requests.lock().expect("nothing panics while counting");
        let labels = if requests.len() < MAX_SERIES || requests.contains_key(&labels) {
            labels
        } else {
            Labels { verb: "other", group: String::new(), resource: String::new(), subresource: String::new() }
        };
        let series = requests.entry(labels).or_default();
        *series.codes.entry(code).or_default() += 1;
        let seconds = took.as_secs_f64();
        if let Some(at) = BOUNDS_S.iter().position(|bound| seconds <= *bound) {
            series.buckets[at] += 1;
        }
        series.count += 1;
        series.sum_s += seconds;
    }

    /// Everything as text; `store` is objects, bytes and revision.
    pub fn render(&self, store: (usize, usize, u64), objects: &[(String, usize)]) -> String {
        let mut out = String::new();
        self.render_requests(&mut out);
        let mut single = |name: &str, kind: &str, help: &str, value: String| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        };
        let gauge = |value: &AtomicI64| value.load(Ordering::Relaxed).to_string();
        let counter = |value: &AtomicU64| value.load(Ordering::Relaxed).to_string();
        single("apiserver_registered_watchers", "gauge", "Open watches and other streams.", gauge(&self.streams));
        single("apiserver_connections", "gauge", "Open connections.", gauge(&self.connections));
        single(
            "apiserver_request_terminations_total",
            "counter",
            "Requests refused for load.",
            counter(&self.rejected),
        );
        single("apiserver_request_panics_total", "counter", "Requests whose handler panicked.", counter(&self.panics));
        single("authentication_failures_total", "counter", "Refused credentials.", counter(&self.unauthenticated));
        single("apiserver_storage_size_bytes", "gauge", "Bytes of all objects.", store.1.to_string());
        single("apiserver_storage_revision", "gauge", "Newest revision.", store.2.to_string());
        let _ = write!(
            out,
            "# HELP apiserver_current_inflight_requests Requests being worked on.\n# TYPE apiserver_current_inflight_requests gauge\n\
             apiserver_current_inflight_requests{{request_kind=\"mutating\"}} {}\n\
             apiserver_current_inflight_requests{{request_kind=\"readOnly\"}} {}\n",
            gauge(&self.mutations),
            gauge(&self.reads),
        );
        out.push_str(
            "# HELP apiserver_storage_objects Objects of a resource.\n# TYPE apiserver_storage_objects gauge\n",
        );
        for (resource, count) in objects {
            let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{resource}\"}} {count}");
        }
        out
    }

    fn render_requests(&self, out: &mut String) {
        let requests = self.requests.lock().expect("nothing panics while counting");
        out.push_str("# HELP apiserver_request_total Requests by verb, resource and code.\n# TYPE apiserver_request_total counter\n");
        for (labels, series) in requests.iter() {
            for (code, count) in &series.codes {
                let _ = writeln!(out, "apiserver_request_total{{{labels},code=\"{code}\"}} {count}");
            }
        }
        let name = "apiserver_request_duration_seconds";
        let _ = write!(out, "# HELP {name} Time to the answer (for streams: to its head).\n# TYPE {name} histogram\n");
        for (labels, series) in requests.iter() {
            let mut below = 0;
            for (bound, count) in BOUNDS_S.iter().zip(series.buckets) {
                below += count;
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", series.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", series.sum_s);
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", series.count);
        }
    }
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Labels { verb, group, resource, subresource } = self;
        write!(
            f,
            "verb=\"{}\",group=\"{group}\",resource=\"{resource}\",subresource=\"{subresource}\"",
            verb.to_ascii_uppercase()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        for ms in [1, 4, 4, 200] {
            metrics.observe("get", "", "pods", "", 200, Duration::from_millis(ms));
        }
        let text = metrics.render((1, 2, 3), &[("pods".into(), 1)]);
        let line = |le: &str, n: u32| {
            format!(
                "apiserver_request_duration_seconds_bucket{{verb=\"GET\",group=\"\",resource=\"pods\",subresource=\"\",le=\"{le}\"}} {n}\n"
            )
        };
        for (le, n) in [("0.001", 1), ("0.005", 3), ("0.25", 4), ("+Inf", 4)] {
            assert!(text.contains(&line(le, n)), "{le}: {text}");
        }
    }
}

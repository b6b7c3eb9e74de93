//! Counters as text: Istio's metric names and labels, so that boards made for it work; and the service graph as JSON.
use super::cells::{BUCKETS_BYTES, BUCKETS_US, OutcomeTotals, Totals};
use super::edge::{Carries, Edge, Reporter, Side};
use super::outcome::OutcomeKey;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// One cluster: Istio's own default for its name.
const CLUSTER: &str = "Kubernetes";

/// A histogram of a metric family.
struct Histogram {
    name: &'static str,
    help: &'static str,
    bounds: &'static [u64],
    /// A bound (and the sum) is divided by this to be in the metric's unit.
    unit: f64,
    read: fn(&OutcomeTotals) -> (&[u64], u64),
}

const HISTOGRAMS: [Histogram; 3] = [
    Histogram {
        name: "istio_request_duration_milliseconds",
        help: "Duration of requests.",
        bounds: &BUCKETS_US,
        unit: 1000.0,
        read: |it| (&it.duration, it.duration_us),
    },
    Histogram {
        name: "istio_request_bytes",
        help: "Bytes of requests' bodies.",
        bounds: &BUCKETS_BYTES,
        unit: 1.0,
        read: |it| (&it.sent, it.sent_bytes),
    },
    Histogram {
        name: "istio_response_bytes",
        help: "Bytes of answers' bodies.",
        bounds: &BUCKETS_BYTES,
        unit: 1.0,
        read: |it| (&it.received, it.received_bytes),
    },
];

type Read<T> = fn(&T) -> u64;

pub fn prometheus(totals: &[(Edge, Totals)]) -> String {
    let mut out = String::new();
    // Labels are written once and used by every family.
    let requests: Vec<(String, OutcomeKey, &OutcomeTotals)> = totals
        .iter()
        .flat_map(|(edge, totals)| {
            let of_edge = labels(edge);
            totals.outcomes.iter().map(move |(key, sums)| (of_edge.clone() + &outcome_labels(*key), *key, sums))
        })
        .collect();
    header(&mut out, "istio_requests_total", "counter", "Requests by source, destination and outcome.");
    for (labels, _, sums) in &requests {
        let _ = writeln!(out, "istio_requests_total{{{labels}}} {}", sums.requests);
    }
    for histogram in &HISTOGRAMS {
        write_histogram(&mut out, histogram, &requests);
    }
    let messages: [(&str, &str, Read<OutcomeTotals>); 2] = [
        ("istio_request_messages_total", "gRPC messages to the destination.", |it| it.messages[0]),
        ("istio_response_messages_total", "gRPC messages from the destination.", |it| it.messages[1]),
    ];
    for (name, help, read) in messages {
        header(&mut out, name, "counter", help);
        for (labels, _, sums) in requests.iter().filter(|(_, key, _)| key.is_grpc()) {
            let _ = writeln!(out, "{name}{{{labels}}} {}", read(sums));
        }
    }
    let tcp: [(&str, &str, Read<Totals>); 5] = [
        ("istio_tcp_connections_opened_total", "Connections opened.", |it| it.opened),
        ("istio_tcp_connections_closed_total", "Connections closed.", |it| it.closed),
        ("istio_tcp_connections_failed_total", "Connections that broke.", |it| it.failed),
        ("istio_tcp_sent_bytes_total", "Bytes to the destination.", |it| it.sent),
        ("istio_tcp_received_bytes_total", "Bytes from the destination.", |it| it.received),
    ];
    for (name, help, read) in tcp {
        header(&mut out, name, "counter", help);
        for (edge, totals) in totals.iter().filter(|(edge, _)| edge.carries == Carries::Bytes) {
            let labels = labels(edge);
            let _ = writeln!(out, "{name}{{{labels},request_protocol=\"tcp\",response_flags=\"-\"}} {}", read(totals));
        }
    }
    out
}

fn write_histogram(out: &mut String, of: &Histogram, requests: &[(String, OutcomeKey, &OutcomeTotals)]) {
    let name = of.name;
    header(out, name, "histogram", of.help);
    for (labels, _, sums) in requests {
        let (buckets, total) = (of.read)(sums);
        let mut below = 0;
        for (count, bound) in buckets.iter().zip(of.bounds) {
            below += count;
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {below}", *bound as f64 / of.unit);
        }
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", sums.requests);
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", total as f64 / of.unit);
        let _ = writeln!(out, "{name}_count{{{labels}}} {}", sums.requests);
    }
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn outcome_labels(key: OutcomeKey) -> String {
    let protocol = if key.is_grpc() { "grpc" } else { "http" };
    format!(
        ",request_protocol=\"{protocol}\",response_code=\"{}\",response_flags=\"{}\",grpc_response_status=\"{}\"",
        key.code(),
        key.flag(),
        key.grpc_status(),
    )
}

fn labels(edge: &Edge) -> String {
    let mut out = format!("reporter=\"{}\"", edge.reporter.as_str());
    for (name, side) in [("source", &edge.source), ("destination", &edge.destination)] {
        for (label, value) in [
            ("workload", &side.workload),
            ("workload_namespace", &side.namespace),
            ("principal", &side.principal),
            ("app", &side.app),
            ("version", &side.version),
            ("canonical_service", &side.app),
            ("canonical_revision", &side.version),
        ] {
            let _ = write!(out, ",{name}_{label}=\"{}\"", escape(value));
        }
        let _ = write!(out, ",{name}_cluster=\"{}\"", if side.is_known() { CLUSTER } else { "unknown" });
    }
    let _ = write!(
        out,
        ",destination_service=\"{}\",destination_service_name=\"{}\",destination_service_namespace=\"{}\",connection_security_policy=\"{}\"",
        escape(&edge.host),
        escape(&edge.service),
        escape(&edge.service_namespace),
        security(edge),
    );
    out
}

/// Only the called side knows how it was called, says Istio; boards ask it alone.
fn security(edge: &Edge) -> &'static str {
    match (edge.reporter, edge.mtls) {
        (Reporter::Source, _) => "unknown",
        (Reporter::Destination, true) => "mutual_tls",
        (Reporter::Destination, false) => "none",
    }
}

/// Label values come from object names and labels, which hold none of these; but that is another's promise.
fn escape(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['"', '\\', '\n']) {
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        text.into()
    }
}

pub fn edges(totals: &[(Edge, Totals)]) -> Value {
    let edges: Vec<Value> = totals.iter().flat_map(|(edge, totals)| edge_json(edge, totals)).collect();
    let bounds_ms: Vec<f64> = BUCKETS_US.iter().map(|us| *us as f64 / 1000.0).collect();
    json!({ "latency_bounds_ms": bounds_ms, "edges": edges })
}

/// One for each protocol that was spoken.
fn edge_json(edge: &Edge, totals: &Totals) -> Vec<Value> {
    let of_protocol = |protocol: &str, grpc: Option<bool>| {
        let mut codes = serde_json::Map::new();
        let (mut sum, mut any) = (OutcomeTotals::default(), grpc.is_none());
        for (key, outcome) in totals.outcomes.iter().filter(|(key, _)| grpc == Some(key.is_grpc())) {
            any = true;
            let count = codes.get(&key.code()).and_then(Value::as_u64).unwrap_or(0) + outcome.requests;
            codes.insert(key.code(), count.into());
            sum.requests += outcome.requests;
            sum.errors += outcome.errors;
            sum.duration_us += outcome.duration_us;
            sum.sent_bytes += outcome.sent_bytes;
            sum.received_bytes += outcome.received_bytes;
            sum.duration.iter_mut().zip(&outcome.duration).for_each(|(sum, count)| *sum += count);
        }
        any.then(|| {
            json!({
                "reporter": edge.reporter.as_str(),
                "source": side_json(&edge.source),
                "destination": side_json(&edge.destination),
                "service": { "namespace": &*edge.service_namespace, "name": &*edge.service },
                "protocol": protocol,
                "mtls": edge.mtls,
                "requests": sum.requests,
                "errors": sum.errors,
                "codes": codes,
                "latency_buckets": sum.duration,
                "latency_sum_ms": sum.duration_us as f64 / 1000.0,
                "connections_opened": totals.opened,
                "connections_closed": totals.closed,
                "connections_failed": totals.failed,
                "sent_bytes": totals.sent + sum.sent_bytes,
                "received_bytes": totals.received + sum.received_bytes,
            })
        })
    };
    match edge.carries {
        Carries::Bytes => of_protocol("tcp", None).into_iter().collect(),
        Carries::Requests => {
            [of_protocol("http", Some(false)), of_protocol("grpc", Some(true))].into_iter().flatten().collect()
        }
    }
}

fn side_json(side: &Side) -> Value {
    json!({
        "namespace": &*side.namespace,
        "workload": &*side.workload,
        "app": &*side.app,
        "version": &*side.version,
        "principal": &*side.principal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{EdgeCells, Ended, Flag, Grpc, Outcome};

    /// The labels that Istio's documentation lists for its standard metrics.
    const STANDARD: [&str; 24] = [
        "reporter",
        "source_workload",
        "source_workload_namespace",
        "source_principal",
        "source_app",
        "source_version",
        "source_cluster",
        "source_canonical_service",
        "source_canonical_revision",
        "destination_workload",
        "destination_workload_namespace",
        "destination_principal",
        "destination_app",
        "destination_version",
        "destination_service",
        "destination_service_name",
        "destination_service_namespace",
        "destination_cluster",
        "destination_canonical_service",
        "destination_canonical_revision",
        "request_protocol",
        "response_code",
        "connection_security_policy",
        "response_flags",
    ];

    fn told(carries: Carries, ended: &Ended) -> String {
        let cells = EdgeCells::default();
        cells.request(ended);
        let mut totals = Totals::default();
        totals.add(&cells);
        prometheus(&[(Edge::other(carries), totals)])
    }

    #[test]
    fn every_series_has_the_standard_labels() {
        let outcome = Outcome { status: 200, flag: Flag::None, grpc: Grpc::Status(14) };
        let text = told(Carries::Requests, &Ended { outcome, messages: (2, 1), ..Ended::default() });
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            for label in STANDARD {
                assert!(line.contains(&format!("{label}=\"")), "{label} in {line}");
            }
            assert!(
                line.contains("grpc_response_status=\"14\"") && line.contains("request_protocol=\"grpc\""),
                "{line}"
            );
        }
        for name in [
            "istio_requests_total{",
            "istio_request_duration_milliseconds_bucket{",
            "istio_request_bytes_sum{",
            "istio_response_bytes_count{",
            "istio_request_messages_total{",
            "istio_response_messages_total{",
        ] {
            assert!(text.contains(&format!("\n{name}")), "{name}");
        }
    }

    #[test]
    fn opaque_bytes_have_series_of_their_own() {
        let text = told(Carries::Bytes, &Ended::default());
        for name in ["sent_bytes", "received_bytes", "connections_opened", "connections_closed"] {
            assert!(text.contains(&format!("\nistio_tcp_{name}_total{{reporter=")), "{name}");
        }
    }
}

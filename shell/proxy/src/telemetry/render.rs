//! Counters as text: Istio's metric names and labels, so that boards made for it work; and the service graph as JSON.
use super::cells::{BUCKETS_US, Totals, code_label};
use super::edge::{Edge, Protocol, Reporter, Side};
use serde_json::{Value, json};
use std::fmt::Write as _;

pub fn prometheus(totals: &[(Edge, Totals)]) -> String {
    let mut out = String::new();
    header(&mut out, "istio_requests_total", "counter", "Requests by source, destination and status.");
    for (edge, totals) in requests(totals) {
        for (index, count) in totals.codes.iter().enumerate().filter(|(_, count)| **count > 0) {
            let code = code_label(index);
            let _ = writeln!(out, "istio_requests_total{{{},response_code=\"{code}\"}} {count}", labels(edge));
        }
    }
    header(&mut out, "istio_request_duration_milliseconds", "histogram", "Duration of requests.");
    for (edge, totals) in requests(totals) {
        let name = "istio_request_duration_milliseconds";
        let labels = labels(edge);
        let mut sum = 0;
        for (count, bound_us) in totals.buckets.iter().zip(BUCKETS_US) {
            sum += count;
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {sum}", bound_us as f64 / 1000.0);
        }
        let all = totals.requests();
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {all}");
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", totals.duration_us as f64 / 1000.0);
        let _ = writeln!(out, "{name}_count{{{labels}}} {all}");
    }
    type Read = fn(&Totals) -> u64;
    let tcp: [(&str, &str, Read); 5] = [
        ("istio_tcp_connections_opened_total", "Connections opened.", |it| it.opened),
        ("istio_tcp_connections_closed_total", "Connections closed.", |it| it.closed),
        ("istio_tcp_connections_failed_total", "Connections that broke.", |it| it.failed),
        ("istio_tcp_sent_bytes_total", "Bytes to the destination.", |it| it.sent),
        ("istio_tcp_received_bytes_total", "Bytes from the destination.", |it| it.received),
    ];
    for (name, help, read) in tcp {
        header(&mut out, name, "counter", help);
        for (edge, totals) in totals.iter().filter(|(edge, _)| edge.protocol == Protocol::Tcp) {
            let _ = writeln!(out, "{name}{{{}}} {}", labels(edge), read(totals));
        }
    }
    out
}

fn requests(totals: &[(Edge, Totals)]) -> impl Iterator<Item = &(Edge, Totals)> {
    totals.iter().filter(|(edge, _)| edge.protocol != Protocol::Tcp)
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn labels(edge: &Edge) -> String {
    let mut out = format!("reporter=\"{}\"", if edge.reporter == Reporter::Source { "source" } else { "destination" });
    for (name, side) in [("source", &edge.source), ("destination", &edge.destination)] {
        let _ = write!(
            out,
            ",{name}_workload=\"{}\",{name}_workload_namespace=\"{}\",{name}_principal=\"{}\",{name}_app=\"{}\",{name}_version=\"{}\"",
            escape(&side.workload),
            escape(&side.namespace),
            escape(&side.principal),
            escape(&side.app),
            escape(&side.version),
        );
    }
    let _ = write!(
        out,
        ",destination_service_name=\"{}\",destination_service_namespace=\"{}\",request_protocol=\"{}\",connection_security_policy=\"{}\"",
        escape(&edge.service),
        escape(&edge.service_namespace),
        edge.protocol.as_str(),
        if edge.mtls { "mutual_tls" } else { "none" },
    );
    out
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
    let edges: Vec<Value> = totals.iter().map(|(edge, totals)| edge_json(edge, totals)).collect();
    let bounds_ms: Vec<f64> = BUCKETS_US.iter().map(|us| *us as f64 / 1000.0).collect();
    json!({ "latency_bounds_ms": bounds_ms, "edges": edges })
}

fn edge_json(edge: &Edge, totals: &Totals) -> Value {
    let mut codes = serde_json::Map::new();
    for (index, count) in totals.codes.iter().enumerate().filter(|(_, count)| **count > 0) {
        codes.insert(code_label(index), (*count).into());
    }
    json!({
        "reporter": if edge.reporter == Reporter::Source { "source" } else { "destination" },
        "source": side_json(&edge.source),
        "destination": side_json(&edge.destination),
        "service": { "namespace": &*edge.service_namespace, "name": &*edge.service },
        "protocol": edge.protocol.as_str(),
        "mtls": edge.mtls,
        "requests": totals.requests(),
        "errors": totals.errors(),
        "codes": codes,
        "latency_buckets": totals.buckets,
        "latency_sum_ms": totals.duration_us as f64 / 1000.0,
        "connections_opened": totals.opened,
        "connections_closed": totals.closed,
        "connections_failed": totals.failed,
        "sent_bytes": totals.sent,
        "received_bytes": totals.received,
    })
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

//! What is told of requests, by those who read it: a real Prometheus with the queries of Istio's boards.
mod support;

use model::mesh::*;
use std::process::{Child, Command, Stdio};
use support::{Node, curl, eventually, serve_http};

const ADMIN: u16 = 25021;
const PROMETHEUS: u16 = 25022;

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_node(node: &Node, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &node.net.node(), program]).args(args);
    command
}

fn page(node: &Node, url: &str, more: &[&str]) -> String {
    let output = in_node(node, "curl", &["-sS", "-m", "4"]).args(more).arg(url).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn metrics(node: &Node) -> String {
    page(node, &format!("http://127.0.0.1:{ADMIN}/metrics"), &[])
}

/// A node with a client, a web server, and some requests between them, two of which nobody can answer.
fn node_with_traffic() -> (Node, String) {
    let mut node = Node::start(|config| config.admin = Some(([127, 0, 0, 1], ADMIN).into()));
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    node.pod(7, "mute");
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.service("empty", 51, AppProtocol::Http, &[]);
    node.service("mute", 52, AppProtocol::Http, &[(7, Health::Ready)]);
    for target in ["/", "/bytes/2000", "/status/500"] {
        curl(&client, &["-d", "hello", &format!("http://10.96.0.50{target}")]);
    }
    curl(&client, &["http://10.96.0.51/"]);
    curl(&client, &["http://10.96.0.52/"]);
    (node, client)
}

#[test]
fn both_sides_tell_the_standard_metrics() {
    need_root!("both_sides_tell_the_standard_metrics");
    let (node, client) = node_with_traffic();
    curl(&client, &["--http2-prior-knowledge", "-H", "content-type: application/grpc", "http://10.96.0.50/status/503"]);
    let expect: [&[&str]; 7] = [
        &[
            "istio_requests_total{",
            "reporter=\"source\"",
            "response_code=\"500\"",
            "request_protocol=\"http\"",
            "destination_service=\"web.default.svc.cluster.local\"",
            "source_canonical_service=\"client\"",
        ],
        &[
            "istio_requests_total{",
            "reporter=\"destination\"",
            "response_code=\"500\"",
            "destination_service_name=\"web\"",
            "destination_service=\"web.default.svc.cluster.local\"",
            "connection_security_policy=\"mutual_tls\"",
            "source_workload=\"client\"",
            "source_principal=\"spiffe://cluster.local/ns/default/sa/client\"",
        ],
        &[
            "istio_requests_total{",
            "reporter=\"source\"",
            "response_code=\"503\"",
            "response_flags=\"UH\"",
            "destination_service_name=\"empty\"",
        ],
        &[
            "istio_requests_total{",
            "reporter=\"source\"",
            "response_code=\"503\"",
            "response_flags=\"UF\"",
            "destination_service_name=\"mute\"",
        ],
        &["istio_requests_total{", "reporter=\"destination\"", "request_protocol=\"grpc\"", "response_code=\"503\""],
        &["istio_request_bytes_sum{", "reporter=\"destination\"", "response_code=\"200\"", "} 10"],
        &["istio_response_bytes_bucket{", "reporter=\"source\"", "response_code=\"500\"", "le=\"10\"} 1"],
    ];
    for parts in expect {
        eventually(&format!("a series with {parts:?}"), || {
            metrics(&node).lines().any(|line| parts.iter().all(|part| line.contains(part)))
        });
    }
}

/// Queries of the boards that Istio's project ships (service, workload, mesh), with their variables filled in.
const QUERIES: [(&str, f64); 6] = [
    (r#"sum(istio_requests_total{reporter=~"destination",destination_service=~"web.default.svc.cluster.local"})"#, 3.0),
    (
        r#"sum(istio_requests_total{reporter=~"destination",destination_service=~"web.*",response_code!~"5.*"}) / sum(istio_requests_total{reporter=~"destination",destination_service=~"web.*"})"#,
        2.0 / 3.0,
    ),
    (
        r#"sum(istio_requests_total{connection_security_policy="mutual_tls",destination_workload_namespace=~"default",destination_workload=~"web",reporter=~"destination",source_workload=~"client",source_workload_namespace=~"default"}) by (source_workload, source_workload_namespace)"#,
        3.0,
    ),
    (
        r#"label_join(sum(istio_requests_total{reporter="source"}) by (destination_workload, destination_workload_namespace, destination_service), "destination_workload_var", ".", "destination_workload", "destination_workload_namespace") and on (destination_workload) istio_requests_total{destination_workload="web"}"#,
        3.0,
    ),
    (
        r#"histogram_quantile(0.5, sum(istio_response_bytes_bucket{reporter="destination",destination_workload="web",response_code="200"}) by (le)) > bool 0"#,
        1.0,
    ),
    (
        r#"sum(istio_request_duration_milliseconds_count{reporter="source",destination_service_name="empty",response_flags="UH"})"#,
        1.0,
    ),
];

#[test]
fn a_prometheus_answers_the_queries_of_istios_boards() {
    need_root!("a_prometheus_answers_the_queries_of_istios_boards");
    if !Command::new("prometheus").arg("--version").output().is_ok_and(|it| it.status.success()) {
        eprintln!("SKIPPED a_prometheus_answers_the_queries_of_istios_boards: needs prometheus");
        return;
    }
    let (node, _) = node_with_traffic();
    let dir = std::env::temp_dir().join(format!("diolkos-prometheus-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let config = dir.join("prometheus.yml");
    let text = format!(
        "scrape_configs: [{{job_name: mesh, scrape_interval: 1s, static_configs: [{{targets: [127.0.0.1:{ADMIN}]}}]}}]"
    );
    std::fs::write(&config, text).unwrap();
    let arguments = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", dir.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{PROMETHEUS}"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let running = in_node(&node, "prometheus", &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let running = Running(running);
    let url = format!("http://127.0.0.1:{PROMETHEUS}/api/v1/query");
    for (query, expect) in QUERIES {
        let asked = ["-G", "--data-urlencode", &format!("query={query}")];
        eventually(query, || {
            let answer: serde_json::Value = serde_json::from_str(&page(&node, &url, &asked)).unwrap_or_default();
            let value = answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
            value.is_some_and(|value| (value - expect).abs() < 1e-6)
        });
    }
    drop(running);
    let _ = std::fs::remove_dir_all(&dir);
}

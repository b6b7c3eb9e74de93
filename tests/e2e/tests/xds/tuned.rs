//! What a DestinationRule says of balancing and times, and what a Gateway passes whole: as an Envoy shows that it took it in, and where that can be seen, live.

use super::{ADMIN_PORT, BACKENDS, GATEWAY_PORT, GATEWAYS, PATIENCE, POLICIES, ROUTES, VIRTUAL_SERVICES, World, curl};
use client::Resource;
use e2e::{Check, contains, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

const HOST: &str = "tuned.example";
const STREAM_PORT: u16 = 16_487;
const TCP_ROUTES: Resource = Resource { group: "gateway.networking.k8s.io", version: "v1", plural: "tcproutes" };

/// A part of what an Envoy shows, by the way to it.
fn part<'a>(of: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(of, |value, name| match name.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[name],
    })
}

/// Waits until the other side ends a connection on which something is said now and then, or nothing.
fn is_ended(port: u16, talks: bool) -> Check {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_millis(200))).map_err(failed)?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        if talks && stream.write_all(b"x").is_err() {
            return Ok(());
        }
        match stream.read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(()),
            _ => {}
        }
    }
    Err("the connection is still there".into())
}

impl World {
    pub fn tuned(&self, envoy: &Path) -> Check {
        let listener =
            |name: &str, port: u16, protocol: &str| json!({ "name": name, "port": port, "protocol": protocol });
        self.put(
            GATEWAYS,
            &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": { "name": "tuned" },
                "spec": { "gatewayClassName": "diolkos",
                    "listeners": [listener("http", GATEWAY_PORT, "HTTP"), listener("stream", STREAM_PORT, "TCP")] } }),
        )?;
        self.service("kept", &BACKENDS)?;
        self.service("whole", &BACKENDS[..1])?;
        let mut kept = json!({ "backendRefs": [{ "name": "kept", "port": 80 }] });
        kept["sessionPersistence"] = json!({ "sessionName": "x-stay", "type": "Header" });
        self.put(
            ROUTES,
            &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "tuned" },
                "spec": { "parentRefs": [{ "name": "tuned" }], "hostnames": [HOST], "rules": [kept] } }),
        )?;
        let halves = json!([{ "name": "whole", "port": 80, "weight": 1 }, { "name": "two", "port": 80, "weight": 1 }]);
        self.put(
            TCP_ROUTES,
            &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute", "metadata": { "name": "tuned" },
                "spec": { "parentRefs": [{ "name": "tuned", "sectionName": "stream" }], "rules": [{ "backendRefs": halves }] } }),
        )?;
        let retries = json!({ "attempts": 2, "retryRemoteLocalities": true });
        self.put(
            VIRTUAL_SERVICES,
            &json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "tuned" },
                "spec": { "hosts": ["retried.example"], "gateways": ["tuned"],
                    "http": [{ "route": [{ "destination": { "host": "kept" } }], "retries": retries }] } }),
        )?;
        let _envoy = self.envoy(envoy, "DELTA_GRPC", &json!({ "gateway": "default/tuned" }))?;
        let told = |name: &str, what: Check| what.map_err(|why| format!("{name}: {why}\n{}", self.log("DELTA_GRPC")));
        told("sessions by header", self.header_sessions())?;
        told("what is shown", self.is_shown())?;
        told("retries", self.retries())?;
        told("streams", self.streams())?;
        self.report("envoy test-DELTA_GRPC")?;
        self.delete(VIRTUAL_SERVICES, "tuned")?;
        self.delete(TCP_ROUTES, "tuned")?;
        self.delete(GATEWAYS, "tuned")
    }

    /// A client that brings the header of its first answer stays; those without are everywhere.
    fn header_sessions(&self) -> Check {
        let ask = |header: &str| curl(GATEWAY_PORT, HOST, "/kept", &["-i", "-H", header]);
        let at = |answer: &str| answer.split_whitespace().find(|word| word.starts_with("backend-")).map(str::to_owned);
        let token = eventually(PATIENCE, || {
            let answer = ask("x-none: 1")?;
            let line =
                answer.lines().find_map(|line| line.strip_prefix("x-stay: ")).map(|token| token.trim().to_owned());
            line.zip(at(&answer)).ok_or(answer)
        })?;
        let header = format!("x-stay: {}", token.0);
        for _ in 0..20 {
            contains(&ask(&header)?, &[&token.1])?;
        }
        let met = (0..20).map(|_| ask("x-none: 1").map(|answer| at(&answer))).collect::<Check<BTreeSet<_>>>()?;
        if met.len() == 2 { Ok(()) } else { Err(format!("without the header all are at {met:?}")) }
    }

    /// Where tries after the first go.
    fn retries(&self) -> Check {
        eventually(PATIENCE, || {
            let dump = curl(ADMIN_PORT, "admin", "/config_dump?resource=dynamic_route_configs", &[])?;
            let dump: Value = serde_json::from_str(&dump).map_err(|error| error.to_string())?;
            let all = dump["configs"].as_array().into_iter().flatten();
            let hosts = all.flat_map(|it| it["route_config"]["virtual_hosts"].as_array().into_iter().flatten());
            let retry = hosts
                .flat_map(|host| host["routes"].as_array().into_iter().flatten())
                .map(|route| &route["route"]["retry_policy"])
                .find(|policy| policy["num_retries"] == 2);
            let retry = retry.ok_or_else(|| format!("no route has retries in {dump}"))?;
            contains(
                &retry.to_string(),
                &["PreviousPrioritiesConfig", "\"update_frequency\":2", "PreviousHostsPredicate"],
            )
        })
    }

    /// A cluster, as the Envoy has it.
    fn cluster(&self, name: &str) -> Check<Value> {
        let dump = curl(ADMIN_PORT, "admin", "/config_dump?resource=dynamic_active_clusters", &[])?;
        let dump: Value = serde_json::from_str(&dump).map_err(|error| error.to_string())?;
        let all = dump["configs"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().map(|mut it| it["cluster"].take()).find(|it| it["name"] == name);
        found.ok_or_else(|| format!("the Envoy has no {name}"))
    }

    fn is_shown(&self) -> Check {
        for (policy, expect) in [hashing(), pools(), warming()].into_iter().flatten() {
            self.rule("kept", policy.clone())?;
            eventually(PATIENCE, || {
                let cluster = self.cluster("outbound|80||kept.default.svc.cluster.local")?;
                let differs = expect.iter().find(|(path, value)| part(&cluster, path) != value);
                differs.map_or(Ok(()), |(path, value)| Err(format!("{path} is not {value} in {cluster}")))
            })
            .map_err(|why| format!("{policy}: {why}"))?;
        }
        Ok(())
    }

    /// Connections go to backends by weight, and end when they are silent for long enough, or have lasted for long enough.
    fn streams(&self) -> Check {
        eventually(PATIENCE, || {
            let mut met = BTreeSet::new();
            for _ in 0..20 {
                let answer = curl(STREAM_PORT, "any", "/t", &[])?;
                met.extend(answer.split_whitespace().next().map(str::to_owned));
            }
            if met.len() == 2 { Ok(()) } else { Err(format!("all are at {met:?}")) }
        })?;
        let target = json!([{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "tuned" }]);
        for (action, to, passes) in [
            // What is known of requests only is not known here: a DENY rule holds without it.
            ("DENY", json!({ "ports": [STREAM_PORT.to_string()], "methods": ["PUT"] }), false),
            ("DENY", json!({ "ports": ["1"] }), true),
            ("ALLOW", json!({ "ports": ["1"] }), false),
            ("ALLOW", json!({ "ports": [STREAM_PORT.to_string()] }), true),
        ] {
            self.put(
                POLICIES,
                &json!({ "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": { "name": "stream" },
                    "spec": { "targetRefs": target, "action": action, "rules": [{ "to": [{ "operation": to }] }] } }),
            )?;
            let asked = || match curl(STREAM_PORT, "any", "/t", &[]).is_ok() == passes {
                true => Ok(()),
                false => Err(format!("{action} {to}: not {passes}")),
            };
            eventually(PATIENCE, asked)?;
        }
        self.delete(POLICIES, "stream")?;
        for (tcp, talks) in [("idleTimeout", false), ("maxConnectionDuration", true)] {
            let mut policy = json!({ "connectionPool": { "tcp": {} } });
            policy["connectionPool"]["tcp"][tcp] = json!("1s");
            self.rule("whole", policy)?;
            eventually(PATIENCE, || is_ended(STREAM_PORT, talks)).map_err(|why| format!("{tcp}: {why}"))?;
        }
        Ok(())
    }
}

/// A DestinationRule's `trafficPolicy`, and what the cluster shows of it: paths and values.
type Shown = (Value, Vec<(String, Value)>);

fn http(path: &str) -> String {
    format!("typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/{path}")
}

fn hashing() -> Vec<Shown> {
    let by_cookie = |table: &str, size: &str, value: u32| {
        let mut hash = json!({ "httpCookie": { "name": "user", "ttl": "60s" } });
        hash[table] = json!({ size: value });
        json!({ "loadBalancer": { "consistentHash": hash } })
    };
    vec![
        (
            by_cookie("maglev", "tableSize", 1000),
            vec![
                ("lb_policy".into(), json!("MAGLEV")),
                // The next prime.
                ("maglev_lb_config/table_size".into(), json!("1009")),
            ],
        ),
        (
            by_cookie("ringHash", "minimumRingSize", 2048),
            vec![
                ("lb_policy".into(), json!("RING_HASH")),
                ("ring_hash_lb_config/minimum_ring_size".into(), json!("2048")),
            ],
        ),
    ]
}

fn pools() -> Vec<Shown> {
    let limit = |rest: &str| format!("circuit_breakers/thresholds/0/{rest}");
    let pool = json!({ "connectionPool": {
        "tcp": { "maxConnections": 11, "connectTimeout": "3s" },
        "http": { "http1MaxPendingRequests": 12, "http2MaxRequests": 13, "maxRequestsPerConnection": 14, "maxRetries": 15,
            "idleTimeout": "16s" } }, "retryBudget": { "percent": 30, "minRetryConcurrency": 4 } });
    let upgrade = |mut more: Value| {
        more["h2UpgradePolicy"] = json!("UPGRADE");
        json!({ "connectionPool": { "http": more } })
    };
    let keep_alive =
        |name: &str| http(&format!("explicit_http_config/http2_protocol_options/connection_keepalive/{name}"));
    vec![
        (
            pool,
            vec![
                ("connect_timeout".into(), json!("3s")),
                (limit("max_connections"), json!(11)),
                (limit("max_pending_requests"), json!(12)),
                (limit("max_requests"), json!(13)),
                (limit("max_retries"), json!(15)),
                (limit("retry_budget/budget_percent/value"), json!(30)),
                (limit("retry_budget/min_retry_concurrency"), json!(4)),
                (http("common_http_protocol_options/max_requests_per_connection"), json!(14)),
                (http("common_http_protocol_options/idle_timeout"), json!("16s")),
                (http("explicit_http_config/http_protocol_options"), json!({})),
            ],
        ),
        (
            upgrade(json!({})),
            vec![(http("explicit_http_config/http2_protocol_options"), json!({ "allow_connect": true }))],
        ),
        (
            upgrade(json!({ "http2KeepAlive": { "interval": "3s", "timeout": "1s" } })),
            vec![(keep_alive("interval"), json!("3s")), (keep_alive("timeout"), json!("1s"))],
        ),
    ]
}

fn warming() -> Vec<Shown> {
    let warm = |simple: &str| json!({ "loadBalancer": { "simple": simple, "warmup": { "duration": "5s", "minimumPercent": 20, "aggression": 1.5 } } });
    let slow = |of: &str| {
        let path = |rest: &str| format!("{of}/slow_start_config/{rest}");
        vec![
            (path("slow_start_window"), json!("5s")),
            (path("aggression/default_value"), json!(1.5)),
            (path("min_weight_percent/value"), json!(20)),
        ]
    };
    let least = [vec![("lb_policy".into(), json!("LEAST_REQUEST"))], slow("least_request_lb_config")].concat();
    vec![(warm("LEAST_REQUEST"), least), (warm("ROUND_ROBIN"), slow("round_robin_lb_config"))]
}

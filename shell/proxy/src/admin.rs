//! What the proxy shows of itself, on loopback: `/metrics`, `/telemetry`, `/config_dump`, `/healthz`.
use crate::access::AccessLog;
use crate::shared::Shared;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;

/// Serves until the process ends.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(&shared, &request)) }
            });
            // Who asks and goes away has asked for nothing.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (kind, body) = match request.uri().path() {
        "/metrics" => (
            "text/plain; version=0.0.4",
            shared.telemetry.prometheus()
                + &shared.tracer.prometheus()
                + &shared.hedges.prometheus()
                + &shared.polled.prometheus()
                + &process_metrics(shared),
        ),
        "/telemetry" => ("application/json", shared.telemetry.edges_json().to_string()),
        "/config_dump" => ("application/json", config_dump(shared).to_string()),
        "/healthz" => ("text/plain", "ok\n".to_owned()),
        _ => {
            let mut response = Response::new(Full::from("one of /metrics /telemetry /config_dump /healthz\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
    };
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn process_metrics(shared: &Shared) -> String {
    let resident = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = resident.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    format!(
        "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {}\n\
         # TYPE diolkos_proxy_access_log_dropped_total counter\ndiolkos_proxy_access_log_dropped_total {}\n\
         # TYPE diolkos_proxy_pods gauge\ndiolkos_proxy_pods {}\n\
         # TYPE diolkos_proxy_config_version gauge\ndiolkos_proxy_config_version {}\n",
        pages * 4096,
        shared.access_log.as_ref().map_or(0, AccessLog::left_out),
        shared.pods.list().len(),
        shared.mesh.version(),
    )
}

/// What is run: for `mesh status`, and for whoever wonders.
fn config_dump(shared: &Shared) -> Value {
    let known = shared.mesh.known();
    let directory = &known.directory;
    let pods: Vec<Value> = shared
        .pods
        .list()
        .iter()
        .map(|pod| {
            json!({
                "namespace": pod.attachment.namespace,
                "name": pod.attachment.name,
                "uid": pod.attachment.uid,
                "identity": &*pod.origin.identity.name,
                "phase": format!("{:?}", pod.phase()),
                "ips": pod.attachment.ips,
            })
        })
        .collect();
    let services: Vec<Value> = directory
        .services()
        .iter()
        .map(|entry| {
            let ports: Vec<Value> = entry
                .ports
                .iter()
                .map(|port| {
                    let endpoints = port.pool.endpoints().iter().map(|it| it.address().to_string());
                    json!({
                        "port": port.port.port,
                        "protocol": format!("{:?}", port.app_protocol()),
                        "endpoints": endpoints.collect::<Vec<_>>(),
                        "routes": port.table.routes().iter().map(|route| &*route.name).collect::<Vec<_>>(),
                    })
                })
                .collect();
            json!({ "service": entry.service.key.to_string(), "vips": entry.service.vips, "ports": ports })
        })
        .collect();
    let workloads: Vec<Value> = directory
        .workloads()
        .iter()
        .map(|it| json!({ "name": &*it.name, "addresses": it.addresses, "status": format!("{:?}", it.status), "tunnel": format!("{:?}", it.tunnel) }))
        .collect();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": shared.config.node_name,
        "now_s": now_s,
        "config_version": shared.mesh.version(),
        "xds_versions": shared.versions(),
        "pods": pods,
        "certificates": shared.identities.list().iter().map(|(name, validity)| json!({
            "identity": &**name,
            "not_before_s": validity.map(|it| it.0),
            "not_after_s": validity.map(|it| it.1),
        })).collect::<Vec<_>>(),
        "services": services,
        "workloads": workloads,
        "gateways": directory.gateways().iter().map(|it| it.gateway.key.to_string()).collect::<Vec<_>>(),
        "routes": directory.routes().iter().map(|it| &*it.name).collect::<Vec<_>>(),
        "policies_revision": known.policies.revision(),
    })
}

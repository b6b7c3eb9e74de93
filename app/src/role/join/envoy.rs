//! A joined host that an Envoy serves: what it starts with, and a certificate for mesh control that stays fresh.
use super::super::{failed, host, runtime};
use super::{Kept, plane};
use crate::cli::{CommandError, Inbound};
use crate::config::Config;
use crate::notify;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Connections that a changed policy or mode no longer allows end a second later; Envoy's own are ten minutes.
const DRAIN: &str = "--drain-time-s 1 --drain-strategy immediate";
/// Where the Envoy shows what it has.
const ADMIN_PORT: u16 = 15_000;

/// Writes what the Envoy needs, and renews its certificate until it is told to stop.
pub fn run(config: &Config, kept: &Kept, how: Inbound) -> Result<(), CommandError> {
    let dir = std::path::absolute(config.data_dir.join("join")).map_err(failed)?;
    let path = dir.join("envoy.json");
    let certificate = dir.join("envoy-certificate.json");
    for (path, value) in [(&certificate, secret(&dir)), (&path, bootstrap(kept, how, &dir)?)] {
        let text = serde_json::to_vec_pretty(&value).map_err(failed)?;
        std::fs::write(path, text).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    }
    runtime(1)?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        // SIGHUP has `diolkos join` start another proxy, and units send it on reload: here is none to replace, but that is no reason to end.
        let _ignored = signal(SignalKind::hangup()).map_err(failed)?;
        println!("Ready: envoy -c {} {DRAIN}. Ctrl-C stops renewing its certificate.", path.display());
        notify::ready();
        tokio::select! {
            () = proxy::plane::renew_alone(plane(config, &kept.control), host::common_name(&kept.workload)) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

/// Whose certificate the Envoy shows to mesh control; it reads the files again when they are replaced.
fn secret(dir: &Path) -> Value {
    let file = |name: &str| json!({ "filename": dir.join(name) });
    json!({ "resources": [{ "@type": format!("{TLS}.Secret"), "name": "host", "tls_certificate": {
        "certificate_chain": file("host.crt"), "private_key": file("host.key"), "watched_directory": { "path": dir } } }] })
}

fn bootstrap(kept: &Kept, how: Inbound, dir: &Path) -> Result<Value, CommandError> {
    let (address, port) = kept
        .control
        .rsplit_once(':')
        .and_then(|(address, port)| Some((address, port.parse::<u16>().ok()?)))
        .ok_or_else(|| failed(format!("{} is not HOST:PORT", kept.control)))?;
    let address = address.trim_matches(['[', ']']);
    let kind = if address.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let inbound = match how {
        Inbound::Listen => "listen",
        Inbound::Capture => "capture",
    };
    let own = json!({ "name": "host", "sds_config": { "resource_api_version": "V3",
        "path_config_source": { "path": dir.join("envoy-certificate.json") } } });
    let server = json!({ "san_type": "DNS", "matcher": { "exact": super::SERVER_NAME } });
    let tls = json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{TLS}.UpstreamTlsContext"), "sni": super::SERVER_NAME, "common_tls_context": {
            "tls_certificate_sds_secret_configs": [own],
            "validation_context": { "trusted_ca": { "filename": dir.join("ca.crt") }, "match_typed_subject_alt_names": [server] } } } });
    let at = |address: &str, port: u16| json!({ "socket_address": { "address": address, "port_value": port } });
    let control = json!({ "name": "diolkos", "type": kind, "connect_timeout": "5s",
        "typed_extension_protocol_options": { HTTP_OPTIONS: { "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicit_http_config": { "http2_protocol_options": { "connection_keepalive": { "interval": "30s", "timeout": "5s" } } } } },
        "transport_socket": tls,
        "load_assignment": { "cluster_name": "diolkos",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(address, port) } }] }] } });
    Ok(json!({
        "node": { "id": kept.workload, "cluster": kept.service, "metadata": { "inbound": inbound } },
        "admin": { "address": at("127.0.0.1", ADMIN_PORT) },
        // For tunnels (HBONE): they end in a listener inside.
        "bootstrap_extensions": [{ "name": "envoy.bootstrap.internal_listener", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener" } }],
        "dynamic_resources": {
            "ads_config": { "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "diolkos" } }] },
            "lds_config": { "ads": {}, "resource_api_version": "V3" },
            "cds_config": { "ads": {}, "resource_api_version": "V3" } },
        "static_resources": { "clusters": [control] } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envoy_is_told_where_to_ask_and_who_it_is() {
        let kept = |control: &str| Kept {
            control: control.into(),
            service: "db".into(),
            namespace: "shop".into(),
            port: 80,
            address: "192.0.2.7".parse().unwrap(),
            workload: "host/shop/db-old1".into(),
            identity: "spiffe://cluster.local/ns/shop/sa/db".into(),
            cluster_domain: "cluster.local".into(),
            service_cidrs: Vec::new(),
            users: Vec::new(),
            groups: Vec::new(),
        };
        for (control, kind, address) in [
            ("plane.example:15012", "STRICT_DNS", "plane.example"),
            ("192.0.2.1:15012", "STATIC", "192.0.2.1"),
            ("[2001:db8::1]:15012", "STATIC", "2001:db8::1"),
        ] {
            let made = bootstrap(&kept(control), Inbound::Capture, Path::new("/var/lib/diolkos/join")).unwrap();
            let cluster = &made["static_resources"]["clusters"][0];
            assert_eq!(cluster["type"], kind);
            let at = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
            assert_eq!(at["socket_address"], json!({ "address": address, "port_value": 15_012 }));
            assert_eq!(made["node"]["metadata"], json!({ "inbound": "capture" }));
        }
        assert!(bootstrap(&kept("plane"), Inbound::Listen, Path::new("/x")).is_err());
    }
}

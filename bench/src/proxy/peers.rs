//! nginx, HAProxy and Envoy as reverse proxies with one worker each, and nginx as the backend of all.

use super::net::{Scratch, on_core};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Port of the backend.
pub const BACKEND: u16 = 25_900;

/// Where a proxy listens; none: it cannot do that here.
#[derive(Clone, Copy, Default)]
pub struct Ports {
    pub http: u16,
    pub http2: Option<u16>,
    pub mtls: Option<u16>,
    pub tcp: Option<u16>,
}

/// A proxy (or the backend) that runs until dropped.
pub struct Peer {
    pub name: &'static str,
    pub ports: Ports,
    child: Child,
}

impl Peer {
    /// Starts it and waits until it listens. In a namespace nobody looks.
    pub fn start(name: &'static str, ports: Ports, mut command: Command, look: bool) -> Result<Self, String> {
        let child = command.stdout(Stdio::null()).spawn().map_err(|error| format!("{name}: {error}"))?;
        let mut peer = Self { name, ports, child };
        let deadline = Instant::now() + Duration::from_secs(15);
        let port = ports.http;
        loop {
            std::thread::sleep(Duration::from_millis(100));
            if !look || TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok() {
                return Ok(peer);
            }
            if let Ok(Some(status)) = peer.child.try_wait() {
                return Err(format!("{name} ended: {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("{name} does not listen on {port}"));
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nginx_command(work: &Scratch, name: &str, http: &str, rest: &str, netns: Option<&str>) -> Result<Command, String> {
    let dir = work.path().join(name);
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
        .concat();
    let text = format!(
        "{rest}\ndaemon off; master_process off; worker_processes 1; pid {0}/pid; error_log {0}/error.log;\n\
         events {{ worker_connections 18000; }}\n\
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s; {paths} {http} }}\n",
        dir.display()
    );
    std::fs::write(dir.join("nginx.conf"), text).map_err(|error| error.to_string())?;
    let mut command = on_core(0, netns);
    command.args(["nginx", "-p"]).arg(&dir).args(["-c", "nginx.conf"]).stderr(Stdio::null());
    Ok(command)
}

/// The backend: `/100` and `/65536` answer that many bytes.
pub fn backend(work: &Scratch, netns: Option<&str>) -> Result<Peer, String> {
    if Command::new("nginx").arg("-v").output().is_err() {
        return Err("the backend is nginx, which is not installed: apt-get install nginx-light".into());
    }
    let files = work.path().join("files");
    std::fs::create_dir_all(&files).map_err(|error| error.to_string())?;
    for bytes in [100, 64 * 1024] {
        std::fs::write(files.join(bytes.to_string()), vec![b'x'; bytes]).map_err(|error| error.to_string())?;
    }
    let port = if netns.is_some() { 8080 } else { BACKEND };
    let servers = format!(
        "open_file_cache max=10; tcp_nodelay on; server {{ listen {port} backlog=4096; root {}; default_type text/plain; }}",
        files.display()
    );
    let name = if netns.is_some() { "backend-pod" } else { "backend" };
    let ports = Ports { http: port, ..Ports::default() };
    Peer::start("backend", ports, nginx_command(work, name, &servers, "", netns)?, netns.is_none())
}

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// An nginx whose buffers hold the largest answer whole. Peers else keep the buffers that they have by themselves.
pub const TUNED: &str = "nginx_tuned";
/// How far its ports are from those of the other one.
const TUNED_SHIFT: u16 = 4;

/// nginx with a pool of connections to the backend.
pub fn nginx(work: &Scratch) -> Result<Peer, String> {
    nginx_with("nginx", work, 0, "", "")
}

/// The same, tuned for answers of 64 KiB.
pub fn nginx_tuned(work: &Scratch) -> Result<Peer, String> {
    let buffers = "proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 128k;";
    nginx_with(TUNED, work, TUNED_SHIFT, buffers, "proxy_buffer_size 64k;")
}

fn nginx_with(name: &'static str, work: &Scratch, shift: u16, buffers: &str, opaque: &str) -> Result<Peer, String> {
    let [http, tls, tcp, http2] = [25_902, 25_912, 25_922, 25_932].map(|port| port + shift);
    let certs = work.path().display();
    let pass = format!(
        "location / {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection \"\"; {buffers} }}"
    );
    // HTTP/2 without TLS takes a listener of its own before 1.25.1, and since then the old word still does.
    let servers = format!(
        "upstream b {{ server 127.0.0.1:{BACKEND}; keepalive 512; keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:{http}; {pass} }}\n\
         server {{ listen 127.0.0.1:{http2} http2; {pass} }}\n\
         server {{ listen 127.0.0.1:{tls} ssl; ssl_protocols TLSv1.3; ssl_certificate {certs}/server.pem; \
         ssl_certificate_key {certs}/server.key; ssl_client_certificate {certs}/ca.pem; ssl_verify_client on; {pass} }}"
    );
    let has_stream = Path::new(NGINX_STREAM).exists();
    let stream = format!(
        "load_module {NGINX_STREAM}; stream {{ server {{ listen 127.0.0.1:{tcp}; proxy_pass 127.0.0.1:{BACKEND}; \
         {opaque} tcp_nodelay on; }} }}"
    );
    let rest = if has_stream { stream.as_str() } else { "" };
    let ports = Ports { http, http2: Some(http2), mtls: Some(tls), tcp: has_stream.then_some(tcp) };
    Peer::start(name, ports, nginx_command(work, name, &servers, rest, None)?, true)
}

/// HAProxy with one thread.
pub fn haproxy(work: &Scratch) -> Result<Peer, String> {
    let (http, tls, tcp) = (25_904, 25_914, 25_924);
    let certs = work.path().display();
    let text = format!(
        "global\n  nbthread 1\n  maxconn 9000\n  tune.ssl.default-dh-param 2048\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n\
         frontend plain\n  bind 127.0.0.1:{http}\n  default_backend b\n\
         frontend secure\n  bind 127.0.0.1:{tls} ssl crt {certs}/server-both.pem ca-file {certs}/ca.pem verify required ssl-min-ver TLSv1.3\n  default_backend b\n\
         frontend opaque\n  mode tcp\n  bind 127.0.0.1:{tcp}\n  default_backend t\n\
         backend b\n  http-reuse always\n  server s 127.0.0.1:{BACKEND} pool-max-conn -1\n\
         backend t\n  mode tcp\n  server s 127.0.0.1:{BACKEND}\n"
    );
    let path = work.path().join("haproxy.cfg");
    std::fs::write(&path, text).map_err(|error| error.to_string())?;
    if Command::new("haproxy").arg("-v").output().is_err() {
        return Err("haproxy is not installed".into());
    }
    let mut command = on_core(0, None);
    command.args(["haproxy", "-q", "-db", "-f"]).arg(path).stderr(Stdio::null());
    let ports = Ports { http, http2: Some(http), mtls: Some(tls), tcp: Some(tcp) };
    Peer::start("haproxy", ports, command, true)
}

fn envoy_listener(name: &str, port: u16, filter: &Value, tls: Option<&Value>) -> Value {
    let mut chain = json!({ "filters": [filter] });
    if let Some(tls) = tls {
        chain["transport_socket"] = json!({ "name": "envoy.transport_sockets.tls", "typed_config": tls });
    }
    json!({
        "name": name,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [chain],
    })
}

fn envoy_config(work: &Scratch, (http, tls, tcp): (u16, u16, u16)) -> Value {
    let cluster = json!({
        "name": "b", "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": { "cluster_name": "b", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": BACKEND } } } }] }] },
        "circuit_breakers": { "thresholds": [{ "max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000 }] },
    });
    let manager = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench", "codec_type": "AUTO",
        "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "b" } }] }] },
    } });
    let opaque = json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "bench", "cluster": "b" } });
    let file = |name: &str| json!({ "filename": work.path().join(name) });
    let secure = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_certificates": [{ "certificate_chain": file("server.pem"), "private_key": file("server.key") }],
            "validation_context": { "trusted_ca": file("ca.pem") },
        },
    });
    json!({ "static_resources": {
        "listeners": [
            envoy_listener("http", http, &manager, None),
            envoy_listener("mtls", tls, &manager, Some(&secure)),
            envoy_listener("tcp", tcp, &opaque, None),
        ],
        "clusters": [cluster] } })
}

/// Envoy with one worker.
pub fn envoy(work: &Scratch) -> Result<Peer, String> {
    let binary = std::env::var_os("ENVOY").map(PathBuf::from).ok_or("ENVOY names no binary")?;
    let (http, tls, tcp) = (25_903, 25_913, 25_923);
    let path = work.path().join("envoy.json");
    std::fs::write(&path, envoy_config(work, (http, tls, tcp)).to_string()).map_err(|error| error.to_string())?;
    let mut command = on_core(0, None);
    command.arg(binary).arg("-c").arg(path);
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]).stderr(Stdio::null());
    let ports = Ports { http, http2: Some(http), mtls: Some(tls), tcp: Some(tcp) };
    Peer::start("envoy", ports, command, true)
}

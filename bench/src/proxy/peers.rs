//! nginx and Envoy as reverse proxies, and nginx as the backend of all.

use super::net::{Scratch, on_core};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Port of the backend.
pub const BACKEND: u16 = 25_900;
const NGINX: u16 = 25_902;
const ENVOY: u16 = 25_903;

/// A proxy (or the backend) that runs until dropped.
pub struct Peer {
    pub name: &'static str,
    pub port: u16,
    child: Child,
}

impl Peer {
    /// Starts it and waits until it listens. In a namespace nobody looks.
    pub fn start(name: &'static str, port: u16, mut command: Command, look: bool) -> Result<Self, String> {
        let child = command.stdout(Stdio::null()).spawn().map_err(|error| format!("{name}: {error}"))?;
        let mut peer = Self { name, port, child };
        let deadline = Instant::now() + Duration::from_secs(15);
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

fn nginx_command(work: &Scratch, name: &str, servers: &str, netns: Option<&str>) -> Result<Command, String> {
    let dir = work.path().join(name);
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
        .concat();
    let text = format!(
        "daemon off; master_process off; worker_processes 1; pid {0}/pid; error_log {0}/error.log;\n\
         events {{ worker_connections 4096; }}\nhttp {{ access_log off; keepalive_requests 100000000; {paths} {servers} }}\n",
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
        "open_file_cache max=10; tcp_nodelay on; server {{ listen {port}; root {}; default_type text/plain; }}",
        files.display()
    );
    Peer::start("backend", port, nginx_command(work, "backend", &servers, netns)?, netns.is_none())
}

/// nginx with a pool of connections to the backend.
pub fn nginx(work: &Scratch, http2: bool) -> Result<Peer, String> {
    let version = Command::new("nginx").arg("-v").output().map_err(|error| error.to_string())?;
    // `http2 on` came with 1.25.1; before, HTTP/2 without TLS takes a listener of its own kind.
    let text = String::from_utf8_lossy(&version.stderr).into_owned();
    let number = text.rsplit('/').next().unwrap_or_default();
    let mut parts = number.split(['.', ' ']).map(|part| part.trim().parse::<u32>().unwrap_or(0));
    let new = (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (1, 26);
    let (on_listen, on) = match (http2, new) {
        (true, false) => (" http2", ""),
        (true, true) => ("", "http2 on;"),
        (false, _) => ("", ""),
    };
    let servers = format!(
        "upstream b {{ server 127.0.0.1:{BACKEND}; keepalive 512; keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:{NGINX}{on_listen}; {on} location / {{ proxy_pass http://b; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 128k; }} }}"
    );
    Peer::start("nginx", NGINX, nginx_command(work, "nginx", &servers, None)?, true)
}

/// Envoy with one worker.
pub fn envoy(work: &Scratch) -> Result<Peer, String> {
    let binary = std::env::var_os("ENVOY").map(PathBuf::from).ok_or("ENVOY names no binary")?;
    let cluster = serde_json::json!({
        "name": "b", "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": { "cluster_name": "b", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": BACKEND } } } }] }] },
        "circuit_breakers": { "thresholds": [{ "max_connections": 10000, "max_pending_requests": 10000, "max_requests": 10000 }] },
    });
    let manager = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench", "codec_type": "AUTO",
        "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "b" } }] }] },
    });
    let config = serde_json::json!({ "static_resources": {
        "listeners": [{ "name": "l",
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": ENVOY } },
            "filter_chains": [{ "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }] }] }],
        "clusters": [cluster] } });
    let path = work.path().join("envoy.json");
    std::fs::write(&path, config.to_string()).map_err(|error| error.to_string())?;
    let mut command = on_core(0, None);
    command.arg(binary).arg("-c").arg(path);
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]).stderr(Stdio::null());
    Peer::start("envoy", ENVOY, command, true)
}

//! What a proxy is told when it starts.
use crate::redirect::CapturePorts;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Configuration of one proxy process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node, or `host/NAME` for a joined host.
    pub node_name: String,
    /// Worker threads, each with a runtime of its own.
    pub workers: usize,
    /// Unix socket on which the node agent attaches pods.
    pub attach_socket: Option<PathBuf>,
    /// Where metrics and state are shown. Loopback: there is no authentication.
    pub admin: Option<SocketAddr>,
    /// Where configuration and certificates come from.
    pub control: Control,
    /// The last configuration is kept here, so that a proxy that starts without control plane serves.
    pub snapshot: Option<PathBuf>,
    /// First part of every identity.
    pub trust_domain: String,
    /// Domain of service names.
    pub cluster_domain: String,
    /// Virtual addresses of the name server that pods are configured with.
    pub dns_vips: Vec<IpAddr>,
    /// Names the servers for everything outside the cluster.
    pub resolv_conf: PathBuf,
    /// Ports inside pods.
    pub ports: CapturePorts,
    /// Write a JSON line for each request.
    pub access_log: bool,
    /// Serve the Gateway resources on this host's ports.
    pub gateways: bool,
}

/// Where configuration and certificates come from.
#[derive(Clone, Debug)]
pub enum Control {
    /// A control plane, under mutual TLS.
    Plane(ControlPlane),
    /// Nowhere: the caller puts resources in and signs certificates (tests, `--local-config`).
    Local,
}

/// A control plane and how to talk to it. The files are read again for every connection, because they are rotated.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// `host:port`.
    pub address: String,
    /// Name that the server's certificate must be for.
    pub server_name: String,
    /// PEM roots of the cluster's CA.
    pub ca: PathBuf,
    /// PEM chain of the client certificate.
    pub certificate: PathBuf,
    /// Its PEM key.
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            attach_socket: None,
            admin: None,
            control: Control::Local,
            snapshot: None,
            trust_domain: "cluster.local".into(),
            cluster_domain: "cluster.local".into(),
            dns_vips: vec![IpAddr::from([10, 96, 0, 10])],
            resolv_conf: "/etc/resolv.conf".into(),
            ports: CapturePorts::default(),
            access_log: false,
            gateways: true,
        }
    }
}

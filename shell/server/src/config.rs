//! What the server is told. Parsing flags and files is the application's work; this is the result.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of one API server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Holds `pki/`, `store/` and the kubeconfigs. Created with mode 0700 when it is not there.
    pub data_dir: PathBuf,
    /// TLS listener. Port 0 takes any free port (tests).
    pub listen: SocketAddr,
    /// Plain HTTP listener of the dashboard: same handler, Bearer tokens only. `None`: no dashboard.
    pub dashboard: Option<SocketAddr>,
    /// Address that kubeconfigs and the `kubernetes` Service name. Defaults to the listener's, or 127.0.0.1 when it listens on all.
    pub advertise: Option<IpAddr>,
    /// Further names and addresses for the server's certificate (the nodes' addresses).
    pub alt_names: Vec<String>,
    /// This machine's node name; its certificate and kubeconfig are made at first start.
    pub node_name: String,
    /// Addresses of this machine's node, for the node agent's serving certificate.
    pub node_addresses: Vec<IpAddr>,
    /// Services get addresses from here.
    pub service_cidr: Cidr,
    /// NodePorts, both ends included.
    pub node_ports: (u16, u16),
    /// `iss` of ServiceAccount tokens.
    pub issuer: String,
    /// Limits on what comes from outside.
    pub limits: Limits,
    /// How the store keeps its files.
    pub store: storage::Options,
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// First address.
    pub base: Ipv4Addr,
    /// Prefix length.
    pub bits: u8,
}

impl Cidr {
    /// Number of addresses, first and last included.
    pub fn size(self) -> u32 {
        1u32.checked_shl(32 - u32::from(self.bits)).unwrap_or(u32::MAX)
    }
    /// The address at `offset` from the first.
    pub fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).wrapping_add(offset))
    }
    /// How far `address` is from the first; `None` when it is outside.
    pub fn offset(self, address: Ipv4Addr) -> Option<u32> {
        u32::from(address).checked_sub(u32::from(self.base)).filter(|offset| *offset < self.size())
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// Limits on what comes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request body.
    pub body_bytes: usize,
    /// Requests that only read, at once; watches do not count.
    pub reads: usize,
    /// Requests that change something, at once.
    pub mutations: usize,
    /// Open watches, attaches, log follows and port-forwards.
    pub streams: usize,
    /// Connections.
    pub connections: usize,
    /// A request that is not a stream ends by then.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes: 3 << 20,
            reads: 400,
            mutations: 400,
            streams: 10_000,
            connections: 16_384,
            request_timeout: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// The defaults around a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Config {
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([0, 0, 0, 0], 6443)),
            dashboard: Some(SocketAddr::from(([127, 0, 0, 1], 7070))),
            advertise: None,
            alt_names: Vec::new(),
            node_name: "localhost".to_owned(),
            node_addresses: Vec::new(),
            service_cidr: Cidr { base: Ipv4Addr::new(10, 96, 0, 0), bits: 16 },
            node_ports: (30_000, 32_767),
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            limits: Limits::default(),
            store: storage::Options::default(),
        }
    }

    /// The address that clients are told.
    pub fn advertised(&self) -> IpAddr {
        match self.advertise {
            Some(address) => address,
            None if self.listen.ip().is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            None => self.listen.ip(),
        }
    }
}

//! What a proxy is told when it starts.
use crate::redirect::CapturePorts;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Configuration of one proxy process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node, or `host/NAME` for a joined host.
    pub node_name: String,
    /// Worker threads, each with a runtime of its own.
    pub workers: usize,
    /// Unix socket on which the node agent attaches pods.
    pub attach_socket: Option<PathBuf>,
    /// Unix socket on which a successor asks for our listening sockets; none: there is no successor.
    pub handover_socket: Option<PathBuf>,
    /// The SPIFFE Workload API; none: it is not served.
    pub workload_api: Option<WorkloadApi>,
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
    /// Whether and how each request is logged.
    pub access_log: Option<crate::access::Settings>,
    /// Whether and where to spans of requests are sent.
    pub tracing: Tracing,
    /// Serve the Gateway resources on this host's ports.
    pub gateways: bool,
    /// How long a gateway's client may say nothing where it is its turn: between requests, for a head, between two pieces of a body.
    pub public_patience: Duration,
    /// How long a worker looks for more to do before it sleeps, where its waits were that short lately; 0: it sleeps.
    pub polling: Duration,
}

/// The SPIFFE Workload API of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadApi {
    /// Its Unix socket. Everybody may connect; who gets something is said by `callers`.
    pub socket: PathBuf,
    /// Who gets an identity.
    pub callers: Callers,
}

/// Who gets an identity of the Workload API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callers {
    /// A process of a pod: its pod's.
    Pods,
    /// A process of one of these users, or in one of these groups (its own or a supplementary one), by number: that of the one workload that
    /// is served here, a joined host's.
    Users { users: Vec<u32>, groups: Vec<u32> },
}

/// Spans of requests: where to, and how many.
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    /// Collectors, each of which gets all spans; without any nothing is traced.
    pub exporters: Vec<Exporter>,
    /// Share of the traces that begin here, from 0 to 1. What the caller has decided stays.
    pub sampling: f64,
    /// PEM roots that collectors under TLS must prove themselves by; none: those that the host trusts. Read for each connection.
    pub ca: Option<PathBuf>,
}

/// What a collector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// OTLP over gRPC.
    OtlpGrpc,
    /// OTLP over HTTP, as protobuf.
    OtlpHttp,
    /// SkyWalking's agents' protocol (gRPC).
    SkyWalking,
}

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    /// In which words.
    pub speaks: Speaks,
    /// A service of the mesh (`otel.monitoring`), or any host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path of OTLP over HTTP.
    pub path: String,
    /// Under TLS.
    pub tls: bool,
}

impl Exporter {
    const SCHEMES: [(&str, Speaks, u16, bool); 6] = [
        ("otlp+grpc", Speaks::OtlpGrpc, 4317, false),
        ("otlp+http", Speaks::OtlpHttp, 4318, false),
        ("skywalking", Speaks::SkyWalking, 11800, false),
        ("otlp+grpcs", Speaks::OtlpGrpc, 4317, true),
        ("otlp+https", Speaks::OtlpHttp, 4318, true),
        ("skywalkings", Speaks::SkyWalking, 11800, true),
    ];

    /// Reads `otlp+grpc://HOST[:PORT]`, `otlp+http://HOST[:PORT][/PATH]` or `skywalking://HOST[:PORT]`; under TLS `otlp+grpcs`, `otlp+https`,
    /// `skywalkings`. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let whole = || {
            format!(
                "{text:?} is no collector: otlp+grpc://HOST:PORT, otlp+http://HOST:PORT/PATH or skywalking://HOST:PORT"
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(whole)?;
        let (_, speaks, usual, tls) = Self::SCHEMES.into_iter().find(|(name, ..)| *name == scheme).ok_or_else(whole)?;
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => (host, port.parse().map_err(|_| whole())?),
            _ => (authority, usual),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
        if host.is_empty() || !host.chars().all(plain) || (!path.is_empty() && speaks != Speaks::OtlpHttp) {
            return Err(whole());
        }
        let path = if path.is_empty() { spans::otlp::HTTP_PATH.to_owned() } else { format!("/{path}") };
        Ok(Self { speaks, host: host.trim_matches(['[', ']']).to_owned(), port, path, tls })
    }
}

impl std::fmt::Display for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = Self::SCHEMES
            .iter()
            .find(|(_, speaks, _, tls)| (*speaks, *tls) == (self.speaks, self.tls))
            .map_or("", |(name, ..)| name);
        write!(f, "{scheme}://{}:{}", self.host, self.port)?;
        if self.speaks == Speaks::OtlpHttp { f.write_str(&self.path) } else { Ok(()) }
    }
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
            handover_socket: None,
            workload_api: None,
            admin: None,
            control: Control::Local,
            snapshot: None,
            trust_domain: "cluster.local".into(),
            cluster_domain: "cluster.local".into(),
            dns_vips: vec![IpAddr::from([10, 96, 0, 10])],
            resolv_conf: "/etc/resolv.conf".into(),
            ports: CapturePorts::default(),
            access_log: None,
            tracing: Tracing::default(),
            gateways: true,
            public_patience: Duration::from_secs(60),
            polling: Duration::from_micros(200),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors() {
        for (text, told) in [
            ("otlp+grpc://otel.monitoring", "otlp+grpc://otel.monitoring:4317"),
            ("otlp+http://10.0.0.1:80/otlp/v1/traces", "otlp+http://10.0.0.1:80/otlp/v1/traces"),
            ("otlp+http://collector", "otlp+http://collector:4318/v1/traces"),
            ("skywalking://oap.skywalking.svc:11800", "skywalking://oap.skywalking.svc:11800"),
            ("otlp+https://otel.example/x", "otlp+https://otel.example:4318/x"),
            ("otlp+grpcs://otel.example", "otlp+grpcs://otel.example:4317"),
        ] {
            assert_eq!(Exporter::parse(text).unwrap().to_string(), told);
        }
        for text in
            ["", "otlp://a", "http://a:1", "otlp+grpc://", "otlp+grpc://a:b", "otlp+grpc://a b", "skywalking://a/b"]
        {
            assert!(Exporter::parse(text).is_err(), "{text}");
        }
    }
}

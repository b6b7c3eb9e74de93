//! Configuration, parsed once: defaults, then a TOML file, then `DIOLKOS_*` environment, then flags; the later wins.

mod node;

pub use node::{Taint, labels_text, taints_text};

use clap::Args;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A configuration that cannot be used. Whoever wrote it is at fault; nothing was started.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    /// The file is no TOML, or names a setting that does not exist. The parser's text has line and column.
    #[error("configuration {path}: {error}")]
    Parse { path: PathBuf, error: Box<toml::de::Error> },
    /// A value is of the right form and still cannot be.
    #[error("{place}: {what}\n  mend: {mend}")]
    Value { place: &'static str, what: String, mend: String },
}

/// The settings as a person writes them: each may be a flag, an environment variable, or a key of the file.
#[derive(Args, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[command(next_help_heading = "Settings of every command")]
pub struct Settings {
    /// TOML file with any of these settings (keys as the flags, without the dashes in front).
    #[arg(long, env = "DIOLKOS_CONFIG", global = true, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where everything that lasts is kept [default: /var/lib/diolkos].
    #[arg(long, env = "DIOLKOS_DATA_DIR", global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Sockets and other things that last as long as the processes [default: /run/diolkos].
    #[arg(long, env = "DIOLKOS_RUN_DIR", global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Log level: error, warn, info, debug, trace [default: info].
    #[arg(long, env = "DIOLKOS_LOG", global = true, value_name = "LEVEL")]
    pub log: Option<String>,
    /// Log format: text or json [default: text].
    #[arg(long, env = "DIOLKOS_LOG_FORMAT", global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// This machine's name in the pool [default: its host name].
    #[arg(long, env = "DIOLKOS_NODE_NAME", global = true, value_name = "NAME")]
    pub node_name: Option<String>,
    /// This machine's address, as the others reach it [default: the one with the default route, else 127.0.0.1].
    #[arg(long, env = "DIOLKOS_NODE_IP", global = true, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Labels of this machine's Node besides the well-known ones, as `topology.kubernetes.io/zone=a,disk=fast` [default: none; with
    /// `up`, that it is a control plane].
    #[arg(long, env = "DIOLKOS_NODE_LABELS", global = true, value_name = "KEY=VALUE,...")]
    pub node_labels: Option<String>,
    /// Taints that this machine's Node is registered with, as `dedicated=batch:NoSchedule`.
    #[arg(long, env = "DIOLKOS_NODE_TAINTS", global = true, value_name = "KEY=VALUE:EFFECT,...")]
    pub node_taints: Option<String>,
    /// API server [default: 0.0.0.0:6443].
    #[arg(long, env = "DIOLKOS_API_LISTEN", global = true, value_name = "ADDR")]
    pub api_listen: Option<SocketAddr>,
    /// Controllers that run, as kube-controller-manager takes them: `*` for all, `-NAME` for all but one (docs/configuration.md) [default: *].
    #[arg(long, env = "DIOLKOS_CONTROLLERS", global = true, value_name = "LIST", allow_hyphen_values = true)]
    pub controllers: Option<String>,
    /// Dashboard, plain HTTP with sign-in by token [default: 127.0.0.1:7070].
    #[arg(long, env = "DIOLKOS_DASHBOARD_LISTEN", global = true, value_name = "ADDR")]
    pub dashboard_listen: Option<SocketAddr>,
    /// Node agent: logs, exec, stats [default: 0.0.0.0:10250].
    #[arg(long, env = "DIOLKOS_NODE_LISTEN", global = true, value_name = "ADDR")]
    pub node_listen: Option<SocketAddr>,
    /// Mesh control: xDS and certificates [default: 0.0.0.0:15012].
    #[arg(long, env = "DIOLKOS_MESH_LISTEN", global = true, value_name = "ADDR")]
    pub mesh_listen: Option<SocketAddr>,
    /// The proxy's metrics and state [default: 127.0.0.1:15020].
    #[arg(long, env = "DIOLKOS_PROXY_ADMIN", global = true, value_name = "ADDR")]
    pub proxy_admin: Option<SocketAddr>,
    /// Worker threads of the proxy [default: one a core].
    #[arg(long, env = "DIOLKOS_PROXY_WORKERS", global = true, value_name = "N")]
    pub proxy_workers: Option<usize>,
    /// A worker whose waits were that short lately looks for more for so many microseconds before it sleeps; 0: it sleeps [default: 200].
    #[arg(long, env = "DIOLKOS_PROXY_POLL_US", global = true, value_name = "US")]
    pub proxy_poll_us: Option<u64>,
    /// A proxy that was replaced finishes what it has within this time, in seconds [default: 600].
    #[arg(long, env = "DIOLKOS_PROXY_DRAIN_S", global = true, value_name = "S")]
    pub proxy_drain_s: Option<u64>,
    /// Log every request that passes the proxy.
    #[arg(long, env = "DIOLKOS_ACCESS_LOG", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub access_log: Option<bool>,
    /// Form of a line of the access log: `json`, an object of texts, or a text, with Envoy's operators (docs/mesh.md) [default: json].
    #[arg(long, env = "DIOLKOS_ACCESS_LOG_FORMAT", global = true, value_name = "FORMAT")]
    pub access_log_format: Option<String>,
    /// File that the access log is appended to [default: the proxy's own log].
    #[arg(long, env = "DIOLKOS_ACCESS_LOG_FILE", global = true, value_name = "FILE")]
    pub access_log_file: Option<PathBuf>,
    /// Collectors that spans of requests are sent to, with commas between: otlp+grpc://HOST:PORT, otlp+http://HOST:PORT/PATH,
    /// skywalking://HOST:PORT; under TLS otlp+grpcs, otlp+https, skywalkings [default: none].
    #[arg(long, env = "DIOLKOS_TRACES_TO", global = true, value_name = "URLS")]
    pub traces_to: Option<String>,
    /// PEM roots that collectors under TLS must prove themselves by [default: those that the host trusts].
    #[arg(long, env = "DIOLKOS_TRACES_CA", global = true, value_name = "FILE")]
    pub traces_ca: Option<PathBuf>,
    /// Where SkyWalking's language agents may report to the platform, in plain text (gRPC) [default: nowhere].
    #[arg(long, env = "DIOLKOS_SKYWALKING_LISTEN", global = true, value_name = "ADDR")]
    pub skywalking_listen: Option<SocketAddr>,
    /// What those agents must show (their SW_AGENT_AUTHENTICATION) [default: nothing].
    #[arg(long, env = "DIOLKOS_SKYWALKING_TOKEN", global = true, value_name = "TEXT", hide_env_values = true)]
    pub skywalking_token: Option<String>,
    /// Share of the traces that begin at a proxy, from 0 to 1 [default: 0.01].
    #[arg(long, env = "DIOLKOS_TRACE_SAMPLING", global = true, value_name = "SHARE")]
    pub trace_sampling: Option<f64>,
    /// Addresses of Services [default: 10.96.0.0/16].
    #[arg(long, env = "DIOLKOS_SERVICE_CIDR", global = true, value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// Addresses of pods on this machine [default: 10.244.0.0/24].
    #[arg(long, env = "DIOLKOS_POD_CIDR", global = true, value_name = "CIDR")]
    pub pod_cidr: Option<String>,
    /// Addresses that Gateways are given, each its own; `none`: they have only the machine's [default: 10.98.0.0/22].
    #[arg(long, env = "DIOLKOS_GATEWAY_CIDR", global = true, value_name = "CIDR")]
    pub gateway_cidr: Option<String>,
    /// DNS domain of the cluster, and trust domain of its identities [default: cluster.local].
    #[arg(long, env = "DIOLKOS_CLUSTER_DOMAIN", global = true, value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// How long a workload certificate is valid, in seconds; renewed at half of it [default: 86400].
    #[arg(long, env = "DIOLKOS_WORKLOAD_CERT_TTL_S", global = true, value_name = "S")]
    pub workload_cert_ttl_s: Option<u64>,
    /// Replace the mesh's root when it is older than so many days; 0: only when asked (`mesh rotate-root`) [default: 1825].
    #[arg(long, env = "DIOLKOS_MESH_ROOT_DAYS", global = true, value_name = "DAYS")]
    pub mesh_root_days: Option<u64>,
    /// JSON file of external authorizers that AuthorizationPolicies may name (Istio's extensionProviders).
    #[arg(long, env = "DIOLKOS_MESH_PROVIDERS", global = true, value_name = "FILE")]
    pub mesh_providers: Option<PathBuf>,
    /// JSON file of other trust domains: `[{"trustDomain", "bundleEndpoint"}]`.
    #[arg(long, env = "DIOLKOS_MESH_FEDERATION", global = true, value_name = "FILE")]
    pub mesh_federation: Option<PathBuf>,
    /// kubeconfig of the API server to use, for `node`, `proxy` and the tools [default: the one in the data directory].
    #[arg(long, env = "DIOLKOS_KUBECONFIG", global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Sample every N seconds what nodes and proxies measure [default: 5].
    #[arg(long, env = "DIOLKOS_SCRAPE_S", global = true, value_name = "S")]
    pub scrape_s: Option<u64>,
}

/// The settings in force: everything present, everything checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub log: tracing::Level,
    pub log_json: bool,
    pub node_name: String,
    pub node_ip: IpAddr,
    /// `None`: not said.
    pub node_labels: Option<Vec<(String, String)>>,
    pub node_taints: Vec<Taint>,
    pub api_listen: SocketAddr,
    pub dashboard_listen: SocketAddr,
    pub node_listen: SocketAddr,
    pub mesh_listen: SocketAddr,
    pub proxy_admin: SocketAddr,
    pub proxy_workers: usize,
    pub proxy_poll_us: u64,
    pub proxy_drain_s: u64,
    pub access_log: bool,
    pub access_log_format: Option<String>,
    pub access_log_file: Option<PathBuf>,
    pub traces_to: Option<String>,
    pub traces_ca: Option<PathBuf>,
    /// The list of controllers as given.
    pub controllers: String,
    pub trace_sampling: f64,
    pub skywalking_listen: Option<SocketAddr>,
    pub skywalking_token: Option<String>,
    pub service_cidr: Cidr,
    pub pod_cidr: Cidr,
    pub gateway_cidr: Option<Cidr>,
    pub cluster_domain: String,
    pub workload_cert_ttl_s: u64,
    pub mesh_root_days: u64,
    pub kubeconfig: Option<PathBuf>,
    /// File of external authorizers.
    pub mesh_providers: Option<PathBuf>,
    /// File of other trust domains.
    pub mesh_federation: Option<PathBuf>,
    pub scrape_s: u64,
}

/// An IPv4 range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub base: Ipv4Addr,
    pub prefix: u8,
}

impl Cidr {
    fn parse(text: &str) -> Option<Cidr> {
        let (base, prefix) = text.split_once('/')?;
        let (base, prefix) = (base.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok()?);
        let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        (prefix <= 30 && u32::from(base) & host_bits == 0).then_some(Cidr { base, prefix })
    }

    /// The `n`th address of the range.
    pub fn address(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + n)
    }

    fn overlaps(&self, other: &Cidr) -> bool {
        let shift = 32 - u32::from(self.prefix.min(other.prefix));
        u32::from(self.base) >> shift == u32::from(other.base) >> shift
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl Settings {
    /// These settings, completed from the file that they name (or the one at its usual place, if it is there) and the defaults.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let usual = Path::new("/etc/diolkos/config.toml");
        let file = match &self.config {
            Some(path) => Some(path.clone()),
            None => usual.exists().then(|| usual.to_path_buf()),
        };
        let lower = file.map(|path| Settings::from_file(&path)).transpose()?.unwrap_or_default();
        self.or(lower).check()
    }

    fn from_file(path: &Path) -> Result<Settings, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.into(), error })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse { path: path.into(), error: Box::new(error) })
    }

    fn or(self, lower: Settings) -> Settings {
        Settings {
            config: self.config,
            data_dir: self.data_dir.or(lower.data_dir),
            run_dir: self.run_dir.or(lower.run_dir),
            log: self.log.or(lower.log),
            log_format: self.log_format.or(lower.log_format),
            node_name: self.node_name.or(lower.node_name),
            node_ip: self.node_ip.or(lower.node_ip),
            node_labels: self.node_labels.or(lower.node_labels),
            node_taints: self.node_taints.or(lower.node_taints),
            api_listen: self.api_listen.or(lower.api_listen),
            dashboard_listen: self.dashboard_listen.or(lower.dashboard_listen),
            node_listen: self.node_listen.or(lower.node_listen),
            mesh_listen: self.mesh_listen.or(lower.mesh_listen),
            proxy_admin: self.proxy_admin.or(lower.proxy_admin),
            proxy_workers: self.proxy_workers.or(lower.proxy_workers),
            proxy_poll_us: self.proxy_poll_us.or(lower.proxy_poll_us),
            proxy_drain_s: self.proxy_drain_s.or(lower.proxy_drain_s),
            access_log: self.access_log.or(lower.access_log),
            access_log_format: self.access_log_format.or(lower.access_log_format),
            access_log_file: self.access_log_file.or(lower.access_log_file),
            traces_to: self.traces_to.or(lower.traces_to),
            traces_ca: self.traces_ca.or(lower.traces_ca),
            controllers: self.controllers.or(lower.controllers),
            trace_sampling: self.trace_sampling.or(lower.trace_sampling),
            skywalking_listen: self.skywalking_listen.or(lower.skywalking_listen),
            skywalking_token: self.skywalking_token.or(lower.skywalking_token),
            service_cidr: self.service_cidr.or(lower.service_cidr),
            pod_cidr: self.pod_cidr.or(lower.pod_cidr),
            gateway_cidr: self.gateway_cidr.or(lower.gateway_cidr),
            cluster_domain: self.cluster_domain.or(lower.cluster_domain),
            workload_cert_ttl_s: self.workload_cert_ttl_s.or(lower.workload_cert_ttl_s),
            mesh_root_days: self.mesh_root_days.or(lower.mesh_root_days),
            mesh_providers: self.mesh_providers.or(lower.mesh_providers),
            mesh_federation: self.mesh_federation.or(lower.mesh_federation),
            kubeconfig: self.kubeconfig.or(lower.kubeconfig),
            scrape_s: self.scrape_s.or(lower.scrape_s),
        }
    }

    fn check(self) -> Result<Config, ConfigError> {
        let value = |place, what: String, mend: &str| ConfigError::Value { place, what, mend: mend.into() };
        let log = self.log.as_deref().unwrap_or("info");
        let log = log
            .parse()
            .map_err(|_| value("log", format!("{log:?} is no log level"), "one of error, warn, info, debug, trace"))?;
        let log_json = match self.log_format.as_deref().unwrap_or("text") {
            "text" => false,
            "json" => true,
            other => return Err(value("log-format", format!("{other:?} is no format"), "text or json")),
        };
        let node_name = self.node_name.unwrap_or_else(host_name);
        if !is_dns_name(&node_name) {
            let mend = "lower case letters, digits, '-' and '.', at most 253 (--node-name)";
            return Err(value("node-name", format!("{node_name:?} is no name for a node"), mend));
        }
        let cluster_domain = self.cluster_domain.unwrap_or_else(|| "cluster.local".into());
        if !is_dns_name(&cluster_domain) {
            return Err(value(
                "cluster-domain",
                format!("{cluster_domain:?} is no DNS domain"),
                "such as cluster.local",
            ));
        }
        let service_cidr = cidr("service-cidr", self.service_cidr, "10.96.0.0/16")?;
        let pod_cidr = cidr("pod-cidr", self.pod_cidr, "10.244.0.0/24")?;
        if service_cidr.overlaps(&pod_cidr) {
            let what = format!("{pod_cidr} overlaps the addresses of Services, {service_cidr}");
            return Err(value("pod-cidr", what, "choose ranges that have no address in common"));
        }
        let gateway_cidr = match self.gateway_cidr.as_deref() {
            Some("none") => None,
            _ => Some(cidr("gateway-cidr", self.gateway_cidr, "10.98.0.0/22")?),
        };
        if let Some(range) = gateway_cidr.filter(|it| it.overlaps(&service_cidr) || it.overlaps(&pod_cidr)) {
            let what = format!("{range} overlaps the addresses of Services or pods");
            return Err(value("gateway-cidr", what, "choose ranges that have no address in common"));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = Config {
            data_dir: self.data_dir.unwrap_or_else(|| "/var/lib/diolkos".into()),
            run_dir: self.run_dir.unwrap_or_else(|| "/run/diolkos".into()),
            log,
            log_json,
            node_name,
            node_ip: self.node_ip.unwrap_or_else(default_ip),
            node_labels: self.node_labels.as_deref().map(node::labels).transpose()?,
            node_taints: self.node_taints.as_deref().map(node::taints).transpose()?.unwrap_or_default(),
            api_listen: self.api_listen.unwrap_or_else(|| any(6443)),
            dashboard_listen: self.dashboard_listen.unwrap_or_else(|| loopback(7070)),
            node_listen: self.node_listen.unwrap_or_else(|| any(10250)),
            mesh_listen: self.mesh_listen.unwrap_or_else(|| any(15012)),
            proxy_admin: self.proxy_admin.unwrap_or_else(|| loopback(15020)),
            proxy_workers: self.proxy_workers.unwrap_or(cores),
            proxy_poll_us: self.proxy_poll_us.unwrap_or(200),
            proxy_drain_s: self.proxy_drain_s.unwrap_or(600),
            access_log: self.access_log.unwrap_or(false),
            access_log_format: self.access_log_format,
            access_log_file: self.access_log_file,
            traces_to: self.traces_to,
            traces_ca: self.traces_ca,
            controllers: self.controllers.unwrap_or_else(|| "*".to_owned()),
            trace_sampling: self.trace_sampling.unwrap_or(0.01),
            skywalking_listen: self.skywalking_listen,
            skywalking_token: self.skywalking_token,
            service_cidr,
            pod_cidr,
            gateway_cidr,
            cluster_domain,
            workload_cert_ttl_s: self.workload_cert_ttl_s.unwrap_or(86_400),
            mesh_root_days: self.mesh_root_days.unwrap_or(1_825),
            mesh_providers: self.mesh_providers,
            mesh_federation: self.mesh_federation,
            kubeconfig: self.kubeconfig,
            scrape_s: self.scrape_s.unwrap_or(5),
        };
        config.bounds()
    }
}

impl Config {
    fn bounds(self) -> Result<Config, ConfigError> {
        let value = |place, what: String, mend: &str| ConfigError::Value { place, what, mend: mend.into() };
        if !(1..=1024).contains(&self.proxy_workers) {
            return Err(value("proxy-workers", format!("{} workers", self.proxy_workers), "from 1 to 1024"));
        }
        if self.proxy_poll_us > 1_000 {
            let what = format!("{} us", self.proxy_poll_us);
            return Err(value("proxy-poll-us", what, "at most 1000; 0 turns it off"));
        }
        if !(10..=31_536_000).contains(&self.workload_cert_ttl_s) {
            let what = format!("{} s", self.workload_cert_ttl_s);
            return Err(value("workload-cert-ttl-s", what, "from 10 s to a year"));
        }
        if self.mesh_root_days > 3_285 {
            let what = format!("{} days", self.mesh_root_days);
            return Err(value(
                "mesh-root-days",
                what,
                "up to 3285: a root is valid for ten years, and the next one needs time to follow",
            ));
        }
        if let Err(what) = self.collectors() {
            return Err(value("traces-to", what, "one or more of these, with commas between"));
        }
        if !(0.0..=1.0).contains(&self.trace_sampling) {
            return Err(value("trace-sampling", format!("{}", self.trace_sampling), "a share from 0 to 1"));
        }
        if let Err(control::UnknownController(name)) = control::switched_off(&self.controllers) {
            return Err(value(
                "controllers",
                format!("no controller {name:?}"),
                "docs/configuration.md has their names",
            ));
        }
        if let Err(error) = self.access_log_settings() {
            return Err(value("access-log-format", error.to_string(), "docs/mesh.md lists the operators"));
        }
        if !(2..=86_400).contains(&self.proxy_drain_s) {
            return Err(value("proxy-drain-s", format!("{} s", self.proxy_drain_s), "from 2 s to a day"));
        }
        if !(1..=3600).contains(&self.scrape_s) {
            return Err(value("scrape-s", format!("{} s", self.scrape_s), "from 1 s to an hour"));
        }
        for (place, dir) in [("data-dir", &self.data_dir), ("run-dir", &self.run_dir)] {
            if !dir.is_absolute() {
                let mend = "an absolute path: containers are given paths below it";
                return Err(value(place, format!("{} is a relative path", dir.display()), mend));
            }
        }
        Ok(self)
    }

    fn collectors(&self) -> Result<Vec<proxy::Exporter>, String> {
        let text = self.traces_to.as_deref().unwrap_or_default();
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(proxy::Exporter::parse).collect()
    }

    /// Whether and where to proxies send spans. Checked already: a mistake counts as nothing.
    pub fn tracing(&self) -> proxy::Tracing {
        let exporters = self.collectors().unwrap_or_default();
        proxy::Tracing { exporters, sampling: self.trace_sampling, ca: self.traces_ca.clone() }
    }

    fn access_log_settings(&self) -> Result<proxy::access::Settings, proxy::access::FormatError> {
        let format = proxy::access::Format::parse(self.access_log_format.as_deref().unwrap_or_default())?;
        Ok(proxy::access::Settings { format, file: self.access_log_file.clone() })
    }

    /// Whether and how proxies log requests. Checked already: a mistake counts as the default.
    pub fn access(&self) -> Option<proxy::access::Settings> {
        self.access_log.then(|| self.access_log_settings().unwrap_or_default())
    }

    /// kubeconfig of the administrator, written by the server at its first start.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone().unwrap_or_else(|| self.data_dir.join("admin.kubeconfig"))
    }

    /// kubeconfig of this machine's node agent and proxy.
    pub fn node_kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone().unwrap_or_else(|| self.data_dir.join("node.kubeconfig"))
    }

    /// Where the SPIFFE Workload API's socket lies; pods that ask for it get the directory.
    pub fn workload_api_dir(&self) -> PathBuf {
        self.run_dir.join("workload-api")
    }

    /// Address of the cluster's DNS.
    pub fn cluster_dns(&self) -> Ipv4Addr {
        self.service_cidr.address(10)
    }

    /// Address of the `kubernetes` Service.
    pub fn kubernetes_vip(&self) -> Ipv4Addr {
        self.service_cidr.address(1)
    }

    /// Where processes on this machine dial a listener.
    pub fn dial(listen: SocketAddr) -> SocketAddr {
        let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
        SocketAddr::new(ip, listen.port())
    }
}

fn cidr(place: &'static str, text: Option<String>, default: &str) -> Result<Cidr, ConfigError> {
    let text = text.unwrap_or_else(|| default.into());
    Cidr::parse(&text).ok_or_else(|| ConfigError::Value {
        place,
        what: format!("{text:?} is no IPv4 range whose host bits are 0"),
        mend: format!("such as {default}"),
    })
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if is_dns_name(&name) { name } else { "node".into() }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The address that the kernel would send from; no packet is sent. A machine without a route still has itself.
fn default_ip() -> IpAddr {
    let found = || {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
        socket.connect(("192.0.2.1", 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    found().filter(|ip| !ip.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Config, String> {
        let parsed: Result<Settings, _> = toml::from_str(text);
        parsed.map_err(|error| error.to_string())?.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_mistake_is_answered_with_its_place_and_mend() {
        for (text, expect) in [
            ("data-dri = '/x'", "unknown field `data-dri`"),
            ("api-listen = 'here'", "line 1, column 14"),
            ("log = 'loud'", "log: \"loud\" is no log level"),
            ("pod-cidr = '10.244.0.1/24'", "pod-cidr: \"10.244.0.1/24\" is no IPv4 range"),
            ("pod-cidr = '10.96.3.0/24'", "pod-cidr: 10.96.3.0/24 overlaps"),
            ("node-name = 'Über'", "node-name:"),
            ("data-dir = 'here'", "data-dir: here is a relative path"),
            ("proxy-workers = 0", "proxy-workers: 0 workers"),
            ("proxy-poll-us = 5000", "proxy-poll-us: 5000 us"),
            ("node-labels = 'a=b c'", "node-labels: \"a=b c\""),
        ] {
            let error = file(text).expect_err(text);
            assert!(error.contains(expect), "{text}: {error}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = Settings { log: Some("debug".into()), ..Settings::default() };
        let lower = toml::from_str("log = 'warn'\nnode-name = 'a'").unwrap();
        let config = flags.or(lower).check().unwrap();
        assert_eq!((config.log, &*config.node_name), (tracing::Level::DEBUG, "a"));
    }

    #[test]
    fn ranges() {
        let cidr = Cidr::parse("10.96.0.0/16").unwrap();
        assert_eq!(cidr.address(10), Ipv4Addr::new(10, 96, 0, 10));
        assert!(Cidr::parse("10.96.0.0/33").is_none());
        assert!(cidr.overlaps(&Cidr::parse("10.0.0.0/8").unwrap()));
        assert!(!cidr.overlaps(&Cidr::parse("10.97.0.0/16").unwrap()));
    }
}

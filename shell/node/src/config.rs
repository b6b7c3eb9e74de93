//! What the node agent is told at start.

use crate::cni::PodCidr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings of one node agent and of the containerd that belongs to it. Parsed by `app`; nothing is read from the environment here.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Node object's name; also its `kubernetes.io/hostname`.
    pub node_name: String,
    /// The address that the node is reached at: `InternalIP`, `status.hostIP`.
    pub node_ip: IpAddr,
    /// Durable files: images, containers, volumes, logs.
    pub data_dir: PathBuf,
    /// Sockets and other files that a reboot may lose.
    pub run_dir: PathBuf,
    /// Where pods of this node get addresses from, when the Node object does not say (`spec.podCIDR`).
    pub pod_cidr: String,
    /// Addresses of every pod of the cluster: what goes elsewhere leaves with the node's address.
    pub cluster_cidr: String,
    /// Name of the bridge that pods hang on, at most 15 characters; by default it is made from the pod range, so that nodes of
    /// different ranges on one machine (or a range that was changed) do not meet on one bridge.
    pub bridge: Option<String>,
    /// `clusterDNS`.
    pub cluster_dns: Vec<IpAddr>,
    /// `clusterDomain`.
    pub cluster_domain: String,
    /// Labels of the Node object besides the well-known ones: zone, region, roles.
    pub labels: Vec<(String, String)>,
    /// Taints that the Node object is registered with, as `key=value:effect`.
    pub taints: Vec<(String, String, String)>,
    /// Port of the agent's HTTPS server.
    pub port: u16,
    /// PEM files of the HTTPS server: certificate chain, key, and the CA whose clients are let in.
    pub tls: Option<TlsFiles>,
    /// The proxy's socket; `None` runs pods without mesh.
    pub proxy_socket: Option<PathBuf>,
    /// Directory of the SPIFFE Workload API's socket, for pods that ask for it.
    pub workload_api: Option<PathBuf>,
    /// The proxy's admin endpoint, relayed under `/telemetry`.
    pub proxy_admin: String,
    /// Pods that a node takes at most.
    pub max_pods: u32,
    /// Kept from pods, in milli-CPU and bytes: capacity less this is allocatable.
    pub reserved_cpu_m: i64,
    pub reserved_memory: i64,
    /// How long a pod that is going away keeps serving after the proxy was told to drain it: what the other proxies of the
    /// cluster need to learn of it.
    pub drain_delay: Duration,
    /// Host and port that containers find the API server at (`KUBERNETES_SERVICE_HOST`).
    pub api_service: (String, u16),
    /// Parent of all pod cgroups.
    pub cgroup_root: String,
    /// Log files larger than this are rotated, keeping `log_files` of them.
    pub log_max_bytes: u64,
    pub log_files: usize,
    /// Images that no container uses are removed when the disk is fuller than `high` percent, until it is below `low`.
    pub image_gc_high_percent: u64,
    pub image_gc_low_percent: u64,
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_ca: PathBuf,
}

impl Config {
    /// The defaults of a single machine, for the node `node_name` at `node_ip`.
    pub fn new(node_name: &str, node_ip: IpAddr, data_dir: &Path, run_dir: &Path) -> Self {
        Config {
            node_name: node_name.to_owned(),
            node_ip,
            data_dir: data_dir.to_owned(),
            run_dir: run_dir.to_owned(),
            pod_cidr: "10.244.0.0/24".to_owned(),
            cluster_cidr: "10.244.0.0/16".to_owned(),
            bridge: None,
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".to_owned(),
            labels: Vec::new(),
            taints: Vec::new(),
            port: 10250,
            tls: None,
            proxy_socket: None,
            workload_api: None,
            proxy_admin: "127.0.0.1:15020".to_owned(),
            max_pods: 110,
            reserved_cpu_m: 0,
            reserved_memory: 100 << 20,
            drain_delay: Duration::from_secs(2),
            api_service: ("10.96.0.1".to_owned(), 443),
            cgroup_root: "/diolkos".to_owned(),
            log_max_bytes: 10 << 20,
            log_files: 5,
            image_gc_high_percent: 85,
            image_gc_low_percent: 80,
        }
    }

    /// The CRI socket of the node's own containerd.
    pub fn containerd_socket(&self) -> PathBuf {
        self.run_dir.join("containerd.sock")
    }

    /// The bridge for pods of `cidr`; also the name of the node's nftables table.
    pub fn bridge_of(&self, cidr: PodCidr) -> String {
        self.bridge.clone().unwrap_or_else(|| format!("dio{:08x}", u32::from(cidr.gateway()) - 1))
    }

    /// Volumes and other files of one pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("node/pods").join(uid)
    }

    /// Where the runtime writes the logs of one pod.
    pub fn log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.data_dir.join("node/logs").join(format!("{namespace}_{name}_{uid}"))
    }
}

//! Mesh control: compiles objects into proxies' configuration, serves it over delta xDS, signs workload certificates, admits joined hosts.
//!
//! ```text
//! informers -> facts -> traffic::Compiler -> xds::Catalog -> one session a stream -> proxies
//!                             |-> statuses of gateways and routes -> API
//! proxies -> certificate requests -> identities of the asking node's pods only -> mesh CA
//! hosts -> join (bootstrap token) -> WorkloadEntry, Service, EndpointSlice; gone again with their stream
//! ```
//! One task owns the order of changes: it takes facts, waits a few milliseconds for more, compiles what they touch and tells all streams
//! that there is news. A stream that has not acknowledged yet is told later and then everything at once, so a slow proxy costs nothing.

mod accounts;
mod ads;
mod ca;
mod certificates;
mod core;
mod doorkeeper;
mod ear;
mod envoy;
pub mod federation;
mod hosts;
mod identity;
mod join;
mod jwks;
mod listen;
mod names;
pub mod providers;
mod report;
mod services;
mod statuses;
mod trust;
mod xmesh;

#[cfg(test)]
mod tests;

pub use ca::{CaError, MeshCa};
pub use identity::Caller;
pub use traffic::AddressPool;

use crate::mesh::core::Core;
use crate::mesh::ear::{Ear, Fact};
use crate::subscriber::Subscriber;
use client::ObjectApi;
use model::mesh::ExtensionProvider;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// How mesh control runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where proxies connect (gRPC under TLS).
    pub listen: SocketAddr,
    /// Directory of `ca.crt` (whom to trust as a node), `server.crt`, `server.key`; `mesh-ca.json` is made there when missing.
    pub pki_dir: PathBuf,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// `cluster.local`.
    pub trust_domain: String,
    /// Lifetime of workload certificates; a proxy may ask for less.
    pub certificate_ttl: Duration,
    /// A root older than this is replaced; none: only when somebody asks.
    pub root_age: Option<Duration>,
    /// How long a joined host stays an endpoint after its stream ended.
    pub host_grace: Duration,
    /// Who can be asked about requests (CUSTOM policies).
    pub providers: Vec<ExtensionProvider>,
    /// Other trust domains.
    pub federated: Vec<federation::Federated>,
    /// How long to wait for more changes before compiling.
    pub debounce: Duration,
    /// Address ranges of services, for hosts that join.
    pub service_cidrs: Vec<String>,
    /// Addresses that gateways are given; without any they have only the nodes'.
    pub gateway_addresses: Option<AddressPool>,
}

impl Config {
    /// The defaults, with the key material of `pki_dir`.
    pub fn new(pki_dir: PathBuf) -> Self {
        Config {
            listen: SocketAddr::from(([0, 0, 0, 0], 15012)),
            pki_dir,
            cluster_domain: "cluster.local".into(),
            trust_domain: "cluster.local".into(),
            certificate_ttl: Duration::from_secs(24 * 3600),
            root_age: None,
            host_grace: Duration::from_secs(5),
            providers: Vec::new(),
            federated: Vec::new(),
            debounce: Duration::from_millis(3),
            service_cidrs: vec!["10.96.0.0/16".into()],
            gateway_addresses: None,
        }
    }
}

/// Why mesh control does not start. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The port cannot be had.
    #[error("mesh control cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Key material is missing or broken.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The server's TLS configuration cannot be made.
    #[error("mesh control's TLS: {0}")]
    Tls(String),
}

/// Mesh control, bound to its port. [`run`](Mesh::run) makes it work on what its [`ear`](Mesh::ear) hears.
pub struct Mesh {
    core: Arc<Core>,
    ear: Arc<Ear>,
    heard: mpsc::UnboundedReceiver<Fact>,
    listener: TcpListener,
}

/// For whoever wants to know how the mesh is. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    core: Arc<Core>,
}

impl Handle {
    /// What `/diolkos/v1/mesh` answers: for each proxy, what it was told and accepted of each type, and what it refused and why.
    pub fn report(&self) -> serde_json::Value {
        report::report(&self.core)
    }
    /// What `/diolkos/v1/services` answers, and `/diolkos/v1/services/NAMESPACE/NAME`. None: there is no such service.
    pub fn services(&self, rest: &str) -> Option<serde_json::Value> {
        match rest.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
            Some((namespace, name)) => services::one(&self.core, &model::Key::new(namespace, name)),
            None => rest.is_empty().then(|| services::list(&self.core)),
        }
    }
    /// Resolves when the first configuration is complete.
    pub async fn ready(&self) {
        self.core.ready().await;
    }
    /// The trust domain's bundle, for other trust domains to fetch (SPIFFE bundle format).
    pub fn bundle(&self) -> serde_json::Value {
        federation::document(&self.core.ca.bundle())
    }
    /// Begins to replace the mesh's root by a new one. The old one is trusted until nothing rests on it any more.
    ///
    /// # Errors
    /// One is being replaced already, or the keys cannot be made or kept.
    pub fn rotate_root(&self) -> Result<(), CaError> {
        trust::rotate_root(&self.core)
    }
    /// Signs with a new intermediate from now on.
    ///
    /// # Errors
    /// It cannot be made or kept.
    pub fn rotate_intermediate(&self) -> Result<(), CaError> {
        self.core.ca.renew_intermediate(true, core::now().as_secs()).map(drop)
    }
    /// The mesh's trust roots, PEM.
    pub fn trust_bundle(&self) -> Vec<String> {
        self.core.ca.roots()
    }
}

impl Mesh {
    /// Opens key material and binds the port.
    ///
    /// # Errors
    /// See [`MeshError`].
    pub async fn bind(api: Arc<dyn ObjectApi>, config: Config) -> Result<Mesh, MeshError> {
        let limits = control::trust::Limits {
            root_age_s: config.root_age.map(|age| age.as_secs()),
            leaf_ttl_s: config.certificate_ttl.as_secs(),
        };
        let ca = MeshCa::open(&config.pki_dir, &config.trust_domain, limits)?;
        let tls = listen::Tls::new(&config.pki_dir, &ca)?;
        let address = config.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| MeshError::Listen { address, source })?;
        let (ear, heard) = Ear::new();
        let core = Arc::new(Core::new(api, config, ca, tls));
        Ok(Mesh { core, ear: Arc::new(ear), heard, listener })
    }

    /// A handle to ask about it.
    pub fn handle(&self) -> Handle {
        Handle { core: self.core.clone() }
    }

    /// What has to follow the informers: without it mesh control knows nothing and never is ready.
    pub fn ear(&self) -> Arc<dyn Subscriber> {
        self.ear.clone()
    }

    /// Where it listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Works until `shutdown` resolves; streams are ended then.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(core::run(self.core.clone(), self.heard));
        tasks.spawn(names::run(self.core.clone(), self.ear.sender()));
        tasks.spawn(jwks::run(self.core.clone(), self.ear.sender()));
        tasks.spawn(statuses::run(self.core.clone()));
        tasks.spawn(hosts::run(self.core.clone()));
        tasks.spawn(trust::run(self.core.clone()));
        tasks.spawn(federation::run(self.core.clone()));
        tasks.spawn(listen::run(self.core.clone(), self.listener, stopped));
        shutdown.await;
        let _ = stop.send(true);
        // Streams end by themselves on `stopped`; everything else holds nothing that must be finished.
        tokio::time::sleep(Duration::from_millis(50)).await;
        tasks.shutdown().await;
    }
}

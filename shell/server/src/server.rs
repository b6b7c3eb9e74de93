//! Starting and stopping.

use crate::access::{self, RoleTable};
use crate::admission::{self, PendingQuota};
use crate::authn::jwt::TokenKey;
use crate::config::Config;
use crate::core::{Core, Gates, random_hex};
use crate::extension::Extension;
use crate::in_process::{InProcess, system_caller};
use crate::listen::{self, Door};
use crate::metrics::Metrics;
use crate::pki::{Pki, PkiError};
use crate::services::ServiceNetwork;
use crate::{bootstrap, custom};
use arc_swap::ArcSwap;
use client::ObjectApi;
use kube::{Registry, Status};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use storage::Store;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Why the server did not start. Nothing of it is left running.
#[derive(Debug, Error)]
pub enum StartError {
    /// A port is taken or not allowed.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The store.
    #[error(transparent)]
    Store(#[from] storage::OpenError),
    /// TLS refuses our own key material.
    #[error("the certificates under {} cannot be used: {what}", dir.display())]
    Tls {
        /// Where they are.
        dir: PathBuf,
        /// Why.
        what: String,
    },
    /// The first objects could not be written.
    #[error("cannot write the cluster's first objects: {0}")]
    Bootstrap(Status),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there: stop it, or choose another port)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root)",
        _ => "",
    }
}

/// A server whose store is open and whose sockets are bound, not yet serving.
pub struct Server {
    core: Arc<Core>,
    listener: TcpListener,
    dashboard: Option<TcpListener>,
    stop: watch::Sender<bool>,
}

/// Starts a server and serves until `shutdown` is done.
///
/// # Errors
/// See [`StartError`].
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    Server::start(config, Vec::new()).await?.serve(shutdown).await;
    Ok(())
}

impl Server {
    /// Binds, opens the store, makes or reads the PKI, writes the first objects. Nobody is served before [`Server::serve`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config, extensions: Vec<Arc<dyn Extension>>) -> Result<Server, StartError> {
        let mut config = config;
        // Sockets first: a second server on the same data directory should fail for the port, before it touches a file.
        let listener = bind(config.listen).await?;
        config.listen =
            listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
        let dashboard = match config.dashboard {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let now_s = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        let pki = Pki::open(&config, now_s)?;
        let (store, recovery) = Store::open(&config.data_dir.join("store"), config.store.clone())?;
        tracing::info!(?recovery, revision = store.revision(), "store open");
        let (stop, shutdown) = watch::channel(false);
        let core = assemble(config, pki, store, extensions, shutdown)?;
        let core = Arc::new_cyclic(|me| Core { me: me.clone(), ..core });
        bootstrap::run(&core).await.map_err(StartError::Bootstrap)?;
        core.pki.write_kubeconfigs(&core.config.data_dir, &core.url(), &core.dashboard_token)?;
        Ok(Server { core, listener, dashboard, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.core.config.listen
    }

    /// The API for controllers in this process, acting as the platform itself.
    pub fn in_process(&self) -> Arc<dyn ObjectApi> {
        self.in_process_as("diolkos-manager")
    }

    /// The same under another field manager's name.
    pub fn in_process_as(&self, manager: &str) -> Arc<dyn ObjectApi> {
        Arc::new(InProcess { core: self.core.clone(), caller: system_caller(manager) })
    }

    /// Key material, for the mesh's control plane and for joining nodes.
    pub fn pki(&self) -> &Pki {
        &self.core.pki
    }

    /// Token of the dashboard's user.
    pub fn dashboard_token(&self) -> &str {
        &self.core.dashboard_token
    }

    /// Serves until `shutdown` is done, then closes watches, lets requests finish, and returns.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Server { core, listener, dashboard, stop } = self;
        let mut tasks = JoinSet::new();
        let acceptor = match listen::tls_config(&core.pki) {
            Ok(tls) => TlsAcceptor::from(Arc::new(tls)),
            Err(what) => return tracing::error!(%what, "TLS refuses the key material that it took at start"),
        };
        tasks.spawn(listen::serve(core.clone(), listener, Door::Tls(acceptor), core.shutdown.clone()));
        if let Some(listener) = dashboard {
            tasks.spawn(listen::serve(core.clone(), listener, Door::Dashboard, core.shutdown.clone()));
        }
        tasks.spawn(access::follow(core.clone()));
        tasks.spawn(custom::follow(core.clone()));
        tasks.spawn(admission::follow_quotas(core.clone()));
        tasks.spawn(bootstrap::follow_kubernetes_service(core.clone()));
        shutdown.await;
        // Everybody who waits on the store or the clock hears this.
        let _ = stop.send(true);
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the API server failed");
            }
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn assemble(
    config: Config,
    pki: Pki,
    store: Store,
    extensions: Vec<Arc<dyn Extension>>,
    shutdown: watch::Receiver<bool>,
) -> Result<Core, StartError> {
    let unusable = |what: String| StartError::Tls { dir: pki.dir.clone(), what };
    let token_key = TokenKey::new(&pki.sa_key).map_err(unusable)?;
    // Fails here rather than at the first connection.
    listen::tls_config(&pki).map_err(unusable)?;
    let identity = (pki.node_client.certificate_pem.as_bytes(), pki.node_client.key_pem.as_bytes());
    let node_tls = client::client_tls(Some(pki.authority.certificate_pem().as_bytes()), Some(identity), &[b"http/1.1"])
        .map_err(|error| unusable(error.to_string()))?;
    let dashboard_token = pki.dashboard_token(random_hex(32))?;
    let registry = custom::load(Registry::builtin(), &store);
    let gates = Gates {
        reads: Semaphore::new(config.limits.reads),
        mutations: Semaphore::new(config.limits.mutations),
        streams: Arc::new(Semaphore::new(config.limits.streams)),
    };
    Ok(Core {
        me: Weak::new(),
        registry: ArcSwap::from_pointee(registry),
        definitions: Mutex::default(),
        roles: RoleTable::load(&store),
        services: ServiceNetwork::load(&store, config.service_cidr, config.node_ports),
        token_key,
        dashboard_token,
        node_tls: Arc::new(node_tls),
        pki,
        store,
        metrics: Metrics::default(),
        gates,
        extensions,
        shutdown,
        marker: format!("revision-{}", random_hex(16)),
        quota: PendingQuota::default(),
        eviction: tokio::sync::Mutex::new(()),
        config,
    })
}

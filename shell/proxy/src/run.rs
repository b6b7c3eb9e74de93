//! The process: what runs, on which thread, and how it stops.
use crate::access::AccessLog;
use crate::attach::Attacher;
use crate::config::Config;
use crate::handover::{self, Inherited, TakeError, Taking};
use crate::identity::Identity;
use crate::identity::{Identities, Issuer};
use crate::mesh::Change;
use crate::pods::{Pod, PodSockets};
use crate::shared::Shared;
use crate::worker::{self, Command};
use crate::{admin, gateway, trace, workload_api};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// The proxy cannot start. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    #[error("cannot serve on {path}: {source}")]
    Attach { path: PathBuf, source: io::Error },
    #[error("cannot write the access log{}: {source}", .path.as_ref().map(|it| format!(" {}", it.display())).unwrap_or_default())]
    AccessLog { path: Option<PathBuf>, source: io::Error },
    #[error("cannot show metrics on {address}: {source}")]
    Admin { address: std::net::SocketAddr, source: io::Error },
    #[error("cannot wait for a successor on {path}: {source}")]
    Handover { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Take(#[from] TakeError),
    #[error("not ready to take over from the running proxy, which serves on: {0}")]
    NotReady(String),
}

/// A running proxy.
pub struct Proxy {
    /// What its threads share.
    pub shared: Arc<Shared>,
    /// Attaches pods.
    pub attacher: Attacher,
    runtime: tokio::runtime::Runtime,
    commands: Vec<mpsc::UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
    handover: Option<handover::Door>,
}

/// Every pod costs half a dozen file descriptors a worker, and every connection two; the usual soft limit of 1024 exists for
/// programs that use `select`.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files cannot be raised");
    }
}

/// A proxy touches little of its heap: whole huge pages for it would be three quarters of what an idle process has.
fn keep_pages_small() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages stay");
    }
}

impl Proxy {
    /// Starts workers and everything that needs no control plane. Must not be called within a runtime.
    pub fn start(config: Config, issuer: Arc<dyn Issuer>) -> Result<Self, StartError> {
        let mut proxy = Self::prepare(config, issuer)?;
        proxy.serve_gateways();
        proxy.show(None)?;
        proxy.open_doors()?;
        Ok(proxy)
    }

    /// Starts as the successor of a running proxy; it serves from [`Successor::begin`] on. Must not be called within a runtime.
    pub fn succeed(
        config: Config,
        issuer: Arc<dyn Issuer>,
        (inherited, taking): (Inherited, Taking),
    ) -> Result<Successor, StartError> {
        let proxy = Self::prepare(config, issuer)?;
        let mut pods = Vec::new();
        for mut pod in inherited.pods {
            let sockets = pod.sockets(proxy.commands.len());
            match proxy.attacher.inherit(pod.attachment, pod.draining) {
                Ok(pod) => pods.push((pod, sockets)),
                // It has just gone.
                Err(error) => tracing::info!(%error, "a pod is not taken over"),
            }
        }
        proxy.shared.places.fill(inherited.places);
        Ok(Successor { proxy, pods, admin: inherited.admin, taking })
    }

    fn prepare(config: Config, issuer: Arc<dyn Issuer>) -> Result<Self, StartError> {
        raise_file_limit();
        keep_pages_small();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let identities = Identities::new(config.trust_domain.clone(), issuer, runtime.handle().clone());
        let log = config.access_log.as_ref().map(|settings| {
            let failed = |source| StartError::AccessLog { path: settings.file.clone(), source };
            AccessLog::open(settings).map_err(failed)
        });
        let shared = Arc::new(Shared::new(config, Arc::new(identities), log.transpose()?));
        runtime.spawn(trace::run(shared.clone()));
        let mut commands = Vec::new();
        let mut threads = Vec::new();
        for index in 0..shared.config.workers.max(1) {
            let (sender, thread) = worker::start(shared.clone(), index).map_err(StartError::Thread)?;
            commands.push(sender);
            threads.push(thread);
        }
        let attacher = Attacher::new(shared.clone(), commands.clone());
        Ok(Self { shared, attacher, runtime, commands, threads, handover: None })
    }

    fn serve_gateways(&self) {
        if self.shared.config.gateways {
            self.runtime.spawn(gateway::control(self.shared.clone(), self.commands.clone()));
        }
    }

    /// Shows metrics, on the predecessor's socket if there is one.
    fn show(&self, inherited: Option<std::net::TcpListener>) -> Result<(), StartError> {
        let Some(address) = self.shared.config.admin else { return Ok(()) };
        let _entered = self.runtime.enter();
        let same = inherited.filter(|listener| listener.local_addr().is_ok_and(|at| at == address));
        let listener = same.map_or_else(|| std::net::TcpListener::bind(address), Ok).and_then(|listener| {
            listener.set_nonblocking(true)?;
            self.shared.lent.admin(&listener);
            tokio::net::TcpListener::from_std(listener)
        });
        let listener = listener.map_err(|source| StartError::Admin { address, source })?;
        let (shared, leaving) = (self.shared.clone(), self.shared.clone());
        self.runtime.spawn(async move {
            tokio::select! {
                () = admin::serve(shared, listener) => {}
                () = leaving.stopped() => {}
            }
        });
        Ok(())
    }

    fn open_doors(&mut self) -> Result<(), StartError> {
        let _entered = self.runtime.enter();
        if let Some(path) = self.shared.config.attach_socket.clone() {
            let listener = self.attacher.listen(&path).map_err(|source| StartError::Attach { path, source })?;
            self.runtime.spawn(self.attacher.clone().serve(listener));
        }
        if let Some(path) = self.shared.config.workload_api.as_ref().map(|api| api.socket.clone()) {
            let listener = workload_api::listen(&path).map_err(|source| StartError::Attach { path, source })?;
            self.runtime.spawn(workload_api::serve(self.shared.clone(), listener));
        }
        if let Some(path) = self.shared.config.handover_socket.clone() {
            let door = handover::Door::open(&path, self.shared.clone());
            self.handover = Some(door.map_err(|source| StartError::Handover { path, source })?);
        }
        Ok(())
    }

    /// Applies changes of what is known, as a control plane would.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        self.shared.mesh.apply(changes);
    }

    /// The runtime of the control thread.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// Waits until a successor serves.
    pub async fn succeeded(&self) {
        self.shared.stopped().await;
    }

    /// Finishes what runs while the successor serves; cuts what has not ended when patience has. Then [`stop`](Self::stop) it.
    pub async fn leave(&self, patience: Duration) {
        self.shared.left(patience).await;
    }

    /// Stops in order: no new connections, what runs is finished, then the threads end.
    pub fn stop(self) {
        self.shared.stop();
        drop(self.attacher);
        drop(self.commands);
        for pod in self.shared.pods.list() {
            tracing::debug!(pod = %pod.attachment.name, "left attached");
        }
        self.runtime.shutdown_background();
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// After this nothing of the predecessor's is kept that nobody has asked for.
const SETTLED: Duration = Duration::from_secs(15);
/// A pause between looks whether all certificates are there.
const LOOK: Duration = Duration::from_millis(50);

/// A proxy that is to take over from another. The other serves as long as this one does not.
pub struct Successor {
    /// The proxy, which knows its pods and accepts nothing yet.
    pub proxy: Proxy,
    pods: Vec<(Arc<Pod>, Vec<PodSockets>)>,
    admin: Option<std::net::TcpListener>,
    taking: Taking,
}

impl Successor {
    /// Waits until everything is known and every identity has its certificate, serves, and lets the predecessor go.
    ///
    /// # Errors
    /// Not ready in time; the predecessor serves on.
    pub fn begin(self, patience: Duration) -> Result<Proxy, StartError> {
        let Self { mut proxy, pods, admin, taking } = self;
        let ready = async { tokio::time::timeout(patience, identities(&proxy.shared)).await };
        let held = proxy.runtime.block_on(ready).map_err(|_| {
            let why = format!("configuration and certificates did not come within {} s", patience.as_secs());
            StartError::NotReady(why)
        })?;
        for (pod, sockets) in pods {
            proxy.attacher.serve_sockets(&pod, sockets);
        }
        proxy.serve_gateways();
        proxy.show(admin)?;
        if let Err(error) = taking.serving() {
            // It was there a moment ago. We serve in any case.
            tracing::warn!(%error, "the predecessor did not answer");
        }
        proxy.open_doors()?;
        let attacher = proxy.attacher.clone();
        proxy.runtime.spawn(async move {
            tokio::time::sleep(SETTLED).await;
            drop(held);
            let _ = tokio::task::spawn_blocking(move || settle(&attacher)).await;
        });
        Ok(proxy)
    }
}

/// Waits until the control plane has told everything and all identities have certificates, gateways' too.
async fn identities(shared: &Arc<Shared>) -> Vec<Arc<Identity>> {
    shared.synced().await;
    let gateways: Vec<_> = shared.mesh.known().directory.gateways().into_iter().cloned().collect();
    let held: Vec<_> = gateways
        .iter()
        .map(|it| shared.identities.acquire(&it.gateway.key.namespace, &it.gateway.service_account))
        .collect();
    while shared.identities.live().iter().any(|identity| identity.current().is_none()) {
        tokio::time::sleep(LOOK).await;
    }
    held
}

/// Sockets that nobody asked for are closed, and pods that ended while the node agent spoke to nobody are forgotten.
fn settle(attacher: &Attacher) {
    let shared = attacher.shared();
    shared.places.clear();
    for pod in shared.pods.list() {
        if !pod.attachment.netns.is_empty() && !std::path::Path::new(&pod.attachment.netns).exists() {
            attacher.detach(&pod.attachment.uid);
        }
    }
}

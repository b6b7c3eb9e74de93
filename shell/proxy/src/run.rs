//! The process: what runs, on which thread, and how it stops.
use crate::access::AccessLog;
use crate::attach::Attacher;
use crate::config::Config;
use crate::identity::{Identities, Issuer};
use crate::mesh::Change;
use crate::shared::Shared;
use crate::worker::{self, Command};
use crate::{admin, gateway, trace};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// The proxy cannot start. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    #[error("cannot serve the node agent on {path}: {source}")]
    Attach { path: PathBuf, source: io::Error },
    #[error("cannot write the access log{}: {source}", .path.as_ref().map(|it| format!(" {}", it.display())).unwrap_or_default())]
    AccessLog { path: Option<PathBuf>, source: io::Error },
    #[error("cannot show metrics on {address}: {source}")]
    Admin { address: std::net::SocketAddr, source: io::Error },
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

impl Proxy {
    /// Starts workers and everything that needs no control plane. Must not be called within a runtime.
    pub fn start(config: Config, issuer: Arc<dyn Issuer>) -> Result<Self, StartError> {
        raise_file_limit();
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
        if shared.config.gateways {
            runtime.spawn(gateway::control(shared.clone(), commands.clone()));
        }
        let proxy = Self { shared, attacher, runtime, commands, threads };
        proxy.open_doors()?;
        Ok(proxy)
    }

    fn open_doors(&self) -> Result<(), StartError> {
        let _entered = self.runtime.enter();
        if let Some(address) = self.shared.config.admin {
            let listener = std::net::TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            });
            let listener = listener.map_err(|source| StartError::Admin { address, source })?;
            self.runtime.spawn(admin::serve(self.shared.clone(), listener));
        }
        if let Some(path) = self.shared.config.attach_socket.clone() {
            let listener = self.attacher.listen(&path).map_err(|source| StartError::Attach { path, source })?;
            self.runtime.spawn(self.attacher.clone().serve(listener));
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

//! The node agent's door: a Unix socket on which it attaches, drains and detaches pods.
use crate::pods::{AttachError, Phase, Pod, PodSockets};
use crate::shared::Shared;
use crate::worker::Command;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use xds::attach::{AttachOrder, AttachReply, AttachRequest, PodAttachment, decode, encode};

/// How long a pod's last requests, and then its connections, may take to end.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);
/// A count that is kept for each request would cost all of them; a pod ends once.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Hands attached pods to the workers.
#[derive(Clone, Debug)]
pub struct Attacher {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
}

impl Attacher {
    /// An attacher for these workers.
    pub fn new(shared: Arc<Shared>, workers: Vec<mpsc::UnboundedSender<Command>>) -> Self {
        Self { shared, workers }
    }

    /// What the process's threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    pub(crate) fn serve_sockets(&self, pod: &Arc<Pod>, sockets: Vec<PodSockets>) {
        self.shared.lent.pod(&pod.attachment.uid, &sockets);
        for (worker, sockets) in self.workers.iter().zip(sockets) {
            // A worker that is gone means that the process ends.
            let _ = worker.send(Command::Serve(pod.clone(), sockets));
        }
    }

    /// Attaches a pod. Blocks for as long as `nft` takes.
    pub fn attach(&self, attachment: PodAttachment) -> Result<(), AttachError> {
        let config = &self.shared.config;
        let name = format!("{}/{}", attachment.namespace, attachment.name);
        let pods = &self.shared.pods;
        let attached =
            pods.attach(attachment, config.ports, &config.dns_vips, self.workers.len(), &self.shared.identities)?;
        if let Some((pod, sockets)) = attached {
            self.serve_sockets(&pod, sockets);
            tracing::info!(pod = name, "attached");
        }
        Ok(())
    }

    /// Detaches a pod; one that is not known is detached already.
    pub fn detach(&self, uid: &str) {
        let Some(pod) = self.shared.pods.detach(uid) else { return };
        self.shared.lent.forget_pod(uid);
        for worker in &self.workers {
            let _ = worker.send(Command::Forget(pod.origin.serial));
        }
        tracing::info!(pod = %pod.attachment.name, namespace = %pod.attachment.namespace, "detached");
    }

    /// Detaches a pod whose processes have ended, before its network goes. What came for it and was not looked at yet is answered first (the
    /// process is gone, so callers ask elsewhere), and its connections are closed when this returns: a network that goes before them takes
    /// their ends along, and callers would wait for answers until their patience is over. Blocks, not for long.
    pub fn finish(&self, uid: &str) {
        let Some(pod) = self.shared.pods.get(uid) else { return };
        let until = Instant::now() + FINISH_PATIENCE;
        let mut quiet = self.in_flight(&pod) == 0;
        while Instant::now() < until {
            std::thread::sleep(LOOK_AGAIN);
            let still = self.in_flight(&pod) == 0;
            if quiet && still {
                break;
            }
            quiet = still;
        }
        self.detach(uid);
        pod.wait_for_connections(FINISH_PATIENCE);
    }

    /// Requests that wait for the pod's processes. A worker answers when it has done what came before.
    fn in_flight(&self, pod: &Arc<Pod>) -> u32 {
        let (answer, answers) = std::sync::mpsc::channel();
        for worker in &self.workers {
            let _ = worker.send(Command::Count(pod.clone(), answer.clone()));
        }
        drop(answer);
        std::iter::from_fn(|| answers.recv_timeout(FINISH_PATIENCE).ok()).sum()
    }

    fn obey(&self, order: AttachOrder) -> Result<(), AttachError> {
        match order {
            AttachOrder::Attach(pod) => self.attach(pod)?,
            AttachOrder::Detach(pod) => self.finish(&pod.uid),
            AttachOrder::Drain(pod) => {
                self.shared.pods.drain(&pod.uid);
                tracing::info!(uid = pod.uid, "draining");
            }
        }
        Ok(())
    }

    /// Opens the socket.
    pub fn listen(&self, path: &Path) -> io::Result<UnixListener> {
        // A socket that a killed predecessor left would refuse the bind.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Takes over a pod that a predecessor served: its sockets are open and its traffic is redirected. It is known from now on, and served
    /// when its sockets are.
    pub fn inherit(&self, attachment: PodAttachment, draining: bool) -> Result<Arc<Pod>, AttachError> {
        let shared = &self.shared;
        let pod = shared.pods.inherit(attachment, shared.config.ports, &shared.identities)?;
        if draining {
            pod.advance(Phase::Draining);
        }
        Ok(pod)
    }

    /// Serves node agents until the process ends. While a successor takes over nobody is heard: they come again, and find it or us. Who came
    /// meanwhile is let go with the socket: in its queue a node agent would wait until the last connection here has ended.
    pub async fn serve(self, listener: UnixListener) {
        loop {
            tokio::select! {
                () = self.shared.orders_held(false) => {}
                () = self.shared.stopped() => return,
            }
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shared.orders_held(true) => continue,
                () = self.shared.stopped() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let attacher = self.clone();
            tokio::spawn(async move {
                if let Err(error) = attacher.serve_agent(stream).await {
                    tracing::warn!(%error, "node agent disconnected");
                }
            });
        }
    }

    async fn serve_agent(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            while let Some(request) = decode::<AttachRequest>(&mut buffer).map_err(io::Error::other)? {
                let (id, attacher) = (request.id, self.clone());
                let done = tokio::task::spawn_blocking(move || attacher.obey(request.order)).await;
                let reply = match done.map_err(io::Error::other)? {
                    Ok(()) => AttachReply::done(id),
                    Err(error) => {
                        tracing::warn!(%error, "an order of the node agent failed");
                        AttachReply::failed(id, error.to_string())
                    }
                };
                stream.write_all(&encode(&reply).map_err(io::Error::other)?).await?;
            }
            let read = tokio::select! {
                read = stream.read_buf(&mut buffer) => read?,
                () = self.shared.orders_held(true) => return Ok(()),
            };
            if read == 0 {
                return Ok(());
            }
        }
    }
}

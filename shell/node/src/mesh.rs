//! Orders to the node's proxy: which pods it serves.
//!
//! One connection over the proxy's Unix socket. Every pod that is attached is remembered; when the proxy comes back after a restart,
//! all of them are attached again before anything else is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use xds::attach::{AttachOrder, AttachReply, AttachRequest, PodAttachment, PodRef, decode, encode};

/// Why the proxy did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// No connection to the proxy; tried again when it is back.
    #[error("the node's proxy is not running; waiting for it")]
    Down,
    /// The proxy said no.
    #[error("the node's proxy refused: {0}")]
    Refused(String),
}

type Answer = oneshot::Sender<Result<(), MeshError>>;

/// A handle to the proxy. Clones share one connection.
#[derive(Clone, Debug)]
pub struct Mesh {
    orders: mpsc::Sender<(AttachOrder, Answer)>,
}

/// A proxy that knows what to do answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const RECONNECT: Duration = Duration::from_millis(200);
/// A proxy that is being replaced hears nobody for a moment, and one that was killed is started again. Both are there within this.
const BACK_WITHIN: Duration = Duration::from_secs(2);

impl Mesh {
    /// Starts the connection to the proxy at `socket`.
    pub fn start(socket: PathBuf) -> Self {
        let (orders, inbox) = mpsc::channel(256);
        tokio::spawn(run(socket, inbox));
        Mesh { orders }
    }

    /// Attaches a pod, now and after every restart of the proxy until it is detached.
    ///
    /// # Errors
    /// The proxy is down (the pod is attached when it comes back), or it refused.
    pub async fn attach(&self, pod: PodAttachment) -> Result<(), MeshError> {
        self.ask(AttachOrder::Attach(pod)).await
    }

    /// The pod's namespace goes away.
    ///
    /// # Errors
    /// The proxy is down, and did not come back: then it has no sockets there either.
    pub async fn detach(&self, uid: &str) -> Result<(), MeshError> {
        self.insist(AttachOrder::Detach(PodRef { uid: uid.to_owned() })).await
    }

    /// The pod is about to end: no new requests for it.
    ///
    /// # Errors
    /// The proxy is down, and did not come back: nothing reaches the pod through it.
    pub async fn drain(&self, uid: &str) -> Result<(), MeshError> {
        self.insist(AttachOrder::Drain(PodRef { uid: uid.to_owned() })).await
    }

    /// What ends a pod is not told again when the proxy comes back, as attaching is, and goes on without it. So it is asked until the proxy must
    /// have been there: one that is being replaced serves the pod meanwhile.
    async fn insist(&self, order: AttachOrder) -> Result<(), MeshError> {
        let until = tokio::time::Instant::now() + BACK_WITHIN;
        loop {
            match self.ask(order.clone()).await {
                Err(MeshError::Down) if tokio::time::Instant::now() < until => tokio::time::sleep(RECONNECT).await,
                done => return done,
            }
        }
    }

    async fn ask(&self, order: AttachOrder) -> Result<(), MeshError> {
        let (answer, result) = oneshot::channel();
        self.orders.send((order, answer)).await.map_err(|_| MeshError::Down)?;
        tokio::time::timeout(PATIENCE, result).await.map_or(Err(MeshError::Down), |r| r.unwrap_or(Err(MeshError::Down)))
    }
}

#[derive(Default)]
struct Session {
    attached: BTreeMap<String, PodAttachment>,
    asked: BTreeMap<u64, Option<Answer>>,
    next_id: u64,
}

async fn run(socket: PathBuf, mut inbox: mpsc::Receiver<(AttachOrder, Answer)>) {
    let mut session = Session::default();
    loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => {
                session.serve(stream, &mut inbox).await;
                // Whoever waits for an answer of the lost connection asks again.
                for answer in std::mem::take(&mut session.asked).into_values().flatten() {
                    let _ = answer.send(Err(MeshError::Down));
                }
            }
            Err(error) => tracing::debug!(%error, socket = %socket.display(), "the proxy is not there"),
        }
        let again = tokio::time::sleep(RECONNECT);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                order = inbox.recv() => match order {
                    None => return,
                    Some((order, answer)) => {
                        session.remember(&order);
                        let _ = answer.send(Err(MeshError::Down));
                    }
                },
            }
        }
    }
}

impl Session {
    fn remember(&mut self, order: &AttachOrder) {
        match order {
            AttachOrder::Attach(pod) => drop(self.attached.insert(pod.uid.clone(), pod.clone())),
            AttachOrder::Detach(pod) => drop(self.attached.remove(&pod.uid)),
            AttachOrder::Drain(_) => {}
        }
    }

    /// Until the connection is lost.
    async fn serve(&mut self, stream: UnixStream, inbox: &mut mpsc::Receiver<(AttachOrder, Answer)>) {
        let (mut reader, mut writer) = stream.into_split();
        let again: Vec<PodAttachment> = self.attached.values().cloned().collect();
        tracing::info!(pods = again.len(), "connected to the proxy");
        for pod in again {
            let Some(bytes) = self.request(AttachOrder::Attach(pod), None) else { continue };
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let mut buffer = Vec::new();
        loop {
            tokio::select! {
                order = inbox.recv() => {
                    let Some((order, answer)) = order else { return };
                    self.remember(&order);
                    let Some(bytes) = self.request(order, Some(answer)) else { continue };
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                read = reader.read_buf(&mut buffer) => {
                    if !matches!(read, Ok(1..)) || !self.answers(&mut buffer) {
                        return;
                    }
                }
            }
        }
    }

    fn request(&mut self, order: AttachOrder, answer: Option<Answer>) -> Option<Vec<u8>> {
        self.next_id += 1;
        match encode(&AttachRequest { id: self.next_id, order }) {
            Ok(bytes) => {
                self.asked.insert(self.next_id, answer);
                Some(bytes)
            }
            Err(error) => {
                if let Some(answer) = answer {
                    let _ = answer.send(Err(MeshError::Refused(error.to_string())));
                }
                None
            }
        }
    }

    fn answers(&mut self, buffer: &mut Vec<u8>) -> bool {
        loop {
            match decode::<AttachReply>(buffer) {
                Ok(None) => return true,
                Ok(Some(reply)) => {
                    let result = match reply.error {
                        None => Ok(()),
                        Some(error) => Err(MeshError::Refused(error)),
                    };
                    if let Err(error) = &result {
                        tracing::warn!(%error, "the proxy refused an order");
                    }
                    if let Some(Some(answer)) = self.asked.remove(&reply.id) {
                        let _ = answer.send(result);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the proxy's answer is not understood");
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    fn pod(uid: &str) -> PodAttachment {
        PodAttachment {
            uid: uid.into(),
            namespace: "n".into(),
            name: "p".into(),
            service_account: "default".into(),
            netns: "/var/run/netns/x".into(),
            ips: vec![[10, 244, 0, 2].into()],
            node_ip: [10, 244, 0, 1].into(),
            probe_ports: vec![],
            ports: vec![],
        }
    }

    /// Answers `n` orders, and returns what they were.
    async fn answer(listener: &UnixListener, n: usize) -> Vec<String> {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        while seen.len() < n {
            stream.read_buf(&mut buffer).await.unwrap();
            while let Some(request) = decode::<AttachRequest>(&mut buffer).unwrap() {
                seen.push(match request.order {
                    AttachOrder::Attach(pod) => format!("attach {}", pod.uid),
                    AttachOrder::Detach(pod) => format!("detach {}", pod.uid),
                    AttachOrder::Drain(pod) => format!("drain {}", pod.uid),
                });
                let reply = if seen.last().unwrap() == "attach bad" {
                    AttachReply::failed(request.id, "no such namespace")
                } else {
                    AttachReply::done(request.id)
                };
                stream.write_all(&encode(&reply).unwrap()).await.unwrap();
            }
        }
        seen
    }

    #[tokio::test]
    async fn pods_are_attached_again_when_the_proxy_comes_back() {
        let socket = std::env::temp_dir().join(format!("diolkos-mesh-{}.sock", std::process::id()));
        let mesh = Mesh::start(socket.clone());
        assert_eq!(mesh.attach(pod("a")).await, Err(MeshError::Down));
        let listener = UnixListener::bind(&socket).unwrap();
        let proxy = tokio::spawn(async move { (answer(&listener, 4).await, listener) });
        assert_eq!(mesh.drain("a").await, Ok(()), "it is asked until the proxy is there");
        assert_eq!(mesh.attach(pod("b")).await, Ok(()));
        assert_eq!(mesh.attach(pod("bad")).await, Err(MeshError::Refused("no such namespace".into())));
        let (seen, listener) = proxy.await.unwrap();
        assert_eq!(seen, ["attach a", "drain a", "attach b", "attach bad"], "first what was asked while it was down");
        let proxy = tokio::spawn(async move { answer(&listener, 3).await });
        assert_eq!(proxy.await.unwrap(), ["attach a", "attach b", "attach bad"]);
        std::fs::remove_file(socket).unwrap();
    }
}

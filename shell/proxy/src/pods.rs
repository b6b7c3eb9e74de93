//! The pods of this node.
use crate::callers;
use crate::dns::forward::Asking;
use crate::host;
use crate::identity::Identities;
use crate::netns::{self, Netns};
use crate::origin::Origin;
use crate::redirect::{self, CapturePorts, RedirectError, Rules};
use model::map::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use xds::attach::PodAttachment;

/// Where a pod is in its life, as far as its sockets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// All is served.
    Serving,
    /// No new streams from other proxies; what runs is finished.
    Draining,
    /// Its sockets are closed.
    Detached,
}

/// A pod whose traffic goes through this proxy.
#[derive(Debug)]
pub struct Pod {
    /// As the node agent described it.
    pub attachment: PodAttachment,
    /// The pod as a source.
    pub origin: Arc<Origin>,
    /// The proxy's ports in it.
    pub ports: CapturePorts,
    /// What it asks of name servers outside.
    pub(crate) asking: Asking,
    /// Its compiled policy.
    pub(crate) policy: Mutex<crate::policy::Compiled>,
    /// Its kernel lets processes see who calls (see [`callers`]).
    shows_callers: bool,
    /// Its process listens on loopback (a joined host): what comes for its address goes there.
    loopback: bool,
    /// Those that were accepted in it.
    connections: Arc<Connections>,
    phase: watch::Sender<Phase>,
}

impl Pod {
    /// A pod that is about to be served.
    pub fn new(attachment: PodAttachment, origin: Arc<Origin>, ports: CapturePorts) -> Self {
        let phase = watch::Sender::new(Phase::Serving);
        Self {
            attachment,
            origin,
            ports,
            asking: Asking::default(),
            policy: Mutex::default(),
            shows_callers: false,
            loopback: false,
            connections: Arc::default(),
            phase,
        }
    }

    /// A joined host's process, which need not listen on the host's address.
    pub fn on_loopback(self) -> Self {
        Self { loopback: true, ..self }
    }

    /// A pod whose kernel lets processes see who calls.
    pub fn showing_callers(self, shows_callers: bool) -> Self {
        Self { shows_callers, ..self }
    }

    /// With which address a caller's connections reach the process at `address`; none: the proxy's.
    pub fn seen_as(&self, caller: SocketAddr, address: SocketAddr) -> Option<IpAddr> {
        let caller = caller.ip().to_canonical();
        let own = caller.is_loopback() || caller.is_unspecified() || self.origin.addresses.contains(&caller);
        (self.shows_callers && !own && caller.is_ipv4() == address.is_ipv4()).then_some(caller)
    }

    /// Whether others may ask for this address of the pod. A pod's are all its own; a joined process has one port.
    pub fn serves(&self, to: SocketAddr) -> bool {
        self.origin.addresses.contains(&to.ip())
            && !self.ports.contains(to.port())
            && (!self.loopback || self.attachment.ports.contains(&to.port()))
    }

    /// The one address that a joined process has; a pod has any.
    pub fn only_address(&self) -> Option<SocketAddr> {
        let port = *self.attachment.ports.first().filter(|_| self.loopback)?;
        Some(SocketAddr::new(*self.origin.addresses.first()?, port))
    }

    /// Where the process is that serves this address of the pod.
    pub fn local_address(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(_) if self.loopback => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), to.port()),
            IpAddr::V6(_) if self.loopback => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), to.port()),
            _ => to,
        }
    }

    /// To be held by a connection that was accepted in the pod.
    pub fn connection(&self) -> Connection {
        *self.connections.open() += 1;
        Connection(self.connections.clone())
    }

    /// Blocks until there are no such connections, but not for longer.
    pub fn wait_for_connections(&self, patience: Duration) {
        let open = self.connections.open();
        let waited = self.connections.gone.wait_timeout_while(open, patience, |open| *open > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Follows the pod's phase.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to a later phase; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    /// Waits until the phase is at least this.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.phases();
        // The sender lives as long as self.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }
}

/// The connections that were accepted in a pod.
#[derive(Debug, Default)]
struct Connections {
    open: Mutex<usize>,
    gone: Condvar,
}

impl Connections {
    fn open(&self) -> MutexGuard<'_, usize> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that was accepted in a pod.
#[derive(Debug)]
pub struct Connection(Arc<Connections>);

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.0.open();
        *open -= 1;
        if *open == 0 {
            self.0.gone.notify_all();
        }
    }
}

/// One worker's sockets in one pod.
#[derive(Debug)]
pub struct PodSockets {
    /// Captured outbound connections.
    pub outbound: Vec<TcpListener>,
    /// Captured plain inbound connections.
    pub inbound: Vec<TcpListener>,
    /// Tunnels.
    pub hbone: Vec<TcpListener>,
    /// Name server.
    pub dns_tcp: Vec<TcpListener>,
    /// Name server.
    pub dns_udp: Vec<UdpSocket>,
}

/// A pod that is new, and a set of its sockets for each worker.
pub type Attached = (Arc<Pod>, Vec<PodSockets>);

/// A pod could not be attached. The node agent tries again.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("cannot open the network namespace {path}: {source}")]
    Netns { path: String, source: io::Error },
    #[error("cannot listen in the pod's network namespace: {0}")]
    Listen(#[source] io::Error),
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    #[error("the pod has no address")]
    NoAddress,
}

/// All attached pods, by uid.
#[derive(Debug, Default)]
pub struct Pods {
    known: Mutex<HashMap<String, Arc<Pod>>>,
}

impl Pods {
    /// Opens a pod's sockets, one set a worker, and redirects its traffic to them. Blocks (nft runs): not for a worker.
    pub fn attach(
        &self,
        attachment: PodAttachment,
        ports: CapturePorts,
        dns: &[IpAddr],
        workers: usize,
        identities: &Arc<Identities>,
    ) -> Result<Option<Attached>, AttachError> {
        if attachment.ips.is_empty() {
            return Err(AttachError::NoAddress);
        }
        if self.get(&attachment.uid).is_some() {
            return Ok(None);
        }
        let open = || Netns::open(Path::new(&attachment.netns));
        let netns = open().map_err(|source| AttachError::Netns { path: attachment.netns.clone(), source })?;
        let sockets = netns.run(|| open_sockets(&attachment, ports, workers)).map_err(AttachError::Listen)?;
        // Sockets first: a redirected connection always finds a listener.
        let probes = Some((attachment.node_ip, attachment.probe_ports.as_slice()));
        Rules { ports, dns, all_dns: false, probes, only_to: &[], inbound: true }.install(&netns)?;
        let pod = Arc::new(pod(attachment, netns, ports, identities));
        self.insert(pod.clone());
        Ok(Some((pod, sockets)))
    }

    /// A pod, or a joined process, whose sockets a predecessor opened.
    pub fn inherit(
        &self,
        attachment: PodAttachment,
        ports: CapturePorts,
        identities: &Arc<Identities>,
    ) -> Result<Arc<Pod>, AttachError> {
        let pod = if attachment.netns.is_empty() {
            host::pod(attachment, ports, identities)
        } else {
            let netns = Netns::open(Path::new(&attachment.netns));
            let netns = netns.map_err(|source| AttachError::Netns { path: attachment.netns.clone(), source })?;
            pod(attachment, netns, ports, identities)
        };
        let pod = Arc::new(pod);
        self.insert(pod.clone());
        Ok(pod)
    }

    /// Adds a pod whose sockets were opened elsewhere (a joined host).
    pub fn insert(&self, pod: Arc<Pod>) {
        self.lock().insert(pod.attachment.uid.clone(), pod);
    }

    /// Closes a pod's sockets. The rules go with the namespace; they are removed in case it stays.
    pub fn detach(&self, uid: &str) -> Option<Arc<Pod>> {
        let pod = self.lock().remove(uid)?;
        pod.advance(Phase::Detached);
        if let Err(error) = redirect::remove(&pod.origin.netns) {
            tracing::debug!(%error, pod = %pod.attachment.name, "redirection not removed");
        }
        Some(pod)
    }

    /// Begins to drain a pod.
    pub fn drain(&self, uid: &str) {
        if let Some(pod) = self.get(uid) {
            pod.advance(Phase::Draining);
        }
    }

    /// A pod by uid.
    pub fn get(&self, uid: &str) -> Option<Arc<Pod>> {
        self.lock().get(uid).cloned()
    }

    /// All pods.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        let mut list: Vec<_> = self.lock().values().cloned().collect();
        list.sort_by(|a, b| a.attachment.uid.cmp(&b.attachment.uid));
        list
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Pod>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pod(attachment: PodAttachment, netns: Netns, ports: CapturePorts, identities: &Arc<Identities>) -> Pod {
    let identity = identities.acquire(&attachment.namespace, &attachment.service_account);
    let shows = callers::install(&netns).inspect_err(
        |error| tracing::warn!(%error, pod = %attachment.name, "its processes will see the proxy as who calls"),
    );
    let ips = attachment.ips.clone();
    let origin = Arc::new(Origin::new(netns, identity, &attachment.namespace, &attachment.name, ips));
    Pod::new(attachment, origin, ports).showing_callers(shows.is_ok())
}

fn open_sockets(attachment: &PodAttachment, ports: CapturePorts, workers: usize) -> io::Result<Vec<PodSockets>> {
    let mut any = Vec::new();
    if attachment.ips.iter().any(IpAddr::is_ipv4) {
        any.push(IpAddr::from(Ipv4Addr::UNSPECIFIED));
    }
    if attachment.ips.iter().any(IpAddr::is_ipv6) {
        any.push(IpAddr::from(Ipv6Addr::UNSPECIFIED));
    }
    // What the pod itself sends is redirected to loopback; nobody else reaches these.
    let local: Vec<IpAddr> = any
        .iter()
        .map(|ip| if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() })
        .collect();
    let listen = |on: &[IpAddr], port: u16| {
        on.iter().map(|ip| netns::listen(SocketAddr::new(*ip, port))).collect::<io::Result<Vec<_>>>()
    };
    (0..workers)
        .map(|_| {
            Ok(PodSockets {
                outbound: listen(&local, ports.outbound)?,
                inbound: listen(&any, ports.inbound)?,
                hbone: listen(&any, ports.hbone)?,
                dns_tcp: listen(&local, ports.dns)?,
                dns_udp: local
                    .iter()
                    .map(|ip| netns::bind_udp(SocketAddr::new(*ip, ports.dns)))
                    .collect::<io::Result<_>>()?,
            })
        })
        .collect()
}

//! Tunnels that are open, by who opened them and where they lead.
use super::STREAMS_PER_TUNNEL;
use super::client::{TunnelError, open_tunnel};
use crate::identity::Identity;
use crate::identity::trust::RootId;
use crate::origin::Origin;
use bytes::Bytes;
use h2::client::SendRequest;
use model::map::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A tunnel without streams is closed after this.
const IDLE: Duration = Duration::from_secs(90);

/// The tunnels of one worker. Never shared between identities: a stream must not travel under another workload's name.
#[derive(Debug, Default)]
pub struct Pool {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    origin: u64,
    destination: SocketAddr,
    /// An address can be another workload's tomorrow.
    identity: Arc<str>,
}

#[derive(Debug, Default)]
struct Slot {
    tunnels: Mutex<Vec<Arc<Tunnel>>>,
    /// Held while a tunnel is opened: a burst of streams opens one, not many. How the last one failed, if it did.
    opening: tokio::sync::Mutex<Option<Failed>>,
}

/// A tunnel that was not opened.
#[derive(Debug)]
struct Failed {
    at: Instant,
    why: Arc<TunnelError>,
}

/// One TLS connection to another proxy.
#[derive(Debug)]
pub struct Tunnel {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) streams: AtomicU32,
    pub(super) closed: Arc<AtomicBool>,
    identity: Arc<Identity>,
    root: RootId,
    opened: Instant,
    last_used_ms: AtomicU64,
}

/// Says whether a tunnel should carry nothing new.
#[derive(Clone, Debug)]
pub struct Leaving(Arc<Tunnel>);

impl Leaving {
    /// Whether it should.
    pub fn is_so(&self) -> bool {
        self.0.is_leaving()
    }
}

/// A stream's place on its tunnel.
#[derive(Debug)]
pub struct Held(Arc<Tunnel>);

impl Held {
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.0.sender.clone()
    }

    /// The tunnel's state.
    pub fn leaving(&self) -> Leaving {
        Leaving(self.0.clone())
    }

    /// Whether the tunnel should carry nothing new.
    pub fn is_leaving(&self) -> bool {
        self.0.is_leaving()
    }

    /// No further stream is put on this tunnel.
    pub(super) fn retire(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.last_used_ms.store(self.0.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

impl Tunnel {
    /// A tunnel that was opened under a certificate of this root.
    pub(super) fn new(
        sender: SendRequest<Bytes>,
        closed: Arc<AtomicBool>,
        identity: Arc<Identity>,
        root: RootId,
    ) -> Self {
        Self {
            sender,
            streams: AtomicU32::new(0),
            closed,
            identity,
            root,
            opened: Instant::now(),
            last_used_ms: AtomicU64::new(0),
        }
    }

    /// Closed, or opened under a certificate of a root that is on its way out: what runs is finished.
    fn is_leaving(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.identity.root().is_some_and(|root| root != self.root)
    }

    /// Whether the peer takes no new streams (GOAWAY).
    fn is_left(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    fn is_idle(&self) -> bool {
        let last = Duration::from_millis(self.last_used_ms.load(Ordering::Relaxed));
        self.streams.load(Ordering::Relaxed) == 0 && self.opened.elapsed().saturating_sub(last) > IDLE
    }
}

impl Pool {
    /// A place on a tunnel to the proxy at `destination`, which must prove to be `identity`. `true`: the tunnel is new.
    pub async fn hold(
        &self,
        origin: &Origin,
        destination: SocketAddr,
        identity: &Arc<str>,
    ) -> Result<(Held, bool), TunnelError> {
        let key = Key { origin: origin.serial, destination, identity: identity.clone() };
        let slot = lock(&self.slots).entry(key).or_default().clone();
        if let Some(held) = slot.take() {
            return Ok((held, false));
        }
        let asked = Instant::now();
        let mut opening = slot.opening.lock().await;
        if let Some(held) = slot.take() {
            return Ok((held, false));
        }
        // Who waited for it is told what came of it: one after the other they would wait for the same silence.
        if let Some(failed) = opening.as_ref().filter(|failed| failed.at >= asked) {
            return Err(TunnelError::Shared(failed.why.clone()));
        }
        let tunnel = match open_tunnel(origin, destination, identity).await {
            Ok(tunnel) => Arc::new(tunnel),
            Err(error) => {
                let why = Arc::new(error);
                *opening = Some(Failed { at: Instant::now(), why: why.clone() });
                return Err(TunnelError::Shared(why));
            }
        };
        tunnel.streams.fetch_add(1, Ordering::Relaxed);
        lock(&slot.tunnels).push(tunnel.clone());
        Ok((Held(tunnel), true))
    }

    /// Closes what is idle or closed. Called now and then by the worker.
    pub fn sweep(&self) {
        let mut slots = lock(&self.slots);
        slots.retain(|_, slot| {
            let mut tunnels = lock(&slot.tunnels);
            for tunnel in tunnels.iter().filter(|tunnel| tunnel.is_left()) {
                tunnel.closed.store(true, Ordering::Relaxed);
            }
            tunnels.retain(|tunnel| !tunnel.is_leaving() && !tunnel.is_idle());
            !tunnels.is_empty() || Arc::strong_count(slot) > 1
        });
    }

    /// Forgets the tunnels of an origin that is gone.
    pub fn forget(&self, origin: u64) {
        lock(&self.slots).retain(|key, _| key.origin != origin);
    }
}

impl Slot {
    fn take(&self) -> Option<Held> {
        let mut tunnels = lock(&self.tunnels);
        tunnels.retain(|tunnel| !tunnel.is_leaving());
        let tunnel = tunnels.iter().find(|tunnel| tunnel.streams.load(Ordering::Relaxed) < STREAMS_PER_TUNNEL)?;
        tunnel.streams.fetch_add(1, Ordering::Relaxed);
        Some(Held(tunnel.clone()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

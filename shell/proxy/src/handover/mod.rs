//! A proxy's sockets pass to its successor.
//!
//! A proxy that starts asks at a Unix socket whether there is one already. That one gives it duplicates of all its listening sockets, with what
//! they are for. The new one gets ready (configuration, certificates), begins to accept and says so; only then the old one stops accepting,
//! finishes what runs, and ends. Until that word nothing has changed for the old one: a successor that dies on the way is forgotten. The
//! listening sockets themselves are never closed, so no connection is refused and none is lost in a queue.
mod give;
mod packets;
mod take;

pub use give::Door;
pub use take::{Inherited, Places, TakeError, Taking, take};

use crate::gateway;
use crate::pods::PodSockets;
use model::map::HashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use xds::attach::PodAttachment;

/// What is said. Both sides refuse another's version.
const VERSION: u32 = 1;

/// What a successor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    /// Give me what you have.
    Take { version: u32 },
    /// I accept connections: leave.
    Serving,
}

/// What a proxy says; the descriptors of a packet are those of the sockets that it names, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Item {
    /// Where metrics are shown.
    Admin,
    /// A pod, or more sockets of one that was named before.
    Pod { attachment: Box<PodAttachment>, draining: bool, sockets: Vec<SocketUse> },
    /// A place where gateways listen.
    Place { place: gateway::Place, sockets: usize },
    /// That was all.
    End,
    /// I leave.
    Leaving,
    /// There is nothing for you.
    Refused { why: String },
}

/// What a socket in a pod is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketUse {
    /// Captured outbound connections.
    Outbound,
    /// Captured plain inbound connections.
    Inbound,
    /// Tunnels.
    Hbone,
    /// Name server.
    DnsTcp,
    /// Name server.
    DnsUdp,
}

/// Sockets of one pod, each with its use.
type OfPod = Vec<(SocketUse, OwnedFd)>;

/// Duplicates of the sockets that this process listens on, for its successor. Kept only where there can be one.
#[derive(Debug, Default)]
pub struct Lent {
    on: bool,
    pods: Mutex<HashMap<String, OfPod>>,
    places: Mutex<BTreeMap<gateway::Place, Vec<OwnedFd>>>,
    admin: Mutex<Option<OwnedFd>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn duplicates<S: AsFd>(sockets: &[S]) -> impl Iterator<Item = OwnedFd> {
    // Without descriptors left there is no successor for this socket; everything else goes on.
    sockets.iter().filter_map(|socket| match socket.as_fd().try_clone_to_owned() {
        Ok(fd) => Some(fd),
        Err(error) => {
            tracing::warn!(%error, "a socket cannot be kept for a successor");
            None
        }
    })
}

impl Lent {
    /// `on`: there can be a successor.
    pub fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// A pod is served with these.
    pub fn pod(&self, uid: &str, sockets: &[PodSockets]) {
        if !self.on {
            return;
        }
        let mut kept = OfPod::new();
        for of in sockets {
            kept.extend(duplicates(&of.outbound).map(|fd| (SocketUse::Outbound, fd)));
            kept.extend(duplicates(&of.inbound).map(|fd| (SocketUse::Inbound, fd)));
            kept.extend(duplicates(&of.hbone).map(|fd| (SocketUse::Hbone, fd)));
            kept.extend(duplicates(&of.dns_tcp).map(|fd| (SocketUse::DnsTcp, fd)));
            kept.extend(duplicates(&of.dns_udp).map(|fd| (SocketUse::DnsUdp, fd)));
        }
        lock(&self.pods).insert(uid.to_owned(), kept);
    }

    /// A pod is gone.
    pub fn forget_pod(&self, uid: &str) {
        lock(&self.pods).remove(uid);
    }

    /// Gateways listen with these.
    pub fn place(&self, place: gateway::Place, sockets: &[gateway::Sockets]) {
        if !self.on {
            return;
        }
        let mut kept = Vec::new();
        for of in sockets {
            match of {
                gateway::Sockets::Tcp(listeners) => kept.extend(duplicates(listeners)),
                gateway::Sockets::Udp(sockets) => kept.extend(duplicates(sockets)),
            }
        }
        lock(&self.places).insert(place, kept);
    }

    /// No gateway listens there any more.
    pub fn forget_place(&self, place: &gateway::Place) {
        lock(&self.places).remove(place);
    }

    /// Metrics are shown here.
    pub fn admin(&self, listener: &std::net::TcpListener) {
        if self.on {
            *lock(&self.admin) = duplicates(&[listener]).next();
        }
    }

    /// Closes all: the successor has them.
    fn clear(&self) {
        lock(&self.pods).clear();
        lock(&self.places).clear();
        *lock(&self.admin) = None;
    }
}

/// Not what the protocol says.
fn strange(what: impl std::fmt::Debug) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what:?} was not expected here"))
}

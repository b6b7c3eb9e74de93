//! The side that comes.
use super::packets::Packets;
use super::{Ask, Item, SocketUse, VERSION, lock, strange};
use crate::gateway;
use crate::pods::PodSockets;
use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use xds::attach::PodAttachment;

/// A predecessor that does not answer for so long is not well.
const PATIENCE: Duration = Duration::from_secs(10);
/// Packets that a predecessor sends at most: one for each pod and place, or a few.
const MAX_PACKETS: usize = 100_000;

/// There is a predecessor, and it does not hand over. It serves on.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The connection broke, or something else was said than should be.
    #[error("the running proxy does not hand over: {0}")]
    Broken(#[from] io::Error),
    /// It says no.
    #[error("the running proxy does not hand over: {0}")]
    Refused(String),
}

/// A pod and its sockets.
#[derive(Debug)]
pub struct InheritedPod {
    pub attachment: PodAttachment,
    pub draining: bool,
    sockets: Vec<(SocketUse, OwnedFd)>,
}

impl InheritedPod {
    /// Its sockets, dealt out to so many workers.
    pub fn sockets(&mut self, workers: usize) -> Vec<PodSockets> {
        let none = || PodSockets { outbound: vec![], inbound: vec![], hbone: vec![], dns_tcp: vec![], dns_udp: vec![] };
        let mut dealt: Vec<PodSockets> = (0..workers).map(|_| none()).collect();
        let mut counts: [usize; 5] = [0; 5];
        for (of, fd) in self.sockets.drain(..) {
            let count = &mut counts[of as usize];
            let to = &mut dealt[*count % workers];
            *count += 1;
            match of {
                SocketUse::Outbound => to.outbound.push(TcpListener::from(fd)),
                SocketUse::Inbound => to.inbound.push(TcpListener::from(fd)),
                SocketUse::Hbone => to.hbone.push(TcpListener::from(fd)),
                SocketUse::DnsTcp => to.dns_tcp.push(TcpListener::from(fd)),
                SocketUse::DnsUdp => to.dns_udp.push(UdpSocket::from(fd)),
            }
        }
        dealt
    }
}

/// What a predecessor gave.
#[derive(Debug, Default)]
pub struct Inherited {
    pub admin: Option<TcpListener>,
    pub pods: Vec<InheritedPod>,
    pub places: Places,
}

/// Sockets of gateways that nobody has asked for yet.
#[derive(Debug, Default)]
pub struct Places(Mutex<BTreeMap<gateway::Place, Vec<OwnedFd>>>);

impl Places {
    /// The sockets of a place, dealt out to so many workers. None: there were none.
    pub fn take(&self, place: gateway::Place, workers: usize) -> Option<Vec<gateway::Sockets>> {
        let fds = lock(&self.0).remove(&place)?;
        let mut dealt: Vec<Vec<OwnedFd>> = (0..workers).map(|_| Vec::new()).collect();
        for (number, fd) in fds.into_iter().enumerate() {
            dealt[number % workers].push(fd);
        }
        let udp = place.kind == gateway::Kind::Udp;
        let sockets = dealt.into_iter().map(|fds| match udp {
            true => gateway::Sockets::Udp(fds.into_iter().map(UdpSocket::from).collect()),
            false => gateway::Sockets::Tcp(fds.into_iter().map(TcpListener::from).collect()),
        });
        Some(sockets.collect())
    }

    /// Takes over what another holds.
    pub fn fill(&self, from: Places) {
        *lock(&self.0) = from.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    }

    /// Closes what nobody asked for.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// A predecessor that waits for us to serve.
#[derive(Debug)]
pub struct Taking(Packets);

impl Taking {
    /// We serve: it leaves.
    pub fn serving(self) -> io::Result<()> {
        self.0.send(&Ask::Serving, &[])?;
        match self.0.receive()?.map(|(item, _)| item) {
            Some(Item::Leaving) | None => Ok(()),
            Some(other) => Err(strange(other)),
        }
    }
}

/// Asks at `path` for what a predecessor has. None: there is none.
///
/// # Errors
/// There is one, and it does not hand over.
pub fn take(path: &Path) -> Result<Option<(Inherited, Taking)>, TakeError> {
    let Some(predecessor) = Packets::connect(path)? else { return Ok(None) };
    predecessor.set_patience(PATIENCE)?;
    predecessor.send(&Ask::Take { version: VERSION }, &[])?;
    let mut inherited = Inherited::default();
    for _ in 0..MAX_PACKETS {
        let Some((item, mut fds)) = predecessor.receive::<Item>()? else {
            return Err(io::Error::other("it ended").into());
        };
        match item {
            Item::Admin => inherited.admin = fds.pop().map(TcpListener::from),
            Item::Pod { attachment, draining, sockets } => {
                if sockets.len() != fds.len() {
                    return Err(strange((sockets, fds)).into());
                }
                let more: Vec<_> = sockets.into_iter().zip(fds).collect();
                match inherited.pods.iter_mut().find(|pod| pod.attachment.uid == attachment.uid) {
                    Some(known) => known.sockets.extend(more),
                    None => inherited.pods.push(InheritedPod { attachment: *attachment, draining, sockets: more }),
                }
            }
            Item::Place { place, sockets } => {
                if sockets != fds.len() {
                    return Err(strange((place, fds)).into());
                }
                lock(&inherited.places.0).entry(place).or_default().extend(fds);
            }
            Item::End => return Ok(Some((inherited, Taking(predecessor)))),
            Item::Refused { why } => return Err(TakeError::Refused(why)),
            Item::Leaving => return Err(strange(item).into()),
        }
    }
    Err(io::Error::other("it gives more than a machine has").into())
}

//! The side that leaves.
use super::packets::{self, MAX_FDS, Packets};
use super::{Ask, Item, VERSION, lock, strange};
use crate::shared::Shared;
use socket2::Socket;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A successor is a process of this machine that has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// It may take so long to get ready: configuration and certificates.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// Where successors ask.
#[derive(Debug)]
pub struct Door {
    listener: Arc<Socket>,
}

impl Door {
    /// Opens it, and serves it on a thread of its own.
    pub fn open(path: &Path, shared: Arc<Shared>) -> io::Result<Self> {
        let listener = Arc::new(packets::listen(path)?);
        let served = listener.clone();
        std::thread::Builder::new().name("handover".into()).spawn(move || serve(&served, &shared))?;
        Ok(Self { listener })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Wakes the thread, which ends.
        let _ = self.listener.shutdown(Shutdown::Both);
    }
}

fn serve(listener: &Socket, shared: &Shared) {
    while let Ok((socket, _)) = listener.accept() {
        shared.hold_orders(true);
        match give(&Packets::accepted(socket), shared) {
            Ok(()) => {
                tracing::info!("a successor has taken over; finishing what runs");
                shared.lent.clear();
                shared.leave();
                return;
            }
            Err(error) => tracing::warn!(%error, "no handover; serving on"),
        }
        shared.hold_orders(false);
    }
}

fn give(successor: &Packets, shared: &Shared) -> io::Result<()> {
    successor.set_patience(PATIENCE)?;
    match successor.receive()?.map(|(ask, _)| ask) {
        Some(Ask::Take { version: VERSION }) => {}
        other => {
            let why = format!("this proxy hands over by version {VERSION}, and was asked {other:?}");
            successor.send(&Item::Refused { why: why.clone() }, &[])?;
            return Err(io::Error::other(why));
        }
    }
    if let Some(admin) = &*lock(&shared.lent.admin) {
        successor.send(&Item::Admin, &[admin.as_raw_fd()])?;
    }
    pods(successor, shared)?;
    for (place, sockets) in &*lock(&shared.lent.places) {
        for part in sockets.chunks(MAX_FDS) {
            let fds: Vec<RawFd> = part.iter().map(AsRawFd::as_raw_fd).collect();
            successor.send(&Item::Place { place: *place, sockets: fds.len() }, &fds)?;
        }
    }
    successor.send(&Item::End, &[])?;
    successor.set_patience(READY_PATIENCE)?;
    match successor.receive()?.map(|(ask, _)| ask) {
        Some(Ask::Serving) => {}
        None => return Err(io::Error::other("the successor ended before it served")),
        Some(other) => return Err(strange(other)),
    }
    // It serves: whether it hears this makes no difference.
    let _ = successor.send(&Item::Leaving, &[]);
    Ok(())
}

fn pods(successor: &Packets, shared: &Shared) -> io::Result<()> {
    let lent = lock(&shared.lent.pods);
    for pod in shared.pods.list() {
        let Some(sockets) = lent.get(&pod.attachment.uid) else { continue };
        for part in sockets.chunks(MAX_FDS) {
            let fds: Vec<RawFd> = part.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
            let item = Item::Pod {
                attachment: Box::new(pod.attachment.clone()),
                draining: pod.phase() >= crate::pods::Phase::Draining,
                sockets: part.iter().map(|(of, _)| *of).collect(),
            };
            successor.send(&item, &fds)?;
        }
    }
    Ok(())
}

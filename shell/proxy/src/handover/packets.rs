//! Packets of JSON with file descriptors, over a Unix socket that keeps their bounds (SOCK_SEQPACKET).
#![expect(
    unsafe_code,
    reason = "descriptors arrive as numbers; the kernel has just put them into this process's table for the message that was received, so nobody else owns them"
)]

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Descriptors in one packet; the kernel's own limit is 253.
pub const MAX_FDS: usize = 200;
/// The longest packet; one pod is far below.
const MAX_BYTES: usize = 64 * 1024;

/// One end of a connection.
#[derive(Debug)]
pub struct Packets(Socket);

/// Listens at a path that only this user may connect to; what lies there is taken away.
pub fn listen(path: &Path) -> io::Result<Socket> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(4)?;
    Ok(socket)
}

impl Packets {
    /// A connection that was accepted.
    pub fn accepted(socket: Socket) -> Self {
        Self(socket)
    }

    /// Connects. None: nobody is there.
    pub fn connect(path: &Path) -> io::Result<Option<Self>> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
        match socket.connect(&SockAddr::unix(path)?) {
            Ok(()) => Ok(Some(Self(socket))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// How long the other side may take for a packet.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.set_write_timeout(Some(patience))
    }

    /// Sends one.
    pub fn send<T: Serialize>(&self, message: &T, fds: &[RawFd]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_BYTES || fds.len() > MAX_FDS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Receives one, with its descriptors. None: the other side is gone.
    pub fn receive<T: for<'de> Deserialize<'de>>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_BYTES];
        let mut space = cmsg_space!([RawFd; MAX_FDS]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: see the module: the kernel made them for this message, and they are read once.
                fds.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let (length, cut) = (message.bytes, message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC));
        if cut {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet is too long"));
        }
        if length == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..length])?, fds)))
    }
}

//! Readiness by the sd_notify protocol, so that a role says the same to `diolkos up` and to systemd.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Tells whoever started this process that it is ready (`NOTIFY_SOCKET`); without such a one, does nothing.
pub fn ready() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = UnixDatagram::unbound().and_then(|datagram| datagram.send_to(b"READY=1", socket));
    if let Err(error) = sent {
        tracing::warn!(%error, "could not report readiness");
    }
}

/// The other end: one socket for each child.
pub struct Listener {
    socket: tokio::net::UnixDatagram,
}

impl Listener {
    pub fn bind(path: &Path) -> io::Result<Listener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Listener { socket: tokio::net::UnixDatagram::bind(path)? })
    }

    /// Returns when the child has said that it is ready.
    pub async fn ready(&self) -> io::Result<()> {
        let mut buffer = [0u8; 256];
        loop {
            let len = self.socket.recv(&mut buffer).await?;
            if buffer[..len].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return Ok(());
            }
        }
    }
}

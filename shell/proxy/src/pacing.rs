//! Packets that the kernel spaces out in time, and where that is of no use.
//!
//! A congestion control that models the path (BBR) paces: it sets a timer between the packets of a connection, so as not to fill queues on the
//! way. Between two processes of one host there is no queue, and a timer costs more than the packet that it holds back: with a page of 64 KiB
//! a quarter of the proxy's time went into them (docs/benchmarks.md). So connections that stay on the host have a congestion control that does
//! not pace; all others keep the host's.

use socket2::{SockRef, Socket};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use tokio::net::TcpStream;

/// What every kernel has, and lets everybody use.
const UNPACED: &[u8] = b"reno";

/// For a socket that will listen, or connect to its own host. What is accepted is given the host's again unless it is [near](settle).
pub fn stop(socket: &Socket) {
    if host_paces().is_some() {
        // Slower, not wrong.
        let _ = socket.set_tcp_congestion(UNPACED);
    }
}

/// Gives a connection that was accepted from elsewhere the host's congestion control.
pub fn settle(stream: &TcpStream, from: SocketAddr) {
    let Some(paced) = host_paces() else { return };
    if !is_near(from.ip(), || stream.local_addr().ok().map(|address| address.ip())) {
        let _ = SockRef::from(stream).set_tcp_congestion(paced);
    }
}

/// Whether a peer is a process of this host: it is on loopback, was redirected there, or has our address.
fn is_near(peer: IpAddr, local: impl FnOnce() -> Option<IpAddr>) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback()
        || local().map(|local| local.to_canonical()).is_some_and(|local| local.is_loopback() || local == peer)
}

/// The host's congestion control, if it is one that paces. Read once: whoever changes it restarts what should heed it.
fn host_paces() -> Option<&'static [u8]> {
    static PACED: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let read = || {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
        let mut name = socket.tcp_congestion().ok()?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        name.starts_with(b"bbr").then_some(name)
    };
    PACED.get_or_init(read).as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_what_stays_on_the_host() {
        for (peer, local, near) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            // A pod's own connection, redirected to its proxy.
            ("10.244.0.7", "127.0.0.1", true),
            ("10.244.0.7", "10.244.0.7", true),
            ("10.244.0.7", "10.244.0.1", false),
            ("2001:db8::1", "2001:db8::2", false),
        ] {
            assert_eq!(is_near(peer.parse().unwrap(), || local.parse().ok()), near, "{peer} -> {local}");
        }
    }

    /// What is accepted from near is not paced; what is from elsewhere is as the host says.
    #[tokio::test]
    async fn the_host_decides_for_what_comes_from_elsewhere() {
        let control = |socket: SockRef<'_>| {
            let name = socket.tcp_congestion().unwrap();
            String::from_utf8(name).unwrap().trim_end_matches('\0').to_owned()
        };
        let hosts = control(SockRef::from(&Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap()));
        let near = if host_paces().is_some() { "reno" } else { hosts.as_str() };
        let listener = crate::netns::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (_connected, (stream, from)) = (connected.unwrap(), accepted.unwrap());
        settle(&stream, from);
        assert_eq!(control(SockRef::from(&stream)), near);
        let _ = SockRef::from(&stream).set_tcp_congestion(hosts.as_bytes());
        assert_eq!(control(SockRef::from(&stream)), hosts);
    }
}

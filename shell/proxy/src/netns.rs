//! Sockets that live in a pod's network namespace although the proxy does not.
//!
//! A socket belongs for good to the namespace in which it was made. So a thread enters the pod's namespace for as long as it
//! takes to make the socket; whoever polls it later may stand anywhere. No CNI plugin has to know of this.
use crate::{callers, pacing};
use model::mesh::traffic::Keepalive;
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// Packets with this mark are the proxy's own and are not captured again. The value is the one that Istio uses, so that
/// other tools on the node recognise it.
pub const MARK: u32 = 0x539;

/// A peer that acknowledges nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);
/// One that has nothing to say is asked before, several times: where such a limit is set the kernel ends a connection by it, however few questions
/// went unanswered.
const ASK_AFTER: Duration = Duration::from_secs(4);
const ASK_EVERY: Duration = Duration::from_secs(2);
const QUESTIONS: u32 = 3;

const BACKLOG: i32 = 4096;

/// A network namespace, held open: it does not go away before this does.
#[derive(Debug)]
pub enum Netns {
    /// The one that the proxy runs in.
    Own,
    /// Another.
    Other(File),
}

thread_local! {
    /// Where this thread belongs: its namespace when it first leaves it. Each thread's own, because the one that opened a
    /// pod's namespace need not be where the workers are.
    static HOME: io::Result<File> = File::open("/proc/thread-self/ns/net");
}

impl Netns {
    /// Opens a namespace by its path, e.g. `/var/run/netns/cni-1`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::Other(File::open(path)?))
    }

    /// Runs `work` with the calling thread in the namespace. `work` must not wait: the thread serves others.
    pub fn run<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Self::Other(theirs) = self else { return work() };
        HOME.with(|home| {
            let home = home.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
            setns(theirs.as_fd(), CloneFlags::CLONE_NEWNET)?;
            let result = work();
            // A worker that cannot come back would open everybody's sockets in this pod: better no process.
            if let Err(error) = setns(home.as_fd(), CloneFlags::CLONE_NEWNET) {
                tracing::error!(%error, "cannot return from a pod's network namespace");
                std::process::abort();
            }
            result
        })
    }
}

/// A listening TCP socket, one of several on the same address (each worker has its own and the kernel deals connections out). What is accepted
/// there is to be [settled](pacing::settle).
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // What is accepted inherits both.
    socket.set_tcp_nodelay(true)?;
    pacing::stop(&socket);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A bound UDP socket, shared like [`listen`]'s.
pub fn bind_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Connects to a process in `netns` with the address of who calls it (see [`callers`]).
pub async fn connect_as(netns: &Netns, caller: IpAddr, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let mut tries = 1;
    loop {
        let bound = netns.run(|| {
            let socket = stream_socket(address)?;
            pacing::stop(&socket);
            callers::bind(&socket, caller)?;
            Ok(socket)
        });
        let connected = match bound {
            Ok(socket) => begin(socket, address).await,
            Err(error) => Err(error),
        };
        match connected {
            Err(error) if callers::is_port_taken(&error) && tries < callers::TRIES => tries += 1,
            other => return other,
        }
    }
}

/// Connects from within `netns`, marked so that the connection is not captured. `near`: to the host or pod itself.
pub async fn connect(netns: &Netns, address: SocketAddr, near: bool) -> io::Result<tokio::net::TcpStream> {
    let socket = netns.run(|| {
        let socket = stream_socket(address)?;
        // Without CAP_NET_ADMIN (tests of parts, a joined process that captures nothing) there is nothing to escape from.
        match socket.set_mark(MARK) {
            Err(error) if error.raw_os_error() != Some(libc::EPERM) => return Err(error),
            _ => {}
        }
        if near || address.ip().is_loopback() {
            pacing::stop(&socket);
        }
        Ok(socket)
    })?;
    begin(socket, address).await
}

fn stream_socket(to: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(to), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
}

async fn begin(socket: Socket, to: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    socket.set_tcp_nodelay(true)?;
    tokio::net::TcpSocket::from_std_stream(socket.into()).connect(to).await
}

/// Asks a peer that says nothing whether it is still there, and ends the connection when it is not. What goes on behind it asks in vain: the proxy
/// answers it.
pub fn ask_in_silence(stream: &tokio::net::TcpStream) -> io::Result<()> {
    let asking = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_EVERY).with_retries(QUESTIONS);
    socket2::SockRef::from(stream).set_tcp_keepalive(&asking)
}

/// The same, and ends a connection whose peer vanishes in the middle of it: without this its callers would wait for answers for a quarter of an hour.
/// For peers that always read; one that is slow to take what is sent would be taken for one that is gone.
pub fn end_in_silence(stream: &tokio::net::TcpStream) -> io::Result<()> {
    ask_in_silence(stream)?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(SILENCE))
}

/// Asks a silent peer whether it is still there, as a service's policy says.
pub fn keep_alive(stream: &tokio::net::TcpStream, policy: Keepalive) -> io::Result<()> {
    let seconds = |of: u32| Duration::from_secs(of.into());
    let mut options = TcpKeepalive::new();
    if policy.time_s > 0 {
        options = options.with_time(seconds(policy.time_s));
    }
    if policy.interval_s > 0 {
        options = options.with_interval(seconds(policy.interval_s));
    }
    if policy.probes > 0 {
        options = options.with_retries(policy.probes);
    }
    socket2::SockRef::from(stream).set_tcp_keepalive(&options)
}

/// Where a redirected connection was going.
pub fn original_destination(stream: &tokio::net::TcpStream) -> io::Result<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let local = stream.local_addr()?;
    let address = match local.ip() {
        IpAddr::V4(_) => socket.original_dst_v4()?,
        IpAddr::V6(_) => socket.original_dst_v6()?,
    };
    address.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_policys_keep_alive_is_on_the_socket() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = socket2::SockRef::from(&stream);
        let as_it_was = socket.tcp_keepalive_interval().unwrap();
        assert!(!socket.keepalive().unwrap());
        keep_alive(&stream, Keepalive { time_s: 7, interval_s: 0, probes: 4 }).unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
        assert_eq!((socket.tcp_keepalive_retries().unwrap(), socket.tcp_keepalive_interval().unwrap()), (4, as_it_was));
    }
}

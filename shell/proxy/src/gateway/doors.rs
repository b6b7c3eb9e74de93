//! A place where gateways listen, and who of them takes what comes there.
use super::tls::Carrier;
use super::{proxied, streams, tls, udp};
use crate::netns;
use crate::origin::Origin;
use crate::pacing;
use crate::requests::{self, Site};
use crate::shared::Work;
use crate::stream::Stream;
use crate::worker::Worker;
use model::mesh::{Hostname, ListenerProtocol, TlsMode};
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use traffic::{GatewayEntry, ListenerEntry};

/// Where gateways listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// A gateway's own address; none: the host's.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// What comes there.
    pub kind: Kind,
}

/// How specific a hostname is: more goes before; none has no hostname at all.
pub type Rank = Option<(usize, usize)>;

/// What comes to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// HTTP in plain text.
    Http,
    /// TLS: listeners are told apart by SNI.
    Tls,
    /// Opaque bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Kind {
    /// What comes to a listener.
    pub fn of(protocol: ListenerProtocol) -> Self {
        match protocol {
            ListenerProtocol::Http => Kind::Http,
            ListenerProtocol::Https | ListenerProtocol::Tls => Kind::Tls,
            ListenerProtocol::Tcp => Kind::Tcp,
            ListenerProtocol::Udp => Kind::Udp,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} {:?}", SocketAddr::new(address, self.port), self.kind),
            None => write!(f, "*:{} {:?}", self.port, self.kind),
        }
    }
}

/// One worker's sockets of a place.
#[derive(Debug)]
pub enum Sockets {
    /// Listening.
    Tcp(Vec<std::net::TcpListener>),
    /// Bound.
    Udp(Vec<std::net::UdpSocket>),
}

impl Sockets {
    /// Sockets for so many workers.
    pub fn bind(place: Place, workers: usize) -> io::Result<Vec<Self>> {
        let v4 = place.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let mut out = Vec::new();
        for _ in 0..workers {
            let first = SocketAddr::new(v4, place.port);
            // A host without IPv6 has only the first.
            let second = place.address.is_none().then(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, place.port)));
            out.push(match place.kind {
                Kind::Udp => {
                    let mut sockets = vec![netns::bind_udp(first)?];
                    sockets.extend(second.and_then(|address| netns::bind_udp(address).ok()));
                    Self::Udp(sockets)
                }
                _ => {
                    let mut sockets = vec![netns::listen(first)?];
                    sockets.extend(second.and_then(|address| netns::listen(address).ok()));
                    Self::Tcp(sockets)
                }
            });
        }
        Ok(out)
    }
}

/// A gateway that listens at a place.
#[derive(Clone, Debug)]
pub struct User {
    /// The gateway with its routes.
    pub entry: Arc<GatewayEntry>,
    /// On whose behalf it calls services.
    pub origin: Arc<Origin>,
    /// How TLS ends at each of its listeners; none where it does not.
    pub configs: Vec<Option<Arc<ServerConfig>>>,
}

/// A listener of a gateway, with the gateway.
#[derive(Clone, Debug)]
pub struct Found {
    users: Arc<[User]>,
    user: usize,
    index: usize,
}

impl Found {
    /// The gateway.
    pub fn gateway(&self) -> &Arc<GatewayEntry> {
        &self.user().entry
    }

    fn user(&self) -> &User {
        &self.users[self.user]
    }

    /// The listener with its routes.
    pub fn listener(&self) -> &ListenerEntry {
        &self.user().entry.listeners[self.index]
    }

    /// On whose behalf services are called.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.user().origin
    }

    /// How TLS ends here.
    pub fn config(&self) -> Option<&Arc<ServerConfig>> {
        self.user().configs[self.index].as_ref()
    }

    /// Whether both are the same listener.
    pub fn is_same(&self, other: &Found) -> bool {
        self.index == other.index && self.gateway().gateway.key == other.gateway().gateway.key
    }
}

/// A place where gateways listen.
#[derive(Debug)]
pub struct Door {
    place: Place,
    users: Mutex<Arc<[User]>>,
    /// Addresses that are gateways' own: the host's sockets hear what comes there too, and must not take it.
    foreign: Mutex<Arc<BTreeSet<IpAddr>>>,
    closed: watch::Sender<bool>,
}

impl Door {
    /// A door for these gateways.
    pub fn new(place: Place, users: Vec<User>) -> Self {
        Self { place, users: Mutex::new(users.into()), foreign: Mutex::default(), closed: watch::Sender::new(false) }
    }

    /// The gateways have changed.
    pub fn set_users(&self, users: Vec<User>) {
        *self.users.lock().unwrap_or_else(PoisonError::into_inner) = users.into();
    }

    /// The addresses that are gateways' own have changed.
    pub fn set_foreign(&self, addresses: &Arc<BTreeSet<IpAddr>>) {
        *self.foreign.lock().unwrap_or_else(PoisonError::into_inner) = addresses.clone();
    }

    /// Whether a connection came to an address that is a gateway's own and not the host's.
    fn is_foreign(&self, stream: &TcpStream) -> bool {
        let own = |local: SocketAddr| {
            self.foreign.lock().unwrap_or_else(PoisonError::into_inner).contains(&local.ip().to_canonical())
        };
        self.place.address.is_none() && stream.local_addr().is_ok_and(own)
    }

    /// Takes no more connections.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.place.port
    }

    /// Whether nothing but requests comes.
    fn carries_requests(&self) -> bool {
        match self.place.kind {
            Kind::Http => true,
            Kind::Tls => self.users().iter().all(|user| {
                let here = user.entry.listeners.iter().filter(|it| self.has(it));
                here.map(|it| it.listener.protocol).all(|protocol| protocol == ListenerProtocol::Https)
            }),
            Kind::Tcp | Kind::Udp => false,
        }
    }

    /// Whether what comes is under TLS.
    pub fn is_tls(&self) -> bool {
        self.place.kind == Kind::Tls
    }

    fn users(&self) -> Arc<[User]> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has(&self, listener: &ListenerEntry) -> bool {
        let listener = &listener.listener;
        listener.port == self.place.port
            && Kind::of(listener.protocol) == self.place.kind
            && (self.place.address.is_some() || listener.on_nodes)
    }

    /// The listener that takes a host (or SNI): of all gateways' the one with the most specific hostname, and only that one.
    pub fn listener(&self, host: &str) -> Option<Found> {
        let users = self.users();
        let mut best: Option<(Rank, usize, usize)> = None;
        for (number, user) in users.iter().enumerate() {
            for (index, entry) in user.entry.listeners.iter().enumerate().filter(|(_, entry)| self.has(entry)) {
                let hostname = entry.listener.hostname.as_ref();
                if hostname.is_some_and(|hostname| !hostname.matches(host)) {
                    continue;
                }
                let rank = hostname.map(Hostname::specificity);
                // Of equals the first gateway by key.
                if best.as_ref().is_none_or(|(have, ..)| rank > *have) {
                    best = Some((rank, number, index));
                }
            }
        }
        best.map(|(_, user, index)| Found { users, user, index })
    }

    /// Whether TLS is passed through for some names.
    pub fn passes_tls(&self) -> bool {
        let passes = |it: &ListenerEntry| self.has(it) && it.listener.tls == TlsMode::Passthrough;
        self.users().iter().any(|user| user.entry.listeners.iter().any(passes))
    }

    /// Whether connections must begin with a PROXY header: all of a port, if one of its listeners asks for it.
    fn requires_proxy_protocol(&self) -> bool {
        let requires = |it: &ListenerEntry| it.listener.proxy_protocol && self.has(it);
        self.users().iter().any(|user| user.entry.listeners.iter().any(requires))
    }

    /// Any origin of it: until a request has said for whom it is.
    fn first_origin(&self) -> Option<Arc<Origin>> {
        self.users().first().map(|user| user.origin.clone())
    }

    /// Resolves when it takes no more.
    pub async fn closed(&self) {
        // The sender lives as long as self.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

/// Serves a place on one worker.
pub fn serve(worker: &Arc<Worker>, door: &Arc<Door>, sockets: Sockets) -> io::Result<()> {
    match sockets {
        Sockets::Tcp(listeners) => {
            for listener in listeners {
                tokio::spawn(accept(worker.clone(), door.clone(), TcpListener::from_std(listener)?));
            }
        }
        Sockets::Udp(sockets) => {
            for socket in sockets {
                let socket = tokio::net::UdpSocket::from_std(socket)?;
                tokio::spawn(udp::serve(worker.clone(), door.clone(), socket));
            }
        }
    }
    Ok(())
}

async fn accept(worker: Arc<Worker>, door: Arc<Door>, listener: TcpListener) {
    let mut closed = door.closed.subscribe();
    loop {
        let accepted = tokio::select! {
            _ = closed.wait_for(|closed| *closed) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if door.is_foreign(&stream) => Stream::from(stream).abort(),
            Ok((stream, from)) => {
                pacing::settle(&stream, from);
                tokio::spawn(connection(worker.clone(), door.clone(), stream, from));
            }
            Err(error) => {
                tracing::warn!(%error, place = %door.place, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[expect(clippy::manual_async_fn, reason = "a waiting connection would hold its arguments twice: rust-lang/rust#62958")]
fn connection(
    worker: Arc<Worker>,
    door: Arc<Door>,
    mut stream: TcpStream,
    mut from: SocketAddr,
) -> impl Future<Output = ()> {
    async move {
        let _busy = worker.shared.busy(Work::Gateway);
        if door.carries_requests() {
            // Who does not read what was asked for is not waited for either. Bytes of other protocols may wait as long as their speakers like.
            let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(worker.shared.config.public_patience));
        }
        if door.requires_proxy_protocol() {
            match Box::pin(proxied::take(&mut stream, from)).await {
                Ok(opened_by) => from = opened_by,
                Err(error) => {
                    tracing::debug!(%error, %from, place = %door.place, "no PROXY header");
                    return Stream::from(stream).abort();
                }
            }
        }
        let (site, stream) = match door.place.kind {
            Kind::Http => {
                let Some(origin) = door.first_origin() else { return };
                (Site::gateway(origin, door, from, None), stream.into())
            }
            Kind::Tls => match Box::pin(tls::accept(&worker, &door, stream, from)).await {
                Some(Carrier { site, stream, http2: false }) => (site, stream),
                Some(Carrier { site, stream, .. }) => return requests::serve_http2(&worker, site, stream).await,
                None => return,
            },
            Kind::Tcp => match door.listener("") {
                Some(found) => {
                    return Box::pin(streams::serve(&worker, &door, &found, Stream::from(stream), from, "")).await;
                }
                None => return Stream::from(stream).abort(),
            },
            Kind::Udp => return,
        };
        requests::serve(&worker, site, stream).await;
    }
}

//! Datagrams: each client has a session with one endpoint, which answers it through a socket of its own.
use super::doors::Door;
use super::streams;
use crate::netns;
use crate::upstream::InFlight;
use crate::worker::Worker;
use model::map::HashMap;
use model::mesh::Transport;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A session in which nothing was said for so long is over.
const IDLE: Duration = Duration::from_secs(60);
/// Sessions of one socket at a time; a client beyond them is not heard.
const MAX_SESSIONS: usize = 16 * 1024;
/// The longest datagram.
const MAX_BYTES: usize = 65_536;

/// Sessions by client.
type Sessions = Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>;

/// Serves a socket until the door closes.
pub async fn serve(worker: Arc<Worker>, door: Arc<Door>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let sessions = Sessions::default();
    let mut buffer = vec![0; MAX_BYTES];
    loop {
        let received = tokio::select! {
            () = door.closed() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let Ok((length, client)) = received else { continue };
        let known = sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&client).cloned();
        let session = match known {
            Some(session) => session,
            None => match begin(&worker, &door, &socket, &sessions, client) {
                Ok(session) => session,
                Err(why) => {
                    tracing::debug!(%client, port = door.port(), why, "a datagram is dropped");
                    continue;
                }
            },
        };
        // What the endpoint's host refuses is lost, as datagrams are.
        let _ = session.send(&buffer[..length]).await;
    }
}

fn begin(
    worker: &Arc<Worker>,
    door: &Door,
    socket: &Arc<UdpSocket>,
    sessions: &Sessions,
    client: SocketAddr,
) -> Result<Arc<UdpSocket>, String> {
    let mut known = sessions.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MAX_SESSIONS {
        return Err("too many clients".into());
    }
    let found = door.listener("").ok_or("no listener")?;
    let port = streams::backend(worker, &found, "", Transport::Udp)?;
    let upstream = port.choose(&[], None, worker.now_ms()).ok_or("no endpoint is ready")?;
    let session = Arc::new(connect(upstream.address).map_err(|error| error.to_string())?);
    known.insert(client, session.clone());
    let in_flight = InFlight::begin(&upstream.load);
    let (socket, sessions, own) = (socket.clone(), sessions.clone(), session.clone());
    tokio::spawn(async move {
        let _in_flight = in_flight;
        answer(&own, &socket, client).await;
        sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&client);
    });
    Ok(session)
}

/// Brings what the endpoint says to the client, until it says nothing any more.
async fn answer(session: &UdpSocket, socket: &UdpSocket, client: SocketAddr) {
    let mut buffer = vec![0; MAX_BYTES];
    while let Ok(Ok(length)) = timeout(IDLE, session.recv(&mut buffer)).await {
        let _ = socket.send_to(&buffer[..length], client).await;
    }
}

fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if endpoint.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = netns::bind_udp(SocketAddr::new(any, 0))?;
    socket.connect(endpoint)?;
    UdpSocket::from_std(socket)
}

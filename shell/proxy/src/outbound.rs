//! What pods send: captured on port 15001, with the address that it was meant for.
use crate::copy::{self, Copied};
use crate::dial::{self, DialError, Dialled};
use crate::netns;
use crate::pods::Pod;
use crate::requests::{self, Site};
use crate::stream::Stream;
use crate::telemetry::{Connection, Peers, Protocol};
use crate::upstream::{InFlight, Port, Upstream};
use crate::worker::Worker;
use bytes::Bytes;
use model::Key;
use model::mesh::AppProtocol;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long the first bytes of a connection are waited for when nobody said what it speaks. A protocol in which the server
/// speaks first pays this once a connection; who minds names the port's protocol.
const SNIFF_PATIENCE: Duration = Duration::from_millis(50);
/// Endpoints that a connection is tried on.
const CONNECT_TRIES: usize = 3;

/// Serves one captured connection.
pub async fn serve(worker: Arc<Worker>, pod: Arc<Pod>, stream: TcpStream, from: SocketAddr) {
    let _busy = worker.shared.busy();
    let to = match netns::original_destination(&stream) {
        Ok(to) => to,
        Err(error) => return tracing::debug!(%error, pod = %pod.attachment.name, "not a redirected connection"),
    };
    if pod.origin.addresses.contains(&to.ip()) && pod.ports.contains(to.port()) {
        // Somebody connects to the capture port itself: passing it on would come back here, for ever.
        return tracing::debug!(pod = %pod.attachment.name, %to, "a connection to the proxy's own port is refused");
    }
    let service = worker.shared.mesh.known().directory.service_at(to.ip()).map(|entry| entry.service.key.clone());
    let port = service.and_then(|key| worker.ports.get(&worker.shared.mesh, &key, to.port()));
    let mut stream = Stream::from(stream);
    match port {
        Some(port) => {
            let protocol = port.app_protocol();
            let requests =
                protocol.is_http() || (protocol == AppProtocol::Unspecified && speaks_http(&mut stream).await);
            if requests {
                let site = Site::service(&pod.origin, &port, from);
                return requests::serve(&worker, site, stream).await;
            }
            balance(&worker, &pod, stream, from, &port).await;
        }
        None => direct(&worker, &pod, stream, from, to).await,
    }
}

/// Looks at the first bytes, and gives them back.
async fn speaks_http(stream: &mut Stream) -> bool {
    use tokio::io::AsyncReadExt;
    let mut first = [0u8; 24];
    match tokio::time::timeout(SNIFF_PATIENCE, stream.read(&mut first)).await {
        Ok(Ok(length)) if length > 0 => {
            stream.unread(Bytes::copy_from_slice(&first[..length]));
            requests::looks_like_http(&first[..length])
        }
        _ => false,
    }
}

/// A connection to a service: passed whole to one of its endpoints.
async fn balance(worker: &Arc<Worker>, pod: &Pod, stream: Stream, from: SocketAddr, port: &Arc<Port>) {
    let affinity = port.service().service.affinity_s.map(|_| requests::hash_of_address(from.ip()));
    let mut tried = Vec::new();
    let dialled = loop {
        let Some(upstream) = port.choose(&tried, affinity, worker.now_ms()) else { break Err(None) };
        match dial::dial(worker, &pod.origin, &upstream, None).await {
            Ok(dialled) => break Ok((dialled, upstream)),
            Err(error) if error.is_retriable() && tried.len() + 1 < CONNECT_TRIES => tried.push(upstream.address),
            Err(error) => break Err(Some(error)),
        }
    };
    let service = port.service().service.known_as();
    match dialled {
        Ok((dialled, upstream)) => pass(worker, pod, stream, dialled, upstream, Some(service)).await,
        Err(error) => refuse(pod, stream, &format!("service {service}"), error.as_ref()),
    }
}

/// A connection to an address that is no service's: a pod, or the world outside.
async fn direct(worker: &Arc<Worker>, pod: &Pod, stream: Stream, _from: SocketAddr, to: SocketAddr) {
    let workload = worker.shared.mesh.workload_at(to.ip());
    let workload = workload.map_or_else(|| "".into(), |it| it.name.clone());
    // Who calls a pod by its address wants that pod: there is no other.
    let upstream = Upstream { address: to, workload, load: worker.ports.load(to), last_resort: true };
    match dial::dial(worker, &pod.origin, &upstream, None).await {
        Ok(dialled) => pass(worker, pod, stream, dialled, upstream, None).await,
        Err(error) => refuse(pod, stream, &to.to_string(), Some(&error)),
    }
}

async fn pass(
    worker: &Arc<Worker>,
    pod: &Pod,
    mut stream: Stream,
    mut dialled: Dialled,
    upstream: Upstream,
    service: Option<&Key>,
) {
    let _in_flight = InFlight::begin(&upstream.load);
    let peers = Peers::outbound(worker, &pod.origin, dialled.peer.as_ref(), service, Protocol::Tcp, dialled.mtls);
    let connection = Connection::open(&worker.cells, &peers);
    let mut copied = Copied::default();
    let result = copy::bidirectional(&mut stream, &mut dialled.stream, &mut copied).await;
    connection.close(copied, &result);
    if let Err(error) = result {
        finish_broken(stream, dialled.stream, &error);
    }
}

/// A connection that broke on one side breaks on the other: an orderly end would claim that all was sent.
pub fn finish_broken(one: Stream, other: Stream, error: &io::Error) {
    tracing::debug!(%error, "connection broken");
    one.abort();
    other.abort();
}

fn refuse(pod: &Pod, stream: Stream, to: &str, error: Option<&DialError>) {
    let why = error.map_or_else(|| "no endpoint is ready".to_owned(), ToString::to_string);
    tracing::warn!(from = %pod.attachment.name, namespace = %pod.attachment.namespace, to, why, "connection refused");
    stream.abort();
}

//! What pods send: captured on port 15001, with the address that it was meant for.
use crate::connections::{self, Onward};
use crate::dial;
use crate::netns;
use crate::pods::Pod;
use crate::requests::{self, Site};
use crate::shared::Work;
use crate::stream::Stream;
use crate::upstream::Upstream;
use crate::worker::Worker;
use bytes::Bytes;
use model::mesh::AppProtocol;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long the first bytes of a connection are waited for when nobody said what it speaks. A protocol in which the server
/// speaks first pays this once a connection; who minds names the port's protocol.
const SNIFF_PATIENCE: Duration = Duration::from_millis(50);

/// Serves one captured connection.
pub async fn serve(worker: Arc<Worker>, pod: Arc<Pod>, stream: TcpStream, from: SocketAddr) {
    let _busy = worker.shared.busy(Work::Outbound);
    let to = match netns::original_destination(&stream) {
        Ok(to) => to,
        Err(error) => return tracing::debug!(%error, pod = %pod.attachment.name, "not a redirected connection"),
    };
    if pod.origin.addresses.contains(&to.ip()) && pod.ports.contains(to.port()) {
        // Somebody connects to the capture port itself: passing it on would come back here, for ever.
        return tracing::debug!(pod = %pod.attachment.name, %to, "a connection to the proxy's own port is refused");
    }
    let service = worker.shared.mesh.known().directory.service_at(to.ip()).map(|entry| entry.service.key.clone());
    let port = service.and_then(|key| worker.ports.get(&worker.shared, &key, to.port()));
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
            let to = connections::routed(&worker, &port);
            let Some(to) = to else {
                return connections::refuse(&pod.origin, stream, "a route without a valid backend", None);
            };
            let onward = Onward { origin: &pod.origin, gateway: None, from };
            connections::balance(&worker, onward, stream, &to).await;
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

/// A connection to an address that is no service's: a pod, or the world outside.
async fn direct(worker: &Arc<Worker>, pod: &Pod, stream: Stream, _from: SocketAddr, to: SocketAddr) {
    let workload = worker.shared.mesh.workload_at(to.ip());
    let workload = workload.map_or_else(|| "".into(), |it| it.name.clone());
    // Who calls a pod by its address wants that pod: there is no other.
    let upstream = Upstream { address: to, workload, load: worker.ports.load(to), last_resort: true };
    match dial::dial(worker, &pod.origin, &upstream, None).await {
        Ok(dialled) => {
            connections::pass(worker, &pod.origin, stream, dialled, upstream, (None, connections::Lasting::default()))
                .await
        }
        Err(error) => connections::refuse(&pod.origin, stream, &to.to_string(), Some(&error)),
    }
}

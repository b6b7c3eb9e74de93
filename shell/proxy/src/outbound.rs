//! What pods send: captured on port 15001, with the address that it was meant for.
use crate::connections::{self, Onward};
use crate::dial;
use crate::netns;
use crate::peer_tls;
use crate::pods::Pod;
use crate::requests::{self, Site};
use crate::shared::Work;
use crate::stream::Stream;
use crate::upstream::{Asker, Port, Upstream};
use crate::worker::Worker;
use bytes::Bytes;
use model::mesh::AppProtocol;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use traffic::meant::{Asks, Choice, Meant};

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
    let meant = worker.shared.mesh.known().directory.meant(to, &pod.origin.namespace);
    let mut stream = Stream::from(stream);
    let (port, name) = match meant {
        Meant::Nobody => return direct(&worker, &pod, stream, from, to).await,
        Meant::One(entry) => {
            let asker = Asker { origin: &pod.origin, to: Some(to) };
            let port = worker.ports.get(&worker.shared, &entry.service.key, to.port(), asker);
            let Some(port) = port else { return direct(&worker, &pod, stream, from, to).await };
            let speaks = match port.app_protocol() {
                AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => Speaks::Http,
                AppProtocol::Tls => Speaks::Tls,
                AppProtocol::Tcp => Speaks::Other,
                AppProtocol::Unspecified => sniff(&mut stream).await,
            };
            if speaks == Speaks::Http {
                let site = Site::service(&pod.origin, &port, (from, Some(to)));
                return requests::serve(&worker, site, stream).await;
            }
            let name = match speaks == Speaks::Tls && port.entry().asks_name() {
                true => peer_tls::server_name(&mut stream).await,
                false => None,
            };
            (port, name)
        }
        Meant::ByName(choice) => match by_name(&worker, &pod, &mut stream, &choice, to).await {
            Named::Requests => {
                let site = Site::by_host(&pod.origin, from, to);
                return requests::serve(&worker, site, stream).await;
            }
            Named::Bytes(port, name) => (port, name),
            Named::Nobody => return direct(&worker, &pod, stream, from, to).await,
        },
    };
    let Some(port) = connections::routed(&worker, &pod.origin, &port, (name.as_deref(), to)) else {
        return connections::refuse(&pod.origin, stream, "a route without a valid backend", None);
    };
    let onward = Onward { origin: &pod.origin, gateway: None, from };
    connections::balance(&worker, onward, stream, &port).await;
}

/// Whose a connection is that its address does not tell.
enum Named {
    /// Each request says it.
    Requests,
    /// A service's, with the server's name that was asked for.
    Bytes(Arc<Port>, Option<String>),
    Nobody,
}

async fn by_name(worker: &Worker, pod: &Pod, stream: &mut Stream, choice: &Choice, to: SocketAddr) -> Named {
    let speaks = if choice.is_opaque() { Speaks::Other } else { sniff(stream).await };
    let name = match speaks {
        Speaks::Http => return Named::Requests,
        Speaks::Tls => peer_tls::server_name(stream).await,
        Speaks::Other => None,
    };
    let asks = name.as_deref().map_or(Asks::Nothing, Asks::Server);
    let asker = Asker { origin: &pod.origin, to: Some(to) };
    let port = choice.asking(asks).map(|entry| entry.service.key.clone());
    let port = port.and_then(|key| worker.ports.get(&worker.shared, &key, to.port(), asker));
    port.map_or(Named::Nobody, |port| Named::Bytes(port, name))
}

/// What a connection speaks, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http,
    Tls,
    Other,
}

/// Looks at the first bytes, and gives them back.
async fn sniff(stream: &mut Stream) -> Speaks {
    use tokio::io::AsyncReadExt;
    let mut first = [0u8; 24];
    match tokio::time::timeout(SNIFF_PATIENCE, stream.read(&mut first)).await {
        Ok(Ok(length)) if length > 0 => {
            stream.unread(Bytes::copy_from_slice(&first[..length]));
            match &first[..length] {
                first if requests::looks_like_http(first) => Speaks::Http,
                first if peer_tls::begins(first) => Speaks::Tls,
                _ => Speaks::Other,
            }
        }
        _ => Speaks::Other,
    }
}

/// A connection to an address that is no service's: a pod, or the world outside.
async fn direct(worker: &Arc<Worker>, pod: &Pod, stream: Stream, _from: SocketAddr, to: SocketAddr) {
    let workload = worker.shared.mesh.workload_at(to.ip());
    let workload = workload.map_or_else(|| "".into(), |it| it.name.clone());
    // Who calls a pod by its address wants that pod: there is no other.
    let upstream = Upstream { address: to, workload, load: worker.ports.load(to), last_resort: true, outside: false };
    match dial::dial(worker, &pod.origin, &upstream, None).await {
        Ok(dialled) => {
            connections::pass(worker, &pod.origin, stream, dialled, upstream, (None, connections::Lasting::default()))
                .await
        }
        Err(error) => connections::refuse(&pod.origin, stream, &to.to_string(), Some(&error)),
    }
}

//! Connections to endpoints, through a tunnel where the endpoint has one.
use crate::callers;
use crate::hbone::client::{self, Target, TunnelError};
use crate::hbone::stream::HboneStream;
use crate::netns;
use crate::origin::Origin;
use crate::pods::Pod;
use crate::stream::{Io, Stream};
use crate::tls_out::BackendTlsError;
use crate::upstream::{Upstream, identity_of};
use crate::worker::Worker;
use model::mesh::Workload;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Why there is no connection. Nothing of the caller's was sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("connecting to {0} timed out")]
    Timeout(SocketAddr),
    #[error(transparent)]
    BackendTls(#[from] BackendTlsError),
}

impl DialError {
    /// Whether the other side's policy says no.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Tunnel(error) if error.is_refusal())
    }

    /// Whether another endpoint may do better.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Tunnel(error) => error.is_retriable(),
            Self::Connect(..) | Self::Timeout(_) => true,
            Self::BackendTls(error) => !matches!(error, BackendTlsError::Policy(_)),
        }
    }
}

/// A connection and what is known of its other end.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub stream: Stream,
    /// The workload behind it, when known.
    pub peer: Option<Arc<Workload>>,
    /// Whether it is under mutual TLS.
    pub mtls: bool,
}

/// Connects to an endpoint on behalf of `origin`.
pub async fn dial(
    worker: &Worker,
    origin: &Origin,
    upstream: &Upstream,
    traceparent: Option<&[u8]>,
) -> Result<Dialled, DialError> {
    let peer = {
        let known = worker.shared.mesh.known();
        let named = known.directory.workload(&upstream.workload).cloned();
        named.or_else(|| known.directory.workload_at(upstream.address.ip()).cloned())
    };
    match &peer {
        Some(workload) if workload.tunnel == model::mesh::Tunnel::Hbone && !upstream.outside => {
            // Apart: a connection that needs none, or has it, carries no room for opening one.
            let stream = Box::pin(tunnel(worker, origin, upstream, workload, traceparent)).await;
            if let Err(error) = &stream {
                tracing::debug!(%error, address = %upstream.address, from = %origin.name, "no tunnel");
                if matches!(error, TunnelError::Draining) {
                    upstream.load.mark_draining(worker.now_ms());
                }
            }
            Ok(Dialled { stream: Io::Hbone(Box::new(stream?)).into(), peer, mtls: true })
        }
        _ => {
            let stream = plain(origin, upstream.address).await?;
            Ok(Dialled { stream: stream.into(), peer, mtls: false })
        }
    }
}

async fn tunnel(
    worker: &Worker,
    origin: &Origin,
    upstream: &Upstream,
    workload: &Workload,
    traceparent: Option<&[u8]>,
) -> Result<HboneStream, TunnelError> {
    let identity = identity_of(workload, worker.shared.identities.trust_domain());
    let proxy = SocketAddr::new(upstream.address.ip(), worker.shared.config.ports.hbone);
    let last_resort = upstream.last_resort;
    let target = Target { proxy, identity: &identity, address: upstream.address, last_resort, traceparent };
    client::connect(&worker.tunnels, origin, &target).await
}

/// Connects to a process of a pod, on behalf of who calls: with the caller's address, where the pod's kernel brings the answers back.
pub async fn process(pod: &Pod, to: SocketAddr, caller: SocketAddr) -> Result<tokio::net::TcpStream, DialError> {
    let address = pod.local_address(to);
    let Some(caller) = pod.seen_as(caller, address) else { return plain(&pod.origin, address).await };
    let connected = timeout(CONNECT_TIMEOUT, netns::connect_as(&pod.origin.netns, caller, address)).await;
    match connected.map_err(|_| DialError::Timeout(address))? {
        // Its ports are used up, or somebody took a right away from us: to be served is worth more than to be seen.
        Err(error) if callers::is_port_taken(&error) || error.kind() == ErrorKind::PermissionDenied => {
            tracing::debug!(%error, %caller, pod = %pod.attachment.name, "the process will see the proxy");
            plain(&pod.origin, address).await
        }
        other => other.map_err(|error| DialError::Connect(address, error)),
    }
}

/// Connects without a tunnel.
pub async fn plain(origin: &Origin, address: SocketAddr) -> Result<tokio::net::TcpStream, DialError> {
    let connecting = netns::connect(&origin.netns, address, origin.addresses.contains(&address.ip()));
    let connected = timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| DialError::Timeout(address))?;
    connected.map_err(|error| DialError::Connect(address, error))
}

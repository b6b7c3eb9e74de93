//! Mutual TLS that peers begin themselves, straight to the process's port: what Istio's sidecars speak among each other, and what mesh control
//! tells Envoys and proxyless gRPC clients to speak. It ends here with the pod's own certificate; what is in it is then treated like
//! what comes through a tunnel.
//!
//! A process may end TLS of its own on the same port, so not all TLS is a peer's: a peer offers a protocol of Istio's (ALPN `istio...`) or asks for a server
//! name of its form (`outbound_.PORT_.SUBSET_.HOST`). Where nothing is taken in plain text all TLS is.
use crate::dial;
use crate::identity::spiffe;
use crate::identity::tls::client_hello;
use crate::identity::trust::{Resting, RootId};
use crate::inbound;
use crate::pods::Pod;
use crate::policy::{self, Admission, Caller};
use crate::stream::{Io, Stream};
use crate::worker::Worker;
use authz::mesh::Identity;
use bytes::BytesMut;
use rustls::pki_types::CertificateDer;
use rustls::server::ClientHello;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest first message that is waited for.
const MAX_HELLO_BYTES: usize = 16 << 10;

/// Whose TLS it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A peer's of the mesh, by what it asks for.
    Peer,
    /// The process's own, for all that can be seen.
    Other,
}

/// Whether a connection begins as TLS does: a handshake record of any version.
pub fn begins(first: &[u8]) -> bool {
    matches!(first, [0x16] | [0x16, 3, ..])
}

/// Whether a first message is a peer's.
pub fn is_peer(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut names| names.any(|name| name.starts_with(b"istio")))
        || hello.server_name().is_some_and(|name| name.starts_with("outbound_."))
}

/// Waits for a connection's first message, and leaves it to be read. None: it is no TLS.
pub async fn hello(stream: &mut Stream) -> Option<Hello> {
    let peer = first_message(stream, is_peer).await?;
    Some(if peer { Hello::Peer } else { Hello::Other })
}

/// The server name (lower case, or empty) that a connection's first message asks for; it stays to be read. None: it is no TLS.
pub async fn server_name(stream: &mut Stream) -> Option<String> {
    first_message(stream, |hello| hello.server_name().unwrap_or_default().to_ascii_lowercase()).await
}

async fn first_message<T>(stream: &mut Stream, look: impl Fn(&ClientHello<'_>) -> T) -> Option<T> {
    let until = Instant::now() + HANDSHAKE_TIMEOUT;
    let mut read = BytesMut::new();
    let found = loop {
        let Ok(Some(bytes)) = timeout_at(until, inbound::chunk(stream)).await else { break None };
        read.extend_from_slice(&bytes);
        if !begins(&read) {
            break None;
        }
        match client_hello(&read, &look) {
            Ok(None) if read.len() < MAX_HELLO_BYTES => {}
            Ok(Some(seen)) => break Some(seen),
            Ok(None) | Err(_) => break None,
        }
    };
    if !read.is_empty() {
        stream.unread(read.freeze());
    }
    found
}

/// Who a verified chain names. None, and said to the operator: nobody of the trust domain.
pub fn identity(worker: &Worker, pod: &Pod, chain: &[CertificateDer<'_>], from: SocketAddr) -> Option<Identity> {
    let trust_domain = worker.shared.identities.trust_domain();
    let identity = chain.first().and_then(spiffe::of_certificate).and_then(|name| Identity::parse(&name));
    let identity = identity.filter(|identity| identity.trust_domain() == trust_domain);
    if identity.is_none() {
        tracing::warn!(%from, pod = %pod.attachment.name, "a peer without an identity of the trust domain is refused");
    }
    identity
}

/// A peer's connection whose TLS has ended here.
pub struct Secured {
    /// What is in it.
    pub stream: Stream,
    /// The roots that it rests on.
    pub resting: Resting,
    /// Who it is.
    pub caller: Caller,
    /// The root of what it was shown.
    pub shown: RootId,
}

/// Serves a peer's connection that was taken for `to`; with one to the process, if it was opened already. (It goes where it comes from, to
/// [`inbound::deliver`], so its type is written out.)
pub fn serve<'a>(
    worker: &'a Arc<Worker>,
    pod: &'a Arc<Pod>,
    stream: Stream,
    from: SocketAddr,
    to: SocketAddr,
    process: Option<Stream>,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(secure(worker, pod, stream, from, to, process))
}

async fn secure(
    worker: &Arc<Worker>,
    pod: &Arc<Pod>,
    stream: Stream,
    from: SocketAddr,
    to: SocketAddr,
    process: Option<Stream>,
) {
    let handshake = async {
        let tls = pod.origin.identity.tls().await.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>((TlsAcceptor::from(tls.direct.clone()).accept(stream).await?, tls.root))
    };
    let (stream, shown) = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::debug!(%error, %from, pod = %pod.attachment.name, "no TLS with a peer"),
        Err(_) => return tracing::debug!(%from, pod = %pod.attachment.name, "the handshake took too long"),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let resting = pod.origin.identity.anchors().rest(shown, chain);
    let Some(identity) = identity(worker, pod, chain, from) else { return };
    let caller = Caller { identity: Some(identity), ..Caller::in_plain_text(from) };
    let secured = Secured { stream: Io::TlsPeer(Box::new(stream)).into(), resting, caller, shown };
    secured.deliver(worker, pod, to, process).await;
}

impl Secured {
    /// Brings it to its process, as policy has it, until it ends or its roots go.
    pub async fn deliver(self, worker: &Arc<Worker>, pod: &Arc<Pod>, to: SocketAddr, process: Option<Stream>) {
        let Secured { stream, resting, caller, shown } = self;
        let from = caller.address;
        let caller = Caller { shown: Some(shown), ..caller };
        if !policy::is_known(worker, pod).await {
            return stream.abort();
        }
        let admission = policy::admit(worker, pod, &caller, to);
        if matches!(admission, Admission::Refused) {
            return stream.abort();
        }
        let process = match process {
            Some(process) => process,
            None => match dial::process(pod, to, from).await {
                Ok(process) => process.into(),
                Err(error) => {
                    tracing::debug!(%error, pod = %pod.attachment.name, "the process does not answer");
                    return stream.abort();
                }
            },
        };
        tokio::select! {
            () = inbound::deliver(worker, pod, stream, process, &caller, to, admission) => {}
            () = resting.withdrawn() => {
                tracing::info!(%from, pod = %pod.attachment.name, "connection closed: its root is no longer trusted");
            }
        }
    }
}

//! Tunnels that start here.
use super::pool::{Held, Pool, Tunnel};
use super::stream::HboneStream;
use super::{DRAINING, ELSEWHERE, FRAME_BYTES, LAST_RESORT, STREAM_WINDOW_BYTES, TUNNEL_WINDOW_BYTES};
use crate::identity::{IdentityError, spiffe};
use crate::netns;
use crate::origin::Origin;
use crate::outbox::Tcp;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Why there is no tunnelled connection. Nothing of the caller's bytes was sent in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error("the peer is {got}, not {expected}")]
    WrongIdentity { expected: Arc<str>, got: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    #[error("the peer refuses: {0}")]
    Refused(StatusCode),
    #[error("the peer drains")]
    Draining,
    #[error("timed out while {0}")]
    Timeout(&'static str),
    /// The tunnel was not opened, for all who waited for it.
    #[error(transparent)]
    Shared(Arc<TunnelError>),
}

impl TunnelError {
    /// Whether another endpoint may do better. A refusal by policy is the answer, not a failure.
    pub fn is_retriable(&self) -> bool {
        !self.is_refusal()
    }

    /// Whether the other side's policy says no: 403 of ours, 401 of ztunnel's.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED))
    }
}

/// Where a tunnel goes and on whose behalf.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The other proxy: address of the workload, port 15008.
    pub proxy: SocketAddr,
    /// Who it must prove to be.
    pub identity: &'a Arc<str>,
    /// The process behind it.
    pub address: SocketAddr,
    /// There is no other endpoint: ask a draining one, too.
    pub last_resort: bool,
    /// W3C trace context to pass on.
    pub traceparent: Option<&'a [u8]>,
}

/// Opens a connection to `target.address` through a pooled tunnel.
pub async fn connect(pool: &Pool, origin: &Origin, target: &Target<'_>) -> Result<HboneStream, TunnelError> {
    let mut first = true;
    loop {
        let (held, fresh) = pool.hold(origin, target.proxy, target.identity).await?;
        match connect_on(&held, origin, target).await {
            Ok((send, receive)) => return Ok(HboneStream::new(send, receive, Some(held))),
            // A pooled tunnel may have been closed by the peer a moment ago: that says nothing about the peer.
            Err(TunnelError::Http2(_)) if !fresh && first => {
                held.retire();
                first = false;
            }
            Err(error) => {
                if matches!(error, TunnelError::Http2(_) | TunnelError::Timeout(_)) {
                    held.retire();
                }
                return Err(error);
            }
        }
    }
}

async fn connect_on(
    held: &Held,
    origin: &Origin,
    target: &Target<'_>,
) -> Result<(h2::SendStream<Bytes>, h2::RecvStream), TunnelError> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    let authority = target.address.to_string();
    *request.uri_mut() = Uri::builder().authority(authority).build().unwrap_or_default();
    let headers = request.headers_mut();
    if let Some(baggage) = &origin.baggage {
        headers.insert("baggage", baggage.clone());
    }
    if let Some(value) = target.traceparent.and_then(|value| HeaderValue::from_bytes(value).ok()) {
        headers.insert("traceparent", value);
    }
    let wish = if target.last_resort { LAST_RESORT } else { ELSEWHERE };
    headers.insert(DRAINING, HeaderValue::from_static(wish));
    let asked = async {
        let mut sender = held.sender().ready().await?;
        let (response, send) = sender.send_request(request, false)?;
        Ok::<_, h2::Error>((response.await?, send))
    };
    let (response, send) = timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| TunnelError::Timeout("connecting"))??;
    if response.headers().contains_key(DRAINING) {
        return Err(TunnelError::Draining);
    }
    match response.status() {
        status if status.is_success() => Ok((send, response.into_body())),
        status => Err(TunnelError::Refused(status)),
    }
}

/// Opens a tunnel and verifies who is at its other end, before anything is sent through it.
pub(super) async fn open_tunnel(
    origin: &Origin,
    proxy: SocketAddr,
    identity: &Arc<str>,
) -> Result<Tunnel, TunnelError> {
    let tls = origin.identity.tls().await?;
    let opened = async {
        let tcp = netns::connect(&origin.netns, proxy, false).await.map_err(TunnelError::Connect)?;
        netns::end_in_silence(&tcp).map_err(TunnelError::Connect)?;
        let name = ServerName::IpAddress(proxy.ip().into());
        TlsConnector::from(tls.client.clone()).connect(name, Tcp::from(tcp)).await.map_err(TunnelError::Tls)
    };
    let stream = timeout(CONNECT_TIMEOUT, opened).await.map_err(|_| TunnelError::Timeout("opening a tunnel"))??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let shown = chain.first().and_then(spiffe::of_certificate).unwrap_or_default();
    if shown != **identity {
        return Err(TunnelError::WrongIdentity { expected: identity.clone(), got: shown });
    }
    let resting = origin.identity.anchors().rest(tls.root, chain);
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(TUNNEL_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await?;
    let closed = Arc::new(AtomicBool::new(false));
    let ended = closed.clone();
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, %proxy, "tunnel ended");
            },
            () = resting.withdrawn() => tracing::info!(%proxy, "tunnel closed: its root is no longer trusted"),
        }
        ended.store(true, Ordering::Relaxed);
    });
    Ok(Tunnel::new(sender, closed, origin.identity.clone(), tls.root))
}

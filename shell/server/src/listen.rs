//! Sockets and TLS: connections in, requests to the handler, an orderly end.

use crate::body::Body;
use crate::core::Core;
use crate::core::stopped;
use crate::handler::{self, Peer};
use crate::metrics::Gauge;
use crate::pki::Pki;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After a shutdown began, what is still running is given this long; watches end at once.
const DRAIN: Duration = Duration::from_secs(5);

/// Trusts our CA for clients, without demanding a certificate: tokens are the other way in.
///
/// # Errors
/// The key material does not fit together.
pub fn tls_config(pki: &Pki) -> Result<rustls::ServerConfig, String> {
    let provider = client::PROVIDER.clone();
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(pki.authority.certificate_pem().as_bytes()).map_err(|e| e.to_string())?;
    roots.add(ca).map_err(|error| error.to_string())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| error.to_string())?;
    let (certificates, key) = pki.server.der()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Which door a connection came through.
#[derive(Clone)]
pub enum Door {
    /// 6443.
    Tls(TlsAcceptor),
    /// The dashboard's plain one.
    Dashboard,
}

/// Accepts until shutdown, then lets what runs finish.
pub async fn serve(core: Arc<Core>, listener: TcpListener, door: Door, mut shutdown: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(core.config.limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: accepting again at once would spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            tracing::warn!(%from, "connection refused: the limit of {} is reached", core.config.limits.connections);
            continue;
        };
        let (core, door, shutdown) = (core.clone(), door.clone(), shutdown.clone());
        connections.spawn(async move {
            let _open = Gauge::enter(&core.metrics.connections);
            connection(core.clone(), socket, from, door, shutdown).await;
            drop(permit);
        });
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, finished).await;
}

async fn connection(core: Arc<Core>, socket: TcpStream, from: SocketAddr, door: Door, shutdown: watch::Receiver<bool>) {
    let _ = socket.set_nodelay(true);
    match door {
        Door::Dashboard => {
            let peer = Peer { from, certificate: None, dashboard: true };
            requests(core, socket, peer, shutdown).await;
        }
        Door::Tls(acceptor) => {
            let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%from, %error, "TLS handshake failed"),
                Err(_) => return tracing::debug!(%from, "TLS handshake timed out"),
            };
            let presented = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let certificate = presented.and_then(|der| crate::authn::certificate::identity(der));
            requests(core, stream, Peer { from, certificate, dashboard: false }, shutdown).await;
        }
    }
}

async fn requests<S>(core: Arc<Core>, stream: S, peer: Peer, mut shutdown: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(100).max_buf_size(256 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250)
        .max_header_list_size(64 << 10)
        // Windows that let a list of megabytes flow without a round trip for every 64 KiB.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let peer = Arc::new(peer);
    let service = service_fn(move |request| {
        let (core, peer) = (core.clone(), peer.clone());
        async move { Ok::<http::Response<Body>, Infallible>(handler::handle(core, peer, request).await) }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "connection ended");
    }
}

//! The port: TLS, HTTP/2, and which call is which.

use super::ads::{Ads, Whole};
use super::ca::{CaError, split_pem};
use super::certificates::{Certificates, Tokens};
use super::core::Core;
use super::doorkeeper::{Doorkeeper, Room, Standing};
use super::hosts;
use super::identity::Caller;
use super::join::Join;
use super::trust::Listener;
use super::{MeshCa, MeshError};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use xds::ca::{CREATE_CERTIFICATE_PATH, JOIN_PATH};
use xds::discovery::{DELTA_PATH, SOTW_PATH};
use xds::trust::REPORT_PATH;
use xds::workload_api::SIGN_JWT_PATH;

/// A client that does not finish its handshake in this time is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So long may a connection last whose client showed no certificate: to join takes a moment.
const ANONYMOUS: Duration = Duration::from_secs(30);
/// Calls that are under way on a connection that has to go may end in this time: more than they wait for what the watch will tell.
const LAST_WORDS: Duration = Duration::from_secs(4);
/// A peer that answers no ping for this long is gone: its joined host is taken out of service after it.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

/// How callers are met; made anew when the roots change.
pub struct Tls {
    dir: PathBuf,
    config: RwLock<Arc<rustls::ServerConfig>>,
}

impl Tls {
    /// With the key material of a directory, and the authority's roots.
    ///
    /// # Errors
    /// The files cannot be read or used.
    pub fn new(dir: &Path, ca: &MeshCa) -> Result<Self, MeshError> {
        Ok(Tls { dir: dir.to_owned(), config: RwLock::new(Arc::new(tls(dir, ca)?)) })
    }

    /// The roots have changed.
    ///
    /// # Errors
    /// The files cannot be read or used: all stays as it was.
    pub fn reload(&self, ca: &MeshCa) -> Result<(), MeshError> {
        let made = Arc::new(tls(&self.dir, ca)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }
}

/// TLS with the server's certificate; client certificates by the cluster CA (nodes) or the mesh CA (joined hosts), or none at all (joining).
fn tls(dir: &Path, ca: &MeshCa) -> Result<rustls::ServerConfig, MeshError> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|source| CaError::File { path, source })
    };
    let tls = |error: &dyn std::fmt::Display| MeshError::Tls(error.to_string());
    let mut roots = rustls::RootCertStore::empty();
    for pem in split_pem(&read("ca.crt")?).into_iter().chain(ca.roots()) {
        let root = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| tls(&error))?;
        roots.add(root).map_err(|error| tls(&error))?;
    }
    let provider = client::PROVIDER.clone();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| tls(&error))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(read("server.crt")?.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(read("server.key")?.as_bytes()).map_err(|error| tls(&error))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.map_err(|error| tls(&error))?, key)
        .map_err(|error| tls(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Accepts until told to stop.
pub async fn run(core: Arc<Core>, listener: TcpListener, stopped: watch::Receiver<bool>) {
    let keeper = Arc::new(Doorkeeper::default());
    let mut stop = stopped.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let Some(room) = keeper.greet(address.ip()) else {
                    tracing::debug!(%address, "mesh: too many connections in their handshake");
                    continue;
                };
                let connection =
                    Connection { core: core.clone(), acceptor: core.tls.acceptor(), address, stopped: stopped.clone() };
                tokio::spawn(connection.serve(stream, room));
            }
            Err(error) => {
                // Out of descriptors, mostly: the next try after others have closed some.
                tracing::warn!(%error, "mesh: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Connection {
    core: Arc<Core>,
    acceptor: TlsAcceptor,
    address: SocketAddr,
    stopped: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, mut room: Room) {
        let _ = stream.set_nodelay(true);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)) => accepted,
            () = room.taken() => {
                tracing::debug!(address = %self.address, "mesh: another connection took its place in the handshake");
                return;
            }
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(address = %self.address, %error, "mesh: TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let caller =
            certificates.and_then(|chain| chain.first()).map_or(Caller::Anonymous, |leaf| Caller::of_certificate(leaf));
        let (standing, life) = match caller {
            Caller::Anonymous => (Standing::Anonymous, Some(ANONYMOUS)),
            _ => (Standing::Known, None),
        };
        if !room.becomes(standing) {
            tracing::debug!(address = %self.address, ?standing, "mesh: too many connections");
            return;
        }
        let address = self.address;
        let core = self.core.clone();
        let known = caller.clone();
        let handler = Handler { core: self.core, caller, address: self.address.to_string(), stopped: self.stopped };
        let service = hyper::service::service_fn(move |request| {
            let handler = handler.clone();
            async move { Ok::<_, Infallible>(handler.handle(request).await) }
        });
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.timer(TokioTimer::new());
        server.keep_alive_interval(KEEP_ALIVE.0).keep_alive_timeout(KEEP_ALIVE.1).max_concurrent_streams(256);
        let mut served = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        let ends = async {
            match life {
                Some(life) => tokio::time::sleep(life).await,
                None => hosts::until_put_out(&core, &known).await,
            }
        };
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = ends => {
                tracing::debug!(%address, caller = known.proxy(), "mesh: connection has lasted long enough");
                served.as_mut().graceful_shutdown();
                tokio::time::timeout(LAST_WORDS, served).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "mesh: connection ended");
        }
    }
}

#[derive(Clone)]
struct Handler {
    core: Arc<Core>,
    caller: Caller,
    address: String,
    stopped: watch::Receiver<bool>,
}

impl Handler {
    async fn handle(self, request: http::Request<Incoming>) -> http::Response<tonic::body::Body> {
        let request = request.map(tonic::body::Body::new);
        match request.uri().path() {
            DELTA_PATH => {
                let service =
                    Ads { core: self.core, caller: self.caller, address: self.address, stopped: self.stopped };
                Grpc::new(ProstCodec::default()).streaming(service, request).await
            }
            SOTW_PATH => {
                let service =
                    Ads { core: self.core, caller: self.caller, address: self.address, stopped: self.stopped };
                Grpc::new(ProstCodec::default()).streaming(Whole(service), request).await
            }
            CREATE_CERTIFICATE_PATH => {
                let service = Certificates { core: self.core, caller: self.caller };
                Grpc::new(ProstCodec::default()).unary(service, request).await
            }
            SIGN_JWT_PATH => {
                let service = Tokens(Certificates { core: self.core, caller: self.caller });
                Grpc::new(ProstCodec::default()).unary(service, request).await
            }
            REPORT_PATH => {
                let service = Listener { core: self.core, caller: self.caller };
                Grpc::new(ProstCodec::default()).unary(service, request).await
            }
            JOIN_PATH => {
                let service = Join { core: self.core, address: self.address };
                Grpc::new(ProstCodec::default()).unary(service, request).await
            }
            other => tonic::Status::unimplemented(format!("there is no {other} here")).into_http(),
        }
    }
}

//! Listeners under TLS: the server name of the first message decides whose connection it is, and whether TLS ends here.
use super::doors::{Door, Found};
use super::streams;
use crate::identity::tls::roots;
use crate::outbox::Tcp;
use crate::peer_tls;
use crate::requests::Site;
use crate::stream::{Io, Stream};
use crate::worker::Worker;
use client::PROVIDER;
use model::Key;
use model::map::HashMap;
use model::mesh::{ClientValidation, Listener, ListenerProtocol, TlsMode, TlsSecret};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, ServerConfig};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that carries requests, once its TLS has ended here.
pub struct Carrier {
    pub site: Arc<Site>,
    pub stream: Stream,
    /// HTTP/2 was agreed on (ALPN): nothing else may follow.
    pub http2: bool,
}

/// Ends a connection's TLS, if that is to end here. One that carries no requests is served to its end. One that does is handed back: whoever serves
/// it then holds no room that only its beginning needs.
pub async fn accept(worker: &Arc<Worker>, door: &Arc<Door>, stream: TcpStream, from: SocketAddr) -> Option<Carrier> {
    let agreed = if door.passes_tls() {
        let mut stream = Stream::from(stream);
        let name = peer_tls::server_name(&mut stream).await?;
        let Some(found) = door.listener(&name) else {
            stream.abort();
            return None;
        };
        if found.listener().listener.tls == TlsMode::Passthrough {
            Box::pin(streams::serve(worker, door, &found, stream, from, &name)).await;
            return None;
        }
        timeout(HANDSHAKE_TIMEOUT, Box::pin(handshake(door, stream, Io::TlsPeer))).await
    } else {
        timeout(HANDSHAKE_TIMEOUT, Box::pin(handshake(door, Tcp::from(stream), Io::TlsServer))).await
    };
    let Agreed { found, name, http2, stream } = match agreed {
        Ok(Ok(agreed)) => agreed,
        Ok(Err(error)) => {
            tracing::debug!(%error, %from, port = door.port(), "no TLS");
            return None;
        }
        Err(_) => return None,
    };
    if found.listener().listener.protocol == ListenerProtocol::Tls {
        Box::pin(streams::serve(worker, door, &found, stream, from, &name)).await;
        return None;
    }
    let site = Site::gateway(found.origin().clone(), door.clone(), from, Some(name.into()));
    Some(Carrier { site, stream, http2 })
}

/// A connection whose TLS ends here.
struct Agreed {
    found: Found,
    /// The server's name that was asked for.
    name: String,
    /// HTTP/2 was agreed on (ALPN): nothing else may follow.
    http2: bool,
    stream: Stream,
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    door: &Door,
    stream: S,
    ended: fn(Box<TlsStream<S>>) -> Io,
) -> std::io::Result<Agreed> {
    let started = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let name = started.client_hello().server_name().unwrap_or_default().to_ascii_lowercase();
    let found = door.listener(&name).ok_or_else(|| std::io::Error::other("no listener for the name"))?;
    let config = found.config().cloned().ok_or_else(|| std::io::Error::other("the listener has no certificate"))?;
    let stream = started.into_stream(config).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Agreed { found, name, http2, stream: ended(Box::new(stream)).into() })
}

/// Configurations of listeners, kept as long as what they are made of is the same: with them live the tickets of clients that come back.
#[derive(Debug, Default)]
pub struct Configs(HashMap<Parts, (Arc<ServerConfig>, bool)>);

/// What a configuration is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Parts {
    certificates: Vec<Arc<TlsSecretByAddress>>,
    clients: Option<(Vec<Arc<str>>, bool)>,
    http: bool,
}

/// A secret that is equal only to itself: a new one of the same name is another.
#[derive(Debug)]
struct TlsSecretByAddress(Arc<TlsSecret>);

impl PartialEq for TlsSecretByAddress {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TlsSecretByAddress {}

impl std::hash::Hash for TlsSecretByAddress {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (Arc::as_ptr(&self.0) as usize).hash(state);
    }
}

impl Configs {
    /// How TLS ends at a listener; none: it does not, or nothing that it could show is known.
    pub fn of(&mut self, listener: &Listener, secrets: &BTreeMap<Key, Arc<TlsSecret>>) -> Option<Arc<ServerConfig>> {
        if listener.tls != TlsMode::Terminate {
            return None;
        }
        let known = listener.certificates.iter().filter_map(|name| secrets.get(name).cloned());
        let parts = Parts {
            certificates: known.map(|secret| Arc::new(TlsSecretByAddress(secret))).collect(),
            clients: listener.clients.as_ref().map(|it| (it.roots.clone(), it.insecure_fallback)),
            http: listener.protocol == ListenerProtocol::Https,
        };
        if let Some((config, used)) = self.0.get_mut(&parts) {
            *used = true;
            return Some(config.clone());
        }
        match build(listener, &parts) {
            Ok(config) => {
                self.0.insert(parts, (config.clone(), true));
                Some(config)
            }
            Err(why) => {
                tracing::warn!(listener = %listener.name, why, "a listener's TLS cannot be served");
                None
            }
        }
    }

    /// Forgets what was not asked for since the last time.
    pub fn sweep(&mut self) {
        self.0.retain(|_, (_, used)| std::mem::take(used));
    }
}

fn build(listener: &Listener, parts: &Parts) -> Result<Arc<ServerConfig>, String> {
    let mut keys = Vec::new();
    for secret in &parts.certificates {
        keys.push(certified(&secret.0).map_err(|why| format!("Secret {}: {why}", secret.0.key))?);
    }
    if keys.is_empty() {
        return Err("none of its certificates is known yet".into());
    }
    let builder = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &listener.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(verifier(clients)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates(keys)));
    if parts.http {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(Arc::new(config))
}

/// The certificates of a listener: the first that is for the name, else the first.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| rustls::pki_types::ServerName::try_from(name).ok());
        let fits = |key: &&Arc<CertifiedKey>| {
            let leaf = key.cert.first().and_then(|leaf| rustls::server::ParsedCertificate::try_from(leaf).ok());
            leaf.zip(name.as_ref()).is_some_and(|(leaf, name)| rustls::client::verify_server_name(&leaf, name).is_ok())
        };
        match &self.0[..] {
            [only] => Some(only.clone()),
            all => all.iter().find(fits).or(all.first()).cloned(),
        }
    }
}

pub(super) fn certified(secret: &TlsSecret) -> Result<Arc<CertifiedKey>, String> {
    let chain = CertificateDer::pem_slice_iter(&secret.certificate_chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(&secret.private_key).map_err(|error| error.to_string())?;
    CertifiedKey::from_der(chain, key, &PROVIDER).map(Arc::new).map_err(|error| error.to_string())
}

fn verifier(clients: &ClientValidation) -> Result<Arc<dyn ClientCertVerifier>, String> {
    if clients.insecure_fallback {
        return Ok(Arc::new(Anybody));
    }
    let roots = roots(&clients.roots)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), PROVIDER.clone()).build();
    verifier.map(|verifier| verifier as Arc<dyn ClientCertVerifier>).map_err(|error| error.to_string())
}

/// Asks for a certificate and takes any, and none: what `AllowInsecureFallback` says. Nothing is made of what it names.
#[derive(Debug)]
struct Anybody;

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    client::signatures_by_provider!();
}

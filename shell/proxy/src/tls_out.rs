//! TLS to services that end it themselves: a gateway's, as BackendTLSPolicies say, and anybody's, as DestinationRules do.
use crate::dial::{self, DialError, Dialled};
use crate::identity::tls::roots;
use crate::netns;
use crate::origin::Origin;
use crate::stream::{Io, Stream};
use crate::upstream::{Port, Upstream};
use crate::worker::Worker;
use client::PROVIDER;
use http1::proxy_protocol::{self, Ends};
use model::map::HashMap;
use model::mesh::traffic::ProxyProtocol;
use model::mesh::{BackendTls, SubjectName, TlsSecret};
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use traffic::GatewayEntry;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Where a host keeps the certificates that it trusts.
const SYSTEM_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What is said under TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Whatever the client says.
    Opaque,
}

/// Why there is no TLS. Nothing of the caller's was sent.
#[derive(Debug, thiserror::Error)]
pub enum BackendTlsError {
    /// The policy says what cannot be done.
    #[error("the policy on TLS cannot be used: {0}")]
    Policy(String),
    /// The other side is not who it should be, or does not speak TLS.
    #[error("no TLS with the service: {0}")]
    Handshake(#[source] io::Error),
    /// It does not answer.
    #[error("the service does not answer in TLS")]
    Timeout,
}

/// Configurations by what they are made of, and that itself: an address in memory names it only as long as it is held.
#[derive(Debug, Default)]
pub struct Configs(Mutex<HashMap<Parts, Held>>);

type Parts = (usize, usize, Speaks);

#[derive(Debug)]
struct Held {
    policy: Arc<BackendTls>,
    _certificate: Option<Arc<TlsSecret>>,
    config: Arc<ClientConfig>,
}

impl Configs {
    /// Forgets policies that are no longer in force and have no pooled connections.
    pub fn sweep(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, held| Arc::strong_count(&held.policy) > 1);
    }

    fn get(
        &self,
        policy: &Arc<BackendTls>,
        certificate: Option<Arc<TlsSecret>>,
        speaks: Speaks,
    ) -> Result<Arc<ClientConfig>, String> {
        let secret = certificate.as_ref().map_or(0, |it| Arc::as_ptr(it) as usize);
        let parts = (Arc::as_ptr(policy) as usize, secret, speaks);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.get(&parts) {
            return Ok(held.config.clone());
        }
        let config = build(policy, certificate.as_deref(), speaks)?;
        held.insert(parts, Held { policy: policy.clone(), _certificate: certificate, config: config.clone() });
        Ok(config)
    }
}

/// Where a connection goes.
#[derive(Clone, Copy)]
pub struct Toward<'a> {
    /// The service's port.
    pub port: &'a Port,
    /// The gateway that calls it.
    pub gateway: Option<&'a Arc<GatewayEntry>>,
    /// Who opened it, if it is one client's alone: then a policy may want that told.
    pub client: Option<SocketAddr>,
}

/// Connects to an endpoint, under TLS if a policy says so, and in the time that it says.
pub async fn dial(
    worker: &Worker,
    origin: &Origin,
    Toward { port, gateway, client }: Toward<'_>,
    upstream: &Upstream,
    speaks: Speaks,
) -> Result<Dialled, DialError> {
    let dialling = async {
        let mut dialled = dial::dial(worker, origin, upstream, None).await?;
        // Tunnels are looked after in any case.
        let keepalive = port.policy().and_then(|policy| policy.pool.keepalive);
        if let Some((stream, keepalive)) = dialled.stream.plain().zip(keepalive) {
            let kept = netns::keep_alive(stream.stream(), keepalive);
            kept.map_err(|error| DialError::Connect(upstream.address, error))?;
        }
        let version = port.policy().and_then(|policy| policy.proxy_protocol);
        if let Some((version, source)) = version.zip(client) {
            let header = proxy_header(version, Ends { source, destination: upstream.address });
            let written = dialled.stream.write_all(&header).await;
            written.map_err(|error| DialError::Connect(upstream.address, error))?;
        }
        let Some(policy) = port.tls(gateway.is_some()) else { return Ok(dialled) };
        match policy.mesh {
            true if dialled.mtls => Ok(dialled),
            true => {
                Ok(Dialled { stream: as_peer(origin, policy, speaks, dialled.stream).await?, mtls: true, ..dialled })
            }
            false => {
                let stream = wrap(worker, gateway, policy, speaks, dialled.stream).await?;
                Ok(Dialled { stream, ..dialled })
            }
        }
    };
    match port.connect_timeout() {
        None => dialling.await,
        Some(limit) => timeout(limit, dialling).await.map_err(|_| DialError::Timeout(upstream.address))?,
    }
}

fn proxy_header(version: ProxyProtocol, ends: Ends) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => proxy_protocol::encode(proxy_protocol::Version::V1, ends),
        ProxyProtocol::V2 => proxy_protocol::encode(proxy_protocol::Version::V2, ends),
    }
}

/// Begins TLS on a connection to an endpoint.
async fn wrap(
    worker: &Worker,
    gateway: Option<&Arc<GatewayEntry>>,
    policy: &Arc<BackendTls>,
    speaks: Speaks,
    stream: Stream,
) -> Result<Stream, BackendTlsError> {
    if !policy.flaw.is_empty() {
        return Err(BackendTlsError::Policy(policy.flaw.to_string()));
    }
    let own = gateway.and_then(|gateway| gateway.gateway.client_certificate.as_ref());
    let certificate = policy.certificate.as_ref().or(own);
    let certificate = certificate.and_then(|key| worker.shared.mesh.known().secrets.get(key).cloned());
    let config = worker.backend_tls.get(policy, certificate, speaks).map_err(BackendTlsError::Policy)?;
    let name = ServerName::try_from(policy.hostname.to_string());
    let name = name.map_err(|error| BackendTlsError::Policy(error.to_string()))?;
    let connecting = TlsConnector::from(config).connect(name, stream);
    let connected = timeout(HANDSHAKE_TIMEOUT, connecting).await.map_err(|_| BackendTlsError::Timeout)?;
    Ok(Io::TlsClient(Box::new(connected.map_err(BackendTlsError::Handshake)?)).into())
}

/// Begins the mesh's own TLS with an endpoint outside of it, as Istio's sidecars do.
async fn as_peer(
    origin: &Origin,
    policy: &BackendTls,
    speaks: Speaks,
    stream: Stream,
) -> Result<Stream, BackendTlsError> {
    let unusable = |error: &dyn std::fmt::Display| BackendTlsError::Policy(error.to_string());
    let state = origin.identity.tls().await.map_err(|error| unusable(&error))?;
    let mut config = ClientConfig::clone(&state.client);
    config.enable_sni = true;
    let spoken: &[&[u8]] = match speaks {
        Speaks::Http1 => &[b"istio", b"http/1.1"],
        Speaks::Http2 => &[b"istio", b"h2"],
        Speaks::Opaque => &[b"istio"],
    };
    config.alpn_protocols = spoken.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(policy.hostname.to_string()).map_err(|error| unusable(&error))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let connected = timeout(HANDSHAKE_TIMEOUT, connecting).await.map_err(|_| BackendTlsError::Timeout)?;
    let connected = connected.map_err(BackendTlsError::Handshake)?;
    let shown = connected.get_ref().1.peer_certificates().unwrap_or_default();
    let named = |end_entity: &CertificateDer<'_>| {
        has(end_entity, |general| policy.names.iter().any(|name| is_name(general, name)))
    };
    if !policy.names.is_empty() && !shown.first().is_some_and(named) {
        return Err(BackendTlsError::Handshake(io::Error::other("the server is another")));
    }
    Ok(Io::TlsClient(Box::new(connected)).into())
}

fn is_name(general: &GeneralName<'_>, name: &SubjectName) -> bool {
    match (general, name) {
        (GeneralName::DNSName(own), SubjectName::Dns(name)) => own.eq_ignore_ascii_case(name),
        (GeneralName::URI(own), SubjectName::Uri(uri)) => **own == **uri,
        _ => false,
    }
}

/// Begins TLS with a host outside, which must prove its name by one of `roots` (PEM; none: those that this host trusts).
///
/// # Errors
/// It is another, does not speak TLS, or the roots are of no use.
pub async fn to_host(
    host: &str,
    roots: Option<String>,
    speaks: Speaks,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let policy = BackendTls {
        hostname: host.into(),
        system_roots: roots.is_none(),
        roots: roots.into_iter().map(Into::into).collect(),
        names: Vec::new(),
        flaw: "".into(),
        certificate: None,
        insecure: false,
        mesh: false,
    };
    let config = build(&policy, None, speaks).map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connecting = TlsConnector::from(config).connect(name, stream);
    timeout(HANDSHAKE_TIMEOUT, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn build(policy: &BackendTls, certificate: Option<&TlsSecret>, speaks: Speaks) -> Result<Arc<ClientConfig>, String> {
    let mut roots = roots(&policy.roots)?;
    if policy.system_roots {
        let found = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok());
        let found = found.ok_or("this host has no certificates that it trusts")?;
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&found).filter_map(Result::ok));
    }
    let verifier = Verifier { roots, names: policy.names.clone(), insecure: policy.insecure };
    let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(secret) => {
            let chain = CertificateDer::pem_slice_iter(&secret.certificate_chain).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| error.to_string())?;
            let key = PrivateKeyDer::from_pem_slice(&secret.private_key).map_err(|error| error.to_string())?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
    };
    config.alpn_protocols = match speaks {
        Speaks::Http1 => vec![b"http/1.1".to_vec()],
        Speaks::Http2 => vec![b"h2".to_vec()],
        Speaks::Opaque => Vec::new(),
    };
    Ok(Arc::new(config))
}

/// Verifies the chain, and that the certificate is for the name asked for, or (if there are any) for one of `names`.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    names: Vec<SubjectName>,
    /// Nothing is verified.
    insecure: bool,
}

impl Verifier {
    fn is_named(&self, end_entity: &CertificateDer<'_>, certificate: &ParsedCertificate<'_>) -> bool {
        self.names.iter().any(|of| match of {
            SubjectName::Dns(name) => {
                let asked = ServerName::try_from(&**name);
                asked.is_ok_and(|asked| verify_server_name(certificate, &asked).is_ok())
                    || has(end_entity, |general| is_name(general, of))
            }
            SubjectName::Uri(_) => has(end_entity, |general| is_name(general, of)),
        })
    }
}

/// Whether a certificate has an alternative name that is wanted.
fn has(end_entity: &CertificateDer<'_>, wanted: impl Fn(&GeneralName<'_>) -> bool) -> bool {
    let Ok((_, certificate)) = x509_parser::certificate::X509Certificate::from_der(end_entity) else { return false };
    let names = certificate.subject_alternative_name().ok().flatten();
    names.is_some_and(|names| names.value.general_names.iter().any(wanted))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            PROVIDER.signature_verification_algorithms.all,
        )?;
        if self.names.is_empty() {
            verify_server_name(&certificate, server_name)?;
        } else if !self.is_named(end_entity, &certificate) {
            return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(ServerCertVerified::assertion())
    }

    client::signatures_by_provider!();
}

//! TLS between proxies: both sides show a certificate of the trust domain, and the name that counts is the SPIFFE id.
use super::trust::RootId;
use super::{IdentityError, spiffe};
use client::PROVIDER;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{Acceptor, ClientHello, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

/// Trust roots out of PEM bundles.
///
/// # Errors
/// A bundle is no PEM, or holds what cannot be a root.
pub fn roots<T: AsRef<str>>(bundles: &[T]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in bundles.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_ref().as_bytes())) {
        roots.add(root.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// What a workload shows and what it verifies others with, at one moment. Replaced whole when either changes.
#[derive(Debug)]
pub struct TlsState {
    /// For tunnels that start here.
    pub client: Arc<ClientConfig>,
    /// For tunnels that end here.
    pub server: Arc<ServerConfig>,
    /// For peers that begin TLS themselves, straight to the process's port.
    pub direct: Arc<ServerConfig>,
    /// Seconds since the epoch.
    pub not_before_s: i64,
    /// Seconds since the epoch.
    pub not_after_s: i64,
    /// What its certificate chains to.
    pub root: RootId,
}

/// Builds the configurations for a certificate chain (leaf first) and its key.
pub fn state(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    trust_domain: &str,
    root: RootId,
) -> Result<TlsState, IdentityError> {
    let leaf = chain.first().ok_or(IdentityError::Unusable("the chain is empty"))?;
    let (not_before_s, not_after_s) =
        spiffe::validity(leaf).ok_or(IdentityError::Unusable("the leaf is no certificate"))?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), PROVIDER.clone())
        .build()
        .map_err(|_| IdentityError::NoRoots)?;
    let mut server = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.clone(), key.clone_key())?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    // A tunnel is resumed by its pool, not by TLS: tickets would only cost.
    server.send_tls13_tickets = 0;
    let mut direct = server.clone();
    direct.alpn_protocols = DIRECT_PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    let verifier = Arc::new(MeshServerVerifier { roots, trust_domain: trust_domain.to_owned() });
    let mut client = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
    let (client, server, direct) = (Arc::new(client), Arc::new(server), Arc::new(direct));
    Ok(TlsState { client, server, direct, not_before_s, not_after_s, root })
}

/// What is agreed on with peers that begin TLS themselves. What is spoken is told by its first bytes all the same, and a protocol of Istio's is agreed on
/// only where nothing else is offered; `istio-peer-exchange` never, for it has the peer send metadata of its own first.
const DIRECT_PROTOCOLS: [&[u8]; 6] = [b"h2", b"http/1.1", b"istio-h2", b"istio-http/1.1", b"istio-http/1.0", b"istio"];

/// Looks into a connection's first message. None: it is not whole yet.
///
/// # Errors
/// It is no TLS.
pub fn client_hello<T>(mut bytes: &[u8], look: impl FnOnce(&ClientHello<'_>) -> T) -> Result<Option<T>, rustls::Error> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        // Reading from memory does not fail; what is too long for a message is said by `accept`.
        if acceptor.read_tls(&mut bytes).is_err() {
            return Err(rustls::Error::General("the first message is too long".into()));
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Some(look(&accepted.client_hello()))),
            Ok(None) => {}
            Err((error, _)) => return Err(error),
        }
    }
    Ok(None)
}

/// Verifies that a server's chain ends in our roots and that its name is in the trust domain. Which workload it is, the
/// connecting side checks afterwards with [`spiffe::of_certificate`]: one configuration serves all destinations.
#[derive(Debug)]
struct MeshServerVerifier {
    roots: Arc<RootCertStore>,
    trust_domain: String,
}

impl ServerCertVerifier for MeshServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            PROVIDER.signature_verification_algorithms.all,
        )?;
        let named = spiffe::of_certificate(end_entity);
        if named.is_some_and(|name| spiffe::in_trust_domain(&name, &self.trust_domain)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForName))
        }
    }

    client::signatures_by_provider!();
}

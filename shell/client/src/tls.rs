use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::sync::{Arc, LazyLock};
use thiserror::Error;

/// One set of algorithms for the process.
pub static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// The half of a certificate verifier that only the algorithms decide: signatures of handshakes, by [`PROVIDER`]. (rustls has one trait for
/// each side, with these three methods alike.)
#[macro_export]
macro_rules! signatures_by_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signature: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &$crate::PROVIDER.signature_verification_algorithms;
            ::rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signature: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &$crate::PROVIDER.signature_verification_algorithms;
            ::rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<::rustls::SignatureScheme> {
            $crate::PROVIDER.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Key material that cannot be used. The file or field is at fault; no retry helps.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Not PEM, or PEM of something else.
    #[error("{what} is no valid PEM: {error}")]
    Pem {
        /// Which one.
        what: &'static str,
        /// The parser's word.
        error: rustls_pki_types::pem::Error,
    },
    /// There is nothing in it.
    #[error("{0} holds no certificate")]
    Empty(&'static str),
    /// Certificate and key do not fit, or an algorithm is not supported.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The certificates of a PEM text.
///
/// # Errors
/// No PEM, or none in it.
pub fn load_certs(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| TlsError::Pem { what, error })?;
    if certs.is_empty() { Err(TlsError::Empty(what)) } else { Ok(certs) }
}

/// The private key of a PEM text (PKCS#8, PKCS#1 or SEC1).
///
/// # Errors
/// No PEM, or no key in it.
pub fn load_key(what: &'static str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| TlsError::Pem { what, error })
}

/// A client's TLS: trusts `ca` (PEM; `None` trusts anybody, as kubeconfig's `insecure-skip-tls-verify` asks), shows `identity`
/// (certificate chain and key, PEM) when there is one, and offers `alpn`.
///
/// # Errors
/// The material cannot be used.
pub fn client_tls(
    ca: Option<&[u8]>,
    identity: Option<(&[u8], &[u8])>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(PROVIDER.clone()).with_safe_default_protocol_versions()?;
    let builder = match ca {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for cert in load_certs("the cluster's CA", pem)? {
                roots.add(cert)?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnybody)),
    };
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(
            load_certs("the client's certificate", chain)?,
            load_key("the client's key", key)?,
        )?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// What a user asked for with `insecure-skip-tls-verify`.
#[derive(Debug)]
struct TrustAnybody;

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    crate::signatures_by_provider!();
}

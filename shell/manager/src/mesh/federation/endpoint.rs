//! Who serves another trust domain's bundle.

use client::PROVIDER;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

fn store<'a>(pem: impl Iterator<Item = &'a str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in pem.flat_map(|text| CertificateDer::pem_slice_iter(text.as_bytes())) {
        roots.add(root.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there are no roots to verify the endpoint with".into()) } else { Ok(roots) }
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

/// By its host's name, and these roots.
///
/// # Errors
/// They are not usable.
pub fn by_name(pem: &str) -> Result<Arc<ClientConfig>, String> {
    let roots = store([pem].into_iter())?;
    let builder = builder()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// By its SPIFFE id, and these roots.
///
/// # Errors
/// They are not usable.
pub fn by_identity<'a>(pem: impl Iterator<Item = &'a str>, id: &str) -> Result<Arc<ClientConfig>, String> {
    let verifier = Verifier { roots: store(pem)?, id: id.to_owned() };
    let builder = builder()?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// Takes one identity, whatever the host is called.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    id: String,
}

/// Whether a certificate names this and no other URI: an X.509-SVID has exactly one.
fn is(certificate: &CertificateDer<'_>, id: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    uris.next() == Some(id) && uris.next().is_none()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match is(leaf, &self.id) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForName)),
        }
    }

    client::signatures_by_provider!();
}

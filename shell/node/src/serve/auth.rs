use crate::config::TlsFiles;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the server's certificates are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {why}")]
    File { path: PathBuf, why: String },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("client CA: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Who asks, by its client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// An administrator or the API server.
    Allowed,
    /// Somebody else of the cluster.
    Other(String),
    /// No certificate.
    Nobody,
}

/// The API server's own name as a client of nodes.
const API_SERVER: [&str; 2] = ["system:kube-apiserver", "kube-apiserver-kubelet-client"];
const ADMINISTRATORS: &str = "system:masters";

pub(super) fn server_config(files: &TlsFiles) -> Result<rustls::ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.client_ca)? {
        roots.add(certificate)?;
    }
    let provider = client::PROVIDER.clone();
    // Without a certificate one gets as far as a 401, which says more than a broken handshake.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::File { path: files.key.clone(), why: error.to_string() })?;
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config =
        config.with_client_cert_verifier(verifier).with_single_cert(certificates(&files.certificate)?, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |why: String| TlsError::File { path: path.to_owned(), why };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| fail(error.to_string()))?.collect();
    let found = found.map_err(|error| fail(error.to_string()))?;
    if found.is_empty() { Err(fail("no certificate in it".to_owned())) } else { Ok(found) }
}

/// The chain was verified in the handshake; here only the name is read.
pub(super) fn caller(chain: Option<&[CertificateDer<'_>]>) -> Caller {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return Caller::Nobody };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) else { return Caller::Nobody };
    let subject = certificate.subject();
    let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default();
    let mut groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
    if API_SERVER.contains(&name) || groups.any(|group| group == ADMINISTRATORS) {
        return Caller::Allowed;
    }
    Caller::Other(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(name: &str, group: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn only_administrators_and_the_api_server_are_let_in() {
        for (name, group, expect) in [
            ("kubernetes-admin", "system:masters", Caller::Allowed),
            ("system:kube-apiserver", "x", Caller::Allowed),
            ("system:node:n", "system:nodes", Caller::Other("system:node:n".into())),
            ("system:masters", "system:nodes", Caller::Other("system:masters".into())),
        ] {
            assert_eq!(caller(Some(&[certificate(name, group)])), expect, "{name} {group}");
        }
        assert_eq!(caller(None), Caller::Nobody);
    }
}

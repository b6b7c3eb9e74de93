//! The certificates of one run: P-256 for all, from a root of its own.

use super::net::Scratch;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Name that the server's certificate is for.
pub const SERVER: &str = "bench";

/// Writes `ca.pem`, `{server,client}.{pem,key}` and `server-both.pem` (HAProxy's way).
pub fn write(work: &Scratch) -> Result<(), String> {
    let fail = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate().map_err(fail)?;
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "bench root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    save(work, "ca.pem", &root.self_signed(&key).map_err(fail)?.pem())?;
    let issuer = Issuer::new(root, key);
    for name in [SERVER, "client"] {
        let key = KeyPair::generate().map_err(fail)?;
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(fail)?;
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &issuer).map_err(fail)?.pem();
        let file = if name == SERVER { "server" } else { name };
        save(work, &format!("{file}.pem"), &certificate)?;
        save(work, &format!("{file}.key"), &key.serialize_pem())?;
        save(work, &format!("{file}-both.pem"), &(certificate + &key.serialize_pem()))?;
    }
    Ok(())
}

fn save(work: &Scratch, name: &str, text: &str) -> Result<(), String> {
    std::fs::write(work.path().join(name), text).map_err(|error| error.to_string())
}

/// The client's side. X25519 for all: who prefers a hybrid with ML-KEM would do other work than who has none.
pub fn client(dir: &Path, resume: bool) -> Result<Arc<ClientConfig>, String> {
    let fail = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    let chain = |name: &str| {
        CertificateDer::pem_file_iter(dir.join(name))
            .and_then(Iterator::collect)
            .map_err(|it: rustls::pki_types::pem::Error| it.to_string())
    };
    let authorities: Vec<_> = chain("ca.pem")?;
    roots.add_parsable_certificates(authorities);
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let key = PrivateKeyDer::from_pem_file(dir.join("client.key")).map_err(|error| fail(&error))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| fail(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain("client.pem")?, key)
        .map_err(|error| fail(&error))?;
    if !resume {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Ok(Arc::new(config))
}

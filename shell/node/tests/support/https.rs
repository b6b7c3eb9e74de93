use super::tls_files;
use bytes::Bytes;
use diolkos_node::TlsFiles;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::Path;
use std::sync::Arc;

/// A CA, a certificate for the node and one for the API server.
pub fn certificates(root: &Path) -> TlsFiles {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test CA");
    std::fs::write(root.join("ca.crt"), params.self_signed(&ca_key).unwrap().pem()).unwrap();
    let ca = Issuer::new(params, ca_key);
    for (file, name) in [("node", "system:node:test-node"), ("client", "system:kube-apiserver")] {
        let mut params = CertificateParams::new(["test-node".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        std::fs::write(root.join(format!("{file}.crt")), params.signed_by(&key, &ca).unwrap().pem()).unwrap();
        std::fs::write(root.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
    tls_files(root)
}

pub fn client(root: &Path, with_certificate: bool) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root.join("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    if !with_certificate {
        return builder.with_no_client_auth();
    }
    let chain = vec![CertificateDer::from_pem_file(root.join("client.crt")).unwrap()];
    builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(root.join("client.key")).unwrap()).unwrap()
}

pub async fn get(root: &Path, port: u16, path: &str, with_certificate: bool) -> (u16, String) {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client(root, with_certificate)));
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let tls = connector.connect(ServerName::try_from("test-node").unwrap(), stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "test-node").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

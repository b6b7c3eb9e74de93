//! Other trust domains' bundles, fetched from a real HTTPS server in both of the specification's profiles.

use super::peer::Proxy;
use super::{Pki, Running, small};
use crate::mesh::federation::{Federated, document};
use model::mesh::{ResourceKind, TrustBundle};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const ENDPOINT: &str = "spiffe://other.example/endpoint";

/// The other domain: its root, and what its endpoint shows (a host's name and an identity).
struct Other {
    root: String,
    acceptor: TlsAcceptor,
}

fn other() -> Other {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "other");
    let root = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let own = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(ENDPOINT.try_into().unwrap()));
    let leaf = params.signed_by(&own, &issuer).unwrap().pem();
    let chain = vec![CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap()];
    let key = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    Other { root, acceptor: TlsAcceptor::from(Arc::new(config)) }
}

/// Serves a bundle; its port.
async fn serve(other: &Other) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let bundle = TrustBundle {
        trust_domain: "other.example".into(),
        roots: vec![other.root.as_str().into()],
        jwks: r#"{"keys":[{"kty":"EC","kid":"one","crv":"P-256","x":"AA","y":"AA"}]}"#.into(),
    };
    let body = document(&bundle).to_string();
    let acceptor = other.acceptor.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 2_048];
            let length = stream.read(&mut head).await.unwrap_or(0);
            assert!(
                head[..length].starts_with(b"GET /bundle HTTP/1.1"),
                "{}",
                String::from_utf8_lossy(&head[..length])
            );
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

#[tokio::test]
async fn bundles_come_from_who_proves_to_publish_them() {
    let (there, stranger) = (other(), other());
    let port = serve(&there).await;
    let pki = Pki::make();
    let write = |name: &str, pem: &str| {
        let path = pki.dir().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let (roots, others) = (write("other.pem", &there.root), write("stranger.pem", &stranger.root));
    let of = |domain: &str, id: Option<&str>, roots: &std::path::Path| Federated {
        trust_domain: domain.to_owned(),
        bundle_endpoint: format!("https://localhost:{port}/bundle"),
        endpoint_spiffe_id: id.map(str::to_owned),
        roots: Some(roots.to_owned()),
    };
    let federated = vec![
        of("spiffe.example", Some(ENDPOINT), &roots),
        of("web.example", None, &roots),
        of("another-id.example", Some("spiffe://other.example/another"), &roots),
        of("another-root.example", Some(ENDPOINT), &others),
        of("another-web-root.example", None, &others),
    ];
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let running = Running::start_with(small(), pki, listen, |config| config.federated = federated).await;
    let mut proxy = Proxy::new("n1");
    proxy.connect(running.node("n1").await).await;
    let has = |proxy: &Proxy, domain: &str| proxy.get(ResourceKind::TrustBundle, domain).is_some();
    proxy.until("both bundles", |proxy| has(proxy, "spiffe.example") && has(proxy, "web.example")).await;
    for domain in ["another-id.example", "another-root.example", "another-web-root.example"] {
        assert!(!has(&proxy, domain), "{domain}");
    }
}

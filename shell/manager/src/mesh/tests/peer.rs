//! The other side: a proxy's connection and session, as small as it can be.

use hyper_util::rt::{TokioExecutor, TokioIo};
use model::mesh::{Resource, ResourceKind};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use xds::discovery::{DELTA_PATH, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use xds::resources::{kind_of, type_url};
use xds::session::Client;

/// A cluster CA in a directory of its own, as the server makes it.
pub struct Pki {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pub ca_pem: String,
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[derive(Clone)]
pub struct Certificate {
    pub chain: String,
    pub key: String,
}

impl Certificate {
    /// A key and a request for it, both PEM.
    pub fn request() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        (key.serialize_pem(), request.pem().unwrap())
    }
}

impl Pki {
    pub fn make() -> Pki {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("diolkos-mesh-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test cluster CA");
        let ca_pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(dir.join("ca.crt"), &ca_pem).unwrap();
        let pki = Pki { dir, issuer: Issuer::new(params, key), ca_pem };
        let server = pki.issue("localhost");
        std::fs::write(pki.dir.join("server.crt"), &server.chain).unwrap();
        std::fs::write(pki.dir.join("server.key"), &server.key).unwrap();
        pki
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn issue(&self, common_name: &str) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate { chain: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A gRPC connection.
#[derive(Clone)]
pub struct Peer {
    sender: hyper::client::conn::http2::SendRequest<tonic::body::Body>,
}

impl tower::Service<http::Request<tonic::body::Body>> for Peer {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

impl Peer {
    pub async fn connect(address: SocketAddr, ca_pem: &str, certificate: Option<Certificate>) -> Peer {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes()).collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain.unwrap(), key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Peer { sender }
    }

    fn grpc(&self) -> tonic::client::Grpc<Peer> {
        tonic::client::Grpc::with_origin(self.clone(), "https://localhost".parse().unwrap())
    }

    pub async fn unary<Q, R>(&self, path: &'static str, request: Q) -> Result<R, Status>
    where
        Q: prost::Message + Default + 'static,
        R: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, R>::default();
        let response = self.grpc().unary(Request::new(request), path.parse().unwrap(), codec).await?;
        Ok(response.into_inner())
    }
}

type Inbound = Streaming<DeltaDiscoveryResponse>;

/// A proxy that keeps what it is told.
pub struct Proxy {
    pub session: Client,
    resources: BTreeMap<(ResourceKind, String), Resource>,
    stream: Option<(Inbound, mpsc::UnboundedSender<DeltaDiscoveryRequest>)>,
    /// Resources of this kind are refused.
    pub reject: Option<ResourceKind>,
}

impl Proxy {
    pub fn new(id: &str) -> Proxy {
        let mut session = Client::new(Node { id: id.into(), ..Default::default() });
        ResourceKind::ALL.into_iter().for_each(|kind| session.subscribe_all(type_url(kind)));
        Proxy { session, resources: BTreeMap::new(), stream: None, reject: None }
    }

    pub async fn connect(&mut self, peer: Peer) {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.session.connected().into_iter().for_each(|request| sender.send(request).unwrap());
        let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
        let requests = Request::new(UnboundedReceiverStream::new(receiver));
        let response = peer.grpc().streaming(requests, DELTA_PATH.parse().unwrap(), codec).await.unwrap();
        self.stream = Some((response.into_inner(), sender));
    }

    pub fn disconnect(&mut self) {
        self.stream = None;
    }

    /// Whether its stream is open, as far as it was read.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Takes what comes within a time.
    pub async fn turn(&mut self, time: Duration) {
        let Some((inbound, sender)) = &mut self.stream else { return };
        let Ok(message) = tokio::time::timeout(time, inbound.message()).await else { return };
        let Ok(Some(response)) = message else {
            self.stream = None;
            return;
        };
        let received = self.session.receive(response).unwrap();
        let kind = kind_of(&received.type_url).unwrap();
        let mut rejected = Vec::new();
        for resource in &received.changed {
            if self.reject == Some(kind) {
                rejected.push((resource.name.clone(), "not today".to_owned()));
                continue;
            }
            let decoded = xds::convert::decode(kind, resource.value.clone()).unwrap();
            assert_eq!(decoded.name(), resource.name);
            self.resources.insert((kind, resource.name.clone()), decoded);
        }
        for name in &received.removed {
            self.resources.remove(&(kind, name.clone()));
        }
        let _ = sender.send(self.session.finish(&received, &rejected));
    }

    /// Takes what comes until something is so (10 s at most).
    pub async fn until(&mut self, what: &str, so: impl Fn(&Proxy) -> bool) {
        for _ in 0..1_000 {
            if so(self) {
                // The last answer is on its way: let it arrive.
                tokio::time::sleep(Duration::from_millis(50)).await;
                return;
            }
            self.turn(Duration::from_millis(10)).await;
        }
        panic!("never came: {what}");
    }

    pub fn get(&self, kind: ResourceKind, name: &str) -> Option<&Resource> {
        self.resources.get(&(kind, name.to_owned()))
    }

    pub fn names(&self, kind: ResourceKind) -> Vec<&str> {
        self.resources.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.as_str()).collect()
    }
}

fn with<T>(pem: &str, look: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T) -> T {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    look(&x509_parser::parse_x509_certificate(&der).unwrap().1)
}

/// URI names of a PEM certificate.
pub fn uris(pem: &str) -> Vec<String> {
    with(pem, |certificate| {
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let uri = |name: &x509_parser::extensions::GeneralName<'_>| match name {
            x509_parser::extensions::GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        };
        names.value.general_names.iter().filter_map(uri).collect()
    })
}

/// Common name of a PEM certificate.
pub fn common_name(pem: &str) -> String {
    with(pem, |certificate| {
        let mut names = certificate.subject().iter_common_name();
        names.next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
    })
}

/// End of validity, seconds since the epoch.
pub fn not_after(pem: &str) -> i64 {
    with(pem, |certificate| certificate.validity().not_after.timestamp())
}

//! Keys that RequestAuthentications name by address: fetched here, once for all proxies, and asked for again.

use super::core::Core;
use super::ear::Fact;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use model::Key;
use model::mesh::Resource;
use model::mesh::api::{FetchedJwks, ObjectKind};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Keys are fetched again after this (Istio's own interval is 20 minutes; issuers rotate with warning).
const AGAIN: Duration = Duration::from_secs(5 * 60);
/// What could not be fetched is tried again, and news are looked for.
const RETRY: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(5);
/// A key set is small.
const MOST_BYTES: usize = 1 << 20;
/// Addresses at most.
const MOST: usize = 200;
/// Addresses that are asked at once: one namespace's slow ones are not to hold up everybody's.
const AT_ONCE: usize = 16;
/// Where hosts keep the certificates that they trust.
const SYSTEM_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Follows what is wanted, for ever.
pub async fn run(core: Arc<Core>, facts: mpsc::UnboundedSender<Fact>) {
    let mut known: BTreeMap<Arc<str>, (tokio::time::Instant, Arc<str>)> = BTreeMap::new();
    loop {
        let wanted = core.objects(|compiler| compiler.wanted_jwks());
        let gone: Vec<Arc<str>> = known.keys().filter(|uri| !wanted.contains_key(*uri)).cloned().collect();
        for uri in gone {
            known.remove(&uri);
            let key = Key { namespace: "".into(), name: uri };
            if facts.send(Fact::Gone(ObjectKind::FetchedJwks, key)).is_err() {
                return;
            }
        }
        let mut due: Vec<(Arc<str>, Option<u64>)> = wanted.into_iter().take(MOST).collect();
        due.retain(|(uri, _)| known.get(uri).is_none_or(|(at, _)| at.elapsed() >= AGAIN));
        let asking = due.into_iter().map(|(uri, timeout_ms)| {
            let core = core.clone();
            async move {
                let patience = timeout_ms.map_or(PATIENCE, Duration::from_millis);
                let answer = timeout(patience, fetch(&core, &uri)).await;
                (uri, answer)
            }
        });
        let mut answers = stream::iter(asking).buffer_unordered(AT_ONCE);
        while let Some((uri, answer)) = answers.next().await {
            match answer {
                Ok(Ok(jwks)) => {
                    let news = known.get(&uri).is_none_or(|(_, have)| *have != jwks);
                    known.insert(uri.clone(), (tokio::time::Instant::now(), jwks.clone()));
                    let key = Key { namespace: "".into(), name: uri };
                    if news && facts.send(Fact::Keys(FetchedJwks { key, jwks })).is_err() {
                        return;
                    }
                }
                // The keys that we have stay in use: an issuer that is away for a while is no reason to refuse its tokens.
                Ok(Err(why)) => tracing::warn!(%uri, why, "mesh: an issuer's keys cannot be fetched"),
                Err(_) => tracing::warn!(%uri, "mesh: an issuer's keys take too long"),
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Fetches a JSON document that has `keys`.
///
/// # Errors
/// Why not, in words.
pub async fn fetch(core: &Core, uri: &str) -> Result<Arc<str>, String> {
    fetch_trusting(core, uri, None).await
}

/// The same from a server that is verified in another way than by what this machine trusts.
///
/// # Errors
/// Why not, in words.
pub async fn fetch_trusting(core: &Core, uri: &str, how: Option<Arc<ClientConfig>>) -> Result<Arc<str>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let uri: http::Uri = uri.parse().map_err(|error: http::uri::InvalidUri| text(&error))?;
    let host = uri.host().ok_or("the address has no host")?.trim_matches(['[', ']']).to_owned();
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("the address is neither http nor https".into()),
    };
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = connect(core, &host, port).await?;
    if !tls {
        return get(stream, &uri).await;
    }
    let name = ServerName::try_from(host).map_err(|error| text(&error))?;
    let config = how.or_else(trust).ok_or("this host has no certificates that it trusts")?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(|error| text(&error))?;
    get(stream, &uri).await
}

/// To an endpoint of a service of ours (mesh control is in no pod, and virtual addresses lead nowhere from here), else by DNS.
async fn connect(core: &Core, host: &str, port: u16) -> Result<TcpStream, String> {
    let endpoint = core.objects(|compiler| {
        let service = compiler.resources().values().find_map(|resource| match resource {
            Resource::Service(service) if service.hostnames.iter().any(|name| **name == *host) => Some(service.clone()),
            _ => None,
        })?;
        let name = service.ports.iter().find(|it| it.port == port)?.name.clone();
        compiler.resources().values().find_map(|resource| match resource {
            Resource::Endpoints(group) if group.service == service.key => {
                let number = group.ports.iter().find(|(of, _)| *of == name)?.1;
                let ready = group.endpoints.iter().find(|it| it.health == model::mesh::Health::Ready)?;
                Some(std::net::SocketAddr::new(ready.address, number))
            }
            _ => None,
        })
    });
    let connected = match endpoint {
        Some(address) => TcpStream::connect(address).await,
        None => TcpStream::connect((host, port)).await,
    };
    connected.map_err(|error| error.to_string())
}

async fn get<S>(stream: S, uri: &http::Uri) -> Result<Arc<str>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
    let request = http::Request::get(path).header("host", authority).header("accept", "application/json");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(failed)?;
    if !response.status().is_success() {
        connection.abort();
        return Err(format!("the answer is {}", response.status()));
    }
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(|error| error.to_string());
    connection.abort();
    let bytes = body?.to_bytes();
    let set: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if !set["keys"].is_array() {
        return Err("the answer is no JSON Web Key Set".into());
    }
    Ok(set.to_string().into())
}

fn trust() -> Option<Arc<ClientConfig>> {
    let pem = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok())?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    let provider = client::PROVIDER.clone();
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

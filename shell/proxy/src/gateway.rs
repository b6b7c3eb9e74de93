//! Gateways: listeners on the host's ports, from what the mesh knows.
use crate::identity::tls::PROVIDER;
use crate::netns::{self, Netns};
use crate::origin::Origin;
use crate::requests::{self, Site};
use crate::shared::Shared;
use crate::stream::{Io, Stream};
use crate::worker::{Command, Worker};
use arc_swap::ArcSwapOption;
use model::Key;
use model::map::HashMap;
use model::mesh::{Hostname, ListenerProtocol, TlsMode, TlsSecret};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use traffic::{GatewayEntry, ListenerEntry};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A port that is in use is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(3);

/// A host port that gateways listen on.
#[derive(Debug)]
pub struct Bound {
    /// The port.
    pub port: u16,
    /// Whether TLS ends here.
    pub tls: bool,
    /// The gateways that have it, and on whose behalf each calls services.
    gateways: Mutex<Vec<(Arc<GatewayEntry>, Arc<Origin>)>>,
    server: ArcSwapOption<ServerConfig>,
    closed: watch::Sender<bool>,
}

impl Bound {
    /// The listener that takes requests for a host: of all gateways' the one with the most specific hostname.
    pub fn listener(&self, _worker: &Worker, host: &str) -> Option<(Arc<GatewayEntry>, usize, Arc<Origin>)> {
        let gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        let found = gateways.iter().filter_map(|(entry, origin)| {
            let listener = entry.listener(self.port, host)?;
            Some((listener.listener.hostname.as_ref().map(Hostname::specificity), entry, listener, origin))
        });
        // Of equals the first gateway by key.
        let (_, entry, listener, origin) = found.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
        let index = entry.listeners.iter().position(|it| std::ptr::eq(it, listener))?;
        Some((entry.clone(), index, origin.clone()))
    }

    fn first_origin(&self) -> Option<Arc<Origin>> {
        let gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        gateways.first().map(|(_, origin)| origin.clone())
    }
}

/// Keeps the host's ports as the gateways want them. Runs on the control thread.
pub async fn control(shared: Arc<Shared>, workers: Vec<mpsc::UnboundedSender<Command>>) {
    let mut changes = shared.mesh.changes();
    let mut bound: BTreeMap<(u16, bool), Arc<Bound>> = BTreeMap::new();
    let mut origins: HashMap<Key, Arc<Origin>> = HashMap::default();
    loop {
        let failed = reconcile(&shared, &workers, &mut bound, &mut origins);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(BIND_PAUSE), if failed => {}
            () = shared.stopped() => {
                for port in bound.values() {
                    port.closed.send_replace(true);
                }
                return;
            }
        }
    }
}

/// True: a port could not be bound.
fn reconcile(
    shared: &Arc<Shared>,
    workers: &[mpsc::UnboundedSender<Command>],
    bound: &mut BTreeMap<(u16, bool), Arc<Bound>>,
    origins: &mut HashMap<Key, Arc<Origin>>,
) -> bool {
    let (gateways, secrets) = {
        let known = shared.mesh.known();
        let gateways: Vec<_> = known.directory.gateways().into_iter().cloned().collect();
        (gateways, known.secrets.clone())
    };
    let mut wanted: BTreeMap<(u16, bool), Vec<Arc<GatewayEntry>>> = BTreeMap::new();
    for gateway in &gateways {
        for entry in gateway.listeners.iter().filter(|entry| serves(entry)) {
            let users = wanted.entry((entry.listener.port, entry.listener.tls == TlsMode::Terminate)).or_default();
            if !users.iter().any(|user| Arc::ptr_eq(user, gateway)) {
                users.push(gateway.clone());
            }
        }
    }
    bound.retain(|port, bound| {
        let stays = wanted.contains_key(port);
        if !stays {
            tracing::info!(port = port.0, "gateway port closed");
            bound.closed.send_replace(true);
        }
        stays
    });
    origins.retain(|key, _| gateways.iter().any(|gateway| gateway.gateway.key == *key));
    let mut failed = false;
    for ((port, tls), users) in wanted {
        let users: Vec<_> =
            users.into_iter().map(|gateway| (gateway.clone(), origin_of(shared, origins, &gateway))).collect();
        let server = tls.then(|| server_config(port, &users, &secrets));
        if let Some(known) = bound.get(&(port, tls)) {
            known.server.store(server);
            *known.gateways.lock().unwrap_or_else(PoisonError::into_inner) = users;
            continue;
        }
        let new = Arc::new(Bound {
            port,
            tls,
            gateways: Mutex::new(users),
            server: ArcSwapOption::from(server),
            closed: watch::Sender::new(false),
        });
        match bind(port, workers, &new) {
            Ok(()) => {
                tracing::info!(port, tls, "gateway port open");
                bound.insert((port, tls), new);
            }
            Err(error) => {
                tracing::error!(port, %error, "a gateway's port cannot be bound; trying again");
                failed = true;
            }
        }
    }
    failed
}

fn serves(entry: &ListenerEntry) -> bool {
    match entry.listener.protocol {
        ListenerProtocol::Http => true,
        ListenerProtocol::Https => entry.listener.tls == TlsMode::Terminate,
        ListenerProtocol::Tls | ListenerProtocol::Tcp | ListenerProtocol::Udp => false,
    }
}

fn origin_of(shared: &Shared, origins: &mut HashMap<Key, Arc<Origin>>, gateway: &GatewayEntry) -> Arc<Origin> {
    let key = &gateway.gateway.key;
    let new = || {
        let identity = shared.identities.acquire(&key.namespace, &gateway.gateway.service_account);
        Arc::new(Origin::new(Netns::Own, identity, &key.namespace, &key.name, Vec::new()))
    };
    origins.entry(key.clone()).or_insert_with(new).clone()
}

fn bind(port: u16, workers: &[mpsc::UnboundedSender<Command>], bound: &Arc<Bound>) -> io::Result<()> {
    let mut listeners = Vec::new();
    for _ in workers {
        listeners.push(netns::listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?);
    }
    for (worker, listener) in workers.iter().zip(listeners) {
        // A worker that is gone means that the process ends.
        let _ = worker.send(Command::Gateway(bound.clone(), listener));
        if let Ok(listener) = netns::listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            let _ = worker.send(Command::Gateway(bound.clone(), listener));
        }
    }
    Ok(())
}

/// Serves a port on one worker.
pub fn serve(worker: &Arc<Worker>, bound: Arc<Bound>, listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let worker = worker.clone();
    tokio::spawn(async move {
        let mut closed = bound.closed.subscribe();
        loop {
            let accepted = tokio::select! {
                _ = closed.wait_for(|closed| *closed) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(connection(worker.clone(), bound.clone(), stream, from));
                }
                Err(error) => {
                    tracing::warn!(%error, port = bound.port, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    Ok(())
}

async fn connection(worker: Arc<Worker>, bound: Arc<Bound>, stream: TcpStream, from: SocketAddr) {
    let Some(origin) = bound.first_origin() else { return };
    let stream = match bound.server.load_full() {
        Some(server) => match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(server).accept(stream)).await {
            Ok(Ok(stream)) => Io::TlsServer(Box::new(stream)).into(),
            Ok(Err(error)) => return tracing::debug!(%error, %from, port = bound.port, "no TLS"),
            Err(_) => return,
        },
        None if bound.tls => return,
        None => Stream::from(stream),
    };
    requests::serve(&worker, Site::gateway(origin, bound, from), stream).await;
}

/// Certificates by server name, most specific first.
#[derive(Debug)]
struct Certificates(Vec<(Option<Hostname>, Arc<CertifiedKey>)>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default();
        let fits = |hostname: &Option<Hostname>| hostname.as_ref().is_none_or(|it| it.matches(name));
        self.0.iter().find(|(hostname, _)| fits(hostname)).map(|(_, key)| key.clone())
    }
}

fn server_config(
    port: u16,
    users: &[(Arc<GatewayEntry>, Arc<Origin>)],
    secrets: &BTreeMap<Key, Arc<TlsSecret>>,
) -> Arc<ServerConfig> {
    let mut certificates = Vec::new();
    let listeners = users.iter().flat_map(|(gateway, _)| &gateway.listeners).map(|entry| &entry.listener);
    for listener in listeners.filter(|it| it.port == port && it.tls == TlsMode::Terminate) {
        for name in &listener.certificates {
            match secrets.get(name).map(|secret| certified(secret)) {
                Some(Ok(key)) => certificates.push((listener.hostname.clone(), key)),
                Some(Err(why)) => tracing::warn!(secret = %name, why, "a listener's certificate is not usable"),
                None => tracing::warn!(secret = %name, "a listener's certificate is not known yet"),
            }
        }
    }
    certificates.sort_by_key(|(hostname, _)| std::cmp::Reverse(hostname.as_ref().map(Hostname::specificity)));
    let builder = ServerConfig::builder_with_provider(PROVIDER.clone()).with_safe_default_protocol_versions();
    // The provider has both versions: this cannot fail.
    let mut config = match builder {
        Ok(builder) => builder.with_no_client_auth().with_cert_resolver(Arc::new(Certificates(certificates))),
        Err(error) => unreachable!("TLS versions: {error}"),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn certified(secret: &TlsSecret) -> Result<Arc<CertifiedKey>, String> {
    let chain = CertificateDer::pem_slice_iter(&secret.certificate_chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(&secret.private_key).map_err(|error| error.to_string())?;
    CertifiedKey::from_der(chain, key, &PROVIDER).map(Arc::new).map_err(|error| error.to_string())
}

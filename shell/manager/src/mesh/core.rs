//! The state that everything shares, and the task that changes it.

use super::ear::Fact;
use super::envoy::{Audience, View};
use super::listen::Tls;
use super::statuses::Pending;
use super::trust::Heard;
use super::{Config, MeshCa};
use bytes::Bytes;
use client::ObjectApi;
use model::Key;
use model::mesh::api::{Object, ObjectKind};
use model::mesh::{Resource, ResourceKind, TrustBundle};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use traffic::{Compiler, Settings};
use xds::catalog::Catalog;
use xds::resources::type_url;

/// Facts taken in one go at most, so that a flood is told in between.
const BATCH: usize = 8_192;
/// A pod is bound, and its node asks, before the watch has told us; a host joins, and comes with its certificate: so long is waited for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// See the [module](self).
pub struct Core {
    pub api: Arc<dyn ObjectApi>,
    pub config: Config,
    pub ca: MeshCa,
    pub tls: Tls,
    pub heard: Heard,
    compiler: Mutex<Compiler>,
    /// Nobody who holds this lock waits for the next one, or the other way round: they have no order.
    catalog: RwLock<Catalog>,
    /// The same in Envoy's words, for each kind of clients from the first one on.
    envoy: RwLock<BTreeMap<Audience, View>>,
    /// The catalog's sequence, 0 until the first configuration is complete.
    published: watch::Sender<u64>,
    /// Counts changes of objects: who waits for one to appear looks again when it moves.
    observed: watch::Sender<u64>,
    pub statuses: Pending,
    streams: Mutex<BTreeMap<u64, Stream>>,
    next_stream: AtomicU64,
    /// Objects that cannot be used, and why: the last good one is still in effect.
    pub unusable: Mutex<BTreeMap<(ObjectKind, Key), String>>,
    /// Joined hosts whose stream came or went.
    pub host_events: mpsc::UnboundedSender<Key>,
    pub host_inbox: Mutex<Option<mpsc::UnboundedReceiver<Key>>>,
}

/// A connected proxy.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Node, or `host/NAMESPACE/NAME`.
    pub proxy: String,
    /// The joined host that it is.
    pub host: Option<Key>,
    /// To which kind it belongs, if it speaks Envoy's words.
    pub audience: Option<Audience>,
    /// The joined host in place of whose proxy it is: its workload's name.
    pub serves: Option<Arc<str>>,
    /// Where it connects from.
    pub address: String,
    /// Since when, in seconds since the epoch.
    pub since_s: u64,
    /// How far it is.
    pub progress: Vec<xds::session::Progress>,
}

/// A lock whose holder panicked still guards whole values: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub fn new(api: Arc<dyn ObjectApi>, config: Config, ca: MeshCa, tls: Tls) -> Self {
        // Versions must not repeat over restarts: the clock, in microseconds, is ahead of any count of changes.
        let mut catalog = Catalog::starting_at(now().as_micros() as u64);
        ResourceKind::ALL.into_iter().for_each(|kind| catalog.declare(type_url(kind)));
        let resource = Resource::TrustBundle(Arc::new(ca.bundle()));
        catalog.set(type_url(resource.kind()), &resource.name(), Some(xds::convert::encode(&resource)));
        for provider in &config.providers {
            let resource = Resource::ExtensionProvider(Arc::new(provider.clone()));
            catalog.set(type_url(resource.kind()), &resource.name(), Some(xds::convert::encode(&resource)));
        }
        let settings = Settings {
            cluster_domain: config.cluster_domain.as_str().into(),
            gateway_addresses: config.gateway_addresses,
            ..Settings::default()
        };
        let (host_events, host_inbox) = mpsc::unbounded_channel();
        Core {
            api,
            config,
            ca,
            tls,
            heard: Heard::default(),
            compiler: Mutex::new(Compiler::new(settings)),
            catalog: RwLock::new(catalog),
            envoy: RwLock::default(),
            published: watch::Sender::new(0),
            observed: watch::Sender::new(0),
            statuses: Pending::default(),
            streams: Mutex::default(),
            next_stream: AtomicU64::new(1),
            unusable: Mutex::default(),
            host_events,
            host_inbox: Mutex::new(Some(host_inbox)),
        }
    }

    pub fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what is told to clients that speak Envoy's words.
    pub fn envoy<T>(&self, audience: &Audience, look: impl FnOnce(&Catalog) -> T) -> T {
        if let Some(view) = self.envoy.read().unwrap_or_else(PoisonError::into_inner).get(audience) {
            return look(view.catalog());
        }
        // Nothing is compiled while it is made: what comes later is told to it.
        let compiler = lock(&self.compiler);
        let mut made = self.envoy.write().unwrap_or_else(PoisonError::into_inner);
        let first = now().as_micros() as u64;
        // Authorizers are the operator's, and no objects.
        let providers = self.config.providers.iter().map(|it| Resource::ExtensionProvider(Arc::new(it.clone())));
        let providers: Vec<Resource> = providers.collect();
        let all = providers.iter().chain(compiler.resources().values());
        let make = || {
            let mut view = View::new(first, self.ca.trust_domain(), audience.clone(), all);
            self.served(audience).iter().for_each(|host| _ = view.serve(host));
            view
        };
        look(made.entry(audience.clone()).or_insert_with(make).catalog())
    }

    /// Joined hosts that Envoys of an audience serve.
    fn served(&self, audience: &Audience) -> BTreeSet<Arc<str>> {
        let streams = lock(&self.streams);
        let here = streams.values().filter(|stream| stream.audience.as_ref() == Some(audience));
        here.filter_map(|stream| stream.serves.clone()).collect()
    }

    /// Number of the last change of a type for a stream.
    pub fn newest(&self, stream: &Stream, type_url: &str) -> u64 {
        let of_envoy = {
            let envoy = self.envoy.read().unwrap_or_else(PoisonError::into_inner);
            let view = stream.audience.as_ref().and_then(|audience| envoy.get(audience));
            view.map_or(0, |view| view.catalog().type_sequence(type_url))
        };
        of_envoy.max(self.catalog().type_sequence(type_url))
    }

    /// Looks at the compiler's objects.
    pub fn objects<T>(&self, look: impl FnOnce(&Compiler) -> T) -> T {
        look(&lock(&self.compiler))
    }

    /// Moves when there is news for streams.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Moves when objects changed.
    pub fn observations(&self) -> watch::Receiver<u64> {
        self.observed.subscribe()
    }

    /// Whether something is so about the objects, or is soon.
    pub async fn soon(&self, so: impl Fn() -> bool) -> bool {
        let mut observations = self.observations();
        let found = async { observations.wait_for(|_| so()).await.is_ok() };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or(false)
    }

    pub async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.news().wait_for(|sequence| *sequence > 0).await;
    }

    pub fn add_stream(&self, stream: Stream) -> u64 {
        let id = self.next_stream.fetch_add(1, Ordering::Relaxed);
        if let Some(host) = &stream.host {
            let _ = self.host_events.send(host.clone());
        }
        lock(&self.streams).insert(id, stream);
        id
    }

    pub fn update_stream(&self, id: u64, progress: Vec<xds::session::Progress>) {
        if let Some(stream) = lock(&self.streams).get_mut(&id) {
            stream.progress = progress;
        }
    }

    /// A client has said who it is.
    pub fn name_stream(&self, id: u64, proxy: String, audience: Audience, serves: Option<Arc<str>>) {
        if let Some(stream) = lock(&self.streams).get_mut(&id) {
            stream.proxy = proxy;
            stream.audience = Some(audience.clone());
            stream.serves.clone_from(&serves);
        }
        // A view that is made later finds it among the streams.
        let mut envoy = self.envoy.write().unwrap_or_else(PoisonError::into_inner);
        let view = serves.and_then(|host| Some((envoy.get_mut(&audience)?, host)));
        if view.is_some_and(|(view, host)| view.serve(&host)) {
            self.published.send_modify(|_| ());
        }
    }

    pub fn remove_stream(&self, id: u64) {
        let removed = lock(&self.streams).remove(&id);
        if let Some(host) = removed.and_then(|stream| stream.host) {
            let _ = self.host_events.send(host);
        }
    }

    pub fn streams(&self) -> Vec<Stream> {
        lock(&self.streams).values().cloned().collect()
    }

    /// Joined hosts that have a stream.
    pub fn connected_hosts(&self) -> BTreeSet<Key> {
        lock(&self.streams).values().filter_map(|stream| stream.host.clone()).collect()
    }

    fn apply(&self, fact: Fact, synced: &mut BTreeSet<ObjectKind>) {
        let mut compiler = lock(&self.compiler);
        match fact {
            Fact::Synced(kind) => {
                synced.insert(kind);
            }
            Fact::Found(name) => compiler.set(Object::ResolvedName(name)),
            Fact::Keys(keys) => compiler.set(Object::FetchedJwks(keys)),
            Fact::Gone(kind, key) => {
                lock(&self.unusable).remove(&(kind, key.clone()));
                self.statuses.forget(kind, &key);
                compiler.remove(kind, &key);
            }
            Fact::Set(kind, key, bytes) => match project::mesh::read(kind, &bytes) {
                Ok(Some(object)) => {
                    lock(&self.unusable).remove(&(kind, key));
                    self.keep(&object, &bytes);
                    compiler.set(object);
                }
                Ok(None) => compiler.remove(kind, &key),
                Err(error) => {
                    tracing::warn!(?kind, %key, %error, "mesh: object cannot be used; the last good one stays in effect");
                    lock(&self.unusable).insert((kind, key), error.to_string());
                }
            },
        }
    }

    /// Objects with a status of ours: what the status says now is compared with before writing.
    fn keep(&self, object: &Object, bytes: &Bytes) {
        let reported = matches!(
            object.kind(),
            ObjectKind::GatewayClass
                | ObjectKind::Gateway
                | ObjectKind::ListenerSet
                | ObjectKind::BackendTlsPolicy
                | ObjectKind::Route(_)
                | ObjectKind::VirtualService
                | ObjectKind::DestinationRule
                | ObjectKind::ServiceEntry
                | ObjectKind::RequestAuthentication
                | ObjectKind::TrafficPolicy
        );
        if reported {
            self.statuses.observe(object.kind(), object.key(), bytes.clone());
        }
    }

    fn compile(&self) {
        let output = {
            let mut compiler = lock(&self.compiler);
            if !compiler.is_dirty() {
                return;
            }
            compiler.take()
        };
        if !output.resources.is_empty() {
            let encoded: Vec<(&'static str, String, Option<Bytes>)> = output
                .resources
                .iter()
                .map(|((kind, name), resource)| {
                    (type_url(*kind), name.clone(), resource.as_ref().map(xds::convert::encode))
                })
                .collect();
            let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
            for (type_url, name, value) in encoded {
                catalog.set(type_url, &name, value);
            }
            drop(catalog);
            for view in self.envoy.write().unwrap_or_else(PoisonError::into_inner).values_mut() {
                let changes = output.resources.iter();
                view.apply(changes.map(|((kind, name), resource)| (*kind, name.clone(), resource.clone())));
            }
        }
        self.statuses.decide(output);
    }

    fn publish(&self) {
        let sequence = self.catalog().sequence();
        self.published.send_if_modified(|published| {
            let news = *published != sequence;
            *published = sequence;
            news
        });
    }

    /// The roots have changed: proxies are told, and callers are verified with them.
    pub fn publish_trust(&self) {
        if let Err(error) = self.tls.reload(&self.ca) {
            tracing::error!(%error, "mesh: joined hosts are verified with the roots of before");
        }
        self.publish_bundle(self.ca.bundle());
    }

    /// Proxies are told of a trust domain's bundle.
    pub fn publish_bundle(&self, bundle: TrustBundle) {
        let resource = Resource::TrustBundle(Arc::new(bundle));
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.set(type_url(resource.kind()), &resource.name(), Some(xds::convert::encode(&resource)));
        drop(catalog);
        // Before everything is known nothing is told.
        if *self.published.borrow() > 0 {
            self.publish();
        }
    }

    /// Removals that every stream was told of are forgotten. (A proxy that comes back names what it has, and needs none of them.)
    fn forget(&self) {
        let mut told: BTreeMap<&'static str, u64> = BTreeMap::new();
        let begun = now().as_secs().saturating_sub(60);
        if lock(&self.streams).values().any(|stream| stream.progress.is_empty() && stream.since_s > begun) {
            // One has just begun, and where it stands is not known yet: the next round will do.
            return;
        }
        for progress in lock(&self.streams).values().flat_map(|stream| &stream.progress) {
            let least = told.entry(progress.type_url).or_insert(u64::MAX);
            *least = (*least).min(progress.told);
        }
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let sequence = catalog.sequence();
        for kind in ResourceKind::ALL {
            let type_url = type_url(kind);
            catalog.forget(type_url, told.get(type_url).copied().unwrap_or(sequence).min(sequence));
        }
        drop(catalog);
        let mut envoy = self.envoy.write().unwrap_or_else(PoisonError::into_inner);
        let streams = self.streams();
        // A kind without clients is made anew when one comes.
        envoy.retain(|audience, _| streams.iter().any(|stream| stream.audience.as_ref() == Some(audience)));
        let mut fewer = false;
        for (audience, view) in envoy.iter_mut() {
            fewer |= view.keep_serving(&self.served(audience));
            let of_kind = streams.iter().filter(|stream| stream.audience.as_ref() == Some(audience));
            let progress: Vec<_> = of_kind.flat_map(|stream| &stream.progress).collect();
            for of in xds::envoy::types::ALL {
                let told = progress.iter().filter(|it| it.type_url == of).map(|it| it.told).min();
                view.forget(of, told.unwrap_or(u64::MAX));
            }
        }
        if fewer {
            self.published.send_modify(|_| ());
        }
    }
}

/// Time since the epoch.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Takes facts, compiles, tells. Ends when the informers do.
pub async fn run(core: Arc<Core>, mut facts: mpsc::UnboundedReceiver<Fact>) {
    let mut synced = BTreeSet::new();
    let mut batch = Vec::new();
    let mut sweep = tokio::time::interval(Duration::from_secs(30));
    loop {
        tokio::select! {
            received = facts.recv_many(&mut batch, BATCH) => if received == 0 { return },
            _ = sweep.tick() => {
                core.forget();
                continue;
            }
        }
        // A change seldom comes alone (a pod and its slice): a moment's wait saves a push to every proxy.
        let complete = synced.len() == project::mesh::RESOURCES.len();
        if complete {
            tokio::time::sleep(core.config.debounce).await;
            while batch.len() < BATCH
                && let Ok(fact) = facts.try_recv()
            {
                batch.push(fact);
            }
        }
        for fact in batch.drain(..) {
            core.apply(fact, &mut synced);
        }
        core.observed.send_modify(|count| *count += 1);
        // Nothing is told before everything is known: half a configuration would take away what proxies have.
        if synced.len() == project::mesh::RESOURCES.len() {
            core.compile();
            core.publish();
        }
    }
}

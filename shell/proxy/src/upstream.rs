//! A service's port as one worker sees it, and the choice among its endpoints.
use crate::limits::{Health, PortState};
use crate::mesh::Mesh;
use crate::origin::Origin;
use crate::random;
use crate::shared::Shared;
use model::Key;
use model::map::HashMap;
use model::mesh::traffic::{Balancer, HashKey, Outlier};
use model::mesh::{AppProtocol, BackendTls, Endpoint, Service, ServicePort, TrafficPolicy, Transport, Workload};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use traffic::balance::PoolEndpoint;
use traffic::balance::chooser::{Chooser, Look};
use traffic::balance::locality::Place;
use traffic::retry::Budget;
use traffic::{Pool, PortEntry, RouteTable, ServiceEntry, outlier};

/// How long an endpoint that said that it drains is passed over. By then the control plane has told the same.
const DRAINING_MS: u64 = 30_000;

/// What a worker knows of an endpoint from its own traffic. Not shared between workers: each balances what it sends.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    draining_until_ms: AtomicU64,
}

impl Load {
    /// It said itself that it drains.
    pub fn mark_draining(&self, now_ms: u64) {
        self.draining_until_ms.store(now_ms + DRAINING_MS, Ordering::Relaxed);
    }

    fn is_draining(&self, now_ms: u64) -> bool {
        self.draining_until_ms.load(Ordering::Relaxed) > now_ms
    }
}

/// A request or connection under way.
#[derive(Debug)]
pub struct InFlight(Arc<Load>);

impl InFlight {
    /// Counts one more.
    pub fn begin(load: &Arc<Load>) -> Self {
        load.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(load.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One port of a service, as it was at some version.
#[derive(Debug)]
pub struct Port {
    entry: Arc<ServiceEntry>,
    index: usize,
    /// How it is called by who asked for it.
    policy: Option<Arc<TrafficPolicy>>,
    /// Where connections go that go where they were meant to go, and that as the only endpoint.
    through: Option<(SocketAddr, Pool)>,
    /// In the order of the pool's endpoints.
    loads: Vec<Arc<Load>>,
    turn: AtomicU64,
    budget: Mutex<Budget>,
    chooser: Chooser,
    state: Arc<PortState>,
    /// In the order of the pool's endpoints; empty when the policy does not ask for it.
    healths: Vec<Arc<Health>>,
}

/// Who asks for a port, and what the connection was meant for that he made.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// On whose behalf.
    pub origin: &'a Origin,
    /// The address that a pod's connection was meant for.
    pub to: Option<SocketAddr>,
}

impl<'a> Asker<'a> {
    /// Who was not captured: a gateway, the proxy itself.
    pub fn new(origin: &'a Origin) -> Self {
        Self { origin, to: None }
    }
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Address of the process.
    pub address: SocketAddr,
    /// Resource name of the workload, or empty.
    pub workload: Arc<str>,
    /// Its load.
    pub load: Arc<Load>,
    /// There is no other.
    pub last_resort: bool,
    /// Its service is outside of the mesh: it has no tunnel, whoever has the address.
    pub outside: bool,
}

impl Port {
    /// The service.
    pub fn service(&self) -> &Arc<ServiceEntry> {
        &self.entry
    }

    /// The port with its routes.
    pub fn entry(&self) -> &PortEntry {
        &self.entry.ports[self.index]
    }

    fn pool(&self) -> &Pool {
        self.through.as_ref().map_or(&self.entry().pool, |(_, pool)| pool)
    }

    /// Where its connections go, if they go where they were meant to go.
    pub fn through(&self) -> Option<SocketAddr> {
        self.through.as_ref().map(|(to, _)| *to)
    }

    /// What is spoken on it.
    pub fn app_protocol(&self) -> AppProtocol {
        self.entry().app_protocol()
    }

    /// Chooses an endpoint that is not among `tried` (unless all are).
    pub fn choose(&self, tried: &[SocketAddr], affinity: Option<u64>, now_ms: u64) -> Option<Upstream> {
        self.choose_beyond(&[], tried, affinity, now_ms)
    }

    /// As [`choose`](Self::choose), and if possible in another locality than those of `near`.
    pub fn choose_beyond(
        &self,
        near: &[SocketAddr],
        tried: &[SocketAddr],
        affinity: Option<u64>,
        now_ms: u64,
    ) -> Option<Upstream> {
        let pool = self.pool();
        let endpoints = pool.endpoints();
        let load = |index: usize| self.loads[index].in_flight.load(Ordering::Relaxed);
        let ejections = self.ejections_count(now_ms);
        let out = |index: usize| {
            let endpoint: &PoolEndpoint = &endpoints[index];
            tried.contains(&endpoint.address())
                || self.loads[index].is_draining(now_ms)
                || (ejections && self.healths[index].is_ejected(now_ms))
        };
        let near = match near.is_empty() {
            true => Vec::new(),
            false => self.chooser.near(&|index| near.contains(&endpoints[index].address()), &out),
        };
        let skip = |index: usize| near.contains(&index) || out(index);
        let age_ms = |index: usize| self.healths.get(index).map_or(u64::MAX, |health| health.age_ms(now_ms));
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let look = Look { load: &load, skip: &skip, age_ms: &age_ms };
        let index = self.chooser.choose(pool, affinity, turn, &mut random::u32, look)?;
        let endpoint = &endpoints[index];
        Some(Upstream {
            address: endpoint.address(),
            workload: endpoint.workload.clone(),
            load: self.loads[index].clone(),
            last_resort: skip(index),
            outside: self.entry.service.outside,
        })
    }

    /// How its endpoints are called.
    pub fn policy(&self) -> Option<&TrafficPolicy> {
        self.policy.as_deref()
    }

    /// The TLS that it is called under, by a gateway or by a pod.
    pub fn tls(&self, gateway: bool) -> Option<&Arc<BackendTls>> {
        let of_gateways = self.entry().port.tls.as_ref().filter(|_| gateway);
        of_gateways.or_else(|| self.policy()?.tls.as_ref())
    }

    /// How long a connection to it may take to be made, if a policy says so.
    pub fn connect_timeout(&self) -> Option<Duration> {
        let ms = self.policy().map_or(0, |policy| policy.pool.connect_timeout_ms);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// What is remembered of it.
    pub fn state(&self) -> &Arc<PortState> {
        &self.state
    }

    /// What of a request keeps it on its endpoint.
    pub fn hash_key(&self) -> Option<&HashKey> {
        match &self.policy()?.balancer {
            Balancer::Hash { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Whether there are ejected endpoints, and they are to be left out.
    fn ejections_count(&self, now_ms: u64) -> bool {
        let Some(policy) = self.policy().and_then(|policy| policy.outlier.as_ref()) else { return false };
        self.state.has_ejected(now_ms) && outlier::counts(policy, self.ejected(now_ms), self.loads.len())
    }

    fn ejected(&self, now_ms: u64) -> usize {
        self.healths.iter().filter(|health| health.is_ejected(now_ms)).count()
    }

    /// An endpoint that is looked after: by which policy, and how many of how many endpoints are ejected.
    pub fn watched(&self, address: SocketAddr, now_ms: u64) -> Option<(&Outlier, Arc<Health>, (usize, usize))> {
        let policy = self.policy()?.outlier.as_ref()?;
        let index = self.pool().endpoints().iter().position(|endpoint| endpoint.address() == address)?;
        Some((policy, self.healths.get(index)?.clone(), (self.ejected(now_ms), self.loads.len())))
    }

    /// The retries that this port's requests may make.
    pub fn with_budget<T>(&self, decide: impl FnOnce(&mut Budget) -> T) -> T {
        decide(&mut self.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The ports that a worker has met.
#[derive(Debug, Default)]
pub struct Ports {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    met: HashMap<(Key, u16, Transport), Met>,
    /// What is meant for no service and carries requests, by address.
    strange: HashMap<SocketAddr, Arc<Port>>,
    /// By address and workload: an address can be another workload's tomorrow.
    loads: Loads,
}

type Loads = HashMap<(SocketAddr, Arc<str>), Arc<Load>>;

/// A port that was met, as it was at some version.
#[derive(Debug)]
struct Met {
    version: u64,
    entry: Arc<ServiceEntry>,
    index: usize,
    /// For everybody.
    plain: Option<Arc<Port>>,
    /// For callers who have a policy of their own (1 is the first), and for what goes where it was meant to go.
    others: HashMap<(usize, Option<SocketAddr>), Arc<Port>>,
}

/// Addresses that a worker remembers for a port whose connections go where they were meant to go. Who calls more begins anew.
const MOST_MEANT: usize = 4_096;

impl Met {
    fn port(&self) -> &ServicePort {
        &self.entry.ports[self.index].port
    }

    /// Whether all callers have the same port, wherever they meant to go.
    fn is_for_all(&self) -> bool {
        let port = self.port();
        port.for_callers.is_empty() && !passes(port, port.traffic.as_deref())
    }
}

/// Whether connections go where they were meant to go.
fn passes(port: &ServicePort, policy: Option<&TrafficPolicy>) -> bool {
    port.through || policy.is_some_and(|policy| policy.balancer == Balancer::PassThrough)
}

/// Which caller's policy counts: its number, 0 for everybody's.
fn variant(shared: &Shared, port: &ServicePort, asker: Asker<'_>) -> usize {
    if port.for_callers.is_empty() {
        return 0;
    }
    let caller = shared.mesh.workload_of(asker.origin);
    let labels = caller.as_ref().map(|caller| &caller.labels);
    let of = port.for_callers.iter().position(|it| it.is_for(&asker.origin.namespace, labels));
    of.map_or(0, |index| index + 1)
}

fn build(
    shared: &Shared,
    loads: &mut Loads,
    (entry, index): (Arc<ServiceEntry>, usize),
    (variant, through): (usize, Option<SocketAddr>),
) -> Arc<Port> {
    let port = &entry.ports[index];
    let policy = match variant {
        0 => port.port.traffic.clone(),
        number => port.port.for_callers[number - 1].traffic.clone(),
    };
    let through = through.map(|to| (to, Pool::new([(&Endpoint::at(to.ip()), to.port())])));
    let pool = through.as_ref().map_or(&port.pool, |(_, pool)| pool);
    let endpoints = pool.endpoints();
    let load_key = |it: &PoolEndpoint| (it.address(), it.workload.clone());
    let of_each = endpoints.iter().map(|it| loads.entry(load_key(it)).or_default().clone()).collect();
    let turn = AtomicU64::new(u64::from(random::u32()));
    let state = shared.states.get(&entry.service.key, port.port.port, variant);
    let watched = policy.as_ref().is_some_and(|policy| policy.outlier.is_some() || policy.warmup.is_some());
    let now_ms = shared.now_ms();
    let healths = endpoints.iter().filter(|_| watched);
    let healths = healths.map(|it| state.health(it.address(), &it.workload, now_ms)).collect();
    let place = if policy.is_some() { shared.place() } else { Place::default() };
    let chooser = Chooser::new(policy.as_ref(), &place, pool);
    let budget = Budget::of(policy.as_ref().and_then(|policy| policy.retry_budget));
    let budget = Mutex::new(budget);
    Arc::new(Port { index, policy, through, loads: of_each, turn, budget, chooser, state, healths, entry })
}

/// What Istio calls traffic that is for no service, and boards name.
fn nobodys(to: SocketAddr) -> ServiceEntry {
    let port = ServicePort { port: to.port(), through: true, ..ServicePort::default() };
    let service = Service { key: Key::new("", "PassthroughCluster"), ports: vec![port.clone()], ..Service::default() };
    let entry = PortEntry {
        port,
        pool: Pool::default(),
        table: RouteTable::default(),
        consumers: Vec::new(),
        streams: Vec::new(),
    };
    ServiceEntry { service: Arc::new(service), ports: vec![entry], endpoints: Vec::new() }
}

impl Ports {
    /// The port of a service as it is now.
    pub fn get(&self, shared: &Shared, service: &Key, port: u16, asker: Asker<'_>) -> Option<Arc<Port>> {
        self.get_as(shared, service, (port, Transport::Tcp), asker)
    }

    /// The port of a service, of one of the transports that can have the same number.
    pub fn get_as(
        &self,
        shared: &Shared,
        service: &Key,
        (port, transport): (u16, Transport),
        asker: Asker<'_>,
    ) -> Option<Arc<Port>> {
        let mesh = &shared.mesh;
        let version = mesh.version();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { met, loads, .. } = &mut *inner;
        let key = (service.clone(), port, transport);
        // Nearly always: nothing has changed, and it is the same for everybody.
        if let Some(known) = met.get(&key).filter(|met| met.version == version && met.is_for_all())
            && let Some(plain) = &known.plain
        {
            return Some(plain.clone());
        }
        if met.get(&key).is_none_or(|met| met.version != version) {
            let entry = mesh.known().directory.service(service).cloned();
            let is_it = |it: &PortEntry| it.port.port == port && it.port.transport == transport;
            let found = entry.and_then(|entry| Some((entry.ports.iter().position(is_it)?, entry)));
            let Some((index, entry)) = found else {
                met.remove(&key);
                return None;
            };
            match met.get_mut(&key).filter(|met| Arc::ptr_eq(&met.entry, &entry)) {
                Some(met) => met.version = version,
                None => {
                    let fresh = Met { version, entry, index, plain: None, others: HashMap::default() };
                    met.insert(key.clone(), fresh);
                }
            }
        }
        let met = met.get_mut(&key)?;
        let variant = variant(shared, met.port(), asker);
        let policy = match variant {
            0 => &met.port().traffic,
            number => &met.port().for_callers[number - 1].traffic,
        };
        let passes = passes(met.port(), policy.as_deref());
        let which = (variant, asker.to.filter(|_| passes));
        let known = if which == (0, None) { met.plain.as_ref() } else { met.others.get(&which) };
        if let Some(known) = known {
            return Some(known.clone());
        }
        let built = build(shared, loads, (met.entry.clone(), met.index), which);
        if which == (0, None) {
            met.plain = Some(built.clone());
        } else {
            if met.others.len() >= MOST_MEANT {
                met.others.clear();
            }
            met.others.insert(which, built.clone());
        }
        Some(built)
    }

    /// A port for requests to an address that is no service's.
    pub fn nobodys(&self, shared: &Shared, to: SocketAddr) -> Arc<Port> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { strange, loads, .. } = &mut *inner;
        if let Some(known) = strange.get(&to) {
            return known.clone();
        }
        if strange.len() >= MOST_MEANT {
            strange.clear();
        }
        let built = build(shared, loads, (Arc::new(nobodys(to)), 0), (0, Some(to)));
        strange.insert(to, built.clone());
        built
    }

    /// The load of an address that is no service's endpoint.
    pub fn load(&self, address: SocketAddr) -> Arc<Load> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.loads.entry((address, "".into())).or_default().clone()
    }

    /// Requests that are under way to local processes at these addresses.
    pub fn in_flight_at(&self, addresses: &[IpAddr]) -> u32 {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let here = inner.loads.iter().filter(|((at, of), _)| of.is_empty() && addresses.contains(&at.ip()));
        here.map(|(_, load)| load.in_flight.load(Ordering::Relaxed)).sum()
    }

    /// Forgets what nobody uses. Called now and then by the worker.
    pub fn sweep(&self, mesh: &Mesh) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let known = mesh.known();
        inner.met.retain(|(service, ..), _| known.directory.service(service).is_some());
        inner.met.values_mut().for_each(|met| met.others.retain(|_, port| Arc::strong_count(port) > 1));
        inner.strange.retain(|_, port| Arc::strong_count(port) > 1);
        inner.loads.retain(|_, load| Arc::strong_count(load) > 1);
    }
}

/// The identity that a workload must prove, made once for a connection.
pub fn identity_of(workload: &Workload, trust_domain: &str) -> Arc<str> {
    workload.identity(trust_domain).into()
}

//! The mesh in Envoy's words: what the compiler made, told to Envoys and to gRPC clients that speak xDS. It is made for each [`Audience`] when the first
//! of it comes; a mesh without them pays nothing.
//!
//! Names: cluster `outbound|PORT||HOST` (`outbound|PORT|SUBSET|HOST`), route table `outbound/HOST:PORT` or `gateway/NAMESPACE/NAME/PORT`, listener
//! `HOST:PORT` (gRPC), `sidecar/...`, `gateway/...`. Who asks sees the listeners of its own role.

mod audience;
mod changes;
mod endpoints;
mod inbound;
mod limits;
mod policies;
mod role;
mod routes;
mod secrets;
mod tokens;

pub use audience::{Audience, Claim};
pub use role::Role;
pub use secrets::Secrets;

use audience::Kind;
use authz::mesh::PolicySet;
use model::Key;
use model::map::HashMap;
use model::mesh::attached::{AttachedPolicy, PolicyTarget};
use model::mesh::policy::ProviderKind;
use model::mesh::{
    ExtensionProvider, ListenerProtocol, ParentTarget, RequestAuthentication, Resource, Service, TlsMode, Transport,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use traffic::stream::Connection;
use traffic::{Directory, GatewayEntry, ListenerEntry, PortEntry, ServiceEntry};
use xds::catalog::Catalog;
use xds::envoy::{self, Door, Rules, Takes, VirtualHost, types};

/// What a sidecar listens on for captured connections, and for requests by name.
const CAPTURE_PORT: u16 = 15_001;
const BY_NAME_PORT: u16 = 15_080;
const PASSTHROUGH: &str = "passthrough";

/// See the [module](self).
pub struct View {
    audience: Audience,
    trust_domain: String,
    directory: Directory,
    /// Peer authentications only.
    peers: PolicySet,
    /// Services by the workloads behind them.
    of_workload: HashMap<Arc<str>, BTreeSet<Key>>,
    policies: policies::Policies,
    tokens: BTreeMap<Key, Arc<RequestAuthentication>>,
    /// TrafficPolicies of which something is told.
    attached: limits::Policies,
    providers: policies::Providers,
    /// Joined hosts in place of whose proxies an Envoy has come: what comes in is told of these only.
    served: BTreeSet<Arc<str>>,
    catalog: Catalog,
    /// What each place was told last: resources of types and names.
    told: HashMap<Place, BTreeSet<(&'static str, String)>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    Service(Key),
    Gateway(Key),
    Sidecars,
    Host(Arc<str>),
}

/// Resources of one place.
#[derive(Default)]
struct Emission(Vec<(&'static str, String, bytes::Bytes)>);

impl Emission {
    fn add(&mut self, of: &'static str, name: impl Into<String>, value: bytes::Bytes) {
        self.0.push((of, name.into(), value));
    }
}

impl View {
    /// From all that there is. Versions start at `first`.
    pub fn new<'a>(
        first: u64,
        trust_domain: &str,
        audience: Audience,
        resources: impl Iterator<Item = &'a Resource>,
    ) -> Self {
        let mut catalog = Catalog::starting_at(first);
        types::ALL.into_iter().for_each(|of| catalog.declare(of));
        let mut view = View {
            audience,
            trust_domain: trust_domain.to_owned(),
            peers: PolicySet::new(),
            of_workload: HashMap::default(),
            directory: Directory::new(),
            policies: BTreeMap::new(),
            tokens: BTreeMap::new(),
            attached: BTreeMap::new(),
            providers: BTreeMap::new(),
            served: BTreeSet::new(),
            catalog,
            told: HashMap::default(),
        };
        view.catalog.set(types::CLUSTER, PASSTHROUGH, Some(envoy::passthrough(PASSTHROUGH)));
        view.apply(resources.map(|resource| (resource.kind(), resource.name().to_string(), Some(resource.clone()))));
        view
    }

    /// What there is to tell.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Forgets removals that every stream was told of.
    pub fn forget(&mut self, of: &'static str, position: u64) {
        self.catalog.forget(of, position.min(self.catalog.sequence()));
    }

    /// Notes a TrafficPolicy of which something is told. True: there is, or was.
    fn attach(&mut self, key: &Key, policy: Option<&Arc<AttachedPolicy>>) -> bool {
        match policy.filter(|it| is_hedged(it) || !it.limits.is_empty() || it.global.is_some()) {
            Some(policy) => self.attached.insert(key.clone(), policy.clone()).as_ref() != Some(policy),
            None => self.attached.remove(key).is_some(),
        }
    }

    /// Whether a service may be one that is asked about requests.
    fn names_asked(&self, service: &Service) -> bool {
        let limits = self.attached.values().filter_map(|policy| policy.global.as_ref());
        self.providers.values().any(|provider| service.hostnames.contains(&provider.service))
            || limits.into_iter().any(|global| global.service == service.key)
    }

    /// Whether a port is asked about requests by gRPC.
    fn is_asked(&self, service: &Service, port: u16) -> bool {
        let grpc = |it: &&Arc<ExtensionProvider>| it.kind == ProviderKind::Grpc && it.port == port;
        let limits = self.attached.values().filter_map(|policy| policy.global.as_ref());
        self.providers.values().filter(grpc).any(|it| service.hostnames.contains(&it.service))
            || limits.into_iter().any(|global| global.service == service.key && global.port == port)
    }

    /// A route table, with what TrafficPolicies say of its routes.
    fn table(&self, name: &str, mut hosts: Vec<VirtualHost>) -> bytes::Bytes {
        let hedged = self.attached.values().filter(|policy| is_hedged(policy)).flat_map(|policy| &policy.targets);
        let routes: BTreeSet<&str> = hedged
            .filter_map(|target| match target {
                PolicyTarget::Route { route, rule } if rule.is_empty() => Some(&**route),
                _ => None,
            })
            .collect();
        if !routes.is_empty() {
            hosts.iter_mut().flat_map(|host| &mut host.routes).for_each(|it| it.hedged = routes.contains(&*it.name));
        }
        envoy::route_configuration(name, &hosts)
    }

    /// Notes on routes what their requests count in, on a gateway's listener or in the mesh: the filters that they need.
    fn limit(&self, at: limits::At<'_>, hosts: &mut [VirtualHost]) -> Vec<bytes::Bytes> {
        if self.audience.kind == Kind::Grpc {
            return Vec::new();
        }
        limits::note(&self.attached, at, hosts.iter_mut().flat_map(|host| &mut host.routes));
        limits::filters(&self.attached, &self.directory, hosts)
    }

    fn tell(&mut self, place: Place, emission: Emission) {
        let mut now = BTreeSet::new();
        let mut warming = Vec::new();
        for (of, name, value) in emission.0 {
            if self.catalog.set(of, &name, Some(value)) && of == types::CLUSTER {
                warming.push(name.clone());
            }
            now.insert((of, name));
        }
        // An Envoy that takes a changed cluster in waits for its endpoints, also for those that it has.
        for name in warming {
            self.catalog.touch(types::ENDPOINT, &name);
        }
        let before = if now.is_empty() { self.told.remove(&place) } else { self.told.insert(place, now.clone()) };
        for (of, name) in before.into_iter().flatten().filter(|it| !now.contains(it)) {
            self.catalog.set(of, &name, None);
        }
    }

    fn emit_service(&mut self, key: &Key) {
        let mut emission = Emission::default();
        if let Some(entry) = self.directory.service(key).cloned() {
            for endpoint in entry.endpoints.iter().filter(|it| !it.workload.is_empty()) {
                self.of_workload.entry(endpoint.workload.clone()).or_default().insert(key.clone());
            }
            // What goes where it was meant to go has no endpoints to tell.
            let told = |port: &&PortEntry| port.port.transport == Transport::Tcp && !port.port.through;
            for port in entry.ports.iter().filter(told) {
                self.emit_port(&entry, port, &mut emission);
            }
        }
        self.tell(Place::Service(key.clone()), emission);
    }

    fn emit_port(&self, entry: &ServiceEntry, port: &PortEntry, out: &mut Emission) {
        let number = port.port.port;
        let cluster = routes::cluster_name(&self.directory, &entry.service.key, number);
        let http2 = port.app_protocol().is_http2();
        let told = self.told(&cluster, entry, port, http2);
        out.add(types::CLUSTER, &cluster, told.cluster);
        out.add(types::ENDPOINT, &cluster, told.endpoints);
        if self.audience.kind != Kind::Grpc && self.is_asked(&entry.service, number) {
            let asked = routes::asked_name(&self.directory, &entry.service.key, number);
            let told = self.told(&asked, entry, port, true);
            out.add(types::CLUSTER, &asked, told.cluster);
            out.add(types::ENDPOINT, &asked, told.endpoints);
        }
        let Some(host) = entry.service.hostnames.first().filter(|_| is_named(&entry.service)) else { return };
        let table = format!("outbound/{host}:{number}");
        let mut hosts = routes::of_service(&self.directory, entry, port, self.audience.source.as_ref());
        let filters = self.limit(limits::At::Caller, &mut hosts);
        out.add(types::ROUTE, &table, self.table(&table, hosts));
        for name in routes::names(&entry.service) {
            let name = format!("{name}:{number}");
            out.add(types::LISTENER, &name, envoy::api_listener(&name, &table));
        }
        let door = if port.app_protocol().is_http() {
            Door { routes: Some(table), filters, ..Door::default() }
        } else {
            let own = || (vec![(cluster, 1)], routes::lasting_ms(port));
            let connection = match &self.audience.source {
                Some(of) => Connection { namespace: &of.namespace, labels: Some(&of.labels), ..Connection::default() },
                None => Connection::default(),
            };
            let (clusters, lasting_ms) = port
                .stream(&entry.service.key, connection)
                .map_or_else(own, |route| routes::stream(&self.directory, route));
            Door { clusters, lasting_ms, ..Door::default() }
        };
        for vip in &entry.service.vips {
            let name = format!("sidecar/{host}:{number}/{vip}");
            let value = envoy::listener(&name, (&vip.to_string(), number), Takes::Handed, std::slice::from_ref(&door));
            out.add(types::LISTENER, name, value);
        }
    }

    /// What a sidecar has beside its services' listeners: the one that takes captured connections and hands them on, and one for requests
    /// by name, for hosts on which nothing is captured.
    fn emit_sidecars(&mut self) {
        let mut out = Emission::default();
        let direct = Door { clusters: vec![(PASSTHROUGH.to_owned(), 1)], ..Door::default() };
        let capture = envoy::listener("sidecar/capture", ("0.0.0.0", CAPTURE_PORT), Takes::Captured, &[direct]);
        out.add(types::LISTENER, "sidecar/capture", capture);
        let table = "sidecar/by-name";
        let mut hosts = routes::by_name(&self.directory, self.audience.source.as_ref());
        let filters = self.limit(limits::At::Caller, &mut hosts);
        let door = Door { routes: Some(table.to_owned()), filters, ..Door::default() };
        out.add(types::LISTENER, table, envoy::listener(table, ("127.0.0.1", BY_NAME_PORT), Takes::Own, &[door]));
        out.add(types::ROUTE, table, self.table(table, hosts));
        self.tell(Place::Sidecars, out);
    }

    fn emit_gateways(&mut self) {
        let gateways: Vec<Arc<GatewayEntry>> = self.directory.gateways().into_iter().cloned().collect();
        let now: BTreeSet<Place> = gateways.iter().map(|entry| Place::Gateway(entry.gateway.key.clone())).collect();
        let gone = self.told.keys().filter(|place| matches!(place, Place::Gateway(_)) && !now.contains(place));
        for place in gone.cloned().collect::<Vec<_>>() {
            self.tell(place, Emission::default());
        }
        for entry in &gateways {
            let emission = self.gateway(entry);
            self.tell(Place::Gateway(entry.gateway.key.clone()), emission);
        }
    }

    fn gateway(&self, entry: &GatewayEntry) -> Emission {
        let mut out = Emission::default();
        let holder = policies::Holder::Gateway(&entry.gateway);
        let mut filters: Vec<_> = policies::tokens(&self.tokens, holder).into_iter().collect();
        filters.extend(policies::asks(&self.policies, &self.providers, &self.directory, holder, Clone::clone));
        filters.extend(policies::of_requests(&self.policies, holder).iter().map(Rules::filter));
        let ports: BTreeSet<u16> = entry.listeners.iter().map(|it| it.listener.port).collect();
        for port in ports {
            let name = format!("gateway/{}/{port}", entry.gateway.key);
            let listeners: Vec<_> = entry.listeners.iter().filter(|it| it.listener.port == port).collect();
            let http: Vec<_> = listeners
                .iter()
                .copied()
                .filter(|it| matches!(it.listener.protocol, ListenerProtocol::Http | ListenerProtocol::Https))
                .collect();
            let mut doors = Vec::new();
            let mut filters = filters.clone();
            if !http.is_empty() {
                let mut hosts = routes::of_gateway(&self.directory, &entry.gateway.key, &http);
                // What a listener's policy says is told where it is the port's only one: a table is a port's.
                let listener = if let [only] = &http[..] { &*only.listener.name } else { "" };
                filters.extend(self.limit(limits::At::Gateway(&entry.gateway.key, listener), &mut hosts));
                out.add(types::ROUTE, &name, self.table(&name, hosts));
            }
            let mut plain = false;
            for it in &http {
                let secured = it.listener.tls == TlsMode::Terminate;
                if !secured && std::mem::replace(&mut plain, true) {
                    // Without TLS the route table tells hosts apart.
                    continue;
                }
                doors.push(Door {
                    server_names: it.listener.hostname.iter().filter(|_| secured).map(ToString::to_string).collect(),
                    secrets: it.listener.certificates.iter().filter(|_| secured).map(ToString::to_string).collect(),
                    routes: Some(name.clone()),
                    filters: filters.clone(),
                    clients: it.listener.clients.clone().filter(|_| secured),
                    edge: true,
                    ..Door::default()
                });
            }
            let decide = policies::of_connections(&self.policies, holder);
            let decide: Vec<_> = decide.iter().map(Rules::network_filter).collect();
            self.streams(&entry.gateway.key, &listeners, &decide, &mut doors);
            if !doors.is_empty() {
                let proxied = listeners.iter().any(|it| it.listener.proxy_protocol);
                let takes = if proxied { Takes::Proxied } else { Takes::Own };
                out.add(types::LISTENER, &name, envoy::listener(&name, ("0.0.0.0", port), takes, &doors));
            }
        }
        out
    }

    /// What is passed whole: TCP, and TLS by server name. An Envoy takes no two doors for the same names; the first stays.
    fn streams(&self, gateway: &Key, listeners: &[&ListenerEntry], decide: &[bytes::Bytes], doors: &mut Vec<Door>) {
        for it in listeners {
            let terminates = it.listener.tls == TlsMode::Terminate;
            for route in &it.streams {
                let here = |target: &ParentTarget| matches!(target, ParentTarget::Listener { gateway: of, listener } if of == gateway && *listener == it.listener.name);
                let parents = route.parents.iter().filter(|parent| here(&parent.target));
                let mut names: Vec<String> = match it.listener.protocol {
                    ListenerProtocol::Tls => {
                        parents.flat_map(|parent| &parent.hostnames).map(ToString::to_string).collect()
                    }
                    ListenerProtocol::Tcp => Vec::new(),
                    _ => continue,
                };
                if names.is_empty() {
                    names.extend(it.listener.hostname.iter().map(ToString::to_string));
                }
                let taken = |name: &String| doors.iter().any(|door| door.server_names.contains(name));
                let free: Vec<String> = names.iter().filter(|name| !taken(name)).cloned().collect();
                let same = |door: &Door| door.server_names.is_empty() && names.is_empty();
                if free.is_empty() && !names.is_empty() || doors.iter().any(same) {
                    continue;
                }
                let (clusters, lasting_ms) = routes::stream(&self.directory, route);
                doors.push(Door {
                    server_names: free,
                    secrets: it.listener.certificates.iter().filter(|_| terminates).map(ToString::to_string).collect(),
                    clients: it.listener.clients.clone().filter(|_| terminates),
                    clusters,
                    lasting_ms,
                    filters: decide.to_vec(),
                    ..Door::default()
                });
            }
        }
    }
}

/// Envoy's way of hedging: by the time-out of a try.
fn is_hedged(policy: &AttachedPolicy) -> bool {
    policy.hedging.is_some_and(|hedging| hedging.after_ms.is_none())
}

/// Whether clients are told of it by name: it is whole, and for callers of all namespaces, for those are not told apart.
fn is_named(service: &Service) -> bool {
    service.subset_of.is_none() && service.export_to.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::mesh::{Action, AuthorizationPolicy, Gateway, Listener, PolicyRule, ResourceKind, Scope};

    fn gateway() -> Resource {
        let listener = Listener {
            name: "http".into(),
            port: 80,
            protocol: ListenerProtocol::Http,
            hostname: None,
            certificates: vec![],
            tls: TlsMode::None,
            on_nodes: true,
            clients: None,
            proxy_protocol: false,
        };
        let key = Key::new("default", "edge");
        let policies = vec![key.clone()];
        Resource::Gateway(Arc::new(Gateway {
            key,
            listeners: vec![listener],
            authorization_policies: policies,
            ..Gateway::default()
        }))
    }

    #[test]
    fn a_name_is_unique_only_within_its_kind() {
        let policy = Resource::AuthorizationPolicy(Arc::new(AuthorizationPolicy {
            key: Key::new("default", "edge"),
            scope: Scope::Workload,
            action: Action::Deny,
            dry_run: false,
            provider: "".into(),
            rules: vec![PolicyRule::default()],
        }));
        let mut view = View::new(0, "cluster.local", Audience::default(), [policy, gateway()].iter());
        let is_guarded = |view: &View| {
            let listener = view.catalog().get(types::LISTENER, "gateway/default/edge/80");
            let encoded = listener.and_then(|change| change.encoded);
            encoded.is_some_and(|bytes| bytes.windows(16).any(|part| part == b"diolkos.rbac.den"))
        };
        assert!(is_guarded(&view));
        view.apply([(ResourceKind::Gateway, "default/edge".to_owned(), None)].into_iter());
        assert!(!is_guarded(&view), "the listener is gone with its gateway");
        view.apply([(ResourceKind::Gateway, "default/edge".to_owned(), Some(gateway()))].into_iter());
        assert!(is_guarded(&view), "the policy of the same name is still there");
    }
}

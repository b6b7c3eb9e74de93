//! What a proxy knows: the resources it was told, joined for look-up.
//!
//! Resources come one at a time and in any order; each joins what it touches (an endpoint group its service, a route its parents) and
//! nothing else. What a look-up returns is immutable and shared: a connection keeps what it was given, the next one sees the new.
//! A reference to what is not known yet waits: it works as soon as the other comes.

use crate::balance::Pool;
use crate::table::RouteTable;
use model::Key;
use model::map::HashMap;
use model::mesh::{
    AppProtocol, Endpoint, EndpointGroup, Gateway, Hostname, Listener, ListenerProtocol, ParentTarget, ROOT_NAMESPACES,
    Resource, ResourceKind, Route, RouteKind, Service, ServicePort, Workload, WorkloadStatus,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The joined resources. Policies, secrets and trust bundles are not among them: they are others' matter.
#[derive(Debug, Default)]
pub struct Directory {
    workloads: HashMap<Arc<str>, Arc<Workload>>,
    by_address: HashMap<IpAddr, BTreeSet<Arc<str>>>,
    declared: HashMap<Key, Arc<Service>>,
    services: HashMap<Key, Arc<ServiceEntry>>,
    /// Nearly always one: ServiceEntries may share addresses.
    by_vip: HashMap<IpAddr, Vec<Key>>,
    /// Services that have blocks of addresses.
    pub(crate) with_blocks: BTreeSet<Key>,
    /// Services without addresses that let connections through: they are told by the name that is asked for.
    pub(crate) by_name: BTreeMap<u16, BTreeSet<Key>>,
    /// Nearly always one: more are for callers of different namespaces.
    by_host: HashMap<Arc<str>, Vec<Key>>,
    groups: HashMap<Key, Arc<EndpointGroup>>,
    groups_of: HashMap<Key, BTreeSet<Key>>,
    routes: HashMap<Arc<str>, Arc<Route>>,
    routes_of: HashMap<Place, BTreeSet<Arc<str>>>,
    gateways: HashMap<Key, Arc<GatewayEntry>>,
    /// Places to be joined at [`Directory::release`]; none: each at once.
    held: Option<BTreeSet<Place>>,
}

/// What routes hang on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    Service(Key),
    Gateway(Key),
}

/// A service with its endpoints and routes.
#[derive(Clone, Debug, Default)]
pub struct ServiceEntry {
    /// The service.
    pub service: Arc<Service>,
    /// Its ports, in the service's order.
    pub ports: Vec<PortEntry>,
    /// All endpoints, sorted by address, those that are not ready too (for headless DNS).
    pub endpoints: Vec<Endpoint>,
}

/// A port of a service.
#[derive(Clone, Debug)]
pub struct PortEntry {
    /// The port.
    pub port: ServicePort,
    /// Endpoints that may be chosen.
    pub pool: Pool,
    /// Routes that hang on it, for all callers. Empty: requests go to the service's own endpoints.
    pub table: RouteTable,
    /// For callers of a namespace that has routes of its own to it (consumer routes): these instead.
    pub consumers: Vec<(Arc<str>, RouteTable)>,
    /// TCP and TLS routes that hang on it, in order of precedence.
    pub streams: Vec<Arc<Route>>,
}

/// A gateway with its routes.
#[derive(Clone, Debug, Default)]
pub struct GatewayEntry {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Its listeners, in the gateway's order.
    pub listeners: Vec<ListenerEntry>,
}

/// A listener of a gateway.
#[derive(Clone, Debug)]
pub struct ListenerEntry {
    /// The listener.
    pub listener: Listener,
    /// HTTP and gRPC routes.
    pub table: RouteTable,
    /// TCP and TLS routes, in order of precedence.
    pub streams: Vec<Arc<Route>>,
}

impl ServiceEntry {
    /// A port by its number.
    pub fn port(&self, number: u16) -> Option<&PortEntry> {
        self.ports.iter().find(|entry| entry.port.port == number)
    }
}

impl PortEntry {
    /// The routes that hold for a caller of this namespace.
    pub fn table_for(&self, namespace: &str) -> &RouteTable {
        self.consumers.iter().find(|(of, _)| &**of == namespace).map_or(&self.table, |(_, table)| table)
    }

    /// What is spoken on it: as the service says; if it does not say and HTTP routes hang on it, HTTP.
    pub fn app_protocol(&self) -> AppProtocol {
        match self.port.app_protocol {
            AppProtocol::Unspecified if !self.table.is_empty() || !self.consumers.is_empty() => AppProtocol::Http,
            said => said,
        }
    }
}

impl GatewayEntry {
    /// The listener of a port that takes a host (or SNI): the one with the most specific hostname, and only that one.
    pub fn listener(&self, port: u16, host: &str) -> Option<&ListenerEntry> {
        self.listeners
            .iter()
            .filter(|entry| {
                entry.listener.port == port && entry.listener.hostname.as_ref().is_none_or(|name| name.matches(host))
            })
            .max_by_key(|entry| entry.listener.hostname.as_ref().map(Hostname::specificity))
    }
}

impl Directory {
    /// An empty directory.
    pub fn new() -> Self {
        Directory::default()
    }

    /// A resource came or changed. Kinds that are others' matter are left alone.
    pub fn set(&mut self, resource: Resource) {
        match resource {
            Resource::Workload(workload) => self.set_workload(workload),
            Resource::Service(service) => self.set_service(service),
            Resource::Endpoints(group) => self.set_group(group),
            Resource::Route(route) => self.set_route(route),
            Resource::Gateway(gateway) => {
                let key = gateway.key.clone();
                self.gateways.insert(key.clone(), Arc::new(GatewayEntry { gateway, listeners: Vec::new() }));
                self.join(&Place::Gateway(key));
            }
            _ => {}
        }
    }

    /// A resource is gone.
    pub fn remove(&mut self, kind: ResourceKind, name: &str) {
        match kind {
            ResourceKind::Workload => {
                if let Some(old) = self.workloads.remove(name) {
                    self.forget_addresses(&old);
                }
            }
            ResourceKind::Service => {
                if let Some(old) = self.declared.remove(&key_of(name)) {
                    self.forget_names(&old);
                    self.services.remove(&old.key);
                }
            }
            ResourceKind::Endpoints => {
                if let Some(old) = self.groups.remove(&key_of(name)) {
                    self.forget_group(&old);
                    self.join(&Place::Service(old.service.clone()));
                }
            }
            ResourceKind::Route => {
                if let Some(old) = self.routes.remove(name) {
                    for place in self.forget_route(&old) {
                        self.join(&place);
                    }
                }
            }
            ResourceKind::Gateway => {
                self.gateways.remove(&key_of(name));
            }
            _ => {}
        }
    }

    /// From here to [`release`](Self::release) changes are only noted: look-ups of what they touch answer as before. So a listener with
    /// thousands of routes is joined once for a batch of them, not once for each.
    pub fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Joins what changed since [`hold`](Self::hold).
    pub fn release(&mut self) {
        for place in self.held.take().into_iter().flatten() {
            self.join_now(&place);
        }
    }

    /// A workload by its resource name.
    pub fn workload(&self, name: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(name)
    }

    /// The workload that has an address now. Ended ones do not count, and of several (while an address changes hands) a running one
    /// goes first.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        let names = self.by_address.get(&address)?;
        names.iter().filter_map(|name| self.workloads.get(name)).min_by_key(|workload| workload.status)
    }

    /// The groups of a service's endpoints.
    pub fn groups(&self, service: &Key) -> impl Iterator<Item = &Arc<EndpointGroup>> {
        self.groups_of.get(service).into_iter().flatten().filter_map(|key| self.groups.get(key))
    }

    /// What the services of a namespace say is spoken at an endpoint of theirs, in no order; ready or not. Where callers begin with a PROXY header
    /// it is bytes, whatever follows.
    pub fn spoken_at<'d>(&'d self, namespace: &'d str, to: SocketAddr) -> impl Iterator<Item = AppProtocol> + 'd {
        let has = move |group: &&Arc<EndpointGroup>| {
            &*group.service.namespace == namespace && group.endpoints.iter().any(|it| it.address == to.ip())
        };
        self.groups
            .values()
            .filter(has)
            .flat_map(move |group| {
                let entry = self.services.get(&group.service);
                let names = group.ports.iter().filter(move |(_, number)| *number == to.port()).map(|(name, _)| name);
                names.filter_map(move |name| entry?.ports.iter().find(|it| it.port.name == *name))
            })
            .map(|entry| {
                let proxied = entry.port.traffic.as_ref().is_some_and(|policy| policy.proxy_protocol.is_some());
                if proxied { AppProtocol::Tcp } else { entry.app_protocol() }
            })
    }

    /// A service.
    pub fn service(&self, key: &Key) -> Option<&Arc<ServiceEntry>> {
        self.services.get(key)
    }

    /// The service that has a virtual address; of several the oldest.
    pub fn service_at(&self, vip: IpAddr) -> Option<&Arc<ServiceEntry>> {
        self.services_at(vip).min_by_key(|entry| (entry.service.created, &entry.service.key))
    }

    /// The services that have a virtual address.
    pub(crate) fn services_at(&self, vip: IpAddr) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.by_vip.get(&vip).into_iter().flatten().filter_map(|key| self.services.get(key))
    }

    /// The service that has a full DNS name (lower case, no final dot) for callers of a namespace: of several one that is not for all.
    pub fn service_named(&self, host: &str, namespace: &str) -> Option<&Arc<ServiceEntry>> {
        let entries = self.by_host.get(host)?.iter().filter_map(|key| self.services.get(key));
        let seen = entries.filter(|entry| entry.service.is_seen_from(namespace));
        seen.min_by_key(|entry| entry.service.export_to.is_empty())
    }

    /// The service that the operator means by a full DNS name, for the whole mesh (an authorizer, a collector): as the namespace sees it, or, when
    /// that is empty, a root namespace.
    pub fn service_for_all(&self, host: &str, namespace: &str) -> Option<&Arc<ServiceEntry>> {
        let from = if namespace.is_empty() { &ROOT_NAMESPACES[..] } else { &[namespace][..] };
        from.iter().find_map(|from| self.service_named(host, from))
    }

    /// All services, by key.
    pub fn services(&self) -> Vec<&Arc<ServiceEntry>> {
        let mut all: Vec<_> = self.services.values().collect();
        all.sort_by(|a, b| a.service.key.cmp(&b.service.key));
        all
    }

    /// All gateways, by key.
    pub fn gateways(&self) -> Vec<&Arc<GatewayEntry>> {
        let mut all: Vec<_> = self.gateways.values().collect();
        all.sort_by(|a, b| a.gateway.key.cmp(&b.gateway.key));
        all
    }

    /// All workloads, by name.
    pub fn workloads(&self) -> Vec<&Arc<Workload>> {
        let mut all: Vec<_> = self.workloads.values().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// All routes, by name.
    pub fn routes(&self) -> Vec<&Arc<Route>> {
        let mut all: Vec<_> = self.routes.values().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn set_workload(&mut self, workload: Arc<Workload>) {
        if let Some(old) = self.workloads.remove(&*workload.name) {
            self.forget_addresses(&old);
        }
        if workload.status != WorkloadStatus::Gone {
            for address in &workload.addresses {
                self.by_address.entry(*address).or_default().insert(workload.name.clone());
            }
        }
        self.workloads.insert(workload.name.clone(), workload);
    }

    fn forget_addresses(&mut self, workload: &Workload) {
        for address in &workload.addresses {
            if let Some(names) = self.by_address.get_mut(address) {
                names.remove(&workload.name);
                if names.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
    }

    fn set_service(&mut self, service: Arc<Service>) {
        let key = service.key.clone();
        if let Some(old) = self.declared.insert(key.clone(), service.clone()) {
            self.forget_names(&old);
        }
        for vip in &service.vips {
            let keys = self.by_vip.entry(*vip).or_default();
            if !keys.contains(&key) {
                keys.push(key.clone());
            }
        }
        if !service.blocks.is_empty() {
            self.with_blocks.insert(key.clone());
        }
        for port in ports_by_name(&service) {
            self.by_name.entry(port).or_default().insert(key.clone());
        }
        for host in &service.hostnames {
            let keys = self.by_host.entry(host.clone()).or_default();
            if !keys.contains(&key) {
                keys.push(key.clone());
            }
        }
        self.join(&Place::Service(key));
    }

    fn forget_names(&mut self, service: &Service) {
        for vip in &service.vips {
            if let Some(keys) = self.by_vip.get_mut(vip) {
                keys.retain(|key| *key != service.key);
                if keys.is_empty() {
                    self.by_vip.remove(vip);
                }
            }
        }
        self.with_blocks.remove(&service.key);
        for port in ports_by_name(service) {
            if let Some(keys) = self.by_name.get_mut(&port) {
                keys.remove(&service.key);
                if keys.is_empty() {
                    self.by_name.remove(&port);
                }
            }
        }
        for host in &service.hostnames {
            if let Some(keys) = self.by_host.get_mut(host) {
                keys.retain(|key| *key != service.key);
                if keys.is_empty() {
                    self.by_host.remove(host);
                }
            }
        }
    }

    fn set_group(&mut self, group: Arc<EndpointGroup>) {
        if let Some(old) = self.groups.insert(group.key.clone(), group.clone()) {
            self.forget_group(&old);
            if old.service != group.service {
                self.join(&Place::Service(old.service.clone()));
            }
        }
        self.groups_of.entry(group.service.clone()).or_default().insert(group.key.clone());
        self.join(&Place::Service(group.service.clone()));
    }

    fn forget_group(&mut self, group: &EndpointGroup) {
        if let Some(groups) = self.groups_of.get_mut(&group.service) {
            groups.remove(&group.key);
            if groups.is_empty() {
                self.groups_of.remove(&group.service);
            }
        }
    }

    fn set_route(&mut self, route: Arc<Route>) {
        let mut places = BTreeSet::new();
        if let Some(old) = self.routes.insert(route.name.clone(), route.clone()) {
            places = self.forget_route(&old);
        }
        for place in places_of(&route) {
            self.routes_of.entry(place.clone()).or_default().insert(route.name.clone());
            places.insert(place);
        }
        for place in places {
            self.join(&place);
        }
    }

    fn forget_route(&mut self, route: &Route) -> BTreeSet<Place> {
        let places = places_of(route);
        for place in &places {
            if let Some(names) = self.routes_of.get_mut(place) {
                names.remove(&route.name);
                if names.is_empty() {
                    self.routes_of.remove(place);
                }
            }
        }
        places
    }

    /// Makes a place's entry anew from what is known, now or at the end of the batch.
    fn join(&mut self, place: &Place) {
        match &mut self.held {
            Some(held) => {
                held.insert(place.clone());
            }
            None => self.join_now(place),
        }
    }

    fn join_now(&mut self, place: &Place) {
        let routes: Vec<Arc<Route>> =
            self.routes_of.get(place).into_iter().flatten().filter_map(|name| self.routes.get(name).cloned()).collect();
        match place {
            Place::Service(key) => {
                if let Some(service) = self.declared.get(key) {
                    let entry = self.join_service(service.clone(), &routes);
                    self.services.insert(key.clone(), Arc::new(entry));
                }
            }
            Place::Gateway(key) => {
                if let Some(entry) = self.gateways.get_mut(key) {
                    let gateway = entry.gateway.clone();
                    let listeners =
                        gateway.listeners.iter().map(|listener| join_listener(key, listener, &routes)).collect();
                    *entry = Arc::new(GatewayEntry { gateway, listeners });
                }
            }
        }
    }

    fn join_service(&self, service: Arc<Service>, routes: &[Arc<Route>]) -> ServiceEntry {
        let groups: Vec<&Arc<EndpointGroup>> = self.groups(&service.key).collect();
        let ports = service
            .ports
            .iter()
            .map(|port| {
                let endpoints = groups.iter().flat_map(|group| {
                    let number = group.ports.iter().find(|(name, _)| *name == port.name).map(|(_, number)| *number);
                    number.into_iter().flat_map(|number| group.endpoints.iter().map(move |endpoint| (endpoint, number)))
                });
                join_port(port, Pool::new(endpoints), routes, &service.key)
            })
            .collect();
        let mut endpoints: Vec<Endpoint> = groups.iter().flat_map(|group| group.endpoints.iter().cloned()).collect();
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        ServiceEntry { service, ports, endpoints }
    }
}

/// The ports of a service whose connections are told by name alone.
fn ports_by_name(service: &Service) -> impl Iterator<Item = u16> {
    let nowhere = service.vips.is_empty() && service.blocks.is_empty();
    service
        .ports
        .iter()
        .filter(move |port| nowhere && port.through && service.subset_of.is_none())
        .map(|port| port.port)
}

fn join_port(port: &ServicePort, pool: Pool, routes: &[Arc<Route>], key: &Key) -> PortEntry {
    let attached = |wanted: Option<&str>| -> Vec<(&Arc<Route>, &[Hostname])> {
        routes
            .iter()
            .flat_map(|route| route.parents.iter().map(move |parent| (route, parent)))
            .filter(|(_, parent)| match &parent.target {
                ParentTarget::Service { service, port: only, consumer } => {
                    service == key && only.is_none_or(|only| only == port.port) && consumer.as_deref() == wanted
                }
                ParentTarget::Listener { .. } => false,
            })
            .map(|(route, parent)| (route, &parent.hostnames[..]))
            .collect()
    };
    let requests = |attached: Vec<(&Arc<Route>, &[Hostname])>| {
        RouteTable::build(attached.into_iter().filter(|(route, _)| takes_requests(route)).map(|(route, _)| {
            // On a service the hostnames of a route say nothing: the service is already known.
            (route, &[][..])
        }))
    };
    let consumers: BTreeSet<Arc<str>> = routes
        .iter()
        .flat_map(|route| &route.parents)
        .filter_map(|parent| match &parent.target {
            ParentTarget::Service { service, consumer, .. } if service == key => consumer.clone(),
            _ => None,
        })
        .collect();
    let consumers = consumers
        .into_iter()
        .map(|namespace| {
            let table = requests(attached(Some(&namespace)));
            (namespace, table)
        })
        .filter(|(_, table)| !table.is_empty())
        .collect();
    let here = |route: &&Arc<Route>| {
        route.parents.iter().any(|parent| match &parent.target {
            ParentTarget::Service { service, port: only, .. } => {
                service == key && only.is_none_or(|only| only == port.port)
            }
            ParentTarget::Listener { .. } => false,
        })
    };
    let streams = in_order(routes.iter().filter(here).filter(|route| !takes_requests(route)));
    PortEntry { port: port.clone(), pool, table: requests(attached(None)), consumers, streams }
}

fn join_listener(key: &Key, listener: &Listener, routes: &[Arc<Route>]) -> ListenerEntry {
    let attached: Vec<(&Arc<Route>, &[Hostname])> = routes
        .iter()
        .flat_map(|route| route.parents.iter().map(move |parent| (route, parent)))
        .filter(|(_, parent)| match &parent.target {
            ParentTarget::Listener { gateway, listener: name } => gateway == key && *name == listener.name,
            ParentTarget::Service { .. } => false,
        })
        .map(|(route, parent)| (route, &parent.hostnames[..]))
        .collect();
    let requests = matches!(listener.protocol, ListenerProtocol::Http | ListenerProtocol::Https);
    let streams = in_order(attached.iter().map(|(route, _)| *route).filter(|route| !takes_requests(route)));
    let table = RouteTable::build(attached.into_iter().filter(|(route, _)| requests && takes_requests(route)));
    ListenerEntry { listener: listener.clone(), table, streams }
}

fn takes_requests(route: &Route) -> bool {
    matches!(route.kind, RouteKind::Http | RouteKind::Grpc)
}

fn in_order<'a>(routes: impl Iterator<Item = &'a Arc<Route>>) -> Vec<Arc<Route>> {
    let mut routes: Vec<Arc<Route>> = routes.cloned().collect();
    routes.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    routes
}

fn places_of(route: &Route) -> BTreeSet<Place> {
    route
        .parents
        .iter()
        .map(|parent| match &parent.target {
            ParentTarget::Listener { gateway, .. } => Place::Gateway(gateway.clone()),
            ParentTarget::Service { service, .. } => Place::Service(service.clone()),
        })
        .collect()
}

fn key_of(name: &str) -> Key {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    Key::new(namespace, name)
}

#[cfg(test)]
mod tests;

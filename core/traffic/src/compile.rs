//! From the objects that people write to what proxies are told, and to the status that people read.
//!
//! [`Compiler`] keeps the objects, and for each object that changes works out which *units* it touches: a workload, a service, a slice,
//! a policy, a route, the gateways. [`Compiler::take`] compiles those and nothing else, and returns the resources and statuses that
//! came out differently than before. Compiling everything anew gives the same (a property test holds it to that).
//!
//! What refers to what: a pod changes its workload and the slices that hold it; a service, the routes that hang on it or lead to it; a
//! policy, the workloads that its selector takes or took; a gateway, a class, a certificate, a node's address, all gateways (there are
//! few, and they share host ports) and the routes on those that changed; a grant, the routes and gateways that refer across namespaces.

mod address;
mod attached;
mod backend_tls;
mod destination;
mod entry;
mod gateway;
mod hosts;
mod index;
mod invented;
mod listener;
mod policy;
mod request;
mod route;
pub mod status;
mod virtual_service;
mod workload;

#[cfg(test)]
mod tests;

pub use address::AddressPool;

use hosts::Hosts;
use index::Index;
use model::map::HashMap;
use model::mesh::api::{self, Object, ObjectKind};
use model::mesh::{ROOT_NAMESPACES, Resource, ResourceKind, RouteKind};
use model::{Key, Labels};
use status::{ClassStatus, GatewayStatus, IstioStatus, RouteStatus, SetStatus, TlsPolicyStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What compiling needs to know beyond objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `cluster.local`.
    pub cluster_domain: Arc<str>,
    /// Policies of these namespaces hold for the whole mesh.
    pub root_namespaces: Vec<Arc<str>>,
    /// Gateway classes with this `controllerName` are ours.
    pub controller_name: Arc<str>,
    /// Ports that a gateway cannot have: the platform's own.
    pub reserved_ports: Vec<u16>,
    /// Addresses for gateways; without any they have only the nodes'.
    pub gateway_addresses: Option<AddressPool>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cluster_domain: "cluster.local".into(),
            root_namespaces: ROOT_NAMESPACES.map(Arc::from).into(),
            controller_name: "diolkos.io/gateway-controller".into(),
            reserved_ports: vec![6443, 7070, 10250, 15008, 15012, 15020],
            gateway_addresses: None,
        }
    }
}

/// What came out differently.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Resources by kind and name; none: it is gone.
    pub resources: BTreeMap<(ResourceKind, String), Option<Resource>>,
    /// Statuses of our own classes.
    pub classes: BTreeMap<Key, ClassStatus>,
    /// Statuses of gateways of our classes.
    pub gateways: BTreeMap<Key, GatewayStatus>,
    /// Statuses of ListenerSets of those gateways.
    pub sets: BTreeMap<Key, SetStatus>,
    /// Statuses of BackendTLSPolicies.
    pub tls_policies: BTreeMap<Key, TlsPolicyStatus>,
    /// Statuses of routes; one without parents means that no parent of it is ours (any more).
    pub routes: BTreeMap<(RouteKind, Key), RouteStatus>,
    /// Statuses of Istio's kinds.
    pub istio: BTreeMap<(ObjectKind, Key), IstioStatus>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Compiler {
    settings: Settings,
    objects: Objects,
    index: Index,
    dirty: BTreeSet<Unit>,
    told: BTreeMap<(ResourceKind, String), Resource>,
    class_statuses: BTreeMap<Key, ClassStatus>,
    gateway_statuses: BTreeMap<Key, GatewayStatus>,
    route_statuses: BTreeMap<RouteId, RouteStatus>,
    set_statuses: BTreeMap<Key, SetStatus>,
    tls_policy_statuses: BTreeMap<Key, TlsPolicyStatus>,
    /// By gateway: its own, then its ListenerSets'.
    listeners: BTreeMap<Key, Vec<listener::ListenerState>>,
    /// ListenerSets of gateways of ours.
    sets: BTreeMap<Key, gateway::SetState>,
    /// Addresses by gateway.
    given: BTreeMap<Key, address::Given>,
    /// How many routes hang on each listener.
    attached: BTreeMap<Place, BTreeSet<RouteId>>,
    hosts: Hosts,
    /// Addresses of ServiceEntries that have none of their own.
    invented: invented::Invented,
    istio_statuses: BTreeMap<(ObjectKind, Key), IstioStatus>,
    /// Subsets that were told, by their service.
    subsets: BTreeMap<Key, BTreeSet<Key>>,
    /// Endpoint groups that were told, by what they came of.
    groups: BTreeMap<String, BTreeSet<String>>,
    /// Routes that were told, by their VirtualService.
    virtual_routes: BTreeMap<Key, BTreeSet<String>>,
}

/// Kind and key of a route.
type RouteId = (RouteKind, Key);
/// A gateway's listener.
type Place = (Key, Arc<str>);

/// The objects, by kind.
#[derive(Debug, Default)]
struct Objects {
    namespaces: BTreeMap<Key, api::Namespace>,
    nodes: BTreeMap<Key, api::Node>,
    pods: HashMap<Key, api::Pod>,
    entries: BTreeMap<Key, api::WorkloadEntry>,
    services: HashMap<Key, api::Service>,
    slices: HashMap<Key, api::EndpointSlice>,
    secrets: BTreeMap<Key, api::TlsSecret>,
    classes: BTreeMap<Key, api::GatewayClass>,
    gateways: BTreeMap<Key, api::Gateway>,
    sets: BTreeMap<Key, api::ListenerSet>,
    tls_policies: BTreeMap<Key, api::BackendTlsPolicy>,
    roots: BTreeMap<Key, api::CaBundle>,
    routes: BTreeMap<RouteId, api::Route>,
    grants: BTreeMap<Key, api::ReferenceGrant>,
    policies: BTreeMap<Key, api::AuthorizationPolicy>,
    peers: BTreeMap<Key, api::PeerAuthentication>,
    virtuals: BTreeMap<Key, api::VirtualService>,
    rules: BTreeMap<Key, api::DestinationRule>,
    service_entries: BTreeMap<Key, api::ServiceEntry>,
    names: BTreeMap<Key, api::ResolvedName>,
    requests: BTreeMap<Key, api::RequestAuthentication>,
    jwks: BTreeMap<Key, api::FetchedJwks>,
    attached: BTreeMap<Key, api::TrafficPolicy>,
}

/// Something that is compiled by itself. The order is that of compiling: routes look at listeners, gateways' statuses at routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Policy(Key),
    Peer(Key),
    Request(Key),
    Pod(Key),
    Entry(Key),
    Service(Key),
    Slice(Key),
    /// WorkloadEntries that a Service selects.
    Members(Key),
    ServiceEntry(Key),
    Rule(Key),
    Class(Key),
    Listeners,
    Route(RouteKind, Key),
    Virtual(Key),
    Attached(Key),
    GatewayStatus(Key),
    SetStatus(Key),
    TlsPolicyStatus(Key),
}

impl Compiler {
    /// An empty compiler.
    pub fn new(settings: Settings) -> Self {
        Compiler { settings, ..Default::default() }
    }

    /// An object came or changed.
    pub fn set(&mut self, object: Object) {
        let objects = &mut self.objects;
        match object {
            Object::Namespace(it) => {
                let key = it.key.clone();
                let labels = it.labels.clone();
                let old = objects.namespaces.insert(key.clone(), it);
                if old.is_none_or(|old| old.labels != labels) {
                    self.touch_namespace(&key.name);
                }
            }
            Object::Node(it) => self.set_node(it),
            Object::Pod(it) => {
                let key = it.key.clone();
                self.index.pod(&key, objects.pods.get(&key), Some(&it));
                objects.pods.insert(key.clone(), it);
                self.touch_pod(&key);
            }
            Object::WorkloadEntry(it) => {
                let key = it.key.clone();
                let old = objects.entries.insert(key.clone(), it);
                self.hosts.workload_entry(old.as_ref(), objects.entries.get(&key));
                self.touch_entry(&key);
            }
            Object::Service(it) => {
                let key = it.key.clone();
                let old = objects.services.insert(key.clone(), it);
                self.touch_service(&key, old.as_ref());
            }
            Object::EndpointSlice(it) => {
                let key = it.key.clone();
                self.index.slice(&key, objects.slices.get(&key), Some(&it));
                objects.slices.insert(key.clone(), it);
                self.dirty.insert(Unit::Slice(key));
            }
            Object::TlsSecret(it) => {
                let key = it.key.clone();
                objects.secrets.insert(key.clone(), it);
                self.dirty.insert(Unit::Listeners);
                self.touch_credential(&key);
            }
            Object::GatewayClass(it) => {
                self.dirty.insert(Unit::Class(it.meta.key.clone()));
                self.dirty.insert(Unit::Listeners);
                objects.classes.insert(it.meta.key.clone(), it);
                self.touch_attached_to_gateways();
            }
            Object::Gateway(it) => {
                let key = it.meta.key.clone();
                // Its status is ours: a change of that alone, which we made, touches nobody's routes.
                let moved = objects.gateways.get(&key).is_none_or(|old| !is_alike(old, &it));
                objects.gateways.insert(key.clone(), it);
                if moved {
                    self.touch_gateway(&key);
                }
            }
            Object::ListenerSet(it) => {
                let key = it.meta.key.clone();
                objects.sets.insert(key.clone(), it);
                self.dirty.extend([Unit::Listeners, Unit::SetStatus(key)]);
            }
            Object::BackendTlsPolicy(it) => {
                let key = it.meta.key.clone();
                let old = objects.tls_policies.insert(key.clone(), it);
                self.touch_tls_policy(&key, old.as_ref());
            }
            Object::CaBundle(it) => {
                let key = it.key.clone();
                if objects.roots.get(&key) != Some(&it) {
                    objects.roots.insert(key.clone(), it);
                    self.touch_roots(&key);
                }
            }
            Object::Route(it) => {
                let id = (it.kind, it.meta.key.clone());
                self.index.route(&id, objects.routes.get(&id), Some(&it));
                let old = objects.routes.insert(id.clone(), it.clone());
                old.iter().for_each(|old| self.touch_tls_policies_by(old));
                self.touch_tls_policies_by(&it);
                self.dirty.insert(Unit::Route(id.0, id.1));
                self.touch_attached_to(gateway::route_kind_name(it.kind), &it.meta.key);
                old.iter().chain([&it]).for_each(|route| self.touch_rivals(route));
            }
            Object::ReferenceGrant(it) => {
                objects.grants.insert(it.key.clone(), it);
                self.touch_references();
            }
            Object::AuthorizationPolicy(it) => {
                let key = it.meta.key.clone();
                let old = objects.policies.insert(key.clone(), it);
                self.touch_policy(&key, old.as_ref());
            }
            Object::PeerAuthentication(it) => {
                let key = it.meta.key.clone();
                let old = objects.peers.insert(key.clone(), it);
                self.touch_peer(&key, old.as_ref());
            }
            Object::VirtualService(it) => {
                let key = it.meta.key.clone();
                let old = objects.virtuals.insert(key.clone(), *it);
                self.touch_virtual(&key, old.as_ref());
            }
            Object::DestinationRule(it) => {
                let key = it.meta.key.clone();
                let old = objects.rules.insert(key.clone(), *it);
                self.touch_rule(&key, old.as_ref());
            }
            Object::ServiceEntry(it) => {
                let key = it.meta.key.clone();
                let old = objects.service_entries.insert(key.clone(), *it);
                self.touch_service_entry(&key, old.as_ref());
            }
            Object::RequestAuthentication(it) => {
                let key = it.meta.key.clone();
                let old = objects.requests.insert(key.clone(), *it);
                self.touch_request(&key, old.as_ref());
            }
            Object::FetchedJwks(it) => {
                let key = it.key.clone();
                objects.jwks.insert(key.clone(), it);
                self.touch_jwks(&key.name);
            }
            Object::TrafficPolicy(it) => {
                let key = it.meta.key.clone();
                let old = objects.attached.insert(key.clone(), *it);
                self.touch_attached(&key, old.as_ref());
            }
            Object::ResolvedName(it) => {
                let key = it.key.clone();
                objects.names.insert(key.clone(), it);
                self.touch_name(&key.name);
            }
        }
    }

    /// An object is gone.
    pub fn remove(&mut self, kind: ObjectKind, key: &Key) {
        let objects = &mut self.objects;
        match kind {
            ObjectKind::Namespace => {
                objects.namespaces.remove(key);
                self.touch_namespace(&key.name);
            }
            ObjectKind::Node => {
                objects.nodes.remove(key);
                self.touch_node(&key.name);
                self.dirty.insert(Unit::Listeners);
            }
            ObjectKind::Pod => {
                let old = objects.pods.remove(key);
                self.index.pod(key, old.as_ref(), None);
                self.touch_pod(key);
            }
            ObjectKind::WorkloadEntry => {
                let old = objects.entries.remove(key);
                self.hosts.workload_entry(old.as_ref(), None);
                self.touch_entry(key);
            }
            ObjectKind::Service => {
                let old = objects.services.remove(key);
                self.touch_service(key, old.as_ref());
            }
            ObjectKind::EndpointSlice => {
                let old = objects.slices.remove(key);
                self.index.slice(key, old.as_ref(), None);
                self.dirty.insert(Unit::Slice(key.clone()));
            }
            ObjectKind::TlsSecret => {
                objects.secrets.remove(key);
                self.dirty.insert(Unit::Listeners);
                self.touch_credential(key);
            }
            ObjectKind::GatewayClass => {
                objects.classes.remove(key);
                self.touch_attached_to_gateways();
                self.dirty.extend([Unit::Class(key.clone()), Unit::Listeners]);
            }
            ObjectKind::Gateway => {
                objects.gateways.remove(key);
                self.touch_gateway(key);
            }
            ObjectKind::ListenerSet => {
                objects.sets.remove(key);
                self.dirty.extend([Unit::Listeners, Unit::SetStatus(key.clone())]);
            }
            ObjectKind::BackendTlsPolicy => {
                let old = objects.tls_policies.remove(key);
                self.touch_tls_policy(key, old.as_ref());
            }
            ObjectKind::CaBundle => {
                if objects.roots.remove(key).is_some() {
                    self.touch_roots(key);
                }
            }
            ObjectKind::Route(kind) => {
                let id = (kind, key.clone());
                let old = objects.routes.remove(&id);
                self.index.route(&id, old.as_ref(), None);
                old.iter().for_each(|old| self.touch_tls_policies_by(old));
                self.dirty.insert(Unit::Route(id.0, id.1));
                self.touch_attached_to(gateway::route_kind_name(kind), key);
                old.iter().for_each(|route| self.touch_rivals(route));
            }
            ObjectKind::ReferenceGrant => {
                objects.grants.remove(key);
                self.touch_references();
            }
            ObjectKind::AuthorizationPolicy => {
                let old = objects.policies.remove(key);
                self.touch_policy(key, old.as_ref());
            }
            ObjectKind::PeerAuthentication => {
                let old = objects.peers.remove(key);
                self.touch_peer(key, old.as_ref());
            }
            ObjectKind::VirtualService => {
                let old = objects.virtuals.remove(key);
                self.touch_virtual(key, old.as_ref());
            }
            ObjectKind::DestinationRule => {
                let old = objects.rules.remove(key);
                self.touch_rule(key, old.as_ref());
            }
            ObjectKind::ServiceEntry => {
                let old = objects.service_entries.remove(key);
                self.touch_service_entry(key, old.as_ref());
            }
            ObjectKind::RequestAuthentication => {
                let old = objects.requests.remove(key);
                self.touch_request(key, old.as_ref());
            }
            ObjectKind::FetchedJwks => {
                objects.jwks.remove(key);
                self.touch_jwks(&key.name);
            }
            ObjectKind::TrafficPolicy => {
                let old = objects.attached.remove(key);
                self.touch_attached(key, old.as_ref());
            }
            ObjectKind::ResolvedName => {
                objects.names.remove(key);
                self.touch_name(&key.name);
            }
        }
    }

    /// Whether there is something to compile.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Compiles what changes touched, and returns what came out differently.
    pub fn take(&mut self) -> Output {
        let mut output = Output::default();
        // Compiling listeners may touch routes, and routes gateways' statuses: both come later in the order of units.
        while let Some(unit) = self.dirty.pop_first() {
            match unit {
                Unit::Policy(key) => self.compile_policy(&key, &mut output),
                Unit::Peer(key) => self.compile_peer(&key, &mut output),
                Unit::Request(key) => self.compile_request(&key, &mut output),
                Unit::Pod(key) => self.compile_pod(&key, &mut output),
                Unit::Entry(key) => self.compile_entry(&key, &mut output),
                Unit::Service(key) => self.compile_service(&key, &mut output),
                Unit::Slice(key) => self.compile_slice(&key, &mut output),
                Unit::Members(key) => self.compile_members(&key, &mut output),
                Unit::ServiceEntry(key) => self.compile_service_entry(&key, &mut output),
                Unit::Rule(key) => self.compile_rule(&key, &mut output),
                Unit::Virtual(key) => self.compile_virtual(&key, &mut output),
                Unit::Attached(key) => self.compile_attached(&key, &mut output),
                Unit::Class(key) => self.compile_class(&key, &mut output),
                Unit::Listeners => self.compile_listeners(&mut output),
                Unit::Route(kind, key) => self.compile_route(kind, &key, &mut output),
                Unit::GatewayStatus(key) => self.compile_gateway_status(&key, &mut output),
                Unit::SetStatus(key) => self.compile_set_status(&key, &mut output),
                Unit::TlsPolicyStatus(key) => self.compile_tls_policy_status(&key, &mut output),
            }
        }
        output
    }

    /// Everything that was told and not taken back, by kind and name.
    pub fn resources(&self) -> &BTreeMap<(ResourceKind, String), Resource> {
        &self.told
    }

    /// Labels, as far as a rule asks callers for labels of these names.
    pub fn asked_labels(&self, labels: &Labels) -> Labels {
        self.hosts.asked(labels)
    }

    /// A pod, for who must know it (the certificate authority).
    pub fn pod(&self, key: &Key) -> Option<&api::Pod> {
        self.objects.pods.get(key)
    }

    /// Pods of a node.
    pub fn pods_of_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a api::Pod> {
        self.index.pods_by_node.get(node).into_iter().flatten().filter_map(|key| self.objects.pods.get(key))
    }

    /// Names of the nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.objects.nodes.keys().map(|key| &key.name)
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&api::Node> {
        self.objects.nodes.get(&Key::new("", name))
    }

    /// A joined host's entry.
    pub fn entry(&self, key: &Key) -> Option<&api::WorkloadEntry> {
        self.objects.entries.get(key)
    }

    /// Hosts that joined.
    pub fn joined_hosts(&self) -> impl Iterator<Item = &api::WorkloadEntry> {
        self.objects.entries.values().filter(|entry| entry.joined)
    }

    /// Gateways that are programmed: their identities are any node's.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<model::mesh::Gateway>> {
        self.told.values().filter_map(|resource| match resource {
            Resource::Gateway(gateway) => Some(gateway),
            _ => None,
        })
    }

    fn tell(&mut self, kind: ResourceKind, name: String, resource: Option<Resource>, output: &mut Output) {
        let id = (kind, name);
        if self.told.get(&id) == resource.as_ref() {
            return;
        }
        match &resource {
            Some(resource) => self.told.insert(id.clone(), resource.clone()),
            None => self.told.remove(&id),
        };
        output.resources.insert(id, resource);
    }

    fn set_node(&mut self, node: api::Node) {
        let key = node.key.clone();
        let (zone, region, addresses) = (node.zone.clone(), node.region.clone(), node.addresses.clone());
        let old = self.objects.nodes.insert(key.clone(), node);
        if old.as_ref().is_none_or(|old| (&old.zone, &old.region) != (&zone, &region)) {
            self.touch_node(&key.name);
        }
        if old.is_none_or(|old| old.addresses != addresses) {
            self.dirty.insert(Unit::Listeners);
        }
    }

    fn touch_node(&mut self, name: &str) {
        let pods: Vec<Key> = self.index.pods_by_node.get(name).into_iter().flatten().cloned().collect();
        pods.iter().for_each(|pod| self.touch_pod(pod));
    }

    fn touch_pod(&mut self, key: &Key) {
        self.dirty.insert(Unit::Pod(key.clone()));
        let slices = self.index.slices_by_pod.get(key).into_iter().flatten();
        self.dirty.extend(slices.cloned().map(Unit::Slice));
        self.touch_selecting(&key.namespace);
    }

    fn touch_entry(&mut self, key: &Key) {
        self.dirty.insert(Unit::Entry(key.clone()));
        let slices = self.index.slices_by_entry.get(key).into_iter().flatten();
        self.dirty.extend(slices.cloned().map(Unit::Slice));
        self.touch_selecting(&key.namespace);
        let services = self.objects.services.keys().filter(|service| service.namespace == key.namespace);
        self.dirty.extend(services.cloned().map(Unit::Members));
    }

    fn touch_name(&mut self, name: &str) {
        let entries = self.hosts.names.get(name).into_iter().flatten();
        self.dirty.extend(entries.cloned().map(Unit::ServiceEntry));
        let workloads: Vec<Key> = self.hosts.workload_names.get(name).into_iter().flatten().cloned().collect();
        workloads.iter().for_each(|key| self.touch_entry(key));
    }

    fn touch_service(&mut self, key: &Key, old: Option<&api::Service>) {
        self.dirty.extend([Unit::Service(key.clone()), Unit::Members(key.clone())]);
        if old.is_some() != self.objects.services.contains_key(key) {
            self.touch_endpoints(key);
        }
        self.touch_host(&self.service_host(key));
        self.touch_attached_to("Service", key);
        let routes = self.index.routes_by_service.get(key).into_iter().flatten();
        self.dirty.extend(routes.cloned().map(|(kind, key)| Unit::Route(kind, key)));
        let selector = |service: Option<&api::Service>| service.map(|service| service.selector.clone());
        if selector(old) != selector(self.objects.services.get(key)) && self.is_target("Service", key) {
            self.touch_workloads(Some(&key.namespace));
        }
    }

    fn is_target(&self, kind: &str, key: &Key) -> bool {
        let means = |target: &api::Reference, of: &Key| &*target.kind == kind && target.key(&of.namespace) == *key;
        let policies = self.objects.policies.values().map(|it| (&it.targets, &it.meta.key));
        let requests = self.objects.requests.values().map(|it| (&it.targets, &it.meta.key));
        policies.chain(requests).any(|(targets, of)| targets.iter().any(|target| means(target, of)))
    }

    fn touch_gateway(&mut self, key: &Key) {
        self.touch_attached_to_gateways();
        self.dirty.extend([Unit::Listeners, Unit::GatewayStatus(key.clone())]);
        self.touch_routes_of(key);
    }

    fn touch_routes_of(&mut self, gateway: &Key) {
        let routes = self.index.routes_by_gateway.get(gateway).into_iter().flatten();
        self.dirty.extend(routes.cloned().map(|(kind, key)| Unit::Route(kind, key)));
        let virtuals = self.hosts.by_gateway.get(gateway).into_iter().flatten();
        self.dirty.extend(virtuals.cloned().map(Unit::Virtual));
    }

    /// The labels of a namespace decide which listeners its routes may use.
    fn touch_namespace(&mut self, name: &str) {
        let routes = self.objects.routes.keys().filter(|(_, key)| &*key.namespace == name);
        self.dirty.extend(routes.cloned().map(|(kind, key)| Unit::Route(kind, key)));
        let virtuals = self.objects.virtuals.keys().filter(|key| &*key.namespace == name);
        self.dirty.extend(virtuals.cloned().map(Unit::Virtual));
        if self.objects.sets.keys().any(|key| &*key.namespace == name) {
            self.dirty.insert(Unit::Listeners);
        }
    }

    fn touch_references(&mut self) {
        self.dirty.insert(Unit::Listeners);
        self.dirty.extend(self.objects.attached.keys().cloned().map(Unit::Attached));
        let routes = self.index.crossing_routes.iter();
        self.dirty.extend(routes.cloned().map(|(kind, key)| Unit::Route(kind, key)));
    }

    /// Workloads of a namespace, or all, are to be compiled anew.
    fn touch_workloads(&mut self, namespace: Option<&str>) {
        match namespace {
            Some(namespace) => {
                let pods = self.index.pods_by_namespace.get(namespace).into_iter().flatten();
                self.dirty.extend(pods.cloned().map(Unit::Pod));
            }
            None => self.dirty.extend(self.objects.pods.keys().cloned().map(Unit::Pod)),
        }
        let entries = self.objects.entries.keys().filter(|key| namespace.is_none_or(|of| of == &*key.namespace));
        self.dirty.extend(entries.cloned().map(Unit::Entry));
    }

    fn is_root(&self, namespace: &str) -> bool {
        self.settings.root_namespaces.iter().any(|root| &**root == namespace)
    }

    /// Whether an object of `group`, `kind` and namespace may refer to `to` (its namespace made whole).
    fn permitted(&self, from: (&str, &str, &str), to: &api::Reference, namespace: &str) -> bool {
        from.2 == namespace
            || self.objects.grants.values().any(|grant| &*grant.key.namespace == namespace && grant.permits(from, to))
    }

    fn node_addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> =
            self.objects.nodes.values().flat_map(|node| node.addresses.iter().copied()).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }
}

/// Whether two states of a gateway differ in nothing but its status.
fn is_alike(old: &api::Gateway, new: &api::Gateway) -> bool {
    let mut old = old.clone();
    old.given = new.given.clone();
    old.meta.revision = new.meta.revision;
    old == *new
}

/// Whether `labels` have all of `selector`.
fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

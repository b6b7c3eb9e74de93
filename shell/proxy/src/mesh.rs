//! What this proxy knows of the mesh, shared by all its threads.
use crate::attached::{Attached, Held};
use crate::origin::Origin;
use authz::mesh::PolicySet;
use model::Key;
use model::map::HashMap;
use model::mesh::attached::PolicyTarget;
use model::mesh::{ExtensionProvider, Resource, ResourceKind, TlsSecret, TrustBundle, Workload};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;
use traffic::Directory;

/// One change of what is known.
#[derive(Clone, Debug)]
pub enum Change {
    /// New or changed.
    Set(Resource),
    /// Gone.
    Remove(ResourceKind, String),
}

/// Everything known, by kind.
#[derive(Debug, Default)]
pub struct Known {
    /// Workloads, services, endpoints, routes, gateways.
    pub directory: Directory,
    /// Who may call whom.
    pub policies: PolicySet,
    /// By key.
    pub secrets: BTreeMap<Key, Arc<TlsSecret>>,
    /// Who is asked about requests, by name.
    pub providers: BTreeMap<Arc<str>, Arc<ExtensionProvider>>,
    /// What holds for requests of gateways, routes and services.
    pub attached: Attached,
    /// By trust domain.
    pub trust_bundles: BTreeMap<Arc<str>, Arc<TrustBundle>>,
}

impl Known {
    /// Applies a change. True: what was decided about open connections may be decided otherwise now.
    fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Set(resource) => self.set(resource),
            Change::Remove(kind, name) => {
                let (namespace, rest) = name.split_once('/').unwrap_or(("", &name));
                let key = Key::new(namespace, rest);
                match kind {
                    ResourceKind::AuthorizationPolicy => self.policies.remove_authorization(&key),
                    ResourceKind::PeerAuthentication => self.policies.remove_peer(&key),
                    ResourceKind::RequestAuthentication => self.policies.remove_request(&key),
                    ResourceKind::ExtensionProvider => drop(self.providers.remove(&*name)),
                    ResourceKind::AttachedPolicy => self.attached.remove(&key),
                    ResourceKind::Secret => drop(self.secrets.remove(&key)),
                    ResourceKind::TrustBundle => drop(self.trust_bundles.remove(&*name)),
                    other => self.directory.remove(other, &name),
                }
                matches!(kind, ResourceKind::AuthorizationPolicy | ResourceKind::PeerAuthentication)
            }
        }
    }

    fn set(&mut self, resource: Resource) -> bool {
        match resource {
            Resource::AuthorizationPolicy(it) => self.policies.set_authorization(&it),
            Resource::PeerAuthentication(it) => self.policies.set_peer(it),
            Resource::RequestAuthentication(it) => self.policies.set_request(it),
            Resource::ExtensionProvider(it) => {
                self.providers.insert(it.name.clone(), it);
                return false;
            }
            Resource::AttachedPolicy(it) => {
                self.attached.set(it);
                return false;
            }
            Resource::Secret(it) => {
                self.secrets.insert(it.key.clone(), it);
                return false;
            }
            Resource::TrustBundle(it) => {
                self.trust_bundles.insert(it.trust_domain.clone(), it);
                return false;
            }
            Resource::Workload(it) => {
                // A workload that a policy selects lists it; the policy itself came before and changed nothing for it yet.
                let listed = |of: &Workload| (of.authorization_policies.clone(), of.peer_authentications.clone());
                let before = self.directory.workload(&it.name).map(|old| listed(old));
                let moved = before.is_some_and(|before| before != listed(&it));
                self.directory.set(Resource::Workload(it));
                return moved;
            }
            other => {
                self.directory.set(other);
                return false;
            }
        }
        true
    }
}

/// The shared knowledge. Readers look up once for a connection and keep the `Arc`s that they found; requests ask only for
/// the version.
#[derive(Debug, Default)]
pub struct Mesh {
    known: RwLock<Known>,
    /// Beside the watch channel because every request reads it.
    version: AtomicU64,
    /// Whether any policy hangs on anything: requests ask this before they look.
    has_attached: AtomicBool,
    changed: watch::Sender<u64>,
    policy_changed: watch::Sender<u64>,
}

impl Mesh {
    /// Applies changes; readers see all of them or none.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut policy_moved = false;
        known.directory.hold();
        for change in changes {
            policy_moved |= known.apply(change);
        }
        known.directory.release();
        self.has_attached.store(!known.attached.is_empty(), Ordering::Relaxed);
        let version = self.version.fetch_add(1, Ordering::Release) + 1;
        drop(known);
        self.changed.send_replace(version);
        if policy_moved {
            self.policy_changed.send_replace(version);
        }
    }

    /// Looks at what is known. Hold it for a look-up only.
    pub fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether any policy hangs on a gateway, route or service.
    pub fn has_attached(&self) -> bool {
        self.has_attached.load(Ordering::Relaxed)
    }

    /// Tells of changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The workload at an address.
    pub fn workload_at(&self, address: IpAddr) -> Option<Arc<Workload>> {
        self.known().directory.workload_at(address).cloned()
    }

    /// The workload on whose behalf something is sent, if the control plane told of it.
    pub fn workload_of(&self, origin: &Origin) -> Option<Arc<Workload>> {
        self.workload_at(*origin.addresses.first()?).filter(|it| it.key.namespace == origin.namespace)
    }

    /// Tells who follows policy that it holds elsewhere now: a gateway has been given another list of them.
    pub fn policies_moved(&self) {
        self.policy_changed.send_replace(self.version());
    }

    /// Tells of changes of policy alone: every open connection listens.
    pub fn policy_changes(&self) -> watch::Receiver<u64> {
        self.policy_changed.subscribe()
    }
}

/// The policies that hold at endpoints, looked up again when something changed.
#[derive(Debug, Default)]
pub struct AtEndpoints(Mutex<HashMap<SocketAddr, AtVersion>>);

/// What was found at a version.
type AtVersion = (u64, Arc<[Arc<Held>]>);

impl AtEndpoints {
    /// Policies on services of which `to` is an endpoint, by key.
    pub fn get(&self, mesh: &Mesh, to: SocketAddr) -> Arc<[Arc<Held>]> {
        let version = mesh.version();
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, held)) = found.get(&to).filter(|(at, _)| *at == version) {
            return held.clone();
        }
        // What is looked up for addresses of pods that are gone goes with the next change.
        found.retain(|_, (at, _)| *at == version);
        let known = mesh.known();
        let mut held: Vec<Arc<Held>> = Vec::new();
        for service in known.attached.services() {
            let ports = known.directory.service(service).into_iter().flat_map(|entry| &entry.ports);
            for port in ports.filter(|port| port.pool.endpoints().iter().any(|endpoint| endpoint.address() == to)) {
                let target = PolicyTarget::Service { service: service.clone(), port: "".into() };
                held.extend(known.attached.of(&target, &port.port.name).cloned());
            }
        }
        held.sort_by(|a, b| a.policy.key.cmp(&b.policy.key));
        held.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let held: Arc<[Arc<Held>]> = held.into();
        found.insert(to, (version, held.clone()));
        held
    }
}

//! The indexed snapshot of everything that the watches have told.

use model::cluster::Other;
use model::effect::Target;
use model::map::{HashMap, HashSet};
use model::selector::Operator;
use model::{
    ConfigMap, ControllerRevision, CronJob, CustomResourceDefinition, DaemonSet, Deployment, EndpointSlice, Endpoints,
    Event, HorizontalPodAutoscaler, Job, Key, Kind, Labels, Lease, Meta, Namespace, Node, Object, OwnerRef,
    PersistentVolume, PersistentVolumeClaim, Pod, PodDisruptionBudget, PriorityClass, ReplicaSet,
    ReplicationController, ResourceType, Service, ServiceAccount, StatefulSet, StorageClass,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Objects of one kind by name; iteration is in order of namespace and name.
pub type Table<T> = BTreeMap<Key, Arc<T>>;

/// How many deleted uids and names are remembered, so that a dependent that comes late still knows its owner is gone.
const REMEMBERED_DELETIONS: usize = 100_000;

macro_rules! world {
    ($($field:ident: $name:ident,)*) => {
        /// Everything that is known, with the indices that decisions need.
        #[derive(Default)]
        pub struct World {
            $(#[doc = concat!("Objects of kind ", stringify!($name), ".")] pub $field: Table<$name>,)*
            /// Objects of every other kind: metadata only.
            pub others: BTreeMap<&'static ResourceType, Table<Other>>,
            index: Index,
            synced: HashSet<Kind>,
            /// Kinds that are being watched, whether anything of them was told yet or not.
            pub expected: BTreeSet<Kind>,
        }

        impl World {
            fn put(&mut self, object: Object) -> Option<Object> {
                let key = object.meta().key.clone();
                match object {
                    $(Object::$name(object) => self.$field.insert(key, object).map(Object::$name),)*
                    Object::Other(other) => {
                        self.others.entry(other.resource).or_default().insert(key, other).map(Object::Other)
                    }
                }
            }
            fn take(&mut self, kind: Kind, key: &Key) -> Option<Object> {
                match kind {
                    $(Kind::$name => self.$field.remove(key).map(Object::$name),)*
                    Kind::Other(resource) => self.others.get_mut(resource)?.remove(key).map(Object::Other),
                }
            }
            /// The object of this kind and name.
            pub fn get(&self, kind: Kind, key: &Key) -> Option<Object> {
                match kind {
                    $(Kind::$name => self.$field.get(key).cloned().map(Object::$name),)*
                    Kind::Other(resource) => self.others.get(resource)?.get(key).cloned().map(Object::Other),
                }
            }
            /// Its metadata.
            pub fn meta(&self, kind: Kind, key: &Key) -> Option<&Meta> {
                match kind {
                    $(Kind::$name => self.$field.get(key).map(|object| &object.meta),)*
                    Kind::Other(resource) => self.others.get(resource)?.get(key).map(|object| &object.meta),
                }
            }
        }
    };
}

world! {
    pods: Pod,
    nodes: Node,
    namespaces: Namespace,
    service_accounts: ServiceAccount,
    config_maps: ConfigMap,
    services: Service,
    endpoints: Endpoints,
    endpoint_slices: EndpointSlice,
    deployments: Deployment,
    replica_sets: ReplicaSet,
    replication_controllers: ReplicationController,
    stateful_sets: StatefulSet,
    daemon_sets: DaemonSet,
    controller_revisions: ControllerRevision,
    jobs: Job,
    cron_jobs: CronJob,
    disruption_budgets: PodDisruptionBudget,
    priority_classes: PriorityClass,
    autoscalers: HorizontalPodAutoscaler,
    claims: PersistentVolumeClaim,
    volumes: PersistentVolume,
    storage_classes: StorageClass,
    leases: Lease,
    custom_resources: CustomResourceDefinition,
}

#[derive(Default)]
struct Index {
    by_uid: HashMap<Arc<str>, (Kind, Key)>,
    dependents: HashMap<Arc<str>, BTreeSet<(Kind, Key)>>,
    by_namespace: HashMap<Arc<str>, BTreeSet<(Kind, Key)>>,
    pods_by_node: HashMap<Arc<str>, BTreeSet<Key>>,
    /// Pods by their controller's uid and by name; the pods themselves, since most looks at a workload read all of them.
    pods_by_controller: HashMap<Arc<str>, BTreeMap<Arc<str>, Arc<Pod>>>,
    orphan_pods: HashMap<Arc<str>, BTreeSet<Key>>,
    orphan_sets: HashMap<Arc<str>, BTreeSet<Key>>,
    pods_by_claim: HashMap<Key, BTreeSet<Key>>,
    slices_by_service: HashMap<Key, BTreeSet<Key>>,
    /// Services by the first pair of their selector, so that a pod finds its services by its labels.
    services_by_pair: HashMap<Pair, BTreeSet<Key>>,
    /// Pods that have a label pair by which some service or budget selects, and how many do. Only such pairs are indexed: most
    /// labels of a million pods are nobody's selector.
    pods_by_pair: HashMap<Pair, (u32, BTreeSet<Key>)>,
    /// Uids that are gone, and the revision at which a name last went.
    gone: HashSet<Arc<str>>,
    gone_names: HashMap<(Kind, Key), u64>,
    gone_order: VecDeque<(Arc<str>, Kind, Key)>,
}

/// The label of a slice that names its service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

fn remove_from<K: std::hash::Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

/// Namespace, label key and label value.
type Pair = (Arc<str>, Arc<str>, Arc<str>);

fn service_pair(service: &Service) -> Option<Pair> {
    let (key, value) = service.selector.first_key_value()?;
    Some((service.meta.key.namespace.clone(), key.clone(), value.clone()))
}

/// The pair by which a budget's pods can be found, when its selector asks for one.
fn budget_pair(budget: &PodDisruptionBudget) -> Option<Pair> {
    let requirements = &budget.selector.as_ref()?.requirements;
    let exact = requirements.iter().find(|r| r.operator == Operator::In && r.values.len() == 1)?;
    Some((budget.meta.key.namespace.clone(), exact.key.clone(), exact.values[0].clone()))
}

fn selecting_pair(object: &Object) -> Option<Pair> {
    match object {
        Object::Service(service) => service_pair(service),
        Object::PodDisruptionBudget(budget) => budget_pair(budget),
        _ => None,
    }
}

fn pairs(pod: &Pod) -> impl Iterator<Item = Pair> + '_ {
    pod.meta.labels.iter().map(|(key, value)| (pod.meta.key.namespace.clone(), key.clone(), value.clone()))
}

fn slice_service(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.meta.labels.get(SERVICE_NAME_LABEL)?;
    Some(Key { namespace: slice.meta.key.namespace.clone(), name: name.clone() })
}

/// The claims that a pod mounts, as keys.
pub fn claim_keys(pod: &Pod) -> impl Iterator<Item = Key> + '_ {
    pod.spec.claims.iter().map(|name| Key { namespace: pod.meta.key.namespace.clone(), name: name.clone() })
}

/// Whether two states of an object are found by the same indices.
fn same_places(old: &Object, new: &Object) -> bool {
    let (before, now) = (old.meta(), new.meta());
    before.uid == now.uid
        && before.owners == now.owners
        && match (old, new) {
            (Object::Pod(old), Object::Pod(new)) => {
                old.spec.node_name == new.spec.node_name
                    && old.spec.claims == new.spec.claims
                    && old.meta.labels == new.meta.labels
            }
            (Object::EndpointSlice(old), Object::EndpointSlice(new)) => slice_service(old) == slice_service(new),
            (Object::Service(old), Object::Service(new)) => service_pair(old) == service_pair(new),
            _ => true,
        }
}

impl Index {
    fn add(&mut self, object: &Object) {
        let meta = object.meta();
        let entry = (object.kind(), meta.key.clone());
        self.by_uid.insert(meta.uid.clone(), entry.clone());
        for owner in &meta.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(entry.clone());
        }
        if !meta.key.namespace.is_empty() {
            self.by_namespace.entry(meta.key.namespace.clone()).or_default().insert(entry);
        }
        match object {
            Object::Pod(pod) => {
                if !pod.spec.node_name.is_empty() {
                    self.pods_by_node.entry(pod.spec.node_name.clone()).or_default().insert(meta.key.clone());
                }
                match meta.controller() {
                    Some(owner) => {
                        let pods = self.pods_by_controller.entry(owner.uid.clone()).or_default();
                        pods.insert(meta.key.name.clone(), pod.clone());
                    }
                    None => {
                        self.orphan_pods.entry(meta.key.namespace.clone()).or_default().insert(meta.key.clone());
                    }
                }
                for claim in claim_keys(pod) {
                    self.pods_by_claim.entry(claim).or_default().insert(meta.key.clone());
                }
                for pair in pairs(pod) {
                    if let Some((_, pods)) = self.pods_by_pair.get_mut(&pair) {
                        pods.insert(meta.key.clone());
                    }
                }
            }
            Object::ReplicaSet(_) if meta.controller().is_none() => {
                self.orphan_sets.entry(meta.key.namespace.clone()).or_default().insert(meta.key.clone());
            }
            Object::EndpointSlice(slice) => {
                if let Some(service) = slice_service(slice) {
                    self.slices_by_service.entry(service).or_default().insert(meta.key.clone());
                }
            }
            Object::Service(service) => {
                if let Some(pair) = service_pair(service) {
                    self.services_by_pair.entry(pair).or_default().insert(meta.key.clone());
                }
            }
            _ => {}
        }
    }

    fn drop(&mut self, object: &Object) {
        let meta = object.meta();
        let entry = (object.kind(), meta.key.clone());
        self.by_uid.remove(&meta.uid);
        for owner in &meta.owners {
            remove_from(&mut self.dependents, &owner.uid, &entry);
        }
        remove_from(&mut self.by_namespace, &meta.key.namespace, &entry);
        match object {
            Object::Pod(pod) => {
                remove_from(&mut self.pods_by_node, &pod.spec.node_name, &meta.key);
                remove_from(&mut self.orphan_pods, &meta.key.namespace, &meta.key);
                if let Some(owner) = meta.controller()
                    && let Some(pods) = self.pods_by_controller.get_mut(&owner.uid)
                {
                    pods.remove(&meta.key.name);
                    if pods.is_empty() {
                        self.pods_by_controller.remove(&owner.uid);
                    }
                }
                for claim in claim_keys(pod) {
                    remove_from(&mut self.pods_by_claim, &claim, &meta.key);
                }
                for pair in pairs(pod) {
                    if let Some((_, pods)) = self.pods_by_pair.get_mut(&pair) {
                        pods.remove(&meta.key);
                    }
                }
            }
            Object::ReplicaSet(_) => remove_from(&mut self.orphan_sets, &meta.key.namespace, &meta.key),
            Object::EndpointSlice(slice) => {
                if let Some(service) = slice_service(slice) {
                    remove_from(&mut self.slices_by_service, &service, &meta.key);
                }
            }
            Object::Service(service) => {
                if let Some(pair) = service_pair(service) {
                    remove_from(&mut self.services_by_pair, &pair, &meta.key);
                }
            }
            _ => {}
        }
    }

    /// Notes an object in place of what it was before. Most changes are of statuses: nothing but the pods that are kept themselves differs.
    fn replace(&mut self, old: &Object, new: &Object) {
        if !same_places(old, new) {
            self.drop(old);
            self.add(new);
        } else if let Object::Pod(pod) = new
            && let Some(owner) = pod.meta.controller()
            && let Some(pods) = self.pods_by_controller.get_mut(&owner.uid)
        {
            pods.insert(pod.meta.key.name.clone(), pod.clone());
        }
    }

    fn unselect_by(&mut self, pair: &Pair) {
        if let Some((users, _)) = self.pods_by_pair.get_mut(pair) {
            *users -= 1;
            if *users == 0 {
                self.pods_by_pair.remove(pair);
            }
        }
    }

    fn bury(&mut self, uid: Arc<str>, kind: Kind, key: Key, revision: u64) {
        self.gone.insert(uid.clone());
        self.gone_names.insert((kind, key.clone()), revision);
        self.gone_order.push_back((uid, kind, key));
        if self.gone_order.len() > REMEMBERED_DELETIONS
            && let Some((uid, kind, key)) = self.gone_order.pop_front()
        {
            self.gone.remove(&uid);
            self.gone_names.remove(&(kind, key));
        }
    }
}

impl World {
    /// Takes in one fact. Returns the object as it was before. A fact older than what is known changes nothing (`Err`).
    pub fn apply(&mut self, event: &Event) -> Result<Option<Object>, Stale> {
        match event {
            Event::Applied(object) => {
                let (kind, meta) = (object.kind(), object.meta());
                if let Some(known) = self.meta(kind, &meta.key)
                    && known.revision >= meta.revision
                    && meta.revision != 0
                {
                    return Err(Stale);
                }
                if meta.revision != 0
                    && self.index.gone_names.get(&(kind, meta.key.clone())).is_some_and(|r| *r >= meta.revision)
                {
                    return Err(Stale);
                }
                let old = self.put(object.clone());
                match &old {
                    Some(old) => self.index.replace(old, object),
                    None => self.index.add(object),
                }
                if let Some(old) = old.as_ref().filter(|old| old.meta().uid != meta.uid) {
                    self.index.bury(old.meta().uid.clone(), kind, meta.key.clone(), old.meta().revision);
                }
                if let Some(pair) = selecting_pair(object) {
                    self.select_by(pair);
                }
                if let Some(pair) = old.as_ref().and_then(selecting_pair) {
                    self.index.unselect_by(&pair);
                }
                Ok(old)
            }
            Event::Deleted { kind, key, uid, revision } => {
                let known = self.meta(*kind, key).is_some_and(|meta| meta.uid == *uid);
                self.index.bury(uid.clone(), *kind, key.clone(), *revision);
                let old = if known { self.take(*kind, key) } else { None };
                if let Some(old) = &old {
                    self.index.drop(old);
                    if let Some(pair) = selecting_pair(old) {
                        self.index.unselect_by(&pair);
                    }
                }
                Ok(old)
            }
            Event::Synced(kind) => {
                self.synced.insert(*kind);
                Ok(None)
            }
            Event::Done(_) => Ok(None),
        }
    }

    /// Begins to index pods by a pair, or counts one more user of it.
    fn select_by(&mut self, pair: Pair) {
        if let Some((users, _)) = self.index.pods_by_pair.get_mut(&pair) {
            *users += 1;
            return;
        }
        let has = |pod: &&Arc<Pod>| pod.meta.labels.get(&pair.1) == Some(&pair.2);
        let pods = within(&self.pods, &pair.0).filter(has).map(|pod| pod.meta.key.clone()).collect();
        self.index.pods_by_pair.insert(pair, (1, pods));
    }

    fn by_pair(&self, pair: Option<Pair>) -> impl Iterator<Item = &Arc<Pod>> {
        let pods = pair.and_then(|pair| self.index.pods_by_pair.get(&pair)).map(|(_, pods)| pods);
        pods.into_iter().flatten().filter_map(|key| self.pods.get(key))
    }

    /// Pods that a service selects, in order of their names.
    pub fn selected_by<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Arc<Pod>> {
        let selects = |pod: &Pod| service.selector.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value));
        self.by_pair(service_pair(service)).filter(move |pod| selects(pod))
    }

    /// Pods that a budget guards, in order of their names.
    pub fn guarded_by<'a>(&'a self, budget: &'a PodDisruptionBudget) -> Vec<&'a Arc<Pod>> {
        let Some(selector) = &budget.selector else { return Vec::new() };
        match budget_pair(budget) {
            Some(pair) => self.by_pair(Some(pair)).filter(|pod| selector.matches(&pod.meta.labels)).collect(),
            None => within(&self.pods, &budget.meta.key.namespace)
                .filter(|pod| selector.matches(&pod.meta.labels))
                .collect(),
        }
    }

    /// Whether absence of an object of this kind means that it does not exist.
    pub fn is_synced(&self, kind: Kind) -> bool {
        self.synced.contains(&kind)
    }
    /// Whether every one of these kinds is synced.
    pub fn all_synced(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.is_synced(*kind))
    }
    /// Where the object with this uid is.
    pub fn by_uid(&self, uid: &str) -> Option<&(Kind, Key)> {
        self.index.by_uid.get(uid)
    }
    /// Whether this uid was seen to go.
    pub fn is_gone(&self, uid: &str) -> bool {
        self.index.gone.contains(uid)
    }
    /// The revision at which an object of this name last went.
    pub fn gone_at(&self, kind: Kind, key: &Key) -> Option<u64> {
        self.index.gone_names.get(&(kind, key.clone())).copied()
    }
    /// Whoever names this uid as an owner, in order of kind and name.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &(Kind, Key)> {
        self.index.dependents.get(uid).into_iter().flatten()
    }
    /// Dependents of one kind.
    pub fn dependents_of(&self, uid: &str, kind: Kind) -> impl Iterator<Item = &Key> {
        self.dependents(uid).filter(move |(k, _)| *k == kind).map(|(_, key)| key)
    }
    /// Every object in a namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &(Kind, Key)> {
        self.index.by_namespace.get(namespace).into_iter().flatten()
    }
    /// Pods bound to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.index.pods_by_node.get(node).into_iter().flatten().filter_map(|key| self.pods.get(key))
    }
    /// Pods of a namespace that no controller owns.
    pub fn orphan_pods(&self, namespace: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.index.orphan_pods.get(namespace).into_iter().flatten().filter_map(|key| self.pods.get(key))
    }
    /// Replica sets of a namespace that no controller owns.
    pub fn orphan_sets(&self, namespace: &str) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.index.orphan_sets.get(namespace).into_iter().flatten().filter_map(|key| self.replica_sets.get(key))
    }
    /// A ReplicaSet, or a ReplicationController, which is one by another name.
    pub fn replicas(&self, kind: Kind, key: &Key) -> Option<&ReplicaSet> {
        match kind {
            Kind::ReplicationController => self.replication_controllers.get(key).map(|controller| &controller.0),
            _ => self.replica_sets.get(key).map(|set| &**set),
        }
    }
    /// Pods that this object controls.
    pub fn controlled_pods(&self, uid: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.index.pods_by_controller.get(uid).into_iter().flat_map(BTreeMap::values)
    }
    /// Pods that mount a claim.
    pub fn pods_mounting(&self, claim: &Key) -> impl Iterator<Item = &Arc<Pod>> {
        self.index.pods_by_claim.get(claim).into_iter().flatten().filter_map(|key| self.pods.get(key))
    }
    /// Services whose selector matches these labels.
    pub fn services_selecting<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        labels
            .iter()
            .filter_map(|(key, value)| {
                self.index.services_by_pair.get(&(namespace.clone(), key.clone(), value.clone()))
            })
            .flatten()
            .filter_map(|key| self.services.get(key))
            .filter(|service| service.selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
    }
    /// Slices of a service.
    pub fn slices_of(&self, service: &Key) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.index.slices_by_service.get(service).into_iter().flatten().filter_map(|key| self.endpoint_slices.get(key))
    }
    /// Whether the target is still there in the version that the order was made from.
    pub fn holds(&self, target: &Target) -> bool {
        self.meta(target.kind, &target.key)
            .is_some_and(|meta| meta.uid == target.uid && (target.revision == 0 || meta.revision == target.revision))
    }
}

/// The fact is older than what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// The objects of one namespace, out of a table.
pub fn within<'a, T>(table: &'a Table<T>, namespace: &'a str) -> impl Iterator<Item = &'a Arc<T>> {
    let start = Key::new(namespace, "");
    table.range(start..).take_while(move |(key, _)| &*key.namespace == namespace).map(|(_, object)| object)
}

/// An owner reference that makes `meta` the controller.
pub fn controller_ref(kind: Kind, meta: &Meta) -> OwnerRef {
    OwnerRef {
        api_version: kind.resource().api_version().into(),
        kind: kind.resource().kind.into(),
        name: meta.key.name.clone(),
        uid: meta.uid.clone(),
        controller: true,
        block_owner_deletion: true,
    }
}

//! Nodes, pods and all else that decisions read, under dense ids.

mod classes;
mod placing;
mod surroundings;

use crate::class::{CPU, Class, ClassId, ClassKey, EPHEMERAL, EXTENDED, MEMORY, ResourceId};
use crate::column::Columns;
use crate::index::Indexes;
use crate::load::{Load, LoadPolicy};
use crate::storage::Storage;
use model::map::HashMap;
use model::scheduling::{BudgetFacts, HOSTNAME, NodeFacts, PodFacts, ZONE};
use model::{Key, LabelSelector, Labels};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Dense number of a node. A number is used again after its node is gone.
pub type NodeId = u32;
/// Dense number of a pod. A number is used again after its pod is gone.
pub type PodId = u32;

/// No node.
pub(crate) const NOWHERE: NodeId = NodeId::MAX;

/// The part of a node that every decision reads, together in memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hot {
    pub(crate) allocatable: [i64; EXTENDED],
    pub(crate) used: [i64; EXTENDED],
    /// Used CPU and memory as scores count them.
    pub(crate) nominal: [i64; 2],
    pub(crate) pods_allowed: i64,
    pub(crate) pods: i64,
    pub(crate) live: bool,
}

/// A node.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) facts: Arc<NodeFacts>,
    /// Extended resources by number, from `EXTENDED` on: allocatable and used.
    pub(crate) extended: Vec<(i64, i64)>,
    pub(crate) pods: Vec<PodId>,
}

/// A pod.
pub(crate) struct PodEntry {
    pub(crate) key: Key,
    pub(crate) uid: Arc<str>,
    pub(crate) class: ClassId,
    pub(crate) node: NodeId,
    /// Index in its node's list.
    pub(crate) place: u32,
    pub(crate) nominated: NodeId,
    pub(crate) terminating: bool,
    /// The node's load report that was the last one when it came.
    pub(crate) report: u32,
    /// Start time in microseconds; `i64::MAX` when it has not started.
    pub(crate) started: i64,
}

/// How much a pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSize {
    /// Nodes.
    pub nodes: usize,
    /// Pods, placed or not.
    pub pods: usize,
    /// Classes of identical pods.
    pub classes: usize,
}

/// Everything that decisions read.
#[derive(Default)]
pub struct Pool {
    pub(crate) hot: Vec<Hot>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) node_ids: HashMap<Arc<str>, NodeId>,
    free_nodes: BTreeSet<NodeId>,
    pub(crate) pods: Vec<Option<PodEntry>>,
    pub(crate) pod_ids: HashMap<Key, PodId>,
    free_pods: Vec<PodId>,
    /// Pods bound to nodes that are not (or no longer) known.
    orphans: BTreeMap<Arc<str>, BTreeSet<PodId>>,
    pub(crate) reservations: crate::reservation::Reservations,
    pub(crate) numa: crate::numa::Numa,
    pub(crate) nominated: BTreeMap<NodeId, Vec<PodId>>,
    pub(crate) classes: Vec<Option<Class>>,
    class_ids: HashMap<ClassKey, ClassId>,
    free_classes: Vec<ClassId>,
    pub(crate) columns: Columns,
    pub(crate) namespaces: HashMap<Arc<str>, Arc<Labels>>,
    pub(crate) budgets: BTreeMap<Key, BudgetFacts>,
    owners: BTreeMap<(Arc<str>, &'static str, Arc<str>), LabelSelector>,
    pub(crate) resources: Vec<Arc<str>>,
    resource_ids: HashMap<Arc<str>, ResourceId>,
    /// Nodes that have an image.
    pub(crate) image_nodes: HashMap<Arc<str>, u32>,
    pub(crate) storage: Storage,
    /// Classes that have pod (anti-)affinity terms of any kind.
    pub(crate) with_terms: BTreeSet<ClassId>,
    /// By node: what is known of its load.
    pub(crate) loads: Vec<Load>,
    pub(crate) load_policy: Option<LoadPolicy>,
    pub(crate) fit: crate::score::FitStrategy,
    /// Placed pods by priority.
    pub(crate) placed_priorities: BTreeMap<i32, usize>,
    pub(crate) answered: crate::decide::Answered,
    pub(crate) indexes: Indexes,
}

impl Pool {
    /// An empty pool.
    pub fn new() -> Self {
        let mut pool = Pool::default();
        for name in ["cpu", "memory", "ephemeral-storage"] {
            pool.resource(&name.into());
        }
        for key in [HOSTNAME, ZONE] {
            pool.columns.intern(&key.into(), std::iter::empty());
        }
        pool
    }

    /// How much it holds.
    pub fn size(&self) -> PoolSize {
        PoolSize { nodes: self.node_ids.len(), pods: self.pod_ids.len(), classes: self.class_ids.len() }
    }

    pub(crate) fn resource(&mut self, name: &Arc<str>) -> ResourceId {
        if let Some(id) = self.resource_ids.get(name) {
            return *id;
        }
        let id = self.resources.len();
        self.resources.push(name.clone());
        self.resource_ids.insert(name.clone(), id);
        id
    }

    // Nodes.

    /// A node is now as given. Returns whether anything changed that placement reads.
    pub fn set_node(&mut self, facts: Arc<NodeFacts>) -> bool {
        let (id, new) = match self.node_ids.get(&facts.name) {
            Some(id) if *self.nodes[*id as usize].facts == *facts => return false,
            Some(id) => (*id, false),
            None => (self.new_node(&facts.name), true),
        };
        let old = std::mem::replace(&mut self.nodes[id as usize].facts, facts.clone());
        self.count_images(&old, false);
        self.count_images(&facts, true);
        let labels_changed = !self.hot[id as usize].live || old.labels != facts.labels;
        let standing_changed = labels_changed || old.taints != facts.taints || old.unschedulable != facts.unschedulable;
        self.set_allocatable(id, &facts);
        if labels_changed {
            self.columns.set(id, Some(&facts.labels));
        }
        if standing_changed {
            self.indexes.layout_changed();
        }
        self.indexes.touch(id);
        let orphans = self.orphans.remove(&facts.name).unwrap_or_default();
        self.hot[id as usize].live = true;
        if new {
            self.lay_parts(id);
        }
        for pod in orphans {
            self.count_claims(pod, -1);
            self.attach(pod, id);
        }
        true
    }

    fn new_node(&mut self, name: &Arc<str>) -> NodeId {
        let id = self.free_nodes.pop_first().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            self.hot.push(Hot::default());
            self.loads.push(Load::default());
            self.nodes.len() as NodeId - 1
        });
        self.node_ids.insert(name.clone(), id);
        id
    }

    fn set_allocatable(&mut self, id: NodeId, facts: &NodeFacts) {
        let mut extended = std::mem::take(&mut self.nodes[id as usize].extended);
        for entry in &mut extended {
            entry.0 = 0;
        }
        let hot = &mut self.hot[id as usize];
        (hot.allocatable, hot.pods_allowed) = ([0; EXTENDED], 0);
        for (name, amount) in &facts.scheduling.allocatable {
            match &**name {
                "cpu" => self.hot[id as usize].allocatable[CPU] = *amount,
                "memory" => self.hot[id as usize].allocatable[MEMORY] = *amount,
                "ephemeral-storage" => self.hot[id as usize].allocatable[EPHEMERAL] = *amount,
                "pods" => self.hot[id as usize].pods_allowed = *amount,
                _ => extended_entry(&mut extended, self.resource(name)).0 = *amount,
            }
        }
        self.nodes[id as usize].extended = extended;
    }

    fn count_images(&mut self, facts: &NodeFacts, present: bool) {
        for (name, _) in &facts.scheduling.images {
            let count = self.image_nodes.entry(name.clone()).or_insert(0);
            *count = if present { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.image_nodes.remove(name);
            }
        }
    }

    /// A node is gone. Its pods stay known, and count again when a node of that name joins.
    pub fn remove_node(&mut self, name: &str) -> bool {
        let Some(id) = self.node_ids.remove(name) else { return false };
        for pod in self.nodes[id as usize].pods.clone() {
            self.detach(pod);
            self.add_orphan(pod, name.into());
        }
        for pod in self.nominated.remove(&id).unwrap_or_default() {
            self.entry_mut(pod).nominated = NOWHERE;
        }
        let old = std::mem::take(&mut self.nodes[id as usize]);
        self.count_images(&old.facts, false);
        self.hot[id as usize] = Hot::default();
        self.loads[id as usize] = Load::default();
        self.numa.forget_node(id);
        self.columns.set(id, None);
        self.indexes.layout_changed();
        self.free_nodes.insert(id);
        true
    }

    /// The node of this name.
    pub fn node_id(&self, name: &str) -> Option<NodeId> {
        self.node_ids.get(name).copied()
    }
    /// The name of a node.
    pub fn node_name(&self, id: NodeId) -> &Arc<str> {
        &self.nodes[id as usize].facts.name
    }
    /// Nodes that can be decided on, in id order.
    pub(crate) fn live_nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.hot.iter().enumerate().filter(|(_, hot)| hot.live).map(|(id, _)| id as NodeId)
    }

    // Pods.

    /// A pod is now as given (bound when it names a node). Pods that have ended are to be removed instead. Returns its number and
    /// whether it is one that the pool did not know in this form: a new pod, or one whose spec or labels changed.
    pub fn set_pod(&mut self, facts: &PodFacts) -> (PodId, bool) {
        let key = Key { namespace: facts.namespace.clone(), name: facts.name.clone() };
        let (mut assumed, mut drawn) = (NOWHERE, None);
        if let Some(id) = self.pod_ids.get(&key).copied() {
            let entry = self.entry(id);
            if entry.uid == facts.uid {
                if self.class(entry.class).key == ClassKey::of(facts) {
                    self.update_pod(id, facts);
                    return (id, false);
                }
                // It stays where it is assumed to be while its binding is under way.
                assumed = entry.node;
                drawn = self.hand_over_draw(id);
            }
            self.drop_pod(id);
        }
        let class = self.intern_class(ClassKey::of(facts));
        let id = self.new_pod(key.clone(), facts.uid.clone(), class);
        let entry = self.entry_mut(id);
        (entry.terminating, entry.started) = (facts.terminating, facts.started.map_or(i64::MAX, |at| at.0));
        self.pod_ids.insert(key, id);
        if let Some(drawn) = drawn {
            self.take_over_draw(id, drawn);
        }
        if assumed != NOWHERE && facts.node.is_empty() {
            self.attach(id, assumed);
        }
        self.locate(id, facts);
        (id, true)
    }

    /// A pod that is nowhere yet.
    pub(crate) fn new_pod(&mut self, key: Key, uid: Arc<str>, class: ClassId) -> PodId {
        let entry = PodEntry {
            key,
            uid,
            class,
            node: NOWHERE,
            place: 0,
            nominated: NOWHERE,
            report: 0,
            terminating: false,
            started: i64::MAX,
        };
        let id = self.free_pods.pop().unwrap_or_else(|| {
            self.pods.push(None);
            self.pods.len() as PodId - 1
        });
        self.pods[id as usize] = Some(entry);
        id
    }

    fn update_pod(&mut self, id: PodId, facts: &PodFacts) {
        let started = facts.started.map_or(i64::MAX, |at| at.0);
        let entry = self.entry_mut(id);
        let (node, restarted) = (entry.node, entry.started != started);
        entry.started = started;
        if restarted && node != NOWHERE {
            // Who has run for longest is spared: preemption reads it.
            self.indexes.touch(node);
        }
        let entry = self.entry_mut(id);
        if entry.terminating != facts.terminating {
            let node = entry.node;
            if node == NOWHERE {
                self.entry_mut(id).terminating = facts.terminating;
            } else {
                self.detach(id);
                self.entry_mut(id).terminating = facts.terminating;
                self.reattach(id, node);
            }
        }
        self.locate(id, facts);
    }

    /// Puts a pod where `facts` say it is. An assumed pod whose binding the facts do not show yet stays where it was assumed.
    fn locate(&mut self, id: PodId, facts: &PodFacts) {
        if facts.node.is_empty() {
            let nominated = self.node_id(&facts.nominated).unwrap_or(NOWHERE);
            if self.entry(id).node == NOWHERE {
                self.nominate(id, nominated);
            }
            return;
        }
        if !self.reservations.is_empty() {
            self.confirm_draw(id);
        }
        let node = self.node_id(&facts.node);
        if self.entry(id).node != NOWHERE && Some(self.entry(id).node) == node {
            return;
        }
        self.detach(id);
        self.nominate(id, NOWHERE);
        match node {
            Some(node) => self.attach(id, node),
            None => self.add_orphan(id, facts.node.clone()),
        }
    }

    /// A pod is gone or has ended. Returns the node that it leaves.
    pub fn remove_pod(&mut self, namespace: &str, name: &str) -> Option<NodeId> {
        let id = self.pod_id(namespace, name)?;
        let node = self.entry(id).node;
        self.drop_pod(id);
        (node != NOWHERE).then_some(node)
    }

    pub(crate) fn drop_pod(&mut self, id: PodId) {
        self.detach(id);
        self.nominate(id, NOWHERE);
        self.drop_orphan(id);
        if !self.reservations.is_empty() {
            self.give_back(id, true);
        }
        self.numa.drop_pod(id);
        if let Some(entry) = self.pods[id as usize].take() {
            if self.pod_ids.get(&entry.key) == Some(&id) {
                self.pod_ids.remove(&entry.key);
            }
            self.release_class(entry.class);
            self.free_pods.push(id);
        }
    }

    /// A pod is bound to no node that is unknown.
    pub(crate) fn drop_orphan(&mut self, id: PodId) {
        let mut was = false;
        self.orphans.retain(|_, pods| {
            was |= pods.remove(&id);
            !pods.is_empty()
        });
        if was {
            self.count_claims(id, -1);
        }
    }
    /// A pod is bound to a node that is not known.
    pub(crate) fn add_orphan(&mut self, id: PodId, node: Arc<str>) {
        if self.orphans.entry(node).or_default().insert(id) {
            self.count_claims(id, 1);
        }
    }
    /// A pod on a node that is gone may run on for a while: it still uses its claims.
    fn count_claims(&mut self, id: PodId, by: i64) {
        let class = self.entry(id).class;
        if let Some(Some(class)) = self.classes.get(class as usize) {
            self.storage.count(&class.key, NOWHERE, by);
        }
    }

    /// The pod of this name.
    pub fn pod_id(&self, namespace: &str, name: &str) -> Option<PodId> {
        self.pod_ids.get(&Key::new(namespace, name)).copied()
    }
    /// Whether there is a pod of this number.
    pub fn is_pod(&self, id: PodId) -> bool {
        self.pods.get(id as usize).is_some_and(Option::is_some)
    }
    /// Name of a pod.
    pub fn pod_key(&self, id: PodId) -> &Key {
        &self.entry(id).key
    }
    /// Labels of a pod.
    pub fn pod_labels(&self, id: PodId) -> &Arc<Labels> {
        &self.class(self.entry(id).class).key.labels
    }
    /// What a pod asks for.
    pub fn pod_requests(&self, id: PodId) -> &model::scheduling::Amounts {
        &self.class(self.entry(id).class).spec().requests
    }
    /// All pods, without reservations, by number.
    pub fn pods(&self) -> impl Iterator<Item = PodId> + '_ {
        let there = self.pods.iter().enumerate().filter(|(_, entry)| entry.is_some());
        there.map(|(id, _)| id as PodId).filter(|id| !self.reservations.holds(*id))
    }
    /// What all nodes together have allocatable.
    pub fn capacity(&self) -> model::scheduling::Amounts {
        let mut sums: BTreeMap<Arc<str>, i64> = BTreeMap::new();
        for node in self.live_nodes() {
            for (resource, amount) in &self.nodes[node as usize].facts.scheduling.allocatable {
                let sum = sums.entry(resource.clone()).or_insert(0);
                *sum = sum.saturating_add(*amount);
            }
        }
        sums.into_iter().collect()
    }
    /// Whether a pod is bound or assumed to be on a node, known or not.
    pub fn is_placed(&self, id: PodId) -> bool {
        self.entry(id).node != NOWHERE || self.orphans.values().any(|pods| pods.contains(&id))
    }
    /// Whether a pod is being deleted.
    pub fn is_terminating(&self, id: PodId) -> bool {
        self.entry(id).terminating
    }
    /// When a pod started, in microseconds; `i64::MAX` when it has not.
    pub fn pod_started(&self, id: PodId) -> i64 {
        self.entry(id).started
    }
    /// Uid of a pod.
    pub fn pod_uid(&self, id: PodId) -> &Arc<str> {
        &self.entry(id).uid
    }
    /// Priority of a pod.
    pub fn pod_priority(&self, id: PodId) -> i32 {
        self.class(self.entry(id).class).spec().priority
    }
    /// Where a pod is bound or assumed to be.
    pub fn pod_node(&self, id: PodId) -> Option<NodeId> {
        Some(self.entry(id).node).filter(|node| *node != NOWHERE)
    }
    /// Where room has been made for a pod.
    pub fn pod_nominated(&self, id: PodId) -> Option<NodeId> {
        Some(self.entry(id).nominated).filter(|node| *node != NOWHERE)
    }

    pub(crate) fn entry(&self, id: PodId) -> &PodEntry {
        match self.pods.get(id as usize) {
            Some(Some(entry)) => entry,
            _ => unreachable!("pod ids are handed out by the pool and end with their pod"),
        }
    }
    pub(crate) fn entry_mut(&mut self, id: PodId) -> &mut PodEntry {
        match self.pods.get_mut(id as usize) {
            Some(Some(entry)) => entry,
            _ => unreachable!("pod ids are handed out by the pool and end with their pod"),
        }
    }

    /// Whether scheduling gates hold a pod back.
    pub fn is_gated(&self, pod: PodId) -> bool {
        !self.class(self.entry(pod).class).spec().gates.is_empty()
    }
    /// Whether a pod takes no room from others.
    pub fn never_preempts(&self, pod: PodId) -> bool {
        self.class(self.entry(pod).class).spec().never_preempts
    }
    /// Whether all of a pod's claims are bound on both sides.
    pub fn claims_ready(&self, pod: PodId) -> bool {
        let key = &self.class(self.entry(pod).class).key;
        self.claims_bound(&key.namespace, &key.spec.claims)
    }
}

fn extended_entry(extended: &mut Vec<(i64, i64)>, resource: ResourceId) -> &mut (i64, i64) {
    let at = resource - EXTENDED;
    if extended.len() <= at {
        extended.resize(at + 1, (0, 0));
    }
    &mut extended[at]
}

//! The pod scheduler as a step: facts come in, orders go out. Placement decides; this remembers what is under way.
//!
//! A decision is assumed at once (the next one counts it), carried out later, and taken back when the API refuses it. Facts
//! correct every assumption: the API is the truth.

use model::effect::{Change, MetaPatch, Receipt, Record, Status, Target};
use model::map::HashMap;
use model::scheduling::{BudgetFacts, NodeFacts, PodFacts, SpreadOwner};
use model::{Condition, Effect, Event, Key, Kind, LabelSelector, Object, Pod, Timestamp, Truth};
use placement::{ClaimPlan, Decision, Hint, NodeId, PodId, Pool, Queue, StorageChange};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod gang;
mod machines;
mod parts;
mod quota;
mod reserve;
mod room;

/// The name by which pods ask for this scheduler.
pub const NAME: &str = "default-scheduler";
/// How long a pod's claims may take to be bound before another node is looked for.
const CLAIMS_TIMEOUT_MS: i64 = 600_000;
/// A refused order's pod is tried again after this, doubled at each refusal up to the last.
const RETRY_MS: (i64, i64) = (1_000, 10_000);
/// A binding whose outcome is not known is tried again so often before another node is looked for.
const BIND_AGAIN: u32 = 3;
/// What would help a pending pod is worked out in pools of no more nodes than these.
const HELP_NODES: usize = 2_000;
/// ...and for no more pods than these in one step.
const HELPED: usize = 4;
/// Text of a note, as the Events API bounds it.
const NOTE_LIMIT: usize = 1024;

/// Effects that are carried out one after the other; the first that fails ends the order. Its number comes back in a receipt.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Number.
    pub id: u64,
    /// Effects in order.
    pub effects: Vec<Effect>,
}

/// What an order was for.
enum Purpose {
    /// Binds this pod.
    Bind(Key),
    /// Has this pod's claims bound; it is bound when they are.
    Claims(Key),
    /// Ends a victim: until that has been heard of, somebody waits for its room. Given again when it fails.
    End(Vec<Effect>),
    /// Nothing hangs on it but the facts that will come.
    Tell,
}

/// A pod whose node is chosen and whose claims are being bound.
struct Claiming {
    node: NodeId,
    plan: ClaimPlan,
    until: Timestamp,
}

/// What a pending pod's status says, as far as this scheduler has written or seen it.
#[derive(Clone, Default, PartialEq)]
struct Told {
    message: String,
    nominated: Arc<str>,
}

/// The scheduler's state.
#[derive(Default)]
pub struct Scheduler {
    pool: Pool,
    queue: Queue,
    told: HashMap<Key, Told>,
    claiming: BTreeMap<PodId, Claiming>,
    purposes: BTreeMap<u64, Purpose>,
    retries: BTreeMap<(Timestamp, PodId), ()>,
    /// Ends of victims that failed, and when they are ordered again; before the next step: how long to wait, negative.
    endings: Vec<(Timestamp, Vec<Effect>)>,
    refusals: HashMap<PodId, u32>,
    /// Pods that are of use only together, by gang. Numbers in it may be out of date: each is looked at before it is used.
    gangs: BTreeMap<Key, BTreeSet<PodId>>,
    /// Gangs that have been whole: who is missing later is placed alone.
    whole: BTreeSet<Key>,
    /// What PodGroups say of how many there have to be.
    groups: BTreeMap<Key, usize>,
    /// Gangs that want to be in few domains of this label.
    packed: BTreeMap<Key, gang::Packing>,
    quotas: quota::Quotas,
    reports: machines::Reports,
    reserved: reserve::Reserved,
    /// Pods of this step that were told what would help.
    helped: usize,
    next_order: u64,
}

impl Scheduler {
    /// A scheduler that knows nothing yet.
    pub fn new() -> Self {
        Scheduler { pool: Pool::new(), ..Scheduler::default() }
    }
    /// The pool that it decides on.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
    /// Pods that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// A fact about the world. Kinds that do not bear on placement are ignored; claims, volumes, storage classes and CSI nodes
    /// come through [`Scheduler::storage`], because more of them is read than their projections hold.
    pub fn observe(&mut self, event: &Event) {
        match event {
            Event::Applied(Object::Pod(pod)) => self.pod(pod),
            Event::Applied(Object::Node(node)) => {
                let facts = NodeFacts {
                    name: node.meta.key.name.clone(),
                    labels: node.meta.labels.clone(),
                    taints: node.taints.clone(),
                    unschedulable: node.unschedulable,
                    scheduling: node.scheduling.clone(),
                };
                self.node(facts);
            }
            Event::Applied(Object::Namespace(namespace)) => {
                self.pool.set_namespace(&namespace.meta.key.name, Arc::new(namespace.meta.labels.clone()));
                self.queue.wake(&self.pool, &Hint::Labels);
            }
            Event::Applied(Object::PodDisruptionBudget(budget)) => self.pool.set_budget(BudgetFacts {
                namespace: budget.meta.key.namespace.clone(),
                name: budget.meta.key.name.clone(),
                selector: budget.selector.clone(),
                allowed: budget.status.allowed,
                disrupted: budget.status.disrupted.iter().map(|(name, _)| name.clone()).collect(),
            }),
            Event::Applied(Object::Service(service)) if !service.selector.is_empty() => {
                self.spread_owner(&service.meta.key, "Service", LabelSelector::from_labels(service.selector.iter()));
            }
            Event::Applied(Object::ReplicaSet(set)) => {
                self.spread_owner(&set.meta.key, "ReplicaSet", set.selector.clone())
            }
            Event::Applied(Object::ReplicationController(set)) => {
                self.spread_owner(&set.meta.key, "ReplicationController", set.selector.clone())
            }
            Event::Applied(Object::StatefulSet(set)) => {
                self.spread_owner(&set.meta.key, "StatefulSet", set.selector.clone())
            }
            Event::Deleted { kind, key, .. } => self.deleted(*kind, key),
            Event::Done(receipt) => self.done(receipt),
            Event::Applied(_) | Event::Synced(_) => {}
        }
    }

    fn spread_owner(&mut self, key: &Key, kind: &'static str, selector: LabelSelector) {
        let owner = SpreadOwner { namespace: key.namespace.clone(), kind, name: key.name.clone(), selector };
        self.pool.set_spread_owner(owner);
    }

    /// A Service, ReplicaSet, StatefulSet or ReplicationController, for callers that hold no model object.
    pub fn owner(&mut self, owner: SpreadOwner) {
        self.pool.set_spread_owner(owner);
    }

    /// A disruption budget, for callers that hold no model object.
    pub fn budget(&mut self, budget: BudgetFacts) {
        self.pool.set_budget(budget);
    }

    /// A node is now as given.
    pub fn node(&mut self, facts: NodeFacts) {
        let name = facts.name.clone();
        if self.pool.set_node(Arc::new(facts))
            && let Some(id) = self.pool.node_id(&name)
        {
            self.queue.wake(&self.pool, &Hint::Node(id));
            self.quotas.nodes_changed();
            self.tell_usage(&name);
        }
    }

    fn deleted(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::Pod => self.forget_pod(key),
            Kind::Node => {
                self.pool.remove_node(&key.name);
                self.quotas.nodes_changed();
                // Domains may have gone with it: a spread may be possible now.
                self.queue.wake(&self.pool, &Hint::Labels);
            }
            Kind::Namespace => self.pool.remove_namespace(&key.name),
            Kind::PodDisruptionBudget => self.pool.remove_budget(&key.namespace, &key.name),
            Kind::Service => self.pool.remove_spread_owner(&key.namespace, "Service", &key.name),
            Kind::ReplicaSet => self.pool.remove_spread_owner(&key.namespace, "ReplicaSet", &key.name),
            Kind::ReplicationController => {
                self.pool.remove_spread_owner(&key.namespace, "ReplicationController", &key.name)
            }
            Kind::StatefulSet => self.pool.remove_spread_owner(&key.namespace, "StatefulSet", &key.name),
            _ => {}
        }
    }

    /// Claims, volumes, storage classes or attach limits changed.
    pub fn storage(&mut self, change: StorageChange) {
        self.pool.set_storage(change);
        self.queue.wake(&self.pool, &Hint::Storage);
    }

    fn pod(&mut self, pod: &Pod) {
        let controller = pod.meta.controller();
        let facts = PodFacts {
            namespace: pod.meta.key.namespace.clone(),
            name: pod.meta.key.name.clone(),
            uid: pod.meta.uid.clone(),
            labels: Arc::new(pod.meta.labels.clone()),
            spec: pod.spec.scheduling.clone(),
            owner: controller.map(|owner| (owner.kind.clone(), owner.name.clone())),
            node: pod.spec.node_name.clone(),
            nominated: pod.status.nominated_node.clone(),
            terminating: pod.meta.is_deleting(),
            started: pod.status.started,
            created: pod.meta.created,
        };
        let ours = pod.spec.scheduler_name.is_empty() || &*pod.spec.scheduler_name == NAME;
        let scheduled = model::condition::find(&pod.status.conditions, "PodScheduled");
        let message = scheduled.filter(|c| c.status == Truth::False).map(|c| c.message.to_string());
        self.pod_facts(&facts, pod.status.phase.is_terminal(), ours, message);
        if let Some(packing) = gang::packing(&pod.meta.annotations) {
            self.pack_gang(&facts.namespace, &facts.labels, packing);
        }
        if !facts.node.is_empty()
            && !pod.meta.annotations.is_empty()
            && let Some(id) = self.pool.pod_id(&facts.namespace, &facts.name)
        {
            self.heed_parts(id, &pod.meta.annotations);
        }
    }

    /// A pod is now as given: ended or not, asking for this scheduler or not, with what its `PodScheduled` condition says.
    pub fn pod_facts(&mut self, facts: &PodFacts, ended: bool, ours: bool, message: Option<String>) {
        let key = Key { namespace: facts.namespace.clone(), name: facts.name.clone() };
        let before = self.pool.pod_id(&key.namespace, &key.name);
        self.note_pod(facts, &key, ended, ours, message);
        let now = self.pool.pod_id(&key.namespace, &key.name);
        for id in before.into_iter().chain(now.filter(|now| before != Some(*now))) {
            self.account(id);
        }
    }

    fn note_pod(&mut self, facts: &PodFacts, key: &Key, ended: bool, ours: bool, message: Option<String>) {
        if ended || (facts.node.is_empty() && (!ours || facts.terminating)) {
            self.forget_pod(key);
            return;
        }
        let known = self.pool.pod_id(&key.namespace, &key.name);
        let before = known.map(|id| (self.pool.pod_uid(id).clone(), self.pool.pod_node(id)));
        if let Some((id, (uid, _))) = known.zip(before.as_ref())
            && *uid != facts.uid
        {
            self.drop_pod(id, key);
        }
        let held = self.pool.pod_id(&key.namespace, &key.name).and_then(|id| self.pool.pod_nominated(id));
        let (id, renewed) = self.pool.set_pod(facts);
        if let Some(node) =
            held.filter(|node| ![self.pool.pod_nominated(id), self.pool.pod_node(id)].contains(&Some(*node)))
        {
            self.release_hold(node);
        }
        if renewed {
            self.join_gang(id);
        }
        let under_way = facts.node.is_empty() && self.pool.pod_node(id).is_some();
        if renewed && !under_way {
            // Numbers are used again: what was noted of this one is not about this pod.
            known.into_iter().for_each(|known| self.let_go(known));
            self.let_go(id);
        }
        if !facts.node.is_empty() {
            self.let_go(id);
            self.told.remove(key);
            let was_here = before.is_some_and(|(uid, node)| uid == facts.uid && node == self.pool.pod_node(id));
            if let Some(node) = self.pool.pod_node(id) {
                if !was_here {
                    self.queue.wake(&self.pool, &Hint::PodCame(id));
                } else if facts.terminating {
                    self.queue.wake(&self.pool, &Hint::PodLeaves(node));
                }
                if self.pool.drawn_on(id).is_some() {
                    // What it leaves of a reservation that it alone may have is free from now on.
                    self.queue.wake(&self.pool, &Hint::PodLeft(node));
                }
                if was_here && renewed {
                    // Other labels, or smaller requests.
                    self.queue.wake(&self.pool, &Hint::Labels);
                    self.queue.wake(&self.pool, &Hint::PodLeft(node));
                }
            }
            return;
        }
        let told = self.told.entry(key.clone()).or_default();
        told.nominated = facts.nominated.clone();
        if let Some(message) = message {
            told.message = message;
        }
        if !under_way && (renewed || !self.queue.contains(id)) && !self.retries.keys().any(|(_, pod)| *pod == id) {
            self.queue.push(id, facts.spec.priority);
        }
    }

    fn forget_pod(&mut self, key: &Key) {
        self.reserved.forget(key);
        self.told.remove(key);
        if let Some(id) = self.pool.pod_id(&key.namespace, &key.name) {
            self.drop_pod(id, key);
        }
    }

    fn drop_pod(&mut self, id: PodId, key: &Key) {
        let (held, waited) = (self.pool.pod_nominated(id), self.queue.contains(id));
        let gang = self.gang_of(id).filter(|_| waited);
        self.let_go(id);
        let orphan = self.pool.pod_node(id).is_none() && self.pool.is_placed(id);
        if let Some(node) = self.pool.remove_pod(&key.namespace, &key.name) {
            self.queue.wake(&self.pool, &Hint::PodLeft(node));
        } else if orphan {
            // Its node went before it: only its claims were still in use.
            self.queue.wake(&self.pool, &Hint::Storage);
        }
        self.account(id);
        held.into_iter().for_each(|node| self.release_hold(node));
        // Without it the others of its gang may be too few for the room that is held for them.
        gang.into_iter().for_each(|gang| self.try_gang_again(&gang));
    }

    /// Nothing more is to be done for a pod by this number.
    fn let_go(&mut self, id: PodId) {
        self.queue.remove(id);
        self.refusals.remove(&id);
        self.retries.retain(|(_, pod), ()| *pod != id);
        if let Some(claiming) = self.claiming.remove(&id) {
            self.pool.release_volumes(&claiming.plan);
        }
    }

    fn done(&mut self, receipt: &Receipt) {
        let Some(purpose) = self.purposes.remove(&receipt.order) else { return };
        let Err(refusal) = &receipt.outcome else { return };
        let key = match purpose {
            Purpose::Bind(key) => key,
            Purpose::Claims(key) => return self.claims_refused(&key),
            Purpose::End(effects) => {
                if !refusal.is_not_found() {
                    self.endings.push((Timestamp(-RETRY_MS.0), effects));
                }
                return;
            }
            Purpose::Tell => return,
        };
        let Some(id) = self.pool.pod_id(&key.namespace, &key.name) else { return };
        if refusal.is_not_found() {
            // The pod is gone; its deletion is on the way.
            return;
        }
        if !self.told.contains_key(&key) {
            // A fact was faster: it is bound.
            return;
        }
        let tries = self.refusals.entry(id).or_insert(0);
        *tries += 1;
        // Without an answer, or when somebody has bound it before (perhaps this order, whose answer was lost), the pod may be there:
        // its room stays taken until a fact tells, or the same binding is tried again.
        let unknown = refusal.code == 0 || refusal.code >= 500 || refusal.is_conflict();
        let wait = (RETRY_MS.0 << (*tries - 1).min(4)).min(RETRY_MS.1);
        if !unknown || *tries > BIND_AGAIN {
            let left = self.pool.pod_node(id);
            self.pool.forget(id);
            self.account(id);
            if let Some(node) = left {
                self.queue.wake(&self.pool, &Hint::PodLeft(node));
            }
        }
        // The receipt carries no time: the wait counts from the next step.
        self.retries.insert((Timestamp(-wait), id), ());
    }

    /// Decides on at most `limit` pods that wait, and gives the orders.
    pub fn step(&mut self, now: Timestamp, limit: usize) -> Vec<Order> {
        let mut orders = Vec::new();
        self.helped = 0;
        self.wake_retries(now, &mut orders);
        self.end_again(now, &mut orders);
        self.settle_claims(now, &mut orders);
        self.expire_reports(now);
        self.settle_known_reservations();
        self.expire_reservations(now);
        self.heed_quotas();
        for _ in 0..limit {
            let Some(id) = self.queue.pop() else { break };
            self.decide(id, now, &mut orders);
        }
        self.reclaim(now, &mut orders);
        self.tell_of_reservations(now, &mut orders);
        orders
    }

    /// When to step again even if nothing happens.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let retry = self.retries.keys().next().map(|(at, _)| *at);
        let claims = self.claiming.values().map(|claiming| claiming.until).min();
        let held = self.pool.next_expiry();
        let ending = self.endings.iter().map(|(at, _)| *at).min();
        retry
            .into_iter()
            .chain(claims)
            .chain(held)
            .chain(ending)
            .chain(self.quotas.wake_at())
            .chain(self.reports.wake_at())
            .min()
    }

    fn end_again(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        for (at, effects) in std::mem::take(&mut self.endings) {
            // Receipts carry no time: the wait counts from the first step after them.
            let at = if at.0 < 0 { now.plus_ms(-at.0) } else { at };
            if at > now {
                self.endings.push((at, effects));
                continue;
            }
            let of = effects.iter().find_map(|effect| match effect {
                Effect::Delete { target, .. } => Some(target.clone()),
                _ => None,
            });
            let still = |target: Target| {
                let id = self.pool.pod_id(&target.key.namespace, &target.key.name)?;
                (*self.pool.pod_uid(id) == target.uid).then_some(())
            };
            if of.and_then(still).is_some() {
                let order = self.order(Purpose::End(effects.clone()), effects);
                orders.push(order);
            }
        }
    }

    fn wake_retries(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        let fresh: Vec<(Timestamp, PodId)> = self.retries.keys().take_while(|(at, _)| at.0 < 0).copied().collect();
        for (wait, pod) in fresh {
            self.retries.remove(&(wait, pod));
            self.retries.insert((now.plus_ms(-wait.0), pod), ());
        }
        while let Some(((at, pod), ())) = self.retries.first_key_value() {
            if *at > now {
                return;
            }
            let (at, pod) = (*at, *pod);
            self.retries.remove(&(at, pod));
            match self.pool.pod_node(pod) {
                Some(node) => {
                    let order = self.bind(pod, node, now);
                    orders.push(order);
                }
                None => self.queue.push(pod, self.pool.pod_priority(pod)),
            }
        }
    }

    fn order(&mut self, purpose: Purpose, effects: Vec<Effect>) -> Order {
        self.next_order += 1;
        self.purposes.insert(self.next_order, purpose);
        Order { id: self.next_order, effects }
    }

    fn target(&self, id: PodId) -> Target {
        Target { kind: Kind::Pod, key: self.pool.pod_key(id).clone(), uid: self.pool.pod_uid(id).clone(), revision: 0 }
    }

    fn decide(&mut self, id: PodId, now: Timestamp, orders: &mut Vec<Order>) {
        if self.pool.is_reservation(id) {
            return self.decide_reservation(id);
        }
        if self.pool.is_gated(id) {
            self.queue.postpone(id);
            let text = "Scheduling is blocked due to non-empty scheduling gates";
            self.tell(id, "SchedulingGated", text.to_owned(), None, now, orders);
            return;
        }
        if let Some(gang) = self.gang_of(id)
            && self.decide_gang(&gang, now, orders)
        {
            return;
        }
        self.decide_one(id, now, orders);
    }

    fn decide_one(&mut self, id: PodId, now: Timestamp, orders: &mut Vec<Order>) {
        if let Some(why) = self.over_quota(id) {
            self.wait_for_quota(id);
            let message = format!("0/{} nodes are available: {why}.", self.pool.size().nodes);
            let nominated = self.nominations(&[id]);
            let ask = room::Ask { pods: &[id], missing: 1, gang: None, over_quota: true, nominated };
            self.make_room(&ask, now, orders);
            let nominated = self.nominated_now(id);
            self.tell(id, "Unschedulable", message, nominated, now, orders);
            return;
        }
        match self.pool.decide(id) {
            Decision::Place(placement) => {
                let held = self.pool.pod_nominated(id).filter(|node| *node != placement.node);
                self.queue.remove(id);
                self.pool.assume(id, placement.node);
                self.account(id);
                held.into_iter().for_each(|node| self.release_hold(node));
                self.queue.wake(&self.pool, &Hint::PodCame(id));
                if placement.claims.is_empty() {
                    let order = self.bind(id, placement.node, now);
                    orders.push(order);
                } else {
                    self.bind_claims(id, placement.node, placement.claims, now, orders);
                }
            }
            Decision::Refuse(diagnosis) => {
                self.queue.refuse(id, &diagnosis);
                self.wait_for_room(id, now);
                let message = diagnosis.message();
                if diagnosis.nodes == 0 {
                    self.tell(id, "Unschedulable", message, None, now, orders);
                    return;
                }
                if diagnosis.blocked.is_some() {
                    // What kube-scheduler adds when a pod is refused before any node is asked: its plugin for device claims finds no
                    // state of its own.
                    self.tell(id, "Unschedulable", format!("{message} not found"), None, now, orders);
                    return;
                }
                match self.pool.preempt(id, &diagnosis) {
                    Ok(preemption) => {
                        let node = self.pool.node_name(preemption.node).clone();
                        self.preempt(id, &preemption, now, orders);
                        self.tell(id, "Unschedulable", message, Some(node), now, orders);
                    }
                    Err(why) => {
                        let waits = why.starts_with("not eligible due to a terminating");
                        let nominated = if waits || self.pool.never_preempts(id) { None } else { Some("".into()) };
                        if nominated.is_some()
                            && let Some(node) = self.pool.pod_nominated(id)
                        {
                            self.pool.set_nominated(id, None);
                            self.release_hold(node);
                        }
                        self.tell(
                            id,
                            "Unschedulable",
                            format!("{message} no new claims to deallocate, preemption: {why}"),
                            nominated,
                            now,
                            orders,
                        );
                    }
                }
            }
        }
    }

    fn bind(&mut self, id: PodId, node: NodeId, now: Timestamp) -> Order {
        let (pod, node) = (self.target(id), self.pool.node_name(node).clone());
        let note = Record {
            about: pod.clone(),
            warning: false,
            reason: "Scheduled".into(),
            message: format!("Successfully assigned {} to {node}", pod.key).into(),
            source: NAME,
            at: now,
        };
        let key = pod.key.clone();
        let annotations = self.parts_of(id);
        self.order(Purpose::Bind(key), vec![Effect::Bind { pod, node, annotations }, Effect::Record(note)])
    }

    /// Writes volumes and claims so that the volume controller (or a provisioner) binds them; the pod is bound when they are.
    fn bind_claims(&mut self, id: PodId, node: NodeId, plan: ClaimPlan, now: Timestamp, orders: &mut Vec<Order>) {
        let name = self.pool.node_name(node).clone();
        let mut effects = Vec::new();
        for (claim, volume) in &plan.bind {
            let uid = self.pool.claim(claim).map(|facts| facts.uid.clone()).unwrap_or_default();
            let key = Key { namespace: "".into(), name: volume.clone() };
            let target = Target { kind: Kind::PersistentVolume, key, uid: "".into(), revision: 0 };
            effects.push(Effect::Update(target, Change::VolumeClaim(Some((claim.clone(), uid)))));
        }
        for claim in &plan.provision {
            let uid = self.pool.claim(claim).map(|facts| facts.uid.clone()).unwrap_or_default();
            let target = Target { kind: Kind::PersistentVolumeClaim, key: claim.clone(), uid, revision: 0 };
            let annotation = ("volume.kubernetes.io/selected-node".into(), Some(name.clone()));
            effects
                .push(Effect::PatchMeta(target, MetaPatch { annotations: vec![annotation], ..MetaPatch::default() }));
        }
        let status = Status::PodConditions { conditions: Vec::new(), nominated_node: Some(name) };
        effects.push(Effect::PatchStatus(self.target(id), status));
        self.pool.promise_volumes(&plan);
        self.claiming.insert(id, Claiming { node, plan, until: now.plus_ms(CLAIMS_TIMEOUT_MS) });
        let order = self.order(Purpose::Claims(self.pool.pod_key(id).clone()), effects);
        orders.push(order);
    }

    /// Somebody changed a volume or a claim first, or no answer came: what is true now decides, after a while.
    fn claims_refused(&mut self, key: &Key) {
        let Some(id) = self.pool.pod_id(&key.namespace, &key.name) else { return };
        if self.claiming.contains_key(&id) && !self.pool.claims_ready(id) {
            self.look_elsewhere(id);
            self.retries.insert((Timestamp(-RETRY_MS.0), id), ());
        }
    }

    /// A pod whose claims are not to be bound there after all.
    fn look_elsewhere(&mut self, id: PodId) {
        let left = self.pool.pod_node(id);
        self.let_go(id);
        self.pool.forget(id);
        self.account(id);
        if let Some(node) = left {
            self.queue.wake(&self.pool, &Hint::PodLeft(node));
        }
    }

    fn settle_claims(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        let waiting: Vec<PodId> = self.claiming.keys().copied().collect();
        for id in waiting {
            let Some(claiming) = self.claiming.get(&id) else { continue };
            let (node, until) = (claiming.node, claiming.until);
            let gone = self.pool.pod_node(id) != Some(node);
            if !gone && self.pool.claims_ready(id) {
                self.claiming.remove(&id);
                let order = self.bind(id, node, now);
                orders.push(order);
            } else if gone || until <= now {
                self.look_elsewhere(id);
                self.queue.push(id, self.pool.pod_priority(id));
            }
        }
    }

    fn preempt(&mut self, id: PodId, preemption: &placement::Preemption, now: Timestamp, orders: &mut Vec<Order>) {
        let by = format!("pod {}", self.pool.pod_uid(id));
        for victim in preemption.victims.iter().filter(|victim| !victim.terminating) {
            self.end_victim(victim.pod, &by, now, orders);
        }
        self.displace(&preemption.displaced, orders);
        self.pool.set_nominated(id, Some(preemption.node));
    }

    /// The smallest changes that would place a pod, as the end of its event. Only told where asking every node again is cheap.
    fn help(&mut self, id: PodId) -> String {
        if self.helped >= HELPED || self.pool.size().nodes > HELP_NODES || self.pool.pod_nominated(id).is_some() {
            return String::new();
        }
        self.helped += 1;
        let help: Vec<String> = self.pool.what_would_help(id).iter().map(ToString::to_string).collect();
        if help.is_empty() { String::new() } else { format!(" What would place it: {}.", help.join("; or ")) }
    }

    /// Writes a pending pod's condition and event, unless its status says the same already.
    fn tell(
        &mut self,
        id: PodId,
        reason: &str,
        message: String,
        nominated: Option<Arc<str>>,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) {
        let target = self.target(id);
        let told = self.told.entry(target.key.clone()).or_default();
        let nominated = nominated.filter(|node| *node != told.nominated);
        if told.message == message && nominated.is_none() {
            return;
        }
        if let Some(node) = &nominated {
            told.nominated = node.clone();
        }
        told.message.clone_from(&message);
        let condition = Condition {
            kind: "PodScheduled".into(),
            status: Truth::False,
            reason: reason.into(),
            message: message.as_str().into(),
            last_transition: now,
            last_update: now,
        };
        let status = Status::PodConditions { conditions: vec![condition], nominated_node: nominated };
        let mut effects = vec![Effect::PatchStatus(target.clone(), status)];
        if reason == "Unschedulable" {
            let help = self.help(id);
            let short: String = format!("{message}{help}").chars().take(NOTE_LIMIT).collect();
            let note = Record {
                about: target,
                warning: true,
                reason: "FailedScheduling".into(),
                message: short.into(),
                source: NAME,
                at: now,
            };
            effects.push(Effect::Record(note));
        }
        let order = self.order(Purpose::Tell, effects);
        orders.push(order);
    }
}

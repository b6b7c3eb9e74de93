//! The engine around the reconcilers: facts in, orders out.
//!
//! A key with open orders is not looked at again until the watch has shown what they did (or they were refused, or too much
//! time went by). This is what upstream's "expectations" are for, made general: nobody decides on a snapshot that does not yet hold the
//! outcome of the own last decision, so nothing is made twice. See docs/decisions/0007-orders-and-receipts.md.

use crate::plan::Plan;
use crate::queue::{Controller, Item, Queue};
use crate::world::World;
use crate::{Config, reconcile, route};
use model::effect::{Receipt, Record, Refusal};
use model::map::HashMap;
use model::{Effect, Event, Key, Kind, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An effect with the number that its receipt will carry. Number 0 is for records, which nobody waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Number.
    pub id: u64,
    /// Who decided it.
    pub controller: Controller,
    /// What to do.
    pub effect: Effect,
}

/// How long to wait for the watch to show what an order did before looking again regardless.
const SEE_WITHIN_MS: i64 = 30_000;
/// How long to wait for a receipt before the order counts as lost.
const RECEIPT_WITHIN_MS: i64 = 120_000;
/// How long to wait for the watch to show what an order did that was given no answer.
const LOST_ANSWER_MS: i64 = 5_000;
/// The most creations in one batch (upstream's BurstReplicas).
const BURST_MAX: usize = 500;

/// Namespace of the leases that are heartbeats of nodes.
pub const NODE_LEASES: &str = "kube-node-lease";

struct Open {
    item: Item,
    subject: (Kind, Key),
    uid: Option<Arc<str>>,
    deletion: bool,
    note: Option<Record>,
    /// The revision to see, once the receipt has told it.
    revision: Option<u64>,
    /// Makes an object, whose name is then a proof that it was made.
    creation: bool,
    /// No answer came: it may have been carried out or not.
    lost: bool,
    /// The object was being deleted already: only its end shows that this deletion was carried out.
    was_deleting: bool,
}

#[derive(Default)]
struct Busy {
    open: u32,
    dirty: bool,
    failed: bool,
}

/// What reconcilers keep between two looks, besides the world.
#[derive(Default)]
pub struct Memory {
    /// The last refusal that each item met, until it has a success.
    refusals: HashMap<Item, Refusal>,
    /// How many creations the item may try at once: 1, then doubled by each success.
    bursts: HashMap<Item, usize>,
    /// Recommendations and scalings of autoscalers.
    pub autoscalers: HashMap<Key, crate::autoscaler::History>,
    /// What is known of nodes' heartbeats and evictions.
    pub nodes: crate::node_lifecycle::Heartbeats,
    /// Usage of pods and nodes.
    pub usage: scaling::Window,
    /// Dependents whose owner was not found, and since when.
    pub absent_owners: HashMap<(Kind, Key), Timestamp>,
}

/// What a reconciler is given, besides the object's name.
pub struct Cx<'a> {
    /// Everything that is known.
    pub world: &'a World,
    /// Settings.
    pub config: &'a Config,
    /// Now.
    pub now: Timestamp,
    /// How the last attempt on this key was refused.
    pub refusal: Option<&'a Refusal>,
    /// How many objects may be made at once.
    pub burst: usize,
    /// For names; different at each look.
    pub seed: u64,
}

/// Counters of one reconciler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Looks.
    pub reconciled: u64,
    /// Orders given.
    pub orders: u64,
    /// Orders refused.
    pub refused: u64,
}

/// The control: a world, a queue, and orders that are under way.
pub struct Control {
    world: World,
    config: Config,
    queue: Queue,
    memory: Memory,
    orders: HashMap<u64, Open>,
    busy: HashMap<Item, Busy>,
    waiting: HashMap<(Kind, Key), Vec<u64>>,
    deadlines: BTreeMap<Timestamp, BTreeSet<u64>>,
    next_order: u64,
    looks: u64,
    counters: BTreeMap<Controller, Counters>,
}

impl Control {
    /// A control that knows nothing yet.
    pub fn new(config: Config) -> Self {
        Control {
            world: World::default(),
            config,
            queue: Queue::default(),
            memory: Memory::default(),
            orders: HashMap::default(),
            busy: HashMap::default(),
            waiting: HashMap::default(),
            deadlines: BTreeMap::new(),
            next_order: 1,
            looks: 0,
            counters: BTreeMap::new(),
        }
    }

    /// What is known.
    pub fn world(&self) -> &World {
        &self.world
    }
    /// Usage of pods and nodes, to be fed by whoever measures.
    pub fn usage_mut(&mut self) -> &mut scaling::Window {
        &mut self.memory.usage
    }
    /// Usage of pods and nodes.
    pub fn usage(&self) -> &scaling::Window {
        &self.memory.usage
    }
    /// Counters of every reconciler that has run.
    pub fn counters(&self) -> &BTreeMap<Controller, Counters> {
        &self.counters
    }
    /// Keys that are ready, and orders that are under way.
    pub fn load(&self) -> (usize, usize) {
        (self.queue.depth(), self.orders.len())
    }
    /// When `step` wants to be called even if nothing happens.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let deadline = self.deadlines.keys().next().copied();
        [self.queue.next_wakeup(), deadline].into_iter().flatten().min()
    }

    /// This kind is being watched: until it is synced, nobody concludes that none of it is there.
    pub fn expect(&mut self, kind: Kind) {
        self.world.expected.insert(kind);
    }

    /// This kind is not served any more: its objects are gone with it.
    pub fn forget(&mut self, kind: Kind, now: Timestamp) {
        self.world.expected.remove(&kind);
        let Kind::Other(resource) = kind else { return };
        let gone: Vec<Event> = self
            .world
            .others
            .get(resource)
            .into_iter()
            .flatten()
            .map(|(key, object)| Event::Deleted {
                kind,
                key: key.clone(),
                uid: object.meta.uid.clone(),
                revision: object.meta.revision,
            })
            .collect();
        let mut out = Vec::new();
        for event in &gone {
            self.observe(event, now, &mut out);
        }
        self.world.others.remove(resource);
    }

    /// Takes facts in and gives orders out.
    pub fn step(&mut self, events: &[Event], now: Timestamp) -> Vec<Order> {
        let mut out = Vec::new();
        for event in events {
            self.observe(event, now, &mut out);
        }
        self.expire(now);
        self.queue.fire(now);
        while let Some(item) = self.queue.pop() {
            if self.config.off.contains(&item.controller) {
                continue;
            }
            self.look(item, now, &mut out);
        }
        out
    }

    fn observe(&mut self, event: &Event, now: Timestamp, out: &mut Vec<Order>) {
        if let Event::Done(receipt) = event {
            self.settle(receipt, now, out);
            return;
        }
        let Ok(old) = self.world.apply(event) else { return };
        self.hear(event, old.as_ref(), now);
        let mut dirty = Vec::new();
        route::dirty(&self.world, old.as_ref(), event, now, &mut |item| dirty.push(item));
        for item in dirty {
            self.touch(item);
        }
        let subject = match event {
            Event::Applied(object) => (object.kind(), object.meta().key.clone()),
            Event::Deleted { kind, key, .. } => (*kind, key.clone()),
            Event::Synced(_) | Event::Done(_) => return,
        };
        self.see(&subject, now);
    }

    /// Leases of nodes are their heartbeats: when one changed is noted by the own clock.
    fn hear(&mut self, event: &Event, old: Option<&model::Object>, now: Timestamp) {
        // A node that says how it is has been heard of too: what it says may come before its lease does.
        if let Event::Applied(model::Object::Node(node)) = event {
            let before = match old {
                Some(model::Object::Node(before)) => Some(&**before),
                _ => None,
            };
            if crate::node_lifecycle::speaks(before, node) {
                self.memory.nodes.hear(&node.meta.key.name, now);
            }
        }
        if let Event::Applied(model::Object::Lease(lease)) = event
            && &*lease.meta.key.namespace == NODE_LEASES
        {
            self.memory.nodes.hear(&lease.meta.key.name, now);
        }
    }

    fn touch(&mut self, item: Item) {
        match self.busy.get_mut(&item) {
            Some(busy) => busy.dirty = true,
            None => self.queue.push(item),
        }
    }

    /// The watch has shown something about `subject`: closes the orders that waited for it.
    fn see(&mut self, subject: &(Kind, Key), now: Timestamp) {
        let Some(waiting) = self.waiting.remove(subject) else { return };
        let (seen, still): (Vec<u64>, Vec<u64>) =
            waiting.into_iter().partition(|id| self.orders.get(id).is_none_or(|open| self.is_seen(open)));
        if !still.is_empty() {
            self.waiting.insert(subject.clone(), still);
        }
        for id in seen {
            self.close(id, true, now);
        }
    }

    fn is_seen(&self, open: &Open) -> bool {
        let (kind, key) = &open.subject;
        let meta = self.world.meta(*kind, key);
        if open.deletion {
            let began = |meta: &model::Meta| meta.is_deleting() && !(open.lost && open.was_deleting);
            return meta.is_none_or(|meta| began(meta) || Some(&meta.uid) != open.uid.as_ref());
        }
        if open.lost && open.creation {
            return meta.is_some();
        }
        let Some(revision) = open.revision else { return false };
        let shown = meta.map_or(0, |meta| meta.revision).max(self.world.gone_at(*kind, key).unwrap_or(0));
        // An object that was known, was changed and is no more (without a revision of its own in the deletion) is seen too.
        shown >= revision || (meta.is_none() && open.uid.as_ref().is_some_and(|uid| self.world.is_gone(uid)))
    }

    fn settle(&mut self, receipt: &Receipt, now: Timestamp, out: &mut Vec<Order>) {
        let Some(open) = self.orders.get_mut(&receipt.order) else { return };
        let controller = open.item.controller;
        match &receipt.outcome {
            Ok(made) => {
                open.revision = Some(made.revision);
                if let Some(record) = open.note.take() {
                    out.push(Order { id: 0, controller, effect: Effect::Record(record) });
                }
            }
            // What was to be deleted is gone already; the watch will say so.
            Err(refusal) if open.deletion && refusal.is_not_found() => {}
            // Nobody knows whether it was done. To do it again at once could do it twice: the watch will tell, or time.
            Err(refusal) if refusal.code == 0 || refusal.code == 504 => open.lost = true,
            Err(refusal) => {
                self.counters.entry(controller).or_default().refused += 1;
                let item = open.item.clone();
                self.memory.refusals.insert(item, refusal.clone());
                self.close(receipt.order, false, now);
                return;
            }
        }
        let open = &self.orders[&receipt.order];
        if open.revision == Some(0) && !open.deletion || self.is_seen(open) {
            self.close(receipt.order, true, now);
        } else {
            let (subject, patience) = (open.subject.clone(), if open.lost { LOST_ANSWER_MS } else { SEE_WITHIN_MS });
            self.waiting.entry(subject).or_default().push(receipt.order);
            self.deadlines.entry(now.plus_ms(patience)).or_default().insert(receipt.order);
        }
    }

    fn close(&mut self, id: u64, success: bool, now: Timestamp) {
        let Some(open) = self.orders.remove(&id) else { return };
        let Some(busy) = self.busy.get_mut(&open.item) else { return };
        busy.open = busy.open.saturating_sub(1);
        busy.failed |= !success;
        if busy.open > 0 {
            return;
        }
        let (dirty, failed) = (busy.dirty, busy.failed);
        self.busy.remove(&open.item);
        if failed {
            self.memory.bursts.insert(open.item.clone(), 1);
            self.queue.fail(&open.item, now);
        } else {
            let burst = self.memory.bursts.entry(open.item.clone()).or_insert(1);
            *burst = (*burst * 2).min(BURST_MAX);
            self.memory.refusals.remove(&open.item);
            self.queue.succeed(&open.item);
            if dirty {
                self.queue.push(open.item);
            }
        }
    }

    /// Closes orders that nobody answered, or whose outcome the watch never showed.
    fn expire(&mut self, now: Timestamp) {
        while let Some(entry) = self.deadlines.first_entry() {
            if *entry.key() > now {
                break;
            }
            for id in entry.remove() {
                let Some(open) = self.orders.get(&id) else { continue };
                if let Some(waiting) = self.waiting.get_mut(&open.subject) {
                    waiting.retain(|other| *other != id);
                }
                self.close(id, false, now);
            }
        }
    }

    fn look(&mut self, item: Item, now: Timestamp, out: &mut Vec<Order>) {
        if let Some(busy) = self.busy.get_mut(&item) {
            busy.dirty = true;
            return;
        }
        self.looks += 1;
        let refusal = self.memory.refusals.get(&item).cloned();
        let cx = Cx {
            world: &self.world,
            config: &self.config,
            now,
            refusal: refusal.as_ref(),
            burst: self.memory.bursts.get(&item).copied().unwrap_or(1),
            seed: (now.0 as u64).wrapping_mul(31).wrapping_add(self.looks),
        };
        let plan = reconcile(&cx, &mut self.memory, &item);
        let counters = self.counters.entry(item.controller).or_default();
        counters.reconciled += 1;
        match plan.again {
            Some(at) => self.queue.push_at(item.clone(), at.max(now.plus_ms(1))),
            None => self.queue.cancel_timer(&item),
        }
        self.queue.pause(&item, plan.cost, now);
        if plan.is_empty() {
            self.memory.bursts.remove(&item);
            return;
        }
        self.give(item, plan, now, out);
    }

    fn give(&mut self, item: Item, plan: Plan, now: Timestamp, out: &mut Vec<Order>) {
        let mut given = 0;
        for planned in plan.effects {
            let Some((kind, key)) = planned.effect.subject() else {
                out.push(Order { id: 0, controller: item.controller, effect: planned.effect });
                continue;
            };
            let id = self.next_order;
            self.next_order += 1;
            given += 1;
            let deletion = matches!(planned.effect, Effect::Delete { .. });
            let subject = (kind, key.clone());
            let creation = matches!(planned.effect, Effect::Create(..));
            let meta = self.world.meta(kind, key);
            let (uid, was_deleting) = (meta.map(|meta| meta.uid.clone()), meta.is_some_and(model::Meta::is_deleting));
            let note = planned.note;
            let open = Open {
                item: item.clone(),
                subject,
                uid,
                deletion,
                note,
                revision: None,
                creation,
                lost: false,
                was_deleting,
            };
            self.orders.insert(id, open);
            self.deadlines.entry(now.plus_ms(RECEIPT_WITHIN_MS)).or_default().insert(id);
            out.push(Order { id, controller: item.controller, effect: planned.effect });
        }
        self.counters.entry(item.controller).or_default().orders += u64::from(given);
        if given > 0 {
            self.busy.insert(item, Busy { open: given, dirty: false, failed: false });
        }
    }
}

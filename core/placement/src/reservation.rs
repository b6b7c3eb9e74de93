//! Reservations: capacity that is held for pods to come (Koordinator's `Reservation`, scheduling.koordinator.sh/v1alpha1).
//!
//! A reservation is placed as a pod of its template would be. From then on it *holds* what it asked for: a placeholder on the node,
//! without labels, namespace and rules of its own, which nobody may evict or move. To everybody else the capacity is taken. A pod that it is
//! meant for sees the node as if that placeholder were not there, and goes to a reservation that lets it in before it goes anywhere
//! else: to the one of which it uses most, in per cent of what is left, averaged over the resources that are left; ties go to the
//! node that joined first, then by the reservation's name. What a pod asks for beyond the reservation comes out of the node's own room.
//!
//! One that may be allocated once is used up by the first pod; what that leaves of it is free when the pod is bound. Another shrinks by what each pod takes and grows again when
//! that pod ends. Preemption counts on nothing that is held. A held place that expires, or is removed, is free at once.

use crate::class::{ClassId, ClassKey};
use crate::pool::{NOWHERE, NodeId, PodId, Pool};
use crate::topology::Surroundings;
use model::map::HashMap;
use model::scheduling::{Amounts, Reservation, ReservationOwner, SchedulingSpec};
use model::{Key, LabelSelector, Timestamp};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

fn means_class(owner: &ReservationOwner, class: &ClassKey) -> bool {
    owner.namespace.as_ref().is_none_or(|namespace| *namespace == class.namespace)
        && owner.controller.as_ref().is_none_or(|controller| class.owner.as_ref() == Some(controller))
        && owner.labels.as_ref().is_none_or(|selector| selector.matches(&class.labels))
}

/// How a reservation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReservationState {
    /// It has no node yet.
    Pending,
    /// It holds so much on its node.
    Available(NodeId, Amounts),
    /// Nothing of it is left for others: a pod has used it up, pods have taken all of it, or its node is gone.
    Taken,
}

struct Held {
    facts: Reservation,
    pod: PodId,
    /// Where it holds; empty while it is pending.
    node: Arc<str>,
    left: Amounts,
    /// Pods that take part of it.
    drawn: BTreeMap<PodId, Amounts>,
}

impl Held {
    /// Somebody has it who may have it alone.
    fn is_used_up(&self) -> bool {
        self.facts.allocate_once && !self.drawn.is_empty()
    }
}

/// Which reservation comes first: use, node, name.
type Rank = (Reverse<i64>, NodeId, Key);

/// All reservations of a pool.
#[derive(Default)]
pub(crate) struct Reservations {
    held: BTreeMap<Arc<str>, Held>,
    /// By placeholder.
    names: BTreeMap<PodId, Arc<str>>,
    /// By pod that draws on one.
    draws: BTreeMap<PodId, Arc<str>>,
    /// By class: placeholders that are for its pods by all but their name. Kept for classes that were asked about.
    matched: HashMap<ClassId, Vec<PodId>>,
}

impl Reservations {
    /// There are none: nothing is to be looked at.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
    /// Whether a pod is a reservation's placeholder, pending or held.
    #[inline]
    pub(crate) fn holds(&self, pod: PodId) -> bool {
        !self.names.is_empty() && self.names.contains_key(&pod)
    }
    pub(crate) fn forget_class(&mut self, class: ClassId) {
        self.matched.remove(&class);
    }
    fn of(&self, placeholder: PodId) -> Option<&Held> {
        self.held.get(self.names.get(&placeholder)?)
    }
}

fn amount(amounts: &Amounts, resource: &str) -> i64 {
    amounts.iter().find(|(name, _)| &**name == resource).map_or(0, |(_, amount)| *amount)
}

/// `amounts` with `sign` times `by`, without zeros.
fn plus(amounts: &Amounts, by: &Amounts, sign: i64) -> Amounts {
    let mut sums: BTreeMap<Arc<str>, i64> = amounts.iter().cloned().collect();
    for (name, amount) in by {
        *sums.entry(name.clone()).or_insert(0) += sign * amount;
    }
    sums.into_iter().filter(|(_, amount)| *amount > 0).collect()
}

impl Pool {
    /// A reservation is now as given. Returns the number by which it is decided on and assumed like a pod. One whose template changed
    /// starts anew: what it held is free.
    pub fn set_reservation(&mut self, facts: Reservation) -> PodId {
        self.reservations.matched.clear();
        if let Some(held) = self.reservations.held.get_mut(&facts.name) {
            let (old, new) = (&held.facts, &facts);
            if old.template == new.template && old.labels == new.labels && old.namespace == new.namespace {
                held.facts = facts;
                return held.pod;
            }
            self.remove_reservation(&facts.name);
        }
        let class = self.intern_class(ClassKey {
            spec: facts.template.clone(),
            namespace: facts.namespace.clone(),
            labels: facts.labels.clone(),
            owner: None,
        });
        let key = Key { namespace: "".into(), name: facts.name.clone() };
        let pod = self.new_pod(key, facts.name.clone(), class);
        let (name, left) = (facts.name.clone(), facts.template.requests.clone());
        self.reservations.names.insert(pod, name.clone());
        let held = Held { facts, pod, node: "".into(), left, drawn: BTreeMap::new() };
        self.reservations.held.insert(name, held);
        pod
    }

    /// A reservation is gone. Returns the node on which it held something.
    pub fn remove_reservation(&mut self, name: &str) -> Option<NodeId> {
        let held = self.reservations.held.remove(name)?;
        self.reservations.matched.clear();
        self.reservations.names.remove(&held.pod);
        self.reservations.draws.retain(|_, drawn| **drawn != *name);
        let node = self.pod_node(held.pod);
        self.drop_pod(held.pod);
        node
    }

    /// Reservations whose time is over.
    pub fn expired_reservations(&self, now: Timestamp) -> Vec<Arc<str>> {
        let over = |held: &&Held| held.facts.expires.is_some_and(|at| at <= now);
        self.reservations.held.values().filter(over).map(|held| held.facts.name.clone()).collect()
    }
    /// Ends reservations whose time is over. Returns their names, and the nodes on which something became free.
    pub fn expire_reservations(&mut self, now: Timestamp) -> Vec<(Arc<str>, Option<NodeId>)> {
        let names = self.expired_reservations(now);
        names.into_iter().map(|name| (name.clone(), self.remove_reservation(&name))).collect()
    }
    /// When the next reservation ends by itself.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.reservations.held.values().filter_map(|held| held.facts.expires).min()
    }

    /// How a reservation stands, and the pods that draw on it.
    pub fn reservation(&self, name: &str) -> Option<(ReservationState, Vec<PodId>)> {
        let held = self.reservations.held.get(name)?;
        let standing = match self.pod_node(held.pod) {
            _ if held.node.is_empty() => ReservationState::Pending,
            _ if held.is_used_up() => ReservationState::Taken,
            Some(node) => ReservationState::Available(node, held.left.clone()),
            None => ReservationState::Taken,
        };
        Some((standing, held.drawn.keys().copied().collect()))
    }
    /// The number of a reservation.
    pub fn reservation_id(&self, name: &str) -> Option<PodId> {
        self.reservations.held.get(name).map(|held| held.pod)
    }
    /// Whether this number is a reservation's.
    pub fn is_reservation(&self, pod: PodId) -> bool {
        self.reservations.holds(pod)
    }
    /// The reservation that a pod draws on.
    pub fn drawn_on(&self, pod: PodId) -> Option<&Arc<str>> {
        self.reservations.draws.get(&pod)
    }

    /// A placed pod draws on a reservation: it was bound so before this pool knew it. Returns whether it does now.
    pub fn draw(&mut self, pod: PodId, name: &str) -> bool {
        let there = self.reservations.held.get(name).is_some_and(|held| !held.node.is_empty());
        if !there || self.reservations.draws.contains_key(&pod) {
            return false;
        }
        self.draw_on(pod, &name.into());
        self.confirm_draw(pod);
        true
    }

    /// A pod that draws is bound: what it leaves of a reservation that may be allocated once is free.
    pub(crate) fn confirm_draw(&mut self, pod: PodId) {
        let Some(name) = self.reservations.draws.get(&pod).cloned() else { return };
        if let Some(held) = self.reservations.held.get_mut(&name)
            && held.facts.allocate_once
            && !held.left.is_empty()
        {
            held.left.clear();
            self.hold(&name);
        }
    }

    fn draw_on(&mut self, pod: PodId, name: &Arc<str>) {
        let requests = self.class(self.entry(pod).class).spec().requests.clone();
        let Some(held) = self.reservations.held.get_mut(name) else { return };
        let taken: Amounts = held.left.iter().map(|(n, left)| (n.clone(), amount(&requests, n).min(*left))).collect();
        held.left = plus(&held.left, &taken, -1);
        held.drawn.insert(pod, taken);
        self.reservations.draws.insert(pod, name.clone());
        self.hold(name);
    }

    /// A pod draws no longer. `ended`: because it has come and gone, so that one that may be allocated once stays used up.
    pub(crate) fn give_back(&mut self, pod: PodId, ended: bool) {
        let Some(name) = self.reservations.draws.remove(&pod) else { return };
        let Some(held) = self.reservations.held.get_mut(&name) else { return };
        let taken = held.drawn.remove(&pod).unwrap_or_default();
        held.left = match ended && held.facts.allocate_once {
            true => Amounts::new(),
            false => plus(&held.left, &taken, 1),
        };
        self.hold(&name);
    }

    /// What a pod draws on, to be handed on when it gets another number.
    pub(crate) fn hand_over_draw(&mut self, from: PodId) -> Option<(Arc<str>, Amounts)> {
        let name = self.reservations.draws.remove(&from)?;
        let taken = self.reservations.held.get_mut(&name)?.drawn.remove(&from)?;
        Some((name, taken))
    }
    pub(crate) fn take_over_draw(&mut self, to: PodId, (name, taken): (Arc<str>, Amounts)) {
        if let Some(held) = self.reservations.held.get_mut(&name) {
            held.drawn.insert(to, taken);
            self.reservations.draws.insert(to, name);
        }
    }

    /// A reservation gets its node.
    pub(crate) fn settle_reservation(&mut self, placeholder: PodId, node: NodeId) {
        let at = self.node_name(node).clone();
        let Some(name) = self.reservations.names.get(&placeholder).cloned() else { return };
        if let Some(held) = self.reservations.held.get_mut(&name) {
            held.node = at;
        }
        self.hold(&name);
    }

    /// Makes a reservation's placeholder hold what is left of it.
    fn hold(&mut self, name: &Arc<str>) {
        let Some(held) = self.reservations.held.get(name) else { return };
        let (pod, node, left) = (held.pod, held.node.clone(), held.left.clone());
        let template = &held.facts.template;
        let spec = SchedulingSpec {
            nominal: (amount(&left, "cpu"), amount(&left, "memory")),
            requests: left.clone(),
            host_ports: template.host_ports.clone(),
            disks: template.disks.clone(),
            // Nobody is more important: it is nobody's victim.
            priority: i32::MAX,
            never_preempts: true,
            ..SchedulingSpec::default()
        };
        self.detach(pod);
        self.drop_orphan(pod);
        let key = ClassKey { spec: Arc::new(spec), namespace: "".into(), labels: Arc::default(), owner: None };
        let class = self.intern_class(key);
        let old = std::mem::replace(&mut self.entry_mut(pod).class, class);
        self.release_class(old);
        if left.is_empty() || node.is_empty() {
            return;
        }
        match self.node_id(&node) {
            Some(node) => self.attach(pod, node),
            None => self.add_orphan(pod, node),
        }
    }

    /// Whether a reservation is for a pod.
    pub(crate) fn is_reserved_for(&self, placeholder: PodId, pod: PodId) -> bool {
        let Some(held) = self.reservations.of(placeholder) else { return false };
        let (class, name) = (&self.class(self.entry(pod).class).key, &self.entry(pod).key.name);
        let named = |owner: &ReservationOwner| owner.pod.as_ref().is_none_or(|pod| pod == name);
        let open = !held.is_used_up() && !self.reservations.holds(pod);
        open && held.facts.owners.iter().any(|owner| named(owner) && means_class(owner, class))
    }

    /// Placeholders that are on a node and for a pod, with their node, what it would use most of first.
    fn reserved_for(&mut self, pod: PodId) -> Vec<(PodId, NodeId)> {
        let class = self.entry(pod).class;
        if !self.reservations.matched.contains_key(&class) {
            let key = &self.class(class).key;
            let means = |held: &&Held| held.facts.owners.iter().any(|owner| means_class(owner, key));
            let found = self.reservations.held.values().filter(means).map(|held| held.pod).collect();
            self.reservations.matched.insert(class, found);
        }
        let matched = &self.reservations.matched[&class];
        let placed = matched.iter().filter(|held| self.entry(**held).node != NOWHERE);
        let mut found: Vec<PodId> = placed.copied().filter(|held| self.is_reserved_for(*held, pod)).collect();
        let rank =
            |held: &PodId| (Reverse(self.use_of(*held, pod)), self.entry(*held).node, self.pod_key(*held).clone());
        found.sort_by_cached_key(rank);
        found.into_iter().map(|held| (held, self.entry(held).node)).collect()
    }

    /// How much of a reservation a pod would use, 0 to 100.
    fn use_of(&self, placeholder: PodId, pod: PodId) -> i64 {
        let Some(held) = self.reservations.of(placeholder).filter(|held| !held.left.is_empty()) else { return 0 };
        let requests = &self.class(self.entry(pod).class).spec().requests;
        let share = |(name, left): &(Arc<str>, i64)| amount(requests, name).min(*left).saturating_mul(100) / left;
        held.left.iter().map(share).sum::<i64>() / held.left.len() as i64
    }

    /// The reservation that a pod is to draw on, and its node.
    pub(crate) fn reserved_place(&mut self, pod: PodId) -> Option<(PodId, NodeId)> {
        if self.reservations.is_empty() || self.reservations.holds(pod) {
            return None;
        }
        let found = self.reserved_for(pod);
        self.first_that_lets_in(pod, found)
    }

    /// The same by asking every reservation: what [`Pool::reserved_place`] must agree with.
    pub(crate) fn reserved_place_in_full(&mut self, pod: PodId) -> Option<(PodId, NodeId)> {
        if self.reservations.holds(pod) {
            return None;
        }
        let all: Vec<PodId> = self.reservations.names.keys().copied().collect();
        let mut best: Option<(Rank, PodId)> = None;
        for held in all {
            let node = self.entry(held).node;
            if node == NOWHERE || !self.is_reserved_for(held, pod) {
                continue;
            }
            self.detach(held);
            let verdict = self.evaluate(pod).verdicts.into_iter().find(|(at, _)| *at == node);
            self.reattach(held, node);
            let rank = (Reverse(self.use_of(held, pod)), node, self.pod_key(held).clone());
            if verdict.is_some_and(|(_, verdict)| verdict.is_ok())
                && best.as_ref().is_none_or(|(least, _)| rank < *least)
            {
                best = Some((rank, held));
            }
        }
        best.map(|((_, node, _), held)| (held, node))
    }

    fn first_that_lets_in(&mut self, pod: PodId, found: Vec<(PodId, NodeId)>) -> Option<(PodId, NodeId)> {
        if found.is_empty() {
            return None;
        }
        let class = self.entry(pod).class;
        // Placeholders have no labels and no terms: what is around a class does not change with them.
        let around = if self.heeds_others(class) { self.surroundings(class) } else { Surroundings::default() };
        let guests = self.guests(pod);
        found.into_iter().find(|(held, node)| {
            self.detach(*held);
            let alone = self.with_filters(class, &around, |filters| self.verdict(filters, *node).is_ok());
            let others = guests.iter().find(|(at, _)| at == node).map(|(_, guests)| guests.clone());
            let fits =
                alone == Some(true) && others.is_none_or(|guests| self.verdict_with(pod, *node, &guests).is_ok());
            self.reattach(*held, *node);
            fits
        })
    }

    /// When a pod that is about to be placed on a node draws on a reservation there, notes that it does.
    pub(crate) fn draw_there(&mut self, pod: PodId, node: NodeId) {
        let found: Vec<(PodId, NodeId)> = self.reserved_for(pod).into_iter().filter(|(_, at)| *at == node).collect();
        if let Some((held, _)) = self.first_that_lets_in(pod, found)
            && let Some(name) = self.reservations.names.get(&held).cloned()
        {
            self.draw_on(pod, &name);
        }
    }

    /// The reservation that keeps a move's target free until the pod that replaces the moved one is there: set and assumed on
    /// `moved.to` before the old pod is evicted, so that nobody else takes the room meanwhile. It is for pods of the same controller
    /// (without one: with the same labels) in the moved pod's namespace, and allocated once.
    pub fn reservation_for(&self, moved: &crate::Move, name: Arc<str>, expires: Timestamp) -> Reservation {
        let class = &self.class(self.entry(moved.pod).class).key;
        let labels = class.owner.is_none().then(|| LabelSelector::from_labels(class.labels.iter()));
        let owner = ReservationOwner {
            namespace: Some(class.namespace.clone()),
            pod: None,
            controller: class.owner.clone(),
            labels,
        };
        Reservation {
            name,
            namespace: class.namespace.clone(),
            labels: class.labels.clone(),
            template: class.spec.clone(),
            owners: vec![owner],
            allocate_once: true,
            expires: Some(expires),
        }
    }
}

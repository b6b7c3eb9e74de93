//! Reservation objects: read into the pool, and what became of them told in their status, in Koordinator's words.

use super::{Order, Purpose, Scheduler};
use model::effect::{Status, Target};
use model::scheduling::{Amounts, ReservationFacts, ReservationStatus};
use model::{Condition, Effect, Key, Kind, Timestamp, condition};
use placement::{Hint, PodId, ReservationState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// It has no node yet.
const PENDING: &str = "Pending";
/// It holds room.
const AVAILABLE: &str = "Available";
/// A pod has it that may have it alone.
const SUCCEEDED: &str = "Succeeded";
/// It has ended without that.
const FAILED: &str = "Failed";

/// One object.
struct Known {
    kind: Kind,
    facts: ReservationFacts,
    /// Why it has no node.
    said: Arc<str>,
    /// What its status says.
    written: ReservationStatus,
}

/// All of them.
#[derive(Default)]
pub(super) struct Reserved {
    known: BTreeMap<Arc<str>, Known>,
    /// Those that had a node before this scheduler knew them.
    settled_before: Vec<Arc<str>>,
    /// Pods that draw on reservations that are not known yet.
    draws: BTreeMap<Key, Arc<str>>,
}

impl Reserved {
    /// A placed pod says that it draws on a reservation of which nothing is known.
    pub(super) fn expect(&mut self, pod: &Key, name: &str) {
        self.draws.insert(pod.clone(), name.into());
    }
    pub(super) fn forget(&mut self, pod: &Key) {
        self.draws.remove(pod);
    }
    /// A pending one was refused.
    pub(super) fn refused(&mut self, name: &str, why: &str) {
        if let Some(known) = self.known.get_mut(name) {
            known.said = why.into();
        }
    }
    /// Its uid; empty when nobody has said it.
    pub(super) fn uid(&self, name: &str) -> Arc<str> {
        self.known.get(name).map(|known| known.facts.uid.clone()).unwrap_or_default()
    }
}

fn is_final(phase: &str) -> bool {
    matches!(phase, SUCCEEDED | FAILED)
}

impl Scheduler {
    /// A Reservation object is now as given. One that has ended stays so.
    pub fn reserve(&mut self, kind: Kind, facts: ReservationFacts) {
        let name = facts.reservation.name.clone();
        if self.reserved.known.get(&name).is_some_and(|known| known.facts.uid != facts.uid) {
            self.unreserve(&name);
        }
        let ended = match self.reserved.known.get(&name) {
            Some(known) => is_final(known.written.phase),
            None => is_final(&facts.phase),
        };
        if !ended {
            self.reservation(facts.reservation.clone());
        }
        let phase = [SUCCEEDED, FAILED, AVAILABLE].into_iter().find(|phase| **phase == *facts.phase);
        match self.reserved.known.get_mut(&name) {
            Some(known) => known.facts = facts,
            None => {
                if phase == Some(AVAILABLE) && !facts.node.is_empty() {
                    self.reserved.settled_before.push(name.clone());
                }
                let node = facts.node.clone();
                let written = ReservationStatus { phase: phase.unwrap_or_default(), node, ..Default::default() };
                self.reserved.known.insert(name, Known { kind, facts, said: "".into(), written });
            }
        }
    }

    /// A Reservation object is gone: what it held is free.
    pub fn unreserve(&mut self, name: &str) {
        self.reserved.known.remove(name);
        self.reservation_gone(name);
    }

    /// Those that had their node before, on it; pods that drew on them do again. Done when all facts are in.
    pub(super) fn settle_known_reservations(&mut self) {
        for name in std::mem::take(&mut self.reserved.settled_before) {
            let node = self.reserved.known.get(&name).and_then(|known| self.pool.node_id(&known.written.node));
            let (Some(node), Some(id)) = (node, self.pool.reservation_id(&name)) else { continue };
            self.let_go(id);
            self.pool.assume(id, node);
            let draw: Vec<PodId> = (self.reserved.draws.iter())
                .filter(|(_, drawn)| **drawn == name)
                .filter_map(|(pod, _)| self.pool.pod_id(&pod.namespace, &pod.name))
                .collect();
            for pod in draw {
                self.pool.draw(pod, &name);
            }
            self.reserved.draws.retain(|_, drawn| *drawn != name);
            self.queue.wake(&self.pool, &Hint::Reserved(id));
        }
    }

    /// Writes the status of those with which something has happened.
    pub(super) fn tell_of_reservations(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        if self.reserved.known.is_empty() {
            return;
        }
        let changed: Vec<(Target, ReservationStatus)> = (self.reserved.known.values())
            .filter(|known| !is_final(known.written.phase))
            .filter_map(|known| {
                let status = self.reservation_status(known, now)?;
                let key = Key { namespace: "".into(), name: known.facts.reservation.name.clone() };
                Some((Target { kind: known.kind, key, uid: known.facts.uid.clone(), revision: 0 }, status))
            })
            .collect();
        for (target, status) in changed {
            if status.phase == FAILED {
                self.reservation_gone(&target.key.name);
            }
            if let Some(known) = self.reserved.known.get_mut(&target.key.name) {
                known.written = status.clone();
            }
            let order = self.order(Purpose::Tell, vec![Effect::PatchStatus(target, Status::Reservation(status))]);
            orders.push(order);
        }
    }

    /// The status as it should be; None: as it is.
    fn reservation_status(&self, known: &Known, now: Timestamp) -> Option<ReservationStatus> {
        let (facts, before) = (&known.facts, &known.written);
        let (state, drawn) = match self.pool.reservation(&facts.reservation.name) {
            Some((state, drawn)) => (Some(state), drawn),
            None => (None, Vec::new()),
        };
        let bound = drawn.iter().all(|pod| !self.told.contains_key(self.pool.pod_key(*pod)));
        let (phase, ready, reason, message) = match &state {
            None => (FAILED, false, "Expired", ""),
            Some(ReservationState::Pending) => (PENDING, false, "Unschedulable", &*known.said),
            Some(_) if facts.reservation.allocate_once && !drawn.is_empty() && bound => {
                (SUCCEEDED, false, "Succeeded", "")
            }
            Some(ReservationState::Taken) if drawn.is_empty() => (FAILED, false, "Expired", "its node is gone"),
            Some(_) => (AVAILABLE, true, "Available", ""),
        };
        let node = match state {
            Some(ReservationState::Available(node, _)) => self.pool.node_name(node).clone(),
            _ => before.node.clone(),
        };
        let node = match drawn.first().and_then(|pod| self.pool.pod_node(*pod)) {
            Some(at) if node.is_empty() => self.pool.node_name(at).clone(),
            _ => node,
        };
        let kind = if phase == PENDING { "Scheduled" } else { "Ready" };
        let mut conditions = before.conditions.clone();
        if phase != PENDING {
            condition::set(&mut conditions, Condition::new("Scheduled", true, "Scheduled", "", now));
        }
        if phase != PENDING || !message.is_empty() {
            condition::set(&mut conditions, Condition::new(kind, ready, reason, message, now));
        }
        let mut owners: Vec<(Key, Arc<str>)> =
            drawn.iter().map(|pod| (self.pool.pod_key(*pod).clone(), self.pool.pod_uid(*pod).clone())).collect();
        owners.sort();
        let held = phase != PENDING && !node.is_empty();
        let allocatable = if held { facts.reservation.template.requests.clone() } else { Amounts::new() };
        let allocated = self.drawn_of(&allocatable, &drawn);
        let status = ReservationStatus { phase, node, allocatable, allocated, owners, conditions };
        (status != *before).then_some(status)
    }

    /// How much of a reservation pods have.
    fn drawn_of(&self, of: &Amounts, drawn: &[PodId]) -> Amounts {
        let by = |pod: &PodId, resource: &str| {
            let requests = self.pool.pod_requests(*pod).iter();
            requests.filter(|(name, _)| **name == *resource).map(|(_, amount)| *amount).sum::<i64>()
        };
        let taken = |resource: &str, most: i64| drawn.iter().map(|pod| by(pod, resource)).sum::<i64>().min(most);
        of.iter().map(|(name, most)| (name.clone(), taken(name, *most))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ResourceType;
    use model::scheduling::{NodeFacts, NodeScheduling, PodFacts, Reservation, ReservationOwner, SchedulingSpec};
    use model::{LabelSelector, Labels};

    const KIND: Kind = Kind::Other(&ResourceType {
        group: "scheduling.koordinator.sh",
        version: "v1alpha1",
        plural: "reservations",
        kind: "Reservation",
        namespaced: false,
    });

    fn node(scheduler: &mut Scheduler, name: &str, cores: i64) {
        let allocatable = vec![("cpu".into(), cores * 1000), ("pods".into(), 110)];
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        scheduler.node(NodeFacts { name: name.into(), scheduling, ..NodeFacts::default() });
    }

    fn labels(app: &str) -> Labels {
        [("app".into(), app.into())].into_iter().collect()
    }

    fn spec(cores: i64) -> Arc<SchedulingSpec> {
        Arc::new(SchedulingSpec { requests: vec![("cpu".into(), cores * 1000)], ..SchedulingSpec::default() })
    }

    fn pod(name: &str, app: &str, cores: i64, node: &str) -> PodFacts {
        PodFacts {
            namespace: "team".into(),
            name: name.into(),
            uid: name.into(),
            labels: Arc::new(labels(app)),
            spec: spec(cores),
            node: node.into(),
            ..PodFacts::default()
        }
    }

    fn held(cores: i64, once: bool) -> ReservationFacts {
        let labels = Some(LabelSelector::from_labels(&labels("web")));
        let reservation = Reservation {
            name: "r".into(),
            namespace: "team".into(),
            template: spec(cores),
            owners: vec![ReservationOwner { labels, ..ReservationOwner::default() }],
            allocate_once: once,
            expires: Some(Timestamp::from_secs(100)),
            ..Reservation::default()
        };
        ReservationFacts { reservation, uid: "u".into(), ..ReservationFacts::default() }
    }

    /// What is ordered: bindings, and statuses as `phase node cores-allocated/of owners`.
    fn step(scheduler: &mut Scheduler, at: i64) -> Vec<String> {
        let orders = scheduler.step(Timestamp::from_secs(at), 100);
        let core = |amounts: &Amounts| amounts.iter().map(|(_, amount)| amount / 1000).sum::<i64>();
        let tell = |effect: &Effect| match effect {
            Effect::Bind { pod, node, .. } => Some(format!("{} to {node}", pod.key.name)),
            Effect::PatchStatus(_, Status::Reservation(s)) => {
                let owners: Vec<&str> = s.owners.iter().map(|(key, _)| &*key.name).collect();
                let why: Vec<&str> =
                    s.conditions.iter().filter(|c| &*c.kind != "Scheduled").map(|c| &*c.reason).collect();
                let (used, all) = (core(&s.allocated), core(&s.allocatable));
                Some(format!("{} {} {used}/{all} {owners:?} {why:?}", s.phase, s.node))
            }
            _ => None,
        };
        orders.iter().flat_map(|order| &order.effects).filter_map(tell).collect()
    }

    #[test]
    fn one_that_may_be_allocated_once_succeeds_with_its_first_pod() {
        let mut scheduler = Scheduler::new();
        scheduler.reserve(KIND, held(2, true));
        assert_eq!(step(&mut scheduler, 1), ["Pending  0/0 [] []"]);
        node(&mut scheduler, "n", 3);
        assert_eq!(step(&mut scheduler, 2), [r#"Available n 0/2 [] ["Available"]"#]);
        scheduler.pod_facts(&pod("other", "db", 2, ""), false, true, None);
        assert!(step(&mut scheduler, 3).is_empty(), "it is not for everybody");
        scheduler.pod_facts(&pod("web", "web", 1, ""), false, true, None);
        let told = step(&mut scheduler, 4);
        assert_eq!(told, ["web to n", r#"Available n 1/2 ["web"] ["Available"]"#]);
        scheduler.pod_facts(&pod("web", "web", 1, "n"), false, true, None);
        let mut told = step(&mut scheduler, 5);
        told.sort();
        assert_eq!(told, [r#"Succeeded n 1/2 ["web"] ["Succeeded"]"#, "other to n"], "what it left is free");
        let again = ReservationFacts { phase: "Succeeded".into(), node: "n".into(), ..held(2, true) };
        scheduler.reserve(KIND, again);
        assert!(step(&mut scheduler, 200).is_empty(), "it has ended");
    }

    #[test]
    fn one_that_may_be_shared_lasts_until_its_time_is_over() {
        let mut scheduler = Scheduler::new();
        node(&mut scheduler, "n", 2);
        scheduler.reserve(KIND, held(2, false));
        assert_eq!(step(&mut scheduler, 1), [r#"Available n 0/2 [] ["Available"]"#]);
        for name in ["a", "b"] {
            scheduler.pod_facts(&pod(name, "web", 1, ""), false, true, None);
        }
        assert_eq!(step(&mut scheduler, 2)[2], r#"Available n 2/2 ["a", "b"] ["Available"]"#);
        for name in ["a", "b"] {
            scheduler.pod_facts(&pod(name, "web", 1, "n"), false, true, None);
        }
        scheduler.pod_facts(&pod("a", "web", 1, "n"), true, true, None);
        assert_eq!(step(&mut scheduler, 3), [r#"Available n 1/2 ["b"] ["Available"]"#]);
        assert_eq!(step(&mut scheduler, 100), [r#"Failed n 0/2 [] ["Expired"]"#]);
        scheduler.reserve(KIND, held(2, false));
        assert!(step(&mut scheduler, 101).is_empty(), "a late fact does not revive it");
        scheduler.unreserve("r");
        let lasting = held(1, false);
        let lasting = Reservation { expires: None, ..lasting.reservation };
        scheduler.reserve(KIND, ReservationFacts { reservation: lasting, ..held(1, false) });
        assert_eq!(step(&mut scheduler, 102), [r#"Available n 0/1 [] ["Available"]"#]);
    }

    #[test]
    fn after_a_restart_it_is_where_it_was() {
        let mut scheduler = Scheduler::new();
        scheduler.reserve(KIND, ReservationFacts { phase: "Available".into(), node: "b".into(), ..held(2, false) });
        scheduler.pod_facts(&pod("web", "web", 1, "b"), false, true, None);
        scheduler.reserved.expect(&Key::new("team", "web"), "r");
        node(&mut scheduler, "a", 8);
        node(&mut scheduler, "b", 2);
        assert_eq!(step(&mut scheduler, 1), [r#"Available b 1/2 ["web"] ["Available"]"#]);
        scheduler.pod_facts(&pod("next", "web", 1, ""), false, true, None);
        assert_eq!(step(&mut scheduler, 2)[0], "next to b");
    }
}

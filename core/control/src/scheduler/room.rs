//! Room that is made for several pods at once, and within a quota: who has to go, and what those who asked are told meanwhile.
//!
//! A gang takes pods of lower priority, wherever they run. Pods that their quota refuses take only pods of lower priority of
//! the same quota, as Koordinator's ElasticQuota does, though not only from one node; what others have borrowed is taken back by
//! [`super::quota`]. Nobody is taken twice for the same: who is on his way out counts as gone.

use super::gang::Site;
use super::{NAME, Order, Purpose, Scheduler};
use model::effect::{Propagation, Record, Status};
use model::{Condition, Effect, Key, Timestamp, Truth};
use placement::{Band, Clearance, Decision, Hint, NodeId, PodId, Pool};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Pods that cannot be placed now.
pub(super) struct Ask<'a> {
    /// They wait; at least `missing` of them are to be placed together.
    pub(super) pods: &'a [PodId],
    pub(super) missing: usize,
    /// Their gang, and where it may be; a pod by itself has none.
    pub(super) gang: Option<(&'a Key, Site)>,
    /// It is their quota that refuses them.
    pub(super) over_quota: bool,
    /// Where room had been made for them before.
    pub(super) nominated: Vec<(PodId, NodeId)>,
}

impl Scheduler {
    /// Where room has been made for pods, so far.
    pub(super) fn nominations(&self, pods: &[PodId]) -> Vec<(PodId, NodeId)> {
        pods.iter().filter_map(|id| Some((*id, self.pool.pod_nominated(*id)?))).collect()
    }

    /// Makes room, if there is any to be made. Afterwards they are nominated to where it is, or nowhere.
    pub(super) fn make_room(&mut self, ask: &Ask<'_>, now: Timestamp, orders: &mut Vec<Order>) {
        for (id, node) in &ask.nominated {
            self.pool.set_nominated(*id, Some(*node));
        }
        if self.waits_for_victims(ask) {
            return;
        }
        let clearance = self.find_room(ask);
        ask.pods.iter().for_each(|id| self.pool.set_nominated(*id, None));
        if let Some(clearance) = &clearance {
            self.clear(ask, clearance, now, orders);
        }
        for (id, node) in &ask.nominated {
            if self.pool.pod_nominated(*id) != Some(*node) {
                self.release_hold(*node);
            }
        }
    }

    /// Room on a node is held for somebody no longer: whoever was refused for his sake may have it.
    pub(super) fn release_hold(&mut self, node: NodeId) {
        self.queue.wake(&self.pool, &Hint::PodLeft(node));
        self.free_quotas();
    }

    /// What a pod's status is to say of where room is made for it.
    pub(super) fn nominated_now(&self, id: PodId) -> Option<Arc<str>> {
        Some(self.pool.pod_nominated(id).map_or_else(|| "".into(), |node| self.pool.node_name(node).clone()))
    }

    fn priority_of(&self, pods: &[PodId]) -> i32 {
        pods.iter().map(|id| self.pool.pod_priority(*id)).min().unwrap_or(i32::MIN)
    }

    /// Room that was made is not free yet: it is waited for, rather than more taken.
    fn waits_for_victims(&self, ask: &Ask<'_>) -> bool {
        let priority = self.priority_of(ask.pods);
        let nodes: BTreeSet<NodeId> = ask.nominated.iter().map(|(_, node)| *node).collect();
        let leaves = |id: &PodId| self.pool.is_terminating(*id) && self.pool.pod_priority(*id) < priority;
        !ask.over_quota && nodes.iter().any(|node| self.pool.pods_on(*node).any(|id| leaves(&id)))
    }

    fn find_room(&mut self, ask: &Ask<'_>) -> Option<Clearance> {
        if ask.pods.len() < ask.missing || ask.pods.iter().any(|id| self.pool.never_preempts(*id)) {
            return None;
        }
        let priority = self.priority_of(ask.pods);
        let mut may_go = self.pool.placed_below(priority);
        if ask.over_quota {
            self.retain_of_same_quota(&mut may_go, ask.pods);
        }
        if may_go.is_empty() {
            return None;
        }
        let mut bands = Vec::new();
        for gang in self.gangs_of_any(&may_go) {
            let band = self.band(&gang);
            if ask.gang.as_ref().is_some_and(|(own, _)| **own == gang) {
                may_go.retain(|id| !band.placed.contains(id));
            } else {
                bands.push(band);
            }
        }
        let site = ask.gang.as_ref().map(|(_, site)| site.clone());
        let Scheduler { pool, quotas, .. } = self;
        let (candidates, pods, missing) = (may_go.clone(), ask.pods, ask.missing);
        pool.make_room(pods, &may_go, &bands, &mut |pool: &mut Pool| {
            let admitted = quotas.without(pool, &candidates, |quotas, pool| quotas.within(pool, pods));
            if admitted.len() < missing {
                return None;
            }
            match &site {
                Some(site) => site.place(pool, &admitted, missing),
                None => place_one(pool, pods[0]),
            }
        })
    }

    /// Ends the victims, and nominates.
    fn clear(&mut self, ask: &Ask<'_>, clearance: &Clearance, now: Timestamp, orders: &mut Vec<Order>) {
        let by = match &ask.gang {
            Some((gang, _)) => format!("pod group {gang}"),
            None => format!("pod {}", ask.pods.first().map(|id| self.pool.pod_uid(*id).clone()).unwrap_or_default()),
        };
        let gangs: BTreeSet<Key> = clearance.victims.iter().filter_map(|victim| self.gang_of(victim.pod)).collect();
        for victim in clearance.victims.iter().filter(|victim| !victim.terminating) {
            self.end_victim(victim.pod, &by, now, orders);
        }
        for gang in gangs {
            // It is none any more: those who come in place of its pods are placed together again.
            let band = self.band(&gang);
            let stays = band.placed.iter().filter(|id| !self.pool.is_terminating(**id)).count();
            if stays < band.least {
                self.whole.remove(&gang);
            }
        }
        self.displace(&clearance.displaced, orders);
        for (id, node) in &clearance.placed {
            self.pool.set_nominated(*id, Some(*node));
        }
    }

    /// A pod has to go.
    pub(super) fn end_victim(&mut self, id: PodId, by: &str, now: Timestamp, orders: &mut Vec<Order>) {
        let node = self.pool.pod_node(id).map(|node| self.pool.node_name(node).clone()).unwrap_or_default();
        let target = self.target(id);
        let whom = if by.starts_with("pod group") { "pod group" } else { "pod" };
        let condition = Condition {
            kind: "DisruptionTarget".into(),
            status: Truth::True,
            reason: "PreemptionByScheduler".into(),
            message: format!("{NAME}: preempting to accommodate a higher priority {whom}").into(),
            last_transition: now,
            last_update: now,
        };
        let note = Record {
            about: target.clone(),
            warning: false,
            reason: "Preempted".into(),
            message: format!("Preempted by {by} on node {node}").into(),
            source: NAME,
            at: now,
        };
        let status = Status::PodConditions { conditions: vec![condition], nominated_node: None };
        let effects = vec![
            Effect::PatchStatus(target.clone(), status),
            Effect::Delete { target, grace_s: None, propagation: Propagation::Default },
            Effect::Record(note),
        ];
        self.pool.set_terminating(id);
        let order = self.order(Purpose::End(effects.clone()), effects);
        orders.push(order);
    }

    /// Pods for which room was made where others come now: they are to look elsewhere.
    pub(super) fn displace(&mut self, displaced: &[PodId], orders: &mut Vec<Order>) {
        for id in displaced {
            self.pool.set_nominated(*id, None);
            let key = self.pool.pod_key(*id).clone();
            self.told.entry(key).or_default().nominated = "".into();
            let status = Status::PodConditions { conditions: Vec::new(), nominated_node: Some("".into()) };
            let order = self.order(Purpose::Tell, vec![Effect::PatchStatus(self.target(*id), status)]);
            orders.push(order);
            self.queue.push(*id, self.pool.pod_priority(*id));
        }
    }

    fn gangs_of_any(&self, pods: &[PodId]) -> Vec<Key> {
        if self.gangs.is_empty() {
            return Vec::new();
        }
        let pods: BTreeSet<PodId> = pods.iter().copied().collect();
        let noted = self.gangs.iter().filter(|(_, members)| members.iter().any(|id| pods.contains(id)));
        noted.map(|(gang, _)| gang.clone()).collect()
    }

    /// A gang as it runs.
    fn band(&mut self, gang: &Key) -> Band {
        let members = self.members(gang);
        let least = self.least_of(gang, &members);
        Band { placed: members.into_iter().filter(|id| self.pool.pod_node(*id).is_some()).collect(), least }
    }
}

fn place_one(pool: &mut Pool, pod: PodId) -> Option<Vec<(PodId, NodeId)>> {
    let Decision::Place(placement) = pool.decide(pod) else { return None };
    pool.assume(pod, placement.node);
    Some(vec![(pod, placement.node)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Labels;
    use model::scheduling::{NodeFacts, NodeScheduling, PodFacts, QuotaFacts, SchedulingSpec};

    const GANG: &str = "pod-group.scheduling.sigs.k8s.io/name";
    const LEAST: &str = "pod-group.scheduling.sigs.k8s.io/min-available";
    const QUOTA: &str = "quota.scheduling.koordinator.sh/name";

    fn scheduler(nodes: usize, milli: i64) -> Scheduler {
        let mut scheduler = Scheduler::new();
        for n in 0..nodes {
            let allocatable = vec![("cpu".into(), milli), ("pods".into(), 110)];
            let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
            scheduler.node(NodeFacts { name: format!("n{n}").into(), scheduling, ..NodeFacts::default() });
        }
        scheduler
    }

    fn facts(name: &str, labels: &[(&str, &str)], milli: i64, priority: i32, node: &str) -> PodFacts {
        let labels: Labels = labels.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect();
        let spec = SchedulingSpec { requests: vec![("cpu".into(), milli)], priority, ..SchedulingSpec::default() };
        PodFacts {
            namespace: "team".into(),
            name: name.into(),
            uid: name.into(),
            labels: Arc::new(labels),
            spec: Arc::new(spec),
            node: node.into(),
            started: (!node.is_empty()).then(|| Timestamp::from_secs(1)),
            ..PodFacts::default()
        }
    }

    /// What is ordered: bindings, ends, and nominations that pods' statuses are to tell.
    fn step(scheduler: &mut Scheduler, at: i64) -> Vec<String> {
        let orders = scheduler.step(Timestamp::from_secs(at), 100);
        let tell = |effect: &Effect| match effect {
            Effect::Bind { pod, node, .. } => Some(format!("{} to {node}", pod.key.name)),
            Effect::Delete { target, .. } => Some(format!("end {}", target.key.name)),
            Effect::PatchStatus(target, Status::PodConditions { nominated_node: Some(node), .. }) => {
                Some(format!("{} for {node}", target.key.name))
            }
            _ => None,
        };
        let mut told: Vec<String> = orders.iter().flat_map(|order| &order.effects).filter_map(tell).collect();
        told.sort();
        told
    }

    fn come(scheduler: &mut Scheduler, facts: &PodFacts) {
        scheduler.pod_facts(facts, false, true, None);
    }
    fn go(scheduler: &mut Scheduler, facts: &PodFacts) {
        scheduler.pod_facts(facts, true, true, None);
    }

    #[test]
    fn a_gang_takes_room_for_all_of_it_or_for_none() {
        let mut scheduler = scheduler(3, 2000);
        let lows: Vec<PodFacts> = (0..3).map(|n| facts(&format!("low{n}"), &[], 1500, n, &format!("n{n}"))).collect();
        lows.iter().for_each(|low| come(&mut scheduler, low));
        let gang = [(GANG, "g"), (LEAST, "2")];
        let members: Vec<PodFacts> = ["a", "b"].iter().map(|name| facts(name, &gang, 2000, 2, "")).collect();
        members.iter().for_each(|member| come(&mut scheduler, member));
        // Two nodes can be had: the third one's pod is as important.
        assert_eq!(step(&mut scheduler, 1), ["a for n0", "b for n1", "end low0", "end low1"]);
        // They are on their way out: nobody else is, and nobody else comes into what they leave.
        let leaving = |low: &PodFacts| PodFacts { terminating: true, ..low.clone() };
        lows[..2].iter().for_each(|low| come(&mut scheduler, &leaving(low)));
        assert_eq!(step(&mut scheduler, 2), Vec::<String>::new());
        go(&mut scheduler, &lows[0]);
        come(&mut scheduler, &facts("late", &[], 2000, 1, ""));
        assert_eq!(step(&mut scheduler, 3), Vec::<String>::new());
        go(&mut scheduler, &lows[1]);
        assert_eq!(step(&mut scheduler, 4), ["a to n0", "b to n1"]);

        // Three of them would need the third node as well: nobody goes.
        let mut scheduler = self::scheduler(3, 2000);
        lows.iter().for_each(|low| come(&mut scheduler, low));
        let gang = [(GANG, "g"), (LEAST, "3")];
        ["a", "b", "c"].iter().for_each(|name| come(&mut scheduler, &facts(name, &gang, 2000, 2, "")));
        assert_eq!(step(&mut scheduler, 1), Vec::<String>::new());
    }

    #[test]
    fn a_gang_goes_whole_and_comes_back_whole() {
        let mut scheduler = scheduler(3, 1000);
        let low = [(GANG, "low"), (LEAST, "2")];
        let lows: Vec<PodFacts> = ["x", "y"].iter().map(|name| facts(name, &low, 1000, 0, "")).collect();
        lows.iter().for_each(|low| come(&mut scheduler, low));
        assert_eq!(step(&mut scheduler, 1), ["x to n0", "y to n1"]);
        let bound: Vec<PodFacts> = ["n0", "n1"]
            .iter()
            .zip(&lows)
            .map(|(node, low)| PodFacts { node: (*node).into(), ..low.clone() })
            .collect();
        bound.iter().for_each(|low| come(&mut scheduler, low));
        come(&mut scheduler, &facts("single", &[], 1000, 1, "n2"));
        // One place is enough, but half a gang is of no use: both go, rather than the more important one.
        come(&mut scheduler, &facts("a", &[(GANG, "high"), (LEAST, "1")], 1000, 5, ""));
        assert_eq!(step(&mut scheduler, 2), ["a for n0", "end x", "end y"]);
        bound.iter().for_each(|low| go(&mut scheduler, low));
        for name in ["x2", "y2"] {
            come(&mut scheduler, &facts(name, &low, 1000, 0, ""));
        }
        assert_eq!(step(&mut scheduler, 3), ["a to n0"], "there is room for half of the others");
        go(&mut scheduler, &facts("single", &[], 1000, 1, "n2"));
        assert_eq!(step(&mut scheduler, 4), ["x2 to n1", "y2 to n2"]);
    }

    #[test]
    fn within_a_quota_the_more_important_take_from_the_less() {
        let mut scheduler = scheduler(2, 4000);
        for (name, max) in [("red", 2000), ("blue", 4000)] {
            let cpu = |milli| vec![("cpu".into(), milli)];
            let quota = QuotaFacts {
                namespace: "team".into(),
                name: name.into(),
                parent: None,
                min: cpu(max),
                max: cpu(max),
                weight: 1,
            };
            assert_eq!(scheduler.quota(quota), []);
        }
        let (red, blue) = ([(QUOTA, "red")], [(QUOTA, "blue")]);
        let kept = [red[0], ("quota.scheduling.koordinator.sh/preemptible", "false")];
        let low = facts("low", &red, 700, 1, "n0");
        let lower = facts("lower", &red, 700, 0, "n1");
        for pod in [&low, &lower, &facts("kept", &kept, 500, 0, "n0"), &facts("other", &blue, 1000, 0, "n0")] {
            come(&mut scheduler, pod);
        }
        assert_eq!(step(&mut scheduler, 1), Vec::<String>::new());
        // There is room on every node: only the quota is in the way, and one of it is enough.
        come(&mut scheduler, &facts("high", &red, 800, 5, ""));
        assert_eq!(step(&mut scheduler, 2), ["end lower", "high for n0"]);
        come(&mut scheduler, &PodFacts { terminating: true, ..lower.clone() });
        // Whoever comes in between does not get what is left free for it; nobody more is taken.
        come(&mut scheduler, &facts("sly", &red, 100, 1, ""));
        assert_eq!(step(&mut scheduler, 3), Vec::<String>::new());
        go(&mut scheduler, &lower);
        assert_eq!(step(&mut scheduler, 4), ["high to n0"]);
        // More than can be taken from those who may go: nobody does.
        come(&mut scheduler, &facts("huge", &red, 1600, 5, ""));
        assert_eq!(step(&mut scheduler, 5), Vec::<String>::new());
    }
}

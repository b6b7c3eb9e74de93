//! Gangs: pods that carry the field's labels for pod groups are placed together or not at all.

use super::room::Ask;
use super::{Order, Scheduler};
use model::{Key, Labels, Timestamp};
use placement::{Hint, NodeId, PodId, Pool};
use std::sync::Arc;

/// Labels that name a pod's group: the coscheduling plugin's, the one that Koordinator reads too, and the older one.
const NAMES: [&str; 3] =
    ["scheduling.x-k8s.io/pod-group", "pod-group.scheduling.sigs.k8s.io/name", "pod-group.scheduling.sigs.k8s.io"];
/// Label that says how many have to be there.
const LEAST: &str = "pod-group.scheduling.sigs.k8s.io/min-available";

/// Annotation of a pod that names a node label: its gang is placed in as few domains of it as can be. Kueue's, for preferred topology.
const PACKED: &str = "kueue.x-k8s.io/podset-preferred-topology";
/// The same, but the gang is placed in one domain of it or not at all. Kueue's, for required topology.
const TOGETHER: &str = "kueue.x-k8s.io/podset-required-topology";

/// How near to each other a gang's pods are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packing {
    /// The node label that makes the domains.
    label: Arc<str>,
    /// In one domain, or not at all.
    required: bool,
}

/// Where a gang may be placed.
#[derive(Clone, Debug, Default)]
pub(super) struct Site {
    packing: Option<Packing>,
    /// The domain in which others of it are.
    within: Option<Arc<str>>,
}

impl Site {
    /// Places so many of the pods or none.
    pub(super) fn place(&self, pool: &mut Pool, pods: &[PodId], missing: usize) -> Option<Vec<(PodId, NodeId)>> {
        match &self.packing {
            Some(packing) if packing.required => {
                pool.decide_gang_within(pods, missing, &packing.label, self.within.clone())
            }
            Some(packing) => pool.decide_gang_packed(pods, missing, &[&*packing.label]),
            None => pool.decide_gang(pods, missing),
        }
    }
}

/// What a pod's annotations say of it.
pub(super) fn packing(annotations: &Labels) -> Option<Packing> {
    let said = |name: &str, required| Some(Packing { label: annotations.get(name)?.clone(), required });
    said(TOGETHER, true).or_else(|| said(PACKED, false))
}

/// The gang that a pod with these labels is of.
fn named(namespace: &Arc<str>, labels: &Labels) -> Option<Key> {
    let name = NAMES.iter().find_map(|label| labels.get(*label))?;
    Some(Key { namespace: namespace.clone(), name: name.clone() })
}

impl Scheduler {
    /// The gang that a pod is of.
    pub(super) fn gang_of(&self, id: PodId) -> Option<Key> {
        named(&self.pool.pod_key(id).namespace, self.pool.pod_labels(id))
    }

    /// A gang's pods want to be near to each other.
    pub(super) fn pack_gang(&mut self, namespace: &Arc<str>, labels: &Labels, packing: Packing) {
        if let Some(gang) = named(namespace, labels).filter(|gang| self.gangs.contains_key(gang)) {
            self.packed.insert(gang, packing);
        }
    }

    /// What a PodGroup says of how many of its pods there have to be; None: it is gone, or says nothing.
    pub fn pod_group(&mut self, gang: &Key, least: Option<usize>) {
        let old = match least {
            Some(least) => self.groups.insert(gang.clone(), least),
            None => self.groups.remove(gang),
        };
        if old != least {
            self.try_gang_again(gang);
        }
    }

    pub(super) fn try_gang_again(&mut self, gang: &Key) {
        for member in self.members(gang) {
            if self.queue.waits_refused(member) {
                self.queue.push(member, self.pool.pod_priority(member));
            }
        }
    }

    /// Notes a pod that is new in this form; whoever waits for it is tried again.
    pub(super) fn join_gang(&mut self, id: PodId) {
        let Some(gang) = self.gang_of(id) else { return };
        // Nobody is left of those who were whole: this is another one of that name.
        if self.members(&gang).is_empty() {
            self.whole.remove(&gang);
        }
        self.gangs.entry(gang.clone()).or_default().insert(id);
        self.try_gang_again(&gang);
    }

    /// Pods of a gang that are known, by name.
    pub(super) fn members(&mut self, gang: &Key) -> Vec<PodId> {
        let noted = self.gangs.remove(gang).unwrap_or_default();
        let known = |id: &PodId| self.pool.is_pod(*id) && self.gang_of(*id).as_ref() == Some(gang);
        let members: std::collections::BTreeSet<PodId> = noted.into_iter().filter(known).collect();
        let mut by_name: Vec<PodId> = members.iter().copied().collect();
        by_name.sort_by_key(|id| self.pool.pod_key(*id).clone());
        if members.is_empty() {
            self.whole.remove(gang);
            self.packed.remove(gang);
        } else {
            self.gangs.insert(gang.clone(), members);
        }
        by_name
    }

    /// How many of a gang have to be there. Without a number all that are known have to go together.
    pub(super) fn least_of(&self, gang: &Key, members: &[PodId]) -> usize {
        let said = || members.iter().find_map(|id| self.pool.pod_labels(*id).get(LEAST)?.parse().ok());
        self.groups.get(gang).copied().or_else(said).unwrap_or(members.len())
    }

    fn site(&self, gang: &Key, members: &[PodId]) -> Site {
        let packing = self.packed.get(gang).cloned();
        let node = members.iter().find_map(|id| self.pool.pod_node(*id));
        let within = packing.as_ref().zip(node).and_then(|(packing, node)| self.pool.node_label(node, &packing.label));
        Site { packing, within }
    }

    /// Decides on all of a gang that wait. Returns false when they are to be placed one by one: because their claims have to be
    /// bound first, or because enough of them run already.
    pub(super) fn decide_gang(&mut self, gang: &Key, now: Timestamp, orders: &mut Vec<Order>) -> bool {
        let members = self.members(gang);
        let stays = |id: &&PodId| self.pool.pod_node(**id).is_some() && !self.pool.is_terminating(**id);
        let placed = members.iter().filter(stays).count();
        let waits =
            |id: &PodId| self.pool.pod_node(*id).is_none() && self.queue.contains(*id) && !self.pool.is_gated(*id);
        let waiting: Vec<PodId> = members.iter().copied().filter(waits).collect();
        let least = self.least_of(gang, &members);
        if placed >= least {
            self.whole.insert(gang.clone());
        }
        let site = self.site(gang, &members);
        let together = site.packing.as_ref().filter(|packing| packing.required).map(|packing| packing.label.clone());
        let whole = self.whole.contains(gang) && together.is_none();
        if whole || !waiting.iter().all(|id| self.pool.claims_ready(*id)) {
            return false;
        }
        // Who comes to a whole gang that has to be together is placed alone, but beside it.
        let missing = if self.whole.contains(gang) { 1 } else { least - placed };
        let nominated = self.nominations(&waiting);
        // They are placed one after the other: room that is held for those who follow must not be in the way of the first.
        waiting.iter().for_each(|id| self.pool.set_nominated(*id, None));
        let admitted = self.within_quota(&waiting);
        let over_quota = admitted.len() < missing;
        let outcome = if over_quota { None } else { site.place(&mut self.pool, &admitted, missing) };
        let Some(bound) = outcome else {
            let why = self.why_not(gang, &waiting, &admitted, (placed, missing), together.as_ref());
            let ask = Ask { pods: &waiting, missing, gang: Some((gang, site)), over_quota, nominated };
            self.make_room(&ask, now, orders);
            let nodes = self.pool.size().nodes;
            for id in waiting.iter().copied() {
                self.queue.refuse_for_now(id);
                if waiting.len() >= missing && over_quota {
                    self.wait_for_quota(id);
                } else {
                    self.wait_for_room(id, now);
                }
                let message = format!("0/{nodes} nodes are available: {why}.");
                let nominated = self.nominated_now(id);
                self.tell(id, "Unschedulable", message, nominated, now, orders);
            }
            return true;
        };
        self.whole.insert(gang.clone());
        for (id, node) in nominated.iter().filter(|held| !bound.contains(held)) {
            if self.pool.pod_nominated(*id) != Some(*node) {
                self.release_hold(*node);
            }
        }
        for (id, node) in &bound {
            self.queue.remove(*id);
            self.account(*id);
            self.queue.wake(&self.pool, &Hint::PodCame(*id));
            let order = self.bind(*id, *node, now);
            orders.push(order);
        }
        for id in waiting {
            if self.pool.pod_node(id).is_some() {
                continue;
            }
            let Some(label) = &together else {
                self.decide_one(id, now, orders);
                continue;
            };
            self.queue.refuse_for_now(id);
            let nodes = self.pool.size().nodes;
            let message = format!("0/{nodes} nodes are available: pod group {gang}: there is no room in its {label}.");
            self.tell(id, "Unschedulable", message, None, now, orders);
        }
        true
    }

    /// Why those of a gang that wait cannot be placed. `placed` of it are, `missing` more have to be.
    fn why_not(
        &mut self,
        gang: &Key,
        waiting: &[PodId],
        admitted: &[PodId],
        (placed, missing): (usize, usize),
        together: Option<&Arc<str>>,
    ) -> String {
        if waiting.len() < missing {
            return format!("pod group {gang} has {} of at least {} pods", placed + waiting.len(), placed + missing);
        }
        let over = waiting.iter().find(|id| !admitted.contains(id)).filter(|_| admitted.len() < missing);
        let Some(over) = over else {
            let within = together.map_or_else(String::new, |label| format!(" in one {label}"));
            return format!("pod group {gang}: there is no room for {missing} more pods at once{within}");
        };
        // What the first of those that are left out would exceed, with the others there.
        admitted.iter().for_each(|id| self.count_use(*id, 1));
        let why = self.over_quota(*over).unwrap_or_default();
        admitted.iter().for_each(|id| self.count_use(*id, -1));
        format!("pod group {gang}: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Effect;
    use model::scheduling::{NodeFacts, NodeScheduling, PodFacts, SchedulingSpec};

    fn node(scheduler: &mut Scheduler, name: &str, cpu: i64) {
        let allocatable = vec![("cpu".into(), cpu), ("pods".into(), 110)];
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        scheduler.node(NodeFacts { name: name.into(), scheduling, ..NodeFacts::default() });
    }

    fn pod(scheduler: &mut Scheduler, name: &str, group: &str, least: &str) {
        let labels = [(NAMES[1], group), (LEAST, least)].into_iter().filter(|(_, value)| !value.is_empty());
        let labels: Labels = labels.map(|(key, value)| (Arc::from(key), Arc::from(value))).collect();
        let facts = PodFacts {
            namespace: "default".into(),
            name: name.into(),
            uid: name.into(),
            labels: Arc::new(labels),
            spec: Arc::new(SchedulingSpec { requests: vec![("cpu".into(), 1000)], ..SchedulingSpec::default() }),
            ..PodFacts::default()
        };
        scheduler.pod_facts(&facts, false, true, None);
    }

    /// Pods that are bound, and what the others are told.
    fn step(scheduler: &mut Scheduler) -> (Vec<String>, Vec<String>) {
        let orders = scheduler.step(Timestamp::from_secs(1), 100);
        let effects: Vec<&Effect> = orders.iter().flat_map(|order| &order.effects).collect();
        let bound = effects.iter().filter_map(|effect| match effect {
            Effect::Bind { pod, .. } => Some(pod.key.name.to_string()),
            _ => None,
        });
        let told = effects.iter().filter_map(|effect| match effect {
            Effect::Record(note) if note.warning => Some(note.message.to_string()),
            _ => None,
        });
        (bound.collect(), told.collect())
    }

    #[test]
    fn binds_all_of_a_gang_or_none() {
        let mut scheduler = Scheduler::new();
        node(&mut scheduler, "n1", 2000);
        pod(&mut scheduler, "a", "g", "3");
        pod(&mut scheduler, "b", "g", "3");
        let (bound, told) = step(&mut scheduler);
        assert_eq!(bound, Vec::<String>::new());
        assert_eq!(told, vec!["0/1 nodes are available: pod group default/g has 2 of at least 3 pods."; 2]);
        pod(&mut scheduler, "c", "g", "3");
        let (bound, told) = step(&mut scheduler);
        assert_eq!(bound, Vec::<String>::new());
        let wanted = "0/1 nodes are available: pod group default/g: there is no room for 3 more pods at once.";
        assert_eq!(told, vec![wanted; 3]);
        // Others are not in the gang's way, nor it in theirs.
        pod(&mut scheduler, "single", "", "");
        assert_eq!(step(&mut scheduler).0, vec!["single"]);
        node(&mut scheduler, "n2", 2000);
        let mut bound = step(&mut scheduler).0;
        bound.sort();
        assert_eq!(bound, vec!["a", "b", "c"]);
    }

    #[test]
    fn a_pod_group_says_how_many_and_an_annotation_where() {
        let mut scheduler = Scheduler::new();
        for (name, rack) in [("n1", "a"), ("n2", "b"), ("n3", "b"), ("n4", "a")] {
            let allocatable = vec![("cpu".into(), if rack == "a" { 1000 } else { 1500 }), ("pods".into(), 110)];
            let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
            let labels = Labels::from([("rack".into(), rack.into())]);
            scheduler.node(NodeFacts { name: name.into(), labels, scheduling, ..NodeFacts::default() });
        }
        let gang = Key::new("default", "g");
        scheduler.pod_group(&gang, Some(2));
        for name in ["a", "b"] {
            let scheduling =
                Arc::new(SchedulingSpec { requests: vec![("cpu".into(), 1000)], ..SchedulingSpec::default() });
            let meta = model::Meta {
                key: Key::new("default", name),
                uid: name.into(),
                labels: Labels::from([(NAMES[0].into(), "g".into())]),
                annotations: Labels::from([(PACKED.into(), "rack".into())]),
                ..model::Meta::default()
            };
            let spec = model::pod::PodSpec { scheduling, ..model::pod::PodSpec::default() };
            let pod = model::Pod { meta, spec, ..model::Pod::default() };
            scheduler.observe(&model::Event::Applied(model::Object::Pod(Arc::new(pod))));
            if name == "a" {
                let (bound, told) = step(&mut scheduler);
                assert_eq!(bound, Vec::<String>::new());
                assert!(told[0].contains("has 1 of at least 2 pods"), "{told:?}");
            }
        }
        let orders = scheduler.step(Timestamp::from_secs(1), 100);
        let nodes: Vec<String> = orders
            .iter()
            .flat_map(|order| &order.effects)
            .filter_map(|effect| if let Effect::Bind { node, .. } = effect { Some(node.to_string()) } else { None })
            .collect();
        assert!(nodes == ["n1", "n4"] || nodes == ["n2", "n3"], "one rack: {nodes:?}");
    }

    #[test]
    fn a_gang_that_has_to_be_together_is_in_one_domain_or_nowhere() {
        let mut scheduler = Scheduler::new();
        let rack = |scheduler: &mut Scheduler, name: &str, rack: &str| {
            let scheduling = Arc::new(NodeScheduling {
                allocatable: vec![("cpu".into(), 1000), ("pods".into(), 110)],
                images: Vec::new(),
            });
            let labels = Labels::from([("rack".into(), rack.into())]);
            scheduler.node(NodeFacts { name: name.into(), labels, scheduling, ..NodeFacts::default() });
        };
        for (name, of) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")] {
            rack(&mut scheduler, name, of);
        }
        let come = |scheduler: &mut Scheduler, name: &str| {
            let scheduling =
                Arc::new(SchedulingSpec { requests: vec![("cpu".into(), 1000)], ..SchedulingSpec::default() });
            let meta = model::Meta {
                key: Key::new("default", name),
                uid: name.into(),
                labels: Labels::from([(NAMES[1].into(), "g".into()), (LEAST.into(), "3".into())]),
                annotations: Labels::from([(TOGETHER.into(), "rack".into())]),
                ..model::Meta::default()
            };
            let spec = model::pod::PodSpec { scheduling, ..model::pod::PodSpec::default() };
            let pod = model::Pod { meta, spec, ..model::Pod::default() };
            scheduler.observe(&model::Event::Applied(model::Object::Pod(Arc::new(pod))));
        };
        ["x", "y", "z"].iter().for_each(|name| come(&mut scheduler, name));
        let (bound, told) = step(&mut scheduler);
        assert_eq!(bound, Vec::<String>::new());
        let wanted =
            "0/4 nodes are available: pod group default/g: there is no room for 3 more pods at once in one rack.";
        assert_eq!(told, vec![wanted; 3]);
        rack(&mut scheduler, "b3", "b");
        assert_eq!(step(&mut scheduler).0, vec!["x", "y", "z"]);
        // Who comes later waits for room beside the others, though there is room elsewhere.
        come(&mut scheduler, "late");
        let (bound, told) = step(&mut scheduler);
        assert_eq!(bound, Vec::<String>::new());
        assert!(told[0].contains("no room for 1 more pods at once in one rack"), "{told:?}");
        rack(&mut scheduler, "b4", "b");
        assert_eq!(step(&mut scheduler).0, vec!["late"]);
    }

    #[test]
    fn says_what_would_help() {
        let mut scheduler = Scheduler::new();
        node(&mut scheduler, "n1", 400);
        pod(&mut scheduler, "p", "", "");
        let (_, told) = step(&mut scheduler);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{told:?}");
        assert!(told[0].ends_with(" What would place it: 600m more cpu on node n1."), "{told:?}");
    }
}

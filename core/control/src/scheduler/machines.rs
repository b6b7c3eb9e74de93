//! What nodes tell of themselves beyond the Node object: their NUMA zones, and what they really use.

use super::Scheduler;
use model::Timestamp;
use model::scheduling::{TopologyFacts, UsageFacts};
use placement::{Hint, LoadPolicy, NodeTopology, TopologyPolicy};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A report of use counts for so long: Koordinator's `nodeMetricExpirationSeconds`.
const REPORT_MS: i64 = 180_000;

/// Reports of use that count.
#[derive(Default)]
pub(super) struct Reports {
    used: BTreeMap<Arc<str>, UsageFacts>,
}

impl Reports {
    /// When the oldest report stops counting.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.used.values().map(|facts| facts.at.plus_ms(REPORT_MS)).min()
    }
}

impl Scheduler {
    /// A node's zones are now as given; without zones it has none that are known.
    pub fn topology(&mut self, facts: &TopologyFacts) {
        let policy = TopologyPolicy::parse(&facts.policy).unwrap_or_default();
        let topology = NodeTopology { policy, zones: facts.zones.clone() };
        self.pool.set_topology(&facts.node, (!facts.zones.is_empty()).then_some(topology));
        self.node_told(&facts.node);
    }

    /// A node reports what it really uses. Load-aware placement is on while any report counts.
    pub fn usage(&mut self, facts: UsageFacts) {
        if self.reports.used.get(&facts.node).is_some_and(|old| old.at >= facts.at) {
            return;
        }
        let node = facts.node.clone();
        self.reports.used.insert(node.clone(), facts);
        self.pool.set_load_policy(Some(LoadPolicy::default()));
        self.tell_usage(&node);
    }

    /// A node reports no more.
    pub fn usage_gone(&mut self, node: &str) {
        if self.reports.used.remove(node).is_some() {
            self.tell_usage(node);
            if self.reports.used.is_empty() {
                self.pool.set_load_policy(None);
            }
        }
    }

    /// Tells the pool what is known of a node's use: when it is reported, and when the node joins.
    pub(super) fn tell_usage(&mut self, name: &str) {
        if let Some(node) = self.pool.node_id(name) {
            let used = self.reports.used.get(name).map(|facts| (facts.cpu, facts.memory));
            self.pool.set_usage(node, used);
            self.queue.wake(&self.pool, &Hint::Node(node));
        }
    }

    fn node_told(&mut self, name: &str) {
        if let Some(node) = self.pool.node_id(name) {
            self.queue.wake(&self.pool, &Hint::Node(node));
        }
    }

    /// Withdraws reports that are too old.
    pub(super) fn expire_reports(&mut self, now: Timestamp) {
        if self.reports.wake_at().is_none_or(|at| at > now) {
            return;
        }
        let old = self.reports.used.values().filter(|facts| facts.at.plus_ms(REPORT_MS) <= now);
        for node in old.map(|facts| facts.node.clone()).collect::<Vec<_>>() {
            self.usage_gone(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Effect;
    use model::scheduling::{Amounts, NodeFacts, NodeScheduling, PodFacts, SchedulingSpec};

    fn node(scheduler: &mut Scheduler, name: &str, cpu: i64) {
        let allocatable = vec![("cpu".into(), cpu), ("memory".into(), 8 << 30), ("pods".into(), 110)];
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        scheduler.node(NodeFacts { name: name.into(), scheduling, ..NodeFacts::default() });
    }

    fn pod(scheduler: &mut Scheduler, name: &str, requests: Amounts) {
        let spec = SchedulingSpec { requests, guaranteed: true, ..SchedulingSpec::default() };
        let facts = PodFacts {
            namespace: "team".into(),
            name: name.into(),
            uid: name.into(),
            spec: Arc::new(spec),
            ..PodFacts::default()
        };
        scheduler.pod_facts(&facts, false, true, None);
    }

    fn step(scheduler: &mut Scheduler, at: i64) -> Vec<String> {
        let orders = scheduler.step(Timestamp::from_secs(at), 100);
        let tell = |effect: &Effect| match effect {
            Effect::Bind { pod, node, .. } => Some(format!("{} to {node}", pod.key.name)),
            Effect::Record(note) if note.warning => Some(note.message.to_string()),
            _ => None,
        };
        orders.iter().flat_map(|order| &order.effects).filter_map(tell).collect()
    }

    #[test]
    fn busy_nodes_get_nothing_until_their_report_is_old() {
        let mut scheduler = Scheduler::new();
        let busy = UsageFacts { node: "n1".into(), cpu: 3500, memory: 1 << 30, at: Timestamp::from_secs(100) };
        // The report may be there before its node.
        scheduler.usage(busy);
        node(&mut scheduler, "n1", 4000);
        pod(&mut scheduler, "a", vec![("cpu".into(), 100)]);
        let told = step(&mut scheduler, 101);
        assert!(told[0].starts_with("0/1 nodes are available: 1 node(s) were too busy."), "{told:?}");
        assert_eq!(scheduler.wake_at(), Some(Timestamp::from_secs(280)));
        assert_eq!(step(&mut scheduler, 279), Vec::<String>::new());
        assert_eq!(step(&mut scheduler, 280), ["a to n1"]);
    }

    #[test]
    fn zones_that_nodes_tell_of_are_heeded() {
        let mut scheduler = Scheduler::new();
        node(&mut scheduler, "n1", 4000);
        let zone = || vec![("cpu".into(), 2000)];
        let mut topology =
            TopologyFacts { node: "n1".into(), policy: "single-numa-node".into(), zones: vec![zone(), zone()] };
        scheduler.topology(&topology);
        pod(&mut scheduler, "a", vec![("cpu".into(), 3000)]);
        let told = step(&mut scheduler, 1);
        assert!(told[0].starts_with("0/1 nodes are available: 1 node(s) NUMA Topology affinity error."), "{told:?}");
        topology.policy = "best-effort".into();
        scheduler.topology(&topology);
        assert_eq!(step(&mut scheduler, 2), ["a to n1"]);
    }
}

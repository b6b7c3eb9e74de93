//! What language agents (SkyWalking's) tell: who lives, and who called whom. Kept as counters, as proxies keep theirs, so that both are one graph.

use model::latency;
use scaling::{Counters, EdgeKey, Peer};
use spans::skywalking::{Call, InstanceProperties, SegmentObject, calls};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Edges and instances that are followed. Names come from outside: what is over that is counted and left out.
const EDGES_MAX: usize = 5_000;
const INSTANCES_MAX: usize = 10_000;
/// An instance whose heart did not beat for so long is gone (agents' beat every 30 s).
const FORGET_MS: i64 = 180_000;
/// Names are cut to so many bytes.
const NAME_MAX: usize = 256;

/// A process with an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `python`, `java`, ...
    pub language: Arc<str>,
    /// The workload it is a pod of, if it is one of ours.
    pub workload: Option<Peer>,
    /// When it was heard last.
    pub seen_ms: i64,
}

/// All that agents tell.
#[derive(Debug, Default)]
pub struct Agents {
    edges: BTreeMap<EdgeKey, Counters>,
    instances: BTreeMap<(Arc<str>, Arc<str>), Instance>,
    /// Segments taken.
    pub segments: u64,
    /// Calls left out because there are too many edges.
    pub left_out: u64,
}

fn name(text: &str) -> Arc<str> {
    let mut end = text.len().min(NAME_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

fn key(service: &str, instance: &str) -> (Arc<str>, Arc<str>) {
    (name(service), name(instance))
}

impl Agents {
    /// A heart has beaten. False: nothing is known of that instance but that it lives.
    pub fn beat(&mut self, service: &str, instance: &str, now_ms: i64) -> bool {
        match self.instances.get_mut(&key(service, instance)) {
            Some(known) => {
                known.seen_ms = now_ms;
                true
            }
            None => {
                self.put(service, instance, Instance { language: "".into(), workload: None, seen_ms: now_ms });
                false
            }
        }
    }

    /// An instance says what it is. `workload_of` finds the workload of a pod of that name.
    pub fn introduce(
        &mut self,
        of: &InstanceProperties,
        now_ms: i64,
        workload_of: impl FnOnce(&[&str]) -> Option<Peer>,
    ) {
        let known = self.instances.get(&key(&of.service, &of.instance)).and_then(|known| known.workload.clone());
        let property = |wanted: &[&str]| {
            let found = of.properties.iter().find(|it| wanted.iter().any(|name| it.key.eq_ignore_ascii_case(name)));
            found.map(|it| it.value.as_str())
        };
        let pods: Vec<&str> =
            property(&["hostname", "host name", "host"]).into_iter().chain(of.instance.split('@')).collect();
        let workload = known.or_else(|| workload_of(&pods));
        let language = name(property(&["language"]).unwrap_or_default());
        self.put(&of.service, &of.instance, Instance { language, workload, seen_ms: now_ms });
    }

    fn put(&mut self, service: &str, instance: &str, it: Instance) {
        let key = key(service, instance);
        if self.instances.len() < INSTANCES_MAX || self.instances.contains_key(&key) {
            self.instances.insert(key, it);
        }
    }

    /// Counts the calls that a segment tells of.
    pub fn take(&mut self, segment: &SegmentObject) {
        self.segments += 1;
        for call in calls(segment) {
            self.count(&call);
        }
    }

    fn count(&mut self, call: &Call) {
        let (own, _) = &call.destination;
        let Some((source, instance)) = &call.source else {
            // Who called has no agent. Of our own workloads the proxies know who it was.
            if self.workload(&call.destination.0, &call.destination.1).is_none() {
                self.add(
                    Peer { namespace: "".into(), workload: "unknown".into() },
                    self.peer(own, &call.destination.1),
                    call,
                );
            }
            return;
        };
        self.add(self.peer(source, instance), self.peer(own, &call.destination.1), call);
    }

    fn workload(&self, service: &str, instance: &str) -> Option<&Peer> {
        self.instances.get(&key(service, instance)).and_then(|known| known.workload.as_ref())
    }

    fn peer(&self, service: &str, instance: &str) -> Peer {
        let plain = || Peer { namespace: "".into(), workload: name(service) };
        self.workload(service, instance).cloned().unwrap_or_else(plain)
    }

    fn add(&mut self, source: Peer, destination: Peer, call: &Call) {
        let service: Arc<str> = if call.destination.1.is_empty() { "".into() } else { name(&call.destination.0) };
        let service_namespace = destination.namespace.clone();
        let key =
            EdgeKey { source, destination, service, service_namespace, protocol: call.protocol.into(), mtls: false };
        if self.edges.len() >= EDGES_MAX && !self.edges.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let counters = self
            .edges
            .entry(key)
            .or_insert_with(|| Counters { buckets: vec![0; latency::BOUNDS_US.len() + 1], ..Counters::default() });
        counters.requests += 1;
        counters.errors += u64::from(call.failed);
        counters.buckets[latency::bucket(call.took_ms.saturating_mul(1000))] += 1;
    }

    /// Counters of all edges, as the called side tells them.
    pub fn edges(&self) -> Vec<(EdgeKey, bool, Counters)> {
        self.edges.iter().map(|(key, counters)| (key.clone(), false, counters.clone())).collect()
    }

    /// Those that live.
    pub fn instances(&self) -> impl Iterator<Item = (&str, &str, &Instance)> {
        self.instances.iter().map(|((service, instance), it)| (&**service, &**instance, it))
    }

    /// Forgets whose heart has stopped.
    pub fn forget(&mut self, now_ms: i64) {
        self.instances.retain(|_, it| now_ms - it.seen_ms < FORGET_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spans::skywalking::{ENTRY, EXIT, Pair, SegmentReference, SpanObject};

    fn segment(service: &str, from: Option<&str>) -> SegmentObject {
        let from = from.map(|service| SegmentReference {
            service: service.into(),
            instance: "i".into(),
            ..Default::default()
        });
        let entry = SpanObject {
            kind: ENTRY,
            end_ms: 12,
            is_error: true,
            refs: from.into_iter().collect(),
            ..Default::default()
        };
        let database = SpanObject { kind: EXIT, layer: 1, peer: "db:5432".into(), ..Default::default() };
        SegmentObject {
            service: service.into(),
            instance: "i".into(),
            spans: vec![entry, database],
            ..Default::default()
        }
    }

    #[test]
    fn segments_are_edges() {
        let mut agents = Agents::default();
        agents.take(&segment("back", Some("front")));
        agents.take(&segment("back", Some("front")));
        agents.take(&segment("front", None));
        let told: Vec<_> = agents
            .edges()
            .into_iter()
            .map(|(key, _, counters)| {
                (
                    key.source.workload.to_string(),
                    key.destination.workload.to_string(),
                    counters.requests,
                    counters.errors,
                )
            })
            .collect();
        let edge = |from: &str, to: &str, requests, errors| (from.to_owned(), to.to_owned(), requests, errors);
        assert_eq!(
            told,
            [
                edge("back", "db:5432", 2, 0),
                edge("front", "back", 2, 2),
                edge("front", "db:5432", 1, 0),
                edge("unknown", "front", 1, 1)
            ]
        );
    }

    #[test]
    fn instances_of_our_pods_are_their_workloads() {
        let mut agents = Agents::default();
        let properties = vec![
            Pair { key: "hostname".into(), value: "web-1".into() },
            Pair { key: "language".into(), value: "python".into() },
        ];
        let of = InstanceProperties { service: "back".into(), instance: "i".into(), properties };
        let web = Peer { namespace: "shop".into(), workload: "web".into() };
        assert!(!agents.beat("back", "i", 1));
        agents.introduce(&of, 2, |pods| pods.contains(&"web-1").then(|| web.clone()));
        assert!(agents.beat("back", "i", 3));
        agents.take(&segment("back", None));
        agents.take(&segment("back", Some("front")));
        let edges = agents.edges();
        assert!(edges.iter().all(|(key, ..)| &*key.source.workload != "unknown"), "its proxy knows who called");
        assert!(edges.iter().any(|(key, ..)| key.destination == web && &*key.source.workload == "front"));
        assert_eq!(agents.instances().next().map(|(_, _, it)| (&*it.language, it.seen_ms)), Some(("python", 3)));
        agents.forget(3 + FORGET_MS);
        assert_eq!(agents.instances().count(), 0);
    }

    #[test]
    fn what_agents_invent_is_bounded() {
        let mut agents = Agents::default();
        for number in 0..EDGES_MAX + 10 {
            agents.take(&segment(&format!("s{number}"), Some("front")));
            agents.beat(&format!("s{number}"), &"x".repeat(1000), 1);
        }
        assert_eq!(agents.edges().len(), EDGES_MAX);
        assert!(agents.left_out > 0 && agents.instances().all(|(_, instance, _)| instance.len() == NAME_MAX));
    }
}

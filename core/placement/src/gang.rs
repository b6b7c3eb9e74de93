//! Pods that are of use only together.

use crate::decide::Decision;
use crate::pool::{NodeId, PodId, Pool};
use crate::topology::Surroundings;
use model::scheduling::NodeFacts;
use std::cmp::Reverse;
use std::sync::Arc;

impl Pool {
    /// Places at least `min` of the pods, as many as fit, or none. Those placed are assumed. A gang never holds room that it
    /// cannot use, so two gangs cannot block each other.
    pub fn decide_gang(&mut self, pods: &[PodId], min: usize) -> Option<Vec<(PodId, NodeId)>> {
        self.place_all(pods, min, |pool, pod| match pool.decide(pod) {
            Decision::Place(placement) => Some(placement.node),
            Decision::Refuse(_) => None,
        })
    }

    /// The same, packed into as few domains as can be. `keys` are node labels, the tightest first (rack, zone): if one domain of
    /// a key can have the whole gang, the tightest such one is taken (the one with the least room to spare, then by name); if none
    /// can, the fewest domains of the first key that together can, those with the most room; and if these cannot either, any nodes.
    /// Room is counted for the first of the pods, node by node.
    pub fn decide_gang_packed(&mut self, pods: &[PodId], min: usize, keys: &[&str]) -> Option<Vec<(PodId, NodeId)>> {
        let first = *pods.first()?;
        for key in keys {
            for (_, domain) in self.domains(first, key).into_iter().filter(|(room, _)| *room >= pods.len()) {
                let nodes = self.nodes_in(key, &[domain]);
                if let Some(placed) = self.place_all(pods, pods.len(), |pool, pod| pool.best_of(pod, &nodes)) {
                    return Some(placed);
                }
            }
        }
        if let Some(key) = keys.first() {
            let mut domains = self.domains(first, key);
            domains.reverse();
            let mut room = 0;
            for count in 1..=domains.len() {
                room += domains[count - 1].0;
                if room < pods.len() {
                    continue;
                }
                let chosen: Vec<Arc<str>> = domains[..count].iter().map(|(_, name)| name.clone()).collect();
                let nodes = self.nodes_in(key, &chosen);
                if let Some(placed) = self.place_all(pods, pods.len(), |pool, pod| pool.best_of(pod, &nodes)) {
                    return Some(placed);
                }
            }
        }
        self.decide_gang(pods, min)
    }

    /// Places at least `min` of the pods in one domain of a node label, all of them if any domain can have all, or none. `within`: the
    /// domain that others of the gang are in.
    pub fn decide_gang_within(
        &mut self,
        pods: &[PodId],
        min: usize,
        key: &str,
        within: Option<Arc<str>>,
    ) -> Option<Vec<(PodId, NodeId)>> {
        let first = *pods.first()?;
        let domains: Vec<Arc<str>> = match within {
            Some(domain) => vec![domain],
            None => self.domains(first, key).into_iter().map(|(_, name)| name).collect(),
        };
        let tries = [pods.len(), min];
        tries.iter().take(if min < pods.len() { 2 } else { 1 }).find_map(|least| {
            domains.iter().find_map(|domain| {
                let nodes = self.nodes_in(key, std::slice::from_ref(domain));
                self.place_all(pods, *least, |pool, pod| pool.best_of(pod, &nodes))
            })
        })
    }

    /// A node's value of a label.
    pub fn node_label(&self, node: NodeId, key: &str) -> Option<Arc<str>> {
        self.nodes[node as usize].facts.labels.get(key).cloned()
    }

    fn place_all(
        &mut self,
        pods: &[PodId],
        min: usize,
        mut decide: impl FnMut(&mut Pool, PodId) -> Option<NodeId>,
    ) -> Option<Vec<(PodId, NodeId)>> {
        let mut placed = Vec::with_capacity(pods.len());
        for (tried, pod) in pods.iter().enumerate() {
            match decide(self, *pod) {
                Some(node) => {
                    self.assume(*pod, node);
                    placed.push((*pod, node));
                }
                // Too few are left to try.
                None if placed.len() + (pods.len() - tried - 1) < min => break,
                None => {}
            }
        }
        if placed.len() >= min {
            return Some(placed);
        }
        for (pod, _) in placed {
            self.forget(pod);
        }
        None
    }

    /// A label's values with the room for a pod, the least room first.
    fn domains(&self, pod: PodId, key: &str) -> Vec<(usize, Arc<str>)> {
        let rooms = self.room_for(pod, |facts: &NodeFacts| facts.labels.get(key).cloned());
        let mut domains: Vec<(usize, Arc<str>)> = rooms.into_iter().map(|(name, room)| (room, name)).collect();
        domains.sort_by_key(|(room, name)| (*room, Reverse(name.clone())));
        domains
    }

    fn nodes_in(&self, key: &str, domains: &[Arc<str>]) -> Vec<NodeId> {
        let label = |node: &NodeId| self.nodes[*node as usize].facts.labels.get(key);
        self.live_nodes().filter(|node| label(node).is_some_and(|value| domains.contains(value))).collect()
    }

    /// The best of these nodes for a pod, by the same filters and scores as among all.
    fn best_of(&mut self, pod: PodId, nodes: &[NodeId]) -> Option<NodeId> {
        let class = self.entry(pod).class;
        let around = if self.heeds_others(class) { self.surroundings(class) } else { Surroundings::default() };
        let mut feasible: Vec<NodeId> = {
            let filters = self.filters(class, &around).ok()?;
            nodes.iter().copied().filter(|node| self.verdict(&filters, *node).is_ok()).collect()
        };
        for (at, guests) in self.guests(pod) {
            if feasible.contains(&at) && !self.verdict_with(pod, at, &guests).is_ok() {
                feasible.retain(|node| *node != at);
            }
        }
        self.best(class, &feasible).map(|(node, _)| node)
    }
}

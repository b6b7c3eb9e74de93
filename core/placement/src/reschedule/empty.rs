//! Nodes that are hardly used are emptied, so that they can be handed back: all of a node's pods move or none.
//!
//! Pods go to nodes that stay in use, the fullest first, and a node that took a pod is not emptied by the same plan: the number of
//! nodes in use falls with every node emptied, so no plan undoes another.

use super::{Cause, Draft, MoveLimits};
use crate::class::{CPU, MEMORY};
use crate::filter::named_nodes;
use crate::pool::{NodeId, PodId, Pool};
use std::collections::BTreeSet;

impl Pool {
    pub(super) fn empty_nodes(&mut self, draft: &mut Draft, limits: &MoveLimits, below_pct: i64) {
        let mut candidates: Vec<(i64, NodeId)> = self
            .live_nodes()
            .filter(|node| self.movable(*node).next().is_some())
            .map(|node| (self.used_pct(node), node))
            .filter(|(used, _)| *used <= below_pct)
            .collect();
        candidates.sort_unstable();
        let mut emptied: BTreeSet<NodeId> = BTreeSet::new();
        let mut kept: BTreeSet<NodeId> = draft.moves.iter().map(|m| m.to).collect();
        // Whoever was moved by this plan already stays where it went.
        for (_, node) in candidates {
            if kept.contains(&node) || draft.moves.iter().any(|m| m.from == node) {
                continue;
            }
            let mark = draft.moves.len();
            let pods: Vec<PodId> = self.movable(node).collect();
            emptied.insert(node);
            if pods.into_iter().all(|pod| self.pack(draft, limits, pod, node, &emptied)) {
                kept.extend(draft.moves[mark..].iter().map(|m| m.to));
            } else {
                self.undo(draft, mark);
                emptied.remove(&node);
            }
        }
    }

    /// Pods of a node that can run elsewhere; those that name their node go with it.
    fn movable(&self, node: NodeId) -> impl Iterator<Item = PodId> + '_ {
        let pods = self.nodes[node as usize].pods.iter().copied();
        pods.filter(|pod| named_nodes(self.class(self.entry(*pod).class).spec()).is_none())
    }

    /// What is asked for of a node's CPU or memory, whichever is more, in per cent.
    fn used_pct(&self, node: NodeId) -> i64 {
        let hot = &self.hot[node as usize];
        let pct = |resource: usize| hot.used[resource].saturating_mul(100) / hot.allocatable[resource].max(1);
        pct(CPU).max(pct(MEMORY))
    }

    /// Moves a pod to the fullest node in use that can have it.
    fn pack(
        &mut self,
        draft: &mut Draft,
        limits: &MoveLimits,
        pod: PodId,
        from: NodeId,
        emptied: &BTreeSet<NodeId>,
    ) -> bool {
        // A node is emptied whole: the bound on moves off one node does not hold here.
        let limits = MoveLimits { per_node: usize::MAX, ..*limits };
        if !self.may_move(draft, &limits, pod, from) {
            return false;
        }
        let taken = self.take_off(pod, from);
        let feasible = self.evaluate(pod).feasible();
        let used = |node: &NodeId| !emptied.contains(node) && self.movable(*node).next().is_some();
        let cool = |node: &NodeId| self.heat(*node, 0).is_none();
        let fullest = feasible.into_iter().filter(|node| used(node) && cool(node));
        match fullest.max_by_key(|node| (self.used_pct(*node), std::cmp::Reverse(*node))) {
            Some(to) => self.put_on(draft, &taken, to, Cause::Empty),
            None => self.put_back(&taken),
        }
        self.entry(pod).node != from
    }
}

//! Room for a pod that fits nowhere, though there is enough of it in pieces: pods of one node that fit elsewhere move away.

use super::{Cause, Move, MoveLimits};
use crate::filter::{Code, Verdict};
use crate::pool::{NodeId, PodId, Pool};

/// Nodes that are tried.
const MOST_NODES: usize = 64;

impl Pool {
    /// The fewest moves off one node that would let a pod in that nobody can have now; empty when there are none. Moving a single
    /// pod is tried on every node before more are. Nothing is changed.
    pub fn plan_room(&mut self, pod: PodId, limits: &MoveLimits) -> Vec<Move> {
        let class = self.entry(pod).class;
        let short = |verdict: &Verdict| verdict.code == Code::Resources && verdict.detail & Verdict::NEVER_FITS == 0;
        let nodes: Vec<NodeId> =
            self.evaluate(pod).verdicts.into_iter().filter(|(_, v)| short(v)).map(|(node, _)| node).collect();
        let mut sets: Vec<(NodeId, Vec<PodId>)> = Vec::new();
        for node in nodes {
            let mut here = self.nodes[node as usize].pods.clone();
            here.sort_by_key(|pod| (self.pod_priority(*pod), *pod));
            for other in here {
                let report = self.entry(other).report;
                self.detach(other);
                let fits = self.verdict_now(class, node).is_ok();
                self.reattach_with(other, node, report);
                if fits {
                    sets.push((node, vec![other]));
                }
            }
            let any = i64::from(i32::MAX) + 1;
            if let Ok((_, pods)) = self.victims_below(self.class(class), node, any) {
                sets.push((node, pods));
            }
        }
        sets.sort_by_key(|(node, pods)| (pods.len(), *node));
        let singles = sets.iter().take_while(|(_, pods)| pods.len() == 1).count();
        sets.truncate(singles + MOST_NODES);
        for (node, pods) in sets {
            if let Some(moves) = self.try_room(pod, limits, node, pods) {
                return moves;
            }
        }
        Vec::new()
    }

    fn try_room(&mut self, pod: PodId, limits: &MoveLimits, node: NodeId, pods: Vec<PodId>) -> Option<Vec<Move>> {
        let mut draft = self.draft();
        // The room is the newcomer's from the first move on.
        self.attach(pod, node);
        let moved = pods.into_iter().all(|other| self.try_move(&mut draft, limits, other, node, Cause::Room));
        self.detach(pod);
        let fits = moved && self.verdict_now(self.entry(pod).class, node).is_ok();
        let moves = draft.moves.clone();
        self.undo(&mut draft, 0);
        fits.then_some(moves)
    }
}

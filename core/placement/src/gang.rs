//! Pods that are of use only together.

use crate::decide::Decision;
use crate::pool::{NodeId, PodId, Pool};

impl Pool {
    /// Places at least `min` of the pods, as many as fit, or none. Those placed are assumed. A gang never holds room that it
    /// cannot use, so two gangs cannot block each other.
    pub fn decide_gang(&mut self, pods: &[PodId], min: usize) -> Option<Vec<(PodId, NodeId)>> {
        let mut placed = Vec::with_capacity(pods.len());
        for (tried, pod) in pods.iter().enumerate() {
            match self.decide(*pod) {
                Decision::Place(placement) => {
                    self.assume(*pod, placement.node);
                    placed.push((*pod, placement.node));
                }
                // Too few are left to try.
                Decision::Refuse(_) if placed.len() + (pods.len() - tried - 1) < min => break,
                Decision::Refuse(_) => {}
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
}

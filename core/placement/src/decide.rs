//! One decision.

use crate::explain::Diagnosis;
use crate::index::Answer;
use crate::pool::{NodeId, PodId, Pool};
use crate::storage::ClaimPlan;
use std::sync::Arc;

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The node.
    pub node: NodeId,
    /// Its score among the feasible nodes; None when there was no choice.
    pub score: Option<i64>,
    /// What is to be done for the pod's claims before it is bound.
    pub claims: ClaimPlan,
    /// The reservation that holds room for it there.
    pub reservation: Option<Arc<str>>,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It goes to a node.
    Place(Placement),
    /// No node can have it now.
    Refuse(Diagnosis),
}

/// How decisions were come by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// By the indexes.
    pub by_index: u64,
    /// By the whole evaluation.
    pub in_full: u64,
    /// Changes of nodes that indexes read to catch up.
    pub replayed: u64,
    /// Indexes that were made from scratch, one pass over all nodes each: layouts, shapes, and classes' splits of them.
    pub rebuilt: u64,
}

impl Decision {
    /// The node, if there is one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Decision::Place(placement) => Some(placement.node),
            Decision::Refuse(_) => None,
        }
    }
}

impl Pool {
    /// How decisions have been come by so far.
    pub fn answered(&self) -> Answered {
        self.answered
    }
    /// Decides on one pod. Nothing changes: [`Pool::assume`] carries the decision out.
    pub fn decide(&mut self, pod: PodId) -> Decision {
        match self.reserved_place(pod) {
            Some(reserved) => self.place_reserved(pod, reserved),
            None => self.decide_unreserved(pod),
        }
    }

    fn place_reserved(&self, pod: PodId, (held, node): (PodId, NodeId)) -> Decision {
        let claims = self.plan_claims(&self.class(self.entry(pod).class).key, node);
        let reservation = Some(self.pod_key(held).name.clone());
        Decision::Place(Placement { node, score: None, claims, reservation })
    }

    /// Decides on one pod as if no reservation were for it.
    pub(crate) fn decide_unreserved(&mut self, pod: PodId) -> Decision {
        self.answered.by_index += 1;
        match self.decide_by_index(pod) {
            Answer::Nominated(node) => {
                let claims = self.plan_claims(&self.class(self.entry(pod).class).key, node);
                return Decision::Place(Placement { node, score: None, claims, reservation: None });
            }
            Answer::Best(node, score) => {
                let claims = self.plan_claims(&self.class(self.entry(pod).class).key, node);
                return Decision::Place(Placement { node, score: Some(score), claims, reservation: None });
            }
            Answer::None(counts) => return Decision::Refuse(Diagnosis::counted(self, &counts)),
            Answer::Unknown => {}
        }
        self.answered.by_index -= 1;
        self.answered.in_full += 1;
        self.evaluate_and_choose(pod)
    }

    /// Decides on one pod by the whole evaluation.
    pub fn decide_in_full(&mut self, pod: PodId) -> Decision {
        match self.reserved_place_in_full(pod) {
            Some(reserved) => self.place_reserved(pod, reserved),
            None => self.evaluate_and_choose(pod),
        }
    }

    fn evaluate_and_choose(&mut self, pod: PodId) -> Decision {
        let class = self.entry(pod).class;
        let evaluation = self.evaluate(pod);
        let feasible = evaluation.feasible();
        let place = |pool: &Pool, node, score| {
            let claims = pool.plan_claims(&pool.class(class).key, node);
            Decision::Place(Placement { node, score, claims, reservation: None })
        };
        // Room was made for it there: no other node is asked while that one still fits.
        if let Some(node) = self.pod_nominated(pod).filter(|node| feasible.contains(node)) {
            return place(self, node, None);
        }
        match self.best(class, &feasible) {
            Some((node, score)) => place(self, node, Some(score)),
            None => Decision::Refuse(Diagnosis::new(self, evaluation)),
        }
    }
}

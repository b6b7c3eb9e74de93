//! The whole evaluation: every node's verdict, then every feasible node's score. The indexes must agree with this.

use crate::class::{ClassId, term_matches};
use crate::filter::{Filters, Verdict};
use crate::pool::{NOWHERE, NodeId, PodId, Pool};
use crate::topology::Surroundings;

/// What every node says to a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Evaluation {
    /// Live nodes in id order.
    pub(crate) verdicts: Vec<(NodeId, Verdict)>,
    /// Why no node was asked.
    pub(crate) blocked: Option<String>,
}

impl Evaluation {
    pub(crate) fn feasible(&self) -> Vec<NodeId> {
        self.verdicts.iter().filter(|(_, verdict)| verdict.is_ok()).map(|(node, _)| *node).collect()
    }
}

impl Pool {
    /// Asks every node.
    pub(crate) fn evaluate(&mut self, pod: PodId) -> Evaluation {
        let class = self.entry(pod).class;
        let around = self.surroundings(class);
        let mut evaluation = Evaluation::default();
        match self.filters(class, &around) {
            Err(blocked) => evaluation.blocked = Some(blocked),
            Ok(filters) => {
                evaluation.verdicts = self.live_nodes().map(|node| (node, self.verdict(&filters, node))).collect();
            }
        }
        for (at, guests) in self.guests(pod) {
            if let Ok(index) = evaluation.verdicts.binary_search_by_key(&at, |(node, _)| *node) {
                let verdict = self.verdict_with(pod, at, &guests);
                if !verdict.is_ok() {
                    evaluation.verdicts[index].1 = verdict;
                }
            }
        }
        evaluation
    }

    /// Nodes on which room is being made for pods that come before this one, with these pods.
    pub(crate) fn guests(&self, pod: PodId) -> Vec<(NodeId, Vec<PodId>)> {
        let priority = self.pod_priority(pod);
        let before = |other: &PodId| *other != pod && self.pod_priority(*other) >= priority;
        let all = self.nominated.iter().map(|(node, pods)| (*node, pods.iter().copied().filter(before).collect()));
        all.filter(|(_, pods): &(NodeId, Vec<PodId>)| !pods.is_empty()).collect()
    }

    /// What a node says if `guests` were on it too.
    pub(crate) fn verdict_with(&mut self, pod: PodId, node: NodeId, guests: &[PodId]) -> Verdict {
        let guests: Vec<PodId> = guests.iter().copied().filter(|guest| self.entry(*guest).node == NOWHERE).collect();
        for guest in &guests {
            self.attach(*guest, node);
        }
        let verdict = self.verdict_now(self.entry(pod).class, node);
        for guest in &guests {
            self.detach(*guest);
        }
        verdict
    }

    /// What a node says to a class, from scratch.
    pub(crate) fn verdict_now(&self, class: ClassId, node: NodeId) -> Verdict {
        let around = if self.heeds_others(class) { self.surroundings(class) } else { Surroundings::default() };
        match self.filters(class, &around) {
            Ok(filters) => self.verdict(&filters, node),
            Err(_) => Verdict::new(crate::filter::Code::VolumeBinding),
        }
    }

    /// Whether hard rules about other pods bear on a class: its own, or anti-affinity of others that means it.
    pub(crate) fn heeds_others(&self, id: ClassId) -> bool {
        let class = self.class(id);
        let namespace = self.namespace_labels(&class.key.namespace);
        class.looks_around()
            || self.with_terms.iter().any(|other| {
                let terms = &self.class(*other).spec().anti_affinity;
                terms.iter().any(|term| term_matches(term, &class.key, &namespace))
            })
    }

    /// The best of the feasible nodes: highest score, then the node that joined first.
    pub(crate) fn best(&mut self, class: ClassId, feasible: &[NodeId]) -> Option<(NodeId, i64)> {
        let scores = crate::score::scores(self, class, feasible);
        let best = feasible.iter().zip(scores).min_by_key(|(node, score)| (-*score, **node))?;
        Some((*best.0, best.1))
    }

    /// Filters for one class that are asked again and again while pods come and go.
    pub(crate) fn with_filters<T>(
        &self,
        class: ClassId,
        around: &Surroundings,
        ask: impl FnOnce(&Filters<'_>) -> T,
    ) -> Option<T> {
        self.filters(class, around).ok().map(|filters| ask(&filters))
    }
}

//! Rules about other pods that no longer hold for pods that run: required affinity and anti-affinity, hard spread.

use super::{Cause, Draft, MoveLimits};
use crate::class::{Class, ClassId};
use crate::pool::{NodeId, PodId, Pool};
use crate::topology::Surroundings;

impl Pool {
    /// Pods that break a rule about other pods where they are, the least important first. Moving one may mend the rule for its
    /// neighbours too.
    pub(super) fn unruly(&self) -> Vec<(PodId, NodeId)> {
        let mut found = Vec::new();
        for (id, class) in self.placed_classes() {
            let spec = class.spec();
            let ruled =
                !spec.affinity.is_empty() || !spec.anti_affinity.is_empty() || spec.spread.iter().any(|c| c.hard);
            if !ruled {
                continue;
            }
            let around = self.surroundings(id);
            for node in class.nodes.keys().filter(|node| self.strains(class, &around, **node)) {
                found.extend(self.pods_of(class, *node).map(|pod| (pod, *node)));
            }
        }
        found.sort_by_key(|(pod, node)| (self.pod_priority(*pod), *node, *pod));
        found
    }

    /// Whether a node that has a pod of a class would refuse it, were it not there yet; told by the counts with the pod.
    fn strains(&self, class: &Class, around: &Surroundings, node: NodeId) -> bool {
        let itself = |term| i64::from(self.term_means(term, class));
        let spec = class.spec();
        let spread = around.spread.iter().any(|constraint| {
            constraint.by.at(&self.columns, node).is_none_or(|count| count - constraint.min > constraint.max_skew)
        });
        let anti = spec
            .anti_affinity
            .iter()
            .zip(&around.anti)
            .any(|(term, by)| by.at(&self.columns, node).is_some_and(|count| count > itself(term)));
        let all = i64::from(spec.affinity.iter().all(|term| self.term_means(term, class)));
        // The only one of its kind may be anywhere.
        let others = around.affinity.iter().any(|by| by.counts.iter().sum::<i64>() > all);
        let alone = around.affinity.iter().any(|by| by.at(&self.columns, node).is_none_or(|count| count <= all));
        spread || anti || (others && alone)
    }

    /// Classes whose rules speak of pods of this class, itself among them if it has rules.
    fn concerned(&self, moved: ClassId) -> Vec<ClassId> {
        let other = self.class(moved);
        let concerned = |class: &Class| {
            let spec = class.spec();
            let spread = spec.spread.iter().any(|c| c.hard && c.counts(&other.key.labels));
            let mut terms = spec.affinity.iter().chain(&spec.anti_affinity);
            (spread && class.key.namespace == other.key.namespace) || terms.any(|term| self.term_means(term, other))
        };
        self.placed_classes().filter(|(_, class)| concerned(class)).map(|(id, _)| id).collect()
    }

    /// Pods of these classes that break a rule where they are.
    fn broken(&self, classes: &[ClassId]) -> usize {
        let of = |id: &ClassId| {
            let (class, around) = (self.class(*id), self.surroundings(*id));
            let strained = class.nodes.iter().filter(|(node, _)| self.strains(class, &around, **node));
            strained.map(|(_, count)| count.all as usize).sum::<usize>()
        };
        classes.iter().map(of).sum()
    }

    /// Moves a pod if it breaks a rule where it is and fewer do once it has moved: leaving may leave others alone, or uneven.
    pub(super) fn mend(&mut self, draft: &mut Draft, limits: &MoveLimits, pod: PodId, from: NodeId) {
        let class = self.entry(pod).class;
        if self.entry(pod).node != from || !self.strains(self.class(class), &self.surroundings(class), from) {
            return;
        }
        let concerned = self.concerned(class);
        let (before, mark) = (self.broken(&concerned), draft.moves.len());
        if self.try_move(draft, limits, pod, from, Cause::Rules) && self.broken(&concerned) >= before {
            self.undo(draft, mark);
        }
    }
}

//! Making room: which pods of lower priority would have to go from which node, so that as little as possible is lost.

mod together;

use crate::class::ClassId;
use crate::explain::{Diagnosis, histogram, reasons};
use crate::filter::Verdict;
use crate::pool::{NodeId, PodId, Pool};
use crate::topology::Surroundings;
use model::map::HashMap;
use model::scheduling::BudgetFacts;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use together::{Band, Clearance, Place};

/// A pod that has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The pod.
    pub pod: PodId,
    /// It is being deleted already.
    pub terminating: bool,
}

/// Room that can be made for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// Where.
    pub node: NodeId,
    /// Who has to go, the most important first.
    pub victims: Vec<Victim>,
    /// How many of them violate a disruption budget.
    pub violations: usize,
    /// Pods of lower priority that were nominated to the node: they are to look elsewhere.
    pub displaced: Vec<PodId>,
}

/// What the loss of a node's victims weighs; less is better. kube-scheduler's order: budget violations, the highest priority
/// lost, the sum of priorities, the number of pods, the longest-running of the most important ones (the latest start is best),
/// and last the node that joined first.
pub(crate) type Weight = (usize, i32, i64, usize, Reverse<i64>, NodeId);

impl Pool {
    /// Which pods of lower priority have to go so that `pod` can be placed; or why that cannot be, in kube-scheduler's words.
    /// Nothing is changed.
    ///
    /// # Errors
    /// The text that follows `preemption: ` in the pod's condition.
    pub fn preempt(&mut self, pod: PodId, diagnosis: &Diagnosis) -> Result<Preemption, String> {
        let class = self.entry(pod).class;
        if self.class(class).spec().never_preempts {
            return Err("not eligible due to preemptionPolicy=Never.".to_owned());
        }
        if self.waits_for_victims(pod) {
            return Err("not eligible due to a terminating pod on the nominated node.".to_owned());
        }
        let help = diagnosis.counts.iter().filter(|(verdict, _)| verdict.evicting_may_help());
        let asked: usize = help.map(|(_, nodes)| nodes).sum();
        let priority = self.pod_priority(pod);
        if asked == 0 || self.placed_priorities.keys().next().is_none_or(|lowest| *lowest >= priority) {
            return Err(self.no_candidate(diagnosis, asked, &BTreeMap::new()));
        }
        if self.loses_locally(pod, class) {
            return self.preempt_locally(pod, class, diagnosis);
        }
        self.search_victims(pod, class, diagnosis)
    }

    /// Preemption by trying every node that it may help on. [`Pool::preempt`] gives the same answer, faster where it can.
    ///
    /// # Errors
    /// As [`Pool::preempt`].
    pub fn preempt_in_full(&mut self, pod: PodId, diagnosis: &Diagnosis) -> Result<Preemption, String> {
        let class = self.entry(pod).class;
        self.search_victims(pod, class, diagnosis)
    }

    fn search_victims(&mut self, pod: PodId, class: ClassId, diagnosis: &Diagnosis) -> Result<Preemption, String> {
        let verdicts =
            if diagnosis.verdicts.is_empty() { self.evaluate(pod).verdicts } else { diagnosis.verdicts.clone() };
        let probe = Probe {
            pod,
            class,
            heeds_others: self.heeds_others(class),
            guests: self.guests(pod).into_iter().collect(),
        };
        let mut refusals: BTreeMap<Verdict, usize> = BTreeMap::new();
        let (mut nobody, mut best): (usize, Option<(Weight, Vec<PodId>)>) = (0, None);
        for (node, verdict) in &verdicts {
            if !verdict.evicting_may_help() {
                continue;
            }
            match self.victims_on(&probe, *node) {
                Ok((violations, victims)) => {
                    let weight = self.weigh(*node, violations, &victims);
                    if best.as_ref().is_none_or(|(least, _)| weight < *least) {
                        best = Some((weight, victims));
                    }
                }
                Err(None) => nobody += 1,
                Err(Some(verdict)) => *refusals.entry(verdict).or_default() += 1,
            }
        }
        match best {
            Some((weight, victims)) => Ok(self.preemption(pod, weight, victims)),
            None => Err(self.no_candidate(diagnosis, nobody, &refusals)),
        }
    }

    /// Victims on its nominated node are still terminating: it has to wait rather than to take more.
    fn waits_for_victims(&self, pod: PodId) -> bool {
        let Some(node) = self.pod_nominated(pod) else { return false };
        let verdict = self.verdict_now(self.entry(pod).class, node);
        let hopeless = !verdict.is_ok() && !verdict.evicting_may_help();
        let priority = self.pod_priority(pod);
        let mut here = self.nodes[node as usize].pods.iter();
        !hopeless && here.any(|other| self.entry(*other).terminating && self.pod_priority(*other) < priority)
    }

    pub(crate) fn preemption(&self, pod: PodId, weight: Weight, victims: Vec<PodId>) -> Preemption {
        let node = weight.5;
        let priority = self.pod_priority(pod);
        let nominated = self.nominated.get(&node).into_iter().flatten().copied();
        Preemption {
            node,
            victims: victims.into_iter().map(|pod| Victim { pod, terminating: self.entry(pod).terminating }).collect(),
            violations: weight.0,
            displaced: nominated.filter(|other| *other != pod && self.pod_priority(*other) < priority).collect(),
        }
    }

    pub(crate) fn no_candidate(
        &self,
        diagnosis: &Diagnosis,
        nobody: usize,
        refusals: &BTreeMap<Verdict, usize>,
    ) -> String {
        let mut told = reasons(self, refusals);
        let asked = nobody + refusals.values().sum::<usize>();
        let mut tell = |nodes: usize, text: &str| {
            if nodes > 0 {
                told.push(crate::explain::Reason { nodes, text: Arc::from(text) });
            }
        };
        tell(nobody, "No preemption victims found for incoming pod");
        tell(diagnosis.nodes.saturating_sub(asked), "Preemption is not helpful for scheduling");
        told.sort_by_cached_key(|reason| format!("{} {}", reason.nodes, reason.text));
        format!("0/{} nodes are available: {}.", diagnosis.nodes, histogram(&told))
    }

    pub(crate) fn weigh(&self, node: NodeId, violations: usize, victims: &[PodId]) -> Weight {
        let highest = victims.iter().map(|pod| self.pod_priority(*pod)).max().unwrap_or(i32::MIN);
        // Shifted so that every pod counts, whatever the sign of its priority.
        let shifted = |pod: &PodId| i64::from(self.pod_priority(*pod)) + i64::from(i32::MAX) + 1;
        let most_important = victims.iter().filter(|pod| self.pod_priority(**pod) == highest);
        let earliest = most_important.map(|pod| self.entry(*pod).started).min().unwrap_or(i64::MAX);
        (violations, highest, victims.iter().map(shifted).sum(), victims.len(), Reverse(earliest), node)
    }

    /// The most important first: by priority, then who has run for longest, then by name.
    pub(crate) fn sort_by_importance(&self, pods: &mut [PodId]) {
        pods.sort_by(|a, b| {
            let rank = |pod: &PodId| (Reverse(self.pod_priority(*pod)), self.entry(*pod).started);
            rank(a).cmp(&rank(b)).then_with(|| self.pod_key(*a).cmp(self.pod_key(*b)))
        });
    }

    /// The least set of pods of a node that have to go, the most important spared first. `Err(None)`: there is nobody of lower
    /// priority; `Err(Some(_))`: it does not help.
    fn victims_on(&mut self, probe: &Probe, node: NodeId) -> Result<(usize, Vec<PodId>), Option<Verdict>> {
        let priority = self.pod_priority(probe.pod);
        let mut lower: Vec<PodId> =
            self.nodes[node as usize].pods.iter().copied().filter(|pod| self.pod_priority(*pod) < priority).collect();
        if lower.is_empty() {
            return Err(None);
        }
        self.sort_by_importance(&mut lower);
        for pod in &lower {
            self.detach(*pod);
        }
        let verdict = self.ask(probe, node);
        if !verdict.is_ok() {
            lower.iter().for_each(|pod| self.reattach(*pod, node));
            return Err(Some(verdict));
        }
        let (violating, others) = self.split_by_budget(&lower);
        let mut violations = 0;
        let mut victims = Vec::new();
        for (pods, violates) in [(violating, true), (others, false)] {
            for pod in pods {
                self.reattach(pod, node);
                if !self.ask(probe, node).is_ok() {
                    self.detach(pod);
                    victims.push(pod);
                    violations += usize::from(violates);
                }
            }
        }
        victims.iter().for_each(|pod| self.reattach(*pod, node));
        self.sort_by_importance(&mut victims);
        Ok((violations, victims))
    }

    /// Whether the node would have the pod now: with those for whom room is being made, and without them.
    fn ask(&mut self, probe: &Probe, node: NodeId) -> Verdict {
        if let Some(guests) = probe.guests.get(&node) {
            let verdict = self.verdict_with(probe.pod, node, guests);
            if !verdict.is_ok() {
                return verdict;
            }
        }
        if probe.heeds_others {
            return self.verdict_now(probe.class, node);
        }
        let around = Surroundings::default();
        self.with_filters(probe.class, &around, |filters| self.verdict(filters, node))
            .unwrap_or(Verdict::new(crate::filter::Code::VolumeBinding))
    }

    /// Pods whose loss a disruption budget does not allow, and the others, each in the given order.
    pub(crate) fn split_by_budget(&self, pods: &[PodId]) -> (Vec<PodId>, Vec<PodId>) {
        let mut left: Vec<(&BudgetFacts, i32)> = self.budgets.values().map(|budget| (budget, budget.allowed)).collect();
        let mut violates = |pod: PodId| {
            let (key, class) = (&self.entry(pod).key, &self.class(self.entry(pod).class).key);
            let mut violates = false;
            for (budget, allowed) in &mut left {
                let selects = budget.selector.as_ref().is_some_and(|s| !s.is_empty() && s.matches(&class.labels));
                let counted = budget.disrupted.contains(&key.name);
                if class.labels.is_empty() || budget.namespace != key.namespace || !selects || counted {
                    continue;
                }
                *allowed -= 1;
                violates |= *allowed < 0;
            }
            violates
        };
        pods.iter().partition(|pod| violates(**pod))
    }
}

/// Who asks.
struct Probe {
    pod: PodId,
    class: ClassId,
    heeds_others: bool,
    guests: HashMap<NodeId, Vec<PodId>>,
}

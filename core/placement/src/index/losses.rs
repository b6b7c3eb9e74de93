//! What making room for a class would cost on each node, kept under change: for classes that other pods, ports and storage do not
//! concern, a node's answer depends on the node alone.

use crate::class::{Class, ClassId, EXTENDED};
use crate::explain::Diagnosis;
use crate::filter::{Verdict, lacks, standing};
use crate::pool::{NodeId, PodId, Pool};
use crate::preempt::Weight;
use std::collections::{BTreeMap, BTreeSet};

/// Classes whose losses are kept at once.
pub(crate) const MOST: usize = 32;

/// What a node says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// Evicting would not help.
    Hopeless,
    /// There is nobody of lower priority.
    Nobody,
    /// Even without all of lower priority it refuses.
    Refused(Verdict),
    /// It could be had for this.
    Costs(Weight),
}

/// Every node's answer for one class.
pub(crate) struct Losses {
    by_node: Vec<Loss>,
    order: BTreeSet<Weight>,
    pub(crate) nobody: usize,
    pub(crate) refused: BTreeMap<Verdict, usize>,
    seen: u64,
    version: u64,
    pub(crate) used: u64,
}

impl Losses {
    /// The least loss.
    pub(crate) fn least(&self) -> Option<Weight> {
        self.order.first().copied()
    }
    fn set(&mut self, node: NodeId, loss: Loss) {
        if self.by_node.len() <= node as usize {
            self.by_node.resize(node as usize + 1, Loss::Hopeless);
        }
        match std::mem::replace(&mut self.by_node[node as usize], loss) {
            Loss::Hopeless => {}
            Loss::Nobody => self.nobody -= 1,
            Loss::Refused(verdict) => {
                if let Some(count) = self.refused.get_mut(&verdict) {
                    *count -= 1;
                }
                self.refused.retain(|_, count| *count > 0);
            }
            Loss::Costs(weight) => {
                self.order.remove(&weight);
            }
        }
        match loss {
            Loss::Hopeless => {}
            Loss::Nobody => self.nobody += 1,
            Loss::Refused(verdict) => *self.refused.entry(verdict).or_default() += 1,
            Loss::Costs(weight) => {
                self.order.insert(weight);
            }
        }
    }
}

impl Pool {
    /// Whether a class's losses depend on each node alone.
    pub(crate) fn loses_locally(&self, pod: PodId, class: ClassId) -> bool {
        let spec = self.class(class).spec();
        // Load is left to the search: evicting a measured pod does not lower what was measured.
        let others = self.nominated.values().flatten().any(|other| *other != pod);
        self.load_policy.is_none()
            && !self.may_align(&self.class(class).requests)
            && spec.host_ports.is_empty()
            && spec.disks.is_empty()
            && spec.claims.is_empty()
            && crate::filter::named_nodes(spec).is_none()
            && !others
            && !self.heeds_others(class)
    }

    /// A class's losses, up to date. They are to be put back.
    pub(crate) fn take_losses(&mut self, id: ClassId) -> Losses {
        let version = self.indexes.version;
        let known = self.indexes.losses.remove(&id);
        let mut losses = match known.filter(|l| l.version == version && self.indexes.journal.reaches(l.seen)) {
            Some(losses) => {
                let mut losses = losses;
                for at in self.indexes.journal.since(losses.seen) {
                    let node = self.indexes.journal.nodes[at];
                    losses.set(node, self.loss(id, node));
                }
                losses
            }
            None => {
                let mut losses = Losses {
                    by_node: Vec::new(),
                    order: BTreeSet::new(),
                    nobody: 0,
                    refused: BTreeMap::new(),
                    seen: 0,
                    version,
                    used: 0,
                };
                for node in self.live_nodes() {
                    losses.set(node, self.loss(id, node));
                }
                losses
            }
        };
        losses.seen = self.indexes.journal.end();
        losses.used = self.indexes.clock;
        losses
    }

    pub(crate) fn put_losses(&mut self, id: ClassId, losses: Losses) {
        if self.indexes.losses.len() >= MOST {
            let oldest = self.indexes.losses.iter().map(|(id, losses)| (losses.used, *id)).min();
            if let Some((_, oldest)) = oldest {
                self.indexes.losses.remove(&oldest);
            }
        }
        self.indexes.losses.insert(id, losses);
    }

    fn loss(&self, id: ClassId, node: NodeId) -> Loss {
        let class = self.class(id);
        let hot = self.hot[node as usize];
        if !hot.live || !standing(class.spec(), None, &self.nodes[node as usize].facts).is_ok() {
            return Loss::Hopeless;
        }
        let lacking = lacks(&class.requests, &hot, &self.nodes[node as usize].extended);
        if lacking == 0 || lacking & Verdict::NEVER_FITS != 0 {
            return Loss::Hopeless;
        }
        match self.local_victims(class, node) {
            Ok((violations, victims)) => Loss::Costs(self.weigh(node, violations, &victims)),
            Err(None) => Loss::Nobody,
            Err(Some(verdict)) => Loss::Refused(verdict),
        }
    }

    /// The same as the whole search for victims, by arithmetic on the node's resources.
    pub(crate) fn local_victims(&self, class: &Class, node: NodeId) -> Result<(usize, Vec<PodId>), Option<Verdict>> {
        self.victims_below(class, node, i64::from(class.spec().priority))
    }

    /// The same among pods below some priority.
    pub(crate) fn victims_below(
        &self,
        class: &Class,
        node: NodeId,
        priority: i64,
    ) -> Result<(usize, Vec<PodId>), Option<Verdict>> {
        let pods = self.nodes[node as usize].pods.iter().copied();
        let may_go = |pod: &PodId| i64::from(self.pod_priority(*pod)) < priority && !self.reservations.holds(*pod);
        let mut lower: Vec<PodId> = pods.filter(may_go).collect();
        if lower.is_empty() {
            return Err(None);
        }
        self.sort_by_importance(&mut lower);
        let mut hot = self.hot[node as usize];
        let mut extended =
            if class.requests.extended.is_empty() { Vec::new() } else { self.nodes[node as usize].extended.clone() };
        let mut count = |hot: &mut crate::pool::Hot, pod: PodId, by: i64| {
            let requests = &self.class(self.entry(pod).class).requests;
            hot.pods += by;
            for (used, request) in hot.used.iter_mut().zip(requests.base) {
                *used += by * request;
            }
            for (resource, request) in &requests.extended {
                if let Some(entry) = extended.get_mut(resource - EXTENDED) {
                    entry.1 += by * request;
                }
            }
            lacks(&class.requests, hot, &extended)
        };
        let mut lacking = 0;
        for pod in &lower {
            lacking = count(&mut hot, *pod, -1);
        }
        if lacking != 0 {
            return Err(Some(Verdict::with(crate::filter::Code::Resources, lacking)));
        }
        let (violating, others) =
            if self.budgets.is_empty() { (Vec::new(), lower) } else { self.split_by_budget(&lower) };
        let (mut violations, mut victims) = (0, Vec::new());
        for (pods, violates) in [(violating, true), (others, false)] {
            for pod in pods {
                if count(&mut hot, pod, 1) != 0 {
                    count(&mut hot, pod, -1);
                    victims.push(pod);
                    violations += usize::from(violates);
                }
            }
        }
        self.sort_by_importance(&mut victims);
        Ok((violations, victims))
    }

    /// Preemption by the kept losses.
    pub(crate) fn preempt_locally(
        &mut self,
        pod: PodId,
        class: ClassId,
        diagnosis: &Diagnosis,
    ) -> Result<crate::Preemption, String> {
        let losses = self.take_losses(class);
        let answer = match losses.least() {
            Some(weight) => {
                let victims = self.local_victims(self.class(class), weight.5).map(|(_, victims)| victims);
                Ok(self.preemption(pod, weight, victims.unwrap_or_default()))
            }
            None => Err(self.no_candidate(diagnosis, losses.nobody, &losses.refused)),
        };
        self.put_losses(class, losses);
        answer
    }
}

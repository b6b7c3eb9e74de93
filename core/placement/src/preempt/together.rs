//! Making room for several pods at once, anywhere in the pool: all of a gang, or one pod that its quota refuses. All or nothing:
//! nobody has to go unless everyone who asks can be placed then.
//!
//! The rule is that of Kubernetes' workload-aware preemption (KEP-5710, from 1.36 on): the whole pool is one domain. All who may go are
//! thought away; then they are put back one by one, the most important first, and each stays with whom the gang can still be placed.
//! Important are first those whose loss a disruption budget does not allow, then by priority; of one priority gangs before
//! single pods, larger gangs before smaller ones, pods that ask for less before those that ask for more (so that few have to go; this
//! is not of the KEP), and who has run for longest. A gang below its minimum is of no use to anybody: the least important ones beyond
//! the minimum may go one by one, the others all or none.

use super::Victim;
use crate::class::EXTENDED;
use crate::pool::{NOWHERE, NodeId, PodId, Pool};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Pods that may go are put back one by one while this many placements of single pods last; the rest is spared where it does not
/// stand in the way of the last placement.
const TRIALS: usize = 100_000;
/// No more pods than these, and so many for each who asks, are thought away: those of the nodes that cost the least.
const MOST_MAY_GO: usize = 16_384;
const MOST_FOR_EACH: usize = 8;

/// A running gang, as far as it bears on who has to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Band {
    /// Its pods that are placed.
    pub placed: Vec<PodId>,
    /// How many of them there have to be.
    pub least: usize,
}

/// Room that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clearance {
    /// Where those who ask can be placed then.
    pub placed: Vec<(PodId, NodeId)>,
    /// Who has to go, the most important first. Empty when it suffices that those go who are being deleted already.
    pub victims: Vec<Victim>,
    /// How many of them violate a disruption budget.
    pub violations: usize,
    /// Pods of lower priority that were nominated to these nodes: they are to look elsewhere.
    pub displaced: Vec<PodId>,
}

/// Pods that stay or go together.
struct Unit {
    pods: Vec<(PodId, NodeId)>,
    rank: Rank,
    /// The unit without which this one is of no use.
    core: Option<usize>,
}

/// Less is more important: budget, priority, gang's size, share of what is asked for, start, name's place.
type Rank = (Reverse<bool>, Reverse<i32>, Reverse<usize>, i64, i64, usize);

/// A way of placing those who ask: they are assumed, or none is.
pub type Place<'a> = dyn FnMut(&mut Pool) -> Option<Vec<(PodId, NodeId)>> + 'a;

/// A search.
struct Search<'a> {
    place: &'a mut Place<'a>,
    trials: usize,
    last: Vec<(PodId, NodeId)>,
}

impl Pool {
    /// Placed pods below a priority, without reservations.
    pub fn placed_below(&self, priority: i32) -> Vec<PodId> {
        if self.placed_priorities.keys().next().is_none_or(|lowest| *lowest >= priority) {
            return Vec::new();
        }
        let placed = self.nodes.iter().flat_map(|node| node.pods.iter().copied());
        placed.filter(|pod| self.pod_priority(*pod) < priority && !self.reservations.holds(*pod)).collect()
    }

    /// Pods on a node.
    pub fn pods_on(&self, node: NodeId) -> impl Iterator<Item = PodId> + '_ {
        self.nodes[node as usize].pods.iter().copied()
    }

    /// Pods for which room is being made somewhere.
    pub fn nominated_pods(&self) -> impl Iterator<Item = PodId> + '_ {
        self.nominated.values().flatten().copied()
    }

    /// Which of `may_go` have to go so that `place` succeeds; None when that is not enough, or nobody has to. `place` assumes those
    /// who are placed, or nobody. Nothing is changed, but that those who `ask` are no longer nominated. Who of `may_go` is being
    /// deleted counts as gone.
    pub fn make_room<'a>(
        &mut self,
        ask: &[PodId],
        may_go: &[PodId],
        bands: &[Band],
        place: &'a mut Place<'a>,
    ) -> Option<Clearance> {
        ask.iter().for_each(|pod| self.nominate(*pod, NOWHERE));
        let here = |pod: &PodId| self.entry(*pod).node != NOWHERE && !self.reservations.holds(*pod);
        let (leaving, staying): (Vec<PodId>, Vec<PodId>) =
            may_go.iter().copied().filter(here).partition(|pod| self.entry(*pod).terminating);
        let staying = self.fewer(staying, MOST_MAY_GO + MOST_FOR_EACH * ask.len());
        let units = self.units(ask, &staying, bands);
        let leaving: Vec<(PodId, NodeId)> = leaving.into_iter().map(|pod| (pod, self.entry(pod).node)).collect();
        if units.is_empty() && leaving.is_empty() {
            return None;
        }
        leaving.iter().for_each(|(pod, _)| self.detach(*pod));
        units.iter().for_each(|unit| self.think_away(unit));
        let mut search = Search { place, trials: 0, last: Vec::new() };
        let found = search.try_now(self).then(|| search.spare_all(self, &units));
        // Everyone is back where he was, whatever was found.
        for unit in &units {
            self.think_back(unit);
        }
        leaving.iter().for_each(|(pod, node)| self.reattach(*pod, *node));
        found.map(|gone| self.clearance(ask, &units, &gone, search.last))
    }

    fn think_away(&mut self, unit: &Unit) {
        unit.pods.iter().for_each(|(pod, _)| self.detach(*pod));
    }
    fn think_back(&mut self, unit: &Unit) {
        for (pod, node) in &unit.pods {
            if self.entry(*pod).node == NOWHERE {
                self.reattach(*pod, *node);
            }
        }
    }

    /// Those on the nodes that cost the least, no more than `most` of them or those of one node.
    fn fewer(&self, pods: Vec<PodId>, most: usize) -> Vec<PodId> {
        if pods.len() <= most {
            return pods;
        }
        let violating: BTreeSet<PodId> = self.violating(&pods);
        let mut by_node: BTreeMap<NodeId, Vec<PodId>> = BTreeMap::new();
        for pod in pods {
            by_node.entry(self.entry(pod).node).or_default().push(pod);
        }
        let cost = |pods: &[PodId]| pods.iter().map(|pod| (violating.contains(pod), self.pod_priority(*pod))).max();
        let mut nodes: Vec<_> = by_node.into_iter().map(|(node, pods)| (cost(&pods), pods.len(), node, pods)).collect();
        nodes.sort();
        let mut kept: Vec<PodId> = Vec::new();
        for (_, _, _, pods) in nodes {
            if kept.len() >= most {
                break;
            }
            kept.extend(pods);
        }
        kept
    }

    /// Of pods that might all go, those whose loss a budget would not allow if the less important went first.
    fn violating(&self, pods: &[PodId]) -> BTreeSet<PodId> {
        if self.budgets.is_empty() {
            return BTreeSet::new();
        }
        let mut order = pods.to_vec();
        self.sort_by_importance(&mut order);
        order.reverse();
        self.split_by_budget(&order).0.into_iter().collect()
    }

    /// Who goes together, the most important first.
    fn units(&self, ask: &[PodId], may_go: &[PodId], bands: &[Band]) -> Vec<Unit> {
        let violating = self.violating(may_go);
        let mut order = may_go.to_vec();
        self.sort_by_importance(&mut order);
        let place_of: BTreeMap<PodId, usize> = order.iter().enumerate().map(|(at, pod)| (*pod, at)).collect();
        let rank = |pods: &[PodId], size: usize| -> Rank {
            let priority = pods.iter().map(|pod| self.pod_priority(*pod)).max().unwrap_or(i32::MIN);
            let started = pods.iter().map(|pod| self.entry(*pod).started).min().unwrap_or(i64::MAX);
            let share = pods.iter().map(|pod| self.share_of(*pod, ask)).max().unwrap_or(0);
            let first = pods.iter().filter_map(|pod| place_of.get(pod)).min().copied().unwrap_or(0);
            let violates = pods.iter().any(|pod| violating.contains(pod));
            (Reverse(violates), Reverse(priority), Reverse(size), share, started, first)
        };
        let unit = |pods: &[PodId], size: usize, core: Option<usize>| Unit {
            pods: pods.iter().map(|pod| (*pod, self.entry(*pod).node)).collect(),
            rank: rank(pods, size),
            core,
        };
        let (mut units, mut in_bands): (Vec<Unit>, BTreeSet<PodId>) = (Vec::new(), BTreeSet::new());
        for band in bands {
            let mut pods: Vec<PodId> =
                band.placed.iter().copied().filter(|pod| !self.entry(*pod).terminating).collect();
            self.sort_by_importance(&mut pods);
            pods.sort_by_key(|pod| (place_of.contains_key(pod), !violating.contains(pod)));
            in_bands.extend(pods.iter().copied());
            // One that is below its minimum already is no gang any more: what is left of it goes together.
            let (core, surplus) = pods.split_at(band.least.min(pods.len()));
            let whole = !core.is_empty() && core.iter().all(|pod| place_of.contains_key(pod));
            let core_at = whole.then_some(units.len());
            if whole {
                // Before those beyond the minimum, who are lost with it.
                let mut unit = unit(core, pods.len(), None);
                unit.rank.0 = Reverse(pods.iter().any(|pod| violating.contains(pod)));
                units.push(unit);
            }
            for pod in surplus.iter().filter(|pod| place_of.contains_key(pod)) {
                units.push(unit(&[*pod], 0, core_at));
            }
        }
        units.extend(order.iter().filter(|pod| !in_bands.contains(pod)).map(|pod| unit(&[*pod], 0, None)));
        // In order of importance, with the references to cores following.
        let mut by_rank: Vec<usize> = (0..units.len()).collect();
        by_rank.sort_by_key(|at| units[*at].rank);
        let mut moved = vec![0; units.len()];
        by_rank.iter().enumerate().for_each(|(to, from)| moved[*from] = to);
        let mut sorted: Vec<Unit> = Vec::with_capacity(units.len());
        let mut taken: Vec<Option<Unit>> = units.into_iter().map(Some).collect();
        sorted.extend(by_rank.iter().filter_map(|from| taken[*from].take()));
        for unit in &mut sorted {
            unit.core = unit.core.map(|core| moved[core]);
        }
        sorted
    }

    /// What a pod holds of what one who asks needs, in thousandths; all of it counts no more than once.
    fn share_of(&self, pod: PodId, ask: &[PodId]) -> i64 {
        let Some(first) = ask.first() else { return 0 };
        let (of, asked) = (&self.class(self.entry(pod).class).requests, &self.class(self.entry(*first).class).requests);
        let base = of.base.iter().zip(&asked.base).map(|(has, needs)| (*has, *needs));
        let held =
            |resource: usize| of.extended.iter().find(|(id, _)| *id == resource).map_or(0, |(_, amount)| *amount);
        let extended = asked.extended.iter().filter(|(id, _)| *id >= EXTENDED).map(|(id, needs)| (held(*id), *needs));
        let part = |(has, needs): (i64, i64)| (has.min(needs) as i128 * 1000 / i128::from(needs)) as i64;
        base.chain(extended).filter(|(_, needs)| *needs > 0).map(part).max().unwrap_or(0)
    }

    fn clearance(
        &self,
        ask: &[PodId],
        units: &[Unit],
        gone: &BTreeSet<usize>,
        placed: Vec<(PodId, NodeId)>,
    ) -> Clearance {
        let lost = |at: &usize| gone.contains(at) || units[*at].core.is_some_and(|core| gone.contains(&core));
        let of = |at: usize| units[at].pods.iter().map(|(pod, _)| *pod);
        let mut victims: Vec<PodId> = (0..units.len()).filter(lost).flat_map(of).collect();
        self.sort_by_importance(&mut victims);
        let violations = self.split_by_budget(&victims).0.len();
        let priority = ask.iter().map(|pod| self.pod_priority(*pod)).min().unwrap_or(i32::MIN);
        let nodes: BTreeSet<NodeId> = placed.iter().map(|(_, node)| *node).collect();
        let nominated = nodes.iter().filter_map(|node| self.nominated.get(node)).flatten().copied();
        let displaced = nominated.filter(|pod| self.pod_priority(*pod) < priority).collect();
        let victims = victims.into_iter().map(|pod| Victim { pod, terminating: false }).collect();
        Clearance { placed, victims, violations, displaced }
    }

    /// Whether pods that were placed on a node still could be, now that somebody is back there.
    fn still_there(&mut self, pods: &[PodId], node: NodeId) -> bool {
        pods.iter().all(|pod| {
            self.detach(*pod);
            let verdict = self.verdict_now(self.entry(*pod).class, node);
            self.reattach(*pod, node);
            verdict.is_ok()
        })
    }
}

impl Search<'_> {
    /// Whether those who ask can be placed as things are.
    fn try_now(&mut self, pool: &mut Pool) -> bool {
        match (self.place)(pool) {
            Some(placed) => {
                self.trials += placed.len().max(1);
                placed.iter().for_each(|(pod, _)| pool.forget(*pod));
                self.last = placed;
                true
            }
            None => {
                self.trials += 1;
                false
            }
        }
    }

    /// Puts everyone back who need not go. Returns who has to. All are thought away, and those who ask can be placed.
    fn spare_all(&mut self, pool: &mut Pool, units: &[Unit]) -> BTreeSet<usize> {
        let mut back = vec![false; units.len()];
        if units.len().saturating_mul(self.last.len()) > TRIALS {
            self.spare_elsewhere(pool, units, &mut back);
        }
        let mut gone = BTreeSet::new();
        let open: Vec<usize> = (0..units.len()).filter(|at| !back[*at]).collect();
        let mut left: Vec<usize> = Vec::new();
        // Ranges of who is to be put back, the most important on top. That all of a range can be is tried first: the outcome is that of
        // trying one after the other.
        let mut ranges: Vec<(usize, usize)> = vec![(0, open.len())];
        while let Some((from, to)) = ranges.pop() {
            let lost = |at: &&usize| units[**at].core.is_some_and(|core| gone.contains(&core));
            let range: Vec<usize> = open[from..to].iter().filter(|at| !lost(at)).copied().collect();
            if range.is_empty() {
                continue;
            }
            if self.trials >= TRIALS {
                left.extend(range);
                continue;
            }
            range.iter().for_each(|at| pool.think_back(&units[*at]));
            if self.try_now(pool) {
                continue;
            }
            range.iter().for_each(|at| pool.think_away(&units[*at]));
            if let [one] = range[..] {
                gone.insert(one);
                continue;
            }
            let middle = from + (to - from) / 2;
            ranges.push((middle, to));
            ranges.push((from, middle));
        }
        if !left.is_empty() {
            self.spare_beside(pool, units, &left, &mut gone);
        }
        gone
    }

    /// Puts those back who are on nodes that the last placement does not use, if that does no harm.
    fn spare_elsewhere(&mut self, pool: &mut Pool, units: &[Unit], back: &mut [bool]) {
        let used: BTreeSet<NodeId> = self.last.iter().map(|(_, node)| *node).collect();
        let elsewhere: Vec<usize> =
            (0..units.len()).filter(|at| !units[*at].pods.iter().any(|(_, node)| used.contains(node))).collect();
        elsewhere.iter().for_each(|at| pool.think_back(&units[*at]));
        if self.try_now(pool) {
            elsewhere.iter().for_each(|at| back[*at] = true);
        } else {
            elsewhere.iter().for_each(|at| pool.think_away(&units[*at]));
        }
    }

    /// When there is no time to try everyone: who has room beside the last placement is put back, the most important first.
    fn spare_beside(&mut self, pool: &mut Pool, units: &[Unit], left: &[usize], gone: &mut BTreeSet<usize>) {
        let placed = std::mem::take(&mut self.last);
        let heeds = placed.iter().any(|(pod, _)| pool.heeds_others(pool.entry(*pod).class));
        // Rules about other pods and devices look beyond the node and its sums: nobody is put back beside those without trying all.
        if heeds || !pool.numa.is_empty() {
            gone.extend(left);
            self.last = placed;
            return;
        }
        let mut by_node: BTreeMap<NodeId, Vec<PodId>> = BTreeMap::new();
        for (pod, node) in &placed {
            pool.attach(*pod, *node);
            by_node.entry(*node).or_default().push(*pod);
        }
        for at in left {
            if units[*at].core.is_some_and(|core| gone.contains(&core)) {
                continue;
            }
            pool.think_back(&units[*at]);
            let nodes: BTreeSet<NodeId> = units[*at].pods.iter().map(|(_, node)| *node).collect();
            let fits = nodes.iter().all(|node| by_node.get(node).is_none_or(|pods| pool.still_there(pods, *node)));
            if !fits {
                pool.think_away(&units[*at]);
                gone.insert(*at);
            }
        }
        placed.iter().for_each(|(pod, _)| pool.detach(*pod));
        self.last = placed;
    }
}

//! The choice among buckets. A bucket is a group of nodes and a split: its nodes differ in nothing but their number in the tree, so the
//! rules are asked once for each bucket and the tree gives its best node.

use crate::column::{ColumnId, Domain};
use crate::filter::{Code, Verdict};
use crate::index::tree::{Leaf, Tree};
use crate::index::view::{Scope, Spread, Term, View};
use crate::pool::{NOWHERE, NodeId, PodId, Pool};
use crate::score::{
    NODE_AFFINITY_WEIGHT, POD_AFFINITY_WEIGHT, SPREAD_WEIGHT, TAINT_WEIGHT, preference_scaled, scale, spread_raw,
    spread_scaled, spread_weight,
};
use std::collections::BTreeMap;

/// Nodes on which room is being made for others are asked one by one; beyond so many the whole evaluation answers.
const MOST_GUESTS: usize = 64;

/// What the indexes answer.
pub(crate) enum Answer {
    /// The node on which room was made for it.
    Nominated(NodeId),
    /// The best node and its score.
    Best(NodeId, i64),
    /// No node; verdicts with their number of nodes.
    None(BTreeMap<Verdict, usize>),
    /// The whole evaluation has to answer.
    Unknown,
}

/// A feasible bucket.
struct Bucket {
    split: usize,
    group: usize,
    top: Leaf,
    count: u32,
    spread: Option<i64>,
    preference: i64,
}

/// A term's numbers for one decision.
struct Numbers {
    scope: Scope,
    /// By group, for scopes of groups: None where the label is missing.
    by_group: Vec<Option<i64>>,
}

impl Numbers {
    #[inline]
    fn at(&self, keys: &[i64], group: usize) -> Option<i64> {
        match self.scope {
            Scope::Groups(_) => self.by_group[group],
            Scope::Nodes(_, part) => self.by_group[group].map(|_| keys[part]),
        }
    }
}

/// A hard constraint's numbers.
struct Hard {
    numbers: Numbers,
    counts_here: Vec<bool>,
    max_skew: i64,
    own: i64,
    min: i64,
}

/// All hard rules about other pods, for one decision.
#[derive(Default)]
struct Rules {
    hard: Vec<Hard>,
    affinity: Vec<Numbers>,
    first_of_group: bool,
    anti: Vec<Numbers>,
    repelled: Vec<Numbers>,
}

impl Rules {
    /// The same as [`crate::topology::Surroundings::verdict`], for a bucket.
    fn verdict(&self, keys: &[i64], group: usize) -> Verdict {
        for constraint in &self.hard {
            match constraint.numbers.at(keys, group) {
                None => return Verdict::new(Code::SpreadLabel),
                Some(count) => {
                    let count = if constraint.counts_here[group] { count } else { constraint.elsewhere(group) };
                    if count + constraint.own - constraint.min > constraint.max_skew {
                        return Verdict::new(Code::Spread);
                    }
                }
            }
        }
        let mut all = true;
        for term in &self.affinity {
            match term.at(keys, group) {
                None => return Verdict::new(Code::Affinity),
                Some(count) => all &= count > 0,
            }
        }
        if !all && !self.first_of_group {
            return Verdict::new(Code::Affinity);
        }
        let present = |numbers: &Numbers| numbers.at(keys, group).is_some_and(|count| count > 0);
        if self.anti.iter().any(present) {
            return Verdict::new(Code::AntiAffinity);
        }
        if self.repelled.iter().any(present) {
            return Verdict::new(Code::ExistingAntiAffinity);
        }
        Verdict::OK
    }
}

impl Hard {
    /// The number of a group that takes no part: its domain's, to which its own pods add nothing.
    fn elsewhere(&self, group: usize) -> i64 {
        match self.numbers.scope {
            Scope::Groups(_) => self.numbers.by_group[group].unwrap_or(0),
            Scope::Nodes(..) => 0,
        }
    }
}

impl Pool {
    /// Decides by the indexes.
    pub(crate) fn decide_by_index(&mut self, pod: PodId) -> Answer {
        self.refresh_layout();
        self.indexes.clock += 1;
        self.sweep();
        let class = self.entry(pod).class;
        let refused = if self.nominated.is_empty() {
            Vec::new()
        } else {
            let guests = self.guests(pod);
            if let Some(node) = self.pod_nominated(pod) {
                let others = guests.iter().find(|(at, _)| *at == node).map(|(_, guests)| guests.clone());
                let room = others.is_none_or(|guests| self.verdict_with(pod, node, &guests).is_ok());
                if room && self.verdict_now(self.entry(pod).class, node).is_ok() {
                    return Answer::Nominated(node);
                }
            }
            if guests.len() > MOST_GUESTS {
                return Answer::Unknown;
            }
            let mut refused = Vec::new();
            for (node, guests) in guests {
                if !self.verdict_with(pod, node, &guests).is_ok() {
                    refused.push(node);
                }
            }
            refused
        };
        let Some(mut view) = self.take_view(class) else { return Answer::Unknown };
        let hidden = self.hide(&mut view, &refused);
        let answer = self.select(&view, refused.is_empty());
        self.unhide(&mut view, hidden);
        self.put_view(class, view);
        answer
    }

    /// Takes nodes out of a view for one decision; returns what is to be put back.
    fn hide(&mut self, view: &mut View, nodes: &[NodeId]) -> Vec<(usize, usize, Leaf)> {
        let mut hidden = Vec::new();
        for node in nodes {
            let Some((slot, group)) = self.indexes.layout.place(*node) else { continue };
            let split = view.split.of(slot);
            let Some(tree) = self.tree_mut(view, split) else { continue };
            hidden.push((slot, group, tree.get(slot)));
            tree.set(slot, group, 0);
        }
        hidden
    }
    fn unhide(&mut self, view: &mut View, hidden: Vec<(usize, usize, Leaf)>) {
        for (slot, group, leaf) in hidden {
            let split = view.split.of(slot);
            if let Some(tree) = self.tree_mut(view, split) {
                tree.set(slot, group, leaf);
            }
        }
    }
    fn tree_mut<'a>(&'a mut self, view: &'a mut View, split: usize) -> Option<&'a mut Tree> {
        if view.split.parts.is_empty() {
            self.indexes.shapes.shapes[view.shape as usize].as_mut().map(|shape| &mut shape.tree)
        } else {
            view.split.trees.get_mut(split)
        }
    }

    fn domain(&self, column: ColumnId, group: usize) -> Domain {
        self.columns.get(column).of(self.indexes.layout.groups[group].sample)
    }

    /// Sums by domain over groups, told to each group of the domain. `counts`: whether a group's pods count.
    fn by_domain(&self, column: ColumnId, of: &[i64], counts: impl Fn(usize) -> bool) -> Vec<Option<i64>> {
        let mut sums = vec![0i64; self.columns.get(column).bound()];
        let groups = self.indexes.layout.groups.len();
        for group in (0..groups).filter(|group| of[*group] != 0 && counts(*group)) {
            sums[self.domain(column, group) as usize] += of[group];
        }
        (0..groups)
            .map(|group| match self.domain(column, group) {
                0 => None,
                domain => Some(sums[domain as usize]),
            })
            .collect()
    }

    /// Presence of a label, for scopes whose number is the node's own.
    fn labelled(&self, column: ColumnId) -> Vec<Option<i64>> {
        (0..self.indexes.layout.groups.len()).map(|group| (self.domain(column, group) != 0).then_some(0)).collect()
    }

    fn numbers(&self, term: &Term) -> Numbers {
        let by_group = match term.scope {
            Scope::Groups(column) => self.by_domain(column, &self.indexes.matchers.get(term.matcher).all, |_| true),
            Scope::Nodes(column, _) => self.labelled(column),
        };
        Numbers { scope: term.scope, by_group }
    }

    fn rules(&self, view: &View) -> Rules {
        let hard_label =
            |group: usize| view.hard.iter().all(|constraint| self.domain(constraint.scope.column(), group) != 0);
        let all = |group: &usize| {
            let matcher = view.affinity.first().map(|term| self.indexes.matchers.get(term.matcher));
            matcher.is_some_and(|m| m.all[*group] > 0)
                && view.affinity.iter().any(|term| self.domain(term.scope.column(), *group) != 0)
        };
        let somebody = !view.affinity.is_empty() && (0..self.indexes.layout.groups.len()).any(|group| all(&group));
        Rules {
            hard: view.hard.iter().map(|constraint| self.hard(view, constraint, hard_label)).collect(),
            affinity: view.affinity.iter().map(|term| self.numbers(term)).collect(),
            first_of_group: !somebody && view.matches_itself,
            anti: view.anti.iter().map(|term| self.numbers(term)).collect(),
            repelled: view.repelled.iter().map(|term| self.numbers(term)).collect(),
        }
    }

    fn hard(&self, view: &View, constraint: &Spread, labelled: impl Fn(usize) -> bool) -> Hard {
        let groups = self.indexes.layout.groups.len();
        let counts_here: Vec<bool> = (0..groups).map(|group| constraint.takes_part[group] && labelled(group)).collect();
        let column = constraint.scope.column();
        let (by_group, domains, least) = match constraint.scope {
            Scope::Groups(column) => {
                let staying = &self.indexes.matchers.get(constraint.matcher).staying;
                let by_group = self.by_domain(column, staying, |group| counts_here[group]);
                let mut eligible = vec![false; self.columns.get(column).bound()];
                let mut least: Option<i64> = None;
                for group in (0..groups).filter(|group| counts_here[*group]) {
                    eligible[self.domain(column, group) as usize] = true;
                    least = least.into_iter().chain(by_group[group]).min();
                }
                (by_group, eligible.into_iter().filter(|e| *e).count() as i64, least)
            }
            Scope::Nodes(_, part) => {
                let (mut domains, mut least) = (0, None);
                for (keys, population) in view.split.keys.iter().zip(&view.split.population) {
                    let here: u32 =
                        (0..groups).filter(|group| counts_here[*group]).map(|group| population[group]).sum();
                    domains += i64::from(here);
                    if here > 0 {
                        least = least.into_iter().chain([keys[part]]).min();
                    }
                }
                (self.labelled(column), domains, least)
            }
        };
        let too_few = domains < i64::from(constraint.min_domains);
        Hard {
            numbers: Numbers { scope: constraint.scope, by_group },
            counts_here,
            max_skew: i64::from(constraint.max_skew),
            own: constraint.own,
            min: if too_few { 0 } else { least.unwrap_or(0) },
        }
    }

    fn select(&self, view: &View, tell_refusals: bool) -> Answer {
        let Some(shape) = self.indexes.shapes.get(view.shape) else { return Answer::Unknown };
        let layout = &self.indexes.layout;
        let rules = self.rules(view);
        let split = !view.split.parts.is_empty();
        let no_keys: &[i64] = &[];
        let trees: Vec<(&Tree, &[i64])> = if split {
            view.split.trees.iter().zip(view.split.keys.iter().map(|keys| &**keys)).collect()
        } else {
            vec![(&shape.tree, no_keys)]
        };
        let mut buckets = Vec::new();
        for (at, (tree, keys)) in trees.iter().enumerate() {
            for (group, of) in layout.groups.iter().enumerate() {
                let count = tree.count(group);
                if count == 0 || !view.standing[group].verdict.is_ok() || !rules.verdict(keys, group).is_ok() {
                    continue;
                }
                let top = tree.top(of.blocks.clone());
                buckets.push(Bucket { split: at, group, top, count, spread: None, preference: 0 });
            }
        }
        if buckets.is_empty() {
            return if tell_refusals { Answer::None(self.refusals(view, &rules, &trees)) } else { Answer::Unknown };
        }
        self.score_spread(view, &mut buckets, &trees);
        self.score_preferences(view, &mut buckets, &trees);
        self.best_bucket(view, &buckets, &trees)
    }

    fn best_bucket(&self, view: &View, buckets: &[Bucket], trees: &[(&Tree, &[i64])]) -> Answer {
        let layout = &self.indexes.layout;
        let of = |bucket: &Bucket| view.standing[bucket.group];
        let taints = buckets.iter().map(|bucket| of(bucket).soft_taints).max().unwrap_or(0);
        let preference = buckets.iter().map(|bucket| of(bucket).preference).max().unwrap_or(0);
        let raws = || buckets.iter().filter_map(|bucket| bucket.spread);
        let spread = (raws().min().unwrap_or(i64::MAX), raws().max().unwrap_or(0).max(0));
        let liked = || buckets.iter().map(|bucket| bucket.preference);
        let liking = (liked().min().unwrap_or(0), liked().max().unwrap_or(0));
        let image = view.split.parts.iter().position(|part| *part == crate::index::view::Part::Image);
        let mut best = (i64::MIN, NOWHERE);
        for bucket in buckets {
            let standing = of(bucket);
            let (tree, keys) = &trees[bucket.split];
            let mut total = i64::from(bucket.top) - 1
                + TAINT_WEIGHT * scale(standing.soft_taints, taints, true)
                + NODE_AFFINITY_WEIGHT * scale(standing.preference, preference, false)
                + POD_AFFINITY_WEIGHT * preference_scaled(bucket.preference, liking.0, liking.1)
                + image.map_or(0, |part| keys[part]);
            if !view.soft.is_empty() {
                total += SPREAD_WEIGHT * bucket.spread.map_or(0, |raw| spread_scaled(raw, spread.0, spread.1));
            }
            if total < best.0 {
                continue;
            }
            let Some(slot) = tree.first(layout.groups[bucket.group].blocks.clone(), bucket.top) else { continue };
            let node = layout.node_at[slot];
            if total > best.0 || node < best.1 {
                best = (total, node);
            }
        }
        Answer::Best(best.1, best.0)
    }

    fn score_spread(&self, view: &View, buckets: &mut [Bucket], trees: &[(&Tree, &[i64])]) {
        if view.soft.is_empty() {
            return;
        }
        let labelled =
            |group: usize| view.soft.iter().all(|constraint| self.domain(constraint.scope.column(), group) != 0);
        let counted = |group: usize| !view.need_all_labels || labelled(group);
        let nodes: usize = buckets.iter().filter(|b| counted(b.group)).map(|b| b.count as usize).sum();
        let per_constraint: Vec<(Numbers, Vec<bool>, i32, f64)> = view
            .soft
            .iter()
            .map(|constraint| {
                let column = constraint.scope.column();
                let takes_part = |group: usize| constraint.takes_part[group] && counted(group);
                let mut candidate = vec![false; self.columns.get(column).bound()];
                for bucket in buckets.iter().filter(|bucket| counted(bucket.group)) {
                    candidate[self.domain(column, bucket.group) as usize] = true;
                }
                let (by_group, domains) = match constraint.scope {
                    Scope::Groups(column) => {
                        let staying = &self.indexes.matchers.get(constraint.matcher).staying;
                        let counts = |group: usize| {
                            constraint.hostname || (takes_part(group) && candidate[self.domain(column, group) as usize])
                        };
                        let domains = candidate.iter().filter(|candidate| **candidate).count();
                        (self.by_domain(column, staying, counts), domains)
                    }
                    Scope::Nodes(column, _) => {
                        let mine = buckets.iter().filter(|b| counted(b.group) && self.domain(column, b.group) != 0);
                        let mine: usize = mine.map(|bucket| bucket.count as usize).sum();
                        (self.labelled(column), mine + usize::from(mine < nodes))
                    }
                };
                let domains = if constraint.hostname { nodes } else { domains };
                let groups = self.indexes.layout.groups.len();
                let counts_here = (0..groups).map(|group| constraint.hostname || takes_part(group)).collect();
                let numbers = Numbers { scope: constraint.scope, by_group };
                (numbers, counts_here, constraint.max_skew, spread_weight(domains))
            })
            .collect();
        for bucket in buckets {
            if !counted(bucket.group) {
                continue;
            }
            let keys = trees[bucket.split].1;
            let sum: f64 = per_constraint
                .iter()
                .filter_map(|(numbers, counts_here, max_skew, weight)| {
                    let count = numbers.at(keys, bucket.group)?;
                    let own = matches!(numbers.scope, Scope::Nodes(..)) && !counts_here[bucket.group];
                    Some(spread_raw(if own { 0 } else { count }, *max_skew, *weight))
                })
                .sum();
            bucket.spread = Some(sum.round() as i64);
        }
    }

    fn score_preferences(&self, view: &View, buckets: &mut [Bucket], trees: &[(&Tree, &[i64])]) {
        for (term, weight) in view.preferred.iter().chain(&view.weighed) {
            let numbers = self.numbers(term);
            for bucket in &mut *buckets {
                bucket.preference += weight * numbers.at(trees[bucket.split].1, bucket.group).unwrap_or(0);
            }
        }
    }

    /// Every node's verdict, counted.
    fn refusals(&self, view: &View, rules: &Rules, trees: &[(&Tree, &[i64])]) -> BTreeMap<Verdict, usize> {
        let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
        let mut add = |verdict: Verdict, nodes: u32| {
            if nodes > 0 {
                *counts.entry(verdict).or_default() += nodes as usize;
            }
        };
        let Some(shape) = self.indexes.shapes.get(view.shape) else { return counts };
        for (group, of) in self.indexes.layout.groups.iter().enumerate() {
            let standing = view.standing[group].verdict;
            if !standing.is_ok() {
                add(standing, of.nodes);
                continue;
            }
            for (verdict, nodes) in shape.verdicts(group) {
                add(verdict, nodes);
            }
            for (tree, keys) in trees {
                add(rules.verdict(keys, group), tree.count(group));
            }
        }
        counts
    }
}

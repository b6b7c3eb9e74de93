//! How good the nodes are that can have a pod: kube-scheduler's default score plugins and weights, in its integer arithmetic.

use crate::class::{CPU, Class, ClassId, MEMORY, Requests};
use crate::column::ColumnId;
use crate::pool::{Hot, NodeId, Pool};
use crate::topology::ByDomain;
use model::scheduling::{HOSTNAME, NodeFacts, SpreadConstraint, ZONE};
use model::taint::{TaintEffect, Toleration, tolerated};
use std::sync::Arc;

/// The best score of one plugin.
pub(crate) const MAX: i64 = 100;
/// Weights of the plugins that have one other than 1.
pub(crate) const TAINT_WEIGHT: i64 = 3;
/// Node affinity.
pub(crate) const NODE_AFFINITY_WEIGHT: i64 = 2;
/// Topology spread.
pub(crate) const SPREAD_WEIGHT: i64 = 2;
/// Pod (anti-)affinity.
pub(crate) const POD_AFFINITY_WEIGHT: i64 = 2;
/// What a required affinity term of a pod that is there adds for pods that it means.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// An image smaller than this is as good as absent.
const IMAGE_MIN: i64 = 23 * 1024 * 1024;
/// An image larger than this, for each container, is no better.
const IMAGE_MAX: i64 = 1000 * 1024 * 1024;

/// Which nodes `NodeResourcesFit` prefers: its scoring strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FitStrategy {
    /// The emptier nodes: kube-scheduler's default.
    #[default]
    LeastAllocated,
    /// The fuller nodes: fewer are in use in the end.
    MostAllocated,
}

/// `NodeResourcesFit` and `NodeResourcesBalancedAllocation` together, 0 to 200.
#[inline]
fn resource_score(fit: FitStrategy, requests: &Requests, hot: &Hot) -> i64 {
    allocated(fit, requests, hot) + balanced(requests, hot)
}

impl Pool {
    /// Which nodes are preferred by how full they are.
    pub fn set_fit_strategy(&mut self, fit: FitStrategy) {
        if self.fit != fit {
            self.fit = fit;
            self.indexes.layout_changed();
        }
    }

    /// A node's resource score, with a load policy its load score, on nodes with zones how few would be taken, on those that tell of their GPUs how full these would be: 0 to 488.
    #[inline]
    pub(crate) fn room_score(&self, requests: &Requests, node: NodeId) -> i64 {
        let hot = &self.hot[node as usize];
        let load =
            self.load_policy.as_ref().map_or(0, |policy| policy.score(requests, hot, &self.loads[node as usize]));
        let parts = if self.numa.is_empty() { 0 } else { self.parts_score(requests, node) };
        resource_score(self.fit, requests, hot) + load + parts
    }
}

#[inline]
fn allocated(fit: FitStrategy, requests: &Requests, hot: &Hot) -> i64 {
    let (mut sum, mut weights) = (0, 0);
    for resource in [CPU, MEMORY] {
        let allocatable = hot.allocatable[resource];
        if allocatable == 0 {
            continue;
        }
        let used = hot.nominal[resource] + requests.nominal[resource];
        weights += 1;
        if used <= allocatable {
            let counted = if fit == FitStrategy::LeastAllocated { allocatable - used } else { used };
            sum += counted * MAX / allocatable;
        }
    }
    if weights == 0 { 0 } else { sum / weights }
}

/// Better when the pod brings CPU and memory nearer to each other: 50 to 100, 75 when it changes nothing. A pod that asks for
/// neither is scored 0 everywhere.
#[inline]
fn balanced(requests: &Requests, hot: &Hot) -> i64 {
    if requests.base[CPU] == 0 && requests.base[MEMORY] == 0 {
        return 0;
    }
    let with = balance(hot, requests.base[CPU], requests.base[MEMORY]);
    MAX / 2 + (MAX / 2 + with - balance(hot, 0, 0)) / 2
}

/// How near to each other a node's shares of used CPU and memory are with so much more: 50 to 100.
#[inline]
fn balance(hot: &Hot, cpu: i64, memory: i64) -> i64 {
    if hot.allocatable[CPU] == 0 || hot.allocatable[MEMORY] == 0 {
        // One fraction deviates from nothing.
        return MAX;
    }
    let fraction = |resource: usize, more: i64| {
        let fraction = (hot.used[resource] + more) as f64 / hot.allocatable[resource] as f64;
        if fraction > 1.0 { 1.0 } else { fraction }
    };
    let deviation = ((fraction(CPU, cpu) - fraction(MEMORY, memory)) / 2.0).abs();
    ((1.0 - deviation) * MAX as f64) as i64
}

/// PreferNoSchedule taints that are not tolerated.
pub(crate) fn soft_taints(tolerations: &[Toleration], node: &NodeFacts) -> i64 {
    let soft = node.taints.iter().filter(|taint| taint.effect == TaintEffect::PreferNoSchedule);
    soft.filter(|taint| !tolerated(tolerations, taint)).count() as i64
}

/// Weights of the preferred node affinity terms that match.
pub(crate) fn node_preference(class: &Class, node: &NodeFacts) -> i64 {
    let preferred = class.spec().preferred_nodes.iter();
    preferred.filter(|(_, term)| term.matches(&node.name, &node.labels)).map(|(weight, _)| i64::from(*weight)).sum()
}

/// What a class gains from the images that a node has.
pub(crate) fn image_score(pool: &Pool, class: &Class, node: &NodeFacts, nodes: usize) -> i64 {
    let images = &class.spec().images;
    if images.is_empty() || nodes == 0 {
        return 0;
    }
    let have = &node.scheduling.images;
    let scaled = |name: &Arc<str>| {
        let at = have.binary_search_by(|(other, _)| other.cmp(name)).ok()?;
        let spread = f64::from(pool.image_nodes.get(name).copied().unwrap_or(0)) / nodes as f64;
        Some((have[at].1 as f64 * spread) as i64)
    };
    let sum: i64 = images.iter().filter_map(scaled).sum();
    let max = IMAGE_MAX * images.len() as i64;
    MAX * (sum.clamp(IMAGE_MIN, max) - IMAGE_MIN) / (max - IMAGE_MIN)
}

/// The soft spread constraints of a class: its own, or those of default spreading. The flag: nodes without a label are left out.
pub(crate) fn soft_spread(pool: &mut Pool, class: ClassId) -> (Vec<(SpreadConstraint, ColumnId)>, bool) {
    let of = pool.class(class);
    if !of.spec().spread.is_empty() {
        let own = of.spec().spread.iter().cloned().zip(of.spread_columns.iter().copied());
        return (own.filter(|(constraint, _)| !constraint.hard).collect(), true);
    }
    let Some(selector) = of.default_spread.clone() else { return (Vec::new(), false) };
    let constraints = [(HOSTNAME, 3), (ZONE, 5)].map(|(key, max_skew)| {
        let constraint = SpreadConstraint {
            topology_key: key.into(),
            selector: Some(selector.clone()),
            max_skew,
            min_domains: 1,
            hard: false,
            honor_affinity: true,
            honor_taints: false,
        };
        let column = pool.column(&constraint.topology_key);
        (constraint, column)
    });
    (constraints.into(), false)
}

/// Scores of feasible nodes, in their order.
pub(crate) fn scores(pool: &mut Pool, id: ClassId, feasible: &[NodeId]) -> Vec<i64> {
    let soft = soft_spread(pool, id);
    let pool = &*pool;
    let class = pool.class(id);
    let nodes = pool.node_ids.len();
    let facts = |node: &NodeId| &*pool.nodes[*node as usize].facts;
    let mut total: Vec<i64> = feasible
        .iter()
        .map(|node| pool.room_score(&class.requests, *node) + image_score(pool, class, facts(node), nodes))
        .collect();
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (total, score) in total.iter_mut().zip(scores) {
            *total += weight * score;
        }
    };
    let taints = feasible.iter().map(|node| soft_taints(&class.spec().tolerations, facts(node))).collect();
    add(TAINT_WEIGHT, normalised(taints, true));
    let preferred = feasible.iter().map(|node| node_preference(class, facts(node))).collect();
    add(NODE_AFFINITY_WEIGHT, normalised(preferred, false));
    if !soft.0.is_empty() {
        add(SPREAD_WEIGHT, spread_scores(pool, class, &soft.0, soft.1, feasible));
    }
    add(POD_AFFINITY_WEIGHT, pod_affinity_scores(pool, class, feasible));
    total
}

/// Scales to 0..=100 by the largest; `reverse`: the smallest is best.
pub(crate) fn normalised(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        *score = scale(*score, max, reverse);
    }
    scores
}

/// One score by the largest of all.
#[inline]
pub(crate) fn scale(score: i64, max: i64, reverse: bool) -> i64 {
    let scaled = if max == 0 { 0 } else { MAX * score / max };
    if reverse { MAX - scaled } else { scaled }
}

/// Weight of one pod more, by how many domains there are.
pub(crate) fn spread_weight(domains: usize) -> f64 {
    ((domains + 2) as f64).ln()
}

/// One node's raw spread score.
#[inline]
pub(crate) fn spread_raw(count: i64, max_skew: i32, weight: f64) -> f64 {
    count as f64 * weight + f64::from(max_skew - 1)
}

/// A raw spread score among the extremes of all.
#[inline]
pub(crate) fn spread_scaled(raw: i64, min: i64, max: i64) -> i64 {
    if max == 0 { MAX } else { MAX * (max + min - raw) / max }
}

fn spread_scores(
    pool: &Pool,
    class: &Class,
    constraints: &[(SpreadConstraint, ColumnId)],
    need_all_labels: bool,
    feasible: &[NodeId],
) -> Vec<i64> {
    let labelled = |node: NodeId| constraints.iter().all(|(_, column)| pool.domain_of(*column, node) != 0);
    let counted: Vec<NodeId> = feasible.iter().copied().filter(|node| !need_all_labels || labelled(*node)).collect();
    let per_constraint: Vec<(ByDomain, i32, f64)> = constraints
        .iter()
        .map(|(constraint, column)| {
            let mut by = ByDomain::new(*column, &pool.columns);
            let host = &*constraint.topology_key == HOSTNAME;
            let mut candidate = vec![false; by.counts.len()];
            for node in &counted {
                candidate[pool.domain_of(*column, *node) as usize] = true;
            }
            pool.add_spread_counts(class, constraint, &mut by, |node| {
                let part = (!need_all_labels || labelled(node)) && pool.takes_part(class, constraint, node);
                host || (part && candidate[pool.domain_of(*column, node) as usize])
            });
            let domains = if host { counted.len() } else { candidate.iter().filter(|c| **c).count() };
            (by, constraint.max_skew, spread_weight(domains))
        })
        .collect();
    let raw = |node: NodeId| {
        if need_all_labels && !labelled(node) {
            return None;
        }
        let sum: f64 = per_constraint
            .iter()
            .filter_map(|(by, max_skew, weight)| Some(spread_raw(by.at(&pool.columns, node)?, *max_skew, *weight)))
            .sum();
        Some(sum.round() as i64)
    };
    let raws: Vec<Option<i64>> = feasible.iter().map(|node| raw(*node)).collect();
    let (min, max) = raws.iter().flatten().fold((i64::MAX, 0), |(min, max), raw| (min.min(*raw), max.max(*raw)));
    raws.into_iter().map(|raw| raw.map_or(0, |raw| spread_scaled(raw, min, max))).collect()
}

/// Sums by domain of what preferred terms, of the class and of pods that are there, give.
pub(crate) fn pod_preferences(pool: &Pool, class: &Class) -> Vec<ByDomain> {
    let mut sums: Vec<ByDomain> = Vec::new();
    let spec = class.spec();
    let mut give = |column: ColumnId, other: &Class, weight: i64| {
        let at = sums.iter().position(|by| by.column == column).unwrap_or_else(|| {
            sums.push(ByDomain::new(column, &pool.columns));
            sums.len() - 1
        });
        for (node, count) in &other.nodes {
            sums[at].add(&pool.columns, *node, weight * i64::from(count.all));
        }
    };
    if !spec.preferred_affinity.is_empty() || !spec.preferred_anti_affinity.is_empty() {
        for (_, other) in pool.placed_classes() {
            for ((weight, term), column) in spec.preferred_affinity.iter().zip(&class.affinity.preferred) {
                if pool.term_means(term, other) {
                    give(*column, other, i64::from(*weight));
                }
            }
            for ((weight, term), column) in spec.preferred_anti_affinity.iter().zip(&class.affinity.preferred_anti) {
                if pool.term_means(term, other) {
                    give(*column, other, -i64::from(*weight));
                }
            }
        }
    }
    for id in &pool.with_terms {
        let other = pool.class(*id);
        let theirs = other.spec();
        for (term, column) in theirs.affinity.iter().zip(&other.affinity.affinity) {
            if pool.term_means(term, class) {
                give(*column, other, HARD_AFFINITY_WEIGHT);
            }
        }
        for ((weight, term), column) in theirs.preferred_affinity.iter().zip(&other.affinity.preferred) {
            if pool.term_means(term, class) {
                give(*column, other, i64::from(*weight));
            }
        }
        for ((weight, term), column) in theirs.preferred_anti_affinity.iter().zip(&other.affinity.preferred_anti) {
            if pool.term_means(term, class) {
                give(*column, other, -i64::from(*weight));
            }
        }
    }
    sums
}

/// One node's sum.
pub(crate) fn preference_at(sums: &[ByDomain], pool: &Pool, node: NodeId) -> i64 {
    sums.iter().filter_map(|by| by.at(&pool.columns, node)).sum()
}

/// A sum among the extremes of all.
#[inline]
pub(crate) fn preference_scaled(sum: i64, min: i64, max: i64) -> i64 {
    if max == min { 0 } else { (MAX as f64 * ((sum - min) as f64 / (max - min) as f64)) as i64 }
}

fn pod_affinity_scores(pool: &Pool, class: &Class, feasible: &[NodeId]) -> Vec<i64> {
    let sums = pod_preferences(pool, class);
    if sums.is_empty() {
        return vec![0; feasible.len()];
    }
    let raws: Vec<i64> = feasible.iter().map(|node| preference_at(&sums, pool, *node)).collect();
    let (min, max) = raws.iter().fold((i64::MAX, i64::MIN), |(min, max), raw| (min.min(*raw), max.max(*raw)));
    raws.into_iter().map(|raw| preference_scaled(raw, min, max)).collect()
}

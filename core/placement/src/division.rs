//! Replicas divided over clusters (or zones, or regions): at least and at most so many groups, each within its bounds, in proportion
//! to weights, and never more than the nodes there can really hold ([`Pool::room_for`] counts copies node by node; it does not
//! estimate).

use crate::class::EXTENDED;
use crate::filter::{named_nodes, standing};
use crate::pool::{PodId, Pool};
use model::scheduling::NodeFacts;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where replicas may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the group.
    pub name: Arc<str>,
    /// Its part of the replicas; 0 counts as 1.
    pub weight: u32,
    /// How many replicas it can hold.
    pub room: usize,
    /// If it gets any, no fewer than this.
    pub at_least: usize,
    /// No more than this.
    pub at_most: usize,
}

/// How many groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// No fewer.
    pub min: usize,
    /// No more.
    pub max: usize,
}

impl Default for Groups {
    fn default() -> Self {
        Groups { min: 1, max: usize::MAX }
    }
}

/// Divides replicas: target by target, in the order given; None when it cannot be done within all bounds. Of all sets of groups that
/// can hold them the one with the most weight is taken (for equal weight the most room, then the first by the order given), and within
/// it each replica goes to the one that has the least for its weight.
pub fn divide(replicas: usize, targets: &[Target], groups: Groups) -> Option<Vec<usize>> {
    let able: Vec<usize> = {
        let mut able: Vec<usize> =
            (0..targets.len()).filter(|at| most(&targets[*at]) >= targets[*at].at_least.max(1)).collect();
        able.sort_by_key(|at| {
            let target = &targets[*at];
            (std::cmp::Reverse(target.weight.max(1)), std::cmp::Reverse(most(target)), *at)
        });
        able
    };
    if replicas == 0 {
        return Some(vec![0; targets.len()]);
    }
    let most_groups = groups.max.min(able.len()).min(replicas);
    // More groups carry more weight: the largest number first.
    (groups.min.max(1)..=most_groups).rev().find_map(|count| {
        let chosen = choose(replicas, targets, &able, count)?;
        Some(fill(replicas, targets, &chosen))
    })
}

fn most(target: &Target) -> usize {
    target.room.min(target.at_most)
}

/// The first `count` by weight that can hold the replicas; if these cannot, the lightest give way to those with the most room.
fn choose(replicas: usize, targets: &[Target], able: &[usize], count: usize) -> Option<Vec<usize>> {
    let holds = |chosen: &[usize]| {
        let room = chosen.iter().fold(0usize, |sum, at| sum.saturating_add(most(&targets[*at])));
        let least: usize = chosen.iter().map(|at| targets[*at].at_least.max(1)).sum();
        least <= replicas && replicas <= room
    };
    let mut chosen: Vec<usize> = able[..count].to_vec();
    if holds(&chosen) {
        return Some(chosen);
    }
    for kept in (0..count).rev() {
        let mut others: Vec<usize> = able[kept..].to_vec();
        others.sort_by_key(|at| (std::cmp::Reverse(most(&targets[*at])), *at));
        chosen = able[..kept].iter().copied().chain(others.into_iter().take(count - kept)).collect();
        if holds(&chosen) {
            return Some(chosen);
        }
    }
    // Room is not what is lacking: those that ask for the least.
    let mut modest = able.to_vec();
    modest.sort_by_key(|at| (targets[*at].at_least, std::cmp::Reverse(most(&targets[*at])), *at));
    modest.truncate(count);
    holds(&modest).then_some(modest)
}

fn fill(replicas: usize, targets: &[Target], chosen: &[usize]) -> Vec<usize> {
    let mut shares = vec![0; targets.len()];
    for at in chosen {
        shares[*at] = targets[*at].at_least.max(1);
    }
    for _ in chosen.iter().map(|at| shares[*at]).sum::<usize>()..replicas {
        let open = chosen.iter().filter(|at| shares[**at] < most(&targets[**at]));
        let has = |at: &usize| (shares[*at] as u64 * SCALE / u64::from(targets[*at].weight.max(1)), *at);
        if let Some(next) = open.min_by_key(|at| has(at)) {
            shares[*next] += 1;
        }
    }
    shares
}

/// Shares for a weight are compared in these parts.
const SCALE: u64 = 1 << 20;

impl Pool {
    /// How many copies of a pod the nodes have room for, by what `group` says of each node (None: it is in no group). Node by node:
    /// standing, resources, zones and number of pods; a pod with host ports fits on a node once. Rules about other pods are not counted.
    pub fn room_for(&self, pod: PodId, group: impl Fn(&NodeFacts) -> Option<Arc<str>>) -> BTreeMap<Arc<str>, usize> {
        let class = self.class(self.entry(pod).class);
        let named = named_nodes(class.spec());
        let mut rooms: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for node in self.live_nodes() {
            let facts = &self.nodes[node as usize].facts;
            let Some(name) = group(facts) else { continue };
            let room = rooms.entry(name).or_insert(0);
            if !standing(class.spec(), named.as_deref(), facts).is_ok() {
                continue;
            }
            let hot = &self.hot[node as usize];
            let mut copies = hot.pods_allowed - hot.pods;
            let mut fit = |free: i64, request: i64| {
                if request > 0 {
                    copies = copies.min(free.max(0) / request);
                }
            };
            for resource in 0..EXTENDED {
                fit(hot.allocatable[resource] - hot.used[resource], class.requests.base[resource]);
            }
            for (resource, request) in &class.requests.extended {
                let (allocatable, used) =
                    self.nodes[node as usize].extended.get(resource - EXTENDED).copied().unwrap_or_default();
                fit(allocatable - used, *request);
            }
            if !class.spec().host_ports.is_empty() {
                copies = copies.min(i64::from(!self.ports_conflict(class.spec(), node)));
            }
            *room += self.aligned_copies(&class.requests, node, copies.max(0)) as usize;
        }
        rooms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps(replicas: usize, targets: &[Target], groups: Groups, shares: &[usize]) -> bool {
        let used = shares.iter().filter(|share| **share > 0).count();
        let within = |(target, share): (&Target, &usize)| {
            *share == 0 || (*share >= target.at_least && *share <= target.at_most && *share <= target.room)
        };
        shares.iter().sum::<usize>() == replicas
            && used >= groups.min
            && used <= groups.max
            && targets.iter().zip(shares).all(within)
    }

    /// Whether any division at all keeps the bounds.
    fn possible(replicas: usize, targets: &[Target], groups: Groups, shares: &mut Vec<usize>) -> bool {
        if shares.len() == targets.len() {
            return keeps(replicas, targets, groups, shares);
        }
        (0..=replicas).any(|share| {
            shares.push(share);
            let found = possible(replicas, targets, groups, shares);
            shares.pop();
            found
        })
    }

    #[test]
    fn divides_whenever_it_can_be_done() {
        let mut state = 3u64;
        let mut roll = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % below) as usize
        };
        let (mut done, mut refused) = (0, 0);
        for case in 0..2000 {
            let targets: Vec<Target> = (0..1 + roll(4))
                .map(|n| Target {
                    name: format!("c{n}").into(),
                    weight: roll(4) as u32,
                    room: roll(6),
                    at_least: 0,
                    at_most: 1 + roll(6),
                })
                .collect();
            let min = 1 + roll(3);
            let groups = Groups { min, max: min + roll(3) };
            let replicas = 1 + roll(7);
            match divide(replicas, &targets, groups) {
                Some(shares) => {
                    assert!(
                        keeps(replicas, &targets, groups, &shares),
                        "case {case}: {replicas} {targets:?} {shares:?}"
                    );
                    done += 1;
                }
                None => {
                    let any = possible(replicas, &targets, groups, &mut Vec::new());
                    assert!(!any, "case {case}: {replicas} over {targets:?} by {groups:?}");
                    refused += 1;
                }
            }
        }
        assert!(done > 500 && refused > 100, "{done} {refused}");
    }

    #[test]
    fn goes_by_weight_and_spills_over_when_one_is_full() {
        let target = |name: &str, weight, room| Target { name: name.into(), weight, room, at_least: 0, at_most: 100 };
        let targets = [target("a", 2, 100), target("b", 1, 100)];
        assert_eq!(divide(9, &targets, Groups::default()), Some(vec![6, 3]));
        let targets = [target("a", 2, 4), target("b", 1, 100)];
        assert_eq!(divide(9, &targets, Groups::default()), Some(vec![4, 5]));
        assert_eq!(divide(9, &targets, Groups { min: 1, max: 1 }), Some(vec![0, 9]));
        assert_eq!(divide(9, &targets, Groups { min: 3, max: 3 }), None);
    }
}

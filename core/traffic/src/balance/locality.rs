//! Near endpoints first: priorities by locality, and how traffic spills to the next when one has too few healthy endpoints.

use super::PoolEndpoint;
use model::mesh::TrafficPolicy;
use std::sync::Arc;

/// Where a caller is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Region, or empty.
    pub region: Arc<str>,
    /// Zone, or empty.
    pub zone: Arc<str>,
    /// Node, or empty.
    pub node: Arc<str>,
}

/// A priority has room for this many hundredths of what its healthy endpoints would carry if load were even (Envoy's
/// overprovisioning factor): it takes all traffic until fewer than 72% are healthy.
const OVERPROVISIONED_PERCENT: u64 = 140;

/// Endpoints in groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// By priority: the first that is healthy enough takes all.
    Priorities(Vec<Vec<usize>>),
    /// By share: percentage and endpoints.
    Shares(Vec<(u32, Vec<usize>)>),
}

impl Groups {
    /// Groups of a pool for a caller at `place`. None: locality does not count.
    pub fn new(policy: &TrafficPolicy, place: &Place, endpoints: &[PoolEndpoint]) -> Option<Self> {
        let locality = &policy.locality;
        let wanted = policy.outlier.is_some() || !locality.distribute.is_empty() || !locality.priority.is_empty();
        if locality.enabled == Some(false)
            || !(wanted || locality.enabled == Some(true) || !locality.failover.is_empty())
        {
            return None;
        }
        if place.region.is_empty() && place.zone.is_empty() {
            return None;
        }
        if let Some((_, shares)) = locality.distribute.iter().find(|(from, _)| covers(from, &place.region, &place.zone))
        {
            let group = |pattern: &str| {
                let inside = |index: &usize| covers(pattern, &endpoints[*index].region, &endpoints[*index].zone);
                (0..endpoints.len()).filter(inside).collect::<Vec<_>>()
            };
            return Some(Groups::Shares(shares.iter().map(|(to, percent)| (*percent, group(to))).collect()));
        }
        let rank = |endpoint: &PoolEndpoint| match locality.priority.is_empty() {
            false => by_labels(&locality.priority, place, endpoint),
            true => by_distance(&locality.failover, place, endpoint),
        };
        let mut ranks: Vec<(usize, usize)> = endpoints.iter().map(rank).zip(0..).collect();
        ranks.sort_unstable();
        let mut priorities: Vec<Vec<usize>> = Vec::new();
        let mut last = None;
        for (rank, index) in ranks {
            if last != Some(rank) {
                priorities.push(Vec::new());
                last = Some(rank);
            }
            priorities.last_mut().unwrap_or(&mut Vec::new()).push(index);
        }
        (priorities.len() > 1).then_some(Groups::Priorities(priorities))
    }

    /// The endpoints of all priorities that have one of those that were `tried`; none when no other priority has one that
    /// is not `out`.
    pub fn near(&self, tried: &dyn Fn(usize) -> bool, out: &dyn Fn(usize) -> bool) -> Vec<usize> {
        let Groups::Priorities(groups) = self else { return Vec::new() };
        let (near, others): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group.iter().any(|index| tried(*index)));
        match others.into_iter().flatten().any(|index| !out(*index)) {
            true => near.into_iter().flatten().copied().collect(),
            false => Vec::new(),
        }
    }

    /// The endpoints among which to choose. `draw` is uniform in all of `u32`. None: all of the pool (no group has a healthy one).
    pub fn choose(&self, draw: u32, skip: &dyn Fn(usize) -> bool) -> Option<&[usize]> {
        let healthy = |group: &[usize]| group.iter().filter(|index| !skip(**index)).count() as u64;
        match self {
            Groups::Shares(groups) => {
                let alive = || groups.iter().filter(|(percent, group)| *percent > 0 && healthy(group) > 0);
                let total: u64 = alive().map(|(percent, _)| u64::from(*percent)).sum();
                let mut point = (u64::from(draw) * total) >> 32;
                alive()
                    .find(|(percent, _)| {
                        let found = point < u64::from(*percent);
                        point = point.saturating_sub(u64::from(*percent));
                        found
                    })
                    .map(|(_, group)| &group[..])
            }
            Groups::Priorities(groups) => {
                // In ten-thousandths of all traffic; what no priority has room for goes to the first that has anyone.
                let mut left = 10_000u64;
                let mut point = (u64::from(draw) * 10_000) >> 32;
                for group in groups {
                    let able = healthy(group) * 100 * OVERPROVISIONED_PERCENT / group.len().max(1) as u64;
                    let taken = able.min(left);
                    if point < taken {
                        return Some(group);
                    }
                    point -= taken;
                    left -= taken;
                }
                groups.iter().find(|group| healthy(group) > 0).map(|group| &group[..])
            }
        }
    }
}

/// Whether `region/zone/subzone`, each of which may be `*` or left out, means a place.
fn covers(pattern: &str, region: &str, zone: &str) -> bool {
    let mut parts = pattern.split('/');
    let fits = |part: Option<&str>, have: &str| part.is_none_or(|part| part == "*" || part.is_empty() || part == have);
    fits(parts.next(), region) && fits(parts.next(), zone)
}

fn by_labels(labels: &[Arc<str>], place: &Place, endpoint: &PoolEndpoint) -> usize {
    let shared = labels.iter().take_while(|label| {
        let (name, value) = label.split_once('=').map_or((&***label, None), |(name, value)| (name, Some(value)));
        let (own, other): (&str, &str) = match name {
            "topology.kubernetes.io/region" => (&place.region, &endpoint.region),
            "topology.kubernetes.io/zone" => (&place.zone, &endpoint.zone),
            "kubernetes.io/hostname" => (&place.node, &endpoint.node),
            _ => return false,
        };
        !own.is_empty() && value.unwrap_or(own) == other
    });
    labels.len() - shared.count()
}

fn by_distance(failover: &[(Arc<str>, Arc<str>)], place: &Place, endpoint: &PoolEndpoint) -> usize {
    if endpoint.region == place.region {
        return usize::from(endpoint.zone != place.zone);
    }
    let next = failover.iter().find(|(from, _)| *from == place.region).map(|(_, to)| to);
    match next {
        Some(next) if *next != endpoint.region => 3,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::mesh::Endpoint;
    use model::mesh::traffic::{Locality, Outlier};

    fn pool(places: &[(&str, &str)]) -> Vec<PoolEndpoint> {
        let endpoint = |(index, (region, zone)): (usize, &(&str, &str))| PoolEndpoint {
            endpoint: Endpoint {
                region: (*region).into(),
                zone: (*zone).into(),
                ..Endpoint::at([10, 0, 0, index as u8].into())
            },
            port: 80,
        };
        places.iter().enumerate().map(endpoint).collect()
    }

    fn here() -> Place {
        Place { region: "r1".into(), zone: "z1".into(), node: "n".into() }
    }

    /// Groups with their percentage.
    fn shares(groups: &Groups, skip: &dyn Fn(usize) -> bool) -> Vec<(Vec<usize>, u32)> {
        let mut found: Vec<(Vec<usize>, u32)> = Vec::new();
        for step in 0..1_000u64 {
            let draw = (step * (1 << 32) / 1_000) as u32;
            let group = groups.choose(draw, skip).unwrap_or_default().to_vec();
            match found.iter_mut().find(|(have, _)| *have == group) {
                Some((_, count)) => *count += 1,
                None => found.push((group, 1)),
            }
        }
        found.iter_mut().for_each(|(_, count)| *count = (*count + 5) / 10);
        found
    }

    #[test]
    fn nearer_ones_go_first_and_spill_when_few_are_healthy() {
        let endpoints = pool(&[("r1", "z1"), ("r1", "z1"), ("r1", "z2"), ("r2", "z1"), ("r3", "z1")]);
        let mut policy = TrafficPolicy { outlier: Some(Outlier::default()), ..Default::default() };
        let groups = Groups::new(&policy, &here(), &endpoints).unwrap();
        assert_eq!(groups, Groups::Priorities(vec![vec![0, 1], vec![2], vec![3, 4]]));
        assert_eq!(shares(&groups, &|_| false), [(vec![0, 1], 100)]);
        // One of two is out: 50% * 1.4 stay, the rest spills.
        assert_eq!(shares(&groups, &|index| index == 0), [(vec![0, 1], 70), (vec![2], 30)]);
        assert_eq!(shares(&groups, &|index| index < 3), [(vec![3, 4], 100)]);
        assert_eq!(groups.choose(0, &|_| true), None);
        for (tried, out, near) in [
            (vec![], vec![], vec![]),
            (vec![1], vec![1], vec![0, 1]),
            (vec![3, 0], vec![0, 3], vec![0, 1, 3, 4]),
            (vec![3, 0], vec![0, 2, 3], vec![]),
            (vec![0, 2, 4], vec![], vec![]),
        ] {
            let found = groups.near(&|index| tried.contains(&index), &|index| out.contains(&index));
            assert_eq!(found, near, "after {tried:?} without {out:?}");
        }
        policy.locality.failover = vec![("r1".into(), "r3".into())];
        let groups = Groups::new(&policy, &here(), &endpoints).unwrap();
        assert_eq!(groups, Groups::Priorities(vec![vec![0, 1], vec![2], vec![4], vec![3]]));
        policy.locality.enabled = Some(false);
        assert_eq!(Groups::new(&policy, &here(), &endpoints), None);
        assert_eq!(Groups::new(&TrafficPolicy::default(), &here(), &endpoints), None, "nothing asks for it");
    }

    #[test]
    fn shares_by_locality() {
        let endpoints = pool(&[("r1", "z1"), ("r1", "z2"), ("r2", "z1")]);
        let locality = Locality {
            distribute: vec![(
                "r1/z1/*".into(),
                vec![("r1/z1/*".into(), 70), ("r1/z2/*".into(), 20), ("r2".into(), 10)],
            )],
            ..Default::default()
        };
        let policy = TrafficPolicy { locality, ..Default::default() };
        let groups = Groups::new(&policy, &here(), &endpoints).unwrap();
        assert_eq!(shares(&groups, &|_| false), [(vec![0], 70), (vec![1], 20), (vec![2], 10)]);
        assert_eq!(shares(&groups, &|index| index == 0).len(), 2, "what is out leaves its share to the others");
    }

    #[test]
    fn priorities_by_labels() {
        let endpoints = pool(&[("r1", "z1"), ("r1", "z2"), ("r2", "z1")]);
        let priority = vec!["topology.kubernetes.io/region".into(), "topology.kubernetes.io/zone".into()];
        let policy = TrafficPolicy { locality: Locality { priority, ..Default::default() }, ..Default::default() };
        let groups = Groups::new(&policy, &here(), &endpoints).unwrap();
        assert_eq!(groups, Groups::Priorities(vec![vec![0], vec![1], vec![2]]));
    }
}

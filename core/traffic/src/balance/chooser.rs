//! The choice as a service's policy asks for it: by load, in turn, at random or by key; near ones first; new ones carefully.

use super::locality::{Groups, Place};
use super::table::Table;
use super::{Policy, Pool};
use crate::warmup;
use model::mesh::TrafficPolicy;
use model::mesh::traffic::Balancer;
use std::sync::Arc;

/// Draws for an endpoint that is warm enough, before one is taken that is not.
const WARMUP_DRAWS: u64 = 4;

/// What is made once for a pool under a policy.
#[derive(Clone, Debug, Default)]
pub struct Chooser {
    policy: Option<Arc<TrafficPolicy>>,
    table: Option<Table>,
    groups: Option<Groups>,
}

/// What a choice looks at beside the pool, by index of the endpoint.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// Requests under way.
    pub load: &'a dyn Fn(usize) -> u32,
    /// To be left out if any other is left: tried before, draining, ejected.
    pub skip: &'a dyn Fn(usize) -> bool,
    /// For how long it is known, in milliseconds.
    pub age_ms: &'a dyn Fn(usize) -> u64,
}

impl Chooser {
    /// For a pool and a caller's place.
    pub fn new(policy: Option<&Arc<TrafficPolicy>>, place: &Place, pool: &Pool) -> Self {
        let Some(policy) = policy else { return Chooser::default() };
        let table = match &policy.balancer {
            Balancer::Hash { table, .. } => Some(Table::new(*table, pool.endpoints())),
            _ => None,
        };
        Chooser { table, groups: Groups::new(policy, place, pool.endpoints()), policy: Some(policy.clone()) }
    }

    /// The endpoints of all localities that have one of those that were `tried`, where localities are in an order and another
    /// one has an endpoint that is not `out`.
    pub fn near(&self, tried: &dyn Fn(usize) -> bool, out: &dyn Fn(usize) -> bool) -> Vec<usize> {
        self.groups.as_ref().map(|groups| groups.near(tried, out)).unwrap_or_default()
    }

    /// Chooses an endpoint. `key`: what the request is to be kept on its endpoint by. `draw` gives numbers uniform in all of `u32`.
    pub fn choose(
        &self,
        pool: &Pool,
        key: Option<u64>,
        turn: u64,
        draw: &mut dyn FnMut() -> u32,
        look: Look<'_>,
    ) -> Option<usize> {
        let Some(policy) = self.policy.as_deref() else {
            let by = key.map_or(Policy::LeastRequest, Policy::Hash);
            return pool.choose(by, [draw(), draw()], turn, look.load, look.skip);
        };
        // A key stays in its group as long as the group takes its share.
        let point = key.map_or_else(&mut *draw, |key| (super::mix(key) >> 32) as u32);
        let group = self.groups.as_ref().and_then(|groups| groups.choose(point, look.skip));
        let outside = |index: usize| group.is_some_and(|group| group.binary_search(&index).is_err());
        let skip = |index: usize| outside(index) || (look.skip)(index);
        if let Some(key) = key {
            return match &self.table {
                Some(table) => table.find(key, &skip),
                None => pool.choose(Policy::Hash(key), [0, 0], turn, look.load, &skip),
            };
        }
        let by = match policy.balancer {
            Balancer::RoundRobin => Policy::RoundRobin,
            Balancer::Random | Balancer::PassThrough => Policy::Random,
            // Without a key (no such header) any will do.
            Balancer::LeastRequest | Balancer::Hash { .. } => Policy::LeastRequest,
        };
        let mut last = None;
        for attempt in 0..WARMUP_DRAWS {
            let draws = [within(group, pool, draw()), within(group, pool, draw())];
            let index = pool.choose(by, draws, turn + attempt, look.load, &skip)?;
            last = Some(index);
            match policy.warmup {
                Some(warmup) if !warmup::takes(warmup, (look.age_ms)(index), draw()) => {}
                _ => break,
            }
        }
        last
    }
}

/// A draw that falls on the group's endpoints, each with the same chance (weights within a group of few are not looked at).
fn within(group: Option<&[usize]>, pool: &Pool, draw: u32) -> u32 {
    let Some(group) = group.filter(|group| !group.is_empty()) else { return draw };
    let index = group[((u64::from(draw) * group.len() as u64) >> 32) as usize];
    pool.draw_of(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::mesh::Endpoint;
    use model::mesh::traffic::{HashKey, HashTable, Locality, Outlier, Warmup};

    fn pool(zones: &[&str]) -> Pool {
        let endpoint = |(index, zone): (usize, &&str)| Endpoint {
            region: "r".into(),
            zone: (*zone).into(),
            ..Endpoint::at([10, 0, 0, index as u8 + 1].into())
        };
        let endpoints: Vec<Endpoint> = zones.iter().enumerate().map(endpoint).collect();
        Pool::new(endpoints.iter().map(|endpoint| (endpoint, 80)))
    }

    fn counts(policy: TrafficPolicy, zones: &[&str], key: Option<u64>, look: Look<'_>) -> Vec<u32> {
        let pool = pool(zones);
        let place = Place { region: "r".into(), zone: "a".into(), node: "".into() };
        let chooser = Chooser::new(Some(&Arc::new(policy)), &place, &pool);
        let mut counts = vec![0; zones.len()];
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for turn in 0..3_000 {
            let mut draw = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 32) as u32
            };
            counts[chooser.choose(&pool, key, turn, &mut draw, look).unwrap()] += 1;
        }
        counts
    }

    const PLAIN: Look<'_> = Look { load: &|_| 0, skip: &|_| false, age_ms: &|_| 1_000_000 };

    fn with(balancer: Balancer) -> TrafficPolicy {
        TrafficPolicy { balancer, ..Default::default() }
    }

    #[test]
    fn each_policy_does_what_its_name_says() {
        assert_eq!(counts(with(Balancer::RoundRobin), &["a", "a", "b"], None, PLAIN), [1_000; 3]);
        for balancer in [Balancer::Random, Balancer::LeastRequest] {
            let found = counts(with(balancer), &["a", "a", "b"], None, PLAIN);
            assert!(found.iter().all(|count| count.abs_diff(1_000) < 150), "{found:?}");
        }
        let hash = Balancer::Hash { key: HashKey::SourceIp, table: HashTable::Ring { points: 1_024 } };
        let found = counts(with(hash), &["a", "a", "b"], Some(7), PLAIN);
        assert_eq!(found.iter().filter(|count| **count == 3_000).count(), 1, "one key, one endpoint: {found:?}");
    }

    #[test]
    fn near_ones_take_all_until_they_fail() {
        let policy = TrafficPolicy {
            outlier: Some(Outlier::default()),
            locality: Locality { enabled: Some(true), ..Default::default() },
            ..Default::default()
        };
        let found = counts(policy.clone(), &["a", "a", "b", "b"], None, PLAIN);
        assert_eq!((found[0] + found[1], found[2] + found[3]), (3_000, 0));
        let first_out = Look { skip: &|index| index == 0, ..PLAIN };
        let found = counts(policy, &["a", "a", "b", "b"], None, first_out);
        assert_eq!(found[0], 0);
        assert!(found[1].abs_diff(2_100) < 100, "70% stay: {found:?}");
    }

    #[test]
    fn new_ones_get_less() {
        let warmup = Warmup { duration_ms: 10_000, minimum_percent: 10, aggression_percent: 100 };
        let policy = TrafficPolicy { warmup: Some(warmup), ..with(Balancer::Random) };
        let look = Look { age_ms: &|index| if index == 0 { 0 } else { 1_000_000 }, ..PLAIN };
        let found = counts(policy, &["a", "a"], None, look);
        // One in ten of its draws is taken, and one in sixteen times it is drawn four times in a row.
        assert!((100..600).contains(&found[0]), "{found:?}");
    }
}

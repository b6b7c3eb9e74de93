//! Who gets the next request: a backend of a rule by weight, an endpoint of a service by load or by hash.
//!
//! Random draws are arguments, so that a choice can be repeated.

pub mod chooser;
pub mod locality;
pub mod table;

use model::map::stable_hash;
use model::mesh::{Backend, Endpoint, Health};
use std::net::SocketAddr;

/// Chooses a backend by weight; `draw` is uniform in all of `u32`. None: there is none with a weight.
pub fn weighted(backends: &[Backend], draw: u32) -> Option<usize> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    // Multiply and shift, not modulo: no bias worth naming, and no division.
    let mut point = (u64::from(draw) * total) >> 32;
    for (index, backend) in backends.iter().enumerate() {
        let weight = u64::from(backend.weight);
        if point < weight {
            return Some(index);
        }
        point -= weight;
    }
    None
}

/// How endpoints are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Of two drawn ones the less loaded.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// Any.
    Random,
    /// The same for the same key, as far as endpoints stay: a change moves only the keys of the endpoints that changed.
    Hash(u64),
}

/// An endpoint of one service port. Derefs to the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolEndpoint {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its port for this service port.
    pub port: u16,
}

impl PoolEndpoint {
    /// Where to connect (under the tunnel, if its workload has one).
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.endpoint.address, self.port)
    }
}

impl std::ops::Deref for PoolEndpoint {
    type Target = Endpoint;
    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// The endpoints that may be chosen: the ready ones; when there are none, those that drain but serve.
/// A pool is made once for each change of endpoints, not for each request.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    endpoints: Vec<PoolEndpoint>,
    /// Sums of weights up to and with each endpoint; empty when all weights are equal.
    sums: Vec<u64>,
}

impl Pool {
    /// A pool of a service port's endpoints, each with its own port; one that comes twice counts once, in its best health.
    pub fn new<'a>(endpoints: impl IntoIterator<Item = (&'a Endpoint, u16)>) -> Self {
        let mut all: Vec<PoolEndpoint> =
            endpoints.into_iter().map(|(endpoint, port)| PoolEndpoint { endpoint: endpoint.clone(), port }).collect();
        all.sort_by(|a, b| a.address().cmp(&b.address()).then(b.health_rank().cmp(&a.health_rank())));
        all.dedup_by_key(|endpoint| endpoint.address());
        let health = if all.iter().any(|it| it.health == Health::Ready) { Health::Ready } else { Health::Draining };
        all.retain(|endpoint| endpoint.health == health && endpoint.weight > 0);
        let mut sums = Vec::new();
        if all.iter().any(|endpoint| endpoint.weight != all[0].weight) {
            let mut sum = 0;
            sums.extend(all.iter().map(|endpoint| {
                sum += u64::from(endpoint.weight);
                sum
            }));
        }
        Pool { endpoints: all, sums }
    }

    /// The endpoints, by address.
    pub fn endpoints(&self) -> &[PoolEndpoint] {
        &self.endpoints
    }

    /// Chooses an endpoint. `draws` are uniform in all of `u32`; `turn` is the caller's counter for round robin; `load` tells how many
    /// requests an endpoint has under way; `skip` those that a retry must not take again, if any other is left.
    pub fn choose(
        &self,
        policy: Policy,
        draws: [u32; 2],
        turn: u64,
        load: &dyn Fn(usize) -> u32,
        skip: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let count = self.endpoints.len();
        if count == 0 {
            return None;
        }
        let first = match policy {
            Policy::RoundRobin => (turn % count as u64) as usize,
            Policy::Random => self.draw(draws[0]),
            Policy::Hash(key) => return self.by_hash(key, skip),
            Policy::LeastRequest => {
                let (a, b) = (self.draw(draws[0]), self.draw(draws[1]));
                match (skip(a), skip(b)) {
                    (true, false) => b,
                    (false, true) => a,
                    _ if load(b) < load(a) => b,
                    _ => a,
                }
            }
        };
        (0..count).map(|step| (first + step) % count).find(|index| !skip(*index)).or(Some(first))
    }

    /// A draw that falls on an endpoint.
    pub(crate) fn draw_of(&self, index: usize) -> u32 {
        let (before, total) = match self.sums.last() {
            None => (index as u64, self.endpoints.len() as u64),
            Some(total) => (index.checked_sub(1).map_or(0, |before| self.sums[before]), *total),
        };
        // The least draw whose share is not below.
        ((u128::from(before) << 32).div_ceil(u128::from(total.max(1)))) as u32
    }

    fn draw(&self, draw: u32) -> usize {
        match self.sums.last() {
            None => ((u64::from(draw) * self.endpoints.len() as u64) >> 32) as usize,
            Some(total) => {
                let point = ((u128::from(draw) * u128::from(*total)) >> 32) as u64;
                self.sums.partition_point(|sum| *sum <= point)
            }
        }
    }

    /// Rendezvous hashing: the endpoint whose hash with the key is the greatest.
    fn by_hash(&self, key: u64, skip: &dyn Fn(usize) -> bool) -> Option<usize> {
        let score = |index: usize| {
            let mut text = [0u8; 24];
            text[..8].copy_from_slice(&key.to_le_bytes());
            match self.endpoints[index].endpoint.address {
                std::net::IpAddr::V4(v4) => text[8..12].copy_from_slice(&v4.octets()),
                std::net::IpAddr::V6(v6) => text[8..].copy_from_slice(&v6.octets()),
            }
            mix(stable_hash(&text))
        };
        (0..self.endpoints.len()).max_by_key(|index| (!skip(*index), score(*index)))
    }
}

trait HealthRank {
    fn health_rank(&self) -> u8;
}

impl HealthRank for Endpoint {
    fn health_rank(&self) -> u8 {
        match self.health {
            Health::Ready => 2,
            Health::Draining => 1,
            Health::NotReady => 0,
        }
    }
}

/// FNV's high bits are weak in the last bytes; this finishing step (of splitmix64) spreads them.
pub(crate) fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::mesh::BackendTarget;
    use std::net::{IpAddr, Ipv4Addr};

    fn endpoint(last: u8, health: Health, weight: u32) -> Endpoint {
        Endpoint { health, weight, ..Endpoint::at([10, 0, 0, last].into()) }
    }

    fn pool(endpoints: &[Endpoint]) -> Pool {
        Pool::new(endpoints.iter().map(|endpoint| (endpoint, 8080)))
    }

    fn choose(pool: &Pool, policy: Policy, draws: [u32; 2], turn: u64) -> Option<usize> {
        pool.choose(policy, draws, turn, &|_| 0, &|_| false)
    }

    /// Draws that cover `u32` evenly.
    fn draws(count: u32) -> impl Iterator<Item = u32> {
        (0..count).map(move |step| (u64::from(step) * (1 << 32) / u64::from(count)) as u32)
    }

    #[test]
    fn weights_are_met() {
        let backend =
            |weight| Backend { target: BackendTarget::Invalid { reason: "".into() }, weight, filters: vec![] };
        // Weights and draws that divide evenly, so that the count is exact.
        let backends = [backend(12), backend(0), backend(4)];
        let mut counts = [0; 3];
        for draw in draws(4_096) {
            counts[weighted(&backends, draw).unwrap()] += 1;
        }
        assert_eq!(counts, [3_072, 0, 1_024]);
        assert_eq!(weighted(&backends, u32::MAX), Some(2));
        assert_eq!(weighted(&[backend(0)], 7), None);
        assert_eq!(weighted(&[], 7), None);
    }

    #[test]
    fn only_ready_endpoints_unless_there_are_none() {
        use Health::{Draining, NotReady, Ready};
        let check = |healths: &[(u8, Health)], expect: &[u8]| {
            let endpoints: Vec<Endpoint> = healths.iter().map(|(last, health)| endpoint(*last, *health, 1)).collect();
            let pool = pool(&endpoints);
            let got: Vec<IpAddr> = pool.endpoints().iter().map(|it| it.endpoint.address).collect();
            let want: Vec<IpAddr> = expect.iter().map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, *last))).collect();
            assert_eq!(got, want);
        };
        check(&[(3, Ready), (1, Draining), (2, NotReady)], &[3]);
        check(&[(1, Draining), (2, NotReady)], &[1]);
        check(&[(2, NotReady)], &[]);
        check(&[(1, NotReady), (1, Ready), (2, Draining)], &[1]);
    }

    #[test]
    fn least_request_takes_the_less_loaded_and_retries_go_elsewhere() {
        let endpoints: Vec<Endpoint> = (1..=4).map(|last| endpoint(last, Health::Ready, 1)).collect();
        let pool = pool(&endpoints);
        let load = |index: usize| [5, 1, 9, 0][index];
        let quarter = 1 << 30;
        assert_eq!(pool.choose(Policy::LeastRequest, [0, quarter], 0, &load, &|_| false), Some(1));
        assert_eq!(pool.choose(Policy::LeastRequest, [0, 0], 0, &load, &|index| index == 0), Some(1));
        assert_eq!(pool.choose(Policy::LeastRequest, [0, 0], 0, &load, &|_| true), Some(0), "all were tried: again");
        let turns: Vec<_> = (0..5).map(|turn| choose(&pool, Policy::RoundRobin, [0, 0], turn).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 3, 0]);
        assert_eq!(choose(&Pool::default(), Policy::LeastRequest, [0, 0], 0), None);
    }

    #[test]
    fn a_draw_can_be_made_for_every_endpoint() {
        for weights in [&[1, 1, 1][..], &[3, 1, 7], &[1], &[1, 1_000_000]] {
            let endpoints: Vec<Endpoint> =
                (1..).zip(weights).map(|(last, weight)| endpoint(last, Health::Ready, *weight)).collect();
            let pool = pool(&endpoints);
            for index in 0..weights.len() {
                assert_eq!(pool.draw(pool.draw_of(index)), index, "{weights:?}");
            }
        }
    }

    #[test]
    fn endpoint_weights_are_met() {
        let pool = pool(&[endpoint(1, Health::Ready, 3), endpoint(2, Health::Ready, 1)]);
        let mut counts = [0; 2];
        for draw in draws(4_096) {
            counts[pool.draw(draw)] += 1;
        }
        assert_eq!(counts, [3_072, 1_024]);
    }

    #[test]
    fn a_hash_moves_only_the_keys_of_what_left() {
        let endpoints: Vec<Endpoint> = (1..=10).map(|last| endpoint(last, Health::Ready, 1)).collect();
        let (all, fewer) = (pool(&endpoints), pool(&endpoints[..9]));
        let mut counts = [0; 10];
        for key in 0..10_000 {
            let before = choose(&all, Policy::Hash(key), [0, 0], 0).unwrap();
            counts[before] += 1;
            if before != 9 {
                assert_eq!(choose(&fewer, Policy::Hash(key), [0, 0], 0), Some(before));
            }
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}

//! Tables that keep a key on its endpoint: a ring, and Maglev's.
//!
//! Both are made once for a set of endpoints and looked up for each request. With weights: an endpoint of twice the weight has twice the keys.

use super::PoolEndpoint;
use model::map::stable_hash;
use model::mesh::traffic::HashTable;

/// Points of one endpoint on a ring at most, whatever its weight.
const MOST_POINTS: u64 = 1 << 14;

/// Endpoints by key.
#[derive(Clone, Debug)]
pub enum Table {
    /// Consistent hashing (Karger and others 1997), the points as Ketama places them.
    Ring(Vec<(u64, u32)>),
    /// Maglev hashing (Eisenbud and others, NSDI 2016, section 3.4).
    Maglev(Vec<u32>),
}

impl Table {
    /// A table of these endpoints.
    pub fn new(kind: HashTable, endpoints: &[PoolEndpoint]) -> Self {
        match kind {
            HashTable::Ring { points } => Table::Ring(ring(points, endpoints)),
            HashTable::Maglev { entries } => Table::Maglev(maglev(entries, endpoints)),
        }
    }

    /// The endpoint of a key. Of endpoints that are to be skipped the next in the table's order that is not; if all are, the first.
    pub fn find(&self, key: u64, skip: &dyn Fn(usize) -> bool) -> Option<usize> {
        match self {
            Table::Ring(points) => {
                let start = points.partition_point(|(point, _)| *point < key);
                let around = points[start..].iter().chain(&points[..start]).map(|(_, index)| *index as usize);
                first_of(around, skip)
            }
            Table::Maglev(entries) => {
                let start = (key % entries.len().max(1) as u64) as usize;
                let around = entries.get(start..)?.iter().chain(&entries[..start]).map(|index| *index as usize);
                first_of(around, skip)
            }
        }
    }
}

fn first_of(mut around: impl Iterator<Item = usize> + Clone, skip: &dyn Fn(usize) -> bool) -> Option<usize> {
    let first = around.clone().next()?;
    Some(if skip(first) { around.find(|index| !skip(*index)).unwrap_or(first) } else { first })
}

/// What of an endpoint decides about its place: its address, so that the same endpoints make the same table in every proxy.
fn name_of(endpoint: &PoolEndpoint) -> String {
    endpoint.address().to_string()
}

/// A key's or name's hash, spread over all bits.
pub fn spread(bytes: &[u8]) -> u64 {
    super::mix(stable_hash(bytes))
}

fn ring(points: u32, endpoints: &[PoolEndpoint]) -> Vec<(u64, u32)> {
    let total: u64 = endpoints.iter().map(|it| u64::from(it.weight)).sum();
    // A power of two for each unit of weight: when an endpoint comes or goes the others' points mostly stay as they are.
    let unit = u64::from(points).div_ceil(total.max(1)).next_power_of_two();
    let mut ring = Vec::with_capacity(points as usize * 2);
    for (index, endpoint) in endpoints.iter().enumerate() {
        let share = (u64::from(endpoint.weight) * unit).clamp(1, MOST_POINTS);
        let name = name_of(endpoint);
        ring.extend((0..share).map(|point| (spread(format!("{name}_{point}").as_bytes()), index as u32)));
    }
    ring.sort_unstable();
    ring
}

/// Each endpoint in turn (heavier ones more often) takes the next entry of its own permutation that is free.
fn maglev(entries: u32, endpoints: &[PoolEndpoint]) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let size = u64::from(next_prime(entries.max(endpoints.len() as u32).max(2)));
    let mut table = vec![FREE; if endpoints.is_empty() { 0 } else { size as usize }];
    let most = endpoints.iter().map(|it| u64::from(it.weight)).max().unwrap_or(1).max(1);
    let mut turns: Vec<(u64, u64, u64)> = endpoints
        .iter()
        .map(|endpoint| {
            let name = name_of(endpoint);
            let offset = spread(name.as_bytes()) % size;
            let step = spread(format!("{name}#").as_bytes()) % (size - 1) + 1;
            (offset, step, 0)
        })
        .collect();
    let mut filled = 0;
    while filled < table.len() {
        for (index, endpoint) in endpoints.iter().enumerate() {
            let (next, step, credit) = &mut turns[index];
            *credit += u64::from(endpoint.weight);
            if *credit < most {
                continue;
            }
            *credit -= most;
            while table[*next as usize] != FREE {
                *next = (*next + *step) % size;
            }
            table[*next as usize] = index as u32;
            filled += 1;
            if filled == table.len() {
                break;
            }
        }
    }
    table
}

/// Permutations need a prime size.
fn next_prime(from: u32) -> u32 {
    let is_prime = |n: u32| n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (from..).find(|n| is_prime(*n)).unwrap_or(65_537)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::mesh::Endpoint;

    fn endpoints(weights: &[u32]) -> Vec<PoolEndpoint> {
        let endpoint = |(index, weight): (usize, &u32)| PoolEndpoint {
            endpoint: Endpoint { weight: *weight, ..Endpoint::at([10, 0, 0, index as u8 + 1].into()) },
            port: 8080,
        };
        weights.iter().enumerate().map(endpoint).collect()
    }

    const KINDS: [HashTable; 2] = [HashTable::Ring { points: 4_096 }, HashTable::Maglev { entries: 65_537 }];

    fn keys() -> impl Iterator<Item = u64> {
        (0..20_000u64).map(|key| spread(&key.to_le_bytes()))
    }

    #[test]
    fn keys_are_spread_by_weight() {
        for kind in KINDS {
            let table = Table::new(kind, &endpoints(&[1, 1, 2, 4]));
            let mut counts = [0u32; 4];
            keys().for_each(|key| counts[table.find(key, &|_| false).unwrap()] += 1);
            for (count, share) in counts.iter().zip([2_500, 2_500, 5_000, 10_000]) {
                assert!(count.abs_diff(share) < share / 5, "{kind:?} {counts:?}");
            }
        }
    }

    /// Against the definition: keys of an endpoint that leaves go elsewhere, others (nearly) stay.
    #[test]
    fn few_keys_move() {
        let all = endpoints(&[1; 10]);
        for (kind, others) in KINDS.into_iter().zip([0, 700]) {
            let (before, after) = (Table::new(kind, &all), Table::new(kind, &all[..9]));
            let moved = keys()
                .filter(|key| {
                    let had = before.find(*key, &|_| false).unwrap();
                    had != 9 && after.find(*key, &|_| false) != Some(had)
                })
                .count();
            assert!(moved <= others, "{kind:?}: {moved} keys of endpoints that stay moved");
        }
    }

    /// A twin that looks at every point.
    #[test]
    fn the_ring_finds_what_its_twin_finds() {
        let table = Table::new(HashTable::Ring { points: 64 }, &endpoints(&[1, 2, 3]));
        let Table::Ring(points) = &table else { panic!() };
        for key in keys().take(2_000) {
            for skipped in [None, Some(0), Some(2)] {
                let skip = |index: usize| Some(index) == skipped;
                let after = |key: u64| {
                    points.iter().filter(|(point, index)| *point >= key && !skip(*index as usize)).min().copied()
                };
                let twin = after(key).or_else(|| after(0)).map(|(_, index)| index as usize);
                assert_eq!(table.find(key, &skip), twin);
            }
        }
    }

    #[test]
    fn every_entry_of_maglev_is_filled_and_nothing_is_found_in_nothing() {
        for count in [1, 2, 7, 100] {
            let Table::Maglev(entries) = Table::new(HashTable::Maglev { entries: 1_009 }, &endpoints(&vec![1; count]))
            else {
                panic!()
            };
            let mut counts = vec![0u32; count];
            entries.iter().for_each(|index| counts[*index as usize] += 1);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{counts:?}");
        }
        for kind in KINDS {
            assert_eq!(Table::new(kind, &[]).find(7, &|_| false), None);
            let skip_all = Table::new(kind, &endpoints(&[1, 1])).find(7, &|_| true);
            assert!(skip_all.is_some(), "all are skipped: one is taken all the same");
        }
        assert_eq!([next_prime(2), next_prime(4), next_prime(65_536)], [2, 5, 65_537]);
    }
}

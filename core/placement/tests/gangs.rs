//! Gangs on random pools against trying every set of racks.

use diolkos_placement::{NodeId, PodId, Pool};
use model::Labels;
use model::scheduling::{NodeFacts, NodeScheduling, PodFacts, SchedulingSpec};
use std::collections::BTreeSet;
use std::sync::Arc;

fn pool(free: &[i64], racks: usize) -> Pool {
    let mut pool = Pool::new();
    for (n, cpu) in free.iter().enumerate() {
        let labels = [("rack", format!("r{}", n % racks)), ("zone", format!("z{}", n % racks % 2))];
        let labels: Labels = labels.into_iter().map(|(key, value)| (Arc::from(key), Arc::from(value))).collect();
        let allocatable = vec![("cpu".into(), *cpu), ("pods".into(), 110)];
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        pool.set_node(Arc::new(NodeFacts { name: format!("n{n}").into(), labels, scheduling, ..NodeFacts::default() }));
    }
    pool
}

fn gang(pool: &mut Pool, count: usize, cpu: i64) -> Vec<PodId> {
    let spec = Arc::new(SchedulingSpec {
        requests: vec![("cpu".into(), cpu)],
        nominal: (cpu, 0),
        ..SchedulingSpec::default()
    });
    (0..count)
        .map(|n| {
            let name: Arc<str> = format!("g{n}").into();
            let facts = PodFacts {
                namespace: "default".into(),
                uid: name.clone(),
                name,
                spec: spec.clone(),
                ..PodFacts::default()
            };
            pool.set_pod(&facts).0
        })
        .collect()
}

#[test]
fn packs_a_gang_into_the_fewest_racks_or_places_none() {
    let mut state = 11u64;
    let mut roll = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % below) as usize
    };
    let (mut whole, mut spread, mut none) = (0, 0, 0);
    for case in 0..1500 {
        let racks = 1 + roll(4);
        let free: Vec<i64> = (0..1 + roll(8)).map(|_| 100 * roll(8) as i64).collect();
        let (count, cpu) = (1 + roll(8), 100 * (1 + roll(3) as i64));
        let mut pool = pool(&free, racks);
        let pods = gang(&mut pool, count, cpu);
        let placed = pool.decide_gang_packed(&pods, count, &["rack", "zone"]);
        let room = |rack: usize| -> usize {
            free.iter()
                .enumerate()
                .filter(|(n, _)| n % racks == rack)
                .map(|(_, cpu_free)| (cpu_free / cpu) as usize)
                .sum()
        };
        let fewest = (0u32..1 << racks)
            .filter(|set| (0..racks).filter(|rack| set & 1 << rack != 0).map(room).sum::<usize>() >= count)
            .map(u32::count_ones)
            .min();
        match (placed, fewest) {
            (Some(placed), Some(fewest)) => {
                let used: BTreeSet<usize> = placed.iter().map(|(_, node)| *node as usize % racks).collect();
                // When no rack will do, one zone with more racks is as good.
                let zones: BTreeSet<usize> = used.iter().map(|rack| rack % 2).collect();
                assert!(used.len() <= fewest as usize || zones.len() == 1, "case {case}: {used:?}, {fewest} would do");
                assert_eq!(placed.len(), count);
                let mut left = free.clone();
                placed.iter().for_each(|(_, node)| left[*node as usize] -= cpu);
                assert!(left.iter().all(|left| *left >= 0), "case {case}");
                if fewest == 1 { whole += 1 } else { spread += 1 }
            }
            (None, None) => {
                assert!(pods.iter().all(|pod| pool.pod_node(*pod).is_none()), "case {case}: all or nothing");
                none += 1;
            }
            (placed, fewest) => panic!("case {case}: {placed:?}, though {fewest:?} racks would do"),
        }
    }
    assert!(whole > 100 && spread > 20 && none > 100, "{whole} {spread} {none}");
}

#[test]
fn two_gangs_never_hold_halves() {
    for seed in 0..200usize {
        let mut pool = pool(&[300 + 100 * (seed as i64 % 5), 200], 2);
        let pods = gang(&mut pool, 8, 100);
        let (one, other) = pods.split_at(4);
        let placed: Vec<Option<Vec<(PodId, NodeId)>>> =
            [one, other].map(|gang| pool.decide_gang(gang, gang.len())).into_iter().collect();
        for (gang, placed) in [one, other].into_iter().zip(placed) {
            let bound = gang.iter().filter(|pod| pool.pod_node(**pod).is_some()).count();
            assert_eq!(bound, if placed.is_some() { 4 } else { 0 }, "seed {seed}");
        }
    }
}

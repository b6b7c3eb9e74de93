//! Alignment to NUMA zones against kubelet's Topology Manager played out in full: every provider's hints, every way to merge them.

use diolkos_placement::{Decision, NodeTopology, PodId, Pool, TopologyPolicy};
use model::Labels;
use model::scheduling::{Amounts, NodeFacts, NodeScheduling, PodFacts, SchedulingSpec};
use std::sync::Arc;

const GPU: &str = "example.com/gpu";

fn amounts(cpu: i64, memory: i64, gpus: i64) -> Amounts {
    let all = [("cpu", cpu), (GPU, gpus), ("memory", memory)];
    all.into_iter().filter(|(_, amount)| *amount > 0).map(|(name, amount)| (name.into(), amount)).collect()
}

fn node(pool: &mut Pool, name: &str, zones: &[(i64, i64, i64)], policy: TopologyPolicy) {
    let sum = |of: fn(&(i64, i64, i64)) -> i64| zones.iter().map(of).sum::<i64>();
    let mut allocatable = amounts(sum(|z| z.0), sum(|z| z.1), sum(|z| z.2));
    allocatable.push(("pods".into(), 110));
    pool.set_node(Arc::new(NodeFacts {
        name: name.into(),
        labels: Labels::from([("kubernetes.io/hostname".into(), name.into())]),
        scheduling: Arc::new(NodeScheduling { allocatable, ..NodeScheduling::default() }),
        ..NodeFacts::default()
    }));
    let zones = zones.iter().map(|(cpu, memory, gpus)| amounts(*cpu, *memory, *gpus)).collect();
    pool.set_topology(name, Some(NodeTopology { policy, zones }));
}

fn pod(pool: &mut Pool, name: &str, requests: Amounts, guaranteed: bool, priority: i32) -> PodId {
    let spec = SchedulingSpec { requests, guaranteed, priority, ..SchedulingSpec::default() };
    let facts = PodFacts {
        namespace: "default".into(),
        name: name.into(),
        uid: name.into(),
        spec: Arc::new(spec),
        ..PodFacts::default()
    };
    pool.set_pod(&facts).0
}

fn message(decision: &Decision) -> String {
    match decision {
        Decision::Place(_) => "placed".to_owned(),
        Decision::Refuse(diagnosis) => diagnosis.message(),
    }
}

#[test]
fn policies_admit_what_they_say() {
    let refused = "0/1 nodes are available: 1 node(s) NUMA Topology affinity error.";
    for (policy, cpu, gpus, guaranteed, expected) in [
        ("none", 3000, 2, true, "placed"),
        ("best-effort", 3000, 2, true, "placed"),
        // Three cores need both zones, one GPU needs one: no set is the smallest for both.
        ("restricted", 3000, 1, true, refused),
        ("restricted", 3000, 2, true, "placed"),
        ("restricted", 2000, 1, true, "placed"),
        // Not in the Guaranteed class: only devices are aligned.
        ("restricted", 3000, 1, false, "placed"),
        ("single-numa-node", 3000, 2, true, refused),
        ("single-numa-node", 2000, 1, true, "placed"),
        // No whole cores: the CPU comes out of the shared part.
        ("single-numa-node", 2500, 1, true, "placed"),
        ("single-numa-node", 500, 2, true, refused),
    ] {
        let mut pool = Pool::new();
        let parsed = TopologyPolicy::parse(policy).expect("kubelet's spelling");
        node(&mut pool, "n", &[(2000, 8, 1), (2000, 8, 1)], parsed);
        let pod = pod(&mut pool, "p", amounts(cpu, 0, gpus), guaranteed, 0);
        assert_eq!(message(&pool.decide(pod)), expected, "{policy}, {cpu}m, {gpus} GPUs, guaranteed: {guaranteed}");
    }
}

#[test]
fn fewer_zones_are_better_and_a_victim_may_open_one() {
    let mut pool = Pool::new();
    node(&mut pool, "split", &[(2000, 0, 1), (2000, 0, 1)], TopologyPolicy::BestEffort);
    node(&mut pool, "whole", &[(4000, 0, 2)], TopologyPolicy::BestEffort);
    let wide = pod(&mut pool, "wide", amounts(3000, 0, 0), true, 0);
    assert_eq!(pool.decide(wide).node(), pool.node_id("whole"));

    let mut pool = Pool::new();
    node(&mut pool, "n", &[(2000, 0, 0), (2000, 0, 0)], TopologyPolicy::SingleNumaNode);
    let low = pod(&mut pool, "low", amounts(1000, 0, 0), true, 0);
    pool.assume(low, 0);
    let high = pod(&mut pool, "high", amounts(1000, 0, 0), true, 5);
    pool.assume(high, 0);
    let other = pod(&mut pool, "other", amounts(1000, 0, 0), true, 5);
    pool.assume(other, 0);
    assert_eq!([low, high, other].map(|pod| pool.zones_of(pod)), [vec![0], vec![0], vec![1]]);
    let two = pod(&mut pool, "two", amounts(2000, 0, 0), true, 9);
    let Decision::Refuse(diagnosis) = pool.decide(two) else { panic!("each zone has one core left at most") };
    assert_eq!(diagnosis.message(), "0/1 nodes are available: 1 Insufficient cpu.");
    let one_more = pod(&mut pool, "more", amounts(1000, 0, 0), true, 5);
    assert_eq!(pool.decide(one_more).node(), Some(0));
    // Two cores in one zone: the least important that makes room for them goes.
    let preemption = pool.preempt(two, &diagnosis).expect("somebody can go");
    assert_eq!(preemption.victims.iter().map(|victim| victim.pod).collect::<Vec<_>>(), [other]);
    assert_eq!([low, high, other].map(|pod| pool.zones_of(pod)), [vec![0], vec![0], vec![1]], "nothing has changed");
}

/// What kubelet does: hints of each provider, merged in every way. Returns the zones and whether they are preferred.
fn topology_manager(capacity: &[[i64; 3]], free: &[[i64; 3]], asked: &[i64; 3], single: bool) -> Option<(u32, bool)> {
    let masks = 1u32..1 << capacity.len();
    let sum = |of: &[[i64; 3]], mask: u32, r: usize| -> i64 {
        (0..of.len()).filter(|zone| mask & 1 << zone != 0).map(|zone| of[zone][r]).sum()
    };
    let mut merged: Vec<(u32, bool, Option<u32>)> = vec![((1 << capacity.len()) - 1, true, None)];
    for r in (0..3).filter(|r| asked[*r] > 0) {
        let least = masks.clone().filter(|m| sum(capacity, *m, r) >= asked[r]).map(u32::count_ones).min();
        let hints = masks.clone().filter(|m| sum(free, *m, r) >= asked[r]);
        let hints: Vec<(u32, bool)> = hints.map(|mask| (mask, Some(mask.count_ones()) == least)).collect();
        let hints: Vec<_> =
            hints.into_iter().filter(|(mask, preferred)| !single || (mask.count_ones() == 1 && *preferred)).collect();
        merged = merged
            .iter()
            .flat_map(|(all, good, first)| {
                hints.iter().map(move |(mask, preferred)| {
                    let equal = first.is_none_or(|first| first == *mask);
                    (all & mask, *good && *preferred && equal, first.or(Some(*mask)))
                })
            })
            .collect();
    }
    let best = merged.into_iter().filter(|(mask, ..)| *mask != 0);
    best.min_by_key(|(mask, preferred, _)| (!preferred, mask.count_ones(), *mask)).map(|(mask, good, _)| (mask, good))
}

#[test]
fn admits_what_the_topology_manager_admits() {
    let (mut admitted, mut refused) = (0, 0);
    for seed in 0..2000u64 {
        let mut state = seed * 131 + 17;
        let mut roll = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % below) as i64
        };
        let policy = [TopologyPolicy::Restricted, TopologyPolicy::SingleNumaNode][roll(2) as usize];
        let capacity: Vec<[i64; 3]> = (0..1 + roll(3)).map(|_| [1000 * roll(5), 4 + roll(8), roll(4)]).collect();
        let mut free = capacity.clone();
        let mut pool = Pool::new();
        let zones: Vec<(i64, i64, i64)> = capacity.iter().map(|zone| (zone[0], zone[1], zone[2])).collect();
        node(&mut pool, "n", &zones, policy);
        for step in 0..6 {
            let asked = [1000 * roll(4), roll(8), roll(3)];
            if asked == [0; 3] {
                continue;
            }
            let id = pod(&mut pool, &format!("p{step}"), amounts(asked[0], asked[1], asked[2]), true, 0);
            let enough = (0..3).all(|r| free.iter().map(|zone| zone[r]).sum::<i64>() >= asked[r]);
            let single = policy == TopologyPolicy::SingleNumaNode;
            let hint = topology_manager(&capacity, &free, &asked, single).filter(|(_, preferred)| *preferred);
            let expected = hint.filter(|_| enough);
            assert_eq!(pool.decide(id).node().is_some(), expected.is_some(), "seed {seed}, step {step}: {asked:?}");
            let Some((mask, _)) = expected else {
                refused += 1;
                continue;
            };
            admitted += 1;
            pool.assume(id, 0);
            assert!(pool.zones_of(id).iter().all(|zone| mask & 1 << zone != 0), "seed {seed}, step {step}");
            for r in 0..3 {
                let mut left = asked[r];
                for zone in (0..free.len()).filter(|zone| mask & 1 << zone != 0) {
                    let part = left.min(free[zone][r]);
                    free[zone][r] -= part;
                    left -= part;
                }
            }
        }
    }
    assert!(admitted > 2000 && refused > 1000, "{admitted} admitted, {refused} refused");
}

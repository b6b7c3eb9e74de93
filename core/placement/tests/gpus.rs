//! Shared GPUs against plain counting: a pod is placed when there is a GPU (or there are enough) with so much free, and no GPU is promised twice.

use diolkos_placement::{Decision, GPU_BOTH, GPU_CORE, GPU_MEMORY, GPU_WHOLE, GpuShare, PodId, Pool};
use model::scheduling::{Amounts, NodeFacts, NodeScheduling, PodFacts, SchedulingSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

fn node(pool: &mut Pool, name: &str, gpus: i32) {
    let all = i64::from(gpus) * 100;
    let allocatable = vec![
        ("cpu".into(), 64_000),
        (GPU_BOTH.into(), all),
        (GPU_CORE.into(), all),
        (GPU_MEMORY.into(), all),
        (GPU_WHOLE.into(), i64::from(gpus)),
        ("pods".into(), 110),
    ];
    let scheduling = Arc::new(NodeScheduling { allocatable, ..NodeScheduling::default() });
    pool.set_node(Arc::new(NodeFacts { name: name.into(), scheduling, ..NodeFacts::default() }));
    pool.set_gpus(name, Some(&(0..gpus).collect::<Vec<i32>>()));
}

fn facts(name: &str, requests: Amounts, priority: i32) -> PodFacts {
    let spec = SchedulingSpec { requests, priority, ..SchedulingSpec::default() };
    PodFacts {
        namespace: "default".into(),
        name: name.into(),
        uid: name.into(),
        spec: Arc::new(spec),
        ..PodFacts::default()
    }
}

fn pod(pool: &mut Pool, name: &str, requests: &[(&str, i64)]) -> PodId {
    pool.set_pod(&facts(name, requests.iter().map(|(name, amount)| ((*name).into(), *amount)).collect(), 0)).0
}

fn place(pool: &mut Pool, pod: PodId) -> Result<String, String> {
    match pool.decide(pod) {
        Decision::Place(placement) => {
            pool.assume(pod, placement.node);
            Ok(pool.node_name(placement.node).to_string())
        }
        Decision::Refuse(diagnosis) => Err(diagnosis.message()),
    }
}

fn share(core: i64, memory: i64) -> GpuShare {
    GpuShare { core, memory }
}

#[test]
fn halves_of_two_gpus_are_no_whole_one() {
    let mut pool = Pool::new();
    node(&mut pool, "n", 2);
    let (a, b) = (pod(&mut pool, "a", &[(GPU_CORE, 60)]), pod(&mut pool, "b", &[(GPU_CORE, 60)]));
    assert!(place(&mut pool, a).is_ok() && place(&mut pool, b).is_ok());
    assert_eq!([pool.gpus_of(a), pool.gpus_of(b)], [vec![(0, share(60, 0))], vec![(1, share(60, 0))]]);
    let c = pod(&mut pool, "c", &[(GPU_CORE, 50)]);
    let refused = "0/1 nodes are available: 1 Insufficient gpu devices.";
    assert_eq!(place(&mut pool, c), Err(refused.into()), "80 are free, 40 on each");
    let d = pod(&mut pool, "d", &[(GPU_CORE, 40)]);
    assert!(place(&mut pool, d).is_ok());
    assert_eq!(pool.gpus_of(d), [(0, share(40, 0))]);
    pool.remove_pod("default", "b");
    assert!(place(&mut pool, c).is_ok());
    // What the API says goes before what was chosen.
    pool.set_gpus_of(c, &[(0, share(50, 0))]);
    let e = pod(&mut pool, "e", &[(GPU_CORE, 50)]);
    assert!(place(&mut pool, e).is_ok());
    assert_eq!(pool.gpus_of(e)[0].0, 1);
}

#[test]
fn compute_and_memory_whole_ones_and_several() {
    let mut pool = Pool::new();
    node(&mut pool, "n", 4);
    let a = pod(&mut pool, "a", &[(GPU_CORE, 20), (GPU_MEMORY, 90)]);
    assert!(place(&mut pool, a).is_ok());
    let b = pod(&mut pool, "b", &[(GPU_CORE, 20), (GPU_MEMORY, 20)]);
    assert!(place(&mut pool, b).is_ok());
    assert_eq!(pool.gpus_of(b)[0].0, 1, "the first has too little memory");
    let whole = pod(&mut pool, "whole", &[(GPU_WHOLE, 2)]);
    assert!(place(&mut pool, whole).is_ok());
    assert_eq!(pool.gpus_of(whole), [(2, share(100, 100)), (3, share(100, 100))]);
    let both = pod(&mut pool, "both", &[(GPU_BOTH, 80)]);
    assert!(place(&mut pool, both).is_ok());
    assert_eq!(pool.gpus_of(both), [(1, share(80, 80))]);
    // More important pods take GPUs, not sums.
    let id = pool.set_pod(&facts("high", vec![(GPU_WHOLE.into(), 2)], 10)).0;
    let Decision::Refuse(diagnosis) = pool.decide(id) else { panic!("there is no room") };
    let made = pool.preempt(id, &diagnosis).unwrap();
    assert!(!made.victims.is_empty());
    for victim in &made.victims {
        let key = pool.pod_key(victim.pod).clone();
        pool.remove_pod(&key.namespace, &key.name);
    }
    assert!(place(&mut pool, id).is_ok(), "room was made");
}

#[test]
fn no_gpu_is_promised_twice_and_none_that_suffices_is_missed() {
    let mut state = 7u64;
    let mut roll = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for _ in 0..60 {
        let mut pool = Pool::new();
        let gpus: Vec<i32> = (0..3).map(|_| roll(4) as i32).collect();
        for (at, gpus) in gpus.iter().enumerate() {
            node(&mut pool, &format!("n{at}"), *gpus);
        }
        let mut living: Vec<String> = Vec::new();
        for step in 0..40 {
            if roll(3) == 0 && !living.is_empty() {
                let gone = living.swap_remove(roll(living.len() as u64) as usize);
                pool.remove_pod("default", &gone);
                continue;
            }
            let name = format!("p{step}");
            let percent = [10, 30, 50, 70, 100, 200, 300][roll(7) as usize];
            let id = pod(&mut pool, &name, &[(GPU_CORE, percent)]);
            // What is free, from what everybody says that he has.
            let mut free: BTreeMap<(usize, i32), i64> = BTreeMap::new();
            for (at, gpus) in gpus.iter().enumerate() {
                free.extend((0..*gpus).map(|minor| ((at, minor), 100)));
            }
            for other in living.iter().filter_map(|name| pool.pod_id("default", name)) {
                let at = pool.pod_node(other).unwrap() as usize;
                for (minor, share) in pool.gpus_of(other) {
                    *free.get_mut(&(at, minor)).unwrap() -= share.core;
                }
            }
            assert!(free.values().all(|free| *free >= 0), "promised twice: {free:?}");
            let (count, each) = if percent <= 100 { (1, percent) } else { ((percent / 100) as usize, 100) };
            let fits = |at: usize| free.iter().filter(|((n, _), free)| *n == at && **free >= each).count() >= count;
            assert_eq!(place(&mut pool, id).is_ok(), (0..3).any(fits), "{percent} into {free:?}");
            if pool.pod_node(id).is_some() {
                living.push(name);
            } else {
                pool.remove_pod("default", &name);
            }
        }
    }
}

//! What a stream of pods costs in work that can be counted, whatever their order: the workload of the bench's `spread_required`.

use diolkos_placement::{Decision, Pool};
use model::scheduling::{HOSTNAME, NodeFacts, NodeScheduling, PodFacts, SchedulingSpec, SpreadConstraint, ZONE};
use model::{LabelSelector, Labels};
use std::sync::Arc;

const NODES: usize = 2_000;
const PODS: usize = 8_000;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

fn pool(order: impl Iterator<Item = usize>) -> Pool {
    let mut pool = Pool::new();
    for n in order {
        let name = format!("node{n:06}");
        let labels = labels(&[(HOSTNAME, &name), (ZONE, &format!("zone{}", n % 3))]);
        let allocatable = vec![("cpu".into(), 4_000), ("memory".into(), 32 << 30), ("pods".into(), 110)];
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        pool.set_node(Arc::new(NodeFacts { name: name.into(), labels, scheduling, ..NodeFacts::default() }));
    }
    pool
}

fn spread() -> Arc<SchedulingSpec> {
    let constraint = SpreadConstraint {
        topology_key: ZONE.into(),
        selector: Some(LabelSelector::from_labels(&labels(&[("app", "spread")]))),
        max_skew: 5,
        min_domains: 1,
        hard: true,
        honor_affinity: true,
        honor_taints: false,
    };
    Arc::new(SchedulingSpec {
        requests: vec![("cpu".into(), 100), ("memory".into(), 500 << 20)],
        nominal: (100, 500 << 20),
        spread: vec![constraint],
        ..SchedulingSpec::default()
    })
}

#[test]
fn every_decision_reads_what_changed_since_the_last_and_nothing_is_made_twice() {
    let (spec, of) = (spread(), Arc::new(labels(&[("app", "spread")])));
    for seed in 0..12usize {
        // Nodes join, and pods come, in another order each time; numbers are coprime to the counts.
        let stride = [1, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43][seed];
        let mut pool = pool((0..NODES).map(|n| n * stride % NODES));
        for n in 0..PODS {
            let name: Arc<str> = format!("pod-{:06}", n * stride % PODS).into();
            let facts = PodFacts {
                namespace: "bench".into(),
                uid: name.clone(),
                name,
                labels: of.clone(),
                spec: spec.clone(),
                ..PodFacts::default()
            };
            let (id, _) = pool.set_pod(&facts);
            let Decision::Place(placement) = pool.decide(id) else { panic!("pod {n} does not fit") };
            pool.assume(id, placement.node);
        }
        let work = pool.answered();
        assert_eq!((work.by_index, work.in_full), (PODS as u64, 0), "order {seed}");
        // The layout and the one shape; then one change for each pod that was bound before.
        assert_eq!((work.rebuilt, work.replayed), (2, PODS as u64 - 1), "order {seed}");
    }
}

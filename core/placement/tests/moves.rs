//! Plans of moves on random pools against plain counting: what a plan promises is looked at with nothing of the engine's.

use diolkos_placement::{Cause, Decision, Move, MoveLimits, NodeId, PodId, Pool};
use model::scheduling::{NodeFacts, NodeScheduling, PodFacts, PodTerm, SchedulingSpec, SpreadConstraint};
use model::{LabelSelector, Labels};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Numbers from a seed (xorshift*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below as u64) as usize
    }
}

const HOST: &str = "kubernetes.io/hostname";
const CPU: i64 = 4000;

struct World {
    pool: Pool,
    pods: BTreeMap<PodId, PodFacts>,
    nodes: usize,
    zones: usize,
}

fn of_app(app: &str) -> LabelSelector {
    LabelSelector::from_labels([(&Arc::from("app"), &Arc::from(app))])
}

fn pod(name: &str, app: &str, cpu: i64, rule: usize, node: &str) -> PodFacts {
    let mut spec =
        SchedulingSpec { requests: vec![("cpu".into(), cpu)], nominal: (cpu, 0), ..SchedulingSpec::default() };
    let term = |key: &str| PodTerm {
        topology_key: key.into(),
        selector: Some(of_app(app)),
        namespaces: vec!["default".into()],
        namespace_selector: None,
    };
    match rule {
        1 => spec.anti_affinity = vec![term(HOST)],
        2 => {
            spec.spread = vec![SpreadConstraint {
                topology_key: "zone".into(),
                selector: Some(of_app(app)),
                max_skew: 1,
                min_domains: 1,
                hard: true,
                honor_affinity: true,
                honor_taints: false,
            }];
        }
        3 => spec.affinity = vec![term("zone")],
        _ => {}
    }
    PodFacts {
        namespace: "default".into(),
        name: name.into(),
        uid: name.into(),
        labels: Arc::new(Labels::from([("app".into(), app.into())])),
        spec: Arc::new(spec),
        node: node.into(),
        ..PodFacts::default()
    }
}

impl World {
    /// Pods bound at random, wherever there is room: rules may be broken.
    fn random(seed: u64, ruled: bool) -> World {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let (nodes, zones) = (2 + dice.roll(6), 1 + dice.roll(3));
        let mut pool = Pool::new();
        for n in 0..nodes {
            let labels = [(HOST, format!("n{n}")), ("zone", format!("z{}", n % zones))];
            let labels: Labels = labels.into_iter().map(|(key, value)| (Arc::from(key), Arc::from(value))).collect();
            let allocatable = vec![("cpu".into(), CPU), ("pods".into(), 110)];
            let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
            pool.set_node(Arc::new(NodeFacts {
                name: format!("n{n}").into(),
                labels,
                scheduling,
                ..NodeFacts::default()
            }));
        }
        let mut world = World { pool, pods: BTreeMap::new(), nodes, zones };
        let mut used = vec![0; nodes];
        for n in 0..dice.roll(14) {
            let (cpu, node) = (500 * (1 + dice.roll(4) as i64), dice.roll(nodes));
            if used[node] + cpu > CPU {
                continue;
            }
            used[node] += cpu;
            let app = dice.roll(3);
            let rule = if ruled { app + dice.roll(2) } else { 0 };
            let facts = pod(&format!("p{n:02}"), &format!("a{app}"), cpu, rule, &format!("n{node}"));
            let (id, _) = world.pool.set_pod(&facts);
            world.pods.insert(id, facts);
        }
        world
    }
    fn zone(&self, node: NodeId) -> usize {
        node as usize % self.zones
    }
    fn places(&self) -> BTreeMap<PodId, NodeId> {
        self.pods.keys().map(|pod| (*pod, self.pool.pod_node(*pod).unwrap())).collect()
    }
    fn used(&self, places: &BTreeMap<PodId, NodeId>) -> Vec<i64> {
        let mut used = vec![0; self.nodes];
        for (pod, node) in places {
            used[*node as usize] += self.pods[pod].spec.requests[0].1;
        }
        used
    }
    /// Whether a pod's own rules hold where it is.
    fn holds(&self, places: &BTreeMap<PodId, NodeId>, pod: PodId) -> bool {
        let facts = &self.pods[&pod];
        let node = places[&pod];
        let mates: Vec<NodeId> = places
            .iter()
            .filter(|(other, _)| **other != pod && self.pods[other].labels == facts.labels)
            .map(|(_, node)| *node)
            .collect();
        let anti = facts.spec.anti_affinity.is_empty() || !mates.contains(&node);
        let near = facts.spec.affinity.is_empty()
            || mates.is_empty()
            || mates.iter().any(|mate| self.zone(*mate) == self.zone(node));
        let spread = facts.spec.spread.is_empty() || {
            let zones = self.zones.min(self.nodes);
            let mut by_zone = vec![0; zones];
            mates.iter().for_each(|mate| by_zone[self.zone(*mate)] += 1);
            by_zone[self.zone(node)] + 1 - by_zone.iter().min().unwrap() <= 1
        };
        anti && near && spread
    }
    fn broken(&self, places: &BTreeMap<PodId, NodeId>) -> usize {
        self.pods.keys().filter(|pod| !self.holds(places, **pod)).count()
    }
    fn after(&self, moves: &[Move]) -> BTreeMap<PodId, NodeId> {
        let mut places = self.places();
        for m in moves {
            assert_eq!(places.insert(m.pod, m.to), Some(m.from), "each pod moves once, from where it is");
        }
        places
    }
}

fn limits() -> MoveLimits {
    MoveLimits { workload_pct: 100, ..MoveLimits::default() }
}

const SEEDS: u64 = 500;

#[test]
fn mends_broken_rules_and_breaks_none() {
    let mut mended = 0;
    for seed in 0..SEEDS {
        let mut world = World::random(seed, true);
        let before = world.places();
        let moves = world.pool.plan_moves(&limits());
        assert_eq!(world.places(), before, "planning changes nothing");
        let after = world.after(&moves);
        assert!(world.used(&after).iter().all(|used| *used <= CPU), "seed {seed}: {moves:?}");
        for m in &moves {
            assert_eq!(m.cause, Cause::Rules);
        }
        let (had, has) = (world.broken(&before), world.broken(&after));
        assert!(has <= had && (moves.is_empty() || has < had), "seed {seed}: {had} to {has} by {moves:?}");
        // Whoever still breaks a rule has nowhere to go, as far as single moves tell.
        mended += had - has;
        if had == 0 {
            assert!(moves.is_empty(), "seed {seed}: {moves:?}");
        }
    }
    assert!(mended as u64 > SEEDS / 10, "{mended}");
}

#[test]
fn empties_nodes_for_good() {
    let mut emptied = 0;
    for seed in 0..SEEDS {
        let mut world = World::random(seed, false);
        let before = world.places();
        let limits = MoveLimits { empty_below_pct: Some(60), ..limits() };
        let moves = world.pool.plan_moves(&limits);
        let after = world.after(&moves);
        let in_use = |places: &BTreeMap<PodId, NodeId>| world.used(places).iter().filter(|used| **used > 0).count();
        assert!(world.used(&after).iter().all(|used| *used <= CPU), "seed {seed}");
        let from: std::collections::BTreeSet<NodeId> = moves.iter().map(|m| m.from).collect();
        assert_eq!(in_use(&after) + from.len(), in_use(&before), "seed {seed}: every node left is empty: {moves:?}");
        assert!(moves.iter().all(|m| m.cause == Cause::Empty && !from.contains(&m.to)), "seed {seed}: {moves:?}");
        emptied += from.len();
        for m in &moves {
            let mut facts = world.pods[&m.pod].clone();
            facts.node = format!("n{}", m.to).into();
            world.pool.set_pod(&facts);
        }
        let again = world.pool.plan_moves(&limits);
        assert!(
            again.iter().all(|m| !from.contains(&m.to)),
            "seed {seed}: no pod goes back to a node that was emptied"
        );
    }
    assert!(emptied as u64 > SEEDS / 10, "{emptied}");
}

#[test]
fn finds_the_single_move_that_makes_room() {
    let mut made = 0;
    for seed in 0..SEEDS {
        let mut world = World::random(seed, false);
        let cpu = 2500 + 500 * (seed as i64 % 3);
        let (id, _) = world.pool.set_pod(&pod("new", "new", cpu, 0, ""));
        if matches!(world.pool.decide(id), Decision::Place(_)) {
            continue;
        }
        let places = world.places();
        let used = world.used(&places);
        let single = places.iter().any(|(moved, from)| {
            let size = world.pods[moved].spec.requests[0].1;
            used[*from as usize] - size + cpu <= CPU
                && (0..world.nodes).any(|to| to != *from as usize && used[to] + size <= CPU)
        });
        let moves = world.pool.plan_room(id, &limits());
        assert_eq!(world.places(), places, "planning changes nothing");
        if single {
            assert_eq!(moves.len(), 1, "seed {seed}: {moves:?}");
        }
        if let Some(first) = moves.first() {
            let mut after = world.after(&moves);
            world.pods.insert(id, pod("new", "new", cpu, 0, ""));
            after.insert(id, first.from);
            assert!(world.used(&after).iter().all(|used| *used <= CPU), "seed {seed}: {moves:?}");
            made += 1;
        }
    }
    assert!(made > 0);
}

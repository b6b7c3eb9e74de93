//! The indexes and the whole evaluation give the same answer, on random pools with every feature on, after every change.

use diolkos_placement::{Decision, FitStrategy, GPU_CORE, LoadPolicy, NodeTopology, PodId, Pool, TopologyPolicy};
use model::scheduling::{
    BudgetFacts, Disk, DiskKind, HostPort, NodeFacts, NodeScheduling, NodeTerm, PodFacts, PodTerm, Reservation,
    ReservationOwner, SchedulingSpec, SpreadConstraint, SpreadOwner,
};
use model::selector::{Operator, Requirement};
use model::taint::{Taint, TaintEffect, Toleration};
use model::{LabelSelector, Labels, pod::Protocol};
use std::sync::Arc;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// A small generator of numbers (xorshift*), so that a seed replays.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len() as u64) as usize]
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

fn node(dice: &mut Dice, name: &str) -> NodeFacts {
    let mut own = labels(&[(HOST, name)]);
    if !dice.one_in(8) {
        own.insert(ZONE.into(), (*dice.pick(&["za", "zb", "zc"])).into());
    }
    if dice.one_in(2) {
        own.insert("rack".into(), format!("r{}", dice.roll(12)).into());
    }
    own.insert("gen".into(), (*dice.pick(&["1", "2", "3"])).into());
    let mut taints = Vec::new();
    if dice.one_in(5) {
        taints.push(Taint::new("dedicated", *dice.pick(&[TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule])));
    }
    if dice.one_in(6) {
        taints.push(Taint::new("slow", TaintEffect::PreferNoSchedule));
    }
    let mut allocatable = vec![
        (Arc::from("cpu"), *dice.pick(&[2000, 4000, 8000])),
        (Arc::from("memory"), *dice.pick(&[4, 8, 16]) << 30),
        (Arc::from("pods"), *dice.pick(&[4, 8, 110])),
    ];
    if dice.one_in(4) {
        allocatable.push((Arc::from("example.com/gpu"), 4));
    }
    if dice.one_in(2) {
        allocatable.push((GPU_CORE.into(), 300));
    }
    let mut images = Vec::new();
    if dice.one_in(3) {
        images.push((Arc::from("registry.example/big:1"), *dice.pick(&[200, 600, 900]) << 20));
    }
    NodeFacts {
        name: name.into(),
        labels: own,
        taints,
        unschedulable: dice.one_in(12),
        scheduling: Arc::new(NodeScheduling { allocatable, images }),
    }
}

fn selector(dice: &mut Dice) -> LabelSelector {
    LabelSelector {
        requirements: vec![Requirement {
            key: "app".into(),
            operator: *dice.pick(&[Operator::In, Operator::In, Operator::NotIn, Operator::Exists]),
            values: vec![format!("a{}", dice.roll(3)).into()],
        }],
    }
}

fn pod_term(dice: &mut Dice, namespace: &str) -> PodTerm {
    PodTerm {
        topology_key: (*dice.pick(&[HOST, ZONE, ZONE, "rack"])).into(),
        selector: (!dice.one_in(12)).then(|| selector(dice)),
        namespaces: if dice.one_in(4) { Vec::new() } else { vec![namespace.into()] },
        namespace_selector: dice
            .one_in(4)
            .then(|| LabelSelector::from_labels([(&Arc::from("team"), &Arc::from("red"))])),
    }
}

fn node_term(dice: &mut Dice, hosts: bool) -> NodeTerm {
    let (key, values) = match dice.roll(if hosts { 4 } else { 3 }) {
        0 => (ZONE, vec!["za".into(), "zb".into()]),
        1 => ("gen", vec!["2".into()]),
        2 => ("rack", vec!["r1".into(), "r2".into(), "r3".into()]),
        _ => (HOST, vec!["n1".into(), "n2".into()]),
    };
    let operator = if key == "gen" { *dice.pick(&[Operator::Gt, Operator::Lt, Operator::In]) } else { Operator::In };
    NodeTerm { expressions: vec![Requirement { key: key.into(), operator, values }], fields: Vec::new() }
}

fn spread(dice: &mut Dice) -> SpreadConstraint {
    SpreadConstraint {
        topology_key: (*dice.pick(&[HOST, ZONE, ZONE, "rack"])).into(),
        selector: Some(selector(dice)),
        max_skew: *dice.pick(&[1, 1, 2, 5]),
        min_domains: *dice.pick(&[1, 1, 3]),
        hard: dice.one_in(2),
        honor_affinity: !dice.one_in(4),
        honor_taints: dice.one_in(3),
    }
}

/// Calls `make` for one chance in `n`, and again.
fn some<T>(dice: &mut Dice, n: u64, mut make: impl FnMut(&mut Dice) -> T) -> Vec<T> {
    let mut made = Vec::new();
    while made.len() < 2 && dice.one_in(n) {
        made.push(make(dice));
    }
    made
}

fn spec(dice: &mut Dice, namespace: &str) -> SchedulingSpec {
    let mut requests = Vec::new();
    if !dice.one_in(4) {
        requests.push((Arc::from("cpu"), *dice.pick(&[100, 250, 500, 1000, 1500])));
    }
    if dice.one_in(6) {
        requests.push((Arc::from("example.com/gpu"), 1));
    }
    if dice.one_in(6) {
        requests.push((GPU_CORE.into(), *dice.pick(&[30, 50, 60, 100, 130, 200])));
    }
    if !dice.one_in(3) {
        requests.push((Arc::from("memory"), *dice.pick(&[64, 256, 1024]) << 20));
    }
    let of = |name: &str, otherwise| requests.iter().find(|(n, _)| &**n == name).map_or(otherwise, |(_, a)| *a);
    let weight = |dice: &mut Dice| *dice.pick(&[1, 10, 50, 100]);
    SchedulingSpec {
        nominal: (of("cpu", 100), of("memory", 200 << 20)),
        requests,
        node_selector: if dice.one_in(8) { vec![("gen".into(), "2".into())] } else { Vec::new() },
        node_affinity: dice.one_in(6).then(|| vec![node_term(dice, dice_hosts())]),
        preferred_nodes: some(dice, 5, |dice| (weight(dice), node_term(dice, false))),
        affinity: some(dice, 8, |dice| pod_term(dice, namespace)),
        anti_affinity: some(dice, 8, |dice| pod_term(dice, namespace)),
        preferred_affinity: some(dice, 6, |dice| (weight(dice), pod_term(dice, namespace))),
        preferred_anti_affinity: some(dice, 6, |dice| (weight(dice), pod_term(dice, namespace))),
        tolerations: if dice.one_in(3) {
            vec![Toleration { key: "dedicated".into(), exists: true, ..Toleration::default() }]
        } else {
            Vec::new()
        },
        spread: some(dice, 4, spread),
        host_ports: if dice.one_in(10) {
            vec![HostPort { port: 8080, protocol: Protocol::Tcp, ip: (*dice.pick(&["0.0.0.0", "10.0.0.1"])).into() }]
        } else {
            Vec::new()
        },
        disks: if dice.one_in(12) {
            let read_only = dice.one_in(2);
            vec![Disk { kind: DiskKind::GcePersistentDisk, id: "d".into(), monitors: Vec::new(), read_only }]
        } else {
            Vec::new()
        },
        priority: *dice.pick(&[0, 0, 10, 100]),
        guaranteed: dice.one_in(3),
        images: vec![(*dice.pick(&["registry.example/big:1", "registry.example/none:1"])).into()],
        ..SchedulingSpec::default()
    }
}

/// Node terms may name hosts, which the indexes leave to the whole evaluation.
const fn dice_hosts() -> bool {
    true
}

fn pod(dice: &mut Dice, name: String, specs: &[Specimen]) -> PodFacts {
    let (namespace, spec, own) = dice.pick(specs).clone();
    PodFacts {
        namespace: namespace.into(),
        name: name.as_str().into(),
        uid: name.into(),
        labels: own,
        spec,
        terminating: false,
        ..PodFacts::default()
    }
}

fn said(decision: &Decision) -> String {
    match decision {
        Decision::Place(placement) => {
            format!("node {} score {:?} held {:?}", placement.node, placement.score, placement.reservation)
        }
        Decision::Refuse(diagnosis) => diagnosis.message(),
    }
}

fn compare(pool: &mut Pool, facts: &PodFacts, seed: u64, step: u64) -> Decision {
    let (id, _) = pool.set_pod(facts);
    compare_known(pool, id, seed, step)
}

fn compare_known(pool: &mut Pool, id: PodId, seed: u64, step: u64) -> Decision {
    let by_index = pool.decide(id);
    let in_full = pool.decide_in_full(id);
    assert_eq!(said(&by_index), said(&in_full), "seed {seed}, step {step}: {}", pool.pod_key(id));
    by_index
}

/// Sets a reservation of one of a few names, removes it, or places it.
fn reserve(dice: &mut Dice, pool: &mut Pool, specs: &[Specimen], seed: u64, step: u64) {
    let name: Arc<str> = format!("r{}", dice.roll(4)).into();
    if dice.one_in(6) {
        pool.remove_reservation(&name);
        return;
    }
    let (namespace, spec, own) = dice.pick(specs).clone();
    let owner = |dice: &mut Dice| ReservationOwner {
        namespace: (!dice.one_in(3)).then(|| (*dice.pick(&["x", "y"])).into()),
        pod: dice.one_in(5).then(|| format!("p{}", step + 1 + dice.roll(3)).into()),
        controller: None,
        labels: dice.one_in(2).then(|| selector(dice)),
    };
    let id = pool.set_reservation(Reservation {
        name,
        namespace: namespace.into(),
        labels: own,
        template: spec,
        owners: (0..dice.roll(3)).map(|_| owner(dice)).collect(),
        allocate_once: dice.one_in(2),
        expires: None,
    });
    if pool.pod_node(id).is_none()
        && let Decision::Place(placement) = compare_known(pool, id, seed, step)
    {
        pool.assume(id, placement.node);
    }
}

/// Gives a node zones, or takes them away.
fn lay_zones(dice: &mut Dice, pool: &mut Pool, node: &str) {
    let policy = *dice.pick(&[
        TopologyPolicy::None,
        TopologyPolicy::BestEffort,
        TopologyPolicy::Restricted,
        TopologyPolicy::SingleNumaNode,
    ]);
    let zone = |dice: &mut Dice| {
        vec![
            (Arc::from("cpu"), *dice.pick(&[1000, 2000, 4000])),
            (Arc::from("example.com/gpu"), dice.roll(3) as i64),
            (Arc::from("memory"), *dice.pick(&[1, 2, 8]) << 30),
        ]
    };
    let zones = (0..1 + dice.roll(3)).map(|_| zone(dice)).collect();
    pool.set_topology(node, (!dice.one_in(5)).then_some(NodeTopology { policy, zones }));
}

/// A node tells of its GPUs, or no longer.
fn lay_gpus(dice: &mut Dice, pool: &mut Pool, node: &str) {
    let minors: Vec<i32> = (0..=dice.roll(3) as i32).collect();
    pool.set_gpus(node, (!dice.one_in(5)).then_some(&minors));
}

/// Namespace, spec and labels that several pods share.
type Specimen = (String, Arc<SchedulingSpec>, Arc<Labels>);

fn run(seed: u64) -> (u64, u64, u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut pool = Pool::new();
    for (namespace, team) in [("x", "red"), ("y", "blue")] {
        pool.set_namespace(&namespace.into(), Arc::new(labels(&[("team", team)])));
    }
    let nodes = 2 + dice.roll(24);
    let (reserves, zoned, shared) = (dice.one_in(3), dice.one_in(3), dice.one_in(3));
    if dice.one_in(3) {
        pool.set_load_policy(Some(LoadPolicy::default()));
    }
    if dice.one_in(4) {
        pool.set_fit_strategy(FitStrategy::MostAllocated);
    }
    for n in 0..nodes {
        let facts = node(&mut dice, &format!("n{n}"));
        pool.set_node(Arc::new(facts));
        if zoned && dice.one_in(2) {
            lay_zones(&mut dice, &mut pool, &format!("n{n}"));
        }
        if shared && dice.one_in(2) {
            lay_gpus(&mut dice, &mut pool, &format!("n{n}"));
        }
    }
    let specs: Vec<Specimen> = (0..8)
        .map(|_| {
            let namespace = (*dice.pick(&["x", "y"])).to_owned();
            let app = format!("a{}", dice.roll(3));
            let spec = spec(&mut dice, &namespace);
            (namespace, Arc::new(spec), Arc::new(labels(&[("app", &app)])))
        })
        .collect();
    let (mut placed, mut refused, mut living) = (0, 0, Vec::new());
    for step in 0..60 {
        match dice.roll(16) {
            12 if shared => lay_gpus(&mut dice, &mut pool, &format!("n{}", dice_node(step, nodes))),
            15 if zoned => lay_zones(&mut dice, &mut pool, &format!("n{}", dice_node(step, nodes))),
            14 if reserves => reserve(&mut dice, &mut pool, &specs, seed, step),
            13 if !living.is_empty() && dice.one_in(3) => {
                let gone: PodFacts = living.swap_remove(dice.roll(living.len() as u64) as usize);
                if let Some(id) = pool.pod_id(&gone.namespace, &gone.name) {
                    pool.forget(id);
                }
            }
            0 => {
                let facts = node(&mut dice, &format!("n{}", dice_node(step, nodes)));
                pool.set_node(Arc::new(facts));
            }
            1 => {
                pool.remove_node(&format!("n{}", dice_node(step, nodes)));
            }
            2 if !living.is_empty() => {
                let gone: PodFacts = living.swap_remove(dice.roll(living.len() as u64) as usize);
                pool.remove_pod(&gone.namespace, &gone.name);
            }
            3 if !living.is_empty() => {
                let at = dice.roll(living.len() as u64) as usize;
                living[at].terminating = true;
                pool.set_pod(&living[at]);
            }
            4 => {
                let name = format!("s{}", dice.roll(2));
                if dice.one_in(3) {
                    pool.remove_spread_owner("x", "Service", &name);
                } else {
                    let app: Arc<str> = format!("a{}", dice.roll(3)).into();
                    let selector = LabelSelector::from_labels([(&Arc::from("app"), &app)]);
                    let owner = SpreadOwner { namespace: "x".into(), kind: "Service", name: name.into(), selector };
                    pool.set_spread_owner(owner);
                }
            }
            7 => {
                if let Some(node) = pool.node_id(&format!("n{}", dice_node(step, nodes))) {
                    let used = (dice.roll(3000) as i64, (dice.roll(4) as i64) << 30);
                    pool.set_usage(node, (!dice.one_in(5)).then_some(used));
                }
            }
            6 if dice.one_in(3) => {
                let app: Arc<str> = format!("a{}", dice.roll(3)).into();
                pool.set_budget(BudgetFacts {
                    namespace: (*dice.pick(&["x", "y"])).into(),
                    name: "b".into(),
                    selector: Some(LabelSelector::from_labels([(&Arc::from("app"), &app)])),
                    allowed: dice.roll(3) as i32,
                    disrupted: Vec::new(),
                });
            }
            5 if dice.one_in(4) => {
                pool.set_namespace(&"y".into(), Arc::new(labels(&[("team", *dice.pick(&["red", "blue"]))])));
            }
            _ => {
                let mut facts = pod(&mut dice, format!("p{step}"), &specs);
                let decision = compare(&mut pool, &facts, seed, step);
                let Some(id) = pool.pod_id(&facts.namespace, &facts.name) else { continue };
                match decision {
                    Decision::Place(placement) => {
                        placed += 1;
                        if dice.one_in(10) {
                            pool.set_nominated(id, Some(placement.node));
                        } else {
                            pool.assume(id, placement.node);
                            facts.node = pool.node_name(placement.node).clone();
                            living.push(facts);
                        }
                    }
                    Decision::Refuse(diagnosis) => {
                        refused += 1;
                        let (fast, full) = (pool.preempt(id, &diagnosis), pool.preempt_in_full(id, &diagnosis));
                        assert_eq!(fast, full, "seed {seed}, step {step}: {facts:#?}");
                        if let Ok(preemption) = fast {
                            for victim in preemption.victims {
                                let key = pool.pod_key(victim.pod).clone();
                                pool.remove_pod(&key.namespace, &key.name);
                                living.retain(|pod: &PodFacts| pod.name != key.name || pod.namespace != key.namespace);
                            }
                            compare(&mut pool, &facts, seed, step);
                        }
                    }
                }
            }
        }
    }
    (placed, refused, pool.answered().by_index)
}

fn dice_node(step: u64, nodes: u64) -> u64 {
    step * 7 % (nodes + 3)
}

/// A number from the environment: how many seeds to try, and from which on.
#[expect(clippy::disallowed_methods, reason = "a test may be told how long to search")]
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn indexes_agree_with_the_whole_evaluation() {
    let seeds = setting("DIOLKOS_SEEDS", 2_000);
    let first = setting("DIOLKOS_SEED", 1);
    let (mut placed, mut refused, mut indexed) = (0, 0, 0);
    for seed in first..first + seeds {
        let (p, r, i) = run(seed);
        placed += p;
        refused += r;
        indexed += i;
    }
    let told = format!("{placed} placed, {refused} refused, {indexed} by index");
    println!("{told}");
    assert!(
        seeds < 100 || (placed > seeds * 10 && refused > seeds && indexed > seeds * 15),
        "the pools are no test: {told}"
    );
}

//! Nodes and pods as the scenarios want them.

use model::scheduling::{NodeFacts, NodeScheduling, NodeTerm, PodFacts, PodTerm, SchedulingSpec, SpreadConstraint};
use model::selector::{Operator, Requirement};
use model::taint::{Taint, TaintEffect, Toleration};
use model::{LabelSelector, Labels};
use placement::Pool;
use std::sync::Arc;

pub const HOST: &str = "kubernetes.io/hostname";
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// Numbers from a seed (xorshift*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below as u64) as usize
    }
}

/// scheduler_perf's node (4 CPUs, 32 GiB, 110 pods) in one of `zones`.
pub fn node(n: usize, zones: usize) -> NodeFacts {
    sized_node(n, zones, 4000, 32)
}

pub fn sized_node(n: usize, zones: usize, cpu_milli: i64, memory_gib: i64) -> NodeFacts {
    let name = format!("node-{n:06}");
    let labels: Labels =
        [(HOST, name.clone()), (ZONE, format!("zone{}", n % zones)), ("pool", format!("p{}", n / zones % 4))]
            .into_iter()
            .map(|(key, value)| (Arc::from(key), Arc::from(value)))
            .collect();
    let amounts = [("cpu", cpu_milli), ("memory", memory_gib << 30), ("pods", 110)];
    let allocatable = amounts.map(|(name, amount)| (Arc::from(name), amount)).to_vec();
    let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
    NodeFacts { name: name.into(), labels, scheduling, ..NodeFacts::default() }
}

pub fn pool(nodes: usize, zones: usize) -> Pool {
    let mut pool = Pool::new();
    for n in 0..nodes {
        pool.set_node(Arc::new(node(n, zones)));
    }
    pool
}

/// Pods that are alike.
#[derive(Clone)]
pub struct Workload {
    pub namespace: Arc<str>,
    pub name: String,
    pub labels: Arc<Labels>,
    pub spec: Arc<SchedulingSpec>,
}

impl Workload {
    pub fn new(name: &str, spec: SchedulingSpec) -> Self {
        let labels = Arc::new(Labels::from([("app".into(), name.into())]));
        Workload { namespace: "bench".into(), name: name.to_owned(), labels, spec: Arc::new(spec) }
    }
    /// Its `n`th pod.
    pub fn pod(&self, n: usize) -> PodFacts {
        let name: Arc<str> = format!("{}-{n:06}", self.name).into();
        PodFacts {
            namespace: self.namespace.clone(),
            uid: name.clone(),
            name,
            labels: self.labels.clone(),
            spec: self.spec.clone(),
            ..PodFacts::default()
        }
    }
    pub fn pods(&self, from: usize, count: usize) -> Vec<PodFacts> {
        (from..from + count).map(|n| self.pod(n)).collect()
    }
}

pub fn spec(cpu_milli: i64, memory_mib: i64) -> SchedulingSpec {
    let requests = vec![("cpu".into(), cpu_milli), ("memory".into(), memory_mib << 20)];
    SchedulingSpec { requests, nominal: (cpu_milli, memory_mib << 20), ..SchedulingSpec::default() }
}

/// scheduler_perf's pod: 100m CPU, 500 MiB.
pub fn basic() -> SchedulingSpec {
    spec(100, 500)
}

pub fn of_app(app: &str) -> LabelSelector {
    LabelSelector::from_labels([(&Arc::from("app"), &Arc::from(app))])
}

pub fn term(key: &str, app: &str) -> PodTerm {
    PodTerm {
        topology_key: key.into(),
        selector: Some(of_app(app)),
        namespaces: vec!["bench".into()],
        namespace_selector: None,
    }
}

pub fn spread(key: &str, app: &str, max_skew: i32, hard: bool) -> SpreadConstraint {
    SpreadConstraint {
        topology_key: key.into(),
        selector: Some(of_app(app)),
        max_skew,
        min_domains: 1,
        hard,
        honor_affinity: true,
        honor_taints: false,
    }
}

pub fn in_zones(zones: &[&str]) -> NodeTerm {
    let values = zones.iter().map(|zone| Arc::from(*zone)).collect();
    NodeTerm { expressions: vec![Requirement { key: ZONE.into(), operator: Operator::In, values }], fields: Vec::new() }
}

/// One of many workloads, with a rule drawn from all that there are.
pub fn mixed(n: usize, zones: usize, dice: &mut Dice) -> Workload {
    const SIZES: [(i64, i64); 8] =
        [(50, 64), (100, 128), (100, 256), (200, 256), (250, 512), (500, 512), (500, 1024), (1000, 2048)];
    let name = format!("w{n}");
    let (cpu, memory) = SIZES[dice.roll(SIZES.len())];
    let mut spec = spec(cpu, memory);
    let near = format!("w{}", dice.roll(n.max(1)));
    match dice.roll(20) {
        0..=5 => {}
        6 | 7 => spec.spread = vec![spread(ZONE, &name, 1, true)],
        8 | 9 => spec.spread = vec![spread(ZONE, &name, 5, false), spread(HOST, &name, 3, false)],
        10 | 11 => spec.anti_affinity = vec![term(HOST, &name)],
        12 => spec.affinity = vec![term(ZONE, &name)],
        13 => spec.preferred_affinity = vec![(50, term(ZONE, &near))],
        14 => spec.preferred_anti_affinity = vec![(50, term(HOST, &name))],
        15 | 16 => spec.node_affinity = Some(vec![in_zones(&["zone0", "zone1"])]),
        17 => spec.preferred_nodes = vec![(80, in_zones(&["zone0"]))],
        18 => spec.node_selector = vec![("pool".into(), format!("p{}", dice.roll(4)).into())],
        _ => {
            let dedicated = Toleration { key: "dedicated".into(), exists: true, ..Toleration::default() };
            spec.tolerations = vec![dedicated];
            spec.preferred_nodes = vec![(10, in_zones(&["zone1"]))];
        }
    }
    spec.priority = [0, 0, 0, 1000][dice.roll(4)];
    let mut workload = Workload::new(&name, spec);
    workload.namespace = "bench".into();
    debug_assert!(zones > 1);
    workload
}

/// A taint that some nodes of the mixed pools carry.
pub fn dedicated() -> Taint {
    Taint::new("dedicated", TaintEffect::NoSchedule)
}

/// Resident bytes of this process.
pub fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<f64>().ok());
    pages.unwrap_or(0.0) * 4096.0
}

//! The scenarios of the table, in its order.

use crate::placement::workloads::{
    Dice, HOST, Workload, ZONE, basic, dedicated, in_zones, mixed, node, pool, resident, sized_node, spec, spread, term,
};
use crate::report::Report;
use model::scheduling::PodFacts;
use placement::{Decision, LoadPolicy, MoveLimits, NodeId, Pool};
use std::sync::Arc;
use std::time::Instant;

type Run = fn(&str, &mut Report) -> Result<(), String>;

pub const ALL: [(&str, Run); 13] = [
    ("basic", run_basic),
    ("spread_required", run_spread_required),
    ("spread_preferred", run_spread_preferred),
    ("pod_affinity", run_pod_affinity),
    ("pod_anti_affinity", run_pod_anti_affinity),
    ("node_affinity", run_node_affinity),
    ("preemption", run_preemption),
    ("churn", run_churn),
    ("gangs", run_gangs),
    ("everything", run_everything),
    ("million", run_million),
    ("warm_start", run_warm_start),
    ("reschedule", run_reschedule),
];

const NODES: usize = 5_000;

/// Places a pod; None when nobody can have it.
fn place(pool: &mut Pool, facts: &PodFacts) -> Option<NodeId> {
    let (id, _) = pool.set_pod(facts);
    match pool.decide(id) {
        Decision::Place(placement) => {
            pool.assume(id, placement.node);
            Some(placement.node)
        }
        Decision::Refuse(_) => None,
    }
}

/// Seconds that this thread has been on a processor: what is left of the wall's time when others share the machine.
fn busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = stat.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    nanos.unwrap_or(0.0) / 1e9
}

/// Times a stream of pods one by one.
struct Watch {
    nanos: Vec<u64>,
    started: Instant,
    busy: f64,
}

impl Watch {
    fn start(pods: usize) -> Self {
        Watch { nanos: Vec::with_capacity(pods), started: Instant::now(), busy: busy() }
    }
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let from = Instant::now();
        let done = work();
        self.nanos.push(from.elapsed().as_nanos() as u64);
        done
    }
    fn report(mut self, name: &str, report: &mut Report) {
        let seconds = self.started.elapsed().as_secs_f64();
        report.add(name, "pods_per_s", self.nanos.len() as f64 / seconds, "pods/s");
        report.add(name, "pods_per_cpu_s", self.nanos.len() as f64 / (busy() - self.busy).max(1e-9), "pods/s");
        self.nanos.sort_unstable();
        let at = |share: f64| self.nanos[((self.nanos.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
        report.add(name, "decision_p50", at(0.5), "us");
        report.add(name, "decision_p99", at(0.99), "us");
        // A short scenario is over in a twentieth of a second: one stall of the machine is seen here.
        report.add(name, "decision_max", at(1.0), "us");
    }
}

/// Places all pods, all of which have to fit.
fn all_fit(name: &str, report: &mut Report, pool: &mut Pool, pods: &[PodFacts]) -> Result<(), String> {
    let mut watch = Watch::start(pods.len());
    for facts in pods {
        if watch.time(|| place(pool, facts)).is_none() {
            return Err(format!("{name}: {} does not fit", facts.name));
        }
    }
    watch.report(name, report);
    Ok(())
}

fn run_basic(name: &str, report: &mut Report) -> Result<(), String> {
    let mut pool = pool(NODES, 3);
    all_fit(name, report, &mut pool, &Workload::new("basic", basic()).pods(0, 50_000))
}

fn run_spread(name: &str, report: &mut Report, hard: bool) -> Result<(), String> {
    let mut pool = pool(NODES, 3);
    let mut spec = basic();
    spec.spread = vec![spread(ZONE, "spread", 5, hard)];
    all_fit(name, report, &mut pool, &Workload::new("spread", spec).pods(0, 20_000))
}

fn run_spread_required(name: &str, report: &mut Report) -> Result<(), String> {
    run_spread(name, report, true)
}

fn run_spread_preferred(name: &str, report: &mut Report) -> Result<(), String> {
    run_spread(name, report, false)
}

fn run_pod_affinity(name: &str, report: &mut Report) -> Result<(), String> {
    let mut pool = pool(NODES, 3);
    let mut spec = basic();
    spec.affinity = vec![term(ZONE, "blue")];
    all_fit(name, report, &mut pool, &Workload::new("blue", spec).pods(0, 20_000))
}

fn run_pod_anti_affinity(name: &str, report: &mut Report) -> Result<(), String> {
    let mut pool = pool(NODES, 3);
    let mut spec = basic();
    spec.anti_affinity = vec![term(HOST, "green")];
    all_fit(name, report, &mut pool, &Workload::new("green", spec).pods(0, NODES))
}

fn run_node_affinity(name: &str, report: &mut Report) -> Result<(), String> {
    let mut pool = pool(NODES, 3);
    let mut spec = basic();
    spec.node_affinity = Some(vec![in_zones(&["zone0", "zone1"])]);
    all_fit(name, report, &mut pool, &Workload::new("choosy", spec).pods(0, 20_000))
}

/// Every node is full of pods of low priority; each new pod takes the place of some.
fn run_preemption(name: &str, report: &mut Report) -> Result<(), String> {
    let mut pool = pool(NODES, 3);
    for facts in Workload::new("low", spec(900, 500)).pods(0, 4 * NODES) {
        place(&mut pool, &facts).ok_or("the low pods do not fit")?;
    }
    let mut high = spec(3000, 500);
    high.priority = 10;
    let mut watch = Watch::start(NODES);
    for facts in Workload::new("high", high).pods(0, NODES) {
        watch.time(|| preempt(&mut pool, &facts))?;
    }
    watch.report(name, report);
    Ok(())
}

fn preempt(pool: &mut Pool, facts: &PodFacts) -> Result<(), String> {
    let (id, _) = pool.set_pod(facts);
    let Decision::Refuse(diagnosis) = pool.decide(id) else { return Err("there is room left".to_owned()) };
    let preemption = pool.preempt(id, &diagnosis)?;
    pool.set_nominated(id, Some(preemption.node));
    for victim in preemption.victims {
        let key = pool.pod_key(victim.pod).clone();
        pool.remove_pod(&key.namespace, &key.name);
    }
    match pool.decide(id) {
        Decision::Place(placement) => pool.assume(id, placement.node),
        Decision::Refuse(_) => return Err("it does not fit on its nominated node".to_owned()),
    }
    Ok(())
}

/// A fifth of the pods fit nowhere and are refused with reasons; others come and go, and nodes with them.
fn run_churn(name: &str, report: &mut Report) -> Result<(), String> {
    const PODS: usize = 100_000;
    let mut pool = pool(NODES, 3);
    let fits = Workload::new("fits", basic()).pods(0, PODS);
    let huge = Workload::new("huge", spec(9000, 500)).pods(0, PODS);
    let mut living: Vec<&PodFacts> = Vec::new();
    let mut dice = Dice::new(1);
    let mut watch = Watch::start(PODS);
    for n in 0..PODS {
        if n % 10_000 == 9_999 {
            // scheduler_perf's churn: a node comes, and goes again.
            pool.set_node(Arc::new(node(NODES, 3)));
            pool.remove_node(&node(NODES, 3).name);
        }
        let facts = if n % 5 == 4 { &huge[n] } else { &fits[n] };
        let placed = watch.time(|| place(&mut pool, facts));
        match placed {
            Some(_) => living.push(facts),
            None => drop(pool.remove_pod(&facts.namespace, &facts.name)),
        }
        if n % 2 == 1 && !living.is_empty() {
            let gone = living.swap_remove(dice.roll(living.len()));
            pool.remove_pod(&gone.namespace, &gone.name);
        }
    }
    watch.report(name, report);
    Ok(())
}

fn run_gangs(name: &str, report: &mut Report) -> Result<(), String> {
    let mut pool = pool(NODES, 3);
    let gangs: Vec<Vec<PodFacts>> =
        (0..10).map(|n| Workload::new(&format!("gang{n}"), basic()).pods(0, 5_000)).collect();
    let started = Instant::now();
    for gang in &gangs {
        let ids: Vec<_> = gang.iter().map(|facts| pool.set_pod(facts).0).collect();
        pool.decide_gang(&ids, ids.len()).ok_or("a gang does not fit")?;
    }
    report.add(name, "pods_per_s", 50_000.0 / started.elapsed().as_secs_f64(), "pods/s");
    Ok(())
}

/// 500 workloads, whose pods come in random order; nodes report their load.
fn run_everything(name: &str, report: &mut Report) -> Result<(), String> {
    const PODS: usize = 60_000;
    let mut dice = Dice::new(7);
    let mut pool = Pool::new();
    pool.set_load_policy(Some(LoadPolicy { cpu_pct: 95, ..LoadPolicy::default() }));
    for n in 0..NODES {
        let mut facts = sized_node(n, 3, 16_000, 64);
        if n % 10 == 0 {
            facts.taints.push(dedicated());
        }
        pool.set_node(Arc::new(facts));
        let id = pool.node_id(&format!("node-{n:06}")).unwrap_or_default();
        pool.set_usage(id, Some((dice.roll(4000) as i64, (dice.roll(8) as i64) << 30)));
    }
    let workloads: Vec<Workload> = (0..500).map(|n| mixed(n, 3, &mut dice)).collect();
    let pods: Vec<PodFacts> = (0..PODS).map(|n| workloads[dice.roll(workloads.len())].pod(n)).collect();
    let mut refused = 0;
    let mut watch = Watch::start(PODS);
    for facts in &pods {
        refused += usize::from(watch.time(|| place(&mut pool, facts)).is_none());
    }
    watch.report(name, report);
    report.add(name, "refused", refused as f64, "pods");
    Ok(())
}

const MANY_NODES: usize = 100_000;
const MANY_PODS: usize = 1_000_000;
const MANY_WORKLOADS: usize = 5_000;

fn many_nodes() -> Pool {
    let mut pool = Pool::new();
    for n in 0..MANY_NODES {
        let mut facts = sized_node(n, 10, 32_000, 128);
        if n % 20 == 0 {
            facts.taints.push(dedicated());
        }
        pool.set_node(Arc::new(facts));
    }
    pool
}

fn many_workloads() -> Vec<Workload> {
    let mut dice = Dice::new(11);
    (0..MANY_WORKLOADS)
        .map(|n| {
            let mut workload = mixed(n, 10, &mut dice);
            // Required affinity to oneself draws a workload into one zone, whose nodes still have room for it.
            workload.namespace = format!("team{}", n % 100).into();
            let mut spec = (*workload.spec).clone();
            let terms = spec.affinity.iter_mut().chain(&mut spec.anti_affinity);
            let terms = terms.chain(spec.preferred_affinity.iter_mut().map(|(_, term)| term));
            for term in terms.chain(spec.preferred_anti_affinity.iter_mut().map(|(_, term)| term)) {
                term.namespaces = vec![workload.namespace.clone()];
            }
            workload.spec = Arc::new(spec);
            workload
        })
        .collect()
}

/// Workloads arrive one after the other, as their controllers make them, 200 pods each.
fn run_million(name: &str, report: &mut Report) -> Result<(), String> {
    let before = resident();
    let mut pool = many_nodes();
    let with_nodes = resident();
    let workloads = many_workloads();
    let (mut refused, mut spent, mut on_core) = (0, 0.0, 0.0);
    let mut watch = Watch::start(MANY_PODS);
    for workload in &workloads {
        let pods = workload.pods(0, MANY_PODS / MANY_WORKLOADS);
        let (started, already) = (Instant::now(), busy());
        for facts in &pods {
            refused += usize::from(watch.time(|| place(&mut pool, facts)).is_none());
        }
        spent += started.elapsed().as_secs_f64();
        on_core += busy() - already;
    }
    report.add(name, "pods_per_s", MANY_PODS as f64 / spent, "pods/s");
    report.add(name, "pods_per_cpu_s", MANY_PODS as f64 / on_core, "pods/s");
    watch.nanos.sort_unstable();
    let at = |share: f64| watch.nanos[((MANY_PODS - 1) as f64 * share) as usize] as f64 / 1000.0;
    report.add(name, "decision_p50", at(0.5), "us");
    report.add(name, "decision_p99", at(0.99), "us");
    report.add(name, "decision_max", at(1.0), "us");
    report.add(name, "refused", refused as f64, "pods");
    report.add(name, "bytes_per_node", (with_nodes - before) / MANY_NODES as f64, "bytes");
    let timings = (MANY_PODS * 8) as f64;
    report.add(name, "bytes_per_pod", (resident() - with_nodes - timings) / MANY_PODS as f64, "bytes");
    Ok(())
}

/// A million bound pods are told to an empty pool; then one is placed.
fn run_warm_start(name: &str, report: &mut Report) -> Result<(), String> {
    let mut first = many_nodes();
    let workloads = many_workloads();
    let mut bound = Vec::with_capacity(MANY_PODS);
    for workload in &workloads {
        for mut facts in workload.pods(0, MANY_PODS / MANY_WORKLOADS) {
            if let Some(node) = place(&mut first, &facts) {
                facts.node = first.node_name(node).clone();
                bound.push(facts);
            }
        }
    }
    drop(first);
    let nodes: Vec<_> = (0..MANY_NODES).map(|n| Arc::new(sized_node(n, 10, 32_000, 128))).collect();
    let (started, already) = (Instant::now(), busy());
    let mut pool = Pool::new();
    for facts in nodes {
        pool.set_node(facts);
    }
    for facts in &bound {
        pool.set_pod(facts);
    }
    place(&mut pool, &Workload::new("first", basic()).pod(0)).ok_or("the first pod does not fit")?;
    report.add(name, "first_bind_s", started.elapsed().as_secs_f64(), "s");
    report.add(name, "first_bind_cpu_s", busy() - already, "s");
    report.add(name, "pods", bound.len() as f64, "pods");
    Ok(())
}

/// A million pods on 100,000 nodes, of which one in a hundred runs hot.
fn run_reschedule(name: &str, report: &mut Report) -> Result<(), String> {
    let mut pool = many_nodes();
    for workload in &many_workloads() {
        for facts in workload.pods(0, MANY_PODS / MANY_WORKLOADS) {
            place(&mut pool, &facts);
        }
    }
    pool.set_load_policy(Some(LoadPolicy::default()));
    for node in 0..MANY_NODES {
        let busy = if node % 100 == 50 { 28_000 } else { 8_000 };
        pool.set_usage(node as NodeId, Some((busy, 32 << 30)));
    }
    // What a running planner has at hand: the indexes are made when the policy is set, by the decisions that follow.
    place(&mut pool, &Workload::new("first", basic()).pod(0));
    let (started, already) = (Instant::now(), busy());
    let moves = pool.plan_moves(&MoveLimits::default());
    report.add(name, "plan_s", started.elapsed().as_secs_f64(), "s");
    report.add(name, "plan_cpu_s", busy() - already, "s");
    report.add(name, "moves", moves.len() as f64, "moves");
    Ok(())
}

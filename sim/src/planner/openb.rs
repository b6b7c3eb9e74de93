//! The openb traces (Alibaba's production GPU pool, as published with "Beware of Fragmentation", ATC 2023): CSV files of nodes and pods.

use super::csv::Table;
use super::input::{InputError, Place};
use super::scenario::{Arrivals, GPU, GPU_MODEL, GpuAsk, PlannedNode, PlannedPod, Scenario, WHOLE};
use super::usage::Usage;
use crate::Random;
use model::Labels;
use model::scheduling::{HOSTNAME, NodeFacts, NodeScheduling, SchedulingSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pods that one node may have; the traces do not say.
const PODS_A_NODE: i64 = 1000;
/// GPUs that one node may have.
const GPUS_MOST: i64 = super::ledger::GPUS_MOST as i64;
/// Pods that are drawn at most.
const DRAWN_MOST: usize = 5_000_000;
/// How much demand is drawn, in per cent of capacity.
const FILL_PCT: i64 = 130;

/// A file: its name for errors, and its text.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Name.
    pub name: &'a str,
    /// Text.
    pub text: &'a str,
}

/// A node as the files tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Name.
    pub name: Arc<str>,
    /// Thousandths of cores.
    pub cpu_milli: i64,
    /// Memory in MiB.
    pub memory_mib: i64,
    /// GPUs, sixteen at most.
    pub gpus: i64,
    /// Their model, or empty.
    pub model: Arc<str>,
}

/// A pod as the files tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRow {
    /// Name.
    pub name: Arc<str>,
    /// Thousandths of cores.
    pub cpu_milli: i64,
    /// Memory in MiB; 0 where the file does not say.
    pub memory_mib: i64,
    /// GPUs.
    pub gpus: u32,
    /// Thousandths of each, 1 to 1000 where there are any; a file that does not say means whole ones.
    pub gpu_milli: u32,
    /// Models that will do; none: any.
    pub models: Vec<Arc<str>>,
    /// When it came, was placed and ended, in seconds; 0 where the file does not say.
    pub times: [i64; 3],
}

/// Reads a file of nodes.
///
/// # Errors
/// What is wrong with it, and where.
pub fn node_rows(file: File<'_>) -> Result<Vec<NodeRow>, InputError> {
    let table = Table::read(file, &["sn", "cpu_milli", "memory_mib", "gpu"])?;
    let mut nodes = Vec::with_capacity(table.rows().len());
    let mut seen = BTreeSet::new();
    for row in table.rows() {
        let name = table.name(row, "sn")?;
        if !seen.insert(name) {
            return Err(table.error(row, format!("sn is {name:?} a second time"), "give every node a name of its own"));
        }
        nodes.push(NodeRow {
            name: name.into(),
            cpu_milli: table.number(row, "cpu_milli", i64::from(u32::MAX))?,
            memory_mib: table.number(row, "memory_mib", i64::from(u32::MAX))?,
            gpus: table.number(row, "gpu", GPUS_MOST)?,
            model: table.text(row, "model").into(),
        });
    }
    if nodes.is_empty() {
        return Err(Place { file: file.name, line: 0 }.error("there are no nodes", "add a line for each node"));
    }
    Ok(nodes)
}

/// Reads a file of pods, in the order of their names, and says what the file leaves open.
///
/// # Errors
/// What is wrong with it, and where.
pub fn pod_rows(file: File<'_>) -> Result<(Vec<PodRow>, Vec<String>), InputError> {
    let table = Table::read(file, &["name", "cpu_milli", "num_gpu"])?;
    let mut notes = Vec::new();
    if !table.has("memory_mib") {
        notes.push("the trace has no memory_mib: its pods ask for no memory".to_owned());
    }
    if !table.has("gpu_milli") {
        notes.push("the trace has no gpu_milli: its pods ask for whole GPUs".to_owned());
    }
    let mut pods = Vec::with_capacity(table.rows().len());
    let mut seen = BTreeSet::new();
    for row in table.rows() {
        let name = table.name(row, "name")?;
        if !seen.insert(name) {
            return Err(table.error(
                row,
                format!("name is {name:?} a second time"),
                "give every pod a name of its own",
            ));
        }
        let gpus = table.number(row, "num_gpu", GPUS_MOST)? as u32;
        let said = table.number(row, "gpu_milli", i64::from(WHOLE))? as u32;
        let gpu_milli = match (gpus, said) {
            (0, _) => 0,
            (_, 0) if table.text(row, "gpu_milli").is_empty() => WHOLE,
            (_, 0) => {
                let what = format!("gpu_milli is 0 and num_gpu is {gpus}");
                return Err(table.error(row, what, "say how much of each GPU: 1 to 1000"));
            }
            (_, milli) => milli,
        };
        let models = table.text(row, "gpu_spec").split('|').map(str::trim).filter(|model| !model.is_empty());
        let time = |column| table.number(row, column, i64::MAX / 4);
        pods.push(PodRow {
            name: name.into(),
            cpu_milli: table.number(row, "cpu_milli", i64::from(u32::MAX))?,
            memory_mib: table.number(row, "memory_mib", i64::from(u32::MAX))?,
            gpus,
            gpu_milli,
            models: models.map(Arc::from).collect(),
            times: [time("creation_time")?, time("scheduled_time")?, time("deletion_time")?],
        });
    }
    if pods.is_empty() {
        return Err(Place { file: file.name, line: 0 }.error("there are no pods", "add a line for each pod"));
    }
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((pods, notes))
}

/// Reads nodes and a trace's pods. With [`Arrivals::InTime`] pods come and go at the trace's times; with [`Arrivals::Fill`] the published
/// protocol is followed: the trace's pods in the order of their names, shuffled by the seed, then drawn from the trace with replacement,
/// until their GPU demand is 130 % of capacity.
///
/// # Errors
/// What is wrong with the files, and where.
pub fn read(nodes: File<'_>, pods: File<'_>, arrivals: Arrivals, seed: u64) -> Result<Scenario, InputError> {
    let planned = planned_nodes(node_rows(nodes)?);
    let name = pods.name.to_owned();
    let (rows, left_open) = pod_rows(pods)?;
    let mut from_trace = planned_pods(rows, seed);
    let mut notes = vec![
        "what pods really use is assumed, by a load model for each pod: the trace does not say".to_owned(),
        "fragmentation counts with the demand of all pods that are played".to_owned(),
    ];
    notes.extend(left_open);
    let last = from_trace.iter().map(|pod| pod.arrives_s + pod.lasts_s.unwrap_or(0)).max().unwrap_or(0);
    let pods = match arrivals {
        Arrivals::InTime if last == 0 => {
            let place = Place { file: pods.name, line: 1 };
            return Err(place.error(
                "the trace has no times",
                "play it with --arrivals fill, or add columns creation_time, scheduled_time and deletion_time",
            ));
        }
        Arrivals::InTime => {
            from_trace.sort_by_key(|pod| pod.arrives_s);
            from_trace
        }
        Arrivals::Fill => {
            notes.push(
                "the published protocol: pods one at a time, none removed, one that does not fit is dropped".to_owned(),
            );
            draw(&planned, from_trace, seed)
        }
    };
    Ok(Scenario { name, nodes: planned, pods, arrivals, end_s: last, outages: Vec::new(), notes })
}

fn planned_nodes(rows: Vec<NodeRow>) -> Vec<PlannedNode> {
    let planned = |row: NodeRow| {
        let mut allocatable: Vec<(Arc<str>, i64)> = vec![
            ("cpu".into(), row.cpu_milli),
            ("memory".into(), row.memory_mib << 20),
            (GPU.into(), row.gpus),
            ("pods".into(), PODS_A_NODE),
        ];
        allocatable.retain(|(_, amount)| *amount > 0);
        let mut labels = Labels::new();
        labels.insert(HOSTNAME.into(), row.name.clone());
        if !row.model.is_empty() {
            labels.insert(GPU_MODEL.into(), row.model.clone());
        }
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        let facts = Arc::new(NodeFacts { name: row.name, labels, scheduling, ..NodeFacts::default() });
        PlannedNode { facts, gpus: row.gpus as usize, gpu_model: row.model }
    };
    rows.into_iter().map(planned).collect()
}

fn planned_pods(rows: Vec<PodRow>, seed: u64) -> Vec<PlannedPod> {
    let mut specs: BTreeMap<(i64, i64), Arc<SchedulingSpec>> = BTreeMap::new();
    let labels: Arc<Labels> = Arc::default();
    let mut planned = |row: PodRow| {
        let (cpu, memory) = (row.cpu_milli, row.memory_mib << 20);
        let [created, scheduled, deleted] = row.times;
        let begun = if scheduled > 0 { scheduled } else { created };
        let ask = GpuAsk { count: row.gpus, milli: row.gpu_milli, models: row.models };
        PlannedPod {
            namespace: "openb".into(),
            labels: labels.clone(),
            spec: specs.entry((cpu, memory)).or_insert_with(|| Arc::new(spec(cpu, memory))).clone(),
            gpu: if row.gpus == 0 { GpuAsk::default() } else { ask },
            arrives_s: created,
            lasts_s: (deleted > begun).then(|| deleted - begun),
            usage: Usage::assumed(&row.name, &row.name, seed),
            is_at: "".into(),
            pinned: false,
            name: row.name,
        }
    };
    rows.into_iter().map(&mut planned).collect()
}

fn spec(cpu: i64, memory: i64) -> SchedulingSpec {
    let mut requests: Vec<(Arc<str>, i64)> = vec![("cpu".into(), cpu), ("memory".into(), memory)];
    requests.retain(|(_, amount)| *amount > 0);
    SchedulingSpec { requests, nominal: (cpu, memory), ..SchedulingSpec::default() }
}

/// The published protocol's order of arrival.
fn draw(nodes: &[PlannedNode], trace: Vec<PlannedPod>, seed: u64) -> Vec<PlannedPod> {
    let capacity: i64 = nodes.iter().map(|node| node.gpus as i64 * i64::from(WHOLE)).sum();
    let per_trace: i64 = trace.iter().map(|pod| pod.gpu.total()).sum();
    let mut random = Random::new(seed);
    let mut order: Vec<usize> = (0..trace.len()).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random.between(0, at as i64) as usize);
    }
    let (mut drawn, mut demand) = (Vec::new(), 0);
    while demand * 100 < capacity * FILL_PCT && drawn.len() < DRAWN_MOST && (per_trace > 0 || drawn.len() < order.len())
    {
        let next = order.get(drawn.len()).copied();
        let from = next.unwrap_or_else(|| random.between(0, trace.len() as i64 - 1) as usize);
        let mut pod = trace[from].clone();
        demand += pod.gpu.total();
        if next.is_none() {
            pod.name = format!("{}-{}", pod.name, drawn.len()).into();
        }
        drawn.push(pod);
    }
    drawn
}

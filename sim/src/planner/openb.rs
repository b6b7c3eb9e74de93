//! The openb traces (Alibaba's production GPU pool, as published with "Beware of Fragmentation", ATC 2023): CSV files of nodes and pods.

use super::input::{InputError, Place};
use super::scenario::{Arrivals, GPU, GPU_MODEL, GpuAsk, PlannedNode, PlannedPod, Scenario, WHOLE};
use super::usage::Usage;
use crate::Random;
use model::Labels;
use model::scheduling::{HOSTNAME, NodeFacts, NodeScheduling, SchedulingSpec};
use std::collections::BTreeMap;
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

/// A CSV by column name.
struct Table<'a> {
    file: &'a str,
    columns: Vec<&'a str>,
    /// Line and fields.
    rows: Vec<(usize, Vec<&'a str>)>,
}

impl<'a> Table<'a> {
    fn read(file: File<'a>, needed: &[&str]) -> Result<Table<'a>, InputError> {
        let place = |line| Place { file: file.name, line };
        let mut lines = file.text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let header =
            lines.next().ok_or_else(|| place(0).error("the file is empty", "give a CSV with a header line"))?;
        let columns: Vec<&str> = header.1.trim().split(',').collect();
        if let Some(absent) = needed.iter().find(|name| !columns.contains(name)) {
            let mend = format!("the header has to name {}", needed.join(", "));
            return Err(place(header.0 + 1).error(format!("there is no column {absent:?}"), mend));
        }
        let mut rows = Vec::new();
        for (at, line) in lines {
            let fields: Vec<&str> = line.trim_end().split(',').collect();
            if fields.len() != columns.len() {
                let what = format!("{} fields under {} columns", fields.len(), columns.len());
                return Err(place(at + 1).error(what, "give every line one field for each column"));
            }
            rows.push((at + 1, fields));
        }
        Ok(Table { file: file.name, columns, rows })
    }

    fn text(&self, row: &(usize, Vec<&'a str>), column: &str) -> &'a str {
        self.columns.iter().position(|name| *name == column).map_or("", |at| row.1[at])
    }

    fn number(&self, row: &(usize, Vec<&'a str>), column: &str, most: i64) -> Result<i64, InputError> {
        let text = self.text(row, column);
        let number = if text.is_empty() { Some(0) } else { text.parse().ok() };
        number.filter(|number| (0..=most).contains(number)).ok_or_else(|| {
            let place = Place { file: self.file, line: row.0 };
            place.error(format!("{column} is {text:?}"), format!("give a whole number from 0 to {most}"))
        })
    }
}

/// Reads nodes and a trace's pods. With [`Arrivals::InTime`] pods come and go at the trace's times; with [`Arrivals::Fill`] the published
/// protocol is followed: the trace's pods in the order of their names, shuffled by the seed, then drawn from the trace with replacement,
/// until their GPU demand is 130 % of capacity.
///
/// # Errors
/// What is wrong with the files, and where.
pub fn read(nodes: File<'_>, pods: File<'_>, arrivals: Arrivals, seed: u64) -> Result<Scenario, InputError> {
    let planned = read_nodes(nodes)?;
    let name = pods.name.to_owned();
    let mut from_trace = read_pods(pods, seed)?;
    let mut notes = vec![
        "what pods really use is assumed, by a load model for each pod: the trace does not say".to_owned(),
        "fragmentation counts with the demand of all pods that are played".to_owned(),
    ];
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

fn read_nodes(file: File<'_>) -> Result<Vec<PlannedNode>, InputError> {
    let table = Table::read(file, &["sn", "cpu_milli", "memory_mib", "gpu", "model"])?;
    let mut nodes = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        let name: Arc<str> = table.text(row, "sn").into();
        let gpus = table.number(row, "gpu", GPUS_MOST)?;
        let model: Arc<str> = table.text(row, "model").into();
        let mut allocatable: Vec<(Arc<str>, i64)> = vec![
            ("cpu".into(), table.number(row, "cpu_milli", i64::from(u32::MAX))?),
            ("memory".into(), table.number(row, "memory_mib", i64::from(u32::MAX))? << 20),
            (GPU.into(), gpus),
            ("pods".into(), PODS_A_NODE),
        ];
        allocatable.retain(|(_, amount)| *amount > 0);
        let mut labels = Labels::new();
        labels.insert(HOSTNAME.into(), name.clone());
        if !model.is_empty() {
            labels.insert(GPU_MODEL.into(), model.clone());
        }
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        let facts = Arc::new(NodeFacts { name, labels, scheduling, ..NodeFacts::default() });
        nodes.push(PlannedNode { facts, gpus: gpus as usize, gpu_model: model });
    }
    if nodes.is_empty() {
        return Err(Place { file: file.name, line: 0 }.error("there are no nodes", "add a line for each node"));
    }
    Ok(nodes)
}

fn read_pods(file: File<'_>, seed: u64) -> Result<Vec<PlannedPod>, InputError> {
    let table = Table::read(file, &["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"])?;
    let mut specs: BTreeMap<(i64, i64), Arc<SchedulingSpec>> = BTreeMap::new();
    let labels: Arc<Labels> = Arc::default();
    let mut pods = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        let name: Arc<str> = table.text(row, "name").into();
        let cpu = table.number(row, "cpu_milli", i64::from(u32::MAX))?;
        let memory = table.number(row, "memory_mib", i64::from(u32::MAX))? << 20;
        let count = table.number(row, "num_gpu", GPUS_MOST)? as u32;
        let milli = table.number(row, "gpu_milli", i64::from(WHOLE))? as u32;
        let models = table.text(row, "gpu_spec").split('|').filter(|model| !model.is_empty()).map(Arc::from).collect();
        let time = |column| table.number(row, column, i64::MAX / 4);
        let (created, scheduled, deleted) = (time("creation_time")?, time("scheduled_time")?, time("deletion_time")?);
        let begun = if scheduled > 0 { scheduled } else { created };
        let spec = specs.entry((cpu, memory)).or_insert_with(|| Arc::new(spec(cpu, memory)));
        pods.push(PlannedPod {
            namespace: "openb".into(),
            labels: labels.clone(),
            spec: spec.clone(),
            gpu: if count == 0 { GpuAsk::default() } else { GpuAsk { count, milli, models } },
            arrives_s: created,
            lasts_s: (deleted > begun).then(|| deleted - begun),
            usage: Usage::assumed(&name, &name, seed),
            is_at: "".into(),
            pinned: false,
            name,
        });
    }
    if pods.is_empty() {
        return Err(Place { file: file.name, line: 0 }.error("there are no pods", "add a line for each pod"));
    }
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pods)
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

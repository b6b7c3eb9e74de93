//! The published openb protocol: a trace's pods in the order of their names, shuffled by the seed, then drawn with replacement
//! until their GPU demand is 130 % of capacity; placed one at a time, none removed, one that does not fit is dropped.

use crate::placement::Options;
use crate::placement::workloads::Dice;
use crate::report::Report;
use placement::gpu::{Demand, Devices, Fleet, Running, Task, Weighing};
use sim::planner::openb::{self, File, NodeRow, PodRow};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Bits of GPU models.
#[derive(Default)]
struct Models(BTreeMap<String, u64>);

impl Models {
    fn bit(&mut self, name: &str) -> u64 {
        let next = 1 << self.0.len().min(63);
        *self.0.entry(name.to_owned()).or_insert(next)
    }
}

struct Outcome {
    at_100: f64,
    at_130: f64,
    seconds: f64,
    /// Running tasks that were moved.
    moves: usize,
}

pub fn run(options: &Options, report: &mut Report) -> Result<(), String> {
    for trace in options.traces()? {
        let mut models = Models::default();
        let path = options.openb.join("openb_node_list_gpu_node.csv");
        let text = text(&path)?;
        let rows = openb::node_rows(file(&path, &text)).map_err(|error| error.to_string())?;
        let device = |row: &NodeRow| {
            let model = models.bit(&row.model);
            Devices::new(row.cpu_milli, row.memory_mib, row.gpus as usize, model)
        };
        let nodes: Vec<Devices> = rows.iter().map(device).collect();
        let tasks = tasks(&options.openb.join(format!("{trace}.csv")), &mut models)?;
        let play = |moving| -> Vec<Outcome> {
            (42..42 + options.seeds).map(|seed| play(&nodes, &tasks, seed, moving)).collect()
        };
        let (online, moving) = (play(false), play(true));
        let mean = |outcomes: &[Outcome], of: fn(&Outcome) -> f64| {
            outcomes.iter().map(of).sum::<f64>() / outcomes.len().max(1) as f64
        };
        let name = if trace.starts_with("openb_pod_list_") {
            format!("openb_{}", trace.trim_start_matches("openb_pod_list_"))
        } else {
            format!("openb_{trace}")
        };
        report.add(&name, "gpu_alloc_pct_at_100", mean(&online, |o| o.at_100), "%");
        report.add(&name, "gpu_alloc_pct_at_130", mean(&online, |o| o.at_130), "%");
        report.add(&name, "run_s", mean(&online, |o| o.seconds), "s");
        report.add(&name, "rescheduled_gpu_alloc_pct_at_100", mean(&moving, |o| o.at_100), "%");
        report.add(&name, "rescheduled_gpu_alloc_pct_at_130", mean(&moving, |o| o.at_130), "%");
        report.add(&name, "rescheduled_moves", mean(&moving, |o| o.moves as f64), "moves");
        report.add(&name, "rescheduled_run_s", mean(&moving, |o| o.seconds), "s");
    }
    Ok(())
}

fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn file<'a>(path: &'a Path, text: &'a str) -> File<'a> {
    File { name: path.to_str().unwrap_or_default(), text }
}

/// A trace's tasks, in the order of their names.
fn tasks(path: &Path, models: &mut Models) -> Result<Vec<Task>, String> {
    let text = text(path)?;
    let (rows, notes) = openb::pod_rows(file(path, &text)).map_err(|error| error.to_string())?;
    notes.iter().for_each(|note| println!("{}: {note}", path.display()));
    if rows.iter().all(|row| row.gpus == 0) {
        return Err(format!("{}: no pod asks for GPUs, so their demand never fills the pool", path.display()));
    }
    let task = |row: &PodRow| Task {
        cpu: row.cpu_milli,
        memory: row.memory_mib,
        gpus: row.gpus,
        milli: row.gpu_milli,
        models: row.models.iter().map(|model| models.bit(model)).fold(0, |bits, bit| bits | bit),
    };
    Ok(rows.iter().map(task).collect())
}

/// `moving`: a task that fits nowhere may have one running task moved for it.
fn play(nodes: &[Devices], tasks: &[Task], seed: u64, moving: bool) -> Outcome {
    let started = Instant::now();
    let mut counts: BTreeMap<Task, u64> = BTreeMap::new();
    for task in tasks {
        *counts.entry(*task).or_default() += 1;
    }
    let mut fleet = Fleet::new(nodes.to_vec(), Demand::of(counts), Weighing::default());
    let mut dice = Dice::new(seed);
    let mut order: Vec<Task> = tasks.to_vec();
    for at in (1..order.len()).rev() {
        order.swap(at, dice.roll(at + 1));
    }
    let capacity: f64 = nodes.iter().map(|node| node.free_gpu() as f64).sum();
    let gpu = |task: &Task| f64::from(task.gpus * task.milli);
    let (mut arrived, mut allocated, mut at_100) = (0.0, 0.0, None);
    let (mut running, mut moves): (Vec<Running>, usize) = (Vec::new(), 0);
    let mut position = 0;
    while arrived < 1.3 * capacity {
        let task = if position < order.len() { order[position] } else { tasks[dice.roll(tasks.len())] };
        position += 1;
        arrived += gpu(&task);
        if let Some((node, on)) = fleet.place(&task) {
            allocated += gpu(&task);
            running.push(Running { task, node, on });
        } else if moving && let Some(moved) = fleet.place_by_moving(&task, &running) {
            let other = &mut running[moved.running];
            (other.node, other.on) = (moved.to, moved.on);
            allocated += gpu(&task);
            running.push(Running { task, node: moved.placed.0, on: moved.placed.1 });
            moves += 1;
        }
        if arrived >= capacity && at_100.is_none() {
            at_100 = Some(allocated);
        }
    }
    Outcome {
        at_100: at_100.unwrap_or(allocated) / capacity * 100.0,
        at_130: allocated / capacity * 100.0,
        seconds: started.elapsed().as_secs_f64(),
        moves,
    }
}

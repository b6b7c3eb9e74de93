//! `diolkos simulate`: plays a pool and its pods through under several policies; prints a table and writes a report.

mod chart;
mod report;
mod table;

use crate::cli::CommandError;
use clap::{Args, ValueEnum};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sim::planner::openb::{self, File};
use sim::planner::{Arrivals, Hot, Outcome, Policy, RunError, Scenario, dump, run as play, spec};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// No input file is larger than this.
const BYTES_MOST: u64 = 1 << 30;

/// What is to be played, and how.
#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// A specification (.toml), a Kubernetes dump (.json, of `kubectl get nodes,pods --all-namespaces -o json`), or a folder of openb CSVs.
    pub input: PathBuf,
    /// The pods' file in a folder of openb CSVs.
    #[arg(long, default_value = "openb_pod_list_default", value_name = "NAME")]
    pub trace: String,
    /// The nodes' file in a folder of openb CSVs.
    #[arg(long, default_value = "openb_node_list_gpu_node", value_name = "NAME")]
    pub nodes: String,
    /// How pods of an openb trace come: at the trace's times, or one after the other until demand is 130 % of the GPUs (as published).
    #[arg(long, value_enum, default_value_t = Coming::Fill)]
    pub arrivals: Coming,
    /// Policies to compare: as-is, spread, pack, load-aware, fragmentation [default: all that the input allows].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub policies: Vec<String>,
    /// Seed of all chance [default: the specification's, or 42].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Keep only so many per cent of the nodes: what if there were fewer?
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100), value_name = "PCT")]
    pub keep_nodes: u8,
    /// A node counts as hot above this use of its CPU, in per cent.
    #[arg(long, default_value_t = 65, value_name = "PCT")]
    pub hot_cpu: u32,
    /// A node counts as hot above this use of its memory, in per cent.
    #[arg(long, default_value_t = 95, value_name = "PCT")]
    pub hot_memory: u32,
    /// Where the report is written.
    #[arg(long, default_value = "simulate.html", value_name = "FILE")]
    pub report: PathBuf,
}

/// How pods of a trace come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Coming {
    /// At the trace's times.
    Time,
    /// One after the other.
    Fill,
}

/// A policy's outcome, and how long it took to play.
pub struct Played {
    outcome: Outcome,
    seconds: f64,
}

/// Runs the command.
///
/// # Errors
/// The input cannot be used, or the report cannot be written.
pub fn run(args: &SimulateArgs) -> Result<(), CommandError> {
    let mut scenario = read(args)?;
    scenario.keep_nodes(usize::from(args.keep_nodes));
    let policies = policies(args, &scenario)?;
    let hot = Hot { cpu_pct: i64::from(args.hot_cpu), memory_pct: i64::from(args.hot_memory) };
    println!("{}: {}, {} pods", scenario.name, scenario.capacity(), scenario.pods.len());
    for note in &scenario.notes {
        println!("  {note}");
    }
    let mut played = Vec::new();
    for outcome in play_all(&scenario, &policies, hot) {
        played.push(outcome.map_err(super::failed)?);
    }
    println!("\n{}", table::text(&scenario, &played));
    let page = report::page(&scenario, &played, hot);
    std::fs::write(&args.report, page).map_err(|error| {
        super::failed(format!("{}: {error}\n  mend: name another file with --report", args.report.display()))
    })?;
    println!("report: {}", args.report.display());
    Ok(())
}

fn policies(args: &SimulateArgs, scenario: &Scenario) -> Result<Vec<Policy>, CommandError> {
    if args.policies.is_empty() {
        for policy in Policy::ALL {
            if let Some(why) = scenario.refuses(policy).filter(|_| policy != Policy::AsIs) {
                eprintln!("not played: {}: {why}", policy.name());
            }
        }
        return Ok(scenario.policies());
    }
    let names = || Policy::ALL.map(Policy::name).join(", ");
    args.policies
        .iter()
        .map(|name| {
            let policy = Policy::of_name(name).ok_or_else(|| {
                CommandError::Usage(format!("there is no policy {name:?}\n  mend: choose among {}", names()))
            })?;
            match scenario.refuses(policy) {
                None => Ok(policy),
                Some(why) => {
                    Err(CommandError::Usage(format!("{name} cannot be played on this: {why}\n  mend: leave it out")))
                }
            }
        })
        .collect()
}

fn load(path: &Path) -> Result<String, CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::Usage(format!("{}: {error}\n  mend: give a file that is there and can be read", path.display()))
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > BYTES_MOST {
        let text =
            format!("{}: {} MiB\n  mend: give a file of at most {} MiB", path.display(), size >> 20, BYTES_MOST >> 20);
        return Err(CommandError::Usage(text));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        CommandError::Usage(format!("{}:{line}: this is no UTF-8\n  mend: give a text file", path.display()))
    })
}

fn read(args: &SimulateArgs) -> Result<Scenario, CommandError> {
    let usage = |error: sim::planner::InputError| CommandError::Usage(error.to_string());
    let name = args.input.display().to_string();
    if args.input.is_dir() {
        let file = |stem: &str| {
            let path = args.input.join(format!("{}.csv", stem.trim_end_matches(".csv")));
            load(&path).map(|text| (path.display().to_string(), text))
        };
        let (nodes, pods) = (file(&args.nodes)?, file(&args.trace)?);
        let arrivals = if args.arrivals == Coming::Time { Arrivals::InTime } else { Arrivals::Fill };
        let (nodes, pods) = (File { name: &nodes.0, text: &nodes.1 }, File { name: &pods.0, text: &pods.1 });
        let mut scenario = openb::read(nodes, pods, arrivals, args.seed.unwrap_or(42)).map_err(usage)?;
        scenario.name = args.trace.trim_end_matches(".csv").to_owned();
        return Ok(scenario);
    }
    let text = load(&args.input)?;
    let file = File { name: &name, text: &text };
    match args.input.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => spec::read(file, args.seed).map_err(usage),
        Some("json") => dump::read(file, args.seed.unwrap_or(42)).map_err(usage),
        _ => {
            let mend = "give a .toml specification, a .json dump, or a folder of openb CSVs";
            Err(CommandError::Usage(format!("{name}: what is this?\n  mend: {mend}")))
        }
    }
}

/// Plays all policies, as many at a time as there are cores; outcomes in the policies' order.
fn play_all(scenario: &Scenario, policies: &[Policy], hot: Hot) -> Vec<Result<Played, RunError>> {
    let bars = MultiProgress::new();
    let style = ProgressStyle::with_template("{msg:>14} [{bar:40}] {percent:>3} % {elapsed}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
    let bars: Vec<ProgressBar> = policies
        .iter()
        .map(|policy| bars.add(ProgressBar::new(100).with_style(style.clone()).with_message(policy.name())))
        .collect();
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new((0..policies.len()).map(|_| None).collect::<Vec<Option<Result<Played, RunError>>>>());
    let one = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (Some(policy), Some(bar)) = (policies.get(at), bars.get(at)) else { return };
            let begun = Instant::now();
            let outcome = play(scenario, *policy, hot, &mut |done, of| {
                bar.set_length(of.max(1));
                bar.set_position(done);
            });
            bar.finish();
            let seconds = begun.elapsed().as_secs_f64();
            let mut outcomes = outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            outcomes[at] = Some(outcome.map(|outcome| Played { outcome, seconds }));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(policies.len()) {
            scope.spawn(one);
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.into_iter().flatten().collect()
}

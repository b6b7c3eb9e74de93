//! The placement engine on one core: the shapes of kube-scheduler's scheduler_perf and larger ones, and the published openb
//! protocol. A pod's time runs from its arrival in the pool to its being assumed on a node (or refused and explained).

mod openb;
mod scenarios;
mod through_api;
mod workloads;

use crate::report::Report;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub struct Options {
    /// Only this one; `openb` stands for every trace.
    #[arg(long)]
    scenario: Option<String>,
    /// Directory of the openb CSVs.
    #[arg(long, default_value = "../shared/data/openb")]
    openb: PathBuf,
    /// Only this trace (`openb_pod_list_default`).
    #[arg(long)]
    trace: Option<String>,
    /// The binary, for what goes through the API.
    #[arg(long, env = "DIOLKOS_BIN")]
    binary: Option<PathBuf>,
    /// How many seeds of each trace, from 42 on.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
}

pub fn run(options: &Options) -> Result<(), String> {
    let mut report = Report::new("placement");
    let wanted = |name: &str| options.trace.is_none() && options.scenario.as_deref().is_none_or(|only| only == name);
    for (name, run) in scenarios::ALL {
        if wanted(name) {
            run(name, &mut report)?;
        }
    }
    for (name, nodes, pods, apart) in through_api::ALL {
        if wanted(name) {
            through_api::run(name, nodes, pods, apart, options, &mut report)?;
        }
    }
    if options.trace.is_some() || options.scenario.as_deref().is_none_or(|only| only.starts_with("openb")) {
        openb::run(options, &mut report)?;
    }
    report.write()
}

impl Options {
    /// Traces to run: file stems.
    fn traces(&self) -> Result<Vec<String>, String> {
        if let Some(trace) = &self.trace {
            // A file's name with or without its ending, or what comes after the prefix.
            let name = trace.trim_end_matches(".csv");
            let prefixed = format!("openb_pod_list_{name}");
            let full = self.openb.join(format!("{prefixed}.csv")).is_file();
            return Ok(vec![if full { prefixed } else { name.to_owned() }]);
        }
        let entries = match std::fs::read_dir(&self.openb) {
            Ok(entries) => entries,
            Err(error) => {
                println!("SKIPPED openb: {}: {error}", self.openb.display());
                return Ok(Vec::new());
            }
        };
        let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let mut traces: Vec<String> = entries.filter_map(|entry| stem(entry.ok()?.path())).collect();
        traces.retain(|name| name.starts_with("openb_pod_list_"));
        if let Some(only) = self.scenario.as_deref().filter(|only| *only != "openb") {
            let only = only.trim_start_matches("openb_pod_list_").trim_start_matches("openb_");
            traces.retain(|name| name.trim_start_matches("openb_pod_list_") == only);
        }
        traces.sort();
        Ok(traces)
    }
}

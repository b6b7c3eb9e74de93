//! Plays storms: `storm --seeds 10000`, or one again: `storm --seed 17`. Ends with 1 when a promise was broken.

use diolkos_sim::audit::Checked;
use diolkos_sim::storm;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// No more failures than these are printed.
const FAILURES_MAX: usize = 20;

struct Options {
    from: u64,
    seeds: u64,
    threads: usize,
}

fn options() -> Result<Options, String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut options = Options { from: 1, seeds: 10_000, threads: cores };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let text = arguments.next().unwrap_or_default();
        let number: u64 = text.parse().map_err(|_| format!("{name} {text:?}: a whole number is wanted"))?;
        match name.as_str() {
            "--seed" => (options.from, options.seeds) = (number, 1),
            "--from" => options.from = number,
            "--seeds" => options.seeds = number,
            "--threads" => options.threads = number.clamp(1, 1024) as usize,
            _ => return Err(format!("there is no {name}; there are --seed N, --from N, --seeds N, --threads N")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("storm: {error}");
            return ExitCode::FAILURE;
        }
    };
    let begun = Instant::now();
    let next = AtomicU64::new(options.from);
    let found: Mutex<(Checked, Vec<storm::Failure>)> = Mutex::default();
    let one = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= options.from + options.seeds {
                return;
            }
            let outcome = storm::check(seed);
            let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match outcome {
                Ok(report) => found.0.add(&report.checked),
                Err(failure) => found.1.push(failure),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(one);
        }
    });
    let (checked, mut failures) = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failures.sort_by_key(|failure| failure.seed);
    for failure in failures.iter().take(FAILURES_MAX) {
        println!("{failure}");
    }
    println!("{checked:?}");
    let (seeds, failed, seconds) = (options.seeds, failures.len(), begun.elapsed().as_secs_f64());
    println!("{seeds} seeds, each twice: {failed} failed, {seconds:.1} s on {} threads", options.threads);
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

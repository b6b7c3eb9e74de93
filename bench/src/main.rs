//! Benches: each prints a table and writes target/bench/NAME.json, an array of {"scenario","metric","value","unit"}.

mod api;
mod placement;
mod report;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask bench", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// The API server: durable creates/s, list of many pods, resident bytes a pod.
    Api(api::Options),
    /// The placement engine, on one core.
    Placement(placement::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().bench {
        Bench::Api(options) => api::run(&options),
        Bench::Placement(options) => placement::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

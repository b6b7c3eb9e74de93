//! Build tasks: set up, test, bench, demo. `make` is a thin face over this.

mod bench;
mod demo;
mod floors;
mod packages;
mod paths;
mod sh;
mod test;
mod tools;
mod web;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what Debian or Ubuntu has to provide (asks for root when it is not), and fetch kubectl and Helm.
    Setup,
    /// Build the dashboard into web/dist.
    Web,
    /// Build everything that the platform needs, optimised.
    Build,
    /// All checks and tests.
    Test {
        /// Only the part of this name: format, lint, floors, licences, web, unit, e2e.
        #[arg(long)]
        only: Option<String>,
    },
    /// Start the platform and leave it running.
    Up,
    /// Start the platform, run the bookstore through every part of it, print the table.
    Demo(demo::Options),
    /// Measure; prints a table and writes target/bench/NAME.json.
    Bench {
        /// api, mesh, placement, proxy.
        name: String,
        /// Handed on to the bench.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Play storms in the simulator, each seed twice, all checkers on: `--seeds 10000`, or one again: `--seed 17`.
    Sim {
        /// Handed on: --seeds N, --from N, --seed N, --threads N.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Check that arrows between crates only point down.
    Floors,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup => packages::install().and_then(|()| tools::fetch().map(drop)),
        Task::Web => web::build(),
        Task::Build => demo::build().map(drop),
        Task::Test { only } => test::run(only.as_deref()),
        Task::Up => demo::up(),
        Task::Demo(options) => demo::run(&options),
        Task::Bench { name, arguments } => bench::run(&name, &arguments),
        Task::Sim { arguments } => bench::storms(&arguments),
        Task::Floors => floors::check(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

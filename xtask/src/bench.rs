//! Benches run in a program of their own, optimised, so that nobody builds the engines who only wants to test.

use crate::paths;
use crate::sh::{self, Result};
use crate::tools;
use std::process::Command;

/// Builds what is measured and what measures, and runs it.
pub fn run(name: &str, arguments: &[String]) -> Result<()> {
    let target = paths::target();
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "bench"]).current_dir(paths::root());
    if name != "placement" {
        // The engine is measured by itself; the others start the platform.
        build.args(["--package", "diolkos"]);
    }
    sh::run(&mut build)?;
    let mut bench = Command::new(target.join("release/bench"));
    bench.arg(name).args(arguments).current_dir(paths::root());
    bench.env("DIOLKOS_BIN", target.join("release/diolkos")).env("CARGO_TARGET_DIR", &target);
    if name == "proxy" {
        bench.env("ENVOY", tools::envoy()?);
    }
    sh::run(&mut bench)
}

/// Plays the simulator's storms, optimised.
pub fn storms(arguments: &[String]) -> Result<()> {
    let mut build = Command::new("cargo");
    build.args(["run", "--release", "--quiet", "--package", "diolkos-sim", "--bin", "storm", "--"]);
    sh::run(build.args(arguments).current_dir(paths::root()))
}

//! `make test`: everything that must hold, cheapest first.

use crate::sh::{self, Result};
use crate::{floors, packages, paths, tools, web};
use std::process::Command;
use std::time::Instant;

type Part = (&'static str, fn() -> Result<()>);

const PARTS: &[Part] = &[
    ("format", format),
    ("floors", floors::check),
    ("licences", licences),
    ("web", web_part),
    ("lint", lint),
    ("unit", unit),
    ("e2e", end_to_end),
];

/// Runs all parts, or the one that is named.
pub fn run(only: Option<&str>) -> Result<()> {
    if let Some(name) = only
        && !PARTS.iter().any(|(part, _)| *part == name)
    {
        let names: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
        return Err(format!("there is no part {name:?}; there are {}", names.join(", ")));
    }
    if sh::is_root() && only.is_none() {
        packages::install()?;
    }
    let begun = Instant::now();
    let mut times = Vec::new();
    for (name, part) in PARTS.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        println!("\n== {name}");
        let begun = Instant::now();
        part()?;
        times.push(format!("{name} {} s", begun.elapsed().as_secs()));
    }
    println!("\nall passed in {} s: {}", begun.elapsed().as_secs(), times.join(", "));
    Ok(())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(paths::root());
    command
}

fn format() -> Result<()> {
    sh::run(&mut cargo(&["fmt", "--all", "--check"]))
}

fn lint() -> Result<()> {
    sh::run(&mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// cargo-deny without its advisory database, which is nowhere a machine with only package registries could fetch it from.
fn licences() -> Result<()> {
    if !sh::on_path("cargo-deny") {
        println!("SKIPPED licences: cargo-deny is not installed (cargo install --locked cargo-deny)");
        return Ok(());
    }
    sh::run(&mut cargo(&["deny", "--all-features", "check", "licenses", "bans", "sources"]))
}

fn web_part() -> Result<()> {
    if !sh::on_path("npm") {
        println!("SKIPPED web: npm is not installed (apt-get install npm)");
        return Ok(());
    }
    web::build()
}

fn unit() -> Result<()> {
    sh::run(&mut cargo(&["test", "--quiet", "--workspace", "--exclude", "e2e"]))
}

/// The real kubectl, Helm and Python client against the platform and real containers.
fn end_to_end() -> Result<()> {
    let tools = match tools::fetch() {
        Ok(tools) => tools,
        Err(error) => {
            println!("SKIPPED e2e: kubectl, Helm and the Python client cannot be fetched: {error}");
            return Ok(());
        }
    };
    sh::run(&mut cargo(&["build", "--quiet", "--package", "diolkos", "--package", "bookstore"]))?;
    let target = paths::target().join("debug");
    let mut command = cargo(&["test", "--package", "e2e", "--", "--test-threads=1", "--nocapture"]);
    command.env("DIOLKOS_BIN", target.join("diolkos"));
    command.env("BOOKSTORE_BIN", crate::demo::static_bookstore()?);
    // Who has neither sees it said by name.
    match tools::envoy() {
        Ok(envoy) => drop(command.env("ENVOY", envoy)),
        Err(error) => println!("no Envoy: {error}"),
    }
    if let Err(error) = tools::grpc(&tools.python) {
        println!("no grpcio: {error}");
    }
    if let Err(error) = tools::skywalking(&tools.python) {
        println!("no SkyWalking agent: {error}");
    }
    if let Err(error) = tools::spiffe(&tools.python) {
        println!("no SPIFFE client: {error}");
    }
    command.env("KUBECTL", tools.kubectl).env("HELM", tools.helm).env("PYTHON", tools.python);
    sh::run(&mut command)
}

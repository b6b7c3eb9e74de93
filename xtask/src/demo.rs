//! `make demo`: the platform, the bookstore, and a table of what happened to every request.

mod load;
mod platform;
mod scene;
mod table;

use crate::sh::{self, Result};
use crate::{packages, paths, tools, web};
use clap::Args;
use platform::Platform;
use std::path::PathBuf;
use std::process::Command;

/// How the demo runs.
#[derive(Args)]
pub struct Options {
    /// Requests a second through the gateway.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Data directory of the platform; it is emptied first.
    #[arg(long, default_value = "/var/lib/diolkos-demo")]
    data_dir: PathBuf,
    /// Leave the platform running at the end.
    #[arg(long)]
    keep: bool,
    /// Use the unoptimised build.
    #[arg(long)]
    debug: bool,
    /// Everything is built and fetched already (how this program calls itself through sudo).
    #[arg(long, hide = true)]
    prebuilt: bool,
}

/// What the build makes.
pub struct Built {
    pub diolkos: PathBuf,
    pub bookstore: PathBuf,
}

/// Builds the dashboard, the platform and the bookstore, optimised.
pub fn build() -> Result<Built> {
    build_profile(false)
}

fn build_profile(debug: bool) -> Result<Built> {
    web::build()?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--package", "diolkos"]).current_dir(paths::root());
    if !debug {
        cargo.arg("--release");
    }
    sh::run(&mut cargo)?;
    let profile = if debug { "debug" } else { "release" };
    Ok(Built { diolkos: paths::target().join(profile).join("diolkos"), bookstore: static_bookstore()? })
}

/// The bookstore as one static binary, which is all that its image holds.
pub fn static_bookstore() -> Result<PathBuf> {
    // A target of its own keeps these flags from touching build scripts, and the rest of the workspace from being rebuilt.
    let triple = host_triple()?;
    let dir = paths::target().join("static");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--package", "bookstore", "--target", &triple]).current_dir(paths::root());
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols").env("CARGO_TARGET_DIR", &dir);
    sh::run(&mut cargo)?;
    Ok(bookstore_path(&triple))
}

fn bookstore_path(triple: &str) -> PathBuf {
    paths::target().join("static").join(triple).join("release/bookstore")
}

fn host_triple() -> Result<String> {
    let text = sh::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not say its host".into())
}

/// Runs the whole demo. Building needs no root; containers, network namespaces and nftables do.
pub fn run(options: &Options) -> Result<()> {
    packages::install()?;
    let tools = tools::fetch()?;
    let built = if options.prebuilt { built(options.debug)? } else { build_profile(options.debug)? };
    if !sh::is_root() {
        return again_as_root(&["demo", "--prebuilt"], options.keep, options.debug);
    }
    let mut platform = Platform::start(&built, &tools, &options.data_dir)?;
    let outcome = scene::play(&mut platform, &built, options.rate);
    if options.keep && outcome.is_ok() {
        platform.print_how_to_sign_in()?;
        println!("The platform stays up (--keep). Stop it with: kill -INT {}", platform.leave());
    } else {
        platform.stop()?;
    }
    let report = outcome?;
    table::print(&report);
    report.verdict()
}

/// Where the build's results are, without building.
fn built(debug: bool) -> Result<Built> {
    let diolkos = paths::target().join(if debug { "debug" } else { "release" }).join("diolkos");
    Ok(Built { diolkos, bookstore: bookstore_path(&host_triple()?) })
}

fn again_as_root(arguments: &[&str], keep: bool, debug: bool) -> Result<()> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let kept = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok().map(|value| format!("{name}={value}")));
    let mut sudo = Command::new("sudo");
    sudo.arg("env").args(kept).arg(format!("CARGO_TARGET_DIR={}", paths::target().display())).arg(this).args(arguments);
    sudo.args(keep.then_some("--keep")).args(debug.then_some("--debug"));
    sh::run(&mut sudo)
}

/// Starts the platform and hands the terminal to it.
pub fn up() -> Result<()> {
    let built = build()?;
    let mut command = Command::new(if sh::is_root() { "env" } else { "sudo" });
    sh::run(command.arg(built.diolkos).arg("up"))
}

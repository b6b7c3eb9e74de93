//! Benches: each prints a table and writes target/bench/NAME.json, an array of {"scenario","metric","value","unit"}.

mod api;
mod mesh;
mod placement;
mod proxy;
mod proxy_process;
mod report;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// As the binary has it: the proxy under test is the binary's proxy.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Mesh control with many proxies, and one proxy with many routes, without sockets.
    Mesh(mesh::Options),
    /// The placement engine, on one core.
    Placement(placement::Options),
    /// The proxy beside nginx and Envoy: CPU for each request, requests/s, latency.
    Proxy(proxy::Options),
    /// The client of `proxy`.
    #[command(hide = true)]
    Load(proxy::load::Options),
    /// The proxy of `proxy`.
    #[command(hide = true)]
    ProxyUnderTest(proxy::ours::Options),
    /// The proxy of `mesh`: takes responses on its standard input.
    #[command(hide = true)]
    ProxyWithRoutes,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().bench {
        Bench::Api(options) => api::run(&options),
        Bench::Mesh(options) => mesh::run(&options),
        Bench::Placement(options) => placement::run(&options),
        Bench::Proxy(options) => proxy::run(&options),
        Bench::Load(options) => proxy::load::run(&options),
        Bench::ProxyUnderTest(options) => proxy::ours::run(&options),
        Bench::ProxyWithRoutes => proxy_process::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

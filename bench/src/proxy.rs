//! The proxy beside nginx, HAProxy and Envoy: CPU for each request or connection, requests a second, latency, memory, in one run and
//! interleaved. Proxy and backend share core 0, the client has core 1.
//!
//! Every proxy is a reverse proxy with one worker and an access log that is off, with the buffers that it has by itself. What buffers are
//! worth is seen beside an nginx that has larger ones (`ratio_tuned`). Diolkos counts by workload and decides
//! routes and policy (a hundred rules) all the same; that is not turned off for a bench.

mod certs;
pub mod load;
pub mod net;
pub mod ours;
mod peers;

use crate::report::Report;
use clap::Args;
use load::{Load, Mode};
use ours::OTHER;
use peers::{Peer, Ports, TUNED};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::time::Duration;

/// Any buffer holds so much.
const SMALL: usize = 4 * 1024;

/// Turns of a proxy in a second when latency is measured.
const TURNS_A_SECOND: u64 = 10;

#[derive(Args)]
pub struct Options {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Measurements of each proxy in each scenario, in turns. The middle one counts: on a shared machine a second may cost half as much again
    /// as the one before.
    #[arg(long, default_value_t = 12)]
    rounds: u32,
    /// Another build of this bench, whose proxy runs as well (`other`): which of two builds is cheaper only one run can tell.
    #[arg(long)]
    beside: Option<PathBuf>,
    /// How long the proxy looks for more to do before it sleeps, in microseconds (`proxy-poll-us`); not that of `--beside`.
    #[arg(long)]
    poll_us: Option<u64>,
    /// Only these scenarios.
    #[arg(long)]
    scenario: Vec<String>,
    /// Connections that are held to see what one costs while it waits.
    #[arg(long, default_value_t = 4_000)]
    idle_connections: usize,
}

/// What the client does, and on which of a proxy's ports.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    mode: Mode,
    bytes: usize,
    port: fn(&Ports) -> Option<u16>,
}

const SCENARIOS: [Scenario; 9] = [
    Scenario { name: "h1_plain", mode: Mode::H1, bytes: 100, port: |it| Some(it.http) },
    Scenario { name: "h1_64k", mode: Mode::H1, bytes: 64 * 1024, port: |it| Some(it.http) },
    Scenario { name: "mtls", mode: Mode::Mtls, bytes: 100, port: |it| it.mtls },
    Scenario { name: "mtls_64k", mode: Mode::Mtls, bytes: 64 * 1024, port: |it| it.mtls },
    Scenario { name: "h2", mode: Mode::H2, bytes: 100, port: |it| it.http2 },
    Scenario { name: "new_mtls_full", mode: Mode::NewFull, bytes: 100, port: |it| it.mtls },
    Scenario { name: "new_mtls_resumed", mode: Mode::NewResumed, bytes: 100, port: |it| it.mtls },
    Scenario { name: "tcp_100", mode: Mode::H1, bytes: 100, port: |it| it.tcp },
    Scenario { name: "tcp_64k", mode: Mode::H1, bytes: 64 * 1024, port: |it| it.tcp },
];

/// Connections that wait.
struct Idle {
    name: &'static str,
    mode: Mode,
    port: fn(&Ports) -> Option<u16>,
}

const IDLE: [Idle; 2] = [
    Idle { name: "connection", mode: Mode::Idle, port: |it| Some(it.http) },
    Idle { name: "mtls_connection", mode: Mode::IdleMtls, port: |it| it.mtls },
];

/// What the rounds found, each in the order of the rounds.
#[derive(Default)]
struct Rounds {
    cpu_us: Vec<f64>,
    rps: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
}

pub fn run(options: &Options) -> Result<(), String> {
    let mut report = Report::new("proxy");
    let wanted = |name: &str| options.scenario.is_empty() || options.scenario.iter().any(|only| only == name);
    let work = net::Scratch::new()?;
    certs::write(&work)?;
    let mut bench = Bench { options, backend: peers::backend(&work, None)?, proxies: Vec::new(), tuned: None, work };
    if wanted("idle") {
        for kind in IDLE {
            bench.proxies = proxies(&bench.work, options)?;
            bench.idle(&kind, &mut report)?;
            // Ended before others take their ports.
            bench.proxies.clear();
        }
    }
    bench.proxies = proxies(&bench.work, options)?;
    bench.tuned = peers::nginx_tuned(&bench.work).ok();
    for scenario in SCENARIOS.iter().filter(|scenario| wanted(scenario.name)) {
        bench.compare(scenario, &mut report)?;
    }
    if wanted("latency") {
        bench.latency(&mut report)?;
    }
    if wanted("pod_to_pod") {
        match net::missing() {
            Some(why) => println!("SKIPPED pod_to_pod: {why}"),
            None => bench.pod_to_pod(&mut report)?,
        }
    }
    report.write()
}

fn proxies(work: &net::Scratch, options: &Options) -> Result<Vec<Peer>, String> {
    let mut proxies = vec![ours::start(work, options.poll_us)?];
    if let Some(other) = &options.beside {
        proxies.push(ours::start_other(work, other)?);
    }
    for (name, started) in
        [("nginx", peers::nginx(work)), ("haproxy", peers::haproxy(work)), ("envoy", peers::envoy(work))]
    {
        match started {
            Ok(peer) => proxies.push(peer),
            Err(why) => println!("SKIPPED {name}: {why}"),
        }
    }
    Ok(proxies)
}

/// One run: everything listens until it ends.
struct Bench<'a> {
    options: &'a Options,
    backend: Peer,
    proxies: Vec<Peer>,
    /// For large answers only.
    tuned: Option<Peer>,
    work: net::Scratch,
}

impl Bench<'_> {
    fn load(&self, port: u16, mode: Mode, bytes: usize) -> Load<'_> {
        Load {
            netns: None,
            address: format!("127.0.0.1:{port}"),
            path: format!("/{bytes}"),
            mode,
            certs: self.work.path(),
        }
    }

    fn compare(&self, scenario: &Scenario, report: &mut Report) -> Result<(), String> {
        let mut found: BTreeMap<&str, Rounds> = BTreeMap::new();
        for round in 0..=self.options.rounds {
            for proxy in self.proxies.iter().chain(self.tuned.as_ref().filter(|_| scenario.bytes > SMALL)) {
                let Some(port) = (scenario.port)(&proxy.ports) else { continue };
                let load = self.load(port, scenario.mode, scenario.bytes);
                // The first round warms up.
                let seconds = if round == 0 { 1 } else { self.options.seconds };
                let taken = measure(&load, &[proxy], scenario.name, seconds)?;
                if round > 0 {
                    found.entry(proxy.name).or_default().add(&taken);
                }
            }
        }
        tell(report, scenario.name, found);
        Ok(())
    }

    /// The same rate for all: half of what the slowest answers. What a proxy adds is seen against the backend alone. Turns are short, for
    /// the kernel's own threads take a core for some milliseconds about once a second: with turns of a second the middle one's p99 is theirs.
    /// And they come in another order each time: a round of all takes about as long, and one place in it would bear what those threads do.
    fn latency(&self, report: &mut Report) -> Result<(), String> {
        let load = |peer: &Peer| self.load(peer.ports.http, Mode::H1, 100);
        let mut rate = f64::MAX;
        for proxy in &self.proxies {
            let found = load(proxy).run(Duration::from_secs(2), None)?;
            rate = rate.min(found.requests as f64 / found.seconds / 2.0);
        }
        report.add("latency", "rate", rate, "1/s");
        let mut found_by: BTreeMap<&str, Rounds> = BTreeMap::new();
        let fixed = BuildHasherDefault::<DefaultHasher>::default();
        let mut order: Vec<&Peer> = std::iter::once(&self.backend).chain(&self.proxies).collect();
        for turn in 0..u64::from(self.options.rounds) * self.options.seconds * TURNS_A_SECOND {
            order.sort_by_cached_key(|peer| fixed.hash_one((turn, peer.name)));
            for peer in &order {
                let before = net::cpu_us(peer.pid());
                let load = load(peer).run(Duration::from_millis(1000 / TURNS_A_SECOND), Some(rate))?;
                let cpu_us = net::cpu_us(peer.pid()) - before;
                found_by.entry(peer.name).or_default().add(&Taken { load, cpu_us });
            }
        }
        let direct = found_by.remove(self.backend.name).unwrap_or_default();
        let (p50, p99) = (median(direct.p50_us), median(direct.p99_us));
        report.add("latency", "p50_us_direct", p50, "us");
        report.add("latency", "p99_us_direct", p99, "us");
        let mut added = BTreeMap::new();
        for (name, of) in found_by {
            let tail = median(of.p99_us) - p99;
            report.add("latency", &format!("p50_added_us_{name}"), median(of.p50_us) - p50, "us");
            report.add("latency", &format!("p99_added_us_{name}"), tail, "us");
            // What the latency is paid with: a proxy that looks for more before it sleeps uses the processor meanwhile.
            report.add("latency", &format!("cpu_us_{name}"), median(of.cpu_us), "us/request");
            added.insert(name, tail);
        }
        let peers = added.iter().filter(|(name, _)| !["self", OTHER].contains(name));
        if let (Some(own), Some(best)) = (added.get("self"), peers.map(|(_, p99)| *p99).reduce(f64::min)) {
            // A difference, for what is added to a p99 that the machine's own pauses make may be nothing, or less.
            report.add("latency", "p99_below_best", best - own, "us");
        }
        Ok(())
    }

    /// Memory of a process that nobody has asked anything yet, and what a connection adds that waits. Of processes that held no others before: an
    /// allocator may have kept what those took, or have given it back.
    fn idle(&self, kind: &Idle, report: &mut Report) -> Result<(), String> {
        let count = self.options.idle_connections;
        for proxy in &self.proxies {
            let begun = net::resident_bytes(proxy.pid());
            if kind.mode == Mode::Idle {
                report.add("idle", &format!("process_mb_{}", proxy.name), begun / 1e6, "MB");
            }
            let Some(port) = (kind.port)(&proxy.ports) else { continue };
            let load = self.load(port, kind.mode, 100);
            // The first few fill pools and caches that do not grow with the rest.
            drop(load.hold(100)?);
            std::thread::sleep(Duration::from_millis(300));
            let before = net::resident_bytes(proxy.pid());
            let held = load.hold(count)?;
            std::thread::sleep(Duration::from_millis(500));
            let cost = (net::resident_bytes(proxy.pid()) - before) / count as f64;
            report.add("idle", &format!("{}_bytes_{}", kind.name, proxy.name), cost, "bytes");
            drop(held);
        }
        Ok(())
    }

    /// From pod to pod through the capture and the tunnel of one node's proxy, which does both ends' work; beside it one plain
    /// Envoy, which does one.
    fn pod_to_pod(&self, report: &mut Report) -> Result<(), String> {
        let pods = net::Pods::new()?;
        let _backend = peers::backend(&self.work, Some(&pods.server))?;
        let own = ours::start_for_pods(&self.work, &pods, self.options.poll_us)?;
        let through = Load {
            netns: Some(&pods.client),
            address: format!("{}:{}", ours::VIP, own.ports.http),
            ..self.load(own.ports.http, Mode::H1, 100)
        };
        let envoy = self.proxies.iter().find(|proxy| proxy.name == "envoy");
        let mut found: BTreeMap<&str, Rounds> = BTreeMap::new();
        for round in 0..=self.options.rounds {
            let seconds = if round == 0 { 1 } else { self.options.seconds };
            let mut taken = vec![("self", measure(&through, &[&own], "pod_to_pod", seconds)?)];
            if let Some(envoy) = envoy {
                let load = self.load(envoy.ports.http, Mode::H1, 100);
                taken.push(("envoy", measure(&load, &[envoy], "pod_to_pod", seconds)?));
            }
            for (name, taken) in taken.iter().filter(|_| round > 0) {
                found.entry(name).or_default().add(taken);
            }
        }
        tell(report, "pod_to_pod", found);
        Ok(())
    }
}

/// The middle one: another process that takes the core for a while spoils a round, not the figure.
fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}

struct Taken {
    load: load::Result,
    cpu_us: f64,
}

fn measure(load: &Load<'_>, proxies: &[&Peer], scenario: &str, seconds: u64) -> Result<Taken, String> {
    let cpu = || proxies.iter().map(|proxy| net::cpu_us(proxy.pid())).sum::<f64>();
    let before = cpu();
    let found = load.run(Duration::from_secs(seconds), None)?;
    let cpu_us = cpu() - before;
    std::thread::sleep(Duration::from_millis(100));
    let names: Vec<&str> = proxies.iter().map(|proxy| proxy.name).collect();
    if found.errors > 0 || found.requests == 0 {
        return Err(format!("{scenario}, {names:?}: {} of {} requests failed", found.errors, found.requests));
    }
    // Each maker's first handshake cannot be resumed.
    if load.mode == Mode::NewResumed && found.resumed * 10 < found.requests * 9 {
        return Err(format!("{scenario}, {names:?}: {} of {} handshakes were resumed", found.resumed, found.requests));
    }
    Ok(Taken { load: found, cpu_us })
}

impl Rounds {
    fn add(&mut self, taken: &Taken) {
        let requests = taken.load.requests as f64;
        self.cpu_us.push(taken.cpu_us / requests);
        self.rps.push(requests / taken.load.seconds);
        self.p50_us.push(taken.load.p50_us as f64);
        self.p99_us.push(taken.load.p99_us as f64);
    }
}

fn tell(report: &mut Report, scenario: &str, found: BTreeMap<&str, Rounds>) {
    let mut costs = BTreeMap::new();
    for (name, rounds) in found {
        let cost = median(rounds.cpu_us);
        report.add(scenario, &format!("cpu_us_{name}"), cost, "us/request");
        report.add(scenario, &format!("rps_{name}"), median(rounds.rps), "1/s");
        report.add(scenario, &format!("p50_us_{name}"), median(rounds.p50_us), "us");
        report.add(scenario, &format!("p99_us_{name}"), median(rounds.p99_us), "us");
        costs.insert(name, cost);
    }
    let Some(own) = costs.get("self") else { return };
    if let Some(other) = costs.get(OTHER) {
        report.add(scenario, "ratio_other", own / other, "self/other");
    }
    if let Some(tuned) = costs.get(TUNED) {
        report.add(scenario, "ratio_tuned", own / tuned, "self/nginx_tuned");
    }
    let peers = costs.iter().filter(|(name, _)| !["self", OTHER, TUNED].contains(name));
    if let Some(best) = peers.map(|(_, cost)| *cost).reduce(f64::min) {
        report.add(scenario, "ratio_best", own / best, "self/cheapest");
    }
}

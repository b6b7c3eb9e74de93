//! The proxy beside nginx and Envoy: CPU for each request, requests a second, latency, in one run and interleaved. Proxy and
//! backend share core 0, the client has core 1.
//!
//! Every proxy is a reverse proxy with one worker and an access log that is off. Diolkos counts by workload and decides
//! routes and policy all the same; that is not turned off for a bench.

pub mod load;
mod net;
pub mod ours;
mod peers;

use crate::report::Report;
use clap::Args;
use peers::Peer;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Args)]
pub struct Options {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Measurements of each proxy in each scenario.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only this scenario.
    #[arg(long)]
    scenario: Option<String>,
}

/// What the client does.
#[derive(Clone, Copy)]
pub struct Scenario {
    name: &'static str,
    bytes: usize,
    http2: bool,
}

const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "h1_plain", bytes: 100, http2: false },
    Scenario { name: "h1_64k", bytes: 64 * 1024, http2: false },
    Scenario { name: "h2", bytes: 100, http2: true },
];

/// Sums over rounds.
#[derive(Default)]
struct Sum {
    requests: f64,
    seconds: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    errors: f64,
    rounds: f64,
}

pub fn run(options: &Options) -> Result<(), String> {
    let mut report = Report::new("proxy");
    let wanted = |name: &str| options.scenario.as_deref().is_none_or(|only| only == name);
    for scenario in SCENARIOS.iter().filter(|scenario| wanted(scenario.name)) {
        compare(options, scenario, &mut report)?;
    }
    if wanted("pod_to_pod") {
        match net::missing() {
            Some(why) => println!("SKIPPED pod_to_pod: {why}"),
            None => pod_to_pod(options, &mut report)?,
        }
    }
    report.write()
}

fn compare(options: &Options, scenario: &Scenario, report: &mut Report) -> Result<(), String> {
    let work = net::Scratch::new()?;
    let backend = peers::backend(&work, None)?;
    let mut proxies = vec![ours::start(&work)?];
    proxies.push(peers::nginx(&work, scenario.http2)?);
    match peers::envoy(&work) {
        Ok(envoy) => proxies.push(envoy),
        Err(why) => println!("SKIPPED envoy in {}: {why}", scenario.name),
    }
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for round in 0..=options.rounds {
        for proxy in &proxies {
            // The first round warms up.
            let seconds = if round == 0 { 1 } else { options.seconds };
            let taken = measure(None, &[proxy], proxy.port, scenario, seconds)?;
            if round > 0 {
                sums.entry(proxy.name).or_default().add(&taken);
            }
        }
    }
    drop(backend);
    tell(report, scenario.name, &sums);
    Ok(())
}

/// From pod to pod through the capture and the tunnel of one node's proxy, which does both ends' work.
fn pod_to_pod(options: &Options, report: &mut Report) -> Result<(), String> {
    let work = net::Scratch::new()?;
    let pods = net::Pods::new()?;
    let _backend = peers::backend(&work, Some(&pods.server))?;
    let proxy = ours::start_for_pods(&work, &pods)?;
    let scenario = Scenario { name: "pod_to_pod", bytes: 100, http2: false };
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for round in 0..=options.rounds {
        let seconds = if round == 0 { 1 } else { options.seconds };
        let taken = measure(Some(&pods.client), &[&proxy], proxy.port, &scenario, seconds)?;
        if round > 0 {
            sums.entry(proxy.name).or_default().add(&taken);
        }
    }
    tell(report, scenario.name, &sums);
    Ok(())
}

struct Taken {
    load: load::Result,
    cpu_us: f64,
}

fn measure(
    netns: Option<&str>,
    proxies: &[&Peer],
    port: u16,
    scenario: &Scenario,
    seconds: u64,
) -> Result<Taken, String> {
    let cpu = || proxies.iter().map(|proxy| net::cpu_us(proxy.pid())).sum::<f64>();
    let before = cpu();
    let host = if netns.is_some() { ours::VIP } else { "127.0.0.1" };
    let path = format!("/{}", scenario.bytes);
    let load = load::start(netns, &format!("{host}:{port}"), &path, scenario.http2, seconds)?;
    let cpu_us = cpu() - before;
    std::thread::sleep(Duration::from_millis(100));
    if load.errors > 0 {
        return Err(format!("{}: {} of {} requests failed", scenario.name, load.errors, load.requests));
    }
    Ok(Taken { load, cpu_us })
}

impl Sum {
    fn add(&mut self, taken: &Taken) {
        self.requests += taken.load.requests as f64;
        self.seconds += taken.load.seconds;
        self.cpu_us += taken.cpu_us;
        self.p50_us += taken.load.p50_us as f64;
        self.p99_us += taken.load.p99_us as f64;
        self.errors += taken.load.errors as f64;
        self.rounds += 1.0;
    }
}

fn tell(report: &mut Report, scenario: &str, sums: &BTreeMap<&str, Sum>) {
    for (name, sum) in sums {
        report.add(scenario, &format!("cpu_us_{name}"), sum.cpu_us / sum.requests, "us/request");
        report.add(scenario, &format!("rps_{name}"), sum.requests / sum.seconds, "1/s");
        report.add(scenario, &format!("p50_us_{name}"), sum.p50_us / sum.rounds, "us");
        report.add(scenario, &format!("p99_us_{name}"), sum.p99_us / sum.rounds, "us");
    }
    let cost = |sum: &Sum| sum.cpu_us / sum.requests;
    let best = sums.iter().filter(|(name, _)| **name != "self").map(|(_, sum)| cost(sum)).reduce(f64::min);
    if let (Some(own), Some(best)) = (sums.get("self"), best) {
        report.add(scenario, "ratio_best", cost(own) / best, "self/cheapest");
    }
}

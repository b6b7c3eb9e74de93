//! What happens in the demo, in order.

use super::Built;
use super::load::{Load, Sample, now_ms};
use super::platform::Platform;
use crate::paths;
use crate::sh::{self, Result};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the table is made of.
pub struct Report {
    pub ready_s: f64,
    pub first_pod_s: f64,
    pub idle_mib: f64,
    pub phases: Vec<Phase>,
    pub weights: Vec<Weights>,
    pub hops: BTreeSet<super::load::Hop>,
    pub denied: Denied,
}

/// A stretch of the load.
pub struct Phase {
    pub name: &'static str,
    pub requests: usize,
    pub failures: Vec<String>,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Share of reviews v2, in percent.
pub struct Weights {
    pub asked: f64,
    pub measured: f64,
    pub requests: usize,
}

/// What the policy did to one caller.
pub struct Denied {
    pub allowed_before: bool,
    pub refused_after: bool,
    pub others_unharmed: bool,
}

const GATEWAY: &str = "http://127.0.0.1:8088/";
const NAMESPACE_OF_GUEST: &str = "dk-legacy";
/// Time for a route change to reach every proxy, not counted when weights are measured.
const SETTLE_MS: u64 = 1_000;
/// How long each weight is kept. Backends are drawn at random, so 4,000 requests leave a standard error of 0.8 points: three points off means
/// that something is wrong, where after 1,000 requests it may be chance.
const WEIGHT_HELD: Duration = Duration::from_secs(20);
/// Length of the whole load: long enough for all scenes and some quiet after them.
const LOAD_S: u32 = 200;

/// Marks where phases begin.
#[derive(Default)]
struct Timeline(Vec<(&'static str, u64)>);

impl Timeline {
    fn mark(&mut self, name: &'static str) {
        println!("  {name}");
        self.0.push((name, now_ms()));
    }
}

/// Deploys the bookstore and plays all scenes under load.
pub fn play(platform: &mut Platform, built: &Built, rate: u32) -> Result<Report> {
    let idle_mib = platform.resident_mib();
    let first_pod_s = deploy(platform, built)?;
    println!("\nscenes, at {rate} requests/s through the gateway");
    let mut timeline = Timeline::default();
    let output = paths::target().join("demo-load.jsonl");
    let load = Load::start(&built.bookstore, GATEWAY, rate, LOAD_S, &output)?;
    timeline.mark("steady");
    std::thread::sleep(Duration::from_secs(10));
    let shifts = shift(platform, &mut timeline)?;
    evict(platform, &mut timeline)?;
    restart_control_plane(platform, &mut timeline)?;
    roll(platform, &mut timeline)?;
    timeline.mark("one caller denied");
    let denied = deny(platform)?;
    timeline.mark("steady again");
    let samples = load.finish()?;
    Ok(report(platform, samples, &timeline, &shifts, Measured { first_pod_s, idle_mib, denied }))
}

struct Measured {
    first_pod_s: f64,
    idle_mib: f64,
    denied: Denied,
}

fn example(name: &str) -> String {
    paths::root().join("examples/bookstore").join(name).to_string_lossy().into_owned()
}

/// Returns the time from applying the first pod to its being Ready.
fn deploy(platform: &mut Platform, built: &Built) -> Result<f64> {
    println!("\ndeploying the bookstore");
    let archive = paths::target().join("bookstore.tar").to_string_lossy().into_owned();
    let binary = format!("--binary={}", built.bookstore.display());
    platform.diolkos(&["image", "build", &binary, "--name=bookstore:v1", &format!("--output={archive}")])?;
    platform.diolkos(&["image", "load", &archive])?;
    platform.kubectl(&["apply", "-f", &example("00-namespace.yaml")])?;
    let first_pod_s = first_pod(platform)?;
    platform.kubectl(&["apply", "-f", &example("10-services.yaml")])?;
    platform.kubectl(&["apply", "-f", &example("20-gateway.yaml")])?;
    platform.kubectl(&["apply", "-f", &example("30-reviews-route.yaml")])?;
    join_inventory(platform, built)?;
    for deployment in deployments(platform)? {
        platform.kubectl(&["rollout", "status", &deployment, "--timeout=90s"])?;
    }
    platform.kubectl(&["apply", "-f", &example("40-strict.yaml")])?;
    platform.kubectl(&["wait", "--for=condition=Programmed", "gateway/bookstore", "--timeout=30s"])?;
    wait_for_gateway(built)?;
    println!("{}", platform.kubectl(&["get", "pods", "-o", "wide"])?);
    Ok(first_pod_s)
}

fn first_pod(platform: &Platform) -> Result<f64> {
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"first"},"spec":{"terminationGracePeriodSeconds":1,
        "containers":[{"name":"c","image":"bookstore:v1","args":["ratings"],
        "readinessProbe":{"httpGet":{"path":"/healthz","port":8080},"periodSeconds":1}}]}}"#;
    let begun = Instant::now();
    platform.kubectl_with_input(&["apply", "-f", "-"], Some(pod))?;
    platform.kubectl(&["wait", "--for=condition=Ready", "pod/first", "--timeout=60s"])?;
    let took = begun.elapsed().as_secs_f64();
    platform.kubectl(&["delete", "pod/first", "--wait=false"])?;
    Ok(took)
}

fn deployments(platform: &Platform) -> Result<Vec<String>> {
    Ok(platform.kubectl(&["get", "deployments", "-o", "name"])?.lines().map(str::to_owned).collect())
}

/// A machine that is no node: a network namespace of its own, with a process in it that knows nothing of containers.
fn join_inventory(platform: &mut Platform, built: &Built) -> Result<()> {
    let script = format!(
        "ip netns del {NAMESPACE_OF_GUEST} 2>/dev/null; set -e
         ip netns add {NAMESPACE_OF_GUEST}
         ip link del dk-legacy0 2>/dev/null || true
         ip link add dk-legacy0 type veth peer name eth0 netns {NAMESPACE_OF_GUEST}
         ip addr add 172.31.250.1/24 dev dk-legacy0
         ip link set dk-legacy0 up
         ip -n {NAMESPACE_OF_GUEST} link set lo up
         ip -n {NAMESPACE_OF_GUEST} addr add 172.31.250.2/24 dev eth0
         ip -n {NAMESPACE_OF_GUEST} link set eth0 up
         ip -n {NAMESPACE_OF_GUEST} route add default via 172.31.250.1"
    );
    sh::output(Command::new("sh").args(["-c", &script]))?;
    let token = platform.diolkos(&["token", "create"])?;
    let mut inventory = Command::new("ip");
    inventory.args(["netns", "exec", NAMESPACE_OF_GUEST]).arg(&built.bookstore).arg("inventory");
    inventory.env("PORT", "9090").env("BIND", "127.0.0.1");
    platform.guest(&mut inventory, "inventory.log")?;
    let mut join = Command::new("ip");
    join.args(["netns", "exec", NAMESPACE_OF_GUEST]).arg(&built.diolkos).arg("join");
    join.args(["--control", "172.31.250.1:15012", "--service", "inventory", "--namespace", "bookstore"]);
    join.args(["--port", "9090", "--address", "172.31.250.2", "--data-dir", "/var/lib/diolkos-demo-legacy"]);
    join.args(["--run-dir", "/run/diolkos-demo-legacy"]).env("DIOLKOS_JOIN_TOKEN", token.trim());
    platform.guest(&mut join, "join.log")
}

/// Until the whole path answers, from the gateway to the legacy process.
fn wait_for_gateway(built: &Built) -> Result<()> {
    let output = paths::target().join("demo-probe.jsonl");
    let mut last = String::from("no answer");
    for _ in 0..60 {
        let samples = Load::start(&built.bookstore, GATEWAY, 1, 1, &output)?.finish()?;
        match samples.into_iter().next().map(|sample| sample.outcome) {
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => last = error,
            None => {}
        }
    }
    Err(format!("the gateway does not answer: {last}"))
}

/// Shifts reviews from v1 to v2 by weights; returns what was asked and when.
fn shift(platform: &Platform, timeline: &mut Timeline) -> Result<Vec<(u32, u64, u64)>> {
    timeline.mark("reviews 0 -> 100 % to v2");
    let mut shifts = Vec::new();
    for v2 in [10, 25, 50, 75, 100] {
        let patch = format!(
            r#"[{{"op":"replace","path":"/spec/rules/0/backendRefs/0/weight","value":{}}},
                {{"op":"replace","path":"/spec/rules/0/backendRefs/1/weight","value":{v2}}}]"#,
            100 - v2
        );
        platform.kubectl(&["patch", "httproute/reviews", "--type=json", "-p", &patch])?;
        let begun = now_ms() + SETTLE_MS;
        std::thread::sleep(WEIGHT_HELD);
        shifts.push((v2, begun, now_ms()));
    }
    Ok(shifts)
}

/// Evicts one pod of every service through the Eviction API, as a drain does.
fn evict(platform: &Platform, timeline: &mut Timeline) -> Result<()> {
    timeline.mark("pods killed by eviction");
    for app in ["frontend", "catalog", "reviews", "ratings"] {
        let selector = format!("--selector=app={app}");
        let pod = platform.kubectl(&["get", "pods", &selector, "-o", "jsonpath={.items[0].metadata.name}"])?;
        let body = format!(
            r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{pod}","namespace":"bookstore"}}}}"#
        );
        let path = format!("/api/v1/namespaces/bookstore/pods/{pod}/eviction");
        platform.kubectl_with_input(&["create", "--raw", &path, "-f", "-"], Some(&body))?;
        std::thread::sleep(Duration::from_secs(2));
    }
    for deployment in deployments(platform)? {
        platform.kubectl(&["rollout", "status", &deployment, "--timeout=60s"])?;
    }
    Ok(())
}

/// Kills the control plane without warning; the supervisor starts it again.
fn restart_control_plane(platform: &Platform, timeline: &mut Timeline) -> Result<()> {
    timeline.mark("control plane killed (SIGKILL)");
    let before = platform.role_pid("server").ok_or("there is no server process")?;
    sh::run(Command::new("kill").args(["-KILL", &before.to_string()]))?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(200));
        let restarted = platform.role_pid("server").is_some_and(|pid| pid != before);
        if restarted && platform.kubectl(&["get", "--raw", "/readyz"]).is_ok() {
            std::thread::sleep(Duration::from_secs(3));
            return Ok(());
        }
    }
    Err("the control plane did not come back within 30 s".into())
}

fn roll(platform: &Platform, timeline: &mut Timeline) -> Result<()> {
    timeline.mark("rolling update of every Deployment");
    let all = deployments(platform)?;
    for deployment in &all {
        platform.kubectl(&["rollout", "restart", deployment])?;
    }
    for deployment in &all {
        platform.kubectl(&["rollout", "status", deployment, "--timeout=90s"])?;
    }
    Ok(())
}

/// The snoop may call the catalog, until a policy says that it may not.
fn deny(platform: &Platform) -> Result<Denied> {
    let call = |from: &str| {
        let script = ["exec", from, "--", "/bookstore", "load", "--url", "http://catalog/titles", "--rate", "5"];
        let rest = ["--seconds", "1", "--output", "/dev/stdout"];
        platform.kubectl(&[&script[..], &rest[..]].concat())
    };
    let all = |text: &str, needle: &str| text.lines().count() > 0 && text.lines().all(|line| line.contains(needle));
    let before = call("deploy/snoop")?;
    platform.kubectl(&["apply", "-f", &example("50-deny-snoop.yaml")])?;
    std::thread::sleep(Duration::from_secs(1));
    let after = call("deploy/snoop")?;
    let other = call("deploy/frontend")?;
    Ok(Denied {
        allowed_before: all(&before, "\"hops\""),
        refused_after: all(&after, "403"),
        others_unharmed: all(&other, "\"hops\""),
    })
}

fn report(
    platform: &Platform,
    samples: Vec<Sample>,
    timeline: &Timeline,
    shifts: &[(u32, u64, u64)],
    measured: Measured,
) -> Report {
    let ends = timeline.0.iter().skip(1).map(|(_, at)| *at).chain([u64::MAX]);
    let phases = timeline.0.iter().zip(ends).map(|((name, begin), end)| phase(name, &samples, *begin, end)).collect();
    let weights = shifts.iter().map(|(asked, begin, end)| weights(*asked, &samples, *begin, *end)).collect();
    let hops = samples.iter().filter_map(|sample| sample.outcome.as_ref().ok()).flatten().cloned().collect();
    Report {
        ready_s: platform.ready_s,
        first_pod_s: measured.first_pod_s,
        idle_mib: measured.idle_mib,
        phases,
        weights,
        hops,
        denied: measured.denied,
    }
}

fn within(samples: &[Sample], begin: u64, end: u64) -> impl Iterator<Item = &Sample> {
    samples.iter().filter(move |sample| (begin..end).contains(&sample.at_ms))
}

fn phase(name: &'static str, samples: &[Sample], begin: u64, end: u64) -> Phase {
    let mut latencies: Vec<u64> = within(samples, begin, end).map(|sample| sample.latency_us).collect();
    latencies.sort_unstable();
    let at = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        latencies.get((share * last as f64) as usize).map_or(0.0, |us| *us as f64 / 1000.0)
    };
    let failures = within(samples, begin, end).filter_map(|sample| sample.outcome.as_ref().err().cloned()).collect();
    Phase { name, requests: latencies.len(), failures, p50_ms: at(0.5), p99_ms: at(0.99) }
}

fn weights(asked: u32, samples: &[Sample], begin: u64, end: u64) -> Weights {
    let reviews: Vec<&str> = within(samples, begin, end)
        .filter_map(|sample| sample.outcome.as_ref().ok())
        .filter_map(|hops| hops.iter().find(|hop| hop.service == "reviews"))
        .map(|hop| &*hop.version)
        .collect();
    let v2 = reviews.iter().filter(|version| **version == "v2").count();
    let measured = if reviews.is_empty() { f64::NAN } else { 100.0 * v2 as f64 / reviews.len() as f64 };
    Weights { asked: f64::from(asked), measured, requests: reviews.len() }
}

//! Everything that is done to a mesh in operation, under a load that counts: nothing of it may cost a request.

use crate::mesh::{GATEWAY, k};
use bytes::Bytes;
use client::{HttpsApi, ObjectApi, PatchKind, Resource};
use e2e::shell::{Check, run};
use e2e::{Platform, Runner, eventually, platform};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUTES: Resource = Resource { group: "gateway.networking.k8s.io", version: "v1", plural: "httproutes" };
/// How long the load lasts.
const SECONDS: u32 = 60;
/// Requests a second; `OPERATIONS_RATE` says otherwise.
const RATE: u32 = 500;
/// How long the control plane is away.
const AWAY: Duration = Duration::from_secs(15);
/// How long the gateway's routes change, and how often.
const CHANGING: Duration = Duration::from_secs(20);
const CHANGE_EVERY: Duration = Duration::from_millis(20);

/// What is asked, how, and how many of a hundred requests; true: from a pod, and not through the gateway.
const LOADS: [(&str, &str, &str, u32, bool); 6] = [
    ("http1", "http1", "stars", 40, false),
    ("frontend", "http1", "", 2, false),
    ("http2", "http2", "stars", 22, false),
    ("grpc", "grpc", "", 22, false),
    ("stream", "stream", "", 8, false),
    ("pod-to-pod", "http1", "stars", 6, true),
];

pub fn checks(runner: &mut Runner, p: &Platform) {
    runner.check("operations::no request fails while everything is done that is done to a mesh", || everything(p));
}

/// A load that runs.
enum Load {
    /// From this machine, through the gateway; and where it writes what it saw.
    Here(&'static str, Child, PathBuf),
    /// From a pod of this name, which says in its log what it saw.
    Pod(&'static str),
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Load::Here(_, process, _) = self {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn rate() -> u32 {
    std::env::var("OPERATIONS_RATE").ok().and_then(|rate| rate.parse().ok()).unwrap_or(RATE)
}

impl Load {
    fn start(p: &Platform, of: (&'static str, &str, &str, u32, bool)) -> Check<Load> {
        let (name, protocol, path, share, pod) = of;
        let (rate, seconds) = ((share * rate() / 100).to_string(), SECONDS.to_string());
        let how = ["--protocol", protocol, "--rate", &rate, "--seconds", &seconds];
        if pod {
            let words = ["load", "--url", &format!("http://ratings/{path}"), "--output", "/dev/stdout"];
            let words = serde_json::json!([&words[..], &how[..]].concat());
            let pod = format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"restartPolicy":"Never","containers":[{{"name":"l","image":"bookstore:v1","args":{words}}}]}}}}"#
            );
            p.kubectl_in(&["-n", "bookstore", "apply", "-f", "-"], &pod).ok()?;
            return Ok(Load::Pod(name));
        }
        let output = p.dir.join(format!("operations-{name}.jsonl"));
        let mut command = Command::new(platform::binary("BOOKSTORE_BIN").ok_or("no bookstore")?);
        command.args(["load", "--url", &format!("{GATEWAY}{path}"), "--output"]).arg(&output).args(how);
        let process = command.stdin(Stdio::null()).spawn().map_err(|error| error.to_string())?;
        Ok(Load::Here(name, process, output))
    }

    /// Waits for its end: requests, and those of them that failed.
    fn finish(mut self, p: &Platform) -> Check<(usize, Vec<String>)> {
        let (name, text) = match &mut self {
            Load::Here(name, process, output) => {
                let status = process.wait().map_err(|error| error.to_string())?;
                if !status.success() {
                    return Err(format!("the load {name} ended with {status}"));
                }
                (*name, std::fs::read_to_string(output).map_err(|error| error.to_string())?)
            }
            Load::Pod(name) => {
                let done = format!("pod/{name}");
                k(p, &["wait", "--for=jsonpath={.status.phase}=Succeeded", &done, "--timeout=40s"]).ok()?;
                let text = k(p, &["logs", name]).ok()?;
                k(p, &["delete", &done, "--now"]).ok()?;
                (*name, text)
            }
        };
        let failed = text.lines().filter(|line| line.contains("\"error\"")).map(|line| format!("{name}: {line}"));
        Ok((text.lines().count(), failed.collect()))
    }
}

const EXTRA: &str = r#"{"apiVersion":"v1","kind":"List","items":[
  {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"streams"},"spec":{"selector":{"matchLabels":{"app":"streams"}},"template":{"metadata":{"labels":{"app":"streams"}},
    "spec":{"containers":[{"name":"s","image":"bookstore:v1","args":["ratings"],"readinessProbe":{"httpGet":{"path":"/healthz","port":8080},"periodSeconds":1}}]}}}},
  {"apiVersion":"v1","kind":"Service","metadata":{"name":"streams"},"spec":{"selector":{"app":"streams"},"ports":[{"name":"grpc","port":80,"targetPort":8080,"appProtocol":"grpc"}]}},
  {"apiVersion":"v1","kind":"Service","metadata":{"name":"calls"},"spec":{"selector":{"app":"ratings"},"ports":[{"name":"grpc","port":80,"targetPort":8080,"appProtocol":"grpc"}]}},
  {"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"operations"},"spec":{"parentRefs":[{"name":"bookstore"}],"rules":[
    {"matches":[{"path":{"type":"PathPrefix","value":"/bookstore.v1.Echo"}}],"backendRefs":[{"name":"streams","port":80}]},
    {"matches":[{"path":{"type":"PathPrefix","value":"/grpc.health.v1.Health"}}],"backendRefs":[{"name":"calls","port":80}]},
    {"matches":[{"path":{"type":"PathPrefix","value":"/stars"}}],"backendRefs":[{"name":"ratings","port":80}]}]}}]}"#;

fn everything(p: &Platform) -> Check {
    k(p, &["scale", "deployment/ratings", "--replicas=2"]).ok()?;
    p.kubectl_in(&["-n", "bookstore", "apply", "-f", "-"], EXTRA).ok()?;
    for deployment in ["ratings", "streams"] {
        k(p, &["rollout", "status", &format!("deployment/{deployment}"), "--timeout=60s"]).ok()?;
    }
    let mut warm = Command::new(platform::binary("BOOKSTORE_BIN").ok_or("no bookstore")?);
    let output = p.dir.join("operations-warm.jsonl");
    warm.args(["load", "--protocol", "grpc", "--rate", "1", "--seconds", "1", "--url", GATEWAY, "--output"])
        .arg(&output);
    eventually(Duration::from_secs(20), || {
        run(&mut warm, None).ok()?;
        let seen = std::fs::read_to_string(&output).map_err(|error| error.to_string())?;
        if seen.contains("\"error\"") { Err(seen) } else { Ok(()) }
    })?;
    let loads: Vec<Load> = LOADS.into_iter().map(|load| Load::start(p, load)).collect::<Check<_>>()?;
    let begun = Instant::now();
    let done = operations(p, begun);
    let mut failures = Vec::new();
    let mut requests = 0;
    for load in loads {
        let (count, failed) = load.finish(p)?;
        requests += count;
        failures.extend(failed);
    }
    let log = done?;
    if !failures.is_empty() {
        let shown: Vec<&str> = failures.iter().take(12).map(String::as_str).collect();
        return Err(format!(
            "{} of {requests} requests failed:\n{}\nwhat was done:\n{log}",
            failures.len(),
            shown.join("\n")
        ));
    }
    let wanted = rate() * SECONDS;
    if requests < wanted as usize * 8 / 10 {
        return Err(format!("only {requests} of {wanted} requests were sent"));
    }
    println!("    {requests} requests, none failed, while:\n{log}");
    after(p)
}

/// What is done meanwhile, and when.
fn operations(p: &Platform, begun: Instant) -> Check<String> {
    let mut log = String::new();
    let mut note = |what: &str| log += &format!("    {:5.1} s {what}\n", begun.elapsed().as_secs_f64());
    let config = p.kubeconfig();
    let changing = std::thread::spawn(move || change_routes(&config));
    note("the gateway's routes change and change");
    std::thread::sleep(Duration::from_secs(1));
    for deployment in ["frontend", "ratings"] {
        k(p, &["rollout", "restart", &format!("deployment/{deployment}")]).ok()?;
    }
    note("rolling update of frontend and ratings");
    for deployment in ["frontend", "ratings"] {
        k(p, &["rollout", "status", &format!("deployment/{deployment}"), "--timeout=60s"]).ok()?;
    }
    note("updated; evicting a pod of ratings");
    evict(p)?;
    note("evicted, as a node that is drained does it");
    let changed = changing.join().map_err(|_| "the changes broke off")??;
    note(&format!("{changed} changes of routes were made; upgrading the proxy"));
    p.diolkos(&["proxy", "upgrade"]).ok()?;
    note("another proxy serves; pods come and go while the one before it finishes its streams");
    let before = p.role_pids("proxy")?.len();
    k(p, &["rollout", "restart", "deployment/ratings"]).ok()?;
    k(p, &["rollout", "status", "deployment/ratings", "--timeout=40s"]).ok()?;
    if before < 2 || p.role_pids("proxy")?.len() < 2 {
        return Err("the proxy that was replaced had nothing to finish".into());
    }
    note("they did; another root is wanted");
    p.diolkos(&["mesh", "rotate-root"]).ok()?;
    eventually(Duration::from_secs(20), || match phase(p)?.as_str() {
        "switched" => Ok(()),
        other => Err(format!("the root is {other}")),
    })?;
    note("the new root signs; the control plane goes away");
    let server = p.role_pid("server")?.to_string();
    run(Command::new("kill").args(["-STOP", &server]), None).ok()?;
    std::thread::sleep(AWAY);
    run(Command::new("kill").args(["-CONT", &server]), None).ok()?;
    note("it is back; it is killed");
    p.kill_role("server")?;
    eventually(Duration::from_secs(20), || phase(p).map(drop))?;
    note("another one answers; upgrading the proxy again");
    p.diolkos(&["proxy", "upgrade"]).ok()?;
    note("another proxy serves");
    Ok(log)
}

fn phase(p: &Platform) -> Check<String> {
    let status: serde_json::Value =
        serde_json::from_str(&p.diolkos(&["mesh", "status", "-o", "json"]).ok()?).map_err(|error| error.to_string())?;
    status["trust"]["phase"].as_str().map(str::to_owned).ok_or_else(|| format!("no phase in {status}"))
}

/// Another weight each time, on the route that carries most.
fn change_routes(kubeconfig: &std::path::Path) -> Check<u32> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let api = HttpsApi::from_kubeconfig(kubeconfig).map_err(|error| error.to_string())?;
        let mut tick = tokio::time::interval(CHANGE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (begun, mut number) = (Instant::now(), 0);
        while begun.elapsed() < CHANGING {
            tick.tick().await;
            number += 1;
            let patch = format!(
                r#"[{{"op":"replace","path":"/spec/rules/2/backendRefs/0","value":{{"name":"ratings","port":80,"weight":{}}}}}]"#,
                number
            );
            let changed = api.patch(ROUTES, "bookstore", "operations", None, PatchKind::Json, Bytes::from(patch)).await;
            changed.map_err(|error| error.to_string())?;
        }
        Ok(number)
    })
}

fn evict(p: &Platform) -> Check {
    let names = k(p, &["get", "pods", "-l", "app=ratings", "-o", "jsonpath={.items[*].metadata.name}"]).ok()?;
    let name = names.split_whitespace().next().ok_or("no pod of ratings")?.to_owned();
    let eviction = format!(
        r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{name}","namespace":"bookstore"}}}}"#
    );
    let path = format!("/api/v1/namespaces/bookstore/pods/{name}/eviction");
    p.kubectl_in(&["create", "--raw", &path, "-f", "-"], &eviction).ok()?;
    k(p, &["wait", "--for=delete", &format!("pod/{name}"), "--timeout=40s"]).ok()?;
    k(p, &["rollout", "status", "deployment/ratings", "--timeout=40s"]).ok().map(drop)
}

/// The streams are over: nothing holds the old root and the old proxies any more.
fn after(p: &Platform) -> Check {
    eventually(Duration::from_secs(60), || match phase(p)?.as_str() {
        "steady" => Ok(()),
        other => Err(format!("the root is {other}: {}", p.diolkos(&["mesh", "status"]).ok()?)),
    })?;
    eventually(Duration::from_secs(40), || match p.role_pids("proxy")?.as_slice() {
        [_] => Ok(()),
        several => Err(format!("the proxies {several:?} run")),
    })?;
    k(p, &["delete", "httproute/operations", "service/streams", "service/calls", "deployment/streams"]).ok().map(drop)
}

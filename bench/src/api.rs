//! The API server as its clients see it: a server process of its own, over TLS, every create on disk before it is answered.

use crate::report::Report;
use bytes::Bytes;
use clap::Args;
use client::{HttpsApi, ListOptions, ObjectApi, Resource};
use hdrhistogram::Histogram;
use http::Method;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct Options {
    /// The binary to measure.
    #[arg(long, env = "DIOLKOS_BIN")]
    binary: PathBuf,
    /// Pods to create.
    #[arg(long, default_value_t = 100_000)]
    pods: usize,
    /// Clients, each with a connection of its own.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Where the store lies (its disk is what is measured).
    #[arg(long, default_value = "/var/tmp/diolkos-bench-api")]
    dir: PathBuf,
}

const PODS: Resource = Resource { group: "", version: "v1", plural: "pods" };
const PORT: u16 = 16_445;

/// A server process of its own.
pub(crate) struct Server(Child);

impl Server {
    /// Starts it on an empty or filled directory.
    pub(crate) fn start(binary: &Path, dir: &Path) -> Result<Server, String> {
        let log = std::fs::File::create(dir.join("server.log")).map_err(|error| error.to_string())?;
        let child = Command::new(binary)
            .arg("server")
            .arg(format!("--data-dir={}", dir.display()))
            .arg(format!("--run-dir={}", dir.join("run").display()))
            .args([format!("--api-listen=127.0.0.1:{PORT}"), "--dashboard-listen=127.0.0.1:17072".into()])
            .args(["--mesh-listen=127.0.0.1:25014", "--node-name=bench", "--node-ip=127.0.0.1", "--log=warn"])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        child.map(Server).map_err(|error| format!("{}: {error}", binary.display()))
    }

    fn status(&self, field: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(field).map(str::to_owned));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
    }

    /// Processor time that it has used, in seconds.
    pub(crate) fn cpu_s(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(options: &Options) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(&options.dir);
    std::fs::create_dir_all(&options.dir).map_err(|error| error.to_string())?;
    let mut report = Report::new("api");
    let mut server = Server::start(&options.binary, &options.dir)?;
    let api = ready(&options.dir).await?;
    let idle = server.status("VmRSS:");
    report.add("idle", "resident", idle / 1e6, "MB");
    creates(options, &server, &mut report).await?;
    let full = server.status("VmRSS:");
    report.add("resident", "a_pod", (full - idle) / options.pods as f64, "bytes");
    report.add("resident", "whole", full / 1e6, "MB");
    list(&api, options, &server, &mut report).await?;
    server.0.kill().map_err(|error| error.to_string())?;
    drop(server);
    let begun = Instant::now();
    let server = Server::start(&options.binary, &options.dir)?;
    let _api = ready(&options.dir).await?;
    report.add("restart", "to_first_answer", begun.elapsed().as_secs_f64(), "s");
    report.add("restart", "resident_a_pod", (server.status("VmRSS:") - idle) / options.pods as f64, "bytes");
    drop(server);
    std::fs::remove_dir_all(&options.dir).map_err(|error| error.to_string())?;
    report.write()
}

/// Waits until it serves, accounts included.
pub(crate) async fn ready(dir: &Path) -> Result<HttpsApi, String> {
    for _ in 0..3000 {
        if let Ok(api) = HttpsApi::from_kubeconfig(&dir.join("admin.kubeconfig"))
            && api.call(Method::GET, "/readyz", "", Bytes::new()).await.is_ok_and(|answer| answer.status.is_success())
            && api
                .get(Resource { group: "", version: "v1", plural: "serviceaccounts" }, "default", "default")
                .await
                .is_ok()
        {
            return Ok(api);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("the server did not become ready within 30 s".into())
}

/// A pod of about 1.6 KB once the server has filled in its defaults; a gate keeps the scheduler's hands off it.
fn pod(n: usize) -> Bytes {
    Bytes::from(
        serde_json::json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod-{n:07}"), "labels": {"app": format!("app-{}", n % 500), "tier": "bench"}},
            "spec": {"schedulingGates": [{"name": "bench.diolkos.io/stay"}], "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "shop:v1", "args": ["serve", "--port=8080"],
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "two"}],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}}}]}})
        .to_string(),
    )
}

/// Latencies in microseconds, up to a minute. (One that grows by itself keeps its first bounds under `saturating_record`.)
fn histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_max(60_000_000, 3).map_err(|error| error.to_string())
}

async fn creates(options: &Options, server: &Server, report: &mut Report) -> Result<(), String> {
    let next = Arc::new(AtomicUsize::new(0));
    let (begun, cpu) = (Instant::now(), server.cpu_s());
    let mut workers = Vec::new();
    for _ in 0..options.clients {
        let api =
            HttpsApi::from_kubeconfig(&options.dir.join("admin.kubeconfig")).map_err(|error| error.to_string())?;
        let (next, pods) = (next.clone(), options.pods);
        workers.push(tokio::spawn(async move {
            let mut latencies = histogram()?;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= pods {
                    return Ok::<_, String>(latencies);
                }
                let begun = Instant::now();
                api.create(PODS, "default", None, pod(n)).await.map_err(|error| format!("pod {n}: {error}"))?;
                latencies.saturating_record(begun.elapsed().as_micros() as u64);
            }
        }));
    }
    let mut all = histogram()?;
    for worker in workers {
        all.add(worker.await.map_err(|error| error.to_string())??).map_err(|error| error.to_string())?;
    }
    let took = begun.elapsed().as_secs_f64();
    let scenario = format!("create_{}_clients", options.clients);
    report.add(&scenario, "durable_creates", options.pods as f64 / took, "1/s");
    report.add(&scenario, "p50", all.value_at_quantile(0.5) as f64 / 1000.0, "ms");
    report.add(&scenario, "p99", all.value_at_quantile(0.99) as f64 / 1000.0, "ms");
    report.add(&scenario, "server_cpu_a_create", (server.cpu_s() - cpu) * 1e6 / options.pods as f64, "us");
    Ok(())
}

async fn list(api: &HttpsApi, options: &Options, server: &Server, report: &mut Report) -> Result<(), String> {
    let mut times = Vec::new();
    let cpu = server.cpu_s();
    for _ in 0..5 {
        let begun = Instant::now();
        let answer =
            api.call(Method::GET, "/api/v1/pods", "", Bytes::new()).await.map_err(|error| error.to_string())?;
        times.push(begun.elapsed().as_secs_f64());
        report_size(&answer.body, options.pods)?;
    }
    times.sort_by(f64::total_cmp);
    let scenario = format!("list_{}", options.pods);
    report.add(&scenario, "time_median", times[times.len() / 2], "s");
    report.add(&scenario, "server_cpu", (server.cpu_s() - cpu) / times.len() as f64, "s");
    let begun = Instant::now();
    let selected = ListOptions { label_selector: Some("app=app-7".into()), ..ListOptions::default() };
    let found = api.list(PODS, selected).await.map_err(|error| error.to_string())?;
    report.add(&scenario, "one_label_of_500", begun.elapsed().as_secs_f64(), "s");
    if found.items.len() != options.pods.div_ceil(500).max(1) && options.pods.is_multiple_of(500) {
        return Err(format!("the selector found {} pods", found.items.len()));
    }
    Ok(())
}

fn report_size(body: &Bytes, pods: usize) -> Result<(), String> {
    // A whole list ends as JSON does and is at least as long as its pods.
    let is_whole = body.ends_with(b"}") || body.ends_with(b"}\n");
    if is_whole && body.len() > pods * 500 {
        return Ok(());
    }
    Err(format!("the list was cut short at {} bytes", body.len()))
}

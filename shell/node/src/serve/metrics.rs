//! Prometheus text.

use super::stats::usage;
use super::{Answer, text, typed};
use crate::agent::Pods;
use crate::machine;
use http::StatusCode;
use std::collections::BTreeMap;
use std::fmt::Write;

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The agent itself.
pub(super) async fn metrics(pods: &Pods) -> Answer {
    let mut phases: BTreeMap<String, usize> = BTreeMap::new();
    let mut containers = 0;
    for pod in pods.all() {
        *phases.entry(pod.status.phase.clone()).or_default() += 1;
        containers += pod.status.container_statuses.iter().filter(|status| status.state.running.is_some()).count();
    }
    let mut out =
        String::from("# HELP diolkos_node_pods Pods bound to this node, by phase.\n# TYPE diolkos_node_pods gauge\n");
    for (phase, count) in phases {
        let _ = writeln!(out, "diolkos_node_pods{{phase=\"{phase}\"}} {count}");
    }
    out.push_str(
        "# HELP diolkos_node_running_containers Containers that run.\n# TYPE diolkos_node_running_containers gauge\n",
    );
    let _ = writeln!(out, "diolkos_node_running_containers {containers}");
    if let Some(resident) = resident_bytes() {
        out.push_str("# HELP process_resident_memory_bytes Resident memory size in bytes.\n# TYPE process_resident_memory_bytes gauge\n");
        let _ = writeln!(out, "process_resident_memory_bytes {resident}");
    }
    typed(StatusCode::OK, FORMAT, out)
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What containers and the node use, by the names of the kubelet's resource metrics.
pub(super) async fn resource(pods: &Pods) -> Answer {
    let containers = match usage(pods).await {
        Ok(containers) => containers,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut out = String::new();
    let nanos = machine::cpu_busy_nanos().unwrap_or(0);
    let used = pods.shared().node_memory - machine::meminfo("MemAvailable").unwrap_or(0);
    head(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    let _ = writeln!(out, "node_cpu_usage_seconds_total {}", seconds(nanos));
    head(&mut out, "node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    let _ = writeln!(out, "node_memory_working_set_bytes {used}");
    let labels = |c: &super::stats::Usage| {
        format!("container=\"{}\",namespace=\"{}\",pod=\"{}\"", c.container, c.namespace, c.pod)
    };
    head(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    for one in &containers {
        let _ = writeln!(out, "container_cpu_usage_seconds_total{{{}}} {}", labels(one), seconds(one.cpu_nanos));
    }
    head(&mut out, "container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes");
    for one in &containers {
        let _ = writeln!(out, "container_memory_working_set_bytes{{{}}} {}", labels(one), one.working_set);
    }
    typed(StatusCode::OK, FORMAT, out)
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

//! What runs here and what it uses.

use super::{Answer, json, text, typed};
use crate::agent::Pods;
use crate::clock;
use crate::machine;
use crate::pod::observe::label;
use bytes::Bytes;
use cri::{ContainerStats, UInt64Value};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::net::TcpStream;

/// The pods of this node, as the agent sees them: names and what the runtime says.
pub(super) async fn pods(pods: &Pods) -> Answer {
    let item = |pod: &crate::pod::spec::Pod| {
        let meta = &pod.metadata;
        json!({
            "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid, "labels": meta.labels},
            "spec": {"nodeName": pod.spec.node_name},
            "status": pod.status,
        })
    };
    let items: Vec<Value> = pods.all().iter().map(|pod| item(pod)).collect();
    json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// One container's use.
pub(super) struct Usage {
    pub uid: String,
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// Nanoseconds since the epoch.
    pub at: i64,
    pub cpu_nanos: u64,
    pub working_set: u64,
    pub usage: u64,
}

/// What every container of a pod uses, from the runtime.
pub(super) async fn usage(pods: &Pods) -> Result<Vec<Usage>, crate::runtime::RuntimeError> {
    let stats = pods.shared().runtime.container_stats().await?;
    Ok(stats.into_iter().filter_map(usage_of).collect())
}

fn usage_of(stats: ContainerStats) -> Option<Usage> {
    let attributes = stats.attributes?;
    let label = |name: &str| attributes.labels.get(name).cloned();
    let value = |number: Option<UInt64Value>| number.map_or(0, |number| number.value);
    let cpu = stats.cpu?;
    let memory = stats.memory.unwrap_or_default();
    Some(Usage {
        uid: label(label::POD_UID)?,
        namespace: label(label::POD_NAMESPACE)?,
        pod: label(label::POD_NAME)?,
        container: label(label::CONTAINER_NAME)?,
        at: cpu.timestamp,
        cpu_nanos: value(cpu.usage_core_nano_seconds),
        working_set: value(memory.working_set_bytes),
        usage: value(memory.usage_bytes),
    })
}

/// Counters of the last question, so that the next one can say how fast they grow.
static BEFORE: Mutex<BTreeMap<String, (i64, u64, u64)>> = Mutex::new(BTreeMap::new());
/// Rates over less than this are noise; the rate of the question before stands.
const MIN_WINDOW_NANOS: i64 = 1_000_000_000;

/// Nanoseconds of CPU a second, since the last question that is long enough ago.
fn rate(key: &str, at: i64, counter: u64) -> u64 {
    let mut before = BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if before.len() > 10_000 {
        before.clear();
    }
    let Some((then, old, last)) = before.get(key).copied() else {
        before.insert(key.to_owned(), (at, counter, 0));
        return 0;
    };
    if at - then < MIN_WINDOW_NANOS {
        return last;
    }
    let grown = u128::from(counter.saturating_sub(old));
    let now = u64::try_from(grown * 1_000_000_000 / (at - then) as u128).unwrap_or(u64::MAX);
    before.insert(key.to_owned(), (at, counter, now));
    now
}

/// `/stats/summary`: the node and its pods.
pub(super) async fn summary(pods: &Pods) -> Answer {
    let containers = match usage(pods).await {
        Ok(containers) => containers,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let now = clock::now();
    let time = clock::rfc3339(now);
    let mut by_pod: BTreeMap<(String, String, String), Vec<Value>> = BTreeMap::new();
    let mut sums: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for one in &containers {
        let cores = rate(&format!("{}/{}", one.uid, one.container), one.at, one.cpu_nanos);
        let sum = sums.entry(one.uid.clone()).or_default();
        *sum = (sum.0 + cores, sum.1 + one.cpu_nanos, sum.2 + one.working_set);
        by_pod.entry((one.namespace.clone(), one.pod.clone(), one.uid.clone())).or_default().push(json!({
            "name": one.container,
            "cpu": {"time": time, "usageNanoCores": cores, "usageCoreNanoSeconds": one.cpu_nanos},
            "memory": {"time": time, "usageBytes": one.usage, "workingSetBytes": one.working_set},
        }));
    }
    let pod_stats: Vec<Value> = by_pod
        .into_iter()
        .map(|((namespace, name, uid), containers)| {
            let (cores, nanos, memory) = sums[&uid];
            json!({
                "podRef": {"name": name, "namespace": namespace, "uid": uid},
                "cpu": {"time": time, "usageNanoCores": cores, "usageCoreNanoSeconds": nanos},
                "memory": {"time": time, "workingSetBytes": memory},
                "containers": containers,
            })
        })
        .collect();
    let busy = machine::cpu_busy_nanos().unwrap_or(0);
    let total = pods.shared().node_memory;
    let available = machine::meminfo("MemAvailable").unwrap_or(0);
    json(&json!({
        "node": {
            "nodeName": pods.shared().config.node_name,
            "cpu": {"time": time, "usageNanoCores": rate("node", now.0 * 1000, busy), "usageCoreNanoSeconds": busy},
            "memory": {"time": time, "availableBytes": available, "usageBytes": total - available, "workingSetBytes": total - available},
        },
        "pods": pod_stats,
    }))
}

const MAX_TELEMETRY_BYTES: usize = 32 << 20;

/// The proxy's telemetry, for the control plane, which cannot reach the node's loopback.
pub(super) async fn telemetry(pods: &Pods) -> Answer {
    let address = pods.shared().config.proxy_admin.clone();
    match tokio::time::timeout(Duration::from_secs(5), fetch(&address)).await {
        Ok(Ok(body)) => typed(StatusCode::OK, "application/json", body),
        Ok(Err(why)) => text(StatusCode::BAD_GATEWAY, format!("the node's proxy at {address}: {why}")),
        Err(_) => text(StatusCode::GATEWAY_TIMEOUT, format!("the node's proxy at {address} does not answer")),
    }
}

async fn fetch(address: &str) -> Result<Bytes, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let request = Request::get("/telemetry").header("host", address).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string());
    }
    let body = Limited::new(answer.into_body(), MAX_TELEMETRY_BYTES).collect().await;
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}

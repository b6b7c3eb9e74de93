//! End to end: pods created through the API until the last is bound, with all controllers running and nodes as API objects. What stands
//! beside kube-scheduler with kube-apiserver and etcd.

use crate::api::{Server, ready};
use crate::placement::Options;
use crate::report::Report;
use bytes::Bytes;
use client::{EventKind, HttpsApi, ListOptions, ObjectApi, Resource};
use futures_util::StreamExt;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Name, nodes, pods, and whether no two pods of an application may share a node.
pub const ALL: [(&str, usize, usize, bool); 3] =
    [("api_1000", 1_000, 10_000, false), ("api_5000", 5_000, 10_000, false), ("api_anti_affinity", 1_000, 2_000, true)];

const PODS: Resource = Resource { group: "", version: "v1", plural: "pods" };
const NODES: Resource = Resource { group: "", version: "v1", plural: "nodes" };
/// Clients, each with a connection of its own.
const CLIENTS: usize = 32;
/// The last pod is bound within this, or the bench fails.
const PATIENCE: Duration = Duration::from_secs(600);

pub fn run(
    name: &str,
    nodes: usize,
    pods: usize,
    apart: bool,
    options: &Options,
    report: &mut Report,
) -> Result<(), String> {
    let Some(binary) = &options.binary else {
        println!("SKIPPED {name}: DIOLKOS_BIN does not name the binary; run it with `cargo xtask bench placement`");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let dir = PathBuf::from(format!("/var/tmp/diolkos-bench-{name}"));
    let work = measure(name, nodes, pods, apart, binary, &dir, report);
    runtime.map_err(|error| error.to_string())?.block_on(work)?;
    std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())
}

fn node(n: usize) -> Bytes {
    let name = format!("node-{n:05}");
    let room = json!({"cpu": "32", "memory": "128Gi", "pods": "110"});
    Bytes::from(
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", n % 3)}},
            "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}})
        .to_string(),
    )
}

fn pod(n: usize, apart: bool) -> Bytes {
    let app = format!("app-{}", n % 4);
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}});
    let affinity = if apart {
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    } else {
        json!({})
    };
    Bytes::from(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{n:06}"), "labels": {"app": app}},
            "spec": {"affinity": affinity,
                // Nodes without agents are taken for lost after a while; that is not what is measured.
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "main", "image": "registry.example/pause:1",
                    "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}}}]}})
        .to_string(),
    )
}

/// Creates so many objects by several clients.
async fn create(
    dir: &Path,
    of: Resource,
    count: usize,
    make: impl Fn(usize) -> Bytes + Send + Sync + 'static,
) -> Result<(), String> {
    let (next, make) = (Arc::new(AtomicUsize::new(0)), Arc::new(make));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let api = HttpsApi::from_kubeconfig(&dir.join("admin.kubeconfig")).map_err(|error| error.to_string())?;
        let (next, make) = (next.clone(), make.clone());
        clients.push(tokio::spawn(async move {
            let namespace = if of == PODS { "default" } else { "" };
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok::<(), String>(());
                }
                api.create(of, namespace, None, make(n)).await.map_err(|error| error.to_string())?;
            }
        }));
    }
    for client in clients {
        client.await.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// Waits until so many pods are bound.
async fn bound(api: HttpsApi, revision: u64, count: usize) -> Result<(), String> {
    let options = ListOptions { namespace: Some("default".into()), ..ListOptions::default() };
    let mut events = api.watch(PODS, options, revision).await.map_err(|error| error.to_string())?;
    let mut seen = vec![false; count];
    let mut left = count;
    while left > 0 {
        let event = events.next().await.ok_or("the watch ended")?.map_err(|error| error.to_string())?;
        if event.kind != EventKind::Modified {
            continue;
        }
        let object: serde_json::Value = serde_json::from_slice(&event.object).map_err(|error| error.to_string())?;
        let number =
            object["metadata"]["name"].as_str().and_then(|name| name.strip_prefix("pod-")?.parse::<usize>().ok());
        if let Some(seen) = number.and_then(|number| seen.get_mut(number))
            && object["spec"]["nodeName"].is_string()
            && !std::mem::replace(seen, true)
        {
            left -= 1;
        }
    }
    Ok(())
}

async fn measure(
    name: &str,
    nodes: usize,
    pods: usize,
    apart: bool,
    binary: &Path,
    dir: &Path,
    report: &mut Report,
) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    let server = Server::start(binary, dir)?;
    let api = ready(dir).await?;
    create(dir, NODES, nodes, node).await?;
    let revision = api.list(PODS, ListOptions::default()).await.map_err(|error| error.to_string())?.revision;
    let waiting = tokio::spawn(bound(api, revision, pods));
    let (begun, cpu) = (Instant::now(), server.cpu_s());
    create(dir, PODS, pods, move |n| pod(n, apart)).await?;
    let created = begun.elapsed().as_secs_f64();
    let all = tokio::time::timeout(PATIENCE, waiting).await;
    all.map_err(|_| format!("{name}: not all pods were bound within {} s", PATIENCE.as_secs()))?
        .map_err(|error| error.to_string())??;
    let elapsed = begun.elapsed().as_secs_f64();
    report.add(name, "bound_per_s", pods as f64 / elapsed, "pods/s");
    report.add(name, "created_per_s", pods as f64 / created, "pods/s");
    report.add(name, "server_cpu_a_pod", (server.cpu_s() - cpu) * 1e3 / pods as f64, "ms");
    Ok(())
}

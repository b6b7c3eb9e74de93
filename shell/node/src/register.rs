//! The Node object and its Lease: how the cluster knows this machine, and that it is alive.

use crate::machine::Machine;
use crate::runtime::Runtime;
use crate::{Config, clock, resource};
use bytes::Bytes;
use client::{ApiError, ObjectApi, PatchKind};
use cri::Image;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The version that the node says it is: the API that it implements, and who it is.
pub const KUBELET_VERSION: &str = "v1.37.0-diolkos";

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i64 = 40;
const LEASE_PERIOD: Duration = Duration::from_secs(10);
const CHECK_PERIOD: Duration = Duration::from_secs(10);
/// A status that did not change is still said this often.
const REPORT_PERIOD: Duration = Duration::from_secs(300);
/// As long as the kubelet's: a runtime that is restarted within it makes no node unready.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(500);
const MAX_IMAGES: usize = 50;

/// What the Node object says, and where.
pub struct Registrar {
    pub config: Config,
    pub api: Arc<dyn ObjectApi>,
    pub runtime: Runtime,
    pub machine: Machine,
}

impl Registrar {
    /// Makes the Node object, or brings its labels up to date. Returns its `spec.podCIDR`, when the control plane gave it one.
    ///
    /// # Errors
    /// The API server refused.
    pub async fn register(&self) -> Result<Option<String>, ApiError> {
        let name = &self.config.node_name;
        let body = Bytes::from(self.node().to_string());
        let node = match self.api.create(resource::NODES, "", None, body).await {
            Ok(node) => node,
            Err(error) if error.is_conflict() => {
                let patch = json!({"metadata": {"labels": self.labels()}});
                self.api
                    .patch(resource::NODES, "", name, None, PatchKind::Merge, Bytes::from(patch.to_string()))
                    .await?
            }
            Err(error) => return Err(error),
        };
        let node: Value = serde_json::from_slice(&node).unwrap_or_default();
        Ok(node["spec"]["podCIDR"].as_str().map(str::to_owned))
    }

    /// Keeps status and lease current for ever.
    pub async fn keep(self: Arc<Self>) {
        tokio::join!(self.keep_status(), self.keep_lease());
    }

    async fn keep_status(&self) {
        let mut said: Option<(Value, Instant)> = None;
        let mut transitions = Transitions::default();
        let mut well: Option<Instant> = None;
        loop {
            let problem = match self.problem().await {
                None => {
                    well = Some(Instant::now());
                    None
                }
                // Containers run on without their runtime for a while; it is being started again.
                Some(_) if well.is_some_and(|at| at.elapsed() < RUNTIME_PATIENCE) => None,
                problem => problem,
            };
            let mut status = self.status(clock::now(), problem).await;
            transitions.note(&mut status["conditions"]);
            // Heartbeats alone are no news.
            let quiet = without_times(&status);
            let due = said.as_ref().is_none_or(|(old, at)| *old != quiet || at.elapsed() > REPORT_PERIOD);
            if due {
                match self.patch_status(&status).await {
                    Ok(()) => said = Some((quiet, Instant::now())),
                    Err(error) if error.is_not_found() => {
                        // Somebody removed the Node: it is registered again, as a kubelet that restarts would.
                        let _ = self.register().await;
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "node status not published yet");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            // Until it is ready, it is looked at often: a start is waited for.
            let ready = status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            tokio::time::sleep(if ready { CHECK_PERIOD } else { RETRY / 5 }).await;
        }
    }

    async fn patch_status(&self, status: &Value) -> Result<(), ApiError> {
        let body = Bytes::from(json!({"status": status}).to_string());
        let name = &self.config.node_name;
        self.api.patch(resource::NODES, "", name, Some("status"), PatchKind::Strategic, body).await.map(drop)
    }

    async fn keep_lease(&self) {
        loop {
            let pause = match self.renew().await {
                Ok(()) => LEASE_PERIOD,
                Err(error) => {
                    tracing::debug!(%error, "lease not renewed");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn renew(&self) -> Result<(), ApiError> {
        let name = &self.config.node_name;
        let spec = json!({
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": clock::rfc3339_micro(clock::now()),
        });
        let patch = Bytes::from(json!({"spec": spec}).to_string());
        match self.api.patch(resource::LEASES, LEASE_NAMESPACE, name, None, PatchKind::Merge, patch).await {
            Err(error) if error.is_not_found() => {
                let node: Value =
                    serde_json::from_slice(&self.api.get(resource::NODES, "", name).await?).unwrap_or_default();
                let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}]);
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": owner},
                    "spec": spec,
                });
                self.api.create(resource::LEASES, LEASE_NAMESPACE, None, Bytes::from(lease.to_string())).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    fn labels(&self) -> Value {
        let (name, architecture) = (&self.config.node_name, self.machine.architecture);
        let mut labels = json!({
            "kubernetes.io/hostname": name,
            "kubernetes.io/arch": architecture,
            "kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": architecture,
            "beta.kubernetes.io/os": "linux",
        });
        for (key, value) in &self.config.labels {
            labels[key] = json!(value);
        }
        labels
    }

    fn node(&self) -> Value {
        let taints = self.config.taints.iter();
        let taints: Vec<Value> =
            taints.map(|(key, value, effect)| json!({"key": key, "value": value, "effect": effect})).collect();
        let mut spec = json!({"podCIDR": self.config.pod_cidr, "podCIDRs": [self.config.pod_cidr]});
        if !taints.is_empty() {
            spec["taints"] = json!(taints);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.config.node_name, "labels": self.labels()},
            "spec": spec,
            "status": {"capacity": self.resources(false), "allocatable": self.resources(true)},
        })
    }

    fn resources(&self, allocatable: bool) -> Value {
        let (cpu, memory) = self.machine.allocatable(&self.config);
        let cpu = if allocatable { format!("{cpu}m") } else { self.machine.cpus.to_string() };
        let cpu = cpu.strip_suffix("000m").map_or(cpu.clone(), str::to_owned);
        let memory = if allocatable { memory } else { self.machine.memory };
        json!({
            "cpu": cpu,
            "memory": format!("{}Ki", memory / 1024),
            "ephemeral-storage": format!("{}Ki", self.machine.disk / 1024),
            "pods": self.config.max_pods.to_string(),
        })
    }

    /// Why the node cannot run pods.
    async fn problem(&self) -> Option<String> {
        match &self.runtime.status().await {
            Err(error) => Some(format!("container runtime is down: {error}")),
            Ok(status) => status
                .conditions
                .iter()
                .find(|condition| !condition.status && condition.r#type.ends_with("Ready"))
                .map(|c| format!("{} is false: reason:{} message:{}", c.r#type, c.reason, c.message)),
        }
    }

    async fn status(&self, now: model::Timestamp, problem: Option<String>) -> Value {
        let (version, images) = tokio::join!(self.runtime.version(), self.runtime.list_images());
        let version = version.map_or_else(|_| "unknown".to_owned(), |version| version.runtime_version);
        let time = clock::rfc3339(now);
        let name = &self.config.node_name;
        let machine = &self.machine;
        json!({
            "addresses": [
                {"type": "InternalIP", "address": self.config.node_ip},
                {"type": "Hostname", "address": name},
            ],
            "capacity": self.resources(false),
            "allocatable": self.resources(true),
            "conditions": conditions(problem.as_deref(), disk_is_full(&self.config), memory_is_low(), &time),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.config.port}},
            "nodeInfo": {
                "machineID": machine.machine_id,
                "systemUUID": machine.machine_id,
                "bootID": machine.boot_id,
                "kernelVersion": machine.kernel,
                "osImage": machine.os_image,
                "containerRuntimeVersion": format!("containerd://{version}"),
                "kubeletVersion": KUBELET_VERSION,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": machine.architecture,
            },
            "images": images.map(|images| image_list(&images)).unwrap_or_default(),
        })
    }
}

/// Since when each condition is as it is.
#[derive(Default)]
struct Transitions(BTreeMap<String, (Value, Value)>);

impl Transitions {
    /// Fills in `lastTransitionTime`: the heartbeat at which the condition's status was first seen.
    fn note(&mut self, conditions: &mut Value) {
        for condition in conditions.as_array_mut().into_iter().flatten() {
            let kind = condition["type"].as_str().unwrap_or_default().to_owned();
            let now = (condition["status"].clone(), condition["lastHeartbeatTime"].clone());
            let known = self.0.entry(kind).or_insert_with(|| now.clone());
            if known.0 != now.0 {
                *known = now;
            }
            condition["lastTransitionTime"] = known.1.clone();
        }
    }
}

fn conditions(problem: Option<&str>, disk: bool, memory: bool, time: &str) -> Value {
    // The kubelet's own words: people and tools look for them.
    let pressure = |kind: &str, holds: bool, is: &str, is_not: &str, words: &str, not: &str| {
        let (status, reason, message) = if holds { ("True", is, words) } else { ("False", is_not, not) };
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": time})
    };
    let ready = match problem {
        None => json!({"status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}),
        Some(why) => json!({"status": "False", "reason": "KubeletNotReady", "message": why}),
    };
    let mut ready = ready;
    ready["type"] = json!("Ready");
    ready["lastHeartbeatTime"] = json!(time);
    json!([
        pressure(
            "MemoryPressure",
            memory,
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            "kubelet has insufficient memory available",
            "kubelet has sufficient memory available"
        ),
        pressure(
            "DiskPressure",
            disk,
            "KubeletHasDiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has disk pressure",
            "kubelet has no disk pressure"
        ),
        pressure(
            "PIDPressure",
            false,
            "KubeletHasInsufficientPID",
            "KubeletHasSufficientPID",
            "kubelet has insufficient PID available",
            "kubelet has sufficient PID available"
        ),
        ready,
    ])
}

/// The kubelet's default threshold for evictions.
fn memory_is_low() -> bool {
    crate::machine::meminfo("MemAvailable").is_some_and(|available| available < 100 << 20)
}

/// So many free bytes are always enough for a node to work with: a tenth of a large disk, the kubelet's default, is no pressure.
const DISK_ENOUGH: u64 = 5 << 30;

fn disk_is_full(config: &Config) -> bool {
    nix::sys::statvfs::statvfs(&config.data_dir).is_ok_and(|fs| {
        let available = fs.blocks_available() * fs.fragment_size();
        available < DISK_ENOUGH.min(fs.blocks() * fs.fragment_size() / 10)
    })
}

fn image_list(images: &[Image]) -> Value {
    let mut images: Vec<&Image> = images.iter().collect();
    images.sort_by_key(|image| (std::cmp::Reverse(image.size), image.id.clone()));
    images.truncate(MAX_IMAGES);
    let entry = |image: &&Image| {
        let names: Vec<&String> = image.repo_digests.iter().chain(&image.repo_tags).take(5).collect();
        json!({"names": names, "sizeBytes": image.size})
    };
    images.iter().map(entry).collect()
}

fn without_times(status: &Value) -> Value {
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("lastHeartbeatTime");
        }
    }
    status
}

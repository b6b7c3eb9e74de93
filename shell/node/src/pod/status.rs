//! `status` of a Pod, in the words that kubectl prints.

use super::observe::{Observed, Run, RunState};
use super::phase;
use super::spec::Pod;
use crate::clock;
use model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

macro_rules! written {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name { $($(#[$field_doc])* #[serde(skip_serializing_if = "is_default")] pub $field: $type),* }
    )*};
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

written! {
    PodStatus {
        observed_generation: i64, phase: String, conditions: Vec<Condition>, message: String, reason: String,
        #[serde(rename = "hostIP")] host_ip: String,
        #[serde(rename = "hostIPs")] host_ips: Vec<Ip>,
        #[serde(rename = "podIP")] pod_ip: String,
        #[serde(rename = "podIPs")] pod_ips: Vec<Ip>,
        start_time: String, init_container_statuses: Vec<ContainerStatus>, container_statuses: Vec<ContainerStatus>,
        qos_class: String,
    }
    Ip { ip: String }
    Condition {
        #[serde(rename = "type")] kind: String,
        status: String, reason: String, message: String, last_transition_time: String, observed_generation: i64,
    }
    State { waiting: Option<Waiting>, running: Option<Running>, terminated: Option<Terminated> }
    Waiting { reason: String, message: String }
    Running { started_at: String }
}

/// `containerStatuses[]`. Flags and counts are written even when false or zero, as the kubelet does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    pub name: String,
    pub state: State,
    pub last_state: State,
    pub ready: bool,
    pub restart_count: u32,
    pub image: String,
    #[serde(rename = "imageID")]
    pub image_id: String,
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    pub exit_code: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub started_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub finished_at: String,
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
}

impl Waiting {
    /// The container was there: the failure is also how its run ended.
    pub(super) fn is_end(&self) -> bool {
        matches!(self.reason.as_str(), "RunContainerError" | "PostStartHookError")
    }
}

/// What probes say of one running container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The startup probe passed, or there is none.
    pub started: bool,
    /// The readiness probe passes, or there is none.
    pub ready: bool,
}

/// Everything besides the pod and the runtime's state that a status is made of.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// By container id.
    pub health: BTreeMap<String, Health>,
    /// Why containers that do not run are waiting, by container name.
    pub waiting: BTreeMap<String, Waiting>,
    /// The pod is being ended: containers are not started any more.
    pub ending: bool,
    /// The pod was ended by the node: phase Failed with this reason and message.
    pub failed: Option<Waiting>,
    /// The node's address.
    pub host_ip: String,
    /// When the node took the pod.
    pub start_time: String,
    pub now: Timestamp,
}

/// The status of `pod`. `before` is the last one published: what it says of containers that are gone is kept.
pub fn pod_status(pod: &Pod, observed: &Observed, before: &PodStatus, facts: &Facts) -> PodStatus {
    let has_init = pod.spec.init_containers.iter().any(|c| !c.is_sidecar());
    let initialized = pod.spec.containers.iter().any(|c| observed.latest(&c.name).is_some());
    let default_reason = if has_init && !initialized { "PodInitializing" } else { "ContainerCreating" };
    let statuses = |containers: &[super::spec::Container], before: &[ContainerStatus], reason: &str| {
        let status = |c: &super::spec::Container| {
            let old = before.iter().find(|old| old.name == c.name);
            container_status(&c.name, &c.image, observed, old, facts, reason)
        };
        containers.iter().map(status).collect::<Vec<_>>()
    };
    let init_reason = if has_init || !pod.spec.init_containers.is_empty() { "PodInitializing" } else { default_reason };
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        init_container_statuses: statuses(&pod.spec.init_containers, &before.init_container_statuses, init_reason),
        container_statuses: statuses(&pod.spec.containers, &before.container_statuses, default_reason),
        host_ip: facts.host_ip.clone(),
        host_ips: vec![Ip { ip: facts.host_ip.clone() }],
        start_time: if before.start_time.is_empty() { facts.start_time.clone() } else { before.start_time.clone() },
        qos_class: super::resources::qos(pod).as_str().to_owned(),
        ..PodStatus::default()
    };
    for sidecar in pod.spec.init_containers.iter().filter(|c| c.is_sidecar()) {
        // A sidecar is ready or not like any container; a plain init container is ready when it is done.
        if let Some(status) = status.init_container_statuses.iter_mut().find(|s| s.name == sidecar.name) {
            status.ready &= status.state.running.is_some();
        }
    }
    for plain in pod.spec.init_containers.iter().filter(|c| !c.is_sidecar()) {
        if let Some(status) = status.init_container_statuses.iter_mut().find(|s| s.name == plain.name) {
            status.ready = status.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
            status.started = Some(status.state.running.is_some());
        }
    }
    status.phase = match (&facts.failed, before.phase.as_str()) {
        (_, end @ ("Succeeded" | "Failed")) => end.to_owned(),
        (Some(_), _) if !observed.any_running() => "Failed".to_owned(),
        _ => phase::of(pod, &status, facts.ending).to_owned(),
    };
    match &facts.failed {
        Some(why) => (status.reason, status.message) = (why.reason.clone(), why.message.clone()),
        None if phase::is_terminal(&before.phase) => {
            (status.reason, status.message) = (before.reason.clone(), before.message.clone());
        }
        None => {}
    }
    let ips: Vec<Ip> = observed.ips.iter().map(|ip| Ip { ip: ip.to_string() }).collect();
    // The address of a pod that ended stays readable.
    let ended = facts.ending || phase::is_terminal(&status.phase);
    status.pod_ips = match () {
        () if pod.host_network() && !observed.sandboxes.is_empty() => status.host_ips.clone(),
        () if ips.is_empty() && ended => before.pod_ips.clone(),
        () => ips,
    };
    status.pod_ip = status.pod_ips.first().map_or_else(String::new, |ip| ip.ip.clone());
    status.conditions = phase::conditions(pod, &status, observed, before, facts.now);
    status
}

fn container_status(
    name: &str,
    image: &str,
    observed: &Observed,
    before: Option<&ContainerStatus>,
    facts: &Facts,
    default_reason: &str,
) -> ContainerStatus {
    let mut runs = observed.runs(name);
    let latest = runs.next();
    let waiting = facts.waiting.get(name);
    let mut status = ContainerStatus { name: name.to_owned(), image: image.to_owned(), ..ContainerStatus::default() };
    let Some(latest) = latest else {
        return without_run(status, before, facts, waiting, default_reason);
    };
    status.restart_count = latest.attempt;
    latest.image_name(image).clone_into(&mut status.image);
    status.image_id.clone_from(&latest.image_ref);
    status.container_id = container_id(&latest.id);
    status.last_state.terminated = runs.find(|run| run.state == RunState::Exited).map(terminated);
    if status.last_state.terminated.is_none()
        && let Some(old) = before
        && old.restart_count == latest.attempt
    {
        // The run before may have been removed from the runtime.
        status.last_state = old.last_state.clone();
    }
    match latest.state {
        RunState::Running => {
            let health = facts.health.get(&latest.id).copied().unwrap_or(Health { started: true, ready: true });
            status.state.running =
                Some(Running { started_at: latest.started_at.map_or_else(String::new, clock::rfc3339) });
            status.started = Some(health.started);
            status.ready = health.started && health.ready && !latest.id.is_empty();
        }
        RunState::Exited => {
            let ended = terminated(latest);
            match waiting {
                // It will be started again: the end moves to lastState, and the reason for waiting shows.
                Some(waiting) if !facts.ending => {
                    status.state.waiting = Some(waiting.clone());
                    status.last_state.terminated = Some(ended);
                }
                _ => status.state.terminated = Some(ended),
            }
            status.started = Some(false);
        }
        RunState::Created => {
            let default = Waiting { reason: default_reason.to_owned(), message: String::new() };
            status.state.waiting = Some(waiting.cloned().unwrap_or(default));
            status.started = Some(false);
        }
    }
    status
}

/// The runtime knows no run of this container: not started yet, or lost.
fn without_run(
    mut status: ContainerStatus,
    before: Option<&ContainerStatus>,
    facts: &Facts,
    waiting: Option<&Waiting>,
    default_reason: &str,
) -> ContainerStatus {
    status.started = Some(false);
    if let Some(old) = before {
        status.restart_count = old.restart_count;
        status.last_state = old.last_state.clone();
        if old.state.terminated.is_some() && waiting.is_none() {
            return old.clone();
        }
        if old.state.running.is_some() {
            // It ran and nobody can say any more how it ended (a removed sandbox, a lost disk).
            let lost = Terminated {
                exit_code: 137,
                reason: "ContainerStatusUnknown".to_owned(),
                message: "The container could not be located when the pod was terminated".to_owned(),
                ..Terminated::default()
            };
            if facts.ending {
                status.state.terminated = Some(lost);
                return status;
            }
            status.last_state.terminated = Some(lost);
        }
    }
    let default = Waiting { reason: default_reason.to_owned(), message: String::new() };
    status.state.waiting = Some(waiting.cloned().unwrap_or(default));
    status
}

/// `containerID` as the API writes it.
pub fn container_id(id: &str) -> String {
    format!("containerd://{id}")
}

fn terminated(run: &Run) -> Terminated {
    let time = |at: Option<Timestamp>| at.map_or_else(String::new, clock::rfc3339);
    let default = if run.exit_code == 0 { "Completed" } else { "Error" };
    Terminated {
        exit_code: run.exit_code,
        reason: if run.reason.is_empty() { default.to_owned() } else { run.reason.clone() },
        message: run.message.clone(),
        started_at: time(run.started_at),
        finished_at: time(run.finished_at),
        container_id: container_id(&run.id),
    }
}

/// The strategic merge patch that turns what the API server has into `status`. Conditions are merged by type, so those of others
/// (readiness gates, the scheduler's) stay. The uid refuses a new pod of the same name.
pub fn patch(uid: &str, status: &PodStatus, server: &PodStatus) -> Value {
    let mut out = serde_json::to_value(status).unwrap_or_default();
    // A field that is not said any more has to be said as null.
    for (field, old) in [("message", &server.message), ("reason", &server.reason), ("podIP", &server.pod_ip)] {
        if !old.is_empty() && out.get(field).is_none() {
            out[field] = Value::Null;
        }
    }
    for (field, new, old) in
        [("podIPs", &status.pod_ips, &server.pod_ips), ("hostIPs", &status.host_ips, &server.host_ips)]
    {
        let gone = old.iter().filter(|ip| !new.contains(ip)).map(|ip| json!({"$patch": "delete", "ip": ip.ip}));
        let mut items: Vec<Value> = gone.collect();
        if !items.is_empty() {
            items.extend(new.iter().map(|ip| json!({"ip": ip.ip})));
            out[field] = Value::Array(items);
        }
    }
    json!({"metadata": {"uid": uid}, "status": out})
}

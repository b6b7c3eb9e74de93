//! What to do next for one pod: a pure function of what is wanted and what the runtime shows.
//!
//! The rules are the kubelet's: a sandbox first, init containers one after the other, sidecars as soon as their turn comes and for
//! ever after, the containers then all at once; ended containers again by the restart policy, later after every failure.

use super::observe::{Observed, Run, RunState};
use super::spec::{Container, Pod, RestartPolicy};
use super::status::Waiting;
use crate::backoff::Backoff;
use model::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    /// Running containers that a liveness or startup probe gave up on, by id.
    pub unhealthy: &'a BTreeMap<String, Unhealthy>,
    /// Running containers that have started, by id: their startup probe passed, or they have none.
    pub started: &'a BTreeSet<String>,
    pub backoff: &'a Backoff,
    pub now: Timestamp,
}

/// A probe gave up on a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    /// `liveness` or `startup`.
    pub probe: &'static str,
    /// The probe's own grace period.
    pub grace_s: Option<i64>,
}

/// Stop one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub id: String,
    pub name: String,
    pub why: String,
    pub grace_s: Option<i64>,
}

/// Make and start one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub name: String,
    /// Its restart count.
    pub attempt: u32,
    /// When its last run ended badly enough to wait longer before the next start.
    pub failed: Option<Timestamp>,
}

/// Orders, carried out in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Stop every container and the sandbox: the sandbox is broken, or the pod is done.
    pub stop_pod: bool,
    /// Containers to stop one by one.
    pub stop: Vec<Stop>,
    /// Make a sandbox with this attempt.
    pub sandbox: Option<u32>,
    /// Start these; with `sandbox`, in the new sandbox.
    pub start: Vec<Start>,
    /// Why containers that should run are not started now.
    pub waiting: BTreeMap<String, Waiting>,
    /// When to plan again though nothing happened.
    pub wake_at: Option<Timestamp>,
}

/// The key of a container in the back-off table.
pub fn backoff_key(pod: &Pod, container: &str) -> String {
    format!("{}/{container}", pod.metadata.uid)
}

/// What a container is made from; when it changes under a running container, the container is replaced. Only the image may
/// change in a running pod.
pub fn container_hash(container: &Container) -> String {
    // FNV-1a: stable between builds and machines, which std's hasher does not promise.
    let bytes = container.name.bytes().chain([0]).chain(container.image.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// Plans the next orders for a pod that is to run.
pub fn plan(at: Situation<'_>) -> Plan {
    let needs_network = !at.pod.host_network();
    let sandbox = at.observed.ready_sandbox();
    match sandbox {
        Some(_) if !needs_network || !at.observed.ips.is_empty() => running_sandbox(at),
        _ => new_sandbox(at),
    }
}

/// There is no sandbox that anything can run in.
fn new_sandbox(at: Situation<'_>) -> Plan {
    let attempt = at.observed.sandboxes.iter().map(|s| s.attempt + 1).max().unwrap_or(0);
    let stop_pod = at.observed.any_running() || at.observed.sandboxes.iter().any(|s| s.ready);
    let policy = at.pod.spec.restart_policy;
    let ran = !at.observed.runs.is_empty();
    if policy == RestartPolicy::Never && attempt > 0 && ran {
        return Plan { stop_pod, ..Plan::default() };
    }
    let done = |c: &Container| policy == RestartPolicy::OnFailure && at.observed.latest(&c.name).is_some_and(succeeded);
    if at.pod.spec.containers.iter().all(done) {
        return Plan { stop_pod, ..Plan::default() };
    }
    let mut plan = Plan { stop_pod, sandbox: Some(attempt), ..Plan::default() };
    // A new network namespace: init containers run again, as they may have prepared it.
    match at.pod.spec.init_containers.first() {
        Some(first) => plan.start.push(start_of(at, first)),
        None => plan.start.extend(at.pod.spec.containers.iter().filter(|c| !done(c)).map(|c| start_of(at, c))),
    }
    plan
}

fn running_sandbox(at: Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    let initialized = at.pod.spec.containers.iter().any(|c| in_sandbox(at, c).is_some());
    let go_on = if initialized { keep_sidecars(at, &mut plan) } else { initialize(at, &mut plan) };
    match go_on {
        Initialized::No => return plan,
        Initialized::Failed => return Plan { stop_pod: true, ..Plan::default() },
        Initialized::Yes => {}
    }
    let mut alive = false;
    for container in &at.pod.spec.containers {
        match in_sandbox(at, container) {
            None => {
                alive = true;
                start(at, container, &mut plan);
            }
            Some(run) if run.state == RunState::Running => {
                alive = true;
                check_running(at, container, run, &mut plan);
            }
            Some(run) if should_restart(at.pod.spec.restart_policy, run) => {
                alive = true;
                start(at, container, &mut plan);
            }
            Some(_) => {}
        }
    }
    if alive { plan } else { Plan { stop_pod: true, ..Plan::default() } }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Initialized {
    Yes,
    No,
    Failed,
}

/// Walks the init containers to the first that is not done.
fn initialize(at: Situation<'_>, plan: &mut Plan) -> Initialized {
    for container in &at.pod.spec.init_containers {
        let Some(run) = in_sandbox(at, container) else {
            start(at, container, plan);
            return Initialized::No;
        };
        match (run.state, container.is_sidecar()) {
            (RunState::Running, true) => {
                check_running(at, container, run, plan);
                if !at.started.contains(&run.id) {
                    return Initialized::No;
                }
            }
            (RunState::Running, false) => return Initialized::No,
            (_, true) => {
                start(at, container, plan);
                return Initialized::No;
            }
            (_, false) if succeeded(run) => {}
            (_, false) if at.pod.spec.restart_policy == RestartPolicy::Never && run.state == RunState::Exited => {
                return Initialized::Failed;
            }
            (_, false) => {
                start(at, container, plan);
                return Initialized::No;
            }
        }
    }
    Initialized::Yes
}

/// The pod is past its init containers: sidecars that ended are started again whatever the restart policy says.
fn keep_sidecars(at: Situation<'_>, plan: &mut Plan) -> Initialized {
    for container in at.pod.spec.init_containers.iter().filter(|c| c.is_sidecar()) {
        match in_sandbox(at, container) {
            Some(run) if run.state == RunState::Running => check_running(at, container, run, plan),
            _ => start(at, container, plan),
        }
    }
    Initialized::Yes
}

/// A container that runs: may it go on?
fn check_running(at: Situation<'_>, container: &Container, run: &Run, plan: &mut Plan) {
    let mut stop = |why: String, grace_s| {
        plan.stop.push(Stop { id: run.id.clone(), name: container.name.clone(), why, grace_s });
    };
    if !run.hash.is_empty() && run.hash != container_hash(container) {
        stop(format!("Container {} definition changed, will be restarted", container.name), None);
    } else if let Some(unhealthy) = at.unhealthy.get(&run.id) {
        let why = format!("Container {} failed {} probe, will be restarted", container.name, unhealthy.probe);
        stop(why, unhealthy.grace_s);
    }
    // What is stopped here shows as ended at the next look, and the restart policy decides then.
}

/// Starts a container now, or says when it may be.
fn start(at: Situation<'_>, container: &Container, plan: &mut Plan) {
    let order = start_of(at, container);
    let key = backoff_key(at.pod, &container.name);
    if let Some(until) = order.failed.and_then(|failed| at.backoff.until(&key, failed, at.now)) {
        let meta = &at.pod.metadata;
        let message = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(at.backoff.delay_ms(&key) / 1000),
            container.name,
            meta.name,
            meta.namespace,
            meta.uid
        );
        plan.waiting.insert(container.name.clone(), Waiting { reason: "CrashLoopBackOff".to_owned(), message });
        plan.wake_at = Some(plan.wake_at.map_or(until, |at| at.min(until)));
        return;
    }
    plan.start.push(order);
}

fn start_of(at: Situation<'_>, container: &Container) -> Start {
    let latest = at.observed.latest(&container.name);
    // The runtime may have forgotten runs that the API server still counts.
    let statuses = at.pod.status.container_statuses.iter().chain(&at.pod.status.init_container_statuses);
    let counted = statuses
        .filter(|status| status.name == container.name)
        .filter(|status| {
            status.state.running.is_some() || status.state.terminated.is_some() || !status.container_id.is_empty()
        })
        .map(|status| status.restart_count + 1)
        .max();
    let attempt = latest.map(|run| run.attempt + 1).into_iter().chain(counted).max().unwrap_or(0);
    let failed = latest.filter(|run| run.state != RunState::Running).map(|run| run.finished_at.unwrap_or(at.now));
    Start { name: container.name.clone(), attempt, failed }
}

/// The newest run of a container in the sandbox that is in use.
fn in_sandbox<'a>(at: Situation<'a>, container: &Container) -> Option<&'a Run> {
    let sandbox = at.observed.ready_sandbox()?;
    at.observed.latest(&container.name).filter(|run| run.sandbox_id == sandbox.id)
}

fn succeeded(run: &Run) -> bool {
    run.state == RunState::Exited && run.exit_code == 0
}

fn should_restart(policy: RestartPolicy, run: &Run) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => !succeeded(run),
        // A container that was made and never started (the node went down in between) has not had its one run.
        RestartPolicy::Never => run.state == RunState::Created,
    }
}

/// `10s`, `1m20s`, `5m0s`: as Go prints durations, which is what people search for.
pub fn go_duration(seconds: i64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

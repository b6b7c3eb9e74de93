//! `/diolkos/v1/workloads`: what runs, how it is, and why.

use control::Control;
use model::pod::ContainerState;
use model::{Condition, Doc, Kind, Meta, Pod, Timestamp, Truth, condition};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Workloads that are told, worst first.
const TOLD: usize = 1000;
/// Reasons of one workload.
const REASONS: usize = 5;
/// Pods of one workload that are looked into for reasons.
const PODS_LOOKED_INTO: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Degraded,
    Progressing,
    Ok,
}

struct Workload<'a> {
    kind: Kind,
    meta: &'a Meta,
    desired: i32,
    ready: i32,
    updated: i32,
    template: &'a Doc,
    conditions: &'a [Condition],
    pods: Vec<Arc<Pod>>,
}

impl Workload<'_> {
    fn reasons(&self) -> Vec<String> {
        let mut reasons = BTreeSet::new();
        for condition in self.conditions {
            let bad = match &*condition.kind {
                "Available" | "Progressing" => condition.status == Truth::False,
                "ReplicaFailure" | "Failed" => condition.status == Truth::True,
                _ => false,
            };
            if bad {
                reasons.insert(format!("{}: {}", condition.reason, condition.message));
            }
        }
        for pod in self.pods.iter().filter(|pod| !pod.is_ready() && !pod.meta.is_deleting()).take(PODS_LOOKED_INTO) {
            reasons.extend(why(pod));
        }
        reasons.into_iter().take(REASONS).collect()
    }

    fn state(&self, reasons: &[String]) -> State {
        let broken = reasons.iter().any(|reason| {
            ["BackOff", "Err", "ProgressDeadlineExceeded", "Failed", "Unschedulable", "BackoffLimitExceeded"]
                .iter()
                .any(|word| reason.contains(word))
        });
        if broken {
            State::Degraded
        } else if self.ready < self.desired || self.updated < self.desired {
            State::Progressing
        } else {
            State::Ok
        }
    }
}

/// Why a pod is not ready.
fn why(pod: &Pod) -> Option<String> {
    if let Some(scheduled) =
        condition::find(&pod.status.conditions, "PodScheduled").filter(|c| c.status == Truth::False)
    {
        return Some(format!("{}: {}", scheduled.reason, scheduled.message));
    }
    for status in pod.status.init_containers.iter().chain(&pod.status.containers) {
        match &status.state {
            ContainerState::Waiting { reason, message } if !reason.is_empty() => {
                return Some(if message.is_empty() { reason.to_string() } else { format!("{reason}: {message}") });
            }
            ContainerState::Terminated { exit_code, reason, .. } if *exit_code != 0 => {
                return Some(format!("{reason}: exit code {exit_code}"));
            }
            _ => {}
        }
    }
    condition::find(&pod.status.conditions, "Ready").filter(|c| !c.message.is_empty()).map(|c| c.message.to_string())
}

fn images(template: &Doc) -> Vec<String> {
    let template: Value = serde_json::from_str(template.text()).unwrap_or_default();
    let containers = template["spec"]["containers"].as_array().cloned().unwrap_or_default();
    containers.iter().filter_map(|container| container["image"].as_str()).map(str::to_owned).collect()
}

fn all(control: &Control) -> Vec<Workload<'_>> {
    let world = control.world();
    let pods = |uid: &str| world.controlled_pods(uid).cloned().collect::<Vec<_>>();
    let mut workloads = Vec::new();
    for deployment in world.deployments.values() {
        let sets =
            world.dependents_of(&deployment.meta.uid, Kind::ReplicaSet).filter_map(|key| world.replica_sets.get(key));
        workloads.push(Workload {
            kind: Kind::Deployment,
            meta: &deployment.meta,
            desired: deployment.replicas,
            ready: deployment.status.ready,
            updated: deployment.status.updated,
            template: &deployment.template.body,
            conditions: &deployment.status.conditions,
            pods: sets.flat_map(|set| pods(&set.meta.uid)).collect(),
        });
    }
    for set in world.stateful_sets.values() {
        workloads.push(Workload {
            kind: Kind::StatefulSet,
            meta: &set.meta,
            desired: set.replicas,
            ready: set.status.ready,
            updated: set.status.updated,
            template: &set.template.body,
            conditions: &set.status.conditions,
            pods: pods(&set.meta.uid),
        });
    }
    for set in world.daemon_sets.values() {
        workloads.push(Workload {
            kind: Kind::DaemonSet,
            meta: &set.meta,
            desired: set.status.desired,
            ready: set.status.ready,
            updated: set.status.updated,
            template: &set.template.body,
            conditions: &set.status.conditions,
            pods: pods(&set.meta.uid),
        });
    }
    for job in world.jobs.values() {
        let wanted = job.completions.unwrap_or(1);
        workloads.push(Workload {
            kind: Kind::Job,
            meta: &job.meta,
            desired: wanted,
            ready: (job.status.succeeded + job.status.ready).min(wanted),
            updated: wanted,
            template: &job.template.body,
            conditions: &job.status.conditions,
            pods: pods(&job.meta.uid),
        });
    }
    workloads
}

/// The answer.
pub fn answer(control: &Control, now: Timestamp) -> Value {
    let mut judged: Vec<(State, Vec<String>, Workload)> = all(control)
        .into_iter()
        .map(|workload| {
            let reasons = workload.reasons();
            (workload.state(&reasons), reasons, workload)
        })
        .collect();
    judged.sort_by(|(a, _, x), (b, _, y)| (a, &x.meta.key, x.kind).cmp(&(b, &y.meta.key, y.kind)));
    let truncated = judged.len() > TOLD;
    let told: Vec<Value> = judged
        .into_iter()
        .take(TOLD)
        .map(|(state, reasons, workload)| {
            json!({
                "namespace": &*workload.meta.key.namespace, "kind": workload.kind.resource().kind, "name": &*workload.meta.key.name,
                "desired": workload.desired, "ready": workload.ready, "updated": workload.updated,
                "restarts": workload.pods.iter().map(|pod| pod.restarts()).sum::<i32>(),
                "state": match state { State::Ok => "ok", State::Progressing => "progressing", State::Degraded => "degraded" },
                "reasons": reasons, "images": images(workload.template),
                "age_s": now.since_ms(workload.meta.created) / 1000,
            })
        })
        .collect();
    json!({ "workloads": told, "truncated": truncated })
}

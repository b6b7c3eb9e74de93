//! Phase and conditions of a Pod, as the kubelet derives them from container statuses.

use super::observe::Observed;
use super::spec::{Pod, RestartPolicy};
use super::status::{Condition, ContainerStatus, PodStatus};
use crate::clock;
use model::Timestamp;

/// A pod that reached one of these never leaves it.
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

#[derive(Default)]
struct Count {
    pending_init: usize,
    failed_init: usize,
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

fn count(pod: &Pod, status: &PodStatus) -> Count {
    let mut n = Count::default();
    for (container, status) in pod.spec.init_containers.iter().zip(&status.init_container_statuses) {
        let last = status.last_state.terminated.as_ref();
        if container.is_sidecar() {
            let up = status.started == Some(true) || status.state.terminated.is_some() || last.is_some();
            n.pending_init += usize::from(!up);
            continue;
        }
        match (&status.state.running, &status.state.terminated, last) {
            (Some(_), ..) => n.pending_init += 1,
            (None, Some(ended), _) => n.failed_init += usize::from(ended.exit_code != 0),
            (None, None, Some(ended)) if ended.exit_code != 0 => n.failed_init += 1,
            _ => n.pending_init += 1,
        }
    }
    for status in &status.container_statuses {
        match (&status.state.running, &status.state.terminated, &status.last_state.terminated) {
            (Some(_), ..) => n.running += 1,
            (None, Some(ended), _) => {
                n.stopped += 1;
                n.succeeded += usize::from(ended.exit_code == 0);
            }
            // Waits to be started again.
            (None, None, Some(_)) => n.stopped += 1,
            (None, None, None) => n.waiting += 1,
        }
    }
    n
}

/// The phase that container statuses add up to. `ending`: nothing is started any more.
pub fn of(pod: &Pod, status: &PodStatus, ending: bool) -> &'static str {
    let n = count(pod, status);
    let never = pod.spec.restart_policy == RestartPolicy::Never;
    if n.failed_init > 0 && (never || ending) {
        return "Failed";
    }
    let ran = n.running + n.stopped > 0;
    if (n.pending_init > 0 || n.failed_init > 0) && !ran || n.waiting > 0 {
        return "Pending";
    }
    if n.running > 0 {
        return "Running";
    }
    if n.stopped == 0 {
        return "Pending";
    }
    let all_well = n.stopped == n.succeeded;
    match pod.spec.restart_policy {
        _ if ending && all_well => "Succeeded",
        _ if ending => "Failed",
        RestartPolicy::Always => "Running",
        _ if all_well => "Succeeded",
        RestartPolicy::Never => "Failed",
        RestartPolicy::OnFailure => "Running",
    }
}

/// The conditions that the node owns. Their transition times carry over from `before` while their status does not change.
pub fn conditions(
    pod: &Pod,
    status: &PodStatus,
    observed: &Observed,
    before: &PodStatus,
    now: Timestamp,
) -> Vec<Condition> {
    let sandbox = observed.ready_sandbox().is_some() && (pod.host_network() || !observed.ips.is_empty());
    let ready = containers_ready(pod, status);
    let all = [
        ("PodReadyToStartContainers", verdict(sandbox, "", String::new())),
        ("Initialized", initialized(pod, status)),
        ("Ready", pod_ready(pod, &ready)),
        ("ContainersReady", ready.clone()),
        // The scheduler wrote it when it bound the pod; a pod that names its node itself was scheduled by whoever made it.
        ("PodScheduled", verdict(true, "", String::new())),
    ];
    let mut out = Vec::new();
    for (kind, (state, reason, message)) in all {
        let old = before.conditions.iter().find(|condition| condition.kind == kind);
        let since = old.filter(|old| old.status == state && !old.last_transition_time.is_empty());
        out.push(Condition {
            kind: kind.to_owned(),
            status: state.to_owned(),
            reason,
            message,
            last_transition_time: since.map_or_else(|| clock::rfc3339(now), |old| old.last_transition_time.clone()),
            observed_generation: pod.metadata.generation,
        });
    }
    out
}

type Verdict = (&'static str, String, String);

fn verdict(holds: bool, reason: &str, message: String) -> Verdict {
    if holds { ("True", String::new(), String::new()) } else { ("False", reason.to_owned(), message) }
}

fn names<'a>(statuses: impl Iterator<Item = &'a ContainerStatus>) -> String {
    let names: Vec<&str> = statuses.map(|status| status.name.as_str()).collect();
    format!("[{}]", names.join(" "))
}

fn initialized(pod: &Pod, status: &PodStatus) -> Verdict {
    if status.phase == "Succeeded" {
        return ("True", "PodCompleted".to_owned(), String::new());
    }
    let incomplete = |(container, status): &(&super::spec::Container, &ContainerStatus)| {
        if container.is_sidecar() { status.started != Some(true) } else { !status.ready }
    };
    let ran = status.container_statuses.iter().any(|s| s.state.running.is_some() || s.state.terminated.is_some());
    let open: Vec<_> = pod
        .spec
        .init_containers
        .iter()
        .zip(&status.init_container_statuses)
        .filter(incomplete)
        .map(|(_, s)| s)
        .collect();
    let message = format!("containers with incomplete status: {}", names(open.iter().copied()));
    verdict(open.is_empty() || ran, "ContainersNotInitialized", message)
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> Verdict {
    match status.phase.as_str() {
        "Succeeded" => return ("False", "PodCompleted".to_owned(), String::new()),
        "Failed" => return ("False", "PodFailed".to_owned(), String::new()),
        _ => {}
    }
    let sidecars = pod.spec.init_containers.iter().zip(&status.init_container_statuses);
    let sidecars = sidecars.filter(|(container, _)| container.is_sidecar()).map(|(_, status)| status);
    let unready: Vec<_> = sidecars.chain(&status.container_statuses).filter(|status| !status.ready).collect();
    let message = format!("containers with unready status: {}", names(unready.iter().copied()));
    verdict(unready.is_empty(), "ContainersNotReady", message)
}

fn pod_ready(pod: &Pod, containers: &Verdict) -> Verdict {
    if containers.0 != "True" {
        return containers.clone();
    }
    let gates = pod.spec.readiness_gates.iter().map(|gate| gate.condition_type.as_str());
    let problem = |gate: &str| match pod.status.conditions.iter().find(|condition| condition.kind == gate) {
        None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
        Some(condition) if condition.status != "True" => {
            Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {}", condition.status))
        }
        Some(_) => None,
    };
    let problems: Vec<String> = gates.filter_map(problem).collect();
    verdict(problems.is_empty(), "ReadinessGatesNotReady", problems.join(", "))
}

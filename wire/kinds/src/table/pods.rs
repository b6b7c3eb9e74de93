//! Pods: the one table with logic of its own.

use super::{AGE, Column, NAME, Row, age, name, or, since};
use crate::json::{flag, list, text};
use model::Timestamp;
use serde_json::{Value, json};

/// Columns.
pub const POD: &[Column] = &[
    NAME,
    Column::text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    Column::text("Status", "The aggregate status of the containers in this pod."),
    Column::text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    Column::text("IP", "The address of the pod.").wide(),
    Column::text("Node", "The node that the pod runs on.").wide(),
    Column::text("Nominated Node", "The node on which room is being made for the pod.").wide(),
    Column::text("Readiness Gates", "Conditions besides the containers' that make the pod ready.").wide(),
];

/// What the containers' states add up to.
struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    last_restart: String,
}

impl Summary {
    fn saw_restart(&mut self, status: &Value) {
        let finished = text(&status["lastState"]["terminated"]["finishedAt"]);
        // RFC 3339 in UTC and whole seconds, as Kubernetes writes them, sorts as text.
        if finished > self.last_restart.as_str() {
            finished.clone_into(&mut self.last_restart);
        }
    }
}

/// One row.
pub fn pod_row(pod: &Value, now: Timestamp) -> Row {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let phase = text(&status["phase"]);
    let mut summary = Summary { reason: starting_reason(status), ready: 0, restarts: 0, last_restart: String::new() };
    let mut sidecars = Summary { reason: String::new(), ready: 0, restarts: 0, last_restart: String::new() };
    let initializing = walk_init_containers(pod, &mut summary, &mut sidecars);
    let initialized = super::condition(pod, "Initialized") == "True";
    if !initializing || initialized {
        summary.restarts = sidecars.restarts;
        summary.last_restart = std::mem::take(&mut sidecars.last_restart);
        walk_containers(pod, &mut summary);
    }
    let deleting = !pod["metadata"]["deletionTimestamp"].is_null();
    if deleting && text(&status["reason"]) == "NodeLost" {
        summary.reason = "Unknown".into();
    } else if deleting && !matches!(phase, "Succeeded" | "Failed") {
        summary.reason = "Terminating".into();
    }
    let sidecar_count = list(&spec["initContainers"]).iter().filter(|c| c["restartPolicy"] == "Always").count();
    let total = list(&spec["containers"]).len() + sidecar_count;
    let restarts = if summary.restarts != 0 && !summary.last_restart.is_empty() {
        format!("{} ({} ago)", summary.restarts, since(&Value::from(summary.last_restart), now))
    } else {
        summary.restarts.to_string()
    };
    let ip = text(&status["podIPs"][0]["ip"]);
    let cells = vec![
        name(pod),
        Value::from(format!("{}/{total}", summary.ready)),
        Value::from(summary.reason),
        Value::from(restarts),
        age(pod, now),
        Value::from(or(or(ip, text(&status["podIP"])), "<none>")),
        Value::from(or(text(&spec["nodeName"]), "<none>")),
        Value::from(or(text(&status["nominatedNodeName"]), "<none>")),
        Value::from(readiness_gates(pod)),
    ];
    Row { cells, conditions: conditions(phase) }
}

fn conditions(phase: &str) -> Vec<Value> {
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": phase, "message": message})]
}

fn starting_reason(status: &Value) -> String {
    let gated =
        list(&status["conditions"]).iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated");
    let reason = text(&status["reason"]);
    if gated { "SchedulingGated".into() } else { or(reason, text(&status["phase"])).to_owned() }
}

/// Follows the init containers up to the first that is not done; true if there is one.
fn walk_init_containers(pod: &Value, summary: &mut Summary, sidecars: &mut Summary) -> bool {
    let init = list(&pod["spec"]["initContainers"]);
    for (index, status) in list(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
        let is_sidecar = init.iter().any(|c| c["name"] == status["name"] && c["restartPolicy"] == "Always");
        let restarts = status["restartCount"].as_i64().unwrap_or(0);
        summary.restarts += restarts;
        summary.saw_restart(status);
        if is_sidecar {
            sidecars.restarts += restarts;
            sidecars.saw_restart(status);
        }
        let (terminated, waiting) = (&status["state"]["terminated"], text(&status["state"]["waiting"]["reason"]));
        if !terminated.is_null() && terminated["exitCode"].as_i64().unwrap_or(0) == 0 {
            continue;
        }
        if is_sidecar && flag(&status["started"]) {
            summary.ready += usize::from(flag(&status["ready"]));
            continue;
        }
        summary.reason = if !terminated.is_null() {
            format!("Init:{}", termination(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", init.len())
        };
        return true;
    }
    false
}

fn walk_containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in list(&pod["status"]["containerStatuses"]).iter().rev() {
        summary.restarts += status["restartCount"].as_i64().unwrap_or(0);
        summary.saw_restart(status);
        let state = &status["state"];
        let waiting = text(&state["waiting"]["reason"]);
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.reason);
        } else if !state["terminated"].is_null() {
            summary.reason = termination(&state["terminated"]);
        } else if flag(&status["ready"]) && !state["running"].is_null() {
            running = true;
            summary.ready += 1;
        }
    }
    // One container is done, another still runs.
    if summary.reason == "Completed" && running {
        summary.reason = if super::condition(pod, "Ready") == "True" { "Running".into() } else { "NotReady".into() };
    }
}

fn termination(terminated: &Value) -> String {
    let reason = text(&terminated["reason"]);
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match terminated["signal"].as_i64().unwrap_or(0) {
        0 => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| super::condition(pod, text(&gate["conditionType"])) == "True").count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    /// READY, STATUS and RESTARTS of a pod.
    fn shown(pod: Value) -> String {
        let cells = pod_row(&pod, NOW).cells;
        format!("{} {} {}", text(&cells[1]), text(&cells[2]), text(&cells[3]))
    }

    fn one(status: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c"}]}, "status": status})
    }

    #[test]
    fn phases_and_reasons() {
        for (pod, expected) in [
            (one(json!({"phase": "Pending"})), "0/1 Pending 0"),
            (
                one(json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]})),
                "1/1 Running 0",
            ),
            (
                one(json!({"phase": "Running", "containerStatuses": [{"ready": false, "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"finishedAt": "2023-11-14T22:08:20Z"}}}]})),
                "0/1 CrashLoopBackOff 3 (5m ago)",
            ),
            (
                one(
                    json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
                ),
                "0/1 Completed 0",
            ),
            (one(json!({"phase": "Failed", "reason": "Evicted"})), "0/1 Evicted 0"),
            (
                one(json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]})),
                "0/1 ExitCode:3 0",
            ),
            (
                one(json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"signal": 9}}}]})),
                "0/1 Signal:9 0",
            ),
            (
                one(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]})),
                "0/1 SchedulingGated 0",
            ),
        ] {
            assert_eq!(shown(pod), expected);
        }
    }

    #[test]
    fn init_containers() {
        let pod = |statuses: Value| {
            json!({"spec": {"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "c"}]},
                "status": {"phase": "Pending", "initContainerStatuses": statuses}})
        };
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
        for (statuses, expected) in [
            (json!([{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]), "0/2 Init:0/2 0"),
            (json!([{"name": "i", "state": {"running": {}}}]), "0/2 Init:0/2 0"),
            (
                json!([{"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]),
                "0/2 Init:ImagePullBackOff 0",
            ),
            (json!([{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]), "0/2 Init:Error 0"),
            (json!([done, {"name": "s", "state": {"running": {}}}]), "0/2 Init:1/2 0"),
            (
                json!([done, {"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}]),
                "1/2 Pending 1",
            ),
        ] {
            assert_eq!(shown(pod(statuses)), expected);
        }
    }

    #[test]
    fn deletion_wins_unless_finished() {
        let mut pod = one(json!({"phase": "Running"}));
        pod["metadata"] = json!({"deletionTimestamp": "2023-11-14T22:08:20Z"});
        assert_eq!(shown(pod.clone()), "0/1 Terminating 0");
        pod["status"]["phase"] = json!("Succeeded");
        assert_eq!(shown(pod.clone()), "0/1 Succeeded 0");
        pod["status"]["reason"] = json!("NodeLost");
        assert_eq!(shown(pod), "0/1 Unknown 0");
    }

    #[test]
    fn half_done_pod_is_not_ready() {
        let status = json!({"phase": "Running", "containerStatuses": [
            {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, {"ready": true, "state": {"running": {}}}]});
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": status});
        assert_eq!(shown(pod.clone()), "1/2 NotReady 0");
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        assert_eq!(shown(pod), "1/2 Running 0");
    }

    #[test]
    fn wide_cells() {
        let pod = json!({"metadata": {"name": "p", "creationTimestamp": "2023-11-14T22:08:20Z"},
            "spec": {"nodeName": "n1", "readinessGates": [{"conditionType": "g"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "g", "status": "True"}]}});
        let cells = pod_row(&pod, NOW).cells;
        assert_eq!(cells.len(), POD.len());
        assert_eq!(cells[4..], [json!("5m"), json!("10.0.0.1"), json!("n1"), json!("<none>"), json!("1/1")]);
    }
}

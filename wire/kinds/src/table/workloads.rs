//! Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs, autoscalers, disruption budgets.

use super::{
    AGE, CONTAINERS, Column, IMAGES, NAME, Row, SELECTOR, age, container_cells, format_labels, format_selector,
    human_duration, name, number, or, selector_text, since,
};
use crate::json::{flag, list, text};
use model::Timestamp;
use serde_json::{Value, json};

/// Deployments.
pub const DEPLOYMENT: &[Column] = &[
    NAME,
    Column::text("Ready", "Number of the pod with ready state"),
    Column::text("Up-to-date", "Number of pods that have the wanted template."),
    Column::text("Available", "Number of pods that have been ready long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// A Deployment's row.
pub fn deployment_row(object: &Value, now: Timestamp) -> Row {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = container_cells(&spec["template"]["spec"]);
    Row::plain(vec![
        name(object),
        ready_of(status, spec),
        number(&status["updatedReplicas"]),
        number(&status["availableReplicas"]),
        age(object, now),
        names,
        images,
        Value::from(selector_text(&spec["selector"])),
    ])
}

fn ready_of(status: &Value, spec: &Value) -> Value {
    Value::from(format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"])))
}

/// ReplicaSets and ReplicationControllers.
pub const REPLICA_SET: &[Column] = &[
    NAME,
    Column::number("Desired", "Number of wanted pods."),
    Column::number("Current", "Number of pods that exist."),
    Column::number("Ready", "Number of ready pods."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// A ReplicaSet's row.
pub fn replica_set_row(object: &Value, now: Timestamp) -> Row {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = container_cells(&spec["template"]["spec"]);
    let desired = number(&spec["replicas"]);
    let selector = format_selector(&spec["selector"]);
    let cells = vec![name(object), desired, number(&status["replicas"]), number(&status["readyReplicas"])];
    Row::plain([cells, vec![age(object, now), names, images, Value::from(selector)]].concat())
}

/// StatefulSets.
pub const STATEFUL_SET: &[Column] =
    &[NAME, Column::text("Ready", "Number of the pod with ready state"), AGE, CONTAINERS, IMAGES];

/// A StatefulSet's row.
pub fn stateful_set_row(object: &Value, now: Timestamp) -> Row {
    let [names, images] = container_cells(&object["spec"]["template"]["spec"]);
    Row::plain(vec![name(object), ready_of(&object["status"], &object["spec"]), age(object, now), names, images])
}

/// DaemonSets.
pub const DAEMON_SET: &[Column] = &[
    NAME,
    Column::number("Desired", "Number of nodes that should run the pod."),
    Column::number("Current", "Number of nodes that run it and should."),
    Column::number("Ready", "Number of nodes on which it is ready."),
    Column::number("Up-to-date", "Number of nodes that run the wanted template."),
    Column::number("Available", "Number of nodes on which it has been ready long enough."),
    Column::text("Node Selector", "Labels of the nodes that it runs on."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// A DaemonSet's row.
pub fn daemon_set_row(object: &Value, now: Timestamp) -> Row {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = container_cells(&spec["template"]["spec"]);
    Row::plain(vec![
        name(object),
        number(&status["desiredNumberScheduled"]),
        number(&status["currentNumberScheduled"]),
        number(&status["numberReady"]),
        number(&status["updatedNumberScheduled"]),
        number(&status["numberAvailable"]),
        Value::from(format_labels(&spec["template"]["spec"]["nodeSelector"])),
        age(object, now),
        names,
        images,
        Value::from(format_selector(&spec["selector"])),
    ])
}

/// Jobs.
pub const JOB: &[Column] = &[
    NAME,
    Column::text("Status", "Status of the job."),
    Column::text("Completions", "Number of pods that succeeded, of those wanted."),
    Column::text("Duration", "Time required to complete the job."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// A Job's row.
pub fn job_row(object: &Value, now: Timestamp) -> Row {
    let (spec, status) = (&object["spec"], &object["status"]);
    let succeeded = number(&status["succeeded"]);
    let completions = match (spec["completions"].as_i64(), spec["parallelism"].as_i64().unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, many) if many > 1 => format!("{succeeded}/1 of {many}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let started = crate::time::parse(text(&status["startTime"]));
    let ended = crate::time::parse(text(&status["completionTime"])).unwrap_or(now);
    let took = started.map(|started| human_duration(ended.since_ms(started))).unwrap_or_default();
    let is = |kind| super::condition(object, kind) == "True";
    let state = if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if !object["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    };
    let [names, images] = container_cells(&spec["template"]["spec"]);
    let selector = format_selector(&spec["selector"]);
    let cells = vec![name(object), json!(state), json!(completions), json!(took), age(object, now)];
    Row::plain([cells, vec![names, images, json!(selector)]].concat())
}

/// CronJobs.
pub const CRON_JOB: &[Column] = &[
    NAME,
    Column::text("Schedule", "When it runs, in Cron format."),
    Column::text("Timezone", "The time zone of the schedule."),
    Column::boolean("Suspend", "Whether it is suspended."),
    Column::number("Active", "Number of running jobs."),
    Column::text("Last Schedule", "When a job was last started."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// A CronJob's row.
pub fn cron_job_row(object: &Value, now: Timestamp) -> Row {
    let (spec, status) = (&object["spec"], &object["status"]);
    let last = &status["lastScheduleTime"];
    let last = if last.is_null() { "<none>".to_owned() } else { since(last, now) };
    let suspend = match spec["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let job = &spec["jobTemplate"]["spec"];
    let [names, images] = container_cells(&job["template"]["spec"]);
    Row::plain(vec![
        name(object),
        spec["schedule"].clone(),
        Value::from(spec["timeZone"].as_str().unwrap_or("<none>")),
        Value::from(suspend),
        Value::from(list(&status["active"]).len()),
        Value::from(last),
        age(object, now),
        names,
        images,
        Value::from(format_selector(&job["selector"])),
    ])
}

/// HorizontalPodAutoscalers (autoscaling/v2).
pub const AUTOSCALER: &[Column] = &[
    NAME,
    Column::text("Reference", "What is scaled."),
    Column::text("Targets", "Measured values and wanted ones."),
    Column::text("MinPods", "Lower limit of pods."),
    Column::text("MaxPods", "Upper limit of pods."),
    Column::text("Replicas", "Number of pods now."),
    AGE,
];

/// An autoscaler's row.
pub fn autoscaler_row(object: &Value, now: Timestamp) -> Row {
    let (spec, status) = (&object["spec"], &object["status"]);
    let target = &spec["scaleTargetRef"];
    let least = spec["minReplicas"].as_i64().map_or("<unset>".to_owned(), |n| n.to_string());
    Row::plain(vec![
        name(object),
        Value::from(format!("{}/{}", text(&target["kind"]), text(&target["name"]))),
        Value::from(metrics(list(&spec["metrics"]), list(&status["currentMetrics"]))),
        Value::from(least),
        number(&spec["maxReplicas"]),
        number(&status["currentReplicas"]),
        age(object, now),
    ])
}

fn metrics(specs: &[Value], statuses: &[Value]) -> String {
    const MAX: usize = 2;
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let none = Value::Null;
    let texts: Vec<String> =
        specs.iter().enumerate().map(|(at, spec)| metric(spec, statuses.get(at).unwrap_or(&none))).collect();
    if texts.len() > MAX {
        return format!("{} + {} more...", texts[..MAX].join(", "), texts.len() - MAX);
    }
    texts.join(", ")
}

fn metric(spec: &Value, status: &Value) -> String {
    let (member, per_pod_only) = match text(&spec["type"]) {
        "Resource" => ("resource", false),
        "ContainerResource" => ("containerResource", false),
        "Pods" => ("pods", true),
        "Object" => ("object", false),
        "External" => ("external", false),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&spec[member]["target"], &status[member]["current"]);
    let shown = |value: &Value| or(text(value), "<unknown>").to_owned();
    let average = !target["averageValue"].is_null();
    match member {
        "resource" | "containerResource" => {
            let name = text(&spec[member]["name"]);
            if average {
                return format!("{name}: {}/{}", shown(&current["averageValue"]), text(&target["averageValue"]));
            }
            let percent = |value: &Value, missing: &str| value.as_i64().map_or(missing.to_owned(), |n| format!("{n}%"));
            let (now, wanted) = (
                percent(&current["averageUtilization"], "<unknown>"),
                percent(&target["averageUtilization"], "<auto>"),
            );
            format!("{name}: {now}/{wanted}")
        }
        _ if per_pod_only => format!("{}/{}", shown(&current["averageValue"]), text(&target["averageValue"])),
        _ if average => format!("{}/{} (avg)", shown(&current["averageValue"]), text(&target["averageValue"])),
        _ => format!("{}/{}", shown(&current["value"]), text(&target["value"])),
    }
}

/// PodDisruptionBudgets.
pub const DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    Column::text("Min Available", "The minimum number of pods that must be available."),
    Column::text("Max Unavailable", "The maximum number of pods that may be unavailable."),
    Column::number("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
    AGE,
];

/// A PodDisruptionBudget's row.
pub fn disruption_budget_row(object: &Value, now: Timestamp) -> Row {
    let amount = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "N/A".to_owned(),
    };
    Row::plain(vec![
        name(object),
        Value::from(amount(&object["spec"]["minAvailable"])),
        Value::from(amount(&object["spec"]["maxUnavailable"])),
        number(&object["status"]["disruptionsAllowed"]),
        age(object, now),
    ])
}

/// PriorityClasses.
pub const PRIORITY_CLASS: &[Column] = &[
    NAME,
    Column::number("Value", "The priority of pods of this class."),
    Column::boolean("Global-Default", "Whether pods without a class get this one."),
    AGE,
    Column::text("PreemptionPolicy", "Whether its pods may displace others."),
];

/// A PriorityClass's row.
pub fn priority_class_row(object: &Value, now: Timestamp) -> Row {
    let policy = Value::from(text(&object["preemptionPolicy"]));
    Row::plain(vec![
        name(object),
        number(&object["value"]),
        json!(flag(&object["globalDefault"])),
        age(object, now),
        policy,
    ])
}

/// ControllerRevisions.
pub const CONTROLLER_REVISION: &[Column] = &[
    NAME,
    Column::text("Controller", "Controller of the object"),
    Column::text("Revision", "Number of the revision."),
    AGE,
];

/// A ControllerRevision's row.
pub fn controller_revision_row(object: &Value, now: Timestamp) -> Row {
    let owner = list(&object["metadata"]["ownerReferences"]).iter().find(|owner| owner["controller"] == true);
    let controller = owner.map_or("<none>".to_owned(), |owner| {
        let kind = text(&owner["kind"]).to_lowercase();
        match text(&owner["apiVersion"]).split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{}", text(&owner["name"])),
            None => format!("{kind}/{}", text(&owner["name"])),
        }
    });
    Row::plain(vec![name(object), Value::from(controller), number(&object["revision"]), age(object, now)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn deployment() {
        let object = json!({"metadata": {"name": "d", "creationTimestamp": "2023-11-14T22:12:20Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "d"}},
                "template": {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3}});
        let cells = deployment_row(&object, NOW).cells;
        assert_eq!(
            cells,
            [
                json!("d"),
                json!("2/3"),
                json!(3),
                json!(0),
                json!("60s"),
                json!("a,b"),
                json!("x:1,y:2"),
                json!("app=d")
            ]
        );
        assert_eq!(cells.len(), DEPLOYMENT.len());
    }

    #[test]
    fn jobs() {
        let job = |spec: Value, status: Value| {
            let cells = job_row(&json!({"spec": spec, "status": status}), NOW).cells;
            format!("{} {} {}", text(&cells[1]), text(&cells[2]), text(&cells[3]))
        };
        assert_eq!(
            job(json!({"completions": 3}), json!({"succeeded": 1, "startTime": "2023-11-14T22:13:10Z"})),
            "Running 1/3 10s"
        );
        assert_eq!(job(json!({"parallelism": 2}), json!({})), "Running 0/1 of 2 ");
        let done = json!({"succeeded": 1, "startTime": "2023-11-14T22:00:00Z", "completionTime": "2023-11-14T22:00:05Z",
            "conditions": [{"type": "Complete", "status": "True"}]});
        assert_eq!(job(json!({"completions": 1}), done), "Complete 1/1 5s");
    }

    #[test]
    fn autoscaler_targets() {
        let spec = json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
            {"type": "Pods", "pods": {"target": {"averageValue": "10"}}},
            {"type": "External", "external": {"target": {"value": "5"}}}]);
        let status = json!([{"type": "Resource", "resource": {"current": {"averageUtilization": 12}}}]);
        assert_eq!(metrics(list(&spec), list(&status)), "cpu: 12%/80%, <unknown>/10 + 1 more...");
        assert_eq!(metrics(&[], &[]), "<none>");
    }

    #[test]
    fn budgets_show_numbers_and_shares() {
        let cells = disruption_budget_row(&json!({"spec": {"minAvailable": "50%"}}), NOW).cells;
        assert_eq!(cells[1..4], [json!("50%"), json!("N/A"), json!(0)]);
    }
}

//! Statuses to be written.

use super::PatchKind;
use super::json::{condition, conditions, count, opt_time, quantity, strings, time};
use model::batch::{CronJobStatus, JobStatus};
use model::effect::Status;
use model::policy::{AutoscalerStatus, DisruptionStatus};
use model::scheduling::{Amounts, ReservationStatus};
use model::{Condition, Quantity};
use serde_json::{Map, Value, json};

fn plain(list: &[Condition]) -> Value {
    conditions(list, None)
}

/// The patch of `status` and its kind.
pub fn body(status: &Status) -> (PatchKind, Value) {
    let merge = |body: Value| (PatchKind::Merge, body);
    match status {
        Status::Deployment(s) => merge(json!({
            "observedGeneration": s.observed_generation,
            "replicas": count(s.replicas), "updatedReplicas": count(s.updated), "readyReplicas": count(s.ready),
            "availableReplicas": count(s.available), "unavailableReplicas": count(s.unavailable),
            "collisionCount": s.collisions, "conditions": conditions(&s.conditions, Some("lastUpdateTime")),
        })),
        Status::ReplicaSet(s) => merge(json!({
            "observedGeneration": s.observed_generation, "replicas": s.replicas,
            "fullyLabeledReplicas": count(s.fully_labeled), "readyReplicas": count(s.ready), "availableReplicas": count(s.available),
            "conditions": if s.conditions.is_empty() { Value::Null } else { plain(&s.conditions) },
        })),
        Status::StatefulSet(s) => merge(json!({
            "observedGeneration": s.observed_generation, "replicas": s.replicas,
            "readyReplicas": count(s.ready), "availableReplicas": s.available, "currentReplicas": count(s.current),
            "updatedReplicas": count(s.updated), "currentRevision": &*s.current_revision, "updateRevision": &*s.update_revision,
            "collisionCount": s.collisions,
        })),
        Status::DaemonSet(s) => merge(json!({
            "observedGeneration": s.observed_generation, "currentNumberScheduled": s.current, "numberMisscheduled": s.misscheduled,
            "desiredNumberScheduled": s.desired, "numberReady": s.ready, "updatedNumberScheduled": count(s.updated),
            "numberAvailable": count(s.available), "numberUnavailable": count(s.unavailable), "collisionCount": s.collisions,
        })),
        Status::Job(s) => merge(job(s)),
        Status::CronJob(s) => merge(cron_job(s)),
        Status::Disruption(s) => merge(disruption(s)),
        Status::Autoscaler(s) => merge(autoscaler(s)),
        Status::Claim { phase, capacity, access_modes } => merge(json!({
            "phase": phase.as_str(), "capacity": capacity.map(|c| json!({ "storage": quantity(c) })),
            "accessModes": if access_modes.is_empty() { Value::Null } else { strings(access_modes) },
        })),
        Status::Volume { phase } => merge(json!({ "phase": phase.as_str() })),
        Status::Namespace { terminating, conditions } => merge(
            json!({ "phase": if *terminating { "Terminating" } else { "Active" }, "conditions": plain(conditions) }),
        ),
        Status::NodeConditions(list) => {
            (PatchKind::Strategic, json!({ "conditions": conditions(list, Some("lastHeartbeatTime")) }))
        }
        Status::PodConditions { conditions: list, nominated_node } => {
            let mut body = Map::new();
            if !list.is_empty() {
                body.insert("conditions".into(), pod_conditions(list));
            }
            if let Some(node) = nominated_node {
                body.insert("nominatedNodeName".into(), if node.is_empty() { Value::Null } else { json!(&**node) });
            }
            (PatchKind::Strategic, body.into())
        }
        Status::Reservation(s) => merge(reservation(s)),
        Status::PodFailed { reason, message, conditions } => (
            PatchKind::Strategic,
            json!({ "phase": "Failed", "reason": &**reason, "message": &**message, "conditions": pod_conditions(conditions) }),
        ),
    }
}

fn reservation(s: &ReservationStatus) -> Value {
    let list = |amounts: &Amounts| -> Value {
        let amount = |(name, amount): &(std::sync::Arc<str>, i64)| {
            let of = if **name == *"cpu" { Quantity::from_milli(*amount) } else { Quantity::from_units(*amount) };
            (name.to_string(), Value::String(quantity(of)))
        };
        if amounts.is_empty() { Value::Null } else { Value::Object(amounts.iter().map(amount).collect()) }
    };
    let owner = |(key, uid): &(model::Key, std::sync::Arc<str>)| json!({ "apiVersion": "v1", "kind": "Pod", "namespace": &*key.namespace, "name": &*key.name, "uid": &**uid });
    json!({
        "phase": s.phase, "nodeName": if s.node.is_empty() { Value::Null } else { json!(&*s.node) },
        "allocatable": list(&s.allocatable), "allocated": list(&s.allocated),
        "currentOwners": s.owners.iter().map(owner).collect::<Value>(), "conditions": plain(&s.conditions),
    })
}

fn pod_conditions(list: &[Condition]) -> Value {
    list.iter()
        .map(|one| {
            let mut value = condition(one);
            value["lastProbeTime"] = Value::Null;
            // A condition that holds without a reason clears the reason it had: a merge would keep it.
            for field in ["reason", "message"] {
                if value.get(field).is_none() {
                    value[field] = Value::Null;
                }
            }
            value
        })
        .collect()
}

fn job(s: &JobStatus) -> Value {
    let uncounted = if s.uncounted_succeeded.is_empty() && s.uncounted_failed.is_empty() {
        json!({ "succeeded": null, "failed": null })
    } else {
        json!({ "succeeded": strings(&s.uncounted_succeeded), "failed": strings(&s.uncounted_failed) })
    };
    json!({
        "conditions": if s.conditions.is_empty() { Value::Null } else { conditions(&s.conditions, Some("lastProbeTime")) },
        "startTime": opt_time(s.started), "completionTime": opt_time(s.completed),
        "active": count(s.active), "ready": s.ready, "terminating": s.terminating,
        "succeeded": count(s.succeeded), "failed": count(s.failed),
        "completedIndexes": if s.completed_indexes.is_empty() { Value::Null } else { json!(&*s.completed_indexes) },
        "failedIndexes": s.failed_indexes.as_deref(),
        "uncountedTerminatedPods": uncounted,
    })
}

fn cron_job(s: &CronJobStatus) -> Value {
    let active: Value = s
        .active
        .iter()
        .map(|(name, uid)| json!({ "apiVersion": "batch/v1", "kind": "Job", "name": &**name, "uid": &**uid }))
        .collect();
    json!({
        "active": if s.active.is_empty() { Value::Null } else { active },
        "lastScheduleTime": opt_time(s.last_schedule), "lastSuccessfulTime": opt_time(s.last_success),
    })
}

fn disruption(s: &DisruptionStatus) -> Value {
    let disrupted: Map<String, Value> =
        s.disrupted.iter().map(|(name, at)| (name.to_string(), json!(time(*at)))).collect();
    let list: Vec<Value> = s
        .conditions
        .iter()
        .map(|one| {
            let mut value = condition(one);
            value["observedGeneration"] = json!(s.observed_generation);
            value["message"] = json!(&*one.message);
            value
        })
        .collect();
    json!({
        "observedGeneration": s.observed_generation, "disruptedPods": if disrupted.is_empty() { Value::Null } else { disrupted.into() }, "disruptionsAllowed": s.allowed,
        "currentHealthy": s.current, "desiredHealthy": s.desired, "expectedPods": s.expected, "conditions": list,
    })
}

fn autoscaler(s: &AutoscalerStatus) -> Value {
    let metrics: Value = s
        .metrics
        .iter()
        .map(|metric| {
            let mut current = json!({ "averageValue": quantity(Quantity::from_milli(metric.average_milli)) });
            if let Some(percent) = metric.utilization {
                current["averageUtilization"] = json!(percent);
            }
            match &metric.container {
                Some(container) => json!({
                    "type": "ContainerResource",
                    "containerResource": { "name": &*metric.name, "container": &**container, "current": current },
                }),
                None => json!({ "type": "Resource", "resource": { "name": &*metric.name, "current": current } }),
            }
        })
        .collect();
    json!({
        "observedGeneration": s.observed_generation, "lastScaleTime": opt_time(s.last_scale),
        "currentReplicas": s.current, "desiredReplicas": s.desired,
        "currentMetrics": if s.metrics.is_empty() { Value::Null } else { metrics }, "conditions": plain(&s.conditions),
    })
}

//! Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision.

use crate::meta::meta;
use crate::pod::template;
use crate::read::{amount, at, conditions, flag, int, items, labels, opt_i32, opt_int, path, str_at, text};
use crate::scheduling::selector;
use model::condition::Amount;
use model::workload::{
    ControllerRevision, DaemonSet, DaemonSetStatus, DaemonSetUpdate, Deployment, DeploymentStatus, DeploymentStrategy,
    ReplicaSet, ReplicaSetStatus, ReplicationController, StatefulSet, StatefulSetStatus, StatefulSetUpdate,
};
use model::{Doc, LabelSelector};
use serde_json::Value;

/// A selector of a workload: absent ones select nothing of interest and become the empty one, which workloads refuse to use.
fn own_selector(spec: &Value) -> LabelSelector {
    selector(at(spec, "selector")).unwrap_or_default()
}

/// A Deployment.
pub fn deployment(object: &Value) -> Deployment {
    let (meta, spec, status) = (meta(object), at(object, "spec"), at(object, "status"));
    let strategy = at(spec, "strategy");
    let rolling = at(strategy, "rollingUpdate");
    Deployment {
        replicas: int(spec, "replicas", 1),
        selector: own_selector(spec),
        template: template(at(spec, "template"), &meta.key.namespace),
        strategy: match str_at(strategy, "type") {
            "Recreate" => DeploymentStrategy::Recreate,
            _ => DeploymentStrategy::RollingUpdate {
                max_surge: amount(at(rolling, "maxSurge")).unwrap_or(Amount::Percent(25)),
                max_unavailable: amount(at(rolling, "maxUnavailable")).unwrap_or(Amount::Percent(25)),
            },
        },
        min_ready_s: int(spec, "minReadySeconds", 0),
        history_limit: opt_i32(spec, "revisionHistoryLimit").or(Some(10)),
        paused: flag(spec, "paused"),
        progress_deadline_s: opt_i32(spec, "progressDeadlineSeconds").or(Some(600)),
        status: DeploymentStatus {
            observed_generation: opt_int(status, "observedGeneration").unwrap_or(0),
            replicas: int(status, "replicas", 0),
            updated: int(status, "updatedReplicas", 0),
            ready: int(status, "readyReplicas", 0),
            available: int(status, "availableReplicas", 0),
            unavailable: int(status, "unavailableReplicas", 0),
            collisions: opt_i32(status, "collisionCount"),
            conditions: conditions(status, "lastUpdateTime"),
        },
        meta,
    }
}

/// A ReplicaSet.
pub fn replica_set(object: &Value) -> ReplicaSet {
    let (meta, spec, status) = (meta(object), at(object, "spec"), at(object, "status"));
    ReplicaSet {
        replicas: int(spec, "replicas", 1),
        selector: own_selector(spec),
        template: template(at(spec, "template"), &meta.key.namespace),
        min_ready_s: int(spec, "minReadySeconds", 0),
        status: ReplicaSetStatus {
            replicas: int(status, "replicas", 0),
            fully_labeled: int(status, "fullyLabeledReplicas", 0),
            ready: int(status, "readyReplicas", 0),
            available: int(status, "availableReplicas", 0),
            observed_generation: opt_int(status, "observedGeneration").unwrap_or(0),
            conditions: conditions(status, "lastUpdateTime"),
        },
        meta,
    }
}

/// A ReplicationController: a ReplicaSet but for the selector, which is a map of labels.
pub fn replication_controller(object: &Value) -> ReplicationController {
    let selector = labels(at(at(object, "spec"), "selector"));
    ReplicationController(ReplicaSet { selector: LabelSelector::from_labels(selector.iter()), ..replica_set(object) })
}

/// A StatefulSet.
pub fn stateful_set(object: &Value) -> StatefulSet {
    let (meta, spec, status) = (meta(object), at(object, "spec"), at(object, "status"));
    let update = at(spec, "updateStrategy");
    let rolling = at(update, "rollingUpdate");
    let retention = at(spec, "persistentVolumeClaimRetentionPolicy");
    StatefulSet {
        replicas: int(spec, "replicas", 1),
        first_ordinal: path(spec, &["ordinals", "start"]).as_i64().and_then(|n| n.try_into().ok()).unwrap_or(0),
        selector: own_selector(spec),
        template: template(at(spec, "template"), &meta.key.namespace),
        service_name: text(spec, "serviceName"),
        parallel: str_at(spec, "podManagementPolicy") == "Parallel",
        update: match str_at(update, "type") {
            "OnDelete" => StatefulSetUpdate::OnDelete,
            _ => StatefulSetUpdate::RollingUpdate {
                partition: int(rolling, "partition", 0),
                max_unavailable: amount(at(rolling, "maxUnavailable")).unwrap_or(Amount::Number(1)),
            },
        },
        history_limit: opt_i32(spec, "revisionHistoryLimit").or(Some(10)),
        min_ready_s: int(spec, "minReadySeconds", 0),
        claim_templates: items(spec, "volumeClaimTemplates")
            .iter()
            .map(|claim| (text(at(claim, "metadata"), "name"), Doc::new(claim.to_string())))
            .collect(),
        delete_claims_when_deleted: str_at(retention, "whenDeleted") == "Delete",
        delete_claims_when_scaled: str_at(retention, "whenScaled") == "Delete",
        status: StatefulSetStatus {
            observed_generation: opt_int(status, "observedGeneration").unwrap_or(0),
            replicas: int(status, "replicas", 0),
            ready: int(status, "readyReplicas", 0),
            available: int(status, "availableReplicas", 0),
            current: int(status, "currentReplicas", 0),
            updated: int(status, "updatedReplicas", 0),
            current_revision: text(status, "currentRevision"),
            update_revision: text(status, "updateRevision"),
            collisions: opt_i32(status, "collisionCount"),
            conditions: conditions(status, "lastUpdateTime"),
        },
        meta,
    }
}

/// A DaemonSet.
pub fn daemon_set(object: &Value) -> DaemonSet {
    let (meta, spec, status) = (meta(object), at(object, "spec"), at(object, "status"));
    let update = at(spec, "updateStrategy");
    let rolling = at(update, "rollingUpdate");
    DaemonSet {
        selector: own_selector(spec),
        template: template(at(spec, "template"), &meta.key.namespace),
        update: match str_at(update, "type") {
            "OnDelete" => DaemonSetUpdate::OnDelete,
            _ => DaemonSetUpdate::RollingUpdate {
                max_unavailable: amount(at(rolling, "maxUnavailable")).unwrap_or(Amount::Number(1)),
                max_surge: amount(at(rolling, "maxSurge")).unwrap_or(Amount::Number(0)),
            },
        },
        history_limit: opt_i32(spec, "revisionHistoryLimit").or(Some(10)),
        min_ready_s: int(spec, "minReadySeconds", 0),
        status: DaemonSetStatus {
            current: int(status, "currentNumberScheduled", 0),
            misscheduled: int(status, "numberMisscheduled", 0),
            desired: int(status, "desiredNumberScheduled", 0),
            ready: int(status, "numberReady", 0),
            observed_generation: opt_int(status, "observedGeneration").unwrap_or(0),
            updated: int(status, "updatedNumberScheduled", 0),
            available: int(status, "numberAvailable", 0),
            unavailable: int(status, "numberUnavailable", 0),
            collisions: opt_i32(status, "collisionCount"),
            conditions: conditions(status, "lastUpdateTime"),
        },
        meta,
    }
}

/// A ControllerRevision.
pub fn controller_revision(object: &Value) -> ControllerRevision {
    let meta = meta(object);
    let data = at(object, "data");
    let recorded = path(data, &["spec", "template"]);
    let template = recorded.is_object().then(|| {
        // What is recorded carries a patch directive that is no part of the template.
        let mut plain = recorded.clone();
        if let Some(map) = plain.as_object_mut() {
            map.remove("$patch");
        }
        template(&plain, &meta.key.namespace)
    });
    ControllerRevision {
        number: opt_int(object, "revision").unwrap_or(0),
        data: Doc::new(data.to_string()),
        template,
        meta,
    }
}

//! Pods and pod templates.

use crate::meta::meta;
use crate::read::{at, conditions, flag, int, items, labels, opt_i32, opt_int, path, quantity, str_at, text, time};
use crate::scheduling;
use model::map::stable_hash;
use model::pod::{
    Container, ContainerPort, ContainerState, ContainerStatus, Phase, Pod, PodSpec, PodStatus, PodTemplate, Protocol,
    RestartPolicy,
};
use model::taint::{TaintEffect, Toleration};
use model::{Doc, Labels};
use serde_json::Value;
use std::sync::Arc;

/// A pod.
pub fn pod(object: &Value) -> Pod {
    let meta = meta(object);
    let spec = at(object, "spec");
    let scheduling = scheduling::pod_spec(spec, &meta.key.namespace, &meta.key.name, &meta.labels);
    Pod { spec: pod_spec(spec, &meta.key.name, scheduling), status: status(at(object, "status")), meta }
}

fn pod_spec(spec: &Value, name: &str, scheduling: model::scheduling::SchedulingSpec) -> PodSpec {
    PodSpec {
        node_name: text(spec, "nodeName"),
        scheduler_name: match str_at(spec, "schedulerName") {
            "" => "default-scheduler".into(),
            name => name.into(),
        },
        priority: int(spec, "priority", 0),
        restart_policy: restart_policy(spec),
        termination_grace_s: opt_int(spec, "terminationGracePeriodSeconds").unwrap_or(30),
        active_deadline_s: opt_int(spec, "activeDeadlineSeconds"),
        host_network: flag(spec, "hostNetwork"),
        service_account: text(spec, "serviceAccountName"),
        hostname: text(spec, "hostname"),
        subdomain: text(spec, "subdomain"),
        containers: items(spec, "containers").iter().map(container).collect(),
        init_containers: items(spec, "initContainers").iter().map(container).collect(),
        claims: items(spec, "volumes").iter().filter_map(|volume| claim_name(volume, name)).collect(),
        tolerations: tolerations(spec).into(),
        scheduling: Arc::new(scheduling),
    }
}

/// The claim that a volume mounts; one from an `ephemeral` template is named after pod and volume.
fn claim_name(volume: &Value, pod: &str) -> Option<Arc<str>> {
    if let Some(name) = path(volume, &["persistentVolumeClaim", "claimName"]).as_str() {
        return Some(name.into());
    }
    volume.get("ephemeral").map(|_| format!("{pod}-{}", str_at(volume, "name")).into())
}

fn restart_policy(spec: &Value) -> RestartPolicy {
    match str_at(spec, "restartPolicy") {
        "OnFailure" => RestartPolicy::OnFailure,
        "Never" => RestartPolicy::Never,
        _ => RestartPolicy::Always,
    }
}

fn container(value: &Value) -> Container {
    let resources = at(value, "resources");
    let mut requests: Vec<(Arc<str>, model::Quantity)> = Vec::new();
    // A limit without a request is a request, as the API defaults it.
    for part in ["requests", "limits"] {
        for (name, amount) in at(resources, part).as_object().into_iter().flatten() {
            if let Some(amount) = quantity(amount)
                && !requests.iter().any(|(known, _)| **known == **name)
            {
                requests.push((name.as_str().into(), amount));
            }
        }
    }
    requests.sort();
    Container {
        name: text(value, "name"),
        image: text(value, "image"),
        ports: items(value, "ports").iter().filter_map(port).collect(),
        requests,
        sidecar: str_at(value, "restartPolicy") == "Always",
    }
}

fn port(value: &Value) -> Option<ContainerPort> {
    Some(ContainerPort {
        name: text(value, "name"),
        port: opt_int(value, "containerPort")?.try_into().ok()?,
        host_port: opt_int(value, "hostPort").and_then(|port| port.try_into().ok()).unwrap_or(0),
        protocol: Protocol::parse(str_at(value, "protocol"))?,
    })
}

/// `spec.tolerations`.
pub fn tolerations(spec: &Value) -> Vec<Toleration> {
    items(spec, "tolerations")
        .iter()
        .map(|value| Toleration {
            key: text(value, "key"),
            exists: str_at(value, "operator") == "Exists",
            value: text(value, "value"),
            effect: TaintEffect::parse(str_at(value, "effect")),
            seconds: opt_int(value, "tolerationSeconds"),
        })
        .collect()
}

fn status(status: &Value) -> PodStatus {
    PodStatus {
        phase: Phase::parse(str_at(status, "phase")),
        reason: text(status, "reason"),
        message: text(status, "message"),
        conditions: conditions(status, "lastProbeTime"),
        pod_ip: text(status, "podIP"),
        pod_ips: items(status, "podIPs").iter().map(|ip| text(ip, "ip")).filter(|ip| !ip.is_empty()).collect(),
        host_ip: text(status, "hostIP"),
        started: time(status, "startTime"),
        containers: items(status, "containerStatuses").iter().map(container_status).collect(),
        init_containers: items(status, "initContainerStatuses").iter().map(container_status).collect(),
        nominated_node: text(status, "nominatedNodeName"),
    }
}

fn container_status(value: &Value) -> ContainerStatus {
    ContainerStatus {
        name: text(value, "name"),
        ready: flag(value, "ready"),
        restarts: int(value, "restartCount", 0),
        state: state(at(value, "state")),
        last_state: state(at(value, "lastState")),
    }
}

fn state(value: &Value) -> ContainerState {
    if let Some(running) = value.get("running") {
        ContainerState::Running { started: time(running, "startedAt").unwrap_or_default() }
    } else if let Some(ended) = value.get("terminated") {
        ContainerState::Terminated {
            exit_code: opt_i32(ended, "exitCode").unwrap_or(0),
            reason: text(ended, "reason"),
            finished: time(ended, "finishedAt").unwrap_or_default(),
        }
    } else if let Some(waiting) = value.get("waiting") {
        ContainerState::Waiting { reason: text(waiting, "reason"), message: text(waiting, "message") }
    } else {
        ContainerState::Unknown
    }
}

/// A label that tells replica sets apart, and so is no part of what is compared.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod template: `{metadata, spec}`.
pub fn template(value: &Value, namespace: &str) -> PodTemplate {
    let spec = at(value, "spec");
    let labels: Labels = labels(path(value, &["metadata", "labels"]));
    let scheduling = scheduling::pod_spec(spec, namespace, "", &labels);
    PodTemplate {
        annotations: crate::read::labels(path(value, &["metadata", "annotations"])),
        body: template_doc(value),
        node_name: text(spec, "nodeName"),
        restart_policy: restart_policy(spec),
        tolerations: tolerations(spec).into(),
        scheduling: Arc::new(scheduling),
        labels,
    }
}

/// The template's text and the hash of its content without the label that the control itself adds.
pub fn template_doc(value: &Value) -> Doc {
    let text = value.to_string();
    let has_hash = path(value, &["metadata", "labels", TEMPLATE_HASH]).is_string();
    let has_null = value.get("metadata").is_some_and(|meta| meta.get("creationTimestamp").is_some());
    if !has_hash && !has_null {
        return Doc::new(text);
    }
    let mut plain = value.clone();
    if let Some(meta) = plain.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("creationTimestamp");
        if let Some(labels) = meta.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(TEMPLATE_HASH);
        }
    }
    let hash = stable_hash(plain.to_string().as_bytes());
    Doc::with_hash(text, hash)
}

use crate::core::Core;
use crate::ops::{Caller, Made, Part, Target, WriteOptions, change};
use kube::{Cause, Status};
use serde_json::{Value, json};

/// Gives a pod its node, once.
pub(super) async fn bind(
    core: &Core,
    caller: &Caller,
    target: &Target,
    body: &Value,
    options: WriteOptions,
) -> Result<(u16, Value), Status> {
    let node = body["target"]["name"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(Status::invalid("", "Binding", &target.name, vec![Cause::required("target.name", "")]));
    }
    let kind = body["target"]["kind"].as_str().unwrap_or("Node");
    if !matches!(kind, "" | "Node") {
        let cause = Cause::not_supported("target.kind", &kind.into(), ["Node", "<empty>"]);
        return Err(Status::invalid("", "Binding", &target.name, vec![cause]));
    }
    let now = kinds::time::seconds(core.now());
    change(core, caller, target, Part::System("binding"), options, |old| {
        let conflict = |detail: String| Status::conflict("", "pods/binding", &target.name, &detail);
        if !old["metadata"]["deletionTimestamp"].is_null() {
            return Err(conflict(format!("pod {} is being deleted, cannot be assigned to a host", target.name)));
        }
        let uid = body["metadata"]["uid"].as_str().unwrap_or_default();
        if !uid.is_empty() && old["metadata"]["uid"] != uid {
            return Err(conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                old["metadata"]["uid"].as_str().unwrap_or_default()
            )));
        }
        match old["spec"]["nodeName"].as_str().unwrap_or_default() {
            "" => {}
            assigned => return Err(conflict(format!("pod {} is already assigned to node {assigned:?}", target.name))),
        }
        if old["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", target.name)));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = node.into();
        if let Some(annotations) = body["metadata"]["annotations"].as_object() {
            for (key, value) in annotations {
                new["metadata"]["annotations"][key] = value.clone();
            }
        }
        scheduled(&mut new, &now);
        Ok(Made::Object(new))
    })
    .await?;
    Ok((201, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})))
}

fn scheduled(pod: &mut Value, now: &str) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    match conditions.iter().position(|one| one["type"] == "PodScheduled") {
        Some(at) if conditions[at]["status"] == "True" => return,
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    pod["status"]["conditions"] = conditions.into();
}

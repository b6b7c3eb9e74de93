//! Pods and the pod templates inside other kinds.

pub mod admission;
mod change;
mod container;
pub mod defaults;
pub mod runtime_class;
mod spec;
mod volume;

pub(crate) use container::{check_port, check_resources};
pub(crate) use spec::{Owner, check_pod_spec, check_template, check_tolerations};

use crate::behaviour::{Context, Facts, Field, Generation, Kind, SPEC};
use crate::cause::Causes;
use crate::json::{Members, carry, child, members};
use crate::table::{self, Column, Row};
use model::Timestamp;
use serde_json::{Value, json};

/// The behaviour of pods.
pub struct Pod;

impl Kind for Pod {
    fn facts(&self) -> Facts {
        Facts { status: true, status_labels: true, ..Facts::plain("", "Pod").counting(Generation::Spec) }
    }

    fn defaults(&self, object: &mut Value) {
        defaults::pod(object);
    }

    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        let qos = admission::qos_class(&Value::Object(object.clone()));
        let mut status = json!({"phase": "Pending", "qosClass": qos});
        let gated = object.get("spec").is_some_and(|spec| !crate::json::list(&spec["schedulingGates"]).is_empty());
        if gated {
            status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
        }
        object.insert("status".into(), status);
    }

    fn adjust_status(&self, new: &mut Members, old: &Value) {
        // The class is found once, at creation.
        if let Some(status) = child(new, "status") {
            carry(status, &old["status"], "qosClass");
        }
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        check_pod_spec(&object["spec"], &SPEC, Owner::Pod, &[], causes);
    }

    fn checks_updates(&self) -> bool {
        // A stored pod may predate a rule; what changes is checked by `check_change`.
        false
    }

    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        change::check(new, old, causes);
    }

    fn columns(&self) -> &'static [Column] {
        table::POD
    }

    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::pod_row(object, now)
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            Field::text("spec.nodeName"),
            Field::text("spec.restartPolicy"),
            Field::text("spec.schedulerName"),
            Field::text("spec.serviceAccountName"),
            Field { path: "spec.hostNetwork", zero: "false" },
            Field::text("status.phase"),
            Field::text("status.podIP"),
            Field::text("status.nominatedNodeName"),
        ];
        FIELDS
    }
}

/// Puts a binding into effect: the pod belongs to the node from now on. The binding's labels and annotations are added.
///
/// # Errors
/// The message of the conflict (409) when the pod is bound already, or is being deleted, or is gated.
pub fn bind(pod: &mut Value, binding: &Value, now: Timestamp) -> Result<(), String> {
    let name = crate::json::text(&pod["metadata"]["name"]).to_owned();
    let bound = crate::json::text(&pod["spec"]["nodeName"]);
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if !bound.is_empty() {
        return Err(format!("pod {name} is already assigned to node {bound:?}"));
    }
    if !crate::json::list(&pod["spec"]["schedulingGates"]).is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let node = binding["target"]["name"].clone();
    let Some(map) = pod.as_object_mut() else { return Err("the stored pod is no object".into()) };
    if let Some(spec) = child(map, "spec") {
        spec.insert("nodeName".into(), node);
    }
    for key in ["labels", "annotations"] {
        let added = members(&binding["metadata"][key]);
        if !added.is_empty()
            && let Some(target) = child(map, "metadata").and_then(|meta| child(meta, key))
        {
            target.extend(added.clone());
        }
    }
    if let Some(status) = child(map, "status") {
        set_condition(status, json!({"type": "PodScheduled", "status": "True"}), now);
    }
    Ok(())
}

/// Sets a condition; its transition time moves only when its status changes.
pub fn set_condition(status: &mut Members, mut condition: Value, now: Timestamp) {
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if conditions.is_null() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    let before = conditions.iter_mut().find(|c| c["type"] == condition["type"]);
    let unchanged = before.as_ref().is_some_and(|before| before["status"] == condition["status"]);
    condition["lastTransitionTime"] = match (&before, unchanged) {
        (Some(before), true) => before["lastTransitionTime"].clone(),
        _ => Value::from(crate::time::seconds(now)),
    };
    match before {
        Some(before) => *before = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binding() {
        let now = Timestamp::from_secs(1_700_000_000);
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": "x"}]}});
        bind(&mut pod, &json!({"target": {"name": "n1"}}), now).unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(
            pod["status"]["conditions"],
            json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2023-11-14T22:13:20Z"}])
        );
        assert_eq!(
            bind(&mut pod, &json!({"target": {"name": "n2"}}), now).unwrap_err(),
            "pod p is already assigned to node \"n1\""
        );
    }

    #[test]
    fn fields_read_zero_values() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}});
        assert_eq!(Pod.field(&pod, "spec.nodeName").as_deref(), Some("n"));
        assert_eq!(Pod.field(&pod, "spec.hostNetwork").as_deref(), Some("false"));
        assert_eq!(Pod.field(&pod, "status.phase").as_deref(), Some(""));
        assert_eq!(Pod.field(&pod, "spec.foo"), None);
    }
}

//! A definition that is sound is established in the write that brings it: no client ever sees one that is not.

use super::{Operation, Request};
use kube::Status;
use kube::crd::{CustomResource, names_conflict, update_faults};
use serde_json::{Value, json};

/// Keeps a deleted definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

pub(super) fn accept(request: &Request<'_>, object: &mut Value, warnings: &mut Vec<String>) -> Result<(), Status> {
    let target = request.target;
    let refused = |causes| Status::invalid("apiextensions.k8s.io", "CustomResourceDefinition", &target.name, causes);
    let custom = CustomResource::from_object(object).map_err(refused)?;
    let changed = request.old.map(|old| update_faults(object, old)).unwrap_or_default();
    if !changed.is_empty() {
        return Err(refused(changed));
    }
    warnings.extend(custom.warnings());
    let registry = request.core.registry.load();
    let conflict = names_conflict(&registry, &custom);
    let accepted = conflict.is_none();
    let conditions = CustomResource::conditions(conflict);
    let now = kinds::time::seconds(request.core.now());
    let status = &mut object["status"];
    if !status.is_object() {
        *status = json!({});
    }
    for (kind, (holds, reason, message)) in
        [("NamesAccepted", conditions.names_accepted), ("Established", conditions.established)]
    {
        set_condition(status, kind, holds, reason, &message, &now);
    }
    status["acceptedNames"] = if accepted { custom.accepted_names() } else { json!({"plural": "", "kind": ""}) };
    let mut stored: Vec<Value> = status["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.iter().any(|version| version == custom.stored_version()) {
        stored.push(custom.stored_version().into());
    }
    status["storedVersions"] = stored.into();
    if request.operation == Operation::Create {
        let meta = &mut object["metadata"];
        let mut finalizers = meta["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|name| name == CLEANUP) {
            finalizers.push(CLEANUP.into());
        }
        meta["finalizers"] = finalizers.into();
    }
    Ok(())
}

fn set_condition(status: &mut Value, kind: &str, holds: bool, reason: &str, message: &str, now: &str) {
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let holds = if holds { "True" } else { "False" };
    let old = conditions.iter().position(|condition| condition["type"] == kind);
    let since = match old.map(|at| &conditions[at]) {
        Some(condition) if condition["status"] == holds => condition["lastTransitionTime"].clone(),
        _ => now.into(),
    };
    let condition = json!({
        "type": kind, "status": holds, "reason": reason, "message": message, "lastTransitionTime": since,
    });
    match old {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    status["conditions"] = conditions.into();
}

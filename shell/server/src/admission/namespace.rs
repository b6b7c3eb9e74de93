//! NamespaceLifecycle.

use super::Request;
use kube::{Cause, Status};
use serde_json::Value;

/// Nothing is created in a namespace that is not there or on its way out.
pub(super) fn exists(request: &Request<'_>) -> Result<(), Status> {
    let (core, target) = (request.core, request.target);
    if target.namespace.is_empty() {
        return Ok(());
    }
    let Some(record) = core.store.get("namespaces", "", &target.namespace) else {
        return Err(Status::not_found("", "namespaces", &target.namespace));
    };
    // The text is only decoded when it may say so: this is on the way of every creation.
    let text = std::str::from_utf8(&record.bytes).unwrap_or_default();
    if !text.contains("\"deletionTimestamp\"") {
        return Ok(());
    }
    let namespace: Value = serde_json::from_str(text).map_err(Status::internal)?;
    if namespace["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let detail =
        format!("unable to create new content in namespace {} because it is being terminated", target.namespace);
    let message = format!("namespace {} is being terminated", target.namespace);
    let cause = Cause { reason: "NamespaceTerminating", field: "metadata.namespace".to_owned(), message };
    Err(target.forbidden(&detail).with_cause(cause))
}

/// The platform cannot do without these.
pub(super) fn may_go(request: &Request<'_>) -> Result<(), Status> {
    match request.target.name.as_str() {
        "default" | "kube-system" | "kube-public" => Err(request.target.forbidden("this namespace may not be deleted")),
        _ => Ok(()),
    }
}

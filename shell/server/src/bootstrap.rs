//! What every cluster has from its first second: namespaces, roles, classes, the `kubernetes` Service.

mod objects;
mod roles;
mod service;

pub use objects::furnish_namespace;
pub use service::follow as follow_kubernetes_service;

use crate::core::Core;
use crate::in_process::system_caller;
use crate::ops::{self, Target, WriteOptions};
use kube::Status;
use serde_json::Value;

/// Makes what is missing. What an administrator changed stays changed, except for the built-in roles' own rules, which are only ever
/// added to (as Kubernetes reconciles them).
///
/// # Errors
/// The store's refusal.
pub async fn run(core: &Core) -> Result<(), Status> {
    for object in objects::all(core) {
        ensure(core, object).await?;
    }
    roles::reconcile(core).await?;
    for name in objects::NAMESPACES {
        furnish_namespace(core, name).await?;
    }
    service::ensure_service(core).await
}

/// Creates an object unless it is there.
///
/// # Errors
/// The store's refusal.
pub(crate) async fn ensure(core: &Core, object: Value) -> Result<bool, Status> {
    let target = target_of(core, &object)?;
    if core.store.get(target.key(), &target.namespace, &target.name).is_some() {
        return Ok(false);
    }
    match ops::create(core, &system_caller("kube-apiserver"), &target, object, WriteOptions::default()).await {
        Ok(_) => Ok(true),
        Err(status) if status.reason == "AlreadyExists" => Ok(false),
        Err(status) => Err(status),
    }
}

/// Resource and name of a whole object.
///
/// # Errors
/// Its kind is not registered.
pub(crate) fn target_of(core: &Core, object: &Value) -> Result<Target, Status> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let (group, version) = kube::registry::split_api_version(&version);
    let registry = core.registry.load();
    let kind = text(&object["kind"]);
    let resource = registry
        .by_kind(group, version, &kind)
        .ok_or_else(|| Status::internal(format!("{kind} in {group}/{version} is not registered")))?;
    let meta = &object["metadata"];
    Ok(Target { resource: resource.clone(), namespace: text(&meta["namespace"]), name: text(&meta["name"]) })
}

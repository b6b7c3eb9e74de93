//! What may be written, and what is filled in from other objects, between defaulting and validation.

mod custom;
mod limit_range;
mod namespace;
mod pod;
mod quota;
mod roles;
mod storage_class;

pub use custom::CLEANUP;
pub use quota::{Pending as PendingQuota, Place as QuotaPlace, follow as follow_quotas};

use crate::access;
use crate::core::Core;
use crate::ops::{Caller, Target};
use crate::services::Holds;
use kube::Status;
use serde_json::Value;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// POST.
    Create,
    /// PUT and PATCH.
    Update {
        /// Empty for the object itself.
        subresource: &'a str,
    },
    /// DELETE.
    Delete,
}

/// A write that asks to be admitted.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Shared state.
    pub core: &'a Core,
    /// Who.
    pub caller: &'a Caller,
    /// What.
    pub target: &'a Target,
    /// How.
    pub operation: Operation<'a>,
    /// The state before.
    pub old: Option<&'a Value>,
}

/// Changes the object. What it allocates is the caller's to keep once the write is stored.
///
/// # Errors
/// The write is not admitted.
pub fn mutate(request: &Request<'_>, object: &mut Value, warnings: &mut Vec<String>) -> Result<Holds, Status> {
    let resource = &request.target.resource;
    let id = (resource.group(), resource.kind());
    let main = matches!(request.operation, Operation::Create | Operation::Update { subresource: "" });
    if request.operation == Operation::Create {
        namespace::exists(request)?;
        let name = (resource.group(), resource.plural(), "");
        access::restrict_node(&request.caller.identity, "create", name, &request.target.name, object)?;
    }
    match id {
        ("", "Pod") if request.operation == Operation::Create => {
            limit_range::fill(request, object);
            pod::complete(request, object)?;
        }
        ("", "PersistentVolumeClaim") if request.operation == Operation::Create => {
            storage_class::choose(request.core, object);
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") if main => {
            custom::accept(request, object, warnings)?;
        }
        ("", "Service") if main => {
            let owner = (request.target.namespace.clone(), request.target.name.clone());
            return request.core.services.allocate(object, owner);
        }
        _ => {}
    }
    Ok(Holds::default())
}

/// Looks at the object as it would be stored (for a deletion: as it is).
///
/// What comes back is to be kept until the write is stored.
///
/// # Errors
/// The write is not admitted.
pub fn validate(request: &Request<'_>, object: &Value) -> Result<Option<QuotaPlace>, Status> {
    let resource = &request.target.resource;
    match (resource.group(), resource.kind()) {
        ("", "Namespace") if request.operation == Operation::Delete => namespace::may_go(request)?,
        ("", "Pod" | "PersistentVolumeClaim") if request.operation == Operation::Create => {
            limit_range::check(request, object)?;
        }
        ("rbac.authorization.k8s.io", kind) if request.operation != Operation::Delete => {
            roles::no_escalation(request, kind, object)?;
        }
        _ => {}
    }
    if request.operation == Operation::Create { quota::reserve(request, object) } else { Ok(None) }
}

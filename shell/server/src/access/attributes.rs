use super::node;
use crate::core::Core;
use crate::identity::{Identity, MASTERS};
use crate::request::RequestInfo;
use authz::rbac::{Attributes, Caller, Decision, Target, decide};
use kube::Status;

/// Whether `who` may do `verb` on `target`, with the reason.
pub fn may(core: &Core, who: &Identity, verb: &str, target: Target<'_>) -> Decision {
    if who.is_in(MASTERS) {
        return Decision { allowed: true, reason: String::new() };
    }
    if let Some(node) = who.node()
        && let Some(allowed) = node::decide(core, node, verb, target)
        && allowed
    {
        return Decision { allowed: true, reason: "node: a node may read what its pods refer to".to_owned() };
    }
    let caller = Caller { name: &who.name, groups: &who.groups };
    decide(&core.roles.policy(), &Attributes { caller, verb, target })
}

/// 403 unless the request is allowed.
///
/// # Errors
/// The refusal in kube-apiserver's words.
pub fn authorize(core: &Core, who: &Identity, info: &RequestInfo) -> Result<(), Status> {
    let target = if info.is_resource {
        Target::Resource {
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
        }
    } else {
        Target::Path(&info.path)
    };
    let decision = may(core, who, info.verb, target);
    if decision.allowed { Ok(()) } else { Err(refusal(who, info, &decision.reason)) }
}

fn refusal(who: &Identity, info: &RequestInfo, reason: &str) -> Status {
    let mut detail = if info.is_resource {
        let resource = if info.subresource.is_empty() {
            info.resource.clone()
        } else {
            format!("{}/{}", info.resource, info.subresource)
        };
        let place = match info.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!(
            "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
            &*who.name, info.verb, info.group
        )
    } else {
        format!("User {:?} cannot {} path {:?}", &*who.name, info.verb, info.path)
    };
    if !reason.is_empty() {
        detail = format!("{detail}: {reason}");
    }
    Status::forbidden(&info.group, &info.resource, &info.name, &detail)
}

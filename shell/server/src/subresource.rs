//! Paths below an object that do something of their own.

mod binding;
mod eviction;
mod reviews;
mod scale;
mod token;
mod tunnel;

pub use reviews::review;
pub use scale::get as get_scale;
pub use tunnel::{logs, tunnel};

use crate::core::Core;
use crate::form::{self, FieldValidation};
use crate::ops::{self, Caller, Part, PatchKind, Target, WriteOptions, Written};
use kube::Status;
use kube::codec::{Format, Kind};
use serde_json::Value;

/// POST below an object: `pods/binding`, `pods/eviction`, `serviceaccounts/token`. Gives the code and the answer.
///
/// # Errors
/// 404 for what no resource has; the refusal of the operation.
pub async fn create(
    core: &Core,
    caller: &Caller,
    target: &Target,
    subresource: &str,
    body: Value,
    options: WriteOptions,
) -> Result<(u16, Value), Status> {
    match (target.resource.group(), target.resource.plural(), subresource) {
        ("", "pods", "binding") => binding::bind(core, caller, target, &body, options).await,
        ("", "pods", "eviction") => eviction::evict(core, caller, target, &body, options).await,
        ("", "serviceaccounts", "token") => token::request(core, caller, target, body),
        _ => Err(Status::no_such_path()),
    }
}

fn part(target: &Target, subresource: &str) -> Result<Part, Status> {
    match (target.resource.plural(), subresource) {
        (_, "") => Ok(Part::Main),
        (_, "status") => Ok(Part::Status),
        ("namespaces", "finalize") => Ok(Part::System("finalize")),
        ("certificatesigningrequests", "approval") => Ok(Part::Status),
        _ => Err(Status::no_such_path()),
    }
}

/// PUT of an object or below it.
///
/// # Errors
/// The refusal of codec or operation.
#[expect(clippy::too_many_arguments, reason = "the parts of a request that matter here")]
pub async fn update(
    core: &Core,
    caller: &Caller,
    target: &Target,
    subresource: &str,
    format: Format,
    body: &[u8],
    validation: FieldValidation,
    options: WriteOptions,
) -> Result<Written, Status> {
    if subresource == "scale" {
        return scale::update(core, caller, target, format, body, options).await;
    }
    let part = part(target, subresource)?;
    let (object, warnings) = form::decode(&Kind::of(&target.resource), format, body, validation)?;
    let mut written = if part == Part::System("finalize") {
        finalize(core, caller, target, &object, options).await?
    } else {
        ops::replace(core, caller, target, part, object, options).await?
    };
    written.warnings.splice(0..0, warnings);
    Ok(written)
}

/// Only `spec.finalizers` of a namespace can be changed by `/finalize`.
async fn finalize(
    core: &Core,
    caller: &Caller,
    target: &Target,
    body: &Value,
    options: WriteOptions,
) -> Result<Written, Status> {
    ops::change(core, caller, target, Part::System("finalize"), options, |old| {
        let mut new = old.clone();
        match body["spec"]["finalizers"].as_array() {
            Some(list) if !list.is_empty() => new["spec"]["finalizers"] = list.clone().into(),
            _ => {
                if let Some(spec) = new["spec"].as_object_mut() {
                    spec.remove("finalizers");
                }
            }
        }
        // The caller's revision is a precondition; ours is not.
        new["metadata"]["resourceVersion"] = body["metadata"]["resourceVersion"].clone();
        Ok(ops::Made::Object(new))
    })
    .await
}

/// PATCH of an object or below it.
///
/// # Errors
/// The refusal of patch or operation.
#[expect(clippy::too_many_arguments, reason = "the parts of a request that matter here")]
pub async fn patch(
    core: &Core,
    caller: &Caller,
    target: &Target,
    subresource: &str,
    kind: PatchKind,
    body: &[u8],
    validation: FieldValidation,
    options: WriteOptions,
) -> Result<Written, Status> {
    if subresource == "scale" {
        return scale::patch(core, caller, target, kind, body, options).await;
    }
    ops::patch(core, caller, target, part(target, subresource)?, kind, body, validation, options).await
}

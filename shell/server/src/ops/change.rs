//! Every update of an existing object: PUT, PATCH, subresources. Read, transform, check, compare-and-swap; again when somebody was faster.

use super::draft::{Fate, Held, commit};
use super::read::{Versions, load};
use super::{Caller, Target, WriteOptions, Written};
use crate::access;
use crate::admission::{self, Operation};
use crate::core::Core;
use crate::form;
use kinds::Context;
use kube::Status;
use serde_json::Value;
use storage::Expect;

/// What part of an object a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but what only subresources change.
    Main,
    /// The status.
    Status,
    /// As the system itself does: no strategy, only validation of metadata. For bindings, finalization, scale-by-path.
    System(&'static str),
    /// Through the main rules, recorded under this subresource (`scale`).
    Through(&'static str),
}

impl Part {
    pub(super) fn subresource(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Status => "status",
            Part::System(name) | Part::Through(name) => name,
        }
    }
}

/// How often a change that lost the race is made again on the new state. Each lost race is somebody else's success, so this many
/// only fail where more clients than this hammer one object at once.
const TRIES: usize = 100;

/// What a transformation makes of the object.
pub enum Made {
    /// The new object; its managed fields are to be computed.
    Object(Value),
    /// The new object with managed fields already computed (server-side apply).
    Applied(Value),
}

/// Replaces an object by a body (PUT).
///
/// # Errors
/// The refusal of form, admission, validation or store.
pub async fn replace(
    core: &Core,
    caller: &Caller,
    target: &Target,
    part: Part,
    body: Value,
    options: WriteOptions,
) -> Result<Written, Status> {
    identify(target, &body)?;
    change(core, caller, target, part, options, |_| Ok(Made::Object(body.clone()))).await
}

/// Changes an object by a function of its current state, which is called again when the state has moved on. If what it makes
/// carries a resourceVersion other than the current one, the change is refused instead.
///
/// # Errors
/// The refusal of the function, form, admission, validation or store.
pub async fn change<F>(
    core: &Core,
    caller: &Caller,
    target: &Target,
    part: Part,
    options: WriteOptions,
    transform: F,
) -> Result<Written, Status>
where
    F: Fn(&Value) -> Result<Made, Status>,
{
    for attempt in 1.. {
        let (revision, old) = load(core, target)?;
        let made = transform(&old)?;
        let pinned = match &made {
            Made::Object(new) | Made::Applied(new) => precondition(target, new, &old, revision)?,
        };
        match attempt_change(core, caller, target, part, options, (revision, &old), made).await {
            Err(status) if status.reason == "Conflict" && !pinned && attempt < TRIES && is_stale(&status, target) => {}
            result => return result,
        }
    }
    unreachable!("the loop returns by its last attempt")
}

fn is_stale(status: &Status, target: &Target) -> bool {
    let (group, plural) = (target.resource.group(), target.resource.plural());
    status.message == Status::modified(group, plural, &target.name).message
}

/// Whether the new object names the revision that it was made from, and so must not be applied to another.
fn precondition(target: &Target, new: &Value, old: &Value, revision: u64) -> Result<bool, Status> {
    let (group, plural) = (target.resource.group(), target.resource.plural());
    let meta = &new["metadata"];
    let uid = meta["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && old["metadata"]["uid"] != uid {
        let have = old["metadata"]["uid"].as_str().unwrap_or_default();
        let detail = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}");
        return Err(Status::conflict(group, plural, &target.name, &detail));
    }
    match meta["resourceVersion"].as_str().unwrap_or_default() {
        "" | "0" => Ok(false),
        text => match text.parse::<u64>() {
            Ok(wanted) if wanted == revision => Ok(true),
            Ok(_) => Err(Status::modified(group, plural, &target.name)),
            Err(_) => {
                let cause = kube::Cause::invalid(
                    "metadata.resourceVersion",
                    &meta["resourceVersion"],
                    "must be an unsigned integer",
                );
                Err(Status::invalid(group, target.resource.kind(), &target.name, vec![cause]))
            }
        },
    }
}

async fn attempt_change(
    core: &Core,
    caller: &Caller,
    target: &Target,
    part: Part,
    options: WriteOptions,
    (revision, old): (u64, &Value),
    made: Made,
) -> Result<Written, Status> {
    let resource = &target.resource;
    let id = (resource.group(), resource.plural(), part.subresource());
    access::restrict_node(&caller.identity, "update", id, &target.name, old)?;
    let behaviour = form::behaviour(resource);
    let now = core.now();
    let (mut new, applied) = match made {
        Made::Object(new) => (new, false),
        Made::Applied(new) => (new, true),
    };
    form::fill(resource, &mut new);
    let uid = old["metadata"]["uid"].as_str().unwrap_or_default();
    match part {
        Part::Main | Part::Through(_) => behaviour.prepare_update(&mut new, old, &Context { now, uid }),
        Part::Status => behaviour.prepare_status_update(&mut new, old),
        Part::System(_) => {}
    }
    if !applied {
        form::as_manager(resource, caller, part.subresource(), now, |manager| manager.update(Some(old), &mut new));
    }
    let mut warnings = Vec::new();
    let operation = Operation::Update { subresource: part.subresource() };
    let admitted = admission::Request { core, caller, target, operation, old: Some(old) };
    let allocations = admission::mutate(&admitted, &mut new, &mut warnings)?;
    new["metadata"]["resourceVersion"] = revision.to_string().into();
    if form::unchanged(&new, old) {
        let bytes = serde_json::to_vec(old).map_err(Status::internal)?;
        return Ok(Written { object: bytes.into(), created: false, warnings });
    }
    if !matches!(part, Part::System(_)) {
        let causes = form::validate_update(resource, &new, old);
        if !causes.is_empty() {
            return Err(Status::invalid(resource.group(), resource.kind(), &target.name, causes));
        }
    }
    let quota = admission::validate(&admitted, &new)?;
    let fate = if super::delete::is_finished(resource, &new) { Fate::Delete } else { Fate::Put };
    let versions = Versions::of(core, resource);
    let mut new = versions.stored(new);
    let (expect, held) = (Expect::Revision(revision), Held { allocations, quota });
    let record = commit(core, target, &mut new, expect, fate, options.dry_run, held).await?;
    Ok(Written { object: versions.encoded(record.bytes)?, created: false, warnings })
}

/// The body must be the object that the path names.
fn identify(target: &Target, body: &Value) -> Result<(), Status> {
    let meta = &body["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        let cause = kube::Cause::required("metadata.name", "name must be provided");
        return Err(Status::invalid(target.resource.group(), target.resource.kind(), "", vec![cause]));
    }
    if name != target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    let namespace = meta["namespace"].as_str().unwrap_or_default();
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            target.namespace
        )));
    }
    Ok(())
}

use super::draft::{Fate, Held, commit};
use super::read::Versions;
use super::{Caller, Target, WriteOptions, Written};
use crate::admission::{self, Operation};
use crate::core::{Core, new_uid, random_suffix};
use crate::form;
use kinds::Context;
use kube::Status;
use serde_json::Value;
use storage::Expect;

/// How often a generated name that is taken is generated again.
const NAME_TRIES: usize = 8;
/// As Kubernetes: a longer prefix is cut so that the suffix fits.
const MAX_GENERATED_PREFIX: usize = 58;

/// Creates an object. `target.name` may be empty: the body names it, or asks for a generated name.
///
/// # Errors
/// The refusal of form, admission, validation or store.
pub async fn create(
    core: &Core,
    caller: &Caller,
    target: &Target,
    object: Value,
    options: WriteOptions,
) -> Result<Written, Status> {
    create_with(core, caller, target, object, options, Managed::Update).await
}

/// How `managedFields` come about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Managed {
    /// The caller owns what it wrote.
    Update,
    /// Server-side apply has computed them.
    Applied,
}

pub(super) async fn create_with(
    core: &Core,
    caller: &Caller,
    target: &Target,
    mut object: Value,
    options: WriteOptions,
    managed: Managed,
) -> Result<Written, Status> {
    let mut target = target.clone();
    identify(&mut target, &mut object)?;
    if !target.name.is_empty() {
        return attempt_create(core, caller, &target, object, options, managed).await;
    }
    for attempt in 1.. {
        name_anew(&mut target, &mut object)?;
        match attempt_create(core, caller, &target, object.clone(), options, managed).await {
            Err(status) if status.reason == "AlreadyExists" && attempt < NAME_TRIES => {}
            result => return result,
        }
    }
    unreachable!("the loop returns by its last attempt")
}

async fn attempt_create(
    core: &Core,
    caller: &Caller,
    target: &Target,
    mut object: Value,
    options: WriteOptions,
    managed: Managed,
) -> Result<Written, Status> {
    let resource = &target.resource;
    let behaviour = form::behaviour(resource);
    let now = core.now();
    form::fill(resource, &mut object);
    let uid = new_uid();
    behaviour.prepare_create(&mut object, &Context { now, uid: &uid });
    // Before admission: what it fills in is nobody's.
    if managed == Managed::Update {
        form::as_manager(resource, caller, "", now, |manager| manager.update(None, &mut object));
    }
    let mut warnings = Vec::new();
    let admitted = admission::Request { core, caller, target, operation: Operation::Create, old: None };
    let allocations = admission::mutate(&admitted, &mut object, &mut warnings)?;
    let meta = &mut object["metadata"];
    if let Some(meta) = meta.as_object_mut() {
        meta.remove("resourceVersion");
    }
    let causes = form::validate_create(resource, &object);
    if !causes.is_empty() {
        return Err(Status::invalid(resource.group(), resource.kind(), &target.name, causes));
    }
    let quota = admission::validate(&admitted, &object)?;
    let versions = Versions::of(core, resource);
    let mut object = versions.stored(object);
    let held = Held { allocations, quota };
    let record = commit(core, target, &mut object, Expect::Absent, Fate::Put, options.dry_run, held).await?;
    if target.key() == "namespaces" && !options.dry_run {
        furnish(core, &target.name).await;
    }
    Ok(Written { object: versions.encoded(record.bytes)?, created: true, warnings })
}

/// Makes path and body agree on who the object is.
fn identify(target: &mut Target, object: &mut Value) -> Result<(), Status> {
    let resource = &target.resource;
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request("the body of the request is no object"));
    };
    let meta = map.entry("metadata").or_insert_with(|| Value::Object(Default::default()));
    if meta.is_null() {
        *meta = Value::Object(Default::default());
    }
    let Some(meta) = meta.as_object_mut() else { return Err(Status::bad_request("metadata is no object")) };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let (namespace, name) = (text(meta.get("namespace")), text(meta.get("name")));
    if !resource.namespaced() {
        meta.remove("namespace");
        target.namespace.clear();
    } else if target.namespace.is_empty() {
        return Err(Status::bad_request("an empty namespace may not be set during creation"));
    } else if namespace.is_empty() {
        meta.insert("namespace".into(), target.namespace.clone().into());
    } else if namespace != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if target.name.is_empty() {
        target.name = name;
    } else if name.is_empty() {
        meta.insert("name".into(), target.name.clone().into());
    } else if name != target.name {
        return Err(Status::bad_request("the name of the provided object does not match the name sent on the request"));
    }
    if text(meta.get("resourceVersion")).parse::<u64>().is_ok_and(|revision| revision > 0) {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    Ok(())
}

fn name_anew(target: &mut Target, object: &mut Value) -> Result<(), Status> {
    let meta = &mut object["metadata"];
    let prefix = meta["generateName"].as_str().unwrap_or_default();
    if prefix.is_empty() {
        let cause = kube::Cause::required("metadata.name", "name or generateName is required");
        return Err(Status::invalid(target.resource.group(), target.resource.kind(), "", vec![cause]));
    }
    let end = (0..=prefix.len().min(MAX_GENERATED_PREFIX)).rev().find(|at| prefix.is_char_boundary(*at)).unwrap_or(0);
    target.name = format!("{}{}", &prefix[..end], random_suffix(5));
    meta["name"] = target.name.clone().into();
    Ok(())
}

/// A new namespace's contents. The namespace stands even when they cannot be written; its controller tries again.
async fn furnish(core: &Core, namespace: &str) {
    if let Err(error) = crate::bootstrap::furnish_namespace(core, namespace).await {
        tracing::warn!(%error, namespace, "cannot furnish a new namespace");
    }
}

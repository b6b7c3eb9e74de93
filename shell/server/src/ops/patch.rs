use super::change::{Made, Part, change};
use super::create::{Managed, create_with};
use super::{Caller, Target, WriteOptions, Written};
use crate::core::Core;
use crate::form::{self, FieldValidation};
use apply::{ApplyError, JsonPatchError, json_patch, merge_patch, strategic_merge};
use kube::codec::{self, Kind};
use kube::{Resource, Status};
use serde_json::{Map, Value};
use std::sync::Mutex;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, for built-in kinds.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// By media type.
    pub fn of_content_type(media: &str) -> Option<PatchKind> {
        Some(match media {
            "application/json-patch+json" => PatchKind::Json,
            "application/merge-patch+json" => PatchKind::Merge,
            "application/strategic-merge-patch+json" => PatchKind::Strategic,
            "application/apply-patch+yaml" | "application/apply-patch+json" => PatchKind::Apply,
            _ => return None,
        })
    }

    /// What a resource takes, for the 415 answer.
    pub fn media_types(resource: &Resource) -> &'static [&'static str] {
        if !resource.is_kubernetes_own() {
            &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"]
        } else {
            &[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                "application/apply-patch+yaml",
            ]
        }
    }
}

/// Applies a patch to a value of a kind.
///
/// # Errors
/// The patch is malformed or does not apply.
pub fn apply_patch(kind: &Kind<'_>, how: PatchKind, mut object: Value, body: &[u8]) -> Result<Value, Status> {
    let patch = parse(how, body)?;
    match how {
        PatchKind::Json => json_patch(&mut object, &patch).map_err(|error| json_refusal(kind, &error))?,
        PatchKind::Merge => {
            if !patch.is_object() {
                return Err(Status::bad_request("the patch is no JSON object"));
            }
            merge_patch(&mut object, patch);
        }
        PatchKind::Strategic if kind.custom.is_some() => {
            let accepted =
                ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
            return Err(Status::unsupported_media_type(&accepted));
        }
        PatchKind::Strategic => {
            strategic_merge(&mut object, patch, kind.schema).map_err(|error| Status::bad_request(error.to_string()))?;
        }
        PatchKind::Apply => return Err(Status::unsupported_media_type(&["application/merge-patch+json"])),
    }
    Ok(object)
}

fn parse(how: PatchKind, body: &[u8]) -> Result<Value, Status> {
    let parsed = if how == PatchKind::Apply { codec::parse::yaml(body) } else { codec::parse::json(body) };
    match parsed {
        Ok((value, _)) => Ok(value),
        Err(error) if how == PatchKind::Apply => Err(Status::bad_request(format!("error decoding YAML: {error}"))),
        Err(error) => Err(Status::bad_request(format!("error decoding patch: {error}"))),
    }
}

fn json_refusal(kind: &Kind<'_>, error: &JsonPatchError) -> Status {
    match error {
        JsonPatchError::Malformed(_) => return Status::bad_request(error.to_string()),
        JsonPatchError::TooMany(_) => {
            let mut status = Status::too_large(apply::MAX_OPERATIONS);
            status.message = error.to_string();
            return status;
        }
        // A patch that does not fit the object is the object's state as much as the sender's fault; Kubernetes says 422.
        _ => {}
    }
    let mut status = Status::invalid(kind.group, kind.kind, "", Vec::new());
    status.message = format!("the server rejected our request due to an error in our request: {error}");
    status
}

/// Changes an object by a patch; an apply creates what is not there.
///
/// # Errors
/// The refusal of patch, form, admission, validation or store.
#[expect(clippy::too_many_arguments, reason = "the parts of a request that matter here")]
pub async fn patch(
    core: &Core,
    caller: &Caller,
    target: &Target,
    part: Part,
    how: PatchKind,
    body: &[u8],
    validation: FieldValidation,
    options: WriteOptions,
) -> Result<Written, Status> {
    if how == PatchKind::Apply {
        return apply(core, caller, target, part, body, validation, options).await;
    }
    let kind = Kind::of(&target.resource);
    let warnings = Mutex::new(Vec::new());
    let mut written = change(core, caller, target, part, options, |old| {
        let patched = apply_patch(&kind, how, old.clone(), body)?;
        let (mut new, told) = form::conform(&kind, patched, validation)?;
        *warnings.lock().expect("nothing panics while it holds this") = told;
        unpin(&mut new, old);
        Ok(Made::Object(new))
    })
    .await?;
    written.warnings.splice(0..0, warnings.into_inner().unwrap_or_default());
    Ok(written)
}

/// A patch is made again on a newer state unless it names a revision itself: the one that it found is no condition.
pub(crate) fn unpin(new: &mut Value, old: &Value) {
    if new["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]
        && let Some(meta) = new["metadata"].as_object_mut()
    {
        meta.remove("resourceVersion");
    }
}

async fn apply(
    core: &Core,
    caller: &Caller,
    target: &Target,
    part: Part,
    body: &[u8],
    validation: FieldValidation,
    options: WriteOptions,
) -> Result<Written, Status> {
    let resource = &target.resource;
    let kind = Kind::of(resource);
    let config = configuration(target, &kind, body)?;
    let warnings = unknown(&kind, &config, validation)?;
    let asked = config["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let result = change(core, caller, target, part, options, |old| {
        let merged = form::as_manager(resource, caller, part.subresource(), core.now(), |manager| {
            manager.apply(Some(old), &config, options.force)
        });
        let (mut new, _) = form::conform(&kind, merged.map_err(refusal)?, FieldValidation::Ignore)?;
        if asked.is_empty() {
            unpin(&mut new, old);
        } else {
            new["metadata"]["resourceVersion"] = asked.clone().into();
        }
        Ok(Made::Applied(new))
    });
    let mut written = match result.await {
        Err(status) if status.code == 404 && part == Part::Main => {
            if !asked.is_empty() {
                let (group, plural) = (resource.group(), resource.plural());
                let uid = "StorageError: invalid object, Code: 4: Precondition failed: the object is not there";
                return Err(Status::conflict(group, plural, &target.name, uid));
            }
            let made = form::as_manager(resource, caller, "", core.now(), |manager| {
                manager.apply(None, &config, options.force)
            });
            let (object, _) = form::conform(&kind, made.map_err(refusal)?, FieldValidation::Ignore)?;
            create_with(core, caller, target, object, options, Managed::Applied).await?
        }
        other => other?,
    };
    written.warnings.splice(0..0, warnings);
    Ok(written)
}

/// The applied object, with the name that the path has.
fn configuration(target: &Target, kind: &Kind<'_>, body: &[u8]) -> Result<Value, Status> {
    let mut config = parse(PatchKind::Apply, body)?;
    if !config.is_object() {
        return Err(Status::bad_request("the applied configuration is no object"));
    }
    if config["kind"].as_str().is_none_or(str::is_empty) {
        return Err(Status::bad_request("Object 'Kind' is missing in the applied configuration"));
    }
    if config["kind"] != kind.kind {
        let detail =
            format!("the kind in the data ({}) does not match the expected kind ({})", config["kind"], kind.kind);
        return Err(Status::bad_request(detail));
    }
    let Some(meta) =
        config.as_object_mut().map(|map| map.entry("metadata").or_insert_with(|| Value::Object(Map::new())))
    else {
        return Err(Status::bad_request("the applied configuration is no object"));
    };
    let name = meta["name"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        meta["name"] = target.name.clone().into();
    } else if name != target.name {
        let detail = format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
        return Err(Status::bad_request(detail));
    }
    let namespace = meta["namespace"].as_str().unwrap_or_default().to_owned();
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(config)
}

fn unknown(kind: &Kind<'_>, config: &Value, validation: FieldValidation) -> Result<Vec<String>, Status> {
    if validation == FieldValidation::Ignore || kind.custom.is_some() {
        return Ok(Vec::new());
    }
    let problems = codec::conform::unknown_fields(kind.schema, config);
    if validation == FieldValidation::Warn || problems.is_empty() {
        return Ok(problems);
    }
    Err(Status::bad_request(codec::strict_error(&problems)))
}

fn refusal(error: ApplyError) -> Status {
    match error {
        ApplyError::Conflicts(conflicts) => {
            let causes = conflicts.causes();
            Status::apply_conflict(conflicts.to_string(), causes)
        }
        ApplyError::Live(_) => Status::internal(error),
        other => Status::bad_request(other.to_string()),
    }
}

//! One view of what kinds, custom definitions and the codec do to an object, whatever kind it is.

use crate::ops::Caller;
use apply::FieldManager;
use kinds::{Cause as KindCause, Kind};
use kube::codec::{self, Format};
use kube::{Cause, Resource, Status};
use model::Timestamp;
use serde_json::{Map, Value};

/// What `fieldValidation` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Unknown and repeated fields are dropped silently.
    Ignore,
    /// They are dropped and told about.
    #[default]
    Warn,
    /// They are refused.
    Strict,
}

/// What the kind does. Bundled definitions (Gateway API, Istio) have a behaviour of their own where one is written.
pub fn behaviour(resource: &Resource) -> &'static dyn Kind {
    // Asked at every request, so without the schema, which a bundled resource compiles when it is first used.
    let found = (!resource.is_dynamic()).then(|| kinds::behaviour(resource.group(), resource.kind()));
    let written = found.filter(|found| resource.is_kubernetes_own() || !found.facts().kind.is_empty());
    written.unwrap_or_else(|| kinds::custom(resource.subresource("status").is_some()))
}

/// Decodes a body of a resource's kind.
///
/// # Errors
/// 400 as kube-apiserver words it.
pub fn decode(
    kind: &codec::Kind<'_>,
    format: Format,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let decoded = codec::decode(kind, format, body).map_err(|error| error.to_status(kind))?;
    check_strict(kind, decoded, validation)
}

/// Brings the result of a patch into the form of its kind.
///
/// # Errors
/// As [`decode`].
pub fn conform(
    kind: &codec::Kind<'_>,
    value: Value,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let decoded = codec::conform(kind, value).map_err(|error| error.to_status(kind))?;
    check_strict(kind, decoded, validation)
}

fn check_strict(
    kind: &codec::Kind<'_>,
    decoded: codec::Decoded,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    match validation {
        FieldValidation::Strict => match decoded.strict_status(kind) {
            Some(status) => Err(status),
            None => Ok((decoded.value, Vec::new())),
        },
        FieldValidation::Warn => Ok((decoded.value, decoded.problems)),
        FieldValidation::Ignore => Ok((decoded.value, Vec::new())),
    }
}

/// Defaults.
pub fn fill(resource: &Resource, object: &mut Value) {
    if let Some(custom) = resource.custom() {
        custom.set_defaults(object);
    }
    behaviour(resource).defaults(object);
}

/// Why the object cannot be created.
pub fn validate_create(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes: Vec<Cause> = behaviour(resource).validate_create(object).into_iter().map(cause).collect();
    if let Some(custom) = resource.custom() {
        causes.extend(custom.validate(object));
    }
    causes
}

/// Why `old` cannot become `new`.
pub fn validate_update(resource: &Resource, new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes: Vec<Cause> = behaviour(resource).validate_update(new, old).into_iter().map(cause).collect();
    if let Some(custom) = resource.custom() {
        causes.extend(custom.validate_update(new, Some(old)));
    }
    causes
}

fn cause(cause: KindCause) -> Cause {
    Cause { reason: cause.reason, field: cause.field, message: cause.message }
}

/// Whether nothing but bookkeeping differs, so that there is nothing to write.
pub fn unchanged(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new == old };
    let metadata = match (new.get("metadata"), old.get("metadata")) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            same_members(a, b, &["managedFields", "resourceVersion"])
                && same_owners(&a.get("managedFields"), &b.get("managedFields"))
        }
        (a, b) => a == b,
    };
    metadata && same_members(new, old, &["metadata"])
}

/// Managed fields, but for the times.
fn same_owners(a: &Option<&Value>, b: &Option<&Value>) -> bool {
    let list = |value: &Option<&'_ Value>| value.and_then(Value::as_array).map_or(0, Vec::len);
    if list(a) != list(b) {
        return false;
    }
    let (Some(Value::Array(a)), Some(Value::Array(b))) = (a, b) else { return true };
    a.iter().zip(b).all(|(a, b)| match (a, b) {
        (Value::Object(a), Value::Object(b)) => same_members(a, b, &["time"]),
        _ => a == b,
    })
}

fn same_members(a: &Map<String, Value>, b: &Map<String, Value>, but: &[&str]) -> bool {
    let counted = |key: &&String| !but.contains(&key.as_str());
    a.keys().filter(counted).count() == b.keys().filter(counted).count()
        && a.iter().filter(|(key, _)| counted(key)).all(|(key, value)| b.get(key) == Some(value))
}

/// Runs `work` as the writer of an object's fields.
pub fn as_manager<T>(
    resource: &Resource,
    caller: &Caller,
    subresource: &str,
    now: Timestamp,
    work: impl FnOnce(&FieldManager<'_>) -> T,
) -> T {
    let has_status = behaviour(resource).facts().status;
    let (api_version, now) = (resource.api_version(), kinds::time::seconds(now));
    work(&FieldManager {
        schema: resource.schema(),
        api_version: &api_version,
        manager: &caller.manager,
        subresource,
        reset: FieldManager::reset_fields(subresource, has_status),
        now: &now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bookkeeping_is_no_change() {
        let old = json!({"metadata": {"name": "a", "resourceVersion": "1", "managedFields": [{"manager": "m", "time": "1"}]}, "x": 1});
        let new = json!({"metadata": {"name": "a", "resourceVersion": "2", "managedFields": [{"manager": "m", "time": "2"}]}, "x": 1});
        assert!(unchanged(&new, &old));
        let other = json!({"metadata": {"name": "a", "managedFields": [{"manager": "n"}]}, "x": 1});
        assert!(!unchanged(&other, &old));
        let more = json!({"metadata": {"name": "a", "resourceVersion": "1", "managedFields": [{"manager": "m", "time": "1"}]}, "x": 1, "y": 2});
        assert!(!unchanged(&more, &old) && !unchanged(&old, &more));
    }
}

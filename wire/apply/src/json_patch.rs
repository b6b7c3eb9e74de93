//! JSON Patch (RFC 6902) over JSON pointers (RFC 6901).

use serde_json::Value;

/// A patch with more operations is refused (kube-apiserver's limit).
pub const MAX_OPERATIONS: usize = 10_000;

/// Why a patch does not apply. All are the client's fault; only `TestFailed` may succeed when tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPatchError {
    /// It is no list of operations, or an operation lacks a member or has an unknown name (400).
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// Too many operations (413).
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooMany(usize),
    /// A place that the operation needs is not there (422).
    #[error("{operation} operation does not apply: doc is missing path: {path:?}: missing value")]
    Missing {
        /// `add`, `remove`, ...
        operation: &'static str,
        /// The pointer.
        path: String,
    },
    /// A list index that cannot be (422).
    #[error("{operation} operation does not apply: {path:?}: invalid index referenced")]
    Index {
        /// `add`, `remove`, ...
        operation: &'static str,
        /// The pointer.
        path: String,
    },
    /// A `test` does not hold (422).
    #[error("testing value {0} failed: test failed")]
    TestFailed(String),
}

/// Applies all operations in order, or none.
///
/// # Errors
/// Any operation is malformed or does not apply.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), JsonPatchError> {
    let operations =
        patch.as_array().ok_or_else(|| JsonPatchError::Malformed("a JSON patch is a list of operations".into()))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(JsonPatchError::TooMany(operations.len()));
    }
    let mut draft = target.clone();
    for operation in operations {
        apply(&mut draft, operation)?;
    }
    *target = draft;
    Ok(())
}

fn apply(document: &mut Value, operation: &Value) -> Result<(), JsonPatchError> {
    let text = |key: &str| {
        operation[key]
            .as_str()
            .ok_or_else(|| JsonPatchError::Malformed(format!("operation {operation} has no text member {key:?}")))
    };
    let value = || {
        operation
            .get("value")
            .cloned()
            .ok_or_else(|| JsonPatchError::Malformed(format!("operation {operation} has no member \"value\"")))
    };
    let path = text("path")?;
    match text("op")? {
        "add" => add(document, path, value()?, "add"),
        "remove" => remove(document, path, "remove").map(drop),
        "replace" => {
            let new = value()?;
            *find(document, path, "replace")? = new;
            Ok(())
        }
        "move" => {
            let from = text("from")?;
            if path != from && path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                return Err(JsonPatchError::Malformed(format!("{from:?} cannot be moved into itself")));
            }
            let moved = remove(document, from, "move")?;
            add(document, path, moved, "move")
        }
        "copy" => {
            let copied = find(document, text("from")?, "copy")?.clone();
            add(document, path, copied, "copy")
        }
        "test" => {
            // A member that is not there equals null, as in the library that kube-apiserver uses.
            let found = find(document, path, "test").map(|value| &*value);
            let wanted = operation.get("value").unwrap_or(&Value::Null);
            let holds = match found {
                Ok(found) => equal(found, wanted),
                Err(_) => wanted.is_null(),
            };
            if holds { Ok(()) } else { Err(JsonPatchError::TestFailed(path.to_owned())) }
        }
        other => Err(JsonPatchError::Malformed(format!("unexpected kind: {other}"))),
    }
}

/// Equality of RFC 6902 section 4.6: numbers by value.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// The unescaped steps of a pointer.
fn steps(path: &str) -> Result<Vec<String>, JsonPatchError> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let rest = path
        .strip_prefix('/')
        .ok_or_else(|| JsonPatchError::Malformed(format!("path {path:?} does not begin with a slash")))?;
    Ok(rest.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

/// A list index without sign and leading zeros.
fn index(step: &str) -> Option<usize> {
    let canonical = step == "0" || (!step.starts_with('0') && step.bytes().all(|b| b.is_ascii_digit()));
    if canonical { step.parse().ok() } else { None }
}

fn find<'a>(document: &'a mut Value, path: &str, operation: &'static str) -> Result<&'a mut Value, JsonPatchError> {
    let missing = || JsonPatchError::Missing { operation, path: path.to_owned() };
    steps(path)?.iter().try_fold(document, |value, step| {
        match value {
            Value::Object(map) => map.get_mut(step),
            Value::Array(items) => index(step).and_then(|at| items.get_mut(at)),
            _ => None,
        }
        .ok_or_else(missing)
    })
}

fn parent<'a>(
    document: &'a mut Value,
    path: &str,
    operation: &'static str,
) -> Result<(&'a mut Value, String), JsonPatchError> {
    let (parent, _) =
        path.rsplit_once('/').ok_or_else(|| JsonPatchError::Missing { operation, path: path.to_owned() })?;
    let last = steps(path)?.pop().unwrap_or_default();
    // The error names the whole path, not the parent's.
    let holder =
        find(document, parent, operation).map_err(|_| JsonPatchError::Missing { operation, path: path.to_owned() })?;
    Ok((holder, last))
}

fn add(document: &mut Value, path: &str, value: Value, operation: &'static str) -> Result<(), JsonPatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (holder, last) = parent(document, path, operation)?;
    match holder {
        Value::Object(map) => {
            map.insert(last, value);
            Ok(())
        }
        Value::Array(items) => {
            let at = if last == "-" { Some(items.len()) } else { index(&last).filter(|at| *at <= items.len()) };
            let at = at.ok_or_else(|| JsonPatchError::Index { operation, path: path.to_owned() })?;
            items.insert(at, value);
            Ok(())
        }
        _ => Err(JsonPatchError::Missing { operation, path: path.to_owned() }),
    }
}

fn remove(document: &mut Value, path: &str, operation: &'static str) -> Result<Value, JsonPatchError> {
    let missing = || JsonPatchError::Missing { operation, path: path.to_owned() };
    let (holder, last) = parent(document, path, operation)?;
    match holder {
        Value::Object(map) => map.remove(&last).ok_or_else(missing),
        Value::Array(items) => {
            let at = index(&last).filter(|at| *at < items.len());
            at.map(|at| items.remove(at)).ok_or_else(|| JsonPatchError::Index { operation, path: path.to_owned() })
        }
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(target: Value, patch: Value) -> Result<Value, String> {
        let mut target = target;
        json_patch(&mut target, &patch).map(|()| target).map_err(|wrong| wrong.to_string())
    }

    /// The examples of RFC 6902, appendix A, and what they leave open.
    #[test]
    fn operations() {
        for (target, patch, expected) in [
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux"}]),
                json!({"baz": "qux", "foo": "bar"}),
            ),
            (
                json!({"foo": ["a", "b"]}),
                json!([{"op": "add", "path": "/foo/1", "value": "c"}]),
                json!({"foo": ["a", "c", "b"]}),
            ),
            (json!({"a": 1, "b": 2}), json!([{"op": "remove", "path": "/a"}]), json!({"b": 2})),
            (json!({"foo": [1, 2, 3]}), json!([{"op": "remove", "path": "/foo/1"}]), json!({"foo": [1, 3]})),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/a", "value": 2}]), json!({"a": 2})),
            (
                json!({"a": {"x": 1}, "b": {}}),
                json!([{"op": "move", "from": "/a/x", "path": "/b/y"}]),
                json!({"a": {}, "b": {"y": 1}}),
            ),
            (json!({"l": [1, 2, 3]}), json!([{"op": "move", "from": "/l/0", "path": "/l/2"}]), json!({"l": [2, 3, 1]})),
            (
                json!({"a": {"x": 1}}),
                json!([{"op": "copy", "from": "/a", "path": "/b"}]),
                json!({"a": {"x": 1}, "b": {"x": 1}}),
            ),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": [2]}]), json!({"a": [1, [2]]})),
            (
                json!({"/": 9, "~1": 10}),
                json!([{"op": "test", "path": "/~01", "value": 10}]),
                json!({"/": 9, "~1": 10}),
            ),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1.0}]), json!({"a": 1})),
            (json!({}), json!([{"op": "test", "path": "/a", "value": null}]), json!({})),
            (json!({"a": 1}), json!([{"op": "add", "path": "", "value": 5}]), json!(5)),
        ] {
            assert_eq!(patched(target, patch.clone()), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn refusals_change_nothing() {
        for (patch, expected) in [
            (json!({}), "error decoding patch: a JSON patch is a list of operations"),
            (
                json!([{"op": "remove", "path": "/x"}]),
                "remove operation does not apply: doc is missing path: \"/x\": missing value",
            ),
            (
                json!([{"op": "add", "path": "/x/y", "value": 1}]),
                "add operation does not apply: doc is missing path: \"/x/y\": missing value",
            ),
            (
                json!([{"op": "add", "path": "/l/5", "value": 1}]),
                "add operation does not apply: \"/l/5\": invalid index referenced",
            ),
            (
                json!([{"op": "remove", "path": "/l/01"}]),
                "remove operation does not apply: \"/l/01\": invalid index referenced",
            ),
            (
                json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "test", "path": "/a", "value": 1}]),
                "testing value /a failed: test failed",
            ),
            (json!([{"op": "fly", "path": "/a"}]), "error decoding patch: unexpected kind: fly"),
            (
                json!([{"op": "move", "from": "/o", "path": "/o/x"}]),
                "error decoding patch: \"/o\" cannot be moved into itself",
            ),
        ] {
            let original = json!({"a": 1, "l": [1], "o": {}});
            let mut target = original.clone();
            assert_eq!(json_patch(&mut target, &patch).unwrap_err().to_string(), expected);
            assert_eq!(target, original, "{patch}");
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "", "value": null}); MAX_OPERATIONS + 1]);
        assert_eq!(json_patch(&mut json!(null), &many), Err(JsonPatchError::TooMany(MAX_OPERATIONS + 1)));
    }
}

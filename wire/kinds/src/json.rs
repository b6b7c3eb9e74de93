//! Reading and filling JSON trees whose shape is not guaranteed.
//!
//! Reads never fail: a missing or mistyped member reads as empty, because refusing mistyped bodies is the codec's
//! work (`kube`) and was done before. Writes never replace a member of another type.

use serde_json::{Map, Value};
use std::sync::OnceLock;

/// A JSON object's members.
pub type Members = Map<String, Value>;

/// The text of a string, else `""`.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Whether it is `true`.
pub fn flag(value: &Value) -> bool {
    value.as_bool().unwrap_or(false)
}

/// The elements of a list, else none.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The members of an object, else none.
pub fn members(value: &Value) -> &Members {
    static NONE: OnceLock<Members> = OnceLock::new();
    value.as_object().unwrap_or_else(|| NONE.get_or_init(Members::new))
}

/// Whether Go would call it the zero value of an optional field: absent, null, or an empty text, list or object.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The object under `key`, made when absent or null; `None` when something else is there.
pub fn child<'a>(map: &'a mut Members, key: &str) -> Option<&'a mut Members> {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), Value::Object(Members::new()));
    }
    map.get_mut(key)?.as_object_mut()
}

/// The object under `key`, if there is one.
pub fn existing<'a>(map: &'a mut Members, key: &str) -> Option<&'a mut Members> {
    map.get_mut(key)?.as_object_mut()
}

/// The objects in the list under `key`.
pub fn each_object<'a>(map: &'a mut Members, key: &str) -> impl Iterator<Item = &'a mut Members> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Sets `key` when it is absent or null.
pub fn fill(map: &mut Members, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sets `key` when it is absent, null or `""`: for Go fields that are texts and not pointers.
pub fn fill_text(map: &mut Members, key: &str, value: &str) {
    if map.get(key).is_none_or(|v| v.is_null() || v.as_str() == Some("")) {
        map.insert(key.to_owned(), Value::from(value));
    }
}

/// Sets `key` when it is absent, null or 0: for Go fields that are numbers and not pointers.
pub fn fill_number(map: &mut Members, key: &str, value: i64) {
    if map.get(key).is_none_or(|v| v.is_null() || v.as_i64() == Some(0)) {
        map.insert(key.to_owned(), Value::from(value));
    }
}

/// Puts the member `key` of `old` into `new`, or removes it from `new` when `old` has none.
pub fn carry(new: &mut Members, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) if !value.is_null() => {
            new.insert(key.to_owned(), value.clone());
        }
        _ => {
            new.remove(key);
        }
    }
}

/// Removes null members everywhere: Go drops them when it decodes into its types.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Equality as Kubernetes' semantic deep-equal sees it: absent, null and empty containers are the same.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let absent = Value::Null;
            a.iter().all(|(key, left)| same(left, b.get(key).unwrap_or(&absent)))
                && b.iter().all(|(key, right)| a.contains_key(key) || same(&absent, right))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Number(_), Value::Number(_)) => a == b || (a.as_f64().is_some() && a.as_f64() == b.as_f64()),
        _ => a == b || (is_absent(a) && is_absent(b)),
    }
}

fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_absent),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sameness_ignores_empties() {
        assert!(same(&json!({"a": 1, "b": {}, "c": []}), &json!({"a": 1})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 2})));
        assert!(!same(&json!({"a": [1, 2]}), &json!({"a": [2, 1]})));
        assert!(!same(&json!({"a": false}), &json!({})));
    }

    #[test]
    fn nulls_are_dropped_deeply() {
        let mut value = json!({"a": null, "b": {"c": null, "d": [{"e": null}]}});
        drop_nulls(&mut value);
        assert_eq!(value, json!({"b": {"d": [{}]}}));
    }
}

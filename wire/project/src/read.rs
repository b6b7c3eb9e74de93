//! Reading JSON values. Tolerant: a field of the wrong form counts as absent, because the API server refused it long before.

use model::condition::Amount;
use model::{Condition, Labels, Quantity, Timestamp, Truth};
use serde_json::Value;
use std::sync::Arc;

const NULL: &Value = &Value::Null;

/// A field, or null.
pub fn at<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(NULL)
}
/// A field some levels down, or null.
pub fn path<'a>(value: &'a Value, keys: &[&str]) -> &'a Value {
    keys.iter().fold(value, |value, key| at(value, key))
}
/// A string, or empty.
pub fn text(value: &Value, key: &str) -> Arc<str> {
    str_at(value, key).into()
}
/// A string, or empty.
pub fn str_at<'a>(value: &'a Value, key: &str) -> &'a str {
    at(value, key).as_str().unwrap_or_default()
}
/// A string, if it is there.
pub fn opt_text(value: &Value, key: &str) -> Option<Arc<str>> {
    at(value, key).as_str().map(Arc::from)
}
/// A boolean, or false.
pub fn flag(value: &Value, key: &str) -> bool {
    at(value, key).as_bool().unwrap_or(false)
}
/// An integer.
pub fn opt_int(value: &Value, key: &str) -> Option<i64> {
    at(value, key).as_i64()
}
/// A 32-bit integer.
pub fn opt_i32(value: &Value, key: &str) -> Option<i32> {
    opt_int(value, key).and_then(|number| number.try_into().ok())
}
/// A 32-bit integer, or a default.
pub fn int(value: &Value, key: &str, default: i32) -> i32 {
    opt_i32(value, key).unwrap_or(default)
}
/// A list, or an empty one.
pub fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    at(value, key).as_array().map_or(&[], Vec::as_slice)
}
/// A list of strings.
pub fn texts(value: &Value, key: &str) -> Vec<Arc<str>> {
    items(value, key).iter().filter_map(Value::as_str).map(Arc::from).collect()
}
/// A map of strings.
pub fn labels(value: &Value) -> Labels {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((Arc::from(key.as_str()), Arc::from(value.as_str()?)))).collect()
}
/// A quantity.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}
/// A number or a percentage.
pub fn amount(value: &Value) -> Option<Amount> {
    match value {
        Value::Number(number) => number.as_i64().and_then(|n| n.try_into().ok()).map(Amount::Number),
        Value::String(text) => match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().map(Amount::Percent),
            None => text.parse().ok().map(Amount::Number),
        },
        _ => None,
    }
}
/// RFC 3339.
pub fn time(value: &Value, key: &str) -> Option<Timestamp> {
    let text = at(value, key).as_str()?;
    text.parse::<jiff::Timestamp>().ok().map(|time| Timestamp(time.as_microsecond()))
}
/// `status.conditions` and the like; `update` names the field of the time of the last write.
pub fn conditions(value: &Value, update: &str) -> Vec<Condition> {
    items(value, "conditions")
        .iter()
        .map(|condition| Condition {
            kind: text(condition, "type"),
            status: Truth::parse(str_at(condition, "status")),
            reason: text(condition, "reason"),
            message: text(condition, "message"),
            last_transition: time(condition, "lastTransitionTime").unwrap_or_default(),
            last_update: time(condition, update).unwrap_or_default(),
        })
        .collect()
}

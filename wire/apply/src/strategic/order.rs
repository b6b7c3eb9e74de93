//! The order of merged lists.
//!
//! Items that the patch orders come in the patch's order, items that only the server has in the server's; where both meet,
//! the live list decides who is first.

use super::StrategicError;
use serde_json::Value;

/// Whether the items are objects; lists are of one sort.
pub(super) fn holds_objects<'a>(items: impl Iterator<Item = &'a Value>) -> Result<bool, StrategicError> {
    let mut objects = None;
    for item in items {
        if item.is_array() {
            return Err(StrategicError::ListOfLists);
        }
        match objects {
            None => objects = Some(item.is_object()),
            Some(before) if before == item.is_object() => {}
            Some(_) => return Err(StrategicError::MixedList(item.to_string())),
        }
    }
    Ok(objects.unwrap_or(false))
}

/// What tells an item apart: the merge key's value of an object, a scalar itself.
fn identity<'a>(item: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match (item, key) {
        (Value::Object(map), Some(key)) => map.get(key),
        (Value::Object(_), None) => None,
        (scalar, _) => Some(scalar),
    }
}

fn position(order: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    let wanted = identity(item, key)?;
    order.iter().position(|other| identity(other, key) == Some(wanted))
}

/// That the items of the patch's list come in the order of `$setElementOrder`.
pub(super) fn check(list: &[Value], order: &[Value], key: Option<&str>) -> Result<(), StrategicError> {
    if list.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in list.iter().filter(|item| item.get("$patch").is_none()) {
        if key.is_some() && identity(item, key).is_none() {
            let (item, key) = (item.to_string(), key.unwrap_or_default().to_owned());
            return Err(StrategicError::NoMergeKey { item, key });
        }
        if !rest.any(|other| identity(other, key) == identity(item, key)) {
            let shown = |items: &[Value]| Value::Array(items.to_vec()).to_string();
            return Err(StrategicError::OrderMismatch { list: shown(list), order: shown(order) });
        }
    }
    Ok(())
}

/// Arranges a merged list: `order` is the patch's order, `live` the list as it was.
pub(super) fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    live: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, StrategicError> {
    let by = |order: &[Value], item: &Value| position(order, item, key).unwrap_or(usize::MAX);
    let (mut ordered, mut server_only): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item, key).is_some());
    ordered.sort_by_key(|item| by(order, item));
    server_only.sort_by_key(|item| by(live, item));
    let mut all = Vec::with_capacity(ordered.len() + server_only.len());
    let (mut left, mut right) = (server_only.into_iter().peekable(), ordered.into_iter().peekable());
    loop {
        let take_left = match (left.peek(), right.peek()) {
            (None, None) => return Ok(all),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(server), Some(patch)) => match (position(live, server, key), position(live, patch, key)) {
                (Some(server), Some(patch)) => server < patch,
                _ => false,
            },
        };
        all.extend(if take_left { left.next() } else { right.next() });
    }
}

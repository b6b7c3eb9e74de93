//! Strategic merge patch: merge patch that knows which lists merge, and by which key (apimachinery `strategicpatch`).

mod order;

use kube::{PatchStrategy, Schema};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";
/// Deeper patches are refused rather than recursed into.
const MAX_DEPTH: usize = 200;

/// Why a patch does not apply; the client is at fault (400 for its form, 422 for its content), a retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    /// The patch or a part that has to be an object is none.
    #[error("invalid JSON document")]
    NotAnObject,
    /// An item of a merging list lacks the key that tells items apart.
    #[error("map: {item} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The item.
        item: String,
        /// The key.
        key: String,
    },
    /// An unknown `$patch`.
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective {
        /// Its value.
        directive: String,
        /// Where it was found.
        map: String,
    },
    /// `$patch: merge` in a list.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeInList,
    /// `$retainKeys` is no list of texts, or leaves out a key that the patch sets.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder` is no list.
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
    /// The patch's list has another order than `$setElementOrder` says.
    #[error("The order in patch list:\n{list}\n doesn't match $setElementOrder list:\n{order}\n")]
    OrderMismatch {
        /// The list.
        list: String,
        /// The order.
        order: String,
    },
    /// A list holds objects and scalars.
    #[error("list element types are not identical: {0}")]
    MixedList(String),
    /// A list holds lists.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// Nested too deeply.
    #[error("the patch is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Merges `patch` into `original`, an object of the form `schema`.
///
/// # Errors
/// The patch is malformed.
pub fn strategic_merge(original: &mut Value, patch: Value, schema: Schema<'_>) -> Result<(), StrategicError> {
    let Value::Object(patch) = patch else { return Err(StrategicError::NotAnObject) };
    let Value::Object(map) = std::mem::take(original) else { return Err(StrategicError::NotAnObject) };
    *original = Value::Object(merge_map(map, patch, Some(schema), 0)?);
    Ok(())
}

type Members = Map<String, Value>;

/// What the schema says of a list.
#[derive(Clone, Copy, Default)]
struct Merging<'a> {
    merges: bool,
    key: Option<&'a str>,
    item: Option<Schema<'a>>,
}

fn merging<'a>(schema: Option<Schema<'a>>, field: &str) -> Merging<'a> {
    let Some(field) = schema.and_then(|schema| schema.field(field)) else { return Merging::default() };
    let merges = matches!(field.patch_strategy(), PatchStrategy::Merge | PatchStrategy::MergeRetainKeys);
    Merging { merges, key: field.merge_key(), item: field.schema().item() }
}

fn merge_map(
    mut original: Members,
    mut patch: Members,
    schema: Option<Schema<'_>>,
    depth: usize,
) -> Result<Members, StrategicError> {
    if depth > MAX_DEPTH {
        return Err(StrategicError::TooDeep);
    }
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Members::new()),
            _ => Err(unknown(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    ordered_lists(&mut original, &mut patch, schema, depth)?;
    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM) {
            Some(list) => (list.to_owned(), true),
            None => (key, false),
        };
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Array(list)), Value::Array(change)) if deletes => {
                Some(Value::Array(list.into_iter().filter(|item| !change.contains(item)).collect()))
            }
            (kept, _) if deletes => kept,
            (Some(Value::Object(map)), Value::Object(change)) => {
                let child = schema.and_then(|schema| schema.child(&key));
                Some(Value::Object(merge_map(map, change, child, depth + 1)?))
            }
            (Some(Value::Array(list)), Value::Array(change)) => {
                let rule = merging(schema, &key);
                Some(Value::Array(if rule.merges { merge_list(list, change, rule, depth)? } else { change }))
            }
            (_, new) => without_directives(new, true),
        };
        if let Some(merged) = merged {
            original.insert(key, merged);
        }
    }
    Ok(original)
}

fn unknown(directive: &Value, map: &Members) -> StrategicError {
    StrategicError::UnknownDirective { directive: directive.to_string(), map: Value::Object(map.clone()).to_string() }
}

/// `$retainKeys`: what it does not list goes.
fn retain_keys(original: &mut Members, patch: &mut Members) -> Result<(), StrategicError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys: Vec<&str> =
        keys.as_array().and_then(|keys| keys.iter().map(Value::as_str).collect()).ok_or(StrategicError::RetainKeys)?;
    let is_set = |(key, value): &(&String, &Value)| {
        !value.is_null() && !key.starts_with(DELETE_FROM) && !key.starts_with(ELEMENT_ORDER)
    };
    if patch.iter().filter(is_set).any(|(key, _)| !keys.contains(&key.as_str())) {
        return Err(StrategicError::RetainKeys);
    }
    original.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

/// `$setElementOrder/x`: merges list x here, because the order has to be kept.
fn ordered_lists(
    original: &mut Members,
    patch: &mut Members,
    schema: Option<Schema<'_>>,
    depth: usize,
) -> Result<(), StrategicError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(wanted)) = patch.remove(&directive) else { return Err(StrategicError::ElementOrder) };
        let key = &directive[ELEMENT_ORDER.len()..];
        let rule = merging(schema, key);
        let list_of = |value: Option<&Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items.clone())),
            Some(_) => Err(StrategicError::ElementOrder),
        };
        // A null in the patch removes the list; that is done by the caller.
        if patch.get(key).is_some_and(Value::is_null) {
            continue;
        }
        let (live, change) = (list_of(original.get(key))?, list_of(patch.get(key))?);
        if let Some(change) = &change {
            order::check(change, &wanted, rule.key)?;
        }
        let live_order = live.clone().unwrap_or_default();
        let merged = match (live, change) {
            (None, None) => continue,
            (Some(live), None) => live,
            (None, Some(change)) => change.into_iter().filter_map(|item| without_directives(item, false)).collect(),
            (Some(live), Some(change)) if rule.merges => merge_list(live, change, rule, depth)?,
            (Some(_), Some(change)) => change,
        };
        patch.remove(key);
        original.insert(key.to_owned(), Value::Array(order::arrange(merged, &wanted, &live_order, rule.key)?));
    }
    Ok(())
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    rule: Merging<'_>,
    depth: usize,
) -> Result<Vec<Value>, StrategicError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let live = original.clone();
    if !order::holds_objects(original.iter().chain(&patch))? {
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.into_iter().chain(patch.iter().cloned()) {
            if !merged.contains(&item) {
                merged.push(item);
            }
        }
        return order::arrange(merged, &patch, &live, None);
    }
    let Some(key) = rule.key else {
        // The schema merges lists of objects only with a key; without one the list is replaced.
        return Ok(patch.into_iter().filter_map(|item| without_directives(item, false)).collect());
    };
    let (mut merged, patch, replaced) = special_items(original, patch, key)?;
    if replaced {
        return Ok(patch);
    }
    for change in &patch {
        let wanted = merge_key(change, key)?;
        let Value::Object(change) = change else { return Err(StrategicError::NotAnObject) };
        match merged.iter_mut().find(|item| item.get(key) == Some(wanted)) {
            Some(item) => {
                let Value::Object(map) = std::mem::take(item) else { return Err(StrategicError::NotAnObject) };
                *item = Value::Object(merge_map(map, change.clone(), rule.item, depth + 1)?);
            }
            None => {
                let new = Value::Object(change.clone());
                merged.extend(without_directives(new, true));
            }
        }
    }
    order::arrange(merged, &patch, &live, Some(key))
}

fn merge_key<'a>(item: &'a Value, key: &str) -> Result<&'a Value, StrategicError> {
    item.get(key).ok_or_else(|| StrategicError::NoMergeKey { item: item.to_string(), key: key.to_owned() })
}

/// Carries out `$patch` items: returns the live items that are left, the patch without directives, and whether the
/// patch is to replace the list.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>, bool), StrategicError> {
    let (mut plain, mut replaced) = (Vec::with_capacity(patch.len()), false);
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let gone = merge_key(&item, key)?;
                original.retain(|live| live.get(key) != Some(gone));
            }
            Some("replace") => replaced = true,
            Some("merge") => return Err(StrategicError::MergeInList),
            _ => return Err(unknown(directive, item.as_object().unwrap_or(&Members::new()))),
        }
    }
    Ok((original, plain, replaced))
}

/// What is new in the object: without directives, and without nulls when they would mean removal. `None` when the
/// directive is about the whole value.
fn without_directives(value: Value, drop_nulls: bool) -> Option<Value> {
    match value {
        Value::Object(map) => {
            if map.contains_key(DIRECTIVE) {
                return None;
            }
            let kept = map
                .into_iter()
                .filter(|(key, value)| {
                    let directive =
                        key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(ELEMENT_ORDER);
                    !directive && (!drop_nulls || !value.is_null())
                })
                .filter_map(|(key, value)| Some((key, without_directives(value, drop_nulls)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => {
            Some(Value::Array(items.into_iter().filter_map(|item| without_directives(item, drop_nulls)).collect()))
        }
        scalar => Some(scalar),
    }
}

#[cfg(test)]
mod tests;

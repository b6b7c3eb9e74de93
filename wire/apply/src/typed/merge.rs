use super::{Form, Type, TypedError, elements, items};
use crate::fields::{Element, Path, path_text};
use kube::Schema;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// `left` with everything that `right` says; nothing is removed. Lists keep the order of `right` where it speaks, of
/// `left` elsewhere. `None` when nothing is left.
pub(crate) fn merge(left: &Value, right: &Value, ty: Type<'_>) -> Result<Option<Value>, TypedError> {
    walk(Some(left), Some(right), ty, &mut Vec::new())
}

fn walk(
    left: Option<&Value>,
    right: Option<&Value>,
    ty: Type<'_>,
    path: &mut Path,
) -> Result<Option<Value>, TypedError> {
    let keep_right = || right.or(left).cloned();
    match ty.form(left, right) {
        Form::Leaf => Ok(keep_right()),
        Form::Map => {
            let (a, b) = (left.and_then(Value::as_object), right.and_then(Value::as_object));
            if a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty) {
                return Ok(keep_right());
            }
            let keys: BTreeSet<&String> = a.into_iter().chain(b).flat_map(Map::keys).collect();
            let mut merged = Map::new();
            for key in keys {
                path.push(Element::field(key));
                let member = walk(a.and_then(|a| a.get(key)), b.and_then(|b| b.get(key)), ty.child(key).0, path)?;
                path.pop();
                if let Some(member) = member {
                    merged.insert(key.clone(), member);
                }
            }
            Ok((!merged.is_empty()).then_some(Value::Object(merged)))
        }
        Form::List(list) => {
            if items(left).is_empty() && items(right).is_empty() {
                return Ok(keep_right());
            }
            let merged = merge_lists(items(left), items(right), list, ty, path)?;
            Ok((!merged.is_empty()).then_some(Value::Array(merged)))
        }
    }
}

/// Items of the right list in its order, with those that only the left list has between them where they were.
fn merge_lists(
    left: &[Value],
    right: &[Value],
    list: Schema<'_>,
    ty: Type<'_>,
    path: &mut Path,
) -> Result<Vec<Value>, TypedError> {
    let (left_names, right_names) = (elements(list, left, path)?, elements(list, right, path)?);
    let mut on_right: BTreeMap<&Element, &Value> = BTreeMap::new();
    for (name, item) in right_names.iter().zip(right) {
        if on_right.insert(name, item).is_some() {
            return Err(TypedError::Duplicate { path: path_text(path), key: name.to_string() });
        }
    }
    // Items that occur twice on the left are replaced, not merged.
    let mut on_left: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (name, item) in left_names.iter().zip(left) {
        on_left.entry(name).and_modify(|seen| *seen = None).or_insert(Some(item));
    }
    let mut shared = right_names.iter().filter(|name| on_left.contains_key(name));
    let mut next_shared = shared.next();
    let (mut l, mut r) = (0, 0);
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let mut merged = Vec::with_capacity(left.len().max(right.len()));
    let mut put = |name: &Element, a: Option<&Value>, b: Option<&Value>| -> Result<(), TypedError> {
        path.push(name.clone());
        let item = walk(a, b, ty.part(name), path)?;
        path.pop();
        merged.extend(item);
        Ok(())
    };
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            let name = &left_names[l];
            if *name == right_names[r] {
                done.insert(name);
                put(name, on_left[name], Some(&right[r]))?;
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if on_right.contains_key(name) && next_shared.is_some_and(|next| next != name) {
                // Shared, but the right list wants another one first.
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            let name = &left_names[l];
            if !on_right.contains_key(name) {
                put(name, Some(&left[l]), None)?;
                l += 1;
                continue;
            }
            if done.contains(name) {
                l += 1;
            }
        }
        if r < right.len() {
            let name = &right_names[r];
            done.insert(name);
            put(name, on_left.get(name).copied().flatten(), Some(&right[r]))?;
            r += 1;
            if next_shared == Some(name) {
                next_shared = shared.next();
            }
        }
    }
    Ok(merged)
}

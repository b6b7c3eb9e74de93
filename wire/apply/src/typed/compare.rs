use super::{Form, Type, TypedError, elements, items};
use crate::fields::{Element, Path, Set};
use kube::Schema;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// What differs; no path is in two of the sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) removed: Set,
    pub(crate) modified: Set,
    pub(crate) added: Set,
}

impl Comparison {
    /// Without paths that do not count, and what is below them.
    pub(crate) fn without(self, ignored: &Set) -> Comparison {
        Comparison {
            removed: self.removed.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            added: self.added.recursive_difference(ignored),
        }
    }
}

/// Compares two objects of one type.
pub(crate) fn compare(left: &Value, right: &Value, ty: Type<'_>) -> Result<Comparison, TypedError> {
    let mut found = Comparison::default();
    walk(Some(left), Some(right), ty, &mut Vec::new(), &mut found)?;
    Ok(found)
}

/// What an absent object counts as that is always there.
fn empty() -> &'static Value {
    static EMPTY: OnceLock<Value> = OnceLock::new();
    EMPTY.get_or_init(|| Value::Object(Map::new()))
}

fn walk<'v>(
    left: Option<&'v Value>,
    right: Option<&'v Value>,
    ty: Type<'_>,
    path: &mut Path,
    found: &mut Comparison,
) -> Result<(), TypedError> {
    let leaf = |path: &Path, found: &mut Comparison| match (left, right) {
        (None, _) => found.added.insert(path),
        (_, None) => found.removed.insert(path),
        (Some(a), Some(b)) if !equal(a, b) => found.modified.insert(path),
        _ => {}
    };
    match ty.form(left, right) {
        Form::Leaf => {
            leaf(path, found);
            return Ok(());
        }
        Form::Map => {
            let (a, b) = (left.and_then(Value::as_object), right.and_then(Value::as_object));
            if a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty) {
                leaf(path, found);
                return Ok(());
            }
            let keys: BTreeSet<&String> = a.into_iter().chain(b).flat_map(Map::keys).collect();
            for key in keys {
                let there = ty.is_always_there(key);
                let member = |parent: Option<&'v Map<String, Value>>| {
                    let member = parent?.get(key).filter(|member| !there || !member.is_null());
                    if there { member.or(Some(empty())) } else { member }
                };
                path.push(Element::field(key));
                walk(member(a), member(b), ty.child(key).0, path, found)?;
                path.pop();
            }
        }
        Form::List(list) => {
            if items(left).is_empty() && items(right).is_empty() {
                leaf(path, found);
                return Ok(());
            }
            compare_lists(items(left), items(right), list, ty, path, found)?;
        }
    }
    if left.is_none() {
        found.added.insert(path);
    } else if right.is_none() {
        found.removed.insert(path);
    }
    Ok(())
}

fn compare_lists(
    left: &[Value],
    right: &[Value],
    list: Schema<'_>,
    ty: Type<'_>,
    path: &mut Path,
    found: &mut Comparison,
) -> Result<(), TypedError> {
    let mut by_name: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (name, item) in elements(list, left, path)?.into_iter().zip(left) {
        by_name.entry(name).or_default().0.push(item);
    }
    for (name, item) in elements(list, right, path)?.into_iter().zip(right) {
        by_name.entry(name).or_default().1.push(item);
    }
    for (name, (a, b)) in by_name {
        let part = ty.part(&name);
        path.push(name);
        match (a.as_slice(), b.as_slice()) {
            ([] | [_], [] | [_]) => walk(a.first().copied(), b.first().copied(), part, path, found)?,
            // Items that occur twice are owned together, as if atomic.
            ([_, _, ..], [_, _, ..]) => {
                if a.len() != b.len() || a.iter().zip(&b).any(|(a, b)| !equal(a, b)) {
                    found.modified.insert(path);
                }
            }
            ([_, _, ..], rest) => {
                if let Some(only) = rest.first() {
                    walk(None, Some(only), part, path, found)?;
                }
                found.removed.insert(path);
            }
            (rest, _) => {
                if let Some(only) = rest.first() {
                    walk(Some(only), None, part, path, found)?;
                }
                found.added.insert(path);
            }
        }
        path.pop();
    }
    Ok(())
}

/// Equality of values; numbers by value.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    crate::fields::order(a, b).is_eq()
}

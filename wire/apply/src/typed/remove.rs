use super::{Form, Type, element};
use crate::fields::{Element, Set};
use serde_json::{Map, Value};

/// The value without the paths of `gone`. What becomes empty by it goes too (`None` when that is the whole value).
pub(crate) fn remove(value: &Value, gone: &Set, ty: Type<'_>) -> Option<Value> {
    match ty.form(Some(value), None) {
        Form::Map => {
            let map = value.as_object().filter(|map| !map.is_empty())?;
            let mut left = Map::new();
            for (key, member) in map {
                let name = Element::field(key);
                if gone.has_member(&name) {
                    continue;
                }
                let kept = match gone.below(&name) {
                    Some(below) => remove(member, below, ty.child(key).0).unwrap_or(Value::Null),
                    None => member.clone(),
                };
                left.insert(key.clone(), kept);
            }
            (!left.is_empty()).then_some(Value::Object(left))
        }
        Form::List(list) => {
            let items = value.as_array().filter(|items| !items.is_empty())?;
            let left: Vec<Value> = items
                .iter()
                .filter_map(|item| {
                    let Ok(name) = element(list, item) else { return Some(item.clone()) };
                    if gone.has_member(&name) {
                        return None;
                    }
                    match gone.below(&name) {
                        Some(below) => Some(remove(item, below, ty.part(&name)).unwrap_or(Value::Null)),
                        None => Some(item.clone()),
                    }
                })
                .collect();
            (!left.is_empty()).then_some(Value::Array(left))
        }
        // What is atomic is removed through its parent, which names it.
        Form::Leaf => match value {
            Value::Array(_) | Value::Object(_) => None,
            scalar => Some(scalar.clone()),
        },
    }
}

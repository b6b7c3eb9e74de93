//! Values with their form: which parts can be owned on their own (structured-merge-diff `typed`).

mod compare;
mod extract;
mod merge;
mod remove;

pub(crate) use compare::{Comparison, compare};
pub(crate) use extract::{empty_object, fields_of, with_named_parents};
pub(crate) use merge::merge;
pub(crate) use remove::remove;

use crate::fields::{Element, Path, path_text};
use kube::{ListKind, MapKind, Scalar, Schema, Shape};
use serde_json::Value;

/// Why an object does not fit its form; the client is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypedError {
    /// Two items of a list are the same one.
    #[error("{path}: duplicate entries for key {key}")]
    Duplicate {
        /// The list.
        path: String,
        /// The item.
        key: String,
    },
    /// An item cannot be told apart.
    #[error("{path}: element {index}: {what}")]
    Item {
        /// The list.
        path: String,
        /// The item's place.
        index: usize,
        /// What is wrong.
        what: String,
    },
}

/// The form of a value. Where no schema reaches (custom resources that keep unknown fields), it is deduced from the
/// value: objects are granular, all else is atomic.
#[derive(Clone, Copy)]
pub(crate) enum Type<'a> {
    Known(Schema<'a>),
    Deduced,
}

/// How a value is owned.
#[derive(Clone, Copy)]
pub(crate) enum Form<'a> {
    /// As a whole.
    Leaf,
    /// Member by member.
    Map,
    /// Item by item.
    List(Schema<'a>),
}

impl<'a> Type<'a> {
    /// How values of this type are owned; `a` and `b` are the values that are at hand.
    pub(crate) fn form(self, a: Option<&Value>, b: Option<&Value>) -> Form<'a> {
        let values = || [a, b].into_iter().flatten().filter(|value| !value.is_null());
        let form = match self {
            Type::Known(schema) => known_form(schema),
            Type::Deduced => None,
        };
        let form = form.unwrap_or(if values().next().is_some_and(Value::is_object) { Form::Map } else { Form::Leaf });
        // A value that is not what its type says is nobody's to take apart.
        match form {
            Form::Map if values().all(Value::is_object) => form,
            Form::List(_) if values().all(Value::is_array) => form,
            _ => Form::Leaf,
        }
    }

    /// The type of a member, and whether the type names it (as against a key of a map).
    pub(crate) fn child(self, key: &str) -> (Type<'a>, bool) {
        let Type::Known(schema) = self else { return (Type::Deduced, false) };
        match schema.shape() {
            Shape::Object => {
                schema.field(key).map_or((Type::Deduced, false), |field| (Type::Known(field.schema()), true))
            }
            Shape::Map(value) => (Type::Known(value), false),
            Shape::List(_) | Shape::Scalar(_) => (Type::Deduced, false),
        }
    }

    /// Whether Go prints the member even when it is empty: an object that is a plain part of its parent, such as `spec`. Its
    /// first field is then not its first appearance.
    pub(crate) fn is_always_there(self, key: &str) -> bool {
        let Type::Known(schema) = self else { return false };
        let there =
            |field: kube::Field<'_>| field.is_always_printed() && !field.is_pointer() && field.schema().is_object();
        matches!(schema.shape(), Shape::Object) && schema.field(key).is_some_and(there)
    }

    /// The type of a part.
    pub(crate) fn part(self, element: &Element) -> Type<'a> {
        match (self, element) {
            (_, Element::Field(key)) => self.child(key).0,
            (Type::Known(schema), _) => schema.item().map_or(Type::Deduced, Type::Known),
            (Type::Deduced, _) => Type::Deduced,
        }
    }
}

fn known_form(schema: Schema<'_>) -> Option<Form<'_>> {
    match schema.shape() {
        Shape::Scalar(Scalar::Json) => None,
        Shape::Scalar(_) => Some(Form::Leaf),
        Shape::Object | Shape::Map(_) if schema.map_kind() == MapKind::Atomic => Some(Form::Leaf),
        Shape::Object | Shape::Map(_) => Some(Form::Map),
        Shape::List(_) if schema.list_kind() == ListKind::Atomic => Some(Form::Leaf),
        Shape::List(_) => Some(Form::List(schema)),
    }
}

/// What tells an item of a list apart. A key that is absent counts with its default, `protocol: TCP` of a port.
pub(crate) fn element(list: Schema<'_>, item: &Value) -> Result<Element, String> {
    if list.list_kind() == ListKind::Set {
        return match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(Element::Value(scalar.clone())),
        };
    }
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut keys = Vec::with_capacity(list.list_keys().len());
    for key in list.list_keys() {
        let default = || list.item()?.field(key)?.default().map(|value| value.into_owned());
        if let Some(value) = map.get(key).cloned().or_else(default) {
            keys.push((key.to_owned(), value));
        }
    }
    if keys.is_empty() {
        let names: Vec<String> = list.list_keys().map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Element::Key(keys))
}

fn elements(list: Schema<'_>, items: &[Value], path: &Path) -> Result<Vec<Element>, TypedError> {
    let wrong = |index, what| TypedError::Item { path: path_text(path), index, what };
    items.iter().enumerate().map(|(index, item)| element(list, item).map_err(|what| wrong(index, what))).collect()
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The form of a built-in kind.
#[cfg(test)]
pub(crate) fn test_schema(group: &str, version: &str, kind: &str) -> Schema<'static> {
    static REGISTRY: std::sync::OnceLock<kube::Registry> = std::sync::OnceLock::new();
    let registry = REGISTRY.get_or_init(kube::Registry::builtin);
    registry.by_kind(group, version, kind).expect("a built-in kind").schema()
}

#[cfg(test)]
mod tests;

use super::{Form, Type, TypedError, elements};
use crate::fields::{Element, Path, Set, path_text};
use kube::{Scalar, Schema, Shape};
use serde_json::{Map, Value};

/// All leaves and items of a value. With `strict`, items that occur twice are refused; else they are owned together.
pub(crate) fn fields_of(value: &Value, ty: Type<'_>, strict: bool) -> Result<Set, TypedError> {
    let mut set = Set::default();
    walk(value, ty, strict, &mut Vec::new(), &mut set)?;
    Ok(set)
}

fn walk(value: &Value, ty: Type<'_>, strict: bool, path: &mut Path, set: &mut Set) -> Result<(), TypedError> {
    match ty.form(Some(value), None) {
        Form::Leaf => set.insert(path),
        Form::Map => {
            for (key, member) in value.as_object().into_iter().flatten() {
                let (child, declared) = ty.child(key);
                path.push(Element::field(key));
                walk(member, child, strict, path, set)?;
                let empty = member.is_null() || member.as_object().is_some_and(Map::is_empty);
                if empty || !declared {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Form::List(list) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let elements = elements(list, items, path)?;
            for (index, (item, element)) in items.iter().zip(&elements).enumerate() {
                let twice = elements.iter().enumerate().any(|(other, e)| other != index && e == element);
                if twice && strict {
                    return Err(TypedError::Duplicate { path: path_text(path), key: element.to_string() });
                }
                path.push(element.clone());
                if !twice {
                    walk(item, ty.part(element), strict, path, set)?;
                }
                set.insert(path);
                path.pop();
            }
        }
    }
    Ok(())
}

/// The set with the declared members that lead to its paths: of `spec.replicas` also `spec`, but no map keys or items.
pub(crate) fn with_named_parents(set: &Set, ty: Type<'_>) -> Set {
    let mut result = set.clone();
    add_parents(set, ty, &mut Vec::new(), &mut result);
    result
}

fn add_parents(set: &Set, ty: Type<'_>, path: &mut Path, result: &mut Set) {
    for (element, child) in set.children() {
        path.push(element.clone());
        if let Element::Field(key) = element
            && ty.child(key).1
        {
            result.insert(path);
        }
        add_parents(child, ty.part(element), path, result);
        path.pop();
    }
}

/// The object that Go prints for a type's zero value: what is always printed is there. An object that is created is
/// compared with it, so that its creator does not own the mere presence of, say, `spec.strategy`.
pub(crate) fn empty_object(schema: Schema<'_>) -> Value {
    let printed = schema.fields().filter(|field| field.is_always_printed() && !field.is_pointer());
    Value::Object(printed.map(|field| (field.name().to_owned(), zero(field.schema()))).collect())
}

fn zero(schema: Schema<'_>) -> Value {
    match schema.shape() {
        Shape::Object => empty_object(schema),
        Shape::Scalar(Scalar::String | Scalar::Duration) => Value::from(""),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString) => Value::from(0),
        Shape::Scalar(Scalar::Bool) => Value::from(false),
        Shape::Scalar(Scalar::Quantity) => Value::from("0"),
        _ => Value::Null,
    }
}

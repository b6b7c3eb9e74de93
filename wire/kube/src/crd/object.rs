//! What is done to a custom resource on its way in: pruning, Kubernetes' own form of `metadata`, defaulting.

use super::CustomVersion;
use crate::codec::{DecodeError, Decoded, conform as builtin};
use crate::schema::{Scalar, Schema, Shape};
use serde_json::{Map, Value};

/// More unknown fields than this are not told one by one.
const MAX_PROBLEMS: usize = 100;

/// Prunes what the schema does not know, and brings `metadata` into canonical form.
///
/// # Errors
/// `metadata` has a value of a wrong type. Other values of wrong types are for validation to tell.
pub(crate) fn conform(custom: &CustomVersion, mut value: Value) -> Result<Decoded, DecodeError> {
    let mut problems = Vec::new();
    let schema = custom.schema();
    if let Some(map) = value.as_object_mut() {
        metadata(schema, map, "", &mut problems)?;
    }
    prune(schema, &mut value, String::new(), &mut problems, true)?;
    Ok(Decoded { value, problems })
}

/// Decodes `metadata` as Kubernetes does its own.
fn metadata(
    schema: Schema<'_>,
    map: &mut Map<String, Value>,
    path: &str,
    problems: &mut Vec<String>,
) -> Result<(), DecodeError> {
    let Some(value) = map.remove("metadata") else { return Ok(()) };
    let meta = schema.table.named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let Some(form) = meta.map(|id| Schema::at(schema.table, schema.table.object(id).root)) else { return Ok(()) };
    let decoded = builtin::conform(form, value).map_err(|error| match error {
        DecodeError::Mismatch(text) => DecodeError::Mismatch(text.replacen("ObjectMeta.", "ObjectMeta.metadata.", 1)),
        other => other,
    })?;
    for problem in decoded.problems {
        problems.push(problem.replacen("unknown field \"", &format!("unknown field \"{path}metadata."), 1));
    }
    if decoded.value.is_object() {
        map.insert("metadata".to_owned(), decoded.value);
    }
    Ok(())
}

/// Prunes a default value; tells whether there was anything to prune.
pub(super) fn prune_default(schema: Schema<'_>, value: &mut Value) -> bool {
    let mut problems = Vec::new();
    let done = prune(schema, value, String::new(), &mut problems, false);
    done.is_err() || !problems.is_empty()
}

fn prune(
    schema: Schema<'_>,
    value: &mut Value,
    path: String,
    problems: &mut Vec<String>,
    root: bool,
) -> Result<(), DecodeError> {
    match (schema.shape(), value) {
        (Shape::Object, Value::Object(map)) => {
            let embedded = schema.is_embedded_resource();
            if embedded {
                metadata(schema, map, &dotted(&path), problems)?;
            }
            let own = |key: &str| (root || embedded) && matches!(key, "apiVersion" | "kind" | "metadata");
            if !schema.preserves_unknown() {
                map.retain(|key, _| {
                    let known = own(key) || schema.field(key).is_some();
                    if !known && problems.len() < MAX_PROBLEMS {
                        problems.push(format!("unknown field \"{}{key}\"", dotted(&path)));
                    }
                    known
                });
            }
            for (key, child) in map {
                if let Some(field) = schema.field(key).filter(|_| !own(key)) {
                    prune(field.schema(), child, format!("{}{key}", dotted(&path)), problems, false)?;
                }
            }
        }
        (Shape::Map(form), Value::Object(map)) => {
            for (key, child) in map {
                prune(form, child, format!("{}{key}", dotted(&path)), problems, false)?;
            }
        }
        (Shape::List(form), Value::Array(items)) => {
            for (at, child) in items.iter_mut().enumerate() {
                prune(form, child, format!("{path}[{at}]"), problems, false)?;
            }
        }
        (Shape::Scalar(Scalar::Raw), Value::Object(map))
            if schema.is_embedded_resource() && schema.preserves_unknown() =>
        {
            metadata(schema, map, &dotted(&path), problems)?;
        }
        _ => {}
    }
    Ok(())
}

fn dotted(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}.") }
}

impl CustomVersion {
    /// Fills in the schema's defaults, also where a null stands that the schema does not allow; one without a default is taken out.
    pub fn set_defaults(&self, value: &mut Value) {
        defaults(self.schema(), value);
    }
}

/// Fills in the defaults below a value.
pub(super) fn fill_defaults(schema: Schema<'_>, value: &mut Value) {
    defaults(schema, value);
}

fn defaults(schema: Schema<'_>, value: &mut Value) {
    match (schema.shape(), value) {
        (Shape::Object, Value::Object(map)) => {
            for field in schema.fields() {
                let form = field.schema();
                if let Some(default) = form.default() {
                    let missing = map.get(field.name()).is_none_or(|value| value.is_null() && !form.is_nullable());
                    if missing {
                        map.insert(field.name().to_owned(), default.clone());
                    }
                } else if !form.is_nullable() && map.get(field.name()).is_some_and(Value::is_null) {
                    // Clients that know the type write null for an empty list; a null that may not be counts as absent.
                    map.remove(field.name());
                }
                if let Some(child) = map.get_mut(field.name()) {
                    defaults(form, child);
                }
            }
        }
        (Shape::Map(form), Value::Object(map)) => map.values_mut().for_each(|child| child_defaults(form, child)),
        (Shape::List(form), Value::Array(items)) => items.iter_mut().for_each(|child| child_defaults(form, child)),
        _ => {}
    }
}

fn child_defaults(form: Schema<'_>, child: &mut Value) {
    if child.is_null()
        && !form.is_nullable()
        && let Some(default) = form.default()
    {
        *child = default.clone();
    }
    defaults(form, child);
}

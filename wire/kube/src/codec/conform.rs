//! A value -> the value that Go's decoder and encoder would make of it for a Kubernetes kind.

use super::time;
use super::{DecodeError, Decoded, canonical_quantity};
use crate::schema::{Field, Scalar, Schema, Shape};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::fmt::Write;

/// More unknown fields than this are not told one by one.
const MAX_PROBLEMS: usize = 100;

/// Brings an object of a Kubernetes kind into canonical form.
///
/// # Errors
/// A value has another type than its field.
pub fn conform(schema: Schema<'_>, value: Value) -> Result<Decoded, DecodeError> {
    let mut walk = Walk { path: Vec::new(), problems: Vec::new() };
    let value = walk.value(schema, value, schema)?;
    Ok(Decoded { value, problems: walk.problems })
}

/// Unknown fields of a value that is only part of an object (a patch), worded as `unknown field "spec.foo"`. The value stays as it
/// is, nulls and all; values of a wrong type are passed over here, since a patch may say more than its result does.
pub fn unknown_fields(schema: Schema<'_>, value: &Value) -> Vec<String> {
    let mut walk = Walk { path: Vec::new(), problems: Vec::new() };
    walk.unknown(schema, value);
    walk.problems
}

/// What Go's decoder calls a JSON value.
pub(super) fn json_kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

enum Part {
    Key(String),
    Index(usize),
}

struct Walk {
    path: Vec<Part>,
    problems: Vec<String>,
}

type Conformed = Result<Value, DecodeError>;

impl Walk {
    /// `spec.containers[0].name`, as strict errors name fields.
    fn indexed_path(&self, last: &str) -> String {
        let mut text = String::new();
        for part in &self.path {
            let _ = match part {
                Part::Key(key) if text.is_empty() => write!(text, "{key}"),
                Part::Key(key) => write!(text, ".{key}"),
                Part::Index(at) => write!(text, "[{at}]"),
            };
        }
        if !text.is_empty() && !last.is_empty() {
            text.push('.');
        }
        text + last
    }

    /// `spec.containers.name`, as type errors name fields.
    fn plain_path(&self) -> String {
        let keys =
            self.path.iter().filter_map(|part| if let Part::Key(key) = part { Some(key.as_str()) } else { None });
        keys.collect::<Vec<_>>().join(".")
    }

    fn problem(&mut self, key: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(format!("unknown field {:?}", self.indexed_path(key)));
        }
    }

    fn mismatch(&self, found: &str, go_type: &str, owner: Schema<'_>) -> DecodeError {
        let owner = owner.type_name().rsplit('.').next().unwrap_or_default();
        let path = self.plain_path();
        DecodeError::Mismatch(if path.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {go_type}")
        } else {
            format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {go_type}")
        })
    }

    /// `owner` is the innermost object with named fields, which type errors name.
    fn value(&mut self, schema: Schema<'_>, value: Value, owner: Schema<'_>) -> Conformed {
        if value.is_null() {
            return Ok(zero(schema));
        }
        match (schema.shape(), value) {
            (Shape::Object, Value::Object(map)) => self.object(schema, map),
            (Shape::Map(form), Value::Object(map)) => self.map(form, map, owner),
            (Shape::List(form), Value::Array(items)) => self.list(form, items, owner),
            (Shape::Scalar(scalar), value) => self.scalar(schema, scalar, value, owner),
            (_, value) => Err(self.mismatch(&json_kind(&value), &schema.go_type(), owner)),
        }
    }

    fn object(&mut self, schema: Schema<'_>, map: Map<String, Value>) -> Conformed {
        let mut out = Map::new();
        for (key, value) in map {
            let Some(field) = schema.field(&key) else {
                self.problem(&key);
                continue;
            };
            if value.is_null() {
                continue;
            }
            self.path.push(Part::Key(key));
            let value = self.value(field.schema(), value, schema)?;
            if let Some(Part::Key(key)) = self.path.pop()
                && is_printed(field, &value)
            {
                out.insert(key, value);
            }
        }
        fill(schema, &mut out);
        Ok(Value::Object(out))
    }

    fn map(&mut self, form: Schema<'_>, map: Map<String, Value>, owner: Schema<'_>) -> Conformed {
        let mut out = Map::new();
        for (key, value) in map {
            self.path.push(Part::Key(key));
            let value = self.value(form, value, owner)?;
            if let Some(Part::Key(key)) = self.path.pop() {
                out.insert(key, value);
            }
        }
        Ok(Value::Object(out))
    }

    fn list(&mut self, form: Schema<'_>, items: Vec<Value>, owner: Schema<'_>) -> Conformed {
        let mut out = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            self.path.push(Part::Index(at));
            out.push(self.value(form, item, owner)?);
            self.path.pop();
        }
        Ok(Value::Array(out))
    }

    fn scalar(&mut self, schema: Schema<'_>, scalar: Scalar, value: Value, owner: Schema<'_>) -> Conformed {
        match (scalar, value) {
            (Scalar::String, value @ Value::String(_)) | (Scalar::Bool, value @ Value::Bool(_)) => Ok(value),
            (Scalar::Int32 | Scalar::Int64, Value::Number(number)) => {
                let fits = number.as_i64().is_some_and(|n| scalar == Scalar::Int64 || i32::try_from(n).is_ok());
                if fits {
                    Ok(number.into())
                } else {
                    Err(self.mismatch(&format!("number {number}"), &schema.go_type(), owner))
                }
            }
            (Scalar::Double, value @ Value::Number(_)) => Ok(value),
            (Scalar::Bytes, Value::String(text)) => bytes(&text),
            (Scalar::Quantity, Value::String(text)) => quantity(&text),
            (Scalar::Quantity, Value::Number(number)) => quantity(&number.to_string()),
            (Scalar::Quantity, _) => quantity(""),
            (Scalar::IntOrString, value @ Value::String(_)) => Ok(value),
            (Scalar::IntOrString, Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
                Ok(n.into())
            }
            (Scalar::IntOrString, value) => {
                let found = if value.is_number() { format!("number {value}") } else { json_kind(&value) };
                Err(DecodeError::Mismatch(format!("json: cannot unmarshal {found} into Go value of type int32")))
            }
            (Scalar::Time, Value::String(text)) => {
                time::canonical(&text).map(Value::String).map_err(DecodeError::Mismatch)
            }
            (Scalar::MicroTime, Value::String(text)) => {
                time::canonical_micro(&text).map(Value::String).map_err(DecodeError::Mismatch)
            }
            (Scalar::Duration, Value::String(text)) => {
                time::canonical_duration(&text).map(Value::String).map_err(DecodeError::Mismatch)
            }
            (Scalar::Raw | Scalar::Json | Scalar::Fields, value) => Ok(value),
            (Scalar::PropsOrArray | Scalar::PropsOrBool | Scalar::PropsOrStrings, value) => {
                self.props(scalar, schema, value, owner)
            }
            (_, value) => Err(self.mismatch(&json_kind(&value), &schema.go_type(), owner)),
        }
    }

    /// The unions that a custom resource's schema has.
    fn props(&mut self, scalar: Scalar, schema: Schema<'_>, value: Value, owner: Schema<'_>) -> Conformed {
        let props = props_schema(schema);
        match (scalar, value) {
            (_, Value::Object(map)) => self.object(props, map),
            (Scalar::PropsOrBool, value @ Value::Bool(_)) => Ok(value),
            (Scalar::PropsOrArray, Value::Array(items)) => self.list(props, items, owner),
            (Scalar::PropsOrStrings, Value::Array(items)) if items.iter().all(Value::is_string) => {
                Ok(Value::Array(items))
            }
            (_, value) => Err(self.mismatch(&json_kind(&value), &schema.go_type(), owner)),
        }
    }

    fn unknown(&mut self, schema: Schema<'_>, value: &Value) {
        match (schema.shape(), value) {
            (Shape::Object, Value::Object(map)) => {
                for (key, child) in map {
                    // Directives of a strategic merge patch stand among the fields.
                    if key.starts_with('$') && schema.field(key).is_none() {
                        continue;
                    }
                    match schema.field(key) {
                        None if schema.preserves_unknown() => {}
                        None => self.problem(key),
                        Some(field) => self.below(Part::Key(key.clone()), field.schema(), child),
                    }
                }
            }
            (Shape::Map(form), Value::Object(map)) => {
                map.iter().for_each(|(key, child)| self.below(Part::Key(key.clone()), form, child));
            }
            (Shape::List(form), Value::Array(items)) => {
                items.iter().enumerate().for_each(|(at, child)| self.below(Part::Index(at), form, child));
            }
            (Shape::Scalar(Scalar::PropsOrArray | Scalar::PropsOrBool), Value::Object(_)) => {
                self.unknown(props_schema(schema), value)
            }
            _ => {}
        }
    }

    fn below(&mut self, part: Part, schema: Schema<'_>, value: &Value) {
        self.path.push(part);
        self.unknown(schema, value);
        self.path.pop();
    }
}

/// The type of a custom resource's schema, to which three unions refer.
pub(super) fn props_schema(schema: Schema<'_>) -> Schema<'_> {
    let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    schema.table.named(name).map_or(schema, |id| Schema::at(schema.table, schema.table.object(id).root))
}

fn bytes(text: &str) -> Conformed {
    let stripped: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&stripped) {
        Ok(bytes) => Ok(Value::String(STANDARD.encode(bytes))),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => stripped.len(),
            };
            Err(DecodeError::Mismatch(format!("illegal base64 data at input byte {at}")))
        }
    }
}

fn quantity(text: &str) -> Conformed {
    canonical_quantity(text).map(Value::String).map_err(|error| DecodeError::Mismatch(error.to_string()))
}

/// Whether Go prints a field with this value: `omitempty` hides zero values unless they are behind a pointer.
pub(super) fn is_printed(field: Field<'_>, value: &Value) -> bool {
    if field.is_always_printed() {
        return true;
    }
    match value {
        Value::Null => false,
        _ if field.is_pointer() => true,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty() || field.schema().is_object(),
    }
}

/// Adds the fields that Go prints even when nobody set them.
pub(super) fn fill(schema: Schema<'_>, map: &mut Map<String, Value>) {
    for field in schema.fields().filter(|field| field.is_always_printed()) {
        if !map.contains_key(field.name()) {
            let value = if field.is_pointer() { Value::Null } else { zero(field.schema()) };
            map.insert(field.name().to_owned(), value);
        }
    }
}

/// Go's zero value of a form, as its encoder prints it.
pub(super) fn zero(schema: Schema<'_>) -> Value {
    match schema.shape() {
        Shape::Object => {
            let mut map = Map::new();
            fill(schema, &mut map);
            Value::Object(map)
        }
        Shape::Map(_) | Shape::List(_) => Value::Null,
        Shape::Scalar(scalar) => match scalar {
            Scalar::String => "".into(),
            Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString => 0.into(),
            Scalar::Bool => false.into(),
            Scalar::Quantity => "0".into(),
            Scalar::Duration => "0s".into(),
            Scalar::PropsOrBool => false.into(),
            _ => Value::Null,
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::codec::{DecodeError, Format, Kind, decode};
    use serde_json::{Value, json};

    fn pod(body: &Value) -> Result<super::Decoded, DecodeError> {
        decode(&Kind::builtin("", "v1", "Pod").unwrap(), Format::Json, body.to_string().as_bytes())
    }

    #[test]
    fn values_are_printed_as_go_prints_them() {
        let decoded = pod(&json!({
            "metadata": {"name": "a", "creationTimestamp": null, "labels": {}, "annotations": {"k": null}},
            "spec": {"hostNetwork": false, "terminationGracePeriodSeconds": 0, "nodeName": "", "containers": [
                {"name": "c", "image": null, "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}, "env": [{"name": "e", "value": ""}]}]},
        }));
        let decoded = decoded.unwrap();
        assert_eq!(decoded.problems, Vec::<String>::new());
        assert_eq!(
            decoded.value,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "annotations": {"k": ""}}, "status": {},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [
                    {"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}, "env": [{"name": "e"}]}]}})
        );
    }

    #[test]
    fn unknown_and_duplicate_fields_are_told_and_dropped() {
        let kind = Kind::builtin("", "v1", "Pod").unwrap();
        let body = br#"{"spec":{"foo":1,"containers":[{"name":"a","name":"b","immage":"x"}]},"metdata":{}}"#;
        let decoded = decode(&kind, Format::Json, body).unwrap();
        assert_eq!(
            decoded.problems,
            [
                r#"unknown field "metdata""#,
                r#"unknown field "spec.containers[0].immage""#,
                r#"unknown field "spec.foo""#,
                r#"duplicate field "spec.containers[0].name""#
            ]
        );
        assert_eq!(decoded.value["spec"], json!({"containers": [{"name": "b", "resources": {}}]}));
        let status = decoded.strict_status(&kind).unwrap();
        assert!(status.message.starts_with(
            r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "metdata", "#
        ));
    }

    #[test]
    fn wrong_types_are_worded_as_go_words_them() {
        for (body, message) in [
            (
                json!({"spec": {"containers": {}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                json!({"spec": {"containers": [{"ports": [{"containerPort": "http"}]}]}}),
                "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                json!({"spec": {"priority": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels.a of type string",
            ),
            (json!({"spec": "x"}), "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec"),
            (
                json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "soon"}}),
                r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#,
            ),
        ] {
            assert_eq!(pod(&body), Err(DecodeError::Mismatch(message.to_owned())), "{body}");
        }
    }

    #[test]
    fn another_kind_or_version_is_refused() {
        assert!(matches!(pod(&json!({"kind": "Service"})), Err(DecodeError::WrongKind(_))));
        let error = pod(&json!({"apiVersion": "v2"})).unwrap_err();
        assert_eq!(error.to_string(), "the API version in the data (v2) does not match the expected API version (v1)");
        assert!(matches!(pod(&json!([1])), Err(DecodeError::Mismatch(_))));
    }

    #[test]
    fn patches_are_searched_without_being_changed() {
        let schema = Kind::builtin("apps", "v1", "Deployment").unwrap().schema;
        let patch = json!({"spec": {"replica": 3, "template": {"spec": {"containers": [{"$patch": "delete", "name": "a", "x": 1}]}}}});
        let found = super::unknown_fields(schema, &patch);
        assert_eq!(found, [r#"unknown field "spec.replica""#, r#"unknown field "spec.template.spec.containers[0].x""#]);
    }
}

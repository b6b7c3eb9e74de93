//! What makes a schema structural beyond what compiling it already asks: junctors that only restrict, sound list types, and
//! defaults that the schema itself accepts.

use super::CustomVersion;
use super::object::prune_default;
use crate::schema::{Schema, Shape};
use crate::status::Cause;
use serde_json::{Map, Value};

const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// Faults of one node of the structural part, without those of its children.
pub(super) fn node(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(map) = schema.as_object() else { return };
    if map.get(PRESERVE) == Some(&Value::Bool(false)) {
        causes.push(Cause::invalid(format!("{path}.{PRESERVE}"), &false.into(), "must be true or undefined"));
    }
    if map.get("uniqueItems") == Some(&Value::Bool(true)) {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(format!("{path}.uniqueItems"), detail));
    }
    if schema["items"].is_array() {
        causes.push(Cause::forbidden(format!("{path}.items"), "items must be a schema object and not an array"));
    }
    known_types(schema, path, causes);
    list_keys(schema, path, causes);
    for key in ["allOf", "anyOf", "oneOf"] {
        for (at, branch) in map.get(key).and_then(Value::as_array).into_iter().flatten().enumerate() {
            let allowed = map.get(INT_OR_STRING) == Some(&Value::Bool(true));
            junctor(branch, schema, path, &format!("{path}.{key}[{at}]"), allowed, 0, causes);
        }
    }
    if let Some(branch) = map.get("not") {
        junctor(branch, schema, path, &format!("{path}.not"), false, 0, causes);
    }
}

fn known_types(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (key, kind, known) in
        [(LIST_TYPE, "array", &["atomic", "map", "set"][..]), (MAP_TYPE, "object", &["atomic", "granular"][..])]
    {
        let Some(found) = schema[key].as_str() else { continue };
        if !known.contains(&found) {
            causes.push(Cause::not_supported(format!("{path}.{key}"), &found.into(), known.iter().copied()));
        }
        if schema["type"] != kind {
            let detail = format!("must be {kind} if {key} is specified");
            causes.push(Cause::invalid(format!("{path}.type"), &schema["type"], detail));
        }
    }
    let items = &schema["items"];
    if schema[LIST_TYPE] == "set" {
        let parts = [("array", LIST_TYPE), ("object", MAP_TYPE)];
        for (_, key) in parts.iter().filter(|(kind, key)| items["type"] == *kind && items[*key] != "atomic") {
            let detail = format!("must be atomic as item of a list with {LIST_TYPE}=set");
            causes.push(Cause::invalid(format!("{path}.items.{key}"), &items[*key], detail));
        }
    }
    if matches!(schema[LIST_TYPE].as_str(), Some("set" | "map")) && items["nullable"] == true {
        let detail =
            format!("cannot be nullable when {LIST_TYPE} is {}", schema[LIST_TYPE].as_str().unwrap_or_default());
        causes.push(Cause::forbidden(format!("{path}.items.nullable"), detail));
    }
}

fn list_keys(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let keys: Vec<&str> = schema[LIST_KEYS].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if schema[LIST_TYPE] != "map" {
        if !keys.is_empty() {
            causes.push(Cause::required(
                format!("{path}.{LIST_TYPE}"),
                format!("must be map if {LIST_KEYS} is non-empty"),
            ));
        }
        return;
    }
    let items = &schema["items"];
    if items["type"] != "object" {
        let detail = format!("must be object if parent array's {LIST_TYPE} is map");
        causes.push(Cause::invalid(format!("{path}.items.type"), &items["type"], detail));
        return;
    }
    let required = |key: &str| items["required"].as_array().is_some_and(|list| list.iter().any(|name| name == key));
    for (at, key) in keys.iter().enumerate() {
        let property = &items["properties"][*key];
        let field = format!("{path}.items.properties[{key}]");
        if keys[..at].contains(key) {
            causes.push(Cause::invalid(
                format!("{path}.{LIST_KEYS}"),
                &schema[LIST_KEYS],
                "must not contain duplicate entries",
            ));
        } else if property.is_null() {
            let detail = "entries must all be names of item properties";
            causes.push(Cause::invalid(format!("{path}.{LIST_KEYS}"), &schema[LIST_KEYS], detail));
        } else if matches!(property["type"].as_str(), Some("object" | "array")) {
            let detail = format!("must be a scalar type if parent array's {LIST_TYPE} is map");
            causes.push(Cause::invalid(format!("{field}.type"), &property["type"], detail));
        } else if property["nullable"] == true {
            let detail = format!("this property is in {LIST_KEYS}, so it cannot be nullable");
            causes.push(Cause::forbidden(format!("{field}.nullable"), detail));
        } else if !required(key) && property.get("default").is_none() {
            let detail =
                format!("this property is in {LIST_KEYS}, so it must have a default or be a required property");
            causes.push(Cause::required(format!("{field}.default"), detail));
        }
    }
}

/// A schema below a junctor: it may restrict what stands outside, and name nothing that is not there.
fn junctor(
    branch: &Value,
    outside: &Value,
    outer: &str,
    path: &str,
    allow_type: bool,
    depth: usize,
    causes: &mut Vec<Cause>,
) {
    let Some(map) = branch.as_object() else { return };
    if depth > 64 {
        return;
    }
    for (key, detail) in [
        ("type", "must be empty to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        (PRESERVE, "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        (INT_OR_STRING, "must be false to be structural"),
        (LIST_KEYS, "must be empty to be structural"),
        (LIST_TYPE, "must be undefined to be structural"),
        (MAP_TYPE, "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let set = map.get(key).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)) && *value != "");
        if set && !(key == "type" && allow_type) {
            causes.push(Cause::forbidden(format!("{path}.{key}"), detail));
        }
    }
    if map.get("additionalProperties").is_some_and(Value::is_object) {
        causes.push(Cause::forbidden(format!("{path}.additionalProperties"), "must be undefined to be structural"));
    }
    let empty = Map::new();
    let known = outside["properties"].as_object().unwrap_or(&empty);
    for (key, child) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let inner = format!("{path}.properties[{key}]");
        match known.get(key) {
            Some(property) => {
                junctor(child, property, &format!("{outer}.properties[{key}]"), &inner, false, depth + 1, causes)
            }
            None if outside[PRESERVE] == true || outside["additionalProperties"].is_object() => {}
            None => causes.push(Cause::required(
                format!("{outer}.properties[{key}]"),
                format!("because it is defined in {inner}"),
            )),
        }
    }
    if let Some(child) = map.get("items").filter(|child| child.is_object()) {
        match &outside["items"] {
            Value::Null => {
                causes.push(Cause::required(format!("{outer}.items"), format!("because it is defined in {path}.items")))
            }
            items => {
                junctor(child, items, &format!("{outer}.items"), &format!("{path}.items"), false, depth + 1, causes)
            }
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (at, child) in map.get(key).and_then(Value::as_array).into_iter().flatten().enumerate() {
            junctor(child, outside, outer, &format!("{path}.{key}[{at}]"), allow_type, depth + 1, causes);
        }
    }
    if let Some(child) = map.get("not") {
        junctor(child, outside, outer, &format!("{path}.not"), false, depth + 1, causes);
    }
}

/// Defaults that the schema itself would refuse or prune.
pub(super) fn defaults(version: &CustomVersion, base: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk_defaults(version, version.schema(), base, true, &mut causes);
    causes
}

fn walk_defaults(version: &CustomVersion, schema: Schema<'_>, path: &str, root: bool, causes: &mut Vec<Cause>) {
    if let Some(default) = schema.default() {
        let field = format!("{path}.default");
        let mut pruned = default.clone();
        if prune_default(schema, &mut pruned) {
            causes.push(Cause::invalid(field.clone(), default, "must not have unknown fields"));
        }
        super::object::fill_defaults(schema, &mut pruned);
        for mut cause in version.validate_part(schema, &pruned) {
            cause.field = if cause.field.is_empty() { field.clone() } else { format!("{field}.{}", cause.field) };
            causes.push(cause);
        }
    }
    match schema.shape() {
        Shape::Object => {
            for field in
                schema.fields().filter(|field| !(root && matches!(field.name(), "apiVersion" | "kind" | "metadata")))
            {
                walk_defaults(version, field.schema(), &format!("{path}.properties[{}]", field.name()), false, causes);
            }
        }
        Shape::Map(form) => walk_defaults(version, form, &format!("{path}.additionalProperties"), false, causes),
        Shape::List(form) => walk_defaults(version, form, &format!("{path}.items"), false, causes),
        Shape::Scalar(_) => {}
    }
}

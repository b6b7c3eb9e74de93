//! A custom resource's value against its schema, with causes worded as kube-apiserver words them.

use super::{CustomVersion, format};
use crate::schema::rules::{Bound, Rules};
use crate::schema::{ListKind, Schema, Shape};
use crate::status::Cause;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// More faults than this are not told one by one.
const MAX_CAUSES: usize = 100;
/// Lists longer than this are compared through a sorted copy only.
const MAX_PAIRWISE: usize = 32;

impl CustomVersion {
    /// What is wrong with an object, after pruning and defaulting.
    pub fn validate(&self, value: &Value) -> Vec<Cause> {
        self.validate_update(value, None)
    }

    /// What is wrong with an object that replaces another. A part that is as it was is not held against the writer, so that a
    /// schema that got stricter does not lock its objects.
    pub fn validate_update(&self, value: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut check = Check { causes: Vec::new() };
        check.node(self.schema(), "", value, old, true);
        check.causes
    }
}

struct Check {
    causes: Vec<Cause>,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Check {
    fn push(&mut self, cause: Cause) {
        if self.causes.len() < MAX_CAUSES {
            self.causes.push(cause);
        }
    }

    fn node(&mut self, schema: Schema<'_>, path: &str, value: &Value, old: Option<&Value>, root: bool) {
        if old == Some(value) {
            return;
        }
        if let Some(rules) = schema.rules()
            && !self.own(rules, schema.is_nullable(), path, value)
        {
            return;
        }
        match (schema.shape(), value) {
            (Shape::Object, Value::Object(map)) => self.object(schema, path, map, old, root),
            (Shape::Map(form), Value::Object(map)) => {
                for (key, child) in map {
                    self.node(form, &join(path, key), child, old.and_then(|old| old.get(key)), false);
                }
            }
            (Shape::List(form), Value::Array(items)) => {
                for (at, child) in items.iter().enumerate() {
                    let old = old.and_then(|old| counterpart(schema, child, old));
                    self.node(form, &format!("{path}[{at}]"), child, old, false);
                }
                self.list(schema, path, items);
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: Schema<'_>, path: &str, map: &Map<String, Value>, old: Option<&Value>, root: bool) {
        if schema.is_embedded_resource() {
            for key in ["apiVersion", "kind"] {
                if map.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
                    self.push(Cause::required(join(path, key), "must not be empty"));
                }
            }
        }
        for (key, child) in map {
            let kubernetes_own =
                (root || schema.is_embedded_resource()) && matches!(key.as_str(), "apiVersion" | "kind" | "metadata");
            if let Some(field) = schema.field(key).filter(|_| !kubernetes_own) {
                self.node(field.schema(), &join(path, key), child, old.and_then(|old| old.get(key)), false);
            }
        }
    }

    /// Uniqueness of sets and of the keys of list maps.
    fn list(&mut self, schema: Schema<'_>, path: &str, items: &[Value]) {
        let keys: Vec<(usize, String, Cow<'_, Value>)> = match schema.list_kind() {
            ListKind::Atomic => return,
            ListKind::Set => {
                items.iter().enumerate().map(|(at, item)| (at, item.to_string(), Cow::Borrowed(item))).collect()
            }
            ListKind::Map => items
                .iter()
                .enumerate()
                .map(|(at, item)| (at, keys_of(schema, item)))
                .map(|(at, key)| (at, key.to_string(), Cow::Owned(key)))
                .collect(),
        };
        let mut sorted: Vec<&(usize, String, Cow<'_, Value>)> = keys.iter().collect();
        sorted.sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
        let mut repeated: Vec<_> =
            sorted.windows(2).filter(|pair| pair[0].1 == pair[1].1).map(|pair| pair[1]).collect();
        repeated.sort_by_key(|(at, _, _)| *at);
        for (at, _, value) in repeated {
            self.push(Cause::duplicate(format!("{path}[{at}]"), value));
        }
    }

    /// Keywords of one node. False when the type is wrong, so that nothing below makes sense.
    fn own(&mut self, rules: &Rules, nullable: bool, path: &str, value: &Value) -> bool {
        if value.is_null() && (nullable || rules.nullable) {
            return false;
        }
        let found = type_name(value);
        if !type_fits(rules, value, found) {
            let wanted = if rules.int_or_string { "integer,string" } else { &rules.kind };
            let detail = format!("{path} in body must be of type {wanted}: {found:?}");
            self.push(Cause::type_invalid(path, &found.into(), detail));
            return false;
        }
        if !rules.enum_values.is_empty() && !rules.enum_values.contains(value) {
            let known: Vec<String> =
                rules.enum_values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            self.push(Cause::not_supported(path, value, known.iter().map(String::as_str)));
        }
        match value {
            Value::String(text) => self.text(rules, path, value, text),
            Value::Number(number) => self.number(rules, path, value, number.as_f64().unwrap_or_default()),
            Value::Array(items) => self.count(rules, path, items),
            Value::Object(map) => self.keys(rules, path, map),
            _ => {}
        }
        self.junctors(rules, path, value);
        true
    }

    fn invalid(&mut self, path: &str, value: &Value, detail: impl std::fmt::Display) {
        self.push(Cause::invalid(path, value, format!("{path} in body {detail}")));
    }

    fn text(&mut self, rules: &Rules, path: &str, value: &Value, text: &str) {
        let length = text.chars().count() as u64;
        if let Some(max) = rules.length.max.filter(|max| length > *max) {
            self.push(Cause::too_long(path, max as usize));
        }
        if let Some(min) = rules.length.min.filter(|min| length < *min) {
            self.invalid(path, value, format_args!("should be at least {min} chars long"));
        }
        if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
            self.invalid(path, value, format_args!("should match '{}'", pattern.text));
        }
        if format::matches(&rules.format, text) == Some(false) {
            let detail = format!("{path} in body must be of type {}: {text:?}", rules.format);
            self.push(Cause::type_invalid(path, value, detail));
        }
    }

    fn number(&mut self, rules: &Rules, path: &str, value: &Value, number: f64) {
        if let Some(Bound { value: bound, exclusive }) = rules.maximum
            && (number > bound || exclusive && number == bound)
        {
            let or_equal = if exclusive { "" } else { " or equal to" };
            self.invalid(path, value, format_args!("should be less than{or_equal} {bound}"));
        }
        if let Some(Bound { value: bound, exclusive }) = rules.minimum
            && (number < bound || exclusive && number == bound)
        {
            let or_equal = if exclusive { "" } else { " or equal to" };
            self.invalid(path, value, format_args!("should be greater than{or_equal} {bound}"));
        }
        if let Some(factor) = rules.multiple_of.filter(|factor| *factor > 0.0) {
            let ratio = number / factor;
            if (ratio - ratio.round()).abs() > 1e-9 {
                self.invalid(path, value, format_args!("should be a multiple of {factor}"));
            }
        }
        let out_of_range = match rules.format.as_str() {
            "int32" => value.as_i64().is_none_or(|n| i32::try_from(n).is_err()),
            "int64" => value.as_i64().is_none() && number.fract() == 0.0 && value.is_u64(),
            _ => false,
        };
        if out_of_range && number.fract() == 0.0 {
            let detail = format!("Checked value must be of type integer with format {} in body", rules.format);
            self.push(Cause::invalid(path, value, detail));
        }
    }

    fn count(&mut self, rules: &Rules, path: &str, items: &[Value]) {
        let count = items.len() as u64;
        if let Some(max) = rules.items_count.max.filter(|max| count > *max) {
            self.push(Cause::too_many(path, items.len(), max as usize));
        }
        if let Some(min) = rules.items_count.min.filter(|min| count < *min) {
            self.invalid(path, &Value::from(count), format_args!("should have at least {min} items"));
        }
        if rules.unique_items && has_duplicates(items) {
            self.invalid(path, &"".into(), "shouldn't contain duplicates");
        }
    }

    fn keys(&mut self, rules: &Rules, path: &str, map: &Map<String, Value>) {
        for key in rules.required.iter().filter(|key| !map.contains_key(*key)) {
            self.push(Cause::required(join(path, key), ""));
        }
        let count = map.len() as u64;
        if let Some(max) = rules.properties_count.max.filter(|max| count > *max) {
            self.push(Cause::too_many(path, map.len(), max as usize));
        }
        if let Some(min) = rules.properties_count.min.filter(|min| count < *min) {
            self.invalid(path, &Value::from(count), format_args!("should have at least {min} properties"));
        }
    }

    fn junctors(&mut self, rules: &Rules, path: &str, value: &Value) {
        for branch in &rules.all_of {
            let mut faults = branch_faults(branch, path, value);
            if !faults.is_empty() {
                self.causes.append(&mut faults);
                self.junctor(path, "must validate all the schemas (allOf)");
            }
        }
        if !rules.any_of.is_empty() {
            let faults: Vec<_> = rules.any_of.iter().map(|branch| branch_faults(branch, path, value)).collect();
            if faults.iter().all(|faults| !faults.is_empty()) {
                self.best(faults);
                self.junctor(path, "must validate at least one schema (anyOf)");
            }
        }
        if !rules.one_of.is_empty() {
            let faults: Vec<_> = rules.one_of.iter().map(|branch| branch_faults(branch, path, value)).collect();
            match faults.iter().filter(|faults| faults.is_empty()).count() {
                1 => {}
                0 => {
                    self.best(faults);
                    self.junctor(path, "must validate one and only one schema (oneOf). Found none valid");
                }
                valid => self.junctor(
                    path,
                    &format!("must validate one and only one schema (oneOf). Found {valid} valid alternatives"),
                ),
            }
        }
        if rules.not.as_ref().is_some_and(|not| branch_faults(not, path, value).is_empty()) {
            self.junctor(path, "must not validate the schema (not)");
        }
    }

    /// kube-apiserver has no path for these and prints Go's nil.
    fn junctor(&mut self, path: &str, detail: &str) {
        self.push(Cause::invalid("<nil>", &"".into(), format!("{path:?} {detail}")));
    }

    /// Faults of the branch that came closest, which are the likeliest to help.
    fn best(&mut self, faults: Vec<Vec<Cause>>) {
        if let Some(least) = faults.into_iter().min_by_key(Vec::len) {
            least.into_iter().for_each(|cause| self.push(cause));
        }
    }
}

/// Faults of a value against a schema below a junctor, which carries its own children.
fn branch_faults(rules: &Rules, path: &str, value: &Value) -> Vec<Cause> {
    let mut check = Check { causes: Vec::new() };
    if check.own(rules, false, path, value) {
        match value {
            Value::Object(map) => {
                for (key, child) in map {
                    let form = rules.properties.get(key).or(rules.additional.as_deref());
                    if let Some(form) = form {
                        check.causes.extend(branch_faults(form, &join(path, key), child));
                    }
                }
            }
            Value::Array(items) => {
                for (at, child) in items.iter().enumerate() {
                    if let Some(form) = &rules.items {
                        check.causes.extend(branch_faults(form, &format!("{path}[{at}]"), child));
                    }
                }
            }
            _ => {}
        }
    }
    check.causes
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn type_fits(rules: &Rules, value: &Value, found: &str) -> bool {
    if rules.int_or_string {
        return matches!(found, "integer" | "string");
    }
    match rules.kind.as_str() {
        "" => true,
        "number" => value.is_number(),
        "integer" => value.is_number() && value.as_f64().is_some_and(|number| number.fract() == 0.0),
        kind => kind == found,
    }
}

fn keys_of(schema: Schema<'_>, item: &Value) -> Value {
    let mut map = Map::new();
    for key in schema.list_keys() {
        let own = item.get(key).cloned();
        let default =
            || schema.item().and_then(|item| item.field(key)).and_then(|field| field.default().map(Cow::into_owned));
        if let Some(value) = own.or_else(default) {
            map.insert(key.to_owned(), value);
        }
    }
    Value::Object(map)
}

/// The item of the old list that an item of the new one is a new state of; only list maps say.
fn counterpart<'v>(schema: Schema<'_>, item: &Value, old: &'v Value) -> Option<&'v Value> {
    if schema.list_kind() != ListKind::Map {
        return None;
    }
    let keys = keys_of(schema, item);
    old.as_array()?.iter().find(|other| keys_of(schema, other) == keys)
}

fn has_duplicates(items: &[Value]) -> bool {
    if items.len() <= MAX_PAIRWISE {
        return items.iter().enumerate().any(|(at, item)| items[..at].contains(item));
    }
    let mut texts: Vec<String> = items.iter().map(Value::to_string).collect();
    texts.sort_unstable();
    texts.windows(2).any(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use crate::codec::{Format, Kind, decode};
    use crate::crd::CustomResource;
    use crate::registry::{Registry, Resource};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn definition(spec: Value) -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "crontabs.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {},
                        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]},
        })
    }

    fn resource(spec: Value) -> Arc<Resource> {
        CustomResource::from_object(&definition(spec)).unwrap().resources().next().unwrap()
    }

    fn faults(spec: Value, value: Value) -> Vec<String> {
        let resource = resource(spec);
        let custom = resource.custom().unwrap();
        custom.validate(&json!({"spec": value})).iter().map(|cause| format!("{}|{}", cause.reason, cause)).collect()
    }

    #[test]
    fn causes_are_worded_as_kubernetes_words_them() {
        for (schema, value, expected) in [
            (
                json!({"type": "integer"}),
                json!("x"),
                r#"FieldValueTypeInvalid|spec: Invalid value: "string": spec in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "string"}),
                Value::Null,
                r#"FieldValueTypeInvalid|spec: Invalid value: "null": spec in body must be of type string: "null""#,
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "FieldValueInvalid|spec: Invalid value: 0: spec in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "integer", "maximum": 9, "exclusiveMaximum": true}),
                json!(9),
                "FieldValueInvalid|spec: Invalid value: 9: spec in body should be less than 9",
            ),
            (
                json!({"type": "number", "multipleOf": 0.5}),
                json!(0.7),
                "FieldValueInvalid|spec: Invalid value: 0.7: spec in body should be a multiple of 0.5",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                r#"FieldValueInvalid|spec: Invalid value: "b": spec in body should match '^a+$'"#,
            ),
            (
                json!({"type": "string", "minLength": 2}),
                json!("é"),
                r#"FieldValueInvalid|spec: Invalid value: "é": spec in body should be at least 2 chars long"#,
            ),
            (
                json!({"type": "string", "maxLength": 1}),
                json!("ab"),
                "FieldValueTooLong|spec: Too long: may not be more than 1 bytes",
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("c"),
                r#"FieldValueNotSupported|spec: Unsupported value: "c": supported values: "a", "b""#,
            ),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("x"),
                r#"FieldValueTypeInvalid|spec: Invalid value: "x": spec in body must be of type date-time: "x""#,
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
                json!(["a", "b"]),
                "FieldValueTooMany|spec: Too many: 2: must have at most 1 items",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
                json!(["a", "a"]),
                r#"FieldValueInvalid|spec: Invalid value: "": spec in body shouldn't contain duplicates"#,
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
                json!(["a", "a"]),
                r#"FieldValueDuplicate|spec[1]: Duplicate value: "a""#,
            ),
            (
                json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
                json!({}),
                "FieldValueRequired|spec.a: Required value",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "integer"}}),
                json!({"k": true}),
                r#"FieldValueTypeInvalid|spec.k: Invalid value: "boolean": spec.k in body must be of type integer: "boolean""#,
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                r#"FieldValueTypeInvalid|spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#,
            ),
            (
                json!({"type": "string", "not": {"enum": ["x"]}}),
                json!("x"),
                r#"FieldValueInvalid|<nil>: Invalid value: "": "spec" must not validate the schema (not)"#,
            ),
            (
                json!({"type": "integer", "oneOf": [{"minimum": 1}, {"minimum": 2}]}),
                json!(3),
                r#"FieldValueInvalid|<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ),
        ] {
            assert_eq!(faults(schema.clone(), value), [expected], "{schema}");
        }
    }

    #[test]
    fn junctors_tell_the_branch_that_came_closest() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "string"}},
            "anyOf": [{"required": ["a", "b"]}, {"required": ["c"]}]});
        let found = faults(schema.clone(), json!({}));
        assert_eq!(
            found,
            [
                "FieldValueRequired|spec.c: Required value",
                r#"FieldValueInvalid|<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)"#
            ]
        );
        assert!(faults(schema, json!({"c": ""})).is_empty());
    }

    #[test]
    fn list_maps_tell_items_apart_by_their_keys_and_defaults() {
        let schema = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}});
        let value = json!([{"port": 1}, {"port": 2}, {"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "UDP"}]);
        assert_eq!(
            faults(schema, value),
            [r#"FieldValueDuplicate|spec[2]: Duplicate value: {"port":1,"protocol":"TCP"}"#]
        );
    }

    #[test]
    fn what_did_not_change_is_not_held_against_the_writer() {
        let resource = resource(
            json!({"type": "object", "properties": {"old": {"type": "integer", "maximum": 1}, "new": {"type": "integer", "maximum": 1}}}),
        );
        let custom = resource.custom().unwrap();
        let old = json!({"spec": {"old": 5}});
        let causes = custom.validate_update(&json!({"spec": {"old": 5, "new": 5}}), Some(&old));
        assert_eq!(causes.iter().map(|cause| cause.field.as_str()).collect::<Vec<_>>(), ["spec.new"]);
    }

    #[test]
    fn objects_are_pruned_and_defaulted() {
        let resource = resource(json!({"type": "object", "properties": {
            "replicas": {"type": "integer", "default": 1}, "image": {"type": "string"},
            "nested": {"type": "object", "default": {}, "properties": {"deep": {"type": "string", "default": "d"}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object", "properties": {}}}},
            "either": {"x-kubernetes-int-or-string": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }}));
        let body = json!({"metadata": {"name": "x", "creationTimestamp": null, "labels": {}, "nonsense": 1},
            "spec": {"replicas": null, "imag": "i", "free": {"x": {"y": 1}, "known": {"z": 1}}, "either": "50%", "list": [{"a": "b", "c": 1}],
                "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "t", "bad": 1}, "spec": {"any": 1}}}, "extra": 1});
        let mut decoded = decode(&Kind::of(&resource), Format::Json, body.to_string().as_bytes()).unwrap();
        decoded.problems.sort();
        assert_eq!(
            decoded.problems,
            [
                r#"unknown field "extra""#,
                r#"unknown field "metadata.nonsense""#,
                r#"unknown field "spec.free.known.z""#,
                r#"unknown field "spec.imag""#,
                r#"unknown field "spec.list[0].c""#,
                r#"unknown field "spec.template.metadata.bad""#
            ]
        );
        resource.custom().unwrap().set_defaults(&mut decoded.value);
        assert_eq!(
            decoded.value,
            json!({"apiVersion": "example.com/v1", "kind": "CronTab", "metadata": {"name": "x"},
                "spec": {"replicas": 1, "nested": {"deep": "d"}, "free": {"x": {"y": 1}, "known": {}}, "either": "50%", "list": [{"a": "b"}],
                    "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "t"}, "spec": {"any": 1}}}})
        );
    }

    #[test]
    fn definitions_at_fault_say_where() {
        for (change, value, expected) in [
            (
                "/spec/scope",
                json!("Nowhere"),
                r#"spec.scope: Unsupported value: "Nowhere": supported values: "Cluster", "Namespaced""#,
            ),
            (
                "/metadata/name",
                json!("x"),
                r#"metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group"#,
            ),
            (
                "/spec/versions/0/storage",
                json!(false),
                "spec.versions: Invalid value: must have exactly one version marked as storage version",
            ),
            (
                "/spec/versions/0/schema",
                json!({}),
                "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
            ),
            (
                "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
                json!({"properties": {}}),
                "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
            ),
            (
                "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
                json!({"type": "array"}),
                "spec.versions[0].schema.openAPIV3Schema.properties[spec].items: Required value: must be specified",
            ),
            (
                "/spec/versions/0/subresources/scale/specReplicasPath",
                json!("replicas"),
                r#"spec.versions[0].subresources.scale.specReplicasPath: Invalid value: "replicas": should be a json path under .spec"#,
            ),
        ] {
            let mut object = definition(json!({"type": "object"}));
            *object.pointer_mut(change).unwrap() = value;
            let causes = CustomResource::from_object(&object).unwrap_err();
            assert_eq!(causes.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected], "{change}");
        }
    }

    #[test]
    fn definitions_come_and_go_and_conflict_by_name() {
        let registry = Registry::builtin();
        let custom = CustomResource::from_object(&definition(json!({"type": "object"}))).unwrap();
        assert_eq!(crate::crd::names_conflict(&registry, &custom), None);
        let with = registry.with_custom(&custom);
        let found = with.by_kind("example.com", "v1", "CronTab").unwrap();
        assert_eq!(found.subresources().iter().map(|sub| sub.name).collect::<Vec<_>>(), ["scale", "status"]);
        assert_eq!(custom.accepted_names()["listKind"], "CronTabList");
        let mut other = definition(json!({"type": "object"}));
        other["metadata"]["name"] = "others.example.com".into();
        other["spec"]["names"] = json!({"plural": "others", "kind": "Other", "shortNames": ["ct"]});
        let other = CustomResource::from_object(&other).unwrap();
        assert_eq!(crate::crd::names_conflict(&with, &other), Some(r#""ct" is already in use"#.to_owned()));
        assert!(with.without("example.com", "crontabs").by_kind("example.com", "v1", "CronTab").is_none());
    }

    #[test]
    fn a_bundled_resource_gives_way_and_comes_back() {
        let registry = Registry::builtin();
        let mut object = definition(json!({"type": "object"}));
        object["metadata"]["name"] = "httproutes.gateway.networking.k8s.io".into();
        object["spec"]["group"] = "gateway.networking.k8s.io".into();
        object["spec"]["names"] = json!({"plural": "httproutes", "kind": "HTTPRoute"});
        let custom = CustomResource::from_object(&object).unwrap();
        assert_eq!(crate::crd::names_conflict(&registry, &custom), None);
        let with = registry.with_custom(&custom);
        assert!(
            with.resource("gateway.networking.k8s.io", "v1beta1", "httproutes").is_none(),
            "the definition has v1 only"
        );
        let back = with.without("gateway.networking.k8s.io", "httproutes");
        assert!(back.resource("gateway.networking.k8s.io", "v1beta1", "httproutes").is_some());
    }

    #[test]
    fn a_bundled_route_gets_its_defaults_and_faults() {
        let registry = Registry::builtin();
        let resource = registry.resource("gateway.networking.k8s.io", "v1", "httproutes").unwrap();
        let body = json!({"metadata": {"name": "r"}, "spec": {"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]}});
        let mut decoded = decode(&Kind::of(resource), Format::Json, body.to_string().as_bytes()).unwrap();
        let custom = resource.custom().unwrap();
        custom.set_defaults(&mut decoded.value);
        assert_eq!(custom.validate(&decoded.value), []);
        let rule = &decoded.value["spec"]["rules"][0];
        assert_eq!(rule["matches"], json!([{"path": {"type": "PathPrefix", "value": "/"}}]));
        assert_eq!(
            rule["backendRefs"][0],
            json!({"name": "s", "port": 80, "group": "", "kind": "Service", "weight": 1})
        );
        decoded.value["spec"]["rules"][0]["backendRefs"][0]["port"] = 70_000.into();
        let causes = custom.validate(&decoded.value);
        assert_eq!(
            causes[0].to_string(),
            "spec.rules[0].backendRefs[0].port: Invalid value: 70000: spec.rules[0].backendRefs[0].port in body should be less than or equal to 65535"
        );
    }

    #[test]
    fn every_bundled_schema_compiles() {
        for resource in Registry::builtin().iter() {
            if let Some(custom) = resource.custom() {
                assert!(custom.schema().field("spec").is_some(), "{}", resource.kind());
            }
        }
    }
}

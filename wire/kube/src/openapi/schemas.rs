//! Schemas of the table as OpenAPI.

use crate::registry::Resource;
use crate::schema::rules::{Bound, Rules};
use crate::schema::{Field, ListKind, MapKind, PatchStrategy, Scalar, Schema, Shape, builtin};
use serde_json::{Map, Value, json};

/// Which version of OpenAPI. They differ in where references point and what may stand beside one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// Name of the schema of a resource's objects.
pub(super) fn name_of(resource: &Resource) -> String {
    resource.schema().type_name().to_owned()
}

/// Name of the schema of a resource's list.
pub(super) fn list_name_of(resource: &Resource) -> String {
    let own = name_of(resource);
    let package = own.rsplit_once('.').map_or("", |(package, _)| package);
    format!("{package}.{}", resource.list_kind())
}

/// All schemas that resources and their operations refer to, by name.
pub(super) fn components(resources: &[&Resource], dialect: Dialect) -> Map<String, Value> {
    let mut out = Components { dialect, done: Map::new(), pending: Vec::new() };
    for resource in resources {
        let schema = resource.schema();
        let (list, own) = (list_name_of(resource), name_of(resource));
        if !resource.is_kubernetes_own() {
            let value = out.object(schema);
            out.done.insert(own.clone(), value);
            let list_value = out.custom_list(resource, &own);
            out.done.insert(list.clone(), list_value);
            out.pending.extend([format!("{META}.ObjectMeta"), format!("{META}.ListMeta")]);
        } else {
            out.pending.push(own.clone());
            out.pending.extend(builtin::schema(&list).map(|_| list.clone()));
        }
        for sub in resource.subresources() {
            out.pending.extend(super::paths::kind_name(&sub.group, &sub.version, &sub.kind));
        }
    }
    out.pending.extend(["DeleteOptions", "Status", "Patch", "WatchEvent"].map(|name| format!("{META}.{name}")));
    while let Some(name) = out.pending.pop() {
        if !out.done.contains_key(&name) {
            let value = out.named(&name);
            out.done.insert(name, value);
        }
    }
    for resource in resources {
        out.stamp(resource.group(), resource.version(), resource.kind(), &name_of(resource));
        out.stamp(resource.group(), resource.version(), resource.list_kind(), &list_name_of(resource));
        for sub in resource.subresources() {
            if let Some(name) = super::paths::kind_name(&sub.group, &sub.version, &sub.kind) {
                out.stamp(&sub.group, &sub.version, &sub.kind, &name);
            }
        }
        out.stamp(resource.group(), resource.version(), "DeleteOptions", &format!("{META}.DeleteOptions"));
    }
    out.done
}

struct Components {
    dialect: Dialect,
    done: Map<String, Value>,
    pending: Vec<String>,
}

impl Components {
    fn stamp(&mut self, group: &str, version: &str, kind: &str, name: &str) {
        let Some(schema) = self.done.get_mut(name).and_then(Value::as_object_mut) else { return };
        let stamp = json!({"group": group, "version": version, "kind": kind});
        let list = schema.entry("x-kubernetes-group-version-kind").or_insert_with(|| json!([]));
        if let Value::Array(items) = list
            && !items.contains(&stamp)
        {
            items.push(stamp);
        }
    }

    fn custom_list(&mut self, resource: &Resource, item: &str) -> Value {
        let items = json!({"type": "array", "description": format!("List of {}.", resource.plural()), "items": self.reference(item)});
        let described = builtin::schema("io.k8s.api.core.v1.PodList");
        let text =
            |field: &str| described.and_then(|list| list.field(field)).map(|field| field.description().into_owned());
        let mut metadata = self.reference(&format!("{META}.ListMeta"));
        metadata["description"] = text("metadata").into();
        json!({
            "type": "object", "required": ["items"], "description": format!("{} is a list of {}", resource.list_kind(), resource.kind()),
            "properties": {
                "apiVersion": {"type": "string", "description": text("apiVersion")},
                "kind": {"type": "string", "description": text("kind")},
                "metadata": metadata,
                "items": items,
            },
        })
    }

    fn reference(&mut self, name: &str) -> Value {
        self.pending.push(name.to_owned());
        match self.dialect {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            // What stands beside a reference is ignored in version 3; inside allOf it is not.
            Dialect::V3 => json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}]}),
        }
    }

    /// A named type: one of the table, or one whose JSON is not an object with fields.
    fn named(&mut self, name: &str) -> Value {
        if let Some(schema) = builtin::schema(name) {
            return self.object(schema);
        }
        let short = name.rsplit('.').next().unwrap_or_default();
        let v3 = self.dialect == Dialect::V3;
        match short {
            "Quantity" | "IntOrString" if v3 => {
                let number = if short == "Quantity" { json!({"type": "number"}) } else { json!({"type": "integer"}) };
                json!({"description": about(short), "oneOf": [{"type": "string"}, number]})
            }
            "IntOrString" => json!({"description": about(short), "type": "string", "format": "int-or-string"}),
            "Quantity" => json!({"description": about(short), "type": "string"}),
            "Time" | "MicroTime" => json!({"description": about(short), "type": "string", "format": "date-time"}),
            "Duration" => json!({"description": about(short), "type": "string"}),
            "RawExtension" | "FieldsV1" | "Patch" | "WatchEvent" => {
                json!({"description": about(short), "type": "object"})
            }
            _ => json!({"description": about(short)}),
        }
    }

    fn object(&mut self, schema: Schema<'_>) -> Value {
        let mut out = Map::new();
        out.insert("type".to_owned(), "object".into());
        put_description(&mut out, &schema.description());
        let mut properties = Map::new();
        for field in schema.fields() {
            properties.insert(field.name().to_owned(), self.field(field));
        }
        if !properties.is_empty() {
            out.insert("properties".to_owned(), Value::Object(properties));
        }
        let required: Vec<&str> = schema.fields().filter(|field| field.is_required()).map(Field::name).collect();
        if !required.is_empty() {
            out.insert("required".to_owned(), json!(required));
        }
        if schema.map_kind() == MapKind::Atomic {
            out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        self.extensions(schema, &mut out);
        Value::Object(out)
    }

    fn field(&mut self, field: Field<'_>) -> Value {
        let schema = field.schema();
        let mut value = self.value(schema);
        let Some(map) = value.as_object_mut() else { return value };
        put_description(map, &field.description());
        if let Some(default) = field.default() {
            map.insert("default".to_owned(), default.into_owned());
        }
        let enum_values: Vec<&str> = field.enum_values().collect();
        if !enum_values.is_empty() {
            map.insert("enum".to_owned(), json!(enum_values));
        }
        let strategy = match field.patch_strategy() {
            PatchStrategy::Replace => None,
            PatchStrategy::Merge => Some("merge"),
            PatchStrategy::RetainKeys => Some("retainKeys"),
            PatchStrategy::MergeRetainKeys => Some("merge,retainKeys"),
        };
        if let Some(strategy) = strategy {
            map.insert("x-kubernetes-patch-strategy".to_owned(), strategy.into());
        }
        if let Some(key) = field.merge_key() {
            map.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
        }
        value
    }

    fn value(&mut self, schema: Schema<'_>) -> Value {
        match schema.shape() {
            Shape::Object if schema.type_name().is_empty() => self.object(schema),
            Shape::Object => self.reference(schema.type_name()),
            Shape::Map(form) => {
                let mut out = Map::from_iter([
                    ("type".to_owned(), "object".into()),
                    ("additionalProperties".to_owned(), self.value(form)),
                ]);
                if schema.map_kind() == MapKind::Atomic {
                    out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
                }
                self.described(schema, out)
            }
            Shape::List(item) => {
                let mut out =
                    Map::from_iter([("type".to_owned(), "array".into()), ("items".to_owned(), self.value(item))]);
                let kind = match schema.list_kind() {
                    ListKind::Atomic => "atomic",
                    ListKind::Set => "set",
                    ListKind::Map => "map",
                };
                out.insert("x-kubernetes-list-type".to_owned(), kind.into());
                if schema.list_keys().len() > 0 {
                    out.insert("x-kubernetes-list-map-keys".to_owned(), schema.list_keys().collect());
                }
                self.described(schema, out)
            }
            Shape::Scalar(scalar) => self.scalar(schema, scalar),
        }
    }

    /// Adds what a custom resource's node has of its own.
    fn described(&mut self, schema: Schema<'_>, mut out: Map<String, Value>) -> Value {
        if schema.rules().is_some() {
            put_description(&mut out, &schema.description());
            self.extensions(schema, &mut out);
        }
        Value::Object(out)
    }

    fn scalar(&mut self, schema: Schema<'_>, scalar: Scalar) -> Value {
        let plain = |kind: &str, format: &str| {
            let mut out = Map::from_iter([("type".to_owned(), kind.into())]);
            if !format.is_empty() {
                out.insert("format".to_owned(), format.into());
            }
            out
        };
        let custom = schema.rules().is_some();
        let out = match scalar {
            Scalar::String => plain("string", ""),
            Scalar::Int32 => plain("integer", "int32"),
            Scalar::Int64 => plain("integer", if custom { "" } else { "int64" }),
            Scalar::Bool => plain("boolean", ""),
            Scalar::Double => plain("number", if custom { "" } else { "double" }),
            Scalar::Bytes => plain("string", "byte"),
            Scalar::Duration => plain("string", ""),
            Scalar::IntOrString if custom => Map::new(),
            Scalar::Json if custom || schema.type_name().is_empty() && self.is_custom(schema) => Map::new(),
            Scalar::Raw if custom => plain("object", ""),
            Scalar::Quantity => return self.reference("io.k8s.apimachinery.pkg.api.resource.Quantity"),
            Scalar::IntOrString => return self.reference("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
            Scalar::Time => return self.reference(&format!("{META}.Time")),
            Scalar::MicroTime => return self.reference(&format!("{META}.MicroTime")),
            Scalar::Raw => return self.reference("io.k8s.apimachinery.pkg.runtime.RawExtension"),
            Scalar::Json => return self.reference(&format!("{EXTENSIONS}.JSON")),
            Scalar::Fields => return self.reference(&format!("{META}.FieldsV1")),
            Scalar::PropsOrArray => return self.reference(&format!("{EXTENSIONS}.JSONSchemaPropsOrArray")),
            Scalar::PropsOrBool => return self.reference(&format!("{EXTENSIONS}.JSONSchemaPropsOrBool")),
            Scalar::PropsOrStrings => return self.reference(&format!("{EXTENSIONS}.JSONSchemaPropsOrStringArray")),
        };
        self.described(schema, out)
    }

    fn is_custom(&self, schema: Schema<'_>) -> bool {
        !std::ptr::eq(schema.table, builtin::table())
    }

    fn extensions(&mut self, schema: Schema<'_>, out: &mut Map<String, Value>) {
        let mut put = |key: &str, on: bool| {
            if on {
                out.insert(key.to_owned(), true.into());
            }
        };
        put("x-kubernetes-preserve-unknown-fields", schema.raw().preserve);
        put("x-kubernetes-embedded-resource", schema.is_embedded_resource());
        put("nullable", schema.is_nullable());
        if let Some(default) = schema.default() {
            out.insert("default".to_owned(), default.clone());
        }
        if let Some(rules) = schema.rules() {
            keywords(rules, self.dialect, out);
        }
    }
}

/// Validation keywords. Version 2 has no junctors.
fn keywords(rules: &Rules, dialect: Dialect, out: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    if rules.int_or_string {
        put("x-kubernetes-int-or-string", true.into());
    }
    if !rules.format.is_empty() {
        put("format", rules.format.clone().into());
    }
    if let Some(pattern) = &rules.pattern {
        put("pattern", pattern.text.clone().into());
    }
    if !rules.enum_values.is_empty() {
        put("enum", Value::Array(rules.enum_values.clone()));
    }
    for (key, exclusive_key, bound) in
        [("minimum", "exclusiveMinimum", rules.minimum), ("maximum", "exclusiveMaximum", rules.maximum)]
    {
        if let Some(Bound { value, exclusive }) = bound {
            put(key, number(value));
            if exclusive {
                put(exclusive_key, true.into());
            }
        }
    }
    if let Some(factor) = rules.multiple_of {
        put("multipleOf", number(factor));
    }
    for (min, max, span) in [
        ("minLength", "maxLength", rules.length),
        ("minItems", "maxItems", rules.items_count),
        ("minProperties", "maxProperties", rules.properties_count),
    ] {
        span.min.into_iter().for_each(|count| put(min, count.into()));
        span.max.into_iter().for_each(|count| put(max, count.into()));
    }
    if rules.unique_items {
        put("uniqueItems", true.into());
    }
    if !rules.expressions.is_empty() {
        let list = rules.expressions.iter().map(|e| {
            let mut out = json!({"rule": e.rule});
            let parts = [
                ("message", &e.message),
                ("messageExpression", &e.message_expression),
                ("reason", &e.reason),
                ("fieldPath", &e.field_path),
            ];
            for (key, text) in parts.into_iter().filter(|(_, text)| !text.is_empty()) {
                out[key] = text.clone().into();
            }
            out
        });
        put("x-kubernetes-validations", list.collect());
    }
    if dialect == Dialect::V3 {
        for (key, branches) in [("allOf", &rules.all_of), ("anyOf", &rules.any_of), ("oneOf", &rules.one_of)] {
            if !branches.is_empty() {
                put(key, branches.iter().map(branch).collect());
            }
        }
        if let Some(not) = &rules.not {
            put("not", branch(not));
        }
    }
}

/// A schema below a junctor.
fn branch(rules: &Rules) -> Value {
    let mut out = Map::new();
    keywords(rules, Dialect::V3, &mut out);
    if !rules.kind.is_empty() {
        out.insert("type".to_owned(), rules.kind.clone().into());
    }
    if !rules.required.is_empty() {
        out.insert("required".to_owned(), json!(rules.required));
    }
    if !rules.properties.is_empty() {
        out.insert(
            "properties".to_owned(),
            rules.properties.iter().map(|(key, child)| (key.clone(), branch(child))).collect(),
        );
    }
    for (key, child) in [("items", &rules.items), ("additionalProperties", &rules.additional)] {
        if let Some(child) = child {
            out.insert(key.to_owned(), branch(child));
        }
    }
    Value::Object(out)
}

fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { (value as i64).into() } else { value.into() }
}

fn put_description(out: &mut Map<String, Value>, text: &str) {
    if !text.is_empty() {
        out.insert("description".to_owned(), text.into());
    }
}

/// Descriptions of the types whose JSON is not an object with fields.
fn about(name: &str) -> &'static str {
    match name {
        "Quantity" => {
            "An amount: a decimal number with an optional suffix (n u m k M G T P E, Ki Mi Gi Ti Pi Ei) or exponent."
        }
        "IntOrString" => "A whole number of 32 bits, or a string.",
        "Time" => "A time as RFC 3339 writes it, in whole seconds.",
        "MicroTime" => "A time as RFC 3339 writes it, with microseconds.",
        "Duration" => "A duration as Go writes it, such as 1m30s.",
        "RawExtension" => "An object of any kind.",
        "FieldsV1" => {
            "A set of fields: f:<name> of an object, k:<keys> and v:<value> of a list's items, and . for the object itself."
        }
        "Patch" => "A patch, in the form that the request's Content-Type names.",
        "WatchEvent" => "One event of a watch: type is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.",
        "JSON" => "Any JSON value.",
        "JSONSchemaPropsOrArray" => "A JSON schema, or a list of them.",
        "JSONSchemaPropsOrBool" => "A JSON schema, or a boolean.",
        "JSONSchemaPropsOrStringArray" => "A JSON schema, or a list of strings.",
        _ => "",
    }
}

//! `openAPIV3Schema` -> the table behind [`Schema`](crate::Schema).

use super::columns::{self, Column};
use super::{CustomVersion, ScalePaths, structure};
use crate::cel::{self, Program};
use crate::openapi::Fnv;
use crate::schema::rules::{Bound, Expression, Pattern, Rules, Span};
use crate::schema::table::{FieldDef, Text};
use crate::schema::{ListKind, Node, NodeId, NodeShape, Scalar, Table, builtin};
use crate::status::Cause;
use serde_json::{Map, Value};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// A schema nested deeper than this is refused: walking values recurses along it.
const MAX_DEPTH: usize = 64;
/// More faults than about this are not told one by one.
const MAX_CAUSES: usize = 50;
/// A schema of more nodes than this is refused.
const MAX_NODES: usize = 50_000;

/// Compiles `spec.versions[]` of a definition.
///
/// # Errors
/// The schema is not structural, or has a pattern that is no regular expression; one cause for each fault.
pub(crate) fn compile_version(head: &Value, version: &Value) -> Result<CustomVersion, Vec<Cause>> {
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut compiler = Compiler { table: Table::custom(), causes: Vec::new(), nodes: 0, unevaluated: 0 };
    let kind = head["names"]["kind"].as_str().unwrap_or_default();
    let mut name = head["group"].as_str().unwrap_or_default().split('.').rev().collect::<Vec<_>>().join(".");
    name.push_str(&format!(".{}.{kind}", version["name"].as_str().unwrap_or_default()));
    let root = compiler.root(schema, &name);
    if !compiler.causes.is_empty() {
        return Err(compiler.causes);
    }
    let Compiler { mut table, unevaluated, .. } = compiler;
    table.shrink();
    let subresources = &version["subresources"];
    let compiled = CustomVersion {
        table,
        root,
        columns: columns_of(version),
        scale: subresources.get("scale").filter(|scale| scale.is_object()).map(scale_paths),
        status: subresources.get("status").is_some_and(Value::is_object),
        deprecation: deprecation(head, version),
        selectable: selectable(version),
        unevaluated,
        fingerprint: {
            let mut sum = Fnv::new();
            sum.add(version.to_string().as_bytes());
            sum.0
        },
    };
    let causes = structure::defaults(&compiled, BASE);
    if causes.is_empty() { Ok(compiled) } else { Err(causes) }
}

fn columns_of(version: &Value) -> Vec<Column> {
    let declared = version["additionalPrinterColumns"].as_array().map(Vec::as_slice).unwrap_or_default();
    if declared.is_empty() { vec![columns::age()] } else { declared.iter().map(Column::from_value).collect() }
}

fn scale_paths(scale: &Value) -> ScalePaths {
    let path = |key: &str| scale[key].as_str().map(simple_path);
    ScalePaths {
        spec_replicas: path("specReplicasPath").unwrap_or_default(),
        status_replicas: path("statusReplicasPath").unwrap_or_default(),
        label_selector: path("labelSelectorPath").filter(|path| !path.is_empty()),
    }
}

/// `.spec.replicas` -> keys.
fn simple_path(text: &str) -> Vec<String> {
    text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Text of the `Warning` header for a deprecated version.
pub(crate) fn deprecation(head: &Value, version: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    let group = head["group"].as_str().unwrap_or_default();
    let (name, kind) =
        (version["name"].as_str().unwrap_or_default(), head["names"]["kind"].as_str().unwrap_or_default());
    let own = version["deprecationWarning"].as_str().map(str::to_owned);
    Some(own.unwrap_or_else(|| format!("{group}/{name} {kind} is deprecated")))
}

fn selectable(version: &Value) -> Vec<String> {
    let fields = version["selectableFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    fields
        .iter()
        .filter_map(|field| field["jsonPath"].as_str())
        .map(|path| path.trim_start_matches('.').to_owned())
        .collect()
}

struct Compiler {
    table: Table,
    causes: Vec<Cause>,
    nodes: usize,
    unevaluated: usize,
}

const BASE: &str = "spec.validation.openAPIV3Schema";

impl Compiler {
    /// The whole object: the schema's fields with `apiVersion`, `kind` and Kubernetes' own `metadata`.
    fn root(&mut self, schema: &Value, name: &str) -> NodeId {
        let id = self.table.reserve(Text::Owned(name.to_owned()));
        let mut fields = Vec::new();
        if schema["type"] != "object" {
            self.fail(Cause::required(format!("{BASE}.type"), "must not be empty at the root"));
        }
        structure::node(schema, BASE, &mut self.causes);
        if schema["nullable"] == true {
            self.fail(Cause::forbidden(format!("{BASE}.nullable"), "nullable cannot be true at the root"));
        }
        let required = strings(&schema["required"]);
        for (key, child) in schema["properties"].as_object().into_iter().flatten() {
            if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                let node = self.node(child, &format!("{BASE}.properties[{key}]"), 1);
                fields.push(FieldDef::custom(Text::Owned(key.clone()), node, required.contains(key)));
            }
        }
        fields.extend(self.object_fields());
        self.table.define(id, description(schema), false, fields);
        let mut node = Node::plain(NodeShape::Object { id, atomic: None });
        node.preserve = schema["x-kubernetes-preserve-unknown-fields"] == true;
        node.rules = self.rules(schema, BASE, 0);
        self.table.push_node(node)
    }

    /// `apiVersion`, `kind` and `metadata`, described as Kubernetes' own objects have them.
    fn object_fields(&mut self) -> Vec<FieldDef> {
        let table = builtin::table();
        let pod = table.named("io.k8s.api.core.v1.Pod").expect("Pod is in the table");
        let meta = table.named(OBJECT_META).expect("ObjectMeta is in the table");
        let meta = self.table.import(table, meta);
        let text = self.table.scalar("string", Scalar::String);
        let described =
            table.object(pod).fields.iter().filter(|field| matches!(&*field.name, "apiVersion" | "kind" | "metadata"));
        described
            .map(|field| {
                let node = if field.name == "metadata" { self.table.object(meta).root } else { text };
                FieldDef { node, ..field.clone() }
            })
            .collect()
    }

    fn fail(&mut self, cause: Cause) {
        if self.causes.len() < MAX_CAUSES {
            self.causes.push(cause);
        }
    }

    fn node(&mut self, schema: &Value, path: &str, depth: usize) -> NodeId {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            self.fail(Cause::forbidden(
                path,
                format!("schemas are limited to {MAX_NODES} nodes and a depth of {MAX_DEPTH}"),
            ));
            return self.table.scalar("json", Scalar::Json);
        }
        if self.causes.len() < MAX_CAUSES {
            structure::node(schema, path, &mut self.causes);
        }
        let shape = self.shape(schema, path, depth);
        let mut node = Node::plain(shape);
        node.preserve = schema["x-kubernetes-preserve-unknown-fields"] == true;
        node.embedded = schema["x-kubernetes-embedded-resource"] == true;
        node.nullable = schema["nullable"] == true;
        node.default = schema.get("default").filter(|value| !value.is_null()).map(|value| Box::new(value.clone()));
        node.rules = self.rules(schema, path, depth);
        if !matches!(node.shape, NodeShape::Object { .. }) {
            node.description = description(schema);
        }
        self.table.push_node(node)
    }

    fn shape(&mut self, schema: &Value, path: &str, depth: usize) -> NodeShape {
        for forbidden in [
            "$ref",
            "definitions",
            "dependencies",
            "deprecated",
            "id",
            "patternProperties",
            "readOnly",
            "writeOnly",
            "xml",
        ] {
            if schema.get(forbidden).is_some() {
                self.fail(Cause::forbidden(format!("{path}.{forbidden}"), format!("{forbidden} is not supported")));
            }
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return NodeShape::Scalar(Scalar::IntOrString);
        }
        match schema["type"].as_str().unwrap_or_default() {
            "object" => self.object(schema, path, depth),
            "array" => self.array(schema, path, depth),
            "string" if schema["format"] == "byte" => NodeShape::Scalar(Scalar::Bytes),
            "string" => NodeShape::Scalar(Scalar::String),
            "integer" if schema["format"] == "int32" => NodeShape::Scalar(Scalar::Int32),
            "integer" => NodeShape::Scalar(Scalar::Int64),
            "number" => NodeShape::Scalar(Scalar::Double),
            "boolean" => NodeShape::Scalar(Scalar::Bool),
            "" if schema["x-kubernetes-preserve-unknown-fields"] == true => NodeShape::Scalar(Scalar::Json),
            "" => {
                self.fail(Cause::required(format!("{path}.type"), "must not be empty for specified object fields"));
                NodeShape::Scalar(Scalar::Json)
            }
            other => {
                let known = ["array", "boolean", "integer", "number", "object", "string"];
                self.fail(Cause::not_supported(format!("{path}.type"), &other.into(), known));
                NodeShape::Scalar(Scalar::Json)
            }
        }
    }

    fn object(&mut self, schema: &Value, path: &str, depth: usize) -> NodeShape {
        let atomic = schema["x-kubernetes-map-type"] == "atomic";
        let properties = schema["properties"].as_object();
        let extra = &schema["additionalProperties"];
        if properties.is_some_and(|map| !map.is_empty()) && extra.is_object() {
            self.fail(Cause::forbidden(
                format!("{path}.additionalProperties"),
                "additionalProperties and properties are mutually exclusive",
            ));
        }
        if extra.is_object() {
            let value = self.node(extra, &format!("{path}.additionalProperties"), depth + 1);
            return NodeShape::Map { value, atomic };
        }
        if *extra == Value::Bool(true) && properties.is_none() {
            let value = self.table.scalar("json", Scalar::Json);
            return NodeShape::Map { value, atomic };
        }
        if schema["x-kubernetes-embedded-resource"] == true && properties.is_none() {
            return NodeShape::Scalar(Scalar::Raw);
        }
        let required = strings(&schema["required"]);
        let mut fields = Vec::new();
        for (key, child) in properties.into_iter().flatten() {
            let node = self.node(child, &format!("{path}.properties[{key}]"), depth + 1);
            fields.push(FieldDef::custom(Text::Owned(key.clone()), node, required.contains(key)));
        }
        let id = self.table.reserve(Text::Borrowed(""));
        self.table.define(id, description(schema), atomic, fields);
        NodeShape::Object { id, atomic: None }
    }

    fn array(&mut self, schema: &Value, path: &str, depth: usize) -> NodeShape {
        let items = &schema["items"];
        let item = if items.is_object() {
            self.node(items, &format!("{path}.items"), depth + 1)
        } else {
            self.fail(Cause::required(format!("{path}.items"), "must be specified"));
            self.table.scalar("json", Scalar::Json)
        };
        let keys: Box<[Text]> = strings(&schema["x-kubernetes-list-map-keys"]).into_iter().map(Text::Owned).collect();
        let kind = match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => ListKind::Map,
            Some("set") => ListKind::Set,
            _ => ListKind::Atomic,
        };
        if kind == ListKind::Map && keys.is_empty() {
            let field = format!("{path}.x-kubernetes-list-map-keys");
            self.fail(Cause::required(field, "must not be empty if x-kubernetes-list-type is map"));
        }
        NodeShape::List { item, kind, keys, wrapped: false }
    }

    fn rules(&mut self, schema: &Value, path: &str, depth: usize) -> Option<Box<Rules>> {
        let map = schema.as_object()?;
        let mut rules = self.own_rules(map, path);
        self.junctors(map, path, depth, &mut rules);
        (!rules.is_plain()).then(|| Box::new(rules))
    }

    fn own_rules(&mut self, map: &Map<String, Value>, path: &str) -> Rules {
        let get = |key: &str| map.get(key).unwrap_or(&Value::Null);
        let count = |key: &str| get(key).as_u64();
        let bound = |key: &str, exclusive: &str| {
            get(key).as_f64().map(|value| Bound { value, exclusive: *get(exclusive) == true })
        };
        let pattern = get("pattern").as_str().filter(|text| !text.is_empty());
        if let Some(Err(error)) = pattern.map(Pattern::compile) {
            let reason = format!("must be a valid regular expression, but isn't: {error}");
            self.fail(Cause::invalid(format!("{path}.pattern"), get("pattern"), reason));
        }
        let listed = get("x-kubernetes-validations").as_array().map(Vec::as_slice).unwrap_or_default();
        let expressions = listed.iter().enumerate();
        let expressions = expressions
            .map(|(at, item)| self.expression(item, &format!("{path}.x-kubernetes-validations[{at}]")))
            .collect();
        Rules {
            kind: get("type").as_str().unwrap_or_default().to_owned(),
            int_or_string: *get("x-kubernetes-int-or-string") == true,
            format: get("format").as_str().unwrap_or_default().to_owned(),
            pattern: pattern.map(|text| Pattern::new(text.to_owned())),
            enum_values: get("enum").as_array().cloned().unwrap_or_default(),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: get("multipleOf").as_f64(),
            length: Span { min: count("minLength"), max: count("maxLength") },
            items_count: Span { min: count("minItems"), max: count("maxItems") },
            properties_count: Span { min: count("minProperties"), max: count("maxProperties") },
            unique_items: *get("uniqueItems") == true,
            required: strings(get("required")),
            nullable: *get("nullable") == true,
            expressions,
            ..Rules::default()
        }
    }

    fn expression(&mut self, value: &Value, path: &str) -> Expression {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let mut compiled = |key: &str| {
            let source = value[key].as_str().filter(|source| !source.trim().is_empty())?;
            match Program::compile(source) {
                Ok(program) => Some(program),
                Err(error) if cel::is_unbuilt(&error) => {
                    self.unevaluated += 1;
                    None
                }
                Err(error) => {
                    self.fail(Cause::invalid(
                        format!("{path}.{key}"),
                        &source.into(),
                        format!("compilation failed: {error}"),
                    ));
                    None
                }
            }
        };
        Expression {
            program: compiled("rule"),
            message_program: compiled("messageExpression"),
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old_self: value["optionalOldSelf"] == true,
        }
    }

    fn junctors(&mut self, map: &Map<String, Value>, path: &str, depth: usize, rules: &mut Rules) {
        if depth > MAX_DEPTH {
            return self.fail(Cause::forbidden(path, format!("schemas are limited to a depth of {MAX_DEPTH}")));
        }
        let list = |compiler: &mut Self, key: &str| -> Vec<Rules> {
            let items = map.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            items
                .iter()
                .enumerate()
                .map(|(at, item)| compiler.nested(item, &format!("{path}.{key}[{at}]"), depth + 1))
                .collect()
        };
        rules.all_of = list(self, "allOf");
        rules.any_of = list(self, "anyOf");
        rules.one_of = list(self, "oneOf");
        rules.not = map.get("not").map(|not| Box::new(self.nested(not, &format!("{path}.not"), depth + 1)));
    }

    /// Rules below a junctor, which carry their own children.
    fn nested(&mut self, schema: &Value, path: &str, depth: usize) -> Rules {
        let empty = Map::new();
        let map = schema.as_object().unwrap_or(&empty);
        let mut rules = self.own_rules(map, path);
        self.junctors(map, path, depth, &mut rules);
        if depth > MAX_DEPTH {
            return rules;
        }
        for (key, child) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let child = self.nested(child, &format!("{path}.properties[{key}]"), depth + 1);
            rules.properties.insert(key.clone(), child);
        }
        let mut one = |key: &str| {
            let child = map.get(key).filter(|child| child.is_object())?;
            Some(Box::new(self.nested(child, &format!("{path}.{key}"), depth + 1)))
        };
        rules.items = one("items");
        rules.additional = one("additionalProperties");
        rules
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn description(schema: &Value) -> Text {
    schema["description"].as_str().map_or(Text::Borrowed(""), |text| Text::Owned(crate::schema::text::escape(text)))
}

//! Custom resources that come with the program: Gateway API, Istio's kinds and our own. Their schemas are read from the compiled-in
//! files when a resource is first used, so a cluster without them pays for one line each. That stays so when the same definitions are
//! applied as CustomResourceDefinition objects: equal ones are recognized ([`twins`]) rather than compiled.

use super::{CustomForm, CustomParts, Resource};
use crate::crd::{self, CustomVersion};
use crate::openapi::Fnv;
use serde_json::{Map, Value};
use std::sync::{Arc, OnceLock};

const SOURCES: [&str; 3] = [
    include_str!("../../schema/gateway-1.6.schema"),
    include_str!("../../schema/istio.schema"),
    include_str!("../../schema/diolkos.schema"),
];

/// One version whose schema is read on demand; resources that share a schema share this.
#[derive(Clone, Debug)]
pub(crate) struct Lazy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `spec` of the definition's names and scope, and the version without its schema.
    head: Value,
    version: Value,
    lines: &'static str,
    ready: OnceLock<CustomVersion>,
}

impl Lazy {
    /// Sum of the schema's text.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut sum = Fnv::new();
        sum.add(self.0.lines.as_bytes());
        sum.0
    }

    /// Whether the status subresource is on.
    pub(crate) fn has_status(&self) -> bool {
        self.0.version["subresources"].get("status").is_some()
    }

    /// Whether the scale subresource is on.
    pub(crate) fn has_scale(&self) -> bool {
        self.0.version["subresources"].get("scale").is_some()
    }

    /// Text of the `Warning` header for a deprecated version.
    pub(super) fn deprecation_warning(&self) -> Option<String> {
        crd::deprecation(&self.0.head, &self.0.version)
    }

    /// The compiled version.
    pub(crate) fn version(&self) -> &CustomVersion {
        self.0.ready.get_or_init(|| {
            let version = with_schema(self.0.version.clone(), self.0.lines);
            crd::compile_version(&self.0.head, &version).expect("a test compiles every bundled schema")
        })
    }
}

/// Resources of all bundled definitions.
pub(super) fn resources() -> impl Iterator<Item = Resource> {
    SOURCES.iter().flat_map(|source| definitions(source)).flat_map(|(head, versions)| {
        let stored =
            versions.iter().find(|(version, _)| version["storage"] == true).map(|(version, _)| text(version, "name"));
        let stored = stored.unwrap_or_default();
        let made: Vec<Resource> =
            versions.into_iter().map(|(version, lines)| resource(&head, version, lines, &stored)).collect();
        made
    })
}

/// The bundled definitions of a group as CustomResourceDefinition objects, with these annotations.
pub(super) fn objects(group: &str, annotations: &[(&str, &str)]) -> Vec<Value> {
    let annotations: Map<String, Value> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let found = SOURCES.iter().flat_map(|source| definitions(source)).filter(|(head, _)| head["group"] == group);
    found
        .map(|(head, versions)| {
            let versions: Vec<Value> =
                versions.into_iter().map(|(version, lines)| with_schema(version, lines)).collect();
            let name = format!("{}.{group}", text(&head["names"], "plural"));
            let mut spec = head;
            spec["versions"] = versions.into();
            serde_json::json!({
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": { "name": name, "annotations": annotations },
                "spec": spec,
            })
        })
        .collect()
}

/// The versions of the bundled definition that a definition's `spec` says the same as, in its order; `None` when it differs in anything
/// that is served by it.
pub(crate) fn twins(spec: &Value) -> Option<Vec<Lazy>> {
    let listed = spec["versions"].as_array()?;
    let (head, versions) = SOURCES.iter().flat_map(|source| definitions(source)).find(|(head, _)| {
        head["group"] == spec["group"]
            && head["names"]["plural"] == spec["names"]["plural"]
            && head["scope"] == spec["scope"]
    })?;
    let equal = versions.len() == listed.len()
        && versions.iter().zip(listed).all(|((version, lines), listed)| with_schema(version.clone(), lines) == *listed);
    let lazy = |(version, lines)| Lazy(Arc::new(Inner { head: head.clone(), version, lines, ready: OnceLock::new() }));
    equal.then(|| versions.into_iter().map(lazy).collect())
}

/// A version as a definition has it.
fn with_schema(mut version: Value, lines: &'static str) -> Value {
    let schema = tree(&mut lines.lines().peekable(), 1).map_or(Value::Null, |(_, schema)| schema);
    version["schema"] = Value::Object(Map::from_iter([("openAPIV3Schema".to_owned(), schema)]));
    if let Some(fields) = version.as_object_mut() {
        fields.remove("schemaOf");
    }
    version
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn resource(head: &Value, version: Value, lines: &'static str, stored: &str) -> Resource {
    let names = &head["names"];
    let list = |key: &str| {
        let items = names[key].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let name = text(&version, "name");
    let lazy = Lazy(Arc::new(Inner { head: head.clone(), version, lines, ready: OnceLock::new() }));
    let parts = CustomParts {
        group: text(head, "group"),
        version: name,
        plural: text(names, "plural"),
        singular: text(names, "singular"),
        kind: text(names, "kind"),
        list_kind: text(names, "listKind"),
        short_names: list("shortNames"),
        categories: list("categories"),
        namespaced: head["scope"] == "Namespaced",
        status: lazy.has_status(),
        scale: lazy.has_scale(),
        stored_version: stored.to_owned(),
    };
    Resource::custom_version(&parts, CustomForm::Lazy(lazy))
}

/// Splits a file into definitions, each with its versions and the lines of their schemas.
fn definitions(source: &'static str) -> Vec<(Value, Vec<(Value, &'static str)>)> {
    let mut out: Vec<(Value, Vec<(Value, &'static str)>)> = Vec::new();
    let mut rest = source;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        rest = after;
        if let Some(head) = line.strip_prefix("R ") {
            out.push((json(head), Vec::new()));
        } else if let Some(version) = line.strip_prefix("V ") {
            let end = if after.starts_with(' ') {
                after.find("\nR ").into_iter().chain(after.find("\nV ")).min()
            } else {
                Some(0)
            };
            let (lines, after) = end.map_or((after, ""), |end| after.split_at(end));
            rest = after.trim_start_matches('\n');
            if let Some((_, versions)) = out.last_mut() {
                let version = json(version);
                let lines = versions
                    .iter()
                    .find(|(other, _)| other["name"] == version["schemaOf"])
                    .map_or(lines, |other| other.1);
                versions.push((version, lines));
            }
        }
    }
    out
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("a test reads every line of the bundled files")
}

/// Reads one node and what is indented below it: its name and its JSON schema.
fn tree(lines: &mut std::iter::Peekable<std::str::Lines<'static>>, depth: usize) -> Option<(&'static str, Value)> {
    let line = lines.next_if(|line| indent(line) == depth)?;
    let mut columns = line[depth..].split('\t');
    let (name, kind, rest, description) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
    let mut schema = if rest.is_empty() { Map::new() } else { json(rest).as_object().cloned()? };
    if !kind.is_empty() {
        schema.insert("type".to_owned(), kind.into());
    }
    if !description.is_empty() {
        schema.insert("description".to_owned(), crate::schema::text::unescape(description).into_owned().into());
    }
    let mut properties = Map::new();
    while let Some((child, value)) = tree(lines, depth + 1) {
        match child {
            "[]" => drop(schema.insert("items".to_owned(), value)),
            "{}" => drop(schema.insert("additionalProperties".to_owned(), value)),
            name => drop(properties.insert(name.to_owned(), value)),
        }
    }
    if !properties.is_empty() {
        schema.insert("properties".to_owned(), Value::Object(properties));
    }
    Some((name, Value::Object(schema)))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

//! `kubectl get`: columns and rows, as `metav1.Table`.
//!
//! The server always answers with the wide columns too (priority 1); kubectl hides them unless `-o wide` was asked for.

mod access;
mod age;
mod cluster;
mod custom;
mod network;
mod pods;
mod storage;
mod workloads;

pub use access::*;
pub use age::{age, human_duration, since};
pub use cluster::*;
pub(crate) use custom::dated;
pub use custom::{custom_columns, custom_row};
pub use network::*;
pub use pods::{POD, pod_row};
pub use storage::*;
pub use workloads::*;

use crate::behaviour::Kind;
use crate::json::{list, members, text};
use model::Timestamp;
use serde_json::{Value, json};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading, before kubectl upper-cases it.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, ...
    pub kind: &'static str,
    /// `name` for the column that identifies the object, else empty.
    pub format: &'static str,
    /// 0: always shown; 1: only with `-o wide`.
    pub priority: i32,
    /// What it shows.
    pub description: &'static str,
}

impl Column {
    /// A text column.
    pub const fn text(name: &'static str, description: &'static str) -> Column {
        Column { name, kind: "string", format: "", priority: 0, description }
    }
    /// A whole-number column.
    pub const fn number(name: &'static str, description: &'static str) -> Column {
        Column { kind: "integer", ..Column::text(name, description) }
    }
    /// A yes-or-no column.
    pub const fn boolean(name: &'static str, description: &'static str) -> Column {
        Column { kind: "boolean", ..Column::text(name, description) }
    }
    /// The same, only with `-o wide`.
    pub const fn wide(self) -> Column {
        Column { priority: 1, ..self }
    }
    fn to_json(self) -> Value {
        definition(self.name, self.kind, self.format, self.description, self.priority)
    }
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i32) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

/// The `Name` column.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "Name must be unique within a namespace.",
};
/// The `Age` column.
pub const AGE: Column = Column::text("Age", "The time since the object was created.");
/// Columns of kinds that have nothing else to show.
pub const NAME_AND_AGE: &[Column] = &[NAME, AGE];
/// Columns of kinds for which Kubernetes has no printer of its own.
pub const NAME_AND_CREATED_AT: &[Column] = &[NAME, Column::text("Created At", "When the object was created.")];
const CONTAINERS: Column = Column::text("Containers", "Names of each container in the template.").wide();
const IMAGES: Column = Column::text("Images", "Images referenced by each container in the template.").wide();
const SELECTOR: Column = Column::text("Selector", "Which pods belong to the object.").wide();

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// One cell for each column.
    pub cells: Vec<Value>,
    /// `metav1.TableRowCondition`s, such as `Completed`.
    pub conditions: Vec<Value>,
}

impl Row {
    /// A row without conditions.
    pub fn plain(cells: Vec<Value>) -> Row {
        Row { cells, conditions: Vec::new() }
    }
}

/// `includeObject` of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// No object.
    None,
    /// The metadata as `PartialObjectMetadata`; what kubectl asks for by default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// Reads the query parameter; empty means `Metadata`.
    pub fn parse(text: &str) -> Option<Include> {
        match text {
            "" | "Metadata" => Some(Include::Metadata),
            "None" => Some(Include::None),
            "Object" => Some(Include::Object),
            _ => None,
        }
    }
}

/// `columnDefinitions` of a kind.
pub fn columns(kind: &dyn Kind) -> Value {
    kind.columns().iter().map(|column| column.to_json()).collect()
}

/// A `rows` entry of a kind's object.
pub fn row(kind: &dyn Kind, object: &Value, include: Include, now: Timestamp) -> Value {
    row_json(kind.row(object, now), object, include)
}

/// A `rows` entry from finished cells.
pub fn row_json(row: Row, object: &Value, include: Include) -> Value {
    let object = match include {
        Include::None => Value::Null,
        Include::Metadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
        }
        Include::Object => object.clone(),
    };
    let mut json = json!({"cells": row.cells, "object": object});
    if !row.conditions.is_empty() {
        json["conditions"] = Value::Array(row.conditions);
    }
    json
}

/// A whole table. `columns` are left out (`None`) in the events of a watch after the first. `metadata` is the list's
/// (`resourceVersion`, `continue`, `remainingItemCount`).
pub fn table(metadata: Value, columns: Option<Value>, rows: Vec<Value>) -> Value {
    let columns = columns.unwrap_or_else(|| json!([]));
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}

/// The name cell.
pub fn name(object: &Value) -> Value {
    Value::from(text(&object["metadata"]["name"]))
}

/// The text, or `fallback` when it is empty.
fn or<'a>(text: &'a str, fallback: &'a str) -> &'a str {
    if text.is_empty() { fallback } else { text }
}

/// A number cell; absent counts as 0.
fn number(value: &Value) -> Value {
    Value::from(value.as_i64().unwrap_or(0))
}

/// `a=b,c=d`, or `<none>`.
fn format_labels(labels: &Value) -> String {
    let pairs: Vec<String> = members(labels).iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
    or(&pairs.join(","), "<none>").to_owned()
}

/// A `metav1.LabelSelector` as text, or `<none>`.
fn format_selector(selector: &Value) -> String {
    or(&selector_text(selector), "<none>").to_owned()
}

/// A `metav1.LabelSelector` as text: `a=b,c in (d,e),!f`, sorted by key.
fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<(String, String)> = members(&selector["matchLabels"])
        .iter()
        .map(|(key, value)| (key.clone(), format!("{key}={}", text(value))))
        .collect();
    for expression in list(&selector["matchExpressions"]) {
        let key = text(&expression["key"]).to_owned();
        let mut values: Vec<&str> = list(&expression["values"]).iter().map(text).collect();
        values.sort_unstable();
        let part = match text(&expression["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            _ => continue,
        };
        parts.push((key, part));
    }
    parts.sort();
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(",")
}

/// Names and images of the containers of a pod template's spec, each comma-separated.
fn container_cells(pod_spec: &Value) -> [Value; 2] {
    let joined = |key: &str| {
        let texts: Vec<&str> = list(&pod_spec["containers"]).iter().map(|container| text(&container[key])).collect();
        Value::from(texts.join(","))
    };
    [joined("name"), joined("image")]
}

/// The status of a condition, or `""` when there is none of that type.
fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    list(&object["status"]["conditions"]).iter().find(|c| c["type"] == kind).map_or("", |c| text(&c["status"]))
}

/// At most `max` of the texts, and how many more there are.
fn list_with_more(texts: &[String], max: usize) -> String {
    if texts.is_empty() {
        return "<unset>".to_owned();
    }
    let shown = texts[..texts.len().min(max)].join(",");
    if texts.len() > max { format!("{shown} + {} more...", texts.len() - max) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_as_text() {
        let selector = json!({"matchLabels": {"b": "1", "a": "2"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["y", "x"]}, {"key": "d", "operator": "DoesNotExist"}]});
        assert_eq!(format_selector(&selector), "a=2,b=1,c in (x,y),!d");
        assert_eq!(format_selector(&json!({})), "<none>");
    }

    #[test]
    fn rows_carry_what_was_asked() {
        let object = json!({"metadata": {"name": "a"}, "spec": {}});
        let row = |include| row_json(Row::plain(vec![]), &object, include)["object"].clone();
        assert_eq!(row(Include::None), Value::Null);
        assert_eq!(row(Include::Metadata)["kind"], "PartialObjectMetadata");
        assert_eq!(row(Include::Object), object);
    }
}

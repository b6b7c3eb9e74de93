//! How objects are shown: whole, as rows of a table, or by their metadata only.

use crate::body::{Body, List};
use crate::core::Core;
use crate::form;
use crate::negotiate::{Accepted, Encoding, View};
use crate::ops::Listed;
use crate::request::Query;
use crate::respond;
use bytes::Bytes;
use http::Response;
use kinds::table::{self, Include, Row};
use kube::{Resource, Status};
use model::Timestamp;
use serde_json::{Value, json};

/// Reads `includeObject`.
pub fn include(query: &Query) -> Include {
    Include::parse(query.get("includeObject").unwrap_or_default()).unwrap_or_default()
}

/// One object as an answer.
///
/// # Errors
/// 500 when a stored object does not decode.
pub fn object(
    core: &Core,
    resource: &Resource,
    bytes: Bytes,
    accepted: Accepted,
    code: u16,
    query: &Query,
) -> Result<Response<Body>, Status> {
    match accepted.view {
        View::Whole => Ok(respond::encoded(code, accepted.encoding, bytes)),
        View::Metadata => Ok(respond::value(code, accepted.encoding, &metadata_only(&parse(&bytes)?))),
        View::Table => {
            let object = parse(&bytes)?;
            let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let rows = vec![row(resource, &object, include(query), core.now())];
            Ok(respond::value(code, accepted.encoding, &table_of(Some(columns(resource)), meta, rows)))
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes).map_err(Status::internal)
}

/// `PartialObjectMetadata` of an object.
pub fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A table around rows; later events of a watch leave the columns out.
pub fn table_of(columns: Option<Value>, metadata: Value, rows: Vec<Value>) -> Value {
    let columns = columns.unwrap_or_else(|| json!([]));
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}

/// The columns of a resource's table.
pub fn columns(resource: &Resource) -> Value {
    let Some(custom) = printed_by_definition(resource) else { return table::columns(form::behaviour(resource)) };
    let mut columns = vec![json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    })];
    columns.extend(custom.columns().iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    }));
    columns.into()
}

fn printed_by_definition(resource: &Resource) -> Option<&kube::crd::CustomVersion> {
    resource.custom()
}

/// One object's row.
pub fn row(resource: &Resource, object: &Value, include: Include, now: Timestamp) -> Value {
    let Some(custom) = printed_by_definition(resource) else {
        return table::row(form::behaviour(resource), object, include, now);
    };
    let mut cells = vec![object["metadata"]["name"].clone()];
    cells.extend(custom.columns().iter().map(|column| {
        let cell = column.cell(object);
        if column.kind == "date" { table::since(&cell, now).into() } else { cell }
    }));
    table::row_json(Row::plain(cells), object, include)
}

/// A list as an answer. Whole objects are the stored bytes with commas between them.
///
/// # Errors
/// 500 when a stored object does not decode.
pub fn list(
    core: &Core,
    resource: &Resource,
    listed: Listed,
    accepted: Accepted,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let mut meta = json!({"resourceVersion": listed.revision.to_string()});
    if !listed.continue_token.is_empty() {
        meta["continue"] = listed.continue_token.clone().into();
    }
    if let Some(remaining) = listed.remaining.filter(|remaining| *remaining > 0) {
        meta["remainingItemCount"] = remaining.into();
    }
    let head = |kind: &str, version: &str| {
        format!("{{\"kind\":{},\"apiVersion\":{},\"metadata\":{meta}", json!(kind), json!(version))
    };
    let now = core.now();
    let (open, parts, close): (String, Vec<Bytes>, &str) = match accepted.view {
        View::Whole => {
            (format!("{},\"items\":[", head(resource.list_kind(), &resource.api_version())), listed.items, "]}\n")
        }
        View::Metadata => {
            let mut parts = Vec::with_capacity(listed.items.len());
            for bytes in &listed.items {
                parts.push(Bytes::from(metadata_only(&parse(bytes)?).to_string()));
            }
            (format!("{},\"items\":[", head("PartialObjectMetadataList", "meta.k8s.io/v1")), parts, "]}\n")
        }
        View::Table => {
            let include = include(query);
            let mut parts = Vec::with_capacity(listed.items.len());
            for bytes in &listed.items {
                parts.push(Bytes::from(row(resource, &parse(bytes)?, include, now).to_string()));
            }
            let open =
                format!("{},\"columnDefinitions\":{},\"rows\":[", head("Table", "meta.k8s.io/v1"), columns(resource));
            (open, parts, "]}\n")
        }
    };
    let list = List::new(open, parts, close);
    match accepted.encoding {
        Encoding::Json => Ok(respond::json(200, Body::List(list))),
        Encoding::Yaml => Ok(respond::value(200, Encoding::Yaml, &parse(&list.into_bytes())?)),
    }
}

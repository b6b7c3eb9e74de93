//! OpenAPI version 2, for tools that read no other. Definitions are complete; paths say which kind each method is about.

use super::schemas::{self, Dialect};
use super::{KUBERNETES_VERSION, paths};
use crate::registry::{Registry, Resource};
use serde_json::{Map, Value, json};

/// `GET /openapi/v2` as JSON. Clients that accept nothing but protobuf are to be answered 406.
pub fn document(registry: &Registry) -> Value {
    let resources: Vec<&Resource> = registry.iter().map(|resource| &**resource).collect();
    let mut all = Map::new();
    for resource in &resources {
        paths::add(resource, &mut all);
    }
    for path in all.values_mut().filter_map(Value::as_object_mut) {
        path.values_mut().for_each(downgrade);
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": all,
        "definitions": schemas::components(&resources, Dialect::V2),
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}},
    })
}

/// Turns an operation, or the list of common parameters, of version 3 into one of version 2.
fn downgrade(value: &mut Value) {
    if let Value::Array(parameters) = value {
        parameters.iter_mut().for_each(parameter);
        return;
    }
    let Some(operation) = value.as_object_mut() else { return };
    let body = operation.remove("requestBody");
    if let Some(Value::Array(parameters)) = operation.get_mut("parameters") {
        parameters.iter_mut().for_each(parameter);
        if let Some(body) = body {
            let schema =
                body["content"].as_object().and_then(|map| map.values().next()).map(|kind| renamed(&kind["schema"]));
            parameters.push(json!({"name": "body", "in": "body", "required": body["required"], "schema": schema}));
        }
    }
    for response in
        operation.get_mut("responses").and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut())
    {
        let Some(map) = response.as_object_mut() else { continue };
        if let Some(schema) = map
            .remove("content")
            .map(|content| renamed(&content["application/json"]["schema"]))
            .filter(|schema| !schema.is_null())
        {
            map.insert("schema".to_owned(), schema);
        }
    }
    operation.insert("consumes".to_owned(), json!(["*/*"]));
    operation.insert("produces".to_owned(), json!(["application/json", "application/yaml"]));
}

fn parameter(value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    if let Some(Value::Object(schema)) = map.remove("schema") {
        map.extend(schema);
    }
}

fn renamed(schema: &Value) -> Value {
    match schema["$ref"].as_str() {
        Some(reference) => json!({"$ref": reference.replacen("#/components/schemas/", "#/definitions/", 1)}),
        None => Value::Null,
    }
}

//! Paths and operations of resources.

use super::schemas::{list_name_of, name_of};
use crate::codec::Kind;
use crate::registry::{Resource, Subresource};
use serde_json::{Map, Value, json};

/// Name of the schema of a subresource's kind; options that travel in the query have none.
pub(super) fn kind_name(group: &str, version: &str, kind: &str) -> Option<String> {
    Kind::builtin(group, version, kind).map(|kind| kind.schema.type_name().to_owned())
}

/// Adds a resource's paths.
pub(super) fn add(resource: &Resource, paths: &mut Map<String, Value>) {
    let base = format!("/{}", super::path_of(resource.group(), resource.version()));
    let plural = resource.plural();
    if resource.namespaced() {
        if resource.allows("list") {
            paths.insert(format!("{base}/{plural}"), collection(resource, &["list"], false));
        }
        let scoped = format!("{base}/namespaces/{{namespace}}/{plural}");
        objects(resource, &scoped, paths);
    } else {
        objects(resource, &format!("{base}/{plural}"), paths);
    }
}

fn objects(resource: &Resource, path: &str, paths: &mut Map<String, Value>) {
    paths.insert(path.to_owned(), collection(resource, resource.verbs(), resource.namespaced()));
    if resource.allows("get") {
        paths.insert(format!("{path}/{{name}}"), item(resource));
    }
    for sub in resource.subresources() {
        paths.insert(format!("{path}/{{name}}/{}", sub.name), subresource(resource, sub));
    }
}

fn common(namespaced: bool, named: bool) -> Vec<Value> {
    let mut out = Vec::new();
    let mut path = |name: &str, description: &str| {
        out.push(json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string", "uniqueItems": true}}));
    };
    if named {
        path("name", "name of the object");
    }
    if namespaced {
        path("namespace", "object name and auth scope, such as for teams and projects");
    }
    out.push(query("pretty", "string", "If 'true', then the output is pretty printed."));
    out
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

fn list_parameters() -> Vec<Value> {
    vec![
        query("allowWatchBookmarks", "boolean", "Asks for BOOKMARK events in a watch."),
        query("continue", "string", "Where the next page begins, as the page before said."),
        query("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields."),
        query("labelSelector", "string", "A selector to restrict the list of returned objects by their labels."),
        query("limit", "integer", "The greatest number of objects in an answer."),
        query("resourceVersion", "string", "The revision that the answer must at least be of."),
        query("resourceVersionMatch", "string", "How resourceVersion is meant: NotOlderThan or Exact."),
        query("sendInitialEvents", "boolean", "Begins a watch with the objects that exist."),
        query("timeoutSeconds", "integer", "How long a watch lasts."),
        query("watch", "boolean", "Watch for changes and return them as a stream."),
    ]
}

fn write_parameters(verb: &str) -> Vec<Value> {
    let mut out = vec![
        query("dryRun", "string", "With All, nothing is persisted."),
        query("fieldManager", "string", "Name of the actor that makes the change."),
        query("fieldValidation", "string", "What to do with unknown and duplicate fields: Ignore, Warn or Strict."),
    ];
    if verb == "patch" {
        out.push(query("force", "boolean", "Takes fields over from other managers. Only for apply patches."));
    }
    out
}

fn delete_parameters() -> Vec<Value> {
    vec![
        query("dryRun", "string", "With All, nothing is persisted."),
        query("gracePeriodSeconds", "integer", "Seconds before the object is gone."),
        query("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
        query("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
    ]
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// One operation.
struct Operation<'a> {
    resource: &'a Resource,
    /// Method of HTTP.
    method: &'static str,
    /// `x-kubernetes-action`.
    action: &'static str,
    /// Group, version and kind that it is about.
    gvk: (&'a str, &'a str, &'a str),
    id: String,
    body: Option<String>,
    answer: Option<String>,
    parameters: Vec<Value>,
}

impl Operation<'_> {
    fn add(self, out: &mut Map<String, Value>) {
        let (group, version, kind) = self.gvk;
        let content = |name: &str| {
            let schema = json!({"schema": reference(name)});
            json!({"application/json": schema, "application/yaml": schema})
        };
        let mut ok = json!({"description": "OK"});
        if let Some(answer) = &self.answer {
            ok["content"] = content(answer);
        }
        let mut responses = json!({"200": ok, "401": {"description": "Unauthorized"}});
        if matches!(self.action, "post" | "put" | "patch") {
            responses["201"] = json!({"description": "Created", "content": ok["content"]});
        }
        let mut value = json!({
            "operationId": self.id,
            "tags": [tag(self.resource)],
            "description": format!("{} {}", self.action, kind),
            "parameters": self.parameters,
            "responses": responses,
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        if let Some(body) = &self.body {
            let content = if self.action == "patch" {
                patch_content(self.resource)
            } else {
                json!({"*/*": {"schema": reference(body)}})
            };
            value["requestBody"] = json!({"content": content, "required": self.action != "delete"});
        }
        out.insert(self.method.to_owned(), value);
    }
}

fn patch_content(resource: &Resource) -> Value {
    let schema = json!({"schema": reference("io.k8s.apimachinery.pkg.apis.meta.v1.Patch")});
    let mut out = Map::new();
    for kind in [
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ] {
        // Custom resources have no strategic merge patch: their schema has no merge keys.
        if resource.is_kubernetes_own() || !kind.contains("strategic") {
            out.insert(kind.to_owned(), schema.clone());
        }
    }
    Value::Object(out)
}

/// `apps_v1`, `core_v1`, as Kubernetes tags operations.
fn tag(resource: &Resource) -> String {
    let group = if resource.group().is_empty() {
        "core"
    } else {
        resource.group().trim_end_matches(".k8s.io").trim_end_matches(".authorization")
    };
    format!("{}_{}", camel(group, false), resource.version())
}

fn camel(text: &str, first: bool) -> String {
    let mut up = first;
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, '.' | '-' | '/') {
            up = true;
        } else if up {
            out.extend(c.to_uppercase());
            up = false;
        } else {
            out.push(c);
        }
    }
    out
}

fn id(resource: &Resource, verb: &str, rest: &str) -> String {
    let scope = if resource.namespaced() { "Namespaced" } else { "" };
    let tag = tag(resource);
    format!("{verb}{}{scope}{rest}", camel(&tag.replace('_', "."), true))
}

fn gvk(resource: &Resource) -> (&str, &str, &str) {
    (resource.group(), resource.version(), resource.kind())
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

fn collection(resource: &Resource, verbs: &[&str], namespaced: bool) -> Value {
    let mut out = Map::new();
    let kind = resource.kind();
    let all = if resource.namespaced() && !namespaced { format!("{kind}ForAllNamespaces") } else { kind.to_owned() };
    let operation = |method, action, id, body, answer, parameters| Operation {
        resource,
        method,
        action,
        gvk: gvk(resource),
        id,
        body,
        answer,
        parameters,
    };
    if verbs.contains(&"list") {
        operation("get", "list", id(resource, "list", &all), None, Some(list_name_of(resource)), list_parameters())
            .add(&mut out);
    }
    if verbs.contains(&"create") {
        let own = name_of(resource);
        operation("post", "post", id(resource, "create", kind), Some(own.clone()), Some(own), write_parameters("post"))
            .add(&mut out);
    }
    if verbs.contains(&"deletecollection") {
        let parameters = [list_parameters(), delete_parameters()].concat();
        let (body, answer) = (Some(format!("{META}.DeleteOptions")), Some(format!("{META}.Status")));
        let id = id(resource, "delete", &format!("Collection{kind}"));
        operation("delete", "deletecollection", id, body, answer, parameters).add(&mut out);
    }
    out.insert("parameters".to_owned(), Value::Array(common(namespaced, false)));
    Value::Object(out)
}

fn item(resource: &Resource) -> Value {
    let mut out = Map::new();
    let own = name_of(resource);
    for (verb, method, action) in
        [("get", "get", "get"), ("update", "put", "put"), ("patch", "patch", "patch"), ("delete", "delete", "delete")]
    {
        if !resource.allows(verb) {
            continue;
        }
        let prefix = match verb {
            "get" => "read",
            "update" => "replace",
            other => other,
        };
        let (body, answer, parameters) = match verb {
            "get" => (None, own.clone(), Vec::new()),
            "delete" => (Some(format!("{META}.DeleteOptions")), format!("{META}.Status"), delete_parameters()),
            _ => (Some(own.clone()), own.clone(), write_parameters(action)),
        };
        let id = id(resource, prefix, resource.kind());
        Operation { resource, method, action, gvk: gvk(resource), id, body, answer: Some(answer), parameters }
            .add(&mut out);
    }
    out.insert("parameters".to_owned(), Value::Array(common(resource.namespaced(), true)));
    Value::Object(out)
}

fn subresource(resource: &Resource, sub: &Subresource) -> Value {
    let mut out = Map::new();
    let parents_kind =
        sub.group == resource.group() && sub.version == resource.version() && sub.kind == resource.kind();
    let name = if parents_kind { Some(name_of(resource)) } else { kind_name(&sub.group, &sub.version, &sub.kind) };
    for verb in sub.verbs {
        let (method, action) = match *verb {
            "get" => ("get", "get"),
            "create" => ("post", "post"),
            "update" => ("put", "put"),
            "patch" => ("patch", "patch"),
            _ => ("delete", "delete"),
        };
        let connects = matches!(sub.name, "exec" | "attach" | "portforward" | "proxy");
        let action = if connects { "connect" } else { action };
        let text = sub.name == "log" || connects;
        let (body, answer) = if text { (None, None) } else { (name.clone().filter(|_| *verb != "get"), name.clone()) };
        let parameters = if matches!(*verb, "get" | "delete") { Vec::new() } else { write_parameters(action) };
        let id = format!("{}{}", id(resource, verb, resource.kind()), camel(sub.name, true));
        let gvk = (sub.group.as_ref(), sub.version.as_ref(), sub.kind.as_ref());
        Operation { resource, method, action, gvk, id, body, answer, parameters }.add(&mut out);
    }
    out.insert("parameters".to_owned(), Value::Array(common(resource.namespaced(), true)));
    Value::Object(out)
}

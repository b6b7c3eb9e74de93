//! OpenAPI documents, made when they are asked for: version 3 for each group version, and version 2 for all of them.
//!
//! kubectl reads them for `explain`, for the merge keys of client-side apply, and to learn that PATCH has a `fieldValidation`
//! parameter. A document of the core group is about a megabyte, so whoever serves it keeps the bytes or makes them again.

mod paths;
mod schemas;
mod v2;

pub use v2::document as v2;

use crate::registry::{Registry, Resource};
use serde_json::{Map, Value, json};

/// What `info.version` says.
pub const KUBERNETES_VERSION: &str = "v1.37.0";

/// `api/v1`, `apis/apps/v1`: the key of a group version in the index.
pub fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Group and version of such a key.
pub fn parse_path(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.trim_matches('/').split('/');
    let found = match (parts.next()?, parts.next()?, parts.next()) {
        ("api", version, None) => ("", version),
        ("apis", group, Some(version)) => (group, version),
        _ => return None,
    };
    parts.next().is_none().then_some(found)
}

/// `GET /openapi/v3`: where each group version's document is. The hash in a URL changes when the document does, so that an
/// answer to a URL with its hash may be cached for good.
pub fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for group in registry.groups() {
        for version in &group.versions {
            let path = path_of(&group.name, &version.name);
            let hash = hash(registry, &group.name, &version.name);
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
        }
    }
    json!({ "paths": paths })
}

/// Hash of a group version's document, without making the document.
pub fn hash(registry: &Registry, group: &str, version: &str) -> String {
    let mut sum = Fnv::new();
    for resource in resources(registry, group, version) {
        sum.add(resource.plural().as_bytes());
        sum.add(&resource.fingerprint().to_le_bytes());
    }
    format!("{:016X}", sum.0)
}

/// `GET /openapi/v3/<path>`.
pub fn v3(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let resources: Vec<&Resource> = resources(registry, group, version).collect();
    if resources.is_empty() {
        return None;
    }
    let mut all = Map::new();
    for resource in &resources {
        paths::add(resource, &mut all);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": all,
        "components": {
            "schemas": schemas::components(&resources, schemas::Dialect::V3),
            "securitySchemes": {"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}},
        },
    }))
}

fn resources<'r>(registry: &'r Registry, group: &str, version: &str) -> impl Iterator<Item = &'r Resource> {
    let versions = registry.group(group).map(|group| &group.versions[..]).unwrap_or_default();
    let found = versions.iter().find(|v| v.name == version).map(|v| &v.resources[..]).unwrap_or_default();
    found.iter().map(|resource| &**resource)
}

/// FNV-1a: short, stable between runs and machines, and no secret hangs on it.
pub(crate) struct Fnv(pub(crate) u64);

impl Fnv {
    pub(crate) fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|child| references(child, found));
            }
            Value::Array(items) => items.iter().for_each(|child| references(child, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_of_every_document_resolves() {
        let registry = Registry::builtin();
        for group in registry.groups() {
            for version in &group.versions {
                let document = v3(&registry, &group.name, &version.name).unwrap();
                let mut found = Vec::new();
                references(&document, &mut found);
                assert!(!found.is_empty());
                for reference in found {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{}/{}: {reference}", group.name, version.name);
                }
            }
        }
    }

    #[test]
    fn the_second_version_resolves_too() {
        let registry = Registry::builtin();
        let document = v2(&registry);
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
        assert_eq!(document["swagger"], "2.0");
    }

    #[test]
    fn kubectl_finds_what_it_looks_for() {
        let registry = Registry::builtin();
        let document = v3(&registry, "apps", "v1").unwrap();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        assert_eq!(patch["x-kubernetes-action"], "patch");
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        assert!(names.contains(&"fieldValidation"), "{names:?}");
        let schemas = &document["components"]["schemas"];
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["items"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
        let route = v3(&registry, "gateway.networking.k8s.io", "v1").unwrap();
        let spec = &route["components"]["schemas"]["io.k8s.networking.gateway.v1.HTTPRoute"]["properties"]["spec"];
        assert_eq!(spec["properties"]["hostnames"]["maxItems"], 16);
        assert_eq!(
            spec["properties"]["rules"]["items"]["properties"]["matches"]["default"],
            json!([{"path": {"type": "PathPrefix", "value": "/"}}])
        );
    }

    #[test]
    fn hashes_change_with_definitions_and_paths_are_read_back() {
        let registry = Registry::builtin();
        assert_eq!(hash(&registry, "apps", "v1"), hash(&Registry::builtin(), "apps", "v1"));
        assert_ne!(hash(&registry, "apps", "v1"), hash(&registry, "batch", "v1"));
        assert_eq!(parse_path("apis/apps/v1"), Some(("apps", "v1")));
        assert_eq!(parse_path("/api/v1"), Some(("", "v1")));
        assert_eq!(parse_path("apis/apps"), None);
        assert!(
            index(&registry)["paths"]["apis/apps/v1"]["serverRelativeURL"]
                .as_str()
                .unwrap()
                .starts_with("/openapi/v3/apis/apps/v1?hash=")
        );
    }
}

//! What clients ask first: which groups, versions and resources there are.

use crate::registry::{Group, Registry, Resource, Subresource, Version, api_version};
use serde_json::{Map, Value, json};

/// Media type of aggregated discovery, as clients ask for it in `Accept`.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether an `Accept` header prefers aggregated discovery. Clients list it first and plain JSON after it.
pub fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').any(|part| {
        let words: Vec<&str> = part.split(';').map(str::trim).collect();
        words.first() == Some(&"application/json")
            && ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"].iter().all(|word| words.contains(word))
    })
}

/// `GET /api`. `server_address` is `host:port`.
pub fn api_versions(registry: &Registry, server_address: &str) -> Value {
    let versions: Vec<&str> =
        registry.group("").into_iter().flat_map(|group| &group.versions).map(|v| v.name.as_ref()).collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `GET /apis`.
pub fn api_groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = registry.groups().iter().filter(|group| !group.name.is_empty()).map(group_value).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/<group>`.
pub fn api_group(registry: &Registry, name: &str) -> Option<Value> {
    let mut value = group_value(registry.group(name)?);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

fn group_value(group: &Group) -> Value {
    let version =
        |version: &Version| json!({"groupVersion": api_version(&group.name, &version.name), "version": version.name});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({"name": group.name, "preferredVersion": versions.first(), "versions": versions})
}

/// `GET /api/v1` and `GET /apis/<group>/<version>`.
pub fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let found = registry.group(group)?.versions.iter().find(|v| v.name == version)?;
    let mut out = Vec::new();
    for resource in &found.resources {
        out.push(resource_value(resource));
        out.extend(resource.subresources().iter().map(|sub| subresource_value(resource, sub)));
    }
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": out}),
    )
}

fn put_texts<'a>(map: &mut Value, key: &str, texts: impl ExactSizeIterator<Item = &'a str>) {
    if texts.len() > 0 {
        map[key] = texts.collect();
    }
}

fn resource_value(resource: &Resource) -> Value {
    let mut value = json!({
        "name": resource.plural(), "singularName": resource.singular(), "namespaced": resource.namespaced(),
        "kind": resource.kind(), "verbs": resource.verbs(),
    });
    put_texts(&mut value, "shortNames", resource.short_names());
    put_texts(&mut value, "categories", resource.categories());
    value
}

fn subresource_value(resource: &Resource, sub: &Subresource) -> Value {
    let mut value = json!({
        "name": format!("{}/{}", resource.plural(), sub.name), "singularName": "", "namespaced": resource.namespaced(),
        "kind": sub.kind, "verbs": sub.verbs,
    });
    if sub.group != resource.group() || sub.version != resource.version() {
        value["group"] = sub.group.clone().into_owned().into();
        value["version"] = sub.version.clone().into_owned().into();
    }
    value
}

/// `GET /api` (`core`) or `GET /apis` as one `apidiscovery.k8s.io/v2` document.
pub fn aggregated(registry: &Registry, core: bool) -> Value {
    let items: Vec<Value> =
        registry.groups().iter().filter(|group| group.name.is_empty() == core).map(aggregated_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> =
                version.resources.iter().map(|resource| aggregated_resource(resource)).collect();
            json!({"version": version.name, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let mut metadata = Map::new();
    if !group.name.is_empty() {
        metadata.insert("name".to_owned(), group.name.clone().into_owned().into());
    }
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut value = json!({
        "resource": resource.plural(),
        "responseKind": {"group": resource.group(), "version": resource.version(), "kind": resource.kind()},
        "scope": if resource.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular(),
        "verbs": resource.verbs(),
    });
    put_texts(&mut value, "shortNames", resource.short_names());
    put_texts(&mut value, "categories", resource.categories());
    let subresource = |sub: &Subresource| {
        json!({
            "subresource": sub.name, "verbs": sub.verbs,
            "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
        })
    };
    if !resource.subresources().is_empty() {
        value["subresources"] = resource.subresources().iter().map(subresource).collect();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn clients_ask_for_aggregated_discovery_among_other_types() {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert!(wants_aggregated(accept));
        assert!(!wants_aggregated("application/json"));
        assert!(!wants_aggregated("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"));
    }

    #[test]
    fn what_is_served_is_a_table_that_changes_on_purpose() {
        let registry = Registry::builtin();
        let mut out = String::new();
        for resource in registry.iter() {
            let subresources: Vec<&str> = resource.subresources().iter().map(|sub| sub.name).collect();
            let short: Vec<&str> = resource.short_names().collect();
            let scope = if resource.namespaced() { "namespaced" } else { "cluster" };
            let _ = writeln!(
                out,
                "{} {} {} {scope} [{}] [{}] <{}>",
                resource.api_version(),
                resource.plural(),
                resource.kind(),
                short.join(","),
                subresources.join(","),
                resource.stored().key
            );
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/resources.txt");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(path, &out).unwrap();
        }
        let wanted = std::fs::read_to_string(path).unwrap();
        assert_eq!(out, wanted, "what is served changed; UPDATE_SNAPSHOTS=1 accepts it");
    }

    #[test]
    fn plain_and_aggregated_discovery_say_the_same() {
        let registry = Registry::builtin();
        let groups = api_groups(&registry);
        assert_eq!(groups["groups"][1]["name"], "apps");
        let autoscaling = api_group(&registry, "autoscaling").unwrap();
        assert_eq!(autoscaling["preferredVersion"]["groupVersion"], "autoscaling/v2");
        assert_eq!(api_versions(&registry, "h:6443")["versions"], json!(["v1"]));
        let mut aggregated_names = Vec::new();
        for core in [true, false] {
            for group in aggregated(&registry, core)["items"].as_array().unwrap() {
                let name = group["metadata"].get("name").and_then(Value::as_str).unwrap_or_default();
                for version in group["versions"].as_array().unwrap() {
                    for resource in version["resources"].as_array().unwrap() {
                        let base = format!(
                            "{name}/{}/{}",
                            version["version"].as_str().unwrap(),
                            resource["resource"].as_str().unwrap()
                        );
                        let subs = resource["subresources"].as_array().cloned().unwrap_or_default();
                        aggregated_names
                            .extend(subs.iter().map(|sub| format!("{base}/{}", sub["subresource"].as_str().unwrap())));
                        aggregated_names.push(base);
                    }
                }
            }
        }
        let mut plain_names = Vec::new();
        for group in registry.groups() {
            for version in &group.versions {
                let list = resources(&registry, &group.name, &version.name).unwrap();
                let names = list["resources"].as_array().unwrap().iter();
                plain_names
                    .extend(names.map(|r| format!("{}/{}/{}", group.name, version.name, r["name"].as_str().unwrap())));
            }
        }
        plain_names.sort();
        aggregated_names.sort();
        assert_eq!(plain_names, aggregated_names);
        assert!(resources(&registry, "apps", "v0").is_none());
    }
}

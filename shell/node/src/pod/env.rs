//! A container's environment, and `$(NAME)` in its command and arguments.

use super::resources::resource_field;
use super::spec::{Container, EnvVar, FieldRef, Pod, ResourceFieldRef};
use crate::refs::{Lookup, RefError};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Why a container's configuration could not be made; shows as `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Ref(#[from] RefError),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("field label not supported: {0}")]
    Field(String),
    #[error("{0}")]
    Other(String),
}

/// What the node knows of a pod beyond its spec.
#[derive(Clone, Debug)]
pub struct PodFacts {
    pub ips: Vec<IpAddr>,
    pub node_name: String,
    pub node_ip: IpAddr,
    /// milli-CPU and bytes of the node.
    pub allocatable: (i64, i64),
}

/// The environment in order, later names replacing earlier ones.
///
/// # Errors
/// Something that is not optional is not there.
pub async fn environment(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    lookup: &dyn Lookup,
) -> Result<Vec<(String, String)>, ConfigError> {
    let namespace = &pod.metadata.namespace;
    let mut env: Vec<(String, String)> = Vec::new();
    for source in &container.env_from {
        for (kind, reference) in [("configmap", &source.config_map_ref), ("secret", &source.secret_ref)] {
            let Some(reference) = reference else { continue };
            let data = match lookup.data(kind, namespace, &reference.name).await {
                Err(RefError::NotFound { .. }) if reference.optional => continue,
                other => other?,
            };
            for (key, value) in data.iter() {
                // Keys that cannot be a variable's name are skipped, as Kubernetes does.
                if let Ok(value) = std::str::from_utf8(value)
                    && !key.is_empty()
                    && !key.contains('=')
                {
                    set(&mut env, format!("{}{key}", source.prefix), value.to_owned());
                }
            }
        }
    }
    for variable in &container.env {
        if let Some(value) = value_of(pod, container, variable, facts, lookup, &env).await? {
            set(&mut env, variable.name.clone(), value);
        }
    }
    Ok(env)
}

fn set(env: &mut Vec<(String, String)>, name: String, value: String) {
    env.retain(|(old, _)| *old != name);
    env.push((name, value));
}

async fn value_of(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    facts: &PodFacts,
    lookup: &dyn Lookup,
    env: &[(String, String)],
) -> Result<Option<String>, ConfigError> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(&variable.value, env)));
    };
    if let Some(field) = &source.field_ref {
        return field_value(pod, field, facts).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(pod, Some(container), resource, facts).map(Some);
    }
    let namespace = &pod.metadata.namespace;
    for (kind, shown, reference) in
        [("configmap", "ConfigMap", &source.config_map_key_ref), ("secret", "Secret", &source.secret_key_ref)]
    {
        let Some(reference) = reference else { continue };
        let data = match lookup.data(kind, namespace, &reference.name).await {
            Err(RefError::NotFound { .. }) if reference.optional => return Ok(None),
            other => other?,
        };
        return match data.get(&reference.key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if reference.optional => Ok(None),
            None => Err(ConfigError::NoKey {
                kind: shown,
                namespace: namespace.clone(),
                name: reference.name.clone(),
                key: reference.key.clone(),
            }),
        };
    }
    Ok(None)
}

/// A resource of this or a named container.
pub fn resource_value(
    pod: &Pod,
    container: Option<&Container>,
    field: &ResourceFieldRef,
    facts: &PodFacts,
) -> Result<String, ConfigError> {
    let named = pod.all_containers().find(|c| c.name == field.container_name);
    let container = named
        .or(container)
        .ok_or_else(|| ConfigError::Other(format!("container {} not found", field.container_name)))?;
    let divisor = field.divisor.as_ref().map_or("1", |text| text.0.as_str());
    let divisor = if divisor == "0" { "1" } else { divisor };
    resource_field(container, &field.resource, divisor, facts.allocatable)
        .ok_or_else(|| ConfigError::Other(format!("unsupported container resource : {}", field.resource)))
}

/// A field of the pod (`fieldRef`).
///
/// # Errors
/// Kubernetes offers no such field.
pub fn field_value(pod: &Pod, field: &FieldRef, facts: &PodFacts) -> Result<String, ConfigError> {
    let meta = &pod.metadata;
    let path = field.field_path.as_str();
    let joined = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(ConfigError::Field(path.to_owned())),
        };
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" | "status.hostIPs" => facts.node_ip.to_string(),
        "status.podIP" if pod.host_network() => facts.node_ip.to_string(),
        "status.podIPs" if pod.host_network() => facts.node_ip.to_string(),
        "status.podIP" => facts.ips.first().map(ToString::to_string).unwrap_or_default(),
        "status.podIPs" => joined(&facts.ips),
        _ => return Err(ConfigError::Field(path.to_owned())),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"`, sorted, one a line: the downward API's form of a map.
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar sign, and a name that is not there stays as it is written.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            match env.iter().find(|(key, _)| key == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_kubernetes_does() {
        let env = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())];
        for (text, expect) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(C)", "$(C)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("a$$b", "a$b"),
        ] {
            assert_eq!(expand(text, &env), expect, "{text}");
        }
    }

    #[test]
    fn fields_are_found_by_path() {
        let pod = Pod::from_json(br#"{"metadata":{"name":"p","labels":{"b":"2","a":"x\"y"}}}"#).unwrap();
        let facts = PodFacts {
            ips: vec![[10, 0, 0, 1].into()],
            node_name: "n".into(),
            node_ip: [1, 2, 3, 4].into(),
            allocatable: (0, 0),
        };
        let read = |path: &str| field_value(&pod, &FieldRef { field_path: path.into() }, &facts);
        assert_eq!(read("metadata.labels").unwrap(), "a=\"x\\\"y\"\nb=\"2\"");
        assert_eq!(read("metadata.labels['b']").unwrap(), "2");
        assert_eq!(read("metadata.annotations['none']").unwrap(), "");
        assert_eq!(read("status.podIP").unwrap(), "10.0.0.1");
        assert_eq!(read("status.phase"), Err(ConfigError::Field("status.phase".into())));
    }
}

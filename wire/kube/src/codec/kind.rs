use super::DecodeError;
use crate::crd::CustomVersion;
use crate::registry::{Resource, api_version};
use crate::schema::{Schema, builtin};
use serde_json::Value;

/// What a request's body is to be.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    /// Group; empty for core.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Form.
    pub schema: Schema<'a>,
    /// The definition, for custom resources.
    pub custom: Option<&'a CustomVersion>,
}

/// Package of the OpenAPI name of a group-version's types.
fn package(group: &str, version: &str) -> String {
    match group {
        "" => format!("io.k8s.api.core.{version}"),
        "apiextensions.k8s.io" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}"),
        "apiregistration.k8s.io" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}"),
        "metrics.k8s.io" => format!("io.k8s.metrics.pkg.apis.metrics.{version}"),
        "meta.k8s.io" => format!("io.k8s.apimachinery.pkg.apis.meta.{version}"),
        other => format!("io.k8s.api.{}.{version}", other.split('.').next().unwrap_or_default()),
    }
}

impl<'a> Kind<'a> {
    /// A kind that has a resource of its own.
    pub fn of(resource: &'a Resource) -> Self {
        Kind {
            group: resource.group(),
            version: resource.version(),
            kind: resource.kind(),
            schema: resource.schema(),
            custom: resource.custom(),
        }
    }

    /// A Kubernetes kind by name, whether it has a resource or only a subresource (`Eviction`, `Scale`, `TokenRequest`).
    pub fn builtin(group: &'a str, version: &'a str, kind: &'a str) -> Option<Kind<'a>> {
        let schema = builtin::schema(&format!("{}.{kind}", package(group, version)))?;
        Some(Kind { group, version, kind, schema, custom: None })
    }

    /// Body of a DELETE. Clients stamp it with whatever group they talk to, so its `apiVersion` is not compared.
    pub fn delete_options() -> Kind<'static> {
        Kind::builtin("meta.k8s.io", "v1", "DeleteOptions").expect("a test looks it up")
    }

    /// `apps/v1`, or `v1` for core.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }

    /// Compares the object's `apiVersion` and `kind`, and sets them where they are missing.
    pub(super) fn stamp(&self, mut value: Value) -> Result<Value, DecodeError> {
        let wanted = self.api_version();
        let Some(map) = value.as_object_mut() else { return Ok(value) };
        let found = |map: &serde_json::Map<String, Value>, key| {
            map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (version, kind) = (found(map, "apiVersion"), found(map, "kind"));
        let any_version = self.kind == "DeleteOptions";
        if !kind.is_empty() && kind != self.kind {
            let message = format!(
                "{kind:?} in {version:?} is no {:?} in {wanted:?}: the kind in the data does not match the expected kind",
                self.kind
            );
            return Err(DecodeError::WrongKind(message));
        }
        if !version.is_empty() && version != wanted && !any_version {
            let message =
                format!("the API version in the data ({version}) does not match the expected API version ({wanted})");
            return Err(DecodeError::WrongKind(message));
        }
        map.insert("kind".to_owned(), self.kind.into());
        map.insert("apiVersion".to_owned(), if any_version { "v1".into() } else { wanted.into() });
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_without_a_resource_are_found() {
        for (group, version, kind) in [
            ("policy", "v1", "Eviction"),
            ("autoscaling", "v1", "Scale"),
            ("authentication.k8s.io", "v1", "TokenRequest"),
            ("", "v1", "Binding"),
            ("rbac.authorization.k8s.io", "v1", "Role"),
        ] {
            assert!(Kind::builtin(group, version, kind).is_some(), "{group}/{version} {kind}");
        }
        assert!(Kind::builtin("", "v1", "Nonsense").is_none());
        assert_eq!(Kind::delete_options().kind, "DeleteOptions");
    }
}

//! Label and field selectors of lists and watches, matched against stored bytes.

use kinds::{FieldSelector, Kind};
use kube::{Resource, Status};
use model::Requirement;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a list or watch asks for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    labels: Vec<Requirement>,
    fields: FieldSelector,
}

/// The part of an object that a label selector reads: everything else is skipped, not decoded.
#[derive(Deserialize)]
struct Labelled<'a> {
    #[serde(borrow, default)]
    metadata: LabelledMeta<'a>,
}

#[derive(Default, Deserialize)]
struct LabelledMeta<'a> {
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl Selection {
    /// Parses both selectors. A field that the kind does not offer is refused, as Kubernetes does: silently matching nothing would
    /// look like an empty cluster.
    ///
    /// # Errors
    /// 400 with the term at fault.
    pub fn parse(labels: Option<&str>, fields: Option<&str>, resource: &Resource) -> Result<Selection, Status> {
        let refused = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
        let labels = match labels {
            None => Vec::new(),
            Some(text) => {
                let parsed = kinds::selector::parse(text);
                parsed.map_err(|error| refused(&format!("unable to parse requirement: {error}")))?.requirements
            }
        };
        let fields = fields.unwrap_or_default();
        let custom = if fields.is_empty() { None } else { resource.custom() };
        let known = custom.map(kube::crd::CustomVersion::selectable_fields).unwrap_or_default();
        let behaviour = crate::form::behaviour(resource);
        let fields = FieldSelector::parse(fields, behaviour, known).map_err(|error| refused(&error))?;
        Ok(Selection { labels, fields })
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can match, if a field selector pins it.
    pub fn name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }

    /// The one namespace that can match.
    pub fn namespace(&self) -> Option<&str> {
        self.fields.required("metadata.namespace")
    }

    /// Whether a stored object is selected. Labels are looked at first, without decoding the rest.
    pub fn matches(&self, bytes: &[u8], kind: &dyn Kind) -> bool {
        if !self.labels.is_empty() {
            let Ok(object) = serde_json::from_slice::<Labelled<'_>>(bytes) else { return false };
            let labels = object.metadata.labels.unwrap_or_default();
            let value = |key: &str| labels.get(key).map(|value| &**value);
            if !self.labels.iter().all(|requirement| requirement.matches_value(value(&requirement.key))) {
                return false;
            }
        }
        self.fields.is_empty()
            || serde_json::from_slice::<Value>(bytes).is_ok_and(|object| self.fields.matches(kind, &object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::Registry;

    #[track_caller]
    fn check(labels: &str, fields: &str, expect: bool) {
        let object = br#"{"metadata":{"name":"p","labels":{"app":"a\"b","tier":"x"}},"spec":{"nodeName":"n1"}}"#;
        let registry = Registry::builtin();
        let pods = registry.resource("", "v1", "pods").unwrap();
        let selection = Selection::parse(Some(labels), Some(fields), pods).unwrap();
        assert_eq!(selection.matches(object, crate::form::behaviour(pods)), expect);
    }

    #[test]
    fn matching() {
        check("", "", true);
        check("tier=x", "", true);
        check("tier!=x", "", false);
        check("tier in (y, x),!gone", "", true);
        check("gone", "", false);
        check("", "spec.nodeName=n1", true);
        check("", "spec.nodeName!=n1", false);
        check("", "spec.nodeName=n1,metadata.name==p", true);
        check("tier=x", "metadata.name=q", false);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let registry = Registry::builtin();
        let pods = registry.resource("", "v1", "pods").unwrap();
        assert_eq!(Selection::parse(None, Some("spec.x=1"), pods).unwrap_err().code, 400);
        assert!(Selection::parse(Some("a b"), None, pods).is_err());
    }
}

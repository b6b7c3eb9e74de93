//! `metadata`, which all kinds share.

use crate::behaviour::METADATA;
use crate::cause::{Causes, Path};
use crate::json::{list, members, text};
use crate::names::{self, NameRule};
use serde_json::Value;

const ANNOTATIONS_LIMIT_BYTES: usize = 256 * 1024;

/// Checks the metadata of an object that is to be created.
pub fn check(meta: &Value, rule: NameRule, causes: &mut Causes) {
    let name = text(&meta["name"]);
    let prefix = text(&meta["generateName"]);
    if !prefix.is_empty() {
        // A prefix may end where a whole name may not: `web-` is a fine prefix.
        causes.invalid_each(
            &METADATA.child("generateName"),
            prefix,
            rule.check(&format!("{}a", prefix.trim_end_matches('-'))),
        );
    }
    if name.is_empty() {
        causes.required(&METADATA.child("name"), "name or generateName is required");
    } else {
        causes.invalid_each(&METADATA.child("name"), name, rule.check(name));
    }
    let namespace = text(&meta["namespace"]);
    if !namespace.is_empty() {
        causes.invalid_each(&METADATA.child("namespace"), namespace, names::label(namespace));
    }
    common(meta, causes);
    check_finalizers(meta, causes);
}

/// Checks the metadata of an update. What the server carries over from `old` cannot differ here any more.
pub fn check_change(new: &Value, old: &Value, causes: &mut Causes) {
    if !old["deletionTimestamp"].is_null() {
        let before: Vec<&str> = list(&old["finalizers"]).iter().map(text).collect();
        let mut added: Vec<&str> =
            list(&new["finalizers"]).iter().map(text).filter(|name| !before.contains(name)).collect();
        added.sort_unstable();
        if !added.is_empty() {
            let listed: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                listed.join(", ")
            );
            causes.forbidden(&METADATA.child("finalizers"), detail);
        }
    }
    for key in ["name", "namespace", "uid"] {
        causes.immutable(&METADATA.child(key), &new[key], &old[key]);
    }
    common(new, causes);
    check_finalizers(new, causes);
}

fn common(meta: &Value, causes: &mut Causes) {
    labels(&meta["labels"], &METADATA.child("labels"), causes);
    annotations(&meta["annotations"], &METADATA.child("annotations"), causes);
    let owners = METADATA.child("ownerReferences");
    let mut controller: Option<String> = None;
    for (index, owner) in list(&meta["ownerReferences"]).iter().enumerate() {
        let path = owners.index(index);
        for key in ["apiVersion", "kind", "name", "uid"] {
            if text(&owner[key]).is_empty() {
                causes.required(&path.child(key), "must not be empty");
            }
        }
        if owner["apiVersion"] == "v1" && owner["kind"] == "Event" {
            causes.invalid(&path, owner.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner["controller"] == true {
            let this = format!("{}/{}", text(&owner["kind"]), text(&owner["name"]));
            if let Some(first) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                causes.invalid(&owners, meta["ownerReferences"].clone(), detail);
            } else {
                controller = Some(this);
            }
        }
    }
}

fn check_finalizers(meta: &Value, causes: &mut Causes) {
    let path = METADATA.child("finalizers");
    let finalizers: Vec<&str> = list(&meta["finalizers"]).iter().map(text).collect();
    for (index, name) in finalizers.iter().enumerate() {
        causes.invalid_each(&path, name, names::qualified(name));
        // Kubernetes' own finalizers are the only ones without a domain; the last is what the server puts on definitions.
        const STANDARD: [&str; 4] =
            ["orphan", "foregroundDeletion", "kubernetes", "customresourcecleanup.apiextensions.k8s.io"];
        if !name.contains('/') && !STANDARD.contains(name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            causes.invalid(&path.index(index), *name, detail);
        }
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        causes.invalid(&path, meta["finalizers"].clone(), "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// Checks a map of labels.
pub fn labels(labels: &Value, path: &Path<'_>, causes: &mut Causes) {
    for (key, value) in members(labels) {
        causes.invalid_each(path, key, names::qualified(key));
        causes.invalid_each(path, text(value), names::label_value(text(value)));
    }
}

/// Checks a map of annotations.
pub fn annotations(annotations: &Value, path: &Path<'_>, causes: &mut Causes) {
    let mut size = 0;
    for (key, value) in members(annotations) {
        causes.invalid_each(path, key, names::qualified(&key.to_ascii_lowercase()));
        size += key.len() + text(value).len();
    }
    if size > ANNOTATIONS_LIMIT_BYTES {
        causes.too_long(path, ANNOTATIONS_LIMIT_BYTES);
    }
}

/// Checks a `metav1.LabelSelector`.
pub fn label_selector(selector: &Value, path: &Path<'_>, causes: &mut Causes) {
    labels(&selector["matchLabels"], &path.child("matchLabels"), causes);
    let expressions = path.child("matchExpressions");
    for (index, expression) in list(&selector["matchExpressions"]).iter().enumerate() {
        let path = expressions.index(index);
        let values = list(&expression["values"]);
        match text(&expression["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                causes.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                causes.forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "Exists" | "DoesNotExist" => {}
            other => causes.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        let key = text(&expression["key"]);
        causes.invalid_each(&path.child("key"), key, names::qualified(key));
        for (at, value) in values.iter().enumerate() {
            causes.invalid_each(&path.child("values").index(at), text(value), names::label_value(text(value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(meta: Value) -> Vec<String> {
        let mut causes = Causes::default();
        check(&meta, NameRule::Subdomain, &mut causes);
        causes.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn create() {
        assert_eq!(
            found(json!({"name": "a", "namespace": "b", "labels": {"app": "x"}, "generateName": "a-"})),
            [""; 0]
        );
        assert_eq!(found(json!({})), ["metadata.name: Required value: name or generateName is required"]);
        assert!(
            found(json!({"name": "A_b"}))[0]
                .starts_with("metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain")
        );
        assert!(
            found(json!({"name": "a", "labels": {"x": "-"}}))[0]
                .starts_with("metadata.labels: Invalid value: \"-\": a valid label must")
        );
        assert_eq!(found(json!({"name": "a", "annotations": {"UPPER.example.com/Key": "anything goes: ä"}})), [""; 0]);
        assert_eq!(found(json!({"name": "a", "finalizers": ["example.com/x", "foregroundDeletion"]})), [""; 0]);
        assert!(found(json!({"name": "a", "finalizers": ["x"]}))[0].contains("fully qualified"));
    }

    #[test]
    fn update() {
        let old =
            json!({"name": "a", "uid": "1", "deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": ["a.b/c"]});
        let new = json!({"name": "b", "uid": "1", "finalizers": ["a.b/c", "a.b/d"]});
        let mut causes = Causes::default();
        check_change(&new, &old, &mut causes);
        let found: Vec<String> = causes.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers \
                 []string{\"a.b/d\"}",
                "metadata.name: Invalid value: \"b\": field is immutable",
            ]
        );
    }
}

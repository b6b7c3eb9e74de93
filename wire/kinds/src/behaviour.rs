//! What a kind does when its objects are written and read: the trait, and what all kinds have in common.
//!
//! The server's order for a write is `defaults`, `prepare_*`, (admission), `validate_*`, store. All of it works on JSON
//! trees, so that members which this program does not know survive.

use crate::cause::{Causes, Path};
use crate::json::{Members, carry, child, same, text};
use crate::names::NameRule;
use crate::table::{self, Column, Row};
use kube::Cause;
use model::Timestamp;
use serde_json::Value;
use std::borrow::Cow;

/// What the outside world contributes to a write.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The request's time.
    pub now: Timestamp,
    /// The uid that a created object gets.
    pub uid: &'a str,
}

/// When `metadata.generation` is counted up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind has none.
    None,
    /// When `spec` changes.
    Spec,
    /// When `spec` or the annotations change (Deployment).
    SpecAndAnnotations,
    /// When anything but metadata and status changes (custom resources, kinds without a spec).
    Content,
}

/// The facts of a kind that need no code.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Group, `""` for core.
    pub group: &'static str,
    /// Kind, `""` for custom kinds.
    pub kind: &'static str,
    /// Which names are allowed.
    pub name: NameRule,
    /// Whether `status` is written through its own subresource.
    pub status: bool,
    /// Whether labels and annotations may change with the status (Node, Pod).
    pub status_labels: bool,
    /// When the generation is counted up.
    pub generation: Generation,
}

impl Facts {
    /// A kind without status and generation.
    pub const fn plain(group: &'static str, kind: &'static str) -> Facts {
        Facts {
            group,
            kind,
            name: NameRule::Subdomain,
            status: false,
            status_labels: false,
            generation: Generation::None,
        }
    }
    /// A kind with a spec that is counted and a status of its own.
    pub const fn reconciled(group: &'static str, kind: &'static str) -> Facts {
        Facts { status: true, generation: Generation::Spec, ..Facts::plain(group, kind) }
    }
    /// With another rule for names.
    pub const fn named(self, name: NameRule) -> Facts {
        Facts { name, ..self }
    }
    /// With another rule for the generation.
    pub const fn counting(self, generation: Generation) -> Facts {
        Facts { generation, ..self }
    }
    /// With a status subresource.
    pub const fn with_status(self) -> Facts {
        Facts { status: true, ..self }
    }
}

/// A field that a field selector may name.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// As the selector writes it.
    pub path: &'static str,
    /// The text of an absent value: `""`, `"false"` or `"0"`.
    pub zero: &'static str,
}

impl Field {
    /// A text field.
    pub const fn text(path: &'static str) -> Field {
        Field { path, zero: "" }
    }
}

/// Something that only the server can give to an object (it has the allocators).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// A virtual IP for a Service; `requested` is the one that the user wrote.
    ClusterIp {
        /// The user's choice.
        requested: Option<String>,
    },
    /// A node port for port number `index` of a Service.
    NodePort {
        /// Position in `spec.ports`.
        index: usize,
        /// The user's choice.
        requested: Option<u16>,
    },
}

/// What a kind does. Implementations have no state.
pub trait Kind: Send + Sync {
    /// The facts.
    fn facts(&self) -> Facts;

    /// Fills in what the user left out, exactly as Kubernetes 1.37 does. Idempotent.
    fn defaults(&self, _object: &mut Value) {}
    /// The kind's part of `prepare_create`.
    fn adjust_create(&self, _object: &mut Members, _context: &Context<'_>) {}
    /// The kind's part of `prepare_update`.
    fn adjust_update(&self, _new: &mut Members, _old: &Value, _context: &Context<'_>) {}
    /// The kind's part of `prepare_status_update`.
    fn adjust_status(&self, _new: &mut Members, _old: &Value) {}
    /// Checks everything but metadata.
    fn check(&self, _object: &Value, _causes: &mut Causes) {}
    /// Checks what only a new object has to satisfy: rules that came later than objects which are stored.
    fn check_new(&self, _object: &Value, _causes: &mut Causes) {}
    /// Checks what an update may not do.
    fn check_change(&self, _new: &Value, _old: &Value, _causes: &mut Causes) {}
    /// Whether `check` runs on updates as well.
    fn checks_updates(&self) -> bool {
        true
    }
    /// What the server has to allocate before the object is stored.
    fn allocations(&self, _object: &Value) -> Vec<Allocation> {
        Vec::new()
    }
    /// Columns of `kubectl get`.
    fn columns(&self) -> &'static [Column] {
        table::NAME_AND_AGE
    }
    /// The row of one object, with one cell for each column.
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        Row::plain(vec![table::name(object), table::age(object, now)])
    }
    /// Fields for field selectors besides `metadata.name` and `metadata.namespace`.
    fn fields(&self) -> &'static [Field] {
        &[]
    }

    /// Makes a body ready to be created: identity from the server, nothing that only the system may set.
    fn prepare_create(&self, object: &mut Value, context: &Context<'_>) {
        let Some(map) = object.as_object_mut() else { return };
        let facts = self.facts();
        if let Some(meta) = child(map, "metadata") {
            for key in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
                meta.remove(key);
            }
            meta.insert("uid".into(), Value::from(context.uid));
            meta.insert("creationTimestamp".into(), Value::from(crate::time::seconds(context.now)));
            if facts.generation != Generation::None {
                meta.insert("generation".into(), Value::from(1));
            }
        }
        if facts.status {
            map.remove("status");
        }
        self.adjust_create(map, context);
    }

    /// Makes a body ready to replace `old` through the main resource: what only the system sets stays as it was.
    fn prepare_update(&self, new: &mut Value, old: &Value, context: &Context<'_>) {
        let facts = self.facts();
        let Some(map) = new.as_object_mut() else { return };
        keep_system_metadata(map, old);
        if facts.status {
            carry(map, old, "status");
        }
        self.adjust_update(map, old, context);
        let changed = match facts.generation {
            Generation::None => false,
            Generation::Spec => differs(map, old, "spec"),
            Generation::SpecAndAnnotations => {
                let none = Value::Null;
                let annotations = map.get("metadata").and_then(|meta| meta.get("annotations")).unwrap_or(&none);
                differs(map, old, "spec") || !same(annotations, &old["metadata"]["annotations"])
            }
            Generation::Content => content_differs(map, old),
        };
        if changed && let Some(meta) = child(map, "metadata") {
            let before = old["metadata"]["generation"].as_i64().unwrap_or(0);
            meta.insert("generation".into(), Value::from(before + 1));
        }
    }

    /// Makes a body ready to replace `old` through `/status`: only the status is taken from it.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let facts = self.facts();
        let Some(map) = new.as_object_mut() else { return };
        let status = map.remove("status");
        let mut meta = old["metadata"].clone();
        if let (Some(target), Some(source)) = (meta.as_object_mut(), map.get("metadata")) {
            carry(target, source, "managedFields");
            carry(target, source, "resourceVersion");
            if facts.status_labels {
                carry(target, source, "labels");
                carry(target, source, "annotations");
            }
        }
        *map = old.as_object().cloned().unwrap_or_default();
        map.insert("metadata".into(), meta);
        match status {
            Some(status) if !status.is_null() => map.insert("status".into(), status),
            _ => map.remove("status"),
        };
        self.adjust_status(map, old);
    }

    /// Why the object cannot be created; empty when it can.
    fn validate_create(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Causes::default();
        crate::meta::check(&object["metadata"], self.facts().name, &mut causes);
        self.check(object, &mut causes);
        self.check_new(object, &mut causes);
        causes.into_vec()
    }

    /// Why `old` cannot become `new`; empty when it can.
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Cause> {
        let mut causes = Causes::default();
        crate::meta::check_change(&new["metadata"], &old["metadata"], &mut causes);
        if self.checks_updates() {
            self.check(new, &mut causes);
        }
        self.check_change(new, old, &mut causes);
        causes.into_vec()
    }

    /// The text that a field selector compares, or `None` when the kind has no such field.
    fn field<'a>(&self, object: &'a Value, path: &str) -> Option<Cow<'a, str>> {
        match path {
            "metadata.name" => return Some(Cow::Borrowed(text(&object["metadata"]["name"]))),
            "metadata.namespace" => return Some(Cow::Borrowed(text(&object["metadata"]["namespace"]))),
            _ => {}
        }
        let field = self.fields().iter().find(|field| field.path == path)?;
        Some(match path.split('.').fold(object, |value, key| &value[key]) {
            Value::String(text) => Cow::Borrowed(text),
            Value::Null => Cow::Borrowed(field.zero),
            other => Cow::Owned(other.to_string()),
        })
    }
}

fn keep_system_metadata(new: &mut Members, old: &Value) {
    let old = &old["metadata"];
    if let Some(meta) = child(new, "metadata") {
        for key in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"] {
            carry(meta, old, key);
        }
        // A wrong uid is the caller's mistake and is refused; a missing one is not.
        for key in ["uid", "name", "namespace"] {
            if meta.get(key).is_none_or(crate::json::is_empty) {
                carry(meta, old, key);
            }
        }
    }
}

fn differs(new: &Members, old: &Value, key: &str) -> bool {
    !same(new.get(key).unwrap_or(&Value::Null), &old[key])
}

fn content_differs(new: &Members, old: &Value) -> bool {
    let counted = |key: &String| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    new.keys().chain(crate::json::members(old).keys()).filter(|key| counted(key)).any(|key| differs(new, old, key))
}

/// The path of `metadata`, for the kinds' own checks.
pub(crate) const METADATA: Path<'static> = Path::root("metadata");
/// The path of `spec`.
pub(crate) const SPEC: Path<'static> = Path::root("spec");

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CONTEXT: Context<'static> = Context { now: Timestamp::from_secs(1_700_000_000), uid: "u1" };

    struct Thing;
    impl Kind for Thing {
        fn facts(&self) -> Facts {
            Facts::reconciled("", "Thing")
        }
    }

    #[test]
    fn create_gives_identity_and_drops_status() {
        let mut object =
            json!({"metadata": {"name": "a", "generation": 7, "deletionTimestamp": "x"}, "status": {"a": 1}});
        Thing.prepare_create(&mut object, &CONTEXT);
        assert_eq!(
            object,
            json!({"metadata": {"name": "a", "uid": "u1", "creationTimestamp": "2023-11-14T22:13:20Z", "generation": 1}})
        );
    }

    #[test]
    fn update_counts_spec_and_keeps_status() {
        let old =
            json!({"metadata": {"name": "a", "uid": "u1", "generation": 1}, "spec": {"x": 1}, "status": {"s": 1}});
        let mut same_spec = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1, "y": {}}, "status": {"s": 2}});
        Thing.prepare_update(&mut same_spec, &old, &CONTEXT);
        assert_eq!(same_spec["metadata"]["generation"], 1);
        assert_eq!(same_spec["metadata"]["uid"], "u1");
        assert_eq!(same_spec["status"]["s"], 1);
        let mut other_spec = json!({"metadata": {}, "spec": {"x": 2}});
        Thing.prepare_update(&mut other_spec, &old, &CONTEXT);
        assert_eq!(other_spec["metadata"]["generation"], 2);
    }

    #[test]
    fn status_update_takes_only_status() {
        let old = json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "spec": {"x": 1}, "status": {"s": 1}});
        let mut new = json!({"metadata": {"name": "a", "labels": {"l": "2"}, "managedFields": []}, "spec": {"x": 2}, "status": {"s": 2}});
        Thing.prepare_status_update(&mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"name": "a", "labels": {"l": "1"}, "managedFields": []}, "spec": {"x": 1}, "status": {"s": 2}})
        );
    }
}

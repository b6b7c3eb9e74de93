//! Nodes and Namespaces.

use crate::behaviour::{Context, Facts, Field, Kind, METADATA, SPEC};
use crate::cause::Causes;
use crate::json::{Members, carry, child, existing, fill, is_empty, list, text};
use crate::names::{self, NameRule};
use crate::quantity;
use crate::table::{self, Column, Row};
use model::Timestamp;
use serde_json::{Value, json};

pub fn find(kind: &str) -> Option<&'static dyn Kind> {
    Some(match kind {
        "Node" => &Node,
        "Namespace" => &Namespace,
        _ => return None,
    })
}

struct Node;

impl Kind for Node {
    fn facts(&self) -> Facts {
        Facts { status_labels: true, ..Facts::plain("", "Node").with_status() }
    }

    fn defaults(&self, object: &mut Value) {
        let Some(status) = object.as_object_mut().and_then(|map| existing(map, "status")) else { return };
        quantity::canonicalise_list(status, "capacity");
        quantity::canonicalise_list(status, "allocatable");
        if status.get("allocatable").is_none_or(is_empty)
            && let Some(capacity) = status.get("capacity").filter(|capacity| !is_empty(capacity)).cloned()
        {
            status.insert("allocatable".into(), capacity);
        }
    }

    /// A node registers itself with its status, so creation keeps it.
    fn prepare_create(&self, object: &mut Value, context: &Context<'_>) {
        let status = object.get("status").cloned();
        create_plain(self, object, context);
        if let (Some(map), Some(status)) = (object.as_object_mut(), status) {
            map.insert("status".into(), status);
        }
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        let taints = SPEC.child("taints");
        let all = list(&object["spec"]["taints"]);
        for (index, taint) in all.iter().enumerate() {
            let at = taints.index(index);
            let (key, value, effect) = (text(&taint["key"]), text(&taint["value"]), text(&taint["effect"]));
            causes.invalid_each(&at.child("key"), key, names::qualified(key));
            causes.invalid_each(&at.child("value"), value, names::label_value(value));
            if effect.is_empty() {
                causes.required(&at.child("effect"), "");
            } else {
                causes.one_of(&at.child("effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
            }
            if all[..index].iter().any(|other| other["key"] == taint["key"] && other["effect"] == taint["effect"]) {
                causes.duplicate(&at, taint.clone());
            }
        }
    }

    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        let (new, old) = (&new["spec"], &old["spec"]);
        for key in ["podCIDR", "providerID"] {
            if !text(&old[key]).is_empty() && new[key] != old[key] {
                causes.forbidden(&SPEC.child(key), "node updates may not change this except from \"\" to valid");
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::NODE
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::node_row(object, now)
    }
    fn fields(&self) -> &'static [Field] {
        &[Field { path: "spec.unschedulable", zero: "false" }]
    }
}

/// The common part of creation, for kinds that override it.
fn create_plain(kind: &dyn Kind, object: &mut Value, context: &Context<'_>) {
    struct Plain(Facts);
    impl Kind for Plain {
        fn facts(&self) -> Facts {
            self.0
        }
    }
    Plain(kind.facts()).prepare_create(object, context);
}

struct Namespace;

impl Kind for Namespace {
    fn facts(&self) -> Facts {
        Facts::plain("", "Namespace").named(NameRule::Label).with_status()
    }

    fn defaults(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        let name = map.get("metadata").map_or("", |meta| text(&meta["name"])).to_owned();
        if !name.is_empty()
            && let Some(labels) = existing(map, "metadata").and_then(|meta| child(meta, "labels"))
        {
            labels.insert("kubernetes.io/metadata.name".into(), Value::from(name));
        }
        if let Some(status) = child(map, "status") {
            fill(status, "phase", "Active");
        }
    }

    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        object.insert("status".into(), json!({"phase": "Active"}));
        if let Some(spec) = child(object, "spec") {
            let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
            if let Some(finalizers) = finalizers.as_array_mut()
                && !finalizers.iter().any(|name| name == "kubernetes")
            {
                finalizers.push(Value::from("kubernetes"));
            }
        }
    }

    /// `spec.finalizers` are changed through `/finalize` only.
    fn adjust_update(&self, new: &mut Members, old: &Value, _context: &Context<'_>) {
        if let Some(spec) = child(new, "spec") {
            carry(spec, &old["spec"], "finalizers");
        }
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        for (index, name) in list(&object["spec"]["finalizers"]).iter().enumerate() {
            let path = SPEC.child("finalizers");
            causes.invalid_each(&path.index(index), text(name), names::qualified(text(name)));
        }
        if !text(&object["metadata"]["namespace"]).is_empty() {
            causes.forbidden(&METADATA.child("namespace"), "not allowed on this type");
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::NAMESPACE
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::namespace_row(object, now)
    }
    fn fields(&self) -> &'static [Field] {
        const { &[Field::text("status.phase")] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context<'static> = Context { now: Timestamp::from_secs(0), uid: "u" };

    #[test]
    fn namespaces_are_labelled_and_finalized() {
        let mut object = json!({"metadata": {"name": "n"}});
        Namespace.defaults(&mut object);
        Namespace.prepare_create(&mut object, &CONTEXT);
        assert_eq!(object["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "n"}));
        assert_eq!(
            (&object["spec"], &object["status"]),
            (&json!({"finalizers": ["kubernetes"]}), &json!({"phase": "Active"}))
        );
        let mut new = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}});
        Namespace.prepare_update(&mut new, &object, &CONTEXT);
        assert_eq!(new["spec"]["finalizers"], json!(["kubernetes"]));
    }

    #[test]
    fn nodes_register_with_their_status() {
        let mut object = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2000m"}}});
        Node.defaults(&mut object);
        Node.prepare_create(&mut object, &CONTEXT);
        assert_eq!(object["status"], json!({"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}));
        assert_eq!(Node.field(&object, "spec.unschedulable").as_deref(), Some("false"));
    }
}

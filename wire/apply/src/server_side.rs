//! Server-side apply, and the bookkeeping of every other write (apimachinery `managedfields`).

use crate::conflict::{Conflict, Conflicts};
use crate::fields::Set;
use crate::managed::{Entry, ManagedFields, Manager, Operation};
use crate::typed::{Comparison, Type, TypedError, compare, empty_object, fields_of, merge, remove, with_named_parents};
use kube::Schema;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Owner of what an object had before managers were recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Why an apply is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others say the same fields differently (409); force takes them over.
    #[error(transparent)]
    Conflicts(Conflicts),
    /// The applied object does not fit its form (400).
    #[error("failed to create typed patch object ({object}): {wrong}")]
    Form {
        /// `namespace/name; group/version, Kind=kind`.
        object: String,
        /// What is wrong.
        wrong: TypedError,
    },
    /// The applied object is of another version than the request's path (400).
    #[error("Incorrect version specified in apply patch. Specified patch version: {given}, expected: {expected}")]
    Version {
        /// The object's.
        given: String,
        /// The path's.
        expected: String,
    },
    /// The applied object has `managedFields` (400).
    #[error("metadata.managedFields must be nil")]
    HasManagedFields,
    /// The stored object does not fit its form (500); somebody wrote it past the server.
    #[error("failed to create typed live object: {0}")]
    Live(TypedError),
}

/// One writer of one object: who, how, when, and by which form.
#[derive(Clone, Copy)]
pub struct FieldManager<'a> {
    /// Form of the object.
    pub schema: Schema<'a>,
    /// `apps/v1`.
    pub api_version: &'a str,
    /// `?fieldManager=`, or the first part of the user agent.
    pub manager: &'a str,
    /// `status`, `scale`, or empty.
    pub subresource: &'a str,
    /// What this way of writing resets, and so nobody owns through it (see [`FieldManager::reset_fields`]).
    pub reset: &'a Set,
    /// RFC 3339, whole seconds.
    pub now: &'a str,
}

impl FieldManager<'_> {
    /// What a write through `subresource` cannot change: status through the main resource of a kind that has a status
    /// subresource, all else through `status`.
    pub fn reset_fields(subresource: &str, has_status: bool) -> &'static Set {
        static NONE: OnceLock<Set> = OnceLock::new();
        static STATUS: OnceLock<Set> = OnceLock::new();
        static ALL_ELSE: OnceLock<Set> = OnceLock::new();
        match (subresource, has_status) {
            ("status", _) => ALL_ELSE.get_or_init(|| {
                Set::of_fields(&[
                    &["spec"],
                    &["metadata", "labels"],
                    &["metadata", "annotations"],
                    &["metadata", "finalizers"],
                    &["metadata", "ownerReferences"],
                    &["metadata", "deletionTimestamp"],
                    &["metadata", "deletionGracePeriodSeconds"],
                    &["metadata", "generateName"],
                ])
            }),
            (_, true) => STATUS.get_or_init(|| Set::of_fields(&[&["status"]])),
            (_, false) => NONE.get_or_init(Set::default),
        }
    }

    fn ty(&self) -> Type<'_> {
        Type::Known(self.schema)
    }

    fn compare(&self, before: &Value, after: &Value) -> Result<Comparison, TypedError> {
        Ok(compare(before, after, self.ty())?.without(self.reset))
    }

    /// What a new object is compared with.
    fn nothing(&self, like: &Value) -> Value {
        let mut empty = empty_object(self.schema);
        empty["apiVersion"] = like["apiVersion"].clone();
        empty["kind"] = like["kind"].clone();
        empty
    }

    /// Records a create, update or patch: sets `metadata.managedFields` of `new`, the object that is to be stored.
    /// `live` is the stored object, `None` on create. A request may set the field itself (kubectl does, to hand over from
    /// client-side apply), empty it (`[]` or `[{}]`: all is forgotten), or leave it out (what is stored stays).
    ///
    /// As kube-apiserver does, call it after the defaults and before the kind's strategy and admission: a writer owns the
    /// defaults that its object got, and not what the system adds afterwards.
    pub fn update(&self, live: Option<&Value>, new: &mut Value) {
        let mut managed = self.decode_requested(live, new);
        take_managed_fields(new);
        // An object whose managers are not known is tracked again from its first apply on.
        if managed.is_empty() && live.is_some() {
            return;
        }
        let nothing = if live.is_none() { self.nothing(new) } else { Value::Null };
        // The live object's own `managedFields` count as removed here, and nobody owns them.
        let before = live.unwrap_or(&nothing);
        let manager = Manager::new(self.manager, Operation::Update, self.api_version, self.subresource);
        if self.record_update(before, new, &mut managed, &manager).is_ok() {
            managed.cap_updaters();
            managed.write(new);
        } else if let Some(live) = live {
            // An object that does not fit its form keeps the managers that it has.
            new["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
        }
    }

    fn decode_requested(&self, live: Option<&Value>, new: &Value) -> ManagedFields {
        let stored = || live.and_then(|live| ManagedFields::of(live).ok()).unwrap_or_default();
        if !self.subresource.is_empty() {
            return stored();
        }
        let requested = &new["metadata"]["managedFields"];
        let reset = requested.as_array().is_some_and(|list| match list.as_slice() {
            [] => true,
            [only] => only.as_object().is_some_and(serde_json::Map::is_empty),
            _ => false,
        });
        if reset {
            return ManagedFields::default();
        }
        match ManagedFields::of(new) {
            Ok(managed) if !managed.is_empty() => managed,
            _ => stored(),
        }
    }

    /// Takes what changed from everybody and gives it to `manager`.
    fn record_update(
        &self,
        before: &Value,
        after: &Value,
        managed: &mut ManagedFields,
        manager: &Manager,
    ) -> Result<(), TypedError> {
        let changes = self.compare(before, after)?;
        take_over(managed, &changes, None);
        let said = changes.modified.union(&changes.added).difference(system_fields());
        if !said.is_empty() {
            let fields = match managed.entries.get(manager) {
                Some(entry) => entry.fields.union(&said),
                None => said,
            };
            let entry = Entry { fields, api_version: self.api_version.to_owned(), time: Some(self.now.to_owned()) };
            managed.entries.insert(manager.clone(), entry);
        }
        managed.drop_empty();
        Ok(())
    }

    /// Applies `config` to `live` (`None`: creates) and returns the object that is to be stored, with its managers. It is
    /// equal to `live` when the apply changes nothing.
    ///
    /// # Errors
    /// Another manager is stepped on without `force`, or `config` is malformed.
    pub fn apply(&self, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, ApplyError> {
        let given = config["apiVersion"].as_str().unwrap_or_default();
        if given != self.api_version {
            return Err(ApplyError::Version { given: given.to_owned(), expected: self.api_version.to_owned() });
        }
        if config["metadata"]["managedFields"].as_array().is_some() {
            return Err(ApplyError::HasManagedFields);
        }
        let mut before = live.cloned().unwrap_or_else(|| self.created_from(config));
        let mut managed = live.and_then(|live| ManagedFields::of(live).ok()).unwrap_or_default();
        take_managed_fields(&mut before);
        if managed.is_empty() && live.is_some() {
            let owner = Manager::new(BEFORE_FIRST_APPLY, Operation::Update, self.api_version, self.subresource);
            self.record_update(&self.nothing(&before), &before, &mut managed, &owner).map_err(ApplyError::Live)?;
        }
        let first = self.merge_in(&before, config, managed.clone(), force);
        let (mut object, managed) = match first {
            // kubectl may go on from client-side apply: what it last applied that way is its own.
            Err(ApplyError::Conflicts(conflicts)) if self.manager == "kubectl" => {
                self.apply_over_last_applied(&before, config, managed, conflicts)?
            }
            other => other?,
        };
        self.sync_last_applied(&mut object, config);
        managed.write(&mut object);
        Ok(object)
    }

    /// A create by apply starts from nothing but identity.
    fn created_from(&self, config: &Value) -> Value {
        json!({"apiVersion": config["apiVersion"], "kind": config["kind"]})
    }

    fn merge_in(
        &self,
        before: &Value,
        config: &Value,
        mut managed: ManagedFields,
        force: bool,
    ) -> Result<(Value, ManagedFields), ApplyError> {
        let form = |wrong| ApplyError::Form { object: described(config), wrong };
        let said = fields_of(config, self.ty(), true).map_err(form)?.recursive_difference(self.reset);
        let merged = merge(before, config, self.ty()).map_err(form)?.unwrap_or_else(|| before.clone());
        let manager = Manager::new(self.manager, Operation::Apply, self.api_version, self.subresource);
        let last = managed.entries.remove(&manager);
        let time = last.as_ref().and_then(|entry| entry.time.clone());
        managed.entries.insert(manager.clone(), Entry { fields: said, api_version: self.api_version.to_owned(), time });
        let after = self.prune(merged, &managed, last.as_ref()).map_err(ApplyError::Live)?;
        let changes = self.compare(before, &after).map_err(ApplyError::Live)?;
        let conflicts = conflicts(&managed, &changes, &manager);
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(Conflicts(conflicts)));
        }
        take_over(&mut managed, &changes, Some(&manager));
        if let Some(entry) = managed.entries.get_mut(&manager) {
            entry.fields = entry.fields.difference(system_fields());
            // The time is that of the last change, so that applying the same again writes nothing.
            if before != &after || entry.time.is_none() {
                entry.time = Some(self.now.to_owned());
            }
        }
        managed.drop_empty();
        Ok((after, managed))
    }

    /// Removes what the manager applied last time and not now, unless somebody else has it too.
    fn prune(&self, merged: Value, managed: &ManagedFields, last: Option<&Entry>) -> Result<Value, TypedError> {
        let Some(last) = last.filter(|last| !last.fields.is_empty()) else { return Ok(merged) };
        let ty = self.ty();
        let named = |set: &Set| with_named_parents(set, ty);
        let fields = |value: &Option<Value>| match value {
            Some(value) => fields_of(value, ty, false).map(|set| named(&set)),
            None => Ok(Set::default()),
        };
        let last = named(&last.fields);
        let pruned = remove(&merged, &last, ty);
        let owned = managed.entries.values().fold(Set::default(), |all, entry| all.union(&entry.fields));
        let all = named(&fields_of(&merged, ty, false)?);
        // Somebody's (or this apply's own) stays.
        let pruned = remove(&merged, &all.difference(&fields(&pruned)?.union(&named(&owned))), ty);
        // Nobody's stays too, unless this manager had it.
        let gone = all.difference(&fields(&pruned)?).intersection(&last);
        Ok(remove(&merged, &gone, ty).unwrap_or_else(|| json!({})))
    }

    fn apply_over_last_applied(
        &self,
        before: &Value,
        config: &Value,
        managed: ManagedFields,
        conflicts: Conflicts,
    ) -> Result<(Value, ManagedFields), ApplyError> {
        let Some(allowed) = self.last_applied_fields(before) else { return Err(ApplyError::Conflicts(conflicts)) };
        let left: Vec<Conflict> = conflicts.0.into_iter().filter(|conflict| !allowed.has(&conflict.path)).collect();
        if !left.is_empty() {
            return Err(ApplyError::Conflicts(Conflicts(left)));
        }
        self.merge_in(before, config, managed, true)
    }

    /// Fields of the last client-side applied configuration that are still as it said.
    fn last_applied_fields(&self, live: &Value) -> Option<Set> {
        let text = live["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())?;
        let last: Value = serde_json::from_str(text).ok()?;
        if last["apiVersion"] != self.api_version {
            return None;
        }
        let fields = fields_of(&last, self.ty(), false).ok()?;
        let changes = compare(&last, live, self.ty()).ok()?;
        Some(fields.difference(&changes.modified).difference(&changes.added).difference(&changes.removed))
    }

    /// Keeps the annotation of client-side apply true, so that going back does not undo what was applied here.
    fn sync_last_applied(&self, object: &mut Value, config: &Value) {
        let has = object["metadata"]["annotations"][LAST_APPLIED].as_str().is_some_and(|text| !text.is_empty());
        if self.manager != "kubectl" || !has {
            return;
        }
        let mut plain = config.clone();
        if let Some(annotations) = plain["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        object["metadata"]["annotations"][LAST_APPLIED] = Value::from(format!("{plain}\n"));
    }
}

/// Fields that the system sets; they have no manager.
fn system_fields() -> &'static Set {
    static SYSTEM: OnceLock<Set> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        Set::of_fields(&[
            &["apiVersion"],
            &["kind"],
            &["metadata"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "creationTimestamp"],
            &["metadata", "selfLink"],
            &["metadata", "uid"],
            &["metadata", "clusterName"],
            &["metadata", "generation"],
            &["metadata", "managedFields"],
            &["metadata", "resourceVersion"],
        ])
    })
}

fn take_managed_fields(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
}

fn conflicts(managed: &ManagedFields, changes: &Comparison, own: &Manager) -> Vec<Conflict> {
    let changed = changes.modified.union(&changes.added);
    let mut found = Vec::new();
    for (manager, entry) in managed.entries.iter().filter(|(manager, _)| *manager != own) {
        for path in entry.fields.intersection(&changed).paths() {
            found.push(Conflict { manager: manager.clone(), path });
        }
    }
    found
}

/// Takes the changed and removed fields from all managers but `own`.
fn take_over(managed: &mut ManagedFields, changes: &Comparison, own: Option<&Manager>) {
    let lost = changes.modified.union(&changes.added).union(&changes.removed);
    for (_, entry) in managed.entries.iter_mut().filter(|(manager, _)| Some(*manager) != own) {
        entry.fields = entry.fields.difference(&lost);
    }
    managed.drop_empty();
}

fn described(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("<unknown>").to_owned();
    let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    format!("{namespace}/{name}; {}, Kind={}", text(&object["apiVersion"]), text(&object["kind"]))
}

/// Managers that the object names, each with what it owns; for tests and for people.
impl ManagedFields {
    /// `name/operation[/subresource]` to field set as JSON.
    pub fn summary(&self) -> BTreeMap<String, Value> {
        self.entries
            .iter()
            .map(|(manager, entry)| {
                let mut name = format!("{}/{:?}", manager.name, manager.operation);
                if !manager.subresource.is_empty() {
                    name = format!("{name}/{}", manager.subresource);
                }
                (name, entry.fields.to_json())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;

//! Deletion: at once, gracefully, or after the finalizers have had their say.

use super::draft::{Fate, Held, commit};
use super::read::Versions;
use super::{Caller, Target, WriteOptions};
use crate::access;
use crate::admission::{self, Operation};
use crate::core::Core;
use crate::form;
use bytes::Bytes;
use kube::{Resource, Status};
use serde_json::{Value, json};
use storage::Expect;

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds; for pods.
    pub grace_s: Option<i64>,
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must be at this revision.
    pub revision: Option<String>,
    /// `Background`, `Foreground`, `Orphan`.
    pub propagation: Option<String>,
    /// Do everything but delete.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// From a body.
    ///
    /// # Errors
    /// 422 for values that no option has.
    pub fn from_value(body: &Value) -> Result<DeleteOptions, Status> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut options = DeleteOptions {
            grace_s: body["gracePeriodSeconds"].as_i64(),
            uid: text(&body["preconditions"]["uid"]),
            revision: text(&body["preconditions"]["resourceVersion"]),
            propagation: text(&body["propagationPolicy"]),
            dry_run: body["dryRun"].as_array().is_some_and(|list| !list.is_empty()),
        };
        if let Some(orphan) = body["orphanDependents"].as_bool() {
            options.propagation.get_or_insert_with(|| if orphan { "Orphan" } else { "Background" }.to_owned());
        }
        options.check()?;
        Ok(options)
    }

    /// Fills in what the query says and the body does not.
    ///
    /// # Errors
    /// As [`DeleteOptions::from_value`].
    pub fn or_query(mut self, query: &crate::request::Query) -> Result<DeleteOptions, Status> {
        let grace = query.number("gracePeriodSeconds").map_err(Status::bad_request)?;
        self.grace_s = self.grace_s.or(grace);
        self.propagation = self.propagation.or_else(|| query.get("propagationPolicy").map(str::to_owned));
        self.dry_run |= query.get("dryRun").is_some();
        self.check()?;
        Ok(self)
    }

    fn check(&self) -> Result<(), Status> {
        let mut causes = Vec::new();
        if let Some(policy) = &self.propagation
            && !matches!(policy.as_str(), "Background" | "Foreground" | "Orphan")
        {
            let known = ["Background", "Foreground", "Orphan"];
            causes.push(kube::Cause::not_supported("propagationPolicy", &policy.as_str().into(), known));
        }
        if causes.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", causes)) }
    }
}

/// What a deletion answers.
pub enum Deleted {
    /// The object is gone, or will be: its state.
    Object(Bytes),
    /// The object is gone.
    Gone(Status),
}

/// As for changes.
const TRIES: usize = 100;

/// Deletes an object, or begins to.
///
/// # Errors
/// 404, a failed precondition, or the refusal of admission or store.
pub async fn delete(core: &Core, caller: &Caller, target: &Target, options: &DeleteOptions) -> Result<Deleted, Status> {
    for attempt in 1.. {
        match attempt_delete(core, caller, target, options).await {
            Err(status)
                if status.reason == "Conflict"
                    && options.revision.is_none()
                    && attempt < TRIES
                    && !status.message.contains("Precondition") => {}
            result => return result,
        }
    }
    unreachable!("the loop returns by its last attempt")
}

async fn attempt_delete(
    core: &Core,
    caller: &Caller,
    target: &Target,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let resource = &target.resource;
    // In the stored version: what is written back must be that.
    let record = core.store.get(target.key(), &target.namespace, &target.name).ok_or_else(|| target.not_found())?;
    let old: Value = serde_json::from_slice(&record.bytes).map_err(Status::internal)?;
    preconditions(target, options, &old, record.revision)?;
    let id = (resource.group(), resource.plural(), "");
    access::restrict_node(&caller.identity, "delete", id, &target.name, &old)?;
    let admitted = admission::Request { core, caller, target, operation: Operation::Delete, old: Some(&old) };
    admission::validate(&admitted, &old)?;
    let mut new = old.clone();
    let grace = grace_s(resource, &old, options);
    set_propagation(&mut new, options.propagation.as_deref());
    let waits = has_finalizers(resource, &new);
    let expect = Expect::Revision(record.revision);
    if grace == 0 && !waits {
        let last = commit(core, target, &mut new, expect, Fate::Delete, options.dry_run, Held::default()).await?;
        return Ok(if returns_object(resource) {
            Deleted::Object(Versions::of(core, resource).encoded(last.bytes)?)
        } else {
            let uid = old["metadata"]["uid"].as_str().unwrap_or_default();
            Deleted::Gone(Status::deleted(resource.group(), resource.plural(), &target.name, uid))
        });
    }
    mark(core, resource, &mut new, &old, grace);
    if form::unchanged(&new, &old) {
        return Ok(Deleted::Object(Versions::of(core, resource).encoded(record.bytes)?));
    }
    let record = commit(core, target, &mut new, expect, Fate::Put, options.dry_run, Held::default()).await?;
    Ok(Deleted::Object(Versions::of(core, resource).encoded(record.bytes)?))
}

/// Sets `deletionTimestamp`. A later deletion can only shorten what is left.
fn mark(core: &Core, resource: &Resource, new: &mut Value, old: &Value, grace: i64) {
    let asked = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let deleting = !old["metadata"]["deletionTimestamp"].is_null();
    if deleting && asked.is_none_or(|asked| asked <= grace) {
        return;
    }
    let now_s = core.now().secs();
    let begun_s = if deleting { timestamp(&old["metadata"]["deletionTimestamp"]) - asked.unwrap_or(0) } else { now_s };
    let until = jiff::Timestamp::from_second((begun_s + grace).max(now_s.min(begun_s + grace))).unwrap_or_default();
    let meta = &mut new["metadata"];
    meta["deletionTimestamp"] = until.to_string().into();
    meta["deletionGracePeriodSeconds"] = grace.into();
    if let Some(generation) = meta["generation"].as_i64() {
        meta["generation"] = (generation + 1).into();
    }
    if resource.group().is_empty() && resource.kind() == "Namespace" {
        new["status"]["phase"] = "Terminating".into();
    }
}

fn timestamp(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).map_or(0, |at| at.as_second())
}

/// Seconds that the object is given: only pods that run somewhere take any.
fn grace_s(resource: &Resource, old: &Value, options: &DeleteOptions) -> i64 {
    if !resource.group().is_empty() || resource.kind() != "Pod" {
        return 0;
    }
    let unscheduled = old["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let over = matches!(old["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if unscheduled || over {
        return 0;
    }
    let own = old["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    // A negative period means one second: somebody must stop the containers.
    match options.grace_s.unwrap_or(own) {
        grace if grace < 0 => 1,
        grace => grace,
    }
}

fn set_propagation(object: &mut Value, policy: Option<&str>) {
    let Some(policy) = policy else { return };
    let mut finalizers: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.retain(|name| name != "orphan" && name != "foregroundDeletion");
    match policy {
        "Orphan" => finalizers.push("orphan".into()),
        "Foreground" => finalizers.push("foregroundDeletion".into()),
        _ => {}
    }
    match (finalizers.is_empty(), object["metadata"].as_object_mut()) {
        (true, Some(meta)) => drop(meta.remove("finalizers")),
        _ => object["metadata"]["finalizers"] = json!(finalizers),
    }
}

fn has_finalizers(resource: &Resource, object: &Value) -> bool {
    let any = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let namespace = resource.group().is_empty() && resource.kind() == "Namespace";
    any(&object["metadata"]["finalizers"]) || (namespace && any(&object["spec"]["finalizers"]))
}

/// Whether nothing holds a deleted object any more: an update that took the last finalizer away is its end.
pub(super) fn is_finished(resource: &Resource, object: &Value) -> bool {
    let meta = &object["metadata"];
    !meta["deletionTimestamp"].is_null()
        && meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !has_finalizers(resource, object)
}

/// Kinds whose deletion answers with the object even when it is gone at once.
fn returns_object(resource: &Resource) -> bool {
    resource.group().is_empty()
        && matches!(
            resource.kind(),
            "Pod" | "Service" | "PersistentVolume" | "PersistentVolumeClaim" | "ServiceAccount"
        )
}

fn preconditions(target: &Target, options: &DeleteOptions, old: &Value, revision: u64) -> Result<(), Status> {
    let fail = |what: &str, wanted: &str, have: &str| {
        let (group, plural) = (target.resource.group(), target.resource.plural());
        let detail = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {have}");
        Err(Status::conflict(group, plural, &target.name, &detail))
    };
    let uid = old["metadata"]["uid"].as_str().unwrap_or_default();
    match (&options.uid, &options.revision) {
        (Some(wanted), _) if wanted != uid => fail("UID", wanted, uid),
        (_, Some(wanted)) if *wanted != revision.to_string() => fail("ResourceVersion", wanted, &revision.to_string()),
        _ => Ok(()),
    }
}

/// Options of a write that a deletion is.
impl From<&DeleteOptions> for WriteOptions {
    fn from(options: &DeleteOptions) -> Self {
        WriteOptions { dry_run: options.dry_run, force: false }
    }
}

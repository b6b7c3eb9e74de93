//! ResourceQuota: what a namespace may hold. Creations are counted; scopes are not understood, and a quota that has some is left alone.

mod usage;

use super::Request;
use crate::core::Core;
use crate::in_process::system_caller;
use crate::ops::{Made, Part, Target, WriteOptions, change};
use kube::{Resource, Status};
use model::Quantity;
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use usage::Usage;

const KEY: &str = "resourcequotas";

/// Creations that have been admitted and are not stored yet: two at once must not both take the last place.
#[derive(Default)]
pub struct Pending {
    entries: Arc<Mutex<Vec<Entry>>>,
}

struct Entry {
    id: u64,
    key: String,
    namespace: String,
    name: String,
    usage: Usage,
}

/// A place among the pending ones; given back when dropped, by which time the object itself counts (or never came to be).
pub struct Place {
    id: u64,
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.entries.lock().expect("nothing panics while it counts").retain(|entry| entry.id != self.id);
    }
}

fn quotas(core: &Core, namespace: &str) -> Vec<Value> {
    let quotas = core.store.list(KEY, Some(namespace), None, None).items;
    let quotas = quotas.iter().filter_map(|entry| serde_json::from_slice::<Value>(&entry.record.bytes).ok());
    quotas.filter(|quota| quota["spec"]["scopes"].is_null() && quota["spec"]["scopeSelector"].is_null()).collect()
}

/// Takes a place for a creation, if the namespace has quotas.
///
/// # Errors
/// 403 as Kubernetes words it.
pub(super) fn reserve(request: &Request<'_>, object: &Value) -> Result<Option<Place>, Status> {
    let (core, target) = (request.core, request.target);
    if target.namespace.is_empty() || core.store.count(KEY) == 0 {
        return Ok(None);
    }
    let quotas = quotas(core, &target.namespace);
    if quotas.is_empty() {
        return Ok(None);
    }
    let asked = usage::of(&target.resource, object);
    let mut pending = core.quota.entries.lock().expect("nothing panics while it counts");
    for quota in &quotas {
        let hard = hard(quota);
        must_specify(request, quota, &hard, object)?;
        // The pending ones first: what is stored between the two looks is then counted twice, not never.
        let mut taken = Usage::new();
        for entry in pending.iter().filter(|entry| entry.namespace == target.namespace) {
            if core.store.get(&entry.key, &entry.namespace, &entry.name).is_none() {
                usage::add(&mut taken, &entry.usage);
            }
        }
        usage::add(&mut taken, &used(core, &target.namespace, &hard));
        let over: Vec<&String> = hard
            .iter()
            .filter(|(name, limit)| {
                let more = asked.get(*name).copied().unwrap_or(0);
                more > 0 && taken.get(*name).copied().unwrap_or(0).saturating_add(more) > **limit
            })
            .map(|(name, _)| name)
            .collect();
        if !over.is_empty() {
            let list = |of: &Usage| -> String {
                let texts =
                    over.iter().map(|name| format!("{name}={}", shown(name, of.get(*name).copied().unwrap_or(0))));
                texts.collect::<Vec<_>>().join(",")
            };
            let name = quota["metadata"]["name"].as_str().unwrap_or_default();
            let detail = format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                list(&asked),
                list(&taken),
                list(&hard)
            );
            return Err(target.forbidden(&detail));
        }
    }
    let id = pending.iter().map(|entry| entry.id + 1).max().unwrap_or(0);
    let (key, namespace, name) = (target.key().to_owned(), target.namespace.clone(), target.name.clone());
    pending.push(Entry { id, key, namespace, name, usage: asked });
    Ok(Some(Place { id, entries: core.quota.entries.clone() }))
}

fn hard(quota: &Value) -> Usage {
    let hard = quota["spec"]["hard"].as_object().into_iter().flatten();
    hard.filter_map(|(name, limit)| Some((name.clone(), Quantity::parse(limit.as_str()?).ok()?.milli()))).collect()
}

/// A quota on compute resources can only be kept if every pod says what it takes.
fn must_specify(request: &Request<'_>, quota: &Value, hard: &Usage, object: &Value) -> Result<(), Status> {
    if request.target.resource.kind() != "Pod" {
        return Ok(());
    }
    let mut missing = Vec::new();
    for name in hard.keys() {
        let (field, resource) = match name.as_str() {
            "cpu" | "memory" => ("requests", name.as_str()),
            _ => match name.split_once('.') {
                Some((field @ ("requests" | "limits"), resource @ ("cpu" | "memory"))) => (field, resource),
                _ => continue,
            },
        };
        let containers = object["spec"]["containers"].as_array().into_iter().flatten();
        let without: Vec<&str> = containers
            .filter(|container| container["resources"][field][resource].is_null())
            .filter_map(|container| container["name"].as_str())
            .collect();
        if !without.is_empty() {
            missing.push(format!("{name} for: {}", without.join(",")));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let quota = quota["metadata"]["name"].as_str().unwrap_or_default();
    Err(request.target.forbidden(&format!("failed quota: {quota}: must specify {}", missing.join("; "))))
}

/// What a namespace holds of the names in `hard`. Looks at every object of the resources that count.
fn used(core: &Core, namespace: &str, hard: &Usage) -> Usage {
    let mut sum = Usage::new();
    for resource in core.registry.load().stored() {
        if resource.namespaced() && counts(resource, hard) {
            for entry in core.store.list(&resource.stored().key, Some(namespace), None, None).items {
                if let Ok(object) = serde_json::from_slice(&entry.record.bytes) {
                    usage::add(&mut sum, &usage::of(resource, &object));
                }
            }
        }
    }
    sum
}

fn counts(resource: &Resource, hard: &Usage) -> bool {
    let has = |test: &dyn Fn(&str) -> bool| hard.keys().any(|name| test(name));
    let (group, plural) = (resource.group(), resource.plural());
    let count = if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") };
    has(&|name| name == count)
        || match (group, plural) {
            ("", "pods") => has(&|name| {
                matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage")
                    || name.starts_with("limits.")
                    || (name.starts_with("requests.") && name != "requests.storage")
            }),
            ("", "persistentvolumeclaims") => {
                has(&|name| matches!(name, "persistentvolumeclaims" | "requests.storage"))
            }
            ("", "services") => has(&|name| name.starts_with("services")),
            ("", "configmaps" | "secrets" | "resourcequotas") => has(&|name| name == plural),
            _ => false,
        }
}

/// An amount in thousandths as a quantity: bytes in powers of 1024 where they come out even.
pub(super) fn shown(name: &str, milli: i64) -> String {
    if milli % 1000 != 0 {
        return format!("{milli}m");
    }
    let units = milli / 1000;
    if name.contains("memory") || name.contains("storage") {
        for (suffix, size) in [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
            if units != 0 && units % size == 0 {
                return format!("{}{suffix}", units / size);
            }
        }
    }
    units.to_string()
}

/// Keeps `status.used` of all quotas. Runs until shutdown.
pub async fn follow(core: Arc<Core>) {
    let mut shutdown = core.shutdown.clone();
    loop {
        if core.store.count(KEY) > 0 {
            for entry in core.store.list(KEY, None, None, None).items {
                if let Ok(quota) = serde_json::from_slice::<Value>(&entry.record.bytes) {
                    publish(&core, &quota, &entry.namespace, &entry.name).await;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = crate::core::stopped(&mut shutdown) => return,
        }
    }
}

async fn publish(core: &Core, quota: &Value, namespace: &str, name: &str) {
    let hard = hard(quota);
    let used = used(core, namespace, &hard);
    let mut amounts = Map::new();
    for resource in hard.keys() {
        amounts.insert(resource.clone(), shown(resource, used.get(resource).copied().unwrap_or(0)).into());
    }
    let status = serde_json::json!({"hard": quota["spec"]["hard"], "used": amounts});
    if quota["status"] == status {
        return;
    }
    let Ok(resource) = core.resource("", "v1", KEY) else { return };
    let target = Target { resource, namespace: namespace.to_owned(), name: name.to_owned() };
    let caller = system_caller("resourcequota-controller");
    let written = change(core, &caller, &target, Part::Status, WriteOptions::default(), |old| {
        let mut new = old.clone();
        new["status"] = status.clone();
        Ok(Made::Object(new))
    });
    if let Err(error) = written.await
        && error.code != 404
    {
        tracing::warn!(%error, namespace, name, "cannot write what a quota has used");
    }
}

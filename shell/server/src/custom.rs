//! CustomResourceDefinitions of the store as part of the registry, and the end of those that are deleted.

use crate::admission::CLEANUP;
use crate::core::Core;
use crate::core::stopped;
use crate::in_process::system_caller;
use crate::ops::{DeleteOptions, ListRequest, Made, Part, Target, WriteOptions, change, delete_collection};
use kube::Registry;
use kube::crd::CustomResource;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use storage::Store;

/// The store's resource key of definitions.
pub const KEY: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// Adds every established definition of the store.
pub fn load(mut registry: Registry, store: &Store) -> Registry {
    for entry in store.list(KEY, None, None, None).items {
        let custom = serde_json::from_slice(&entry.record.bytes).ok().as_ref().and_then(established);
        match custom {
            Some(custom) => registry = registry.with_custom(&custom),
            None => tracing::warn!(name = &*entry.name, "a stored CustomResourceDefinition is not established"),
        }
    }
    registry
}

fn established(object: &Value) -> Option<CustomResource> {
    let conditions = object["status"]["conditions"].as_array()?;
    let established = conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True");
    established.then(|| CustomResource::from_object(object).ok()).flatten()
}

/// Follows one definition that was written or deleted.
pub fn refresh(core: &Core, name: &str) {
    // One at a time: of two writes, the one that swaps last must not have read first.
    let _turn = core.definitions.lock().expect("reading definitions does not panic");
    let custom = core.read(KEY, "", name).as_ref().and_then(established);
    let Some((plural, group)) = name.split_once('.') else { return };
    core.registry.rcu(|registry| match &custom {
        Some(custom) => registry.with_custom(custom),
        None => registry.without(group, plural),
    });
}

/// Deletes the objects of deleted definitions, then lets the definitions go. Runs until shutdown.
pub async fn follow(core: Arc<Core>) {
    let mut shutdown = core.shutdown.clone();
    loop {
        let from = core.store.revision();
        let mut waiting = false;
        for entry in core.store.list(KEY, None, None, None).items {
            let Ok(object) = serde_json::from_slice::<Value>(&entry.record.bytes) else { continue };
            if !object["metadata"]["deletionTimestamp"].is_null() {
                waiting |= !clean_up(&core, &object).await;
            }
        }
        let Ok(mut watch) = core.store.watch(KEY, None, from) else { continue };
        // Objects with finalizers of their own go when somebody else lets them.
        let pause = Duration::from_secs(if waiting { 1 } else { 3600 });
        tokio::select! {
            changed = watch.next() => if changed.is_none() { return },
            () = tokio::time::sleep(pause) => {}
            () = stopped(&mut shutdown) => return,
        }
    }
}

/// Whether the definition is done with.
async fn clean_up(core: &Core, object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    if !finalizers.is_some_and(|list| list.iter().any(|name| name == CLEANUP)) {
        return true;
    }
    let caller = system_caller("custom-resource-finalizer");
    if let Ok(custom) = CustomResource::from_object(object)
        && let Some(resource) = custom.resources().find(|resource| resource.version() == custom.stored_version())
    {
        let target = Target { resource, namespace: String::new(), name: String::new() };
        let everything = ListRequest::default();
        if let Err(error) = delete_collection(core, &caller, &target, &everything, &DeleteOptions::default()).await {
            tracing::warn!(%error, crd = %object["metadata"]["name"], "cannot delete the objects of a deleted definition");
            return false;
        }
        if core.store.count(target.key()) > 0 {
            return false;
        }
    }
    let Ok(resource) = core.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions") else { return false };
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let target = Target { resource, namespace: String::new(), name };
    let done = change(core, &caller, &target, Part::Main, WriteOptions::default(), |old| {
        let mut new = old.clone();
        if let Some(list) = new["metadata"]["finalizers"].as_array_mut() {
            list.retain(|name| name != CLEANUP);
        }
        Ok(Made::Object(new))
    });
    done.await.is_ok_and(|_| true)
}

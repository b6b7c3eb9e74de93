//! Joined hosts come and go: an endpoint is ready while its proxy's stream is open, and a little longer; a certificate is good for one joining.

use super::core::Core;
use super::identity::Caller;
use super::join::ENTRIES;
use bytes::Bytes;
use client::{ApiError, PatchKind, Resource};
use model::Key;
use model::mesh::api::WorkloadEntry;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::Status;
use traffic::Compiler;

const SERVICES: Resource = Resource { group: "", version: "v1", plural: "services" };
const SLICES: Resource = Resource { group: "discovery.k8s.io", version: "v1", plural: "endpointslices" };
/// The label that says who writes an EndpointSlice, and what it says of ours.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "mesh.diolkos.io";
/// After a failed write.
const RETRY: Duration = Duration::from_millis(500);

/// Hosts that were there before a restart of ours have this many times the grace to come back: they find us by trying again and again.
const RESTART_GRACE: u32 = 4;

/// Follows streams of joined hosts.
pub async fn run(core: Arc<Core>) {
    let inbox = core.host_inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut inbox) = inbox else { return };
    core.ready().await;
    let mut tasks = JoinSet::new();
    let grace = core.config.host_grace;
    for key in joined(&core) {
        tasks.spawn(settle(core.clone(), key, grace * RESTART_GRACE));
    }
    loop {
        tokio::select! {
            event = inbox.recv() => match event {
                Some(key) => { tasks.spawn(settle(core.clone(), key, grace)); }
                None => return,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

fn joined(core: &Core) -> Vec<Key> {
    core.objects(|objects| objects.joined_hosts().map(|entry| entry.key.clone()).collect())
}

/// Makes a host's endpoint say what is so: ready at once when it is connected, not ready when it stayed away.
async fn settle(core: Arc<Core>, key: Key, grace: Duration) {
    let connected = || core.connected_hosts().contains(&key);
    if !connected() {
        tokio::time::sleep(grace).await;
    }
    loop {
        let ready = connected();
        match put_slice(&core, &key, ready).await {
            Ok(()) if ready == connected() => {
                tracing::info!(host = %key, ready, "mesh: joined host");
                return;
            }
            Ok(()) => {}
            // Nobody's any more.
            Err(error) if error.is_not_found() => return,
            Err(error) => {
                tracing::warn!(host = %key, %error, "mesh: endpoint of a joined host cannot be written");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// The entry of a joined host, if it is (still) of the joining that the host's certificate is of: whoever has the name next, perhaps as another
/// service, is somebody else.
pub fn entry_of<'a>(objects: &'a Compiler, caller: &Caller) -> Option<&'a WorkloadEntry> {
    let Caller::Host { namespace, name, id } = caller else { return None };
    let entry = objects.entry(&Key::new(namespace.as_str(), name.as_str()))?;
    (entry.joined && *entry.joined_id == **id).then_some(entry)
}

/// Whether a caller is who its certificate says. Only a joined host may be so no longer.
pub fn is_current(core: &Core, caller: &Caller) -> bool {
    !matches!(caller, Caller::Host { .. }) || core.objects(|objects| entry_of(objects, caller).is_some())
}

/// What is said to a host that is not.
pub fn put_out() -> Status {
    Status::permission_denied("this host has not joined, has left, or has joined anew and has another certificate")
}

/// Returns when a host is put out, and for others never. Its connection has to go: with another certificate it comes on another one.
pub async fn until_put_out(core: &Core, caller: &Caller) {
    if !matches!(caller, Caller::Host { .. }) {
        return std::future::pending().await;
    }
    // Before everything is known nobody is.
    core.ready().await;
    if core.soon(|| is_current(core, caller)).await {
        // The sender lives as long as the core.
        let _ = core.observations().wait_for(|_| !is_current(core, caller)).await;
    }
}

/// Makes or changes the EndpointSlice of a joined host.
///
/// # Errors
/// 404: there is no such WorkloadEntry. 409: the slice of its name is somebody else's, or has just changed. Otherwise the API's.
pub async fn put_slice(core: &Core, key: &Key, ready: bool) -> Result<(), ApiError> {
    let entry = core.api.get(ENTRIES, &key.namespace, &key.name).await?;
    let entry: Value = serde_json::from_slice(&entry).unwrap_or(Value::Null);
    let text = |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let service = text("/metadata/annotations/diolkos.io~1service");
    let port = entry.pointer("/spec/ports").and_then(Value::as_object).and_then(|ports| ports.values().next().cloned());
    let (Some(port), false) = (port, service.is_empty()) else {
        // An entry that somebody else made: its endpoints are theirs.
        return Ok(());
    };
    let (name, protocol) = port_of(core, &key.namespace, &service, &port).await?;
    let mut body = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": &*key.name,
            "namespace": &*key.namespace,
            "labels": {
                "kubernetes.io/service-name": service,
                (MANAGED_BY): MANAGER,
            },
            // With the entry the slice goes.
            "ownerReferences": [{
                "apiVersion": "networking.istio.io/v1",
                "kind": "WorkloadEntry",
                "name": &*key.name,
                "uid": text("/metadata/uid"),
            }],
        },
        "addressType": if text("/spec/address").contains(':') { "IPv6" } else { "IPv4" },
        "ports": [{ "name": name, "port": port, "protocol": "TCP", "appProtocol": protocol }],
        "endpoints": [{
            "addresses": [text("/spec/address")],
            "conditions": { "ready": ready, "serving": ready, "terminating": false },
            "targetRef": { "kind": "WorkloadEntry", "namespace": &*key.namespace, "name": &*key.name },
        }],
    });
    let made = core.api.create(SLICES, &key.namespace, None, Bytes::from(body.to_string())).await;
    let Err(error) = made else { return Ok(()) };
    // One that is not found now is gone again: the next try makes it.
    let there = if error.is_conflict() { slice(core, key).await? } else { None };
    let Some(there) = there else { return Err(error) };
    if !is_of(&there, key) {
        let why = format!("EndpointSlice {key} is there and is somebody else's");
        return Err(ApiError::new(409, "AlreadyExists", why));
    }
    // That one and no other, which may have come in its place.
    body["metadata"]["resourceVersion"] = there.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let body = Bytes::from(body.to_string());
    core.api.patch(SLICES, &key.namespace, &key.name, None, PatchKind::Merge, body).await.map(|_| ())
}

/// Whether nobody else has the EndpointSlice of a joined host's name: controllers call theirs `SERVICE-xxxxx`, people as they like.
///
/// # Errors
/// The API's.
pub async fn slice_is_free(core: &Core, key: &Key) -> Result<bool, ApiError> {
    Ok(slice(core, key).await?.is_none_or(|there| is_of(&there, key)))
}

async fn slice(core: &Core, key: &Key) -> Result<Option<Value>, ApiError> {
    match core.api.get(SLICES, &key.namespace, &key.name).await {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).unwrap_or(Value::Null))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether we made an EndpointSlice for this entry, or for one that had its name before.
fn is_of(slice: &Value, entry: &Key) -> bool {
    let owners = slice.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    slice.pointer("/metadata/labels").and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == MANAGER)
        && owners.iter().any(|owner| owner["kind"] == "WorkloadEntry" && owner["name"] == *entry.name)
}

/// Name and protocol of the service's port that the host serves: the one of its number, else the first.
async fn port_of(
    core: &Core,
    namespace: &str,
    service: &str,
    port: &Value,
) -> Result<(String, Option<String>), ApiError> {
    let found = match core.api.get(SERVICES, namespace, service).await {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        Err(error) if error.is_not_found() => Value::Null,
        Err(error) => return Err(error),
    };
    let ports = found.pointer("/spec/ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let chosen = ports
        .iter()
        .find(|it| it.get("targetPort") == Some(port) || it.get("port") == Some(port))
        .or_else(|| ports.first());
    let text = |field: &str| chosen.and_then(|it| it.get(field)).and_then(Value::as_str).map(str::to_owned);
    Ok((text("name").unwrap_or_default(), text("appProtocol")))
}

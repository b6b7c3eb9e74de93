//! How the mesh is, as JSON.

use super::core::Core;
use serde_json::{Value, json};
use std::sync::PoisonError;

/// See [`Handle::report`](super::Handle::report).
pub fn report(core: &Core) -> Value {
    let streams = core.streams();
    let proxies: Vec<Value> = streams
        .iter()
        .map(|stream| {
            let types: Vec<Value> = stream
                .progress
                .iter()
                .map(|progress| {
                    // Types that did not change since are up to date whatever the whole configuration's number is.
                    let newest = match progress.type_url {
                        // Its own, which nobody else counts.
                        xds::envoy::types::SECRET => progress.told,
                        of => core.newest(stream, of),
                    };
                    let behind = progress.acked < newest && progress.refusal.is_none();
                    json!({
                        "type": short(progress.type_url),
                        "version": progress.acked,
                        "sent": progress.told,
                        "newest": newest,
                        "state": match (&progress.refusal, behind) {
                            (Some(_), _) => "refused",
                            (None, true) => "behind",
                            (None, false) => "synced",
                        },
                        "error": progress.refusal.as_ref().map(|refusal| refusal.message.as_str()),
                    })
                })
                .collect();
            let state = |wanted: &str| types.iter().any(|it| it["state"] == wanted);
            let overall = if state("refused") {
                "refused"
            } else if state("behind") || types.is_empty() {
                "behind"
            } else {
                "synced"
            };
            json!({
                "proxy": stream.proxy,
                "address": stream.address,
                "connectedSinceUnixS": stream.since_s,
                "state": overall,
                "types": types,
            })
        })
        .collect();
    let catalog = core.catalog();
    let resources: serde_json::Map<String, Value> =
        catalog.type_urls().map(|type_url| (short(type_url).to_owned(), catalog.count(type_url).into())).collect();
    let unusable: Vec<Value> = core
        .unusable
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(|((kind, key), why)| json!({ "kind": format!("{kind:?}"), "object": key.to_string(), "error": why }))
        .collect();
    json!({
        "version": catalog.sequence(),
        "trustDomain": core.ca.trust_domain(),
        "trust": super::trust::report(core),
        "resources": resources,
        "proxies": proxies,
        "unusableObjects": unusable,
    })
}

/// `Workload` of `type.diolkos.io/mesh.v1.Workload`.
fn short(type_url: &str) -> &str {
    type_url.rsplit('.').next().unwrap_or(type_url)
}

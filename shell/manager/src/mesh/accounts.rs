//! ServiceAccounts of gateways: what a gateway calls services as is an object that others can name, with the labels and annotations
//! that its `infrastructure` asks for. It is owned by the gateway and goes with it.

use super::core::Core;
use bytes::Bytes;
use client::{PatchKind, Resource};
use model::{Key, Labels};
use serde_json::{Value, json};
use std::sync::Arc;

const ACCOUNTS: Resource = Resource { group: "", version: "v1", plural: "serviceaccounts" };
/// Whoever asks for what was made on a gateway's behalf finds it by this label (Gateway API).
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Makes a gateway's account, or gives it the labels and annotations that it should have. False: to be tried again.
pub async fn keep(core: &Core, gateway: &Key, object: &Value, account: &(Arc<str>, (Labels, Labels))) -> bool {
    let (name, (labels, annotations)) = account;
    let mut labels = labels.clone();
    labels.insert(GATEWAY_NAME.into(), gateway.name.clone());
    let to_json = |labels: &Labels| -> Value {
        labels
            .iter()
            .map(|(key, value)| (key.to_string(), Value::from(&**value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let metadata = json!({
        "name": &**name,
        "namespace": &*gateway.namespace,
        "labels": to_json(&labels),
        "annotations": to_json(annotations),
        "ownerReferences": [{
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "name": &*gateway.name,
            "uid": object.pointer("/metadata/uid").cloned().unwrap_or_default(),
            "controller": true,
        }],
    });
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return true;
    }
    let found = core.api.get(ACCOUNTS, &gateway.namespace, name).await;
    let done = match found {
        Ok(bytes) => {
            let have: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let has = |field: &str, wanted: &Labels| {
                let have = have.pointer(field);
                wanted.iter().all(|(key, value)| have.and_then(|have| have.get(&**key)) == Some(&Value::from(&**value)))
            };
            if has("/metadata/labels", &labels) && has("/metadata/annotations", annotations) {
                return true;
            }
            let patch = json!({ "metadata": { "labels": to_json(&labels), "annotations": to_json(annotations) } });
            let body = Bytes::from(patch.to_string());
            core.api.patch(ACCOUNTS, &gateway.namespace, name, None, PatchKind::Merge, body).await.map(drop)
        }
        Err(error) if error.is_not_found() => {
            let body = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
            core.api.create(ACCOUNTS, &gateway.namespace, None, Bytes::from(body.to_string())).await.map(drop)
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => true,
        Err(error) if error.is_transient() => false,
        // Made meanwhile, or the namespace is going: the next look at the gateway sees it.
        Err(error) => {
            tracing::debug!(%gateway, %error, "mesh: a gateway's ServiceAccount could not be kept");
            true
        }
    }
}

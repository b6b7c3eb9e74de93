//! The object that stands for the mesh in Gateway API (XMesh): tools ask it which features the mesh has.

use super::core::Core;
use bytes::Bytes;
use client::{PatchKind, Resource};
use serde_json::{Value, json};

const MESHES: Resource = Resource { group: "gateway.networking.x-k8s.io", version: "v1alpha1", plural: "xmeshes" };
const NAME: &str = "diolkos";

/// Makes the object if it is not there, and says in its status what the mesh has. An API without the kind has no use for it.
pub async fn make(core: &Core) {
    if let Err(error) = keep(core).await {
        tracing::debug!(%error, "mesh: XMesh {NAME} cannot be kept");
    }
}

async fn keep(core: &Core) -> Result<(), client::ApiError> {
    let object = json!({
        "apiVersion": "gateway.networking.x-k8s.io/v1alpha1",
        "kind": "XMesh",
        "metadata": { "name": NAME },
        "spec": {
            "controllerName": &*traffic::Settings::default().controller_name,
            "description": "The platform's own mesh.",
        },
    });
    match core.api.create(MESHES, "", None, Bytes::from(object.to_string())).await {
        Err(error) if !error.is_conflict() => return Err(error),
        _ => {}
    }
    let have: Value = serde_json::from_slice(&core.api.get(MESHES, "", NAME).await?).unwrap_or_default();
    let features: Vec<Value> =
        traffic::compile::status::MESH_FEATURES.iter().map(|name| json!({ "name": name })).collect();
    let now = jiff::Timestamp::from_second(super::core::now().as_secs() as i64).unwrap_or_default().to_string();
    let condition = |kind: &str, message: &str| {
        json!({
            "type": kind,
            "status": "True",
            "reason": kind,
            "message": message,
            "observedGeneration": have.pointer("/metadata/generation").cloned().unwrap_or(1.into()),
            "lastTransitionTime": now,
        })
    };
    let conditions = [
        condition("Accepted", "the mesh is this controller's"),
        condition("Programmed", "proxies are told what hangs on Services"),
    ];
    let body = json!({ "status": { "conditions": conditions, "supportedFeatures": features } });
    let body = Bytes::from(body.to_string());
    core.api.patch(MESHES, "", NAME, Some("status"), PatchKind::Merge, body).await.map(drop)
}

use super::delete::{DeleteOptions, delete};
use super::{Caller, ListRequest, Target, list};
use crate::core::Core;
use kube::Status;
use serde::Deserialize;

#[derive(Deserialize)]
struct Named {
    metadata: Name,
}

#[derive(Deserialize)]
struct Name {
    name: String,
    #[serde(default)]
    namespace: String,
}

/// Deletes everything that a list finds. What vanishes meanwhile is no failure.
///
/// # Errors
/// The first refusal; what was deleted before it stays deleted.
pub async fn delete_collection(
    core: &Core,
    caller: &Caller,
    target: &Target,
    request: &ListRequest,
    options: &DeleteOptions,
) -> Result<usize, Status> {
    let found = list(core, target, request)?;
    let mut deleted = 0;
    for bytes in found.items {
        let Named { metadata } = serde_json::from_slice(&bytes).map_err(Status::internal)?;
        let one = Target { namespace: metadata.namespace, name: metadata.name, resource: target.resource.clone() };
        match delete(core, caller, &one, options).await {
            Ok(_) => deleted += 1,
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    Ok(deleted)
}

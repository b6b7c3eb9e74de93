use super::Target;
use crate::core::Core;
use bytes::Bytes;
use kube::{Resource, Status};
use serde_json::Value;
use std::sync::Arc;
use storage::Record;

/// One object in the version of the request.
///
/// # Errors
/// 404.
pub fn get(core: &Core, target: &Target) -> Result<Bytes, Status> {
    Versions::of(core, &target.resource).encoded(record(core, target)?.bytes)
}

fn record(core: &Core, target: &Target) -> Result<Record, Status> {
    core.store.get(target.key(), &target.namespace, &target.name).ok_or_else(|| target.not_found())
}

/// One object decoded, in the version of the request, with the revision that it is at.
///
/// # Errors
/// 404.
pub fn load(core: &Core, target: &Target) -> Result<(u64, Value), Status> {
    let record = record(core, target)?;
    let object: Value = serde_json::from_slice(&record.bytes).map_err(Status::internal)?;
    Ok((record.revision, Versions::of(core, &target.resource).asked(object)))
}

/// Between the version that a resource's objects are stored in and the one that a request speaks.
#[derive(Clone)]
pub struct Versions {
    /// `None`: they are the same.
    stored: Option<Arc<Resource>>,
    asked: Arc<Resource>,
}

impl Versions {
    /// For a request's resource.
    pub fn of(core: &Core, asked: &Arc<Resource>) -> Versions {
        let place = asked.stored();
        let same = place.version == asked.version() && place.group == asked.group();
        let stored = if same { None } else { core.registry.load().storage(asked).cloned() };
        Versions { stored, asked: asked.clone() }
    }

    /// Stored bytes in the version of the request: the very same bytes when that is the stored version.
    ///
    /// # Errors
    /// 500 when a stored object does not decode.
    pub fn encoded(&self, bytes: Bytes) -> Result<Bytes, Status> {
        if self.stored.is_none() {
            return Ok(bytes);
        }
        let object = serde_json::from_slice(&bytes).map_err(Status::internal)?;
        Ok(serde_json::to_vec(&self.asked(object)).map_err(Status::internal)?.into())
    }

    /// A stored object in the version of the request.
    pub fn asked(&self, object: Value) -> Value {
        match &self.stored {
            Some(stored) => kube::convert::convert(object, stored, &self.asked),
            None => object,
        }
    }

    /// An object of the request's version as it is stored.
    pub fn stored(&self, object: Value) -> Value {
        match &self.stored {
            Some(stored) => kube::convert::convert(object, &self.asked, stored),
            None => object,
        }
    }
}

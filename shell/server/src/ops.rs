//! What the verbs do to the store. Nothing here knows HTTP: the REST handlers and the in-process client both end up here, so both
//! pass the same admission, validation and bookkeeping.

mod aggregate;
mod change;
mod collection;
mod create;
mod delete;
mod draft;
mod list;
mod patch;
mod read;
mod watch;

pub use aggregate::aggregate_roles;
pub use change::{Made, Part, change, replace};
pub use collection::delete_collection;
pub use create::create;
pub use delete::{DeleteOptions, Deleted, delete};
pub use list::{ListRequest, Listed, list};
pub use patch::apply_patch;
pub(crate) use patch::unpin;
pub use patch::{PatchKind, patch};
pub use read::{get, load};
pub use watch::{Event, EventType, WatchRequest, Watching, watch};

use crate::identity::Identity;
use bytes::Bytes;
use kube::{Resource, Status};
use std::sync::Arc;
use storage::CommitError;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Identity.
    pub identity: Identity,
    /// What owns the fields that the caller sets: `fieldManager`, or the first word of the user agent.
    pub manager: String,
}

/// What is asked about.
#[derive(Clone, Debug)]
pub struct Target {
    /// Resource in the version of the request.
    pub resource: Arc<Resource>,
    /// Empty for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
}

impl Target {
    /// 404 of this object.
    pub fn not_found(&self) -> Status {
        Status::not_found(self.resource.group(), self.resource.plural(), &self.name)
    }
    /// 403 of this object.
    pub fn forbidden(&self, detail: &str) -> Status {
        Status::forbidden(self.resource.group(), self.resource.plural(), &self.name, detail)
    }
    /// The store's resource key.
    pub fn key(&self) -> &str {
        &self.resource.stored().key
    }
}

/// How to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// Do everything but store it.
    pub dry_run: bool,
    /// Server-side apply takes fields from other managers.
    pub force: bool,
}

/// What a write left.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object, encoded, in the version of the request.
    pub object: Bytes,
    /// Whether it is new.
    pub created: bool,
    /// For the client's eyes.
    pub warnings: Vec<String>,
}

/// A refusal of the store in the words of the API.
pub(crate) fn refused(error: CommitError, target: &Target) -> Status {
    let (group, plural) = (target.resource.group(), target.resource.plural());
    match error {
        CommitError::Exists(_) => Status::already_exists(group, plural, &target.name),
        CommitError::Stale(_) => Status::modified(group, plural, &target.name),
        CommitError::NotFound => target.not_found(),
        CommitError::Full => {
            let message =
                "the disk of the store is full: nothing was written; reads go on; free some space and try again";
            Status { code: 507, reason: "InsufficientStorage", ..Status::unavailable(message) }
        }
        CommitError::Io(_) | CommitError::Unknown(_) => Status::internal(error),
        CommitError::Closed => Status::unavailable("the server is shutting down"),
    }
}

//! A client of any Kubernetes API; the `ObjectApi` seam.
//!
//! Controllers, node agent and tools speak to an API server through [`ObjectApi`] only. Two things implement it: [`HttpsApi`] here
//! (any conforming API server) and the server's in-process handle. Nothing here knows a kind.

mod api;
mod error;

pub use api::{BoxFuture, DeleteOptions, EventKind, ListOptions, ObjectApi, ObjectList, PatchKind, Resource, WatchEvent, WatchStream};
pub use error::ApiError;

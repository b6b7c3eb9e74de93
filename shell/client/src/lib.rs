//! A client of any Kubernetes API; the `ObjectApi` seam.
//!
//! Controllers, node agent and tools speak to an API server through [`ObjectApi`] only. Two things implement it: [`HttpsApi`] here
//! (any conforming API server) and the server's in-process handle. Nothing here knows a kind.

mod api;
mod error;
mod https;
mod kubeconfig;
mod lines;
mod tls;

pub use api::{
    BoxFuture, DeleteOptions, EventKind, ListOptions, ObjectApi, ObjectList, PatchKind, Resource, WatchEvent,
    WatchStream,
};
pub use error::ApiError;
pub use https::{Answer, HttpsApi};
pub use kubeconfig::{ConfigError, Endpoint};
pub use tls::{PROVIDER, TlsError, client_tls, load_certs, load_key};

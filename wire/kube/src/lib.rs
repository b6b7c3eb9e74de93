//! The form of every Kubernetes kind: schema tables, the registry of resources, JSON, YAML and protobuf codecs, discovery,
//! OpenAPI, custom resource definitions and `Status` answers. What a kind *does* is in `kinds`; how patches combine is in `apply`.
//!
//! Nothing here reads a clock, a file or a socket: bytes and values in, bytes and values out.

mod cel;
pub mod codec;
pub mod convert;
pub mod crd;
pub mod discovery;
pub mod openapi;
pub mod registry;
pub mod schema;
pub mod status;

pub use registry::{Registry, Resource};
pub use schema::{Field, ListKind, MapKind, PatchStrategy, Scalar, Schema, Shape};
pub use status::{Cause, Status};

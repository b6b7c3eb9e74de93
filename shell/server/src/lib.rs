//! The API server: TLS and HTTP, authentication, RBAC, admission, the verbs, watches and discovery over the embedded store.
//!
//! A request goes through [`handler`] (who, may they, is there room), then to `ops`, which knows no HTTP and is also what
//! [`Server::in_process`] calls, so that controllers in the same process pass the same admission and validation as everybody else.
//! What kinds do is in `kinds`, their form in `kube`, patches in `apply`; this crate decides nothing about them.
#![warn(missing_docs)]
#![expect(
    clippy::result_large_err,
    reason = "a refusal ends its request; boxing it would burden every call for that one copy"
)]

mod access;
mod admission;
mod authn;
mod body;
mod bootstrap;
mod config;
mod core;
mod custom;
mod discovery;
mod extension;
mod follow_up;
mod form;
mod handler;
mod identity;
mod in_process;
mod listen;
mod metrics;
mod negotiate;
mod openapi;
mod ops;
pub mod pki;
mod request;
mod respond;
mod select;
mod server;
mod services;
mod subresource;
mod view;
mod watching;

pub use body::Body;
pub use config::{Cidr, Config, Limits};
pub use extension::{Extension, ExtensionRequest};
pub use identity::Identity;
pub use request::{Query, RequestInfo};
pub use server::{Server, StartError, run};

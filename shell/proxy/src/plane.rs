//! The control plane as the proxy sees it: one gRPC connection under mutual TLS that brings configuration (delta xDS), and calls for
//! certificates. When it is away, what is known stays in force.

mod connection;
mod issuer;
mod join;
mod report;
mod snapshot;
mod stream;

pub use connection::{Connection, PlaneError};
pub use issuer::PlaneIssuer;
pub use join::{JoinRequest, Joined, join, renew, renew_alone, valid_for, write_pair};
pub use stream::follow;

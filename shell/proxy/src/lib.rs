//! Data plane: capture, HBONE, HTTP, DNS, telemetry; decides nothing.
//!
//! One process for each node. A control thread talks to the control plane and to the node agent; workers, one a core, carry
//! the traffic. What a request needs to know is in [`mesh`], what happens to it `traffic` and `authz` decide.
//!
//! A captured connection goes: [`outbound`] (which service is it for?) -> [`requests`] or plain bytes -> [`dial`] ->
//! [`hbone::client`] -> (the other node) [`hbone::server`] -> [`policy`] -> [`inbound`] -> the process.

pub mod access;
mod admin;
pub mod attach;
mod attached;
mod callers;
pub mod config;
mod connections;
mod copy;
mod declared;
mod dial;
mod dns;
mod gateway;
mod grpc;
pub mod handover;
mod hbone;
pub mod host;
pub mod identity;
mod inbound;
mod jwt;
mod limits;
pub mod mesh;
pub mod netns;
mod origin;
mod outbound;
mod outbox;
mod pacing;
mod peer_tls;
pub mod plane;
pub mod pods;
mod policy;
mod polling;
mod random;
pub mod redirect;
mod requests;
mod run;
pub mod shared;
mod splice;
mod stream;
mod telemetry;
mod tls_out;
pub mod trace;
mod upstream;
mod worker;
mod workload_api;

pub use config::{Callers, Config, Control, ControlPlane, Exporter, Speaks, Tracing, WorkloadApi};
pub use gateway::ADDRESS_ROUTES;
pub use run::{Proxy, StartError, Successor};

//! Runs the controllers over any Kubernetes API; serves xDS and workload certificates.
//!
//! One set of informers feeds everybody who decides: the reconcilers (`control::Control`), the pod scheduler and the mesh
//! control. What they decide comes back as effects, which [`executor::Executor`] carries out without choosing.

pub mod executor;
mod informer;
mod manager;
pub mod mesh;
mod recorder;
pub mod scheduler;
pub mod subscriber;
pub mod telemetry;
mod types;

pub use manager::{Config, Manager, SharedControl};

//! Runs the controllers over any Kubernetes API; serves xDS and workload certificates.
//!
//! One set of informers feeds everybody who decides: the reconcilers (`control::Control`), the pod scheduler and the mesh
//! control. What they decide comes back as effects, which [`executor::Executor`] carries out without choosing.

pub mod executor;
pub mod scheduler;
pub mod subscriber;

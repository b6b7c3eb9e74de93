//! Node agent: runs the pods that are bound to this node.
//!
//! It watches the API server for them, runs each in containerd through CRI, tells the node's proxy, and reports. Containers run
//! on when the agent is restarted: everything it must know is in the runtime's labels and in the API server.

pub mod agent;
mod backoff;
pub mod cgroup;
mod clock;
pub mod cni;
mod config;
pub mod containerd;
mod events;
pub mod image;
mod machine;
mod mesh;
pub mod pod;
pub mod preflight;
mod probe;
mod refs;
mod register;
mod resource;
mod runtime;
mod serve;
mod stop;
mod upkeep;
mod volume;

pub use agent::{AgentError, run};
pub use config::{Config, TlsFiles};
pub use runtime::{Runtime, RuntimeError};
pub use stop::{remove_pods, stop_pods};

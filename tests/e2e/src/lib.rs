//! End-to-end tests with the real clients: a platform, the tools that drive it, and a runner that says what it skips.

pub mod envoy;
pub mod network;
pub mod platform;
pub mod runner;
pub mod server;
pub mod shell;
pub mod spiffe;

pub use platform::Platform;
pub use runner::{Outcome, Runner};
pub use server::Server;
pub use shell::{Check, contains, eventually};

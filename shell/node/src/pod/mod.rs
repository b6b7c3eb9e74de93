//! One pod on this node: what is wanted, what is there, what to do next, what to say of it.

pub mod config;
mod end;
pub mod env;
pub mod observe;
mod phase;
pub mod plan;
mod publish;
pub mod resources;
pub mod spec;
mod start;
pub mod status;
mod worker;

pub use worker::{Desired, Shared, Worker};

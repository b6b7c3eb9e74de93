//! Virtual time, faults, load models, independent checkers.
//!
//! The same control and scheduler code that runs live runs here against an API in memory, with watches that come late, calls that fail or
//! whose answers are lost, agents that take their time, and nodes that die. All chance comes from one seed, so a run can be had
//! again exactly: its trace has a hash. The [`check`]ers look at the API's objects only and know nothing of how they came about.
#![warn(missing_docs)]

mod agents;
pub mod audit;
pub mod check;
mod cluster;
pub mod planner;
mod random;
mod storage;
pub mod storm;
mod timeline;
pub mod workloads;

pub use cluster::{Cluster, Faults, Stats, Tamper};
pub use random::Random;

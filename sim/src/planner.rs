//! The capacity planner: a pool and the pods that come to it, played through under several policies of the placement engine.
//!
//! A [`Scenario`] is read from text ([`openb`], [`dump`], [`spec`]), [`run`] plays it in virtual time under one [`Policy`] and gives a
//! [`Outcome`]: samples over time, and what it came to. Equal scenarios, policies and seeds give equal outcomes.

mod csv;
pub mod dump;
mod fleet;
mod input;
mod ledger;
mod measure;
pub mod openb;
mod pooled;
mod run;
mod scenario;
pub mod spec;
mod usage;

pub use input::InputError;
pub use measure::{Outcome, Sample, Waits};
pub use run::{RunError, run};
pub use scenario::{Arrivals, GpuAsk, Outage, PlannedNode, PlannedPod, Policy, Scenario};
pub use usage::{Hot, Usage};

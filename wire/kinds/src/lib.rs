//! What each built-in kind does on write and read: defaults, validation, strategy, tables, selectors.
//!
//! Form is not known here (which members exist, their types, protobuf numbers: that is `kube`), and neither are stores
//! or clocks: a time is an argument, and what must be allocated is asked for as an [`Allocation`].
#![warn(missing_docs)]

mod apps;
mod batch;
mod behaviour;
mod cause;
mod config;
mod cron;
mod endpoints;
mod fields;
mod gateway;
mod json;
mod meta;
pub mod names;
mod network;
mod node;
mod plain;
pub mod pod;
mod policy;
pub mod quantity;
mod rbac;
mod registry;
mod scaling;
pub mod selector;
pub mod service;
mod storage;
pub mod table;
pub mod time;
mod webhook;

pub use behaviour::{Allocation, Context, Facts, Field, Generation, Kind};
pub use fields::{FieldSelector, FieldSelectorError};
pub use json::drop_nulls;
pub use kube::Cause;
pub use names::NameRule;
pub use registry::{behaviour, custom};

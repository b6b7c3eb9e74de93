//! How a change and an object combine: JSON patch, merge patch, strategic merge patch, server-side apply.
//!
//! The four answer the same question with more and more knowledge: a JSON patch knows places, a merge patch knows members,
//! a strategic merge patch knows which lists are maps in disguise, and server-side apply knows besides who said what, so
//! that two managers who differ are told instead of overwriting each other.
//!
//! Everything here is a function of values; times are arguments and clients' mistakes are errors, never panics.
#![warn(missing_docs)]

mod conflict;
pub mod fields;
mod json_patch;
mod managed;
mod merge_patch;
mod server_side;
mod strategic;
mod typed;

pub use conflict::{Conflict, Conflicts};
pub use fields::Set;
pub use json_patch::{JsonPatchError, MAX_OPERATIONS, json_patch};
pub use managed::{ManagedFields, ManagedFieldsError, Operation};
pub use merge_patch::merge_patch;
pub use server_side::{ApplyError, FieldManager};
pub use strategic::{StrategicError, strategic_merge};
pub use typed::TypedError;

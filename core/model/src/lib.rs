//! Nouns: object metadata, quantities, selectors, generations, effects.
//!
//! Everything above speaks in these. Nothing here knows bytes, clocks or sockets.
#![warn(missing_docs)]

pub mod map;
pub mod meta;
pub mod quantity;
pub mod selector;
pub mod taint;
pub mod time;

pub use meta::{Key, Labels, Meta, OwnerRef};
pub use quantity::Quantity;
pub use selector::{LabelSelector, Requirement};
pub use time::Timestamp;

//! The request line and its parameters.

mod info;
mod query;

pub use info::{RequestInfo, percent_decode, resolve};
pub use query::Query;

//! The request line and its parameters.

mod info;
mod query;

pub use info::{RequestInfo, resolve};
pub use query::Query;

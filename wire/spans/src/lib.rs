//! Spans of requests and the forms in which others speak of them: the headers `b3` and `sw8` (W3C's `traceparent` is in `http1`), and the messages of
//! OTLP collectors and of SkyWalking. Sans IO: who sends them, and to whom, is not known here.
#![warn(missing_docs)]

pub mod b3;
mod hex;
pub mod otlp;
pub mod skywalking;
mod span;
pub mod sw8;

pub use span::{Attribute, Kind, Resource, Segment, Span};

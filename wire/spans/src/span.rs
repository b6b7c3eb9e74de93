//! A span, in nobody's words.

use crate::sw8::Sw8;
use std::sync::Arc;

/// Who made a span.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Canonical service (`reviews`).
    pub service: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The pod, joined host or gateway.
    pub instance: Arc<str>,
    /// Node.
    pub node: Arc<str>,
}

/// Which side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The proxy before the called process, or a gateway.
    Server,
    /// The caller's proxy.
    Client,
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
}

/// One hop of a request.
#[derive(Clone, Debug)]
pub struct Span {
    /// Not zero.
    pub trace_id: u128,
    /// Not zero.
    pub span_id: u64,
    /// 0: the trace begins here.
    pub parent_id: u64,
    /// Which side.
    pub kind: Kind,
    /// What is done.
    pub name: String,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds since 1970.
    pub end_ns: u64,
    /// Who.
    pub resource: Arc<Resource>,
    /// By the names of OpenTelemetry's semantic conventions.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// It failed.
    pub failed: bool,
    /// The same in SkyWalking's order of things, if somebody wants it.
    pub segment: Option<Segment>,
}

/// A hop in SkyWalking's order: a segment of its own.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// Trace.
    pub trace_id: String,
    /// Segment.
    pub segment_id: String,
    /// Where the request came from.
    pub from: Option<Sw8>,
    /// Path that was asked for.
    pub endpoint: String,
    /// Whether the request goes on from here to another instance (what is asked next is told that span 1 asked it, else span 0).
    pub goes_on: bool,
    /// The address that was called; none: nobody, or the request ended here.
    pub peer: Option<String>,
}

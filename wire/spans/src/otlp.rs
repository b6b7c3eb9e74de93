//! OTLP trace messages (opentelemetry-proto 1.x, `collector/trace/v1` and `trace/v1`).

use crate::span::{Attribute, Kind, Span};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

/// gRPC method.
pub const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Path of OTLP over HTTP when the endpoint names none.
pub const HTTP_PATH: &str = "/v1/traces";

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportRequest {
    /// By who made them.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportResponse {
    /// What was not taken.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`.
#[derive(Clone, PartialEq, Message)]
pub struct PartialSuccess {
    /// Spans that were refused.
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// `ResourceSpans`.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// Who.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// What.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

/// `Resource`.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Attributes.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// `ScopeSpans`.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// Which program.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// Spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<OtlpSpan>,
}

/// `InstrumentationScope`.
#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// `Span`.
#[derive(Clone, PartialEq, Message)]
pub struct OtlpSpan {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// 8 bytes, or none.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// Name.
    #[prost(string, tag = "5")]
    pub name: String,
    /// 2 server, 3 client.
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// Attributes.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// How it ended.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// W3C trace flags in the lowest byte.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// `Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// Why.
    #[prost(string, tag = "2")]
    pub message: String,
    /// 0 unset, 1 ok, 2 error.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// `KeyValue`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// `AnyValue`; arrays, maps and bytes are not made here.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// Which of them.
    #[prost(oneof = "Value", tags = "1, 2, 3, 4")]
    pub value: Option<Value>,
}

/// Kinds of [`AnyValue`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// Truth.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// Number.
    #[prost(int64, tag = "3")]
    Number(i64),
    /// Number.
    #[prost(double, tag = "4")]
    Double(f64),
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }) }
}

fn resource(of: &crate::Resource) -> Resource {
    let text = |key: &str, value: &Arc<str>| pair(key, Value::Text(value.to_string()));
    let attributes = vec![
        text("service.name", &of.service),
        text("service.namespace", &of.namespace),
        text("service.instance.id", &of.instance),
        text("k8s.namespace.name", &of.namespace),
        text("k8s.pod.name", &of.instance),
        text("k8s.node.name", &of.node),
    ];
    Resource {
        attributes: attributes.into_iter().filter(|it| *it != pair(&it.key, Value::Text(String::new()))).collect(),
    }
}

fn span(of: &Span) -> OtlpSpan {
    let parent = if of.parent_id == 0 { Vec::new() } else { of.parent_id.to_be_bytes().to_vec() };
    let attributes = of.attributes.iter().map(|(key, value)| match value {
        Attribute::Text(text) => pair(key, Value::Text(text.clone())),
        Attribute::Number(number) => pair(key, Value::Number(*number)),
    });
    OtlpSpan {
        trace_id: of.trace_id.to_be_bytes().to_vec(),
        span_id: of.span_id.to_be_bytes().to_vec(),
        parent_span_id: parent,
        name: of.name.clone(),
        kind: match of.kind {
            Kind::Server => 2,
            Kind::Client => 3,
        },
        start_time_unix_nano: of.start_ns,
        end_time_unix_nano: of.end_ns,
        attributes: attributes.collect(),
        status: of.failed.then(|| Status { message: String::new(), code: 2 }),
        flags: 1,
    }
}

/// A request to a collector that tells of these spans.
pub fn request(spans: &[Span], version: &str) -> ExportRequest {
    let mut by_resource = BTreeMap::<&crate::Resource, Vec<OtlpSpan>>::new();
    for one in spans {
        by_resource.entry(&one.resource).or_default().push(span(one));
    }
    let scope = Scope { name: "diolkos-proxy".into(), version: version.into() };
    let of_resource = |(who, spans)| ResourceSpans {
        resource: Some(resource(who)),
        scope_spans: vec![ScopeSpans { scope: Some(scope.clone()), spans }],
    };
    ExportRequest { resource_spans: by_resource.into_iter().map(of_resource).collect() }
}

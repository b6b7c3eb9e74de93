//! SkyWalking's agent protocol, version 3: the messages that agents send, segments made of our spans, and calls read out of theirs.

use crate::span::{Attribute, Span};
use prost::Message;

/// Client stream of [`SegmentObject`].
pub const COLLECT_PATH: &str = "/skywalking.v3.TraceSegmentReportService/collect";
/// [`SegmentCollection`] at once.
pub const COLLECT_IN_SYNC_PATH: &str = "/skywalking.v3.TraceSegmentReportService/collectInSync";
/// [`InstanceProperties`].
pub const PROPERTIES_PATH: &str = "/skywalking.v3.ManagementService/reportInstanceProperties";
/// [`InstancePing`].
pub const KEEP_ALIVE_PATH: &str = "/skywalking.v3.ManagementService/keepAlive";
/// Client streams whose messages are taken and forgotten: meters, logs, profiles.
pub const IGNORED_STREAMS: [&str; 6] = [
    "/skywalking.v3.MeterReportService/collect",
    "/skywalking.v3.MeterReportService/collectBatch",
    "/skywalking.v3.LogReportService/collect",
    "/skywalking.v3.ProfileTask/collectSnapshot",
    "/skywalking.v3.SpanAttachedEventReportService/collect",
    "/skywalking.v3.EventService/collect",
];
/// Calls that are answered with no commands: profiling tasks, JVM and CLR figures, configuration.
pub const IGNORED_CALLS: [&str; 5] = [
    "/skywalking.v3.ProfileTask/getProfileTaskCommands",
    "/skywalking.v3.ProfileTask/reportTaskFinish",
    "/skywalking.v3.JVMMetricReportService/collect",
    "/skywalking.v3.CLRMetricReportService/collect",
    "/skywalking.v3.ConfigurationDiscoveryService/fetchConfigurations",
];

/// `Commands`: nothing is ever ordered.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Commands {}

/// A message whose content does not matter.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ignored {}

/// `KeyStringValuePair`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Pair {
    /// Key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `InstanceProperties`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct InstanceProperties {
    /// Service.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Instance.
    #[prost(string, tag = "2")]
    pub instance: String,
    /// Language, host name, ...
    #[prost(message, repeated, tag = "3")]
    pub properties: Vec<Pair>,
}

/// `InstancePingPkg`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct InstancePing {
    /// Service.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Instance.
    #[prost(string, tag = "2")]
    pub instance: String,
}

/// `SegmentCollection`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SegmentCollection {
    /// Segments.
    #[prost(message, repeated, tag = "1")]
    pub segments: Vec<SegmentObject>,
}

/// `SegmentObject`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SegmentObject {
    /// Trace.
    #[prost(string, tag = "1")]
    pub trace_id: String,
    /// Segment.
    #[prost(string, tag = "2")]
    pub segment_id: String,
    /// Spans, the inner ones first.
    #[prost(message, repeated, tag = "3")]
    pub spans: Vec<SpanObject>,
    /// Service.
    #[prost(string, tag = "4")]
    pub service: String,
    /// Instance.
    #[prost(string, tag = "5")]
    pub instance: String,
    /// Spans were left out.
    #[prost(bool, tag = "6")]
    pub is_size_limited: bool,
}

/// `SegmentReference`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SegmentReference {
    /// 0 another process, 1 another thread.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// Trace.
    #[prost(string, tag = "2")]
    pub trace_id: String,
    /// Segment of the caller.
    #[prost(string, tag = "3")]
    pub segment_id: String,
    /// Span in it.
    #[prost(int32, tag = "4")]
    pub span_id: i32,
    /// Service of the caller.
    #[prost(string, tag = "5")]
    pub service: String,
    /// Instance of it.
    #[prost(string, tag = "6")]
    pub instance: String,
    /// What its own caller asked of it.
    #[prost(string, tag = "7")]
    pub endpoint: String,
    /// The address that it called.
    #[prost(string, tag = "8")]
    pub target: String,
}

/// `SpanObject`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SpanObject {
    /// From 0 in each segment.
    #[prost(int32, tag = "1")]
    pub span_id: i32,
    /// -1: the first.
    #[prost(int32, tag = "2")]
    pub parent_span_id: i32,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub start_ms: i64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "4")]
    pub end_ms: i64,
    /// Where it comes from.
    #[prost(message, repeated, tag = "5")]
    pub refs: Vec<SegmentReference>,
    /// What is done.
    #[prost(string, tag = "6")]
    pub operation: String,
    /// Who is called.
    #[prost(string, tag = "7")]
    pub peer: String,
    /// [`ENTRY`], [`EXIT`] or 2 (local).
    #[prost(int32, tag = "8")]
    pub kind: i32,
    /// 0 unknown, 1 database, 2 RPC, 3 HTTP, 4 message queue, 5 cache.
    #[prost(int32, tag = "9")]
    pub layer: i32,
    /// Number of the library in SkyWalking's own list.
    #[prost(int32, tag = "10")]
    pub component_id: i32,
    /// It failed.
    #[prost(bool, tag = "11")]
    pub is_error: bool,
    /// Tags.
    #[prost(message, repeated, tag = "12")]
    pub tags: Vec<Pair>,
}

/// Kind of a span that another called.
pub const ENTRY: i32 = 0;
/// Kind of a span that calls another.
pub const EXIT: i32 = 1;
const HTTP: i32 = 3;

/// A segment of one hop: what came in, and what went out if it went on.
pub fn segment(of: &Span) -> Option<SegmentObject> {
    let segment = of.segment.as_ref()?;
    let refs = segment.from.iter().map(|from| SegmentReference {
        kind: 0,
        trace_id: from.trace_id.clone(),
        segment_id: from.segment_id.clone(),
        span_id: from.span_id as i32,
        service: from.service.clone(),
        instance: from.instance.clone(),
        endpoint: from.endpoint.clone(),
        target: from.target.clone(),
    });
    let tags = of.attributes.iter().map(|(key, value)| Pair {
        key: match *key {
            "http.request.method" => "http.method".into(),
            "http.response.status_code" => "http.status_code".into(),
            other => other.to_owned(),
        },
        value: match value {
            Attribute::Text(text) => text.clone(),
            Attribute::Number(number) => number.to_string(),
        },
    });
    let entry = SpanObject {
        span_id: 0,
        parent_span_id: -1,
        start_ms: (of.start_ns / 1_000_000) as i64,
        end_ms: (of.end_ns / 1_000_000) as i64,
        refs: refs.collect(),
        operation: segment.endpoint.clone(),
        kind: ENTRY,
        layer: HTTP,
        is_error: of.failed,
        tags: tags.collect(),
        ..SpanObject::default()
    };
    let exit = segment.peer.as_ref().map(|peer| SpanObject {
        span_id: 1,
        parent_span_id: 0,
        refs: Vec::new(),
        peer: peer.clone(),
        kind: EXIT,
        ..entry.clone()
    });
    Some(SegmentObject {
        trace_id: segment.trace_id.clone(),
        segment_id: segment.segment_id.clone(),
        spans: exit.into_iter().chain([entry]).collect(),
        service: service_name(&of.resource),
        instance: of.resource.instance.to_string(),
        is_size_limited: false,
    })
}

/// A proxy's service in SkyWalking: apart from the process's own, which has an agent of its own perhaps.
pub fn service_name(of: &crate::Resource) -> String {
    format!("{}.{}", of.service, of.namespace)
}

/// A call between two services, as an agent tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who called; none: somebody without an agent.
    pub source: Option<(String, String)>,
    /// Service and instance that answered; an address when `instance` is empty.
    pub destination: (String, String),
    /// What was spoken.
    pub protocol: &'static str,
    /// How long it took.
    pub took_ms: u64,
    /// It failed.
    pub failed: bool,
}

/// Spans of one segment that are looked at.
const SPANS_MAX: usize = 1000;

/// The calls that a segment tells of: those that the service answered, and those to what has no agent itself (databases, queues, caches).
pub fn calls(of: &SegmentObject) -> Vec<Call> {
    let own = || (of.service.clone(), of.instance.clone());
    let call = |span: &SpanObject, source, destination| Call {
        source,
        destination,
        protocol: match span.layer {
            1 => "database",
            2 => "rpc",
            4 => "mq",
            5 => "cache",
            _ => "http",
        },
        took_ms: u64::try_from(span.end_ms.saturating_sub(span.start_ms)).unwrap_or(0),
        failed: span.is_error,
    };
    let mut calls = Vec::new();
    for span in of.spans.iter().take(SPANS_MAX) {
        match span.kind {
            ENTRY => {
                let from = span.refs.iter().find(|it| it.kind == 0);
                calls.push(call(span, from.map(|it| (it.service.clone(), it.instance.clone())), own()));
            }
            EXIT if matches!(span.layer, 1 | 4 | 5) && !span.peer.is_empty() => {
                calls.push(call(span, Some(own()), (span.peer.clone(), String::new())));
            }
            _ => {}
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sw8::Sw8;
    use crate::{Kind, Resource, Segment};
    use std::sync::Arc;

    fn hop(peer: Option<&str>, from: Option<Sw8>) -> Span {
        let resource = Resource { service: "web".into(), namespace: "shop".into(), ..Resource::default() };
        Span {
            trace_id: 1,
            span_id: 2,
            parent_id: 0,
            kind: Kind::Client,
            name: "GET".into(),
            start_ns: 5_000_000,
            end_ns: 12_000_000,
            resource: Arc::new(resource),
            attributes: vec![("http.response.status_code", Attribute::Number(500))],
            failed: true,
            segment: Some(Segment {
                trace_id: "t".into(),
                segment_id: "s".into(),
                from,
                endpoint: "/a".into(),
                goes_on: peer.is_some(),
                peer: peer.map(str::to_owned),
            }),
        }
    }

    #[test]
    fn a_hop_is_a_segment_and_a_segment_is_calls() {
        let from = Sw8 {
            sample: true,
            trace_id: "t".into(),
            segment_id: "p".into(),
            service: "front".into(),
            ..Sw8::default()
        };
        let client = segment(&hop(Some("10.0.0.1:80"), Some(from))).unwrap();
        assert_eq!(
            client.spans.iter().map(|span| (span.span_id, span.kind)).collect::<Vec<_>>(),
            [(1, EXIT), (0, ENTRY)]
        );
        let calls = calls(&SegmentObject::decode(&*client.encode_to_vec()).unwrap());
        assert_eq!(calls.len(), 1, "the called one tells of what was called");
        assert_eq!(calls[0].source, Some(("front".into(), String::new())));
        assert_eq!((&*calls[0].destination.0, calls[0].took_ms, calls[0].failed), ("web.shop", 7, true));
        assert_eq!(segment(&hop(None, None)).unwrap().spans.len(), 1);
    }

    #[test]
    fn databases_are_told_of_by_their_callers() {
        let span = SpanObject {
            kind: EXIT,
            layer: 1,
            peer: "db:5432".into(),
            start_ms: 9,
            end_ms: 4,
            ..SpanObject::default()
        };
        let segment = SegmentObject { service: "web".into(), spans: vec![span], ..SegmentObject::default() };
        let calls = calls(&segment);
        assert_eq!((&*calls[0].destination.0, calls[0].protocol, calls[0].took_ms), ("db:5432", "database", 0));
    }
}

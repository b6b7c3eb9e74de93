//! What is told of one request when it is over: a line of the access log, a span.
use super::{Place, Site};
use crate::access::Operator;
use crate::telemetry::{Ended, Grpc};
use crate::trace::Went;
use crate::worker::Worker;
use http1::{RequestHead, ResponseHead};
use serde_json::{Value, json};
use spans::Span;

/// A request that somebody wants to be told of. Boxed: most are not.
#[derive(Debug)]
pub struct Record {
    /// One for each operator of the format; those that only the end knows are null.
    values: Option<Vec<Value>>,
    span: Option<Span>,
}

impl Record {
    /// A request that came; its headers are made to continue its trace.
    pub fn begin(worker: &Worker, site: &Site, head: &mut RequestHead, http2: bool) -> Option<Box<Self>> {
        let shared = &worker.shared;
        let log = shared.access_log.as_ref();
        let span = shared.tracer.begin(worker, site, head);
        let values = log.map(|log| {
            let known = |operator: &Operator| of_request(operator, worker, site, head, http2, span.as_ref());
            log.format.operators().map(known).collect()
        });
        (values.is_some() || span.is_some()).then(|| Box::new(Self { values, span }))
    }

    /// The endpoint's answer, as it is passed on.
    pub fn answered(&mut self, worker: &Worker, answer: &ResponseHead) {
        let (Some(log), Some(values)) = (&worker.shared.access_log, &mut self.values) else { return };
        for (operator, value) in log.format.operators().zip(values) {
            if let Operator::Resp(first, second) = operator {
                let text = |name: &str| answer.fields.get_str(name).map(Value::from);
                *value = text(first).or_else(|| second.as_deref().and_then(text)).unwrap_or_default();
            }
        }
    }

    /// It is over.
    pub fn end(self, worker: &Worker, over: &Ended, went: Went<'_>) {
        if let (Some(log), Some(mut values)) = (&worker.shared.access_log, self.values) {
            for (operator, value) in log.format.operators().zip(&mut values) {
                if let Some(known) = of_end(operator, over, went) {
                    *value = known;
                }
            }
            log.put(log.format.line(values));
        }
        if let Some(span) = self.span {
            worker.shared.tracer.end(span, over, went);
        }
    }
}

fn field(head: &RequestHead, name: &str) -> Option<Value> {
    match name {
        ":method" => Some(head.method().into()),
        ":path" => Some(head.target().into()),
        ":authority" | "host" => Some(head.authority().into()),
        ":scheme" => Some("http".into()),
        name => head.fields.get_str(name).map(Value::from),
    }
}

fn of_request(
    operator: &Operator,
    worker: &Worker,
    site: &Site,
    head: &RequestHead,
    http2: bool,
    span: Option<&Span>,
) -> Value {
    match operator {
        Operator::StartTime(form) => {
            let now = jiff::Timestamp::now();
            match form {
                Some(form) => now.strftime(form).to_string().into(),
                None => now.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string().into(),
            }
        }
        Operator::Req(first, second) => {
            field(head, first).or_else(|| field(head, second.as_deref()?)).unwrap_or_default()
        }
        Operator::Protocol => if http2 { "HTTP/2" } else { "HTTP/1.1" }.into(),
        Operator::DownstreamRemote { port: true } => site.client.to_string().into(),
        Operator::DownstreamRemote { port: false } => site.client.ip().to_string().into(),
        Operator::DownstreamLocal => match &site.place {
            Place::Process { to, .. } => to.to_string().into(),
            Place::Gateway(door, _) => json!(format!("*:{}", door.port())),
            Place::Service { service: Some((service, port)), .. } => json!(format!("{service}:{port}")),
            Place::Service { to, .. } => to.map(|to| json!(to.to_string())).unwrap_or_default(),
        },
        Operator::PeerUriSan => match &site.place {
            Place::Process { caller, .. } => {
                caller.identity.as_ref().map(|it| json!(it.to_string())).unwrap_or_default()
            }
            _ => Value::Null,
        },
        Operator::RequestedServerName => match &site.place {
            Place::Gateway(_, Some(name)) => json!(&**name),
            _ => Value::Null,
        },
        Operator::TraceId => match span {
            Some(span) => json!(format!("{:032x}", span.trace_id)),
            None => {
                head.fields.get_str("traceparent").and_then(|text| text.get(3..35)).map(Value::from).unwrap_or_default()
            }
        },
        Operator::Hostname => json!(&worker.shared.config.node_name),
        _ => Value::Null,
    }
}

fn of_end(operator: &Operator, over: &Ended, went: Went<'_>) -> Option<Value> {
    let text = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    Some(match operator {
        Operator::ResponseCode => over.outcome.status.into(),
        Operator::ResponseCodeDetails => match went.details {
            "" if went.upstream.is_some() => "via_upstream".into(),
            details => text(details),
        },
        Operator::ResponseFlags => over.outcome.flag.as_str().into(),
        Operator::BytesReceived => over.sent.into(),
        Operator::BytesSent => over.received.into(),
        Operator::Duration => (over.took.as_millis() as u64).into(),
        Operator::UpstreamHost => went.upstream.map(|address| json!(address.to_string())).unwrap_or_default(),
        Operator::UpstreamCluster => went.service.map(|service| json!(service.to_string())).unwrap_or_default(),
        Operator::RouteName => text(went.route),
        Operator::GrpcStatus { number } => match over.outcome.grpc {
            Grpc::Status(status) if *number => status.into(),
            Grpc::Status(status) => grpc_name(status).into(),
            _ => Value::Null,
        },
        _ => return None,
    })
}

/// As Envoy writes them.
fn grpc_name(status: u8) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(usize::from(status)).copied().unwrap_or("Unknown")
}

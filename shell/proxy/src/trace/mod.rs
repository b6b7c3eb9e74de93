//! Spans: each request that is sampled leaves one at each proxy that it passes. They wait in a bounded queue for the thread that sends them; a
//! full queue drops spans and counts them, and costs no request anything.
mod connect;
mod export;
mod headers;

use crate::config::{Exporter, Speaks, Tracing};
use crate::random;
use crate::requests::{Place, Site};
use crate::telemetry::{Ended, Grpc};
use crate::worker::Worker;
pub use export::run;
use http1::RequestHead;
use model::Key;
use spans::sw8::{self, Sw8};
use spans::{Attribute, Kind, Resource, Segment, Span};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Spans that wait to be sent.
const WAITING: usize = 4096;

/// Makes spans and hands them over.
#[derive(Debug)]
pub struct Tracer {
    /// Share of the traces that begin here, of `u32::MAX`; none: nothing is traced.
    share: Option<u32>,
    segments: bool,
    sender: mpsc::Sender<Span>,
    waiting: Mutex<Option<mpsc::Receiver<Span>>>,
    exporters: Vec<Exporter>,
    counts: Counts,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    /// Taken by a collector.
    pub sent: AtomicU64,
    /// Left out because the queue was full.
    pub dropped: AtomicU64,
    /// Refused by a collector, or not deliverable.
    pub failed: AtomicU64,
}

/// How a request went on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Went<'a> {
    /// The endpoint.
    pub upstream: Option<SocketAddr>,
    /// Its service.
    pub service: Option<&'a Key>,
    /// The route.
    pub route: &'a str,
    /// In place of an endpoint's answer.
    pub details: &'a str,
}

impl Tracer {
    /// As configured.
    pub fn new(config: &Tracing) -> Self {
        let (sender, waiting) = mpsc::channel(WAITING);
        let share = (config.sampling.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32;
        Self {
            share: (!config.exporters.is_empty()).then_some(share),
            segments: config.exporters.iter().any(|it| it.speaks == Speaks::SkyWalking),
            sender,
            waiting: Mutex::new(Some(waiting)),
            exporters: config.exporters.clone(),
            counts: Counts::default(),
        }
    }

    /// What became of spans.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn take_waiting(&self) -> Option<mpsc::Receiver<Span>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A request came: what it says of its trace is continued, and if it is sampled there is a span to be ended. Without anybody to send
    /// spans to, its headers stay as they are: a parent that nobody hears of would break the trace.
    pub fn begin(&self, worker: &Worker, site: &Site, head: &mut RequestHead) -> Option<Span> {
        let share = self.share?;
        let came = headers::read(&head.fields);
        let sampled = came.sampled.unwrap_or_else(|| random::u32() <= share && share > 0);
        if !sampled {
            if came.ids.is_none() {
                // Said to those that follow, lest each of them draws again.
                headers::write(&mut head.fields, &came, headers::fresh_trace(), headers::fresh_span(), false);
            }
            return None;
        }
        let (trace_id, parent_id) = came.ids.unwrap_or_else(|| (headers::fresh_trace(), 0));
        let span_id = headers::fresh_span();
        headers::write(&mut head.fields, &came, trace_id, span_id, true);
        let kind = match &site.place {
            Place::Service { .. } => Kind::Client,
            Place::Gateway(..) | Place::Process { .. } => Kind::Server,
        };
        let goes_on = !matches!(site.place, Place::Process { .. });
        let resource = Arc::new(resource(worker, site));
        let segment = self.segments.then(|| segment(came.sw8, trace_id, &resource, goes_on, head));
        let attribute = |text: &str| Attribute::Text(text.to_owned());
        let mut attributes = vec![
            ("http.request.method", attribute(head.method())),
            ("url.path", attribute(head.path())),
            ("server.address", attribute(head.authority())),
            ("client.address", Attribute::Text(site.client.ip().to_string())),
        ];
        if let Some(agent) = head.fields.get_str("user-agent") {
            attributes.push(("user_agent.original", attribute(agent)));
        }
        if let Place::Process { caller, .. } = &site.place
            && let Some(identity) = &caller.identity
        {
            attributes.push(("diolkos.caller", Attribute::Text(identity.to_string())));
        }
        let start_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let name = format!("{} {}", head.method(), head.authority());
        Some(Span {
            trace_id,
            span_id,
            parent_id,
            kind,
            name,
            start_ns,
            end_ns: start_ns,
            resource,
            attributes,
            failed: false,
            segment,
        })
    }

    /// The request is over.
    pub fn end(&self, mut span: Span, over: &Ended, went: Went<'_>) {
        span.end_ns = span.start_ns + over.took.as_nanos() as u64;
        span.failed = over.outcome.is_failure();
        let mut put = |name, value: Attribute| span.attributes.push((name, value));
        put("http.response.status_code", Attribute::Number(over.outcome.status.into()));
        put("response_flags", Attribute::Text(over.outcome.flag.as_str().into()));
        if let Grpc::Status(status) = over.outcome.grpc {
            put("rpc.grpc.status_code", Attribute::Number(status.into()));
        }
        if let Some(address) = went.upstream {
            put("network.peer.address", Attribute::Text(address.ip().to_string()));
            put("network.peer.port", Attribute::Number(address.port().into()));
        }
        if let Some(service) = went.service {
            put("peer.service", Attribute::Text(service.to_string()));
        }
        for (name, text) in [("http.route", went.route), ("response_code_details", went.details)] {
            if !text.is_empty() {
                put(name, Attribute::Text(text.to_owned()));
            }
        }
        if let Some(segment) = span.segment.as_mut().filter(|it| it.goes_on) {
            segment.peer = went.upstream.map(|address| address.to_string());
        }
        if self.sender.try_send(span).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Prometheus text.
    pub fn prometheus(&self) -> String {
        let mut out = "# HELP diolkos_proxy_spans_total Spans of requests, by what became of them.\n\
                       # TYPE diolkos_proxy_spans_total counter\n"
            .to_owned();
        let counts = &self.counts;
        for (result, count) in [("sent", &counts.sent), ("dropped", &counts.dropped), ("failed", &counts.failed)] {
            let count = count.load(Ordering::Relaxed);
            out.push_str(&format!("diolkos_proxy_spans_total{{result=\"{result}\"}} {count}\n"));
        }
        out
    }
}

/// Who makes a span here: the pod, the joined host, or the gateway.
fn resource(worker: &Worker, site: &Site) -> Resource {
    let node: Arc<str> = worker.shared.config.node_name.as_str().into();
    let origin = &site.origin;
    let own = origin.addresses.first().and_then(|ip| worker.shared.mesh.workload_at(*ip));
    match own {
        Some(own) => Resource {
            service: own.app.clone(),
            namespace: own.key.namespace.clone(),
            instance: own.key.name.clone(),
            node,
        },
        None => Resource {
            service: origin.name.clone(),
            namespace: origin.namespace.clone(),
            instance: origin.name.clone(),
            node,
        },
    }
}

/// The hop as SkyWalking sees it; the next one is told that this one called it.
fn segment(from: Option<Sw8>, trace_id: u128, resource: &Resource, goes_on: bool, head: &mut RequestHead) -> Segment {
    let trace_id = from.as_ref().map_or_else(|| format!("{trace_id:032x}"), |from| from.trace_id.clone());
    let segment_id = format!("{:032x}", random::u128());
    let endpoint = head.path().to_owned();
    let onward = Sw8 {
        sample: true,
        trace_id: trace_id.clone(),
        segment_id: segment_id.clone(),
        span_id: u32::from(goes_on),
        service: spans::skywalking::service_name(resource),
        instance: resource.instance.to_string(),
        endpoint: endpoint.clone(),
        target: head.authority().to_owned(),
    };
    let _ = head.fields.set(sw8::HEADER, onward.encode().as_bytes());
    Segment { trace_id, segment_id, from, endpoint, goes_on, peer: None }
}

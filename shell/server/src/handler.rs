//! One request, from its head to its answer: authentication, limits, authorisation, dispatch, accounting.

mod paths;
mod resource;

pub(crate) use resource::Running;

use crate::access;
use crate::authn;
use crate::body::Body;
use crate::core::Core;
use crate::extension::ExtensionRequest;
use crate::identity::Identity;
use crate::metrics::Gauge;
use crate::request::{self, Query, RequestInfo};
use crate::respond;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use kube::Status;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Who is at the other end of a connection.
pub struct Peer {
    /// Address.
    pub from: SocketAddr,
    /// The client certificate's identity.
    pub certificate: Option<Identity>,
    /// Came through the dashboard's listener.
    pub dashboard: bool,
}

/// Everything about a request but its body.
pub(crate) struct Call {
    pub info: RequestInfo,
    pub query: Query,
    pub method: Method,
    pub headers: http::HeaderMap,
    pub identity: Identity,
}

/// Answers a request. Never fails: what goes wrong becomes a Status.
pub async fn handle(core: Arc<Core>, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = request::resolve(request.method(), request.uri().path(), &query);
    let about = Accounted::of(&core, &info);
    let work = AssertUnwindSafe(answer(core.clone(), &peer, request, info, query)).catch_unwind();
    let response = match work.await {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => respond::status(&status),
        Err(_) => {
            // The panic hook has printed where. The request is lost; the platform is not.
            core.metrics.panics.fetch_add(1, Ordering::Relaxed);
            respond::status(&Status::internal("the handler of this request panicked; this is a defect of diolkos"))
        }
    };
    about.finish(&core, response.status().as_u16(), started);
    response
}

/// Labels of a request's metrics: only registered resources, so that a client cannot make series.
struct Accounted {
    verb: &'static str,
    group: String,
    resource: String,
    subresource: String,
}

impl Accounted {
    fn of(core: &Core, info: &RequestInfo) -> Accounted {
        let registry = core.registry.load();
        let known = info.is_resource.then(|| registry.resource(&info.group, &info.version, &info.resource)).flatten();
        let (group, resource, subresource) = match known {
            Some(resource) => {
                let subresource = resource.subresource(&info.subresource).map_or("", |sub| sub.name);
                (resource.group().to_owned(), resource.plural().to_owned(), subresource.to_owned())
            }
            None => Default::default(),
        };
        Accounted { verb: info.verb, group, resource, subresource }
    }

    fn finish(self, core: &Core, code: u16, started: Instant) {
        let Accounted { verb, group, resource, subresource } = &self;
        core.metrics.observe(verb, group, resource, subresource, code, started.elapsed());
    }
}

async fn answer(
    core: Arc<Core>,
    peer: &Peer,
    mut request: Request<Incoming>,
    info: RequestInfo,
    query: Query,
) -> Result<Response<Body>, Status> {
    let extension = core.extensions.iter().find(|extension| extension.takes(&info.path, peer.dashboard)).cloned();
    let public = extension.as_ref().is_some_and(|extension| extension.is_public(&info.path));
    let identity = if public {
        Identity::anonymous()
    } else {
        let sender = authn::authenticate(&core, request.headers(), peer)?;
        let identity = authn::impersonated(&core, sender, request.headers())?;
        access::authorize(&core, &identity, &info)?;
        if resource::is_tunnel(&info) && info.verb == "get" {
            // WebSockets are opened by GET, but to run something in a pod is more than to read it.
            access::authorize(&core, &identity, &RequestInfo { verb: "create", ..info.clone() })?;
        }
        identity
    };
    let upgrade = resource::is_tunnel(&info).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let call = Call { info, query, method: head.method, headers: head.headers, identity };
    if resource::is_stream(&call) {
        let permit = core.gates.streams.clone().try_acquire_owned().map_err(|_| busy(&core))?;
        return resource::stream(core, call, upgrade, permit).await;
    }
    let reads = matches!(call.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let (gate, gauge) =
        if reads { (&core.gates.reads, &core.metrics.reads) } else { (&core.gates.mutations, &core.metrics.mutations) };
    let _permit = gate.try_acquire().map_err(|_| busy(&core))?;
    let _running = Gauge::enter(gauge);
    let work = async {
        let body = if reads { Bytes::new() } else { read_body(body, core.config.limits.body_bytes).await? };
        match extension {
            Some(extension) => {
                let Call { info, query, method, headers, identity } = call;
                Ok(extension.call(ExtensionRequest { method, info, query, headers, body, identity }).await)
            }
            None if call.info.is_resource => resource::dispatch(&core, &call, body).await,
            None => paths::dispatch(&core, &call),
        }
    };
    match tokio::time::timeout(core.config.limits.request_timeout, work).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::timeout(
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        )),
    }
}

fn busy(core: &Core) -> Status {
    core.metrics.rejected.fetch_add(1, Ordering::Relaxed);
    Status::too_many_requests("Too many requests, please try again later.", 1)
}

/// A body too large is read on and thrown away, up to this many times the limit, before the refusal: a client that is
/// still writing when the answer comes takes a closed stream for a broken connection and never reads the 413.
const DISCARDED_LIMITS: usize = 16;

async fn read_body(mut body: Incoming, limit: usize) -> Result<Bytes, Status> {
    let (mut kept, mut seen) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("the request's body ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen <= limit {
            if kept.is_empty() && body.is_end_stream() {
                return Ok(data);
            }
            kept.extend_from_slice(&data);
        } else if seen > limit.saturating_mul(DISCARDED_LIMITS) {
            break;
        } else {
            kept = BytesMut::new();
        }
    }
    if seen > limit { Err(Status::too_large(limit)) } else { Ok(kept.freeze()) }
}

//! Connections that are passed whole to one endpoint of a service.
use crate::copy;
use crate::dial::{DialError, Dialled};
use crate::limits;
use crate::origin::Origin;
use crate::random;
use crate::requests;
use crate::stream::Stream;
use crate::telemetry::{Carries, Peers};
use crate::tls_out::{self, Speaks, Toward};
use crate::upstream::{Asker, InFlight, Port, Upstream};
use crate::worker::Worker;
use model::Key;
use model::mesh::BackendTarget;
use model::mesh::traffic::{ConnectionPool, HashKey};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;
use traffic::GatewayEntry;
use traffic::outlier::Outcome;
use traffic::stream::Connection;

/// Endpoints that a connection is tried on.
const CONNECT_TRIES: usize = 3;

/// Who passes a connection on.
#[derive(Clone, Copy)]
pub struct Onward<'a> {
    /// On whose behalf.
    pub origin: &'a Arc<Origin>,
    /// The gateway through which it came; none: a pod's own.
    pub gateway: Option<&'a Arc<GatewayEntry>>,
    /// Who opened it.
    pub from: SocketAddr,
}

/// The port that a route of connections on a service's port leads to; without a route, the port itself. None: the route leads nowhere.
/// `name`: the server that a connection under TLS asks for; `to`: the address that it was meant for.
pub fn routed(
    worker: &Worker,
    origin: &Origin,
    port: &Arc<Port>,
    (name, to): (Option<&str>, SocketAddr),
) -> Option<Arc<Port>> {
    let entry = port.entry();
    let caller = entry.asks_labels().then(|| worker.shared.mesh.workload_of(origin)).flatten();
    let labels = caller.as_ref().map(|caller| &caller.labels);
    let connection = Connection { name, namespace: &origin.namespace, labels, to: Some(to.ip()) };
    let route = entry.stream(&port.service().service.key, connection);
    let Some(rule) = route.and_then(|route| route.rules.first()) else { return Some(port.clone()) };
    match &rule.backends.get(traffic::balance::weighted(&rule.backends, random::u32())?)?.target {
        BackendTarget::Service { service, port: number } => {
            let number = if *number == 0 { port.entry().port.port } else { *number };
            worker.ports.get(&worker.shared, service, number, Asker { origin, to: Some(to) })
        }
        BackendTarget::Invalid { .. } => None,
    }
}

/// A connection to a service: passed whole to one of its endpoints.
pub async fn balance(worker: &Arc<Worker>, onward: Onward<'_>, stream: Stream, port: &Arc<Port>) {
    let by_address = port.service().service.affinity_s.is_some() || port.hash_key() == Some(&HashKey::SourceIp);
    let affinity = by_address.then(|| requests::hash_of_address(onward.from.ip()));
    let mut tried = Vec::new();
    let dialled = loop {
        let Some(upstream) = port.choose(&tried, affinity, worker.now_ms()) else { break Err(None) };
        let toward = Toward { port, gateway: onward.gateway, client: Some(onward.from) };
        let dialled = tls_out::dial(worker, onward.origin, toward, &upstream, Speaks::Opaque);
        match dialled.await {
            Ok(dialled) => {
                limits::report(port, upstream.address, Outcome::Status(200), worker.now_ms());
                break Ok((dialled, upstream));
            }
            Err(error) => {
                limits::report(port, upstream.address, Outcome::Local, worker.now_ms());
                if !error.is_retriable() || tried.len() + 1 >= CONNECT_TRIES {
                    break Err(Some(error));
                }
                tried.push(upstream.address);
            }
        }
    };
    let service = port.service().service.known_as();
    match dialled {
        Ok((dialled, upstream)) => {
            let limits = port.policy().map(|policy| Lasting::of(&policy.pool)).unwrap_or_default();
            pass(worker, onward.origin, stream, dialled, upstream, (Some(service), limits)).await;
        }
        Err(error) => refuse(onward.origin, stream, &format!("service {service}"), error.as_ref()),
    }
}

/// How long a connection may last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lasting {
    /// Without bytes.
    idle: Option<Duration>,
    /// At all.
    most: Option<Duration>,
}

impl Lasting {
    fn of(pool: &ConnectionPool) -> Self {
        let time = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        Self { idle: time(pool.tcp_idle_timeout_ms), most: time(pool.tcp_max_duration_ms) }
    }

    /// Breaks copying off when it has lasted too long, or nothing came for too long: whenever bytes come, it is polled.
    async fn keep(self, copying: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        if self.idle.is_none() && self.most.is_none() {
            return copying.await;
        }
        let mut copying = std::pin::pin!(copying);
        let begun = Instant::now();
        let mut touched = begun;
        let end = |touched: Instant| {
            [self.idle.map(|idle| touched + idle), self.most.map(|most| begun + most)].into_iter().flatten().min()
        };
        let mut timer = std::pin::pin!(tokio::time::sleep_until(end(touched).unwrap_or(begun)));
        poll_fn(|cx| {
            if timer.as_mut().poll(cx).is_pending() {
                touched = Instant::now();
                return copying.as_mut().poll(cx);
            }
            let end = end(touched).unwrap_or(begun);
            if Instant::now() >= end {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            timer.as_mut().reset(end);
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            copying.as_mut().poll(cx)
        })
        .await
    }
}

/// Copies until both ends are done.
pub async fn pass(
    worker: &Arc<Worker>,
    origin: &Origin,
    mut stream: Stream,
    mut dialled: Dialled,
    upstream: Upstream,
    (service, lasting): (Option<&Key>, Lasting),
) {
    let _in_flight = InFlight::begin(&upstream.load);
    let peers = Peers::outbound(worker, origin, dialled.peer.as_ref(), service, Carries::Bytes, dialled.mtls);
    let connection = worker.opaque.open(&worker.cells, &peers);
    let copying = copy::bidirectional(&mut stream, &mut dialled.stream, connection.copied());
    let result = lasting.keep(copying).await;
    connection.close(&result);
    if let Err(error) = result {
        finish_broken(stream, dialled.stream, &error);
    }
}

/// A connection that broke on one side breaks on the other: an orderly end would claim that all was sent.
pub fn finish_broken(one: Stream, other: Stream, error: &io::Error) {
    tracing::debug!(%error, "connection broken");
    one.abort();
    other.abort();
}

/// Ends a connection that cannot be passed on.
pub fn refuse(origin: &Origin, stream: Stream, to: &str, error: Option<&DialError>) {
    let why = error.map_or_else(|| "no endpoint is ready".to_owned(), ToString::to_string);
    tracing::warn!(from = %origin.name, namespace = %origin.namespace, to, why, "connection refused");
    stream.abort();
}

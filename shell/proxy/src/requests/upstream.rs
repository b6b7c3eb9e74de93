//! Connections on which requests go out.
use super::Place;
use super::conn;
use super::exchange::Exchange;
use super::plan::Target;
use super::pool::{H1Connection, H2Connection, Life, PoolKey};
use crate::dial::{self, DialError, Dialled};
use crate::hbone::{STREAM_WINDOW_BYTES, TUNNEL_WINDOW_BYTES};
use crate::stream::Stream;
use crate::telemetry::{Carries, EdgeCells, Peers};
use crate::tls_out::{self, Speaks, Toward};
use crate::upstream::Upstream;
use crate::worker::Worker;
use bytes::Bytes;
use model::mesh::traffic::Pings;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A connection to an endpoint, fresh or from the pool.
#[derive(Debug)]
pub enum Connected {
    H1(Box<H1Connection>),
    H2(H2Connection),
}

/// Streams that an endpoint is taken to take until it says so: no fewer are recommended (RFC 9113, 6.5.2).
const STREAMS_BEFORE_SETTINGS: usize = 100;
/// How long an endpoint may take to say what it takes in HTTP/2.
const SETTINGS_PATIENCE: Duration = Duration::from_secs(5);

/// Takes a connection to the endpoint from the pool, or opens one.
pub async fn connect(exchange: &Exchange<'_>, upstream: &Upstream) -> Result<Connected, DialError> {
    let worker = exchange.worker;
    let key = exchange.pool_key(upstream);
    if exchange.extended
        && let Some(connection) = Box::pin(extended(exchange, upstream, &key)).await?
    {
        return Ok(Connected::H2(connection));
    }
    if exchange.http2 {
        if let Some(connection) = worker.http.h2(&key) {
            return Ok(Connected::H2(connection));
        }
    } else if let Some(connection) = worker.http.take_h1(&key) {
        return Ok(Connected::H1(connection));
    }
    // Apart, so that requests that find a connection do not carry room for opening one.
    Box::pin(open(exchange, upstream, key)).await
}

/// A connection in HTTP/2 to an endpoint that takes extended CONNECT. None: it does not, or speaks no HTTP/2 at all.
async fn extended(
    exchange: &Exchange<'_>,
    upstream: &Upstream,
    key: &PoolKey,
) -> Result<Option<H2Connection>, DialError> {
    let worker = exchange.worker;
    let pooled = worker.http.h2(key);
    if let Some((takes, connection)) = pooled.and_then(|pooled| pooled.takes_extended_connect().zip(Some(pooled))) {
        return Ok(takes.then_some(connection));
    }
    let (stream, waited, cells) = dial(exchange, upstream, key, true).await?;
    match http2(worker, key.clone(), stream, cells, waited, exchange.life(), true).await {
        Ok(connection) => Ok(Some(connection).filter(|connection| connection.extended == Some(true))),
        Err(error) => {
            tracing::debug!(%error, address = %upstream.address, "an endpoint speaks no HTTP/2");
            Ok(None)
        }
    }
}

async fn open(exchange: &Exchange<'_>, upstream: &Upstream, key: PoolKey) -> Result<Connected, DialError> {
    let worker = exchange.worker;
    let (stream, waited, cells) = dial(exchange, upstream, &key, exchange.http2).await?;
    if !exchange.http2 {
        let halves = conn::halves(stream);
        return Ok(Connected::H1(Box::new(H1Connection::new(key, halves, cells, waited, exchange.life()))));
    }
    let failed = |error: h2::Error| DialError::Connect(upstream.address, io::Error::other(error));
    http2(worker, key, stream, cells, waited, exchange.life(), false).await.map(Connected::H2).map_err(failed)
}

/// A new connection, whether it waited for its first request, and where its requests are counted.
async fn dial(
    exchange: &Exchange<'_>,
    upstream: &Upstream,
    key: &PoolKey,
    http2: bool,
) -> Result<(Stream, bool, Arc<EdgeCells>), DialError> {
    let worker = exchange.worker;
    // One that waited may be closed by now as well as one that was used.
    let mut waited = false;
    let dialled = match &exchange.plan.target {
        Target::Port(port) => {
            let speaks = if http2 { Speaks::Http2 } else { Speaks::Http1 };
            let (origin, gateway) = (&exchange.plan.origin, exchange.plan.gateway.as_ref());
            tls_out::dial(worker, origin, Toward { port, gateway, client: key.client }, upstream, speaks).await?
        }
        Target::Process(address) => {
            let waiting = exchange.site.take_process();
            waited = waiting.is_some();
            let stream = match waiting {
                Some(stream) => stream,
                None => match &exchange.site.place {
                    Place::Process { pod, caller, .. } => dial::process(pod, *address, caller.address).await?.into(),
                    _ => dial::plain(&exchange.plan.origin, *address).await?.into(),
                },
            };
            Dialled { stream, peer: None, mtls: false }
        }
    };
    let cells = match &exchange.site.place {
        // Who calls the process differs from request to request: each is counted where it came in.
        Place::Process { .. } => Arc::default(),
        _ => {
            let (origin, service) = (&exchange.plan.origin, exchange.plan.service());
            let peer = dialled.peer.as_ref();
            worker.cells.edge(&Peers::outbound(worker, origin, peer, service, Carries::Requests, dialled.mtls))
        }
    };
    Ok((dialled.stream, waited, cells))
}

/// Begins HTTP/2 on a connection, and shares it. `settled`: when its other end has said what it takes.
pub async fn http2(
    worker: &Worker,
    key: PoolKey,
    stream: Stream,
    cells: Arc<EdgeCells>,
    waited: bool,
    life: Life,
    settled: bool,
) -> Result<H2Connection, h2::Error> {
    let leaving = stream.leaving();
    let handshake = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(TUNNEL_WINDOW_BYTES)
        .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
        .enable_push(false)
        .max_header_list_size(64 << 10)
        .handshake::<_, Bytes>(stream);
    let (sender, mut connection) = handshake.await?;
    let mut ponger = connection.ping_pong();
    let mut extended = None;
    if let (true, Some(ponger)) = (settled, &mut ponger) {
        // What answers a PING has sent its settings before.
        let heard = async {
            tokio::select! {
                ended = &mut connection => Err(ended.err().unwrap_or(h2::Reason::NO_ERROR.into())),
                heard = ponger.ping(h2::Ping::opaque()) => heard.map(drop),
            }
        };
        let late = |_| Err(h2::Reason::SETTINGS_TIMEOUT.into());
        tokio::time::timeout(SETTINGS_PATIENCE, heard).await.unwrap_or_else(late)?;
        extended = Some(sender.is_extended_connect_protocol_enabled());
    }
    let asking = life.pings.zip(ponger);
    let closed = Arc::new(AtomicBool::new(false));
    let ended = closed.clone();
    tokio::spawn(async move {
        let silent = async {
            match asking {
                Some((pings, ponger)) => silence(pings, ponger).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP/2 connection ended");
            },
            () = silent => tracing::debug!("an HTTP/2 connection is closed: its other end answers no PING"),
        }
        ended.store(true, Ordering::Relaxed);
    });
    let connection = H2Connection { sender, cells, closed, leaving, reused: waited, life, uses: 1, extended };
    worker.http.put_h2(key, connection.clone());
    Ok(connection)
}

/// Resolves when the other end does not answer in time.
async fn silence(pings: Pings, mut asked: h2::PingPong) {
    loop {
        tokio::time::sleep(Duration::from_millis(pings.interval_ms)).await;
        let answer = asked.ping(h2::Ping::opaque());
        if !matches!(tokio::time::timeout(Duration::from_millis(pings.timeout_ms), answer).await, Ok(Ok(_))) {
            return;
        }
    }
}

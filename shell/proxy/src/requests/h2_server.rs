//! Clients that speak HTTP/2.
use super::body::Source;
use super::convert;
use super::exchange;
use super::reply::Responder;
use super::{Place, Site};
use crate::hbone::{STREAM_WINDOW_BYTES, TUNNEL_WINDOW_BYTES};
use crate::pods::Phase;
use crate::stream::Stream;
use crate::worker::Worker;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one client at a time.
const MAX_STREAMS: u32 = 256;
const MAX_HEADER_BYTES: u32 = 64 << 10;
/// Window of a stream whose client is not of the cluster: what a slow endpoint can make us hold, times streams.
const PUBLIC_WINDOW_BYTES: u32 = 256 << 10;

/// Serves requests, each in a task of its own.
pub async fn serve(worker: &Arc<Worker>, site: Arc<Site>, stream: Stream) {
    let window = if site.is_public() { PUBLIC_WINDOW_BYTES } else { STREAM_WINDOW_BYTES };
    let handshake = h2::server::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(TUNNEL_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .handshake::<_, Bytes>(stream);
    let mut connection = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(connection)) => connection,
        _ => return,
    };
    let mut leaving = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = told_to_leave(worker, &site), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                // A task is moved several times before and after it runs: what is large stays where it is.
                tokio::spawn(Box::pin(one(worker.clone(), site.clone(), request, respond)));
            }
            Some(Err(error)) => return tracing::debug!(%error, client = %site.client, "an HTTP/2 connection ended"),
            None => return,
        }
    }
}

async fn told_to_leave(worker: &Worker, site: &Site) {
    match &site.place {
        Place::Process { pod, caller, .. } => tokio::select! {
            () = pod.reached(Phase::Draining) => {}
            () = caller.coming_again(pod) => {}
            () = worker.shared.stopped() => {}
        },
        Place::Service { .. } | Place::Gateway(..) => worker.shared.stopped().await,
    }
}

async fn one(worker: Arc<Worker>, site: Arc<Site>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let _busy = worker.shared.busy();
    let ended = request.body().is_end_stream();
    let Some(mut head) = convert::request(&request, ended) else {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        let _ = respond.send_response(response, true);
        return;
    };
    let head_request = head.method() == "HEAD";
    let source = if ended { Source::Empty } else { Source::H2(request.into_body()) };
    exchange::run(&worker, &site, &mut head, source, Responder::H2 { respond, head_request }, true).await;
}

//! Clients that speak HTTP/1.1.
use super::body::Source;
use super::conn::{self, ReadError, Reader, Writer};
use super::exchange::{self, Outcome};
use super::reply::{Caller, Reply, Responder};
use super::{Place, Site};
use crate::connections::finish_broken;
use crate::copy::{self, Copied};
use crate::pods::Phase;
use crate::stream::Stream;
use crate::worker::Worker;
use http1::{BodyDecoder, Framing, Limits, RequestHead, Version};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// How long a gateway's client may be idle, or take for a head.
const PUBLIC_PATIENCE: Duration = Duration::from_secs(60);

/// Serves requests one after the other.
pub async fn serve(worker: &Arc<Worker>, site: Arc<Site>, mut reader: Reader, mut writer: Writer) {
    let mut head = RequestHead::default();
    let mut patience = site.is_public().then(Patience::begin);
    let stopped = site.closing(worker);
    tokio::pin!(stopped);
    loop {
        let read = tokio::select! {
            biased;
            read = reader.request(Limits::default(), &mut head) => read,
            () = &mut stopped => return close(&mut writer).await,
            () = Patience::ends(&mut patience) => return close(&mut writer).await,
        };
        match read {
            Ok(Some(())) => {}
            Ok(None) => return close(&mut writer).await,
            Err(ReadError::Head(error)) => {
                tracing::debug!(%error, client = %site.client, "a request is refused");
                return Box::pin(refuse(&mut writer, error.status())).await;
            }
            Err(_) => return,
        }
        // Apart, so that a connection that waits holds no room for what a request needs; the allocator gives the next one the same.
        // Made where it stays: to make it first and then move it would copy all of it.
        let served = Box::write(Box::new_uninit(), one(worker, &site, &mut reader, &mut writer, &mut head));
        match Box::into_pin(served).await {
            Outcome::Keep => {}
            Outcome::Close => return close(&mut writer).await,
            Outcome::Switched(upstream) => return Box::pin(switched(reader, writer, upstream)).await,
        }
        if let Some(patience) = &mut patience {
            patience.since = Instant::now();
        }
    }
}

/// How long is waited for the next request: one timer for a connection, set again only when it fires.
struct Patience {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Patience {
    fn begin() -> Self {
        let since = Instant::now();
        Self { since, timer: Box::pin(tokio::time::sleep(PUBLIC_PATIENCE)) }
    }

    async fn ends(of: &mut Option<Self>) {
        let Some(patience) = of else { return std::future::pending().await };
        loop {
            patience.timer.as_mut().await;
            let end = patience.since + PUBLIC_PATIENCE;
            if Instant::now() >= end {
                return;
            }
            patience.timer.as_mut().reset(end.into());
        }
    }
}

async fn one(
    worker: &Arc<Worker>,
    site: &Site,
    reader: &mut Reader,
    writer: &mut Writer,
    head: &mut RequestHead,
) -> Outcome {
    let leaving = match &site.place {
        Place::Process { pod, caller, .. } => pod.phase() >= Phase::Draining || caller.should_come_again(pod),
        Place::Service { .. } | Place::Gateway(..) => false,
    };
    let keep_alive = head.keep_alive && !leaving && !worker.shared.is_stopping();
    if head.method() == "CONNECT" {
        Box::pin(refuse(writer, 405)).await;
        return Outcome::Close;
    }
    if head.expect_continue {
        // The endpoint is not asked first: to wait for its word would hold the body back for a round trip that hardly
        // anyone uses to say no.
        writer.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        if writer.flush().await.is_err() {
            return Outcome::Close;
        }
        head.expect_continue = false;
    }
    let (source, caller) = match head.framing {
        Framing::Empty => (Source::Empty, Caller::H1(Mutex::new(reader))),
        framing => (Source::H1(reader, BodyDecoder::new(framing)), Caller::Unseen),
    };
    let responder = Responder::h1(writer, head, keep_alive);
    exchange::run(worker, site, head, source, responder, caller).await
}

async fn refuse(writer: &mut Writer, status: u16) {
    let (mut head, body) = Reply::new(status, "bad request").render(false);
    head.keep_alive = false;
    http1::encode_response(&head, Version::Http11, false, &mut writer.out);
    let _ = writer.flush_with(&[&body]).await;
    close(writer).await;
}

async fn close(writer: &mut Writer) {
    let _ = writer.shutdown().await;
}

/// Client and endpoint speak something else from now on, until either is done.
async fn switched(reader: Reader, writer: Writer, mut upstream: Stream) {
    let Some(mut client) = conn::join(reader, writer) else { return };
    let copied = Copied::default();
    if let Err(error) = copy::bidirectional(&mut client, &mut upstream, &copied).await {
        finish_broken(client, upstream, &error);
    }
    let (there, back) = copied.so_far();
    tracing::debug!(there, back, "an upgraded connection ended");
}

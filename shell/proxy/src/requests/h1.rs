//! Clients that speak HTTP/1.1.
use super::body::Source;
use super::conn::{self, ReadError, Reader, Writer};
use super::exchange::{self, Outcome};
use super::reply::{Caller, Reply, Responder};
use super::standing::Standing;
use super::{Place, Site};
use crate::connections::finish_broken;
use crate::copy::{self, Copied};
use crate::pods::Phase;
use crate::stream::{Chunk, Stream};
use crate::worker::Worker;
use http1::{BodyDecoder, Framing, Limits, RequestHead, RequestKind, Version};
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;

/// How long a client may take to read why its connection ends, while what it still sends is thrown away. With bytes unread the kernel would
/// reset the connection, and the client lose what it was told.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(5);

/// Serves requests one after the other.
#[expect(clippy::manual_async_fn, reason = "a waiting connection would hold its arguments twice: rust-lang/rust#62958")]
pub fn serve(
    worker: &Arc<Worker>,
    site: Arc<Site>,
    mut reader: Reader,
    mut writer: Writer,
) -> impl Future<Output = ()> {
    async move {
        let mut head = RequestHead::default();
        let stopped = site.closing(worker);
        tokio::pin!(stopped);
        loop {
            let read = tokio::select! {
                biased;
                read = reader.request(Limits::default(), &mut head) => read,
                () = &mut stopped => return close(&mut writer).await,
            };
            match read {
                Ok(Some(())) => {}
                Ok(None) => return close(&mut writer).await,
                Err(ReadError::Head(error)) => {
                    tracing::debug!(%error, client = %site.client, "a request is refused");
                    let _ = Box::pin(refuse(&mut writer, error.status())).await;
                    return Box::pin(part(reader, writer)).await;
                }
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    return close(&mut writer).await;
                }
                Err(_) => return,
            }
            writer.stir();
            // Apart, so that a connection that waits holds no room for what a request needs; the allocator gives the next one the same.
            // Made where it stays: to make it first and then move it would copy all of it.
            let served = Box::write(Box::new_uninit(), one(worker, &site, &mut reader, &mut writer, &mut head));
            match Box::into_pin(served).await {
                Outcome::Keep => {}
                // Of such a request all was read; and a client that is told so sends no other one.
                Outcome::Close if head.framing == Framing::Empty && reader.buffered().is_empty() => {
                    return close(&mut writer).await;
                }
                Outcome::Close => return Box::pin(part(reader, writer)).await,
                Outcome::Switched(upstream, standing) => {
                    return Box::pin(switched(worker, &site, reader, writer, upstream, standing)).await;
                }
            }
            writer.rest();
            reader.wait_anew();
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
        let _ = Box::pin(refuse(writer, 405)).await;
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

async fn refuse(writer: &mut Writer, status: u16) -> io::Result<()> {
    let (mut head, body) = Reply::new(status, "bad request").render(false);
    head.keep_alive = false;
    http1::encode_response(&head, RequestKind::Other, Version::Http11, false, &mut writer.out);
    writer.flush_with(&[&body]).await
}

async fn close(writer: &mut Writer) {
    let _ = writer.shutdown().await;
}

/// Ends a connection whose client may still be sending, so that it reads its last answer.
async fn part(reader: Reader, mut writer: Writer) {
    let farewell = async {
        writer.shutdown().await?;
        let Some(mut stream) = conn::join(reader, writer) else { return Ok(()) };
        let mut space = [0; 4096];
        while !matches!(poll_fn(|cx| stream.poll_chunk(cx, &mut space)).await?, Chunk::End) {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(FAREWELL_PATIENCE, farewell).await;
}

/// Client and endpoint speak something else from now on, until either is done, or policy lets the request stand no more.
async fn switched(
    worker: &Worker,
    site: &Site,
    reader: Reader,
    writer: Writer,
    mut upstream: Stream,
    mut standing: Option<Box<Standing>>,
) {
    let Some(mut client) = conn::join(reader, writer) else { return };
    let copied = Copied::default();
    let ended = tokio::select! {
        biased;
        () = Standing::ends(&mut standing, worker, site) => Err(io::ErrorKind::PermissionDenied.into()),
        ended = copy::bidirectional(&mut client, &mut upstream, &copied) => ended,
    };
    if let Err(error) = ended {
        finish_broken(client, upstream, &error);
    }
    let (there, back) = copied.so_far();
    tracing::debug!(there, back, "an upgraded connection ended");
}

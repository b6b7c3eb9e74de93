//! Clients that speak HTTP/2.
use super::body::Source;
use super::exchange;
use super::inbox::Inbox;
use super::patience::Looks;
use super::reply::{Caller, Responder, is_grpc};
use super::streams::{self, Asked, Half, Silent, Streams};
use super::{Place, Site, websocket};
use crate::hbone::{STREAM_WINDOW_BYTES, TUNNEL_WINDOW_BYTES};
use crate::pods::Phase;
use crate::policy;
use crate::shared::Work;
use crate::stream::{Chunk, Stream};
use crate::worker::Worker;
use bytes::Bytes;
use http1::RequestHead;
use http2::Limits;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one client at a time.
const MAX_STREAMS: u32 = 256;
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Window of a stream whose client is not of the cluster: what a slow endpoint can make us hold, times streams.
const PUBLIC_WINDOW_BYTES: u32 = 256 << 10;
/// Of answers that a client does not read as fast as they come.
const WAITING_BYTES: usize = 256 << 10;
/// Resets and the like that a client may send in a second. A connection within the mesh is shared by many callers, who may all leave.
const IDLE_PER_SECOND: u32 = 20_000;
const PUBLIC_IDLE_PER_SECOND: u32 = 200;
/// Pieces of one write.
const SLICES: usize = 16;
/// How long a client that broke a rule may take to read why, and what it may still send meanwhile.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);
const FAREWELL_READS: usize = 64;

/// Serves requests, each in a task of its own.
pub async fn serve(worker: &Arc<Worker>, site: Arc<Site>, stream: Stream) {
    let streams = Streams::new(Limits {
        streams: MAX_STREAMS,
        header_bytes: MAX_HEADER_BYTES,
        stream_window: if site.is_public() { PUBLIC_WINDOW_BYTES } else { STREAM_WINDOW_BYTES },
        connection_window: TUNNEL_WINDOW_BYTES,
        waiting_bytes: WAITING_BYTES,
        idle_per_second: if site.is_public() { PUBLIC_IDLE_PER_SECOND } else { IDLE_PER_SECOND },
    });
    let mut wire = Wire { stream, inbox: Inbox::default(), streams: streams.clone(), asked: Vec::new(), unsent: false };
    if let Err(error) = drive(worker, &site, &mut wire).await {
        tracing::debug!(%error, client = %site.client, "an HTTP/2 connection ended");
    }
    streams.end();
    wire.part().await;
}

/// Reads and writes until the connection is over.
async fn drive(worker: &Arc<Worker>, site: &Arc<Site>, wire: &mut Wire) -> io::Result<()> {
    let patience = worker.shared.config.public_patience;
    let first = if site.is_public() { patience.min(HANDSHAKE_TIMEOUT) } else { HANDSHAKE_TIMEOUT };
    let mut looks = Looks::after(first);
    let mut told = pin!(told_to_leave(worker, site));
    let (mut greeted, mut leaving) = (false, false);
    poll_fn(|cx| {
        if !greeted {
            greeted = wire.streams.ask(http2::Connection::is_greeted);
        }
        let is_time = (!greeted || site.is_public()) && looks.is_time(cx, patience);
        if is_time && (!greeted || wire.streams.look() == Silent::Idle) {
            if !greeted || leaving {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            leaving = true;
            wire.streams.leave();
        }
        if !leaving && told.as_mut().poll(cx).is_ready() {
            leaving = true;
            wire.streams.leave();
        }
        let over = wire.poll(cx, worker);
        for (half, head, ended) in wire.asked.drain(..) {
            // A task is moved several times before and after it runs: what is large is made where it stays.
            let served = Box::write(Box::new_uninit(), one_request(worker.clone(), site.clone(), half, head, ended));
            tokio::spawn(Box::into_pin(served));
        }
        over
    })
    .await
}

async fn told_to_leave(worker: &Worker, site: &Site) {
    match &site.place {
        Place::Process { pod, to, caller } => tokio::select! {
            () = pod.reached(Phase::Draining) => {}
            () = caller.coming_again(pod) => {}
            () = policy::plain_text_ends(worker, pod, to.port()), if caller.identity.is_none() => {}
            () = worker.shared.stopped() => {}
        },
        Place::Service { .. } | Place::Gateway(..) => worker.shared.stopped().await,
    }
}

/// The connection itself.
struct Wire {
    stream: Stream,
    inbox: Inbox,
    streams: Arc<Streams>,
    asked: Vec<Asked>,
    /// Something was written that may wait in the stream.
    unsent: bool,
}

impl Wire {
    fn poll(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<io::Result<()>> {
        self.streams.watch(cx);
        loop {
            let flushed = self.poll_send(cx)?;
            if self.streams.ask(http2::Connection::is_done) {
                return flushed.map(Ok);
            }
            if !self.streams.ask(http2::Connection::wants_input) {
                return Poll::Pending;
            }
            match self.poll_fill(cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
            match self.streams.receive(self.inbox.bytes(), worker.now_ms(), &mut self.asked) {
                Ok(taken) => self.inbox.take(taken),
                Err(fault) => {
                    tracing::debug!(%fault, "a client broke a rule of HTTP/2");
                    self.inbox.take(self.inbox.bytes().len());
                }
            }
        }
    }

    /// Sends what waits. Ready: all of it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let (stream, unsent) = (&mut self.stream, &mut self.unsent);
        let mut pending = false;
        while !pending && !self.streams.ask(|connection| connection.output().is_empty()) {
            self.streams.send(|output| {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = output.slices(&mut slices);
                let written = match count {
                    1 => Pin::new(&mut *stream).poll_write(cx, &slices[0]),
                    _ => Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..count]),
                };
                match written {
                    Poll::Ready(Ok(0)) => Err(io::Error::from(io::ErrorKind::WriteZero)),
                    Poll::Ready(Ok(written)) => {
                        *unsent = true;
                        Ok(written)
                    }
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Pending => {
                        pending = true;
                        Ok(0)
                    }
                }
            })?;
        }
        if self.unsent {
            match Pin::new(&mut self.stream).poll_flush(cx)? {
                Poll::Ready(()) => self.unsent = false,
                Poll::Pending => pending = true,
            }
        }
        Ok(if pending { Poll::Pending } else { Poll::Ready(()) })
    }

    /// Reads more. 0: the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<usize>> {
        let (stream, mut pending) = (&mut self.stream, false);
        let read = self.inbox.fill(|space| match stream.poll_chunk(cx, space) {
            Poll::Ready(Ok(Chunk::End)) => Ok(0),
            Poll::Ready(Ok(Chunk::Scratch(length))) => Ok(length),
            Poll::Ready(Ok(Chunk::Bytes(mut bytes))) => {
                let now: Bytes = bytes.split_to(space.len().min(bytes.len()));
                space[..now.len()].copy_from_slice(&now);
                if !bytes.is_empty() {
                    stream.unread(bytes);
                }
                Ok(now.len())
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => {
                pending = true;
                Ok(0)
            }
        })?;
        Ok(if pending { Poll::Pending } else { Poll::Ready(read) })
    }

    /// Ends the connection so that its last word is read: what the client still sends is taken for a while.
    async fn part(mut self) {
        let farewell = async {
            poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await?;
            let mut space = [0; 2048];
            for _ in 0..FAREWELL_READS {
                if let Chunk::End = poll_fn(|cx| self.stream.poll_chunk(cx, &mut space)).await? {
                    break;
                }
            }
            Ok::<_, io::Error>(())
        };
        let _ = timeout(FAREWELL_PATIENCE, farewell).await;
    }
}

async fn one_request(worker: Arc<Worker>, site: Arc<Site>, half: Half, mut head: RequestHead, ended: bool) {
    let _busy = worker.shared.busy(Work::Request);
    if head.upgrade().is_some() {
        return Box::pin(websocket::serve(&worker, &site, half, head)).await;
    }
    if !ended && site.is_public() && !is_grpc(&head.fields) {
        half.limit_silence();
    }
    let head_request = head.method() == "HEAD";
    let source = if ended { Source::Empty } else { Source::Served(half.clone()) };
    let caller = Caller::Served(half.clone());
    exchange::run(&worker, &site, &mut head, source, Responder::Served { half, head_request }, caller).await;
    streams::recycle(head);
}

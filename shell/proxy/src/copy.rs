//! Bytes both ways until both ends are done.
use crate::splice::{LARGE_BYTES, Pipe};
use crate::stream::{Chunk, Stream};
use bytes::{Buf, Bytes};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// 64 KiB: with 8 KiB bulk costs nearly twice as much (docs/benchmarks.md).
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// Most that is moved at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Moved pieces up to this are small.
const SMALL_BYTES: usize = 4 * 1024;
/// So many small pieces one after the other, and the next is copied again: the end of a large one may come alone.
const SMALL_PIECES: u8 = 4;

thread_local! {
    /// One buffer for all connections of a worker: bytes stay in it only within one poll. An idle connection has none.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// Bytes that went each way so far. One writes, others may look.
#[derive(Debug, Default)]
pub struct Copied {
    there: AtomicU64,
    back: AtomicU64,
}

impl Copied {
    /// From the first to the second, and from the second to the first.
    pub fn so_far(&self) -> (u64, u64) {
        (self.there.load(Ordering::Relaxed), self.back.load(Ordering::Relaxed))
    }

    fn note(&self, there: &Direction, back: &Direction) {
        self.there.store(there.total, Ordering::Relaxed);
        self.back.store(back.total, Ordering::Relaxed);
    }
}

/// Copies both ways, passing half-closes on, until both directions ended or one failed. `copied` tells what went, meanwhile and when it
/// fails.
pub async fn bidirectional(first: &mut Stream, second: &mut Stream, copied: &Copied) -> io::Result<()> {
    let mut there = Direction::default();
    let mut back = Direction::default();
    poll_fn(|cx| {
        let a = there.poll(cx, first, second);
        let b = back.poll(cx, second, first);
        copied.note(&there, &back);
        let (a, b) = (a?, b?);
        if a.is_ready() && b.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

#[derive(Default)]
struct Direction {
    /// What the sink did not take yet.
    pending: Bytes,
    total: u64,
    unflushed: bool,
    /// While above 0 what comes is moved without coming here: much came at once, and so many small pieces may come since.
    large: u8,
    pipe: Option<Pipe>,
    ended: bool,
    shut: bool,
}

impl Direction {
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| self.poll_with(cx, from, to, scratch))
    }

    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>> {
        // A connection that always has more must let the worker's others live.
        for _ in 0..16 {
            while !self.pending.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.pending))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.pending.advance(written);
            }
            if self.shut {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.shut = true;
                return Poll::Ready(Ok(()));
            }
            if self.large > 0 || self.pipe.is_some() {
                match self.poll_move(cx, from, to) {
                    Poll::Ready(Ok(Some(()))) => continue,
                    Poll::Ready(Ok(None)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match from.poll_chunk(cx, scratch) {
                Poll::Ready(chunk) => self.take(cx, chunk?, scratch, to)?,
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves some bytes from socket to socket. None: it is not to be done here and now.
    fn poll_move(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<io::Result<Option<()>>> {
        let (Some(from), Some(to)) = (from.plain(), to.plain()) else {
            self.large = 0;
            return Poll::Ready(Ok(None));
        };
        if self.pipe.is_none() {
            // What was written before goes before.
            ready!(to.poll_all(cx))?;
            self.pipe = Pipe::take();
        }
        let Some(pipe) = &mut self.pipe else {
            self.large = 0;
            return Poll::Ready(Ok(None));
        };
        if pipe.is_empty() {
            let Poll::Ready(filled) = pipe.poll_fill(cx, from.stream(), PIECE_BYTES)? else {
                // An idle connection has no pipe.
                self.pipe = None;
                return Poll::Pending;
            };
            self.total += filled as u64;
            self.ended |= filled == 0;
            self.large = if filled > SMALL_BYTES { SMALL_PIECES } else { self.large.saturating_sub(1) };
        }
        ready!(pipe.poll_drain(cx, to.stream(), 0))?;
        if self.large == 0 {
            self.pipe = None;
        }
        Poll::Ready(Ok(Some(())))
    }

    /// Tries to pass a chunk on at once; only what the sink does not take is kept.
    fn take(&mut self, cx: &mut Context<'_>, chunk: Chunk, scratch: &[u8], to: &mut Stream) -> io::Result<()> {
        match chunk {
            Chunk::End => self.ended = true,
            Chunk::Bytes(bytes) => {
                self.total += bytes.len() as u64;
                self.unflushed = true;
                self.pending = bytes;
            }
            Chunk::Scratch(length) => {
                self.total += length as u64;
                self.unflushed = true;
                self.large = if length >= LARGE_BYTES { SMALL_PIECES } else { 0 };
                let mut rest = &scratch[..length];
                while !rest.is_empty() {
                    match Pin::new(&mut *to).poll_write(cx, rest) {
                        Poll::Ready(written) => match written? {
                            0 => return Err(io::ErrorKind::WriteZero.into()),
                            written => rest = &rest[written..],
                        },
                        Poll::Pending => {
                            self.pending = Bytes::copy_from_slice(rest);
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Both ends of a connection.
    pub(crate) async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    /// Sends pieces, ends, and returns what comes.
    async fn talk(stream: TcpStream, pieces: Vec<usize>, seed: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut read, mut write) = stream.into_split();
        let sending = tokio::spawn(async move {
            let mut sent = Vec::new();
            for piece in pieces {
                let bytes: Vec<u8> = (0..piece).map(|at| (at * 7 + sent.len() + seed) as u8).collect();
                write.write_all(&bytes).await.unwrap();
                tokio::task::yield_now().await;
                sent.extend(bytes);
            }
            write.shutdown().await.unwrap();
            sent
        });
        let mut come = Vec::new();
        read.read_to_end(&mut come).await.unwrap();
        (sending.await.unwrap(), come)
    }

    async fn both_ways(there: Vec<usize>, back: Vec<usize>) {
        tokio::spawn(crate::outbox::run());
        tokio::task::yield_now().await;
        let ((client, first), (second, server)) = (pair().await, pair().await);
        let passing = tokio::spawn(async move {
            let (mut first, mut second, copied) = (Stream::from(first), Stream::from(second), Copied::default());
            bidirectional(&mut first, &mut second, &copied).await.unwrap();
            copied.so_far()
        });
        let (client, server) = tokio::join!(talk(client, there, 1), talk(server, back, 2));
        assert!(client.0 == server.1 && server.0 == client.1);
        let expected = (client.0.len() as u64, server.0.len() as u64);
        assert_eq!(passing.await.unwrap(), expected);
    }

    fn pieces() -> impl Strategy<Value = Vec<usize>> {
        proptest::collection::vec(prop_oneof![1..300usize, 8_000..70_000usize, Just(500_000)], 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn bytes_pass_whole(there in pieces(), back in pieces()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            std::thread::spawn(move || runtime.block_on(both_ways(there, back))).join().unwrap();
        }
    }
}

//! A connection that speaks HTTP/1.1, as two halves that two futures can hold.
use crate::copy::SCRATCH_BYTES;
use crate::stream::{Chunk, Stream};
use bytes::{Buf, Bytes, BytesMut};
use http1::{BodyDecoder, BodyError, Fields, HeadError, Limits, RequestHead, RequestKind, ResponseHead, Step};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWrite};

/// What an idle connection is read with: it waits without a buffer of its own.
const IDLE_READ_BYTES: usize = 4096;
/// Heads are read in pieces of this.
const HEAD_READ_BYTES: usize = 8 * 1024;

/// Both halves hold the stream; each locks it for one system call. They are never polled at the same time, the lock only
/// lets two futures borrow what one task owns.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Stream>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is read.
#[derive(Debug)]
pub struct Reader {
    stream: Shared,
    buffer: BytesMut,
}

/// What is written.
#[derive(Debug)]
pub struct Writer {
    stream: Shared,
    /// Bytes that go out with the next flush.
    pub out: Vec<u8>,
}

/// Why no head or body came.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A piece of a body.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    End(Option<Fields>),
}

/// Splits a connection.
pub fn halves(stream: Stream) -> (Reader, Writer) {
    let stream = Shared(Arc::new(Mutex::new(stream)));
    (Reader { stream: stream.clone(), buffer: BytesMut::new() }, Writer { stream, out: Vec::new() })
}

/// Joins the halves again; bytes that were read and not taken come first. None: they are not halves of one.
pub fn join(reader: Reader, writer: Writer) -> Option<Stream> {
    let Reader { stream, buffer } = reader;
    drop(writer);
    let mut stream = Arc::try_unwrap(stream.0).ok()?.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !buffer.is_empty() {
        stream.unread(buffer.freeze());
    }
    Some(stream)
}

impl Reader {
    /// Puts bytes that were read before in front.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Lets go of an empty buffer: the connection waits for long.
    pub fn release(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Bytes that were read and not taken.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads once. 0: the end.
    async fn fill(&mut self, at_least: usize) -> io::Result<usize> {
        self.buffer.reserve(at_least);
        poll_fn(|cx| {
            let mut stream = self.stream.lock();
            // The future has no state of its own: it may be made for each poll.
            pin!(stream.read_buf(&mut self.buffer)).poll(cx)
        })
        .await
    }

    /// Reads what comes next, in addition. 0: the end.
    pub async fn fill_more(&mut self) -> io::Result<usize> {
        if self.buffer.is_empty() { self.fill_idle().await } else { self.fill(HEAD_READ_BYTES).await }
    }

    /// Waits for bytes without holding a buffer. 0: the end.
    async fn fill_idle(&mut self) -> io::Result<usize> {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        poll_fn(|cx| {
            let mut scratch = [0u8; IDLE_READ_BYTES];
            let chunk = match self.stream.lock().poll_chunk(cx, &mut scratch) {
                Poll::Ready(chunk) => chunk?,
                Poll::Pending => return Poll::Pending,
            };
            Poll::Ready(Ok(match chunk {
                Chunk::End => 0,
                Chunk::Scratch(length) => {
                    self.buffer.extend_from_slice(&scratch[..length]);
                    length
                }
                Chunk::Bytes(bytes) => {
                    self.buffer.extend_from_slice(&bytes);
                    bytes.len()
                }
            }))
        })
        .await
    }

    /// Whether the peer of an idle connection has said nothing, as it should. A connection that ended or that has bytes
    /// nobody asked for is of no use.
    pub fn is_quiet(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        let mut probe = [0u8; 1];
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        self.stream.lock().poll_chunk(&mut cx, &mut probe).is_pending()
    }

    /// The next request head. `None`: the connection ended between requests.
    pub async fn request(&mut self, limits: Limits, head: &mut RequestHead) -> Result<Option<()>, ReadError> {
        loop {
            if !self.buffer.is_empty()
                && let Some(length) = http1::parse_request(&self.buffer, limits, head)?
            {
                self.buffer.advance(length);
                return Ok(Some(()));
            }
            if self.fill_more().await? == 0 {
                let whole = self.buffer.is_empty();
                return if whole { Ok(None) } else { Err(BodyError::Truncated.into()) };
            }
        }
    }

    /// The next response head. `None`: the connection ended before a byte of it.
    pub async fn response(&mut self, kind: RequestKind, head: &mut ResponseHead) -> Result<Option<()>, ReadError> {
        loop {
            if !self.buffer.is_empty()
                && let Some(length) = http1::parse_response(&self.buffer, Limits::default(), kind, head)?
            {
                self.buffer.advance(length);
                return Ok(Some(()));
            }
            // The body often comes with the head: read both at once.
            if self.fill(HEAD_READ_BYTES + SCRATCH_BYTES).await? == 0 {
                let whole = self.buffer.is_empty();
                return if whole { Ok(None) } else { Err(BodyError::Truncated.into()) };
            }
        }
    }

    /// The next piece of a body.
    pub async fn piece(&mut self, decoder: &mut BodyDecoder) -> Result<Piece, ReadError> {
        loop {
            match decoder.step(&self.buffer)? {
                Step::Payload { skip, take } => {
                    self.buffer.advance(skip);
                    return Ok(Piece::Data(self.buffer.split_to(take).freeze()));
                }
                Step::End { skip } => {
                    self.buffer.advance(skip);
                    return Ok(Piece::End(decoder.take_trailers()));
                }
                Step::More { skip } => self.buffer.advance(skip),
            }
            if self.fill(SCRATCH_BYTES).await? == 0 {
                decoder.end_of_input()?;
                return Ok(Piece::End(None));
            }
        }
    }
}

impl Writer {
    /// Sends what is in `out`.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.flush_with(&[]).await
    }

    /// Sends what is in `out` and then `parts`, in as few system calls as it takes.
    pub async fn flush_with(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut sent = 0;
        let total = self.out.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        while sent < total {
            let slices = remaining(&self.out, parts, sent);
            let slices: [io::IoSlice<'_>; 4] = slices.map(io::IoSlice::new);
            let written = poll_fn(|cx| {
                let mut stream = self.stream.lock();
                // The usual case: one piece, for which the vectored call costs the kernel more.
                if slices[1].is_empty() {
                    return Pin::new(&mut *stream).poll_write(cx, &slices[0]);
                }
                Pin::new(&mut *stream).poll_write_vectored(cx, &slices)
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            sent += written;
        }
        self.out.clear();
        if self.out.capacity() > HEAD_READ_BYTES {
            self.out = Vec::new();
        }
        poll_fn(|cx| Pin::new(&mut *self.stream.lock()).poll_flush(cx)).await
    }

    /// Ends what is sent.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.stream.lock()).poll_shutdown(cx)).await
    }
}

/// What is left of `first` and up to three more parts after `sent` bytes.
fn remaining<'a>(first: &'a [u8], parts: &[&'a [u8]], mut sent: usize) -> [&'a [u8]; 4] {
    debug_assert!(parts.len() <= 3);
    let mut out: [&[u8]; 4] = [&[]; 4];
    let mut count = 0;
    for part in std::iter::once(first).chain(parts.iter().copied()) {
        let skip = sent.min(part.len());
        sent -= skip;
        if skip < part.len() {
            out[count] = &part[skip..];
            count += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::remaining;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_left_is_what_was_not_sent(
            first in proptest::collection::vec(any::<u8>(), 0..20),
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..=3),
            sent in any::<prop::sample::Index>(),
        ) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let whole = [&[first.as_slice()][..], &parts].concat().concat();
            let sent = sent.index(whole.len() + 1);
            let left = remaining(&first, &parts, sent);
            prop_assert_eq!(left.concat(), &whole[sent..]);
            // The first slice is the one that a writer without vectored writes takes.
            prop_assert!(left[0].is_empty() == (sent == whole.len()));
        }
    }
}

//! One CONNECT stream as a connection.
use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Largest piece handed to h2 at once; it is cut into frames there.
const MAX_PIECE: usize = 64 * 1024;

/// The bytes of a tunnelled connection. Reading returns window to the peer as the bytes are taken: back-pressure reaches the
/// process at the other end.
#[derive(Debug)]
pub struct HboneStream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    pending: Bytes,
    ended: bool,
    shut: bool,
    /// Keeps the count of streams on the tunnel right.
    held: Option<super::pool::Held>,
    /// The same for a connection that counts its streams by who holds this.
    counted: Option<Arc<AtomicBool>>,
}

impl HboneStream {
    /// The stream of an accepted or answered CONNECT.
    pub fn new(send: SendStream<Bytes>, receive: RecvStream, held: Option<super::pool::Held>) -> Self {
        Self { send, receive, pending: Bytes::new(), ended: false, shut: false, held, counted: None }
    }

    /// A stream of a connection to an endpoint, which counts its streams by who holds `counted`.
    pub fn of_endpoint(send: SendStream<Bytes>, receive: RecvStream, counted: Arc<AtomicBool>) -> Self {
        let mut stream = Self::new(send, receive, None);
        stream.counted = Some(counted);
        stream
    }

    /// The state of the tunnel, where it was opened here.
    pub fn leaving(&self) -> Option<super::pool::Leaving> {
        self.held.as_ref().map(super::pool::Held::leaving)
    }

    /// Whether its tunnel should carry nothing new.
    pub fn is_leaving(&self) -> bool {
        self.held.as_ref().is_some_and(super::pool::Held::is_leaving)
    }

    /// Ends the stream so that the peer sees a failure.
    pub fn reset(&mut self) {
        self.send.send_reset(Reason::CANCEL);
        self.shut = true;
    }

    /// Ready when the peer has reset it, also behind bytes that nobody has read.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.send.poll_reset(cx).map(drop)
    }

    /// The next bytes; none: the peer has ended its side.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if !self.pending.is_empty() {
                return Poll::Ready(Ok(Some(std::mem::take(&mut self.pending))));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            match ready!(self.receive.poll_data(cx)) {
                None => self.ended = true,
                Some(Ok(bytes)) => {
                    let _ = self.receive.flow_control().release_capacity(bytes.len());
                    self.pending = bytes;
                }
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
    }
}

impl AsyncRead for HboneStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut bytes) = ready!(self.poll_bytes(cx))? {
            let take = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..take]);
            bytes.advance(take);
            self.pending = bytes;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HboneStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let wanted = bytes.len().min(MAX_PIECE);
        self.send.reserve_capacity(wanted);
        loop {
            let capacity = self.send.capacity();
            if capacity > 0 {
                let piece = Bytes::copy_from_slice(&bytes[..wanted.min(capacity)]);
                let length = piece.len();
                self.send.send_data(piece, false).map_err(to_io)?;
                return Poll::Ready(Ok(length));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(granted) => drop(granted.map_err(to_io)?),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            self.shut = true;
            // A peer that has reset the stream already needs no end of it.
            let _ = self.send.send_data(Bytes::new(), true);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for HboneStream {
    fn drop(&mut self) {
        if !self.shut {
            self.send.send_reset(Reason::CANCEL);
        }
    }
}

/// h2's errors as IO errors, so that what is above need not know what it runs on.
pub fn to_io(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => io::Error::new(io::ErrorKind::ConnectionRefused, error),
        Some(_) => io::Error::new(io::ErrorKind::ConnectionReset, error),
        None if error.is_io() => error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        None => io::Error::other(error),
    }
}

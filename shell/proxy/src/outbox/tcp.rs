//! A TCP connection whose small writes go through the worker's outbox.

use super::{Fate, Outbox, Rest, SMALL_BYTES, Ticket, Trouble, with_outbox};
use crate::polling;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection of this thread's. Reading is as always. A write that was taken may fail later: that is told by the next one, and by the end
/// that is read.
#[derive(Debug)]
pub struct Tcp {
    stream: TcpStream,
    /// The last bytes that were put into the outbox, until somebody looks what became of them.
    ticket: Option<Ticket>,
    /// Bytes before all others.
    before: Before,
    /// Somebody else ran during the last write: what answers it may be here before the runtime hears of it.
    pub(super) answered: bool,
}

/// A small write that takes longer than this was not all the time the one that ran. One that is not interrupted takes a third of it.
const ANOTHER_RAN: Duration = Duration::from_micros(15);

#[derive(Debug, Default)]
enum Before {
    #[default]
    Nothing,
    /// Taken out of the outbox, and how many of them went.
    Taken(Vec<u8>, usize),
    /// On their way.
    Rest(Arc<Rest>),
}

impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        Self { stream, ticket: None, before: Before::Nothing, answered: false }
    }
}

impl Tcp {
    /// The connection, for reading; and for writing once all was sent ([`poll_all`](Self::poll_all)).
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Ready when its other end is known to have ended or broken it, also behind bytes that nobody has read. Wakes nobody: who waits looks again.
    pub fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        // What the runtime knows of an end comes with priority data, and data that waits does not hide it.
        match pin!(self.stream.ready(Interest::PRIORITY)).poll(cx) {
            Poll::Ready(Ok(ready)) if !ready.is_read_closed() => Poll::Pending,
            left => left.map(drop),
        }
    }

    /// Drops it so that the other side sees a failure; what was kept is not sent.
    pub fn abort(mut self) {
        if let Ok(true) = self.look() {
            self.take_kept();
        }
        if let Before::Rest(rest) = std::mem::take(&mut self.before) {
            rest.give_up();
        }
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn take_kept(&mut self) -> Option<Vec<u8>> {
        let ticket = self.ticket.take()?;
        with_outbox(|outbox| {
            // What became of earlier ones nobody asks any more.
            outbox.take(ticket).or_else(|| outbox.troubled.remove(&ticket).and(None))
        })
        .flatten()
    }

    /// What became of what was put into the outbox; true: it is there still.
    fn look(&mut self) -> io::Result<bool> {
        let Some(ticket) = self.ticket else { return Ok(false) };
        match with_outbox(|outbox| outbox.fate(ticket)) {
            Some(Fate::Kept) => return Ok(true),
            Some(Fate::Sent) => self.ticket = None,
            Some(Fate::Troubled(Trouble::Rest(rest))) => (self.ticket, self.before) = (None, Before::Rest(rest)),
            Some(Fate::Troubled(Trouble::Failed(error))) => {
                self.ticket = None;
                return Err(error);
            }
            // The outbox is gone, and with it what it knew.
            None => {
                self.ticket = None;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(false)
    }

    /// Sends what goes before all others.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.before {
                Before::Nothing => return Poll::Ready(Ok(())),
                Before::Rest(rest) => ready!(rest.poll(cx))?,
                Before::Taken(bytes, sent) if *sent < bytes.len() => {
                    let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[*sent..]))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    *sent += written;
                    continue;
                }
                Before::Taken(..) => {}
            }
            self.before = Before::Nothing;
        }
    }

    /// Sends all that was taken.
    pub fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.look()?
            && let Some(bytes) = self.take_kept()
        {
            self.before = Before::Taken(bytes, 0);
        }
        self.poll_before(cx)
    }

    /// Writes bytes that others follow at once, once all was sent ([`poll_all`](Self::poll_all)): they leave together.
    pub fn poll_lead(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let send = || socket2::SockRef::from(&self.stream).send_with_flags(bytes, flags);
            match self.stream.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Puts bytes into the outbox. False: they are to be written otherwise.
    fn keep(&mut self, parts: &[io::IoSlice<'_>], total: usize) -> io::Result<bool> {
        if total > SMALL_BYTES || !matches!(self.before, Before::Nothing) {
            return Ok(false);
        }
        let kept = self.look()?;
        if !matches!(self.before, Before::Nothing) {
            return Ok(false);
        }
        let mut parts = parts.iter().filter(|part| !part.is_empty());
        let Some(first) = parts.next() else { return Ok(false) };
        let (ticket, fd) = (self.ticket.filter(|_| kept), self.stream.as_fd());
        let put = with_outbox(|outbox| {
            let ticket = outbox.put(ticket, fd, first)?;
            for part in parts {
                outbox.entries[ticket.1].bytes.extend_from_slice(part);
            }
            Some(ticket)
        });
        match put.flatten() {
            Some(ticket) => self.ticket = Some(ticket),
            None => return Ok(false),
        }
        Ok(true)
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        let bytes = match (self.take_kept(), std::mem::take(&mut self.before)) {
            (Some(bytes), _) => bytes,
            (None, Before::Taken(bytes, sent)) => bytes[sent..].to_vec(),
            _ => return,
        };
        // As if they had been written when they were given: what the socket does not take at once is lost with it, as it is when a socket with
        // a full buffer is dropped.
        let _ = self.stream.try_write(&bytes);
    }
}

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.answered) {
            // Behind the back of the runtime, which asks the kernel only when it has nothing else to do. It is told of these bytes later all the
            // same, looks for them in vain, and waits for others.
            let look = (&*socket2::SockRef::from(&self.stream)).read(buffer.initialize_unfilled());
            match look {
                Ok(length) => {
                    with_outbox(Outbox::answered);
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        polling::worked();
        if self.keep(&[io::IoSlice::new(bytes)], bytes.len())? {
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_all(cx))?;
        let began = Instant::now();
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.answered = bytes.len() <= SMALL_BYTES && began.elapsed() > ANOTHER_RAN;
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        polling::worked();
        let total = parts.iter().map(|part| part.len()).sum();
        if self.keep(parts, total)? {
            return Poll::Ready(Ok(total));
        }
        ready!(self.poll_all(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is kept goes by itself.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_all(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

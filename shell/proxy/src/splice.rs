//! Bytes from socket to socket that never come here: the kernel moves them through a pipe. For large pieces only; what is small is cheaper
//! copied (docs/benchmarks.md).

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// From this on moving is cheaper than copying.
pub const LARGE_BYTES: usize = 24 * 1024;
/// What a pipe takes; the kernel counts in pages, of which a socket's piece may fill only a part.
const PIPE_BYTES: i32 = 256 * 1024;
/// Pipes that a worker keeps.
const SPARE: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, for as long as bytes are in it. It goes back to the worker when it is empty.
#[derive(Debug)]
pub struct Pipe {
    /// To read from, to write to. None only while it is dropped.
    ends: Option<(OwnedFd, OwnedFd)>,
    held: usize,
}

impl Pipe {
    /// An empty pipe. None: there is none to be had.
    pub fn take() -> Option<Self> {
        let ends = FREE.with_borrow_mut(Vec::pop).or_else(|| {
            let ends = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
            // A smaller one does, too.
            let _ = fcntl(&ends.1, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
            Some(ends)
        })?;
        Some(Self { ends: Some(ends), held: 0 })
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes up to `most` bytes from a socket. 0: its end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, from: &TcpStream, most: usize) -> Poll<io::Result<usize>> {
        let Some((_, into)) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || moved(from, into, most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => {
                    self.held += *other.as_ref().unwrap_or(&0);
                    return Poll::Ready(other);
                }
            }
        }
    }

    /// The same for what is the last that the peer says until it is asked again: when nothing lies behind it, that is known from now on
    /// without looking. What does lie there stays, or is in the pipe.
    pub fn poll_fill_last(&mut self, cx: &mut Context<'_>, from: &TcpStream, most: usize) -> Poll<io::Result<usize>> {
        let filled = ready!(self.poll_fill(cx, from, most.saturating_add(1)))?;
        if filled == most {
            // The kernel had less than it was asked for (a pipe that is full to the page at just this byte aside). Whatever comes now is told anew.
            let _ = from.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        Poll::Ready(Ok(filled))
    }

    /// Gives what is in it to a socket, but for so many bytes.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream, leave: usize) -> Poll<io::Result<()>> {
        let Some((from, _)) = &self.ends else { return Poll::Ready(Ok(())) };
        while self.held > leave {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || moved(from, to, self.held - leave)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                other => self.held -= other?,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Some(ends) = self.ends.take().filter(|_| self.held == 0) {
            FREE.with_borrow_mut(|free| {
                if free.len() < SPARE {
                    free.push(ends);
                }
            });
        }
    }
}

fn moved(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    loop {
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        match splice(&from, None, &to, None, most, flags) {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

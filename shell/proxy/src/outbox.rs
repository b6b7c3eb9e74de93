//! Small writes of a worker, sent together.
//!
//! A write wakes whoever waits for it, and where processes share a processor the kernel lets that one run at once: a proxy that writes after
//! each read is interrupted after each write, and its neighbours find one message at a time. So what connections write while the worker goes
//! through the tasks that are ready is kept, and handed to the kernel in one system call (io_uring) after the last of them. Nothing waits
//! longer than that: the task that sends is put behind those that were ready when the first bytes were kept.
//!
//! A write that would be the only one is made at once: nothing would go with it, and what is left to do for its request (counting it, giving
//! its connection back) is then done behind it. Which one that is nobody knows beforehand: it is taken to be so when the worker found no
//! more than one to send before it waited last.
//!
//! Where io_uring is not to be had every write is made at once.

mod ring;
mod tcp;

pub use tcp::Tcp;

use model::map::HashMap;
use ring::{Entry, MOST_ENTRIES, Ring, Sent};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Up to this a write is copied and kept: a TLS record with all around it. More is worth a system call of its own.
const SMALL_BYTES: usize = 17 * 1024;
/// Buffers that are kept for the next round.
const SPARE: usize = 64;
/// Up to this a spare buffer keeps its memory.
const SPARE_BYTES: usize = 4 * 1024;
/// How long the rest of a write may take that the peer does not read.
const REST_PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    static OUTBOX: RefCell<Option<Outbox>> = const { RefCell::new(None) };
}

/// One worker's.
struct Outbox {
    ring: Ring,
    /// Grows with each sending.
    round: u64,
    /// Writes since the worker waited for anything last.
    writes: u32,
    /// How many there were the time before.
    before: u32,
    entries: Vec<Entry>,
    /// What became of them, while that is looked at.
    sent: Vec<Sent>,
    spare: Vec<Vec<u8>>,
    /// What became of writes that were not made whole; all others were.
    troubled: HashMap<Ticket, Trouble>,
    sender: Option<Waker>,
}

/// Bytes that were put into the outbox: the round and the place in it.
type Ticket = (u64, usize);

/// A write that was not made whole at once.
enum Trouble {
    /// The rest goes when the peer has read.
    Rest(Arc<Rest>),
    Failed(io::Error),
}

/// The rest of a write is on its way.
#[derive(Debug, Default)]
struct Rest(Mutex<RestState>);

#[derive(Debug, Default)]
struct RestState {
    done: Option<io::Result<()>>,
    waits: Option<Waker>,
    /// It is not to be sent.
    given_up: bool,
    /// Who sends it.
    sends: Option<Waker>,
}

/// What became of bytes that were put into the outbox.
enum Fate {
    /// They are there.
    Kept,
    Sent,
    Troubled(Trouble),
}

/// Opens the thread's outbox and sends what is put into it, for ever. Returns at once where that is not possible.
pub async fn run() {
    match Ring::open() {
        Ok(ring) => OUTBOX.set(Some(Outbox::new(ring))),
        Err(error) => return tracing::info!(%error, "no io_uring: every write is made at once"),
    }
    poll_fn(|cx| {
        OUTBOX.with_borrow_mut(|outbox| {
            let Some(open) = outbox else { return Poll::Ready(()) };
            match &mut open.sender {
                Some(sender) => sender.clone_from(cx.waker()),
                None => open.sender = Some(cx.waker().clone()),
            }
            match open.send() {
                Ok(()) => Poll::Pending,
                Err(error) => {
                    tracing::error!(%error, "io_uring failed: from now on every write is made at once");
                    *outbox = None;
                    Poll::Ready(())
                }
            }
        })
    })
    .await;
}

impl Outbox {
    fn new(ring: Ring) -> Self {
        Self {
            ring,
            round: 0,
            writes: 0,
            // Until it is known, and where nobody says when the worker waits.
            before: u32::MAX,
            entries: Vec::new(),
            sent: Vec::new(),
            spare: Vec::new(),
            troubled: HashMap::default(),
            sender: None,
        }
    }

    /// All that was ready was done.
    fn waits(&mut self) {
        if self.writes > 0 {
            self.before = std::mem::take(&mut self.writes);
        }
    }

    /// What one write asked for was answered before the worker could wait for it: what is written then is not of the same time.
    fn answered(&mut self) {
        if self.entries.is_empty() {
            self.waits();
        }
    }

    /// Whether the next write is likely to be the only one.
    fn is_alone(&self) -> bool {
        self.writes == 0 && self.before <= 1
    }

    /// Keeps bytes; behind those of `ticket` if they are here still. None: there is no room, or no use.
    fn put(&mut self, ticket: Option<Ticket>, fd: BorrowedFd<'_>, bytes: &[u8]) -> Option<Ticket> {
        if let Some((round, place)) = ticket.filter(|(round, _)| *round == self.round) {
            let kept = &mut self.entries[place].bytes;
            if kept.len() + bytes.len() > 2 * SMALL_BYTES {
                return None;
            }
            kept.extend_from_slice(bytes);
            return Some((round, place));
        }
        let alone = self.is_alone();
        self.writes = self.writes.saturating_add(1);
        if alone || self.entries.len() == MOST_ENTRIES {
            return None;
        }
        if self.entries.is_empty()
            && let Some(sender) = &self.sender
        {
            sender.wake_by_ref();
        }
        let mut memory = self.spare.pop().unwrap_or_default();
        memory.extend_from_slice(bytes);
        self.entries.push(Entry { fd: fd.as_raw_fd(), bytes: memory });
        Some((self.round, self.entries.len() - 1))
    }

    /// Bytes that are here still, to be sent otherwise.
    fn take(&mut self, (round, place): Ticket) -> Option<Vec<u8>> {
        (round == self.round).then(|| std::mem::take(&mut self.entries[place].bytes))
    }

    fn fate(&mut self, ticket: Ticket) -> Fate {
        if ticket.0 == self.round {
            return Fate::Kept;
        }
        if self.troubled.is_empty() {
            return Fate::Sent;
        }
        self.troubled.remove(&ticket).map_or(Fate::Sent, Fate::Troubled)
    }

    fn send(&mut self) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.ring.send(&mut self.entries, &mut self.sent)?;
        let round = self.round;
        self.round += 1;
        for (place, (entry, result)) in self.entries.drain(..).zip(self.sent.drain(..)).enumerate() {
            let trouble = match result {
                Ok(count) if count == entry.bytes.len() => None,
                Ok(count) => Some(pass_on(&entry, count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(pass_on(&entry, 0)),
                Err(error) => Some(Trouble::Failed(error)),
            };
            if let Some(trouble) = trouble {
                self.troubled.insert((round, place), trouble);
            }
            let mut memory = entry.bytes;
            if memory.capacity() <= SPARE_BYTES && self.spare.len() < SPARE {
                memory.clear();
                self.spare.push(memory);
            }
        }
        Ok(())
    }
}

/// Lets a task of its own send what the socket did not take, on a descriptor of its own: whoever wrote it need not look after it.
fn pass_on(entry: &Entry, from: usize) -> Trouble {
    let own = match entry.duplicate() {
        Ok(own) => own,
        Err(error) => return Trouble::Failed(error),
    };
    let (rest, bytes) = (Arc::new(Rest::default()), entry.bytes[from..].to_vec());
    let told = rest.clone();
    tokio::spawn(async move {
        let sent = async {
            let mut stream = TcpStream::from_std(own.into())?;
            stream.write_all(&bytes).await
        };
        let late = || Err(io::ErrorKind::TimedOut.into());
        tokio::select! {
            biased;
            () = poll_fn(|cx| told.poll_given_up(cx)) => {}
            sent = tokio::time::timeout(REST_PATIENCE, sent) => told.tell(sent.unwrap_or_else(|_| late())),
        }
    });
    Trouble::Rest(rest)
}

impl Rest {
    fn tell(&self, result: io::Result<()>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.done = Some(result);
        if let Some(waker) = state.waits.take() {
            waker.wake();
        }
    }

    /// Sends no more of it: until then its sender keeps the connection open.
    fn give_up(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.given_up = true;
        if let Some(waker) = state.sends.take() {
            waker.wake();
        }
    }

    fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.sends = Some(cx.waker().clone());
        if state.given_up { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.done.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waits = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Entry {
    fn duplicate(&self) -> io::Result<OwnedFd> {
        nix::unistd::dup(self.borrowed()).map_err(io::Error::from)
    }
}

/// What the worker's runtime calls before it waits: all tasks that were ready have run.
pub fn before_waiting() {
    with_outbox(Outbox::waits);
}

/// Does something with the thread's outbox, if it has one.
fn with_outbox<T>(then: impl FnOnce(&mut Outbox) -> T) -> Option<T> {
    OUTBOX
        .try_with(|outbox| outbox.try_borrow_mut().ok().and_then(|mut outbox| outbox.as_mut().map(then)))
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests;

//! The streams of one client that speaks HTTP/2, between the task that reads and writes its connection and the tasks that serve requests.
use super::conn::Piece;
use bytes::{Bytes, BytesMut};
use http1::{Fields, RequestHead, ResponseHead};
use http2::{Code, Connection, Event, Events, Fault, Limits, Output, Sent};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Heads whose memory the next requests use.
const SPARE_HEADS: usize = 256;

/// Pieces of a body that wait are put together up to this.
const SMALL_BYTES: usize = 4 * 1024;
/// Room for so many is kept from stream to stream.
const SPARE_PIECES: usize = 16;

thread_local! {
    static EVENTS: RefCell<Events> = RefCell::default();
}

/// A request that came: its stream, its head, and whether it has no body.
pub type Asked = (Half, RequestHead, bool);

/// What both sides know.
#[derive(Debug)]
pub struct Streams(Mutex<State>);

#[derive(Debug)]
struct State {
    connection: Connection,
    /// By the connection's handles.
    slots: Vec<Slot>,
    /// The task that reads and writes, when it sleeps.
    driver: Option<Waker>,
    /// It ended: nothing is sent or will come.
    over: bool,
    /// The newest stream when it was last looked whether the client does anything.
    seen: u32,
}

/// What a client did since the last look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silent {
    /// It asked for something, or waits for an answer.
    No,
    /// It neither asked nor waits.
    Idle,
}

/// What came for the owner of a stream.
#[derive(Debug, Default)]
struct Slot {
    /// Holders of a [`Half`].
    halves: u32,
    pieces: VecDeque<Bytes>,
    end: Option<Option<Fields>>,
    gone: Option<Code>,
    /// Its body may not stand still between two looks.
    limited: bool,
    /// Something of it came since the last look.
    came: bool,
    /// The task that serves the request.
    waits: Option<Waker>,
}

impl Slot {
    /// Whether the client is to go on with the body: what came of it was taken, and it is not at its end.
    fn is_awaited(&self) -> bool {
        self.limited && self.halves > 0 && self.pieces.is_empty() && self.end.is_none() && self.gone.is_none()
    }

    /// Another piece of the body. Small ones become one, so that what a client makes us hold is what its window says.
    fn put(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.came = true;
        if let Some(last) = self.pieces.back_mut()
            && last.len() + bytes.len() <= SMALL_BYTES
        {
            let mut whole = BytesMut::from(std::mem::take(last));
            whole.extend_from_slice(&bytes);
            *last = whole.freeze();
            return;
        }
        self.pieces.push_back(bytes);
    }
}

impl Streams {
    /// Of a new connection.
    pub fn new(limits: Limits) -> Arc<Self> {
        let connection = Connection::new(limits);
        Arc::new(Self(Mutex::new(State { connection, slots: Vec::new(), driver: None, over: false, seen: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes this task when there is something to be sent.
    pub fn watch(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        if !state.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
    }

    /// Takes what came; requests that begin are added to `asked`. Bytes that were taken.
    pub fn receive(self: &Arc<Self>, bytes: &[u8], now_ms: u64, asked: &mut Vec<Asked>) -> Result<usize, Fault> {
        EVENTS.with_borrow_mut(|events| {
            let mut state = self.lock();
            let taken = state.connection.receive(bytes, now_ms, events);
            for event in events.list.drain(..) {
                if let Some((stream, head, ended)) = state.take(event) {
                    asked.push((Half { streams: self.clone(), stream }, head, ended));
                }
            }
            if taken.is_err() {
                state.break_off();
            }
            taken
        })
    }

    /// Lets `send` send what waits; it says how many bytes it did.
    pub fn send<E>(&self, send: impl FnOnce(&Output) -> Result<usize, E>) -> Result<(), E> {
        let mut state = self.lock();
        let sent = send(state.connection.output())?;
        EVENTS.with_borrow_mut(|events| {
            state.connection.flushed(sent, events);
            for event in events.list.drain(..) {
                state.take(event);
            }
        });
        Ok(())
    }

    /// Asks the connection something.
    pub fn ask<T>(&self, ask: impl FnOnce(&Connection) -> T) -> T {
        ask(&self.lock().connection)
    }

    /// Tells the client to leave.
    pub fn leave(&self) {
        self.lock().connection.leave();
    }

    /// Looks what the client did since the last look. Bodies that it was to go on with and did not are given up.
    pub fn look(&self) -> Silent {
        let mut state = self.lock();
        let State { connection, slots, seen, .. } = &mut *state;
        for (stream, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| slot.is_awaited()) {
            if !std::mem::take(&mut slot.came) {
                slot.gone = Some(Code::CANCEL);
                connection.reset(stream, Code::CANCEL);
                if let Some(waits) = slot.waits.take() {
                    waits.wake();
                }
            }
        }
        let before = std::mem::replace(seen, connection.newest());
        if connection.is_without_streams() && before == *seen { Silent::Idle } else { Silent::No }
    }

    /// The connection is gone, and with it all that was under way.
    pub fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        state.break_off();
    }
}

impl State {
    fn take(&mut self, event: Event) -> Option<(usize, RequestHead, bool)> {
        let stream = match event {
            Event::Request { stream, head, ended } => {
                if self.slots.len() <= stream {
                    self.slots.resize_with(stream + 1, Slot::default);
                }
                let slot = &mut self.slots[stream];
                *slot = Slot {
                    halves: 1,
                    end: ended.then_some(None),
                    pieces: std::mem::take(&mut slot.pieces),
                    ..Slot::default()
                };
                return Some((stream, head, ended));
            }
            Event::Data { stream, bytes, ended } => {
                let slot = &mut self.slots[stream];
                slot.put(bytes);
                if ended {
                    slot.end = Some(None);
                }
                stream
            }
            Event::Trailers { stream, fields } => {
                self.slots[stream].end = Some(Some(fields));
                stream
            }
            Event::Reset { stream, code } => {
                self.slots[stream].gone = Some(code);
                stream
            }
            // Its owner tries again.
            Event::Writable { stream } => stream,
        };
        if let Some(waits) = self.slots[stream].waits.take() {
            waits.wake();
        }
        None
    }

    fn break_off(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.halves > 0) {
            slot.gone.get_or_insert(Code::CANCEL);
            if let Some(waits) = slot.waits.take() {
                waits.wake();
            }
        }
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

/// One end of a stream: whoever reads the request, and whoever writes the answer. The stream ends with the last of them.
#[derive(Debug)]
pub struct Half {
    streams: Arc<Streams>,
    stream: usize,
}

impl Clone for Half {
    fn clone(&self) -> Self {
        self.streams.lock().slots[self.stream].halves += 1;
        Self { streams: self.streams.clone(), stream: self.stream }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let mut state = self.streams.lock();
        let slot = &mut state.slots[self.stream];
        slot.halves -= 1;
        if slot.halves == 0 {
            slot.pieces.clear();
            slot.pieces.shrink_to(SPARE_PIECES);
            (slot.end, slot.waits) = (None, None);
            let waiting = state.connection.output().len();
            state.connection.forget(self.stream);
            if state.connection.output().len() > waiting || state.connection.is_done() {
                state.wake_driver();
            }
        }
    }
}

fn gone(code: Code) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, format!("the stream was reset (HTTP/2 error {})", code.0))
}

impl Half {
    /// The next piece of the request's body.
    pub async fn piece(&mut self) -> io::Result<Piece> {
        poll_fn(|cx| self.poll_piece(cx)).await
    }

    fn poll_piece(&mut self, cx: &Context<'_>) -> Poll<io::Result<Piece>> {
        let mut state = self.streams.lock();
        let slot = &mut state.slots[self.stream];
        if let Some(bytes) = slot.pieces.pop_front() {
            // The client may send more as soon as this was taken; it is passed on before the next is asked for.
            let waiting = state.connection.output().len();
            state.connection.release(self.stream, bytes.len());
            if state.connection.output().len() > waiting {
                state.wake_driver();
            }
            return Poll::Ready(Ok(Piece::Data(bytes)));
        }
        if let Some(code) = slot.gone {
            return Poll::Ready(Err(gone(code)));
        }
        if let Some(trailers) = &mut slot.end {
            return Poll::Ready(Ok(Piece::End(trailers.take())));
        }
        slot.waits = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The client may not stop for long in its body, until an answer begins.
    pub fn limit_silence(&self) {
        let mut state = self.streams.lock();
        let slot = &mut state.slots[self.stream];
        // The first look may be soon.
        (slot.limited, slot.came) = (true, true);
    }

    /// Whether nothing of the body is to come, not even trailers.
    pub fn is_at_end(&self) -> bool {
        let state = self.streams.lock();
        let slot = &state.slots[self.stream];
        slot.pieces.is_empty() && matches!(slot.end, Some(None))
    }

    /// Ready when the client has taken its request back, or is gone.
    pub fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.streams.lock();
        let slot = &mut state.slots[self.stream];
        if slot.gone.is_some() {
            return Poll::Ready(());
        }
        if !slot.waits.as_ref().is_some_and(|waits| waits.will_wake(cx.waker())) {
            slot.waits = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn sent(&self, state: &mut State, sent: Sent) -> io::Result<()> {
        state.wake_driver();
        match sent {
            Sent::Whole | Sent::Blocked => Ok(()),
            Sent::Gone => Err(gone(state.slots[self.stream].gone.unwrap_or(Code::CANCEL))),
        }
    }

    /// Sends the head of the answer. `ended`: it has no body.
    pub fn respond(&mut self, head: &ResponseHead, ended: bool) -> io::Result<()> {
        let mut state = self.streams.lock();
        // From now on both may talk as they like.
        state.slots[self.stream].limited = false;
        let sent = if state.over { Sent::Gone } else { state.connection.respond(self.stream, head, ended) };
        self.sent(&mut state, sent)
    }

    /// Sends a piece of the answer's body: as fast as the client takes it.
    pub async fn data(&mut self, mut bytes: Bytes) -> io::Result<()> {
        poll_fn(|cx| {
            let mut state = self.streams.lock();
            let sent = if state.over { Sent::Gone } else { state.connection.send(self.stream, &mut bytes) };
            if sent == Sent::Blocked {
                state.wake_driver();
                let slot = &mut state.slots[self.stream];
                slot.waits = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(self.sent(&mut state, sent))
        })
        .await
    }

    /// Ends the answer.
    pub fn finish(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        let mut state = self.streams.lock();
        let sent = if state.over { Sent::Gone } else { state.connection.finish(self.stream, trailers) };
        self.sent(&mut state, sent)
    }

    /// Breaks the answer off.
    pub fn reset(&mut self, code: Code) {
        let mut state = self.streams.lock();
        state.connection.reset(self.stream, code);
        state.wake_driver();
    }
}

/// Gives the memory of a request's head to a later one.
pub fn recycle(mut head: RequestHead) {
    EVENTS.with_borrow_mut(|events| {
        if events.heads.len() < SPARE_HEADS {
            head.clear();
            events.heads.push(head);
        }
    });
}

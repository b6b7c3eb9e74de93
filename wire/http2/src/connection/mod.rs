//! A client's connection: its streams and windows, and what its frames mean.
mod receive;
mod send;

pub use send::Sent;

use crate::error::{Code, Fault};
use crate::frame::{self, setting};
use crate::hpack::{Decoder, Encoder};
use crate::output::Output;
use crate::rate::Rate;
use crate::stream::{By, Credit, Stream};
use bytes::Bytes;
use http1::{Fields, RequestHead};
use slab::Slab;
use std::collections::VecDeque;

/// Windows before anything is said (RFC 9113, 6.9.2).
const WINDOW: u32 = 65_535;
/// Closed streams whose end is remembered: what their clients sent before they knew is in order.
const REMEMBERED: usize = 256;
/// A ping behind a GOAWAY: when it comes back, no request is under way that was sent before the GOAWAY came.
const FAREWELL: [u8; 8] = *b"farewell";

/// What a client may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams at a time.
    pub streams: u32,
    /// Bytes of a header list, packed or unpacked, each field with 32 more (RFC 9113, 6.5.2).
    pub header_bytes: usize,
    /// Bytes of one request's body before they are taken. At least 65,535.
    pub stream_window: u32,
    /// Of all together. At least 65,535.
    pub connection_window: u32,
    /// Bytes of answers that wait for the client to read.
    pub waiting_bytes: usize,
    /// What costs us and asks for nothing (resets, settings, priorities, empty DATA, streams that are refused), in a second; five times as
    /// much at once.
    pub idle_per_second: u32,
}

/// What came. `stream` is a handle of ours, which is good until [`Connection::forget`].
#[derive(Debug)]
pub enum Event {
    /// A request begins. `ended`: it has no body. An extended CONNECT (RFC 8441) is a `GET` with an [`upgrade`](RequestHead::upgrade):
    /// what comes as its body belongs to the other protocol.
    Request {
        /// Its stream, from now on.
        stream: usize,
        /// Its head.
        head: RequestHead,
        /// It has no body.
        ended: bool,
    },
    /// A piece of its body, which may be empty when it is the last.
    Data {
        /// Of this stream.
        stream: usize,
        /// The piece.
        bytes: Bytes,
        /// It is the last.
        ended: bool,
    },
    /// The body ended with trailers.
    Trailers {
        /// Of this stream.
        stream: usize,
        /// The trailers.
        fields: Fields,
    },
    /// Nothing more will come of the stream, and nothing more is sent: the client took it back, or broke a rule.
    Reset {
        /// This one.
        stream: usize,
        /// Why.
        code: Code,
    },
    /// The owner was told that it must wait, and need not any longer.
    Writable {
        /// Of this stream.
        stream: usize,
    },
}

/// Events, in order, and memory for the heads of requests to come.
#[derive(Debug, Default)]
pub struct Events {
    /// What came.
    pub list: Vec<Event>,
    /// Heads that were cleared.
    pub heads: Vec<RequestHead>,
}

/// A header block whose end did not come yet.
#[derive(Debug)]
struct Block {
    stream: u32,
    ended: bool,
    depends_on_itself: bool,
    text: Vec<u8>,
    frames: u32,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing came yet.
    New,
    /// The preface came, settings did not.
    Greeted,
    Open,
    /// The client is told to leave; it may have asked for more before it knew.
    Leaving,
    /// Streams above the last are not served.
    Left,
    /// It broke a rule.
    Failed,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    phase: Phase,
    decoder: Decoder,
    encoder: Encoder,
    out: Output,
    streams: Slab<Stream>,
    /// Numbers of the client's and our handles, ascending.
    ids: Vec<(u32, usize)>,
    /// Streams that the client counts.
    open: u32,
    /// Streams whose owners wait until they may send.
    blocked: u32,
    /// The highest number that was used.
    last: u32,
    closed: VecDeque<(u32, By)>,
    block: Option<Block>,
    window_in: Credit,
    window_out: i64,
    /// What a stream may be sent at first.
    first_window: u32,
    rate: Rate,
    /// The stream whose owner was told first, the last time that several could go on.
    turn: u32,
    /// It is to be told to leave when it has said what it must say first.
    should_leave: bool,
    scratch: Vec<u8>,
}

impl Connection {
    /// Begins: our settings wait to be sent.
    pub fn new(limits: Limits) -> Self {
        debug_assert!(limits.stream_window >= WINDOW && limits.connection_window >= WINDOW);
        let mut out = Output::default();
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, limits.streams),
            (setting::INITIAL_WINDOW_SIZE, limits.stream_window),
            (setting::MAX_HEADER_LIST_SIZE, limits.header_bytes as u32),
            (setting::ENABLE_CONNECT_PROTOCOL, 1),
        ];
        frame::begin(settings.len() * 6, frame::SETTINGS, 0, 0, out.text());
        for (name, value) in settings {
            out.text().extend_from_slice(&name.to_be_bytes());
            out.text().extend_from_slice(&value.to_be_bytes());
        }
        if limits.connection_window > WINDOW {
            frame::numbers(frame::WINDOW_UPDATE, 0, &[limits.connection_window - WINDOW], out.text());
        }
        Self {
            limits,
            phase: Phase::New,
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            out,
            streams: Slab::new(),
            ids: Vec::new(),
            open: 0,
            blocked: 0,
            last: 0,
            closed: VecDeque::new(),
            block: None,
            window_in: Credit::new(limits.connection_window),
            window_out: i64::from(WINDOW),
            first_window: WINDOW,
            rate: Rate::new(limits.idle_per_second),
            turn: 0,
            should_leave: false,
            scratch: Vec::new(),
        }
    }

    /// What waits to be sent.
    pub fn output(&self) -> &Output {
        &self.out
    }

    /// Whether the client should be read from: not while it reads too little of what it asked for.
    pub fn wants_input(&self) -> bool {
        self.phase != Phase::Failed && self.out.len() < self.limits.waiting_bytes
    }

    /// Whether the client has said what it must say first.
    pub fn is_greeted(&self) -> bool {
        !matches!(self.phase, Phase::New | Phase::Greeted)
    }

    /// Whether no stream is under way.
    pub fn is_without_streams(&self) -> bool {
        self.streams.is_empty()
    }

    /// The highest number of a stream that the client has used; 0: none.
    pub fn newest(&self) -> u32 {
        self.last
    }

    /// Whether it broke a rule, or left when it was told to: what waits is sent, and then it ends.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Failed || (self.phase == Phase::Left && self.streams.is_empty())
    }

    /// The owner is done with a stream. What was not said of its answer will not be said.
    pub fn forget(&mut self, stream: usize) {
        let Some(it) = self.streams.get(stream) else { return };
        if it.gone.is_none() && !(it.sent && it.received) {
            // RFC 9113, 8.1: a client that still sends what nobody needs is told that it is no error.
            let code = if it.sent { Code::NO_ERROR } else { Code::INTERNAL_ERROR };
            self.reset(stream, code);
        }
        let it = self.streams.remove(stream);
        self.blocked -= u32::from(it.blocked);
        if it.held > 0 {
            self.give_back(it.held);
        }
        if let Ok(place) = self.ids.binary_search_by_key(&it.id, |(id, _)| *id) {
            self.ids.remove(place);
        }
        self.remember(it.id, it.gone.unwrap_or(By::Client));
    }

    /// Tells the client to leave; what it asked for before it knew is served.
    pub fn leave(&mut self) {
        self.should_leave = true;
        if self.phase == Phase::Open {
            self.phase = Phase::Leaving;
            frame::numbers(frame::GOAWAY, 0, &[i32::MAX as u32, 0], self.out.text());
            frame::begin(FAREWELL.len(), frame::PING, 0, 0, self.out.text());
            self.out.text().extend_from_slice(&FAREWELL);
        }
    }

    fn find(&self, id: u32) -> Option<usize> {
        // The newest stream is the one that is asked for most.
        match self.ids.last() {
            Some((last, stream)) if *last == id => Some(*stream),
            _ => {
                let place = self.ids.binary_search_by_key(&id, |(id, _)| *id).ok()?;
                Some(self.ids[place].1)
            }
        }
    }

    /// Who ended a stream that has no owner any more, if that is known.
    fn ended_by(&self, id: u32) -> Option<By> {
        self.closed.iter().rev().find(|(closed, _)| *closed == id).map(|(_, by)| *by)
    }

    fn remember(&mut self, id: u32, by: By) {
        if self.closed.len() == REMEMBERED {
            self.closed.pop_front();
        }
        self.closed.push_back((id, by));
    }

    /// One more thing that costs and asks for nothing.
    fn charge(&mut self) -> Result<(), Fault> {
        if self.rate.take() { Ok(()) } else { Err(Fault::too_much("too much that asks for nothing")) }
    }

    /// The connection ends.
    fn fail(&mut self, fault: Fault) {
        self.phase = Phase::Failed;
        frame::numbers(frame::GOAWAY, 0, &[self.last, fault.code.0], self.out.text());
        for (_, stream) in &mut self.streams {
            stream.gone.get_or_insert(By::Us);
        }
    }

    /// Does something with a stream, after which the client may no longer count it.
    fn change<T>(&mut self, stream: usize, change: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        let it = self.streams.get_mut(stream)?;
        let was_open = it.is_open();
        let done = change(it);
        if was_open && !it.is_open() {
            self.open -= 1;
        }
        Some(done)
    }

    /// Bytes were taken, of whichever stream.
    fn give_back(&mut self, bytes: u32) {
        if let Some(told) = self.window_in.give_back(bytes) {
            frame::numbers(frame::WINDOW_UPDATE, 0, &[told], self.out.text());
        }
    }
}

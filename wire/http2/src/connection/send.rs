//! What the owners of streams say.
use super::{Connection, Event, Events, Phase};
use crate::error::Code;
use crate::frame::{self, DATA, END_HEADERS, END_STREAM, HEADERS};
use crate::head;
use crate::stream::By;
use bytes::Bytes;
use http1::{Fields, ResponseHead};

/// What became of bytes that should be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// They will be.
    Whole,
    /// Not all: [`Event::Writable`] comes when there is room for more.
    Blocked,
    /// The stream was reset, or the connection ended.
    Gone,
}

impl Connection {
    /// Sends the head of an answer. `ended`: it has no body.
    pub fn respond(&mut self, stream: usize, head: &ResponseHead, ended: bool) -> Sent {
        if !self.may_send(stream) {
            return Sent::Gone;
        }
        let mut block = std::mem::take(&mut self.scratch);
        head::response(&mut self.encoder, head, &mut block);
        self.send_block(stream, &block, ended);
        self.scratch = block;
        self.scratch.clear();
        Sent::Whole
    }

    /// Sends as much of a body as the client lets us; what is left stays in `bytes`.
    pub fn send(&mut self, stream: usize, bytes: &mut Bytes) -> Sent {
        if !self.may_send(stream) {
            return Sent::Gone;
        }
        let it = &mut self.streams[stream];
        while !bytes.is_empty() {
            let room = self.limits.waiting_bytes.saturating_sub(self.out.len()) as i64;
            let take = it.window_out.min(self.window_out).min(room).min(bytes.len().min(frame::FRAME_BYTES) as i64);
            if take <= 0 {
                self.blocked += u32::from(!std::mem::replace(&mut it.blocked, true));
                return Sent::Blocked;
            }
            it.window_out -= take;
            self.window_out -= take;
            it.flags_at = self.out.place() + 4;
            frame::begin(take as usize, DATA, 0, it.id, self.out.text());
            self.out.body(bytes.split_to(take as usize));
        }
        Sent::Whole
    }

    /// Ends an answer.
    pub fn finish(&mut self, stream: usize, trailers: Option<&Fields>) -> Sent {
        if !self.may_send(stream) {
            return Sent::Gone;
        }
        if let Some(trailers) = trailers.filter(|trailers| !trailers.is_empty()) {
            let mut block = std::mem::take(&mut self.scratch);
            self.encoder.begin(&mut block);
            head::fields(&mut self.encoder, trailers, &mut block);
            self.send_block(stream, &block, true);
            self.scratch = block;
            self.scratch.clear();
            return Sent::Whole;
        }
        let (id, flags_at) = (self.streams[stream].id, self.streams[stream].flags_at);
        // The last frame says it, if it waits still.
        if !self.out.add_flags(flags_at, END_STREAM) {
            frame::begin(0, DATA, END_STREAM, id, self.out.text());
        }
        self.change(stream, |it| it.sent = true);
        Sent::Whole
    }

    /// Breaks a stream off.
    pub fn reset(&mut self, stream: usize, code: Code) {
        let id =
            self.change(stream, |it| (it.gone.replace(By::Us).is_none() && !(it.sent && it.received)).then_some(it.id));
        if let Some(Some(id)) = id
            && self.phase != Phase::Failed
        {
            frame::reset(id, code, self.out.text());
        }
    }

    /// So many bytes of a body were taken by the owner: the client may send as many more.
    pub fn release(&mut self, stream: usize, bytes: usize) {
        let Some(it) = self.streams.get_mut(stream) else { return };
        let bytes = (bytes as u32).min(it.held);
        it.held -= bytes;
        self.returned(stream, bytes);
    }

    /// Bytes of a stream were taken, or were never for its owner.
    pub(super) fn returned(&mut self, stream: usize, bytes: u32) {
        self.give_back(bytes);
        let it = &mut self.streams[stream];
        if !it.received
            && it.gone.is_none()
            && let Some(told) = it.window_in.give_back(bytes)
        {
            frame::numbers(frame::WINDOW_UPDATE, it.id, &[told], self.out.text());
        }
    }

    /// So many bytes of the output were sent.
    pub fn flushed(&mut self, count: usize, events: &mut Events) {
        self.out.advance(count);
        if self.blocked > 0 && self.out.len() <= self.limits.waiting_bytes / 2 {
            self.unblock(events);
        }
    }

    /// Tells the owners that wait and need not any longer, each time another one first: the first may take all the room that there is.
    pub(super) fn unblock(&mut self, events: &mut Events) {
        if self.blocked == 0 || self.window_out <= 0 {
            return;
        }
        let behind = self.ids.partition_point(|(id, _)| *id <= self.turn);
        let mut turn = None;
        for (id, stream) in self.ids[behind..].iter().chain(&self.ids[..behind]) {
            let it = &mut self.streams[*stream];
            if it.blocked && it.window_out > 0 {
                it.blocked = false;
                self.blocked -= 1;
                turn.get_or_insert(*id);
                events.list.push(Event::Writable { stream: *stream });
            }
        }
        self.turn = turn.unwrap_or(self.turn);
    }

    fn may_send(&self, stream: usize) -> bool {
        self.phase != Phase::Failed && self.streams.get(stream).is_some_and(|it| it.gone.is_none() && !it.sent)
    }

    /// Sends a header block in as many frames as it takes.
    fn send_block(&mut self, stream: usize, block: &[u8], ended: bool) {
        let id = self.streams[stream].id;
        let place = self.out.place() + 4;
        let ends = if ended { END_STREAM } else { 0 };
        let (first, mut rest) = block.split_at(block.len().min(frame::FRAME_BYTES));
        let whole = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
        frame::begin(first.len(), HEADERS, ends | whole(rest), id, self.out.text());
        self.out.text().extend_from_slice(first);
        while !rest.is_empty() {
            let piece;
            (piece, rest) = rest.split_at(rest.len().min(frame::FRAME_BYTES));
            frame::begin(piece.len(), frame::CONTINUATION, whole(rest), id, self.out.text());
            self.out.text().extend_from_slice(piece);
        }
        self.change(stream, |it| {
            it.flags_at = place;
            it.sent = ended;
        });
    }
}

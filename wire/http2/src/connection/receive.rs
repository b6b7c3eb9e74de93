//! What the client's frames mean.
use super::{Block, Connection, Event, Events, FAREWELL, Phase};
use crate::error::{Code, Fault};
use crate::frame::{self, Head, setting};
use crate::head::{self, Refusal};
use crate::stream::{By, Credit, MOST_WINDOW, Stream};
use bytes::Bytes;
use http1::{Framing, ResponseHead};

/// Frames of one header block: more than its bytes need is an attack.
const MOST_BLOCK_FRAMES: u32 = 32;

impl Connection {
    /// Takes what came, as far as it is whole, and says how much that was. `now_ms`: a clock that does not go back.
    ///
    /// # Errors
    /// A rule was broken: the client is told (what waits is to be sent), and nothing more is taken.
    pub fn receive(&mut self, input: &[u8], now_ms: u64, events: &mut Events) -> Result<usize, Fault> {
        let mut taken = 0;
        self.rate.tick(now_ms);
        let result = self.frames(input, &mut taken, events);
        result.inspect_err(|fault| self.fail(*fault)).map(|()| taken)
    }

    fn frames(&mut self, input: &[u8], taken: &mut usize, events: &mut Events) -> Result<(), Fault> {
        if self.phase == Phase::New {
            let known = input.len().min(frame::PREFACE.len());
            if input[..known] != frame::PREFACE[..known] {
                return Err(Fault::protocol("no preface"));
            }
            if known < frame::PREFACE.len() {
                return Ok(());
            }
            *taken = known;
            self.phase = Phase::Greeted;
        }
        while let Some(head) = Head::read(&input[*taken..]) {
            if head.length > frame::FRAME_BYTES {
                return Err(Fault::size("a frame above the maximum size"));
            }
            let begin = *taken + frame::HEAD_BYTES;
            let Some(payload) = input.get(begin..begin + head.length) else { break };
            *taken = begin + head.length;
            self.frame(head, payload, events)?;
        }
        Ok(())
    }

    fn frame(&mut self, head: Head, payload: &[u8], events: &mut Events) -> Result<(), Fault> {
        if self.phase == Phase::Greeted {
            if head.kind != frame::SETTINGS || head.has(frame::ACK) {
                return Err(Fault::protocol("settings do not come first"));
            }
            self.phase = Phase::Open;
            if self.should_leave {
                self.leave();
            }
        }
        if let Some(block) = &self.block
            && (head.kind != frame::CONTINUATION || head.stream != block.stream)
        {
            return Err(Fault::protocol("another frame within a header block"));
        }
        match head.kind {
            frame::DATA => self.data(head, payload, events),
            frame::HEADERS => self.headers(head, payload, events),
            frame::PRIORITY => self.priority(head, payload, events),
            frame::RST_STREAM => self.rst_stream(head, payload, events),
            frame::SETTINGS => self.settings(head, payload, events),
            frame::PUSH_PROMISE => Err(Fault::protocol("a client promises a push")),
            frame::PING => self.ping(head, payload),
            frame::GOAWAY if head.stream != 0 => Err(Fault::protocol("GOAWAY on a stream")),
            frame::GOAWAY if payload.len() < 8 => Err(Fault::size("GOAWAY")),
            frame::WINDOW_UPDATE => self.window_update(head, payload, events),
            frame::CONTINUATION => self.continuation(head, payload, events),
            _ => Ok(()),
        }
    }

    fn data(&mut self, head: Head, payload: &[u8], events: &mut Events) -> Result<(), Fault> {
        let body = frame::unpadded(head, payload)?;
        let bytes = payload.len() as u32;
        let ended = head.has(frame::END_STREAM);
        if self.is_idle(head.stream) {
            return Err(Fault::protocol("DATA where there is no stream"));
        }
        if !self.window_in.spend(bytes) {
            return Err(Fault::window("more than the connection's window"));
        }
        if self.is_left_alone(head.stream) {
            self.give_back(bytes);
            return Ok(());
        }
        let Some(stream) = self.find(head.stream) else {
            self.give_back(bytes);
            return self.late(head.stream, self.ended_by(head.stream));
        };
        let it = &mut self.streams[stream];
        if it.gone.is_some() {
            let by = it.gone;
            self.give_back(bytes);
            return self.late(head.stream, by);
        }
        let left = it.left.map(|left| left.checked_sub(body.len() as u64));
        let wrong = if it.received {
            Some(Code::STREAM_CLOSED)
        } else if !it.window_in.spend(bytes) {
            Some(Code::FLOW_CONTROL_ERROR)
        } else if left == Some(None) || (ended && matches!(left, Some(Some(1..)))) {
            Some(Code::PROTOCOL_ERROR)
        } else {
            None
        };
        if let Some(code) = wrong {
            self.give_back(bytes);
            return self.fault(stream, code, events);
        }
        it.left = left.flatten();
        it.held += body.len() as u32;
        self.change(stream, |it| it.received |= ended);
        let padding = bytes - body.len() as u32;
        if padding > 0 {
            self.returned(stream, padding);
        }
        if body.is_empty() && !ended {
            return self.charge();
        }
        events.list.push(Event::Data { stream, bytes: Bytes::copy_from_slice(body), ended });
        Ok(())
    }

    fn headers(&mut self, head: Head, payload: &[u8], events: &mut Events) -> Result<(), Fault> {
        if head.stream.is_multiple_of(2) {
            return Err(Fault::protocol("HEADERS on a stream that is no client's"));
        }
        let mut block = frame::unpadded(head, payload)?;
        let mut depends_on_itself = false;
        if head.has(frame::WITH_PRIORITY) {
            depends_on_itself = frame::number(block) == head.stream;
            block = block.get(5..).ok_or(Fault::size("HEADERS"))?;
        }
        let ended = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.block(head.stream, ended, depends_on_itself, block, events);
        }
        let text = block.to_vec();
        self.block = Some(Block { stream: head.stream, ended, depends_on_itself, text, frames: 1 });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8], events: &mut Events) -> Result<(), Fault> {
        let Some(mut block) = self.block.take() else {
            return Err(Fault::protocol("CONTINUATION of nothing"));
        };
        block.text.extend_from_slice(payload);
        block.frames += 1;
        if block.text.len() > self.limits.header_bytes || block.frames > MOST_BLOCK_FRAMES {
            return Err(Fault::too_much("a header block without end"));
        }
        if head.has(frame::END_HEADERS) {
            return self.block(block.stream, block.ended, block.depends_on_itself, &block.text, events);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A whole header block.
    fn block(&mut self, id: u32, ended: bool, itself: bool, block: &[u8], events: &mut Events) -> Result<(), Fault> {
        if id > self.last && self.phase != Phase::Left {
            return self.open(id, ended, itself, block, events);
        }
        // Whatever becomes of it, it must be read: the tables of both ends depend on it.
        let fields = head::trailers(&mut self.decoder, block, self.limits.header_bytes)?;
        if self.is_left_alone(id) {
            return self.charge();
        }
        let found = self.find(id);
        let ended_by = match found {
            Some(stream) => self.streams[stream].gone,
            None => self.ended_by(id),
        };
        match (ended_by, found) {
            (Some(By::Us), _) => return self.charge(),
            (Some(By::Client), _) => {
                return Err(Fault { code: Code::STREAM_CLOSED, why: "HEADERS on a closed stream" });
            }
            (None, None) => return Err(Fault::protocol("HEADERS on a stream of a lower number")),
            (None, Some(_)) => {}
        }
        let Some(stream) = found else { return Ok(()) };
        let it = &self.streams[stream];
        if it.received {
            return self.fault(stream, Code::STREAM_CLOSED, events);
        }
        let Some(fields) = fields.ok().filter(|_| ended && !itself && it.left.unwrap_or(0) == 0) else {
            return self.fault(stream, Code::PROTOCOL_ERROR, events);
        };
        self.change(stream, |it| it.received = true);
        events.list.push(Event::Trailers { stream, fields });
        Ok(())
    }

    fn open(&mut self, id: u32, ended: bool, itself: bool, block: &[u8], events: &mut Events) -> Result<(), Fault> {
        let mut head = events.heads.pop().unwrap_or_default();
        let read = head::request(&mut self.decoder, block, self.limits.header_bytes, ended, &mut head)?;
        self.last = id;
        // A stream that was reset still has its owner for a while.
        let full = self.open >= self.limits.streams || self.streams.len() >= 2 * self.limits.streams as usize;
        let refusal = match read {
            _ if itself => Refusal::Malformed("a stream that depends on itself"),
            Err(refusal) => refusal,
            Ok(_) if full => {
                self.recycle(head, events);
                return self.turn_away(id, Code::REFUSED_STREAM);
            }
            Ok(left) => {
                let it = Stream {
                    id,
                    received: ended,
                    sent: false,
                    gone: None,
                    blocked: false,
                    window_out: i64::from(self.first_window),
                    window_in: Credit::new(self.limits.stream_window),
                    held: 0,
                    left,
                    flags_at: 0,
                };
                let stream = self.streams.insert(it);
                self.ids.push((id, stream));
                self.open += 1;
                events.list.push(Event::Request { stream, head, ended });
                return Ok(());
            }
        };
        self.recycle(head, events);
        match refusal {
            Refusal::Malformed(_) => self.turn_away(id, Code::PROTOCOL_ERROR),
            Refusal::Status(status) => self.answer(id, ended, status),
        }
    }

    fn recycle(&self, mut head: http1::RequestHead, events: &mut Events) {
        head.clear();
        events.heads.push(head);
    }

    /// A request that is answered before it has an owner.
    fn answer(&mut self, id: u32, ended: bool, status: u16) -> Result<(), Fault> {
        self.scratch.clear();
        head::response(&mut self.encoder, &ResponseHead::new(status, Framing::Empty), &mut self.scratch);
        frame::begin(self.scratch.len(), frame::HEADERS, frame::END_HEADERS | frame::END_STREAM, id, self.out.text());
        self.out.text().extend_from_slice(&self.scratch);
        self.scratch.clear();
        if !ended {
            frame::reset(id, Code::NO_ERROR, self.out.text());
        }
        self.remember(id, if ended { By::Client } else { By::Us });
        self.charge()
    }

    fn turn_away(&mut self, id: u32, code: Code) -> Result<(), Fault> {
        frame::reset(id, code, self.out.text());
        self.remember(id, By::Us);
        self.charge()
    }

    /// The client broke a rule that ends a stream.
    fn fault(&mut self, stream: usize, code: Code, events: &mut Events) -> Result<(), Fault> {
        let it = &mut self.streams[stream];
        let id = it.id;
        self.change(stream, |it| it.gone = Some(By::Us));
        frame::reset(id, code, self.out.text());
        events.list.push(Event::Reset { stream, code });
        self.charge()
    }

    /// Something came on a stream that is closed: in order only if the client could not know.
    fn late(&mut self, id: u32, by: Option<By>) -> Result<(), Fault> {
        if by != Some(By::Us) {
            frame::reset(id, Code::STREAM_CLOSED, self.out.text());
            self.charge()?;
        }
        Ok(())
    }

    /// Whether no stream ever had this number.
    fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || (id > self.last && self.phase != Phase::Left)
    }

    /// Whether it is a stream that was begun before the client knew that it should leave (RFC 9113, 6.8): nothing about it is heard.
    fn is_left_alone(&self, id: u32) -> bool {
        id > self.last && self.phase == Phase::Left
    }

    fn priority(&mut self, head: Head, payload: &[u8], events: &mut Events) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(Fault::protocol("PRIORITY of no stream"));
        }
        if payload.len() != 5 {
            return Err(Fault::size("PRIORITY"));
        }
        self.charge()?;
        if frame::number(payload) != head.stream {
            return Ok(());
        }
        match self.find(head.stream) {
            Some(stream) if self.streams[stream].is_open() => self.fault(stream, Code::PROTOCOL_ERROR, events),
            _ => {
                frame::reset(head.stream, Code::PROTOCOL_ERROR, self.out.text());
                Ok(())
            }
        }
    }

    fn rst_stream(&mut self, head: Head, payload: &[u8], events: &mut Events) -> Result<(), Fault> {
        if self.is_idle(head.stream) {
            return Err(Fault::protocol("RST_STREAM where there is no stream"));
        }
        if payload.len() != 4 {
            return Err(Fault::size("RST_STREAM"));
        }
        // CVE-2023-44487: to ask and take it back costs the client nothing.
        self.charge()?;
        let Some(stream) = self.find(head.stream) else { return Ok(()) };
        let was = self.change(stream, |it| {
            it.received = true;
            it.gone.replace(By::Client)
        });
        if was == Some(None) {
            let code = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            events.list.push(Event::Reset { stream, code: Code(code) });
        }
        Ok(())
    }

    fn settings(&mut self, head: Head, payload: &[u8], events: &mut Events) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("SETTINGS on a stream"));
        }
        if head.has(frame::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Fault::size("SETTINGS with an acknowledgement")) };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Fault::size("SETTINGS"));
        }
        self.charge()?;
        let mut first_window = self.first_window;
        for entry in payload.chunks_exact(6) {
            let name = u16::from_be_bytes([entry[0], entry[1]]);
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            match name {
                setting::HEADER_TABLE_SIZE => self.encoder.resize(value as usize),
                setting::ENABLE_PUSH if value > 1 => return Err(Fault::protocol("ENABLE_PUSH")),
                setting::INITIAL_WINDOW_SIZE if i64::from(value) > MOST_WINDOW => {
                    return Err(Fault::window("INITIAL_WINDOW_SIZE"));
                }
                // Said more than once, the last counts.
                setting::INITIAL_WINDOW_SIZE => first_window = value,
                setting::MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(Fault::protocol("MAX_FRAME_SIZE"));
                }
                // Of what remains nothing changes what we send: frames larger than the least would let one stream keep the others waiting.
                _ => {}
            }
        }
        frame::begin(0, frame::SETTINGS, frame::ACK, 0, self.out.text());
        if first_window != self.first_window {
            self.first_window(first_window)?;
            self.unblock(events);
        }
        Ok(())
    }

    /// What streams may be sent at first changes, also for those that are open (RFC 9113, 6.9.2).
    fn first_window(&mut self, value: u32) -> Result<(), Fault> {
        let more = i64::from(value) - i64::from(self.first_window);
        self.first_window = value;
        for (_, stream) in &mut self.streams {
            stream.window_out += more;
            if stream.window_out > MOST_WINDOW {
                return Err(Fault::window("a window above 2^31-1"));
            }
        }
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("PING on a stream"));
        }
        if payload.len() != 8 {
            return Err(Fault::size("PING"));
        }
        if !head.has(frame::ACK) {
            frame::begin(8, frame::PING, frame::ACK, 0, self.out.text());
            // Clients measure by them, as often as they get data; that answers are read bounds them.
            self.out.text().extend_from_slice(payload);
            return Ok(());
        }
        if self.phase == Phase::Leaving && payload == FAREWELL {
            self.phase = Phase::Left;
            frame::numbers(frame::GOAWAY, 0, &[self.last, 0], self.out.text());
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8], events: &mut Events) -> Result<(), Fault> {
        if payload.len() != 4 {
            return Err(Fault::size("WINDOW_UPDATE"));
        }
        let more = i64::from(frame::number(payload));
        if head.stream == 0 {
            let was_empty = self.window_out <= 0;
            self.window_out += more;
            if more == 0 {
                return Err(Fault::protocol("a window that grows by nothing"));
            }
            if self.window_out > MOST_WINDOW {
                return Err(Fault::window("a window above 2^31-1"));
            }
            if was_empty {
                self.unblock(events);
            }
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(Fault::protocol("WINDOW_UPDATE where there is no stream"));
        }
        let Some(stream) = self.find(head.stream) else { return Ok(()) };
        let it = &mut self.streams[stream];
        if !it.is_open() {
            return Ok(());
        }
        it.window_out += more;
        if more == 0 {
            return self.fault(stream, Code::PROTOCOL_ERROR, events);
        }
        if it.window_out > MOST_WINDOW {
            return self.fault(stream, Code::FLOW_CONTROL_ERROR, events);
        }
        if it.blocked && it.window_out > 0 && self.window_out > 0 {
            it.blocked = false;
            self.blocked -= 1;
            events.list.push(Event::Writable { stream });
        }
        Ok(())
    }
}

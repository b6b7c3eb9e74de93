//! HTTP/2 as bytes: what no library would send, and what comes back.
use std::io::{ErrorKind, Read, Write};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types and flags of frames: RFC 9113, 6.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

// Error codes: RFC 9113, 7.
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// HPACK: `GET /` of http, authority `a`.
pub const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 1, b'a'];
/// HPACK: `POST /` of http, authority `a`.
pub const POST: &[u8] = &[0x83, 0x84, 0x86, 0x41, 1, b'a'];

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

/// A setting alone in its frame.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// HPACK: a field as it is, not indexed.
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &text(name), &text(value)].concat()
}

/// HPACK: fields as they are.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect()
}

/// HPACK: a string that is not compressed.
fn text(bytes: &[u8]) -> Vec<u8> {
    [&integer(7, 0, bytes.len())[..], bytes].concat()
}

/// HPACK: an integer with a prefix of so many bits (RFC 7541, 5.1).
pub fn integer(bits: u32, first: u8, value: usize) -> Vec<u8> {
    let most = (1usize << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let (mut out, mut rest) = (vec![first | most as u8], value - most);
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
    out
}

/// A frame that came.
#[derive(Debug)]
pub struct Came {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What became of something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A stream was answered whole: its number and status.
    Answered(u32, u16),
    /// A stream was reset: its number and the error code.
    Reset(u32, u32),
    /// The connection was ended: the error code.
    GoAway(u32),
    /// It was ended without a word.
    Closed,
    /// Our ping came back before anything else.
    Pong,
    /// Nothing came in time.
    Silence,
}

/// A client that sends what it likes.
pub struct Peer<S> {
    stream: S,
    /// The stream whose answer has begun, and its status.
    begun: Vec<(u32, u16)>,
}

/// A ping that is ours.
pub const MARK: [u8; 8] = *b"markmark";

impl<S: Read + Write> Peer<S> {
    /// Begins: preface and empty settings.
    pub fn open(stream: S) -> Self {
        let mut peer = Self { stream, begun: Vec::new() };
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        peer
    }

    /// Begins with these bytes in place of the preface.
    pub fn open_with(stream: S, bytes: &[u8]) -> Self {
        let mut peer = Self { stream, begun: Vec::new() };
        peer.send(bytes);
        peer
    }

    /// Sends; a connection that was ended takes nothing more, which is seen when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// The next frame.
    ///
    /// # Errors
    /// The connection was ended, or nothing came in time.
    pub fn read(&mut self) -> Result<Came, Outcome> {
        let fail = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::Silence,
            _ => Outcome::Closed,
        };
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).map_err(fail)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).map_err(fail)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Came { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until something is decided.
    pub fn outcome(&mut self) -> Outcome {
        loop {
            let came = match self.read() {
                Ok(came) => came,
                Err(outcome) => return outcome,
            };
            if let Some(outcome) = self.decided(&came) {
                return outcome;
            }
        }
    }

    /// Reads until a stream's answer begins: its status.
    ///
    /// # Errors
    /// What came of it instead.
    pub fn head(&mut self, stream: u32) -> Result<u16, Outcome> {
        loop {
            let came = self.read()?;
            if came.kind == HEADERS && came.stream == stream {
                return Ok(status(&came.payload));
            }
            if let Some(outcome) = self.decided(&came) {
                return Err(outcome);
            }
        }
    }

    fn decided(&mut self, came: &Came) -> Option<Outcome> {
        let code = |at: usize| came.payload.get(at..at + 4).map(|it| u32::from_be_bytes([it[0], it[1], it[2], it[3]]));
        match came.kind {
            HEADERS | DATA => {
                if came.kind == HEADERS && !self.begun.iter().any(|(stream, _)| *stream == came.stream) {
                    self.begun.push((came.stream, status(&came.payload)));
                }
                let status = self.begun.iter().find(|(stream, _)| *stream == came.stream)?.1;
                (came.flags & END_STREAM != 0).then_some(Outcome::Answered(came.stream, status))
            }
            RST_STREAM => Some(Outcome::Reset(came.stream, code(0)?)),
            GOAWAY => Some(Outcome::GoAway(code(4)?)),
            PING if came.flags & ACK != 0 && came.payload == MARK => Some(Outcome::Pong),
            SETTINGS if came.flags & ACK == 0 => {
                self.send(&frame(SETTINGS, ACK, 0, &[]));
                None
            }
            _ => None,
        }
    }
}

/// The status with which a header block begins: of the static table, or as three digits.
pub fn status(block: &[u8]) -> u16 {
    // An update of the table's size may come first.
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [_, 3, a, b, c, ..] => std::str::from_utf8(&[*a, *b, *c]).map_or(0, |text| text.parse().unwrap_or(0)),
        [_, length @ (0x82 | 0x83), digits @ ..] => {
            let bytes =
                digits.iter().take(usize::from(length & 0x7f)).fold(0u32, |all, byte| all << 8 | u32::from(*byte));
            huffman_digits(bytes << (32 - 8 * u32::from(length & 0x7f)))
        }
        _ => 0,
    }
}

/// Three digits of Huffman's code (RFC 7541, appendix B): 0, 1 and 2 have five bits, the others six.
fn huffman_digits(bits: u32) -> u16 {
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let take = |count: u32| (bits << at >> (32 - count)) as u16;
        let digit = match take(5) {
            short @ 0..=2 => {
                at += 5;
                short
            }
            _ => {
                let long = take(6);
                at += 6;
                long - 0x19 + 3
            }
        };
        number = number * 10 + digit;
    }
    number
}

//! Where a body ends, and chunks.
use crate::error::BodyError;
use crate::fields::Fields;
use crate::head::Framing;

/// Extensions of one body in total. They mean nothing to anyone; a peer that sends more is not a client.
const MAX_EXTENSION_BYTES: u32 = 4096;
const MAX_TRAILER_BYTES: usize = 8192;
const MAX_TRAILERS: usize = 32;

/// What the first bytes of the input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `skip` bytes of framing, then `take` (at least one) bytes of the body.
    Payload {
        /// Framing bytes to drop first.
        skip: usize,
        /// Payload bytes after them.
        take: usize,
    },
    /// `skip` bytes of framing; more input is needed.
    More {
        /// Framing bytes to drop.
        skip: usize,
    },
    /// `skip` bytes of framing; the body is complete and what follows is the next message.
    End {
        /// Framing bytes to drop.
        skip: usize,
    },
}

#[derive(Debug)]
enum State {
    Length(u64),
    Close,
    Size { value: u64, digits: u8 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data(u64),
    DataEnd { seen_return: bool },
    Trailers,
    Done,
}

/// Follows one body.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    extension_bytes: u32,
    trailer_text: Vec<u8>,
    trailers: Option<Fields>,
}

impl BodyDecoder {
    /// A decoder for a body that ends as `framing` says.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::Close => State::Close,
        };
        Self { state, extension_bytes: 0, trailer_text: Vec::new(), trailers: None }
    }

    /// Whether [`Step::End`] would come without more input.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::Length(0))
    }

    /// The trailers, once, after [`Step::End`].
    pub fn take_trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    /// The connection ended: is the body complete?
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Close | State::Done | State::Length(0) => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// How many bytes are left of a body whose length was announced; all others: 0.
    pub fn announced_left(&self) -> u64 {
        if let State::Length(left) = self.state { left } else { 0 }
    }

    /// So many of [`announced_left`](Self::announced_left) were passed on without a look at them.
    pub fn taken(&mut self, count: u64) {
        if let State::Length(left) = &mut self.state {
            debug_assert!(count <= *left);
            *left = left.saturating_sub(count);
        }
    }

    /// Says what the front of `input` is. The caller drops and takes what the step says before it calls again.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let mut skip = 0;
        loop {
            if let Some(step) = self.payload(skip, input.len() - skip) {
                return Ok(step);
            }
            let Some(&byte) = input.get(skip) else { return Ok(Step::More { skip }) };
            skip += 1;
            self.framing_byte(byte)?;
        }
    }

    fn payload(&mut self, skip: usize, available: usize) -> Option<Step> {
        let left = match &mut self.state {
            State::Done | State::Length(0) => return Some(Step::End { skip }),
            State::Close if available > 0 => return Some(Step::Payload { skip, take: available }),
            State::Close => return Some(Step::More { skip }),
            State::Length(left) | State::Data(left) if available > 0 => left,
            State::Length(_) | State::Data(_) => return Some(Step::More { skip }),
            _ => return None,
        };
        let take = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
        *left -= take as u64;
        if matches!(self.state, State::Data(0)) {
            self.state = State::DataEnd { seen_return: false };
        }
        Some(Step::Payload { skip, take })
    }

    fn framing_byte(&mut self, byte: u8) -> Result<(), BodyError> {
        match &mut self.state {
            State::Size { value, digits } => match (byte, hex(byte)) {
                // Fifteen digits keep the size below 2^60: no parser's integer wraps.
                (_, Some(digit)) if *digits < 15 => {
                    *value = *value * 16 + u64::from(digit);
                    *digits += 1;
                }
                (b';', None) if *digits > 0 => self.state = State::Extension { size: *value },
                (b'\r', None) if *digits > 0 => self.state = State::SizeEnd { size: *value },
                _ => return Err(BodyError::Chunk),
            },
            State::Extension { size } => {
                self.extension_bytes += 1;
                match byte {
                    _ if self.extension_bytes > MAX_EXTENSION_BYTES => return Err(BodyError::TooLarge),
                    b'\r' => self.state = State::SizeEnd { size: *size },
                    b'\t' | b' '..=0x7e | 0x80.. => {}
                    _ => return Err(BodyError::Chunk),
                }
            }
            State::SizeEnd { size } if byte == b'\n' => {
                self.state = if *size == 0 { State::Trailers } else { State::Data(*size) };
            }
            State::DataEnd { seen_return } => match (*seen_return, byte) {
                (false, b'\r') => *seen_return = true,
                (true, b'\n') => self.state = State::Size { value: 0, digits: 0 },
                _ => return Err(BodyError::Chunk),
            },
            State::Trailers => return self.trailer_byte(byte),
            _ => return Err(BodyError::Chunk),
        }
        Ok(())
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<(), BodyError> {
        if self.trailer_text.len() == MAX_TRAILER_BYTES {
            return Err(BodyError::TooLarge);
        }
        if byte == b'\n' && self.trailer_text.last() != Some(&b'\r') {
            return Err(BodyError::Trailer);
        }
        self.trailer_text.push(byte);
        if self.trailer_text == b"\r\n" {
            self.state = State::Done;
        } else if self.trailer_text.ends_with(b"\r\n\r\n") {
            self.trailers = Some(parse_trailers(&self.trailer_text)?);
            self.state = State::Done;
        }
        Ok(())
    }
}

fn parse_trailers(text: &[u8]) -> Result<Fields, BodyError> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let headers = match httparse::parse_headers(text, &mut storage) {
        Ok(httparse::Status::Complete((_, headers))) => headers,
        Ok(httparse::Status::Partial) | Err(_) => return Err(BodyError::Trailer),
    };
    let mut fields = Fields::default();
    for header in headers {
        if !is_trailer(header.name.as_bytes()) {
            return Err(BodyError::Trailer);
        }
        fields.append(header.name, header.value).map_err(|_| BodyError::Trailer)?;
    }
    Ok(fields)
}

/// Whether a field may come behind a body: not what frames, routes or authenticates a message (RFC 9110, 6.5.1).
pub fn is_trailer(name: &[u8]) -> bool {
    !FORBIDDEN_TRAILERS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden.as_bytes()))
}

const FORBIDDEN_TRAILERS: [&str; 12] = [
    "transfer-encoding",
    "content-length",
    "host",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "authorization",
    "content-encoding",
    "content-type",
    "cookie",
];

fn hex(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

/// Appends the line before a chunk of `length` (at least one) bytes; the caller writes the bytes and `\r\n` after it.
pub fn encode_chunk_head(length: usize, out: &mut Vec<u8>) {
    debug_assert!(length > 0, "a chunk of no bytes ends the body");
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
    for at in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(length >> (at * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a chunked body, with its trailers.
pub fn encode_last_chunk(trailers: Option<&Fields>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flat_map(Fields::iter) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

//! SPDY/3.1 framing, as far as Kubernetes streams need it: runtimes serve exec and attach over it, and `kubectl port-forward`
//! speaks it inside a WebSocket.
//!
//! Sans-IO: a [`Decoder`] takes bytes and gives frames, an [`Encoder`] makes bytes. Flow control does not exist in the
//! implementations that are spoken with, so windows are neither kept nor announced.

mod block;
mod inflate;

use block::{Packer, Unpacker};

/// Names and values; names are lower case.
pub type Headers = Vec<(String, String)>;

/// What came. Frames that carry nothing for Kubernetes' streams (settings, windows) are skipped by the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The peer opens a stream.
    SynStream { stream: u32, fin: bool, headers: Headers },
    /// The peer accepts a stream of ours.
    SynReply { stream: u32, fin: bool },
    /// Bytes of a stream; with `fin` the peer sends no more on it.
    Data { stream: u32, fin: bool, bytes: Vec<u8> },
    /// The stream is over, both ways.
    Reset { stream: u32 },
    /// To be sent back as it is when its number is the peer's.
    Ping { id: u32 },
    /// The peer opens no more streams.
    GoAway,
}

/// Why bytes are no SPDY. The connection is beyond use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    #[error("a frame of {0} bytes is over the limit")]
    TooLarge(usize),
    #[error("version {0} is not 3")]
    Version(u16),
    #[error("a control frame is cut short")]
    Short,
    #[error("a header block is broken")]
    Headers,
}

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;
/// Peers send data in pieces of at most 64 KiB or so; headers of a stream are a few dozen bytes.
const MAX_FRAME: usize = 1 << 20;
const STATUS_CANCEL: u32 = 5;

/// Bytes to frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    unpacker: Unpacker,
}

impl Decoder {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no SPDY/3.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, SpdyError> {
        loop {
            let Some(head) = self.buffer.first_chunk::<8>().copied() else { return Ok(None) };
            let [a, b, c, d, flags, length @ ..] = head;
            let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
            if length > MAX_FRAME {
                return Err(SpdyError::TooLarge(length));
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            let payload: Vec<u8> = self.buffer[8..8 + length].to_vec();
            self.buffer.drain(..8 + length);
            let fin = flags & FIN != 0;
            if a & 0x80 == 0 {
                return Ok(Some(Frame::Data { stream: u32::from_be_bytes([a, b, c, d]), fin, bytes: payload }));
            }
            let version = u16::from_be_bytes([a & 0x7f, b]);
            if version != VERSION {
                return Err(SpdyError::Version(version));
            }
            if let Some(frame) = self.control(u16::from_be_bytes([c, d]), fin, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, fin: bool, payload: &[u8]) -> Result<Option<Frame>, SpdyError> {
        let word = |at: usize| -> Result<u32, SpdyError> {
            let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>()).ok_or(SpdyError::Short)?;
            Ok(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
        };
        Ok(Some(match kind {
            SYN_STREAM => {
                let block = payload.get(10..).ok_or(SpdyError::Short)?;
                Frame::SynStream { stream: word(0)?, fin, headers: self.unpacker.unpack(block)? }
            }
            SYN_REPLY => {
                // Unread, but unpacked: the next block is packed with what this one says.
                self.unpacker.unpack(payload.get(4..).ok_or(SpdyError::Short)?)?;
                Frame::SynReply { stream: word(0)?, fin }
            }
            HEADERS => {
                self.unpacker.unpack(payload.get(4..).ok_or(SpdyError::Short)?)?;
                return Ok(None);
            }
            RST_STREAM => Frame::Reset { stream: word(0)? },
            PING => Frame::Ping { id: word(0)? },
            GOAWAY => Frame::GoAway,
            _ => return Ok(None),
        }))
    }
}

/// Frames to bytes. One for each direction of a connection: header blocks depend on those before.
#[derive(Debug, Default)]
pub struct Encoder {
    packer: Packer,
}

impl Encoder {
    /// Opens a stream. A client's streams are odd, a server's even, each higher than the last.
    pub fn syn_stream(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut payload = stream.to_be_bytes().to_vec();
        // No associated stream, highest priority, no credential slot.
        payload.extend([0; 6]);
        payload.extend(self.packer.pack(headers));
        control(SYN_STREAM, 0, &payload)
    }

    /// Accepts a stream of the peer's.
    pub fn syn_reply(&mut self, stream: u32) -> Vec<u8> {
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend(self.packer.pack(&[]));
        control(SYN_REPLY, 0, &payload)
    }

    /// Bytes of a stream; `fin` ends our side of it.
    pub fn data(&self, stream: u32, fin: bool, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + bytes.len());
        out.extend((stream & 0x7fff_ffff).to_be_bytes());
        out.push(if fin { FIN } else { 0 });
        out.extend(&(bytes.len() as u32).to_be_bytes()[1..]);
        out.extend(bytes);
        out
    }

    /// Ends a stream both ways.
    pub fn reset(&self, stream: u32) -> Vec<u8> {
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend(STATUS_CANCEL.to_be_bytes());
        control(RST_STREAM, 0, &payload)
    }

    /// Answers a ping.
    pub fn ping(&self, id: u32) -> Vec<u8> {
        control(PING, 0, &id.to_be_bytes())
    }
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + payload.len());
    out.extend((0x8000 | VERSION).to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.push(flags);
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire_in_any_pieces() {
        let mut encoder = Encoder::default();
        let bytes = [
            encoder.syn_stream(1, &[("streamtype", "error"), ("port", "80")]),
            encoder.syn_stream(3, &[("streamtype", "data"), ("port", "80")]),
            encoder.syn_reply(1),
            encoder.data(3, false, b"hello"),
            encoder.data(3, true, b""),
            encoder.reset(3),
            encoder.ping(7),
        ]
        .concat();
        for size in [1, 3, 1000] {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            let headers =
                |kind: &str| vec![("streamtype".to_owned(), kind.to_owned()), ("port".to_owned(), "80".to_owned())];
            assert_eq!(
                seen,
                [
                    Frame::SynStream { stream: 1, fin: false, headers: headers("error") },
                    Frame::SynStream { stream: 3, fin: false, headers: headers("data") },
                    Frame::SynReply { stream: 1, fin: false },
                    Frame::Data { stream: 3, fin: false, bytes: b"hello".to_vec() },
                    Frame::Data { stream: 3, fin: true, bytes: Vec::new() },
                    Frame::Reset { stream: 3 },
                    Frame::Ping { id: 7 },
                ]
            );
        }
    }

    #[test]
    fn what_is_no_spdy_is_refused() {
        let decode = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next_frame()
        };
        assert_eq!(decode(&[0x80, 2, 0, 1, 0, 0, 0, 0]), Err(SpdyError::Version(2)));
        assert_eq!(decode(&[0x80, 3, 0, 1, 0, 0, 0, 0]), Err(SpdyError::Short));
        assert_eq!(decode(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]), Err(SpdyError::TooLarge(0xff_ffff)));
        assert_eq!(decode(&[0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, 9]), Err(SpdyError::Headers));
        assert_eq!(decode(&[0x80, 3, 0, 4, 0, 0, 0, 0]), Ok(None), "settings are skipped");
    }

    /// Whatever comes, a decoder says no or asks for more; it never panics.
    #[test]
    fn noise_does_no_harm() {
        let mut seed = 1u32;
        let mut noise = || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed.to_le_bytes()[0]
        };
        for round in 0..5000 {
            let mut bytes: Vec<u8> = (0..round % 97).map(|_| noise()).collect();
            let mut frame = vec![
                0x80,
                3,
                0,
                1,
                0,
                0,
                0,
                bytes.len() as u8 + 16,
                0,
                0,
                0,
                1,
                0,
                0,
                0,
                0,
                0,
                0,
                0x78,
                0xbb,
                0xe3,
                0xc6,
                0xa7,
                0xc2,
            ];
            frame.append(&mut bytes);
            let mut decoder = Decoder::default();
            decoder.push(&frame);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}

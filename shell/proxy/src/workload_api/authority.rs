//! Clients on gRPC's C core call a Unix socket by its path, percent-encoded: `:authority: run%2Fspiffe%2Fapi.sock`. That is a name by RFC 3986
//! (3.2.2), but none by the HTTP/2 library, which ends the connection. Nobody here asks for the authority, so what stands for `%` is
//! replaced on its way in: as many bytes, and the library keeps in its table what it was given.
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE_BYTES: usize = 24;
const NAME: &[u8] = b":authority";
/// Its number in HPACK's static table.
const NAME_INDEX: u8 = 1;
// Frames: RFC 9113, 6.2 and 6.10.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// A connection whose authorities are what the library reads.
#[derive(Debug)]
pub struct Mended<S> {
    inner: S,
    scan: Scan,
}

impl<S> Mended<S> {
    /// A connection of which nothing was read.
    pub fn new(inner: S) -> Self {
        Self { inner, scan: Scan::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.scan.mend(&mut buffer.filled_mut()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Follows frames and the fields in their header blocks, byte by byte. What is no HTTP/2 it passes on as it is, for the library to refuse.
#[derive(Debug)]
struct Scan {
    /// Bytes of the preface that are to come.
    preface: usize,
    /// The head of a frame, as far as it came.
    head: [u8; 9],
    head_seen: usize,
    /// Bytes of the frame's payload: all, and those that came.
    payload: usize,
    seen: usize,
    padding: usize,
    block: Block,
}

impl Default for Scan {
    fn default() -> Self {
        let (head, block) = ([0; 9], Block::Field);
        Self { preface: PREFACE_BYTES, head, head_seen: 0, payload: 0, seen: 0, padding: 0, block }
    }
}

impl Scan {
    fn mend(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.step(byte);
        }
    }

    fn step(&mut self, byte: &mut u8) {
        if self.preface > 0 {
            self.preface -= 1;
            return;
        }
        if self.head_seen < self.head.len() {
            self.head[self.head_seen] = *byte;
            self.head_seen += 1;
            if self.head_seen == self.head.len() {
                self.begin();
            }
            return;
        }
        let (kind, flags) = (self.head[3], self.head[4]);
        let padded = kind == HEADERS && flags & PADDED != 0;
        let priority = if kind == HEADERS && flags & PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
        if padded && self.seen == 0 {
            self.padding = usize::from(*byte);
        } else if matches!(kind, HEADERS | CONTINUATION)
            && self.seen >= usize::from(padded) + priority
            && self.seen + self.padding < self.payload
        {
            self.block.step(byte);
        }
        self.seen += 1;
        if self.seen == self.payload {
            self.head_seen = 0;
        }
    }

    fn begin(&mut self) {
        let [high, middle, low, kind, ..] = self.head;
        self.payload = u32::from_be_bytes([0, high, middle, low]) as usize;
        (self.seen, self.padding) = (0, 0);
        if kind == HEADERS {
            self.block = Block::Field;
        }
        if self.payload == 0 {
            self.head_seen = 0;
        }
    }
}

/// A place in a header block (RFC 7541, 6).
#[derive(Clone, Copy, Debug)]
enum Block {
    /// A field begins.
    Field,
    /// The rest of a number that says all of a field.
    Rest,
    /// The rest of a name's number.
    NameRest,
    /// A name's length; so much of it is known, if any, and so many bits.
    NameLength(Length),
    /// A name: bytes that are to come, and whether it is the authority's up to here.
    Name { left: usize, matches: bool },
    /// A value's length.
    ValueLength { length: Length, authority: bool },
    /// A value: bytes that are to come, and whether they are to be mended.
    Value { left: usize, mend: bool },
    /// No header block that we understand.
    Lost,
}

#[derive(Clone, Copy, Debug, Default)]
struct Length {
    begun: bool,
    huffman: bool,
    value: usize,
    shift: u32,
}

impl Length {
    /// Takes a byte. True: the length is known. None: it is none.
    fn take(&mut self, byte: u8) -> Option<bool> {
        if !self.begun {
            self.begun = true;
            self.huffman = byte & 0x80 != 0;
            self.value = usize::from(byte & 0x7f);
            return Some(self.value < 0x7f);
        }
        if self.shift > 21 {
            return None;
        }
        self.value += usize::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        Some(byte & 0x80 == 0)
    }
}

impl Block {
    fn step(&mut self, byte: &mut u8) {
        *self = match *self {
            Self::Field => Self::field(*byte),
            Self::Rest if *byte & 0x80 == 0 => Self::Field,
            Self::NameRest if *byte & 0x80 == 0 => Self::value_of(false),
            Self::Rest | Self::NameRest | Self::Lost => *self,
            Self::NameLength(mut length) => match length.take(*byte) {
                None => Self::Lost,
                Some(false) => Self::NameLength(length),
                Some(true) if length.value == 0 => Self::value_of(false),
                Some(true) => Self::Name { left: length.value, matches: !length.huffman && length.value == NAME.len() },
            },
            Self::Name { left, matches } => {
                let matches = matches && NAME[NAME.len() - left] == *byte;
                if left == 1 { Self::value_of(matches) } else { Self::Name { left: left - 1, matches } }
            }
            Self::ValueLength { mut length, authority } => match length.take(*byte) {
                None => Self::Lost,
                Some(false) => Self::ValueLength { length, authority },
                Some(true) if length.value == 0 => Self::Field,
                Some(true) => Self::Value { left: length.value, mend: authority && !length.huffman },
            },
            Self::Value { left, mend } => {
                if mend && *byte == b'%' {
                    *byte = b'-';
                }
                if left == 1 { Self::Field } else { Self::Value { left: left - 1, mend } }
            }
        };
    }

    fn field(first: u8) -> Self {
        let (most, literal) = match first {
            0x80.. => (0x7f, false),
            0x40.. => (0x3f, true),
            0x20.. => (0x1f, false),
            _ => (0x0f, true),
        };
        match (first & most, literal) {
            (index, false) if index == most => Self::Rest,
            (_, false) => Self::Field,
            (0, true) => Self::NameLength(Length::default()),
            (index, true) if index == most => Self::NameRest,
            (index, true) => Self::value_of(index == NAME_INDEX),
        }
    }

    fn value_of(authority: bool) -> Self {
        Self::ValueLength { length: Length::default(), authority }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What comes after a preface, taken in two pieces.
    fn mended(frames: &[Vec<u8>], cut: usize) -> Vec<u8> {
        let mut bytes = [vec![b'%'; PREFACE_BYTES], frames.concat()].concat();
        let mut scan = Scan::default();
        let (first, second) = bytes.split_at_mut(cut);
        scan.mend(first);
        scan.mend(second);
        assert_eq!(bytes[..PREFACE_BYTES], [b'%'; PREFACE_BYTES]);
        bytes.split_off(PREFACE_BYTES)
    }

    #[test]
    fn authorities_and_nothing_else() {
        let by_name = [b"@\x0a:authority\x0crun%2Fa.sock".as_slice(), b"@\x05:path\x02/%\x83\x86"].concat();
        let as_mended = [b"@\x0a:authority\x0crun-2Fa.sock".as_slice(), b"@\x05:path\x02/%\x83\x86"].concat();
        let long = [b"\x00\x01x\x7f\x02".as_slice(), &[b'%'; 129], b"\x01\x02a%"].concat();
        let long_mended = [b"\x00\x01x\x7f\x02".as_slice(), &[b'%'; 129], b"\x01\x02a-"].concat();
        let rest =
            [frame(0, 0, b"\x01\x02a%"), frame(4, 0, &[]), frame(1, 5, b"\xbe\xff\x80\x01\x3f\x01\x0f\x01\x01%")];
        for (block, expect) in [
            (by_name.as_slice(), as_mended.as_slice()),
            (b"\x41\x02a%", b"\x41\x02a-"),
            (b"\x11\x02a%", b"\x11\x02a-"),
            (b"\x41\x00\x41\x01%", b"\x41\x00\x41\x01-"),
            // Huffman's code, another name, a longer one.
            (b"\x41\x82a%", b"\x41\x82a%"),
            (b"\x42\x02a%", b"\x42\x02a%"),
            (b"\x00\x0b:authority2\x01%", b"\x00\x0b:authority2\x01%"),
            (&long, &long_mended),
        ] {
            let padded = |block: &[u8]| [b"\x02\0\0\0\0%".as_slice(), block, b"%%"].concat();
            let whole = |block: &[u8]| {
                let (first, second) = block.split_at(block.len() / 2);
                let mut frames = vec![frame(1, 5, block), frame(1, 0x2d, &padded(block))];
                frames.extend([frame(1, 1, first), frame(9, 4, second)]);
                frames.extend(rest.clone());
                frames
            };
            let expect = whole(expect).concat();
            for cut in 0..PREFACE_BYTES + expect.len() {
                assert_eq!(mended(&whole(block), cut), expect, "{block:?} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_pass_and_only_percent_signs_change(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut: usize) {
            let mut scanned = bytes.clone();
            let mut scan = Scan::default();
            let (first, second) = scanned.split_at_mut(cut % (bytes.len() + 1));
            scan.mend(first);
            scan.mend(second);
            for (was, is) in bytes.iter().zip(&scanned) {
                prop_assert!(was == is || (*was, *is) == (b'%', b'-'));
            }
        }
    }
}

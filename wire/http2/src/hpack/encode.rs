//! Fields -> header blocks.
use super::huffman;
use super::table::{STATIC, TABLE_BYTES, Table};

/// Fields that were said once; said again, they are put into the table.
const REMEMBERED: usize = 64;
/// Index of `:status 200` and of the first that has another.
const STATUS: usize = 8;
/// A field that is said only once would push out of the table what is said often; what is longer than this is not worth its room.
const MOST_KEPT_BYTES: usize = 512;

/// One direction's state.
#[derive(Debug, Default)]
pub struct Encoder {
    table: Table,
    /// Hashes of fields that were said, by their last bits.
    said: Vec<u32>,
    /// The table's size changed: the smallest since the last block, and what it is now.
    resized: Option<(usize, usize)>,
    name: Vec<u8>,
}

impl Encoder {
    /// The peer keeps a table of up to so many bytes.
    pub fn resize(&mut self, most: usize) {
        let most = most.min(TABLE_BYTES);
        let least = self.resized.map_or(most, |(least, _)| least.min(most));
        self.resized = Some((least, most));
        self.table.resize(most);
    }

    /// Begins a block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((least, most)) = self.resized.take() {
            if least < most {
                integer(least, 5, 0x20, out);
            }
            integer(most, 5, 0x20, out);
        }
    }

    /// A response's status.
    pub fn status(&self, status: u16, out: &mut Vec<u8>) {
        let digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
        match STATIC[STATUS - 1..STATUS + 6].iter().position(|(_, value)| value.as_bytes() == digits) {
            Some(place) => out.push(0x80 | (STATUS + place) as u8),
            None => {
                out.extend_from_slice(&[STATUS as u8, 3]);
                out.extend_from_slice(&digits);
            }
        }
    }

    /// A field. Letters of its name become small (RFC 9113, 8.2.1). `sensitive`: nobody is to keep it.
    pub fn field(&mut self, name: &[u8], value: &[u8], sensitive: bool, out: &mut Vec<u8>) {
        let mut lowered = std::mem::take(&mut self.name);
        lowered.clear();
        lowered.extend(name.iter().map(u8::to_ascii_lowercase));
        self.lowered(&mut lowered, value, sensitive, out);
        self.name = lowered;
    }

    fn lowered(&mut self, text: &mut Vec<u8>, value: &[u8], sensitive: bool, out: &mut Vec<u8>) {
        let name = text.len();
        // What a client keeps secret is not to be guessed by what it is compressed with (RFC 7541, 7.1).
        let secret = sensitive || matches!(&text[..], b"set-cookie");
        let hash = hash(text, value);
        if !secret && let Some(index) = self.table.find(hash, text, value) {
            return integer(index, 7, 0x80, out);
        }
        let known = static_name(text);
        let kept = !secret && name + value.len() <= MOST_KEPT_BYTES && self.was_said(hash);
        let (bits, first) = match (kept, secret) {
            (true, _) => (6, 0x40),
            (false, true) => (4, 0x10),
            (false, false) => (4, 0),
        };
        integer(known.unwrap_or(0), bits, first, out);
        if known.is_none() {
            string(text, out);
        }
        string(value, out);
        if kept {
            text.extend_from_slice(value);
            self.table.insert(text, name, hash);
        }
    }

    fn was_said(&mut self, hash: u32) -> bool {
        if self.said.is_empty() {
            self.said.resize(REMEMBERED, 0);
        }
        std::mem::replace(&mut self.said[hash as usize % REMEMBERED], hash) == hash
    }
}

/// The static table's index of a name.
fn static_name(name: &[u8]) -> Option<usize> {
    // Pseudo-headers of responses are said by `status`.
    const REGULAR: usize = 14;
    let place = STATIC[REGULAR..].iter().position(|(known, _)| known.as_bytes() == name)?;
    Some(REGULAR + place + 1)
}

/// Eight bytes at a time: no adversary gains by a collision but a longer block of his own.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let mut hash = (name.len() as u64) << 32 | value.len() as u64;
    for text in [name, value] {
        for piece in text.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }
    (hash ^ (hash >> 32)) as u32
}

fn integer(value: usize, bits: u32, first: u8, out: &mut Vec<u8>) {
    let most = (1usize << bits) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        integer(coded, 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        integer(text.len(), 7, 0, out);
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
impl Encoder {
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

//! Header blocks -> fields.
use super::huffman;
use super::table::{TABLE_BYTES, Table};

/// Memory that is kept from block to block.
const KEPT_BYTES: usize = 4 * 1024;

/// Not a header block. The tables of both ends differ from here on: the connection must end (RFC 9113, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// One direction's state.
#[derive(Debug, Default)]
pub struct Decoder {
    table: Table,
    /// The field that is read: its name and behind it the value.
    text: Vec<u8>,
}

impl Decoder {
    /// Reads a whole block and hands out its fields, in order, and whether they must not be kept on any hop (RFC 7541, 6.2.3). `each` ends
    /// it by returning an error.
    pub fn decode<E: From<Malformed>>(
        &mut self,
        mut block: &[u8],
        mut each: impl FnMut(&[u8], &[u8], bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut begun = false;
        while let Some(first) = block.first().copied() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                let (name, value) = self.table.get(index).ok_or(Malformed)?;
                each(name, value, false)?;
            } else if first & 0xe0 == 0x20 {
                let most = integer(&mut block, 5)?;
                // RFC 7541, 4.2: at the beginning of a block, and not above what was agreed on.
                if begun || most > TABLE_BYTES {
                    return Err(Malformed.into());
                }
                self.table.resize(most);
                continue;
            } else {
                let kept = first & 0x40 != 0;
                let index = integer(&mut block, if kept { 6 } else { 4 })?;
                self.text.clear();
                if index == 0 {
                    string(&mut block, &mut self.text)?;
                } else {
                    self.text.extend_from_slice(self.table.get(index).ok_or(Malformed)?.0);
                }
                let length = self.text.len();
                string(&mut block, &mut self.text)?;
                let (name, value) = self.text.split_at(length);
                each(name, value, first & 0xf0 == 0x10)?;
                if kept {
                    self.table.insert(&self.text, length, 0);
                }
            }
            begun = true;
        }
        self.text.shrink_to(KEPT_BYTES);
        Ok(())
    }
}

/// An integer whose first bits are the last ones of the first byte (RFC 7541, 5.1).
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Malformed> {
    let (first, mut rest) = block.split_first().ok_or(Malformed)?;
    let most = (1usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (byte, behind) = rest.split_first().ok_or(Malformed)?;
            rest = behind;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            // Nothing that is counted here needs more: no block, and no table, is as large.
            if shift > 21 {
                return Err(Malformed);
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// Appends a string (RFC 7541, 5.2).
fn string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let coded = block.first().ok_or(Malformed)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Malformed)?;
    *block = rest;
    if coded {
        return huffman::decode(text, out).ok_or(Malformed);
    }
    out.extend_from_slice(text);
    Ok(())
}

#[cfg(test)]
impl Decoder {
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

//! Frames: what one write to the log holds.
//!
//! A frame is a batch of records under one checksum, so a batch is there whole or not at all. Each frame also says up to which byte of its
//! segment the log was known to be on disk when the frame was written (`synced`). That tells a torn tail from damage: a bad frame at byte X
//! with a good frame behind it whose `synced` lies past X was once safely on disk, so somebody damaged it, and cutting there would lose
//! acknowledged writes. Without such a witness, the bad frame was the last write before a crash, and nobody was told that it succeeded.

use crate::record::{RecordError, RecordRef};

/// Bytes of a frame's header: magic, payload length, checksum, record count, synced offset, first revision.
pub const FRAME_HEADER: usize = 4 + 4 + 4 + 4 + 8 + 8;
/// Largest payload that is read back; larger ones are never written.
pub const MAX_PAYLOAD: usize = 64 << 20;
const MAGIC: [u8; 4] = *b"DKF1";
/// The checksum covers everything behind itself.
const COVERED: usize = 12;

/// Builds one frame in a buffer that is reused.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    buffer: Vec<u8>,
    count: u32,
}

impl FrameBuilder {
    /// Starts an empty frame.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.resize(FRAME_HEADER, 0);
        self.count = 0;
    }
    /// Adds a record.
    pub fn push(&mut self, record: &RecordRef<'_>) {
        if self.buffer.is_empty() {
            self.clear();
        }
        record.encode(&mut self.buffer);
        self.count += 1;
    }
    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Bytes so far, header included.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }
    /// Adds raw payload that is no record (a snapshot's trailer).
    pub fn push_raw(&mut self, payload: &[u8]) {
        if self.buffer.is_empty() {
            self.clear();
        }
        self.buffer.extend_from_slice(payload);
    }
    /// Fills in the header; the frame is ready to be written.
    pub fn finish(&mut self, synced: u64, first_revision: u64) -> &[u8] {
        if self.buffer.is_empty() {
            self.clear();
        }
        let payload_len = u32::try_from(self.buffer.len() - FRAME_HEADER).expect("batches are bounded by the writer");
        self.buffer[0..4].copy_from_slice(&MAGIC);
        self.buffer[4..8].copy_from_slice(&payload_len.to_le_bytes());
        self.buffer[12..16].copy_from_slice(&self.count.to_le_bytes());
        self.buffer[16..24].copy_from_slice(&synced.to_le_bytes());
        self.buffer[24..32].copy_from_slice(&first_revision.to_le_bytes());
        let crc = crc32c::crc32c(&self.buffer[COVERED..]);
        self.buffer[8..12].copy_from_slice(&crc.to_le_bytes());
        &self.buffer
    }
}

/// A frame read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Number of records.
    pub count: u32,
    /// The log was on disk up to this byte of the segment when this was written.
    pub synced: u64,
    /// Revision of the first record (or the writer's own meaning in a trailer).
    pub first_revision: u64,
    /// The records.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at `at`, if a whole one with the right checksum is there.
    fn read(bytes: &'a [u8], at: usize) -> Option<(Self, usize)> {
        let head = bytes.get(at..at.checked_add(FRAME_HEADER)?)?;
        if head[..4] != MAGIC {
            return None;
        }
        let word = |i: usize| u32::from_le_bytes(head[i..i + 4].try_into().expect("four bytes"));
        let long = |i: usize| u64::from_le_bytes(head[i..i + 8].try_into().expect("eight bytes"));
        let payload_len = word(4) as usize;
        if payload_len > MAX_PAYLOAD {
            return None;
        }
        let end = at + FRAME_HEADER + payload_len;
        let covered = bytes.get(at + COVERED..end)?;
        if crc32c::crc32c(covered) != word(8) {
            return None;
        }
        let payload = &bytes[at + FRAME_HEADER..end];
        Some((Frame { count: word(12), synced: long(16), first_revision: long(24), payload }, end))
    }

    /// The records, in order.
    ///
    /// # Errors
    /// A record does not parse although the checksum holds.
    pub fn records(&self) -> Result<Vec<RecordRef<'a>>, RecordError> {
        let mut records = Vec::with_capacity((self.count as usize).min(self.payload.len() / 16));
        let mut at = 0;
        for _ in 0..self.count {
            let (record, next) = RecordRef::decode(self.payload, at)?;
            records.push(record);
            at = next;
        }
        if at == self.payload.len() {
            Ok(records)
        } else {
            Err(RecordError { at, what: "bytes behind the last record" })
        }
    }
}

/// How the frames of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Only preallocated zeros, or nothing, follows `offset`.
    Clean {
        /// Where the next frame goes.
        offset: usize,
    },
    /// The write at `offset` never finished; nobody was told that it did. Cut here.
    Torn {
        /// Where the good part ends.
        offset: usize,
    },
    /// The frame at `offset` was on disk once and is damaged now.
    Damaged {
        /// Where the damage begins.
        offset: usize,
        /// The good frame behind it that proves it.
        witness: usize,
    },
}

/// Reads the frames of a segment in order.
pub struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    /// Starts at `offset` (behind the segment's own header).
    pub fn new(bytes: &'a [u8], offset: usize) -> Self {
        Frames { bytes, at: offset }
    }

    /// How it ends; to be asked once the iterator is exhausted.
    pub fn end(&self) -> End {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.iter().all(|byte| *byte == 0) {
            return End::Clean { offset: self.at };
        }
        match self.witness() {
            Some(witness) => End::Damaged { offset: self.at, witness },
            None => End::Torn { offset: self.at },
        }
    }

    /// A good frame behind the bad one that says that the bad one was synced.
    fn witness(&self) -> Option<usize> {
        let mut at = self.at + 1;
        while at + FRAME_HEADER <= self.bytes.len() {
            let found = self.bytes[at..].windows(MAGIC.len()).position(|window| window == MAGIC)?;
            at += found;
            if let Some((frame, _)) = Frame::read(self.bytes, at)
                && frame.synced > self.at as u64
            {
                return Some(at);
            }
            at += 1;
        }
        None
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;
    fn next(&mut self) -> Option<Frame<'a>> {
        let (frame, end) = Frame::read(self.bytes, self.at)?;
        self.at = end;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Op;

    fn frame(revision: u64, synced: u64) -> Vec<u8> {
        let mut builder = FrameBuilder::default();
        let value = vec![b'x'; 40];
        builder.push(&RecordRef {
            op: Op::Create,
            revision,
            resource: "pods",
            namespace: "ns",
            name: "a",
            value: &value,
        });
        builder.finish(synced, revision).to_vec()
    }

    fn log(synced: &[u64]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (i, synced) in synced.iter().enumerate() {
            starts.push(bytes.len());
            bytes.extend(frame(i as u64 + 1, *synced));
        }
        (bytes, starts)
    }

    fn end_of(bytes: &[u8]) -> (usize, End) {
        let mut frames = Frames::new(bytes, 0);
        (frames.by_ref().count(), frames.end())
    }

    #[test]
    fn every_cut_of_the_tail_is_torn_or_clean_and_keeps_the_whole_frames() {
        let (bytes, starts) = log(&[0, 0, 0]);
        for cut in 0..=bytes.len() {
            let whole = starts.iter().skip(1).chain([&bytes.len()]).filter(|end| **end <= cut).count();
            let at = if whole == starts.len() { bytes.len() } else { starts[whole] };
            let (count, end) = end_of(&bytes[..cut]);
            assert_eq!(count, whole, "cut at {cut}");
            let expected = if cut == at { End::Clean { offset: at } } else { End::Torn { offset: at } };
            assert_eq!(end, expected, "cut at {cut}");
        }
    }

    #[test]
    fn zeros_behind_the_last_frame_are_room_not_damage() {
        let (mut bytes, _) = log(&[0, 0]);
        let end = bytes.len();
        bytes.resize(end + 4096, 0);
        assert_eq!(end_of(&bytes), (2, End::Clean { offset: end }));
    }

    #[test]
    fn any_flipped_bit_in_a_synced_frame_is_damage() {
        let (mut bytes, starts) = log(&[0, 0, 0]);
        let last = frame(3, starts[2] as u64);
        bytes.truncate(starts[2]);
        bytes.extend(last);
        for byte in starts[1]..starts[2] {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1;
            assert_eq!(end_of(&damaged), (1, End::Damaged { offset: starts[1], witness: starts[2] }), "byte {byte}");
        }
    }

    #[test]
    fn unsynced_frames_out_of_order_are_a_torn_tail() {
        // Two frames were in the page cache, neither synced; the disk got the second and not the first.
        let (mut bytes, starts) = log(&[0, 0, 0]);
        bytes[starts[1] + 40] ^= 1;
        assert_eq!(end_of(&bytes), (1, End::Torn { offset: starts[1] }));
    }
}

//! From files' bytes back to the state that was acknowledged.

use crate::frame::{End, FrameBuilder, Frames};
use crate::record::{Op, RecordError, RecordRef};
use crate::window::{Change, ChangeKind};
use crate::{Index, Record};
use bytes::Bytes;
use thiserror::Error;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 64;
/// Bytes of a snapshot's header.
pub const SNAPSHOT_HEADER: usize = 64;
const SEGMENT_MAGIC: [u8; 8] = *b"DKSEG001";
const SNAPSHOT_MAGIC: [u8; 8] = *b"DKSNAP01";

/// Why the store does not open. Nothing was changed on disk; no retry helps until somebody has looked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecoveryError {
    /// The file's header is wrong.
    #[error("{file}: {what}; restore the file, or move the store's directory away to begin anew")]
    Header {
        /// File name.
        file: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Acknowledged writes are damaged.
    #[error(
        "{file}: damaged at byte {offset} ({why}); writes that were acknowledged are unreadable there, so the store refuses to start. Restore {file} from a backup"
    )]
    Damaged {
        /// File name.
        file: String,
        /// Where.
        offset: usize,
        /// How that is known.
        why: String,
    },
    /// The checksum holds but the content is none of ours.
    #[error("{file}: frame before byte {offset}: {error}")]
    Record {
        /// File name.
        file: String,
        /// End of the frame.
        offset: usize,
        /// What is wrong.
        error: RecordError,
    },
    /// A segment between two others is not there.
    #[error("log segment {missing} is missing (segments {before} and {after} are there)")]
    Gap {
        /// Sequence number that is not there.
        missing: u64,
        /// The one before.
        before: u64,
        /// The one after.
        after: u64,
    },
}

/// First bytes of a log segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Position in the log, from 1.
    pub sequence: u64,
    /// All records in it have this revision or a later one.
    pub first_revision: u64,
    /// The kernel's boot id when it was made: another one now means that the host went down, and unsynced writes with it.
    pub boot: [u8; 16],
}

/// First bytes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The log after this revision is needed to complete it.
    pub start_revision: u64,
}

fn seal(magic: [u8; 8], fields: &[&[u8]]) -> [u8; 64] {
    let mut out = [0u8; 64];
    out[..8].copy_from_slice(&magic);
    let mut at = 8;
    for field in fields {
        out[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    let crc = crc32c::crc32c(&out[..60]);
    out[60..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn unseal(magic: [u8; 8], bytes: &[u8]) -> Result<&[u8], &'static str> {
    let head = bytes.get(..64).ok_or("the header is cut short")?;
    if head[..8] != magic {
        return Err("this is no file of this store");
    }
    if crc32c::crc32c(&head[..60]).to_le_bytes() != head[60..] {
        return Err("the header's checksum is wrong");
    }
    Ok(head)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl SegmentHeader {
    /// The bytes to write.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        seal(SEGMENT_MAGIC, &[&self.sequence.to_le_bytes(), &self.first_revision.to_le_bytes(), &self.boot])
    }
    /// Reads it back.
    ///
    /// # Errors
    /// Says in words what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let head = unseal(SEGMENT_MAGIC, bytes)?;
        let boot = head[24..40].try_into().expect("sixteen bytes");
        Ok(SegmentHeader { sequence: u64_at(head, 8), first_revision: u64_at(head, 16), boot })
    }
}

impl SnapshotHeader {
    /// The bytes to write.
    pub fn encode(&self) -> [u8; SNAPSHOT_HEADER] {
        seal(SNAPSHOT_MAGIC, &[&self.start_revision.to_le_bytes()])
    }
}

/// The last frame of a snapshot: how many records there are, and the revision when it was finished.
pub fn snapshot_trailer(frame: &mut FrameBuilder, records: u64, end_revision: u64) -> Vec<u8> {
    frame.clear();
    frame.push_raw(&records.to_le_bytes());
    frame.finish(0, end_revision).to_vec()
}

/// Rebuilds the index from a snapshot and the log behind it.
#[derive(Debug, Default)]
pub struct Replay {
    /// The objects so far.
    pub index: Index,
    floor: u64,
    last_sequence: Option<u64>,
}

impl Replay {
    /// Watch windows may be refilled with changes after this revision: from here on the index was consistent.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Loads a whole snapshot. The copy was made while writes went on: it holds every object as of some moment between its
    /// start and its end revision, and replaying the log from the start makes it exact (a record older than what is there is skipped).
    ///
    /// # Errors
    /// Any damage: a snapshot is renamed into place only when it is complete and synced.
    pub fn snapshot(&mut self, file: &str, bytes: &[u8]) -> Result<SnapshotHeader, RecoveryError> {
        let head = unseal(SNAPSHOT_MAGIC, bytes).map_err(|what| RecoveryError::Header { file: file.into(), what })?;
        let header = SnapshotHeader { start_revision: u64_at(head, 8) };
        let damaged = |offset: usize, why: &str| RecoveryError::Damaged { file: file.into(), offset, why: why.into() };
        let mut frames = Frames::new(bytes, SNAPSHOT_HEADER);
        let mut seen = 0u64;
        let mut trailer = None;
        for frame in frames.by_ref() {
            if frame.count == 0 && frame.payload.len() == 8 {
                trailer = Some((u64_at(frame.payload, 0), frame.first_revision));
                break;
            }
            let records =
                frame.records().map_err(|error| RecoveryError::Record { file: file.into(), offset: 0, error })?;
            for record in records {
                let value = Record { revision: record.revision, bytes: Bytes::copy_from_slice(record.value) };
                self.index.put(record.resource, record.namespace, record.name, value);
                seen += 1;
            }
        }
        let Some((count, end_revision)) = trailer else {
            let (End::Clean { offset } | End::Torn { offset } | End::Damaged { offset, .. }) = frames.end();
            return Err(damaged(offset, "the snapshot's end is missing"));
        };
        if count != seen {
            return Err(damaged(bytes.len(), "the snapshot does not hold as many objects as it says"));
        }
        self.floor = end_revision;
        self.index.advance(header.start_revision);
        Ok(header)
    }

    /// Replays one segment; `sealed` segments have later ones behind them and must be whole. Each change that a watch window may show
    /// is given to `show`. Returns the header and where the good part ends.
    ///
    /// # Errors
    /// Damage of acknowledged writes, a missing segment, or another format.
    pub fn segment(
        &mut self,
        file: &str,
        bytes: &[u8],
        sealed: bool,
        mut show: impl FnMut(&str, Change),
    ) -> Result<(SegmentHeader, End), RecoveryError> {
        let header = SegmentHeader::decode(bytes).map_err(|what| RecoveryError::Header { file: file.into(), what })?;
        if let Some(before) = self.last_sequence
            && header.sequence != before + 1
        {
            return Err(RecoveryError::Gap { missing: before + 1, before, after: header.sequence });
        }
        self.last_sequence = Some(header.sequence);
        let mut frames = Frames::new(bytes, SEGMENT_HEADER);
        for frame in frames.by_ref() {
            let records =
                frame.records().map_err(|error| RecoveryError::Record { file: file.into(), offset: 0, error })?;
            for record in records {
                if let Some(change) = self.apply(&record) {
                    show(record.resource, change);
                }
            }
        }
        let end = frames.end();
        match end {
            End::Damaged { offset, witness } => Err(RecoveryError::Damaged {
                file: file.into(),
                offset,
                why: format!("an intact write at byte {witness} says that it was on disk"),
            }),
            End::Torn { offset } if sealed => {
                Err(RecoveryError::Damaged { file: file.into(), offset, why: "later segments exist".into() })
            }
            End::Clean { .. } | End::Torn { .. } => Ok((header, end)),
        }
    }

    fn apply(&mut self, record: &RecordRef<'_>) -> Option<Change> {
        let RecordRef { op, revision, resource, namespace, name, value } = *record;
        let known = self.index.get(resource, namespace, name).map_or(0, |known| known.revision);
        self.index.advance(revision);
        if known >= revision {
            return None;
        }
        let bytes = Bytes::copy_from_slice(value);
        let previous = match op {
            Op::Delete => self.index.remove(resource, namespace, name, revision),
            Op::Create | Op::Update => {
                self.index.put(resource, namespace, name, Record { revision, bytes: bytes.clone() })
            }
        };
        if revision <= self.floor {
            return None;
        }
        let kind = match op {
            Op::Create => ChangeKind::Created,
            Op::Update => ChangeKind::Updated,
            Op::Delete => ChangeKind::Deleted,
        };
        Some(Change { kind, revision, namespace: namespace.into(), name: name.into(), bytes, previous })
    }
}

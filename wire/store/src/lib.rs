//! The embedded store without its files: revisioned index, watch windows, log records, recovery.
//!
//! Objects are exact-size bytes. Every change gets the next global revision; one encoded copy of an object is shared by the
//! index, the watch windows and the responses. Files, threads and fsync are `shell/storage`'s; everything here is a function of bytes,
//! so that recovery can be tested with every possible tail.
#![warn(missing_docs)]

mod draft;
mod frame;
mod index;
mod record;
mod recovery;
mod window;

pub use draft::Draft;
pub use frame::{End, FRAME_HEADER, FrameBuilder, Frames, MAX_PAYLOAD};
pub use index::{Entry, Index, Page, Record};
pub use record::{Op, RecordError, RecordRef};
pub use recovery::{
    RecoveryError, Replay, SEGMENT_HEADER, SNAPSHOT_HEADER, SegmentHeader, SnapshotHeader, snapshot_trailer,
};
pub use window::{Change, ChangeKind, Expired, Limits, Window};

//! The log's files: append, sync, rotate.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use store::{SEGMENT_HEADER, SegmentHeader};

/// A segment that is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub path: PathBuf,
    pub header: SegmentHeader,
}

/// All segments, oldest first; shared with the snapshotter, which deletes those that it made needless.
pub(crate) type Segments = Arc<Mutex<Vec<Segment>>>;

pub(crate) struct Log {
    dir: PathBuf,
    file: File,
    /// Where the next frame goes.
    end: u64,
    /// Everything before this byte is on disk.
    synced: u64,
    sequence: u64,
    segment_bytes: u64,
    boot: [u8; 16],
    segments: Segments,
}

pub(crate) fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("log-{sequence:016}.seg"))
}

impl Log {
    /// Goes on in an existing segment whose good part ends at `end`; what lies behind is cut off.
    pub fn resume(dir: &Path, segments: Vec<Segment>, end: u64, segment_bytes: u64, boot: [u8; 16]) -> io::Result<Log> {
        let last = segments.last().expect("resumed logs have a segment");
        let file = OpenOptions::new().read(true).write(true).open(&last.path)?;
        file.set_len(end)?;
        file.sync_all()?;
        preallocate(&file, end, segment_bytes);
        let sequence = last.header.sequence;
        let segments = Arc::new(Mutex::new(segments));
        Ok(Log { dir: dir.to_path_buf(), file, end, synced: end, sequence, segment_bytes, boot, segments })
    }

    /// Begins a log with segment `sequence`.
    pub fn create(
        dir: &Path,
        sequence: u64,
        first_revision: u64,
        segment_bytes: u64,
        boot: [u8; 16],
    ) -> io::Result<Log> {
        let (file, segment) = create_segment(dir, SegmentHeader { sequence, first_revision, boot }, segment_bytes)?;
        let end = SEGMENT_HEADER as u64;
        let segments = Arc::new(Mutex::new(vec![segment]));
        Ok(Log { dir: dir.to_path_buf(), file, end, synced: end, sequence, segment_bytes, boot, segments })
    }

    pub fn segments(&self) -> Segments {
        self.segments.clone()
    }

    /// The byte before which everything is on disk; goes into each frame.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether a frame of `len` bytes belongs into the next segment.
    pub fn wants_rotation(&self, len: usize) -> bool {
        self.end > SEGMENT_HEADER as u64 && self.end + len as u64 > self.segment_bytes
    }

    /// Ends this segment, whole and synced, and begins the next.
    pub fn rotate(&mut self, first_revision: u64) -> io::Result<()> {
        let header = SegmentHeader { sequence: self.sequence + 1, first_revision, boot: self.boot };
        self.file.set_len(self.end)?;
        self.file.sync_all()?;
        let (file, segment) = create_segment(&self.dir, header, self.segment_bytes)?;
        self.segments.lock().expect("no code panics while it holds this").push(segment);
        self.file = file;
        self.sequence = header.sequence;
        self.end = SEGMENT_HEADER as u64;
        self.synced = self.end;
        Ok(())
    }

    /// Writes a frame. On failure the log ends where it ended before.
    pub fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        match self.file.write_all_at(frame, self.end) {
            Ok(()) => {
                self.end += frame.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A part may have been written; a later frame must not be followed by its remains.
                self.file.set_len(self.end)?;
                Err(error)
            }
        }
    }

    /// Makes everything that was appended durable.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.synced < self.end {
            self.file.sync_data()?;
            self.synced = self.end;
        }
        Ok(())
    }
}

fn create_segment(dir: &Path, header: SegmentHeader, segment_bytes: u64) -> io::Result<(File, Segment)> {
    let path = segment_path(dir, header.sequence);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    file.write_all_at(&header.encode(), 0)?;
    preallocate(&file, SEGMENT_HEADER as u64, segment_bytes);
    file.sync_all()?;
    sync_dir(dir)?;
    Ok((file, Segment { path, header }))
}

/// Reserves room, so that a commit's sync has no metadata to write (323 us a commit against about 200) and a full disk is met here, where
/// it only costs speed, rather than in the middle of a frame. A file system that cannot do it is no error.
#[expect(unsafe_code, reason = "posix_fallocate has no safe wrapper in std; fd and sizes are valid for the call")]
fn preallocate(file: &File, from: u64, to: u64) {
    use std::os::fd::AsRawFd;
    if to > from {
        // SAFETY: the descriptor is open for the whole call and the call touches no memory of ours.
        let _ = unsafe { libc::posix_fallocate(file.as_raw_fd(), from as libc::off_t, (to - from) as libc::off_t) };
    }
}

/// Makes a directory's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

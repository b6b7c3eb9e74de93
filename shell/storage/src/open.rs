//! Recovery: from a directory to the state that was acknowledged.

use crate::log::{Log, Segment, sync_dir};
use crate::state::State;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::{End, Limits, RecoveryError, Replay};
use thiserror::Error;

/// How the store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of a log segment, bytes.
    pub segment_bytes: u64,
    /// A snapshot is begun when the log behind the last one is at least this long, and at least as long as all objects together.
    pub snapshot_bytes: u64,
    /// What each resource's watch window keeps.
    pub window: Limits,
    /// Commits that may wait; more callers wait before they enter.
    pub queue: usize,
    /// Commits that share a sync at most.
    pub batch: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: 32 << 20,
            snapshot_bytes: 64 << 20,
            window: Limits::default(),
            queue: 4096,
            batch: 512,
        }
    }
}

/// What was found at start.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Objects.
    pub objects: usize,
    /// Newest revision.
    pub revision: u64,
    /// Log segments read.
    pub segments: usize,
    /// Bytes of an unfinished write that were cut from the end of the log.
    pub cut: u64,
    /// How long it took.
    pub took: Duration,
}

/// Why the store does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The disk refuses.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Another process has it open.
    #[error("{0} is in use by another process; stop that one first, or choose another data directory")]
    InUse(PathBuf),
    /// Acknowledged writes cannot be read.
    #[error("the store in {dir} cannot be opened: {error}")]
    Damaged {
        /// Where.
        dir: PathBuf,
        /// What and how that is known.
        error: RecoveryError,
    },
}

pub(crate) struct Opened {
    pub state: State,
    pub log: Log,
    /// Held by the writer.
    pub lock: File,
    pub recovery: Recovery,
}

/// After a host crash, revisions that unsynced writes had may have been seen by somebody; new ones begin this much later.
const REVISION_GAP: u64 = 1_000_000;

pub(crate) fn open(dir: &Path, options: &Options) -> Result<Opened, OpenError> {
    let started = Instant::now();
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |error| OpenError::Io { path, error }
    };
    fs::create_dir_all(dir).map_err(at(dir))?;
    let lock = lock(dir)?;
    let damaged = |error| OpenError::Damaged { dir: dir.to_path_buf(), error };
    let files = Files::find(dir).map_err(at(dir))?;
    let mut replay = Replay::default();
    if let Some(path) = files.snapshots.last() {
        let bytes = fs::read(path).map_err(at(path))?;
        replay.snapshot(&name(path), &bytes).map_err(damaged)?;
    }
    let mut shown = Vec::new();
    let (mut segments, mut end, mut cut) = (Vec::new(), 0, 0);
    for (i, path) in files.segments.iter().enumerate() {
        let bytes = fs::read(path).map_err(at(path))?;
        let sealed = i + 1 < files.segments.len();
        if !sealed && bytes.len() < store::SEGMENT_HEADER && i > 0 {
            // The process died between creating the file and writing its header: nothing was ever in it.
            fs::remove_file(path).map_err(at(path))?;
            break;
        }
        let keep = |resource: &str, change| shown.push((resource.to_owned(), change));
        let (header, found) = replay.segment(&name(path), &bytes, sealed, keep).map_err(damaged)?;
        (end, cut) = match found {
            End::Clean { offset } => (offset as u64, 0),
            End::Torn { offset } | End::Damaged { offset, .. } => (offset as u64, (bytes.len() - offset) as u64),
        };
        segments.push(Segment { path: path.clone(), header });
    }
    let boot = boot_id();
    if segments.last().is_some_and(|last| last.header.boot != boot) {
        let revision = replay.index.revision() + REVISION_GAP;
        replay.index.advance(revision);
    }
    let count = segments.len();
    let revision = replay.index.revision();
    let log = resume(dir, segments, end, revision, options, boot).map_err(at(dir))?;
    let recovery = Recovery { objects: replay.index.len(), revision, segments: count, cut, took: started.elapsed() };
    let floor = replay.floor();
    let mut state = State::new(replay.index, options.window, floor);
    for (resource, change) in shown {
        state.show(&resource, change);
    }
    Ok(Opened { state, log, lock, recovery })
}

/// Goes on in the last segment if it was made since the host came up; else in a new one, whose boot id is today's.
fn resume(
    dir: &Path,
    segments: Vec<Segment>,
    end: u64,
    revision: u64,
    options: &Options,
    boot: [u8; 16],
) -> io::Result<Log> {
    let Some(last) = segments.last() else {
        return Log::create(dir, 1, revision + 1, options.segment_bytes, boot);
    };
    let same_boot = last.header.boot == boot;
    let mut log = Log::resume(dir, segments, end, options.segment_bytes, boot)?;
    if !same_boot {
        log.rotate(revision + 1)?;
    }
    Ok(log)
}

struct Files {
    snapshots: Vec<PathBuf>,
    segments: Vec<PathBuf>,
}

impl Files {
    /// The store's files in order; remains of snapshots that were never finished are removed.
    fn find(dir: &Path) -> io::Result<Files> {
        let mut files = Files { snapshots: Vec::new(), segments: Vec::new() };
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("snap") => files.snapshots.push(path),
                Some("seg") => files.segments.push(path),
                Some("tmp") => fs::remove_file(&path)?,
                _ => {}
            }
        }
        files.snapshots.sort();
        files.segments.sort();
        sync_dir(dir)?;
        Ok(files)
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// A process that is just ending may hold the directory a moment longer; a restart should not fail for that.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Holds the directory as long as the file is open. The writer keeps it, so it goes when everything is synced, or when the process dies.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("LOCK");
    let io = |error| OpenError::Io { path: path.clone(), error };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(dir.to_path_buf())),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
}

fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut id = [0u8; 16];
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    for (slot, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or("00");
        *slot = u8::from_str_radix(pair, 16).unwrap_or(0);
    }
    id
}

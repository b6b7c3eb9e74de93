//! Snapshots are copied while writes go on: a few hundred objects under a read lock at a time. Replaying the log from the revision at
//! which the copy began makes it exact (see `store::Replay::snapshot`).

use crate::log::{Segments, sync_dir};
use crate::state::State;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, RwLock};
use store::{Entry, FrameBuilder, Op, RecordRef, SnapshotHeader, snapshot_trailer};

const CHUNK: usize = 256;

/// Starts the snapshotter; a message asks it for a snapshot, and one that is asked for while it works is the next.
pub(crate) fn spawn(dir: PathBuf, state: Arc<RwLock<State>>, segments: Segments) -> SyncSender<()> {
    let (ask, asked): (SyncSender<()>, Receiver<()>) = sync_channel(1);
    let work = move || {
        while asked.recv().is_ok() {
            match take(&dir, &state) {
                Ok(revision) => discard(&dir, &segments, revision),
                // The log stays as long as it is, and nothing is lost: the next one is tried after as many writes again.
                Err(error) => tracing::error!(%error, dir = %dir.display(), "snapshot failed; the log keeps growing"),
            }
        }
    };
    std::thread::Builder::new().name("store-snapshot".into()).spawn(work).expect("threads can be started at startup");
    ask
}

fn take(dir: &Path, state: &RwLock<State>) -> io::Result<u64> {
    let started = std::time::Instant::now();
    let temporary = dir.join("snapshot.tmp");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
    let (start, resources) = {
        let state = state.read().expect("the writer never panics while it publishes");
        (state.index.revision(), state.index.resources().cloned().collect::<Vec<_>>())
    };
    out.write_all(&SnapshotHeader { start_revision: start }.encode())?;
    let mut frame = FrameBuilder::default();
    let mut records = 0u64;
    for resource in &resources {
        let mut after: Option<Entry> = None;
        loop {
            let page = {
                let state = state.read().expect("the writer never panics while it publishes");
                let after = after.as_ref().map(|last| (&*last.namespace, &*last.name));
                state.index.list(resource, None, after, Some(CHUNK))
            };
            if page.items.is_empty() {
                break;
            }
            frame.clear();
            for Entry { namespace, name, record } in &page.items {
                let (revision, value) = (record.revision, &record.bytes[..]);
                frame.push(&RecordRef { op: Op::Update, revision, resource, namespace, name, value });
            }
            records += page.items.len() as u64;
            out.write_all(frame.finish(0, page.revision))?;
            let more = page.more;
            after = page.items.into_iter().next_back();
            if !more {
                break;
            }
        }
    }
    // Resources that appeared while we copied are in the log behind `start`.
    let end = state.read().expect("the writer never panics while it publishes").index.revision();
    out.write_all(&snapshot_trailer(&mut frame, records, end))?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&temporary, dir.join(format!("snap-{start:020}.snap")))?;
    sync_dir(dir)?;
    tracing::info!(records, revision = start, took_ms = started.elapsed().as_millis() as u64, "snapshot taken");
    Ok(start)
}

/// Removes older snapshots and the segments whose records are all in the snapshot.
fn discard(dir: &Path, segments: &Segments, revision: u64) {
    let mut gone: Vec<PathBuf> = Vec::new();
    {
        let mut segments = segments.lock().expect("no code panics while it holds this");
        while segments.len() > 1 && segments[1].header.first_revision <= revision + 1 {
            gone.push(segments.remove(0).path);
        }
    }
    let newest = format!("snap-{revision:020}.snap");
    let snapshots = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    gone.extend(snapshots.filter(|path| {
        path.extension().is_some_and(|extension| extension == "snap")
            && path.file_name().is_some_and(|name| *name < *newest)
    }));
    for path in gone {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "an old file of the store stays");
        }
    }
}

//! The one thread that changes the store.

use crate::log::Log;
use crate::open::Options;
use crate::state::State;
use bytes::Bytes;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, RwLock};
use store::{Change, ChangeKind, Draft, FrameBuilder, Op, Record, RecordRef};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// What must be there for the change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No object of this name.
    Absent,
    /// The object at this revision.
    Revision(u64),
    /// For a put: anything. For a delete: the object, at whatever revision.
    Any,
}

/// The change itself.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Create or replace.
    Put(Draft),
    /// Remove; the draft is the last state that watchers get.
    Delete(Draft),
}

/// Whether the answer waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives a crash of the host.
    Synced,
    /// Survives a crash of the process; for Leases and Events.
    Relaxed,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Write {
    /// `pods`, `apps/deployments`.
    pub resource: Arc<str>,
    /// Empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Precondition.
    pub expect: Expect,
    /// The change.
    pub edit: Edit,
    /// When to answer.
    pub durability: Durability,
}

/// Why a change was not made. Only [`CommitError::Unknown`] leaves open whether it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// The caller expected no object; this one is there.
    #[error("already exists at revision {}", .0.revision)]
    Exists(Record),
    /// The object is at another revision than the caller's. Read it and try again.
    #[error("changed since: now at revision {}", .0.revision)]
    Stale(Record),
    /// There is no such object.
    #[error("not found")]
    NotFound,
    /// The disk is full. Nothing was changed; reads go on; try again when there is room.
    #[error("the disk of the store is full")]
    Full,
    /// The disk refused the write. Nothing was changed.
    #[error("the store's disk refused the write: {0}")]
    Io(String),
    /// The disk failed to sync: whether this change survives is unknown, and no further write is taken until a restart has read the log.
    #[error("the store's disk failed to sync ({0}); restart to recover what is on it")]
    Unknown(String),
    /// The store has been shut down.
    #[error("the store is shut down")]
    Closed,
}

pub(crate) struct Pending {
    pub write: Write,
    pub answer: oneshot::Sender<Result<Record, CommitError>>,
}

/// A change with its revision, not yet on disk.
struct Staged {
    write: Write,
    kind: ChangeKind,
    record: Record,
}

/// Who waits, and what it will be told once the batch is on disk.
type Answer = (oneshot::Sender<Result<Record, CommitError>>, Result<Record, CommitError>);
/// Resource, namespace, name.
type ObjectName = (Arc<str>, Arc<str>, Arc<str>);

struct Writer {
    log: Log,
    /// The directory is ours as long as this is open.
    _lock: File,
    state: Arc<RwLock<State>>,
    snapshots: SyncSender<()>,
    options: Options,
    frame: FrameBuilder,
    since_snapshot: u64,
    failed: Option<String>,
}

pub(crate) fn spawn(
    log: Log,
    lock: File,
    state: Arc<RwLock<State>>,
    commits: mpsc::Receiver<Pending>,
    snapshots: SyncSender<()>,
    options: Options,
) {
    let frame = FrameBuilder::default();
    let writer = Writer { log, _lock: lock, state, snapshots, options, frame, since_snapshot: 0, failed: None };
    let run = move || writer.run(commits);
    std::thread::Builder::new().name("store-writer".into()).spawn(run).expect("threads can be started at startup");
}

impl Writer {
    fn run(mut self, mut commits: mpsc::Receiver<Pending>) {
        while let Some(first) = commits.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < self.options.batch
                && let Ok(next) = commits.try_recv()
            {
                batch.push(next);
            }
            self.commit(batch);
        }
        if let Err(error) = self.log.sync() {
            tracing::error!(%error, "the last unsynced Leases and Events may be lost");
        }
        self.state.write().expect("only this thread writes, and it does not panic here").close();
    }

    fn commit(&mut self, batch: Vec<Pending>) {
        if let Some(why) = &self.failed {
            for pending in batch {
                let _ = pending.answer.send(Err(CommitError::Unknown(why.clone())));
            }
            return;
        }
        let (staged, answers) = self.stage(batch);
        match self.persist(&staged) {
            Ok(()) => {
                self.publish(staged);
                for (answer, outcome) in answers {
                    let _ = answer.send(outcome);
                }
                self.maybe_snapshot();
            }
            Err(error) => {
                tracing::error!(%error, writes = staged.len(), "the store could not write");
                for (answer, outcome) in answers {
                    // A refused precondition may rest on a change of this batch that was not made; the caller reads again either way.
                    let _ = answer.send(outcome.and(Err(error.clone())));
                }
            }
        }
    }

    /// Checks preconditions against what is published plus what this batch has staged, and gives out revisions.
    fn stage(&mut self, batch: Vec<Pending>) -> (Vec<Staged>, Vec<Answer>) {
        let state = self.state.read().expect("the writer never panics while it publishes");
        let mut revision = state.index.revision();
        let mut overlay: HashMap<ObjectName, Option<Record>> = HashMap::new();
        let (mut staged, mut answers) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for Pending { write, answer } in batch {
            let key = (write.resource.clone(), write.namespace.clone(), write.name.clone());
            let current = match overlay.get(&key) {
                Some(record) => record.as_ref(),
                None => state.index.get(&write.resource, &write.namespace, &write.name),
            };
            let outcome = check(&write, current).map(|kind| {
                revision += 1;
                let (Edit::Put(draft) | Edit::Delete(draft)) = &write.edit;
                let record = Record { revision, bytes: draft.render(revision) };
                let kept = (kind != ChangeKind::Deleted).then(|| record.clone());
                overlay.insert(key, kept);
                staged.push(Staged { write, kind, record: record.clone() });
                record
            });
            answers.push((answer, outcome));
        }
        (staged, answers)
    }

    fn persist(&mut self, staged: &[Staged]) -> Result<(), CommitError> {
        let Some(first) = staged.first() else { return Ok(()) };
        self.frame.clear();
        for Staged { write, kind, record } in staged {
            let op = match kind {
                ChangeKind::Created => Op::Create,
                ChangeKind::Updated => Op::Update,
                ChangeKind::Deleted => Op::Delete,
            };
            let (resource, namespace, name) = (&*write.resource, &*write.namespace, &*write.name);
            self.frame.push(&RecordRef {
                op,
                revision: record.revision,
                resource,
                namespace,
                name,
                value: &record.bytes,
            });
        }
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CommitError::Full,
            _ => CommitError::Io(error.to_string()),
        };
        if self.log.wants_rotation(self.frame.len()) {
            self.log.rotate(first.record.revision).map_err(refused)?;
        }
        let frame = self.frame.finish(self.log.synced(), first.record.revision);
        self.log.append(frame).map_err(refused)?;
        self.since_snapshot += frame.len() as u64;
        if staged.iter().any(|staged| staged.write.durability == Durability::Synced) {
            // After a failed sync the kernel may have dropped the dirty pages and call the next sync a success: believe nothing more.
            self.log.sync().map_err(|error| {
                self.failed = Some(error.to_string());
                CommitError::Unknown(error.to_string())
            })?;
        }
        Ok(())
    }

    fn publish(&mut self, staged: Vec<Staged>) {
        let mut touched: Vec<Arc<str>> = Vec::new();
        let mut state = self.state.write().expect("only this thread writes, and it does not panic here");
        for Staged { write, kind, record } in staged {
            let Write { resource, namespace, name, .. } = write;
            let (revision, bytes): (u64, Bytes) = (record.revision, record.bytes.clone());
            let previous = match kind {
                ChangeKind::Deleted => state.index.remove(&resource, &namespace, &name, revision),
                ChangeKind::Created | ChangeKind::Updated => state.index.put(&resource, &namespace, &name, record),
            };
            state.show(&resource, Change { kind, revision, namespace, name, bytes, previous });
            if !touched.contains(&resource) {
                touched.push(resource);
            }
        }
        for resource in touched {
            state.ring(&resource);
        }
    }

    fn maybe_snapshot(&mut self) {
        let objects = self.state.read().expect("only this thread writes").index.bytes() as u64;
        if self.since_snapshot >= self.options.snapshot_bytes.max(objects) && self.snapshots.try_send(()).is_ok() {
            self.since_snapshot = 0;
        }
    }
}

fn check(write: &Write, current: Option<&Record>) -> Result<ChangeKind, CommitError> {
    let delete = matches!(write.edit, Edit::Delete(_));
    match (write.expect, current) {
        (Expect::Absent, Some(record)) => Err(CommitError::Exists(record.clone())),
        (Expect::Revision(_), None) => Err(CommitError::NotFound),
        (Expect::Revision(wanted), Some(record)) if record.revision != wanted => {
            Err(CommitError::Stale(record.clone()))
        }
        (_, None) if delete => Err(CommitError::NotFound),
        (_, Some(_)) if delete => Ok(ChangeKind::Deleted),
        (_, None) => Ok(ChangeKind::Created),
        (_, Some(_)) => Ok(ChangeKind::Updated),
    }
}

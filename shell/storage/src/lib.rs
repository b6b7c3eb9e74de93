//! The store on disk: segments, group commit, snapshots.
//!
//! One thread writes. It takes whatever commits are waiting, checks their preconditions, gives them revisions, writes them as one frame,
//! calls fdatasync once, and only then publishes them to readers and watchers and answers. So what anybody has seen is on disk, and the
//! price of a sync is shared by all who waited. Leases and Events are [`Durability::Relaxed`]: a batch of nothing else is written but
//! not synced, so a crash of the *process* loses none of them and a crash of the *host* may lose the last seconds of them.
#![warn(missing_docs)]

mod log;
mod open;
mod snapshot;
mod state;
mod watch;
mod writer;

pub use open::{OpenError, Options, Recovery};
pub use store::{Change, ChangeKind, Draft, Entry, Expired, Limits, Page, Record};
pub use watch::{Lagged, Watch};
pub use writer::{CommitError, Durability, Edit, Expect, Write};

use state::State;
use std::path::Path;
use std::sync::{Arc, RwLock};
use tokio::sync::{mpsc, oneshot};

/// A handle to the store; clones share it. The last clone's drop ends the writer after it has synced everything.
#[derive(Clone)]
pub struct Store {
    state: Arc<RwLock<State>>,
    queue: mpsc::Sender<writer::Pending>,
}

impl Store {
    /// Opens the store in `dir`, creating it if it is not there, and starts its writer thread.
    ///
    /// # Errors
    /// Another process has it open, the disk refuses, or acknowledged writes are damaged (then nothing is changed on disk).
    pub fn open(dir: &Path, options: Options) -> Result<(Store, Recovery), OpenError> {
        let opened = open::open(dir, &options)?;
        let state = Arc::new(RwLock::new(opened.state));
        let (queue, commits) = mpsc::channel(options.queue);
        let snapshots = snapshot::spawn(dir.to_path_buf(), state.clone(), opened.log.segments());
        writer::spawn(opened.log, opened.lock, state.clone(), commits, snapshots, options);
        Ok((Store { state, queue }, opened.recovery))
    }

    /// An object, if it is there.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Record> {
        self.read().index.get(resource, namespace, name).cloned()
    }

    /// The newest published revision.
    pub fn revision(&self) -> u64 {
        self.read().index.revision()
    }

    /// Number of objects of a resource.
    pub fn count(&self, resource: &str) -> usize {
        self.read().index.count(resource)
    }

    /// Number of objects and their bytes, over all resources.
    pub fn size(&self) -> (usize, usize) {
        let state = self.read();
        (state.index.len(), state.index.bytes())
    }

    /// The resources that have objects.
    pub fn resources(&self) -> Vec<Arc<str>> {
        self.read().index.resources().cloned().collect()
    }

    /// Up to `limit` objects behind `after` (namespace, name), in that order, as of the newest revision.
    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: Option<usize>,
    ) -> Page {
        self.read().index.list(resource, namespace, after, limit)
    }

    /// The same as of `revision`: the next page of a list that began then.
    ///
    /// # Errors
    /// The watch window no longer knows what changed since.
    pub fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: Option<usize>,
        revision: u64,
    ) -> Result<Page, Expired> {
        self.read().list_at(resource, namespace, after, limit, revision)
    }

    /// Makes one change durable, publishes it, and returns it. Cancelling the future does not cancel the change.
    ///
    /// # Errors
    /// The precondition does not hold, or the disk refuses; see [`CommitError`].
    pub async fn commit(&self, write: Write) -> Result<Record, CommitError> {
        let (answer, answered) = oneshot::channel();
        let pending = writer::Pending { write, answer };
        self.queue.send(pending).await.map_err(|_| CommitError::Closed)?;
        answered.await.map_err(|_| CommitError::Closed)?
    }

    /// Changes after revision `from` of a resource (in one namespace, or in all), each once, in order, for ever.
    ///
    /// # Errors
    /// The window begins after `from`; list again.
    pub fn watch(&self, resource: &str, namespace: Option<&str>, from: u64) -> Result<Watch, Expired> {
        Watch::start(self.state.clone(), resource, namespace, from)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        // A panic while holding the lock would leave the index and the disk apart; there is no honest way to go on from that.
        self.state.read().expect("the writer never panics while it publishes")
    }
}

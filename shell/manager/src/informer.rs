//! Follows one resource: lists it, watches on from there, and lists again when the watch window has moved past. What comes out is
//! gapless: a relist is turned into the changes that were missed.

use crate::executor::resource as named;
use crate::subscriber::Change;
use bytes::Bytes;
use client::{ApiError, EventKind, ListOptions, ObjectApi, WatchEvent};
use futures_util::{FutureExt, StreamExt};
use model::{Event, Key, ResourceType};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Changes in one message at most.
const BATCH: usize = 512;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A resource that is not served is asked for again ever later, at last so often.
const NOT_SERVED: Duration = Duration::from_secs(30);

struct Known {
    uid: Arc<str>,
    revision: u64,
}

/// The informer of one resource.
pub struct Informer {
    api: Arc<dyn ObjectApi>,
    resource: &'static ResourceType,
    out: mpsc::Sender<Vec<Change>>,
    known: HashMap<Key, Known>,
    synced: bool,
}

/// Nobody listens any more.
struct Closed;

impl Informer {
    /// An informer of `resource` that tells `out`.
    pub fn new(api: Arc<dyn ObjectApi>, resource: &'static ResourceType, out: mpsc::Sender<Vec<Change>>) -> Self {
        Informer { api, resource, out, known: HashMap::new(), synced: false }
    }

    /// Runs until nobody listens.
    pub async fn run(mut self) {
        let mut retry = RETRY_FIRST;
        loop {
            match self.list().await {
                Ok(Ok(revision)) => {
                    retry = RETRY_FIRST;
                    if self.follow(revision).await.is_err() {
                        return;
                    }
                }
                Ok(Err(Closed)) => return,
                Err(error) if error.is_not_found() => {
                    // Not served (any more): there are none, and that is known.
                    if self.reconcile(Vec::new()).await.is_err() {
                        return;
                    }
                    // A definition may be told of a moment before its type is served.
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(NOT_SERVED);
                }
                Err(error) => {
                    tracing::warn!(resource = self.resource.plural, %error, "cannot list; trying again");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn list(&mut self) -> Result<Result<u64, Closed>, ApiError> {
        let list = self.api.list(named(self.resource), ListOptions::default()).await?;
        let revision = list.revision;
        Ok(self.reconcile(list.items).await.map(|()| revision))
    }

    /// Tells the difference between what was known and what is there.
    async fn reconcile(&mut self, items: Vec<Bytes>) -> Result<(), Closed> {
        let mut seen: HashSet<Key> = HashSet::with_capacity(items.len());
        let mut changes = Vec::new();
        for bytes in items {
            if let Some(change) = self.applied(bytes, &mut seen) {
                changes.push(change);
            }
            if changes.len() >= BATCH {
                self.send(std::mem::take(&mut changes)).await?;
            }
        }
        let gone: Vec<Key> = self.known.keys().filter(|key| !seen.contains(*key)).cloned().collect();
        for key in gone {
            if let Some(known) = self.known.remove(&key) {
                changes.push(self.deleted(key, known, None));
            }
        }
        if !self.synced {
            self.synced = true;
            let event = Event::Synced(project::kind_of(self.resource));
            changes.push(Change { resource: self.resource, event, bytes: None });
        }
        self.send(changes).await
    }

    /// The change that an object's bytes mean; None when it is known in this version already (a relist repeats most). Its name goes
    /// into `seen` either way.
    fn applied(&mut self, bytes: Bytes, seen: &mut HashSet<Key>) -> Option<Change> {
        let object = match project::project(self.resource, &bytes) {
            Ok(object) => object,
            Err(error) => {
                tracing::error!(%error, "an object that cannot be read is left alone");
                return None;
            }
        };
        let meta = object.meta();
        seen.insert(meta.key.clone());
        let new = Known { uid: meta.uid.clone(), revision: meta.revision };
        let old = self.known.insert(meta.key.clone(), new);
        if old.is_some_and(|old| old.revision == meta.revision && old.uid == meta.uid) {
            return None;
        }
        Some(Change { resource: self.resource, event: Event::Applied(object), bytes: Some(bytes) })
    }

    fn deleted(&self, key: Key, known: Known, bytes: Option<Bytes>) -> Change {
        let kind = project::kind_of(self.resource);
        let event = Event::Deleted { kind, key, uid: known.uid, revision: known.revision };
        Change { resource: self.resource, event, bytes }
    }

    async fn send(&self, changes: Vec<Change>) -> Result<(), Closed> {
        if changes.is_empty() {
            return Ok(());
        }
        self.out.send(changes).await.map_err(|_| Closed)
    }

    /// Watches from `revision` on, across reconnections, until a list is needed (`Ok`) or nobody listens.
    async fn follow(&mut self, mut revision: u64) -> Result<(), Closed> {
        let mut retry = RETRY_FIRST;
        loop {
            match self.api.watch(named(self.resource), ListOptions::default(), revision).await {
                Ok(mut stream) => {
                    while let Some(first) = stream.next().await {
                        retry = RETRY_FIRST;
                        let mut batch = vec![first];
                        // What is ready already goes in one message.
                        while batch.len() < BATCH {
                            match stream.next().now_or_never() {
                                Some(Some(event)) => batch.push(event),
                                _ => break,
                            }
                        }
                        if let Some(error) = self.take(batch, &mut revision).await? {
                            if error.is_expired() {
                                return Ok(());
                            }
                            tracing::debug!(resource = self.resource.plural, %error, "watch ended");
                            break;
                        }
                    }
                }
                Err(error) if error.is_expired() || error.is_not_found() => return Ok(()),
                Err(error) => {
                    tracing::warn!(resource = self.resource.plural, %error, "cannot watch; trying again");
                }
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
            if self.out.is_closed() {
                return Err(Closed);
            }
        }
    }

    async fn take(
        &mut self,
        batch: Vec<Result<WatchEvent, ApiError>>,
        revision: &mut u64,
    ) -> Result<Option<ApiError>, Closed> {
        let mut changes = Vec::with_capacity(batch.len());
        let mut failed = None;
        for event in batch {
            match event {
                Ok(event) => self.change(event, revision, &mut changes),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        self.send(changes).await?;
        Ok(failed)
    }

    fn change(&mut self, event: WatchEvent, revision: &mut u64, changes: &mut Vec<Change>) {
        let at = if event.revision == 0 { project::revision_of(&event.object) } else { event.revision };
        *revision = (*revision).max(at);
        match event.kind {
            EventKind::Bookmark => {}
            EventKind::Added | EventKind::Modified => changes.extend(self.applied(event.object, &mut HashSet::new())),
            EventKind::Deleted => match project::project(self.resource, &event.object) {
                Ok(object) => {
                    let meta = object.meta();
                    self.known.remove(&meta.key);
                    let known = Known { uid: meta.uid.clone(), revision: at };
                    changes.push(self.deleted(meta.key.clone(), known, Some(event.object.clone())));
                }
                Err(error) => tracing::error!(%error, "a deleted object that cannot be read"),
            },
        }
    }
}

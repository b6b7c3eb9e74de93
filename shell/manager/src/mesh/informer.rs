//! Lists and watches what the mesh reads, and turns it into facts in order.

use bytes::Bytes;
use client::{EventKind, ListOptions, ObjectApi, Resource};
use futures_util::StreamExt;
use model::Key;
use model::mesh::api::ObjectKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Facts that wait for the compiler; more than these hold the watches back.
const QUEUE: usize = 4_096;
/// First and longest pause after a failed list or watch.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A kind that the API does not have (yet) is asked for again so often.
const ABSENT: Duration = Duration::from_secs(5);

/// What happened to an object.
#[derive(Debug)]
pub enum Fact {
    /// It is now as given.
    Set(ObjectKind, Key, Bytes),
    /// It is gone.
    Gone(ObjectKind, Key),
    /// Everything of this kind that existed at the start was told.
    Synced(ObjectKind),
    /// Found out elsewhere than from the API.
    Found(model::mesh::api::ResolvedName),
}

/// One task for each resource; all send into one queue.
pub fn spawn_all(api: &Arc<dyn ObjectApi>, tasks: &mut JoinSet<()>) -> (mpsc::Sender<Fact>, mpsc::Receiver<Fact>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    for (group, version, plural, kind) in project::mesh::RESOURCES {
        let informer = Informer {
            api: api.clone(),
            resource: Resource { group, version, plural },
            kind: *kind,
            facts: sender.clone(),
            known: BTreeSet::new(),
            synced: false,
        };
        tasks.spawn(informer.run());
    }
    (sender, receiver)
}

struct Informer {
    api: Arc<dyn ObjectApi>,
    resource: Resource,
    kind: ObjectKind,
    facts: mpsc::Sender<Fact>,
    /// What was told as existing: a new list is compared with it, so that what vanished in a gap is told as gone.
    known: BTreeSet<Key>,
    synced: bool,
}

/// The queue's other end is gone: mesh control stops.
struct Stopped;

impl Informer {
    async fn run(mut self) {
        let mut pause = RETRY.0;
        loop {
            match self.follow().await {
                Err(Stopped) => return,
                Ok(None) => pause = RETRY.0,
                Ok(Some(wait)) => {
                    tokio::time::sleep(wait.unwrap_or(pause)).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    /// Lists, then watches until the watch ends. `Some`: it failed, wait (that long, if said).
    async fn follow(&mut self) -> Result<Option<Option<Duration>>, Stopped> {
        let list = match self.api.list(self.resource, ListOptions::default()).await {
            Ok(list) => list,
            Err(error) if error.is_not_found() => {
                self.told_all(BTreeMap::new()).await?;
                return Ok(Some(Some(ABSENT)));
            }
            Err(error) => {
                tracing::debug!(resource = self.resource.plural, %error, "mesh: list failed");
                return Ok(Some(None));
            }
        };
        let objects = list.items.into_iter().filter_map(|bytes| Some((key_of(&bytes)?, bytes))).collect();
        self.told_all(objects).await?;
        let mut watch = match self.api.watch(self.resource, ListOptions::default(), list.revision).await {
            Ok(watch) => watch,
            Err(error) => {
                tracing::debug!(resource = self.resource.plural, %error, "mesh: watch failed");
                return Ok(Some(None));
            }
        };
        while let Some(event) = watch.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) if error.is_expired() => return Ok(None),
                Err(error) => {
                    tracing::debug!(resource = self.resource.plural, %error, "mesh: watch broke");
                    return Ok(Some(None));
                }
            };
            let Some(key) = key_of(&event.object).filter(|_| event.kind != EventKind::Bookmark) else { continue };
            match event.kind {
                EventKind::Deleted => {
                    self.known.remove(&key);
                    self.send(Fact::Gone(self.kind, key)).await?;
                }
                _ => {
                    self.known.insert(key.clone());
                    self.send(Fact::Set(self.kind, key, event.object)).await?;
                }
            }
        }
        Ok(None)
    }

    async fn told_all(&mut self, objects: BTreeMap<Key, Bytes>) -> Result<(), Stopped> {
        let gone: Vec<Key> = self.known.iter().filter(|key| !objects.contains_key(*key)).cloned().collect();
        for key in gone {
            self.known.remove(&key);
            self.send(Fact::Gone(self.kind, key)).await?;
        }
        for (key, bytes) in objects {
            self.known.insert(key.clone());
            self.send(Fact::Set(self.kind, key, bytes)).await?;
        }
        if !self.synced {
            self.synced = true;
            self.send(Fact::Synced(self.kind)).await?;
        }
        Ok(())
    }

    async fn send(&self, fact: Fact) -> Result<(), Stopped> {
        self.facts.send(fact).await.map_err(|_| Stopped)
    }
}

/// Namespace and name out of an object's JSON.
fn key_of(bytes: &[u8]) -> Option<Key> {
    #[derive(serde::Deserialize)]
    struct Outer {
        metadata: Inner,
    }
    #[derive(serde::Deserialize)]
    struct Inner {
        #[serde(default)]
        namespace: String,
        #[serde(default)]
        name: String,
    }
    let outer: Outer = serde_json::from_slice(bytes).ok()?;
    (!outer.metadata.name.is_empty()).then(|| Key::new(outer.metadata.namespace, outer.metadata.name))
}

//! Mesh control's ear at the informers: what the mesh reads, as facts in order.

use crate::subscriber::{Change, Subscriber};
use bytes::Bytes;
use model::mesh::api::{FetchedJwks, ObjectKind, ResolvedName};
use model::{Event, Key};
use std::collections::HashMap;
use tokio::sync::mpsc;

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
    Found(ResolvedName),
    /// Keys that were fetched.
    Keys(FetchedJwks),
}

/// Tells mesh control what the informers see. The rest of what they see is no business of the mesh.
pub struct Ear {
    facts: mpsc::UnboundedSender<Fact>,
    /// By group and plural.
    kinds: HashMap<(&'static str, &'static str), ObjectKind>,
}

impl Ear {
    /// An ear, and where it tells what it heard.
    pub fn new() -> (Ear, mpsc::UnboundedReceiver<Fact>) {
        let (facts, heard) = mpsc::unbounded_channel();
        let kinds =
            project::mesh::RESOURCES.iter().map(|(group, _, plural, kind)| ((*group, *plural), *kind)).collect();
        (Ear { facts, kinds }, heard)
    }

    /// For who finds facts elsewhere than in the API.
    pub fn sender(&self) -> mpsc::UnboundedSender<Fact> {
        self.facts.clone()
    }

    fn fact(&self, change: &Change) -> Option<Fact> {
        let kind = *self.kinds.get(&(change.resource.group, change.resource.plural))?;
        match (&change.event, &change.bytes) {
            (Event::Synced(_), _) => Some(Fact::Synced(kind)),
            (Event::Deleted { key, .. }, _) => Some(Fact::Gone(kind, key.clone())),
            (Event::Applied(object), Some(bytes)) => Some(Fact::Set(kind, object.meta().key.clone(), bytes.clone())),
            _ => None,
        }
    }
}

impl Subscriber for Ear {
    fn observe(&self, changes: &[Change]) {
        for fact in changes.iter().filter_map(|change| self.fact(change)) {
            // When mesh control has ended nobody listens: the process is going down.
            let _ = self.facts.send(fact);
        }
    }
}

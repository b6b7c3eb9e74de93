use crate::Record;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use thiserror::Error;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It changed.
    Updated,
    /// It is gone; `bytes` is its last state, at the deletion's revision.
    Deleted,
}

/// One revision of one object, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Global revision.
    pub revision: u64,
    /// Empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The object.
    pub bytes: Bytes,
    /// The version before, if there was one: a watcher with a selector needs it to know whether the object has just left or entered.
    pub previous: Option<Record>,
}

/// The asked-for revision is older than the window; list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// What was asked for.
    pub asked: u64,
    /// Changes after this revision are still known.
    pub oldest: u64,
}

/// How much a window keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Changes.
    pub changes: usize,
    /// Bytes that only the window keeps alive are at most this (counted as all objects in it).
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { changes: 16_384, bytes: 64 << 20 }
    }
}

/// The recent changes of one resource, shared by all its watchers: a watcher is a cursor, not a queue.
#[derive(Debug)]
pub struct Window {
    changes: VecDeque<Change>,
    floor: u64,
    bytes: usize,
    limits: Limits,
}

impl Window {
    /// An empty window that knows everything after `floor`.
    pub fn new(floor: u64, limits: Limits) -> Self {
        Window { changes: VecDeque::new(), floor, bytes: 0, limits }
    }

    /// Adds the newest change; old ones fall out.
    pub fn push(&mut self, change: Change) {
        debug_assert!(self.changes.back().is_none_or(|last| last.revision < change.revision), "revisions only rise");
        self.bytes += change.bytes.len();
        self.changes.push_back(change);
        while self.changes.len() > self.limits.changes || (self.bytes > self.limits.bytes && self.changes.len() > 1) {
            if let Some(old) = self.changes.pop_front() {
                self.bytes -= old.bytes.len();
                self.floor = old.revision;
            }
        }
    }

    /// Changes after this revision are known.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Up to `limit` changes after `revision`, oldest first.
    ///
    /// # Errors
    /// The window has lost some of them.
    pub fn after(&self, revision: u64, limit: usize) -> Result<impl DoubleEndedIterator<Item = &Change>, Expired> {
        if revision < self.floor {
            return Err(Expired { asked: revision, oldest: self.floor });
        }
        let start = self.changes.partition_point(|change| change.revision <= revision);
        let end = start.saturating_add(limit).min(self.changes.len());
        Ok(self.changes.range(start..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64) -> Change {
        let bytes = Bytes::from(vec![0; 10]);
        Change { kind: ChangeKind::Created, revision, namespace: "".into(), name: "n".into(), bytes, previous: None }
    }

    #[test]
    fn a_cursor_sees_every_change_once_or_is_told_that_it_cannot() {
        let mut window = Window::new(10, Limits { changes: 3, bytes: 1000 });
        for revision in [12, 15, 16, 20] {
            window.push(change(revision));
        }
        let seen = |from| window.after(from, 10).map(|all| all.map(|c| c.revision).collect::<Vec<_>>());
        assert_eq!(seen(11), Err(Expired { asked: 11, oldest: 12 }));
        assert_eq!(seen(12), Ok(vec![15, 16, 20]));
        assert_eq!(seen(15), Ok(vec![16, 20]));
        assert_eq!(seen(20), Ok(vec![]));
        assert_eq!(window.after(12, 2).map(Iterator::count), Ok(2));
    }

    #[test]
    fn is_bounded_in_bytes() {
        let mut window = Window::new(0, Limits { changes: 100, bytes: 25 });
        for revision in 1..=5 {
            window.push(change(revision));
        }
        assert_eq!(window.floor(), 3);
    }
}

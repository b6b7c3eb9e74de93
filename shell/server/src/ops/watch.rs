use super::list::namespace_of;
use super::read::Versions;
use super::{ListRequest, Target, list};
use crate::core::Core;
use crate::form;
use crate::select::Selection;
use bytes::Bytes;
use kube::{Resource, Status};
use std::collections::VecDeque;
use std::sync::Arc;
use storage::{Change, ChangeKind, Watch};

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchRequest {
    /// Selectors.
    pub selection: Selection,
    /// Changes after this revision. `None`: begin with everything that is there now, as additions.
    pub from: Option<u64>,
    /// After the initial additions, a bookmark that says that they are complete (`sendInitialEvents`).
    pub mark_initial: bool,
}

/// What happened to the selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Entered it.
    Added,
    /// Changed within it.
    Modified,
    /// Left it.
    Deleted,
    /// Nothing; the initial additions are complete, and everything up to the revision has been sent.
    InitialEnd,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// What.
    pub kind: EventType,
    /// When.
    pub revision: u64,
    /// The object in the version of the request; empty for bookmarks.
    pub object: Bytes,
}

/// A running watch.
pub struct Watching {
    resource: Arc<Resource>,
    versions: Versions,
    selection: Selection,
    initial: VecDeque<Bytes>,
    /// Sent when `initial` has run out.
    initial_end: Option<u64>,
    watch: Watch,
}

/// Starts a watch.
///
/// # Errors
/// 410 when the revision is too old.
pub fn watch(core: &Core, target: &Target, request: WatchRequest) -> Result<Watching, Status> {
    let namespace = namespace_of(target, &request.selection).map(str::to_owned);
    let (from, initial) = match request.from {
        Some(revision) => (revision, VecDeque::new()),
        None => {
            let everything = ListRequest { selection: request.selection.clone(), ..ListRequest::default() };
            let listed = list(core, target, &everything)?;
            (listed.revision, listed.items.into())
        }
    };
    let watch = core
        .store
        .watch(target.key(), namespace.as_deref(), from)
        .map_err(|expired| Status::too_old(expired.asked, expired.oldest))?;
    let initial_end = (request.from.is_none() && request.mark_initial).then_some(from);
    let versions = Versions::of(core, &target.resource);
    Ok(Watching {
        resource: target.resource.clone(),
        versions,
        selection: request.selection,
        initial,
        initial_end,
        watch,
    })
}

impl Watching {
    /// Everything that concerns the selection up to this revision has been returned.
    pub fn revision(&self) -> u64 {
        self.watch.revision()
    }

    /// The next event; waits for it. `None` when the store closes.
    ///
    /// # Errors
    /// 410 when the watcher fell behind; the watch is over.
    pub async fn next(&mut self) -> Option<Result<Event, Status>> {
        if let Some(object) = self.initial.pop_front() {
            return Some(Ok(Event { kind: EventType::Added, revision: 0, object }));
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(Ok(Event { kind: EventType::InitialEnd, revision, object: Bytes::new() }));
        }
        loop {
            match self.watch.next().await? {
                Err(lagged) => return Some(Err(Status::too_old(lagged.0.asked, lagged.0.oldest))),
                Ok(change) => {
                    if let Some(event) = self.event(change) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// What a change means to this watcher: an object that stops being selected is gone, for all it can tell.
    fn event(&self, change: Change) -> Option<Result<Event, Status>> {
        let kind = if self.selection.is_everything() {
            match change.kind {
                ChangeKind::Created => EventType::Added,
                ChangeKind::Updated => EventType::Modified,
                ChangeKind::Deleted => EventType::Deleted,
            }
        } else {
            let behaviour = form::behaviour(&self.resource);
            let selected = |bytes: &[u8]| self.selection.matches(bytes, behaviour);
            let before = change.previous.as_ref().is_some_and(|record| selected(&record.bytes));
            let after = change.kind != ChangeKind::Deleted && selected(&change.bytes);
            match (before, after) {
                (false, false) => return None,
                (false, true) => EventType::Added,
                (true, true) => EventType::Modified,
                (true, false) => EventType::Deleted,
            }
        };
        let object = self.versions.encoded(change.bytes);
        Some(object.map(|object| Event { kind, revision: change.revision, object }))
    }
}

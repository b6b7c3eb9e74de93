use crate::state::State;
use futures_core::Stream;
use std::collections::VecDeque;
use std::sync::{Arc, RwLock};
use store::{Change, Expired};
use thiserror::Error;
use tokio::sync::watch;

/// The watcher was slower than the window is long; it must list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the watch fell behind: {0}")]
pub struct Lagged(#[from] pub Expired);

/// A cursor over one resource's changes. It holds at most one page of them; what it has not read yet lies in the shared window.
pub struct Watch {
    state: Arc<RwLock<State>>,
    bell: watch::Receiver<u64>,
    resource: Arc<str>,
    namespace: Option<Arc<str>>,
    cursor: u64,
    page: VecDeque<Change>,
}

const PAGE: usize = 128;

impl Watch {
    pub(crate) fn start(
        state: Arc<RwLock<State>>,
        resource: &str,
        namespace: Option<&str>,
        from: u64,
    ) -> Result<Watch, Expired> {
        let bell = {
            let mut state = state.write().expect("the writer never panics while it publishes");
            state.changes(resource, from, 0)?;
            state.bell(resource)
        };
        let (resource, namespace) = (resource.into(), namespace.map(Into::into));
        Ok(Watch { state, bell, resource, namespace, cursor: from, page: VecDeque::new() })
    }

    /// Everything up to this revision has been returned.
    pub fn revision(&self) -> u64 {
        match self.page.front() {
            Some(next) => next.revision - 1,
            None => self.cursor,
        }
    }

    /// The next change; waits for it. `None` when the store has closed.
    ///
    /// # Errors
    /// The watcher fell behind the window.
    pub async fn next(&mut self) -> Option<Result<Change, Lagged>> {
        loop {
            if let Some(change) = self.page.pop_front() {
                return Some(Ok(change));
            }
            self.bell.mark_unchanged();
            match self.refill() {
                Err(expired) => return Some(Err(Lagged(expired))),
                Ok(true) => {}
                Ok(false) => self.bell.changed().await.ok()?,
            }
        }
    }

    /// Whether the cursor moved.
    fn refill(&mut self) -> Result<bool, Expired> {
        let state = self.state.read().expect("the writer never panics while it publishes");
        let changes = state.changes(&self.resource, self.cursor, PAGE)?;
        let Some(last) = changes.last() else {
            // Nothing of ours up to here: an idle watcher's cursor keeps up, so that its bookmarks and its window do.
            self.cursor = self.cursor.max(state.index.revision());
            return Ok(false);
        };
        self.cursor = last.revision;
        let wanted = |change: &Change| self.namespace.as_ref().is_none_or(|only| *only == change.namespace);
        self.page.extend(changes.into_iter().filter(wanted));
        Ok(true)
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Change, Lagged>> + Send {
        futures_util::stream::unfold(self, |mut watch| async move { watch.next().await.map(|next| (next, watch)) })
    }
}

//! What readers and watchers see, behind one lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use store::{Change, Entry, Expired, Index, Limits, Page, Record, Window};
use tokio::sync::watch;

pub(crate) struct State {
    pub index: Index,
    topics: HashMap<Arc<str>, Topic>,
    limits: Limits,
    /// Windows that nobody has needed yet begin here.
    floor: u64,
}

/// A resource's recent changes and the bell that wakes its watchers.
struct Topic {
    window: Window,
    /// Gone once the store is closed.
    bell: Option<watch::Sender<u64>>,
}

impl State {
    pub fn new(index: Index, limits: Limits, floor: u64) -> Self {
        State { index, topics: HashMap::new(), limits, floor }
    }

    /// After recovery: what is not in the rebuilt windows is not known.
    pub fn show(&mut self, resource: &str, change: Change) {
        self.topic(resource).window.push(change);
    }

    fn topic(&mut self, resource: &str) -> &mut Topic {
        if !self.topics.contains_key(resource) {
            let topic = Topic { window: Window::new(self.floor, self.limits), bell: Some(watch::Sender::new(0)) };
            self.topics.insert(resource.into(), topic);
        }
        self.topics.get_mut(resource).expect("inserted above")
    }

    /// Wakes the watchers of a resource.
    pub fn ring(&self, resource: &str) {
        if let Some(bell) = self.topics.get(resource).and_then(|topic| topic.bell.as_ref()) {
            bell.send_replace(self.index.revision());
        }
    }

    /// No change will come any more: watchers end when they have read what there is.
    pub fn close(&mut self) {
        for topic in self.topics.values_mut() {
            topic.bell = None;
        }
    }

    pub fn bell(&mut self, resource: &str) -> watch::Receiver<u64> {
        match &self.topic(resource).bell {
            Some(bell) => bell.subscribe(),
            None => watch::channel(0).1,
        }
    }

    pub fn changes(&self, resource: &str, after: u64, limit: usize) -> Result<Vec<Change>, Expired> {
        match self.topics.get(resource) {
            Some(topic) => topic.window.after(after, limit).map(|changes| changes.cloned().collect()),
            None if after < self.floor => Err(Expired { asked: after, oldest: self.floor }),
            None => Ok(Vec::new()),
        }
    }

    /// The list as it was at `revision`: today's, with the changes since undone.
    pub fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: Option<usize>,
        revision: u64,
    ) -> Result<Page, Expired> {
        let mut undo: BTreeMap<(Arc<str>, Arc<str>), Option<Record>> = BTreeMap::new();
        for change in self.changes(resource, revision, usize::MAX)?.into_iter().rev() {
            if namespace.is_none_or(|only| only == &*change.namespace) {
                undo.insert((change.namespace, change.name), change.previous);
            }
        }
        let wanted = limit.unwrap_or(usize::MAX);
        let now = self.index.list(resource, namespace, after, Some(wanted.saturating_add(undo.len())));
        let reach =
            now.more.then(|| now.items.last()).flatten().map(|last| (last.namespace.clone(), last.name.clone()));
        let mut items: BTreeMap<(Arc<str>, Arc<str>), Record> =
            now.items.into_iter().map(|entry| ((entry.namespace, entry.name), entry.record)).collect();
        for (key, before) in undo {
            let behind = after.is_none_or(|(space, name)| (&*key.0, &*key.1) > (space, name));
            let within = reach.as_ref().is_none_or(|reach| key <= *reach);
            match before {
                Some(record) if behind && within => drop(items.insert(key, record)),
                Some(_) => {}
                None => drop(items.remove(&key)),
            }
        }
        let more = items.len() > wanted || now.more;
        let entry = |((namespace, name), record)| Entry { namespace, name, record };
        let items = items.into_iter().take(wanted).map(entry).collect();
        Ok(Page { revision, items, more, remaining: None })
    }
}

//! What is to happen, in order of time; at one time in the order in which it was planned.

use model::Timestamp;
use std::collections::BTreeMap;

/// The timeline.
pub struct Timeline<A> {
    actions: BTreeMap<(Timestamp, u64), A>,
    planned: u64,
}

impl<A> Timeline<A> {
    pub fn new() -> Self {
        Timeline { actions: BTreeMap::new(), planned: 0 }
    }
    pub fn at(&mut self, when: Timestamp, action: A) {
        self.planned += 1;
        self.actions.insert((when, self.planned), action);
    }
    pub fn next(&mut self) -> Option<(Timestamp, A)> {
        self.actions.pop_first().map(|((when, _), action)| (when, action))
    }
}

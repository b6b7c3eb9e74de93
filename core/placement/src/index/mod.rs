//! Indexes: the same answers as the whole evaluation, by keeping up with changes instead of asking every node.
//!
//! - [`layout`]: nodes in groups of equal standing; a class's node rules are asked once for a group.
//! - [`shape`]: for what pods ask of resources, a byte for each node: does it suffice, and how well. Shared by classes.
//! - [`matcher`]: counters of the pods that spread and affinity rules mean, by node and by group.
//! - [`view`]: a class's rules over these; and, when a rule looks at single nodes (hostname spread or affinity, images), the
//!   class's own split of the shape's bytes by what the rule says of each node.
//! - [`select`]: the choice among (group, split) buckets, whose nodes differ in nothing but their byte.
//!
//! Whatever happens to a node is written to a journal; each index reads on from where it stopped when it is next used. So a bind
//! costs a few bytes in the indexes that are used again, and nothing in those that are not.

mod layout;
mod losses;
mod matcher;
mod select;
mod shape;
mod tree;
mod view;

use crate::class::ClassId;
use crate::pool::{NodeId, Pool};
use layout::Layout;
use losses::Losses;
use matcher::Matchers;
use model::map::HashMap;
use shape::Shapes;
use std::ops::Range;
use view::View;

pub(crate) use select::Answer;

/// Bytes that class views and shapes may hold for each node before the least recently used go.
const BYTES_PER_NODE: usize = 512;
/// ...and at least this much in all.
const BYTES_AT_LEAST: usize = 64 << 20;

/// Which nodes changed, in order.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) nodes: Vec<NodeId>,
    /// Number of the first entry.
    base: u64,
}

impl Journal {
    pub(crate) fn end(&self) -> u64 {
        self.base + self.nodes.len() as u64
    }
    /// Whether all entries from this number on are still there.
    pub(crate) fn reaches(&self, from: u64) -> bool {
        from >= self.base
    }
    /// Positions of the entries from this number on.
    pub(crate) fn since(&self, from: u64) -> Range<usize> {
        (from - self.base) as usize..self.nodes.len()
    }
    fn push(&mut self, node: NodeId, keep: usize) {
        if self.nodes.len() >= 2 * keep.max(1 << 14) {
            let gone = self.nodes.len() / 2;
            self.nodes.drain(..gone);
            self.base += gone as u64;
        }
        self.nodes.push(node);
    }
}

/// The incremental indexes of a pool.
#[derive(Default)]
pub(crate) struct Indexes {
    pub(crate) layout: Layout,
    layout_is_old: bool,
    pub(crate) journal: Journal,
    pub(crate) matchers: Matchers,
    pub(crate) shapes: Shapes,
    /// By class.
    views: Vec<Option<Box<View>>>,
    /// By class: what making room for it would cost.
    losses: HashMap<ClassId, Losses>,
    /// Counts changes that concern more than one node's pods and resources: standing, budgets.
    version: u64,
    /// Counts decisions, to know what was used last.
    pub(crate) clock: u64,
    swept: u64,
}

impl Indexes {
    pub(crate) fn layout_changed(&mut self) {
        self.layout_is_old = true;
        self.version += 1;
    }
    pub(crate) fn budgets_changed(&mut self) {
        self.version += 1;
    }
    pub(crate) fn touch(&mut self, node: NodeId) {
        self.journal.push(node, self.layout.slots);
    }
    /// A pod of a class came to a node (or left it).
    pub(crate) fn counted(&mut self, class: ClassId, node: NodeId, terminating: bool, by: i32) {
        self.matchers.count(class as usize, node, terminating, by, &self.layout);
        self.touch(node);
    }
    pub(crate) fn drop_class(&mut self, class: ClassId) {
        self.matchers.forget_class(class as usize);
        self.losses.remove(&class);
        self.drop_view(class);
    }
    fn drop_view(&mut self, class: ClassId) {
        if let Some(view) = self.views.get_mut(class as usize) {
            *view = None;
        }
    }
}

impl Pool {
    /// Notes a class in the counters.
    pub(crate) fn index_class(&mut self, class: ClassId) {
        self.indexes.drop_view(class);
        self.count_class(class as usize);
    }

    /// Makes all counters anew.
    pub(crate) fn reindex(&mut self) {
        self.indexes.matchers = Matchers::default();
        self.indexes.views.clear();
        for class in 0..self.classes.len() {
            self.count_class(class);
        }
    }

    fn refresh_layout(&mut self) {
        if !self.indexes.layout_is_old {
            return;
        }
        self.indexes.layout_is_old = false;
        self.answered.rebuilt += 1;
        self.indexes.layout = Layout::of(self);
        let Indexes { layout, matchers, shapes, views, .. } = &mut self.indexes;
        for matcher in &mut matchers.matchers {
            matcher.regroup(layout);
        }
        shapes.clear();
        views.clear();
    }

    /// Lets go of what was not used for longest when the indexes have grown too large.
    fn sweep(&mut self) {
        if self.indexes.clock < self.indexes.swept + 64 {
            return;
        }
        self.indexes.swept = self.indexes.clock;
        if self.indexes.matchers.matchers.len() > 4 * self.classes.len() + 1024 {
            self.reindex();
        }
        let allowed = BYTES_AT_LEAST.max(BYTES_PER_NODE * self.hot.len());
        let views = self.indexes.views.iter().flatten().map(|view| view.bytes()).sum::<usize>();
        if views + self.indexes.shapes.bytes() <= allowed {
            return;
        }
        let used = |clock: u64, all: Vec<u64>| -> u64 {
            // Half of them go.
            let mut all = all;
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or(clock)
        };
        let clock = self.indexes.clock;
        let limit = used(clock, self.indexes.views.iter().flatten().map(|view| view.used).collect());
        for view in &mut self.indexes.views {
            if view.as_ref().is_some_and(|view| view.used <= limit) {
                *view = None;
            }
        }
        let limit = used(clock, self.indexes.shapes.shapes.iter().flatten().map(|shape| shape.used).collect());
        for shape in &mut self.indexes.shapes.shapes {
            if shape.as_ref().is_some_and(|shape| shape.used < limit) {
                *shape = None;
            }
        }
    }
}

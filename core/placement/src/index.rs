//! Indexes (being built): the whole evaluation answers for now.

use crate::class::ClassId;
use crate::column::Columns;
use crate::pool::{NodeId, PodId, Pool};

/// The incremental indexes of a pool.
#[derive(Default)]
pub(crate) struct Indexes {}

impl Indexes {
    pub(crate) fn node_moves(&mut self, _node: NodeId) {}
    pub(crate) fn layout_changed(&mut self) {}
    pub(crate) fn touch(&mut self, _node: NodeId) {}
    pub(crate) fn counted(&mut self, _class: ClassId, _node: NodeId, _terminating: bool, _by: i32, _columns: &Columns) {
    }
    pub(crate) fn drop_class(&mut self, _class: ClassId) {}
}

impl Pool {
    pub(crate) fn index_class(&mut self, _class: ClassId) {}
    pub(crate) fn reindex(&mut self) {}
    pub(crate) fn decide_by_index(&mut self, _pod: PodId) -> Option<(NodeId, i64)> {
        None
    }
}

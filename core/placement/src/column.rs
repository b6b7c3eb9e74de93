//! Node labels that make domains, as dense columns: for each key in use, each node's value as a small number.

use crate::pool::NodeId;
use model::Labels;
use model::map::HashMap;
use std::sync::Arc;

/// Number of a value in its column; 0: the node lacks the label.
pub(crate) type Domain = u32;

/// One label key.
pub(crate) struct Column {
    key: Arc<str>,
    ids: HashMap<Arc<str>, Domain>,
    of: Vec<Domain>,
}

impl Column {
    fn new(key: Arc<str>) -> Self {
        Column { key, ids: HashMap::default(), of: Vec::new() }
    }
    /// The node's domain, 0 when it has none.
    pub(crate) fn of(&self, node: NodeId) -> Domain {
        self.of[node as usize]
    }
    /// The label.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }
    /// Domains are below this number.
    pub(crate) fn bound(&self) -> usize {
        self.ids.len() + 1
    }
    fn set(&mut self, node: NodeId, labels: Option<&Labels>) {
        let domain = labels.and_then(|labels| labels.get(&*self.key)).map_or(0, |value| {
            let next = self.ids.len() as Domain + 1;
            *self.ids.entry(value.clone()).or_insert(next)
        });
        if self.of.len() <= node as usize {
            self.of.resize(node as usize + 1, 0);
        }
        self.of[node as usize] = domain;
    }
}

/// Number of a column.
pub(crate) type ColumnId = u32;

/// All columns.
#[derive(Default)]
pub(crate) struct Columns {
    columns: Vec<Column>,
    by_key: HashMap<Arc<str>, ColumnId>,
}

impl Columns {
    /// The column of `key`; when it is new, filled from `nodes` (in id order).
    pub(crate) fn intern<'a>(&mut self, key: &Arc<str>, nodes: impl Iterator<Item = Option<&'a Labels>>) -> ColumnId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        let mut column = Column::new(key.clone());
        for (node, labels) in nodes.enumerate() {
            column.set(node as NodeId, labels);
        }
        let id = self.columns.len() as ColumnId;
        self.columns.push(column);
        self.by_key.insert(key.clone(), id);
        id
    }
    /// A column.
    pub(crate) fn get(&self, id: ColumnId) -> &Column {
        &self.columns[id as usize]
    }
    /// Writes a node's labels (None: the node is gone) into every column.
    pub(crate) fn set(&mut self, node: NodeId, labels: Option<&Labels>) {
        for column in &mut self.columns {
            column.set(node, labels);
        }
    }
}

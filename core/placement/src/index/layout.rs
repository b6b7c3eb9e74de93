//! Nodes in groups of equal standing: same labels (but for those that no two nodes share), taints and cordon. What a class's
//! node rules say is said once for a group.

use crate::index::tree::BLOCK;
use crate::pool::{NOWHERE, NodeId, Pool};
use model::Labels;
use model::map::{HashMap, HashSet};
use model::taint::Taint;
use std::ops::Range;
use std::sync::Arc;

/// Number of a group.
pub(crate) type GroupId = u32;

/// Nodes of equal standing.
pub(crate) struct Group {
    /// Their blocks of slots.
    pub(crate) blocks: Range<usize>,
    /// How many they are.
    pub(crate) nodes: u32,
    /// One of them, to ask for all.
    pub(crate) sample: NodeId,
}

/// Where each node's slot is.
#[derive(Default)]
pub(crate) struct Layout {
    pub(crate) groups: Vec<Group>,
    pub(crate) slots: usize,
    /// By node.
    pub(crate) slot_of: Vec<u32>,
    pub(crate) group_of: Vec<GroupId>,
    /// By slot.
    pub(crate) node_at: Vec<NodeId>,
    /// Label keys of which no two nodes share a value.
    unique: HashSet<Arc<str>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Standing<'a> {
    labels: Vec<(&'a str, Option<&'a str>)>,
    taints: &'a [Taint],
    cordoned: bool,
}

impl Layout {
    /// The layout of a pool's nodes. Within a group slots are in the order in which nodes joined.
    pub(crate) fn of(pool: &Pool) -> Self {
        let unique = unique_keys(pool.live_nodes().map(|node| &pool.nodes[node as usize].facts.labels));
        let mut ids: HashMap<Standing<'_>, usize> = HashMap::default();
        let mut members: Vec<Vec<NodeId>> = Vec::new();
        for node in pool.live_nodes() {
            let facts = &pool.nodes[node as usize].facts;
            let label = |(key, value)| -> (&str, Option<&str>) {
                let (key, value): (&Arc<str>, &Arc<str>) = (key, value);
                (key, (!unique.contains(key)).then_some(value))
            };
            let standing = Standing {
                labels: facts.labels.iter().map(label).collect(),
                taints: &facts.taints,
                cordoned: facts.unschedulable,
            };
            let id = *ids.entry(standing).or_insert_with(|| {
                members.push(Vec::new());
                members.len() - 1
            });
            members[id].push(node);
        }
        let mut layout = Layout {
            slot_of: vec![u32::MAX; pool.hot.len()],
            group_of: vec![GroupId::MAX; pool.hot.len()],
            unique,
            ..Layout::default()
        };
        for (group, nodes) in members.iter().enumerate() {
            let start = layout.node_at.len();
            for node in nodes {
                layout.slot_of[*node as usize] = layout.node_at.len() as u32;
                layout.group_of[*node as usize] = group as GroupId;
                layout.node_at.push(*node);
            }
            layout.node_at.resize(layout.node_at.len().next_multiple_of(BLOCK), NOWHERE);
            let blocks = start / BLOCK..layout.node_at.len() / BLOCK;
            layout.groups.push(Group { blocks, nodes: nodes.len() as u32, sample: nodes[0] });
        }
        layout.slots = layout.node_at.len();
        layout
    }

    /// Whether no two nodes share a value of this label.
    pub(crate) fn is_unique(&self, key: &str) -> bool {
        self.unique.contains(key)
    }
    /// Slot and group of a node, when it has one.
    #[inline]
    pub(crate) fn place(&self, node: NodeId) -> Option<(usize, usize)> {
        match self.slot_of.get(node as usize) {
            None | Some(&u32::MAX) => None,
            Some(slot) => Some((*slot as usize, self.group_of[node as usize] as usize)),
        }
    }
}

fn unique_keys<'a>(nodes: impl Iterator<Item = &'a Labels>) -> HashSet<Arc<str>> {
    let mut values: HashMap<&Arc<str>, Option<HashSet<&Arc<str>>>> = HashMap::default();
    for labels in nodes {
        for (key, value) in labels {
            let seen = values.entry(key).or_insert_with(|| Some(HashSet::default()));
            if seen.as_mut().is_some_and(|seen| !seen.insert(value)) {
                *seen = None;
            }
        }
    }
    values.into_iter().filter(|(_, seen)| seen.is_some()).map(|(key, _)| key.clone()).collect()
}

//! The best of many nodes by a small number, kept under change: small leaves, in blocks of 64 with their maximum.

use std::ops::Range;

/// A slot's number.
pub(crate) type Leaf = u16;

/// Leaves in a block.
pub(crate) const BLOCK: usize = 64;

/// A number for each slot; 0 means that the slot does not count.
#[derive(Clone, Default)]
pub(crate) struct Tree {
    leaves: Vec<Leaf>,
    blocks: Vec<Leaf>,
    /// Slots that count, by group.
    counts: Vec<u32>,
}

impl Tree {
    /// Nothing counts.
    pub(crate) fn new(slots: usize, groups: usize) -> Self {
        Tree { leaves: vec![0; slots], blocks: vec![0; slots / BLOCK], counts: vec![0; groups] }
    }
    /// A slot's number.
    #[inline]
    pub(crate) fn get(&self, slot: usize) -> Leaf {
        self.leaves[slot]
    }
    /// Writes a slot's number.
    #[inline]
    pub(crate) fn set(&mut self, slot: usize, group: usize, value: Leaf) {
        let old = std::mem::replace(&mut self.leaves[slot], value);
        if old == value {
            return;
        }
        self.counts[group] = self.counts[group] + u32::from(value > 0) - u32::from(old > 0);
        let block = slot / BLOCK;
        let max = &mut self.blocks[block];
        if value >= *max {
            *max = value;
        } else if old == *max {
            let leaves = &self.leaves[block * BLOCK..(block + 1) * BLOCK];
            *max = leaves.iter().copied().max().unwrap_or(0);
        }
    }
    /// Slots of a group that count.
    #[inline]
    pub(crate) fn count(&self, group: usize) -> u32 {
        self.counts[group]
    }
    /// The largest number in some blocks; 0 when nothing counts there.
    #[inline]
    pub(crate) fn top(&self, blocks: Range<usize>) -> Leaf {
        self.blocks[blocks].iter().copied().max().unwrap_or(0)
    }
    /// The first slot with this number in some blocks.
    pub(crate) fn first(&self, blocks: Range<usize>, value: Leaf) -> Option<usize> {
        let from = blocks.start;
        let block = from + self.blocks[blocks].iter().position(|max| *max == value)?;
        let leaves = &self.leaves[block * BLOCK..(block + 1) * BLOCK];
        leaves.iter().position(|leaf| *leaf == value).map(|at| block * BLOCK + at)
    }
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        (self.leaves.len() + self.blocks.len()) * size_of::<Leaf>() + self.counts.len() * 4
    }
}

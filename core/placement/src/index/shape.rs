//! Shapes: what pods ask of a node's resources, ports and disks. All classes of one shape share, for every node, whether it
//! suffices and how well.

use crate::class::{ClassId, Requests};
use crate::filter::{Code, Verdict, lacks};
use crate::index::tree::{Leaf, Tree};
use crate::pool::{NodeId, Pool};
use model::map::HashMap;
use model::scheduling::{Disk, HostPort};

/// Number of a shape.
pub(crate) type ShapeId = u32;

/// What makes two classes ask the same of a node.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct ShapeKey {
    pub(crate) requests: Requests,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) disks: Vec<Disk>,
}

/// A slot that no verdict is known of.
const NOT_ASKED: u8 = u8::MAX;

/// One shape's index. A leaf is 0 when the node does not suffice, else its resource score plus 1.
pub(crate) struct Shape {
    /// A class of this shape, to ask the filters with.
    class: ClassId,
    plain: bool,
    pub(crate) tree: Tree,
    /// By slot: why it does not suffice, as a number into `verdicts` (0: it does).
    why: Vec<u8>,
    verdicts: Vec<Verdict>,
    /// By group: nodes by that number.
    pub(crate) refusals: Vec<Vec<u32>>,
    /// Journal entries seen.
    pub(crate) seen: u64,
    pub(crate) used: u64,
}

impl Shape {
    /// Verdicts and how many nodes of a group give each; the first (0) is those that suffice.
    pub(crate) fn verdicts(&self, group: usize) -> impl Iterator<Item = (Verdict, u32)> + '_ {
        self.refusals[group]
            .iter()
            .enumerate()
            .skip(1)
            .map(|(at, count)| (self.verdicts[at], *count))
            .filter(|(_, c)| *c > 0)
    }
    fn note(&mut self, slot: usize, group: usize, verdict: Verdict) {
        let old = self.why[slot];
        if old == 0 && verdict.is_ok() {
            return;
        }
        let number = match self.verdicts.iter().position(|known| *known == verdict) {
            Some(number) => number,
            // Beyond so many sets of lacking resources the last stands for the rest: only counts of reasons suffer.
            None if self.verdicts.len() == usize::from(NOT_ASKED) => usize::from(NOT_ASKED) - 1,
            None => {
                self.verdicts.push(verdict);
                self.verdicts.len() - 1
            }
        };
        self.why[slot] = number as u8;
        let counts = &mut self.refusals[group];
        if counts.len() <= number {
            counts.resize(number + 1, 0);
        }
        if old != NOT_ASKED {
            counts[usize::from(old)] -= 1;
        }
        counts[number] += 1;
    }
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.tree.bytes() + self.why.len()
    }
}

/// All shapes in use.
#[derive(Default)]
pub(crate) struct Shapes {
    pub(crate) shapes: Vec<Option<Shape>>,
    ids: HashMap<ShapeKey, ShapeId>,
}

impl Shapes {
    pub(crate) fn get(&self, id: ShapeId) -> Option<&Shape> {
        self.shapes.get(id as usize)?.as_ref()
    }
    pub(crate) fn clear(&mut self) {
        self.shapes.iter_mut().for_each(|shape| *shape = None);
    }
    pub(crate) fn bytes(&self) -> usize {
        self.shapes.iter().flatten().map(Shape::bytes).sum()
    }
}

impl Pool {
    /// The number of a class's shape.
    pub(crate) fn shape_id(&mut self, class: ClassId) -> ShapeId {
        let of = self.class(class);
        let key = ShapeKey {
            requests: of.requests.clone(),
            ports: of.spec().host_ports.clone(),
            disks: of.spec().disks.clone(),
        };
        let next = self.indexes.shapes.shapes.len() as ShapeId;
        let id = *self.indexes.shapes.ids.entry(key).or_insert(next);
        if id == next {
            self.indexes.shapes.shapes.push(None);
        }
        id
    }

    /// Brings a shape up to date with everything that happened to nodes.
    pub(crate) fn refresh_shape(&mut self, id: ShapeId, class: ClassId) {
        let mut shape = match self.indexes.shapes.shapes[id as usize].take() {
            Some(shape) if self.indexes.journal.reaches(shape.seen) => shape,
            _ => {
                self.answered.rebuilt += 1;
                self.new_shape(class)
            }
        };
        // The class that made the shape may be gone; any of the shape serves.
        shape.class = class;
        let changes = self.indexes.journal.since(shape.seen);
        self.answered.replayed += changes.len() as u64;
        for at in changes {
            let node = self.indexes.journal.nodes[at];
            self.update_shape(&mut shape, node);
        }
        shape.seen = self.indexes.journal.end();
        shape.used = self.indexes.clock;
        self.indexes.shapes.shapes[id as usize] = Some(shape);
    }

    fn new_shape(&self, class: ClassId) -> Shape {
        let layout = &self.indexes.layout;
        let spec = self.class(class).spec();
        let mut shape = Shape {
            class,
            plain: spec.host_ports.is_empty() && spec.disks.is_empty(),
            tree: Tree::new(layout.slots, layout.groups.len()),
            why: vec![NOT_ASKED; layout.slots],
            verdicts: vec![Verdict::OK],
            refusals: vec![vec![0]; layout.groups.len()],
            seen: self.indexes.journal.end(),
            used: 0,
        };
        for node in self.live_nodes() {
            self.update_shape(&mut shape, node);
        }
        shape
    }

    #[inline]
    fn update_shape(&self, shape: &mut Shape, node: NodeId) {
        let Some((slot, group)) = self.indexes.layout.place(node) else { return };
        let class = self.class(shape.class);
        let verdict = self.room(class, node, shape.plain);
        let leaf = if verdict.is_ok() { self.room_score(&class.requests, node) as Leaf + 1 } else { 0 };
        shape.tree.set(slot, group, leaf);
        shape.note(slot, group, verdict);
    }

    /// Ports, resources and disks, in the filters' order.
    #[inline]
    fn room(&self, class: &crate::class::Class, node: NodeId, plain: bool) -> Verdict {
        if !plain && self.ports_conflict(class.spec(), node) {
            return Verdict::new(Code::Ports);
        }
        let lacks = lacks(&class.requests, &self.hot[node as usize], &self.nodes[node as usize].extended);
        if lacks != 0 {
            return Verdict::with(Code::Resources, lacks);
        }
        let alignment = self.alignment(&class.requests, node);
        if !alignment.is_ok() {
            return alignment;
        }
        if self.overloaded(&class.requests, node) {
            return Verdict::new(Code::Load);
        }
        if !plain && self.disks_conflict(class.spec(), node) {
            return Verdict::new(Code::Disk);
        }
        Verdict::OK
    }
}

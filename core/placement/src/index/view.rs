//! A class's rules in terms of groups, counters and columns.

use crate::class::ClassId;
use crate::column::ColumnId;
use crate::filter::{Verdict, affinity_allows, named_nodes, standing, tolerates};
use crate::index::layout::Layout;
use crate::index::matcher::{MatcherId, Pattern, Role};
use crate::index::shape::ShapeId;
use crate::index::tree::Tree;
use crate::pool::{NodeId, Pool};
use crate::score::{image_score, node_preference, soft_spread, soft_taints};
use model::map::HashMap;
use model::scheduling::{HOSTNAME, NodeTerm, SchedulingSpec, SpreadConstraint};
use std::sync::Arc;

/// Where a counter's numbers are to be taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Domains are made of whole groups.
    Groups(ColumnId),
    /// Every node with the label is a domain of its own; the number is this part of the node's split.
    Nodes(ColumnId, usize),
}

impl Scope {
    pub(crate) fn column(self) -> ColumnId {
        match self {
            Scope::Groups(column) | Scope::Nodes(column, _) => column,
        }
    }
}

/// A spread constraint.
pub(crate) struct Spread {
    pub(crate) matcher: MatcherId,
    pub(crate) scope: Scope,
    pub(crate) hostname: bool,
    pub(crate) max_skew: i32,
    pub(crate) min_domains: i32,
    pub(crate) own: i64,
    /// By group.
    pub(crate) takes_part: Vec<bool>,
}

/// A term: which pods, in which domains.
#[derive(Clone, Copy)]
pub(crate) struct Term {
    pub(crate) matcher: MatcherId,
    pub(crate) scope: Scope,
}

/// What a group says of itself.
#[derive(Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) verdict: Verdict,
    pub(crate) preference: i64,
    pub(crate) soft_taints: i64,
}

/// A class's rules.
pub(crate) struct View {
    pub(crate) shape: ShapeId,
    /// By group.
    pub(crate) standing: Vec<Standing>,
    pub(crate) hard: Vec<Spread>,
    pub(crate) soft: Vec<Spread>,
    pub(crate) need_all_labels: bool,
    pub(crate) affinity: Vec<Term>,
    pub(crate) matches_itself: bool,
    pub(crate) anti: Vec<Term>,
    /// Own preferred terms.
    pub(crate) preferred: Vec<(Term, i64)>,
    /// Terms of others that repel this class.
    pub(crate) repelled: Vec<Term>,
    /// Terms of others that weigh on this class.
    pub(crate) weighed: Vec<(Term, i64)>,
    /// Holders' counters looked at.
    holders_seen: usize,
    /// The class's images as they were counted.
    images: Vec<u32>,
    pub(crate) split: Split,
    pub(crate) used: u64,
}

/// What a node-level number is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The node's image score.
    Image,
    /// All pods on the node that a counter counts.
    All(MatcherId),
    /// Those that are not being deleted.
    Staying(MatcherId),
}

/// Nodes split by what the node-level rules say of them. Without such rules there is one part, and the shape's tree serves.
#[derive(Default)]
pub(crate) struct Split {
    pub(crate) parts: Vec<Part>,
    /// The numbers of each split; the first is all zero.
    pub(crate) keys: Vec<Arc<[i64]>>,
    ids: HashMap<Arc<[i64]>, u16>,
    /// By slot.
    key_of: Vec<u16>,
    pub(crate) trees: Vec<Tree>,
    /// By split and group: nodes.
    pub(crate) population: Vec<Vec<u32>>,
    seen: u64,
    ready: bool,
}

/// More splits than this are not worth keeping.
const MOST_SPLITS: usize = 256;

impl Split {
    /// The number of a part, added when it is new.
    fn part(&mut self, part: Part) -> usize {
        self.parts.iter().position(|known| *known == part).unwrap_or_else(|| {
            self.parts.push(part);
            self.ready = false;
            self.parts.len() - 1
        })
    }
    fn key(&mut self, key: &[i64], slots: usize, groups: usize) -> u16 {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = self.keys.len() as u16;
        let key: Arc<[i64]> = key.into();
        self.keys.push(key.clone());
        self.ids.insert(key, id);
        self.trees.push(Tree::new(slots, groups));
        self.population.push(vec![0; groups]);
        id
    }
    /// The split that a slot is in.
    pub(crate) fn of(&self, slot: usize) -> usize {
        self.key_of.get(slot).copied().map_or(0, usize::from)
    }
}

impl View {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.split.trees.iter().map(Tree::bytes).sum::<usize>() + self.split.key_of.len() * 2 + 1024
    }
}

/// Whether the rules about nodes say the same of all nodes of a group.
fn speaks_of_groups(spec: &SchedulingSpec, layout: &Layout) -> bool {
    let term = |term: &NodeTerm| term.fields.is_empty() && !term.expressions.iter().any(|e| layout.is_unique(&e.key));
    spec.claims.is_empty()
        && named_nodes(spec).is_none()
        && !spec.node_selector.iter().any(|(key, _)| layout.is_unique(key))
        && spec.node_affinity.iter().flatten().all(term)
        && spec.preferred_nodes.iter().all(|(_, preferred)| term(preferred))
}

impl Pool {
    /// Takes a class's view out, up to date; None when the whole evaluation has to answer. It is to be put back.
    pub(crate) fn take_view(&mut self, id: ClassId) -> Option<Box<View>> {
        let at = id as usize;
        if self.indexes.views.len() <= at {
            self.indexes.views.resize_with(at + 1, || None);
        }
        let images = self.image_counts(id);
        let mut view = match self.indexes.views[at].take() {
            Some(view) if view.images == images => view,
            _ if !speaks_of_groups(self.class(id).spec(), &self.indexes.layout) => return None,
            _ => self.new_view(id, images),
        };
        self.meet_holders(id, &mut view);
        self.refresh_shape(view.shape, id);
        if !view.split.parts.is_empty() {
            let journal = &self.indexes.journal;
            match view.split.ready && journal.reaches(view.split.seen) {
                true => self.answered.replayed += journal.since(view.split.seen).len() as u64,
                false => self.answered.rebuilt += 1,
            }
            self.refresh_split(id, &mut view);
            if view.split.keys.len() > MOST_SPLITS {
                return None;
            }
        }
        view.used = self.indexes.clock;
        Some(view)
    }

    pub(crate) fn put_view(&mut self, id: ClassId, view: Box<View>) {
        self.indexes.views[id as usize] = Some(view);
    }

    fn image_counts(&self, id: ClassId) -> Vec<u32> {
        let images = &self.class(id).spec().images;
        let counts: Vec<u32> = images.iter().map(|name| self.image_nodes.get(name).copied().unwrap_or(0)).collect();
        if counts.iter().all(|count| *count == 0) { Vec::new() } else { counts }
    }

    fn new_view(&mut self, id: ClassId, images: Vec<u32>) -> Box<View> {
        let shape = self.shape_id(id);
        let key = self.class(id).key.clone();
        let columns = self.class(id).affinity.clone();
        let spec = key.spec.clone();
        let (soft, need_all_labels) = soft_spread(self, id);
        let hard: Vec<(SpreadConstraint, ColumnId)> = {
            let own = spec.spread.iter().cloned().zip(self.class(id).spread_columns.iter().copied());
            own.filter(|(constraint, _)| constraint.hard).collect()
        };
        let namespace = self.namespace_labels(&key.namespace);
        let mut split = Split::default();
        if !images.is_empty() {
            split.part(Part::Image);
        }
        let mut view = Box::new(View {
            shape,
            standing: self.standings(id),
            hard: hard
                .into_iter()
                .map(|(constraint, column)| self.spread(id, &constraint, column, &mut split))
                .collect(),
            soft: soft
                .into_iter()
                .map(|(constraint, column)| self.spread(id, &constraint, column, &mut split))
                .collect(),
            need_all_labels,
            affinity: Vec::new(),
            matches_itself: spec.affinity.iter().all(|term| crate::class::term_matches(term, &key, &namespace)),
            anti: Vec::new(),
            preferred: Vec::new(),
            repelled: Vec::new(),
            weighed: Vec::new(),
            holders_seen: 0,
            images,
            split,
            used: 0,
        });
        if !spec.affinity.is_empty() {
            // A pod counts only when all required terms mean it.
            let matcher = self.matcher(Pattern::Terms(spec.affinity.clone()), 0);
            view.affinity =
                columns.affinity.iter().map(|column| self.term(matcher, *column, &mut view.split)).collect();
        }
        for (term, column) in spec.anti_affinity.iter().zip(&columns.anti) {
            let matcher = self.matcher(Pattern::Terms(vec![term.clone()]), 0);
            let term = self.term(matcher, *column, &mut view.split);
            view.anti.push(term);
        }
        let liked = spec.preferred_affinity.iter().zip(&columns.preferred).map(|((w, t), c)| (i64::from(*w), t, *c));
        let disliked = spec.preferred_anti_affinity.iter().zip(&columns.preferred_anti);
        for (weight, term, column) in liked.chain(disliked.map(|((w, t), c)| (-i64::from(*w), t, *c))) {
            let matcher = self.matcher(Pattern::Terms(vec![term.clone()]), 0);
            let term = self.term(matcher, column, &mut view.split);
            view.preferred.push((term, weight));
        }
        view
    }

    fn standings(&self, id: ClassId) -> Vec<Standing> {
        let class = self.class(id);
        let of = |node: NodeId| {
            let facts = &self.nodes[node as usize].facts;
            Standing {
                verdict: standing(class.spec(), None, facts),
                preference: node_preference(class, facts),
                soft_taints: soft_taints(&class.spec().tolerations, facts),
            }
        };
        self.indexes.layout.groups.iter().map(|group| of(group.sample)).collect()
    }

    fn spread(&mut self, id: ClassId, constraint: &SpreadConstraint, column: ColumnId, split: &mut Split) -> Spread {
        let namespace = self.class(id).key.namespace.clone();
        // An empty selector counts nobody.
        let selector = constraint.selector.clone().filter(|selector| !selector.is_empty());
        let matcher = self.matcher(Pattern::Spread(namespace, selector), 0);
        let scope = self.scope(column, split, Part::Staying(matcher));
        let class = self.class(id);
        let groups = &self.indexes.layout.groups;
        let part = |node: NodeId| {
            let facts = &self.nodes[node as usize].facts;
            (!constraint.honor_affinity || affinity_allows(class.spec(), facts))
                && (!constraint.honor_taints || tolerates(class.spec(), &facts.taints))
        };
        Spread {
            matcher,
            scope,
            hostname: &*constraint.topology_key == HOSTNAME,
            max_skew: constraint.max_skew,
            min_domains: constraint.min_domains,
            own: i64::from(constraint.counts_itself(&class.key.labels)),
            takes_part: groups.iter().map(|group| part(group.sample)).collect(),
        }
    }

    fn scope(&self, column: ColumnId, split: &mut Split, part: Part) -> Scope {
        if self.indexes.layout.is_unique(self.columns.get(column).key()) {
            Scope::Nodes(column, split.part(part))
        } else {
            Scope::Groups(column)
        }
    }

    fn term(&self, matcher: MatcherId, column: ColumnId, split: &mut Split) -> Term {
        Term { matcher, scope: self.scope(column, split, Part::All(matcher)) }
    }

    /// Looks at terms of others that have come since.
    fn meet_holders(&self, id: ClassId, view: &mut View) {
        let matchers = &self.indexes.matchers;
        if view.holders_seen == matchers.holders.len() {
            return;
        }
        let class = self.class(id);
        let namespace = self.namespace_labels(&class.key.namespace);
        for holder in &matchers.holders[view.holders_seen..] {
            let matcher = matchers.get(*holder);
            let Some((role, term)) = matcher.held() else { continue };
            if !crate::class::term_matches(term, &class.key, &namespace) {
                continue;
            }
            let term = self.term(*holder, matcher.column, &mut view.split);
            match role {
                Role::Repels => view.repelled.push(term),
                Role::Weighs(weight) => view.weighed.push((term, weight)),
            }
        }
        view.holders_seen = matchers.holders.len();
    }

    fn refresh_split(&self, id: ClassId, view: &mut View) {
        let layout = &self.indexes.layout;
        let Some(shape) = self.indexes.shapes.get(view.shape) else { return };
        let split = &mut view.split;
        let mut key = vec![0; split.parts.len()];
        if !split.ready || !self.indexes.journal.reaches(split.seen) {
            self.new_split(id, split, &shape.tree, &mut key);
        } else {
            for at in self.indexes.journal.since(split.seen) {
                let node = self.indexes.journal.nodes[at];
                let Some((slot, group)) = layout.place(node) else { continue };
                self.node_key(id, &split.parts, node, &mut key);
                let (old, new) = (split.of(slot), usize::from(split.key(&key, layout.slots, layout.groups.len())));
                if old != new {
                    split.trees[old].set(slot, group, 0);
                    split.population[old][group] -= 1;
                    split.population[new][group] += 1;
                    split.key_of[slot] = new as u16;
                }
                split.trees[new].set(slot, group, shape.tree.get(slot));
            }
        }
        split.seen = self.indexes.journal.end();
    }

    fn new_split(&self, id: ClassId, split: &mut Split, tree: &Tree, key: &mut [i64]) {
        let layout = &self.indexes.layout;
        let groups = layout.groups.len();
        split.keys.clear();
        split.ids.clear();
        split.trees.clear();
        split.population.clear();
        split.key(key, layout.slots, groups);
        split.trees[0] = tree.clone();
        split.population[0] = layout.groups.iter().map(|group| group.nodes).collect();
        split.key_of = vec![0; layout.slots];
        split.ready = true;
        // Only nodes of which a part says something are elsewhere.
        let mut nodes: Vec<NodeId> = Vec::new();
        for part in &split.parts {
            match part {
                Part::Image => nodes.extend(self.live_nodes()),
                Part::All(matcher) | Part::Staying(matcher) => {
                    nodes.extend(self.indexes.matchers.get(*matcher).nodes())
                }
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            let Some((slot, group)) = layout.place(node) else { continue };
            self.node_key(id, &split.parts, node, key);
            let new = usize::from(split.key(key, layout.slots, groups));
            if new != 0 {
                split.trees[0].set(slot, group, 0);
                split.population[0][group] -= 1;
                split.population[new][group] += 1;
                split.key_of[slot] = new as u16;
                split.trees[new].set(slot, group, tree.get(slot));
            }
        }
    }

    /// What the parts say of a node.
    #[inline]
    fn node_key(&self, id: ClassId, parts: &[Part], node: NodeId, key: &mut [i64]) {
        for (part, number) in parts.iter().zip(key) {
            *number = match part {
                Part::Image => image_score(self, self.class(id), &self.nodes[node as usize].facts, self.node_ids.len()),
                Part::All(matcher) => i64::from(self.indexes.matchers.get(*matcher).at(node).0),
                Part::Staying(matcher) => i64::from(self.indexes.matchers.get(*matcher).at(node).1),
            };
        }
    }
}

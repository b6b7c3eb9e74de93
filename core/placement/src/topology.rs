//! What other pods mean for a class: hard topology spread, required (anti-)affinity, and the anti-affinity of pods that are there.
//! This is the whole computation, over all pods by class; [`crate::index`] keeps the same numbers up to date by events.

use crate::class::{Class, ClassId, Count, term_matches};
use crate::column::{ColumnId, Columns, Domain};
use crate::filter::{Code, Verdict, affinity_allows, tolerates};
use crate::pool::{NodeId, Pool};
use model::scheduling::{PodTerm, SpreadConstraint};

/// Numbers by domain of one column.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ByDomain {
    pub(crate) column: ColumnId,
    pub(crate) counts: Vec<i64>,
}

impl ByDomain {
    pub(crate) fn new(column: ColumnId, columns: &Columns) -> Self {
        ByDomain { column, counts: vec![0; columns.get(column).bound()] }
    }
    /// The number in the node's domain; None when it has none.
    pub(crate) fn at(&self, columns: &Columns, node: NodeId) -> Option<i64> {
        match columns.get(self.column).of(node) {
            0 => None,
            domain => Some(self.counts.get(domain as usize).copied().unwrap_or(0)),
        }
    }
    pub(crate) fn add(&mut self, columns: &Columns, node: NodeId, amount: i64) {
        let domain = columns.get(self.column).of(node) as usize;
        if domain != 0 {
            self.counts[domain] += amount;
        }
    }
}

/// A hard spread constraint with its counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HardSpread {
    pub(crate) by: ByDomain,
    pub(crate) max_skew: i64,
    /// 1 when the pod counts itself.
    pub(crate) own: i64,
    /// The emptiest eligible domain.
    pub(crate) min: i64,
}

/// What the pods around mean for a class.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Surroundings {
    pub(crate) spread: Vec<HardSpread>,
    /// Pods that match all required affinity terms, by each term's domain.
    pub(crate) affinity: Vec<ByDomain>,
    /// Nobody matches, and the pod itself would: the first of a group may go anywhere.
    pub(crate) first_of_group: bool,
    /// Pods that match a required anti-affinity term, by its domain.
    pub(crate) anti: Vec<ByDomain>,
    /// Pods whose required anti-affinity means this class, by that term's domain.
    pub(crate) existing: Vec<ByDomain>,
}

impl Surroundings {
    /// What they say of a node.
    pub(crate) fn verdict(&self, columns: &Columns, node: NodeId) -> Verdict {
        for constraint in &self.spread {
            match constraint.by.at(columns, node) {
                None => return Verdict::new(Code::SpreadLabel),
                Some(count) if count + constraint.own - constraint.min > constraint.max_skew => {
                    return Verdict::new(Code::Spread);
                }
                Some(_) => {}
            }
        }
        let mut alone = true;
        for term in &self.affinity {
            match term.at(columns, node) {
                None => return Verdict::new(Code::Affinity),
                Some(count) => alone &= count > 0,
            }
        }
        if !self.affinity.is_empty() && !alone && !self.first_of_group {
            return Verdict::new(Code::Affinity);
        }
        let present = |by: &ByDomain| by.at(columns, node).is_some_and(|count| count > 0);
        if self.anti.iter().any(present) {
            return Verdict::new(Code::AntiAffinity);
        }
        if self.existing.iter().any(present) {
            return Verdict::new(Code::ExistingAntiAffinity);
        }
        Verdict::OK
    }
}

impl Pool {
    /// Classes with placed pods, with their numbers.
    pub(crate) fn placed_classes(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.classes
            .iter()
            .enumerate()
            .filter_map(|(id, class)| Some((id as ClassId, class.as_ref()?)))
            .filter(|(_, class)| !class.nodes.is_empty())
    }

    /// Works out what all pods mean for a class.
    pub(crate) fn surroundings(&self, id: ClassId) -> Surroundings {
        let class = self.class(id);
        let spec = class.spec();
        let (affinity, any) = self.affinity_counts(class);
        let own_labels = self.namespace_labels(&class.key.namespace);
        let matches_itself = spec.affinity.iter().all(|term| term_matches(term, &class.key, &own_labels));
        Surroundings {
            spread: self.hard_spread(class),
            affinity,
            first_of_group: !any && matches_itself,
            anti: spec
                .anti_affinity
                .iter()
                .zip(&class.affinity.anti)
                .map(|(term, column)| self.count_pods(*column, |other| self.term_means(term, other)))
                .collect(),
            existing: self.existing_anti(class),
        }
    }

    pub(crate) fn term_means(&self, term: &PodTerm, other: &Class) -> bool {
        term_matches(term, &other.key, &self.namespace_labels(&other.key.namespace))
    }

    fn count_pods(&self, column: ColumnId, counts: impl Fn(&Class) -> bool) -> ByDomain {
        let mut by = ByDomain::new(column, &self.columns);
        for (_, class) in self.placed_classes().filter(|(_, class)| counts(class)) {
            for (node, count) in &class.nodes {
                by.add(&self.columns, *node, i64::from(count.all));
            }
        }
        by
    }

    /// Counts for the required affinity terms, and whether anybody anywhere matches all of them.
    fn affinity_counts(&self, class: &Class) -> (Vec<ByDomain>, bool) {
        let spec = class.spec();
        let mut by: Vec<ByDomain> =
            class.affinity.affinity.iter().map(|column| ByDomain::new(*column, &self.columns)).collect();
        let mut any = false;
        if spec.affinity.is_empty() {
            return (by, any);
        }
        let means = |other: &Class| spec.affinity.iter().all(|term| self.term_means(term, other));
        for (_, other) in self.placed_classes().filter(|(_, other)| means(other)) {
            for (node, count) in &other.nodes {
                for term in &mut by {
                    // A pod on a node outside every domain of the terms' keys is nobody.
                    any |= self.columns.get(term.column).of(*node) != 0;
                    term.add(&self.columns, *node, i64::from(count.all));
                }
            }
        }
        (by, any)
    }

    fn existing_anti(&self, class: &Class) -> Vec<ByDomain> {
        let namespace = self.namespace_labels(&class.key.namespace);
        let mut found: Vec<ByDomain> = Vec::new();
        for id in &self.with_terms {
            let other = self.class(*id);
            for (term, column) in other.spec().anti_affinity.iter().zip(&other.affinity.anti) {
                if other.nodes.is_empty() || !term_matches(term, &class.key, &namespace) {
                    continue;
                }
                let at = found.iter().position(|by| by.column == *column).unwrap_or_else(|| {
                    found.push(ByDomain::new(*column, &self.columns));
                    found.len() - 1
                });
                for (node, count) in &other.nodes {
                    found[at].add(&self.columns, *node, i64::from(count.all));
                }
            }
        }
        found
    }

    /// Whether a node takes part in a spread constraint of this class.
    pub(crate) fn takes_part(&self, class: &Class, constraint: &SpreadConstraint, node: NodeId) -> bool {
        let facts = &self.nodes[node as usize].facts;
        (!constraint.honor_affinity || affinity_allows(class.spec(), facts))
            && (!constraint.honor_taints || tolerates(class.spec(), &facts.taints))
    }

    fn hard_spread(&self, class: &Class) -> Vec<HardSpread> {
        let hard: Vec<(&SpreadConstraint, ColumnId)> =
            class.spec().spread.iter().zip(class.spread_columns.iter().copied()).filter(|(c, _)| c.hard).collect();
        if hard.is_empty() {
            return Vec::new();
        }
        let labelled = |node: NodeId| hard.iter().all(|(_, column)| self.columns.get(*column).of(node) != 0);
        hard.iter()
            .map(|(constraint, column)| {
                let mut by = ByDomain::new(*column, &self.columns);
                let takes_part = |node: NodeId| labelled(node) && self.takes_part(class, constraint, node);
                let mut eligible = vec![false; by.counts.len()];
                let mut unknown = by.counts.len() - 1;
                for node in self.live_nodes() {
                    let domain = self.columns.get(*column).of(node) as usize;
                    if domain != 0 && !eligible[domain] && takes_part(node) {
                        eligible[domain] = true;
                        unknown -= 1;
                        if unknown == 0 {
                            break;
                        }
                    }
                }
                self.add_spread_counts(class, constraint, &mut by, takes_part);
                let domains = eligible.iter().filter(|eligible| **eligible).count();
                let least = by.counts.iter().zip(&eligible).filter(|(_, e)| **e).map(|(count, _)| *count).min();
                let too_few = (domains as i64) < i64::from(constraint.min_domains);
                let own = constraint.counts_itself(&class.key.labels);
                HardSpread {
                    by,
                    max_skew: i64::from(constraint.max_skew),
                    own: i64::from(own),
                    min: if too_few { 0 } else { least.unwrap_or(0) },
                }
            })
            .collect()
    }

    /// Adds the pods that a spread constraint counts, on the nodes that take part.
    pub(crate) fn add_spread_counts(
        &self,
        class: &Class,
        constraint: &SpreadConstraint,
        by: &mut ByDomain,
        takes_part: impl Fn(NodeId) -> bool,
    ) {
        for (_, other) in self.placed_classes() {
            if other.key.namespace == class.key.namespace && constraint.counts(&other.key.labels) {
                for (node, Count { all, terminating }) in &other.nodes {
                    if takes_part(*node) {
                        by.add(&self.columns, *node, i64::from(all - terminating));
                    }
                }
            }
        }
    }

    /// Number of pods on a node that a selector counts in a namespace.
    pub(crate) fn domain_of(&self, column: ColumnId, node: NodeId) -> Domain {
        self.columns.get(column).of(node)
    }
}

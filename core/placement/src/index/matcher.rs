//! Counters of pods: how many of those that a rule means are on each node, and in each group of nodes. Rules are shared: equal
//! selectors of different classes are one counter.

use crate::class::{Class, ClassKey, term_matches};
use crate::column::ColumnId;
use crate::index::layout::Layout;
use crate::pool::{NodeId, Pool};
use model::map::HashMap;
use model::scheduling::PodTerm;
use model::{LabelSelector, Labels};
use std::sync::Arc;

/// Number of a counter.
pub(crate) type MatcherId = u32;

/// What a pod's term does to the pods that it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Required anti-affinity: keeps them out.
    Repels,
    /// Preferred terms, and required affinity with its fixed weight: adds this to their score.
    Weighs(i64),
}

/// Which pods are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// Pods of a namespace that a spread constraint's selector means.
    Spread(Arc<str>, Option<LabelSelector>),
    /// Pods that all of these terms mean.
    Terms(Vec<PodTerm>),
    /// Pods that carry this term in this role.
    Holders(Role, PodTerm),
}

impl Pattern {
    /// Whether pods of some class in this namespace may be counted, before anything is looked up.
    fn concerns(&self, class: &Class) -> bool {
        let names =
            |term: &PodTerm| term.namespace_selector.is_some() || term.namespaces.contains(&class.key.namespace);
        match self {
            Pattern::Spread(namespace, _) => *namespace == class.key.namespace,
            Pattern::Terms(terms) => terms.iter().all(names),
            Pattern::Holders(..) => class.has_terms(),
        }
    }
    fn counts(&self, class: &Class, namespace: &Labels) -> bool {
        match self {
            Pattern::Spread(namespace, selector) => {
                *namespace == class.key.namespace && selector.as_ref().is_some_and(|s| s.matches(&class.key.labels))
            }
            Pattern::Terms(terms) => terms.iter().all(|term| term_matches(term, &class.key, namespace)),
            Pattern::Holders(role, term) => holds(class).any(|(r, t, _)| r == *role && t == term),
        }
    }
}

/// The terms that a class carries, with their roles and columns.
pub(crate) fn holds(class: &Class) -> impl Iterator<Item = (Role, &PodTerm, ColumnId)> {
    let spec = class.spec();
    let columns = &class.affinity;
    let required = spec.affinity.iter().zip(&columns.affinity).map(|(term, column)| (Role::Weighs(1), term, *column));
    let anti = spec.anti_affinity.iter().zip(&columns.anti).map(|(term, column)| (Role::Repels, term, *column));
    let liked = spec.preferred_affinity.iter().zip(&columns.preferred);
    let liked = liked.map(|((weight, term), column)| (Role::Weighs(i64::from(*weight)), term, *column));
    let disliked = spec.preferred_anti_affinity.iter().zip(&columns.preferred_anti);
    let disliked = disliked.map(|((weight, term), column)| (Role::Weighs(-i64::from(*weight)), term, *column));
    required.chain(anti).chain(liked).chain(disliked)
}

/// How many times a class carries a term in a role.
fn times(class: &Class, pattern: &Pattern) -> i32 {
    match pattern {
        Pattern::Holders(role, term) => holds(class).filter(|(r, t, _)| r == role && *t == term).count() as i32,
        _ => 1,
    }
}

/// A counter.
pub(crate) struct Matcher {
    pattern: Pattern,
    /// Column of a holder's term.
    pub(crate) column: ColumnId,
    /// Pods by node: all, and those that are not being deleted.
    by_node: HashMap<NodeId, (i32, i32)>,
    /// The same by group.
    pub(crate) all: Vec<i64>,
    pub(crate) staying: Vec<i64>,
}

impl Matcher {
    #[inline]
    pub(crate) fn at(&self, node: NodeId) -> (i32, i32) {
        self.by_node.get(&node).copied().unwrap_or_default()
    }
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.by_node.keys().copied()
    }
    /// The role and term, when holders are counted.
    pub(crate) fn held(&self) -> Option<(Role, &PodTerm)> {
        match &self.pattern {
            Pattern::Holders(role, term) => Some((*role, term)),
            _ => None,
        }
    }
    fn add(&mut self, node: NodeId, group: Option<usize>, all: i32, staying: i32) {
        let entry = self.by_node.entry(node).or_default();
        *entry = (entry.0 + all, entry.1 + staying);
        if entry.0 == 0 {
            self.by_node.remove(&node);
        }
        if let Some(group) = group {
            self.all[group] += i64::from(all);
            self.staying[group] += i64::from(staying);
        }
    }
    /// Adds up by group after the layout changed.
    pub(crate) fn regroup(&mut self, layout: &Layout) {
        self.all = vec![0; layout.groups.len()];
        self.staying = vec![0; layout.groups.len()];
        for (node, (all, staying)) in &self.by_node {
            if let Some((_, group)) = layout.place(*node) {
                self.all[group] += i64::from(*all);
                self.staying[group] += i64::from(*staying);
            }
        }
    }
}

/// All counters.
#[derive(Default)]
pub(crate) struct Matchers {
    pub(crate) matchers: Vec<Matcher>,
    ids: HashMap<(Pattern, ColumnId), MatcherId>,
    /// Counters of holders, in the order in which they came.
    pub(crate) holders: Vec<MatcherId>,
    /// By class: the counters that count its pods, and how often.
    counted_by: Vec<Vec<(MatcherId, i32)>>,
}

impl Matchers {
    pub(crate) fn get(&self, id: MatcherId) -> &Matcher {
        &self.matchers[id as usize]
    }
    pub(crate) fn count(&mut self, class: usize, node: NodeId, terminating: bool, by: i32, layout: &Layout) {
        let Some(counted_by) = self.counted_by.get(class) else { return };
        let group = layout.place(node).map(|(_, group)| group);
        for (matcher, times) in counted_by {
            let all = by * times;
            self.matchers[*matcher as usize].add(node, group, all, if terminating { 0 } else { all });
        }
    }
    pub(crate) fn forget_class(&mut self, class: usize) {
        if let Some(counted_by) = self.counted_by.get_mut(class) {
            counted_by.clear();
        }
    }
}

impl Pool {
    /// The counter of a pattern; a new one is filled from all placed pods.
    pub(crate) fn matcher(&mut self, pattern: Pattern, column: ColumnId) -> MatcherId {
        // Only a holder's counter belongs to a column: the others are shared by all columns.
        let key_column = if matches!(pattern, Pattern::Holders(..)) { column } else { 0 };
        let key = (pattern, key_column);
        if let Some(id) = self.indexes.matchers.ids.get(&key) {
            return *id;
        }
        let id = self.indexes.matchers.matchers.len() as MatcherId;
        let groups = self.indexes.layout.groups.len();
        let mut matcher = Matcher {
            pattern: key.0.clone(),
            column,
            by_node: HashMap::default(),
            all: vec![0; groups],
            staying: vec![0; groups],
        };
        for (class_id, class) in self.classes.iter().enumerate() {
            let Some(class) = class else { continue };
            let concerns = matcher.pattern.concerns(class);
            if !concerns || !matcher.pattern.counts(class, &namespace_of(&self.namespaces, &class.key)) {
                continue;
            }
            let times = times(class, &matcher.pattern);
            for (node, count) in &class.nodes {
                let group = self.indexes.layout.place(*node).map(|(_, group)| group);
                let (all, terminating) = (count.all as i32, count.terminating as i32);
                matcher.add(*node, group, all * times, (all - terminating) * times);
            }
            entry(&mut self.indexes.matchers.counted_by, class_id).push((id, times));
        }
        if matcher.held().is_some() {
            self.indexes.matchers.holders.push(id);
        }
        self.indexes.matchers.matchers.push(matcher);
        self.indexes.matchers.ids.insert(key, id);
        id
    }

    /// Notes a new class: which counters count it, and counters for the terms that it carries. It has no placed pods yet, or
    /// everything is being built anew.
    pub(crate) fn count_class(&mut self, id: usize) {
        let Some(Some(class)) = self.classes.get(id) else { return };
        let namespace = namespace_of(&self.namespaces, &class.key);
        let carried: Vec<(Role, PodTerm, ColumnId)> = holds(class).map(|(r, t, c)| (r, t.clone(), c)).collect();
        let mut counted_by = Vec::new();
        for (matcher_id, matcher) in self.indexes.matchers.matchers.iter().enumerate() {
            if matcher.pattern.concerns(class) && matcher.pattern.counts(class, &namespace) {
                counted_by.push((matcher_id as MatcherId, times(class, &matcher.pattern)));
            }
        }
        *entry(&mut self.indexes.matchers.counted_by, id) = counted_by;
        for (role, term, column) in carried {
            self.matcher(Pattern::Holders(role, term), column);
        }
    }
}

fn namespace_of(namespaces: &HashMap<Arc<str>, Arc<Labels>>, key: &ClassKey) -> Arc<Labels> {
    namespaces.get(&key.namespace).cloned().unwrap_or_default()
}

fn entry(counted_by: &mut Vec<Vec<(MatcherId, i32)>>, class: usize) -> &mut Vec<(MatcherId, i32)> {
    if counted_by.len() <= class {
        counted_by.resize_with(class + 1, Vec::new);
    }
    &mut counted_by[class]
}

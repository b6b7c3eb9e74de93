//! Classes of identical pods: what a decision reads of a pod, with names resolved to numbers.

use crate::column::ColumnId;
use crate::pool::NodeId;
use model::map::HashMap;
use model::scheduling::{PodFacts, PodTerm, SchedulingSpec};
use model::{LabelSelector, Labels};
use std::sync::Arc;

/// Dense number of a class.
pub(crate) type ClassId = u32;

/// Number of a resource: 0 CPU, 1 memory, 2 ephemeral storage, then extended ones.
pub(crate) type ResourceId = usize;
/// CPU.
pub(crate) const CPU: ResourceId = 0;
/// Memory.
pub(crate) const MEMORY: ResourceId = 1;
/// Ephemeral storage.
pub(crate) const EPHEMERAL: ResourceId = 2;
/// The first extended resource.
pub(crate) const EXTENDED: ResourceId = 3;

/// What makes two pods equal to the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClassKey {
    pub(crate) spec: Arc<SchedulingSpec>,
    pub(crate) namespace: Arc<str>,
    pub(crate) labels: Arc<Labels>,
    /// Controller, when it is of a kind that spreads its pods by default.
    pub(crate) owner: Option<(Arc<str>, Arc<str>)>,
}

impl ClassKey {
    pub(crate) fn of(pod: &PodFacts) -> Self {
        let spreads = |kind: &str| matches!(kind, "ReplicaSet" | "StatefulSet" | "ReplicationController");
        ClassKey {
            spec: pod.spec.clone(),
            namespace: pod.namespace.clone(),
            labels: pod.labels.clone(),
            owner: pod.owner.clone().filter(|(kind, _)| spreads(kind)),
        }
    }
}

/// Requests by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Requests {
    /// CPU (thousandths), memory, ephemeral storage (bytes).
    pub(crate) base: [i64; EXTENDED],
    /// CPU and memory as scores count them.
    pub(crate) nominal: [i64; 2],
    /// Extended resources.
    pub(crate) extended: Vec<(ResourceId, i64)>,
    /// Of a pod in the Guaranteed class: whole cores and memory are aligned to NUMA zones.
    pub(crate) guaranteed: bool,
}

impl Requests {
    /// Asks for nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.base == [0; EXTENDED] && self.extended.is_empty()
    }
}

/// How many pods of a class are on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// All of them.
    pub(crate) all: u32,
    /// Of these, being deleted.
    pub(crate) terminating: u32,
}

/// A class.
pub(crate) struct Class {
    pub(crate) key: ClassKey,
    pub(crate) requests: Requests,
    /// Pods (placed or not) of this class.
    pub(crate) refs: u32,
    /// Where its placed pods are.
    pub(crate) nodes: HashMap<NodeId, Count>,
    /// Columns of the spread constraints, in their order.
    pub(crate) spread_columns: Vec<ColumnId>,
    /// Columns of the terms, in their order.
    pub(crate) affinity: TermColumns,
    /// Selector of default spreading, when the pod gives no constraint of its own.
    pub(crate) default_spread: Option<LabelSelector>,
}

/// Columns of a class's pod (anti-)affinity terms.
#[derive(Clone, Debug, Default)]
pub(crate) struct TermColumns {
    pub(crate) affinity: Vec<ColumnId>,
    pub(crate) anti: Vec<ColumnId>,
    pub(crate) preferred: Vec<ColumnId>,
    pub(crate) preferred_anti: Vec<ColumnId>,
}

impl Class {
    pub(crate) fn spec(&self) -> &SchedulingSpec {
        &self.key.spec
    }
    /// Some of its pods' terms bear on other pods.
    pub(crate) fn has_terms(&self) -> bool {
        let spec = self.spec();
        !spec.affinity.is_empty()
            || !spec.anti_affinity.is_empty()
            || !spec.preferred_affinity.is_empty()
            || !spec.preferred_anti_affinity.is_empty()
    }
    /// Whether a hard rule about other pods or about storage makes a verdict depend on more than the node itself.
    pub(crate) fn looks_around(&self) -> bool {
        let spec = self.spec();
        !spec.affinity.is_empty()
            || !spec.anti_affinity.is_empty()
            || spec.spread.iter().any(|c| c.hard)
            || !spec.claims.is_empty()
    }
}

/// Whether pods of `class` are what `term` means; `namespace_labels` are those of the class's namespace.
pub(crate) fn term_matches(term: &PodTerm, class: &ClassKey, namespace_labels: &Labels) -> bool {
    // What a reservation holds is in no namespace, and no rule means it. Namespaces first: they are compared faster than labels.
    !class.namespace.is_empty()
        && (term.namespaces.contains(&class.namespace)
            || term.namespace_selector.as_ref().is_some_and(|selector| selector.matches(namespace_labels)))
        && term.selector.as_ref().is_some_and(|selector| selector.matches(&class.labels))
}

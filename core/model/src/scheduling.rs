//! What the scheduler reads of pods and nodes.

/// The scheduler's view of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchedulingSpec {}

/// The scheduler's view of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeScheduling {}

//! What every object carries.

use crate::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Label or annotation map, sorted by key.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Name of an object inside its kind. `namespace` is empty for cluster-scoped kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace, or empty.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its two parts; an empty namespace means cluster-scoped.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// A `metadata.ownerReferences` entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerRef {
    /// `apps/v1`, `v1`, ...
    pub api_version: Arc<str>,
    /// `ReplicaSet`, ...
    pub kind: Arc<str>,
    /// Owner's name, in the same namespace or cluster-scoped.
    pub name: Arc<str>,
    /// Owner's uid; the reference is void for a namesake with another uid.
    pub uid: Arc<str>,
    /// At most one owner of an object is its controller.
    pub controller: bool,
    /// Foreground deletion of the owner waits for this object.
    pub block_owner_deletion: bool,
}

/// The projection of `metadata` that decisions read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion` as the number that our store assigns (0: unknown). An effect made from this
    /// snapshot carries it, and a stale effect is refused.
    pub revision: u64,
    /// `metadata.generation`: counts changes of spec.
    pub generation: i64,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Owners.
    pub owners: Vec<OwnerRef>,
    /// Finalizers, in order.
    pub finalizers: Vec<Arc<str>>,
    /// When it was created.
    pub created: Timestamp,
    /// When it is to be gone at the latest (`deletionTimestamp`); set means that it is terminating.
    pub deleting: Option<Timestamp>,
    /// `deletionGracePeriodSeconds`.
    pub deletion_grace_s: Option<i64>,
}

impl Meta {
    /// The owner whose `controller` is true.
    pub fn controller(&self) -> Option<&OwnerRef> {
        self.owners.iter().find(|owner| owner.controller)
    }
    /// Whether deletion has been asked for.
    pub fn is_deleting(&self) -> bool {
        self.deleting.is_some()
    }
    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(|value| &**value)
    }
    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(|value| &**value)
    }
}

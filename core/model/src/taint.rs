//! Taints and tolerations: read by the scheduler, the node lifecycle and the DaemonSet controller alike.

use std::fmt;
use std::sync::Arc;

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaintEffect {
    /// New pods are not placed here.
    NoSchedule,
    /// New pods are placed here only when nothing better is left.
    PreferNoSchedule,
    /// As NoSchedule, and running pods are evicted.
    NoExecute,
}

impl TaintEffect {
    /// Kubernetes' spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
            TaintEffect::NoExecute => "NoExecute",
        }
    }
    /// From Kubernetes' spelling.
    pub fn parse(text: &str) -> Option<Self> {
        [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute]
            .into_iter()
            .find(|effect| effect.as_str() == text)
    }
}

/// A `spec.taints` entry of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Taint {
    /// Key.
    pub key: Arc<str>,
    /// Value, often empty.
    pub value: Arc<str>,
    /// Effect.
    pub effect: TaintEffect,
    /// When a NoExecute taint was added.
    pub added: Option<crate::Timestamp>,
}

impl Taint {
    /// A taint without a value.
    pub fn new(key: &str, effect: TaintEffect) -> Self {
        Taint { key: key.into(), value: "".into(), effect, added: None }
    }
    /// Kubernetes identifies a taint by key and effect.
    pub fn same(&self, other: &Taint) -> bool {
        self.key == other.key && self.effect == other.effect
    }
}

impl fmt::Display for Taint {
    /// `key=value:Effect`, as kube-scheduler and kubectl word it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}:{}", self.key, self.effect.as_str())
        } else {
            write!(f, "{}={}:{}", self.key, self.value, self.effect.as_str())
        }
    }
}

/// A `spec.tolerations` entry of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Toleration {
    /// Key; empty with `exists` tolerates every key.
    pub key: Arc<str>,
    /// `operator: Exists`; otherwise `Equal`.
    pub exists: bool,
    /// Value for `Equal`.
    pub value: Arc<str>,
    /// Only this effect, or every one.
    pub effect: Option<TaintEffect>,
    /// For NoExecute: how long the pod stays after the taint came. None: for ever.
    pub seconds: Option<i64>,
}

impl Toleration {
    /// Tolerates `key` with `effect` whatever the value.
    pub fn exists(key: &str, effect: TaintEffect) -> Self {
        Toleration { key: key.into(), exists: true, value: "".into(), effect: Some(effect), seconds: None }
    }
    /// Whether this tolerates `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if self.effect.is_some_and(|effect| effect != taint.effect) {
            return false;
        }
        if self.key.is_empty() {
            return self.exists;
        }
        self.key == taint.key && (self.exists || self.value == taint.value)
    }
}

/// Whether one of `tolerations` tolerates `taint`.
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| toleration.tolerates(taint))
}

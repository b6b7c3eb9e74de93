//! Label selectors (apimachinery's `metav1.LabelSelector` and node selector operators).

use crate::Labels;
use std::sync::Arc;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The value is among `values`.
    In,
    /// The value is absent or not among `values`.
    NotIn,
    /// The key is there.
    Exists,
    /// The key is not there.
    DoesNotExist,
    /// The value, as an integer, is greater than the only one of `values` (node selectors only).
    Gt,
    /// The value, as an integer, is less than the only one of `values` (node selectors only).
    Lt,
}

/// One `matchExpressions` entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// Label key.
    pub key: Arc<str>,
    /// Comparison.
    pub operator: Operator,
    /// Operands, sorted.
    pub values: Vec<Arc<str>>,
}

impl Requirement {
    /// Whether a label value (or its absence) satisfies this. A value that is not an integer satisfies neither Gt nor Lt.
    pub fn matches_value(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.iter().any(|w| &**w == v)),
            Operator::NotIn => !value.is_some_and(|v| self.values.iter().any(|w| &**w == v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt | Operator::Lt => {
                let number = |text: &str| text.parse::<i64>().ok();
                match (value.and_then(number), self.values.first().and_then(|v| number(v))) {
                    (Some(have), Some(bound)) if self.operator == Operator::Gt => have > bound,
                    (Some(have), Some(bound)) => have < bound,
                    _ => false,
                }
            }
        }
    }
    /// Whether `labels` satisfy this.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&*self.key).map(|v| &**v))
    }
}

/// A conjunction of requirements; `matchLabels` entries become `In` with one value. An empty selector matches everything.
/// (A *nil* selector, which matches nothing in affinity terms, is an absent `LabelSelector`, not an empty one.)
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSelector {
    /// All must hold. Sorted by key.
    pub requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// A selector of `matchLabels` only.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a Arc<str>, &'a Arc<str>)>) -> Self {
        let mut requirements: Vec<Requirement> = labels
            .into_iter()
            .map(|(key, value)| Requirement { key: key.clone(), operator: Operator::In, values: vec![value.clone()] })
            .collect();
        requirements.sort();
        LabelSelector { requirements }
    }
    /// Whether all requirements hold for `labels`.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
    /// Whether it has no requirement (and so matches everything).
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

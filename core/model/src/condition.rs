//! Status conditions, and amounts given as a number or a percentage.

use crate::Timestamp;
use std::sync::Arc;

/// `True`, `False` or `Unknown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell.
    #[default]
    Unknown,
}

impl Truth {
    /// Kubernetes' spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
    /// From Kubernetes' spelling; anything else is `Unknown`.
    pub fn parse(text: &str) -> Self {
        match text {
            "True" => Truth::True,
            "False" => Truth::False,
            _ => Truth::Unknown,
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Truth::True } else { Truth::False }
    }
}

/// One entry of `status.conditions`, of whatever kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `Ready`, `Available`, ...
    pub kind: Arc<str>,
    /// Whether it holds.
    pub status: Truth,
    /// One CamelCase word.
    pub reason: Arc<str>,
    /// For a person.
    pub message: Arc<str>,
    /// When `status` last changed.
    pub last_transition: Timestamp,
    /// When it was last written (`lastUpdateTime`, `lastHeartbeatTime` or `lastProbeTime`, where the kind has one).
    pub last_update: Timestamp,
}

impl Condition {
    /// A condition that came to be `now`.
    pub fn new(
        kind: &str,
        status: impl Into<Truth>,
        reason: &str,
        message: impl Into<Arc<str>>,
        now: Timestamp,
    ) -> Self {
        Condition {
            kind: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            last_transition: now,
            last_update: now,
        }
    }
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| &*condition.kind == kind)
}

/// Puts `new` in the place of the one of its type, keeping the transition time when the status stays.
/// Returns whether anything but times changed.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    match conditions.iter_mut().find(|old| old.kind == new.kind) {
        Some(old) if old.status == new.status && old.reason == new.reason && old.message == new.message => false,
        Some(old) => {
            if old.status == new.status {
                new.last_transition = old.last_transition;
            }
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// An `IntOrString` that counts pods: a number, or a percentage of some total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Amount {
    /// So many.
    Number(i32),
    /// So many in a hundred.
    Percent(i32),
}

impl Amount {
    /// The number of pods out of `total`, percentages rounded up or down.
    pub fn of(self, total: i32, round_up: bool) -> i32 {
        match self {
            Amount::Number(number) => number,
            Amount::Percent(percent) => {
                let product = i64::from(percent) * i64::from(total);
                let up = i64::from(round_up && product.rem_euclid(100) != 0);
                (product.div_euclid(100) + up).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
            }
        }
    }
}

//! HorizontalPodAutoscaler.

use model::Timestamp;
use std::collections::VecDeque;

/// What an autoscaler remembers.
#[derive(Default)]
pub struct History {
    /// Recommendations: when, how many.
    pub recommendations: VecDeque<(Timestamp, i32)>,
    /// Changes: when, by how many.
    pub changes: VecDeque<(Timestamp, i32)>,
}

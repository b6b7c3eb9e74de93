//! Real load: nodes that are busier than they look are refused, and quieter ones preferred. Off unless a policy is set.
//!
//! A node reports what it really uses. Pods that came after the report are not in it: for them an estimate counts, a share of
//! what they ask for. A report that is not renewed goes on counting; whoever feeds the pool withdraws it when it is too old.

use crate::class::Requests;
use crate::pool::{Hot, NodeId, Pool};
use crate::score::MAX;

/// Where a loaded node is refused, and what unmeasured pods count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadPolicy {
    /// CPU in per cent of allocatable above which a node is refused.
    pub cpu_pct: i64,
    /// Memory likewise.
    pub memory_pct: i64,
    /// Share of its CPU request that a pod is taken to use until it is measured, in per cent.
    pub cpu_estimate_pct: i64,
    /// Share of its memory request likewise.
    pub memory_estimate_pct: i64,
}

impl Default for LoadPolicy {
    /// Koordinator's defaults.
    fn default() -> Self {
        LoadPolicy { cpu_pct: 65, memory_pct: 95, cpu_estimate_pct: 85, memory_estimate_pct: 70 }
    }
}

/// What is known of a node's load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Reported use: CPU (thousandths), memory (bytes). None: nothing is known, and nothing is refused.
    pub(crate) reported: Option<[i64; 2]>,
    /// Nominal requests of pods that came since.
    pub(crate) since: [i64; 2],
    /// Number of the report.
    pub(crate) report: u32,
}

impl LoadPolicy {
    /// Use with the pod, in per cent of allocatable; None without a report.
    fn shares(&self, requests: &Requests, hot: &Hot, load: &Load) -> Option<[i64; 2]> {
        let reported = load.reported?;
        let estimate = [self.cpu_estimate_pct, self.memory_estimate_pct];
        let share = |resource: usize| {
            let new = (load.since[resource] + requests.nominal[resource]).saturating_mul(estimate[resource]) / 100;
            (reported[resource] + new).saturating_mul(100) / hot.allocatable[resource].max(1)
        };
        Some([share(0), share(1)])
    }
    /// Whether the node is too busy for the pod.
    #[inline]
    pub(crate) fn refuses(&self, requests: &Requests, hot: &Hot, load: &Load) -> bool {
        self.shares(requests, hot, load).is_some_and(|[cpu, memory]| cpu > self.cpu_pct || memory > self.memory_pct)
    }
    /// 0 to 100: how quiet the node stays.
    #[inline]
    pub(crate) fn score(&self, requests: &Requests, hot: &Hot, load: &Load) -> i64 {
        self.shares(requests, hot, load).map_or(0, |[cpu, memory]| ((MAX - cpu).max(0) + (MAX - memory).max(0)) / 2)
    }
}

impl Pool {
    /// Switches load-aware placement on or off.
    pub fn set_load_policy(&mut self, policy: Option<LoadPolicy>) {
        if self.load_policy != policy {
            self.load_policy = policy;
            self.indexes.layout_changed();
        }
    }
    /// A node reports its real use: CPU in thousandths, memory in bytes (a high percentile of the last minutes). None withdraws it.
    pub fn set_usage(&mut self, node: NodeId, used: Option<(i64, i64)>) {
        let load = &mut self.loads[node as usize];
        *load = Load {
            reported: used.map(|(cpu, memory)| [cpu, memory]),
            since: [0, 0],
            report: load.report.wrapping_add(1),
        };
        if self.load_policy.is_some() {
            self.indexes.touch(node);
        }
    }
}

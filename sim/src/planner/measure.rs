//! What is measured while a scenario is played.

use super::ledger::{Ledger, Room};
use super::scenario::{Policy, Scenario};
use super::usage::Hot;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Kinds of pods that fragmentation is measured against: the most frequent.
const KINDS_MOST: usize = 64;

/// The state at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Second; when pods come one after the other: arrived demand in per cent of capacity.
    pub at: f64,
    /// Allocated CPU, memory and GPU, in per cent of what nodes that are up have.
    pub allocated_pct: [f64; 3],
    /// Free capacity (GPU, or CPU without GPUs) that the next pod, drawn from all pods, could not use, in per cent of capacity.
    pub fragmentation_pct: f64,
    /// Pods that wait; when pods come one after the other: that were dropped so far.
    pub pending: usize,
    /// How long those have waited on average, in seconds.
    pub pending_age_s: f64,
    /// Nodes in use beyond the bounds of [`Hot`].
    pub hot: usize,
    /// Nodes without pods.
    pub empty: usize,
}

/// How long pods waited to be placed, in seconds; those that still wait in the end count with what they have waited so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Half of them not longer than this.
    pub p50_s: i64,
    /// Ninety-five of a hundred not longer than this.
    pub p95_s: i64,
    /// The longest.
    pub max_s: i64,
}

/// What a policy came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The policy.
    pub policy: Policy,
    /// The state over time.
    pub samples: Vec<Sample>,
    /// Pods that came.
    pub arrived: usize,
    /// Placements.
    pub placed: usize,
    /// Pods that wait in the end, or were dropped.
    pub left_over: usize,
    /// Pods evicted for more important ones.
    pub preempted: usize,
    /// Pods lost with their nodes.
    pub lost: usize,
    /// Waiting times.
    pub waits: Waits,
    /// When pods come one after the other: allocated share of what is scarce (GPU, or CPU without GPUs) when arrived demand passes 100 %.
    pub at_100: Option<f64>,
}

impl Outcome {
    /// Mean over time of something.
    pub fn mean(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        if self.samples.is_empty() { 0.0 } else { self.samples.iter().map(of).sum::<f64>() / self.samples.len() as f64 }
    }
    /// Most over time of something.
    pub fn most(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        self.samples.iter().map(of).fold(0.0, f64::max)
    }
    /// The last state.
    pub fn last(&self) -> Sample {
        self.samples.last().copied().unwrap_or_default()
    }
}

pub(crate) fn waits(mut all: Vec<i64>) -> Waits {
    all.sort_unstable();
    let at = |per_cent: usize| all.get((all.len().saturating_sub(1)) * per_cent / 100).copied().unwrap_or(0);
    Waits { p50_s: at(50), p95_s: at(95), max_s: at(100) }
}

/// A kind of pod: CPU, memory, GPUs, thousandths of each, models.
type Kind = (i64, i64, u32, u32, Vec<Arc<str>>);

/// Fragmentation as in FGD (Weng et al., "Beware of Fragmentation", ATC 2023): expected free capacity of each node that a pod drawn
/// from the demand could not use.
pub(crate) struct Fragments {
    kinds: Vec<(Kind, f64)>,
    by_gpu: bool,
    by_node: Vec<f64>,
    stale: Vec<bool>,
}

impl Fragments {
    pub(crate) fn new(scenario: &Scenario) -> Fragments {
        let by_gpu = scenario.pods.iter().any(|pod| pod.gpu.count > 0);
        let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
        for pod in scenario.pods.iter().filter(|pod| !by_gpu || pod.gpu.count > 0) {
            let gpu = &pod.gpu;
            let kind = (pod.request("cpu"), pod.request("memory"), gpu.count, gpu.milli, gpu.models.clone());
            *counts.entry(kind).or_default() += 1;
        }
        let mut kinds: Vec<(Kind, u64)> = counts.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kinds.truncate(KINDS_MOST);
        let all: u64 = kinds.iter().map(|(_, count)| count).sum();
        Fragments {
            kinds: kinds.into_iter().map(|(kind, count)| (kind, count as f64 / all.max(1) as f64)).collect(),
            by_gpu,
            by_node: vec![0.0; scenario.nodes.len()],
            stale: vec![true; scenario.nodes.len()],
        }
    }

    pub(crate) fn touch(&mut self, node: usize) {
        self.stale[node] = true;
    }

    /// In per cent of the capacity of nodes that are up.
    pub(crate) fn per_cent(&mut self, scenario: &Scenario, ledger: &Ledger) -> f64 {
        for node in 0..self.by_node.len() {
            if std::mem::take(&mut self.stale[node]) {
                self.by_node[node] = self.of(&ledger.rooms[node], &scenario.nodes[node].gpu_model);
            }
        }
        let has = if self.by_gpu { ledger.has[2] } else { ledger.has[0] };
        self.by_node.iter().sum::<f64>() * 100.0 / (has.max(1) as f64)
    }

    fn of(&self, room: &Room, model: &Arc<str>) -> f64 {
        if !room.up {
            return 0.0;
        }
        let gpus: f64 = room.gpus.iter().map(|free| f64::from(*free)).sum();
        let free = if self.by_gpu { gpus } else { room.free[0].max(0) as f64 };
        self.kinds.iter().map(|(kind, weight)| weight * self.unusable(kind, room, model, free)).sum()
    }

    fn unusable(&self, kind: &Kind, room: &Room, model: &Arc<str>, free: f64) -> f64 {
        let (cpu, memory, count, milli, models) = kind;
        let whole = room.gpus.iter().filter(|free| **free >= *milli).count();
        let fits = *cpu <= room.free[0]
            && *memory <= room.free[1]
            && room.pods_free > 0
            && (*count == 0 || whole >= *count as usize && (models.is_empty() || models.contains(model)));
        match (fits, self.by_gpu) {
            (false, _) => free,
            (true, false) => 0.0,
            (true, true) => room.gpus.iter().filter(|free| **free < *milli).map(|free| f64::from(*free)).sum(),
        }
    }
}

/// What nodes really use, CPU and memory, by the load models of their pods.
pub(crate) fn used(scenario: &Scenario, room: &Room, at_s: i64) -> (i64, i64) {
    let pods = room.pods.iter().map(|pod| &scenario.pods[*pod as usize]);
    pods.fold((0, 0), |(cpu, memory), pod| {
        let usage = &pod.usage;
        (cpu + usage.cpu(pod.request("cpu"), at_s), memory + usage.memory(pod.request("memory")))
    })
}

pub(crate) fn is_hot(hot: Hot, room: &Room, used: (i64, i64)) -> bool {
    let over = |used: i64, has: i64, bound: i64| i128::from(used) * 100 > i128::from(has) * i128::from(bound);
    over(used.0, room.has[0], hot.cpu_pct) || over(used.1, room.has[1], hot.memory_pct)
}

/// Allocated shares in per cent.
pub(crate) fn allocated(ledger: &Ledger) -> [f64; 3] {
    let mut shares = [0.0; 3];
    for (share, (used, has)) in shares.iter_mut().zip(ledger.used.iter().zip(&ledger.has)) {
        *share = if *has > 0 { *used as f64 * 100.0 / *has as f64 } else { 0.0 };
    }
    shares
}

/// Index of the resource that decides how full a pool is: GPU when pods ask for any, else CPU; and a pod's part of its demand.
pub(crate) fn scarce(scenario: &Scenario) -> (usize, Vec<i64>) {
    if scenario.pods.iter().any(|pod| pod.gpu.count > 0) {
        return (2, scenario.pods.iter().map(|pod| pod.gpu.total()).collect());
    }
    (0, scenario.pods.iter().map(|pod| pod.request("cpu")).collect())
}

//! Shared GPUs: nodes whose GPUs are told one by one (Koordinator's `Device`, scheduling.koordinator.sh/v1alpha1), and which of them a pod gets.
//!
//! Pods ask in per cent of a GPU: `koordinator.sh/gpu-core` (compute), `koordinator.sh/gpu-memory-ratio` (memory), `koordinator.sh/gpu`
//! (both), or `nvidia.com/gpu` (whole ones). Up to 100 % is a part of one GPU; more is spread evenly over the fewest GPUs that can have it.
//! That the sums fit the node says nothing: a pod that wants 60 % of one GPU finds no place on two that are half free. Of the GPUs
//! with room the fullest are taken, so that whole ones stay whole; between nodes the one whose GPU would be left fullest is preferred.
//! On nodes that tell nothing of their GPUs the requests are plain extended resources.

use crate::class::{Requests, ResourceId};
use crate::pool::{NodeId, PodId, Pool};
use model::map::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One GPU.
const WHOLE: i64 = 100;
/// GPUs of a node that are read.
const GPUS_MAX: usize = 64;
/// Per cent of a GPU's compute.
pub const GPU_CORE: &str = "koordinator.sh/gpu-core";
/// Per cent of a GPU's memory.
pub const GPU_MEMORY: &str = "koordinator.sh/gpu-memory-ratio";
/// Per cent of both.
pub const GPU_BOTH: &str = "koordinator.sh/gpu";
/// Whole GPUs.
pub const GPU_WHOLE: &str = "nvidia.com/gpu";

/// Per cent of one GPU: compute and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GpuShare {
    /// Compute.
    pub core: i64,
    /// Memory.
    pub memory: i64,
}

impl GpuShare {
    fn within(self, free: GpuShare) -> bool {
        self.core <= free.core && self.memory <= free.memory
    }
    fn less(self, by: GpuShare) -> GpuShare {
        GpuShare { core: self.core - by.core, memory: self.memory - by.memory }
    }
    fn sum(self) -> i64 {
        self.core + self.memory
    }
}

struct Gpu {
    minor: i32,
    free: GpuShare,
}

/// What a pod has of a node's GPUs: minor number and share.
type Allocation = Vec<(i32, GpuShare)>;

/// All nodes whose GPUs are told, and who has what of them.
#[derive(Default)]
pub(crate) struct Gpus {
    told: BTreeMap<Arc<str>, Vec<i32>>,
    nodes: HashMap<NodeId, Vec<Gpu>>,
    /// What a pod holds or, taken off its node for a moment, held.
    taken: HashMap<PodId, (NodeId, Allocation)>,
    /// What the API says that a pod was given; it goes before what would be chosen.
    given: HashMap<PodId, Allocation>,
    /// Numbers of core, memory, both, whole.
    resources: Option<[ResourceId; 4]>,
}

impl Gpus {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// GPUs that are asked for, and what of each.
    fn needs(&self, requests: &Requests) -> Option<(usize, GpuShare)> {
        let ids = self.resources?;
        let asked =
            |id: ResourceId| requests.extended.iter().find(|(of, _)| *of == id).map_or(0, |(_, amount)| *amount);
        let [core, memory, both, whole] = ids.map(asked);
        let (core, memory) = (core + both + whole * WHOLE, memory + both + whole * WHOLE);
        let count = (core.max(memory) + WHOLE - 1) / WHOLE;
        let each = |amount: i64| (amount + count - 1) / count;
        (count > 0).then(|| (count as usize, GpuShare { core: each(core), memory: each(memory) }))
    }

    fn choose(gpus: &[Gpu], (count, share): (usize, GpuShare)) -> Option<Vec<usize>> {
        let mut fit: Vec<usize> = (0..gpus.len()).filter(|gpu| share.within(gpus[*gpu].free)).collect();
        fit.sort_by_key(|gpu| (gpus[*gpu].free.sum(), gpus[*gpu].minor));
        fit.truncate(count);
        (fit.len() == count).then_some(fit)
    }

    /// Whether a node's GPUs suffice: `Err(true)` if not even empty ones would.
    pub(crate) fn admit(&self, requests: &Requests, node: NodeId) -> Result<(), bool> {
        let Some(gpus) = self.nodes.get(&node) else { return Ok(()) };
        match self.needs(requests) {
            Some(needs) if Gpus::choose(gpus, needs).is_none() => Err(gpus.len() < needs.0),
            _ => Ok(()),
        }
    }

    /// How full the chosen GPUs would be, 0 to 100.
    pub(crate) fn score(&self, requests: &Requests, node: NodeId) -> i64 {
        let (Some(gpus), Some(needs)) = (self.nodes.get(&node), self.needs(requests)) else { return 0 };
        let chosen = Gpus::choose(gpus, needs).unwrap_or_default();
        let left: i64 = chosen.iter().map(|gpu| gpus[*gpu].free.less(needs.1).sum() / 2).sum();
        if chosen.is_empty() { 0 } else { WHOLE - left / chosen.len() as i64 }
    }

    pub(crate) fn may_need(&self, requests: &Requests) -> bool {
        !self.is_empty() && self.needs(requests).is_some()
    }

    fn count(&mut self, node: NodeId, allocation: &Allocation, sign: i64) {
        let Some(gpus) = self.nodes.get_mut(&node) else { return };
        for (minor, share) in allocation {
            if let Some(gpu) = gpus.iter_mut().find(|gpu| gpu.minor == *minor) {
                gpu.free.core -= sign * share.core;
                gpu.free.memory -= sign * share.memory;
            }
        }
    }

    /// A pod comes to a node. `again`: it was taken off only for a moment.
    pub(crate) fn take(&mut self, pod: PodId, requests: &Requests, node: NodeId, again: bool) {
        let known = self.taken.remove(&pod).filter(|(at, _)| again && *at == node);
        let Some(gpus) = self.nodes.get(&node) else { return };
        let Some(needs) = self.needs(requests) else { return };
        let allocation = known.map(|(_, taken)| taken).or_else(|| self.given.get(&pod).cloned()).unwrap_or_else(|| {
            // For pods that were put here whatever the GPUs say: the freest.
            let mut freest: Vec<usize> = (0..gpus.len()).collect();
            freest.sort_by_key(|gpu| (-gpus[*gpu].free.sum(), gpus[*gpu].minor));
            let chosen = Gpus::choose(gpus, needs).unwrap_or_else(|| freest.into_iter().take(needs.0).collect());
            chosen.into_iter().map(|gpu| (gpus[gpu].minor, needs.1)).collect()
        });
        self.count(node, &allocation, 1);
        self.taken.insert(pod, (node, allocation));
    }

    /// A pod leaves its node, perhaps for a moment.
    pub(crate) fn leave(&mut self, pod: PodId) {
        if let Some((node, allocation)) = self.taken.get(&pod).cloned() {
            self.count(node, &allocation, -1);
        }
    }

    pub(crate) fn drop_pod(&mut self, pod: PodId) {
        self.taken.remove(&pod);
        self.given.remove(&pod);
    }
    pub(crate) fn drop_node(&mut self, node: NodeId) {
        if self.nodes.remove(&node).is_some() {
            self.taken.retain(|_, (at, _)| *at != node);
        }
    }
    /// What a pod has, wherever it is.
    pub(crate) fn held(&self, pod: PodId) -> Option<(NodeId, Allocation)> {
        if self.is_empty() { None } else { self.taken.get(&pod).cloned() }
    }
    pub(crate) fn restore(&mut self, pod: PodId, held: Option<(NodeId, Allocation)>) {
        if let Some(held) = held {
            self.taken.insert(pod, held);
        }
    }

    /// Copies of a pod that fit on a node one after the other, at most so many.
    pub(crate) fn copies(&self, requests: &Requests, node: NodeId, most: i64) -> i64 {
        let (Some(gpus), Some(needs)) = (self.nodes.get(&node), self.needs(requests)) else { return most };
        let mut left: Vec<Gpu> = gpus.iter().map(|gpu| Gpu { minor: gpu.minor, free: gpu.free }).collect();
        let mut copies = 0;
        while copies < most
            && let Some(chosen) = Gpus::choose(&left, needs)
        {
            chosen.into_iter().for_each(|gpu| left[gpu].free = left[gpu].free.less(needs.1));
            copies += 1;
        }
        copies
    }
}

impl Pool {
    /// The minor numbers of a node's healthy GPUs are now as given; None: it tells nothing of its GPUs. The node may come later.
    pub fn set_gpus(&mut self, name: &str, minors: Option<&[i32]>) {
        if self.numa.gpus.told.get(name).map(Vec::as_slice) == minors {
            return;
        }
        if self.numa.gpus.resources.is_none() {
            let names = [GPU_CORE, GPU_MEMORY, GPU_BOTH, GPU_WHOLE];
            self.numa.gpus.resources = Some(names.map(|name| self.resource(&name.into())));
        }
        match minors {
            Some(minors) => self.numa.gpus.told.insert(name.into(), minors.to_vec()),
            None => self.numa.gpus.told.remove(name),
        };
        if let Some(node) = self.node_id(name) {
            self.lay_gpus(node);
            self.indexes.layout_changed();
            self.indexes.touch(node);
        }
    }

    /// Lays a node's GPUs out, and its pods over them: first those that were given theirs, then by number.
    pub(crate) fn lay_gpus(&mut self, node: NodeId) {
        self.numa.gpus.drop_node(node);
        let Some(minors) = self.numa.gpus.told.get(self.node_name(node)) else { return };
        let whole = GpuShare { core: WHOLE, memory: WHOLE };
        let gpus = minors.iter().take(GPUS_MAX).map(|minor| Gpu { minor: *minor, free: whole }).collect();
        self.numa.gpus.nodes.insert(node, gpus);
        let mut pods = self.nodes[node as usize].pods.clone();
        pods.sort_unstable_by_key(|pod| (!self.numa.gpus.given.contains_key(pod), *pod));
        for pod in pods {
            let requests = self.class(self.entry(pod).class).requests.clone();
            self.numa.gpus.take(pod, &requests, node, false);
        }
    }

    /// What the API says of the GPUs that a placed pod was given.
    pub fn set_gpus_of(&mut self, pod: PodId, given: &[(i32, GpuShare)]) {
        if given.is_empty() || self.numa.gpus.given.get(&pod).is_some_and(|known| known == given) {
            return;
        }
        self.numa.gpus.given.insert(pod, given.to_vec());
        let held = self.numa.gpus.held(pod).filter(|(node, _)| self.pod_node(pod) == Some(*node));
        if let Some((node, taken)) = held
            && taken != given
        {
            self.numa.gpus.leave(pod);
            self.numa.gpus.count(node, &given.to_vec(), 1);
            self.numa.gpus.taken.insert(pod, (node, given.to_vec()));
            self.indexes.touch(node);
        }
    }

    /// The GPUs that a placed pod has; empty when it has none that are told one by one.
    pub fn gpus_of(&self, pod: PodId) -> Vec<(i32, GpuShare)> {
        let taken = self.numa.gpus.taken.get(&pod).filter(|(node, _)| self.pod_node(pod) == Some(*node));
        taken.map(|(_, allocation)| allocation.clone()).unwrap_or_default()
    }
}

//! The placement engine's GPU fleet as player: single GPUs and shares of them.

use super::run::{Engine, Step};
use super::scenario::{PlannedNode, Policy, Scenario};
use placement::gpu::{Demand, Devices, Fleet, Task, Weighing};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Outweighs everything else that a place costs.
const DOMINANT: f64 = 1e6;

/// Pods of one kind that wait, the most important first, then the oldest.
#[derive(Default)]
struct Line {
    pods: BTreeSet<(Reverse<i32>, u64, u32)>,
    /// It may be that one of them fits.
    open: bool,
}

pub(crate) struct Shared<'a> {
    scenario: &'a Scenario,
    fleet: Fleet,
    tasks: Vec<Task>,
    bits: Bits,
    waiting: BTreeMap<Task, Line>,
    arrived: u64,
    /// Pods that belong to a node, as they come.
    pinned: Vec<(u32, usize)>,
    numbers: BTreeMap<&'a str, usize>,
}

/// Bits of GPU models.
#[derive(Default)]
struct Bits(BTreeMap<Arc<str>, u64>);

impl Bits {
    fn of(&mut self, model: &Arc<str>) -> u64 {
        let next = 1 << self.0.len().min(63);
        *self.0.entry(model.clone()).or_insert(next)
    }
}

fn weighing(policy: Policy) -> Weighing {
    let plain = Weighing { stranded: 0.0, packing: 0.0, rest: 0.0, scarcity: 0.0, rarity: 0.0 };
    match policy {
        Policy::Pack => Weighing { packing: DOMINANT, ..plain },
        Policy::Spread => Weighing { packing: -DOMINANT, ..plain },
        Policy::AsIs | Policy::LoadAware | Policy::Fragmentation => Weighing::default(),
    }
}

fn devices(node: &PlannedNode, bits: &mut Bits) -> Devices {
    let model = if node.gpus > 0 { bits.of(&node.gpu_model) } else { 0 };
    Devices::new(node.allocatable("cpu"), node.allocatable("memory"), node.gpus, model)
}

impl<'a> Shared<'a> {
    pub(crate) fn new(scenario: &'a Scenario, policy: Policy) -> Shared<'a> {
        let mut bits = Bits::default();
        let nodes: Vec<Devices> = scenario.nodes.iter().map(|node| devices(node, &mut bits)).collect();
        let tasks: Vec<Task> = scenario
            .pods
            .iter()
            .map(|pod| Task {
                cpu: pod.request("cpu"),
                memory: pod.request("memory"),
                gpus: pod.gpu.count,
                milli: if pod.gpu.count == 0 { 0 } else { pod.gpu.milli },
                models: pod.gpu.models.iter().map(|model| bits.of(model)).fold(0, |all, bit| all | bit),
            })
            .collect();
        let mut counts: BTreeMap<Task, u64> = BTreeMap::new();
        for task in &tasks {
            *counts.entry(*task).or_default() += 1;
        }
        let fleet = Fleet::new(nodes, Demand::of(counts), weighing(policy));
        let numbers = scenario.node_numbers();
        Shared { scenario, fleet, tasks, bits, waiting: BTreeMap::new(), arrived: 0, pinned: Vec::new(), numbers }
    }

    fn freed(&mut self, node: usize) {
        let devices = self.fleet.node(node);
        for (_, line) in self.waiting.iter_mut().filter(|(task, _)| devices.fits(task)) {
            line.open = true;
        }
    }
}

impl Engine for Shared<'_> {
    fn arrive(&mut self, pod: u32) {
        let planned = &self.scenario.pods[pod as usize];
        if let Some(node) = self.numbers.get(&*planned.is_at).filter(|_| planned.pinned) {
            self.pinned.push((pod, *node));
            return;
        }
        self.arrived += 1;
        let line = self.waiting.entry(self.tasks[pod as usize]).or_default();
        line.pods.insert((Reverse(self.scenario.pods[pod as usize].spec.priority), self.arrived, pod));
        // Others of its kind were refused and nothing has been freed since: so is this one.
        line.open |= line.pods.len() == 1;
    }

    fn next(&mut self) -> Option<Step> {
        if let Some((pod, node)) = self.pinned.pop() {
            let task = self.tasks[pod as usize];
            let free = self.fleet.node(node).free().iter().enumerate();
            let fitting = free.filter(|(_, free)| u32::from(**free) >= task.milli).map(|(gpu, _)| gpu);
            let on = fitting.take(task.gpus as usize).fold(0, |bits, gpu| bits | 1 << gpu);
            self.fleet.set_node(node, self.fleet.node(node).with(&task, on));
            return Some(Step::Placed(pod, node, Some(on)));
        }
        let open = self.waiting.iter().filter(|(_, line)| line.open);
        let (first, task) = open.filter_map(|(task, line)| Some((*line.pods.first()?, *task))).min()?;
        let line = self.waiting.entry(task).or_default();
        match self.fleet.place(&task) {
            Some((node, on)) => {
                line.pods.remove(&first);
                if line.pods.is_empty() {
                    self.waiting.remove(&task);
                }
                Some(Step::Placed(first.2, node, Some(on)))
            }
            None => {
                line.open = false;
                Some(Step::Refused(first.2))
            }
        }
    }

    fn leave(&mut self, pod: u32, (node, on): (usize, u32)) {
        let after = self.fleet.node(node).without(&self.tasks[pod as usize], on);
        self.fleet.set_node(node, after);
        self.freed(node);
    }

    fn withdraw(&mut self, pod: u32) {
        self.waiting.retain(|_, line| {
            line.pods.retain(|(_, _, other)| *other != pod);
            !line.pods.is_empty()
        });
    }

    fn up(&mut self, node: usize) {
        let devices = devices(&self.scenario.nodes[node], &mut self.bits);
        self.fleet.set_node(node, devices);
        self.freed(node);
    }

    fn down(&mut self, node: usize) {
        self.fleet.set_node(node, Devices::new(0, 0, 0, 0));
    }

    fn report(&mut self, _node: usize, _cpu: i64, _memory: i64) {}
}

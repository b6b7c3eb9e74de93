//! GPU sharing by fragmentation gradient: a task goes where it spoils the least of what the tasks that usually come could use.
//!
//! The idea is FGD's (Weng et al., USENIX ATC 2023): given how often each kind of task comes, the expected part of a node's free
//! GPU that such a task cannot use is its fragmentation; of all places for a task, take the one that adds the least of it. Three
//! things are added, each with a weight: free GPU that the node's CPU and memory cannot serve at the usual mix is lost too; a
//! begun GPU is worth what is likely to be left of it once it is filled up in the best way; and a model that other tasks insist
//! on is dear to those that do not.

use std::sync::Arc;

/// Thousandths of one GPU.
pub const WHOLE: u32 = 1000;
/// GPUs of one node.
const MOST: usize = 16;

/// What a task asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// CPU, thousandths.
    pub cpu: i64,
    /// Memory, in any unit that nodes use too.
    pub memory: i64,
    /// Number of GPUs.
    pub gpus: u32,
    /// Thousandths of each.
    pub milli: u32,
    /// Models that will do, as bits; 0: any.
    pub models: u64,
}

/// A node's free resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Devices {
    /// Free CPU.
    pub cpu: i64,
    /// Free memory.
    pub memory: i64,
    /// Bit of its GPUs' model.
    pub model: u64,
    count: u8,
    free: [u16; MOST],
}

impl Devices {
    /// A node with `gpus` whole GPUs (at most sixteen count).
    pub fn new(cpu: i64, memory: i64, gpus: usize, model: u64) -> Self {
        let count = gpus.min(MOST);
        let mut free = [0; MOST];
        free[..count].fill(WHOLE as u16);
        Devices { cpu, memory, model, count: count as u8, free }
    }
    /// Free thousandths of each GPU.
    pub fn free(&self) -> &[u16] {
        &self.free[..usize::from(self.count)]
    }
    /// Free thousandths of all GPUs.
    pub fn free_gpu(&self) -> i64 {
        self.free().iter().map(|free| i64::from(*free)).sum()
    }
    /// Whether a task fits.
    #[inline]
    pub fn fits(&self, task: &Task) -> bool {
        task.cpu <= self.cpu && task.memory <= self.memory && self.has_gpus(task)
    }
    #[inline]
    fn has_gpus(&self, task: &Task) -> bool {
        task.gpus == 0
            || ((task.models == 0 || task.models & self.model != 0)
                && self.free().iter().filter(|free| u32::from(**free) >= task.milli).count() >= task.gpus as usize)
    }
    /// The node after the task on the GPUs that the bits name has ended.
    pub fn without(&self, task: &Task, on: u32) -> Devices {
        let mut after = *self;
        after.cpu += task.cpu;
        after.memory += task.memory;
        for (gpu, free) in after.free.iter_mut().enumerate() {
            if on & (1 << gpu) != 0 {
                *free += task.milli as u16;
            }
        }
        after
    }
    /// The node with the task on the GPUs that the bits name.
    pub fn with(&self, task: &Task, on: u32) -> Devices {
        let mut after = *self;
        after.cpu -= task.cpu;
        after.memory -= task.memory;
        for (gpu, free) in after.free.iter_mut().enumerate() {
            if on & (1 << gpu) != 0 {
                *free -= task.milli as u16;
            }
        }
        after
    }
    /// The ways to take GPUs for a task that differ: for a share, one GPU of each free size; for more, the fullest that do.
    fn ways(&self, task: &Task) -> Vec<u32> {
        if task.gpus == 0 {
            return vec![0];
        }
        let mut fit: Vec<usize> =
            (0..usize::from(self.count)).filter(|gpu| u32::from(self.free[*gpu]) >= task.milli).collect();
        fit.sort_by_key(|gpu| (self.free[*gpu], *gpu));
        if task.gpus == 1 {
            let mut ways = Vec::new();
            let mut last = None;
            for gpu in fit {
                if last != Some(self.free[gpu]) {
                    ways.push(1 << gpu);
                    last = Some(self.free[gpu]);
                }
            }
            return ways;
        }
        vec![fit.into_iter().take(task.gpus as usize).fold(0, |bits, gpu| bits | 1 << gpu)]
    }
}

/// How often kinds of tasks come; weights add up to one.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    kinds: Arc<[(Task, f64)]>,
}

impl Demand {
    /// From counted tasks. Tasks without GPUs spoil nothing and are left out.
    pub fn of(counted: impl IntoIterator<Item = (Task, u64)>) -> Self {
        let kinds: Vec<(Task, u64)> = counted.into_iter().filter(|(task, _)| task.gpus > 0).collect();
        let all: u64 = kinds.iter().map(|(_, count)| count).sum();
        Demand { kinds: kinds.into_iter().map(|(task, count)| (task, count as f64 / all.max(1) as f64)).collect() }
    }

    /// The expected free GPU of a node that the next task could not use, in thousandths.
    pub fn fragmentation(&self, node: &Devices) -> f64 {
        let all = node.free_gpu() as f64;
        if all == 0.0 {
            return 0.0;
        }
        self.kinds
            .iter()
            .map(|(task, weight)| {
                if !node.fits(task) {
                    return weight * all;
                }
                let crumbs = node.free().iter().filter(|free| u32::from(**free) < task.milli);
                weight * crumbs.map(|free| f64::from(*free)).sum::<f64>()
            })
            .sum()
    }
}

impl Demand {
    /// For each number of free thousandths of a begun GPU: what is left when it is filled up in the best way, where a filler that
    /// comes rarely counts for less.
    fn rests(&self, rarity: f64) -> Vec<f64> {
        let mut shares: Vec<(usize, f64)> = Vec::new();
        for (task, weight) in self.kinds.iter().filter(|(task, _)| task.gpus == 1 && task.milli < WHOLE) {
            match shares.iter_mut().find(|(milli, _)| *milli == task.milli as usize) {
                Some(known) => known.1 += weight,
                None => shares.push((task.milli as usize, *weight)),
            }
        }
        let all: f64 = shares.iter().map(|(_, weight)| weight).sum();
        let mut rests = vec![0.0; WHOLE as usize + 1];
        for free in 1..WHOLE as usize {
            let filled = shares.iter().filter(|(milli, _)| *milli <= free && *milli > 0);
            let best = filled.map(|(milli, weight)| rests[free - milli] - rarity * (weight / all).ln());
            rests[free] = best.fold(free as f64, f64::min);
        }
        rests
    }
}

/// How places are weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighing {
    /// Weight of free GPU that stays in the node beyond what its CPU and memory can serve.
    pub stranded: f64,
    /// Weight of the node's free GPU after placement: fuller nodes first.
    pub packing: f64,
    /// Weight of what a begun GPU is likely to have left in the end.
    pub rest: f64,
    /// Weight of how much a GPU's model is wanted by tasks that accept few models.
    pub scarcity: f64,
    /// Thousandths that a filler e times rarer is worth less.
    pub rarity: f64,
}

impl Default for Weighing {
    /// Found by search on the openb traces.
    fn default() -> Self {
        Weighing { stranded: 1.0, packing: 0.0, rest: 5.0, scarcity: 1.0, rarity: 15.0 }
    }
}

/// Nodes with GPUs, and the demand they are kept fit for.
pub struct Fleet {
    nodes: Vec<Devices>,
    demand: Demand,
    weighing: Weighing,
    /// CPU and memory that a GPU's thousandth usually comes with.
    cpu_a_milli: f64,
    memory_a_milli: f64,
    /// By bit of a model: demand that insists on it, as a share of what there is of it.
    wanted: [f64; 64],
    /// By free thousandths of a begun GPU: what is likely to be left in the end.
    rest: Vec<f64>,
    worth: Vec<f64>,
    changes: Vec<u32>,
    kinds: std::collections::BTreeMap<Task, Kind>,
}

/// A task that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// What it asks for.
    pub task: Task,
    /// Its node.
    pub node: usize,
    /// Its GPUs, as bits.
    pub on: u32,
}

/// A task moved so that another fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Which of the running ones.
    pub running: usize,
    /// Its new node.
    pub to: usize,
    /// Its GPUs there.
    pub on: u32,
    /// Node and GPUs of the task that room was made for.
    pub placed: (usize, u32),
}

/// Best places of one kind of task, kept up with changes.
struct Kind {
    seen: usize,
    /// By node: cost and GPUs; infinite when it does not fit.
    places: Vec<(f64, u32)>,
    order: std::collections::BTreeSet<(u64, u32)>,
}

/// Floats in an order that integers have.
fn ordered(cost: f64) -> u64 {
    let bits = cost.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

impl Fleet {
    /// A fleet of empty nodes.
    pub fn new(nodes: Vec<Devices>, demand: Demand, weighing: Weighing) -> Self {
        let expected =
            |of: fn(&Task) -> f64| -> f64 { demand.kinds.iter().map(|(task, weight)| weight * of(task)).sum() };
        let gpu = expected(|task| f64::from(task.gpus * task.milli)).max(1.0);
        let (cpu_a_milli, memory_a_milli) =
            (expected(|task| task.cpu as f64) / gpu, expected(|task| task.memory as f64) / gpu);
        let mut fleet = Fleet {
            nodes,
            demand,
            weighing,
            cpu_a_milli,
            memory_a_milli,
            wanted: [0.0; 64],
            rest: Vec::new(),
            worth: Vec::new(),
            changes: Vec::new(),
            kinds: std::collections::BTreeMap::new(),
        };
        fleet.wanted = fleet.wanted();
        fleet.rest = fleet.demand.rests(weighing.rarity);
        fleet.worth = (0..fleet.nodes.len()).map(|node| fleet.cost(&fleet.nodes[node])).collect();
        fleet
    }
    /// Free resources of a node.
    pub fn node(&self, node: usize) -> &Devices {
        &self.nodes[node]
    }

    /// A node is now as given: tasks have ended on it, or it is gone (nothing free) or back.
    pub fn set_node(&mut self, node: usize, devices: Devices) {
        self.nodes[node] = devices;
        self.worth[node] = self.cost(&devices);
        self.changes.push(node as u32);
    }

    /// Free GPU that the free CPU and memory can still serve, in thousandths, at the usual mix.
    fn usable(&self, node: &Devices) -> f64 {
        let by_cpu = if self.cpu_a_milli > 0.0 { node.cpu as f64 / self.cpu_a_milli } else { f64::MAX };
        let by_memory = if self.memory_a_milli > 0.0 { node.memory as f64 / self.memory_a_milli } else { f64::MAX };
        by_cpu.min(by_memory)
    }

    /// How much of each model's capacity is asked for by tasks that insist on models, were all demand as large as the fleet.
    fn wanted(&self) -> [f64; 64] {
        let mut capacity = [0.0; 64];
        for node in self.nodes.iter().filter(|node| node.model != 0) {
            capacity[node.model.trailing_zeros() as usize] += node.free_gpu() as f64;
        }
        let all: f64 = capacity.iter().sum();
        let gpu = |task: &Task| f64::from(task.gpus * task.milli);
        let demand: f64 = self.demand.kinds.iter().map(|(task, weight)| weight * gpu(task)).sum();
        let mut wanted = [0.0; 64];
        for (task, weight) in self.demand.kinds.iter().filter(|(task, _)| task.models != 0) {
            let served: f64 = (0..64).filter(|bit| task.models & 1 << bit != 0).map(|bit| capacity[bit]).sum();
            for bit in (0..64).filter(|bit| task.models & 1 << bit != 0 && served > 0.0) {
                // Spread over the models that will do, by how much there is of each.
                wanted[bit] += weight * gpu(task) / demand * all / served;
            }
        }
        wanted
    }

    fn cost(&self, node: &Devices) -> f64 {
        let free = node.free_gpu() as f64;
        let rests: f64 = node.free().iter().map(|free| self.rest[usize::from(*free)]).sum();
        self.demand.fragmentation(node)
            + self.weighing.rest * rests
            + self.weighing.stranded * (free - self.usable(node)).max(0.0)
    }

    /// The best place on one node.
    fn place_on(&self, node: usize, task: &Task) -> (f64, u32) {
        let before = &self.nodes[node];
        if !before.fits(task) {
            return (f64::INFINITY, 0);
        }
        let mut best = (f64::INFINITY, 0);
        let wanted =
            if task.gpus == 0 || before.model == 0 { 0.0 } else { self.wanted[before.model.trailing_zeros() as usize] };
        let dear = self.weighing.scarcity * wanted * f64::from(task.gpus * task.milli);
        for way in before.ways(task) {
            let after = before.with(task, way);
            let cost = self.cost(&after) - self.worth[node] + self.weighing.packing * after.free_gpu() as f64 + dear;
            if cost < best.0 {
                best = (cost, way);
            }
        }
        best
    }

    /// Places a task where it costs least; the first such node. None when it fits nowhere.
    pub fn place(&mut self, task: &Task) -> Option<(usize, u32)> {
        let (node, way) = self.best(task, None)?;
        self.take(node, task, way);
        Some((node, way))
    }

    fn take(&mut self, node: usize, task: &Task, way: u32) {
        self.set_node(node, self.nodes[node].with(task, way));
    }

    /// Makes room for a task that fits nowhere by moving one other: of all pairs of a running task and another place for it that let
    /// the new one in, the one after which the fleet is worth most. Both are then placed. Nothing is changed when there is none.
    pub fn place_by_moving(&mut self, task: &Task, running: &[Running]) -> Option<Moved> {
        let mut best: Option<(f64, Moved)> = None;
        for (at, other) in running.iter().enumerate() {
            let freed = self.nodes[other.node].without(&other.task, other.on);
            if !freed.fits(task) {
                continue;
            }
            let Some((to, way)) = self.best(&other.task, Some(other.node)) else { continue };
            let leaving = self.cost(&self.nodes[to].with(&other.task, way)) - self.worth[to];
            for on in freed.ways(task) {
                let cost = self.cost(&freed.with(task, on)) - self.worth[other.node] + leaving;
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, Moved { running: at, to, on: way, placed: (other.node, on) }));
                }
            }
        }
        let (_, moved) = best?;
        let other = running[moved.running];
        let freed = self.nodes[other.node].without(&other.task, other.on);
        self.set_node(other.node, freed.with(task, moved.placed.1));
        self.take(moved.to, &other.task, moved.on);
        Some(moved)
    }

    /// The best place of a task, if need be one that is not on some node.
    fn best(&mut self, task: &Task, but: Option<usize>) -> Option<(usize, u32)> {
        let mut kind = self.kinds.remove(task).unwrap_or_else(|| Kind {
            seen: usize::MAX,
            places: vec![(f64::INFINITY, 0); self.nodes.len()],
            order: std::collections::BTreeSet::new(),
        });
        let stale: Vec<u32> = if kind.seen == usize::MAX {
            (0..self.nodes.len() as u32).collect()
        } else {
            let mut stale = self.changes[kind.seen..].to_vec();
            stale.sort_unstable();
            stale.dedup();
            stale
        };
        for node in stale {
            let old = std::mem::replace(&mut kind.places[node as usize], self.place_on(node as usize, task));
            kind.order.remove(&(ordered(old.0), node));
            let new = kind.places[node as usize].0;
            if new.is_finite() {
                kind.order.insert((ordered(new), node));
            }
        }
        kind.seen = self.changes.len();
        let nodes = kind.order.iter().map(|(_, node)| *node as usize);
        let best = nodes.filter(|node| but != Some(*node)).map(|node| (node, kind.places[node].1)).next();
        self.kinds.insert(*task, kind);
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(milli: u32, cpu: i64) -> Task {
        Task { cpu, memory: 1, gpus: 1, milli, models: 0 }
    }

    #[test]
    fn fills_a_begun_gpu_before_beginning_another() {
        let demand = Demand::of([(share(500, 1000), 1), (share(1000, 1000), 1)]);
        let mut fleet = Fleet::new(vec![Devices::new(8000, 8, 2, 1); 2], demand, Weighing::default());
        let first = fleet.place(&share(500, 1000)).unwrap();
        assert_eq!(fleet.place(&share(500, 1000)), Some(first));
        assert_eq!(fleet.node(first.0).free().iter().filter(|free| **free == 1000).count(), 1);
    }

    #[test]
    fn leaves_a_model_to_those_who_insist_on_it() {
        let picky = Task { models: 2, ..share(1000, 1000) };
        let demand = Demand::of([(share(1000, 1000), 1), (picky, 1)]);
        let nodes = vec![Devices::new(8000, 8, 1, 2), Devices::new(8000, 8, 1, 1)];
        let mut fleet = Fleet::new(nodes, demand, Weighing::default());
        assert_eq!(fleet.place(&share(1000, 1000)).map(|(node, _)| node), Some(1));
        assert_eq!(fleet.place(&picky).map(|(node, _)| node), Some(0));
        assert_eq!(fleet.place(&picky), None);
    }

    #[test]
    fn moves_one_task_to_let_another_in() {
        let half = share(500, 1000);
        let demand = Demand::of([(half, 1), (share(1000, 1000), 1)]);
        let mut fleet = Fleet::new(vec![Devices::new(8000, 8, 1, 1); 2], demand, Weighing::default());
        fleet.set_node(0, fleet.node(0).with(&half, 1));
        fleet.set_node(1, fleet.node(1).with(&half, 1));
        let whole = share(1000, 1000);
        assert_eq!(fleet.place(&whole), None);
        let running = [Running { task: half, node: 0, on: 1 }, Running { task: half, node: 1, on: 1 }];
        let moved = fleet.place_by_moving(&whole, &running).unwrap();
        assert_ne!(moved.to, moved.placed.0);
        assert_eq!(moved.placed.0, running[moved.running].node);
        assert!(fleet.node(0).free_gpu() == 0 && fleet.node(1).free_gpu() == 0);
        assert_eq!(fleet.place_by_moving(&half, &running), None);
    }

    #[test]
    fn kept_places_equal_a_search_over_all_nodes() {
        let sizes = [110, 160, 470, 500, 810, 1000];
        let tasks: Vec<Task> = (0..40).map(|n| share(sizes[n % 6], 500 + 700 * (n as i64 % 5))).collect();
        let demand = Demand::of(tasks.iter().map(|task| (*task, 1)));
        let nodes: Vec<Devices> =
            (0..12).map(|n| Devices::new(6000 + 3000 * (n % 3), 100, 1 + n as usize % 4, 1)).collect();
        let mut fleet = Fleet::new(nodes, demand, Weighing::default());
        for step in 0..200 {
            let task = tasks[step * 7 % tasks.len()];
            let all = (0..12).map(|node| (ordered(fleet.place_on(node, &task).0), node)).min();
            let wanted = all.filter(|(_, node)| fleet.node(*node).fits(&task)).map(|(_, node)| node);
            assert_eq!(fleet.place(&task).map(|(node, _)| node), wanted, "step {step}");
        }
    }
}

//! Who is where, kept apart from the engine: it refuses what would take more than there is, down to single GPUs.

use super::scenario::{GPU, PlannedNode, PlannedPod, WHOLE};

/// GPUs of one node that are counted.
pub(crate) const GPUS_MOST: usize = 16;

/// What one node has left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    /// CPU and memory.
    pub(crate) free: [i64; 2],
    pub(crate) has: [i64; 2],
    pub(crate) pods_free: i64,
    /// Free thousandths of each GPU.
    pub(crate) gpus: Vec<u32>,
    pub(crate) pods: Vec<u32>,
    pub(crate) up: bool,
}

/// All nodes, and where each pod is.
pub(crate) struct Ledger {
    pub(crate) rooms: Vec<Room>,
    /// By pod: node, and the bits of its GPUs.
    seats: Vec<Option<(u32, u32)>>,
    /// Used CPU, memory and thousandths of GPUs.
    pub(crate) used: [i64; 3],
    /// What nodes that are up have of each.
    pub(crate) has: [i64; 3],
}

impl Ledger {
    pub(crate) fn new(nodes: &[PlannedNode], pods: usize) -> Ledger {
        let room = |node: &PlannedNode| {
            let has = [node.allocatable("cpu"), node.allocatable("memory")];
            let pods_free = node.allocatable("pods");
            Room { free: has, has, pods_free, gpus: vec![WHOLE; node.gpus], pods: Vec::new(), up: false }
        };
        let mut ledger =
            Ledger { rooms: nodes.iter().map(room).collect(), seats: vec![None; pods], used: [0; 3], has: [0; 3] };
        for node in 0..nodes.len() {
            ledger.set_up(node, true);
        }
        ledger
    }

    /// A node comes or goes. One that goes must be empty.
    pub(crate) fn set_up(&mut self, node: usize, up: bool) {
        let room = &mut self.rooms[node];
        if room.up == up {
            return;
        }
        room.up = up;
        let sign = if up { 1 } else { -1 };
        let has = [room.has[0], room.has[1], i64::from(WHOLE) * room.gpus.len() as i64];
        for (all, one) in self.has.iter_mut().zip(has) {
            *all += sign * one;
        }
    }

    /// Seats a pod. `on`: the bits of its GPUs; None: the first that have room. `checked`: refuses what does not fit.
    ///
    /// # Errors
    /// What is lacking.
    pub(crate) fn take(
        &mut self,
        number: u32,
        pod: &PlannedPod,
        node: usize,
        on: Option<u32>,
        checked: bool,
    ) -> Result<(), String> {
        if let Some((other, _)) = self.seats[number as usize] {
            return Err(format!("pod {} is placed on node {node} and is on node {other} already", pod.name));
        }
        let room = &mut self.rooms[node];
        let asks = [pod.request("cpu"), pod.request("memory")];
        let fitting = (0..room.gpus.len()).filter(|gpu| room.gpus[*gpu] >= pod.gpu.milli);
        let on = on.unwrap_or_else(|| fitting.take(pod.gpu.count as usize).fold(0, |bits, gpu| bits | 1 << gpu));
        if checked {
            let mut lacking = Vec::new();
            if !room.up {
                lacking.push("the node".to_owned());
            }
            for (resource, name) in ["cpu", "memory"].iter().enumerate() {
                if asks[resource] > room.free[resource] {
                    lacking.push(format!("{name} ({} of {})", asks[resource], room.free[resource]));
                }
            }
            if room.pods_free <= 0 {
                lacking.push("pods".to_owned());
            }
            let good = (0..32).filter(|gpu| on & (1 << gpu) != 0);
            let good = good.filter(|gpu| room.gpus.get(*gpu).is_some_and(|free| *free >= pod.gpu.milli)).count();
            if good != pod.gpu.count as usize || on.count_ones() != pod.gpu.count {
                lacking.push(format!("{GPU} ({} x {}, free {:?})", pod.gpu.count, pod.gpu.milli, room.gpus));
            }
            if !lacking.is_empty() {
                return Err(format!("pod {} is placed on node {node}, which lacks {}", pod.name, lacking.join(", ")));
            }
        }
        room.pods_free -= 1;
        for (resource, asked) in asks.iter().enumerate() {
            room.free[resource] -= asked;
            self.used[resource] += asked;
        }
        for (_, free) in room.gpus.iter_mut().enumerate().filter(|(gpu, _)| on & (1 << gpu) != 0) {
            *free = free.saturating_sub(pod.gpu.milli);
        }
        self.used[2] += i64::from(on.count_ones() * pod.gpu.milli);
        room.pods.push(number);
        self.seats[number as usize] = Some((node as u32, on));
        Ok(())
    }

    /// A pod leaves. Returns its node and GPUs.
    pub(crate) fn leave(&mut self, number: u32, pod: &PlannedPod) -> Option<(usize, u32)> {
        let (node, on) = self.seats[number as usize].take()?;
        let room = &mut self.rooms[node as usize];
        room.pods.retain(|other| *other != number);
        room.pods_free += 1;
        for (resource, name) in ["cpu", "memory"].iter().enumerate() {
            room.free[resource] += pod.request(name);
            self.used[resource] -= pod.request(name);
        }
        for (gpu, free) in room.gpus.iter_mut().enumerate() {
            if on & (1 << gpu) != 0 {
                *free = (*free + pod.gpu.milli).min(WHOLE);
            }
        }
        self.used[2] -= i64::from(on.count_ones() * pod.gpu.milli);
        Some((node as usize, on))
    }
}

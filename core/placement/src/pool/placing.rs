//! Pods on nodes: decisions that are carried out or taken back, room that is being made, and what all that adds to and takes from counts.

use super::{NOWHERE, NodeId, PodId, Pool, extended_entry};
use crate::class::ClassId;

impl Pool {
    /// Takes a decision as carried out before the API has confirmed it: the room is used from now on. A pod for which a reservation
    /// holds room there draws on it; a reservation begins to hold.
    pub fn assume(&mut self, pod: PodId, node: NodeId) {
        self.nominate(pod, NOWHERE);
        self.detach(pod);
        if !self.reservations.is_empty() {
            if self.reservations.holds(pod) {
                return self.settle_reservation(pod, node);
            }
            self.draw_there(pod, node);
        }
        self.attach(pod, node);
    }
    /// Takes an assumption back.
    pub fn forget(&mut self, pod: PodId) {
        self.detach(pod);
        // Its node may have gone meanwhile.
        if !self.orphans.is_empty() {
            self.drop_orphan(pod);
        }
        if !self.reservations.is_empty() {
            self.give_back(pod, false);
        }
    }
    /// Notes that room is being made for a pod on a node; `NOWHERE` clears it.
    pub(crate) fn nominate(&mut self, pod: PodId, node: NodeId) {
        let old = std::mem::replace(&mut self.entry_mut(pod).nominated, node);
        if old == node {
            return;
        }
        if let Some(pods) = self.nominated.get_mut(&old) {
            pods.retain(|other| *other != pod);
            if pods.is_empty() {
                self.nominated.remove(&old);
            }
        }
        if node != NOWHERE {
            self.nominated.entry(node).or_default().push(pod);
        }
    }
    /// A pod is being deleted, as far as the one who ordered it knows.
    pub fn set_terminating(&mut self, pod: PodId) {
        if self.entry(pod).terminating {
            return;
        }
        let node = self.entry(pod).node;
        self.detach(pod);
        self.entry_mut(pod).terminating = true;
        if node != NOWHERE {
            self.reattach(pod, node);
        }
    }
    /// Nominates a pod to a node, or withdraws it.
    pub fn set_nominated(&mut self, pod: PodId, node: Option<NodeId>) {
        self.nominate(pod, node.unwrap_or(NOWHERE));
    }

    /// Counts a pod on a node that it comes to.
    pub(crate) fn attach(&mut self, pod: PodId, node: NodeId) {
        self.entry_mut(pod).report = self.loads[node as usize].report;
        self.put(pod, node, false);
    }

    /// Counts a pod on a node that it was taken off only for a moment: whether the node's load report knows it stays as it was.
    pub(crate) fn reattach(&mut self, pod: PodId, node: NodeId) {
        self.put(pod, node, true);
    }

    fn put(&mut self, pod: PodId, node: NodeId, again: bool) {
        if !self.numa.is_empty() {
            self.take_parts(pod, node, again);
        }
        let place = self.nodes[node as usize].pods.len() as u32;
        self.nodes[node as usize].pods.push(pod);
        let entry = self.entry_mut(pod);
        (entry.node, entry.place) = (node, place);
        let (class, terminating, report) = (entry.class, entry.terminating, entry.report);
        if report == self.loads[node as usize].report {
            self.count_load(class, node, 1);
        }
        self.count(class, node, terminating, 1);
    }

    /// Takes a pod off its node.
    pub(crate) fn detach(&mut self, pod: PodId) {
        let entry = self.entry_mut(pod);
        let (node, place, class, terminating) = (entry.node, entry.place, entry.class, entry.terminating);
        let report = entry.report;
        if node == NOWHERE {
            return;
        }
        entry.node = NOWHERE;
        if !self.numa.is_empty() {
            self.leave_parts(pod);
        }
        self.nodes[node as usize].pods.swap_remove(place as usize);
        if let Some(moved) = self.nodes[node as usize].pods.get(place as usize).copied() {
            self.entry_mut(moved).place = place;
        }
        if report == self.loads[node as usize].report {
            self.count_load(class, node, -1);
        }
        self.count(class, node, terminating, -1);
    }

    fn count_load(&mut self, class: ClassId, node: NodeId, by: i64) {
        let nominal = self.class(class).requests.nominal;
        for (since, request) in self.loads[node as usize].since.iter_mut().zip(nominal) {
            *since += by * request;
        }
    }

    fn count(&mut self, class: ClassId, node: NodeId, terminating: bool, by: i64) {
        let Some(Some(of)) = self.classes.get_mut(class as usize) else { return };
        let hot = &mut self.hot[node as usize];
        hot.pods += by;
        for (used, request) in hot.used.iter_mut().zip(of.requests.base) {
            *used += by * request;
        }
        for (used, request) in hot.nominal.iter_mut().zip(of.requests.nominal) {
            *used += by * request;
        }
        for (resource, request) in &of.requests.extended {
            extended_entry(&mut self.nodes[node as usize].extended, *resource).1 += by * request;
        }
        let count = of.nodes.entry(node).or_default();
        count.all = count.all.wrapping_add_signed(by as i32);
        if terminating {
            count.terminating = count.terminating.wrapping_add_signed(by as i32);
        }
        if count.all == 0 {
            of.nodes.remove(&node);
        }
        let placed = self.placed_priorities.entry(of.key.spec.priority).or_default();
        *placed = placed.wrapping_add_signed(by as isize);
        if *placed == 0 {
            self.placed_priorities.remove(&of.key.spec.priority);
        }
        self.storage.count(&of.key, node, by);
        self.indexes.counted(class, node, terminating, by as i32);
    }
}

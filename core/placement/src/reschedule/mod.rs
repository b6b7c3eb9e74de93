//! Moves that would mend what time has broken: pods on nodes that would no longer have them, rules about other pods that no longer
//! hold ([`rules`]), nodes that run hot, nodes that are hardly used ([`empty`]), and room that lies scattered ([`room`]). A plan is
//! data; carrying it out (a new pod first, then the old one's eviction) is elsewhere.
//!
//! Every move is made on the pool as it is planned, so that the next one sees it, and all are taken back in the end. A target is
//! found by the same decision as for a new pod, with load counted: it never becomes hot by it, so a plan cannot trade one hot
//! spot for another, and a pod is moved at most once. Budgets bound what is taken from a node, a workload and in all.

mod empty;
mod room;
mod rules;

use crate::class::{Class, ClassId};
use crate::filter::standing;
use crate::load::Load;
use crate::numa::Parts;
use crate::pool::{NOWHERE, NodeId, PodId, Pool};
use model::Key;
use model::map::HashMap;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Bounds of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveLimits {
    /// Moves in all.
    pub moves: usize,
    /// Moves off one node.
    pub per_node: usize,
    /// Share of a workload's placed pods that may move, in per cent; one may always, if there is another.
    pub workload_pct: usize,
    /// A hot node is relieved until it is this far below the load policy's bounds, in per cent of allocatable.
    pub margin_pct: i64,
    /// Nodes of whose CPU and memory no more than this is asked for, in per cent, are emptied when their pods all fit on nodes that
    /// stay in use. None: no node is emptied.
    pub empty_below_pct: Option<i64>,
}

impl Default for MoveLimits {
    fn default() -> Self {
        MoveLimits { moves: 10_000, per_node: 5, workload_pct: 10, margin_pct: 5, empty_below_pct: None }
    }
}

/// Why a pod is to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its node's taints, cordon or labels would not let it in any more.
    Standing,
    /// Pods that came later, or labels that changed, have broken its required (anti-)affinity or its spread.
    Rules,
    /// Its node uses more than the load policy allows.
    Hot,
    /// Its node is to be handed back.
    Empty,
    /// It makes room for a pod that fits nowhere.
    Room,
}

/// One move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The pod.
    pub pod: PodId,
    /// Where it is.
    pub from: NodeId,
    /// Where it would go.
    pub to: NodeId,
    /// Why.
    pub cause: Cause,
}

/// What a plan has used up, and how to take it back.
#[derive(Default)]
struct Draft {
    moves: Vec<Move>,
    from_node: HashMap<NodeId, usize>,
    of_class: HashMap<ClassId, usize>,
    budgets: BTreeMap<Key, i32>,
    steps: Vec<Step>,
}

/// How to take a move back.
struct Step {
    parts: Parts,
    report: u32,
    loads: [(NodeId, Load); 2],
}

/// A pod that was taken off its node.
struct Taken {
    pod: PodId,
    from: NodeId,
    report: u32,
    load: Load,
    parts: Parts,
}

impl Pool {
    fn draft(&self) -> Draft {
        let budgets = self.budgets.iter().map(|(key, budget)| (key.clone(), budget.allowed)).collect();
        Draft { budgets, ..Draft::default() }
    }

    /// Plans moves. Nothing is changed.
    pub fn plan_moves(&mut self, limits: &MoveLimits) -> Vec<Move> {
        let mut draft = self.draft();
        for (pod, node) in self.misplaced() {
            self.try_move(&mut draft, limits, pod, node, Cause::Standing);
        }
        for (pod, node) in self.unruly() {
            self.mend(&mut draft, limits, pod, node);
        }
        for node in self.hot_nodes(0) {
            self.relieve(&mut draft, limits, node);
        }
        if let Some(pct) = limits.empty_below_pct {
            self.empty_nodes(&mut draft, limits, pct);
        }
        let moves = draft.moves.clone();
        self.undo(&mut draft, 0);
        moves
    }

    /// Pods on nodes whose standing would refuse them now, the least important first.
    fn misplaced(&self) -> Vec<(PodId, NodeId)> {
        let mut found = Vec::new();
        for (_, class) in self.placed_classes() {
            let spec = class.spec();
            let choosy = !spec.node_selector.is_empty() || spec.node_affinity.is_some();
            for node in class.nodes.keys() {
                let facts = &self.nodes[*node as usize].facts;
                if (choosy || facts.unschedulable || !facts.taints.is_empty()) && !standing(spec, None, facts).is_ok() {
                    found.extend(self.pods_of(class, *node).map(|pod| (pod, *node)));
                }
            }
        }
        found.sort_by_key(|(pod, node)| (self.pod_priority(*pod), *node, *pod));
        found
    }

    /// A class's pods on a node.
    fn pods_of<'a>(&'a self, class: &'a Class, node: NodeId) -> impl Iterator<Item = PodId> + 'a {
        let here = self.nodes[node as usize].pods.iter().copied();
        here.filter(move |pod| std::ptr::eq(self.class(self.entry(*pod).class), class))
    }

    /// Reported use above the policy's bounds less `margin`, in per cent; None: it is not.
    fn heat(&self, node: NodeId, margin: i64) -> Option<i64> {
        let policy = self.load_policy.as_ref()?;
        let (hot, used) = (&self.hot[node as usize], self.loads[node as usize].reported?);
        let over =
            |resource: usize, bound: i64| used[resource] * 100 / hot.allocatable[resource].max(1) - (bound - margin);
        Some(over(0, policy.cpu_pct).max(over(1, policy.memory_pct))).filter(|over| *over > 0)
    }

    /// The hottest first.
    fn hot_nodes(&self, margin: i64) -> Vec<NodeId> {
        let heat = |node| Some((Reverse(self.heat(node, margin)?), node));
        let mut hot: Vec<_> = self.live_nodes().filter_map(heat).collect();
        hot.sort_unstable();
        hot.into_iter().map(|(_, node)| node).collect()
    }

    /// Moves pods off a hot node until it is cool: the least important first, of these the largest.
    fn relieve(&mut self, draft: &mut Draft, limits: &MoveLimits, node: NodeId) {
        let mut pods = self.nodes[node as usize].pods.clone();
        pods.sort_by_key(|pod| {
            let requests = &self.class(self.entry(*pod).class).requests;
            (self.pod_priority(*pod), Reverse(requests.nominal[0]), *pod)
        });
        for pod in pods {
            if self.heat(node, limits.margin_pct).is_none() {
                return;
            }
            self.try_move(draft, limits, pod, node, Cause::Hot);
        }
    }

    fn try_move(&mut self, draft: &mut Draft, limits: &MoveLimits, pod: PodId, from: NodeId, cause: Cause) -> bool {
        if !self.may_move(draft, limits, pod, from) {
            return false;
        }
        let taken = self.take_off(pod, from);
        let to = self.decide_unreserved(pod).node().filter(|to| *to != from && self.heat(*to, 0).is_none());
        match to {
            Some(to) => self.put_on(draft, &taken, to, cause),
            None => self.put_back(&taken),
        }
        to.is_some()
    }

    /// Takes a pod off its node, with the share of the node's reported use that its requests are of all requests there.
    fn take_off(&mut self, pod: PodId, from: NodeId) -> Taken {
        let taken = Taken {
            pod,
            from,
            report: self.entry(pod).report,
            load: self.loads[from as usize],
            parts: self.numa.parts(pod),
        };
        let nominal = self.class(self.entry(pod).class).requests.nominal;
        let all = self.hot[from as usize].nominal;
        self.detach(pod);
        if let Some(used) = &mut self.loads[from as usize].reported {
            for resource in 0..2 {
                used[resource] -= used[resource] * nominal[resource] / all[resource].max(1);
            }
        }
        taken
    }

    fn put_back(&mut self, taken: &Taken) {
        self.loads[taken.from as usize] = taken.load;
        self.reattach_with(taken.pod, taken.from, taken.report);
    }

    /// Puts a pod that was taken off on another node, and notes the move.
    fn put_on(&mut self, draft: &mut Draft, taken: &Taken, to: NodeId, cause: Cause) {
        let (pod, from) = (taken.pod, taken.from);
        let parts = taken.parts.clone();
        draft.steps.push(Step {
            parts,
            report: taken.report,
            loads: [(from, taken.load), (to, self.loads[to as usize])],
        });
        self.attach(pod, to);
        draft.moves.push(Move { pod, from, to, cause });
        self.spend(draft, pod, from, 1);
    }

    /// Counts a move against the bounds, or takes it out of the count.
    fn spend(&self, draft: &mut Draft, pod: PodId, from: NodeId, by: i32) {
        let class = self.entry(pod).class;
        let count = |number: &mut usize| *number = number.saturating_add_signed(by as isize);
        count(draft.from_node.entry(from).or_default());
        count(draft.of_class.entry(class).or_default());
        let (key, labels) = (&self.entry(pod).key, &self.class(class).key.labels);
        for (name, left) in &mut draft.budgets {
            let selects = self.budgets.get(name).and_then(|budget| budget.selector.as_ref());
            if name.namespace == key.namespace && selects.is_some_and(|selector| selector.matches(labels)) {
                *left -= by;
            }
        }
    }

    /// Takes the last moves back until so many are left.
    fn undo(&mut self, draft: &mut Draft, left: usize) {
        while draft.moves.len() > left
            && let (Some(moved), Some(step)) = (draft.moves.pop(), draft.steps.pop())
        {
            self.spend(draft, moved.pod, moved.from, -1);
            self.detach(moved.pod);
            for (node, load) in step.loads.into_iter().rev() {
                self.loads[node as usize] = load;
                self.indexes.touch(node);
            }
            self.numa.restore(moved.pod, step.parts);
            self.reattach_with(moved.pod, moved.from, step.report);
        }
    }

    fn may_move(&self, draft: &Draft, limits: &MoveLimits, pod: PodId, from: NodeId) -> bool {
        let entry = self.entry(pod);
        let class = self.class(entry.class);
        let placed: usize = class.nodes.values().map(|count| (count.all - count.terminating) as usize).sum();
        let allowed = (placed * limits.workload_pct / 100).max(usize::from(placed > 1));
        let budgets = draft.budgets.iter().filter(|(name, left)| {
            let selects = self.budgets.get(*name).and_then(|budget| budget.selector.as_ref());
            **left <= 0
                && name.namespace == entry.key.namespace
                && selects.is_some_and(|selector| selector.matches(&class.key.labels))
        });
        !entry.terminating
            && !self.reservations.holds(pod)
            && entry.node == from
            && draft.moves.len() < limits.moves
            && draft.from_node.get(&from).copied().unwrap_or(0) < limits.per_node
            && draft.of_class.get(&entry.class).copied().unwrap_or(0) < allowed
            && budgets.count() == 0
    }

    fn reattach_with(&mut self, pod: PodId, node: NodeId, report: u32) {
        self.entry_mut(pod).report = report;
        self.reattach(pod, node);
    }

    /// Where a pod would go if it had to leave its node; None when nobody else can have it. Nothing is changed.
    pub fn other_place(&mut self, pod: PodId) -> Option<NodeId> {
        let (from, report) = (self.entry(pod).node, self.entry(pod).report);
        if from == NOWHERE {
            return self.decide_unreserved(pod).node();
        }
        self.detach(pod);
        let to = self.decide_unreserved(pod).node().filter(|to| *to != from);
        self.reattach_with(pod, from, report);
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LoadPolicy;
    use model::scheduling::{BudgetFacts, NodeFacts, NodeScheduling, PodFacts, SchedulingSpec};
    use model::{LabelSelector, Labels};
    use std::sync::Arc;

    fn pool(nodes: usize) -> Pool {
        let mut pool = Pool::new();
        pool.set_load_policy(Some(LoadPolicy::default()));
        for n in 0..nodes {
            let allocatable = vec![("cpu".into(), 8000), ("memory".into(), 32 << 30), ("pods".into(), 110)];
            let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
            let labels = Labels::from([("kubernetes.io/hostname".into(), format!("n{n}").into())]);
            pool.set_node(Arc::new(NodeFacts {
                name: format!("n{n}").into(),
                labels,
                scheduling,
                ..NodeFacts::default()
            }));
            pool.set_usage(n as NodeId, Some((1000, 4 << 30)));
        }
        pool
    }

    fn put(pool: &mut Pool, app: &str, name: &str, node: &str) -> PodId {
        let requests = vec![("cpu".into(), 1000), ("memory".into(), 1 << 30)];
        let spec = SchedulingSpec { requests, nominal: (1000, 1 << 30), ..SchedulingSpec::default() };
        let facts = PodFacts {
            namespace: "default".into(),
            name: name.into(),
            uid: name.into(),
            labels: Arc::new(Labels::from([("app".into(), app.into())])),
            spec: Arc::new(spec),
            node: node.into(),
            ..PodFacts::default()
        };
        pool.set_pod(&facts).0
    }

    fn hot(apps: usize) -> Pool {
        let mut pool = pool(3);
        for n in 0..6 {
            put(&mut pool, &format!("a{}", n % apps), &format!("p{n}"), "n0");
        }
        pool.set_usage(0, Some((7000, 6 << 30)));
        pool
    }

    #[test]
    fn cools_a_hot_node_and_leaves_the_pool_as_it_was() {
        let mut pool = hot(6);
        for n in 0..6 {
            put(&mut pool, &format!("a{n}"), &format!("q{n}"), "n1");
        }
        let before: Vec<_> = (0..12).map(|pod| pool.pod_node(pod)).collect();
        let loads = pool.loads.clone();
        let moves = pool.plan_moves(&MoveLimits::default());
        assert!(!moves.is_empty());
        assert!(moves.iter().all(|m| m.from == 0 && m.to != 0 && m.cause == Cause::Hot), "{moves:?}");
        let mut pods: Vec<PodId> = moves.iter().map(|m| m.pod).collect();
        pods.sort_unstable();
        pods.dedup();
        assert_eq!(pods.len(), moves.len(), "a pod moves once");
        assert_eq!((0..12).map(|pod| pool.pod_node(pod)).collect::<Vec<_>>(), before);
        assert_eq!(pool.loads, loads);
    }

    #[test]
    fn never_takes_all_replicas_and_heeds_budgets() {
        let mut pool = hot(1);
        assert_eq!(pool.plan_moves(&MoveLimits::default()).len(), 1, "one of six at ten per cent");
        pool.set_budget(BudgetFacts {
            namespace: "default".into(),
            name: "b".into(),
            selector: Some(LabelSelector::from_labels([(&Arc::from("app"), &Arc::from("a0"))])),
            allowed: 0,
            disrupted: Vec::new(),
        });
        assert_eq!(pool.plan_moves(&MoveLimits::default()), Vec::new());
    }
}

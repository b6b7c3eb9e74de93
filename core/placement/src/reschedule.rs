//! Moves that would mend what time has broken: nodes that run hot, and pods on nodes that would no longer have them. A plan is
//! data; carrying it out (a new pod first, then the old one's eviction) is elsewhere.
//!
//! Every move is made on the pool as it is planned, so that the next one sees it, and all are taken back in the end. A target is
//! found by the same decision as for a new pod, with load counted: it never becomes hot by it, so a plan cannot trade one hot
//! spot for another, and a pod is moved at most once. Budgets bound what is taken from a node, a workload and in all.

use crate::class::ClassId;
use crate::decide::Decision;
use crate::filter::standing;
use crate::load::Load;
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
}

impl Default for MoveLimits {
    fn default() -> Self {
        MoveLimits { moves: 10_000, per_node: 5, workload_pct: 10, margin_pct: 5 }
    }
}

/// Why a pod is to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its node's taints, cordon or labels would not let it in any more.
    Standing,
    /// Its node uses more than the load policy allows.
    Hot,
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
    reports: Vec<(PodId, u32)>,
    loads: HashMap<NodeId, Load>,
}

impl Pool {
    /// Plans moves. Nothing is changed.
    pub fn plan_moves(&mut self, limits: &MoveLimits) -> Vec<Move> {
        let mut draft = Draft {
            budgets: self.budgets.iter().map(|(key, budget)| (key.clone(), budget.allowed)).collect(),
            ..Draft::default()
        };
        for (pod, node) in self.misplaced() {
            self.try_move(&mut draft, limits, pod, node, Cause::Standing);
        }
        for node in self.hot_nodes(0) {
            self.relieve(&mut draft, limits, node);
        }
        self.take_back(&mut draft);
        draft.moves
    }

    /// Pods on nodes whose standing would refuse them now.
    fn misplaced(&self) -> Vec<(PodId, NodeId)> {
        let mut refused: HashMap<(ClassId, NodeId), bool> = HashMap::default();
        let mut found = Vec::new();
        for node in self.live_nodes() {
            let facts = &self.nodes[node as usize].facts;
            if facts.taints.is_empty() && !facts.unschedulable {
                // Labels seldom change under running pods, and required node affinity is about scheduling only.
                continue;
            }
            for pod in &self.nodes[node as usize].pods {
                let class = self.entry(*pod).class;
                let says_no = || !standing(self.class(class).spec(), None, facts).is_ok();
                if *refused.entry((class, node)).or_insert_with(says_no) {
                    found.push((*pod, node));
                }
            }
        }
        found.sort_by_key(|(pod, node)| (self.pod_priority(*pod), *node, *pod));
        found
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

    fn try_move(&mut self, draft: &mut Draft, limits: &MoveLimits, pod: PodId, from: NodeId, cause: Cause) {
        if !self.may_move(draft, limits, pod, from) {
            return;
        }
        let class = self.entry(pod).class;
        let report = self.entry(pod).report;
        let before = self.loads[from as usize];
        let nominal = self.class(class).requests.nominal;
        let all = self.hot[from as usize].nominal;
        self.detach(pod);
        // What the pod is taken to use of what the node reports: its share of what the node's pods ask for.
        let load = &mut self.loads[from as usize];
        if let Some(used) = &mut load.reported {
            for resource in 0..2 {
                used[resource] -= used[resource] * nominal[resource] / all[resource].max(1);
            }
        }
        let to = self.decide(pod).node().filter(|to| *to != from && self.heat(*to, 0).is_none());
        let Some(to) = to else {
            self.loads[from as usize] = before;
            self.reattach_with(pod, from, report);
            return;
        };
        draft.loads.entry(from).or_insert(before);
        draft.loads.entry(to).or_insert(self.loads[to as usize]);
        self.attach(pod, to);
        draft.reports.push((pod, report));
        draft.moves.push(Move { pod, from, to, cause });
        *draft.from_node.entry(from).or_default() += 1;
        *draft.of_class.entry(class).or_default() += 1;
        let (key, labels) = (self.entry(pod).key.clone(), self.class(class).key.labels.clone());
        for (name, left) in &mut draft.budgets {
            let selects = self.budgets.get(name).and_then(|budget| budget.selector.as_ref());
            if name.namespace == key.namespace && selects.is_some_and(|selector| selector.matches(&labels)) {
                *left -= 1;
            }
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

    fn take_back(&mut self, draft: &mut Draft) {
        for (moved, (_, report)) in draft.moves.iter().zip(&draft.reports).rev() {
            self.detach(moved.pod);
            self.reattach_with(moved.pod, moved.from, *report);
        }
        for (node, load) in draft.loads.drain() {
            self.loads[node as usize] = load;
            self.indexes.touch(node);
        }
    }

    /// Where a pod would go if it had to leave its node; None when nobody else can have it. Nothing is changed.
    pub fn other_place(&mut self, pod: PodId) -> Option<NodeId> {
        let (from, report) = (self.entry(pod).node, self.entry(pod).report);
        if from == NOWHERE {
            return match self.decide(pod) {
                Decision::Place(placement) => Some(placement.node),
                Decision::Refuse(_) => None,
            };
        }
        self.detach(pod);
        let to = self.decide(pod).node().filter(|to| *to != from);
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

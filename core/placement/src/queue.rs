//! Pods that wait: those to be tried now, by priority and then by age, and those that nobody could place, filed under what
//! refused them, so that an event wakes only pods that it may help.

use crate::explain::Diagnosis;
use crate::filter::{Code, Verdict, affinity_allows, lacks, standing, tolerates};
use crate::pool::{NodeId, PodId, Pool};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Something happened that may help pods that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A node joined, or its labels, taints, cordon or allocatable resources changed.
    Node(NodeId),
    /// A pod left this node.
    PodLeft(NodeId),
    /// A pod on this node is being deleted: spreading no longer counts it.
    PodLeaves(NodeId),
    /// This pod was placed: those may be helped that want to be near it, or spread among such pods.
    PodCame(PodId),
    /// This reservation holds room for its owners now.
    Reserved(PodId),
    /// Pods' or namespaces' labels changed.
    Labels,
    /// Claims, volumes, classes or attach limits changed.
    Storage,
}

/// Pods that wait to be placed.
#[derive(Default)]
pub struct Queue {
    /// Highest priority first, then who waits longest.
    ready: BinaryHeap<(i32, Reverse<u64>, PodId)>,
    waiting: BTreeMap<PodId, Waiting>,
    /// Pods that were refused, by filter.
    refused: BTreeMap<u32, BTreeSet<PodId>>,
    next: u64,
}

struct Waiting {
    priority: i32,
    /// Its age in the queue; kept over refusals.
    since: u64,
    /// None: it is in `ready`.
    refused_by: Option<u32>,
}

/// While no more than so many wait, those are asked again too whose reasons may have changed though they still cannot be placed:
/// what they are told stays true of all nodes.
const FEW: usize = 64;

fn bit(code: Code) -> u32 {
    1 << code as u32
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Self {
        Queue::default()
    }
    /// Pods that wait, ready or refused.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
    /// Whether a pod waits.
    pub fn contains(&self, pod: PodId) -> bool {
        self.waiting.contains_key(&pod)
    }

    /// A pod is to be tried. One that waits already keeps its age.
    pub fn push(&mut self, pod: PodId, priority: i32) {
        let since = match self.waiting.get(&pod) {
            Some(waiting) if waiting.refused_by.is_none() && waiting.priority == priority => return,
            Some(waiting) => waiting.since,
            None => {
                self.next += 1;
                self.next
            }
        };
        self.unfile(pod);
        self.waiting.insert(pod, Waiting { priority, since, refused_by: None });
        self.ready.push((priority, Reverse(since), pod));
    }

    /// A pod waits no longer.
    pub fn remove(&mut self, pod: PodId) {
        self.unfile(pod);
        self.waiting.remove(&pod);
    }

    /// The next pod to be tried. It stays known until it is removed, refused or pushed again.
    pub fn pop(&mut self) -> Option<PodId> {
        while let Some((priority, Reverse(since), pod)) = self.ready.pop() {
            let current = self.waiting.get(&pod);
            if current.is_some_and(|w| w.refused_by.is_none() && w.priority == priority && w.since == since) {
                return Some(pod);
            }
        }
        None
    }

    /// Nobody can have this pod now; it waits for events that may help.
    pub fn refuse(&mut self, pod: PodId, diagnosis: &Diagnosis) {
        self.file(pod, diagnosis.refused_by.max(1));
    }

    /// A pod waits for any event at all: what keeps it is not a node's refusal.
    pub fn refuse_for_now(&mut self, pod: PodId) {
        self.file(pod, !0);
    }

    /// A pod waits for nothing that the pool can tell of: its own change (it has scheduling gates), or its quota's.
    pub fn postpone(&mut self, pod: PodId) {
        self.file(pod, 0);
    }

    fn file(&mut self, pod: PodId, bits: u32) {
        self.unfile(pod);
        if let Some(waiting) = self.waiting.get_mut(&pod) {
            waiting.refused_by = Some(bits);
            self.refused.entry(bits).or_default().insert(pod);
        }
    }

    fn unfile(&mut self, pod: PodId) {
        let Some(bits) = self.waiting.get(&pod).and_then(|waiting| waiting.refused_by) else { return };
        if let Some(pods) = self.refused.get_mut(&bits) {
            pods.remove(&pod);
            if pods.is_empty() {
                self.refused.remove(&bits);
            }
        }
    }

    /// Makes those ready again that an event may help. Returns how many.
    pub fn wake(&mut self, pool: &Pool, hint: &Hint) -> usize {
        let interested: u32 = match hint {
            // A change of one node can turn every verdict.
            Hint::Node(_) | Hint::Reserved(_) => !0,
            Hint::PodLeft(_) => [
                Code::Ports,
                Code::Resources,
                Code::Numa,
                Code::Gpus,
                Code::Disk,
                Code::ExclusiveClaim,
                Code::VolumeLimit,
                Code::Spread,
                Code::AntiAffinity,
                Code::ExistingAntiAffinity,
            ]
            .map(bit)
            .into_iter()
            .sum(),
            Hint::PodLeaves(_) => bit(Code::Spread),
            Hint::PodCame(_) => bit(Code::Affinity) | bit(Code::Spread),
            Hint::Labels => [Code::Affinity, Code::Spread, Code::AntiAffinity, Code::ExistingAntiAffinity]
                .map(bit)
                .into_iter()
                .sum(),
            Hint::Storage => {
                [Code::VolumeBinding, Code::VolumeLimit, Code::VolumeMissing, Code::VolumeZone, Code::ExclusiveClaim]
                    .map(bit)
                    .into_iter()
                    .sum()
            }
        };
        let filed: Vec<(u32, PodId)> = self
            .refused
            .iter()
            .filter(|(bits, _)| *bits & interested != 0)
            .flat_map(|(bits, pods)| pods.iter().map(|pod| (*bits, *pod)))
            .collect();
        let few = filed.len() <= FEW;
        let mut helped: BTreeMap<(u32, u32), bool> = BTreeMap::new();
        let mut woken = 0;
        for (bits, pod) in filed {
            let class = pool.entry(pod).class;
            if let Hint::Reserved(reservation) = hint {
                // Owners may be named one by one: pods of a class differ here.
                if pool.is_reserved_for(*reservation, pod) {
                    self.push(pod, pool.pod_priority(pod));
                    woken += 1;
                }
                continue;
            }
            let may_help = *helped.entry((bits, class)).or_insert_with(|| match hint {
                Hint::Node(node) => pool.may_turn(class, *node, bits),
                Hint::PodLeft(node) => pool.may_have(class, *node) || (few && bits & bit(Code::Resources) != 0),
                Hint::PodCame(came) => pool.may_miss(class, *came, bits),
                _ => true,
            });
            if may_help || (matches!(hint, Hint::PodLeft(_)) && pool.pod_nominated(pod).is_some()) {
                self.push(pod, pool.pod_priority(pod));
                woken += 1;
            }
        }
        woken
    }

    /// Whether a pod waits because it was refused.
    pub fn waits_refused(&self, pod: PodId) -> bool {
        self.waiting.get(&pod).is_some_and(|waiting| waiting.refused_by.is_some())
    }
}

impl Pool {
    /// Whether one of the filters that refused a class everywhere would not refuse it on a node that changed. As in kube-scheduler
    /// each filter is asked for itself: what a pod is told stays true of all nodes.
    fn may_turn(&self, class: u32, node: NodeId, refused_by: u32) -> bool {
        let of = self.class(class);
        let (Some(hot), Some(entry)) = (self.hot.get(node as usize), self.nodes.get(node as usize)) else {
            return false;
        };
        if !hot.live {
            return false;
        }
        let refused = |code: Code| refused_by & bit(code) != 0;
        let own = bit(Code::Cordoned) | bit(Code::Taint) | bit(Code::NodeAffinity) | bit(Code::Resources);
        refused_by & !own != 0
            || (refused(Code::Cordoned) && !entry.facts.unschedulable)
            || (refused(Code::Taint) && tolerates(of.spec(), &entry.facts.taints))
            || (refused(Code::NodeAffinity) && affinity_allows(of.spec(), &entry.facts))
            || (refused(Code::Resources) && lacks(&of.requests, hot, &entry.extended) & Verdict::NEVER_FITS == 0)
    }

    /// Whether a pod that came is one that a class's required affinity asks for, or that its spread counts.
    fn may_miss(&self, class: u32, came: PodId, refused_by: u32) -> bool {
        let (of, other) = (self.class(class), self.class(self.entry(came).class));
        let spec = of.spec();
        let near = || !spec.affinity.is_empty() && spec.affinity.iter().all(|term| self.term_means(term, other));
        let spread = || {
            of.key.namespace == other.key.namespace && spec.spread.iter().any(|c| c.hard && c.counts(&other.key.labels))
        };
        (refused_by & bit(Code::Affinity) != 0 && near()) || (refused_by & bit(Code::Spread) != 0 && spread())
    }

    /// Whether a node that a pod left might have pods of a class now: its standing allows them and its resources suffice. A pod
    /// that left counts in its whole domain, so for classes that heed others every departure may help.
    fn may_have(&self, class: u32, node: NodeId) -> bool {
        let of = self.class(class);
        if self.heeds_others(class) {
            return true;
        }
        let Some(hot) = self.hot.get(node as usize).filter(|hot| hot.live) else { return false };
        let named = crate::filter::named_nodes(of.spec());
        let room = lacks(&of.requests, hot, &self.nodes[node as usize].extended) == 0;
        room && standing(of.spec(), named.as_deref(), &self.nodes[node as usize].facts).is_ok()
    }
}

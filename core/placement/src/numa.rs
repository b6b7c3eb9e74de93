//! NUMA alignment: nodes whose kubelet runs the Topology Manager, and what it would say to a pod.
//!
//! A node reports its zones as `NodeResourceTopology` does (topology.node.k8s.io): what each has of CPU, memory and devices, and the
//! policy. What a pod asks for is aligned where zones list it: devices always, memory of pods in the Guaranteed class, CPU of such
//! pods that ask for whole cores (kubelet's static policies hand out nothing else by zone). As the Topology Manager works it out, a
//! set of zones is *preferred* when it is the smallest that could have each of the resources on an empty node, the same for all, and has
//! them free now; of several the lowest zones are taken. Then:
//!
//! | policy | admits |
//! |---|---|
//! | `none` | everything; nothing is counted by zone |
//! | `best-effort` | everything; without a preferred set the narrowest with enough of all is taken |
//! | `restricted` | when there is a preferred set |
//! | `single-numa-node` | when a preferred set of one zone is there |
//!
//! The pod is aligned as a whole (scope `pod`). On nodes of scope `container` that is stricter than kubelet where a pod has several
//! containers. Nodes are scored as the peer's `LeastNUMANodes`: 100 less 12 for each zone taken; without a policy 0.

use crate::class::{CPU, MEMORY, Requests, ResourceId};
use crate::devices::{GpuShare, Gpus};
use crate::filter::{Code, Verdict};
use crate::pool::{NodeId, PodId, Pool};
use model::map::HashMap;
use model::scheduling::Amounts;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Zones that a node may have: what kubelet's Topology Manager handles.
pub const ZONES_MAX: usize = 8;
/// What a zone takes from the score of 100.
const ZONE_COST: i64 = 12;

/// kubelet's `topologyManagerPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopologyPolicy {
    /// `none`.
    #[default]
    None,
    /// `best-effort`.
    BestEffort,
    /// `restricted`.
    Restricted,
    /// `single-numa-node`.
    SingleNumaNode,
}

impl TopologyPolicy {
    /// From kubelet's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(TopologyPolicy::None),
            "best-effort" => Some(TopologyPolicy::BestEffort),
            "restricted" => Some(TopologyPolicy::Restricted),
            "single-numa-node" => Some(TopologyPolicy::SingleNumaNode),
            _ => None,
        }
    }
}

/// A node's zones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTopology {
    /// The policy.
    pub policy: TopologyPolicy,
    /// What each zone has allocatable; zones beyond [`ZONES_MAX`] are not read.
    pub zones: Vec<Amounts>,
}

/// A set of zones, as bits.
type Zones = u32;

/// One resource by zone.
struct Resource {
    id: ResourceId,
    allocatable: Vec<i64>,
    free: Vec<i64>,
}

impl Resource {
    fn has(&self, zones: Zones, amounts: &[i64], asked: i64) -> bool {
        (0..amounts.len()).filter(|zone| zones & 1 << zone != 0).map(|zone| amounts[zone]).sum::<i64>() >= asked
    }
    /// Zones of the smallest set that could have so much on an empty node.
    fn least(&self, asked: i64) -> Option<u32> {
        (1..1 << self.allocatable.len())
            .filter(|zones| self.has(*zones, &self.allocatable, asked))
            .map(Zones::count_ones)
            .min()
    }
}

/// What a pod holds of a node's zones: resource (by place in the node's list), zone, amount.
pub(crate) type Taken = Vec<(usize, usize, i64)>;

/// What a pod has of the zones of a node.
pub(crate) type Zoned = (NodeId, Taken);

/// A node with zones.
struct Node {
    policy: TopologyPolicy,
    zones: usize,
    resources: Vec<Resource>,
}

impl Node {
    /// What of the requests is aligned here: resource (by place), amount.
    fn needs(&self, requests: &Requests) -> Vec<(usize, i64)> {
        let asked = |resource: &Resource| match resource.id {
            CPU if requests.guaranteed && requests.base[CPU] % 1000 == 0 => requests.base[CPU],
            MEMORY if requests.guaranteed => requests.base[MEMORY],
            CPU | MEMORY => 0,
            id => requests.extended.iter().find(|(of, _)| *of == id).map_or(0, |(_, amount)| *amount),
        };
        let asked = self.resources.iter().map(asked).enumerate();
        asked.filter(|(_, amount)| *amount > 0).collect()
    }

    /// The zones that the Topology Manager would choose, and whether they are preferred. `empty`: as if nobody were here.
    fn choose(&self, needs: &[(usize, i64)], empty: bool) -> (Zones, bool) {
        let enough = |zones: Zones| {
            needs.iter().all(|(at, asked)| {
                let resource = &self.resources[*at];
                resource.has(zones, if empty { &resource.allocatable } else { &resource.free }, *asked)
            })
        };
        let all: Zones = (1 << self.zones) - 1;
        let mut sizes = needs.iter().map(|(at, asked)| self.resources[*at].least(*asked));
        let first = sizes.next().flatten();
        let equal = first.filter(|first| sizes.all(|size| size == Some(*first)));
        let preferred = equal.and_then(|size| (1..=all).find(|zones| zones.count_ones() == size && enough(*zones)));
        match preferred {
            Some(zones) => (zones, true),
            None => {
                ((1..=all).filter(|zones| enough(*zones)).min_by_key(|z| (z.count_ones(), *z)).unwrap_or(all), false)
            }
        }
    }

    fn admits(&self, (zones, preferred): (Zones, bool)) -> bool {
        match self.policy {
            TopologyPolicy::None | TopologyPolicy::BestEffort => true,
            TopologyPolicy::Restricted => preferred,
            TopologyPolicy::SingleNumaNode => preferred && zones.count_ones() == 1,
        }
    }

    fn take(&mut self, needs: &[(usize, i64)]) -> Taken {
        let (chosen, _) = self.choose(needs, false);
        let mut taken = Taken::new();
        for (at, asked) in needs {
            let free = &mut self.resources[*at].free;
            let mut left = *asked;
            // The chosen zones first; what they lack, for pods that were put here whatever the zones say, from any.
            let inside = |zone: &usize| chosen & 1 << zone != 0;
            let order: Vec<usize> =
                (0..free.len()).filter(inside).chain((0..free.len()).filter(|zone| !inside(zone))).collect();
            for zone in &order {
                let part = left.min(free[*zone]).max(0);
                if part > 0 {
                    taken.push((*at, *zone, part));
                    left -= part;
                }
            }
            if left > 0 {
                taken.push((*at, order[0], left));
            }
            for (_, zone, part) in taken.iter().filter(|(of, ..)| of == at) {
                free[*zone] -= part;
            }
        }
        taken
    }

    fn count(&mut self, taken: &Taken, sign: i64) {
        for (at, zone, amount) in taken {
            self.resources[*at].free[*zone] -= sign * amount;
        }
    }
}

/// All nodes with zones, and who has what of them.
#[derive(Default)]
pub(crate) struct Numa {
    topologies: BTreeMap<Arc<str>, NodeTopology>,
    nodes: HashMap<NodeId, Node>,
    /// What a pod holds or, taken off its node for a moment, held.
    taken: HashMap<PodId, Zoned>,
    /// GPUs that nodes tell of one by one: asked, taken and given back along with the zones.
    pub(crate) gpus: Gpus,
}

/// What a pod has of its node's parts.
#[derive(Clone, Default)]
pub(crate) struct Parts {
    zones: Option<Zoned>,
    gpus: Option<(NodeId, Vec<(i32, GpuShare)>)>,
}

impl Numa {
    /// No node has zones or tells of its GPUs: nothing is to be looked at.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.gpus.is_empty()
    }
    /// What a pod has.
    pub(crate) fn parts(&self, pod: PodId) -> Parts {
        if self.is_empty() {
            return Parts::default();
        }
        Parts { zones: self.taken.get(&pod).cloned(), gpus: self.gpus.held(pod) }
    }
    /// What a pod had before it was tried elsewhere.
    pub(crate) fn restore(&mut self, pod: PodId, parts: Parts) {
        if let Some(zones) = parts.zones {
            self.taken.insert(pod, zones);
        }
        self.gpus.restore(pod, parts.gpus);
    }
    pub(crate) fn drop_pod(&mut self, pod: PodId) {
        self.taken.remove(&pod);
        self.gpus.drop_pod(pod);
    }
    /// A node is gone.
    pub(crate) fn forget_node(&mut self, node: NodeId) {
        self.drop_node(node);
        self.gpus.drop_node(node);
    }
    fn drop_node(&mut self, node: NodeId) {
        if self.nodes.remove(&node).is_some() {
            self.taken.retain(|_, (at, _)| *at != node);
        }
    }
}

impl Pool {
    /// A node's zones are now as given; None: it has none that are known. The node itself may come later.
    pub fn set_topology(&mut self, name: &str, topology: Option<NodeTopology>) {
        if self.numa.topologies.get(name) == topology.as_ref() {
            return;
        }
        match topology {
            Some(topology) => self.numa.topologies.insert(name.into(), topology),
            None => self.numa.topologies.remove(name),
        };
        if let Some(node) = self.node_id(name) {
            self.lay_zones(node);
        }
    }

    /// Lays a new node's zones and GPUs out.
    pub(crate) fn lay_parts(&mut self, node: NodeId) {
        self.lay_zones(node);
        self.lay_gpus(node);
    }

    /// Lays a node's zones out, and its pods over them, in the order of their numbers.
    fn lay_zones(&mut self, node: NodeId) {
        self.numa.drop_node(node);
        let Some(topology) = self.numa.topologies.get(self.node_name(node)).cloned() else {
            return self.indexes.touch(node);
        };
        if topology.policy != TopologyPolicy::None && !topology.zones.is_empty() {
            let zones = topology.zones.len().min(ZONES_MAX);
            let mut by_resource: BTreeMap<ResourceId, Vec<i64>> = BTreeMap::new();
            for (zone, amounts) in topology.zones.iter().take(zones).enumerate() {
                for (name, amount) in amounts {
                    let id = self.resource(name);
                    by_resource.entry(id).or_insert_with(|| vec![0; zones])[zone] = *amount;
                }
            }
            let resources = by_resource
                .into_iter()
                .map(|(id, allocatable)| Resource { id, free: allocatable.clone(), allocatable })
                .collect();
            self.numa.nodes.insert(node, Node { policy: topology.policy, zones, resources });
            let mut pods = self.nodes[node as usize].pods.clone();
            pods.sort_unstable();
            for pod in pods {
                self.take_zones(pod, node, false);
            }
        }
        // Losses are kept by node for classes that no node aligned before.
        self.indexes.layout_changed();
        self.indexes.touch(node);
    }

    /// A pod comes to a node. `again`: it was taken off only for a moment and has the zones and GPUs that it had.
    pub(crate) fn take_parts(&mut self, pod: PodId, node: NodeId, again: bool) {
        self.take_zones(pod, node, again);
        if !self.numa.gpus.is_empty() {
            let requests = self.class(self.entry(pod).class).requests.clone();
            self.numa.gpus.take(pod, &requests, node, again);
        }
    }

    fn take_zones(&mut self, pod: PodId, node: NodeId, again: bool) {
        let requests = &self.class(self.entry(pod).class).requests;
        let needs = self.numa.nodes.get(&node).map(|of| of.needs(requests)).unwrap_or_default();
        let known = self.numa.taken.remove(&pod).filter(|(at, _)| again && *at == node);
        let Some(of) = self.numa.nodes.get_mut(&node).filter(|_| !needs.is_empty()) else { return };
        let taken = match known {
            Some((_, taken)) => {
                of.count(&taken, 1);
                taken
            }
            None => of.take(&needs),
        };
        self.numa.taken.insert(pod, (node, taken));
    }

    /// A pod leaves its node, perhaps for a moment.
    pub(crate) fn leave_parts(&mut self, pod: PodId) {
        self.numa.gpus.leave(pod);
        if let Some((node, taken)) = self.numa.taken.get(&pod)
            && let Some(of) = self.numa.nodes.get_mut(node)
        {
            of.count(taken, -1);
        }
    }

    /// The zones of a node that a pod has something of; empty when it is not aligned.
    pub fn zones_of(&self, pod: PodId) -> Vec<usize> {
        let taken = self.numa.taken.get(&pod).filter(|(node, _)| self.pod_node(pod) == Some(*node));
        let mut zones: Vec<usize> =
            taken.map(|(_, taken)| taken.iter().map(|(_, zone, _)| *zone).collect()).unwrap_or_default();
        zones.sort_unstable();
        zones.dedup();
        zones
    }

    /// What a node's Topology Manager would say, and its GPUs.
    #[inline]
    pub(crate) fn alignment(&self, requests: &Requests, node: NodeId) -> Verdict {
        if self.numa.is_empty() {
            return Verdict::OK;
        }
        let verdict = self.align(requests, node);
        if !verdict.is_ok() {
            return verdict;
        }
        match self.numa.gpus.admit(requests, node) {
            Ok(()) => Verdict::OK,
            Err(never) => Verdict::with(Code::Gpus, if never { Verdict::NEVER_FITS } else { 0 }),
        }
    }

    fn align(&self, requests: &Requests, node: NodeId) -> Verdict {
        let Some(of) = self.numa.nodes.get(&node) else { return Verdict::OK };
        let needs = of.needs(requests);
        if needs.is_empty() || of.admits(of.choose(&needs, false)) {
            return Verdict::OK;
        }
        let ever = of.admits(of.choose(&needs, true));
        Verdict::with(Code::Numa, if ever { 0 } else { Verdict::NEVER_FITS })
    }

    /// 0 to 188: in how few zones a pod would be, and how full its GPUs.
    pub(crate) fn parts_score(&self, requests: &Requests, node: NodeId) -> i64 {
        self.zones_score(requests, node) + self.numa.gpus.score(requests, node)
    }

    fn zones_score(&self, requests: &Requests, node: NodeId) -> i64 {
        let Some(of) = self.numa.nodes.get(&node) else { return 0 };
        let needs = of.needs(requests);
        let zones = if needs.is_empty() { return 0 } else { of.choose(&needs, false).0 };
        (crate::score::MAX - ZONE_COST * i64::from(zones.count_ones())).max(0)
    }

    /// Copies of a pod that fit on a node one after the other, at most so many.
    pub(crate) fn aligned_copies(&self, requests: &Requests, node: NodeId, most: i64) -> i64 {
        let most = self.numa.gpus.copies(requests, node, most);
        let Some(of) = self.numa.nodes.get(&node) else { return most };
        let needs = of.needs(requests);
        if needs.is_empty() {
            return most;
        }
        let resources = of.resources.iter();
        let resources = resources
            .map(|r| Resource { id: r.id, allocatable: r.allocatable.clone(), free: r.free.clone() })
            .collect();
        let mut copy = Node { policy: of.policy, zones: of.zones, resources };
        let mut copies = 0;
        while copies < most && copy.admits(copy.choose(&needs, false)) {
            copy.take(&needs);
            copies += 1;
        }
        copies
    }

    /// Whether a node with zones or told GPUs might have more to say to these requests than what it has in all.
    pub(crate) fn may_align(&self, requests: &Requests) -> bool {
        !self.numa.nodes.is_empty() && (requests.guaranteed || !requests.extended.is_empty())
            || self.numa.gpus.may_need(requests)
    }
}

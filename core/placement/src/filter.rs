//! One node's verdict on a class: kube-scheduler's filters in its order. The first that fails decides.

use crate::class::{Class, ClassId, EXTENDED, Requests};
use crate::pool::{Hot, NodeId, Pool};
use crate::storage::Needs;
use crate::topology::Surroundings;
use model::scheduling::{NodeFacts, SchedulingSpec};
use model::taint::{Taint, TaintEffect, tolerated};

/// Which filter refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Code {
    /// None: the node can have the pod.
    Ok,
    /// Cordoned.
    Cordoned,
    /// `metadata.name` terms name other nodes.
    OtherName,
    /// A taint.
    Taint,
    /// Node selector or required node affinity.
    NodeAffinity,
    /// Host ports.
    Ports,
    /// Resources; the detail says which.
    Resources,
    /// Its NUMA zones; never on nodes without a topology.
    Numa,
    /// No GPU, or too few, with so much free; only on nodes that tell of each.
    Gpus,
    /// Its real load; never without a load policy.
    Load,
    /// A disk that cannot be shared.
    Disk,
    /// A ReadWriteOncePod claim in use.
    ExclusiveClaim,
    /// Attach limit.
    VolumeLimit,
    /// A bound claim's volume does not exist.
    VolumeMissing,
    /// No volume here, or the volume is elsewhere; the detail says which.
    VolumeBinding,
    /// Zone of a bound volume.
    VolumeZone,
    /// A label of a spread constraint is missing.
    SpreadLabel,
    /// Spread.
    Spread,
    /// Required affinity.
    Affinity,
    /// Required anti-affinity.
    AntiAffinity,
    /// Required anti-affinity of a pod that is there.
    ExistingAntiAffinity,
}

/// What a node says to a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Verdict {
    pub(crate) code: Code,
    /// `Resources`: bit 0 pods, bit 1+r resource r, and `NEVER_FITS`. `Numa`, `Gpus`: `NEVER_FITS` or 0. `VolumeBinding`: which reasons.
    pub(crate) detail: u32,
}

impl Verdict {
    pub(crate) const OK: Verdict = Verdict { code: Code::Ok, detail: 0 };
    /// Even the empty node is too small.
    pub(crate) const NEVER_FITS: u32 = 1 << 31;
    /// Too many pods.
    pub(crate) const PODS: u32 = 1;
    /// A bound volume is elsewhere.
    pub(crate) const VOLUME_CONFLICT: u32 = 1;
    /// No volume for a waiting claim.
    pub(crate) const NO_VOLUME: u32 = 2;

    pub(crate) const fn new(code: Code) -> Self {
        Verdict { code, detail: 0 }
    }
    pub(crate) const fn with(code: Code, detail: u32) -> Self {
        Verdict { code, detail }
    }
    pub(crate) fn is_ok(self) -> bool {
        self.code == Code::Ok
    }
    /// Whether removing pods from the node may change it.
    pub(crate) fn evicting_may_help(self) -> bool {
        match self.code {
            Code::Resources | Code::Numa | Code::Gpus => self.detail & Verdict::NEVER_FITS == 0,
            Code::Ports
            | Code::Disk
            | Code::ExclusiveClaim
            | Code::VolumeLimit
            | Code::Spread
            | Code::AntiAffinity
            | Code::ExistingAntiAffinity => true,
            _ => false,
        }
    }
}

/// The bit of a resource in a `Resources` detail. Beyond thirty resources they share the last bit.
pub(crate) fn resource_bit(resource: usize) -> u32 {
    1 << (resource + 1).min(30)
}

/// Whether the resources suffice: the bits of those that do not.
#[inline]
pub(crate) fn lacks(requests: &Requests, hot: &Hot, extended: &[(i64, i64)]) -> u32 {
    let mut lacks = if hot.pods + 1 > hot.pods_allowed { Verdict::PODS } else { 0 };
    if requests.is_empty() {
        return lacks;
    }
    for resource in 0..EXTENDED {
        let request = requests.base[resource];
        if request > 0 && request > hot.allocatable[resource] - hot.used[resource] {
            lacks |= resource_bit(resource);
            if request > hot.allocatable[resource] {
                lacks |= Verdict::NEVER_FITS;
            }
        }
    }
    for (resource, request) in &requests.extended {
        let (allocatable, used) = extended.get(resource - EXTENDED).copied().unwrap_or_default();
        if *request > allocatable - used {
            lacks |= resource_bit(*resource);
            if *request > allocatable {
                lacks |= Verdict::NEVER_FITS;
            }
        }
    }
    lacks
}

/// Whether a pod may be placed in spite of the node's NoSchedule and NoExecute taints.
pub(crate) fn tolerates(spec: &SchedulingSpec, taints: &[Taint]) -> bool {
    taints.iter().all(|taint| taint.effect == TaintEffect::PreferNoSchedule || tolerated(&spec.tolerations, taint))
}

/// Node selector and required node affinity.
pub(crate) fn affinity_allows(spec: &SchedulingSpec, node: &NodeFacts) -> bool {
    spec.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && spec
            .node_affinity
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|term| term.matches(&node.name, &node.labels)))
}

/// When every term of the required node affinity names nodes, only these are looked at at all.
pub(crate) fn named_nodes(spec: &SchedulingSpec) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    for term in spec.node_affinity.as_ref().filter(|terms| !terms.is_empty())? {
        let mut of_term: Option<Vec<&str>> = None;
        for field in &term.fields {
            if &*field.key == "metadata.name" && field.operator == model::selector::Operator::In {
                let values: Vec<&str> = field.values.iter().map(|value| &**value).collect();
                of_term = Some(match of_term {
                    None => values,
                    Some(before) => before.into_iter().filter(|name| values.contains(name)).collect(),
                });
            }
        }
        names.extend(of_term?);
    }
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// The part of the verdict that only the node's own standing decides: cordon, name, taints, labels.
pub(crate) fn standing(spec: &SchedulingSpec, named: Option<&[&str]>, node: &NodeFacts) -> Verdict {
    if named.is_some_and(|names| names.binary_search(&&*node.name).is_err()) {
        return Verdict::new(Code::OtherName);
    }
    if node.unschedulable {
        let cordon = Taint::new("node.kubernetes.io/unschedulable", TaintEffect::NoSchedule);
        if !tolerated(&spec.tolerations, &cordon) {
            return Verdict::new(Code::Cordoned);
        }
    }
    if !tolerates(spec, &node.taints) {
        return Verdict::new(Code::Taint);
    }
    if !affinity_allows(spec, node) {
        return Verdict::new(Code::NodeAffinity);
    }
    Verdict::OK
}

/// All that a class's filters read besides the node.
pub(crate) struct Filters<'a> {
    pub(crate) class: &'a Class,
    pub(crate) named: Option<Vec<&'a str>>,
    pub(crate) needs: Needs<'a>,
    pub(crate) around: &'a Surroundings,
}

impl Pool {
    /// Prepares the filters of a class, or says why no node can have its pods now.
    pub(crate) fn filters<'a>(&'a self, class: ClassId, around: &'a Surroundings) -> Result<Filters<'a>, String> {
        let class = self.class(class);
        let named = named_nodes(class.spec());
        if named.as_ref().is_some_and(Vec::is_empty) {
            return Err("pod affinity terms conflict".to_owned());
        }
        let needs = self.storage.needs(&class.key)?;
        Ok(Filters { class, named, needs, around })
    }

    /// What a node says.
    pub(crate) fn verdict(&self, filters: &Filters<'_>, node: NodeId) -> Verdict {
        let spec = filters.class.spec();
        let facts = &self.nodes[node as usize].facts;
        let standing = standing(spec, filters.named.as_deref(), facts);
        if !standing.is_ok() {
            return standing;
        }
        if !spec.host_ports.is_empty() && self.ports_conflict(spec, node) {
            return Verdict::new(Code::Ports);
        }
        let lacks = lacks(&filters.class.requests, &self.hot[node as usize], &self.nodes[node as usize].extended);
        if lacks != 0 {
            return Verdict::with(Code::Resources, lacks);
        }
        let alignment = self.alignment(&filters.class.requests, node);
        if !alignment.is_ok() {
            return alignment;
        }
        if self.overloaded(&filters.class.requests, node) {
            return Verdict::new(Code::Load);
        }
        if !spec.disks.is_empty() && self.disks_conflict(spec, node) {
            return Verdict::new(Code::Disk);
        }
        if !spec.claims.is_empty() {
            let promised = self.nominated.contains_key(&node);
            let storage = self.storage.verdict(&filters.needs, facts, promised, || self.attached(node));
            if !storage.is_ok() {
                return storage;
            }
        }
        filters.around.verdict(&self.columns, node)
    }

    /// Whether a load policy refuses a node.
    #[inline]
    pub(crate) fn overloaded(&self, requests: &Requests, node: NodeId) -> bool {
        let refuses =
            |policy: &crate::LoadPolicy| policy.refuses(requests, &self.hot[node as usize], &self.loads[node as usize]);
        self.load_policy.as_ref().is_some_and(refuses)
    }

    fn neighbours(&self, node: NodeId) -> impl Iterator<Item = &SchedulingSpec> {
        self.nodes[node as usize].pods.iter().map(|pod| self.class(self.entry(*pod).class).spec())
    }

    pub(crate) fn ports_conflict(&self, spec: &SchedulingSpec, node: NodeId) -> bool {
        self.neighbours(node)
            .any(|other| other.host_ports.iter().any(|a| spec.host_ports.iter().any(|b| a.conflicts(b))))
    }

    pub(crate) fn disks_conflict(&self, spec: &SchedulingSpec, node: NodeId) -> bool {
        self.neighbours(node).any(|other| other.disks.iter().any(|a| spec.disks.iter().any(|b| a.conflicts(b))))
    }
}

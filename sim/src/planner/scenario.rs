//! What is played: nodes, pods, when they come and how long they stay.

use super::usage::Usage;
use model::Labels;
use model::scheduling::{NodeFacts, SchedulingSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name of whole GPUs as a resource.
pub(crate) const GPU: &str = "nvidia.com/gpu";
/// The label of a node's GPU model.
pub(crate) const GPU_MODEL: &str = "nvidia.com/gpu.product";
/// Thousandths of a GPU.
pub(crate) const WHOLE: u32 = 1000;

/// A node.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    /// What the engine reads of it, allocatable resources included (memory in bytes, whole GPUs as `nvidia.com/gpu`).
    pub facts: Arc<NodeFacts>,
    /// Number of GPUs, at most sixteen.
    pub gpus: usize,
    /// Their model, or empty.
    pub gpu_model: Arc<str>,
}

impl PlannedNode {
    /// Allocatable amount of a resource.
    pub(crate) fn allocatable(&self, resource: &str) -> i64 {
        let found = self.facts.scheduling.allocatable.iter().find(|(name, _)| &**name == resource);
        found.map_or(0, |(_, amount)| *amount)
    }
}

/// The GPUs that a pod asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpuAsk {
    /// Number.
    pub count: u32,
    /// Thousandths of each.
    pub milli: u32,
    /// Models that will do; none: any.
    pub models: Vec<Arc<str>>,
}

impl GpuAsk {
    /// Thousandths in all.
    pub fn total(&self) -> i64 {
        i64::from(self.count) * i64::from(self.milli)
    }
    /// Less than a whole one.
    pub fn is_share(&self) -> bool {
        self.count > 0 && self.milli < WHOLE
    }
}

/// A pod.
#[derive(Clone, Debug)]
pub struct PlannedPod {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name; unique in its namespace.
    pub name: Arc<str>,
    /// Labels.
    pub labels: Arc<Labels>,
    /// What the engine reads of its spec. GPUs are not in its requests but in `gpu`.
    pub spec: Arc<SchedulingSpec>,
    /// GPUs.
    pub gpu: GpuAsk,
    /// When it comes, in seconds from the beginning.
    pub arrives_s: i64,
    /// How long it runs once placed; None: to the end.
    pub lasts_s: Option<i64>,
    /// What it really uses.
    pub usage: Usage,
    /// Where it is in the cluster that the scenario was taken from, or empty.
    pub is_at: Arc<str>,
    /// It belongs to its node (a daemon's or a static pod): every policy leaves it there.
    pub pinned: bool,
}

impl PlannedPod {
    /// What it asks of a resource.
    pub(crate) fn request(&self, resource: &str) -> i64 {
        self.spec.requests.iter().find(|(name, _)| &**name == resource).map_or(0, |(_, amount)| *amount)
    }
    /// Whether anything but resources, priority and GPUs decides where it can go.
    pub(crate) fn has_rules(&self) -> bool {
        let spec = &self.spec;
        !spec.node_selector.is_empty()
            || spec.node_affinity.is_some()
            || !spec.affinity.is_empty()
            || !spec.anti_affinity.is_empty()
            || spec.spread.iter().any(|constraint| constraint.hard)
            || !spec.host_ports.is_empty()
            || !spec.disks.is_empty()
    }
}

/// A node that is away for some time; its pods are lost and wait again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Index of the node.
    pub node: usize,
    /// From this second on.
    pub from_s: i64,
    /// To this one.
    pub to_s: i64,
}

/// How pods come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// At their time; one that does not fit waits.
    InTime,
    /// One after the other, none removed, one that does not fit is dropped; plots run over arrived demand.
    Fill,
}

/// What is played.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// Nodes.
    pub nodes: Vec<PlannedNode>,
    /// Pods, in the order in which they come.
    pub pods: Vec<PlannedPod>,
    /// How pods come.
    pub arrivals: Arrivals,
    /// Last second.
    pub end_s: i64,
    /// Nodes that fail and come back.
    pub outages: Vec<Outage>,
    /// What a reader should know: what was assumed, what was left out.
    pub notes: Vec<String>,
}

/// How nodes are chosen: the engine's score profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Every pod where it is in the cluster that the scenario was taken from.
    AsIs,
    /// The emptiest node that fits: kube-scheduler's default profile.
    Spread,
    /// The fullest node that fits.
    Pack,
    /// As `Spread`, and really busy nodes are refused, quieter ones preferred.
    LoadAware,
    /// The node and GPU whose use costs least of what the expected demand needs (fragmentation gradient).
    Fragmentation,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 5] = [Policy::AsIs, Policy::Spread, Policy::Pack, Policy::LoadAware, Policy::Fragmentation];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Policy::AsIs => "as-is",
            Policy::Spread => "spread",
            Policy::Pack => "pack",
            Policy::LoadAware => "load-aware",
            Policy::Fragmentation => "fragmentation",
        }
    }

    /// The policy of this name.
    pub fn of_name(name: &str) -> Option<Policy> {
        Policy::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

impl Scenario {
    /// Whether some pods share GPUs, which only the engine's GPU fleet can place.
    pub fn shares_gpus(&self) -> bool {
        self.pods.iter().any(|pod| pod.gpu.is_share())
    }

    /// The pool's capacity in words.
    pub fn capacity(&self) -> String {
        let sum = |resource| self.nodes.iter().map(|node| node.allocatable(resource)).sum::<i64>();
        let gpus: usize = self.nodes.iter().map(|node| node.gpus).sum();
        let gpus = if gpus > 0 { format!(", {gpus} GPUs") } else { String::new() };
        format!("{} nodes, {} cores, {} GiB{gpus}", self.nodes.len(), sum("cpu") / 1000, sum("memory") >> 30)
    }

    /// Nodes' numbers by name.
    pub(crate) fn node_numbers(&self) -> BTreeMap<&str, usize> {
        self.nodes.iter().enumerate().map(|(at, node)| (&*node.facts.name, at)).collect()
    }

    /// Why a policy cannot be played on this; None: it can.
    pub fn refuses(&self, policy: Policy) -> Option<String> {
        let ruled = || self.pods.iter().filter(|pod| pod.has_rules() && !pod.pinned).count();
        let only_fleet = |ruled: usize| {
            format!("{ruled} pods have rules on where they go, and the engine's GPU fleet knows resources only")
        };
        match policy {
            Policy::AsIs if self.pods.iter().all(|pod| pod.is_at.is_empty()) => {
                Some("nothing says where the pods are now".into())
            }
            Policy::Fragmentation if self.pods.iter().all(|pod| pod.gpu.count == 0) => {
                Some("no pod asks for GPUs".into())
            }
            Policy::LoadAware if self.shares_gpus() => {
                Some("pods share GPUs, and the engine's GPU fleet does not weigh load".into())
            }
            Policy::Fragmentation if ruled() > 0 => Some(only_fleet(ruled())),
            Policy::Spread | Policy::Pack if self.shares_gpus() && ruled() > 0 => Some(only_fleet(ruled())),
            _ => None,
        }
    }

    /// Policies that can be played on this.
    pub fn policies(&self) -> Vec<Policy> {
        Policy::ALL.into_iter().filter(|policy| self.refuses(*policy).is_none()).collect()
    }

    /// Keeps so many per cent of the nodes, evenly chosen: what if there were fewer?
    pub fn keep_nodes(&mut self, per_cent: usize) {
        let all = self.nodes.len();
        let mut kept = vec![false; all];
        let many = (all * per_cent / 100).max(1);
        for at in 0..many.min(all) {
            kept[at * all / many] = true;
        }
        let number: Vec<usize> =
            kept.iter().scan(0, |next, kept| Some(std::mem::replace(next, *next + usize::from(*kept)))).collect();
        self.outages.retain_mut(|outage| {
            let stays = kept[outage.node];
            outage.node = number[outage.node];
            stays
        });
        let mut at = 0;
        self.nodes.retain(|_| {
            at += 1;
            kept[at - 1]
        });
        if per_cent < 100 {
            self.notes.push(format!("{} of {all} nodes", self.nodes.len()));
        }
    }
}

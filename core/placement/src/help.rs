//! The smallest changes that would place a pod that nobody can have: each changes one thing on one node, or on any of several.

use crate::class::EXTENDED;
use crate::filter::{Code, Verdict, affinity_allows, lacks, tolerates};
use crate::pool::{NodeId, PodId, Pool};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One change that would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Help {
    /// So much more of resources on one of these nodes: name and amount (`cpu` in thousandths).
    Room(Vec<(Arc<str>, i64)>, Vec<Arc<str>>),
    /// These pods gone from the node.
    Evict(Vec<model::Key>, Arc<str>),
    /// These reservations on the node given up.
    Release(Vec<Arc<str>>, Arc<str>),
    /// The taints of one of these nodes tolerated.
    Tolerate(Vec<Arc<str>>),
    /// One of these nodes uncordoned.
    Uncordon(Vec<Arc<str>>),
    /// The node selector or affinity of the pod changed to allow one of these nodes.
    Select(Vec<Arc<str>>),
}

fn some(nodes: &[Arc<str>]) -> String {
    match nodes {
        [one] => format!("node {one}"),
        [first, rest @ ..] => format!("node {first} or any of {} others", rest.len()),
        [] => "no node".to_owned(),
    }
}

impl fmt::Display for Help {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Help::Room(amounts, nodes) => {
                let amount = |(name, amount): &(Arc<str>, i64)| match &**name {
                    "cpu" => format!("{amount}m more cpu"),
                    "memory" | "ephemeral-storage" => format!("{} MiB more {name}", (amount + (1 << 20) - 1) >> 20),
                    _ => format!("{amount} more {name}"),
                };
                let amounts: Vec<String> = amounts.iter().map(amount).collect();
                write!(f, "{} on {}", amounts.join(" and "), some(nodes))
            }
            Help::Evict(pods, node) => {
                let pods: Vec<String> = pods.iter().map(ToString::to_string).collect();
                write!(f, "evicting {} from node {node}", pods.join(", "))
            }
            Help::Release(names, node) => write!(f, "releasing reservation {} on node {node}", names.join(", ")),
            Help::Tolerate(nodes) => write!(f, "tolerating the taints of {}", some(nodes)),
            Help::Uncordon(nodes) => write!(f, "uncordoning {}", some(nodes)),
            Help::Select(nodes) => write!(f, "a node selector and affinity that allow {}", some(nodes)),
        }
    }
}

/// What is lacking where: the greatest share of a resource, the amounts, and the nodes on which just these are lacking.
type Room = (f64, Vec<(Arc<str>, i64)>, Vec<Arc<str>>);

/// Nodes named in one answer.
const MOST_NAMED: usize = 100;

impl Pool {
    /// What would place a pod, the smallest change of each sort. Empty when no single change of these sorts would.
    pub fn what_would_help(&mut self, pod: PodId) -> Vec<Help> {
        let class = self.entry(pod).class;
        let evaluation = self.evaluate(pod);
        let around = self.surroundings(class);
        let mut by_code: BTreeMap<Code, Vec<Arc<str>>> = BTreeMap::new();
        let mut room: Option<Room> = None;
        let mut evict: Option<(usize, Vec<PodId>, NodeId)> = None;
        let mut release: Option<(Vec<PodId>, NodeId)> = None;
        for (node, verdict) in &evaluation.verdicts {
            let of = self.class(class);
            // Only nodes on which nothing else is in the way.
            if !around.verdict(&self.columns, *node).is_ok() || !self.only(class, *node, verdict.code) {
                continue;
            }
            let name = self.node_name(*node).clone();
            match verdict.code {
                Code::Resources => {
                    let (share, lacking) = self.lacking(class, *node);
                    match &mut room {
                        Some((least, amounts, nodes)) if *least == share && *amounts == lacking => nodes.push(name),
                        Some((least, ..)) if *least <= share => {}
                        _ => room = Some((share, lacking, vec![name])),
                    }
                    let fewest = evict.as_ref().map_or(usize::MAX, |(count, ..)| *count);
                    if verdict.detail & Verdict::NEVER_FITS == 0
                        && let Some(victims) = self.fewest_to_leave(of, *node).filter(|v| v.len() < fewest)
                    {
                        evict = Some((victims.len(), victims, *node));
                    }
                    if let Some(held) = self.held_in_the_way(of, *node)
                        && release.as_ref().is_none_or(|(fewest, _)| held.len() < fewest.len())
                    {
                        release = Some((held, *node));
                    }
                }
                code => by_code.entry(code).or_default().push(name),
            }
        }
        let mut help = Vec::new();
        help.extend(room.map(|(_, amounts, nodes)| Help::Room(amounts, nodes.into_iter().take(MOST_NAMED).collect())));
        help.extend(evict.map(|(_, victims, node)| {
            Help::Evict(victims.iter().map(|pod| self.pod_key(*pod).clone()).collect(), self.node_name(node).clone())
        }));
        help.extend(release.map(|(held, node)| {
            Help::Release(
                held.iter().map(|held| self.pod_key(*held).name.clone()).collect(),
                self.node_name(node).clone(),
            )
        }));
        for (code, nodes) in by_code {
            let nodes: Vec<Arc<str>> = nodes.into_iter().take(MOST_NAMED).collect();
            match code {
                Code::Taint => help.push(Help::Tolerate(nodes)),
                Code::Cordoned => help.push(Help::Uncordon(nodes)),
                Code::NodeAffinity => help.push(Help::Select(nodes)),
                _ => {}
            }
        }
        help
    }

    /// Whether a node's refusal has only this one of cordon, taints, affinity and resources as its cause.
    fn only(&self, class: u32, node: NodeId, code: Code) -> bool {
        let of = self.class(class);
        let facts = &self.nodes[node as usize].facts;
        let causes = [
            (Code::Cordoned, facts.unschedulable),
            (Code::Taint, !tolerates(of.spec(), &facts.taints)),
            (Code::NodeAffinity, !affinity_allows(of.spec(), facts)),
            (Code::Resources, lacks(&of.requests, &self.hot[node as usize], &self.nodes[node as usize].extended) != 0),
        ];
        causes.iter().all(|(cause, holds)| *cause == code || !holds) && causes.iter().any(|(cause, _)| *cause == code)
    }

    /// What a node lacks, and the sum of its shares of what the class asks for.
    fn lacking(&self, class: u32, node: NodeId) -> (f64, Vec<(Arc<str>, i64)>) {
        let requests = &self.class(class).requests;
        let hot = &self.hot[node as usize];
        let (mut share, mut lacking) = (0.0, Vec::new());
        let mut add = |name: &Arc<str>, request: i64, free: i64| {
            if request > free.max(0) {
                share += (request - free) as f64 / request as f64;
                lacking.push((name.clone(), request - free));
            }
        };
        for resource in 0..EXTENDED {
            add(&self.resources[resource], requests.base[resource], hot.allocatable[resource] - hot.used[resource]);
        }
        for (resource, request) in &requests.extended {
            let (allocatable, used) =
                self.nodes[node as usize].extended.get(resource - EXTENDED).copied().unwrap_or_default();
            add(&self.resources[*resource], *request, allocatable - used);
        }
        add(&"pods".into(), 1, hot.pods_allowed - hot.pods);
        (share, lacking)
    }

    /// Reservations without which a node would have room: one that does, or all of the node's.
    fn held_in_the_way(&self, class: &crate::class::Class, node: NodeId) -> Option<Vec<PodId>> {
        let here = self.nodes[node as usize].pods.iter().copied();
        let mut held: Vec<PodId> = here.filter(|pod| self.reservations.holds(*pod)).collect();
        held.sort_by_key(|held| self.pod_key(*held).clone());
        let fits_without = |held: &[PodId]| {
            let (mut hot, mut extended) = (self.hot[node as usize], self.nodes[node as usize].extended.clone());
            for requests in held.iter().map(|held| &self.class(self.entry(*held).class).requests) {
                hot.pods -= 1;
                hot.used.iter_mut().zip(requests.base).for_each(|(used, request)| *used -= request);
                for (resource, request) in &requests.extended {
                    extended[resource - EXTENDED].1 -= request;
                }
            }
            lacks(&class.requests, &hot, &extended) == 0
        };
        let one = held.iter().find(|one| fits_without(&[**one])).copied();
        match one {
            Some(one) => Some(vec![one]),
            None if !held.is_empty() && fits_without(&held) => Some(held),
            None => None,
        }
    }

    /// Pods of the least importance whose leaving makes room, whatever their priority.
    fn fewest_to_leave(&self, class: &crate::class::Class, node: NodeId) -> Option<Vec<PodId>> {
        self.victims_below(class, node, i64::from(i32::MAX) + 1).ok().map(|(_, victims)| victims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Labels;
    use model::scheduling::{NodeFacts, NodeScheduling, PodFacts, SchedulingSpec};
    use model::taint::{Taint, TaintEffect};

    fn pod(pool: &mut Pool, name: &str, cpu: i64, node: &str) -> PodId {
        let spec =
            SchedulingSpec { requests: vec![("cpu".into(), cpu)], nominal: (cpu, 0), ..SchedulingSpec::default() };
        let facts = PodFacts {
            namespace: "default".into(),
            name: name.into(),
            uid: name.into(),
            spec: Arc::new(spec),
            node: node.into(),
            ..PodFacts::default()
        };
        pool.set_pod(&facts).0
    }

    #[test]
    fn says_what_is_missing_least() {
        let mut pool = Pool::new();
        for (name, cpu, taint) in [("n1", 4000, false), ("n2", 2000, false), ("n3", 8000, true)] {
            let allocatable = vec![("cpu".into(), cpu), ("pods".into(), 110)];
            pool.set_node(Arc::new(NodeFacts {
                name: name.into(),
                labels: Labels::from([("kubernetes.io/hostname".into(), name.into())]),
                taints: taint.then(|| Taint::new("dedicated", TaintEffect::NoSchedule)).into_iter().collect(),
                unschedulable: false,
                scheduling: Arc::new(NodeScheduling { allocatable, images: Vec::new() }),
            }));
        }
        pod(&mut pool, "a", 2500, "n1");
        let pending = pod(&mut pool, "p", 3000, "");
        let said: Vec<String> = pool.what_would_help(pending).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            ["1000m more cpu on node n2", "evicting default/a from node n1", "tolerating the taints of node n3"]
        );
    }
}

//! Nodes that no longer answer: their conditions become Unknown, they are tainted, and their pods are evicted no faster than is safe.
//!
//! Whether a node answers is told by changes of its lease, timed by the own clock: a node whose clock is wrong is not lost, and after
//! a pause of this control every node has its full grace again.

use crate::control::{Cx, Memory};
use crate::plan::{Plan, Reporter};
use crate::world::World;
use model::cluster::Node;
use model::effect::{Change, Status, Target};
use model::map::HashMap;
use model::taint::{Taint, TaintEffect};
use model::{Condition, Effect, Key, Kind, Timestamp, Truth, condition};
use std::sync::Arc;

const SOURCE: &str = "node-controller";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
/// Conditions that make a NoSchedule taint while they hold.
const CONDITION_TAINTS: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// How often a lost node is looked at while its zone's fate may change.
const LOST_LOOK_MS: i64 = 5_000;
/// A zone with so many of a thousand nodes lost is in partial disruption.
const UNHEALTHY_ZONE_MILLI: usize = 550;
/// A zone of up to so many nodes is not evicted from at all in partial disruption; a larger one at a tenth of the rate.
const LARGE_ZONE: usize = 50;

/// When nodes were last heard of, and when the next one of a zone may be evicted from.
#[derive(Default)]
pub struct Heartbeats {
    heard: HashMap<Arc<str>, Timestamp>,
    next_eviction: HashMap<(Arc<str>, Arc<str>), Timestamp>,
}

impl Heartbeats {
    /// The node was heard of.
    pub fn hear(&mut self, node: &Arc<str>, now: Timestamp) {
        self.heard.insert(node.clone(), now);
    }
    /// The node is gone.
    pub fn forget(&mut self, node: &str) {
        self.heard.remove(node);
    }
}

fn ready(node: &Node) -> Truth {
    condition::find(&node.conditions, "Ready").map_or(Truth::Unknown, |condition| condition.status)
}

/// Whether a change of a node was made by its agent: it says how it is, anew or otherwise than before. (What this control writes
/// about a lost node is Unknown.)
pub fn speaks(old: Option<&Node>, new: &Node) -> bool {
    let word = |node: &Node| {
        condition::find(&node.conditions, "Ready")
            .filter(|c| c.status != Truth::Unknown)
            .map(|c| (c.status, c.last_update))
    };
    word(new).is_some() && old.and_then(word) != word(new)
}

/// Whether nobody can tell how the node is.
pub fn is_lost(node: &Node) -> bool {
    ready(node) == Truth::Unknown
}

/// How a node is, as far as its agent has said. A Ready condition that is older than the node object by more than the grace, with no lease
/// behind it, was said by nobody who runs the node here (somebody made the object with it): it keeps no pods out.
fn told(cx: &Cx, node: &Node) -> Truth {
    let said = condition::find(&node.conditions, "Ready");
    let before = |c: &Condition| {
        c.last_update > Timestamp::default() && c.last_update.plus_ms(cx.config.node_grace_ms) < node.meta.created
    };
    let renewed = || cx.world.leases.contains_key(&Key::new(crate::control::NODE_LEASES, node.meta.key.name.clone()));
    match said {
        Some(c) if c.status == Truth::False && before(c) && !renewed() => Truth::True,
        _ => ready(node),
    }
}

/// Looks at one node.
pub fn reconcile(cx: &Cx, memory: &mut Memory, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = cx.world.nodes.get(key) else {
        memory.nodes.forget(&key.name);
        return plan;
    };
    if !cx.world.all_synced(&[Kind::Node, Kind::Lease]) {
        return plan;
    }
    let heard = *memory.nodes.heard.entry(key.name.clone()).or_insert(cx.now);
    let until = heard.plus_ms(cx.config.node_grace_ms);
    if cx.now < until {
        plan.look_again(until);
    } else if ready(node) != Truth::Unknown || condition::find(&node.conditions, "Ready").is_none() {
        lose(cx, node, &mut plan);
        return plan;
    }
    let wanted = taints(cx, memory, node, &mut plan);
    if wanted != node.taints {
        plan.update(Kind::Node, &node.meta, Change::Taints(wanted));
    }
    if told(cx, node) != Truth::True {
        unready_pods(cx, node, &mut plan);
    }
    plan
}

/// Writes Unknown into the conditions that the node's agent would write.
fn lose(cx: &Cx, node: &Node, plan: &mut Plan) {
    let mut lost = Vec::new();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match condition::find(&node.conditions, kind) {
            None => {
                let text = "Kubelet never posted node status.";
                let mut new = Condition::new(kind, Truth::Unknown, "NodeStatusNeverUpdated", text, cx.now);
                new.last_update = node.meta.created;
                lost.push(new);
            }
            Some(old) if old.status != Truth::Unknown => {
                let text = "Kubelet stopped posting node status.";
                let mut new = Condition::new(kind, Truth::Unknown, "NodeStatusUnknown", text, cx.now);
                new.last_update = old.last_update;
                lost.push(new);
            }
            Some(_) => {}
        }
    }
    plan.status(Kind::Node, &node.meta, Status::NodeConditions(lost));
    let report = Reporter::new(SOURCE, Kind::Node, &node.meta, cx.now);
    let text = format!("Node {} status is now: NodeNotReady", node.meta.key.name);
    plan.note(report.normal("NodeNotReady", text));
}

/// Pods on a node that is not ready take no traffic, whatever they last said of themselves.
fn unready_pods(cx: &Cx, node: &Node, plan: &mut Plan) {
    for pod in cx.world.pods_on(&node.meta.key.name).filter(|pod| pod.is_ready()) {
        let mut conditions = vec![Condition::new("Ready", false, "NodeNotReady", "Node is not ready", cx.now)];
        if let Some(old) = condition::find(&pod.status.conditions, "Ready") {
            conditions[0].last_update = old.last_update;
        }
        let status = Status::PodConditions { conditions, nominated_node: None };
        plan.push(Effect::PatchStatus(Target::exactly(Kind::Pod, &pod.meta), status));
    }
}

/// The taints that the node is to have: foreign ones as they are, own ones by its conditions.
fn taints(cx: &Cx, memory: &mut Memory, node: &Node, plan: &mut Plan) -> Vec<Taint> {
    let mut wanted: Vec<Taint> = Vec::new();
    if node.unschedulable {
        wanted.push(Taint::new("node.kubernetes.io/unschedulable", TaintEffect::NoSchedule));
    }
    for (kind, key) in CONDITION_TAINTS {
        if condition::find(&node.conditions, kind).is_some_and(|condition| condition.status == Truth::True) {
            wanted.push(Taint::new(key, TaintEffect::NoSchedule));
        }
    }
    let state = match told(cx, node) {
        Truth::True => None,
        Truth::False => Some(NOT_READY),
        Truth::Unknown => Some(UNREACHABLE),
    };
    if let Some(key) = state {
        wanted.push(Taint::new(key, TaintEffect::NoSchedule));
        let evicting = Taint::new(key, TaintEffect::NoExecute);
        let states = zone_states(cx.world);
        plan.look_again(cx.now.plus_ms(LOST_LOOK_MS));
        let had = node
            .taints
            .iter()
            .any(|t| t.effect == TaintEffect::NoExecute && matches!(&*t.key, NOT_READY | UNREACHABLE));
        // Master disruption mode: with every node lost evicting helps nobody, and what was begun is taken back.
        let all_lost = states.values().all(|state| *state == ZoneState::Full);
        if !all_lost && (had || may_evict(cx, memory, node, &states, plan)) {
            wanted.push(evicting);
        }
    }
    let mut result: Vec<Taint> = Vec::new();
    for old in &node.taints {
        let own = is_own(old);
        if !own || wanted.iter().any(|taint| taint.same(old)) {
            result.push(old.clone());
        }
    }
    for mut taint in wanted {
        if !result.iter().any(|old| old.same(&taint)) {
            taint.added = Some(cx.now);
            result.push(taint);
        }
    }
    result
}

fn is_own(taint: &Taint) -> bool {
    let by_state = matches!(&*taint.key, NOT_READY | UNREACHABLE);
    let by_condition = CONDITION_TAINTS.iter().any(|(_, key)| **key == *taint.key)
        || &*taint.key == "node.kubernetes.io/unschedulable";
    by_state && taint.effect != TaintEffect::PreferNoSchedule || by_condition && taint.effect == TaintEffect::NoSchedule
}

fn zone(node: &Node) -> (Arc<str>, Arc<str>) {
    let label = |key: &str| node.meta.labels.get(key).cloned().unwrap_or_default();
    (label(REGION), label(ZONE))
}

/// How a zone fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZoneState {
    Normal,
    /// More than half is lost.
    Partial(usize),
    /// Everything is lost: more likely the own connection than all of the nodes.
    Full,
}

type ZoneStates = HashMap<(Arc<str>, Arc<str>), ZoneState>;

fn zone_states(world: &World) -> ZoneStates {
    let mut counts: HashMap<(Arc<str>, Arc<str>), (usize, usize)> = HashMap::default();
    for node in world.nodes.values() {
        let (total, lost) = counts.entry(zone(node)).or_default();
        *total += 1;
        *lost += usize::from(ready(node) != Truth::True);
    }
    let judge = |(total, lost): (usize, usize)| {
        if lost == total {
            ZoneState::Full
        } else if lost > 2 && lost * 1000 >= total * UNHEALTHY_ZONE_MILLI {
            ZoneState::Partial(total)
        } else {
            ZoneState::Normal
        }
    };
    counts.into_iter().map(|(zone, counts)| (zone, judge(counts))).collect()
}

/// Whether this node may be evicted from now; if it has to wait its turn, says when.
fn may_evict(cx: &Cx, memory: &mut Memory, node: &Node, states: &ZoneStates, plan: &mut Plan) -> bool {
    let zone = zone(node);
    let milli_per_s = match states.get(&zone) {
        Some(ZoneState::Partial(total)) if *total <= LARGE_ZONE => 0,
        Some(ZoneState::Partial(_)) => cx.config.node_eviction_milli_per_s / 10,
        _ => cx.config.node_eviction_milli_per_s,
    };
    if milli_per_s <= 0 {
        return false;
    }
    let next = memory.nodes.next_eviction.entry(zone).or_insert(cx.now);
    if cx.now < *next {
        plan.look_again(*next);
        return false;
    }
    *next = cx.now.plus_ms(1_000_000 / milli_per_s);
    true
}

//! `/diolkos/v1/pool`: nodes with what they have, what is asked of them and what is used.

use super::State;
use control::Control;
use model::cluster::Node;
use model::scheduling::Amounts;
use model::{Key, Phase, Pod, Timestamp, Truth, condition};
use serde_json::{Value, json};
use std::sync::Arc;

/// The pool's sums at one time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Point {
    at_s: i64,
    cpu: Amount,
    memory: Amount,
}

/// Of one resource: `cpu` in thousandths of a core, memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    used: Option<i64>,
    requested: i64,
    allocatable: i64,
}

impl Amount {
    fn add(&mut self, more: Amount) {
        self.used = match (self.used, more.used) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        self.requested += more.requested;
        self.allocatable += more.allocatable;
    }
}

fn of(amounts: &Amounts, name: &str) -> i64 {
    amounts.iter().find(|(resource, _)| &**resource == name).map_or(0, |(_, amount)| *amount)
}

fn is_ready(node: &Node) -> bool {
    condition::find(&node.conditions, "Ready").is_some_and(|condition| condition.status == Truth::True)
}

/// Pods that take up the node's room.
fn holding<'a>(control: &'a Control, node: &'a Node) -> impl Iterator<Item = &'a Arc<Pod>> {
    control.world().pods_on(&node.meta.key.name).filter(|pod| !pod.status.phase.is_terminal())
}

fn amounts(control: &Control, node: &Node) -> (Amount, Amount) {
    let sample = control.usage().node(&node.meta.key.name).and_then(|used| used.history.back().copied());
    let requested = |name: &str| holding(control, node).map(|pod| of(&pod.spec.scheduling.requests, name)).sum();
    let cpu = Amount {
        used: sample.map(|sample| (sample.cpu_nano / 1_000_000) as i64),
        requested: requested("cpu"),
        allocatable: of(&node.scheduling.allocatable, "cpu"),
    };
    let memory = Amount {
        used: sample.map(|sample| sample.memory_bytes as i64),
        requested: requested("memory"),
        allocatable: of(&node.scheduling.allocatable, "memory"),
    };
    (cpu, memory)
}

/// The sums now.
pub fn point(control: &Control, now: Timestamp) -> Point {
    let mut point = Point { at_s: now.secs(), ..Point::default() };
    for node in control.world().nodes.values() {
        let (cpu, memory) = amounts(control, node);
        point.cpu.add(cpu);
        point.memory.add(memory);
    }
    point
}

fn describe(control: &Control, state: &State, node: &Node, now: Timestamp) -> Value {
    let (cpu, memory) = amounts(control, node);
    let mut reasons: Vec<String> =
        node.conditions
            .iter()
            .filter(|condition| (&*condition.kind == "Ready") != (condition.status == Truth::True))
            .filter(|condition| &*condition.kind == "Ready" || condition.status == Truth::True)
            .map(|condition| {
                if condition.message.is_empty() { condition.reason.to_string() } else { condition.message.to_string() }
            })
            .collect();
    reasons.extend(node.taints.iter().map(|taint| format!("taint {taint}")));
    json!({
        "name": &*node.meta.key.name,
        "ready": is_ready(node),
        "cordoned": node.unschedulable,
        "reasons": reasons,
        "cpu": { "used_m": cpu.used, "requested_m": cpu.requested, "allocatable_m": cpu.allocatable },
        "memory": { "used": memory.used, "requested": memory.requested, "allocatable": memory.allocatable },
        "pods": holding(control, node).count(),
        "max_pods": of(&node.scheduling.allocatable, "pods"),
        "version": state.versions.get(&node.meta.key.name),
        "age_s": now.since_ms(node.meta.created) / 1000,
    })
}

/// The answer.
pub fn answer(control: &Control, state: &State, now: Timestamp) -> Value {
    let world = control.world();
    let nodes: Vec<Value> = world.nodes.values().map(|node| describe(control, state, node, now)).collect();
    let alive = world.pods.values().filter(|pod| !pod.status.phase.is_terminal());
    let (mut pods, mut pending) = (0, 0);
    for pod in alive {
        pods += 1;
        pending += usize::from(pod.status.phase == Phase::Pending);
    }
    let ready = world.nodes.iter().filter(|(_, node): &(&Key, &Arc<Node>)| is_ready(node)).count();
    let series = |value: fn(&Point) -> Option<i64>| -> Vec<Option<i64>> { state.history.iter().map(value).collect() };
    json!({
        "nodes": nodes,
        "totals": { "pods": pods, "pending": pending, "nodes": world.nodes.len(), "ready": ready },
        "history": {
            "at_s": series(|p| Some(p.at_s)),
            "cpu_used_m": series(|p| p.cpu.used),
            "cpu_requested_m": series(|p| Some(p.cpu.requested)),
            "cpu_allocatable_m": series(|p| Some(p.cpu.allocatable)),
            "memory_used": series(|p| p.memory.used),
            "memory_requested": series(|p| Some(p.memory.requested)),
            "memory_allocatable": series(|p| Some(p.memory.allocatable)),
        },
    })
}

//! ReplicaSet: so many pods of one kind; and ReplicationController, which is the same in the core group.

use crate::control::Cx;
use crate::plan::{Plan, Reporter};
use crate::world::controller_ref;
use crate::{adoption, names};
use model::effect::{Body, NewMeta, NewPod, Propagation, Status};
use model::map::HashMap;
use model::workload::ReplicaSetStatus;
use model::{Condition, Key, Kind, Phase, Pod, ReplicaSet, Timestamp, Truth, condition};
use std::cmp::Ordering;
use std::sync::Arc;

/// Pods with lower values of this annotation go first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Looks at one replica set or replication controller.
pub fn reconcile(cx: &Cx, kind: Kind, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = cx.world.replicas(kind, key) else { return plan };
    if !cx.world.all_synced(&[Kind::Pod, kind]) {
        return plan;
    }
    let active = adoption::pods(cx.world, (kind, &set.meta), &set.selector, Pod::is_active, &mut plan);
    plan.cost = active.len();
    let mut failure = None;
    if !set.meta.is_deleting() {
        failure = manage(cx, kind, set, &active, &mut plan);
    }
    let status = status(cx, set, &active, failure, &mut plan);
    if status != set.status {
        plan.status(kind, &set.meta, Status::ReplicaSet(status));
    }
    plan
}

/// Who its events come from.
fn source(kind: Kind) -> &'static str {
    if kind == Kind::ReplicationController { "replication-controller" } else { "replicaset-controller" }
}

/// Makes or deletes pods until their number is right. Returns why making failed the last time, when it has to be tried again.
fn manage(cx: &Cx, kind: Kind, set: &ReplicaSet, active: &[Arc<Pod>], plan: &mut Plan) -> Option<Condition> {
    let report = Reporter::new(source(kind), kind, &set.meta, cx.now);
    let missing = i64::from(set.replicas) - active.len() as i64;
    if missing > 0 {
        let count = (missing as usize).min(cx.burst);
        for index in 0..count {
            let meta = new_pod_meta(cx, kind, set, index);
            let note = report.normal("SuccessfulCreate", format!("Created pod: {}", meta.key.name));
            plan.create(meta, Body::Pod(Box::new(NewPod { template: set.template.body.clone(), ..NewPod::default() })))
                .note(note);
        }
        let refusal = cx.refusal?;
        plan.record(report.warning("FailedCreate", format!("Error creating: {}", refusal.message)));
        Some(Condition::new("ReplicaFailure", true, "FailedCreate", refusal.message.clone(), cx.now))
    } else {
        for pod in surplus(cx, set, active, (-missing) as usize) {
            let note = report.normal("SuccessfulDelete", format!("Deleted pod: {}", pod.meta.key.name));
            plan.delete(Kind::Pod, &pod.meta, Propagation::Default).note(note);
        }
        None
    }
}

fn new_pod_meta(cx: &Cx, kind: Kind, set: &ReplicaSet, index: usize) -> NewMeta {
    let base = format!("{}-", set.meta.key.name);
    NewMeta {
        key: Key {
            namespace: set.meta.key.namespace.clone(),
            name: names::generated(&base, cx.seed ^ ((index as u64) << 40)),
        },
        generate_name: base.into(),
        labels: set.template.labels.clone(),
        annotations: set.template.annotations.clone(),
        owners: vec![controller_ref(kind, &set.meta)],
        finalizers: Vec::new(),
    }
}

/// The `count` pods that are missed least.
fn surplus<'a>(cx: &Cx, set: &ReplicaSet, active: &'a [Arc<Pod>], count: usize) -> Vec<&'a Arc<Pod>> {
    if count == 0 {
        return Vec::new();
    }
    let mut pods: Vec<&Arc<Pod>> = active.iter().collect();
    if count < pods.len() {
        let crowd = crowd(cx, set);
        pods.sort_by(|a, b| {
            let rank = |pod: &Pod| crowd.get(&pod.spec.node_name).copied().unwrap_or(0);
            deletion_order((a, rank(a)), (b, rank(b)), cx.now).then_with(|| a.meta.key.cmp(&b.meta.key))
        });
    }
    pods.truncate(count);
    pods
}

/// For each node, the active pods on it of this set and of its siblings under the same deployment.
fn crowd(cx: &Cx, set: &ReplicaSet) -> HashMap<Arc<str>, u32> {
    let mut crowd: HashMap<Arc<str>, u32> = HashMap::default();
    let siblings: Vec<Arc<str>> = match set.meta.controller() {
        Some(owner) => cx
            .world
            .dependents_of(&owner.uid, Kind::ReplicaSet)
            .filter_map(|key| cx.world.replica_sets.get(key))
            .map(|sibling| sibling.meta.uid.clone())
            .collect(),
        None => vec![set.meta.uid.clone()],
    };
    for uid in siblings {
        for pod in cx.world.controlled_pods(&uid).filter(|pod| pod.is_active()) {
            *crowd.entry(pod.spec.node_name.clone()).or_default() += 1;
        }
    }
    crowd
}

/// Whether `a` is deleted before `b`: upstream's ActivePodsWithRanks, criterion by criterion. The number is how many related
/// pods share its node.
pub fn deletion_order(a: (&Pod, u32), b: (&Pod, u32), now: Timestamp) -> Ordering {
    let ((a, rank_a), (b, rank_b)) = (a, b);
    let assigned = |pod: &Pod| !pod.spec.node_name.is_empty();
    let phase = |pod: &Pod| match pod.status.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        _ => 2,
    };
    let cost = |pod: &Pod| pod.meta.annotation(DELETION_COST).and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
    let first = assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.is_ready().cmp(&b.is_ready()))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank_b.cmp(&rank_a));
    first
        .then_with(|| {
            if a.is_ready() && b.is_ready() { age_order(ready_since(a), ready_since(b), now) } else { Ordering::Equal }
        })
        .then_with(|| b.restarts().cmp(&a.restarts()))
        .then_with(|| age_order(Some(a.meta.created), Some(b.meta.created), now))
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition::find(&pod.status.conditions, "Ready").filter(|c| c.status == Truth::True).map(|c| c.last_transition)
}

/// Younger first, in buckets of doubling age, so that pods of about the same age are told apart by what comes after.
fn age_order(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let bucket = |at: Timestamp| (now.since_ms(at).max(0) as u64 / 1000 + 1).ilog2();
    match (a, b) {
        (Some(a), Some(b)) => bucket(a).cmp(&bucket(b)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

fn status(
    cx: &Cx,
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    failure: Option<Condition>,
    plan: &mut Plan,
) -> ReplicaSetStatus {
    let mut status = ReplicaSetStatus {
        replicas: active.len() as i32,
        observed_generation: set.meta.generation,
        conditions: set.status.conditions.clone(),
        ..ReplicaSetStatus::default()
    };
    for pod in active {
        if set.template.labels.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value)) {
            status.fully_labeled += 1;
        }
        if pod.is_ready() {
            status.ready += 1;
            match pod.available(set.min_ready_s, cx.now) {
                Ok(true) => status.available += 1,
                Ok(false) => {}
                Err(at) => {
                    plan.look_again(at);
                }
            }
        }
    }
    match failure {
        Some(failure) => {
            condition::set(&mut status.conditions, failure);
        }
        None => status.conditions.retain(|condition| &*condition.kind != "ReplicaFailure"),
    }
    status
}

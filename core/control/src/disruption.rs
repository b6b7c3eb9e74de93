//! PodDisruptionBudgets: how many pods may be evicted now.

use crate::control::Cx;
use crate::plan::{Plan, Reporter};
use crate::world::World;
use model::condition::Amount;
use model::effect::Status;
use model::map::HashMap;
use model::policy::{DisruptionStatus, PodDisruptionBudget};
use model::{Condition, Key, Kind, Pod, Timestamp, condition};
use std::sync::Arc;

const SOURCE: &str = "controllermanager";
/// A granted eviction that did not happen within this time counts no more.
const EVICTION_WITHIN_MS: i64 = 120_000;

/// Looks at one budget.
pub fn reconcile(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(budget) = cx.world.disruption_budgets.get(key) else { return plan };
    if !cx.world.all_synced(&[
        Kind::Pod,
        Kind::ReplicaSet,
        Kind::ReplicationController,
        Kind::Deployment,
        Kind::StatefulSet,
    ]) {
        return plan;
    }
    // Ended pods are no part of what a budget guards.
    let pods: Vec<&Arc<Pod>> =
        cx.world.guarded_by(budget).into_iter().filter(|pod| !pod.status.phase.is_terminal()).collect();
    plan.cost = pods.len();
    let mut status = match expectation(cx.world, budget, &pods) {
        Ok((expected, desired)) => count(cx, budget, &pods, expected, desired, &mut plan),
        Err(message) => {
            let report = Reporter::new(SOURCE, Kind::PodDisruptionBudget, &budget.meta, cx.now);
            plan.record(report.warning(
                "CalculateExpectedPodCountFailed",
                format!("Failed to calculate the number of expected pods: {message}"),
            ));
            let mut status = budget.status.clone();
            status.allowed = 0;
            let condition = Condition::new("DisruptionAllowed", false, "SyncFailed", message, cx.now);
            condition::set(&mut status.conditions, condition);
            status
        }
    };
    status.observed_generation = budget.meta.generation;
    if status != budget.status {
        plan.status(Kind::PodDisruptionBudget, &budget.meta, Status::Disruption(status));
    }
    plan
}

/// Pods that there should be, and how many of them must be healthy.
fn expectation(world: &World, budget: &PodDisruptionBudget, pods: &[&Arc<Pod>]) -> Result<(i32, i32), String> {
    if let Some(Amount::Number(min)) = budget.min_available
        && budget.max_unavailable.is_none()
    {
        return Ok((pods.len() as i32, min));
    }
    let expected = scale_of_controllers(world, pods)?;
    let desired = match (budget.max_unavailable, budget.min_available) {
        (Some(max), _) => (expected - max.of(expected, true)).max(0),
        (None, Some(min)) => min.of(expected, true),
        (None, None) => 0,
    };
    Ok((expected, desired))
}

/// The desired numbers of all controllers that own the pods, summed. A Deployment speaks for its replica sets.
fn scale_of_controllers(world: &World, pods: &[&Arc<Pod>]) -> Result<i32, String> {
    let mut scales: HashMap<Arc<str>, i32> = HashMap::default();
    for pod in pods {
        let Some(owner) = pod.meta.controller() else { continue };
        if scales.contains_key(&owner.uid) {
            continue;
        }
        let (uid, scale) = scale(world, &owner.uid)
            .ok_or_else(|| format!("found no controllers for pod \"{}\"", pod.meta.key.name))?;
        scales.insert(owner.uid.clone(), 0);
        scales.insert(uid, scale);
    }
    Ok(scales.values().sum())
}

fn scale(world: &World, uid: &str) -> Option<(Arc<str>, i32)> {
    let (kind, key) = world.by_uid(uid)?;
    match kind {
        Kind::ReplicaSet => {
            let set = world.replica_sets.get(key)?;
            let deployment = set.meta.controller().and_then(|owner| world.by_uid(&owner.uid));
            match deployment {
                Some((Kind::Deployment, key)) => {
                    let deployment = world.deployments.get(key)?;
                    Some((deployment.meta.uid.clone(), deployment.replicas))
                }
                _ => Some((set.meta.uid.clone(), set.replicas)),
            }
        }
        Kind::ReplicationController => world.replicas(*kind, key).map(|set| (set.meta.uid.clone(), set.replicas)),
        Kind::StatefulSet => world.stateful_sets.get(key).map(|set| (set.meta.uid.clone(), set.replicas)),
        _ => None,
    }
}

fn count(
    cx: &Cx,
    budget: &PodDisruptionBudget,
    pods: &[&Arc<Pod>],
    expected: i32,
    desired: i32,
    plan: &mut Plan,
) -> DisruptionStatus {
    let mut disrupted: Vec<(Arc<str>, Timestamp)> = Vec::new();
    for (name, at) in &budget.status.disrupted {
        let pending = pods.iter().any(|pod| pod.meta.key.name == *name && !pod.meta.is_deleting());
        let until = at.plus_ms(EVICTION_WITHIN_MS);
        if pending && cx.now < until {
            plan.look_again(until);
            disrupted.push((name.clone(), *at));
        }
    }
    let counted = |pod: &Pod| disrupted.iter().any(|(name, _)| *name == pod.meta.key.name);
    let healthy = pods.iter().filter(|pod| pod.is_ready() && !pod.meta.is_deleting() && !counted(pod)).count() as i32;
    let allowed = if expected == 0 { 0 } else { (healthy - desired).max(0) };
    let mut conditions = budget.status.conditions.clone();
    let condition = if allowed > 0 {
        Condition::new("DisruptionAllowed", true, "SufficientPods", "", cx.now)
    } else {
        Condition::new("DisruptionAllowed", false, "InsufficientPods", "", cx.now)
    };
    condition::set(&mut conditions, condition);
    DisruptionStatus { observed_generation: 0, disrupted, allowed, current: healthy, desired, expected, conditions }
}

//! Pods that nobody else removes: bound to nodes that do not exist, deleted before they were bound, and ended ones beyond a number.

use crate::control::Cx;
use crate::plan::{Plan, Reporter};
use model::effect::{Propagation, Target};
use model::{Effect, Key, Kind, Pod};
use std::sync::Arc;

const SOURCE: &str = "pod-garbage-collector";
/// How often ended pods are counted.
const COUNT_EVERY_MS: i64 = 20_000;

/// Looks at one pod; the empty key stands for all ended ones.
pub fn reconcile(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    if key.name.is_empty() {
        ended(cx, &mut plan);
        return plan;
    }
    let Some(pod) = cx.world.pods.get(key) else { return plan };
    if pod.spec.node_name.is_empty() {
        if pod.meta.is_deleting() {
            force(pod, &mut plan);
        }
        return plan;
    }
    if !cx.world.is_synced(Kind::Node) || cx.world.nodes.contains_key(&Key::new("", pod.spec.node_name.clone())) {
        return plan;
    }
    // The node may be about to register: a pod that is younger than the quarantine waits.
    let until = pod.meta.created.plus_ms(cx.config.orphan_quarantine_ms);
    if cx.now < until && !pod.meta.is_deleting() {
        plan.look_again(until);
        return plan;
    }
    let report = Reporter::new(SOURCE, Kind::Pod, &pod.meta, cx.now);
    force(pod, &mut plan);
    plan.note(report.normal("PodGC", format!("PodGC: node {} no longer exists", pod.spec.node_name)));
    plan
}

fn force(pod: &Pod, plan: &mut Plan) {
    let target = Target::any_version(Kind::Pod, &pod.meta);
    plan.push(Effect::Delete { target, grace_s: Some(0), propagation: Propagation::Default });
}

fn ended(cx: &Cx, plan: &mut Plan) {
    plan.look_again(cx.now.plus_ms(COUNT_EVERY_MS));
    let mut ended: Vec<&Arc<Pod>> =
        cx.world.pods.values().filter(|pod| pod.status.phase.is_terminal() && !pod.meta.is_deleting()).collect();
    let surplus = ended.len().saturating_sub(cx.config.terminated_pods_max);
    if surplus == 0 {
        return;
    }
    ended.sort_by(|a, b| (a.meta.created, &a.meta.key).cmp(&(b.meta.created, &b.meta.key)));
    for pod in ended.into_iter().take(surplus) {
        force(pod, plan);
    }
}

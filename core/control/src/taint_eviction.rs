//! Pods on nodes with NoExecute taints: those that do not tolerate them go, at once or when their toleration runs out.

use crate::control::Cx;
use crate::plan::{Plan, Reporter};
use model::cluster::Node;
use model::effect::{Propagation, Status, Target};
use model::taint::{Taint, TaintEffect, Toleration};
use model::{Condition, Effect, Key, Kind, Timestamp};

const SOURCE: &str = "taint-eviction-controller";

/// Whether a node has a taint that evicts.
pub fn evicts(node: &Node) -> bool {
    node.taints.iter().any(|taint| taint.effect == TaintEffect::NoExecute)
}

/// When a pod with these tolerations has to go because of these taints; None: never.
pub fn deadline(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == TaintEffect::NoExecute) {
        // Of several tolerations for one taint the shortest counts, as upstream takes the minimum over all that are used.
        let matching: Vec<&Toleration> = tolerations.iter().filter(|toleration| toleration.tolerates(taint)).collect();
        if matching.is_empty() {
            return Some(now);
        }
        let Some(seconds) = matching.iter().filter_map(|toleration| toleration.seconds).min() else { continue };
        let at = taint.added.unwrap_or(now).plus_ms(seconds.clamp(0, i64::from(i32::MAX)) * 1000);
        earliest = Some(earliest.map_or(at, |other| other.min(at)));
    }
    earliest
}

/// Looks at one pod.
pub fn reconcile(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = cx.world.pods.get(key).filter(|pod| !pod.meta.is_deleting() && !pod.spec.node_name.is_empty())
    else {
        return plan;
    };
    let Some(node) = cx.world.nodes.get(&Key::new("", pod.spec.node_name.clone())) else { return plan };
    let Some(at) = deadline(&node.taints, &pod.spec.tolerations, cx.now) else { return plan };
    if at > cx.now {
        plan.look_again(at);
        return plan;
    }
    let text = "Taint manager: deleting due to NoExecute taint";
    let condition = Condition::new("DisruptionTarget", true, "DeletionByTaintManager", text, cx.now);
    let status = Status::PodConditions { conditions: vec![condition], nominated_node: None };
    plan.push(Effect::PatchStatus(Target::any_version(Kind::Pod, &pod.meta), status));
    let report = Reporter::new(SOURCE, Kind::Pod, &pod.meta, cx.now);
    plan.delete(Kind::Pod, &pod.meta, Propagation::Default);
    plan.note(report.normal("TaintManagerEviction", format!("Marking for deletion Pod {key}")));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines() {
        let now = Timestamp::from_secs(1000);
        let mut taint = Taint::new("node.kubernetes.io/unreachable", TaintEffect::NoExecute);
        taint.added = Some(Timestamp::from_secs(900));
        let forever = Toleration::exists("node.kubernetes.io/unreachable", TaintEffect::NoExecute);
        let some_time = |seconds| Toleration { seconds: Some(seconds), ..forever.clone() };
        let other = Taint::new("other", TaintEffect::NoExecute);
        let soft = Taint::new("soft", TaintEffect::NoSchedule);
        for (taints, tolerations, expect) in [
            (vec![], vec![], None),
            (vec![soft], vec![], None),
            (vec![taint.clone()], vec![], Some(now)),
            (vec![taint.clone()], vec![forever.clone()], None),
            (vec![taint.clone()], vec![some_time(300)], Some(Timestamp::from_secs(1200))),
            (vec![taint.clone()], vec![some_time(300), some_time(50)], Some(Timestamp::from_secs(950))),
            (vec![taint, other], vec![forever], Some(now)),
        ] {
            assert_eq!(deadline(&taints, &tolerations, now), expect, "{taints:?} {tolerations:?}");
        }
    }
}

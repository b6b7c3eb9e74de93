//! HorizontalPodAutoscaler: replicas by measured CPU and memory, with upstream's damping and wording.

use crate::control::{Cx, Memory};
use crate::plan::{Plan, Reporter};
use model::effect::{Change, Status, Target};
use model::policy::{AutoscalerStatus, HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget};
use model::{Condition, Effect, Key, Kind, LabelSelector, Meta, Phase, Pod, Timestamp, Truth, condition};
use scaling::{Demand, MetricReading, PodReading, Reading};
use std::collections::VecDeque;
use std::sync::Arc;

const SOURCE: &str = "horizontal-pod-autoscaler";
/// CPU of a pod that is younger is not believed until it has been ready.
const CPU_INITIALIZATION_MS: i64 = 300_000;
/// A pod that was never ready is unready only for so long after its start.
const INITIAL_READINESS_MS: i64 = 30_000;
/// Default stabilization of shrinking.
const DOWN_STABILIZATION_S: i32 = 300;
/// A measurement that is older counts as missing.
const STALE_MS: i64 = 60_000;
/// Longest window that behaviour may ask for.
const HISTORY_MS: i64 = 3_600_000;

/// What an autoscaler remembers.
#[derive(Default)]
pub struct History {
    /// Recommendations: when, how many.
    recommendations: VecDeque<(Timestamp, i32)>,
    /// Changes: when, by how many.
    changes: VecDeque<(Timestamp, i32)>,
}

impl History {
    fn forget(&mut self, now: Timestamp) {
        let since = now.plus_ms(-HISTORY_MS);
        self.recommendations.retain(|(at, _)| *at >= since);
        self.changes.retain(|(at, _)| *at >= since);
    }
}

struct TargetView {
    target: Target,
    replicas: i32,
    observed: i32,
    selector: LabelSelector,
}

fn target(cx: &Cx, hpa: &HorizontalPodAutoscaler) -> Option<TargetView> {
    let kind = Kind::parse(&hpa.target_api_version, &hpa.target_kind)?;
    let key = Key { namespace: hpa.meta.key.namespace.clone(), name: hpa.target_name.clone() };
    let view = |meta: &Meta, replicas, observed, selector: &LabelSelector| TargetView {
        target: Target::any_version(kind, meta),
        replicas,
        observed,
        selector: selector.clone(),
    };
    match kind {
        Kind::Deployment => {
            cx.world.deployments.get(&key).map(|d| view(&d.meta, d.replicas, d.status.replicas, &d.selector))
        }
        Kind::ReplicaSet | Kind::ReplicationController => {
            cx.world.replicas(kind, &key).map(|s| view(&s.meta, s.replicas, s.status.replicas, &s.selector))
        }
        Kind::StatefulSet => {
            cx.world.stateful_sets.get(&key).map(|s| view(&s.meta, s.replicas, s.status.replicas, &s.selector))
        }
        _ => None,
    }
}

/// Looks at one autoscaler.
pub fn reconcile(cx: &Cx, memory: &mut Memory, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(hpa) = cx.world.autoscalers.get(key).filter(|hpa| !hpa.meta.is_deleting()) else {
        memory.autoscalers.remove(key);
        return plan;
    };
    if !cx.world.all_synced(&[Kind::Pod, Kind::Deployment, Kind::ReplicaSet, Kind::StatefulSet]) {
        return plan;
    }
    plan.look_again(cx.now.plus_ms(cx.config.autoscaler_period_ms));
    let report = Reporter::new(SOURCE, Kind::HorizontalPodAutoscaler, &hpa.meta, cx.now);
    let mut status = AutoscalerStatus { observed_generation: Some(hpa.meta.generation), ..hpa.status.clone() };
    let set = |status: &mut AutoscalerStatus, kind: &str, truth: bool, reason: &str, message: String| {
        condition::set(&mut status.conditions, Condition::new(kind, truth, reason, message, cx.now));
    };
    match target(cx, hpa) {
        None => {
            let name = &hpa.target_name;
            let text = format!(
                "the HPA controller was unable to get the target's current scale: {} \"{name}\" not found",
                hpa.target_kind
            );
            plan.record(report.warning("FailedGetScale", text.as_str()));
            set(&mut status, "AbleToScale", false, "FailedGetScale", text);
        }
        Some(view) => {
            set(
                &mut status,
                "AbleToScale",
                true,
                "SucceededGetScale",
                "the HPA controller was able to get the target's current scale".into(),
            );
            status.current = view.observed;
            let desired = decide(cx, memory, hpa, &view, &report, &mut status, &mut plan);
            if let Some(desired) = desired {
                status.desired = desired;
                if desired != view.replicas {
                    scale(cx, memory, hpa, &view, desired, &report, &mut status, &mut plan);
                }
            }
        }
    }
    if status != hpa.status {
        plan.status(Kind::HorizontalPodAutoscaler, &hpa.meta, Status::Autoscaler(status));
    }
    plan
}

#[expect(clippy::too_many_arguments, reason = "one step of one look, split off for length")]
fn scale(
    cx: &Cx,
    memory: &mut Memory,
    hpa: &HorizontalPodAutoscaler,
    view: &TargetView,
    desired: i32,
    report: &Reporter,
    status: &mut AutoscalerStatus,
    plan: &mut Plan,
) {
    plan.push(Effect::Update(view.target.clone(), Change::Scale { replicas: desired }));
    let direction = if desired > view.replicas { "above target" } else { "below target" };
    let what = match hpa.metrics.first() {
        Some(MetricSpec::Resource { name, .. }) => {
            format!("{name} resource utilization (percentage of request) {direction}")
        }
        _ => "Current number of replicas outside of the bounds".to_owned(),
    };
    let text = format!("New size: {desired}; reason: {what}");
    plan.note(report.normal("SuccessfulRescale", text));
    let message = format!("the HPA controller was able to update the target scale to {desired}");
    condition::set(&mut status.conditions, Condition::new("AbleToScale", true, "SucceededRescale", message, cx.now));
    status.last_scale = Some(cx.now);
    let history = memory.autoscalers.entry(hpa.meta.key.clone()).or_default();
    history.changes.push_back((cx.now, desired - view.replicas));
}

/// How many replicas there should be; None: leave them.
fn decide(
    cx: &Cx,
    memory: &mut Memory,
    hpa: &HorizontalPodAutoscaler,
    view: &TargetView,
    report: &Reporter,
    status: &mut AutoscalerStatus,
    plan: &mut Plan,
) -> Option<i32> {
    let set = |status: &mut AutoscalerStatus, kind: &str, truth: bool, reason: &str, message: String| {
        condition::set(&mut status.conditions, Condition::new(kind, truth, reason, message, cx.now));
    };
    if view.replicas == 0 && hpa.min_replicas != 0 {
        set(
            status,
            "ScalingActive",
            false,
            "ScalingDisabled",
            "scaling is disabled since the replica count of the target is zero".into(),
        );
        return Some(0);
    }
    if view.replicas > hpa.max_replicas || view.replicas < hpa.min_replicas {
        return Some(view.replicas.clamp(hpa.min_replicas, hpa.max_replicas));
    }
    let pods: Vec<Arc<Pod>> = crate::world::within(&cx.world.pods, &hpa.meta.key.namespace)
        .filter(|pod| view.selector.matches(&pod.meta.labels))
        .cloned()
        .collect();
    let mut best: Option<i32> = None;
    let mut failed: Option<String> = None;
    status.metrics.clear();
    for metric in &hpa.metrics {
        match measure(cx, memory, hpa, view, metric, &pods) {
            Ok((reading, shown)) => {
                best = Some(best.map_or(reading.replicas, |other| other.max(reading.replicas)));
                status.metrics.push(shown);
            }
            Err(why) => failed = Some(why),
        }
    }
    if let Some(why) = failed {
        plan.record(report.warning("FailedGetResourceMetric", why.as_str()));
        // A metric that says nothing may hide that more is needed: growing on the others is safe, shrinking is not.
        if best.is_none_or(|best| best < view.replicas) {
            set(
                status,
                "ScalingActive",
                false,
                "FailedGetResourceMetric",
                format!("the HPA was unable to compute the replica count: {why}"),
            );
            return None;
        }
    }
    let wanted = best?;
    set(
        status,
        "ScalingActive",
        true,
        "ValidMetricFound",
        "the HPA was able to successfully calculate a replica count from resource metrics".into(),
    );
    Some(damp(cx, memory, hpa, view, wanted, status))
}

/// Bounds a recommendation by windows, policies and limits, and says what held it back.
fn damp(
    cx: &Cx,
    memory: &mut Memory,
    hpa: &HorizontalPodAutoscaler,
    view: &TargetView,
    wanted: i32,
    status: &mut AutoscalerStatus,
) -> i32 {
    let mut set = |kind: &str, truth: bool, reason: &str, message: &str| {
        condition::set(&mut status.conditions, Condition::new(kind, truth, reason, message, cx.now));
    };
    let history = memory.autoscalers.entry(hpa.meta.key.clone()).or_default();
    history.forget(cx.now);
    history.recommendations.push_back((cx.now, wanted));
    let within = |seconds: i32| {
        let since = cx.now.plus_ms(-i64::from(seconds) * 1000);
        history.recommendations.iter().filter(move |(at, _)| *at > since || *at == cx.now).map(|(_, n)| *n)
    };
    let up = within(hpa.scale_up.stabilization_s.unwrap_or(0)).min().unwrap_or(wanted);
    let down = within(hpa.scale_down.stabilization_s.unwrap_or(DOWN_STABILIZATION_S)).max().unwrap_or(wanted);
    let mut stable = view.replicas;
    if stable < up {
        stable = up;
    }
    if stable > down {
        stable = down;
    }
    if stable != wanted {
        let (reason, text) = if wanted < stable {
            (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )
        } else {
            (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )
        };
        set("AbleToScale", true, reason, text);
    } else {
        set("AbleToScale", true, "ReadyForNewScale", "recommended size matches current size");
    }
    let changes: Vec<(Timestamp, i32)> = history.changes.iter().copied().collect();
    let bounds = (hpa.min_replicas, hpa.max_replicas);
    let (bounded, held) =
        scaling::stabilise((&hpa.scale_up, &hpa.scale_down), (view.replicas, stable), bounds, &changes, cx.now);
    let result = bounded.clamp(hpa.min_replicas, hpa.max_replicas);
    if stable > hpa.max_replicas {
        set(
            "ScalingLimited",
            true,
            "TooManyReplicas",
            "the desired replica count is more than the maximum replica count",
        );
    } else if stable < hpa.min_replicas {
        set(
            "ScalingLimited",
            true,
            "TooFewReplicas",
            "the desired replica count is less than the minimum replica count",
        );
    } else if held {
        let (reason, text) = if stable > view.replicas {
            ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
        } else {
            ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
        };
        set("ScalingLimited", true, reason, text);
    } else {
        set("ScalingLimited", false, "DesiredWithinRange", "the desired count is within the acceptable range");
    }
    result
}

/// What one metric asks for.
fn measure(
    cx: &Cx,
    memory: &Memory,
    hpa: &HorizontalPodAutoscaler,
    view: &TargetView,
    metric: &MetricSpec,
    pods: &[Arc<Pod>],
) -> Result<(MetricReading, MetricStatus), String> {
    let MetricSpec::Resource { name, container, target } = metric else {
        let MetricSpec::Other(kind) = metric else { return Err("unknown metric".into()) };
        return Err(format!("unsupported metric type {kind}"));
    };
    let readings: Vec<PodReading> = pods.iter().map(|pod| read(cx, memory, pod, name, container.as_deref())).collect();
    let (up, down) = (scaling::tolerance(&hpa.scale_up), scaling::tolerance(&hpa.scale_down));
    let reading = scaling::replicas_for(*target, view.replicas, &readings, up, down).map_err(|demand| match demand {
        Demand::NoMetrics => format!("failed to get {name} utilization: unable to get metrics for resource {name}: no metrics returned from resource metrics API"),
        Demand::MissingRequest => format!("failed to get {name} utilization: missing request for {name} in a container of a Pod of {}", hpa.target_name),
    })?;
    let utilization = matches!(target, MetricTarget::Utilization(_)).then_some(reading.utilization).flatten();
    let shown = MetricStatus {
        name: name.clone(),
        container: container.clone(),
        utilization,
        average_milli: reading.average_milli,
    };
    Ok((reading, shown))
}

fn read(cx: &Cx, memory: &Memory, pod: &Pod, resource: &str, container: Option<&str>) -> PodReading {
    let counted = |name: &str| container.is_none_or(|only| only == name);
    let containers = pod.spec.containers.iter().chain(pod.spec.init_containers.iter().filter(|c| c.sidecar));
    let requests: Vec<Option<i64>> =
        containers.filter(|c| counted(&c.name)).map(|c| c.request(resource).map(|q| q.milli())).collect();
    let request_milli = requests.iter().copied().sum::<Option<i64>>().unwrap_or(0);
    let reading = |reading| PodReading { reading, request_milli };
    if pod.meta.is_deleting() || pod.status.phase == Phase::Failed || pod.status.phase == Phase::Succeeded {
        return reading(Reading::Ignored);
    }
    if pod.status.phase == Phase::Pending {
        return reading(Reading::Unready);
    }
    let usage = memory
        .usage
        .pod(&pod.meta.key)
        .filter(|usage| usage.latest().is_some_and(|s| cx.now.since_ms(s.at) < STALE_MS));
    let Some(usage) = usage else { return reading(Reading::Missing) };
    if resource == "cpu" && is_warming_up(cx, pod, usage.latest().map(|sample| sample.at)) {
        return reading(Reading::Unready);
    }
    let milli: i64 = usage
        .containers
        .iter()
        .filter(|c| counted(&c.name))
        .map(|c| match resource {
            "cpu" => (c.sample.cpu_nano / 1_000_000) as i64,
            _ => (c.sample.memory_bytes as i64).saturating_mul(1000),
        })
        .sum();
    reading(Reading::Measured(milli))
}

/// A starting pod's CPU says nothing about the load.
fn is_warming_up(cx: &Cx, pod: &Pod, measured: Option<Timestamp>) -> bool {
    let Some(ready) = condition::find(&pod.status.conditions, "Ready") else { return true };
    let Some(started) = pod.status.started else { return true };
    if cx.now < started.plus_ms(CPU_INITIALIZATION_MS) {
        // Within the first minutes: unready, or measured before it had been ready for a whole period.
        return ready.status != Truth::True || measured.is_none_or(|at| at < ready.last_transition);
    }
    ready.status != Truth::True && started.plus_ms(INITIAL_READINESS_MS) > ready.last_transition
}

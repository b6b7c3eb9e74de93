//! Disruption budgets, priorities, autoscalers.

use crate::meta::meta;
use crate::read::{amount, at, conditions, flag, int, items, opt_i32, opt_int, opt_text, quantity, str_at, text, time};
use crate::scheduling::selector;
use model::Timestamp;
use model::policy::{
    AutoscalerStatus, DisruptionStatus, HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget,
    PodDisruptionBudget, PolicySelect, PriorityClass, ScalingPolicy, ScalingRules,
};
use serde_json::Value;
use std::sync::Arc;

/// A PodDisruptionBudget.
pub fn disruption_budget(object: &Value) -> PodDisruptionBudget {
    let (spec, status) = (at(object, "spec"), at(object, "status"));
    let disrupted = at(status, "disruptedPods").as_object().into_iter().flatten();
    PodDisruptionBudget {
        meta: meta(object),
        min_available: amount(at(spec, "minAvailable")),
        max_unavailable: amount(at(spec, "maxUnavailable")),
        selector: selector(at(spec, "selector")),
        always_evict_unhealthy: str_at(spec, "unhealthyPodEvictionPolicy") == "AlwaysAllow",
        status: DisruptionStatus {
            observed_generation: opt_int(status, "observedGeneration").unwrap_or(0),
            disrupted: disrupted
                .filter_map(|(name, at)| {
                    let time: jiff::Timestamp = at.as_str()?.parse().ok()?;
                    Some((Arc::from(name.as_str()), Timestamp(time.as_microsecond())))
                })
                .collect(),
            allowed: int(status, "disruptionsAllowed", 0),
            current: int(status, "currentHealthy", 0),
            desired: int(status, "desiredHealthy", 0),
            expected: int(status, "expectedPods", 0),
            conditions: conditions(status, "lastUpdateTime"),
        },
    }
}

/// A PriorityClass.
pub fn priority_class(object: &Value) -> PriorityClass {
    PriorityClass {
        meta: meta(object),
        value: int(object, "value", 0),
        global_default: flag(object, "globalDefault"),
        preempts: str_at(object, "preemptionPolicy") != "Never",
    }
}

/// A HorizontalPodAutoscaler (autoscaling/v2).
pub fn autoscaler(object: &Value) -> HorizontalPodAutoscaler {
    let (spec, status) = (at(object, "spec"), at(object, "status"));
    let target = at(spec, "scaleTargetRef");
    let behavior = at(spec, "behavior");
    HorizontalPodAutoscaler {
        meta: meta(object),
        target_api_version: text(target, "apiVersion"),
        target_kind: text(target, "kind"),
        target_name: text(target, "name"),
        min_replicas: int(spec, "minReplicas", 1),
        max_replicas: int(spec, "maxReplicas", 1),
        metrics: items(spec, "metrics").iter().map(metric).collect(),
        scale_up: rules(at(behavior, "scaleUp")),
        scale_down: rules(at(behavior, "scaleDown")),
        status: AutoscalerStatus {
            observed_generation: opt_int(status, "observedGeneration"),
            last_scale: time(status, "lastScaleTime"),
            current: int(status, "currentReplicas", 0),
            desired: int(status, "desiredReplicas", 0),
            metrics: items(status, "currentMetrics").iter().filter_map(metric_status).collect(),
            conditions: conditions(status, "lastUpdateTime"),
        },
    }
}

fn metric(value: &Value) -> MetricSpec {
    let kind = str_at(value, "type");
    let source = match kind {
        "Resource" => at(value, "resource"),
        "ContainerResource" => at(value, "containerResource"),
        _ => return MetricSpec::Other(kind.into()),
    };
    let target = at(source, "target");
    let target = match opt_i32(target, "averageUtilization") {
        Some(percent) => MetricTarget::Utilization(percent),
        None => match quantity(at(target, "averageValue")) {
            Some(value) => MetricTarget::AverageValue(value),
            None => return MetricSpec::Other(kind.into()),
        },
    };
    MetricSpec::Resource { name: text(source, "name"), container: opt_text(source, "container"), target }
}

fn metric_status(value: &Value) -> Option<MetricStatus> {
    let source = match str_at(value, "type") {
        "Resource" => at(value, "resource"),
        "ContainerResource" => at(value, "containerResource"),
        _ => return None,
    };
    let current = at(source, "current");
    Some(MetricStatus {
        name: text(source, "name"),
        container: opt_text(source, "container"),
        utilization: opt_i32(current, "averageUtilization"),
        average_milli: quantity(at(current, "averageValue")).map_or(0, |q| q.milli()),
    })
}

fn rules(value: &Value) -> ScalingRules {
    ScalingRules {
        stabilization_s: opt_i32(value, "stabilizationWindowSeconds"),
        select: match str_at(value, "selectPolicy") {
            "Min" => PolicySelect::Min,
            "Disabled" => PolicySelect::Disabled,
            _ => PolicySelect::Max,
        },
        policies: items(value, "policies")
            .iter()
            .map(|policy| ScalingPolicy {
                percent: str_at(policy, "type") == "Percent",
                value: int(policy, "value", 0),
                period_s: int(policy, "periodSeconds", 15),
            })
            .collect(),
        tolerance_milli: quantity(at(value, "tolerance")).map(|q| q.milli()),
    }
}

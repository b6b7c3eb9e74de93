//! Disruption budgets, priorities and autoscaling.

use crate::condition::{Amount, Condition};
use crate::{LabelSelector, Meta, Quantity, Timestamp};
use std::sync::Arc;

/// A bound on voluntary evictions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDisruptionBudget {
    /// Metadata.
    pub meta: Meta,
    /// Pods that must stay.
    pub min_available: Option<Amount>,
    /// Pods that may be missing.
    pub max_unavailable: Option<Amount>,
    /// Which pods; None selects nothing, an empty selector every pod of the namespace.
    pub selector: Option<LabelSelector>,
    /// `unhealthyPodEvictionPolicy: AlwaysAllow`.
    pub always_evict_unhealthy: bool,
    /// Status.
    pub status: DisruptionStatus,
}

/// `status` of a PodDisruptionBudget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisruptionStatus {
    /// Generation that this status is about.
    pub observed_generation: i64,
    /// Pods whose eviction was granted and is not seen yet: name and when.
    pub disrupted: Vec<(Arc<str>, Timestamp)>,
    /// Evictions that are granted now.
    pub allowed: i32,
    /// Healthy pods.
    pub current: i32,
    /// Healthy pods that must stay.
    pub desired: i32,
    /// Pods.
    pub expected: i32,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// A named priority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorityClass {
    /// Metadata.
    pub meta: Meta,
    /// Value.
    pub value: i32,
    /// For pods that name none.
    pub global_default: bool,
    /// `preemptionPolicy` is not `Never`.
    pub preempts: bool,
}

/// Replicas by measured load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HorizontalPodAutoscaler {
    /// Metadata.
    pub meta: Meta,
    /// apiVersion of the target.
    pub target_api_version: Arc<str>,
    /// Kind of the target.
    pub target_kind: Arc<str>,
    /// Name of the target, in the same namespace.
    pub target_name: Arc<str>,
    /// Least replicas.
    pub min_replicas: i32,
    /// Most replicas.
    pub max_replicas: i32,
    /// What to look at.
    pub metrics: Vec<MetricSpec>,
    /// `behavior.scaleUp`.
    pub scale_up: ScalingRules,
    /// `behavior.scaleDown`.
    pub scale_down: ScalingRules,
    /// Status.
    pub status: AutoscalerStatus,
}

/// A metric that is understood; `Other` ones make the autoscaler say so in its condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricSpec {
    /// `Resource` or `ContainerResource`.
    Resource {
        /// `cpu` or `memory`.
        name: Arc<str>,
        /// Only this container.
        container: Option<Arc<str>>,
        /// What to reach.
        target: MetricTarget,
    },
    /// A type that is not served here.
    Other(Arc<str>),
}

/// `target` of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricTarget {
    /// `averageUtilization`, percent of the request.
    Utilization(i32),
    /// `averageValue` for each pod.
    AverageValue(Quantity),
}

/// Rules for one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalingRules {
    /// How long back to look for the gentlest recommendation; None: the direction's default.
    pub stabilization_s: Option<i32>,
    /// Which policy counts.
    pub select: PolicySelect,
    /// Policies; empty: the direction's default.
    pub policies: Vec<ScalingPolicy>,
    /// Tolerance in thousandths; None: a tenth.
    pub tolerance_milli: Option<i64>,
}

/// `selectPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicySelect {
    /// The policy that changes most.
    #[default]
    Max,
    /// The policy that changes least.
    Min,
    /// No change in this direction.
    Disabled,
}

/// One policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalingPolicy {
    /// `Percent` of the replicas (else a number of pods).
    pub percent: bool,
    /// How many.
    pub value: i32,
    /// In how many seconds.
    pub period_s: i32,
}

/// `status` of a HorizontalPodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoscalerStatus {
    /// Generation that this status is about.
    pub observed_generation: Option<i64>,
    /// When the number last changed.
    pub last_scale: Option<Timestamp>,
    /// Replicas of the target.
    pub current: i32,
    /// Replicas that are wanted.
    pub desired: i32,
    /// What was measured, in the order of the spec's metrics.
    pub metrics: Vec<MetricStatus>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricStatus {
    /// `cpu` or `memory`.
    pub name: Arc<str>,
    /// Only this container.
    pub container: Option<Arc<str>>,
    /// Percent of the request, when a percentage was asked for.
    pub utilization: Option<i32>,
    /// Mean over the pods, in thousandths of the unit.
    pub average_milli: i64,
}

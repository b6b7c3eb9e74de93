//! How many replicas a measured load asks for: the arithmetic of upstream's horizontal autoscaler.

use model::Timestamp;
use model::policy::{MetricTarget, PolicySelect, ScalingRules};

/// Upstream's default tolerance, in thousandths.
const TOLERANCE_MILLI: i64 = 100;

/// One pod as the formula sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodReading {
    /// How it counts.
    pub reading: Reading,
    /// Its request in thousandths of the unit (for utilization).
    pub request_milli: i64,
}

/// A pod's measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Ready, measured, in thousandths of the unit.
    Measured(i64),
    /// Not ready yet (or measured too early in its life): is taken to use nothing when the load asks for more.
    Unready,
    /// Ready but not measured: is taken to use nothing when the load asks for more, and its full target when it asks for less.
    Missing,
    /// Ended or being deleted: does not count.
    Ignored,
}

/// What one metric asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricReading {
    /// Replicas.
    pub replicas: i32,
    /// Percent of the request, for utilization targets.
    pub utilization: Option<i32>,
    /// Mean over the measured pods, in thousandths.
    pub average_milli: i64,
}

/// Why a metric says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// No pod was measured.
    NoMetrics,
    /// A pod has no request for the resource.
    MissingRequest,
}

/// Replicas for `pods` (of which there are `current`), so that their mean meets `target`.
///
/// # Errors
/// [`Demand`] when there is nothing to reckon with.
pub fn replicas_for(
    target: MetricTarget,
    current: i32,
    pods: &[PodReading],
    up: i64,
    down: i64,
) -> Result<MetricReading, Demand> {
    let counted: Vec<&PodReading> = pods.iter().filter(|pod| pod.reading != Reading::Ignored).collect();
    let measured: Vec<(i64, i64)> = counted
        .iter()
        .filter_map(|pod| match pod.reading {
            Reading::Measured(milli) => Some((milli, pod.request_milli)),
            _ => None,
        })
        .collect();
    if measured.is_empty() {
        return Err(Demand::NoMetrics);
    }
    let needs_request = matches!(target, MetricTarget::Utilization(_));
    if needs_request && counted.iter().any(|pod| pod.request_milli <= 0) {
        return Err(Demand::MissingRequest);
    }
    let (utilization, ratio) = usage_ratio(target, &measured);
    let average_milli = measured.iter().map(|(m, _)| m).sum::<i64>() / measured.len() as i64;
    let reading = |replicas: i32| MetricReading { replicas, utilization, average_milli };
    let unready = counted.iter().filter(|pod| pod.reading == Reading::Unready).count();
    let missing = counted.iter().filter(|pod| pod.reading == Reading::Missing).count();
    let tolerance = Tolerance { up, down };
    if missing == 0 && (unready == 0 || ratio <= 1.0) {
        if tolerance.holds(ratio) {
            return Ok(reading(current));
        }
        return Ok(reading(ceil(ratio * measured.len() as f64)));
    }
    // Pods that say nothing damp the change: they are given the value that moves it least.
    let mut assumed = measured.clone();
    for pod in &counted {
        match pod.reading {
            Reading::Missing if ratio < 1.0 => assumed.push((full(target, pod.request_milli), pod.request_milli)),
            Reading::Missing if ratio > 1.0 => assumed.push((0, pod.request_milli)),
            Reading::Unready if ratio > 1.0 => assumed.push((0, pod.request_milli)),
            _ => {}
        }
    }
    let (_, new_ratio) = usage_ratio(target, &assumed);
    let turned = ratio < 1.0 && new_ratio > 1.0 || ratio > 1.0 && new_ratio < 1.0;
    if tolerance.holds(new_ratio) || turned {
        return Ok(reading(current));
    }
    let wanted = ceil(new_ratio * assumed.len() as f64);
    // The assumption must not turn the direction around.
    if new_ratio < 1.0 && wanted > current || new_ratio > 1.0 && wanted < current {
        return Ok(reading(current));
    }
    Ok(reading(wanted))
}

struct Tolerance {
    up: i64,
    down: i64,
}

impl Tolerance {
    fn holds(&self, ratio: f64) -> bool {
        ratio >= 1.0 - self.down as f64 / 1000.0 - 1e-9 && ratio <= 1.0 + self.up as f64 / 1000.0 + 1e-9
    }
}

/// The tolerance of a direction's rules, in thousandths.
pub fn tolerance(rules: &ScalingRules) -> i64 {
    rules.tolerance_milli.unwrap_or(TOLERANCE_MILLI)
}

fn full(target: MetricTarget, request_milli: i64) -> i64 {
    match target {
        // As upstream: a missing pod is taken to use its request (or the target, when that is above it).
        MetricTarget::Utilization(percent) => request_milli.saturating_mul(i64::from(percent.max(100))) / 100,
        MetricTarget::AverageValue(value) => value.milli(),
    }
}

/// Percent of request (for utilization), and usage over target.
fn usage_ratio(target: MetricTarget, pods: &[(i64, i64)]) -> (Option<i32>, f64) {
    let usage: i64 = pods.iter().map(|(m, _)| m).sum();
    match target {
        MetricTarget::Utilization(percent) => {
            let requests: i64 = pods.iter().map(|(_, r)| r).sum::<i64>().max(1);
            let utilization = (i128::from(usage) * 100 / i128::from(requests)) as i32;
            (Some(utilization), f64::from(utilization) / f64::from(percent.max(1)))
        }
        MetricTarget::AverageValue(value) => {
            let average = usage as f64 / pods.len().max(1) as f64;
            (None, average / value.milli().max(1) as f64)
        }
    }
}

fn ceil(value: f64) -> i32 {
    // A ratio such as 1.1 is not exact in binary: what is a hair above a whole number is that number.
    (value - 1e-9).ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

/// Rules of one direction.
type Rules<'a> = &'a ScalingRules;

/// Bounds a recommendation by the behaviour's policies. `events` are past changes (when, by how many) in either direction.
/// Returns the replicas and whether a policy held it back.
pub fn stabilise(
    (up, down): (Rules, Rules),
    (current, wanted): (i32, i32),
    (min, max): (i32, i32),
    events: &[(Timestamp, i32)],
    now: Timestamp,
) -> (i32, bool) {
    if wanted > current {
        let limit = grow_limit(up, current, events, now).max(current).min(max);
        (wanted.min(limit), wanted > limit)
    } else if wanted < current {
        let limit = shrink_limit(down, current, events, now).min(current).max(min);
        (wanted.max(limit), wanted < limit)
    } else {
        (current, false)
    }
}

fn changed(events: &[(Timestamp, i32)], period_s: i32, now: Timestamp, grown: bool) -> i32 {
    let since = now.plus_ms(-i64::from(period_s) * 1000);
    events.iter().filter(|(at, by)| *at > since && (*by > 0) == grown).map(|(_, by)| by.abs()).sum()
}

fn grow_limit(rules: Rules, current: i32, events: &[(Timestamp, i32)], now: Timestamp) -> i32 {
    if rules.select == PolicySelect::Disabled {
        return current;
    }
    let limits = rules.policies.iter().map(|policy| {
        let before = current - changed(events, policy.period_s, now, true);
        if policy.percent {
            ceil(f64::from(before) * (1.0 + f64::from(policy.value) / 100.0))
        } else {
            before.saturating_add(policy.value)
        }
    });
    let limit = if rules.select == PolicySelect::Min { limits.min() } else { limits.max() };
    // Upstream's defaults: double, or four pods, in fifteen seconds.
    limit.unwrap_or_else(|| {
        let before = current - changed(events, 15, now, true);
        (before * 2).max(before + 4)
    })
}

fn shrink_limit(rules: Rules, current: i32, events: &[(Timestamp, i32)], now: Timestamp) -> i32 {
    if rules.select == PolicySelect::Disabled {
        return current;
    }
    let limits = rules.policies.iter().map(|policy| {
        let before = current + changed(events, policy.period_s, now, false);
        if policy.percent {
            (f64::from(before) * (1.0 - f64::from(policy.value) / 100.0)) as i32
        } else {
            before - policy.value
        }
    });
    let limit = if rules.select == PolicySelect::Min { limits.max() } else { limits.min() };
    limit.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Quantity;
    use model::policy::ScalingPolicy;

    fn pods(readings: &[Reading]) -> Vec<PodReading> {
        readings.iter().map(|reading| PodReading { reading: *reading, request_milli: 1000 }).collect()
    }

    fn check(percent: i32, readings: &[Reading], expect: i32) {
        let current = readings.len() as i32;
        let got =
            replicas_for(MetricTarget::Utilization(percent), current, &pods(readings), 100, 100).map(|r| r.replicas);
        assert_eq!(got, Ok(expect), "{percent} {readings:?}");
    }

    /// Figures of upstream's replica calculator tests.
    #[test]
    fn the_formula() {
        use Reading::{Ignored, Measured, Missing, Unready};
        check(30, &[Measured(300), Measured(500), Measured(700)], 5);
        check(30, &[Unready, Measured(500), Measured(700)], 4);
        check(50, &[Measured(100), Measured(300), Measured(500), Measured(250), Measured(250)], 3);
        check(100, &[Measured(1010), Measured(1030), Measured(1020)], 3);
        check(100, &[Measured(400), Missing, Missing, Missing], 4);
        check(30, &[Measured(300), Measured(500), Measured(700), Ignored], 5);
    }

    #[test]
    fn what_cannot_be_reckoned() {
        let none = replicas_for(MetricTarget::Utilization(50), 1, &pods(&[Reading::Missing]), 100, 100);
        assert_eq!(none, Err(Demand::NoMetrics));
        let pod = PodReading { reading: Reading::Measured(1), request_milli: 0 };
        assert_eq!(replicas_for(MetricTarget::Utilization(50), 1, &[pod], 100, 100), Err(Demand::MissingRequest));
    }

    #[test]
    fn average_values() {
        let target = MetricTarget::AverageValue(Quantity::from_milli(500));
        let got = replicas_for(target, 2, &pods(&[Reading::Measured(1000), Reading::Measured(1000)]), 100, 100);
        assert_eq!(got.map(|r| (r.replicas, r.average_milli)), Ok((4, 1000)));
    }

    #[test]
    fn policies_bound_a_change() {
        let default = ScalingRules::default();
        let now = Timestamp::from_secs(1000);
        assert_eq!(stabilise((&default, &default), (10, 100), (1, 100), &[], now), (20, true));
        assert_eq!(stabilise((&default, &default), (1, 100), (1, 100), &[], now), (5, true));
        let recent = [(Timestamp::from_secs(995), 5)];
        assert_eq!(stabilise((&default, &default), (10, 100), (1, 100), &recent, now), (10, true));
        assert_eq!(stabilise((&default, &default), (10, 2), (1, 100), &[], now), (2, false));
        let slow = ScalingRules {
            policies: vec![ScalingPolicy { percent: false, value: 1, period_s: 60 }],
            ..ScalingRules::default()
        };
        assert_eq!(stabilise((&default, &slow), (10, 2), (1, 100), &[], now), (9, true));
        let off = ScalingRules { select: PolicySelect::Disabled, ..ScalingRules::default() };
        assert_eq!(stabilise((&default, &off), (10, 2), (1, 100), &[], now), (10, true));
    }
}

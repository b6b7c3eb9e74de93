//! Requests and limits as the kernel takes them, and the quality-of-service class that follows from them.

use super::spec::{Container, Pod, Resources};
use cri::LinuxContainerResources;
use model::Quantity;

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

fn amount(resources: &Resources, limit: bool, name: &str) -> Option<Quantity> {
    let list = if limit { &resources.limits } else { &resources.requests };
    Quantity::parse(&list.get(name)?.0).ok().filter(|quantity| quantity.milli() > 0)
}

/// Guaranteed when every container has equal requests and limits for CPU and memory; BestEffort when none has any.
pub fn qos(pod: &Pod) -> Qos {
    let mut any = false;
    let mut all = true;
    for container in pod.all_containers() {
        for name in ["cpu", "memory"] {
            let (request, limit) =
                (amount(&container.resources, false, name), amount(&container.resources, true, name));
            any |= request.is_some() || limit.is_some();
            all &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, all) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

const CPU_PERIOD_US: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA_US: i64 = 1000;

/// CPU shares of a request in milli-CPU.
pub fn shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CPU quota of a limit in milli-CPU, for the period of 100 ms.
pub fn quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli * CPU_PERIOD_US / 1000).max(MIN_QUOTA_US) }
}

/// What the runtime sets for one container. `node_memory` is the machine's, in bytes.
pub fn linux(pod: &Pod, container: &Container, node_memory: i64) -> LinuxContainerResources {
    let request = amount(&container.resources, false, "cpu").or(amount(&container.resources, true, "cpu"));
    let limit = amount(&container.resources, true, "cpu");
    let memory = amount(&container.resources, true, "memory");
    LinuxContainerResources {
        cpu_shares: shares(request.map_or(0, Quantity::milli)),
        cpu_period: CPU_PERIOD_US,
        cpu_quota: quota(limit.map_or(0, Quantity::milli)),
        memory_limit_in_bytes: memory.map_or(0, Quantity::units),
        oom_score_adj: oom_score_adj(pod, container, node_memory),
        ..LinuxContainerResources::default()
    }
}

/// Who goes first when memory runs out: whoever asked for least of it.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory: i64) -> i64 {
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request =
                amount(&container.resources, false, "memory").or(amount(&container.resources, true, "memory"));
            let share = 1000 * request.map_or(0, Quantity::units) / node_memory.max(1);
            // Between the two other classes in any case.
            (1000 - share).clamp(3, 999)
        }
    }
}

/// The whole pod's cgroup: sums over containers; a limit only when every container has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodLimits {
    pub shares: i64,
    /// Microseconds in 100 ms; 0 is no limit.
    pub quota_us: i64,
    /// Bytes; 0 is no limit.
    pub memory: i64,
}

/// Sums for the pod's cgroup. Init containers run alone (the largest counts), sidecars beside everything.
pub fn pod_limits(pod: &Pod) -> PodLimits {
    let overhead = |name: &str| {
        let given = pod.spec.overhead.get(name).and_then(|text| Quantity::parse(&text.0).ok());
        given.map_or(0, |amount| if name == "cpu" { amount.milli() } else { amount.units() })
    };
    let sum = |limit: bool, name: &str| -> Option<i64> {
        let of = |c: &Container| {
            let given = amount(&c.resources, limit, name);
            let given = if limit { given } else { given.or(amount(&c.resources, true, name)) };
            let value = given.map(|q| if name == "cpu" { q.milli() } else { q.units() });
            if limit { value } else { Some(value.unwrap_or(0)) }
        };
        let mut total = 0i64;
        for container in &pod.spec.containers {
            total = total.saturating_add(of(container)?);
        }
        let (mut beside, mut alone) = (0i64, 0i64);
        for container in &pod.spec.init_containers {
            if container.is_sidecar() {
                beside = beside.saturating_add(of(container)?);
            } else {
                alone = alone.max(beside.saturating_add(of(container)?));
            }
        }
        let pod = Some(alone.max(total.saturating_add(beside))).filter(|sum| !limit || *sum > 0)?;
        // What the runtime itself needs comes on top.
        Some(pod.saturating_add(overhead(name)))
    };
    PodLimits {
        shares: shares(sum(false, "cpu").unwrap_or(0)),
        quota_us: quota(sum(true, "cpu").unwrap_or(0)),
        memory: sum(true, "memory").unwrap_or(0),
    }
}

/// A container's own amount for the downward API; limits fall back to the node's allocatable.
pub fn resource_field(container: &Container, resource: &str, divisor: &str, allocatable: (i64, i64)) -> Option<String> {
    let (kind, name) = resource.split_once('.')?;
    let cpu = name == "cpu";
    let value = match kind {
        "limits" => amount(&container.resources, true, name).map(|q| if cpu { q.milli() } else { q.units() }),
        "requests" => amount(&container.resources, false, name).map(|q| if cpu { q.milli() } else { q.units() }),
        _ => return None,
    };
    let default = match (kind, name) {
        ("limits", "cpu") => allocatable.0,
        ("limits", "memory") => allocatable.1,
        _ => 0,
    };
    let value = value.unwrap_or(default);
    let divisor = Quantity::parse(divisor).ok().filter(|q| q.milli() > 0).unwrap_or(Quantity::from_units(1));
    let divisor = if cpu { divisor.milli() } else { divisor.units() };
    // Rounded up, so that a program that asks for its CPUs never reads 0.
    Some((value.div_euclid(divisor) + i64::from(value.rem_euclid(divisor) != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec::Text;
    use serde_json::{Value, json};

    fn pod(containers: &[Value]) -> Pod {
        let containers: Vec<Value> =
            containers.iter().enumerate().map(|(at, r)| json!({"name": format!("c{at}"), "resources": r})).collect();
        Pod::from_json(json!({"spec": {"containers": containers}}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let equal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        let some = json!({"requests": {"cpu": "100m"}});
        for (containers, expect) in [
            (vec![full.clone(), equal.clone()], Qos::Guaranteed),
            (vec![full, json!({})], Qos::Burstable),
            (vec![some.clone()], Qos::Burstable),
            (vec![json!({}), json!({"requests": {"cpu": "0"}})], Qos::BestEffort),
            (vec![equal, some], Qos::Burstable),
        ] {
            assert_eq!(qos(&pod(&containers)), expect, "{containers:?}");
        }
    }

    #[test]
    fn amounts_become_kernel_numbers() {
        let pod = pod(&[json!({"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}), json!({})]);
        let set = linux(&pod, &pod.spec.containers[0], 1 << 30);
        assert_eq!((set.cpu_shares, set.cpu_quota, set.memory_limit_in_bytes), (256, 150_000, 64 << 20));
        assert_eq!(set.oom_score_adj, 1000 - 62);
        let set = linux(&pod, &pod.spec.containers[1], 1 << 30);
        assert_eq!((set.cpu_shares, set.cpu_quota, set.memory_limit_in_bytes, set.oom_score_adj), (2, 0, 0, 999));
        // One container without a limit leaves the pod without one.
        assert_eq!(pod_limits(&pod), PodLimits { shares: 256, quota_us: 0, memory: 0 });
        let mut alone = pod;
        alone.spec.containers.truncate(1);
        let overhead = [("cpu", "500m"), ("memory", "32Mi")].map(|(name, amount)| (name.into(), Text(amount.into())));
        alone.spec.overhead = overhead.into();
        assert_eq!(pod_limits(&alone), PodLimits { shares: 768, quota_us: 200_000, memory: 96 << 20 });
    }

    #[test]
    fn a_container_can_read_its_amounts() {
        let pod = pod(&[json!({"limits": {"cpu": "1500m"}, "requests": {"memory": "10Mi"}})]);
        let read = |resource, divisor| resource_field(&pod.spec.containers[0], resource, divisor, (4000, 8 << 30));
        assert_eq!(read("limits.cpu", ""), Some("2".into()));
        assert_eq!(read("limits.cpu", "1m"), Some("1500".into()));
        assert_eq!(read("requests.memory", "1Mi"), Some("10".into()));
        assert_eq!(read("limits.memory", "1Gi"), Some("8".into()));
        assert_eq!(read("cpu", ""), None);
    }
}

//! Kinds of the field, of others' groups, that bear on placement, for clusters in which somebody has defined them: ElasticQuota and
//! PodGroup (scheduling.sigs.k8s.io and scheduling.x-k8s.io), NodeResourceTopology (topology.node.k8s.io), NodeMetric
//! (slo.koordinator.sh), Device and Reservation (scheduling.koordinator.sh).

use super::{amounts, at, items, labels, number, pod_spec, quantity, selector, text, timestamp};
use model::scheduling::{
    Amounts, GpuFacts, NodeTerm, QuotaFacts, Reservation, ReservationFacts, ReservationOwner, TopologyFacts, UsageFacts,
};
use model::selector::{Operator, Requirement};
use serde_json::Value;
use std::sync::Arc;

/// Label that names the quota that an ElasticQuota is a part of: Koordinator's.
const PARENT: &str = "quota.scheduling.koordinator.sh/parent";
/// The name that Koordinator gives to the whole pool.
const ROOT: &str = "koordinator-root-quota";
/// Annotation with a list of resources: how what is lent is shared. The CPU in it is read.
const SHARED_WEIGHT: &str = "quota.scheduling.koordinator.sh/shared-weight";
/// Weights are at most this.
const WEIGHT_MAX: i64 = 1000;
/// How long a reservation lasts that does not say.
const DAY_MS: i64 = 24 * 3_600_000;

/// An ElasticQuota.
pub fn elastic_quota(object: &Value) -> QuotaFacts {
    let (metadata, spec) = (at(object, "metadata"), at(object, "spec"));
    let parent = labels(at(metadata, "labels")).get(PARENT).cloned();
    let weight = labels(at(metadata, "annotations"))
        .get(SHARED_WEIGHT)
        .and_then(|list| serde_json::from_str::<Value>(list).ok())
        .and_then(|list| amounts(&list).get("cpu").map(|milli| milli / 1000));
    let bounds = |part: &str| -> Amounts { amounts(at(spec, part)).into_iter().collect() };
    QuotaFacts {
        namespace: text(metadata, "namespace"),
        name: text(metadata, "name"),
        parent: parent.filter(|name| !name.is_empty() && **name != *ROOT),
        min: bounds("min"),
        max: bounds("max"),
        weight: weight.unwrap_or(1).clamp(1, WEIGHT_MAX) as u32,
    }
}

/// `spec.minMember` of a PodGroup; None: it says none.
pub fn least_members(object: &Value) -> Option<usize> {
    number(at(object, "spec"), "minMember").and_then(|least| usize::try_from(least).ok())
}

/// A NodeResourceTopology: zones of the type `Node`, by name, and the policy of the Topology Manager.
pub fn node_topology(object: &Value) -> TopologyFacts {
    let attribute = items(object, "attributes")
        .iter()
        .find(|attribute| at(attribute, "name").as_str() == Some("topologyManagerPolicy"))
        .map(|attribute| text(attribute, "value"));
    // The older form names policy and scope in one word.
    let old = items(object, "topologyPolicies").iter().find_map(Value::as_str).map(|policy| -> Arc<str> {
        let named =
            [("SingleNUMANode", "single-numa-node"), ("Restricted", "restricted"), ("BestEffort", "best-effort")];
        named.iter().find(|(old, _)| policy.starts_with(old)).map_or("none", |(_, new)| new).into()
    });
    let mut zones: Vec<(Arc<str>, Amounts)> = items(object, "zones")
        .iter()
        .filter(|zone| at(zone, "type").as_str() == Some("Node"))
        .map(|zone| {
            let amount = |resource: &Value| {
                let (name, amount) = (text(resource, "name"), quantity(at(resource, "allocatable"))?);
                Some((name.clone(), if *name == *"cpu" { amount.milli() } else { amount.units() }))
            };
            (text(zone, "name"), items(zone, "resources").iter().filter_map(amount).collect())
        })
        .collect();
    zones.sort();
    TopologyFacts {
        node: text(at(object, "metadata"), "name"),
        policy: attribute.or(old).unwrap_or_default(),
        zones: zones.into_iter().map(|(_, amounts)| amounts).collect(),
    }
}

/// The healthy GPUs of a Device.
pub fn gpus(object: &Value) -> GpuFacts {
    let devices = items(at(object, "spec"), "devices").iter();
    let healthy =
        |device: &&Value| at(device, "type").as_str() == Some("gpu") && at(device, "health").as_bool().unwrap_or(true);
    let minors = devices.filter(healthy).filter_map(|device| i32::try_from(number(device, "minor")?).ok());
    GpuFacts { node: text(at(object, "metadata"), "name"), minors: minors.collect() }
}

/// A NodeMetric: the 95th percentile of the shortest aggregate, or else what is used now. None: it has reported nothing.
pub fn node_metric(object: &Value) -> Option<UsageFacts> {
    let status = at(object, "status");
    let metric = at(status, "nodeMetric");
    let aggregated = items(metric, "aggregatedNodeUsages").iter().map(|of| at(at(at(of, "usage"), "p95"), "resources"));
    let used =
        aggregated.chain([at(at(metric, "nodeUsage"), "resources")]).map(amounts).find(|used| !used.is_empty())?;
    Some(UsageFacts {
        node: text(at(object, "metadata"), "name"),
        cpu: used.get("cpu").copied().unwrap_or(0),
        memory: used.get("memory").copied().unwrap_or(0),
        at: timestamp(status, "updateTime")?,
    })
}

/// A Reservation. Its time is `spec.expires`, or else `spec.ttl` (a day when nothing is said, `0`: none) from its creation. A template that
/// names its node is held there or nowhere.
pub fn reservation(object: &Value) -> ReservationFacts {
    let (metadata, spec, status) = (at(object, "metadata"), at(object, "spec"), at(object, "status"));
    let template = at(spec, "template");
    let own = labels(at(at(template, "metadata"), "labels"));
    let namespace = Some(text(at(template, "metadata"), "namespace")).filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or_else(|| "default".into());
    let name = text(metadata, "name");
    let mut scheduling = pod_spec(at(template, "spec"), &namespace, &name, &own);
    let node = text(at(template, "spec"), "nodeName");
    if !node.is_empty() {
        let here = Requirement { key: "metadata.name".into(), operator: Operator::In, values: vec![node] };
        let terms = scheduling.node_affinity.get_or_insert_with(|| vec![NodeTerm::default()]);
        terms.iter_mut().for_each(|term| term.fields.push(here.clone()));
    }
    let ttl = match at(spec, "ttl").as_str() {
        None => Some(DAY_MS),
        // What is no duration is nothing that ends it.
        Some(ttl) => ttl.parse::<jiff::SignedDuration>().ok().and_then(|ttl| i64::try_from(ttl.as_millis()).ok()),
    };
    let created = timestamp(metadata, "creationTimestamp").unwrap_or_default();
    let lasts = ttl.filter(|ms| *ms > 0).map(|ms| created.plus_ms(ms));
    let open = !at(spec, "unschedulable").as_bool().unwrap_or(false);
    let reservation = Reservation {
        name,
        namespace,
        labels: Arc::new(own),
        template: Arc::new(scheduling),
        owners: items(spec, "owners").iter().filter(|_| open).filter_map(reservation_owner).collect(),
        allocate_once: at(spec, "allocateOnce").as_bool().unwrap_or(true),
        expires: timestamp(spec, "expires").or(lasts),
    };
    let uid = text(metadata, "uid");
    ReservationFacts { reservation, uid, phase: text(status, "phase"), node: text(status, "nodeName") }
}

/// None: it names nobody, or what is no pod.
fn reservation_owner(owner: &Value) -> Option<ReservationOwner> {
    let (object, controller) = (at(owner, "object"), at(owner, "controller"));
    let given = |of: &Value, field: &str| Some(text(of, field)).filter(|text| !text.is_empty());
    if given(object, "kind").is_some_and(|kind| *kind != *"Pod") {
        return None;
    }
    let owner = ReservationOwner {
        namespace: given(object, "namespace").or_else(|| given(controller, "namespace")),
        pod: given(object, "name"),
        controller: given(controller, "name").map(|name| (text(controller, "kind"), name)),
        labels: selector(at(owner, "labelSelector")),
    };
    (owner != ReservationOwner::default()).then_some(owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;
    use serde_json::json;

    #[test]
    fn reads_quotas_with_their_place_in_the_tree() {
        let quota = elastic_quota(&json!({
            "metadata": {"namespace": "team", "name": "red", "labels": {PARENT: "org"},
                "annotations": {SHARED_WEIGHT: "{\"cpu\":\"4\",\"memory\":\"8Gi\"}"}},
            "spec": {"min": {"cpu": "500m", "memory": "1Gi"}, "max": {"cpu": 2, "example.com/gpu": 0}},
        }));
        assert_eq!(quota.parent.as_deref(), Some("org"));
        assert_eq!(quota.min, [("cpu".into(), 500), ("memory".into(), 1 << 30)]);
        assert_eq!(quota.max, [("cpu".into(), 2000), ("example.com/gpu".into(), 0)], "none at all is a bound too");
        assert_eq!(quota.weight, 4);
        let top = elastic_quota(&json!({"metadata": {"name": "org", "labels": {PARENT: ROOT}}}));
        assert_eq!((top.parent, top.weight), (None, 1));
    }

    #[test]
    fn reads_zones_by_name_and_both_forms_of_the_policy() {
        let zone = |name: &str, cpu: &str| {
            json!({"name": name, "type": "Node", "resources": [
                {"name": "cpu", "capacity": "8", "allocatable": cpu, "available": "1"},
                {"name": "example.com/gpu", "capacity": "2", "allocatable": "2", "available": "0"}]})
        };
        let topology = node_topology(&json!({
            "metadata": {"name": "n1"},
            "attributes": [{"name": "topologyManagerPolicy", "value": "restricted"}],
            "zones": [zone("node-1", "4"), zone("node-0", "3500m"), {"name": "core-0", "type": "Core"}],
        }));
        assert_eq!((&*topology.node, &*topology.policy), ("n1", "restricted"));
        assert_eq!(topology.zones[0], [("cpu".into(), 3500), ("example.com/gpu".into(), 2)]);
        assert_eq!(topology.zones[1][0], ("cpu".into(), 4000));
        let old = node_topology(&json!({"topologyPolicies": ["SingleNUMANodePodLevel"]}));
        assert_eq!((&*old.policy, old.zones.len()), ("single-numa-node", 0));
    }

    #[test]
    fn reads_whom_and_how_long_room_is_held_for() {
        let mut object = json!({
            "metadata": {"name": "r", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "template": {"metadata": {"namespace": "team", "labels": {"app": "web"}},
                    "spec": {"nodeName": "n7", "containers": [{"resources": {"requests": {"cpu": "2"}}}]}},
                "owners": [
                    {"object": {"kind": "Pod", "namespace": "team", "name": "p"}},
                    {"controller": {"kind": "ReplicaSet", "name": "web", "namespace": "team"}},
                    {"labelSelector": {"matchLabels": {"app": "web"}}},
                    {"object": {"kind": "Node", "name": "p"}},
                    {},
                ],
            },
            "status": {"phase": "Available", "nodeName": "n7"},
        });
        let facts = reservation(&object).reservation;
        assert_eq!((&*facts.name, &*facts.namespace, facts.allocate_once), ("r", "team", true));
        assert_eq!(facts.template.requests, [("cpu".into(), 2000)]);
        assert!(facts.template.node_affinity.as_ref().unwrap()[0].matches("n7", &model::Labels::new()));
        assert_eq!(facts.owners.len(), 3, "what names no pod is nobody");
        assert_eq!(facts.owners[1].controller, Some(("ReplicaSet".into(), "web".into())));
        let created = Timestamp::from_secs(1_767_225_600);
        for (ttl, expires) in [
            (Value::Null, Some(DAY_MS)),
            (json!("1h30m"), Some(5_400_000)),
            (json!("1h30m0s"), Some(5_400_000)),
            (json!("90s"), Some(90_000)),
            (json!("0s"), None),
            (json!("0"), None),
            (json!("soon"), None),
        ] {
            object["spec"]["ttl"] = ttl.clone();
            assert_eq!(reservation(&object).reservation.expires, expires.map(|ms| created.plus_ms(ms)), "{ttl}");
        }
        object["spec"]["expires"] = json!("2026-01-01T00:01:00Z");
        object["spec"]["unschedulable"] = json!(true);
        let facts = reservation(&object).reservation;
        assert_eq!((facts.expires, facts.owners.len()), (Some(created.plus_ms(60_000)), 0));
    }

    #[test]
    fn reads_the_percentile_of_a_nodes_use() {
        let used = |cpu: &str| json!({"resources": {"cpu": cpu, "memory": "2Gi"}});
        let mut metric = json!({
            "metadata": {"name": "n1"},
            "status": {"updateTime": "2026-01-01T00:00:00Z", "nodeMetric": {"nodeUsage": used("1")}},
        });
        let now = UsageFacts { node: "n1".into(), cpu: 1000, memory: 2 << 30, at: Timestamp::from_secs(1_767_225_600) };
        assert_eq!(node_metric(&metric), Some(now.clone()));
        metric["status"]["nodeMetric"]["aggregatedNodeUsages"] =
            json!([{"duration": "5m0s", "usage": {"p50": used("1"), "p95": used("1500m")}}]);
        assert_eq!(node_metric(&metric), Some(UsageFacts { cpu: 1500, ..now }));
        assert_eq!(node_metric(&json!({"metadata": {"name": "n1"}, "status": {}})), None);
        let device = |minor: i32, kind: &str, health: bool| json!({"minor": minor, "type": kind, "health": health});
        let devices =
            json!([device(0, "gpu", true), device(1, "gpu", false), device(2, "gpu", true), device(0, "rdma", true)]);
        let facts = gpus(&json!({"metadata": {"name": "n1"}, "spec": {"devices": devices}}));
        assert_eq!((&*facts.node, facts.minors), ("n1", vec![0, 2]));
        assert_eq!(least_members(&json!({"spec": {"minMember": 3}})), Some(3));
    }
}

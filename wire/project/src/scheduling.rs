//! What the scheduler reads, out of JSON. Tolerant: a field of the wrong form counts as absent (the API server has refused it
//! long before), an operator that nobody knows matches nothing.

pub mod custom;

use model::pod::Protocol;
use model::scheduling::{
    Amounts, BudgetFacts, Claim, ClaimFacts, CsiNodeFacts, Disk, DiskKind, HostPort, NodeFacts, NodeScheduling,
    NodeTerm, PodFacts, PodTerm, SchedulingSpec, SpreadConstraint, StorageClassFacts, VolumeFacts,
};
use model::selector::{LabelSelector, Operator, Requirement};
use model::taint::{Taint, TaintEffect, Toleration};
use model::{Labels, Quantity, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// 100m CPU: what a container that asks for none counts as in scores.
const NOMINAL_CPU_MILLI: i64 = 100;
/// 200 MiB: what a container that asks for no memory counts as in scores.
const NOMINAL_MEMORY: i64 = 200 * 1024 * 1024;

/// The empty object, for absent parts.
const NULL: &Value = &Value::Null;

fn at<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(NULL)
}

fn text(value: &Value, key: &str) -> Arc<str> {
    at(value, key).as_str().unwrap_or_default().into()
}

fn flag(value: &Value, key: &str) -> bool {
    at(value, key).as_bool().unwrap_or(false)
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    at(value, key).as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value, key: &str) -> Vec<Arc<str>> {
    items(value, key).iter().filter_map(Value::as_str).map(Arc::from).collect()
}

fn number(value: &Value, key: &str) -> Option<i64> {
    at(value, key).as_i64()
}

/// A map of strings, as labels and annotations are.
fn labels(value: &Value) -> Labels {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((Arc::from(key.as_str()), Arc::from(value.as_str()?)))).collect()
}

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// Amounts in the scheduler's units: `cpu` in thousandths, everything else whole.
type Sums = BTreeMap<Arc<str>, i64>;

fn amounts(value: &Value) -> Sums {
    let entries = value.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, value)| {
            let quantity = quantity(value)?;
            Some((Arc::from(name.as_str()), if name == "cpu" { quantity.milli() } else { quantity.units() }))
        })
        .collect()
}

fn add(sums: &mut Sums, more: &Sums) {
    for (name, amount) in more {
        let sum = sums.entry(name.clone()).or_insert(0);
        *sum = sum.saturating_add(*amount);
    }
}

fn raise(sums: &mut Sums, to: &Sums) {
    for (name, amount) in to {
        let sum = sums.entry(name.clone()).or_insert(0);
        *sum = (*sum).max(*amount);
    }
}

/// A container's requests; a limit without a request is a request, as the API defaults it.
fn container_requests(container: &Value, missing: &Sums) -> Sums {
    let resources = at(container, "resources");
    let mut requests = amounts(at(resources, "limits"));
    requests.extend(amounts(at(resources, "requests")));
    for (name, amount) in missing {
        requests.entry(name.clone()).or_insert(*amount);
    }
    requests
}

/// What a pod holds of its node at most at any time: the containers with all sidecars, or the hungriest init container with the
/// sidecars that were started before it; pod-level requests in place of either; and the runtime's overhead.
fn pod_requests(spec: &Value, missing: &Sums) -> Sums {
    let mut total = Sums::new();
    for container in items(spec, "containers") {
        add(&mut total, &container_requests(container, missing));
    }
    let (mut sidecars, mut peak) = (Sums::new(), Sums::new());
    for container in items(spec, "initContainers") {
        let mut requests = container_requests(container, missing);
        if at(container, "restartPolicy").as_str() == Some("Always") {
            add(&mut total, &requests);
            add(&mut sidecars, &requests);
            requests = sidecars.clone();
        } else {
            add(&mut requests, &sidecars);
        }
        raise(&mut peak, &requests);
    }
    raise(&mut total, &peak);
    let pod_level = at(spec, "resources");
    let supported = |name: &str| name == "cpu" || name == "memory" || name.starts_with("hugepages-");
    let given = amounts(at(pod_level, "requests"));
    for (name, amount) in amounts(at(pod_level, "limits")) {
        if supported(&name) && !given.contains_key(&name) {
            // The API defaults a pod-level request to what the containers ask for, and to the limit when they ask for nothing.
            total.entry(name).or_insert(amount);
        }
    }
    for (name, amount) in given {
        if supported(&name) {
            total.insert(name, amount);
        }
    }
    add(&mut total, &amounts(at(spec, "overhead")));
    total
}

/// The Guaranteed class: every container has limits of CPU and memory, and asks for them.
fn is_guaranteed(spec: &Value) -> bool {
    let mut containers = items(spec, "containers").iter().chain(items(spec, "initContainers")).peekable();
    let equal = |container: &Value| {
        let (limits, requests) =
            (amounts(at(at(container, "resources"), "limits")), container_requests(container, &Sums::new()));
        ["cpu", "memory"]
            .iter()
            .all(|name| limits.get(*name).is_some_and(|limit| *limit > 0 && requests.get(*name) == Some(limit)))
    };
    containers.peek().is_some() && containers.all(equal)
}

fn positive(sums: Sums) -> Amounts {
    sums.into_iter().filter(|(_, amount)| *amount != 0).collect()
}

/// A label selector; absent is None (which matches nothing in the scheduler's terms), `{}` matches everything.
pub fn selector(value: &Value) -> Option<LabelSelector> {
    value.as_object()?;
    let mut requirements: Vec<Requirement> = labels(at(value, "matchLabels"))
        .into_iter()
        .map(|(key, value)| Requirement { key, operator: Operator::In, values: vec![value] })
        .collect();
    requirements.extend(items(value, "matchExpressions").iter().map(requirement));
    requirements.sort();
    Some(LabelSelector { requirements })
}

fn requirement(value: &Value) -> Requirement {
    let mut values = texts(value, "values");
    values.sort();
    let operator = match at(value, "operator").as_str().unwrap_or_default() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => {
            values.clear();
            Operator::In
        }
    };
    Requirement { key: text(value, "key"), operator, values }
}

fn node_term(value: &Value) -> NodeTerm {
    NodeTerm {
        expressions: items(value, "matchExpressions").iter().map(requirement).collect(),
        fields: items(value, "matchFields").iter().map(requirement).collect(),
    }
}

/// Adds `matchLabelKeys` and `mismatchLabelKeys` to a selector, as the API server does for new pods (twice does not hurt).
fn with_label_keys(selector: Option<LabelSelector>, value: &Value, own: &Labels) -> Option<LabelSelector> {
    let mut selector = selector?;
    for (field, operator) in [("matchLabelKeys", Operator::In), ("mismatchLabelKeys", Operator::NotIn)] {
        for key in texts(value, field) {
            if let Some(have) = own.get(&key) {
                selector.requirements.push(Requirement { key, operator, values: vec![have.clone()] });
            }
        }
    }
    selector.requirements.sort();
    selector.requirements.dedup();
    Some(selector)
}

fn pod_term(value: &Value, namespace: &str, own: &Labels) -> PodTerm {
    let namespace_selector = selector(at(value, "namespaceSelector"));
    let mut namespaces = texts(value, "namespaces");
    if namespaces.is_empty() && namespace_selector.is_none() {
        namespaces.push(namespace.into());
    }
    namespaces.sort();
    PodTerm {
        topology_key: text(value, "topologyKey"),
        selector: with_label_keys(selector(at(value, "labelSelector")), value, own),
        namespaces,
        namespace_selector,
    }
}

fn weighted<T>(value: &Value, term: &str, read: impl Fn(&Value) -> T) -> Vec<(i32, T)> {
    items(value, "preferredDuringSchedulingIgnoredDuringExecution")
        .iter()
        .map(|entry| (number(entry, "weight").unwrap_or(0).clamp(0, 100) as i32, read(at(entry, term))))
        .collect()
}

fn spread(value: &Value, own: &Labels) -> SpreadConstraint {
    SpreadConstraint {
        topology_key: text(value, "topologyKey"),
        selector: with_label_keys(selector(at(value, "labelSelector")), value, own),
        max_skew: number(value, "maxSkew").unwrap_or(1).clamp(1, i64::from(i32::MAX)) as i32,
        min_domains: number(value, "minDomains").unwrap_or(1).clamp(1, i64::from(i32::MAX)) as i32,
        hard: at(value, "whenUnsatisfiable").as_str() != Some("ScheduleAnyway"),
        honor_affinity: at(value, "nodeAffinityPolicy").as_str() != Some("Ignore"),
        honor_taints: at(value, "nodeTaintsPolicy").as_str() == Some("Honor"),
    }
}

fn toleration(value: &Value) -> Toleration {
    Toleration {
        key: text(value, "key"),
        exists: at(value, "operator").as_str() == Some("Exists"),
        value: text(value, "value"),
        effect: at(value, "effect").as_str().and_then(TaintEffect::parse),
        seconds: number(value, "tolerationSeconds"),
    }
}

fn host_ports(spec: &Value) -> Vec<HostPort> {
    let sidecars = items(spec, "initContainers").iter().filter(|c| at(c, "restartPolicy").as_str() == Some("Always"));
    let host_network = flag(spec, "hostNetwork");
    let mut ports: Vec<HostPort> = items(spec, "containers")
        .iter()
        .chain(sidecars)
        .flat_map(|container| items(container, "ports"))
        .filter_map(|port| {
            // The API server defaults hostPort to containerPort for pods on the host's network.
            let fallback = if host_network { number(port, "containerPort") } else { None };
            let number = number(port, "hostPort").filter(|n| *n > 0).or(fallback)?;
            let ip = text(port, "hostIP");
            Some(HostPort {
                port: u16::try_from(number).ok()?,
                protocol: Protocol::parse(at(port, "protocol").as_str().unwrap_or_default())?,
                ip: if ip.is_empty() { "0.0.0.0".into() } else { ip },
            })
        })
        .collect();
    ports.sort();
    ports.dedup();
    ports
}

fn disk(volume: &Value) -> Option<Disk> {
    let of = |kind, source: &Value, id: String, monitors| Disk {
        kind,
        id: id.into(),
        monitors,
        read_only: flag(source, "readOnly"),
    };
    if let Some(source) = volume.get("gcePersistentDisk") {
        return Some(of(DiskKind::GcePersistentDisk, source, text(source, "pdName").to_string(), Vec::new()));
    }
    if let Some(source) = volume.get("awsElasticBlockStore") {
        return Some(of(DiskKind::AwsElasticBlockStore, source, text(source, "volumeID").to_string(), Vec::new()));
    }
    if let Some(source) = volume.get("iscsi") {
        return Some(of(DiskKind::Iscsi, source, text(source, "iqn").to_string(), Vec::new()));
    }
    let source = volume.get("rbd")?;
    let pool = at(source, "pool").as_str().filter(|pool| !pool.is_empty()).unwrap_or("rbd");
    let id = format!("{pool}/{}", text(source, "image"));
    Some(of(DiskKind::Rbd, source, id, texts(source, "monitors")))
}

/// An image reference with its tag.
fn image_name(reference: &str) -> Arc<str> {
    let tagged = match (reference.rfind(':'), reference.rfind('/')) {
        (Some(colon), Some(slash)) => colon > slash,
        (Some(_), None) => true,
        (None, _) => false,
    };
    if tagged { reference.into() } else { format!("{reference}:latest").into() }
}

fn claims(spec: &Value, pod: &str) -> Vec<Claim> {
    items(spec, "volumes")
        .iter()
        .filter_map(|volume| {
            if let Some(source) = volume.get("persistentVolumeClaim") {
                return Some(Claim { name: text(source, "claimName"), made_for: None });
            }
            volume.get("ephemeral")?;
            Some(Claim { name: format!("{pod}-{}", text(volume, "name")).into(), made_for: Some(pod.into()) })
        })
        .collect()
}

/// `spec` of a pod (or of a pod template) as the scheduler reads it.
pub fn pod_spec(spec: &Value, namespace: &str, name: &str, own: &Labels) -> SchedulingSpec {
    let nominal = Sums::from([("cpu".into(), NOMINAL_CPU_MILLI), ("memory".into(), NOMINAL_MEMORY)]);
    let nominal = pod_requests(spec, &nominal);
    let affinity = at(spec, "affinity");
    let (node, pods, anti) =
        (at(affinity, "nodeAffinity"), at(affinity, "podAffinity"), at(affinity, "podAntiAffinity"));
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let term = |value: &Value| pod_term(value, namespace, own);
    let containers = items(spec, "initContainers").iter().chain(items(spec, "containers"));
    SchedulingSpec {
        requests: positive(pod_requests(spec, &Sums::new())),
        nominal: (nominal.get("cpu").copied().unwrap_or(0), nominal.get("memory").copied().unwrap_or(0)),
        node_selector: labels(at(spec, "nodeSelector")).into_iter().collect(),
        node_affinity: node
            .get(required)
            .filter(|value| value.is_object())
            .map(|value| items(value, "nodeSelectorTerms").iter().map(node_term).collect()),
        preferred_nodes: weighted(node, "preference", node_term),
        affinity: items(pods, required).iter().map(term).collect(),
        preferred_affinity: weighted(pods, "podAffinityTerm", term),
        anti_affinity: items(anti, required).iter().map(term).collect(),
        preferred_anti_affinity: weighted(anti, "podAffinityTerm", term),
        tolerations: items(spec, "tolerations").iter().map(toleration).collect(),
        spread: items(spec, "topologySpreadConstraints").iter().map(|value| spread(value, own)).collect(),
        host_ports: host_ports(spec),
        priority: number(spec, "priority").unwrap_or(0).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
        never_preempts: at(spec, "preemptionPolicy").as_str() == Some("Never"),
        guaranteed: is_guaranteed(spec),
        gates: items(spec, "schedulingGates").iter().map(|gate| text(gate, "name")).collect(),
        claims: claims(spec, name),
        disks: items(spec, "volumes").iter().filter_map(disk).collect(),
        images: containers.map(|container| image_name(&text(container, "image"))).collect(),
    }
}

/// `status` of a node as the scheduler reads it.
pub fn node_scheduling(status: &Value) -> NodeScheduling {
    let mut images: Vec<(Arc<str>, i64)> = items(status, "images")
        .iter()
        .flat_map(|image| {
            let size = number(image, "sizeBytes").unwrap_or(0);
            texts(image, "names").into_iter().map(move |name| (name, size))
        })
        .collect();
    images.sort();
    images.dedup_by(|a, b| a.0 == b.0);
    NodeScheduling { allocatable: positive(amounts(at(status, "allocatable"))), images }
}

/// A whole node.
pub fn node(object: &Value) -> NodeFacts {
    let (metadata, spec) = (at(object, "metadata"), at(object, "spec"));
    let taint = |value: &Value| {
        let effect = at(value, "effect").as_str().and_then(TaintEffect::parse)?;
        Some(Taint { key: text(value, "key"), value: text(value, "value"), effect, added: None })
    };
    NodeFacts {
        name: text(metadata, "name"),
        labels: labels(at(metadata, "labels")),
        taints: items(spec, "taints").iter().filter_map(taint).collect(),
        unschedulable: flag(spec, "unschedulable"),
        scheduling: Arc::new(node_scheduling(at(object, "status"))),
    }
}

fn timestamp(value: &Value, key: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = at(value, key).as_str()?.parse().ok()?;
    Some(Timestamp(at.as_microsecond()))
}

fn controller(metadata: &Value) -> Option<&Value> {
    items(metadata, "ownerReferences").iter().find(|owner| flag(owner, "controller"))
}

/// A whole pod.
pub fn pod(object: &Value) -> PodFacts {
    let (metadata, spec, status) = (at(object, "metadata"), at(object, "spec"), at(object, "status"));
    let (namespace, name) = (text(metadata, "namespace"), text(metadata, "name"));
    let own = labels(at(metadata, "labels"));
    PodFacts {
        uid: text(metadata, "uid"),
        spec: Arc::new(pod_spec(spec, &namespace, &name, &own)),
        labels: Arc::new(own),
        owner: controller(metadata).map(|owner| (text(owner, "kind"), text(owner, "name"))),
        node: text(spec, "nodeName"),
        nominated: text(status, "nominatedNodeName"),
        terminating: at(metadata, "deletionTimestamp").is_string(),
        started: timestamp(status, "startTime"),
        created: timestamp(metadata, "creationTimestamp").unwrap_or_default(),
        namespace,
        name,
    }
}

fn storage(resources: &Value, part: &str) -> i64 {
    quantity(at(at(resources, part), "storage")).map_or(0, Quantity::units)
}

/// A PersistentVolumeClaim.
pub fn claim(object: &Value) -> ClaimFacts {
    let (metadata, spec, status) = (at(object, "metadata"), at(object, "spec"), at(object, "status"));
    let annotations = at(metadata, "annotations");
    let owner = controller(metadata).filter(|owner| at(owner, "kind").as_str() == Some("Pod"));
    ClaimFacts {
        namespace: text(metadata, "namespace"),
        name: text(metadata, "name"),
        uid: text(metadata, "uid"),
        deleting: at(metadata, "deletionTimestamp").is_string(),
        volume: text(spec, "volumeName"),
        bind_completed: annotations.get("pv.kubernetes.io/bind-completed").is_some(),
        lost: at(status, "phase").as_str() == Some("Lost"),
        class: at(spec, "storageClassName")
            .as_str()
            .or_else(|| at(annotations, "volume.beta.kubernetes.io/storage-class").as_str())
            .map(Arc::from),
        request: storage(at(spec, "resources"), "requests"),
        access_modes: texts(spec, "accessModes"),
        selector: selector(at(spec, "selector")),
        block: at(spec, "volumeMode").as_str() == Some("Block"),
        selected_node: text(annotations, "volume.kubernetes.io/selected-node"),
        owner_pod: owner.map(|owner| text(owner, "name")).unwrap_or_default(),
    }
}

/// A PersistentVolume.
pub fn volume(object: &Value) -> VolumeFacts {
    let (metadata, spec, status) = (at(object, "metadata"), at(object, "spec"), at(object, "status"));
    let reference = |value: &Value| (text(value, "namespace"), text(value, "name"), text(value, "uid"));
    VolumeFacts {
        name: text(metadata, "name"),
        labels: labels(at(metadata, "labels")),
        class: text(spec, "storageClassName"),
        capacity: quantity(at(at(spec, "capacity"), "storage")).map_or(0, Quantity::units),
        access_modes: texts(spec, "accessModes"),
        block: at(spec, "volumeMode").as_str() == Some("Block"),
        claim: spec.get("claimRef").filter(|value| value.is_object()).map(reference),
        node_affinity: at(spec, "nodeAffinity")
            .get("required")
            .filter(|value| value.is_object())
            .map(|value| items(value, "nodeSelectorTerms").iter().map(node_term).collect()),
        csi: spec.get("csi").map(|csi| (text(csi, "driver"), text(csi, "volumeHandle"))),
        available: matches!(at(status, "phase").as_str(), None | Some("Available" | "Pending" | "")),
        deleting: at(metadata, "deletionTimestamp").is_string(),
    }
}

/// A StorageClass.
pub fn storage_class(object: &Value) -> StorageClassFacts {
    let term = |value: &Value| NodeTerm {
        expressions: items(value, "matchLabelExpressions")
            .iter()
            .map(|entry| {
                let mut values = texts(entry, "values");
                values.sort();
                Requirement { key: text(entry, "key"), operator: Operator::In, values }
            })
            .collect(),
        fields: Vec::new(),
    };
    let allowed: Vec<NodeTerm> = items(object, "allowedTopologies").iter().map(term).collect();
    StorageClassFacts {
        name: text(at(object, "metadata"), "name"),
        provisioner: text(object, "provisioner"),
        wait_for_consumer: at(object, "volumeBindingMode").as_str() == Some("WaitForFirstConsumer"),
        allowed: (!allowed.is_empty()).then_some(allowed),
    }
}

/// A CSINode.
pub fn csi_node(object: &Value) -> CsiNodeFacts {
    let driver = |value: &Value| {
        let count = number(at(value, "allocatable"), "count").and_then(|count| i32::try_from(count).ok());
        (text(value, "name"), count)
    };
    CsiNodeFacts {
        name: text(at(object, "metadata"), "name"),
        limits: items(at(object, "spec"), "drivers").iter().map(driver).collect(),
    }
}

/// A PodDisruptionBudget.
pub fn budget(object: &Value) -> BudgetFacts {
    let (metadata, status) = (at(object, "metadata"), at(object, "status"));
    let disrupted = at(status, "disruptedPods").as_object().into_iter().flatten();
    BudgetFacts {
        namespace: text(metadata, "namespace"),
        name: text(metadata, "name"),
        selector: selector(at(at(object, "spec"), "selector")),
        allowed: number(status, "disruptionsAllowed").unwrap_or(0).clamp(0, i64::from(i32::MAX)) as i32,
        disrupted: disrupted.map(|(name, _)| Arc::from(name.as_str())).collect(),
    }
}

/// The selector of whoever spreads pods by default: `spec.selector` of a Service or ReplicationController (a map of labels) or of
/// a ReplicaSet or StatefulSet (a label selector). None when it selects nothing.
pub fn spread_selector(object: &Value) -> Option<LabelSelector> {
    let value = at(at(object, "spec"), "selector");
    let by_labels = matches!(at(object, "kind").as_str(), Some("Service" | "ReplicationController"));
    let found = if by_labels { LabelSelector::from_labels(labels(value).iter()) } else { selector(value)? };
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn guaranteed_is_who_has_limits_of_both_and_asks_for_no_less() {
        let container = |requests: Value, limits: Value| json!({"resources": {"requests": requests, "limits": limits}});
        let both = || json!({"cpu": "2", "memory": "1Gi"});
        for (containers, init, expected) in [
            (vec![container(both(), both())], vec![], true),
            // A limit without a request is one.
            (vec![container(json!({}), both())], vec![], true),
            (vec![container(json!({"cpu": "2000m"}), both())], vec![], true),
            (vec![container(json!({"cpu": "1"}), both())], vec![], false),
            (vec![container(both(), json!({"cpu": "2"}))], vec![], false),
            (vec![container(both(), both()), container(json!({}), json!({}))], vec![], false),
            (vec![container(both(), both())], vec![container(json!({}), json!({}))], false),
        ] {
            let spec = json!({"containers": containers, "initContainers": init});
            assert_eq!(pod_spec(&spec, "default", "p", &Labels::new()).guaranteed, expected, "{spec}");
        }
    }
}

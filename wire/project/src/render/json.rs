//! Parts of objects as JSON.

use model::condition::Condition;
use model::selector::{LabelSelector, Operator};
use model::service::{Endpoint, EndpointAddress, EndpointPort, EndpointSubset, TargetRef};
use model::taint::{Taint, Toleration};
use model::{Key, Labels, OwnerRef, Quantity, Timestamp};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The map of a JSON object; of anything else an empty one.
pub fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// RFC 3339 in whole seconds, as metav1.Time is written.
pub fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.secs()).map(|time| time.to_string()).unwrap_or_default()
}

pub fn opt_time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| json!(time(at)))
}

/// A count, left out when it is nought.
pub fn count(number: i32) -> Value {
    if number == 0 { Value::Null } else { json!(number) }
}

pub fn labels(labels: &Labels) -> Value {
    labels.iter().map(|(key, value)| (key.to_string(), json!(&**value))).collect::<Map<_, _>>().into()
}

pub fn strings(list: &[Arc<str>]) -> Value {
    list.iter().map(|text| json!(&**text)).collect()
}

pub fn owners(owners: &[OwnerRef]) -> Value {
    owners
        .iter()
        .map(|owner| {
            let mut value = json!({
                "apiVersion": &*owner.api_version, "kind": &*owner.kind, "name": &*owner.name, "uid": &*owner.uid,
            });
            if owner.controller {
                value["controller"] = json!(true);
            }
            if owner.block_owner_deletion {
                value["blockOwnerDeletion"] = json!(true);
            }
            value
        })
        .collect()
}

/// A quantity: whole units, or thousandths.
pub fn quantity(amount: Quantity) -> String {
    let milli = amount.milli();
    if milli % 1000 != 0 {
        return format!("{milli}m");
    }
    let units = amount.units();
    for (shift, suffix) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
        if units != 0 && units % (1i64 << shift) == 0 {
            return format!("{}{suffix}", units >> shift);
        }
    }
    units.to_string()
}

/// A condition with the fields that every kind has.
pub fn condition(condition: &Condition) -> Value {
    let mut value = json!({
        "type": &*condition.kind, "status": condition.status.as_str(), "lastTransitionTime": time(condition.last_transition),
    });
    if !condition.reason.is_empty() {
        value["reason"] = json!(&*condition.reason);
    }
    if !condition.message.is_empty() {
        value["message"] = json!(&*condition.message);
    }
    value
}

/// Conditions with the time of their last write in the field `update`.
pub fn conditions(list: &[Condition], update: Option<&str>) -> Value {
    list.iter()
        .map(|one| {
            let mut value = condition(one);
            if let Some(field) = update {
                value[field] = json!(time(one.last_update));
            }
            value
        })
        .collect()
}

pub fn selector(selector: &LabelSelector) -> Value {
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for requirement in &selector.requirements {
        if requirement.operator == Operator::In && requirement.values.len() == 1 {
            labels.insert(requirement.key.to_string(), json!(&*requirement.values[0]));
            continue;
        }
        let operator = match requirement.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::Gt => "Gt",
            Operator::Lt => "Lt",
        };
        let mut expression = json!({ "key": &*requirement.key, "operator": operator });
        if !requirement.values.is_empty() {
            expression["values"] = strings(&requirement.values);
        }
        expressions.push(expression);
    }
    let mut value = Map::new();
    if !labels.is_empty() {
        value.insert("matchLabels".into(), labels.into());
    }
    if !expressions.is_empty() {
        value.insert("matchExpressions".into(), expressions.into());
    }
    value.into()
}

pub fn endpoint_ports(ports: &[EndpointPort]) -> Value {
    ports
        .iter()
        .map(|port| {
            let mut value = json!({ "name": &*port.name, "protocol": port.protocol.as_str() });
            if let Some(number) = port.port {
                value["port"] = json!(number);
            }
            if !port.app_protocol.is_empty() {
                value["appProtocol"] = json!(&*port.app_protocol);
            }
            value
        })
        .collect()
}

fn target(target: &TargetRef) -> Value {
    json!({ "kind": "Pod", "namespace": &*target.namespace, "name": &*target.name, "uid": &*target.uid })
}

pub fn endpoints(endpoints: &[Endpoint]) -> Value {
    endpoints
        .iter()
        .map(|endpoint| {
            let mut value = json!({
                "addresses": strings(&endpoint.addresses),
                "conditions": { "ready": endpoint.ready, "serving": endpoint.serving, "terminating": endpoint.terminating },
            });
            for (field, text) in [("hostname", &endpoint.hostname), ("nodeName", &endpoint.node_name), ("zone", &endpoint.zone)] {
                if !text.is_empty() {
                    value[field] = json!(&**text);
                }
            }
            if let Some(pod) = &endpoint.target {
                value["targetRef"] = target(pod);
            }
            value
        })
        .collect()
}

pub fn subsets(subsets: &[EndpointSubset]) -> Value {
    let address = |address: &EndpointAddress| {
        let mut value = json!({ "ip": &*address.ip });
        if !address.hostname.is_empty() {
            value["hostname"] = json!(&*address.hostname);
        }
        if !address.node_name.is_empty() {
            value["nodeName"] = json!(&*address.node_name);
        }
        if let Some(pod) = &address.target {
            value["targetRef"] = target(pod);
        }
        value
    };
    subsets
        .iter()
        .map(|subset| {
            let mut value = Map::new();
            if !subset.addresses.is_empty() {
                value.insert("addresses".into(), subset.addresses.iter().map(address).collect());
            }
            if !subset.not_ready.is_empty() {
                value.insert("notReadyAddresses".into(), subset.not_ready.iter().map(address).collect());
            }
            if !subset.ports.is_empty() {
                let ports = subset.ports.iter().map(|port| {
                    let mut value = json!({ "protocol": port.protocol.as_str(), "port": port.port });
                    if !port.name.is_empty() {
                        value["name"] = json!(&*port.name);
                    }
                    if !port.app_protocol.is_empty() {
                        value["appProtocol"] = json!(&*port.app_protocol);
                    }
                    value
                });
                value.insert("ports".into(), ports.collect());
            }
            Value::Object(value)
        })
        .collect()
}

pub fn taints(taints: &[Taint]) -> Value {
    if taints.is_empty() {
        return Value::Null;
    }
    taints
        .iter()
        .map(|taint| {
            let mut value = json!({ "key": &*taint.key, "effect": taint.effect.as_str() });
            if !taint.value.is_empty() {
                value["value"] = json!(&*taint.value);
            }
            if let Some(added) = taint.added {
                value["timeAdded"] = json!(time(added));
            }
            value
        })
        .collect()
}

pub fn toleration(toleration: &Toleration) -> Value {
    let mut value = json!({ "operator": if toleration.exists { "Exists" } else { "Equal" } });
    if !toleration.key.is_empty() {
        value["key"] = json!(&*toleration.key);
    }
    if !toleration.value.is_empty() {
        value["value"] = json!(&*toleration.value);
    }
    if let Some(effect) = toleration.effect {
        value["effect"] = json!(effect.as_str());
    }
    if let Some(seconds) = toleration.seconds {
        value["tolerationSeconds"] = json!(seconds);
    }
    value
}

pub fn claim_ref(key: &Key, uid: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "namespace": &*key.namespace, "name": &*key.name, "uid": uid,
    })
}

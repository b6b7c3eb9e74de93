//! Statuses written back: the whole new `status`, or nothing when it says already what it should.
//!
//! Engines are above this floor, so what they decided comes as plain parts, which the shell takes out of their types.

use super::gateway_api::{GROUP, conditions};
use crate::read::{at, items, str_at};
use model::Key;
use model::mesh::api::ParentRef;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Type, whether it holds, reason, message.
pub type ConditionParts<'a> = (&'a str, bool, &'a str, &'a str);

/// A listener's status: name, kinds, attached routes, conditions.
pub type ListenerParts<'a> = (&'a str, &'a [&'a str], u32, Vec<ConditionParts<'a>>);

/// What is common to a status: who writes it, for which generation, and when (RFC 3339).
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// `observedGeneration`.
    pub generation: i64,
    /// For conditions that change.
    pub now: &'a str,
}

/// Conditions in the order given; one that says the same as before keeps its time; ones of other types stay.
fn render(old: &[Value], new: &[ConditionParts<'_>], stamp: Stamp<'_>) -> Vec<Value> {
    let mut out: Vec<Value> = new
        .iter()
        .map(|(kind, holds, reason, message)| {
            let status = if *holds { "True" } else { "False" };
            let before = old.iter().find(|it| str_at(it, "type") == *kind && str_at(it, "status") == status);
            let since = before.map(|it| str_at(it, "lastTransitionTime")).filter(|time| !time.is_empty());
            json!({
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "observedGeneration": stamp.generation,
                "lastTransitionTime": since.unwrap_or(stamp.now),
            })
        })
        .collect();
    let others = old.iter().filter(|it| new.iter().all(|(kind, ..)| str_at(it, "type") != *kind));
    out.extend(others.cloned());
    out
}

fn changed(object: &Value, status: Value) -> Option<Value> {
    (at(object, "status") != &status).then_some(status)
}

/// Status of a GatewayClass.
pub fn class_status(object: &Value, stamp: Stamp<'_>, new: &[ConditionParts<'_>], features: &[&str]) -> Option<Value> {
    let features: Vec<Value> = features.iter().map(|name| json!({ "name": name })).collect();
    let conditions = render(conditions(object, &["status"]), new, stamp);
    changed(object, json!({ "conditions": conditions, "supportedFeatures": features }))
}

/// Conditions of ours that are there only while they hold.
const PASSING: &[&str] = &["InsecureFrontendValidationMode"];

/// Status of a Gateway. `sets`: how many ListenerSets it has taken.
pub fn gateway_status(
    object: &Value,
    stamp: Stamp<'_>,
    new: &[ConditionParts<'_>],
    addresses: &[IpAddr],
    listeners: &[ListenerParts<'_>],
    sets: u32,
) -> Option<Value> {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({ "type": "IPAddress", "value": address.to_string() })).collect();
    let gone = |it: &Value| {
        let kind = str_at(it, "type");
        PASSING.contains(&kind) && new.iter().all(|(new, ..)| *new != kind)
    };
    let mut conditions = render(conditions(object, &["status"]), new, stamp);
    conditions.retain(|it| !gone(it));
    let listeners = listener_statuses(object, stamp, listeners);
    let mut status = json!({ "conditions": conditions, "addresses": addresses, "listeners": listeners });
    if sets > 0 || !at(at(object, "status"), "attachedListenerSets").is_null() {
        status["attachedListenerSets"] = sets.into();
    }
    changed(object, status)
}

/// Status of a ListenerSet.
pub fn listener_set_status(
    object: &Value,
    stamp: Stamp<'_>,
    new: &[ConditionParts<'_>],
    listeners: &[ListenerParts<'_>],
) -> Option<Value> {
    let conditions = render(conditions(object, &["status"]), new, stamp);
    let mut status = json!({ "conditions": conditions });
    let listeners = listener_statuses(object, stamp, listeners);
    if !listeners.is_empty() || !at(at(object, "status"), "listeners").is_null() {
        status["listeners"] = listeners.into();
    }
    changed(object, status)
}

fn listener_statuses(object: &Value, stamp: Stamp<'_>, listeners: &[ListenerParts<'_>]) -> Vec<Value> {
    let old = items(at(object, "status"), "listeners");
    let one = |(name, kinds, attached, new): &ListenerParts<'_>| {
        let before = old.iter().find(|it| str_at(it, "name") == *name);
        let before = before.map_or(&[][..], |it| items(it, "conditions"));
        let kinds: Vec<Value> = kinds.iter().map(|kind| json!({ "group": GROUP, "kind": kind })).collect();
        json!({
            "name": name,
            "supportedKinds": kinds,
            "attachedRoutes": attached,
            "conditions": render(before, new, stamp),
        })
    };
    listeners.iter().map(one).collect()
}

/// Status of a policy: an entry for each gateway that it is about anew, other controllers' as they are.
pub fn policy_status(
    object: &Value,
    stamp: Stamp<'_>,
    controller: &str,
    gateways: &[(&Key, Vec<ConditionParts<'_>>)],
) -> Option<Value> {
    let old = items(at(object, "status"), "ancestors");
    let ours = |it: &&Value| str_at(it, "controllerName") == controller;
    let mut out: Vec<Value> = old.iter().filter(|it| !ours(it)).cloned().collect();
    for (gateway, new) in gateways {
        let reference =
            json!({ "group": GROUP, "kind": "Gateway", "namespace": &*gateway.namespace, "name": &*gateway.name });
        let before = old.iter().find(|it| ours(it) && at(it, "ancestorRef") == &reference);
        let before = before.map_or(&[][..], |it| items(it, "conditions"));
        out.push(json!({
            "ancestorRef": reference,
            "controllerName": controller,
            "conditions": render(before, new, stamp),
        }));
    }
    if out.is_empty() && old.is_empty() {
        return None;
    }
    changed(object, json!({ "ancestors": out }))
}

/// Status of one of Istio's kinds: our conditions anew, the rest as it is. A condition of ours that is not said any more goes.
pub fn istio_status(object: &Value, stamp: Stamp<'_>, new: &[ConditionParts<'_>]) -> Option<Value> {
    const OURS: [&str; 4] = ["Accepted", "ResolvedRefs", "PartiallyInvalid", "Conflicted"];
    let old = conditions(object, &["status"]);
    let said = |it: &&Value| new.iter().any(|(kind, ..)| str_at(it, "type") == *kind);
    let kept: Vec<Value> = old.iter().filter(|it| said(it) || !OURS.contains(&str_at(it, "type"))).cloned().collect();
    let mut status = at(object, "status").clone();
    if !status.is_object() {
        status = json!({});
    }
    status["conditions"] = render(&kept, new, stamp).into();
    status["observedGeneration"] = stamp.generation.into();
    changed(object, status)
}

/// Status of a route: our entries anew, other controllers' as they are.
pub fn route_status(
    object: &Value,
    stamp: Stamp<'_>,
    controller: &str,
    parents: &[(&ParentRef, Vec<ConditionParts<'_>>)],
) -> Option<Value> {
    let old = items(at(object, "status"), "parents");
    let ours = |it: &&Value| str_at(it, "controllerName") == controller;
    let mut out: Vec<Value> = old.iter().filter(|it| !ours(it)).cloned().collect();
    for (parent, new) in parents {
        let reference = parent_json(parent);
        let before = old.iter().find(|it| ours(it) && at(it, "parentRef") == &reference);
        let before = before.map_or(&[][..], |it| items(it, "conditions"));
        out.push(json!({
            "parentRef": reference,
            "controllerName": controller,
            "conditions": render(before, new, stamp),
        }));
    }
    if out.is_empty() && old.is_empty() {
        return None;
    }
    changed(object, json!({ "parents": out }))
}

fn parent_json(parent: &ParentRef) -> Value {
    let mut out = json!({
        "group": &*parent.reference.group,
        "kind": &*parent.reference.kind,
        "name": &*parent.reference.name,
    });
    if !parent.reference.namespace.is_empty() {
        out["namespace"] = (&*parent.reference.namespace).into();
    }
    if !parent.section.is_empty() {
        out["sectionName"] = (&*parent.section).into();
    }
    if let Some(port) = parent.port {
        out["port"] = port.into();
    }
    out
}

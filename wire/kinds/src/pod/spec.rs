//! Checks of a pod's spec.

use super::runtime_class::as_limits;
use super::{container, volume};
use crate::cause::{Causes, Path};
use crate::json::{flag, list, members, same, text};
use crate::names;
use crate::{meta, selector};
use serde_json::Value;

/// Whose pods they are: what may restart differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A pod by itself.
    Pod,
    /// A template whose pods always run, and the kind as Kubernetes calls it in messages.
    Service(&'static str),
    /// A template whose pods finish: Job.
    Job,
}

/// Checks the pod template `spec.template` of an owner and that `selector` selects it.
pub fn check_template(spec: &Value, path: &Path<'_>, owner: Owner, causes: &mut Causes) {
    let template = &spec["template"];
    let path = path.child("template");
    if template.is_null() {
        causes.required(&path, "");
        return;
    }
    let labels = &template["metadata"]["labels"];
    let meta_path = path.child("metadata");
    // Without `metadata`: so Kubernetes words it.
    meta::labels(labels, &path.child("labels"), causes);
    meta::annotations(&template["metadata"]["annotations"], &path.child("annotations"), causes);
    if matches!(owner, Owner::Service(_))
        && (spec["selector"].is_null() || !selector::matches(&spec["selector"], members(labels)))
    {
        causes.invalid(
            &meta_path.child("labels"),
            Value::Object(members(labels).clone()),
            "`selector` does not match template `labels`",
        );
    }
    // The pods of a StatefulSet mount its claims as volumes.
    let claims: Vec<&str> =
        list(&spec["volumeClaimTemplates"]).iter().map(|claim| text(&claim["metadata"]["name"])).collect();
    check_pod_spec(&template["spec"], &path.child("spec"), owner, &claims, causes);
}

/// Checks a pod's spec. `claims` are volumes that the owner adds.
pub fn check_pod_spec(spec: &Value, path: &Path<'_>, owner: Owner, claims: &[&str], causes: &mut Causes) {
    let mut volumes = volume::check_all(spec, &path.child("volumes"), causes);
    volumes.extend(claims);
    container::check_all(spec, path, &volumes, causes);
    check_policies(spec, path, owner, causes);
    for key in ["serviceAccountName", "priorityClassName", "runtimeClassName"] {
        let name = text(&spec[key]);
        if !name.is_empty() {
            causes.invalid_each(&path.child(key), name, names::subdomain(name));
        }
    }
    let node = text(&spec["nodeName"]);
    if !node.is_empty() {
        causes.invalid_each(&path.child("nodeName"), node, names::subdomain(node));
    }
    // A StatefulSet names its pods itself.
    let named = owner != Owner::Service("StatefulSet");
    for key in ["hostname", "subdomain"] {
        let name = text(&spec[key]);
        if named && !name.is_empty() {
            causes.invalid_each(&path.child(key), name, names::label(name));
        }
    }
    meta::labels(&spec["nodeSelector"], &path.child("nodeSelector"), causes);
    check_tolerations(spec, &path.child("tolerations"), causes);
    if !spec["overhead"].is_null() {
        container::check_resources(&as_limits(&spec["overhead"]), &path.child("overhead"), causes);
    }
    check_spread(spec, &path.child("topologySpreadConstraints"), causes);
    check_affinity(&spec["affinity"], &path.child("affinity"), causes);
}

fn check_policies(spec: &Value, path: &Path<'_>, owner: Owner, causes: &mut Causes) {
    let restart = text(&spec["restartPolicy"]);
    let restart_path = path.child("restartPolicy");
    if restart.is_empty() {
        causes.required(&restart_path, "");
    } else {
        causes.one_of(&restart_path, restart, &["Always", "OnFailure", "Never"]);
    }
    match owner {
        Owner::Pod => {}
        Owner::Service(kind) => {
            causes.one_of(&restart_path, restart, &["Always"]);
            if !spec["activeDeadlineSeconds"].is_null() {
                let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
                causes.forbidden(&path.child("activeDeadlineSeconds"), detail);
            }
        }
        Owner::Job if matches!(restart, "" | "Always") => {
            causes.required(&restart_path, "valid values: \"OnFailure\", \"Never\"");
        }
        Owner::Job => causes.one_of(&restart_path, restart, &["OnFailure", "Never"]),
    }
    let dns = text(&spec["dnsPolicy"]);
    if dns.is_empty() {
        causes.required(&path.child("dnsPolicy"), "");
    } else {
        causes.one_of(&path.child("dnsPolicy"), dns, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    }
    if dns == "None" && spec["dnsConfig"].is_null() {
        causes.required(&path.child("dnsConfig"), "must provide `dnsConfig` when `dnsPolicy` is None");
    } else if dns == "None" && list(&spec["dnsConfig"]["nameservers"]).is_empty() {
        let at = path.child("dnsConfig");
        causes.required(&at.child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
    if let Some(deadline) = spec["activeDeadlineSeconds"].as_i64().filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        causes.invalid(&path.child("activeDeadlineSeconds"), deadline, "must be between 1 and 2147483647, inclusive");
    }
    let policy = text(&spec["preemptionPolicy"]);
    if !policy.is_empty() {
        causes.one_of(&path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
}

/// Checks the `tolerations` of a pod, or of a class of pods.
pub fn check_tolerations(spec: &Value, path: &Path<'_>, causes: &mut Causes) {
    for (index, toleration) in list(&spec["tolerations"]).iter().enumerate() {
        let at = path.index(index);
        let (key, value, effect) = (text(&toleration["key"]), text(&toleration["value"]), text(&toleration["effect"]));
        if !key.is_empty() {
            causes.invalid_each(&at.child("key"), key, names::qualified(key));
        }
        let operator = text(&toleration["operator"]);
        let operator_path = at.child("operator");
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            causes.invalid(&operator_path, operator, detail);
        }
        match operator {
            "" | "Equal" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    causes.invalid(&operator_path, value, wrong.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                causes.invalid(&operator_path, value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            "Lt" | "Gt" if value.parse::<i64>().is_ok() => {}
            "Lt" | "Gt" => causes.invalid(&at.child("value"), value, "must be a valid decimal integer"),
            other => causes.not_supported(&operator_path, other, &["Equal", "Exists"]),
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            causes.invalid(&at.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        if !effect.is_empty() {
            causes.one_of(&at.child("effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

fn check_spread(spec: &Value, path: &Path<'_>, causes: &mut Causes) {
    let constraints = list(&spec["topologySpreadConstraints"]);
    for (index, constraint) in constraints.iter().enumerate() {
        let at = path.index(index);
        match constraint["maxSkew"].as_i64() {
            Some(skew) if skew <= 0 => causes.invalid(&at.child("maxSkew"), skew, "must be greater than zero"),
            None => causes.invalid(&at.child("maxSkew"), 0, "must be greater than zero"),
            Some(_) => {}
        }
        let key = text(&constraint["topologyKey"]);
        if key.is_empty() {
            causes.required(&at.child("topologyKey"), "can not be empty");
        } else {
            causes.invalid_each(&at.child("topologyKey"), key, names::qualified(key));
        }
        let action = text(&constraint["whenUnsatisfiable"]);
        causes.one_of(&at.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        if let Some(domains) = constraint["minDomains"].as_i64() {
            if domains <= 0 {
                causes.invalid(&at.child("minDomains"), domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                let detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ".to_owned() + action;
                causes.invalid(&at.child("minDomains"), domains, detail);
            }
        }
        let twin = constraints[..index].iter().any(|c| {
            c["topologyKey"] == constraint["topologyKey"]
                && c["whenUnsatisfiable"] == constraint["whenUnsatisfiable"]
                && same(&c["labelSelector"], &constraint["labelSelector"])
        });
        if twin {
            causes.duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        meta::label_selector(&constraint["labelSelector"], &at.child("labelSelector"), causes);
    }
}

fn check_affinity(affinity: &Value, path: &Path<'_>, causes: &mut Causes) {
    let node = &affinity["nodeAffinity"];
    let node_path = path.child("nodeAffinity");
    let required = &node["requiredDuringSchedulingIgnoredDuringExecution"];
    if !required.is_null() {
        let at = node_path.child("requiredDuringSchedulingIgnoredDuringExecution");
        let terms = list(&required["nodeSelectorTerms"]);
        if terms.is_empty() {
            causes.required(&at.child("nodeSelectorTerms"), "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            check_node_term(term, &at.child("nodeSelectorTerms").index(index), causes);
        }
    }
    for (index, preferred) in list(&node["preferredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate() {
        let at = node_path.child("preferredDuringSchedulingIgnoredDuringExecution");
        check_weight(preferred, &at.index(index), causes);
        check_node_term(&preferred["preference"], &at.index(index).child("preference"), causes);
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let at = path.child(key);
        let required = at.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in list(&affinity[key]["requiredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate() {
            check_pod_term(term, &required.index(index), causes);
        }
        let preferred = at.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (index, entry) in list(&affinity[key]["preferredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate()
        {
            check_weight(entry, &preferred.index(index), causes);
            check_pod_term(&entry["podAffinityTerm"], &preferred.index(index).child("podAffinityTerm"), causes);
        }
    }
}

fn check_weight(entry: &Value, path: &Path<'_>, causes: &mut Causes) {
    let weight = entry["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&weight) {
        causes.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn check_pod_term(term: &Value, path: &Path<'_>, causes: &mut Causes) {
    let key = text(&term["topologyKey"]);
    if key.is_empty() {
        causes.required(&path.child("topologyKey"), "can not be empty");
    }
    causes.invalid_each(&path.child("topologyKey"), key, names::qualified(key));
    meta::label_selector(&term["labelSelector"], &path.child("labelSelector"), causes);
    meta::label_selector(&term["namespaceSelector"], &path.child("namespaceSelector"), causes);
    for (index, namespace) in list(&term["namespaces"]).iter().enumerate() {
        causes.invalid_each(&path.child("namespaces").index(index), text(namespace), names::label(text(namespace)));
    }
}

fn check_node_term(term: &Value, path: &Path<'_>, causes: &mut Causes) {
    for (index, expression) in list(&term["matchExpressions"]).iter().enumerate() {
        let expressions = path.child("matchExpressions");
        let at = expressions.index(index);
        let values = list(&expression["values"]);
        match text(&expression["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                causes.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                causes.forbidden(
                    &at.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "Exists" | "DoesNotExist" => {}
            "Gt" | "Lt" if values.len() != 1 => {
                causes.required(&at.child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "Gt" | "Lt" => {}
            other => causes.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        let key = text(&expression["key"]);
        causes.invalid_each(&at.child("key"), key, names::qualified(key));
    }
    for (index, field) in list(&term["matchFields"]).iter().enumerate() {
        let fields = path.child("matchFields");
        if field["key"] != "metadata.name" {
            causes.invalid(&fields.index(index).child("key"), text(&field["key"]), "not a valid field selector key");
        }
    }
}

/// Whether the pod shares its node's network.
pub(super) fn host_network(spec: &Value) -> bool {
    flag(&spec["hostNetwork"])
}

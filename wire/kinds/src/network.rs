//! Ingresses, their classes, network policies.

use crate::behaviour::{Context, Facts, Generation, Kind, SPEC};
use crate::cause::{Causes, Path};
use crate::json::{Members, child, each_object, existing, fill_text, is_empty, list, text};
use crate::table::{self, Column, Row};
use crate::{meta, names};
use model::Timestamp;
use serde_json::{Value, json};

/// The behaviour of a kind of `networking.k8s.io`.
pub(crate) fn find(kind: &str) -> Option<&'static dyn Kind> {
    Some(match kind {
        "Ingress" => &Ingress,
        "IngressClass" => &IngressClass,
        "NetworkPolicy" => &NetworkPolicy,
        _ => return None,
    })
}

struct Ingress;

impl Kind for Ingress {
    fn facts(&self) -> Facts {
        Facts::reconciled("networking.k8s.io", "Ingress")
    }
    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        object.insert("status".into(), json!({"loadBalancer": {}}));
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        let rules = list(&spec["rules"]);
        if rules.is_empty() && spec["defaultBackend"].is_null() {
            causes.invalid(&SPEC, spec["rules"].clone(), "either `defaultBackend` or `rules` must be specified");
        }
        if !spec["defaultBackend"].is_null() {
            check_backend(&spec["defaultBackend"], &SPEC.child("defaultBackend"), causes);
        }
        let rules_path = SPEC.child("rules");
        for (index, rule) in rules.iter().enumerate() {
            let at = rules_path.index(index);
            let host = text(&rule["host"]);
            if !host.is_empty() {
                let wrong = if host.contains('*') { names::wildcard_subdomain(host) } else { names::subdomain(host) };
                causes.invalid_each(&at.child("host"), host, wrong);
            }
            if rule["http"].is_null() {
                continue;
            }
            let http = at.child("http");
            let paths = list(&rule["http"]["paths"]);
            if paths.is_empty() {
                causes.required(&http.child("paths"), "");
            }
            for (number, path) in paths.iter().enumerate() {
                check_ingress_path(path, &http.child("paths").index(number), causes);
            }
        }
    }
    fn columns(&self) -> &'static [Column] {
        table::INGRESS
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::ingress_row(object, now)
    }
}

fn check_ingress_path(rule: &Value, path: &Path<'_>, causes: &mut Causes) {
    let (kind, url) = (text(&rule["pathType"]), text(&rule["path"]));
    match kind {
        "" => {
            causes.required(&path.child("pathType"), "pathType must be specified");
            return;
        }
        "Exact" | "Prefix" if !url.starts_with('/') => {
            causes.invalid(&path.child("path"), url, "must be an absolute path")
        }
        "ImplementationSpecific" if !url.is_empty() && !url.starts_with('/') => {
            causes.invalid(&path.child("path"), url, "must be an absolute path");
        }
        "Exact" | "Prefix" | "ImplementationSpecific" => {
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if kind != "ImplementationSpecific" && url.contains(part) {
                    causes.invalid(&path.child("path"), url, format!("must not contain '{part}'"));
                }
            }
        }
        other => causes.not_supported(&path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    check_backend(&rule["backend"], &path.child("backend"), causes);
}

fn check_backend(backend: &Value, path: &Path<'_>, causes: &mut Causes) {
    let service = &backend["service"];
    match (service.is_null(), backend["resource"].is_null()) {
        (true, true) => causes.invalid(path, "", "resource or service backend is required"),
        (false, false) => causes.invalid(path, "", "cannot set both resource and service backends"),
        (true, false) => {}
        (false, true) => {
            let at = path.child("service");
            let name = text(&service["name"]);
            if name.is_empty() {
                causes.required(&at.child("name"), "");
            } else {
                causes.invalid_each(&at.child("name"), name, names::label(name));
            }
            let port = &service["port"];
            match (text(&port["name"]), port["number"].as_i64().unwrap_or(0)) {
                ("", 0) => causes.required(path, "port name or number is required"),
                ("", number) => {
                    if let Some(detail) = names::port_number(number) {
                        causes.invalid(&at.child("port").child("number"), number, detail);
                    }
                }
                (_, number) if number != 0 => causes.invalid(path, "", "cannot set both port name & port number"),
                (name, _) => causes.invalid_each(&at.child("port").child("name"), name, names::port_name(name)),
            }
        }
    }
}

struct IngressClass;

impl Kind for IngressClass {
    fn facts(&self) -> Facts {
        Facts::plain("networking.k8s.io", "IngressClass").counting(Generation::Spec)
    }
    fn defaults(&self, object: &mut Value) {
        let spec = object.as_object_mut().and_then(|map| existing(map, "spec"));
        if let Some(parameters) = spec.and_then(|spec| existing(spec, "parameters")) {
            fill_text(parameters, "scope", "Cluster");
        }
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        causes.immutable(&SPEC.child("controller"), &new["spec"]["controller"], &old["spec"]["controller"]);
    }
    fn columns(&self) -> &'static [Column] {
        table::INGRESS_CLASS
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::ingress_class_row(object, now)
    }
}

struct NetworkPolicy;

impl Kind for NetworkPolicy {
    fn facts(&self) -> Facts {
        Facts::plain("networking.k8s.io", "NetworkPolicy").counting(Generation::Spec)
    }
    fn defaults(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|map| child(map, "spec")) else { return };
        for direction in ["ingress", "egress"] {
            for rule in each_object(spec, direction) {
                for port in each_object(rule, "ports") {
                    fill_text(port, "protocol", "TCP");
                }
            }
        }
        if spec.get("policyTypes").is_none_or(is_empty) {
            let egress = spec.get("egress").is_some_and(|rules| !list(rules).is_empty());
            spec.insert("policyTypes".into(), if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        meta::label_selector(&spec["podSelector"], &SPEC.child("podSelector"), causes);
        let types = SPEC.child("policyTypes");
        for (index, kind) in list(&spec["policyTypes"]).iter().enumerate() {
            causes.one_of(&types.index(index), text(kind), &["Egress", "Ingress"]);
        }
    }
    fn columns(&self) -> &'static [Column] {
        table::NETWORK_POLICY
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::network_policy_row(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress() {
        let check = |spec: Value| -> Vec<String> {
            Ingress
                .validate_create(&json!({"metadata": {"name": "i"}, "spec": spec}))
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        assert_eq!(
            check(
                json!({"rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]})
            ),
            [""; 0]
        );
        assert_eq!(
            check(json!({})),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
        assert_eq!(
            check(json!({"rules": [{"http": {"paths": [{"path": "/", "backend": backend}]}}]})),
            ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]
        );
    }

    #[test]
    fn policies_say_which_traffic_they_are_about() {
        let mut object = json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
        NetworkPolicy.defaults(&mut object);
        assert_eq!(object["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(object["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    }
}

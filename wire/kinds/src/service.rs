//! Services.

use crate::behaviour::{Allocation, Context, Facts, Field, Kind, SPEC};
use crate::cause::Causes;
use crate::json::{Members, carry, child, each_object, existing, fill, fill_text, is_empty, list, text};
use crate::meta;
use crate::names::{self, NameRule};
use crate::pod::check_port;
use crate::table::{self, Column, Row};
use model::Timestamp;
use serde_json::{Value, json};

/// The behaviour of Services.
pub(crate) struct Service;

fn kind_of(spec: &Members) -> String {
    spec.get("type").map_or("ClusterIP", |kind| if text(kind).is_empty() { "ClusterIP" } else { text(kind) }).to_owned()
}

fn has_node_ports(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

impl Kind for Service {
    fn facts(&self) -> Facts {
        Facts::plain("", "Service").named(NameRule::Label).with_status()
    }

    fn defaults(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        let balanced = map.get("spec").is_some_and(|spec| spec["type"] == "LoadBalancer");
        let balancer = existing(map, "status").and_then(|status| existing(status, "loadBalancer"));
        for ingress in balancer.into_iter().flat_map(|balancer| each_object(balancer, "ingress")) {
            if balanced && ingress.get("ip").is_some_and(|ip| !text(ip).is_empty()) {
                fill(ingress, "ipMode", "VIP");
            }
        }
        let Some(spec) = child(map, "spec") else { return };
        fill_text(spec, "type", "ClusterIP");
        let kind = kind_of(spec);
        fill_text(spec, "sessionAffinity", "None");
        if spec["sessionAffinity"] == "ClientIP" {
            if let Some(client) = child(spec, "sessionAffinityConfig").and_then(|config| child(config, "clientIP")) {
                fill(client, "timeoutSeconds", 10_800);
            }
        } else {
            spec.remove("sessionAffinityConfig");
        }
        for port in each_object(spec, "ports") {
            fill_text(port, "protocol", "TCP");
            let target = port.get("targetPort").unwrap_or(&Value::Null);
            if target.is_null() || target.as_i64() == Some(0) || target.as_str() == Some("") {
                let number = port.get("port").cloned().unwrap_or(Value::Null);
                port.insert("targetPort".into(), number);
            }
        }
        let outside = has_node_ports(&kind)
            || (kind == "ClusterIP" && spec.get("externalIPs").is_some_and(|ips| !list(ips).is_empty()));
        if outside {
            fill_text(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "ClusterIP" || has_node_ports(&kind) {
            fill_text(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            fill(spec, "allocateLoadBalancerNodePorts", true);
        }
    }

    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        object.insert("status".into(), json!({"loadBalancer": {}}));
        if let Some(spec) = child(object, "spec") {
            settle_addresses(spec);
        }
    }

    fn adjust_update(&self, new: &mut Members, old: &Value, _context: &Context<'_>) {
        if let Some(spec) = child(new, "spec") {
            keep_allocated(spec, &old["spec"]);
            settle_addresses(spec);
        }
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        check_service(&object["spec"], causes);
    }

    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        let (new, old) = (&new["spec"], &old["spec"]);
        let was_set = !text(&old["clusterIP"]).is_empty();
        if new["type"] != "ExternalName"
            && old["type"] != "ExternalName"
            && was_set
            && new["clusterIP"] != old["clusterIP"]
        {
            causes.invalid(&SPEC.child("clusterIPs").index(0), json!([new["clusterIP"]]), "may not change once set");
        }
    }

    fn allocations(&self, object: &Value) -> Vec<Allocation> {
        let spec = &object["spec"];
        let kind = text(&spec["type"]);
        let mut wanted = Vec::new();
        let ip = text(&spec["clusterIP"]);
        if kind != "ExternalName" && ip != "None" {
            wanted.push(Allocation::ClusterIp { requested: (!ip.is_empty()).then(|| ip.to_owned()) });
        }
        let automatic =
            kind == "NodePort" || (kind == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false);
        if has_node_ports(kind) {
            for (index, port) in list(&spec["ports"]).iter().enumerate() {
                let requested =
                    port["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
                if automatic || requested.is_some() {
                    wanted.push(Allocation::NodePort { index, requested });
                }
            }
        }
        wanted
    }

    fn columns(&self) -> &'static [Column] {
        table::SERVICE
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::service_row(object, now)
    }
    fn fields(&self) -> &'static [Field] {
        const { &[Field::text("spec.clusterIP"), Field::text("spec.type")] }
    }
}

/// Makes `clusterIP` and `clusterIPs` agree, and removes what the type has no use for.
fn settle_addresses(spec: &mut Members) {
    let kind = kind_of(spec);
    if kind == "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            spec.remove(key);
        }
    }
    if !has_node_ports(&kind) {
        for port in each_object(spec, "ports") {
            port.remove("nodePort");
        }
        for key in ["allocateLoadBalancerNodePorts", "healthCheckNodePort"] {
            spec.remove(key);
        }
        if spec.get("externalIPs").is_none_or(|ips| list(ips).is_empty()) {
            spec.remove("externalTrafficPolicy");
        }
    }
    if kind == "ExternalName" {
        return;
    }
    let one = spec.get("clusterIP").map_or("", text).to_owned();
    let first = spec.get("clusterIPs").map_or("", |ips| text(&ips[0])).to_owned();
    match (one.is_empty(), first.is_empty()) {
        (false, _) => spec.insert("clusterIPs".into(), json!([one])),
        (true, false) => spec.insert("clusterIP".into(), Value::from(first)),
        (true, true) => None,
    };
    let headless = spec.get("clusterIP").is_some_and(|ip| ip == "None");
    if headless && spec.get("selector").is_none_or(is_empty) {
        // Whoever writes its endpoints may use both families.
        fill_text(spec, "ipFamilyPolicy", "RequireDualStack");
        fill(spec, "ipFamilies", json!(["IPv4", "IPv6"]));
    } else {
        fill_text(spec, "ipFamilyPolicy", "SingleStack");
        fill(spec, "ipFamilies", json!(["IPv4"]));
    }
}

/// A client that sends back what it once wrote, without what was allocated since, keeps the allocations.
fn keep_allocated(spec: &mut Members, old: &Value) {
    let (kind, old_kind) = (kind_of(spec), text(&old["type"]));
    if kind != "ExternalName" && old_kind != "ExternalName" {
        let unset = |spec: &Members, key: &str| spec.get(key).is_none_or(is_empty);
        if unset(spec, "clusterIP") && unset(spec, "clusterIPs") {
            carry(spec, old, "clusterIP");
            carry(spec, old, "clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if unset(spec, key) {
                carry(spec, old, key);
            }
        }
    }
    if has_node_ports(&kind) && has_node_ports(old_kind) {
        let mut used: Vec<i64> =
            list(spec.get("ports").unwrap_or(&Value::Null)).iter().filter_map(|p| p["nodePort"].as_i64()).collect();
        for port in each_object(spec, "ports") {
            if port.get("nodePort").is_some_and(|p| p.as_i64().unwrap_or(0) != 0) {
                continue;
            }
            let twin = list(&old["ports"])
                .iter()
                .find(|o| Some(&o["port"]) == port.get("port") && Some(&o["protocol"]) == port.get("protocol"));
            if let Some(number) =
                twin.and_then(|twin| twin["nodePort"].as_i64()).filter(|number| !used.contains(number))
            {
                used.push(number);
                port.insert("nodePort".into(), Value::from(number));
            }
        }
        if spec.get("healthCheckNodePort").is_none_or(|port| port.as_i64().unwrap_or(0) == 0) {
            carry(spec, old, "healthCheckNodePort");
        }
    }
}

/// Writes an allocated virtual IP into a Service.
pub fn set_cluster_ip(service: &mut Value, ip: &str) {
    if let Some(spec) = service.as_object_mut().and_then(|map| child(map, "spec")) {
        spec.insert("clusterIP".into(), Value::from(ip));
        spec.insert("clusterIPs".into(), json!([ip]));
    }
}

/// Writes an allocated node port into port number `index` of a Service.
pub fn set_node_port(service: &mut Value, index: usize, number: u16) {
    let spec = service.as_object_mut().and_then(|map| existing(map, "spec"));
    if let Some(port) = spec.and_then(|spec| each_object(spec, "ports").nth(index)) {
        port.insert("nodePort".into(), Value::from(number));
    }
}

fn check_service(spec: &Value, causes: &mut Causes) {
    let kind = text(&spec["type"]);
    let ports = list(&spec["ports"]);
    let ports_path = SPEC.child("ports");
    let headless = spec["clusterIP"] == "None";
    causes.one_of(&SPEC.child("type"), kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    if ports.is_empty() && !headless && kind != "ExternalName" {
        causes.required(&ports_path, "");
    }
    if kind == "ExternalName" {
        let target = text(&spec["externalName"]);
        if target.is_empty() {
            causes.required(&SPEC.child("externalName"), "");
        } else {
            causes.invalid_each(&SPEC.child("externalName"), target, names::subdomain(target.trim_end_matches('.')));
        }
        if !list(&spec["clusterIPs"]).is_empty() {
            causes.forbidden(&SPEC.child("clusterIPs"), "may not be set for ExternalName services");
        }
    } else if headless && has_node_ports(kind) {
        causes.invalid(
            &SPEC.child("clusterIPs").index(0),
            "None",
            format!("may not be set to 'None' for {kind} services"),
        );
    }
    let ip = text(&spec["clusterIP"]);
    if !ip.is_empty() && !headless && ip.parse::<std::net::IpAddr>().is_err() {
        causes.invalid(
            &SPEC.child("clusterIPs").index(0),
            ip,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
    meta::labels(&spec["selector"], &SPEC.child("selector"), causes);
    causes.one_of(&SPEC.child("sessionAffinity"), text(&spec["sessionAffinity"]), &["ClientIP", "None"]);
    let outside = has_node_ports(kind) || (kind == "ClusterIP" && !list(&spec["externalIPs"]).is_empty());
    let external = text(&spec["externalTrafficPolicy"]);
    let external_path = SPEC.child("externalTrafficPolicy");
    match (outside, external) {
        (false, "") => {}
        (false, _) => causes.invalid(&external_path, external, "may only be set for externally-accessible services"),
        (true, "") => causes.required(&external_path, ""),
        (true, _) => causes.one_of(&external_path, external, &["Cluster", "Local"]),
    }
    let internal = text(&spec["internalTrafficPolicy"]);
    if !internal.is_empty() {
        causes.one_of(&SPEC.child("internalTrafficPolicy"), internal, &["Cluster", "Local"]);
    }
    check_service_ports(ports, kind, causes);
    for (index, ip) in list(&spec["externalIPs"]).iter().enumerate() {
        if text(ip).parse::<std::net::IpAddr>().is_err() {
            let path = SPEC.child("externalIPs");
            causes.invalid(
                &path.index(index),
                text(ip),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
}

fn check_service_ports(ports: &[Value], kind: &str, causes: &mut Causes) {
    let path = SPEC.child("ports");
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        let name = text(&port["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                causes.required(&at.child("name"), "");
            }
        } else {
            causes.invalid_each(&at.child("name"), name, names::label(name));
            if ports[..index].iter().any(|other| other["name"] == name) {
                causes.duplicate(&at.child("name"), name);
            }
        }
        let number = port["port"].as_i64().unwrap_or(0);
        if let Some(detail) = names::port_number(number) {
            causes.invalid(&at.child("port"), number, detail);
        }
        let protocol = text(&port["protocol"]);
        if protocol.is_empty() {
            causes.required(&at.child("protocol"), "");
        } else {
            causes.one_of(&at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
        check_port(&port["targetPort"], &at.child("targetPort"), causes);
        if ports[..index].iter().any(|other| other["port"] == port["port"] && other["protocol"] == port["protocol"]) {
            causes.duplicate(&at, json!({"port": port["port"], "protocol": port["protocol"]}));
        }
        let node_port = port["nodePort"].as_i64().unwrap_or(0);
        if node_port != 0 && kind == "ClusterIP" {
            causes.forbidden(&at.child("nodePort"), format!("may not be used when `type` is '{kind}'"));
        }
        let taken = |other: &Value| other["nodePort"] == port["nodePort"] && other["protocol"] == port["protocol"];
        if node_port != 0 && ports[..index].iter().any(taken) {
            causes.duplicate(&at.child("nodePort"), node_port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context<'static> = Context { now: Timestamp::from_secs(0), uid: "u" };

    fn service(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec});
        Service.defaults(&mut object);
        Service.prepare_create(&mut object, &CONTEXT);
        object
    }

    fn found(object: &Value) -> Vec<String> {
        Service.validate_create(object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_and_allocation() {
        let mut object = service(json!({"selector": {"a": "b"}, "ports": [{"port": 80}]}));
        assert_eq!(
            object["spec"],
            json!({"selector": {"a": "b"}, "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
        );
        assert_eq!(object["status"], json!({"loadBalancer": {}}));
        assert_eq!(Service.allocations(&object), [Allocation::ClusterIp { requested: None }]);
        set_cluster_ip(&mut object, "10.96.1.2");
        assert_eq!(object["spec"]["clusterIPs"], json!(["10.96.1.2"]));
        assert_eq!(found(&object), [""; 0]);
        // kubectl apply sends what was once written; the address stays.
        let mut again = json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "c"}, "ports": [{"port": 80}]}});
        Service.defaults(&mut again);
        Service.prepare_update(&mut again, &object, &CONTEXT);
        assert_eq!(again["spec"]["clusterIP"], "10.96.1.2");
        again["spec"]["clusterIP"] = json!("10.96.9.9");
        let causes: Vec<String> = Service.validate_update(&again, &object).iter().map(ToString::to_string).collect();
        assert_eq!(causes, ["spec.clusterIPs[0]: Invalid value: [\"10.96.9.9\"]: may not change once set"]);
    }

    #[test]
    fn node_ports() {
        let mut object = service(
            json!({"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30001}]}),
        );
        assert_eq!(
            Service.allocations(&object)[1..],
            [
                Allocation::NodePort { index: 0, requested: None },
                Allocation::NodePort { index: 1, requested: Some(30001) }
            ]
        );
        set_node_port(&mut object, 0, 30002);
        assert_eq!(object["spec"]["externalTrafficPolicy"], "Cluster");
        let mut again = json!({"metadata": {}, "spec": {"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
        Service.defaults(&mut again);
        Service.prepare_update(&mut again, &object, &CONTEXT);
        assert_eq!(
            (&again["spec"]["ports"][0]["nodePort"], &again["spec"]["ports"][1]["nodePort"]),
            (&json!(30002), &json!(30001))
        );
    }

    #[test]
    fn headless_and_external() {
        let headless = service(json!({"clusterIP": "None", "selector": {"a": "b"}}));
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
        assert_eq!(Service.allocations(&headless), []);
        assert_eq!(found(&headless), [""; 0]);
        let external = service(json!({"type": "ExternalName", "externalName": "example.com"}));
        assert_eq!(
            external["spec"],
            json!({"type": "ExternalName", "externalName": "example.com", "sessionAffinity": "None"})
        );
        assert_eq!(Service.allocations(&external), []);
    }

    #[test]
    fn faults() {
        for (spec, expected) in [
            (json!({}), "spec.ports: Required value"),
            (json!({"ports": [{"port": 80}, {"port": 81}]}), "spec.ports[0].name: Required value"),
            (
                json!({"ports": [{"port": 0}]}),
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"type": "Open", "ports": [{"port": 80}]}),
                "spec.type: Unsupported value: \"Open\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ),
            (
                json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}),
                "spec.ports[1].name: Duplicate value: \"a\"",
            ),
        ] {
            let found = found(&service(spec));
            assert!(found.iter().any(|cause| cause == expected), "{found:?} lacks {expected}");
        }
    }
}

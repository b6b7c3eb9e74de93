//! Services, endpoints, ingress, network policies.

use super::{AGE, Column, NAME, Row, age, format_labels, format_selector, list_with_more, name, or};
use crate::json::{list, text};
use model::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

/// Services.
pub const SERVICE: &[Column] = &[
    NAME,
    Column::text("Type", "How the service is exposed."),
    Column::text("Cluster-IP", "Virtual address inside the cluster."),
    Column::text("External-IP", "Addresses outside the cluster."),
    Column::text("Port(s)", "Ports, with node ports after a colon."),
    AGE,
    Column::text("Selector", "Labels of the pods behind it.").wide(),
];

/// A Service's row.
pub fn service_row(object: &Value, now: Timestamp) -> Row {
    let spec = &object["spec"];
    let cluster_ip = or(text(&spec["clusterIPs"][0]), text(&spec["clusterIP"]));
    let ports: Vec<String> = list(&spec["ports"])
        .iter()
        .map(|port| {
            let (number, protocol) = (&port["port"], text(&port["protocol"]));
            match port["nodePort"].as_i64() {
                Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    Row::plain(vec![
        name(object),
        spec["type"].clone(),
        Value::from(or(cluster_ip, "<none>")),
        Value::from(external_ips(object)),
        Value::from(or(&ports.join(","), "<none>")),
        age(object, now),
        Value::from(format_labels(&spec["selector"])),
    ])
}

fn external_ips(service: &Value) -> String {
    let spec = &service["spec"];
    let mut addresses: Vec<String> = list(&spec["externalIPs"]).iter().map(|ip| text(ip).to_owned()).collect();
    match text(&spec["type"]) {
        "ClusterIP" | "NodePort" if addresses.is_empty() => "<none>".into(),
        "ClusterIP" | "NodePort" => addresses.join(","),
        "LoadBalancer" => {
            let mut all = load_balancer(&service["status"]);
            all.append(&mut addresses);
            or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        _ => "<unknown>".into(),
    }
}

fn load_balancer(status: &Value) -> Vec<String> {
    let addresses: BTreeSet<&str> = list(&status["loadBalancer"]["ingress"])
        .iter()
        .map(|entry| or(text(&entry["ip"]), text(&entry["hostname"])))
        .collect();
    addresses.into_iter().filter(|address| !address.is_empty()).map(str::to_owned).collect()
}

/// Endpoints.
pub const ENDPOINTS: &[Column] = &[NAME, Column::text("Endpoints", "Addresses and ports."), AGE];

/// An Endpoints object's row.
pub fn endpoints_row(object: &Value, now: Timestamp) -> Row {
    let mut texts = Vec::new();
    for subset in list(&object["subsets"]) {
        let addresses = list(&subset["addresses"]);
        if list(&subset["ports"]).is_empty() {
            texts.extend(addresses.iter().map(|address| text(&address["ip"]).to_owned()));
        }
        for port in list(&subset["ports"]) {
            texts.extend(addresses.iter().map(|address| join_host_port(text(&address["ip"]), &port["port"])));
        }
    }
    let shown = if texts.is_empty() { "<none>".to_owned() } else { list_with_more(&texts, 3) };
    Row::plain(vec![name(object), Value::from(shown), age(object, now)])
}

fn join_host_port(ip: &str, port: &Value) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// EndpointSlices.
pub const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    Column::text("AddressType", "IPv4, IPv6 or FQDN."),
    Column::text("Ports", "Ports of the endpoints."),
    Column::text("Endpoints", "Addresses."),
    AGE,
];

/// An EndpointSlice's row.
pub fn endpoint_slice_row(object: &Value, now: Timestamp) -> Row {
    let ports: Vec<String> = list(&object["ports"])
        .iter()
        .map(|port| {
            port["port"].as_i64().map_or_else(|| port["name"].as_str().unwrap_or("*").to_owned(), |n| n.to_string())
        })
        .collect();
    let addresses: Vec<String> = list(&object["endpoints"])
        .iter()
        .flat_map(|e| list(&e["addresses"]))
        .map(|address| text(address).to_owned())
        .collect();
    Row::plain(vec![
        name(object),
        object["addressType"].clone(),
        Value::from(list_with_more(&ports, 3)),
        Value::from(list_with_more(&addresses, 3)),
        age(object, now),
    ])
}

/// Ingresses.
pub const INGRESS: &[Column] = &[
    NAME,
    Column::text("Class", "The name of the IngressClass resource that should be used for additional configuration"),
    Column::text("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
    Column::text("Address", "Address is a list containing ingress points for the load-balancer"),
    Column::text("Ports", "Ports of TLS configurations that open"),
    AGE,
];

/// An Ingress's row.
pub fn ingress_row(object: &Value, now: Timestamp) -> Row {
    let spec = &object["spec"];
    let rules = list(&spec["rules"]);
    let hosts: Vec<&str> =
        rules.iter().map(|rule| text(&rule["host"])).filter(|host| !host.is_empty()).take(3).collect();
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        3 if rules.len() > 3 => format!("{} + {} more...", hosts.join(","), rules.len() - 3),
        _ => hosts.join(","),
    };
    let ports = if list(&spec["tls"]).is_empty() { "80" } else { "80, 443" };
    Row::plain(vec![
        name(object),
        Value::from(or(text(&spec["ingressClassName"]), "<none>")),
        Value::from(hosts),
        Value::from(load_balancer(&object["status"]).join(",")),
        Value::from(ports),
        age(object, now),
    ])
}

/// IngressClasses.
pub const INGRESS_CLASS: &[Column] = &[
    NAME,
    Column::text("Controller", "Controller that is responsible for handling this class"),
    Column::text("Parameters", "A reference to a resource with additional parameters"),
    AGE,
];

/// An IngressClass's row.
pub fn ingress_class_row(object: &Value, now: Timestamp) -> Row {
    let parameters = &object["spec"]["parameters"];
    let shown = if parameters.is_null() {
        "<none>".to_owned()
    } else {
        let group = parameters["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
        format!("{}{group}/{}", text(&parameters["kind"]), text(&parameters["name"]))
    };
    Row::plain(vec![name(object), object["spec"]["controller"].clone(), Value::from(shown), age(object, now)])
}

/// NetworkPolicies.
pub const NETWORK_POLICY: &[Column] = &[NAME, Column::text("Pod-Selector", "Which pods it is about."), AGE];

/// A NetworkPolicy's row.
pub fn network_policy_row(object: &Value, now: Timestamp) -> Row {
    Row::plain(vec![name(object), Value::from(format_selector(&object["spec"]["podSelector"])), age(object, now)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn service(spec: Value, status: Value) -> String {
        let cells = service_row(&json!({"spec": spec, "status": status}), NOW).cells;
        cells[1..5].iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn services() {
        let ports = json!([{"port": 80, "protocol": "TCP"}, {"port": 53, "nodePort": 30053, "protocol": "UDP"}]);
        assert_eq!(
            service(json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.1"], "ports": ports}), json!({})),
            "ClusterIP 10.96.0.1 <none> 80/TCP,53:30053/UDP"
        );
        assert_eq!(
            service(json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}), json!({})),
            "ClusterIP None <none> <none>"
        );
        assert_eq!(
            service(json!({"type": "ExternalName", "externalName": "a.b"}), json!({})),
            "ExternalName <none> a.b <none>"
        );
        assert_eq!(service(json!({"type": "LoadBalancer"}), json!({})), "LoadBalancer <none> <pending> <none>");
        let status = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "x"}]}});
        assert_eq!(service(json!({"type": "LoadBalancer"}), status), "LoadBalancer <none> 1.2.3.4,x <none>");
    }

    #[test]
    fn endpoints() {
        let row = |object: Value| text(&endpoints_row(&object, NOW).cells[1]).to_owned();
        assert_eq!(row(json!({})), "<none>");
        let four =
            json!({"subsets": [{"addresses": [{"ip": "1"}, {"ip": "2"}], "ports": [{"port": 80}, {"port": 81}]}]});
        assert_eq!(row(four), "1:80,2:80,1:81 + 1 more...");
        let slice = json!({"addressType": "IPv4", "ports": [], "endpoints": [{"addresses": ["10.0.0.1"]}]});
        let cells = endpoint_slice_row(&slice, NOW).cells;
        assert_eq!(cells[1..4], [json!("IPv4"), json!("<unset>"), json!("10.0.0.1")]);
    }

    #[test]
    fn ingresses() {
        let object =
            json!({"spec": {"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}], "tls": [{}]}});
        let cells = ingress_row(&object, NOW).cells;
        assert_eq!(cells[1..5], [json!("<none>"), json!("a,b,c + 1 more..."), json!(""), json!("80, 443")]);
    }
}

//! Services and endpoints.

use crate::meta::meta;
use crate::read::{at, flag, items, labels, opt_int, path, str_at, text, texts};
use model::pod::Protocol;
use model::service::{
    AddressType, Endpoint, EndpointAddress, EndpointPort, EndpointSlice, EndpointSubset, Endpoints, Service,
    ServicePort, ServiceType, TargetPort, TargetRef,
};
use serde_json::Value;

fn number(value: &Value, key: &str) -> Option<u16> {
    opt_int(value, key).and_then(|port| port.try_into().ok())
}

/// A Service.
pub fn service(object: &Value) -> Service {
    let spec = at(object, "spec");
    let mut cluster_ips = texts(spec, "clusterIPs");
    if cluster_ips.is_empty() && !str_at(spec, "clusterIP").is_empty() {
        cluster_ips.push(text(spec, "clusterIP"));
    }
    Service {
        meta: meta(object),
        service_type: match str_at(spec, "type") {
            "NodePort" => ServiceType::NodePort,
            "LoadBalancer" => ServiceType::LoadBalancer,
            "ExternalName" => ServiceType::ExternalName,
            _ => ServiceType::ClusterIp,
        },
        selector: labels(at(spec, "selector")),
        cluster_ips,
        external_name: text(spec, "externalName"),
        ports: items(spec, "ports").iter().filter_map(service_port).collect(),
        publish_not_ready: flag(spec, "publishNotReadyAddresses"),
        client_ip_affinity: str_at(spec, "sessionAffinity") == "ClientIP",
    }
}

fn service_port(value: &Value) -> Option<ServicePort> {
    let port = number(value, "port")?;
    let target = match at(value, "targetPort") {
        Value::String(text) => match text.parse() {
            Ok(number) => TargetPort::Number(number),
            Err(_) => TargetPort::Name(text.as_str().into()),
        },
        _ => TargetPort::Number(number(value, "targetPort").unwrap_or(port)),
    };
    Some(ServicePort {
        name: text(value, "name"),
        port,
        node_port: number(value, "nodePort").unwrap_or(0),
        protocol: Protocol::parse(str_at(value, "protocol"))?,
        target,
        app_protocol: text(value, "appProtocol"),
    })
}

fn endpoint_ports(value: &Value) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = items(value, "ports")
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: text(port, "name"),
                port: number(port, "port"),
                protocol: Protocol::parse(str_at(port, "protocol"))?,
                app_protocol: text(port, "appProtocol"),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn target(value: &Value) -> Option<TargetRef> {
    let target = value.get("targetRef")?;
    (str_at(target, "kind") == "Pod").then(|| TargetRef {
        namespace: text(target, "namespace"),
        name: text(target, "name"),
        uid: text(target, "uid"),
    })
}

/// An EndpointSlice.
pub fn endpoint_slice(object: &Value) -> EndpointSlice {
    EndpointSlice {
        meta: meta(object),
        address_type: match str_at(object, "addressType") {
            "IPv6" => AddressType::Ipv6,
            "FQDN" => AddressType::Fqdn,
            _ => AddressType::Ipv4,
        },
        ports: endpoint_ports(object),
        endpoints: items(object, "endpoints").iter().map(endpoint).collect(),
    }
}

fn endpoint(value: &Value) -> Endpoint {
    let condition = |key: &str, default: bool| path(value, &["conditions", key]).as_bool().unwrap_or(default);
    // Absent conditions mean "ready", "serving like ready", "not terminating".
    let ready = condition("ready", true);
    Endpoint {
        addresses: texts(value, "addresses"),
        ready,
        serving: condition("serving", ready),
        terminating: condition("terminating", false),
        hostname: text(value, "hostname"),
        node_name: text(value, "nodeName"),
        zone: text(value, "zone"),
        target: target(value),
    }
}

/// Endpoints.
pub fn endpoints(object: &Value) -> Endpoints {
    let address = |value: &Value| EndpointAddress {
        ip: text(value, "ip"),
        hostname: text(value, "hostname"),
        node_name: text(value, "nodeName"),
        target: target(value),
    };
    let addresses = |subset: &Value, key: &str| -> Vec<EndpointAddress> {
        let mut addresses: Vec<EndpointAddress> = items(subset, key).iter().map(address).collect();
        addresses.sort();
        addresses
    };
    let mut subsets: Vec<EndpointSubset> = items(object, "subsets")
        .iter()
        .map(|subset| EndpointSubset {
            addresses: addresses(subset, "addresses"),
            not_ready: addresses(subset, "notReadyAddresses"),
            ports: endpoint_ports(subset),
        })
        .collect();
    subsets.sort_by(|a, b| a.ports.cmp(&b.ports));
    Endpoints { meta: meta(object), subsets }
}

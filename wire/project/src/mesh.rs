//! What the mesh reads of objects, and the statuses that it writes back.
//!
//! A field of the wrong form counts as absent, except where that would widen what a policy allows: there the object is refused, and
//! whoever asked keeps the last good one.

mod destination_rule;
mod duration;
mod gateway_api;
mod istio;
mod status;
mod traffic_policy;
mod virtual_service;

pub use duration::duration_ms;
pub use status::{
    ConditionParts, ListenerParts, Stamp, class_status, gateway_status, istio_status, listener_set_status,
    policy_status, route_status,
};

use crate::read::{at, flag, int, items, labels, opt_int, opt_text, path, str_at, text};
use base64::Engine;
use model::Key;
use model::mesh::api::{
    CaBundle, EndpointSlice, Namespace, Node, Object, ObjectKind, Pod, Service, SliceEndpoint, TlsSecret, WorkloadEntry,
};
use model::mesh::{AppProtocol, RouteKind, ServicePort, Transport};
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;

/// Group, version and plural of everything that the mesh follows, with the kind that it reads it as.
pub const RESOURCES: &[(&str, &str, &str, ObjectKind)] = &[
    ("", "v1", "namespaces", ObjectKind::Namespace),
    ("", "v1", "nodes", ObjectKind::Node),
    ("", "v1", "pods", ObjectKind::Pod),
    ("", "v1", "services", ObjectKind::Service),
    ("", "v1", "secrets", ObjectKind::TlsSecret),
    ("discovery.k8s.io", "v1", "endpointslices", ObjectKind::EndpointSlice),
    ("networking.istio.io", "v1", "workloadentries", ObjectKind::WorkloadEntry),
    ("networking.istio.io", "v1", "virtualservices", ObjectKind::VirtualService),
    ("networking.istio.io", "v1", "destinationrules", ObjectKind::DestinationRule),
    ("networking.istio.io", "v1", "serviceentries", ObjectKind::ServiceEntry),
    ("gateway.networking.k8s.io", "v1", "gatewayclasses", ObjectKind::GatewayClass),
    ("gateway.networking.k8s.io", "v1", "gateways", ObjectKind::Gateway),
    ("gateway.networking.k8s.io", "v1", "listenersets", ObjectKind::ListenerSet),
    ("gateway.networking.k8s.io", "v1", "backendtlspolicies", ObjectKind::BackendTlsPolicy),
    ("", "v1", "configmaps", ObjectKind::CaBundle),
    ("gateway.networking.k8s.io", "v1", "httproutes", ObjectKind::Route(RouteKind::Http)),
    ("gateway.networking.k8s.io", "v1", "grpcroutes", ObjectKind::Route(RouteKind::Grpc)),
    ("gateway.networking.k8s.io", "v1", "tlsroutes", ObjectKind::Route(RouteKind::Tls)),
    ("gateway.networking.k8s.io", "v1", "tcproutes", ObjectKind::Route(RouteKind::Tcp)),
    ("gateway.networking.k8s.io", "v1", "udproutes", ObjectKind::Route(RouteKind::Udp)),
    ("gateway.networking.k8s.io", "v1", "referencegrants", ObjectKind::ReferenceGrant),
    ("security.istio.io", "v1", "authorizationpolicies", ObjectKind::AuthorizationPolicy),
    ("security.istio.io", "v1", "peerauthentications", ObjectKind::PeerAuthentication),
    ("security.istio.io", "v1", "requestauthentications", ObjectKind::RequestAuthentication),
    ("mesh.diolkos.io", "v1", "trafficpolicies", ObjectKind::TrafficPolicy),
];

/// An object that the mesh cannot use. The object's author's fault; another try with the same bytes fails the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// Not JSON, or without a name.
    #[error("not an object: {0}")]
    NotAnObject(String),
    /// A field whose meaning must not be guessed.
    #[error("{field}: {why}")]
    Field {
        /// Where.
        field: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads an object of a kind. None: it is nothing to the mesh (a Secret of another type).
///
/// # Errors
/// See [`MeshError`].
pub fn read(kind: ObjectKind, bytes: &[u8]) -> Result<Option<Object>, MeshError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| MeshError::NotAnObject(error.to_string()))?;
    if str_at(at(&value, "metadata"), "name").is_empty() {
        return Err(MeshError::NotAnObject("metadata.name is missing".into()));
    }
    Ok(Some(match kind {
        ObjectKind::Namespace => Object::Namespace(Namespace { key: key(&value), labels: own_labels(&value) }),
        ObjectKind::Node => Object::Node(node(&value)),
        ObjectKind::Pod => Object::Pod(pod(&value)),
        ObjectKind::WorkloadEntry => Object::WorkloadEntry(entry(&value)),
        ObjectKind::Service => Object::Service(service(&value)),
        ObjectKind::EndpointSlice => Object::EndpointSlice(slice(&value)),
        ObjectKind::TlsSecret => return Ok(secret(&value).map(Object::TlsSecret)),
        ObjectKind::GatewayClass => Object::GatewayClass(gateway_api::class(&value)),
        ObjectKind::Gateway => Object::Gateway(gateway_api::gateway(&value)),
        ObjectKind::ListenerSet => Object::ListenerSet(gateway_api::listener_set(&value)),
        ObjectKind::BackendTlsPolicy => Object::BackendTlsPolicy(gateway_api::backend_tls(&value)),
        ObjectKind::CaBundle => return Ok(ca_bundle(&value).map(Object::CaBundle)),
        ObjectKind::Route(kind) => Object::Route(gateway_api::route(kind, &value)),
        ObjectKind::ReferenceGrant => Object::ReferenceGrant(gateway_api::grant(&value)),
        ObjectKind::AuthorizationPolicy => Object::AuthorizationPolicy(istio::authorization(&value)?),
        ObjectKind::PeerAuthentication => Object::PeerAuthentication(istio::peer(&value)?),
        ObjectKind::VirtualService => Object::VirtualService(Box::new(virtual_service::virtual_service(&value))),
        ObjectKind::DestinationRule => Object::DestinationRule(Box::new(destination_rule::destination_rule(&value))),
        ObjectKind::ServiceEntry => Object::ServiceEntry(Box::new(destination_rule::service_entry(&value))),
        ObjectKind::TrafficPolicy => Object::TrafficPolicy(Box::new(traffic_policy::traffic_policy(&value))),
        // Found by asking DNS, never read.
        ObjectKind::ResolvedName | ObjectKind::FetchedJwks => return Ok(None),
        ObjectKind::RequestAuthentication => Object::RequestAuthentication(Box::new(istio::request(&value)?)),
    }))
}

/// Namespace and name of an object.
pub fn key(value: &Value) -> Key {
    let meta = at(value, "metadata");
    Key { namespace: text(meta, "namespace"), name: text(meta, "name") }
}

fn own_labels(value: &Value) -> model::Labels {
    labels(path(value, &["metadata", "labels"]))
}

fn deleting(value: &Value) -> bool {
    at(at(value, "metadata"), "deletionTimestamp").is_string()
}

fn annotation<'a>(value: &'a Value, name: &str) -> &'a str {
    str_at(path(value, &["metadata", "annotations"]), name)
}

fn addresses<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn port(value: &Value, name: &str) -> u16 {
    opt_int(value, name).and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
}

fn node(value: &Value) -> Node {
    let all = items(at(value, "status"), "addresses");
    let of = |kind: &str| addresses(all.iter().filter(|it| str_at(it, "type") == kind).map(|it| str_at(it, "address")));
    let external = of("ExternalIP");
    let labels = path(value, &["metadata", "labels"]);
    Node {
        key: key(value),
        zone: text(labels, "topology.kubernetes.io/zone"),
        region: text(labels, "topology.kubernetes.io/region"),
        addresses: if external.is_empty() { of("InternalIP") } else { external },
    }
}

fn pod(value: &Value) -> Pod {
    let (spec, status) = (at(value, "spec"), at(value, "status"));
    let mut ips = addresses(items(status, "podIPs").iter().map(|it| str_at(it, "ip")));
    if ips.is_empty() {
        ips = addresses(std::iter::once(str_at(status, "podIP")));
    }
    let controller = items(at(value, "metadata"), "ownerReferences").iter().find(|owner| flag(owner, "controller"));
    let account = text(spec, "serviceAccountName");
    Pod {
        key: key(value),
        uid: text(at(value, "metadata"), "uid"),
        labels: own_labels(value),
        service_account: if account.is_empty() { "default".into() } else { account },
        node: text(spec, "nodeName"),
        addresses: ips,
        host_network: flag(spec, "hostNetwork"),
        mesh_disabled: annotation(value, "diolkos.io/mesh") == "disabled",
        deleting: deleting(value),
        ended: matches!(str_at(status, "phase"), "Succeeded" | "Failed"),
        controller: controller.map(|owner| (text(owner, "kind"), text(owner, "name"))).unwrap_or_default(),
    }
}

fn entry(value: &Value) -> WorkloadEntry {
    let spec = at(value, "spec");
    let (region, zone) = destination_rule::locality_of(spec);
    let mut all = own_labels(value);
    all.extend(labels(at(spec, "labels")));
    let account = text(spec, "serviceAccount");
    let said = str_at(spec, "address");
    let address = said.parse().ok();
    // A socket (`unix://`) is no name, nor is what has no domain.
    let is_name = said.contains('.') && said.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    WorkloadEntry {
        key: key(value),
        uid: text(at(value, "metadata"), "uid"),
        labels: all,
        service_account: if account.is_empty() { "default".into() } else { account },
        address,
        host: if address.is_none() && is_name { said.to_ascii_lowercase().into() } else { "".into() },
        ports: destination_rule::named_ports(spec),
        weight: opt_int(spec, "weight").and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
        region,
        zone,
        deleting: deleting(value),
        joined: annotation(value, "diolkos.io/joined") == "true",
        joined_id: annotation(value, "diolkos.io/joined-id").into(),
    }
}

fn service(value: &Value) -> Service {
    let spec = at(value, "spec");
    let mut ips: Vec<&str> = items(spec, "clusterIPs").iter().filter_map(Value::as_str).collect();
    if ips.is_empty() {
        ips.push(str_at(spec, "clusterIP"));
    }
    let affinity = (str_at(spec, "sessionAffinity") == "ClientIP").then(|| {
        let seconds = opt_int(path(spec, &["sessionAffinityConfig", "clientIP"]), "timeoutSeconds");
        seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(10_800)
    });
    Service {
        key: key(value),
        selector: labels(at(spec, "selector")),
        headless: ips.first() == Some(&"None"),
        vips: addresses(ips.into_iter()),
        ports: items(spec, "ports").iter().map(service_port).collect(),
        affinity_s: affinity,
        publish_not_ready: flag(spec, "publishNotReadyAddresses"),
        external_name: opt_text(spec, "externalName").filter(|_| str_at(spec, "type") == "ExternalName"),
    }
}

fn service_port(value: &Value) -> ServicePort {
    let name = text(value, "name");
    ServicePort {
        port: port(value, "port"),
        transport: if str_at(value, "protocol") == "UDP" { Transport::Udp } else { Transport::Tcp },
        app_protocol: app_protocol(str_at(value, "appProtocol"), &name),
        node_port: port(value, "nodePort"),
        name,
        ..ServicePort::default()
    }
}

/// `appProtocol`, else what the port's name begins with, as Istio's protocol selection reads both.
fn app_protocol(said: &str, name: &str) -> AppProtocol {
    let word = |word: &str| match word {
        "http" | "http-web" => Some(AppProtocol::Http),
        "http2" => Some(AppProtocol::Http2),
        "grpc" | "grpc-web" => Some(AppProtocol::Grpc),
        "https" | "tls" => Some(AppProtocol::Tls),
        "tcp" | "mongo" | "mysql" | "redis" | "postgres" | "postgresql" => Some(AppProtocol::Tcp),
        _ => None,
    };
    let from_name = || word(name.split('-').next().unwrap_or_default());
    match said {
        "" => from_name().unwrap_or_default(),
        "kubernetes.io/h2c" => AppProtocol::Http2,
        "kubernetes.io/ws" => AppProtocol::Http,
        "kubernetes.io/wss" => AppProtocol::Tls,
        said => word(&said.to_ascii_lowercase()).unwrap_or_default(),
    }
}

fn slice(value: &Value) -> EndpointSlice {
    let named = str_at(value, "addressType") == "FQDN";
    let endpoints = items(value, "endpoints").iter().filter(|_| !named).map(slice_endpoint).collect();
    let ports = items(value, "ports").iter().filter(|it| opt_int(it, "port").is_some());
    EndpointSlice {
        key: key(value),
        service: text(path(value, &["metadata", "labels"]), "kubernetes.io/service-name"),
        ports: ports.map(|it| (text(it, "name"), port(it, "port"))).collect(),
        endpoints,
    }
}

fn slice_endpoint(value: &Value) -> SliceEndpoint {
    let conditions = at(value, "conditions");
    let said = |name: &str| at(conditions, name).as_bool();
    let ready = said("ready").unwrap_or(true);
    let target = at(value, "targetRef");
    SliceEndpoint {
        addresses: addresses(items(value, "addresses").iter().filter_map(Value::as_str)),
        ready,
        serving: said("serving").unwrap_or(ready),
        terminating: said("terminating").unwrap_or(false),
        target: (text(target, "kind"), text(target, "name")),
        node: text(value, "nodeName"),
        zone: text(value, "zone"),
        hostname: text(value, "hostname"),
    }
}

/// None: a Secret that holds nothing of TLS.
fn secret(value: &Value) -> Option<TlsSecret> {
    let generic = str_at(value, "type") != "kubernetes.io/tls";
    let data = at(value, "data");
    // Istio takes generic ones, with its own names for their parts.
    let decode = |name: &str, other: &str| -> Arc<[u8]> {
        let own = if generic && str_at(data, name).is_empty() { other } else { name };
        decode_base64(str_at(data, own)).unwrap_or_default().into()
    };
    let (certificate_chain, private_key) = (decode("tls.crt", "cert"), decode("tls.key", "key"));
    let roots = decode("ca.crt", "cacert");
    let holds = |bytes: &[u8], marks: &[&str]| {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        marks.iter().any(|mark| pem_body(text, mark).is_some())
    };
    let has_roots = holds(&roots, &["CERTIFICATE"]);
    let flaw = if !holds(&certificate_chain, &["CERTIFICATE"]) {
        "tls.crt holds no certificate"
    } else if !holds(&private_key, &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"]) {
        "tls.key holds no private key"
    } else {
        ""
    };
    if generic && !has_roots && !flaw.is_empty() {
        return None;
    }
    let roots = if has_roots { String::from_utf8_lossy(&roots).into() } else { "".into() };
    Some(TlsSecret { key: key(value), certificate_chain, private_key, roots, generic, flaw: flaw.into() })
}

/// None: a ConfigMap that holds no certificates to trust.
fn ca_bundle(value: &Value) -> Option<CaBundle> {
    let roots = opt_text(at(value, "data"), "ca.crt")?;
    let flaw = if pem_body(&roots, "CERTIFICATE").is_some() { "" } else { "ca.crt holds no certificate" };
    Some(CaBundle { key: key(value), roots, flaw: flaw.into() })
}

/// The bytes of the first PEM block of a kind. Whether they are a certificate that fits its key, the proxy says.
fn pem_body(text: &str, kind: &str) -> Option<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let body = text.split_once(&begin)?.1.split_once(&end)?.0;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    decode_base64(&body).filter(|bytes| !bytes.is_empty())
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    base64::prelude::BASE64_STANDARD.decode(text).ok()
}

/// A whole number of `weight` and the like, not below 0.
fn weight(value: &Value) -> u32 {
    u32::try_from(int(value, "weight", 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests;

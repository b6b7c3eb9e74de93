//! EndpointSlices, and Endpoints in their older form, of services with a selector.
//!
//! A slice holds the endpoints that share resolved port numbers (named ports may differ from pod to pod) and one address family,
//! at most a hundred of them. A pod that is being deleted leaves `ready` at once and stays `serving` while it answers, so that proxies
//! can finish with it.

use crate::control::Cx;
use crate::names;
use crate::plan::Plan;
use crate::world::{SERVICE_NAME_LABEL, controller_ref};
use model::effect::{Body, Change, NewMeta, Propagation};
use model::service::{
    AddressType, Endpoint, EndpointAddress, EndpointPort, EndpointSlice, EndpointSubset, Service, ServicePort,
    ServiceType, TargetPort, TargetRef,
};
use model::{Key, Kind, Labels, Meta, Pod};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Upstream's default of max-endpoints-per-slice.
const SLICE_MAX: usize = 100;
/// Endpoints are cut here, with an annotation, as upstream cuts them.
const ENDPOINTS_MAX: usize = 1000;

/// Whether two states of one pod make the same endpoint.
pub fn looks_equal(a: &Pod, b: &Pod) -> bool {
    a.is_ready() == b.is_ready()
        && a.meta.is_deleting() == b.meta.is_deleting()
        && a.status.phase == b.status.phase
        && a.status.pod_ips == b.status.pod_ips
        && a.status.pod_ip == b.status.pod_ip
        && a.spec.node_name == b.spec.node_name
        && a.meta.uid == b.meta.uid
        && a.meta.labels == b.meta.labels
}

/// Pods that a service's endpoints are made of: with an address, a node, and not ended.
fn pods_of<'a>(cx: &'a Cx, service: &'a Service) -> impl Iterator<Item = &'a Arc<Pod>> {
    cx.world.selected_by(service).filter(|pod| {
        !pod.status.pod_ip.is_empty() && !pod.spec.node_name.is_empty() && !pod.status.phase.is_terminal()
    })
}

fn is_managed(service: &Service) -> bool {
    !service.selector.is_empty() && service.service_type != ServiceType::ExternalName
}

fn target_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    match &port.target {
        TargetPort::Number(0) => Some(port.port),
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let containers = pod.spec.containers.iter().chain(pod.spec.init_containers.iter().filter(|c| c.sidecar));
            containers
                .flat_map(|container| &container.ports)
                .find(|declared| declared.name == *name && declared.protocol == port.protocol)
                .map(|declared| declared.port)
        }
    }
}

/// The service's ports as this pod serves them.
fn ports_of(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = service
        .ports
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: port.name.clone(),
                port: Some(target_port(pod, port)?),
                protocol: port.protocol,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn family(address: &str) -> AddressType {
    if address.contains(':') { AddressType::Ipv6 } else { AddressType::Ipv4 }
}

fn target_ref(meta: &Meta) -> TargetRef {
    TargetRef { namespace: meta.key.namespace.clone(), name: meta.key.name.clone(), uid: meta.uid.clone() }
}

/// The name under a headless service: only when the pod asks to be found there.
fn hostname(service: &Service, pod: &Pod) -> Arc<str> {
    let named = pod.spec.subdomain == service.meta.key.name && !pod.spec.hostname.is_empty();
    if named { pod.spec.hostname.clone() } else { "".into() }
}

fn endpoint(cx: &Cx, service: &Service, pod: &Pod, addresses: Vec<Arc<str>>) -> Endpoint {
    let serving = pod.is_ready();
    let terminating = pod.meta.is_deleting();
    let node = cx.world.nodes.get(&Key::new("", pod.spec.node_name.clone()));
    let zone = node.and_then(|node| node.meta.labels.get(ZONE)).cloned();
    Endpoint {
        addresses,
        ready: service.publish_not_ready || serving && !terminating,
        serving,
        terminating,
        hostname: hostname(service, pod),
        node_name: pod.spec.node_name.clone(),
        zone: zone.unwrap_or_default(),
        target: Some(target_ref(&pod.meta)),
    }
}

type Group = (AddressType, Vec<EndpointPort>);

/// What the slices of a service are to say.
fn desired(cx: &Cx, service: &Service) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    let families: BTreeSet<AddressType> =
        service.cluster_ips.iter().filter(|ip| &***ip != "None").map(|ip| family(ip)).collect();
    for pod in pods_of(cx, service) {
        let ips: &[Arc<str>] =
            if pod.status.pod_ips.is_empty() { std::slice::from_ref(&pod.status.pod_ip) } else { &pod.status.pod_ips };
        let ports = ports_of(service, pod);
        for kind in [AddressType::Ipv4, AddressType::Ipv6] {
            if !families.is_empty() && !families.contains(&kind) {
                continue;
            }
            if let Some(ip) = ips.iter().find(|ip| family(ip) == kind) {
                let endpoint = endpoint(cx, service, pod, vec![ip.clone()]);
                groups.entry((kind, ports.clone())).or_default().push(endpoint);
            }
        }
    }
    if groups.is_empty() {
        // A service without pods has an empty slice, so that its consumers can tell "none" from "not known yet".
        let kind = families.first().copied().unwrap_or_default();
        groups.insert((kind, Vec::new()), Vec::new());
    }
    for endpoints in groups.values_mut() {
        endpoints.sort_by(|a, b| (&a.addresses, &a.target).cmp(&(&b.addresses, &b.target)));
    }
    groups
}

fn slice_labels(service: &Service) -> Labels {
    let mut labels: Labels = service.meta.labels.clone();
    labels.remove(HEADLESS);
    if service.is_headless() {
        labels.insert(HEADLESS.into(), "".into());
    }
    labels.insert(SERVICE_NAME_LABEL.into(), service.meta.key.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

/// Looks at the slices of one service.
pub fn reconcile_slices(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    if !cx.world.all_synced(&[Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::Node]) {
        return plan;
    }
    let own: Vec<&Arc<EndpointSlice>> =
        cx.world.slices_of(key).filter(|slice| slice.meta.label(MANAGED_BY) == Some(MANAGER)).collect();
    let Some(service) = cx.world.services.get(key).filter(|service| is_managed(service)) else {
        // The collector deletes the slices of a deleted service; those of one that lost its selector stay, as upstream leaves them.
        return plan;
    };
    if service.meta.is_deleting() {
        return plan;
    }
    let mut unused: BTreeMap<Group, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in own.into_iter().filter(|slice| !slice.meta.is_deleting()) {
        let mut ports = slice.ports.clone();
        ports.sort();
        unused.entry((slice.address_type, ports)).or_default().push(slice);
    }
    let labels = slice_labels(service);
    let mut made = 0;
    for ((kind, ports), endpoints) in desired(cx, service) {
        plan.cost += endpoints.len();
        let mut present = unused.remove(&(kind, ports.clone())).unwrap_or_default();
        if present.is_empty() {
            // The empty slice of a service that had no pods becomes the first one with some.
            let empty = unused
                .iter_mut()
                .find(|((of, _), slices)| *of == kind && slices.iter().any(|s| s.endpoints.is_empty()));
            present.extend(empty.and_then(|(_, slices)| slices.pop()));
        }
        for (slice, endpoints) in distribute(&present, endpoints) {
            match slice {
                Some(slice) => write_slice(&mut plan, slice, &labels, ports.clone(), endpoints),
                None => {
                    let meta = slice_meta(cx, service, labels.clone(), made);
                    plan.create(meta, Body::EndpointSlice { address_type: kind, ports: ports.clone(), endpoints });
                    made += 1;
                }
            }
        }
    }
    // Slices whose ports nobody serves any more are reused for nothing: they go.
    for slice in unused.into_values().flatten() {
        plan.delete(Kind::EndpointSlice, &slice.meta, Propagation::Default);
    }
    plan
}

fn write_slice(
    plan: &mut Plan,
    slice: &Arc<EndpointSlice>,
    labels: &Labels,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) {
    if slice.endpoints == endpoints && slice.meta.labels == *labels {
        return;
    }
    if endpoints.is_empty() && !slice.endpoints.is_empty() && !ports.is_empty() {
        plan.delete(Kind::EndpointSlice, &slice.meta, Propagation::Default);
        return;
    }
    let change = Change::EndpointSlice { ports, endpoints, labels: labels.clone(), annotations: Labels::new() };
    plan.update(Kind::EndpointSlice, &slice.meta, change);
}

/// Keeps every endpoint in the slice that holds it already, fills gaps with new ones, and opens new slices for the rest: a change of
/// one pod rewrites one slice.
fn distribute<'a>(
    present: &[&'a Arc<EndpointSlice>],
    endpoints: Vec<Endpoint>,
) -> Vec<(Option<&'a Arc<EndpointSlice>>, Vec<Endpoint>)> {
    let mut wanted: BTreeMap<Option<TargetRef>, Endpoint> =
        endpoints.into_iter().map(|e| (e.target.clone(), e)).collect();
    let mut out: Vec<(Option<&Arc<EndpointSlice>>, Vec<Endpoint>)> = present
        .iter()
        .map(|slice| {
            let kept = slice.endpoints.iter().filter_map(|old| wanted.remove(&old.target)).collect();
            (Some(*slice), kept)
        })
        .collect();
    let mut rest = wanted.into_values();
    for (_, kept) in &mut out {
        kept.extend(rest.by_ref().take(SLICE_MAX.saturating_sub(kept.len())));
    }
    loop {
        let chunk: Vec<Endpoint> = rest.by_ref().take(SLICE_MAX).collect();
        if chunk.is_empty() {
            break;
        }
        out.push((None, chunk));
    }
    if out.is_empty() {
        out.push((None, Vec::new()));
    }
    for (_, kept) in &mut out {
        kept.sort_by(|a, b| (&a.addresses, &a.target).cmp(&(&b.addresses, &b.target)));
    }
    out
}

fn slice_meta(cx: &Cx, service: &Service, labels: Labels, index: u64) -> NewMeta {
    let base = format!("{}-", service.meta.key.name);
    NewMeta {
        key: Key {
            namespace: service.meta.key.namespace.clone(),
            name: names::generated(&base, cx.seed ^ (index << 40)),
        },
        generate_name: base.into(),
        labels,
        owners: vec![controller_ref(Kind::Service, &service.meta)],
        ..NewMeta::default()
    }
}

/// Looks at the Endpoints of one service.
pub fn reconcile_endpoints(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    if !cx.world.all_synced(&[Kind::Pod, Kind::Service, Kind::Endpoints]) {
        return plan;
    }
    let present = cx.world.endpoints.get(key);
    let Some(service) = cx.world.services.get(key) else {
        // Endpoints have no owner reference upstream; whoever deletes a service means them too.
        if let Some(endpoints) =
            present.filter(|e| !e.meta.is_deleting() && e.meta.label(MANAGED_BY_LEGACY) == Some(LEGACY_MANAGER))
        {
            plan.delete(Kind::Endpoints, &endpoints.meta, Propagation::Default);
        }
        return plan;
    };
    if !is_managed(service) || service.meta.is_deleting() {
        return plan;
    }
    let (subsets, cut) = subsets(cx, service);
    let mut labels = service.meta.labels.clone();
    labels.remove(HEADLESS);
    if service.is_headless() {
        labels.insert(HEADLESS.into(), "".into());
    }
    labels.insert(MANAGED_BY_LEGACY.into(), LEGACY_MANAGER.into());
    let mut annotations = Labels::new();
    if cut {
        annotations.insert("endpoints.kubernetes.io/over-capacity".into(), "truncated".into());
    }
    match present {
        None => {
            let meta = NewMeta { key: key.clone(), labels, annotations, ..NewMeta::default() };
            plan.create(meta, Body::Endpoints { subsets });
        }
        Some(present) => {
            let has_labels = labels.iter().all(|(key, value)| present.meta.labels.get(key) == Some(value));
            let annotated = annotations.iter().all(|(key, value)| present.meta.annotations.get(key) == Some(value));
            if present.subsets != subsets || !has_labels || !annotated {
                plan.update(Kind::Endpoints, &present.meta, Change::Endpoints { subsets, labels, annotations });
            }
        }
    }
    plan
}

const MANAGED_BY_LEGACY: &str = "endpoints.kubernetes.io/managed-by";
const LEGACY_MANAGER: &str = "endpoint-controller";

/// Subsets: addresses by the ports that they serve. Says whether some were left out.
fn subsets(cx: &Cx, service: &Service) -> (Vec<EndpointSubset>, bool) {
    type Addresses = (Vec<EndpointAddress>, Vec<EndpointAddress>);
    let mut groups: BTreeMap<Vec<EndpointPort>, Addresses> = BTreeMap::new();
    let mut count = 0;
    let mut cut = false;
    for pod in pods_of(cx, service) {
        // Endpoints cannot say "terminating": such a pod is left out, unless not-ready ones are asked for.
        if pod.meta.is_deleting() && !service.publish_not_ready {
            continue;
        }
        let ports: Vec<EndpointPort> = ports_of(service, pod);
        if ports.is_empty() && !service.ports.is_empty() {
            continue;
        }
        if count == ENDPOINTS_MAX {
            cut = true;
            break;
        }
        count += 1;
        let address = EndpointAddress {
            ip: pod.status.pod_ip.clone(),
            hostname: hostname(service, pod),
            node_name: pod.spec.node_name.clone(),
            target: Some(target_ref(&pod.meta)),
        };
        let (ready, not_ready) = groups.entry(ports).or_default();
        if service.publish_not_ready || pod.is_ready() { ready.push(address) } else { not_ready.push(address) }
    }
    let subsets = groups
        .into_iter()
        .map(|(ports, (mut addresses, mut not_ready))| {
            addresses.sort();
            not_ready.sort();
            EndpointSubset { addresses, not_ready, ports }
        })
        .collect();
    (subsets, cut)
}

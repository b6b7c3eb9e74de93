//! ServiceEntries, and WorkloadEntries as endpoints.

use super::hosts::{dns_names, entry_service};
use super::status::{Condition, IstioStatus};
use super::workload::{entry_name, pod_name};
use super::{Compiler, Output, selects};
use model::mesh::api::istio::{EntryEndpoint, EntryPort, Resolution, ServiceEntry};
use model::mesh::api::{self, ObjectKind};
use model::mesh::{AppProtocol, Endpoint, EndpointGroup, Health, Service, ServicePort};
use model::{Key, Labels};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Ports of endpoints by the service ports' names: endpoints that share them make one group.
type Ports = Vec<(Arc<str>, u16)>;
/// Endpoints by their ports, each with its workload's labels.
type Grouped = BTreeMap<Ports, Vec<(Endpoint, Labels)>>;

impl Compiler {
    pub(super) fn compile_service_entry(&mut self, key: &Key, output: &mut Output) {
        let service_key = entry_service(key);
        let Some(entry) = self.objects.service_entries.get(key) else {
            self.tell_service(&service_key, None, output);
            self.tell_groups(&service_key.to_string(), Vec::new(), output);
            self.tell_status(ObjectKind::ServiceEntry, key, None, output);
            return;
        };
        let accepted = self.entry_accepted(entry);
        let usable = accepted.holds;
        let mut conditions = vec![accepted];
        conditions.extend(usable.then(|| self.shared_address(entry)).flatten());
        let status = IstioStatus { generation: entry.meta.generation, conditions };
        let service = usable.then(|| service(&service_key, entry, self.invented.address(key)));
        let groups = if usable { self.entry_groups(&service_key, entry) } else { Vec::new() };
        self.tell_service(&service_key, service, output);
        self.tell_groups(&service_key.to_string(), groups, output);
        self.tell_status(ObjectKind::ServiceEntry, key, Some(status), output);
    }

    fn entry_accepted(&self, entry: &ServiceEntry) -> Condition {
        let bad = |reason, message: String| Condition::bad("Accepted", reason, message);
        if entry.resolution == Resolution::Unknown {
            return bad("UnsupportedValue", "resolution must be NONE, STATIC, DNS or DNS_ROUND_ROBIN".into());
        }
        if !entry.bad_address.is_empty() {
            return bad("UnsupportedValue", format!("addresses: {} is no address and no block", entry.bad_address));
        }
        let through = entry.resolution == Resolution::None;
        if let Some(wild) = entry.hosts.iter().find(|host| host.starts_with('*') && !through) {
            return bad("UnsupportedValue", format!("host {wild}: a pattern needs resolution NONE"));
        }
        if !entry.blocks.is_empty() && !through {
            return bad("UnsupportedValue", "addresses: blocks need resolution NONE".into());
        }
        let older = entry.hosts.iter().flat_map(|host| self.hosts.entries_of(host)).find(|other| {
            let rank = |key: &Key| self.objects.service_entries.get(key).map(|it| (it.meta.created, key.clone()));
            let both = self.objects.service_entries.get(*other).is_some_and(|other| meet(other, entry));
            let apart = self.objects.service_entries.get(*other).is_some_and(|other| are_apart(other, entry));
            **other != entry.meta.key && both && !apart && rank(other) < rank(&entry.meta.key)
        });
        if let Some(older) = older {
            return bad("Conflict", format!("ServiceEntry {older} is older and has the same host"));
        }
        Condition::good("Accepted", "Accepted", "the entry is a service of the mesh")
    }

    /// What is to be said of an address that an older entry has on the same port, where names do not tell connections apart.
    fn shared_address(&self, entry: &ServiceEntry) -> Option<Condition> {
        let rank = |it: &ServiceEntry| (it.export_to.is_empty(), it.meta.created, it.meta.key.clone());
        for address in &entry.addresses {
            let others = self.hosts.entries_at(*address).filter_map(|key| self.objects.service_entries.get(key));
            let seen = others.filter(|other| other.meta.key != entry.meta.key && see_both(other, entry));
            for other in seen.filter(|other| rank(other) < rank(entry)) {
                let alike =
                    |port: &&EntryPort| other.ports.iter().any(|it| it.port == port.port && !tell_names(it, port));
                if let Some(port) = entry.ports.iter().find(alike) {
                    let message = format!(
                        "ServiceEntry {} goes before it at {address} port {}: it is called there only by a name that it alone has, in HTTP or TLS",
                        other.meta.key, port.port
                    );
                    return Some(Condition::good("Conflicted", "SharedAddress", message));
                }
            }
        }
        None
    }

    fn entry_groups(&self, service: &Key, entry: &ServiceEntry) -> Vec<(EndpointGroup, Vec<Labels>)> {
        let mut grouped = Grouped::new();
        let mut add = |ports: Ports, endpoint: Endpoint, labels: Labels| {
            grouped.entry(ports).or_default().push((endpoint, labels));
        };
        // Where connections go on as they were meant, only what a selector takes is an endpoint: for gateways, to whom no address was meant.
        let through = entry.resolution == Resolution::None;
        for endpoint in entry.endpoints.iter().filter(|_| !through) {
            for address in self.addresses_of(&endpoint.address) {
                add(ports(entry, &endpoint.ports), inline(endpoint, address), endpoint.labels.clone());
            }
        }
        if entry.endpoints.is_empty() && entry.selector.is_empty() && !through {
            for name in dns_names(entry) {
                for address in self.addresses_of(&name) {
                    add(ports(entry, &[]), inline(&EntryEndpoint::default(), address), Labels::new());
                }
            }
        }
        if !entry.selector.is_empty() {
            let namespace = &entry.meta.key.namespace;
            for it in self.entries_selected(namespace, &entry.selector) {
                for address in self.addresses_of_entry(it) {
                    add(ports(entry, &it.ports), of_entry(it, address), it.labels.clone());
                }
            }
            let pods = self.index.pods_by_namespace.get(namespace).into_iter().flatten();
            let pods = pods.filter_map(|key| self.objects.pods.get(key));
            for pod in pods.filter(|pod| selects(&entry.selector, &pod.labels)) {
                if let Some(endpoint) = self.of_pod(pod) {
                    add(ports(entry, &[]), endpoint, pod.labels.clone());
                }
            }
        }
        finish(service, "", grouped)
    }

    /// WorkloadEntries that a Service's selector takes, beside its slices.
    pub(super) fn compile_members(&mut self, key: &Key, output: &mut Output) {
        let mut grouped = Grouped::new();
        if let Some(service) = self.objects.services.get(key).filter(|service| !service.selector.is_empty()) {
            for entry in self.entries_selected(&key.namespace, &service.selector).filter(|entry| !entry.joined) {
                let ports: Ports = service
                    .ports
                    .iter()
                    .map(|port| {
                        let own = entry.ports.iter().find(|(name, _)| *name == port.name).map(|(_, port)| *port);
                        (port.name.clone(), own.unwrap_or(port.port))
                    })
                    .collect();
                let addresses = self.addresses_of_entry(entry).into_iter();
                let endpoints = addresses.map(|address| (of_entry(entry, address), entry.labels.clone()));
                grouped.entry(ports).or_default().extend(endpoints);
            }
        }
        let groups = finish(key, ".entries", grouped);
        self.tell_groups(&format!("{key}.entries"), groups, output);
    }

    fn entries_selected<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a Labels,
    ) -> impl Iterator<Item = &'a api::WorkloadEntry> {
        let entries = self.objects.entries.values().filter(move |entry| &*entry.key.namespace == namespace);
        entries.filter(move |entry| selects(selector, &entry.labels))
    }

    /// Where a WorkloadEntry is: its address, or those that its name has.
    pub(super) fn addresses_of_entry(&self, entry: &api::WorkloadEntry) -> Vec<IpAddr> {
        match entry.address {
            Some(address) => vec![address],
            None if entry.host.is_empty() => Vec::new(),
            None => self.addresses_of(&entry.host),
        }
    }

    fn addresses_of(&self, address: &Arc<str>) -> Vec<IpAddr> {
        match address.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                let key = Key { namespace: "".into(), name: address.to_ascii_lowercase().into() };
                self.objects.names.get(&key).map(|name| name.addresses.clone()).unwrap_or_default()
            }
        }
    }

    fn of_pod(&self, pod: &api::Pod) -> Option<Endpoint> {
        let node = self.objects.nodes.get(&Key::new("", pod.node.clone()));
        Some(Endpoint {
            address: *pod.addresses.first()?,
            workload: pod_name(&pod.key).into(),
            health: match (pod.ended, pod.deleting) {
                (true, _) => Health::NotReady,
                (false, true) => Health::Draining,
                (false, false) => Health::Ready,
            },
            weight: 1,
            region: node.map(|node| node.region.clone()).unwrap_or_default(),
            zone: node.map(|node| node.zone.clone()).unwrap_or_default(),
            node: pod.node.clone(),
            hostname: "".into(),
        })
    }
}

/// Whether somebody sees both, and neither goes before the other: what is for some namespaces goes before what is for all.
fn meet(one: &ServiceEntry, other: &ServiceEntry) -> bool {
    match (&one.export_to[..], &other.export_to[..]) {
        ([], []) => true,
        ([], _) | (_, []) => false,
        (one, other) => one.iter().any(|namespace| other.contains(namespace)),
    }
}

/// Whether somebody sees both.
fn see_both(one: &ServiceEntry, other: &ServiceEntry) -> bool {
    one.export_to.is_empty() || other.export_to.is_empty() || meet(one, other)
}

/// Whether two entries of one host do not touch: both only let connections through, on different ports.
fn are_apart(one: &ServiceEntry, other: &ServiceEntry) -> bool {
    let through = |it: &ServiceEntry| it.resolution == Resolution::None;
    through(one) && through(other) && !one.ports.iter().any(|port| other.ports.iter().any(|it| it.port == port.port))
}

/// Whether connections to two ports of one number are told apart by the name that they ask for.
fn tell_names(one: &EntryPort, other: &EntryPort) -> bool {
    let tells = |it: &EntryPort| it.app_protocol.is_http() || it.app_protocol == AppProtocol::Tls;
    tells(one) && tells(other)
}

fn service(key: &Key, entry: &ServiceEntry, invented: Option<IpAddr>) -> Service {
    let vips = if entry.addresses.is_empty() { invented.into_iter().collect() } else { entry.addresses.clone() };
    Service {
        key: key.clone(),
        vips,
        hostnames: entry.hosts.clone(),
        outside: entry.outside,
        export_to: entry.export_to.clone(),
        blocks: entry.blocks.clone(),
        created: entry.meta.created,
        ports: entry
            .ports
            .iter()
            .map(|port| ServicePort {
                port: port.port,
                name: port.name.clone(),
                app_protocol: port.app_protocol,
                through: entry.resolution == Resolution::None,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn ports(entry: &ServiceEntry, own: &[(Arc<str>, u16)]) -> Ports {
    let port = |name: &Arc<str>| own.iter().find(|(of, _)| of == name).map(|(_, port)| *port);
    entry.ports.iter().map(|it| (it.name.clone(), port(&it.name).unwrap_or(it.target))).collect()
}

fn inline(endpoint: &EntryEndpoint, address: IpAddr) -> Endpoint {
    Endpoint {
        weight: endpoint.weight.max(1),
        region: endpoint.region.clone(),
        zone: endpoint.zone.clone(),
        ..Endpoint::at(address)
    }
}

fn of_entry(entry: &api::WorkloadEntry, address: IpAddr) -> Endpoint {
    Endpoint {
        workload: entry_name(&entry.key).into(),
        health: if entry.deleting { Health::Draining } else { Health::Ready },
        weight: entry.weight.max(1),
        region: entry.region.clone(),
        zone: entry.zone.clone(),
        ..Endpoint::at(address)
    }
}

fn finish(service: &Key, suffix: &str, grouped: Grouped) -> Vec<(EndpointGroup, Vec<Labels>)> {
    let groups = grouped.into_iter().filter(|(_, endpoints)| !endpoints.is_empty()).enumerate();
    groups
        .map(|(index, (ports, mut endpoints))| {
            endpoints.sort_by_key(|(endpoint, _)| endpoint.address);
            let (endpoints, labels) = endpoints.into_iter().unzip();
            let name = format!("{}{suffix}.{index}", service.name).into();
            let key = Key { namespace: service.namespace.clone(), name };
            (EndpointGroup { key, service: service.clone(), ports, endpoints }, labels)
        })
        .collect()
}

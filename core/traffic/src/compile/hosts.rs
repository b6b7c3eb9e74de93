//! Istio's kinds name services by host: who names which, and which services a host means.

use super::{Compiler, Unit, destination};
use model::mesh::api::istio::{DestinationRule, Resolution, ServiceEntry, VirtualService};
use model::mesh::api::{self, istio};
use model::{Key, Labels};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

/// Objects by the hosts that they name, made whole. A host may begin with `*`.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// ServiceEntries by their hosts.
    entries: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// VirtualServices by their own hosts.
    pub(super) virtuals: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// VirtualServices by the hosts that they lead to.
    destinations: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// VirtualServices by the gateways that they hang on.
    pub(super) by_gateway: BTreeMap<Key, BTreeSet<Key>>,
    /// VirtualServices by those that they delegate to.
    pub(super) roots: BTreeMap<Key, BTreeSet<Key>>,
    /// DestinationRules by their host.
    pub(super) rules: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// ServiceEntries by the DNS names that they ask for.
    pub(super) names: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// WorkloadEntries by the DNS name that is their address.
    pub(super) workload_names: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// ServiceEntries that select workloads, by namespace.
    pub(super) selecting: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// Names of labels that VirtualServices ask callers for.
    asked: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// Names of labels that DestinationRules ask callers for.
    asked_by_rules: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// ServiceEntries by their addresses.
    addresses: BTreeMap<IpAddr, BTreeSet<Key>>,
}

fn put<K: Ord>(map: &mut BTreeMap<K, BTreeSet<Key>>, name: K, key: &Key, present: bool) {
    if present {
        map.entry(name).or_default().insert(key.clone());
    } else if let Some(keys) = map.get_mut(&name) {
        keys.remove(key);
        if keys.is_empty() {
            map.remove(&name);
        }
    }
}

impl Hosts {
    /// Notes what a VirtualService names, or forgets it.
    pub(super) fn virtual_service(&mut self, it: &VirtualService, domain: &str, present: bool) {
        let key = &it.meta.key;
        for host in &it.hosts {
            put(&mut self.virtuals, whole(host, &key.namespace, domain), key, present);
        }
        for destination in destinations(it) {
            put(&mut self.destinations, whole(&destination.host, &key.namespace, domain), key, present);
        }
        for gateway in gateways(it) {
            put(&mut self.by_gateway, gateway, key, present);
        }
        for label in labels_asked(it) {
            put(&mut self.asked, label.clone(), key, present);
        }
        for rule in &it.http {
            if let Some(istio::Instead::Delegate { namespace, name }) = &rule.instead {
                put(&mut self.roots, delegate_key(key, namespace, name), key, present);
            }
        }
    }

    pub(super) fn rule(&mut self, it: &DestinationRule, domain: &str, present: bool) {
        let key = &it.meta.key;
        put(&mut self.rules, whole(&it.host, &key.namespace, domain), key, present);
        for label in it.callers.iter().flat_map(|labels| labels.keys()) {
            put(&mut self.asked_by_rules, label.clone(), key, present);
        }
    }

    pub(super) fn entry(&mut self, it: &ServiceEntry, present: bool) {
        let key = &it.meta.key;
        for host in &it.hosts {
            put(&mut self.entries, host.clone(), key, present);
        }
        for name in dns_names(it) {
            put(&mut self.names, name, key, present);
        }
        for address in &it.addresses {
            put(&mut self.addresses, *address, key, present);
        }
        if !it.selector.is_empty() {
            put(&mut self.selecting, key.namespace.clone(), key, present);
        }
    }

    pub(super) fn workload_entry(&mut self, old: Option<&api::WorkloadEntry>, new: Option<&api::WorkloadEntry>) {
        for (it, present) in [(old, false), (new, true)] {
            if let Some(it) = it.filter(|it| !it.host.is_empty()) {
                put(&mut self.workload_names, it.host.clone(), &it.key, present);
            }
        }
    }

    /// Of a workload's labels those that rules ask callers for: the others say nothing to proxies.
    pub(super) fn asked(&self, labels: &Labels) -> Labels {
        let named = labels.iter().filter(|(name, _)| self.is_asked(name));
        named.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn is_asked(&self, label: &str) -> bool {
        self.asked.contains_key(label) || self.asked_by_rules.contains_key(label)
    }

    /// ServiceEntries that have an address.
    pub(super) fn entries_at(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        self.addresses.get(&address).into_iter().flatten()
    }

    /// The VirtualServices that name a host, as theirs or as a destination.
    pub(super) fn virtuals_about(&self, host: &str) -> BTreeSet<Key> {
        let mut found = self.virtuals_of(host);
        found.extend(self.destinations.get(host).into_iter().flatten().cloned());
        found
    }

    /// The VirtualServices whose own hosts mean a host.
    pub(super) fn virtuals_of(&self, host: &str) -> BTreeSet<Key> {
        let wild = patterns(&self.virtuals).filter(|(pattern, _)| means(pattern, host));
        let exact = self.virtuals.get(host).into_iter().flatten();
        exact.chain(wild.flat_map(|(_, keys)| keys)).cloned().collect()
    }

    /// The DestinationRules for a host: those of its very name, else those of the longest pattern that means it.
    pub(super) fn rules_of(&self, host: &str) -> Vec<&BTreeSet<Key>> {
        let mut found: Vec<(&Arc<str>, &BTreeSet<Key>)> =
            patterns(&self.rules).filter(|(pattern, _)| means(pattern, host)).collect();
        found.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
        self.rules.get(host).into_iter().chain(found.into_iter().map(|(_, keys)| keys)).collect()
    }

    /// ServiceEntries that have a host.
    pub(super) fn entries_of(&self, host: &str) -> impl Iterator<Item = &Key> {
        self.entries.get(host).into_iter().flatten()
    }
}

/// The entries whose name begins with `*`.
fn patterns(map: &BTreeMap<Arc<str>, BTreeSet<Key>>) -> impl Iterator<Item = (&Arc<str>, &BTreeSet<Key>)> {
    map.range::<str, _>((Bound::Included("*"), Bound::Excluded("+")))
}

/// Names of the labels that a VirtualService asks callers for.
fn labels_asked(it: &VirtualService) -> impl Iterator<Item = &Arc<str>> {
    let matches = it.http.iter().flat_map(|rule| &rule.matches);
    let of_requests = matches.filter_map(|it| it.matched.more.as_ref()).flat_map(|more| more.source_labels.keys());
    let streams = it.streams.iter().flat_map(|rule| &rule.matches);
    of_requests.chain(streams.flat_map(|it| it.labels.keys()))
}

/// Every destination of a VirtualService.
pub(super) fn destinations(it: &VirtualService) -> impl Iterator<Item = &istio::Destination> {
    let http = it.http.iter().flat_map(|rule| rule.destinations.iter().chain(rule.mirrors.iter().map(|(to, _)| to)));
    http.chain(it.streams.iter().flat_map(|rule| &rule.destinations))
}

/// The gateways that a VirtualService names: keys of Gateway API's Gateways.
pub(super) fn gateways(it: &VirtualService) -> impl Iterator<Item = Key> + '_ {
    let named = it.gateways.iter().filter(|name| &***name != "mesh");
    named.map(|name| gateway_key(&it.meta.key.namespace, name))
}

/// `NAMESPACE/NAME`, or `NAME` in the VirtualService's own.
pub(super) fn gateway_key(namespace: &Arc<str>, name: &str) -> Key {
    match name.split_once('/') {
        Some((namespace, name)) => Key::new(namespace, name),
        None => Key { namespace: namespace.clone(), name: name.into() },
    }
}

pub(super) fn delegate_key(root: &Key, namespace: &Arc<str>, name: &Arc<str>) -> Key {
    let namespace = if namespace.is_empty() { &root.namespace } else { namespace };
    Key { namespace: namespace.clone(), name: name.clone() }
}

/// The DNS names that a ServiceEntry's endpoints have: its own hosts when it names no endpoints.
pub(super) fn dns_names(it: &ServiceEntry) -> Vec<Arc<str>> {
    if it.resolution != Resolution::Dns {
        return Vec::new();
    }
    let own = if it.endpoints.is_empty() && it.selector.is_empty() { &it.hosts[..] } else { &[] };
    let named = it.endpoints.iter().map(|endpoint| &endpoint.address);
    let mut names: Vec<Arc<str>> = own
        .iter()
        .chain(named)
        .filter(|name| !is_wild(name) && name.contains('.') && name.parse::<IpAddr>().is_err())
        .map(|name| name.to_ascii_lowercase().into())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A host with its namespace and domain, if it is a short name.
pub(super) fn whole(host: &Arc<str>, namespace: &str, domain: &str) -> Arc<str> {
    match host.contains('.') || is_wild(host) {
        true => host.clone(),
        false => format!("{host}.{namespace}.svc.{domain}").into(),
    }
}

fn is_wild(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether a host or pattern means a host: `*` all, `*.a.b` what ends so.
fn means(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

/// Whether who is in a namespace, or anywhere, sees an entry.
fn is_seen(entry: &ServiceEntry, viewer: Option<&str>) -> bool {
    viewer.is_none_or(|viewer| entry.export_to.is_empty() || entry.export_to.iter().any(|to| &**to == viewer))
}

/// Resource name of a ServiceEntry's service. No Service has a name with a dot.
pub(super) fn entry_service(entry: &Key) -> Key {
    Key { namespace: entry.namespace.clone(), name: format!("serviceentry.{}", entry.name).into() }
}

/// The ServiceEntry of such a name.
pub(super) fn entry_of(service: &Key) -> Option<Key> {
    let name = service.name.strip_prefix("serviceentry.")?;
    Some(Key { namespace: service.namespace.clone(), name: name.into() })
}

impl Compiler {
    /// The full DNS name of a Service.
    pub(super) fn service_host(&self, key: &Key) -> Arc<str> {
        format!("{}.{}.svc.{}", key.name, key.namespace, self.settings.cluster_domain).into()
    }

    /// A host as an object of `namespace` writes it, made whole.
    pub(super) fn whole_host(&self, host: &Arc<str>, namespace: &str) -> Arc<str> {
        whole(host, namespace, &self.settings.cluster_domain)
    }

    /// The service that has a host for who is in a namespace (none: anywhere): a Service, else of the ServiceEntries with it that are seen from
    /// there one that is not for all, else the oldest.
    pub(super) fn service_of_host(&self, host: &str, viewer: Option<&str>) -> Option<Key> {
        self.plain_service(host).or_else(|| {
            let entries = self.hosts.entries_of(host).filter_map(|key| self.objects.service_entries.get(key));
            let rank = |it: &&ServiceEntry| (it.export_to.is_empty(), it.meta.created, it.meta.key.clone());
            let seen = entries.filter(|entry| is_seen(entry, viewer));
            seen.min_by_key(rank).map(|entry| entry_service(&entry.meta.key))
        })
    }

    /// Whether a host of a service means that service to who is in a namespace.
    pub(super) fn is_host_for(&self, namespace: &str, host: &str, service: &Key) -> bool {
        entry_of(service).is_none() || self.service_of_host(host, Some(namespace)).as_ref() == Some(service)
    }

    fn plain_service(&self, host: &str) -> Option<Key> {
        let rest = host.strip_suffix(&*self.settings.cluster_domain)?.strip_suffix(".svc.")?;
        let (name, namespace) = rest.split_once('.')?;
        let key = Key::new(namespace, name);
        self.objects.services.contains_key(&key).then_some(key)
    }

    /// All services that a host or pattern means for who is in a namespace, or anywhere.
    pub(super) fn services_of_host(&self, host: &str, viewer: Option<&str>) -> Vec<Key> {
        if !is_wild(host) {
            return self.service_of_host(host, viewer).into_iter().collect();
        }
        let services = self.objects.services.keys().filter(|key| means(host, &self.service_host(key))).cloned();
        let entries = self.objects.service_entries.values();
        let entries = entries.filter(|it| is_seen(it, viewer) && it.hosts.iter().any(|own| means(host, own)));
        let mut found: Vec<Key> = services.chain(entries.map(|it| entry_service(&it.meta.key))).collect();
        found.sort();
        found
    }

    /// As [`services_of_host`](Self::services_of_host), with the ServiceEntries that give way to an older one.
    fn touched_by_host(&self, host: &str) -> Vec<Key> {
        let mut found = self.services_of_host(host, None);
        found.extend(self.hosts.entries_of(host).map(entry_service));
        found
    }

    /// The hosts of a service; none when there is no such service.
    pub(super) fn hosts_of_service(&self, service: &Key) -> Vec<Arc<str>> {
        match entry_of(service) {
            None if !self.objects.services.contains_key(service) => Vec::new(),
            None => vec![self.service_host(service)],
            Some(entry) => self.objects.service_entries.get(&entry).map_or(Vec::new(), |it| it.hosts.clone()),
        }
    }

    /// The ports of a service: number and name.
    pub(super) fn ports_of_service(&self, service: &Key) -> Vec<(u16, Arc<str>)> {
        match entry_of(service) {
            None => {
                let ports = self.objects.services.get(service).map(|it| &it.ports[..]).unwrap_or_default();
                ports.iter().map(|port| (port.port, port.name.clone())).collect()
            }
            Some(entry) => {
                let ports = self.objects.service_entries.get(&entry).map(|it| &it.ports[..]).unwrap_or_default();
                ports.iter().map(|port| (port.port, port.name.clone())).collect()
            }
        }
    }

    /// What names a host is to be looked at again.
    pub(super) fn touch_host(&mut self, host: &str) {
        for key in self.hosts.virtuals_about(host) {
            // What is delegated is compiled with its roots.
            self.dirty.extend(self.hosts.roots.get(&key).into_iter().flatten().cloned().map(Unit::Virtual));
            self.dirty.insert(Unit::Virtual(key));
        }
        let rules: Vec<Key> = self.hosts.rules_of(host).into_iter().flatten().cloned().collect();
        self.dirty.extend(rules.into_iter().map(Unit::Rule));
    }

    /// A service's endpoints and ports are to be compiled anew.
    pub(super) fn touch_endpoints(&mut self, service: &Key) {
        match entry_of(service) {
            Some(entry) => drop(self.dirty.insert(Unit::ServiceEntry(entry))),
            None => {
                self.dirty.extend([Unit::Service(service.clone()), Unit::Members(service.clone())]);
                let slices = self.index.slices_by_service.get(service).into_iter().flatten();
                self.dirty.extend(slices.cloned().map(Unit::Slice));
            }
        }
    }

    pub(super) fn touch_virtual(&mut self, key: &Key, old: Option<&VirtualService>) {
        let domain = self.settings.cluster_domain.clone();
        let new = self.objects.virtuals.get(key);
        let mut hosts: BTreeSet<Arc<str>> = BTreeSet::new();
        let labels = old.into_iter().chain(new).flat_map(labels_asked);
        let labels: BTreeMap<Arc<str>, bool> = labels.map(|name| (name.clone(), self.hosts.is_asked(name))).collect();
        for (it, present) in [(old, false), (new, true)] {
            let Some(it) = it else { continue };
            self.hosts.virtual_service(it, &domain, present);
            hosts.extend(it.hosts.iter().map(|host| whole(host, &key.namespace, &domain)));
        }
        self.touch_labelled(labels);
        self.dirty.insert(Unit::Virtual(key.clone()));
        self.dirty.extend(self.hosts.roots.get(key).into_iter().flatten().cloned().map(Unit::Virtual));
        for host in hosts {
            for service in self.touched_by_host(&host) {
                self.touch_claimants(&service);
            }
        }
    }

    /// Workloads with one of these labels, if it is asked for now and was not before (as is said with it), or the other way round.
    fn touch_labelled(&mut self, before: BTreeMap<Arc<str>, bool>) {
        let changed = |(name, was): &(Arc<str>, bool)| self.hosts.is_asked(name) != *was;
        let changed: Vec<Arc<str>> = before.into_iter().filter(changed).map(|(name, _)| name).collect();
        if changed.is_empty() {
            return;
        }
        let has = |labels: &Labels| changed.iter().any(|name| labels.contains_key(name));
        let pods = self.objects.pods.iter().filter(|(_, pod)| has(&pod.labels));
        self.dirty.extend(pods.map(|(key, _)| Unit::Pod(key.clone())));
        let entries = self.objects.entries.iter().filter(|(_, entry)| has(&entry.labels));
        self.dirty.extend(entries.map(|(key, _)| Unit::Entry(key.clone())));
    }

    /// Everything that wants to route a service's requests is to be looked at again: one may have to give way to another.
    pub(super) fn touch_claimants(&mut self, service: &Key) {
        let routes = self.index.routes_by_service.get(service).into_iter().flatten();
        self.dirty.extend(routes.cloned().map(|(kind, key)| Unit::Route(kind, key)));
        for host in self.hosts_of_service(service) {
            self.dirty.extend(self.hosts.virtuals_of(&host).into_iter().map(Unit::Virtual));
        }
    }

    /// A route of Gateway API came, changed or went: VirtualServices for the same services may have to give way, or need not any more.
    pub(super) fn touch_rivals(&mut self, route: &api::Route) {
        if self.hosts.virtuals.is_empty() {
            return;
        }
        for parent in route.parents.iter().filter(|parent| &*parent.reference.kind == "Service") {
            let service = parent.reference.key(&route.meta.key.namespace);
            if !self.hosts.virtuals_of(&self.service_host(&service)).is_empty() {
                self.touch_claimants(&service);
            }
        }
    }

    pub(super) fn touch_rule(&mut self, key: &Key, old: Option<&DestinationRule>) {
        let domain = self.settings.cluster_domain.clone();
        let new = self.objects.rules.get(key);
        let mut hosts: BTreeSet<Arc<str>> = BTreeSet::new();
        let labels = old.into_iter().chain(new).filter_map(|it| it.callers.as_ref()).flat_map(|labels| labels.keys());
        let labels: BTreeMap<Arc<str>, bool> = labels.map(|name| (name.clone(), self.hosts.is_asked(name))).collect();
        for (it, present) in [(old, false), (new, true)] {
            let Some(it) = it else { continue };
            self.hosts.rule(it, &domain, present);
            hosts.insert(whole(&it.host, &key.namespace, &domain));
            // Which secrets are told depends on it.
            if destination::tls_of(it).any(|tls| !tls.credential.is_empty()) {
                self.dirty.insert(Unit::Listeners);
            }
        }
        self.touch_labelled(labels);
        self.dirty.insert(Unit::Rule(key.clone()));
        for host in hosts {
            for service in self.touched_by_host(&host) {
                self.touch_endpoints(&service);
                for host in self.hosts_of_service(&service) {
                    self.touch_host(&host);
                }
            }
        }
    }

    pub(super) fn touch_service_entry(&mut self, key: &Key, old: Option<&ServiceEntry>) {
        let new = self.objects.service_entries.get(key);
        let mut hosts: BTreeSet<Arc<str>> = BTreeSet::new();
        for (it, present) in [(old, false), (new, true)] {
            let Some(it) = it else { continue };
            self.hosts.entry(it, present);
            hosts.extend(it.hosts.iter().cloned());
        }
        // Another entry with the same address may be the one that is first there now.
        let addresses = old.into_iter().chain(new).flat_map(|it| &it.addresses);
        let others = addresses.flat_map(|address| self.hosts.entries_at(*address)).cloned();
        self.dirty.extend(others.map(Unit::ServiceEntry).collect::<Vec<_>>());
        let mut moved = BTreeSet::new();
        for (it, present) in [(old, false), (new, true)] {
            moved.extend(it.map(|it| self.invented.reserve(&it.addresses, present)).unwrap_or_default());
        }
        moved.extend(match new.filter(|it| it.addresses.is_empty() && it.resolution != Resolution::None) {
            Some(it) => self.invented.insert(it.meta.created, key),
            None => self.invented.remove(key),
        });
        self.dirty.extend(moved.into_iter().chain([key.clone()]).map(Unit::ServiceEntry));
        for host in hosts {
            self.touch_host(&host);
            // Another entry with the same host may be the one that counts now.
            let others: Vec<Key> = self.hosts.entries_of(&host).cloned().collect();
            self.dirty.extend(others.into_iter().map(Unit::ServiceEntry));
        }
    }

    /// The ServiceEntries of a namespace that select workloads by label.
    pub(super) fn touch_selecting(&mut self, namespace: &str) {
        let keys = self.hosts.selecting.get(namespace).into_iter().flatten();
        self.dirty.extend(keys.cloned().map(Unit::ServiceEntry));
    }

    /// The DNS names that ServiceEntries ask for, and those that are WorkloadEntries' addresses.
    pub fn wanted_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let of_workloads = self.hosts.workload_names.keys().filter(|name| !self.hosts.names.contains_key(*name));
        self.hosts.names.keys().chain(of_workloads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_patterns() {
        for (pattern, host, yes) in [
            ("*", "a.b", true),
            ("*.b", "a.b", true),
            ("*.b", "b", false),
            ("*.b", "x.a.b", true),
            ("*.b", "ab", false),
            ("a.b", "a.b", true),
            ("a.b", "x.a.b", false),
        ] {
            assert_eq!(means(pattern, host), yes, "{pattern} {host}");
        }
        for (host, expect) in [
            ("reviews", "reviews.shop.svc.cluster.local"),
            ("reviews.shop.svc.cluster.local", "reviews.shop.svc.cluster.local"),
            ("a.example", "a.example"),
            ("*", "*"),
        ] {
            assert_eq!(&*whole(&host.into(), "shop", "cluster.local"), expect);
        }
    }
}

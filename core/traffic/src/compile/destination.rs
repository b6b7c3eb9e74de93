//! DestinationRules: which policy a service's ports have, and its subsets.
//!
//! A subset is compiled as a service of its own, without name and address, whose endpoints are those of the service that have the
//! subset's labels: the proxy needs to know nothing of subsets.

use super::hosts::entry_of;
use super::status::{Condition, IstioStatus};
use super::{Compiler, Output, selects};
use model::mesh::api::ObjectKind;
use model::mesh::api::istio::{DestinationRule, PolicySpec, Subset, TlsOrigination, TlsSpec};
use model::mesh::traffic::Balancer;
use model::mesh::{
    BackendTls, CallerTraffic, EndpointGroup, Resource, ResourceKind, Service, SubjectName, TrafficPolicy,
};
use model::{Key, Labels};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The rules that hold for a service.
pub(super) struct Rules<'a> {
    compiler: &'a Compiler,
    /// The service's host, by which the rules were found.
    host: Arc<str>,
    /// What the service says its endpoints are named in certificates.
    names: &'a [Arc<str>],
    /// The service is a ServiceEntry's.
    of_entry: bool,
    /// The first one's policy counts; subsets count from all.
    rules: Vec<&'a DestinationRule>,
}

impl<'a> Rules<'a> {
    pub(super) fn has_subsets(&self) -> bool {
        self.rules.iter().any(|rule| !rule.subsets.is_empty())
    }

    pub(super) fn subset(&self, name: &str) -> Option<&'a Subset> {
        self.subsets().find(|subset| &*subset.name == name)
    }

    /// Of two of one name the older rule's.
    pub(super) fn subsets(&self) -> impl Iterator<Item = &'a Subset> {
        let mut seen = BTreeSet::new();
        self.rules.iter().flat_map(|rule| &rule.subsets).filter(move |subset| seen.insert(&subset.name))
    }

    /// The policy of a port of the service, or of a subset.
    pub(super) fn policy(&self, subset: Option<&Subset>, port: u16) -> Option<Arc<TrafficPolicy>> {
        let own = self.rules.first().map(|rule| &rule.policy);
        let of_port = |spec: &'a PolicySpec| spec.ports.iter().find(|(of, _)| *of == port).map(|(_, spec)| spec);
        let subset = subset.map(|subset| &subset.policy);
        // What is said of a port stands alone: the rest of the policy does not add to it.
        let in_subset = subset.and_then(|spec| spec.ports.iter().find(|(of, _)| *of == port)).map(|(_, spec)| spec);
        let of_port = in_subset.or_else(|| own.and_then(of_port));
        let parts = match (of_port, subset) {
            (Some(spec), _) => vec![spec],
            (None, subset) => subset.into_iter().chain(own).collect(),
        };
        self.flatten(&parts, port)
    }

    /// The first that says something of a part counts for it.
    fn flatten(&self, specs: &[&PolicySpec], port: u16) -> Option<Arc<TrafficPolicy>> {
        fn first<T: Clone>(specs: &[&PolicySpec], part: fn(&PolicySpec) -> &Option<T>) -> Option<T> {
            specs.iter().find_map(|spec| part(spec).clone())
        }
        let namespace = self.rules.first().map(|rule| &rule.meta.key.namespace);
        let tls = first(specs, |it| &it.tls).filter(|tls| match tls.mode {
            TlsOrigination::None => false,
            TlsOrigination::Simple | TlsOrigination::Mutual => true,
            // Within the mesh it is there already.
            TlsOrigination::Mesh => self.of_entry,
        });
        let policy = TrafficPolicy {
            balancer: first(specs, |it| &it.balancer).unwrap_or_default(),
            warmup: first(specs, |it| &it.warmup),
            locality: first(specs, |it| &it.locality).unwrap_or_default(),
            pool: first(specs, |it| &it.pool).unwrap_or_default(),
            outlier: first(specs, |it| &it.outlier),
            tls: tls.zip(namespace).map(|(tls, namespace)| {
                Arc::new(self.compiler.client_tls(&tls, namespace, (&self.host, port), self.names))
            }),
            retry_budget: first(specs, |it| &it.retry_budget),
            proxy_protocol: first(specs, |it| &it.proxy_protocol),
        };
        (policy != TrafficPolicy::default()).then(|| Arc::new(policy))
    }
}

/// Connections can go where they were meant to go if that is no address of ours; else any endpoint has them, as kube-proxy does.
fn settled(policy: Option<Arc<TrafficPolicy>>, has_addresses: bool) -> Option<Arc<TrafficPolicy>> {
    match policy {
        Some(policy) if policy.balancer == Balancer::PassThrough && !has_addresses => {
            Some(Arc::new(TrafficPolicy { balancer: Balancer::Random, ..TrafficPolicy::clone(&policy) }))
        }
        other => other,
    }
}

impl Compiler {
    /// The rules that hold for a service: of its own namespace, else of a root namespace; older ones first.
    pub(super) fn rules_of(&self, service: &Key) -> Rules<'_> {
        let entry = entry_of(service).and_then(|entry| self.objects.service_entries.get(&entry));
        let (names, of_entry) = (entry.map_or(&[][..], |entry| &entry.names), entry.is_some());
        for host in self.hosts_of_service(service) {
            for keys in self.hosts.rules_of(&host) {
                let found = |holds: &dyn Fn(&Key) -> bool| -> Vec<&DestinationRule> {
                    let rules = keys.iter().filter(|key| holds(key)).filter_map(|key| self.objects.rules.get(key));
                    let mut rules: Vec<_> = rules.filter(|rule| rule.callers.is_none()).collect();
                    rules.sort_by_key(|rule| (rule.meta.created, rule.meta.key.clone()));
                    rules
                };
                let own = found(&|key| key.namespace == service.namespace);
                let rules = if own.is_empty() { found(&|key| self.is_root(&key.namespace)) } else { own };
                if !rules.is_empty() {
                    return Rules { compiler: self, host, names, of_entry, rules };
                }
            }
        }
        Rules { compiler: self, host: "".into(), names, of_entry, rules: Vec::new() }
    }

    /// The rules for some callers of a service, each by itself: those of its very host first, older ones first.
    fn rules_for_callers(&self, service: &Key) -> Vec<(&DestinationRule, Rules<'_>)> {
        let entry = entry_of(service).and_then(|entry| self.objects.service_entries.get(&entry));
        let (names, of_entry) = (entry.map_or(&[][..], |entry| &entry.names), entry.is_some());
        let mut found: Vec<(&DestinationRule, Rules<'_>)> = Vec::new();
        for host in self.hosts_of_service(service) {
            for keys in self.hosts.rules_of(&host) {
                let rules = keys.iter().filter_map(|key| self.objects.rules.get(key));
                let mut rules: Vec<_> = rules.filter(|rule| rule.callers.is_some()).collect();
                rules.sort_by_key(|rule| (rule.meta.created, rule.meta.key.clone()));
                for rule in rules {
                    let known = found.iter().any(|(have, _)| have.meta.key == rule.meta.key);
                    if !known && self.is_host_for(&rule.meta.key.namespace, &host, service) {
                        let alone = Rules { compiler: self, host: host.clone(), names, of_entry, rules: vec![rule] };
                        found.push((rule, alone));
                    }
                }
            }
        }
        found
    }

    /// How the ports of a service, or of a subset, are called by all and by some.
    fn set_traffic(&self, key: &Key, rules: &Rules<'_>, subset: Option<&Subset>, service: &mut Service) {
        let has_addresses = entry_of(key)
            .and_then(|entry| self.objects.service_entries.get(&entry))
            .is_some_and(|entry| !entry.addresses.is_empty());
        let of_some = self.rules_for_callers(key);
        for port in &mut service.ports {
            port.traffic = settled(rules.policy(subset, port.port), has_addresses);
            let own = |(rule, alone): &(&DestinationRule, Rules<'_>)| CallerTraffic {
                namespace: rule.meta.key.namespace.clone(),
                labels: rule.callers.clone().unwrap_or_default(),
                traffic: settled(
                    alone.policy(subset.and_then(|subset| alone.subset(&subset.name)), port.port),
                    has_addresses,
                ),
            };
            port.for_callers = of_some.iter().map(own).collect();
        }
    }

    /// Tells a service and its subsets; none: it is gone.
    pub(super) fn tell_service(&mut self, key: &Key, service: Option<Service>, output: &mut Output) {
        let mut subsets = BTreeSet::new();
        let mut told = Vec::new();
        if let Some(mut service) = service {
            let rules = self.rules_of(key);
            for subset in rules.subsets() {
                let mut part = Service {
                    key: Service::subset_key(key, &subset.name),
                    ports: service.ports.clone(),
                    affinity_s: service.affinity_s,
                    outside: service.outside,
                    export_to: service.export_to.clone(),
                    subset_of: Some(key.clone()),
                    ..Default::default()
                };
                self.set_traffic(key, &rules, Some(subset), &mut part);
                subsets.insert(part.key.clone());
                told.push(part);
            }
            self.set_traffic(key, &rules, None, &mut service);
            told.push(service);
        }
        let gone = !told.iter().any(|service| service.key == *key);
        for service in told {
            let name = service.key.to_string();
            self.tell(ResourceKind::Service, name, Some(Resource::Service(Arc::new(service))), output);
        }
        if gone {
            self.tell(ResourceKind::Service, key.to_string(), None, output);
        }
        let before = if subsets.is_empty() {
            self.subsets.remove(key)
        } else {
            self.subsets.insert(key.clone(), subsets.clone())
        };
        for old in before.into_iter().flatten().filter(|old| !subsets.contains(old)) {
            self.tell(ResourceKind::Service, old.to_string(), None, output);
        }
    }

    /// Tells the endpoint groups that come of one object, and takes back those that came of it before: `groups` with the labels of each
    /// endpoint's workload, in the endpoints' order.
    pub(super) fn tell_groups(&mut self, source: &str, groups: Vec<(EndpointGroup, Vec<Labels>)>, output: &mut Output) {
        let mut told: Vec<EndpointGroup> = Vec::new();
        for (group, labels) in groups {
            let rules = self.rules_of(&group.service);
            for subset in rules.subsets() {
                let endpoints = group.endpoints.iter().zip(&labels);
                let endpoints = endpoints.filter(|(_, labels)| selects(&subset.labels, labels));
                told.push(EndpointGroup {
                    key: Service::subset_key(&group.key, &subset.name),
                    service: Service::subset_key(&group.service, &subset.name),
                    ports: group.ports.clone(),
                    endpoints: endpoints.map(|(endpoint, _)| endpoint.clone()).collect(),
                });
            }
            told.push(group);
        }
        let names: BTreeSet<String> = told.iter().map(|group| group.key.to_string()).collect();
        for group in told {
            let name = group.key.to_string();
            self.tell(ResourceKind::Endpoints, name, Some(Resource::Endpoints(Arc::new(group))), output);
        }
        let before = if names.is_empty() {
            self.groups.remove(source)
        } else {
            self.groups.insert(source.into(), names.clone())
        };
        for old in before.into_iter().flatten().filter(|old| !names.contains(old)) {
            self.tell(ResourceKind::Endpoints, old, None, output);
        }
    }

    /// A rule's status: whether it is in effect.
    pub(super) fn compile_rule(&mut self, key: &Key, output: &mut Output) {
        let status = self.objects.rules.get(key).map(|rule| {
            let host = self.whole_host(&rule.host, &key.namespace);
            let services = match self.services_of_host(&host, Some(&key.namespace)) {
                seen if seen.is_empty() => self.services_of_host(&host, None),
                seen => seen,
            };
            let accepted = if services.is_empty() {
                Condition::bad("Accepted", "NoMatchingHost", format!("no service has the host {host}"))
            } else if rule.callers.is_some() {
                let callers = format!("it is in effect for the workloads of {} that it selects", key.namespace);
                Condition::good("Accepted", "Accepted", callers)
            } else {
                self.rule_accepted(rule, &services)
            };
            let mut conditions = vec![accepted];
            let flaw = tls_of(rule).find_map(|tls| self.tls_flaw(tls, &key.namespace));
            conditions.push(match flaw {
                Some(flaw) => Condition::bad("ResolvedRefs", "InvalidCertificateRef", flaw),
                None => Condition::good("ResolvedRefs", "ResolvedRefs", "all references are resolved"),
            });
            let mut ignored: Vec<String> = rule.ignored.iter().map(ToString::to_string).collect();
            ignored.extend(self.subsets_of_callers_alone(rule, &services));
            if !ignored.is_empty() {
                let message = format!("not carried out: {}", ignored.join(", "));
                conditions.push(Condition::good("PartiallyInvalid", "UnsupportedValue", message));
            }
            IstioStatus { generation: rule.meta.generation, conditions }
        });
        self.tell_status(ObjectKind::DestinationRule, key, status, output);
    }

    /// Subsets of a rule for some callers that no rule for all has: there are no such endpoints.
    fn subsets_of_callers_alone(&self, rule: &DestinationRule, services: &[Key]) -> Vec<String> {
        if rule.callers.is_none() {
            return Vec::new();
        }
        let has =
            |subset: &&Subset| services.iter().any(|service| self.rules_of(service).subset(&subset.name).is_some());
        let alone = rule.subsets.iter().filter(|subset| !has(subset));
        alone.map(|subset| format!("subset {} (no rule for all callers has it)", subset.name)).collect()
    }

    /// How a rule's TLS is carried out. What cannot be is told as a flaw: then nothing is sent at all.
    /// `names`: the service's own, which count when the rule has none.
    fn client_tls(
        &self,
        tls: &TlsSpec,
        namespace: &Arc<str>,
        (host, port): (&Arc<str>, u16),
        names: &[Arc<str>],
    ) -> BackendTls {
        let mesh = tls.mode == TlsOrigination::Mesh;
        let names = if tls.names.is_empty() { names } else { &tls.names };
        let credential = self.credential(tls, namespace);
        let roots: Vec<Arc<str>> =
            credential.iter().filter_map(|key| self.objects.secrets.get(key)).map(|it| it.roots.clone()).collect();
        let roots: Vec<Arc<str>> = roots.into_iter().filter(|roots| !roots.is_empty()).collect();
        let name = |name: &Arc<str>| match name.contains("://") {
            true => SubjectName::Uri(name.clone()),
            false => SubjectName::Dns(name.clone()),
        };
        BackendTls {
            hostname: match (tls.sni.is_empty(), mesh) {
                (false, _) => tls.sni.clone(),
                // As Istio's proxies ask among each other.
                (true, true) => format!("outbound_.{port}_._.{host}").into(),
                (true, false) => host.clone(),
            },
            system_roots: roots.is_empty() && !mesh,
            roots,
            names: names.iter().map(name).collect(),
            flaw: match self.tls_flaw(tls, namespace) {
                Some(flaw) => flaw.into(),
                None if host.starts_with('*') && tls.sni.is_empty() => {
                    format!("tls.sni is needed: {host} is a pattern and no name").into()
                }
                None => "".into(),
            },
            certificate: credential.filter(|_| tls.mode == TlsOrigination::Mutual),
            insecure: tls.insecure && !mesh,
            mesh,
        }
    }

    /// The secret that a rule's TLS names: in the rule's own namespace.
    fn credential(&self, tls: &TlsSpec, namespace: &Arc<str>) -> Option<Key> {
        let named = matches!(tls.mode, TlsOrigination::Simple | TlsOrigination::Mutual) && !tls.credential.is_empty();
        named.then(|| Key { namespace: namespace.clone(), name: tls.credential.clone() })
    }

    fn tls_flaw(&self, tls: &TlsSpec, namespace: &Arc<str>) -> Option<String> {
        if matches!(tls.mode, TlsOrigination::None | TlsOrigination::Mesh) {
            return None;
        }
        if !tls.file.is_empty() {
            return Some(format!("tls.{}: proxies have no files; certificates come by credentialName", tls.file));
        }
        let mutual = tls.mode == TlsOrigination::Mutual;
        let Some(key) = self.credential(tls, namespace) else {
            return mutual.then(|| "tls.credentialName is needed for MUTUAL".to_owned());
        };
        match self.objects.secrets.get(&key) {
            None => Some(format!("there is no Secret {key} with certificates")),
            Some(secret) if mutual && !secret.flaw.is_empty() => Some(format!("Secret {key}: {}", secret.flaw)),
            Some(secret) if !mutual && secret.roots.is_empty() => Some(format!("Secret {key} has no ca.crt")),
            Some(_) => None,
        }
    }

    /// Secrets whose certificates clients show because a rule says so.
    pub(super) fn client_secrets(&self) -> BTreeSet<Key> {
        let rules = self.objects.rules.values();
        let of = |rule: &DestinationRule| -> Vec<Key> {
            let mutual = tls_of(rule).filter(|tls| tls.mode == TlsOrigination::Mutual);
            mutual.filter_map(|tls| self.credential(tls, &rule.meta.key.namespace)).collect()
        };
        rules.flat_map(of).filter(|key| self.objects.secrets.get(key).is_some_and(|it| it.flaw.is_empty())).collect()
    }

    /// A secret came, changed or went: rules that name it.
    pub(super) fn touch_credential(&mut self, secret: &Key) {
        let names = |rule: &&DestinationRule| {
            rule.meta.key.namespace == secret.namespace && tls_of(rule).any(|tls| tls.credential == secret.name)
        };
        let rules: Vec<Key> = self.objects.rules.values().filter(names).map(|rule| rule.meta.key.clone()).collect();
        rules.iter().for_each(|rule| self.touch_rule(rule, None));
    }

    fn rule_accepted(&self, rule: &DestinationRule, services: &[Key]) -> Condition {
        let reaches =
            |service: &Key| service.namespace == rule.meta.key.namespace || self.is_root(&rule.meta.key.namespace);
        if !services.iter().any(reaches) {
            let message = "a rule holds for services of its own namespace; elsewhere only from a root namespace";
            return Condition::bad("Accepted", "OtherNamespace", message);
        }
        let in_effect = services.iter().any(|service| {
            let rules = self.rules_of(service);
            rules.rules.first().is_some_and(|first| first.meta.key == rule.meta.key)
        });
        if in_effect {
            return Condition::good("Accepted", "Accepted", "the rule is in effect");
        }
        let older =
            services.iter().find_map(|service| self.rules_of(service).rules.first().map(|it| it.meta.key.clone()));
        let older = older.map(|key| key.to_string()).unwrap_or_default();
        let message = format!("DestinationRule {older} goes before it: only its subsets are in effect, if any");
        Condition::bad("Accepted", "Conflict", message)
    }

    /// The labels of the workload behind an endpoint of a slice.
    pub(super) fn labels_of_target(&self, namespace: &Arc<str>, (kind, name): &(Arc<str>, Arc<str>)) -> Labels {
        let key = Key { namespace: namespace.clone(), name: name.clone() };
        match &**kind {
            "Pod" => self.objects.pods.get(&key).map(|pod| pod.labels.clone()),
            "WorkloadEntry" => self.objects.entries.get(&key).map(|entry| entry.labels.clone()),
            _ => None,
        }
        .unwrap_or_default()
    }

    pub(super) fn tell_status(
        &mut self,
        kind: ObjectKind,
        key: &Key,
        status: Option<IstioStatus>,
        output: &mut Output,
    ) {
        let id = (kind, key.clone());
        match status {
            None => drop(self.istio_statuses.remove(&id)),
            Some(status) if self.istio_statuses.get(&id) == Some(&status) => {}
            Some(status) => {
                self.istio_statuses.insert(id.clone(), status.clone());
                output.istio.insert(id, status);
            }
        }
    }
}

/// All that a rule says of TLS.
pub(super) fn tls_of(rule: &DestinationRule) -> impl Iterator<Item = &TlsSpec> {
    let specs = std::iter::once(&rule.policy).chain(rule.subsets.iter().map(|subset| &subset.policy));
    specs.flat_map(|spec| spec.tls.iter().chain(spec.ports.iter().filter_map(|(_, port)| port.tls.as_ref())))
}

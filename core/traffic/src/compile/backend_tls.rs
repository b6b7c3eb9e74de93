//! BackendTLSPolicies: which ports of services gateways call under TLS, and which gateways those are.

use super::gateway::Flaw;
use super::index::services_of;
use super::status::{AncestorStatus, Condition, TlsPolicyStatus};
use super::{Compiler, Output, RouteId, Unit};
use model::Key;
use model::mesh::api::{self, BackendTlsPolicy, Reference};
use model::mesh::{BackendTls, ServicePort};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Gateways that a policy's status names at most (the API's limit).
const MAX_ANCESTORS: usize = 16;

impl Compiler {
    /// A policy came, changed or went: the services that it is or was about, and who else is about them.
    pub(super) fn touch_tls_policy(&mut self, key: &Key, old: Option<&BackendTlsPolicy>) {
        self.dirty.insert(Unit::TlsPolicyStatus(key.clone()));
        let services: BTreeSet<Key> =
            old.into_iter().chain(self.objects.tls_policies.get(key)).flat_map(targets).map(|(key, _)| key).collect();
        for service in services {
            self.touch_tls_policies_of(&service);
            self.dirty.insert(Unit::Service(service));
        }
    }

    /// Policies whose status depends on who calls a service.
    pub(super) fn touch_tls_policies_of(&mut self, service: &Key) {
        let about = |policy: &BackendTlsPolicy| targets(policy).any(|(target, _)| target == *service);
        let keys = self.objects.tls_policies.iter().filter(|(_, policy)| about(policy)).map(|(key, _)| key.clone());
        self.dirty.extend(keys.map(Unit::TlsPolicyStatus));
    }

    /// The services that a route leads to have, or had, it among their callers.
    pub(super) fn touch_tls_policies_by(&mut self, route: &api::Route) {
        if self.objects.tls_policies.is_empty() {
            return;
        }
        for service in services_of(route) {
            self.touch_tls_policies_of(&service);
        }
    }

    /// A ConfigMap with certificates came, changed or went.
    pub(super) fn touch_roots(&mut self, key: &Key) {
        let names = |references: &[Reference], namespace: &Arc<str>| {
            references.iter().any(|it| &*it.kind == "ConfigMap" && it.key(namespace) == *key)
        };
        let policies = self.objects.tls_policies.values();
        let policies: Vec<Key> = policies
            .filter(|policy| names(&policy.roots, &policy.meta.key.namespace))
            .map(|policy| policy.meta.key.clone())
            .collect();
        policies.iter().for_each(|policy| self.touch_tls_policy(policy, None));
        let wanted = self.objects.gateways.values().any(|gateway| {
            let ports = gateway.frontend_ports.iter().filter_map(|(_, validation)| validation.as_ref());
            let mut all = gateway.frontend.iter().chain(ports);
            all.any(|validation| names(&validation.roots, &gateway.meta.key.namespace))
        });
        if wanted {
            self.dirty.insert(Unit::Listeners);
        }
    }

    /// How gateways call a port of a service. A policy for the port goes before one for all of the service, and an older one before others.
    pub(super) fn backend_tls(&self, service: &Key, port: &ServicePort) -> Option<Arc<BackendTls>> {
        let named = (!port.name.is_empty()).then(|| self.policy_in_effect(service, &port.name)).flatten();
        let policy = named.or_else(|| self.policy_in_effect(service, ""))?;
        let (roots, flaw) = self.backend_roots(policy);
        Some(Arc::new(BackendTls {
            hostname: policy.hostname.clone(),
            roots,
            system_roots: &*policy.well_known == "System",
            names: policy.names.clone(),
            flaw: flaw.filter(|flaw| flaw.fatal).map(|flaw| flaw.message.into()).unwrap_or_default(),
            certificate: None,
            insecure: false,
            mesh: false,
        }))
    }

    fn policy_in_effect(&self, service: &Key, section: &str) -> Option<&BackendTlsPolicy> {
        let about =
            |policy: &&BackendTlsPolicy| targets(policy).any(|(target, of)| target == *service && of == section);
        let policies = self.objects.tls_policies.values().filter(about);
        policies.min_by_key(|policy| (policy.meta.created, &policy.meta.key))
    }

    fn backend_roots(&self, policy: &BackendTlsPolicy) -> (Vec<Arc<str>>, Option<RootFlaw>) {
        let mut roots = Vec::new();
        let mut first: Option<Flaw> = None;
        for reference in &policy.roots {
            let key = reference.key(&policy.meta.key.namespace);
            let found = if reference.is("", "ConfigMap") {
                self.root(&key).map_err(|message| ("InvalidCACertificateRef", message))
            } else {
                let what = format!("{}/{}", reference.group, reference.kind);
                Err(("InvalidKind", format!("{what} {key}: only ConfigMaps hold roots")))
            };
            match found {
                Ok(root) => roots.push(root),
                Err(flaw) => drop(first.get_or_insert(flaw)),
            }
        }
        if roots.is_empty() && first.is_none() && policy.well_known.is_empty() {
            first = Some(("InvalidCACertificateRef", "the policy names no certificate to trust".into()));
        }
        let fatal = roots.is_empty() && policy.well_known.is_empty();
        (roots, first.map(|(reason, message)| RootFlaw { reason, message, fatal }))
    }

    pub(super) fn compile_tls_policy_status(&mut self, key: &Key, output: &mut Output) {
        let Some(policy) = self.objects.tls_policies.get(key) else {
            self.tls_policy_statuses.remove(key);
            return;
        };
        let conditions = self.tls_policy_conditions(policy);
        let ancestors = self.callers_of(policy).into_iter().take(MAX_ANCESTORS);
        let status = TlsPolicyStatus {
            generation: policy.meta.generation,
            ancestors: ancestors.map(|gateway| AncestorStatus { gateway, conditions: conditions.clone() }).collect(),
        };
        let before = self.tls_policy_statuses.get(key);
        if before != Some(&status) && (before.is_some() || !status.ancestors.is_empty()) {
            self.tls_policy_statuses.insert(key.clone(), status.clone());
            output.tls_policies.insert(key.clone(), status);
        }
    }

    fn tls_policy_conditions(&self, policy: &BackendTlsPolicy) -> Vec<Condition> {
        let (_, flaw) = self.backend_roots(policy);
        let in_effect = targets(policy).any(|(service, section)| {
            self.policy_in_effect(&service, section).is_some_and(|other| other.meta.key == policy.meta.key)
        });
        let accepted = match &flaw {
            _ if !in_effect => Condition::bad("Accepted", "Conflicted", "an older policy is about the same"),
            Some(flaw) if flaw.fatal => Condition::bad("Accepted", "NoValidCACertificate", flaw.message.clone()),
            _ => Condition::good("Accepted", "Accepted", "gateways call the service as the policy says"),
        };
        let resolved = match flaw {
            Some(flaw) => Condition::bad("ResolvedRefs", flaw.reason, flaw.message),
            None => Condition::good("ResolvedRefs", "ResolvedRefs", "all references are resolved"),
        };
        vec![accepted, resolved]
    }

    /// Gateways with a route to what the policy is about.
    fn callers_of(&self, policy: &BackendTlsPolicy) -> BTreeSet<Key> {
        let mut routes: BTreeSet<&RouteId> = BTreeSet::new();
        for (service, _) in targets(policy) {
            routes.extend(self.index.routes_by_service.get(&service).into_iter().flatten());
        }
        let hangs = |attached: &BTreeSet<RouteId>| routes.iter().any(|route| attached.contains(*route));
        let places = self.attached.iter().filter(|(_, attached)| hangs(attached));
        places.map(|((gateway, _), _)| gateway.clone()).collect()
    }
}

/// Why roots are missing; fatal when there is none at all.
struct RootFlaw {
    reason: &'static str,
    message: String,
    fatal: bool,
}

/// Services and sections (names of ports, or empty) that a policy is about.
fn targets(policy: &BackendTlsPolicy) -> impl Iterator<Item = (Key, &str)> {
    let namespace = &policy.meta.key.namespace;
    policy
        .targets
        .iter()
        .filter(|(target, _)| target.is("", "Service"))
        .map(move |(target, section)| (Key { namespace: namespace.clone(), name: target.name.clone() }, &**section))
}

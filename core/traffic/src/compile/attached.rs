//! TrafficPolicies: what they hang on, and which of two goes first.

use super::gateway::{Flaw, GROUP, route_kind_name};
use super::status::{Condition, IstioStatus};
use super::{Compiler, Output, Unit};
use model::Key;
use model::mesh::api::{self, ObjectKind, Reference, TrafficPolicy};
use model::mesh::attached::{AttachedPolicy, GlobalLimit, PolicyTarget};
use model::mesh::{Resource, ResourceKind, RouteKind};
use std::sync::Arc;

/// Group of the project's own kinds of the mesh.
pub(super) const OWN_GROUP: &str = "mesh.diolkos.io";

impl Compiler {
    /// A policy came, changed or went: it, and those that are about the same.
    pub(super) fn touch_attached(&mut self, key: &Key, old: Option<&TrafficPolicy>) {
        self.dirty.insert(Unit::Attached(key.clone()));
        let mut touched = Vec::new();
        for policy in old.into_iter().chain(self.objects.attached.get(key)) {
            let shares = |other: &&TrafficPolicy| {
                other.meta.key.namespace == key.namespace && other.targets.iter().any(|it| policy.targets.contains(it))
            };
            if policy.proxy_protocol {
                self.dirty.insert(Unit::Listeners);
            }
            touched.extend(self.objects.attached.values().filter(shares).map(|it| it.meta.key.clone()));
        }
        self.dirty.extend(touched.into_iter().map(Unit::Attached));
    }

    /// Something that policies may be about came, changed or went.
    pub(super) fn touch_attached_to(&mut self, kind: &str, key: &Key) {
        let about = |policy: &&TrafficPolicy| {
            let means = |it: &Reference| &*it.kind == kind && it.key(&policy.meta.key.namespace) == *key;
            policy.targets.iter().any(|(target, _)| means(target))
                || policy.global.as_ref().is_some_and(|global| means(&global.backend.reference))
        };
        let keys = self.objects.attached.values().filter(about).map(|it| it.meta.key.clone());
        self.dirty.extend(keys.map(Unit::Attached));
    }

    /// Whether a gateway is ours depends on its class, too.
    pub(super) fn touch_attached_to_gateways(&mut self) {
        let about = |policy: &&TrafficPolicy| policy.targets.iter().any(|(target, _)| target.is(GROUP, "Gateway"));
        let keys = self.objects.attached.values().filter(about).map(|it| it.meta.key.clone());
        self.dirty.extend(keys.map(Unit::Attached));
    }

    pub(super) fn compile_attached(&mut self, key: &Key, output: &mut Output) {
        let compiled = self.objects.attached.get(key).map(|policy| self.attached_policy(policy));
        let (resource, status) = match compiled {
            None => (None, None),
            Some((resource, status)) => (resource, Some(status)),
        };
        let resource = resource.map(|it| Resource::AttachedPolicy(Arc::new(it)));
        self.tell(ResourceKind::AttachedPolicy, key.to_string(), resource, output);
        self.tell_status(ObjectKind::TrafficPolicy, key, status, output);
    }

    /// Whether a policy asks for a PROXY header on connections to a gateway's listener (`section`; none: one of a ListenerSet).
    pub(super) fn requires_proxy_protocol(&self, gateway: &Key, section: Option<&str>) -> bool {
        let policies = self.objects.attached.values().filter(|policy| policy.proxy_protocol && policy.flaw.is_empty());
        let mut own = policies.filter(|policy| policy.meta.key.namespace == gateway.namespace);
        own.any(|policy| {
            policy.targets.iter().any(|(target, part)| {
                let here = target.is(GROUP, "Gateway") && target.name == gateway.name;
                here && (part.is_empty() || section == Some(&**part))
            })
        })
    }

    fn attached_policy(&self, policy: &TrafficPolicy) -> (Option<AttachedPolicy>, IstioStatus) {
        let mut targets = Vec::new();
        let (mut lost, mut rivals) = (Vec::new(), Vec::new());
        for target in &policy.targets {
            match self.policy_target(policy, target) {
                Err(flaw) => lost.push(flaw),
                Ok(_) if self.older(policy, target).is_some() => rivals.extend(self.older(policy, target)),
                Ok(target) => targets.push(target),
            }
        }
        let global = policy.global.as_ref().map(|global| self.global_limit(policy, global)).transpose();
        let mut conditions = vec![match (&*policy.flaw, targets.is_empty(), rivals.first(), lost.first()) {
            ("", false, ..) => Condition::good("Accepted", "Accepted", "the policy is in effect"),
            ("", true, Some(rival), _) => {
                Condition::bad("Accepted", "Conflicted", format!("TrafficPolicy {rival} is older and about the same"))
            }
            ("", true, None, Some((reason, message))) => Condition::bad("Accepted", reason, message.clone()),
            ("", true, None, None) => Condition::bad("Accepted", "TargetNotFound", "the policy names no target"),
            (flaw, ..) => Condition::bad("Accepted", "Invalid", flaw),
        }];
        if let Some(rival) = rivals.first() {
            let message = format!("TrafficPolicy {rival} is older: it holds for what both are about");
            conditions.push(Condition::good("Conflicted", "Conflicted", message));
        }
        conditions.push(match &global {
            Err((reason, message)) => Condition::bad("ResolvedRefs", reason, message.clone()),
            Ok(_) => Condition::good("ResolvedRefs", "ResolvedRefs", "all references are resolved"),
        });
        if !targets.is_empty() && !lost.is_empty() {
            let all: Vec<&str> = lost.iter().map(|(_, message)| message.as_str()).collect();
            conditions.push(Condition::good("PartiallyInvalid", "TargetNotFound", all.join("; ")));
        }
        let status = IstioStatus { generation: policy.meta.generation, conditions };
        if targets.is_empty() || !policy.flaw.is_empty() {
            return (None, status);
        }
        targets.sort();
        targets.dedup();
        let (key, limits) = (policy.meta.key.clone(), policy.limits.clone());
        // A rate limit service that is not there is not asked: what the proxies keep by themselves holds all the same.
        let attached = AttachedPolicy { key, targets, limits, global: global.ok().flatten(), hedging: policy.hedging };
        (Some(attached), status)
    }

    /// What a target means to proxies.
    fn policy_target(
        &self,
        policy: &TrafficPolicy,
        (target, section): &(Reference, Arc<str>),
    ) -> Result<PolicyTarget, Flaw> {
        let namespace = &policy.meta.key.namespace;
        let key = target.key(namespace);
        if key.namespace != *namespace {
            return Err(("Invalid", "a policy is about objects of its own namespace".into()));
        }
        let missing = || ("TargetNotFound", format!("there is no {} {key}", target.kind));
        if target.is(GROUP, "Gateway") {
            let listeners = self.listeners.get(&key).ok_or_else(missing)?;
            if !section.is_empty() && !listeners.iter().any(|it| it.set.is_none() && it.section == *section) {
                return Err(("TargetNotFound", format!("Gateway {key} has no listener {section}")));
            }
            return Ok(PolicyTarget::Gateway { gateway: key, listener: section.clone() });
        }
        let kind = [RouteKind::Http, RouteKind::Grpc].into_iter().find(|it| target.is(GROUP, route_kind_name(*it)));
        if let Some(kind) = kind {
            let route = self.objects.routes.get(&(kind, key.clone())).ok_or_else(missing)?;
            if !section.is_empty() && !route.rules.iter().any(|rule| rule.name == *section) {
                return Err(("TargetNotFound", format!("{} {key} has no rule {section}", target.kind)));
            }
            let name = format!("{}/{key}", target.kind);
            return Ok(PolicyTarget::Route { route: name.into(), rule: section.clone() });
        }
        if target.is("", "Service") || target.is("core", "Service") {
            let service = self.objects.services.get(&key).ok_or_else(missing)?;
            if !section.is_empty() && !service.ports.iter().any(|port| port.name == *section) {
                return Err(("TargetNotFound", format!("Service {key} has no port {section}")));
            }
            return Ok(PolicyTarget::Service { service: key, port: section.clone() });
        }
        Err(("Invalid", format!("a policy cannot be about a {}/{}", target.group, target.kind)))
    }

    /// An older policy about the same, if there is one.
    fn older(&self, policy: &TrafficPolicy, target: &(Reference, Arc<str>)) -> Option<&Key> {
        let rank = |it: &TrafficPolicy| (it.meta.created, it.meta.key.clone());
        let rivals = self.objects.attached.values().filter(|other| {
            let same = other.meta.key.namespace == policy.meta.key.namespace && other.flaw.is_empty();
            same && other.targets.contains(target) && rank(other) < rank(policy)
        });
        rivals.min_by_key(|other| rank(other)).map(|other| &other.meta.key)
    }

    fn global_limit(&self, policy: &TrafficPolicy, global: &api::GlobalLimitSpec) -> Result<GlobalLimit, Flaw> {
        let reference = &global.backend.reference;
        let service = reference.key(&policy.meta.key.namespace);
        if !reference.is("", "Service") {
            return Err(("InvalidKind", format!("a rate limit service is a Service, not a {}", reference.kind)));
        }
        let from = (OWN_GROUP, "TrafficPolicy", &*policy.meta.key.namespace);
        if !self.permitted(from, reference, &service.namespace) {
            return Err(("RefNotPermitted", format!("no ReferenceGrant lets the policy refer to Service {service}")));
        }
        let port = global.backend.port.unwrap_or(0);
        let found = self.objects.services.get(&service);
        if !found.is_some_and(|it| it.ports.iter().any(|have| have.port == port)) {
            return Err(("BackendNotFound", format!("there is no Service {service} with port {port}")));
        }
        Ok(GlobalLimit {
            domain: global.domain.clone(),
            service,
            port,
            timeout_ms: global.timeout_ms,
            fail_open: global.fail_open,
            descriptors: global.descriptors.clone(),
        })
    }
}

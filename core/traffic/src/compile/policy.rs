//! Policies: where they hold, and which workloads list them.

use super::{Compiler, Output, Unit, selects};
use model::mesh::api;
use model::mesh::{AuthorizationPolicy, PeerAuthentication, Resource, ResourceKind, Scope};
use model::{Key, Labels, Meta};
use std::sync::Arc;

/// Selector and targets: what decides about where a policy holds.
type Aim<'a> = (&'a Labels, &'a [api::Reference]);

impl Compiler {
    pub(super) fn touch_policy(&mut self, key: &Key, old: Option<&api::AuthorizationPolicy>) {
        self.dirty.insert(Unit::Policy(key.clone()));
        let aim =
            |policy: Option<&api::AuthorizationPolicy>| policy.map(|it| (it.selector.clone(), it.targets.clone()));
        let (before, after) = (aim(old), aim(self.objects.policies.get(key)));
        if before == after {
            return;
        }
        let listed = |aim: &Option<(Labels, Vec<api::Reference>)>| {
            aim.as_ref().is_some_and(|(selector, targets)| !selector.is_empty() || !targets.is_empty())
        };
        if listed(&before) || listed(&after) {
            let everywhere = self.is_root(&key.namespace);
            self.touch_workloads((!everywhere).then_some(&*key.namespace));
            self.dirty.insert(Unit::Listeners);
        }
    }

    pub(super) fn touch_peer(&mut self, key: &Key, old: Option<&api::PeerAuthentication>) {
        self.dirty.insert(Unit::Peer(key.clone()));
        let aim = |policy: Option<&api::PeerAuthentication>| policy.map(|it| it.selector.clone());
        let (before, after) = (aim(old), aim(self.objects.peers.get(key)));
        let listed = |selector: &Option<Labels>| selector.as_ref().is_some_and(|selector| !selector.is_empty());
        if before != after && (listed(&before) || listed(&after)) {
            let everywhere = self.is_root(&key.namespace);
            self.touch_workloads((!everywhere).then_some(&*key.namespace));
        }
    }

    pub(super) fn compile_policy(&mut self, key: &Key, output: &mut Output) {
        let policy = self.objects.policies.get(key).map(|policy| AuthorizationPolicy {
            key: key.clone(),
            scope: self.scope(&policy.meta, (&policy.selector, &policy.targets)),
            action: policy.action,
            dry_run: policy.dry_run,
            provider: policy.provider.clone(),
            rules: policy.rules.clone(),
        });
        let resource = policy.map(|it| Resource::AuthorizationPolicy(Arc::new(it)));
        self.tell(ResourceKind::AuthorizationPolicy, key.to_string(), resource, output);
    }

    pub(super) fn compile_peer(&mut self, key: &Key, output: &mut Output) {
        let policy = self.objects.peers.get(key).map(|policy| PeerAuthentication {
            key: key.clone(),
            scope: self.scope(&policy.meta, (&policy.selector, &[])),
            mode: policy.mode,
            ports: policy.ports.clone(),
            created: policy.meta.created,
        });
        let resource = policy.map(|it| Resource::PeerAuthentication(Arc::new(it)));
        self.tell(ResourceKind::PeerAuthentication, key.to_string(), resource, output);
    }

    pub(super) fn scope(&self, meta: &Meta, (selector, targets): Aim<'_>) -> Scope {
        match (selector.is_empty() && targets.is_empty(), self.is_root(&meta.key.namespace)) {
            (false, _) => Scope::Workload,
            (true, true) => Scope::Mesh,
            (true, false) => Scope::Namespace,
        }
    }

    /// The policies of workload scope that select a workload: authorization policies by name, peer authentications with those of its
    /// own namespace first, older ones first.
    pub(super) fn policies_of(&self, namespace: &Arc<str>, labels: &Labels) -> (Vec<Key>, Vec<Key>) {
        let in_reach = |meta: &Meta| meta.key.namespace == *namespace || self.is_root(&meta.key.namespace);
        let authorization = self
            .objects
            .policies
            .values()
            .filter(|policy| in_reach(&policy.meta))
            .filter(|policy| {
                if policy.targets.is_empty() {
                    !policy.selector.is_empty() && selects(&policy.selector, labels)
                } else {
                    // A target must be in the policy's own namespace.
                    policy.meta.key.namespace == *namespace
                        && policy.targets.iter().any(|target| self.targets_workload(target, namespace, labels))
                }
            })
            .map(|policy| policy.meta.key.clone())
            .collect();
        let mut peers: Vec<&api::PeerAuthentication> = self
            .objects
            .peers
            .values()
            .filter(|policy| in_reach(&policy.meta) && !policy.selector.is_empty() && selects(&policy.selector, labels))
            .collect();
        peers.sort_by_key(|policy| {
            (policy.meta.key.namespace != *namespace, policy.meta.created, policy.meta.key.clone())
        });
        (authorization, peers.into_iter().map(|policy| policy.meta.key.clone()).collect())
    }

    /// A policy on a Service is enforced where it cannot be got around: at the workloads that the service selects.
    pub(super) fn targets_workload(&self, target: &api::Reference, namespace: &Arc<str>, labels: &Labels) -> bool {
        let core = target.group.is_empty() || &*target.group == "core";
        core && &*target.kind == "Service"
            && self
                .objects
                .services
                .get(&target.key(namespace))
                .is_some_and(|service| !service.selector.is_empty() && selects(&service.selector, labels))
    }

    /// The policies that target a gateway (or, from a root namespace, its class).
    pub(super) fn policies_of_gateway(&self, gateway: &api::Gateway) -> Vec<Key> {
        let key = &gateway.meta.key;
        let targets = |policy: &api::AuthorizationPolicy| {
            let own = policy.meta.key.namespace == key.namespace;
            let root = self.is_root(&policy.meta.key.namespace);
            policy.targets.iter().any(|target| {
                (own && target.is("gateway.networking.k8s.io", "Gateway") && target.name == key.name)
                    || (root && target.is("gateway.networking.k8s.io", "GatewayClass") && target.name == gateway.class)
            })
        };
        self.objects.policies.values().filter(|it| targets(it)).map(|it| it.meta.key.clone()).collect()
    }
}

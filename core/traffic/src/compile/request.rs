//! RequestAuthentications, and the keys that they name by address.

use super::status::{Condition, IstioStatus};
use super::{Compiler, Output, Unit, selects};
use model::mesh::api::{self, ObjectKind};
use model::mesh::{RequestAuthentication, Resource, ResourceKind};
use model::{Key, Labels};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Compiler {
    pub(super) fn touch_request(&mut self, key: &Key, old: Option<&api::RequestAuthentication>) {
        self.dirty.insert(Unit::Request(key.clone()));
        let aim = |it: Option<&api::RequestAuthentication>| it.map(|it| (it.selector.clone(), it.targets.clone()));
        let (before, after) = (aim(old), aim(self.objects.requests.get(key)));
        if before != after {
            let everywhere = self.is_root(&key.namespace);
            self.touch_workloads((!everywhere).then_some(&*key.namespace));
        }
    }

    /// Keys came from an address.
    pub(super) fn touch_jwks(&mut self, address: &str) {
        let users = self.objects.requests.values().filter(|it| it.rules.iter().any(|(_, uri)| **uri == *address));
        self.dirty.extend(users.map(|it| Unit::Request(it.meta.key.clone())));
    }

    /// The addresses of keys that are not given in place.
    pub fn wanted_jwks(&self) -> BTreeMap<Arc<str>, Option<u64>> {
        let mut wanted = BTreeMap::new();
        for it in self.objects.requests.values() {
            for (_, uri) in it.rules.iter().filter(|(rule, uri)| rule.jwks.is_empty() && !uri.is_empty()) {
                let most = wanted.entry(uri.clone()).or_insert(None);
                let said = it.timeouts.iter().filter(|(of, _)| of == uri).map(|(_, ms)| *ms).max();
                *most = said.max(*most);
            }
        }
        wanted
    }

    pub(super) fn compile_request(&mut self, key: &Key, output: &mut Output) {
        let mut missing = None;
        let request = self.objects.requests.get(key).map(|it| {
            let rules = it.rules.iter().map(|(rule, uri)| {
                let fetched = self.objects.jwks.get(&Key { namespace: "".into(), name: uri.clone() });
                let mut rule = rule.clone();
                if rule.jwks.is_empty() {
                    rule.jwks = fetched.map(|it| it.jwks.clone()).unwrap_or_default();
                }
                if rule.jwks.is_empty() {
                    missing = Some(rule.issuer.clone());
                }
                rule
            });
            let gateways = it.targets.iter().filter(|target| target.is("gateway.networking.k8s.io", "Gateway"));
            RequestAuthentication {
                key: key.clone(),
                rules: rules.collect(),
                gateways: gateways.map(|target| target.key(&key.namespace)).collect(),
                scope: self.scope(&it.meta, (&it.selector, &it.targets)),
            }
        });
        let status = self.objects.requests.get(key).map(|it| {
            let resolved = match &missing {
                Some(issuer) => Condition::bad(
                    "ResolvedRefs",
                    "NoKeys",
                    format!("there are no keys of issuer {issuer} (yet): its tokens are refused"),
                ),
                None => Condition::good("ResolvedRefs", "ResolvedRefs", "the keys of all issuers are there"),
            };
            let accepted = Condition::good("Accepted", "Accepted", "the policy is in effect");
            IstioStatus { generation: it.meta.generation, conditions: vec![accepted, resolved] }
        });
        let resource = request.map(|it| Resource::RequestAuthentication(Arc::new(it)));
        self.tell(ResourceKind::RequestAuthentication, key.to_string(), resource, output);
        self.tell_status(ObjectKind::RequestAuthentication, key, status, output);
    }

    /// The request authentications of workload scope that select a workload.
    pub(super) fn requests_of(&self, namespace: &Arc<str>, labels: &Labels) -> Vec<Key> {
        let in_reach = |key: &Key| key.namespace == *namespace || self.is_root(&key.namespace);
        let selected = |it: &&api::RequestAuthentication| match it.targets.is_empty() {
            true => !it.selector.is_empty() && selects(&it.selector, labels),
            false => {
                it.meta.key.namespace == *namespace
                    && it.targets.iter().any(|target| self.targets_workload(target, namespace, labels))
            }
        };
        let all = self.objects.requests.values().filter(|it| in_reach(&it.meta.key));
        all.filter(selected).map(|it| it.meta.key.clone()).collect()
    }
}

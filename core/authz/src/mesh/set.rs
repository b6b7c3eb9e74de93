//! All policies of a proxy, and those of one workload.

use super::matcher::Policy;
use super::narrow::Narrow;
use super::{Call, Decision, DryRun, Reason};
use model::Key;
use model::mesh::{Action, AuthorizationPolicy, MtlsMode, PeerAuthentication, RequestAuthentication, Scope};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every policy that a proxy was told.
#[derive(Debug, Default)]
pub struct PolicySet {
    revision: u64,
    authorization: BTreeMap<Key, (Scope, Arc<Policy>)>,
    peer: BTreeMap<Key, Arc<PeerAuthentication>>,
    requests: BTreeMap<Key, Arc<RequestAuthentication>>,
}

/// What holds for one workload (or gateway), compiled. Immutable: take a new one when the set or the workload changed.
#[derive(Clone, Debug, Default)]
pub struct WorkloadPolicy {
    custom: Policies,
    deny: Policies,
    allow: Policies,
    audit: Policies,
    /// Any of the above is a dry-run one: then every decision is made twice.
    has_dry_run: bool,
    /// From the narrowest scope to the widest.
    peer: Vec<Arc<PeerAuthentication>>,
    requests: Vec<Arc<RequestAuthentication>>,
}

/// The policies of one action, in the order in which they are asked.
#[derive(Clone, Debug, Default)]
struct Policies {
    policies: Vec<Arc<Policy>>,
    /// All their rules in order: which policy, which of its rules.
    rules: Vec<(u32, u32)>,
    narrow: Narrow,
}

impl Policies {
    fn new(policies: Vec<Arc<Policy>>) -> Self {
        let of_policy = |(at, policy): (usize, &Arc<Policy>)| {
            let rules = policy.rules() as u32;
            (0..rules).map(move |rule| (at as u32, rule))
        };
        let rules: Vec<(u32, u32)> = policies.iter().enumerate().flat_map(of_policy).collect();
        let narrow = Narrow::new(rules.len(), |number, attribute| {
            let (policy, rule) = rules[number];
            policies[policy as usize].needs(rule as usize, attribute)
        });
        Policies { policies, rules, narrow }
    }

    fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The rules that match, in order. A policy may come several times.
    fn matching<'a>(&'a self, call: &'a Call<'_>, with_dry_run: bool) -> impl Iterator<Item = (&'a Policy, usize)> {
        self.narrow.candidates(call).filter_map(move |number| {
            let (policy, rule) = self.rules[number];
            let policy = &*self.policies[policy as usize];
            let counts = with_dry_run || !policy.dry_run;
            (counts && policy.rule_matches(rule as usize, call)).then_some((policy, rule as usize))
        })
    }

    fn first(&self, call: &Call<'_>, with_dry_run: bool) -> Option<(Key, usize)> {
        if self.rules.is_empty() {
            return None;
        }
        self.matching(call, with_dry_run).next().map(|(policy, rule)| (policy.key.clone(), rule))
    }

    /// The policies that match, each with its first rule that does.
    fn each<'a>(&'a self, call: &'a Call<'_>, with_dry_run: bool) -> impl Iterator<Item = (&'a Policy, usize)> {
        let mut last: Option<&Policy> = None;
        self.matching(call, with_dry_run).filter(move |(policy, _)| {
            let again = last.is_some_and(|last| std::ptr::eq(last, *policy));
            last = Some(policy);
            !again
        })
    }
}

/// A CUSTOM policy that matches: somebody is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The policy.
    pub policy: Key,
    /// Its rule that matches.
    pub rule: usize,
    /// Who is asked.
    pub provider: Arc<str>,
}

impl PolicySet {
    /// No policies.
    pub fn new() -> Self {
        PolicySet::default()
    }

    /// Moves with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A policy came or changed.
    pub fn set_authorization(&mut self, policy: &AuthorizationPolicy) {
        self.revision += 1;
        self.authorization.insert(policy.key.clone(), (policy.scope, Arc::new(Policy::compile(policy))));
    }

    /// A policy is gone.
    pub fn remove_authorization(&mut self, key: &Key) {
        self.revision += 1;
        self.authorization.remove(key);
    }

    /// A peer authentication came or changed.
    pub fn set_peer(&mut self, policy: Arc<PeerAuthentication>) {
        self.revision += 1;
        self.peer.insert(policy.key.clone(), policy);
    }

    /// A peer authentication is gone.
    pub fn remove_peer(&mut self, key: &Key) {
        self.revision += 1;
        self.peer.remove(key);
    }

    /// A request authentication came or changed.
    pub fn set_request(&mut self, policy: Arc<RequestAuthentication>) {
        self.revision += 1;
        self.requests.insert(policy.key.clone(), policy);
    }

    /// A request authentication is gone.
    pub fn remove_request(&mut self, key: &Key) {
        self.revision += 1;
        self.requests.remove(key);
    }

    /// What holds for a gateway: policies that it lists or that target it, those of its namespace and of the mesh.
    pub fn for_gateway(&self, gateway: &Key, authorization: &[Key]) -> WorkloadPolicy {
        let targeting = |policy: &&Arc<RequestAuthentication>| policy.gateways.contains(gateway);
        let requests: Vec<Key> = self.requests.values().filter(targeting).map(|policy| policy.key.clone()).collect();
        self.for_workload(&gateway.namespace, authorization, &[], &requests)
    }

    /// What holds for a workload of `namespace` that lists these. A listed policy that is not known is one that was removed a moment ago
    /// (policies are told before workloads), so it counts for nothing.
    pub fn for_workload(
        &self,
        namespace: &str,
        authorization: &[Key],
        peer: &[Key],
        requests: &[Key],
    ) -> WorkloadPolicy {
        let mut out = WorkloadPolicy::default();
        let holds = |policy: &&Arc<RequestAuthentication>| match policy.scope {
            Scope::Mesh => true,
            Scope::Namespace => &*policy.key.namespace == namespace,
            Scope::Workload => requests.contains(&policy.key),
        };
        out.requests = self.requests.values().filter(holds).cloned().collect();
        let (mut allow, mut deny, mut audit, mut custom) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (key, (scope, policy)) in &self.authorization {
            let holds = match scope {
                Scope::Mesh => true,
                Scope::Namespace => &*key.namespace == namespace,
                Scope::Workload => authorization.contains(key),
            };
            if !holds {
                continue;
            }
            out.has_dry_run |= policy.dry_run;
            match policy.action {
                Action::Allow => allow.push(policy.clone()),
                Action::Deny => deny.push(policy.clone()),
                Action::Audit => audit.push(policy.clone()),
                Action::Custom => custom.push(policy.clone()),
            }
        }
        [out.allow, out.deny, out.audit, out.custom] = [allow, deny, audit, custom].map(Policies::new);
        let oldest = |of: &dyn Fn(&PeerAuthentication) -> bool| {
            self.peer
                .values()
                .filter(|policy| of(policy))
                .min_by_key(|policy| (policy.created, policy.key.clone()))
                .cloned()
        };
        let listed = peer.iter().find_map(|key| self.peer.get(key)).cloned();
        let in_namespace = oldest(&|policy| policy.scope == Scope::Namespace && &*policy.key.namespace == namespace);
        let in_mesh = oldest(&|policy| policy.scope == Scope::Mesh);
        out.peer = [listed, in_namespace, in_mesh].into_iter().flatten().collect();
        out
    }
}

impl WorkloadPolicy {
    /// Whether a call may pass.
    pub fn decide(&self, call: &Call<'_>) -> Decision {
        let (allow, policy, rule, reason) = self.outcome(call, false);
        let dry_run = self
            .has_dry_run
            .then(|| self.outcome(call, true))
            .filter(|other| other.0 != allow)
            .map(|(allow, policy, rule, _)| DryRun { allow, policy, rule });
        let audited = self.audit.each(call, true).map(|(policy, _)| policy.key.clone()).collect();
        Decision { allow, policy, rule, reason, audited, dry_run }
    }

    fn outcome(&self, call: &Call<'_>, with_dry_run: bool) -> (bool, Option<Key>, Option<usize>, Reason) {
        let asked = call.http.as_ref().is_some_and(|http| http.asked);
        if !asked && let Some((key, rule)) = self.custom.first(call, with_dry_run) {
            return (false, Some(key), Some(rule), Reason::NoAuthorizer);
        }
        if let Some((key, rule)) = self.deny.first(call, with_dry_run) {
            return (false, Some(key), Some(rule), Reason::Denied);
        }
        if !self.allow.policies.iter().any(|policy| with_dry_run || !policy.dry_run) {
            return (true, None, None, Reason::NoPolicy);
        }
        match self.allow.first(call, with_dry_run) {
            Some((key, rule)) => (true, Some(key), Some(rule), Reason::Allowed),
            None => (false, None, None, Reason::NotAllowed),
        }
    }

    /// Who is to be asked about a request before it is decided. Dry-run policies ask nobody.
    pub fn asks(&self, call: &Call<'_>) -> Vec<Ask> {
        let asked = self.custom.each(call, false);
        let ask = |(policy, rule): (&Policy, usize)| Ask {
            policy: policy.key.clone(),
            rule,
            provider: policy.provider.clone(),
        };
        asked.map(ask).collect()
    }

    /// The request authentications that hold.
    pub fn request_authentications(&self) -> &[Arc<RequestAuthentication>] {
        &self.requests
    }

    /// Whether anybody may have to be asked.
    pub fn has_custom(&self) -> bool {
        !self.custom.is_empty()
    }

    /// Whether plain text is taken on a port of the workload.
    pub fn mtls_mode(&self, port: u16) -> MtlsMode {
        self.mtls(port).0
    }

    /// Whether a connection in plain text may come in; what it carries is still to be decided by [`decide`](Self::decide).
    pub fn admit_plain_text(&self, port: u16) -> Decision {
        let (mode, policy) = self.mtls(port);
        let allow = mode != MtlsMode::Strict;
        let reason = if allow { Reason::NoPolicy } else { Reason::PlainText };
        Decision { allow, policy: policy.filter(|_| !allow), rule: None, reason, audited: Vec::new(), dry_run: None }
    }

    /// Whether any decision looks at HTTP attributes or at all: without any policy a connection need not be asked about.
    pub fn is_empty(&self) -> bool {
        self.custom.is_empty() && self.deny.is_empty() && self.allow.is_empty() && self.audit.is_empty()
    }

    fn mtls(&self, port: u16) -> (MtlsMode, Option<Key>) {
        for policy in &self.peer {
            // Port modes count only in policies that select workloads (Istio ignores them elsewhere).
            let of_port = policy.ports.iter().find(|(of, _)| *of == port).map(|(_, mode)| *mode);
            let of_port = of_port.filter(|_| policy.scope == Scope::Workload).unwrap_or_default();
            for mode in [of_port, policy.mode] {
                if mode != MtlsMode::Unset {
                    return (mode, Some(policy.key.clone()));
                }
            }
        }
        (MtlsMode::Permissive, None)
    }
}

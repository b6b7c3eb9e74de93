//! Kubernetes' role-based access control as one pure decision with its reason.
//!
//! A [`Policy`] holds roles and bindings and an index from subject to what is bound to it, so that a decision costs the
//! caller's own bindings and not everybody's. Aggregated ClusterRoles are resolved when the policy is built: their rules are the
//! union of the rules of the roles that their selectors choose.

mod escalation;
mod policy;
mod rule;

pub use escalation::{covers, uncovered};
pub use policy::{Binding, ClusterRole, Policy, PolicyBuilder, RoleRef, Subject};
pub use rule::Rule;

use std::fmt;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// User name: `kubernetes-admin`, `system:serviceaccount:ns:name`.
    pub name: &'a str,
    /// Groups, `system:authenticated` among them when that is so.
    pub groups: &'a [std::sync::Arc<str>],
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A resource of the API.
    Resource {
        /// API group, `""` for core.
        group: &'a str,
        /// Plural.
        resource: &'a str,
        /// Subresource, or empty.
        subresource: &'a str,
        /// Namespace, or empty for cluster-scoped requests and for requests over all namespaces.
        namespace: &'a str,
        /// Object's name, or empty (list, watch, create, deletecollection).
        name: &'a str,
    },
    /// A path outside the resource tree, `/healthz`.
    Path(&'a str),
}

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub caller: Caller<'a>,
    /// `get`, `list`, `create`, ...; the lower-case HTTP method for paths.
    pub verb: &'a str,
    /// What.
    pub target: Target<'a>,
}

/// The answer. RBAC only ever grants; what no rule grants is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Which binding allowed it, or why a binding that might have could not be followed; empty when nothing applied.
    pub reason: String,
}

/// Decides one question.
pub fn decide(policy: &Policy, asked: &Attributes<'_>) -> Decision {
    let namespace = match asked.target {
        Target::Resource { namespace, .. } => namespace,
        Target::Path(_) => "",
    };
    let mut missing = Vec::new();
    for grant in policy.grants(asked.caller, namespace) {
        match grant.rules {
            None => missing.push(grant.role.clone()),
            Some(rules) if rules.iter().any(|rule| rule.allows(asked.verb, asked.target)) => {
                return Decision { allowed: true, reason: format!("RBAC: allowed by {grant}") };
            }
            Some(_) => {}
        }
    }
    Decision { allowed: false, reason: missing_reason(missing) }
}

/// Every rule that holds for a caller in a namespace (`""`: cluster-wide ones only), for `kubectl auth can-i --list`.
pub fn rules_for<'p>(policy: &'p Policy, caller: Caller<'p>, namespace: &'p str) -> Vec<&'p Rule> {
    policy.grants(caller, namespace).filter_map(|grant| grant.rules).flatten().collect()
}

fn missing_reason(mut missing: Vec<RoleRef>) -> String {
    missing.sort();
    missing.dedup();
    let texts: Vec<String> = missing.iter().map(|role| format!("{role} not found")).collect();
    match texts.as_slice() {
        [] => String::new(),
        [only] => format!("RBAC: {only}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}

impl fmt::Display for RoleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.cluster { "clusterrole" } else { "role" };
        write!(f, "{kind}.rbac.authorization.k8s.io {:?}", &*self.name)
    }
}

#[cfg(test)]
mod tests;

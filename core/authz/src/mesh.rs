//! Mesh policy: Istio's AuthorizationPolicy and PeerAuthentication, decided as Istio decides them.
//!
//! A proxy keeps one [`PolicySet`] of everything it was told, takes a [`WorkloadPolicy`] out of it for each workload (and again when
//! [`PolicySet::revision`] moved), and asks it about every connection and request.
//!
//! The order: a CUSTOM policy that matches has its authorizer asked ([`WorkloadPolicy::asks`]), and refuses what it was not asked about
//! (opaque bytes); a DENY policy that matches refuses; if the workload has ALLOW policies, one of them must match; else it is allowed. AUDIT policies only report,
//! and so do dry-run ones.
//!
//! Without HTTP (a TCP port) what asks for HTTP attributes cannot be decided, and Istio then errs towards refusal: such a rule of an
//! ALLOW policy matches nothing; in a DENY, AUDIT or CUSTOM rule the part that cannot be decided is left out, so the rule matches more.
//! An attribute that is not known at all (a condition's key) is treated so in both cases.

mod jwt;
mod matcher;
mod narrow;
mod path;
mod set;

pub use jwt::Jwt;
pub use path::normalize_path;
pub use set::{Ask, PolicySet, WorkloadPolicy};

use model::Key;
use model::mesh::Headers;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A verified SPIFFE identity of a workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// `TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`: what Istio calls the principal.
    principal: Arc<str>,
    trust_domain_end: usize,
    namespace: (usize, usize),
    service_account: usize,
}

impl Identity {
    /// From `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`. None: it is not of this form.
    pub fn parse(spiffe: &str) -> Option<Self> {
        let principal = spiffe.strip_prefix("spiffe://")?;
        let mut parts = principal.split('/');
        let (trust_domain, ns, namespace, sa, account) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let whole = parts.next().is_none() && ns == "ns" && sa == "sa";
        if !whole || trust_domain.is_empty() || namespace.is_empty() || account.is_empty() {
            return None;
        }
        let start = trust_domain.len() + "/ns/".len();
        let end = start + namespace.len();
        Some(Identity {
            principal: principal.into(),
            trust_domain_end: trust_domain.len(),
            namespace: (start, end),
            service_account: end + "/sa/".len(),
        })
    }
    /// `cluster.local/ns/default/sa/frontend`.
    pub fn principal(&self) -> &str {
        &self.principal
    }
    /// `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        &self.principal[..self.trust_domain_end]
    }
    /// `default`.
    pub fn namespace(&self) -> &str {
        &self.principal[self.namespace.0..self.namespace.1]
    }
    /// `frontend`.
    pub fn service_account(&self) -> &str {
        &self.principal[self.service_account..]
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.principal)
    }
}

/// A connection, or a request on it, as a policy sees it.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The verified peer; none: plain text.
    pub peer: Option<&'a Identity>,
    /// Address of the peer's workload (not of its node).
    pub source_ip: IpAddr,
    /// Address of the first client, as far as it is trusted; else the same.
    pub remote_ip: IpAddr,
    /// Address of the workload called.
    pub destination_ip: IpAddr,
    /// Port of the workload called (not of its service).
    pub destination_port: u16,
    /// Server name of the TLS handshake.
    pub sni: Option<&'a str>,
    /// The request; none: opaque bytes.
    pub http: Option<HttpCall<'a>>,
}

/// The request of a [`Call`].
#[derive(Clone, Copy)]
pub struct HttpCall<'a> {
    /// Host header or `:authority`, as sent (with a port if there is one).
    pub authority: &'a str,
    /// Method.
    pub method: &'a str,
    /// Path without query, normalized ([`normalize_path`]) as it will be passed on.
    pub path: &'a str,
    /// Headers.
    pub headers: &'a dyn Headers,
    /// The verified token.
    pub jwt: Option<&'a Jwt>,
    /// Whoever CUSTOM policies name was asked, and lets it pass.
    pub asked: bool,
}

/// What was decided, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may pass.
    pub allow: bool,
    /// The policy that decided; none when there was none, or when no ALLOW policy matched.
    pub policy: Option<Key>,
    /// The rule of it that matched, from 0.
    pub rule: Option<usize>,
    /// Why.
    pub reason: Reason,
    /// AUDIT policies that match.
    pub audited: Vec<Key>,
    /// What dry-run policies would have done: none when they would have changed nothing.
    pub dry_run: Option<DryRun>,
}

/// A different outcome, had dry-run policies been enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// The outcome.
    pub allow: bool,
    /// The policy that would have decided.
    pub policy: Option<Key>,
    /// Its rule.
    pub rule: Option<usize>,
}

/// Why a call may pass or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No ALLOW policy is set, and nothing refuses.
    NoPolicy,
    /// An ALLOW policy matches.
    Allowed,
    /// A DENY policy matches.
    Denied,
    /// There are ALLOW policies, and none matches.
    NotAllowed,
    /// A CUSTOM policy matches, and its external authorizer was not asked.
    NoAuthorizer,
    /// Plain text, and a PeerAuthentication is STRICT.
    PlainText,
}

impl Reason {
    /// A short word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoPolicy => "no_policy",
            Reason::Allowed => "allowed",
            Reason::Denied => "denied_by_policy",
            Reason::NotAllowed => "no_allow_policy_matched",
            Reason::NoAuthorizer => "no_external_authorizer",
            Reason::PlainText => "plain_text_refused",
        }
    }
}

impl fmt::Display for Decision {
    /// For the log line: `denied_by_policy default/deny-all rule 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())?;
        if let Some(policy) = &self.policy {
            write!(f, " {policy}")?;
        }
        if let Some(rule) = self.rule {
            write!(f, " rule {rule}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

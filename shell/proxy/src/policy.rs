//! Policy where traffic arrives: asked for every connection, for every request when the answer depends on it, and again for
//! what is open when a policy changes.
use crate::pods::Pod;
use crate::worker::Worker;
use authz::mesh::{Call, Decision, HttpCall, Identity, WorkloadPolicy};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Proved by its certificate; none: plain text.
    pub identity: Option<Identity>,
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// Told that the pod drains, it sends a request elsewhere.
    pub elsewhere: bool,
}

/// What a connection may do.
#[derive(Clone, Debug)]
pub enum Admission {
    /// Everything.
    Open,
    /// Nothing as opaque bytes; its requests are decided one by one.
    Requests(Arc<Rules>),
    /// Nothing: it is in plain text and that is not taken.
    Refused,
}

/// The policy of one pod for one caller and port.
#[derive(Clone, Debug)]
pub struct Rules {
    policy: Arc<WorkloadPolicy>,
    caller: Caller,
    to: SocketAddr,
    pod: Arc<str>,
}

/// A pod's compiled policy and what it was compiled from.
#[derive(Debug, Default)]
pub struct Compiled {
    at_version: u64,
    revision: u64,
    workload: Option<Arc<model::mesh::Workload>>,
    policy: Option<Arc<WorkloadPolicy>>,
}

/// Decides about a connection. A connection that policy takes as opaque bytes is open: what is decided without looking into
/// requests is never milder than what would be decided about them. One that is refused so may carry requests that are not.
pub fn admit(worker: &Worker, pod: &Pod, caller: &Caller, to: SocketAddr) -> Admission {
    let rules = Rules::of(worker, pod, caller, to);
    if caller.identity.is_none() {
        let decision = rules.policy.admit_plain_text(to.port());
        if !decision.allow {
            rules.log(&decision, None);
            return Admission::Refused;
        }
    }
    if rules.policy.is_empty() || rules.decide(None).allow {
        return Admission::Open;
    }
    Admission::Requests(Arc::new(rules))
}

impl Rules {
    /// The rules as they are now.
    pub fn of(worker: &Worker, pod: &Pod, caller: &Caller, to: SocketAddr) -> Self {
        Self { policy: compiled(worker, pod), caller: caller.clone(), to, pod: pod.origin.name.clone() }
    }

    /// Decides about a request, or about opaque bytes.
    pub fn decide(&self, http: Option<HttpCall<'_>>) -> Decision {
        let from = self.caller.address.ip();
        self.policy.decide(&Call {
            peer: self.caller.identity.as_ref(),
            source_ip: from,
            remote_ip: from,
            destination_ip: self.to.ip(),
            destination_port: self.to.port(),
            sni: None,
            http,
        })
    }

    /// Decides and says why not, to the operator. The caller is told only that it may not.
    pub fn admits(&self, http: Option<HttpCall<'_>>) -> bool {
        let decision = self.decide(http);
        if !decision.allow || decision.dry_run.is_some() {
            self.log(&decision, http);
        }
        decision.allow
    }

    fn log(&self, decision: &Decision, http: Option<HttpCall<'_>>) {
        let from = self.caller.identity.as_ref().map_or_else(|| "plain text".to_owned(), ToString::to_string);
        let request = http.map(|http| format!("{} {}", http.method, http.path)).unwrap_or_default();
        if !decision.allow {
            let policy = decision.policy.as_ref().map(ToString::to_string).unwrap_or_default();
            let (pod, to, address) = (&self.pod, self.to, self.caller.address);
            tracing::warn!(target: "policy", %pod, %to, from, %address, request, policy, "refused: {decision}");
        }
        if let Some(dry_run) = &decision.dry_run {
            let policy = dry_run.policy.as_ref().map(ToString::to_string).unwrap_or_default();
            let would = if dry_run.allow { "allow" } else { "refuse" };
            tracing::info!(target: "policy", pod = %self.pod, to = %self.to, from, request, policy, "dry run would {would}");
        }
    }
}

/// The pod's policy; compiled again only when policies or the workload's own list changed.
fn compiled(worker: &Worker, pod: &Pod) -> Arc<WorkloadPolicy> {
    let mesh = &worker.shared.mesh;
    let version = mesh.version();
    let mut cache = pod.policy.lock().unwrap_or_else(PoisonError::into_inner);
    if let (true, Some(policy)) = (cache.at_version == version, &cache.policy) {
        return policy.clone();
    }
    let known = mesh.known();
    let workload = pod.origin.addresses.first().and_then(|ip| known.directory.workload_at(*ip)).cloned();
    let same = match (&workload, &cache.workload) {
        (Some(new), Some(old)) => Arc::ptr_eq(new, old),
        (None, None) => true,
        _ => false,
    };
    cache.at_version = version;
    if let (true, true, Some(policy)) = (same, cache.revision == known.policies.revision(), &cache.policy) {
        return policy.clone();
    }
    let (authorization, peer) =
        workload.as_deref().map_or((&[][..], &[][..]), |it| (&it.authorization_policies, &it.peer_authentications));
    let policy = Arc::new(known.policies.for_workload(&pod.attachment.namespace, authorization, peer));
    cache.revision = known.policies.revision();
    cache.policy = Some(policy.clone());
    cache.workload = workload;
    policy
}

/// Follows policy for a connection that is open.
pub struct Watch<'a> {
    worker: &'a Worker,
    pod: &'a Pod,
    caller: &'a Caller,
    to: SocketAddr,
    changes: watch::Receiver<u64>,
}

impl<'a> Watch<'a> {
    /// Begins to follow.
    pub fn new(worker: &'a Worker, pod: &'a Pod, caller: &'a Caller, to: SocketAddr) -> Self {
        let mut changes = worker.shared.mesh.policy_changes();
        changes.mark_unchanged();
        Self { worker, pod, caller, to, changes }
    }

    /// Waits until the connection would not be opened any more.
    pub async fn revoked(mut self) {
        loop {
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let rules = Rules::of(self.worker, self.pod, self.caller, self.to);
            let plain = self.caller.identity.is_none() && !rules.policy.admit_plain_text(self.to.port()).allow;
            if plain || !rules.admits(None) {
                return;
            }
        }
    }
}

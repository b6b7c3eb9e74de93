//! Policy where traffic arrives: asked for every connection, for every request when the answer depends on it, and again for
//! what is open when a policy changes.
use crate::config::Control;
use crate::identity::trust::RootId;
use crate::jwt::Verifier;
use crate::mesh::Mesh;
use crate::pods::Pod;
use crate::worker::Worker;
use authz::mesh::{Ask, Call, Decision, HttpCall, Identity, WorkloadPolicy};
use model::Key;
use model::map::HashMap;
use model::mesh::{Gateway, Workload};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use traffic::Directory;
use xds::attach::PodAttachment;

/// How long a caller waits for a pod of which nothing is known yet: less than it waits for a connection.
const TOLD_PATIENCE: Duration = Duration::from_secs(3);

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Proved by its certificate; none: plain text.
    pub identity: Option<Identity>,
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// Told that the pod drains, it sends a request elsewhere.
    pub elsewhere: bool,
    /// The root of the pod's certificate that it was shown on a connection of its own. (A tunnel looks after itself.)
    pub shown: Option<RootId>,
}

impl Caller {
    /// Who connects in plain text.
    pub fn in_plain_text(address: SocketAddr) -> Self {
        Self { identity: None, address, elsewhere: false, shown: None }
    }

    /// Whether it should come again, for another root signs than when it came: the old one is to go.
    pub fn should_come_again(&self, pod: &Pod) -> bool {
        self.shown.is_some_and(|shown| pod.origin.identity.root().is_some_and(|now| now != shown))
    }

    /// Waits until it should come again.
    pub async fn coming_again(&self, pod: &Pod) {
        match self.shown {
            Some(shown) => pod.origin.identity.moved_from(shown).await,
            None => std::future::pending().await,
        }
    }
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
    verifier: Arc<Verifier>,
    caller: Caller,
    to: SocketAddr,
    pod: Arc<str>,
}

/// A pod's compiled policy and what it was compiled from.
#[derive(Debug, Default)]
pub struct Compiled {
    at_version: u64,
    revision: u64,
    workload: Option<Arc<Workload>>,
    policy: Option<Holds>,
}

/// A policy, and what verifies the tokens that it asks for.
type Holds = (Arc<WorkloadPolicy>, Arc<Verifier>);

fn holds(policy: WorkloadPolicy) -> Holds {
    let verifier = Verifier::new(policy.request_authentications().iter().map(|it| &**it));
    (Arc::new(policy), Arc::new(verifier))
}

/// Decides about a connection. A connection that policy takes as opaque bytes is open: what is decided without looking into
/// requests is never milder than what would be decided about them. One that is refused so may carry requests that are not.
pub fn admit(worker: &Worker, pod: &Pod, caller: &Caller, to: SocketAddr) -> Admission {
    let Some(rules) = Rules::of(worker, pod, caller, to) else { return Admission::Refused };
    if !rules.admits_plain_text() {
        return Admission::Refused;
    }
    if rules.policy.is_empty() || rules.decide(None).allow {
        return Admission::Open;
    }
    Admission::Requests(Arc::new(rules))
}

/// Whether a pod's port is called in plain text at all.
pub fn takes_plain_text(worker: &Worker, pod: &Pod, port: u16) -> bool {
    compiled(worker, pod).is_some_and(|(policy, _)| policy.admit_plain_text(port).allow)
}

/// Waits until it is known which policies hold for a pod, but not for long. False, and said to the operator: it is not known, so nothing may come in.
pub async fn is_known(worker: &Worker, pod: &Pod) -> bool {
    if compiled(worker, pod).is_some() {
        return true;
    }
    let told = async {
        let mut changes = worker.shared.mesh.changes();
        worker.shared.informed().await;
        // A pod is there as soon as its network is, and is told when the API knows.
        while compiled(worker, pod).is_none() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let known = timeout(TOLD_PATIENCE, Box::pin(told)).await.is_ok();
    if !known {
        let why = match worker.shared.is_informed() {
            false => "the control plane has told no policies yet, and none are kept",
            true => "the control plane has not told of this pod yet",
        };
        let (pod, namespace) = (&pod.attachment.name, &pod.attachment.namespace);
        tracing::warn!(target: "policy", %pod, %namespace, why, "refused: which policies hold is not known");
    }
    known
}

/// Waits until a pod's port is called in plain text no more.
pub async fn plain_text_ends(worker: &Worker, pod: &Pod, port: u16) {
    let mut changes = worker.shared.mesh.policy_changes();
    while takes_plain_text(worker, pod, port) {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Rules {
    /// The rules as they are now. None: it is not known which policies hold.
    pub fn of(worker: &Worker, pod: &Pod, caller: &Caller, to: SocketAddr) -> Option<Self> {
        let (policy, verifier) = compiled(worker, pod)?;
        Some(Self { policy, verifier, caller: caller.clone(), to, pod: pod.origin.name.clone() })
    }

    /// The rules of a gateway, if any policy holds there.
    pub fn of_gateway(worker: &Worker, gateway: &Gateway, client: SocketAddr, port: u16) -> Option<Self> {
        let (policy, verifier) = worker.gateway_policies.get(&worker.shared.mesh, gateway);
        if policy.is_empty() && verifier.is_empty() {
            return None;
        }
        let caller = Caller::in_plain_text(client);
        let to = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port);
        Some(Self { policy, verifier, caller, to, pod: gateway.key.name.clone() })
    }

    /// Whether requests have tokens to be verified, or somebody to be asked about them.
    pub fn concerns_requests(&self) -> bool {
        self.policy.has_custom() || !self.verifier.is_empty()
    }

    /// What verifies tokens.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whom.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// Who is to be asked about a request.
    pub fn asks(&self, http: HttpCall<'_>) -> Vec<Ask> {
        self.policy.asks(&self.call(Some(http)))
    }

    /// Tells the operator why a request is refused on an authorizer's account.
    pub fn refused(&self, ask: &Ask, request: &str, why: &str) {
        let from = self.caller.identity.as_ref().map_or_else(|| "plain text".to_owned(), ToString::to_string);
        let (policy, rule, provider) = (&ask.policy, ask.rule, &ask.provider);
        tracing::warn!(target: "policy", pod = %self.pod, to = %self.to, from, request, %policy, rule, %provider, why, "refused: custom");
    }

    fn call<'a>(&'a self, http: Option<HttpCall<'a>>) -> Call<'a> {
        let from = self.caller.address.ip();
        Call {
            peer: self.caller.identity.as_ref(),
            source_ip: from,
            remote_ip: from,
            destination_ip: self.to.ip(),
            destination_port: self.to.port(),
            sni: None,
            http,
        }
    }

    /// Decides about a request, or about opaque bytes.
    pub fn decide(&self, http: Option<HttpCall<'_>>) -> Decision {
        self.policy.decide(&self.call(http))
    }

    /// Decides and says why not, to the operator. The caller is told only that it may not.
    pub fn admits(&self, http: Option<HttpCall<'_>>) -> bool {
        let decision = self.decide(http);
        if !decision.allow || decision.dry_run.is_some() || !decision.audited.is_empty() {
            self.log(&decision, http);
        }
        decision.allow
    }

    /// Whether the caller may come as it does: in plain text, if that is how. Says why not, to the operator.
    pub fn admits_plain_text(&self) -> bool {
        if self.caller.identity.is_some() {
            return true;
        }
        let decision = self.policy.admit_plain_text(self.to.port());
        if !decision.allow {
            self.log(&decision, None);
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
        for policy in &decision.audited {
            tracing::info!(target: "policy", pod = %self.pod, to = %self.to, from, request, %policy, allowed = decision.allow, "audit");
        }
        if let Some(dry_run) = &decision.dry_run {
            let policy = dry_run.policy.as_ref().map(ToString::to_string).unwrap_or_default();
            let would = if dry_run.allow { "allow" } else { "refuse" };
            tracing::info!(target: "policy", pod = %self.pod, to = %self.to, from, request, policy, "dry run would {would}");
        }
    }
}

/// The workload that a pod is: by its name and, since a name may be used again, by its UID. Where no control plane tells which UIDs there are,
/// by its address.
fn workload_of<'d>(directory: &'d Directory, pod: &Pod, local: bool) -> Option<&'d Arc<Workload>> {
    let PodAttachment { uid, namespace, name, netns, .. } = &pod.attachment;
    let own = match netns.is_empty() {
        // A joined process: it is attached by its workload's name.
        true => directory.workload(uid),
        false => directory.workload(&format!("pod/{namespace}/{name}")).filter(|it| *it.uid == **uid),
    };
    let here = || pod.origin.addresses.first().filter(|_| local).and_then(|ip| directory.workload_at(*ip));
    own.or_else(here)
}

/// The pod's policy; compiled again only when policies or the workload's own list changed. None: which policies hold is not known, for they were not
/// told, or not of this pod. What was known stays so: a pod whose object is gone still is what it was.
fn compiled(worker: &Worker, pod: &Pod) -> Option<Holds> {
    let mesh = &worker.shared.mesh;
    let version = mesh.version();
    let mut cache = pod.policy.lock().unwrap_or_else(PoisonError::into_inner);
    if let (true, Some(policy)) = (cache.at_version == version, &cache.policy) {
        return Some(policy.clone());
    }
    let known = mesh.known();
    let local = matches!(worker.shared.config.control, Control::Local);
    let now = workload_of(&known.directory, pod, local).cloned();
    let workload = if local { now } else { now.or_else(|| cache.workload.clone()) };
    if !worker.shared.is_informed() || (workload.is_none() && !local) {
        return None;
    }
    let same = match (&workload, &cache.workload) {
        (Some(new), Some(old)) => Arc::ptr_eq(new, old),
        (None, None) => true,
        _ => false,
    };
    cache.at_version = version;
    if let (true, true, Some(policy)) = (same, cache.revision == known.policies.revision(), &cache.policy) {
        return Some(policy.clone());
    }
    let namespace = &pod.attachment.namespace;
    let policy = holds(match workload.as_deref() {
        None => known.policies.for_workload(namespace, &[], &[], &[]),
        Some(it) => known.policies.for_workload(
            namespace,
            &it.authorization_policies,
            &it.peer_authentications,
            &it.request_authentications,
        ),
    });
    cache.revision = known.policies.revision();
    cache.policy = Some(policy.clone());
    cache.workload = workload;
    Some(policy)
}

/// The policies of gateways, compiled again only when a policy or the gateway's own list changed.
#[derive(Debug, Default)]
pub struct GatewayPolicies(Mutex<HashMap<Key, OfGateway>>);

/// What a gateway's policies were compiled from, and they.
#[derive(Debug)]
struct OfGateway {
    at_version: u64,
    revision: u64,
    listed: Vec<Key>,
    holds: Holds,
}

impl GatewayPolicies {
    fn get(&self, mesh: &Mesh, gateway: &Gateway) -> Holds {
        let version = mesh.version();
        let listed = &gateway.authorization_policies;
        let mut compiled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let have = compiled.get_mut(&gateway.key).filter(|have| have.listed == *listed);
        // What is known is not looked at for each request: that lock is all workers'.
        if let Some(have) = have {
            if have.at_version != version && have.revision == mesh.known().policies.revision() {
                have.at_version = version;
            }
            if have.at_version == version {
                return have.holds.clone();
            }
        }
        let known = mesh.known();
        let holds = holds(known.policies.for_gateway(&gateway.key, listed));
        let revision = known.policies.revision();
        let new = OfGateway { at_version: version, revision, listed: listed.clone(), holds: holds.clone() };
        compiled.insert(gateway.key.clone(), new);
        holds
    }
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
        Self { worker, pod, caller, to, changes: worker.shared.mesh.policy_changes() }
    }

    /// Waits until the connection would not be admitted as open (which may be so already): gives what it would be.
    pub async fn not_open(&mut self) -> Admission {
        loop {
            // Whatever changes from here on is seen.
            self.changes.mark_unchanged();
            match admit(self.worker, self.pod, self.caller, self.to) {
                Admission::Open => self.changed().await,
                other => return other,
            }
        }
    }

    /// Waits until its bytes would not be taken any more (which may be so already). Says why, to the operator.
    pub async fn revoked(&mut self) {
        loop {
            self.changes.mark_unchanged();
            let rules = Rules::of(self.worker, self.pod, self.caller, self.to);
            if !rules.is_some_and(|rules| rules.admits_plain_text() && rules.admits(None)) {
                return;
            }
            self.changed().await;
        }
    }

    async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

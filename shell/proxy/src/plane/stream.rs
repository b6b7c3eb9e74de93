//! The stream of configuration.
use super::connection::{Connection, PlaneError};
use super::snapshot::Snapshot;
use crate::config::ControlPlane;
use crate::mesh::Change;
use crate::shared::Shared;
use model::mesh::{Resource, ResourceKind};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic_prost::ProstCodec;
use xds::convert;
use xds::discovery::{DELTA_PATH, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use xds::resources::{kind_of, type_url};
use xds::session::{Client, Received};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A stream that lived this long was a good one: the next attempt comes at once.
const STEADY: Duration = Duration::from_secs(10);
/// Configuration is written to disk this long after a change, together with what came meanwhile.
const WRITE_AFTER: Duration = Duration::from_secs(1);

struct Follower {
    shared: Arc<Shared>,
    session: Client,
    kept: Snapshot,
    /// What came from the file and was not confirmed by the control plane yet.
    unconfirmed: BTreeSet<ResourceKind>,
    /// Names told on this stream, of kinds that are not complete yet.
    told: BTreeSet<(ResourceKind, String)>,
    /// Policies told on this stream that cannot be read, and of which no earlier version holds.
    unreadable: BTreeSet<(ResourceKind, String)>,
    dirty: bool,
}

/// Whether resources of a kind keep anybody out.
fn keeps_out(kind: ResourceKind) -> bool {
    use ResourceKind::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
    matches!(kind, AuthorizationPolicy | PeerAuthentication | RequestAuthentication)
}

/// Follows the control plane for ever: applies what it tells, answers, connects again when the stream ends.
pub async fn follow(shared: Arc<Shared>, plane: ControlPlane) {
    let mut follower = Follower::new(shared);
    follower.begin_with_kept();
    let mut pause = PAUSE_MIN;
    loop {
        let begun = Instant::now();
        match follower.stream(&plane).await {
            Ok(()) => tracing::info!("the control plane ended the stream"),
            Err(error) => {
                tracing::warn!(%error, "no configuration from the control plane; what is known stays in force")
            }
        }
        follower.write();
        pause = if begun.elapsed() > STEADY { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        tokio::time::sleep(pause).await;
    }
}

impl Follower {
    fn new(shared: Arc<Shared>) -> Self {
        let node = Node { id: shared.config.node_name.clone(), ..Default::default() };
        let mut session = Client::new(node);
        for kind in ResourceKind::ALL {
            session.subscribe_all(type_url(kind));
        }
        let kept = shared.config.snapshot.as_deref().map(Snapshot::read).unwrap_or_default();
        let (unconfirmed, told, unreadable) = Default::default();
        Self { shared, session, kept, unconfirmed, told, unreadable, dirty: false }
    }

    /// What an earlier process of this proxy was told last.
    fn begin_with_kept(&mut self) {
        let (mut changes, mut unreadable) = (Vec::new(), Vec::new());
        for (kind, name, value) in self.kept.iter() {
            match convert::decode(kind, value.clone()) {
                Ok(resource) => {
                    self.unconfirmed.insert(kind);
                    changes.push(Change::Set(resource));
                }
                Err(error) => {
                    unreadable.push((kind, name.to_owned()));
                    tracing::warn!(name, %error, "a kept resource is unreadable");
                }
            }
        }
        for (kind, name) in &unreadable {
            self.kept.remove(*kind, name);
        }
        if !changes.is_empty() {
            tracing::info!(resources = changes.len(), "beginning with the configuration that was kept");
            self.apply(changes);
            // Only what was complete is kept; what cannot be read may have been a policy.
            if unreadable.is_empty() {
                self.shared.set_informed();
            }
        }
    }

    async fn stream(&mut self, plane: &ControlPlane) -> Result<(), PlaneError> {
        let connection = Connection::open(plane).await?;
        let (requests, outgoing) = mpsc::unbounded_channel::<DeltaDiscoveryRequest>();
        self.told.clear();
        self.unreadable.clear();
        for request in self.session.connected() {
            // The receiver lives as long as the call below.
            let _ = requests.send(request);
        }
        let mut grpc = connection.grpc();
        grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = http::uri::PathAndQuery::from_static(DELTA_PATH);
        let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
        let outgoing = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
        let mut incoming = grpc.streaming(outgoing, path, codec).await?.into_inner();
        tracing::info!(address = %plane.address, "following the control plane");
        let mut beside = tokio::task::JoinSet::new();
        beside.spawn(super::report::run(self.shared.identities.clone(), connection.clone()));
        loop {
            let message = if self.dirty {
                match tokio::time::timeout(WRITE_AFTER, incoming.message()).await {
                    Ok(message) => message?,
                    Err(_) => {
                        self.write();
                        continue;
                    }
                }
            } else {
                incoming.message().await?
            };
            let Some(response) = message else { return Ok(()) };
            let broken = |error: xds::session::SessionError| tonic::Status::internal(error.to_string());
            let received = self.session.receive(response).map_err(broken)?;
            let answer = self.take(received);
            let _ = requests.send(answer);
        }
    }

    /// Applies a response; what cannot be read stays as it was, and the answer says so.
    fn take(&mut self, received: Received) -> DeltaDiscoveryRequest {
        let Some(kind) = kind_of(&received.type_url) else {
            let refusal = (received.type_url.clone(), "this proxy does not know the type".to_owned());
            return self.session.finish(&received, &[refusal]);
        };
        let (mut changes, mut rejected) = (Vec::new(), Vec::new());
        for resource in &received.changed {
            match convert::decode(kind, resource.value.clone()) {
                Ok(decoded) => {
                    changes.push(Change::Set(decoded));
                    self.unreadable.remove(&(kind, resource.name.clone()));
                    self.kept.set(kind, resource.name.clone(), resource.value.clone());
                    self.told.insert((kind, resource.name.clone()));
                }
                Err(error) => {
                    tracing::warn!(kind = %received.type_url, name = resource.name, %error, "a resource was refused");
                    if keeps_out(kind) && !self.kept.has(kind, &resource.name) {
                        self.unreadable.insert((kind, resource.name.clone()));
                    }
                    rejected.push((resource.name.clone(), error.to_string()));
                }
            }
        }
        for name in &received.removed {
            self.unreadable.remove(&(kind, name.clone()));
            self.kept.remove(kind, name);
            changes.push(Change::Remove(kind, name.clone()));
        }
        if received.complete && self.unconfirmed.remove(&kind) {
            let told = &self.told;
            for name in self.kept.others(kind, |name| told.contains(&(kind, name.to_owned()))) {
                self.kept.remove(kind, &name);
                changes.push(Change::Remove(kind, name));
            }
        }
        self.dirty |= !changes.is_empty();
        self.apply(changes);
        let answer = self.session.finish(&received, &rejected);
        if self.session.is_complete() {
            match self.unreadable.first() {
                None => self.shared.set_synced(),
                // Whom it would keep out nobody knows: what began with policies keeps those, and what did not lets nobody in.
                Some((_, name)) => tracing::error!(name, of = self.unreadable.len(), "a policy cannot be read"),
            }
        }
        let versions = self.session.versions().map(|(kind, version)| (kind.to_owned(), version.to_owned()));
        self.shared.set_versions(versions.collect());
        answer
    }

    fn apply(&self, changes: Vec<Change>) {
        for change in &changes {
            if let Change::Set(Resource::TrustBundle(bundle)) = change
                && *bundle.trust_domain == *self.shared.config.trust_domain
            {
                self.shared.identities.set_roots(bundle.roots.iter().map(|root| &**root));
            }
        }
        if !changes.is_empty() {
            self.shared.mesh.apply(changes);
        }
    }

    fn write(&mut self) {
        // One that leaves has a successor, which writes. And half of a configuration is none: policies may be in the other.
        if let Some(path) = &self.shared.config.snapshot
            && !self.shared.is_stopping()
            && self.shared.is_informed()
            && std::mem::take(&mut self.dirty)
            && let Err(error) = self.kept.write(path)
        {
            tracing::warn!(%error, path = %path.display(), "the configuration could not be kept on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Control};
    use crate::identity::{Identities, LocalIssuer};
    use xds::discovery::Any;

    const NAME: &str = "default/new";

    /// One that nothing was told, and keeps nothing.
    fn follower() -> Follower {
        let file = || "/nonexistent".into();
        let (address, server_name) = ("127.0.0.1:1".into(), "plane".into());
        let plane = ControlPlane { address, server_name, ca: file(), certificate: file(), key: file() };
        let config = Config { control: Control::Plane(plane), ..Config::default() };
        let issuer = Arc::new(LocalIssuer::generate(3_600).unwrap());
        let identities = Identities::new("cluster.local".into(), issuer, tokio::runtime::Handle::current());
        Follower::new(Arc::new(Shared::new(config, Arc::new(identities), None)))
    }

    fn told(follower: &mut Follower, kind: ResourceKind, value: Option<&[u8]>) {
        let resource = value.map(|value| xds::discovery::Resource {
            name: NAME.into(),
            resource: Some(Any { type_url: type_url(kind).into(), value: value.to_vec().into() }),
            ..Default::default()
        });
        let response = DeltaDiscoveryResponse {
            type_url: type_url(kind).into(),
            nonce: "1".into(),
            resources: resource.into_iter().collect(),
            removed_resources: if value.is_none() { vec![NAME.into()] } else { Vec::new() },
            ..Default::default()
        };
        let received = follower.session.receive(response).unwrap();
        follower.take(received);
    }

    #[tokio::test]
    async fn a_policy_that_cannot_be_read_keeps_everybody_out() {
        let policy = ResourceKind::AuthorizationPolicy;
        let mut follower = follower();
        for kind in ResourceKind::ALL.into_iter().filter(|kind| *kind != policy) {
            told(&mut follower, kind, None);
        }
        assert!(!follower.shared.is_informed(), "policies are to come");
        told(&mut follower, policy, Some(b"\xff"));
        assert!(!follower.shared.is_informed());
        told(&mut follower, policy, None);
        assert!(follower.shared.is_informed(), "it is gone");
    }

    #[tokio::test]
    async fn another_kind_that_cannot_be_read_does_not() {
        let mut follower = follower();
        for kind in ResourceKind::ALL {
            told(&mut follower, kind, (kind == ResourceKind::Route).then_some(b"\xff"));
        }
        assert!(follower.shared.is_informed());
    }
}

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
    dirty: bool,
}

/// Follows the control plane for ever: applies what it tells, answers, connects again when the stream ends.
pub async fn follow(shared: Arc<Shared>, plane: ControlPlane) {
    let node = Node { id: shared.config.node_name.clone(), ..Default::default() };
    let mut session = Client::new(node);
    for kind in ResourceKind::ALL {
        session.subscribe_all(type_url(kind));
    }
    let kept = shared.config.snapshot.as_deref().map(Snapshot::read).unwrap_or_default();
    let mut follower =
        Follower { shared, session, kept, unconfirmed: BTreeSet::new(), told: BTreeSet::new(), dirty: false };
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
    /// What an earlier process of this proxy was told last.
    fn begin_with_kept(&mut self) {
        let (mut changes, mut whole) = (Vec::new(), true);
        for (kind, name, value) in self.kept.iter() {
            match convert::decode(kind, value.clone()) {
                Ok(resource) => {
                    self.unconfirmed.insert(kind);
                    changes.push(Change::Set(resource));
                }
                Err(error) => {
                    whole = false;
                    tracing::warn!(name, %error, "a kept resource is unreadable");
                }
            }
        }
        if !changes.is_empty() {
            tracing::info!(resources = changes.len(), "beginning with the configuration that was kept");
            self.apply(changes);
            // Only what was complete is kept; what cannot be read may have been a policy.
            if whole {
                self.shared.set_informed();
            }
        }
    }

    async fn stream(&mut self, plane: &ControlPlane) -> Result<(), PlaneError> {
        let connection = Connection::open(plane).await?;
        let (requests, outgoing) = mpsc::unbounded_channel::<DeltaDiscoveryRequest>();
        self.told.clear();
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
                    self.kept.set(kind, resource.name.clone(), resource.value.clone());
                    self.told.insert((kind, resource.name.clone()));
                }
                Err(error) => {
                    tracing::warn!(kind = %received.type_url, name = resource.name, %error, "a resource was refused");
                    rejected.push((resource.name.clone(), error.to_string()));
                }
            }
        }
        for name in &received.removed {
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
            self.shared.set_synced();
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

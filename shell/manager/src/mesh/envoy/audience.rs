//! For whom a view is made: what a client understands, whether it has an identity, and where it is.
use super::Role;
use crate::mesh::core::Core;
use crate::mesh::hosts;
use crate::mesh::identity::Caller;
use model::{Key, Labels};
use std::sync::Arc;
use xds::discovery::Node;

/// What a gRPC client's bootstrap calls the certificate provider that clusters may point at.
pub const PROVIDER: &str = "default";

/// Clients of one kind. Few: kinds, and the zones of nodes and joined hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Audience {
    /// What it is for.
    pub kind: Kind,
    /// It has certificates of the mesh.
    pub secured: bool,
    /// Where it is, or empty.
    pub region: Arc<str>,
    /// Where it is, or empty.
    pub zone: Arc<str>,
    /// Whose calls these are, as routes ask callers: of Envoys beside processes.
    pub source: Option<Source>,
    /// The secret that it shows to services that end TLS themselves, as its Gateway says.
    pub shows: Option<Key>,
}

/// See [`Role`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An Envoy beside a process.
    #[default]
    Sidecar,
    /// An Envoy in front of a Gateway's listeners.
    Gateway,
    /// A gRPC client.
    Grpc,
}

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its labels, as far as rules ask for labels of these names.
    pub labels: Labels,
}

impl Source {
    /// Of several workloads with one account: what all of them have.
    fn of(core: &Core, caller: &Caller, claim: &Claim) -> Option<Source> {
        core.objects(|objects| match (caller, claim) {
            (Caller::Host { .. }, Claim::Host) => {
                let entry = hosts::entry_of(objects, caller)?;
                Some(Source { namespace: entry.key.namespace.clone(), labels: objects.asked_labels(&entry.labels) })
            }
            (Caller::Node(node), Claim::Account(namespace, account)) => {
                let here = objects.pods_of_node(node).filter(|pod| !pod.ended);
                let theirs = here.filter(|pod| *pod.key.namespace == **namespace && *pod.service_account == **account);
                let labels = theirs.map(|pod| objects.asked_labels(&pod.labels));
                let common = labels.reduce(|mut all, one| {
                    all.retain(|name, value| one.get(name) == Some(value));
                    all
                });
                Some(Source { namespace: namespace.as_str().into(), labels: common.unwrap_or_default() })
            }
            _ => None,
        })
    }
}

/// Whose certificate a client wants. Whether it gets it is decided when it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// Nobody's.
    #[default]
    None,
    /// The gateway's that it serves.
    Gateway(Key),
    /// A workload's of its node: namespace and ServiceAccount.
    Account(String, String),
    /// The joined host's that it runs on.
    Host,
}

impl Claim {
    /// By who connects, and what a client says of itself: a node's client names the workload beside which it runs (metadata `namespace` and
    /// `serviceAccount`).
    pub fn of(caller: &Caller, role: &Role, node: Option<&Node>) -> Self {
        match (caller, role) {
            (_, Role::Grpc) | (Caller::Anonymous, _) => Claim::None,
            (Caller::Host { .. }, _) => Claim::Host,
            (Caller::Node(_), Role::Gateway(key)) => Claim::Gateway(key.clone()),
            (Caller::Node(_), Role::Sidecar | Role::Host { .. }) => {
                let metadata = node.and_then(|node| node.metadata.as_ref());
                let said = |name: &str| metadata.and_then(|metadata| metadata.text(name)).map(str::to_owned);
                match (said("namespace"), said("serviceAccount")) {
                    (Some(namespace), Some(account)) => Claim::Account(namespace, account),
                    _ => Claim::None,
                }
            }
        }
    }
}

/// What a Gateway shows to services.
fn shown(core: &Core, role: &Role) -> Option<Key> {
    let Role::Gateway(key) = role else { return None };
    core.objects(|objects| objects.gateways().find(|it| it.key == *key)?.client_certificate.clone())
}

impl Audience {
    /// Of a client that has just said who it is.
    pub fn of(core: &Core, caller: &Caller, role: &Role, claim: &Claim, node: Option<&Node>) -> Self {
        let provider = node.and_then(|node| node.metadata.as_ref()?.text("certificateProvider"));
        let (kind, secured) = match role {
            Role::Gateway(_) => (Kind::Gateway, *claim != Claim::None),
            Role::Sidecar | Role::Host { .. } => (Kind::Sidecar, *claim != Claim::None),
            Role::Grpc => (Kind::Grpc, provider == Some(PROVIDER)),
        };
        let place = core.objects(|objects| match caller {
            Caller::Node(name) => objects.node(name).map(|node| (node.region.clone(), node.zone.clone())),
            Caller::Host { .. } => {
                hosts::entry_of(objects, caller).map(|entry| (entry.region.clone(), entry.zone.clone()))
            }
            Caller::Anonymous => None,
        });
        let (region, zone) = place.unwrap_or_default();
        let source = Source::of(core, caller, claim).filter(|_| kind == Kind::Sidecar);
        Audience { kind, secured, region, zone, source, shows: shown(core, role) }
    }

    /// Whether what its Gateway shows, or its labels, are others by now.
    pub fn is_stale(&self, core: &Core, caller: &Caller, role: &Role, claim: &Claim) -> bool {
        let source = self.source.is_some().then(|| Source::of(core, caller, claim)).flatten();
        self.shows != shown(core, role) || self.source != source
    }
}

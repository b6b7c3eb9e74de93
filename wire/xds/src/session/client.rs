//! The proxy's side.

use super::SessionError;
use crate::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// gRPC's INVALID_ARGUMENT, as xDS clients send in a NACK.
const INVALID_ARGUMENT: i32 = 3;
/// A NACK's text is cut here: it goes into a status page, not into a log of its own.
const DETAIL_LIMIT: usize = 4_096;

/// The client half. Lives as long as the proxy: streams come and go ([`Client::connected`]), what is known stays.
#[derive(Debug)]
pub struct Client {
    node: Node,
    types: BTreeMap<String, Subscription>,
}

#[derive(Debug, Default)]
struct Subscription {
    /// All resources of the type.
    wildcard: bool,
    /// Or these.
    names: BTreeSet<String>,
    /// Version of each resource that was accepted.
    versions: BTreeMap<String, String>,
    /// The server has told everything that it had at some moment.
    complete: bool,
    /// Version of the last response that was accepted whole.
    system_version: String,
}

/// A response, to be applied and then answered with [`Client::finish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Type.
    pub type_url: String,
    /// New and changed resources.
    pub changed: Vec<ReceivedResource>,
    /// Names of those that are gone.
    pub removed: Vec<String>,
    /// Whether nothing more is on its way for now: after the first complete response of every type the proxy knows all that it asked for.
    pub complete: bool,
    nonce: String,
    system_version: String,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedResource {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// The encoded message (see [`crate::convert::decode`]).
    pub value: Bytes,
}

impl Client {
    /// A client that has subscribed to nothing yet.
    pub fn new(node: Node) -> Self {
        Client { node, types: BTreeMap::new() }
    }

    /// Wants all resources of a type. Call before [`connected`](Self::connected).
    pub fn subscribe_all(&mut self, type_url: &str) {
        self.types.entry(type_url.to_owned()).or_default().wildcard = true;
    }

    /// Wants these resources of a type too. `Some`: to be sent now if a stream is up.
    pub fn subscribe<'a>(
        &mut self,
        type_url: &str,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Option<DeltaDiscoveryRequest> {
        let subscription = self.types.entry(type_url.to_owned()).or_default();
        let new: Vec<String> =
            names.into_iter().filter(|name| subscription.names.insert((*name).to_owned())).map(str::to_owned).collect();
        (!new.is_empty()).then(|| DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: new,
            ..Default::default()
        })
    }

    /// Wants these no more. Their versions are forgotten; the caller drops the resources. `Some`: to be sent now if a stream is up.
    pub fn unsubscribe<'a>(
        &mut self,
        type_url: &str,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Option<DeltaDiscoveryRequest> {
        let subscription = self.types.get_mut(type_url)?;
        let mut gone = Vec::new();
        for name in names {
            if subscription.names.remove(name) {
                subscription.versions.remove(name);
                gone.push(name.to_owned());
            }
        }
        (!gone.is_empty()).then(|| DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_unsubscribe: gone,
            ..Default::default()
        })
    }

    /// A stream is up: what to send on it first, one request a type, with what is known from earlier streams.
    pub fn connected(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut node = Some(self.node.clone());
        self.types
            .iter_mut()
            .map(|(type_url, subscription)| {
                subscription.complete = false;
                let mut names: Vec<String> = subscription.names.iter().cloned().collect();
                if subscription.wildcard {
                    names.insert(0, "*".to_owned());
                }
                DeltaDiscoveryRequest {
                    // The protocol needs it in the first request of the stream only.
                    node: node.take(),
                    type_url: type_url.clone(),
                    resource_names_subscribe: names,
                    initial_resource_versions: subscription.versions.clone(),
                    ..Default::default()
                }
            })
            .collect()
    }

    /// A response came.
    ///
    /// # Errors
    /// It breaks the protocol: close the stream.
    pub fn receive(&self, response: DeltaDiscoveryResponse) -> Result<Received, SessionError> {
        if !self.types.contains_key(&response.type_url) {
            return Err(SessionError::UnknownType(response.type_url));
        }
        if response.nonce.is_empty() {
            return Err(SessionError::NoNonce { type_url: response.type_url });
        }
        let changed = response
            .resources
            .into_iter()
            .map(|resource| ReceivedResource {
                name: resource.name,
                version: resource.version,
                value: resource.resource.map(|any| any.value).unwrap_or_default(),
            })
            .collect();
        Ok(Received {
            complete: !response.system_version_info.ends_with('+'),
            type_url: response.type_url,
            changed,
            removed: response.removed_resources,
            nonce: response.nonce,
            system_version: response.system_version_info,
        })
    }

    /// The response was applied, except for `rejected` (name and why): those stay as they were, and the answer says so.
    /// Returns the request to send.
    pub fn finish(&mut self, received: &Received, rejected: &[(String, String)]) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest {
            type_url: received.type_url.clone(),
            response_nonce: received.nonce.clone(),
            ..Default::default()
        };
        if let Some(subscription) = self.types.get_mut(&received.type_url) {
            let refused: BTreeSet<&str> = rejected.iter().map(|(name, _)| name.as_str()).collect();
            for resource in &received.changed {
                if !refused.contains(resource.name.as_str()) {
                    subscription.versions.insert(resource.name.clone(), resource.version.clone());
                }
            }
            for name in &received.removed {
                subscription.versions.remove(name);
            }
            subscription.complete |= received.complete;
            if rejected.is_empty() {
                subscription.system_version.clone_from(&received.system_version);
            }
        }
        if !rejected.is_empty() {
            let mut message = String::new();
            for (name, why) in rejected {
                if message.len() > DETAIL_LIMIT {
                    message.push('…');
                    break;
                }
                if !message.is_empty() {
                    message.push_str("; ");
                }
                message.push_str(name);
                message.push_str(": ");
                message.push_str(why);
            }
            request.error_detail = Some(Status { code: INVALID_ARGUMENT, message });
        }
        request
    }

    /// Whether, on this stream, everything subscribed to has been told at least once.
    pub fn is_complete(&self) -> bool {
        self.types.values().all(|subscription| subscription.complete)
    }

    /// For each type the version that is run: for a status page.
    pub fn versions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.types.iter().map(|(type_url, subscription)| (type_url.as_str(), subscription.system_version.as_str()))
    }
}

//! The control plane's side: one [`Server`] for each stream, over one shared [`Catalog`].

use super::standing::{Progress, Standing, WARMED_BY};
use super::{NAMES_LIMIT, SessionError};
use crate::catalog::{Catalog, Change};
use crate::discovery::{ControlPlane, DeltaDiscoveryRequest, SharedDeltaResponse};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// The server half of one stream.
#[derive(Debug)]
pub struct Server {
    identifier: String,
    nonce: u64,
    types: BTreeMap<&'static str, Subscription>,
    /// Clusters that were told since endpoints were.
    warming: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Subscription {
    wildcard: bool,
    names: BTreeSet<String>,
    /// Names subscribed to of late, whose state is to be told although it did not change.
    pending: BTreeSet<String>,
    /// What the client had from an earlier stream, while the first pass over the catalog lasts.
    known: BTreeMap<String, String>,
    /// Names that it had and that are no more.
    gone: Vec<String>,
    /// Where the catalog stood when this subscription began: removals before it are news only to who had the resource.
    began: u64,
    /// A response is owed as long as the client waits to learn that it is complete.
    standing: Standing,
}

impl Server {
    /// A stream that has just begun. `identifier` names the control plane to the client.
    pub fn new(identifier: impl Into<String>) -> Self {
        Server { identifier: identifier.into(), nonce: 0, types: BTreeMap::new(), warming: BTreeSet::new() }
    }

    /// A request came: a subscription, an answer, or both. Call [`next`](Self::next) afterwards.
    ///
    /// # Errors
    /// It breaks the protocol: close the stream.
    pub fn receive(&mut self, catalog: &Catalog, request: DeltaDiscoveryRequest) -> Result<(), SessionError> {
        let Some(type_url) = catalog.known_type(&request.type_url) else {
            return Err(SessionError::UnknownType(request.type_url));
        };
        let first = !self.types.contains_key(type_url);
        let subscription = self.types.entry(type_url).or_default();
        if request.resource_names_subscribe.len() + subscription.names.len() > NAMES_LIMIT {
            return Err(SessionError::TooManyNames { limit: NAMES_LIMIT });
        }
        subscription.unsubscribe(&request.resource_names_unsubscribe);
        if first {
            subscription.begin(catalog, type_url, &request);
        } else {
            subscription.subscribe(catalog, request.resource_names_subscribe);
        }
        subscription.standing.answered(&request.response_nonce, request.error_detail.map(|status| status.message));
        Ok(())
    }

    /// The next response to send, if there is one: of the first type in `order` that has news and no response under way. At most about
    /// `limit` bytes of resources go into it (one resource always does). `visible` says whether this client may see a resource.
    /// Call again until there is none.
    pub fn next(
        &mut self,
        catalog: &Catalog,
        order: &[&'static str],
        limit: usize,
        visible: &dyn Fn(&str, &str) -> bool,
    ) -> Option<SharedDeltaResponse> {
        for type_url in order {
            let Some(subscription) = self.types.get_mut(type_url) else { continue };
            if subscription.standing.is_in_flight() {
                continue;
            }
            if *type_url == WARMED_BY.1 {
                subscription.tell_again(std::mem::take(&mut self.warming));
            }
            let batch = subscription.collect(catalog, type_url, limit, visible);
            let empty = batch.resources.is_empty() && batch.removed.is_empty();
            if empty && (batch.more || !subscription.standing.owed) {
                subscription.standing.passed();
                continue;
            }
            subscription.standing.owed &= batch.more;
            self.warming.extend(batch.warming);
            self.nonce += 1;
            let nonce = self.nonce.to_string();
            subscription.standing.sent(nonce.clone());
            return Some(SharedDeltaResponse {
                system_version_info: format!("{}{}", subscription.standing.told, if batch.more { "+" } else { "" }),
                resources: batch.resources,
                type_url: (*type_url).to_owned(),
                nonce,
                removed_resources: batch.removed,
                control_plane: Some(ControlPlane { identifier: self.identifier.clone() }),
            });
        }
        None
    }

    /// How far the client is, for each type that it subscribed to.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        self.types.iter().map(|(type_url, subscription)| subscription.standing.progress(type_url))
    }

    /// Position up to which the client was told of a type; none if it did not subscribe. Removals before the least of all streams'
    /// may be forgotten.
    pub fn told(&self, type_url: &str) -> Option<u64> {
        self.types.get(type_url).map(|subscription| subscription.standing.told)
    }
}

/// What goes into one response.
struct Batch {
    resources: Vec<Bytes>,
    removed: Vec<String>,
    more: bool,
    /// The resources' names, if they are clusters.
    warming: Vec<String>,
}

impl Batch {
    fn bring(&mut self, type_url: &str, name: &str, encoded: Bytes) {
        self.resources.push(encoded);
        if type_url == WARMED_BY.0 {
            self.warming.push(name.to_owned());
        }
    }
}

impl Subscription {
    fn begin(&mut self, catalog: &Catalog, type_url: &str, request: &DeltaDiscoveryRequest) {
        self.standing.owed = true;
        self.began = catalog.sequence();
        let alive = |name: &str| catalog.get(type_url, name).is_some_and(|change| change.encoded.is_some());
        for (name, version) in &request.initial_resource_versions {
            if alive(name) {
                self.known.insert(name.clone(), version.clone());
            } else {
                self.gone.push(name.clone());
            }
        }
        // The legacy way to say "all" is to name nothing in the first request.
        self.wildcard = request.resource_names_subscribe.is_empty()
            || request.resource_names_subscribe.iter().any(|name| name == "*");
        for name in &request.resource_names_subscribe {
            if name != "*" {
                self.names.insert(name.clone());
                self.pending.insert(name.clone());
            }
        }
        if !self.wildcard {
            // Named resources are told by `pending`; what changes from here on, by position.
            self.standing.told = self.began;
        }
    }

    fn subscribe(&mut self, catalog: &Catalog, names: Vec<String>) {
        for name in names {
            if name == "*" {
                if !self.wildcard {
                    self.wildcard = true;
                    self.standing.told = 0;
                    self.began = catalog.sequence();
                    self.standing.owed = true;
                }
            } else {
                // Asked for again means: tell me again (the protocol's own way to re-request a resource).
                self.pending.insert(name.clone());
                self.names.insert(name);
            }
        }
    }

    fn unsubscribe(&mut self, names: &[String]) {
        for name in names {
            if name == "*" {
                self.wildcard = false;
            } else {
                self.names.remove(name);
                self.pending.remove(name);
            }
        }
    }

    /// What the client has of these is told although it did not change.
    fn tell_again(&mut self, names: BTreeSet<String>) {
        for name in names {
            if self.wildcard || self.names.contains(&name) {
                self.known.remove(&name);
                self.pending.insert(name);
            }
        }
    }

    fn collect(
        &mut self,
        catalog: &Catalog,
        type_url: &str,
        limit: usize,
        visible: &dyn Fn(&str, &str) -> bool,
    ) -> Batch {
        let mut removed = std::mem::take(&mut self.gone);
        // One may have come back since; a response must not both bring and remove it.
        removed.retain(|name| catalog.get(type_url, name).is_none_or(|change| change.encoded.is_none()));
        let mut batch = Batch { resources: Vec::new(), removed, more: false, warming: Vec::new() };
        let mut bytes = 0;
        while let Some(name) = self.pending.pop_first() {
            let change = catalog.get(type_url, &name).filter(|_| visible(type_url, &name));
            // What also changed since is told below, and must not come twice in one response.
            let is_news =
                |it: &Change| it.sequence > self.standing.told && (it.encoded.is_some() || it.sequence > self.began);
            if change.as_ref().is_some_and(is_news) {
                continue;
            }
            match change.and_then(|change| change.encoded.map(|encoded| (change.sequence, encoded))) {
                Some((sequence, _)) if self.known.remove(&name).is_some_and(|had| had == sequence.to_string()) => {}
                Some((_, encoded)) => {
                    bytes += encoded.len();
                    batch.bring(type_url, &name, encoded);
                }
                None => batch.removed.push(name),
            }
            if bytes >= limit {
                batch.more = true;
                return batch;
            }
        }
        for change in catalog.since(type_url, self.standing.told) {
            if bytes >= limit {
                batch.more = true;
                return batch;
            }
            self.standing.told = change.sequence;
            bytes += self.add(change, type_url, visible, &mut batch);
        }
        // Everything up to now was told, other types' changes are none of this one's.
        self.standing.told = catalog.sequence();
        self.known.clear();
        batch
    }

    /// Puts a change into the batch if it is news to this client; returns its size.
    fn add(
        &mut self,
        change: Change,
        type_url: &str,
        visible: &dyn Fn(&str, &str) -> bool,
        batch: &mut Batch,
    ) -> usize {
        let wanted = (self.wildcard || self.names.contains(&*change.name)) && visible(type_url, &change.name);
        if !wanted {
            return 0;
        }
        match change.encoded {
            Some(encoded) => {
                if self.known.remove(&*change.name).is_some_and(|had| had == change.sequence.to_string()) {
                    return 0;
                }
                let size = encoded.len();
                batch.bring(type_url, &change.name, encoded);
                size
            }
            None if change.sequence <= self.began => 0,
            None => {
                let size = change.name.len();
                batch.removed.push(change.name.to_string());
                size
            }
        }
    }
}

//! The state-of-the-world protocol: each response of a type holds every resource that the client wants of it. gRPC speaks it, and older Envoys.

use super::standing::{Progress, Standing, WARMED_BY};
use super::{NAMES_LIMIT, SessionError};
use crate::catalog::Catalog;
use crate::discovery::{Any, ControlPlane, DiscoveryRequest, DiscoveryResponse, Resource};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// The server half of one stream.
#[derive(Debug)]
pub struct WholeServer {
    identifier: String,
    nonce: u64,
    types: BTreeMap<&'static str, Subscription>,
}

#[derive(Debug, Default)]
struct Subscription {
    /// Names that are wanted; none: all.
    names: BTreeSet<String>,
    /// A response is owed when the names changed, or it is the first.
    standing: Standing,
}

impl WholeServer {
    /// A stream that has just begun.
    pub fn new(identifier: impl Into<String>) -> Self {
        Self { identifier: identifier.into(), nonce: 0, types: BTreeMap::new() }
    }

    /// A request came: a subscription, an answer, or both. Call [`next`](Self::next) afterwards.
    ///
    /// # Errors
    /// It breaks the protocol: close the stream.
    pub fn receive(&mut self, catalog: &Catalog, request: DiscoveryRequest) -> Result<(), SessionError> {
        let Some(type_url) = catalog.known_type(&request.type_url) else {
            return Err(SessionError::UnknownType(request.type_url));
        };
        if request.resource_names.len() > NAMES_LIMIT {
            return Err(SessionError::TooManyNames { limit: NAMES_LIMIT });
        }
        let first = !self.types.contains_key(type_url);
        let subscription = self.types.entry(type_url).or_default();
        let names: BTreeSet<String> = request.resource_names.into_iter().filter(|name| name != "*").collect();
        let awaited = subscription.standing.is_in_flight();
        let refusal = request.error_detail.map(|status| status.message);
        if awaited && !subscription.standing.answered(&request.response_nonce, refusal) {
            // Not about what is under way: it says nothing, not even about names (the next one will).
            return Ok(());
        }
        if first || names != subscription.names {
            subscription.names = names;
            subscription.standing.owed = true;
        }
        Ok(())
    }

    /// The next response to send, if there is one: of the first type in `order` that has news and no response under way.
    pub fn next(
        &mut self,
        catalog: &Catalog,
        order: &[&'static str],
        visible: &dyn Fn(&str, &str) -> bool,
    ) -> Option<DiscoveryResponse> {
        for type_url in order {
            let Some(subscription) = self.types.get_mut(type_url) else { continue };
            if subscription.standing.is_in_flight() {
                continue;
            }
            let wanted = |name: &str| {
                (subscription.names.is_empty() || subscription.names.contains(name)) && visible(type_url, name)
            };
            let news = catalog.since(type_url, subscription.standing.told).any(|change| wanted(&change.name));
            subscription.standing.told = catalog.sequence();
            if !news && !subscription.standing.owed {
                subscription.standing.passed();
                continue;
            }
            let resources = catalog.since(type_url, 0).filter(|change| wanted(&change.name));
            let resources = resources.filter_map(|change| Resource::decode(change.encoded?).ok()?.resource);
            let resources: Vec<Any> = resources.collect();
            self.nonce += 1;
            let nonce = self.nonce.to_string();
            subscription.standing.owed = false;
            subscription.standing.sent(nonce.clone());
            let version_info = subscription.standing.told.to_string();
            if *type_url == WARMED_BY.0
                && let Some(warmed) = self.types.get_mut(WARMED_BY.1)
            {
                warmed.standing.owed = true;
            }
            return Some(DiscoveryResponse {
                version_info,
                resources,
                type_url: (*type_url).to_owned(),
                nonce,
                control_plane: Some(ControlPlane { identifier: self.identifier.clone() }),
            });
        }
        None
    }

    /// How far the client is, for each type that it subscribed to.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        self.types.iter().map(|(type_url, subscription)| subscription.standing.progress(type_url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Status;
    use bytes::Bytes;

    const T: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

    const E: &str = WARMED_BY.1;

    fn ask(nonce: &str, names: &[&str], error: Option<&str>) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: T.into(),
            response_nonce: nonce.into(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            error_detail: error.map(|message| Status { code: 3, message: message.into() }),
            ..DiscoveryRequest::default()
        }
    }

    fn next(server: &mut WholeServer, catalog: &Catalog) -> Option<(String, usize)> {
        server.next(catalog, &[T], &|_, _| true).map(|response| (response.nonce, response.resources.len()))
    }

    #[test]
    fn all_of_it_each_time_and_only_when_there_is_news() {
        let mut catalog = Catalog::default();
        catalog.set(T, "a", Some(Bytes::from_static(b"1")));
        catalog.set(T, "b", Some(Bytes::from_static(b"1")));
        let mut server = WholeServer::new("test");
        server.receive(&catalog, ask("", &[], None)).unwrap();
        assert_eq!(next(&mut server, &catalog), Some(("1".into(), 2)));
        assert_eq!(next(&mut server, &catalog), None, "one at a time");
        catalog.set(T, "b", None);
        server.receive(&catalog, ask("1", &[], None)).unwrap();
        assert_eq!(next(&mut server, &catalog), Some(("2".into(), 1)));
        server.receive(&catalog, ask("2", &[], Some("bad"))).unwrap();
        assert_eq!(next(&mut server, &catalog), None, "the same would be refused again");
        assert_eq!(server.progress().next().unwrap().refusal.unwrap().message, "bad");
    }

    #[test]
    fn endpoints_follow_their_clusters() {
        let mut catalog = Catalog::default();
        catalog.set(T, "a", Some(Bytes::from_static(b"1")));
        catalog.set(E, "a", Some(Bytes::from_static(b"1")));
        let mut server = WholeServer::new("test");
        let next = |server: &mut WholeServer, catalog: &Catalog| {
            server.next(catalog, &[T, E], &|_, _| true).map(|response| (response.type_url, response.nonce))
        };
        server.receive(&catalog, ask("", &[], None)).unwrap();
        assert_eq!(next(&mut server, &catalog), Some((T.into(), "1".into())));
        server.receive(&catalog, ask("1", &[], None)).unwrap();
        server.receive(&catalog, DiscoveryRequest { type_url: E.into(), ..ask("", &["a"], None) }).unwrap();
        assert_eq!(next(&mut server, &catalog), Some((E.into(), "2".into())));
        server.receive(&catalog, DiscoveryRequest { type_url: E.into(), ..ask("2", &["a"], None) }).unwrap();
        catalog.set(T, "a", Some(Bytes::from_static(b"2")));
        assert_eq!(next(&mut server, &catalog), Some((T.into(), "3".into())));
        assert_eq!(next(&mut server, &catalog), Some((E.into(), "4".into())), "the client waits for them");
        assert_eq!(next(&mut server, &catalog), None);
    }

    #[test]
    fn names_that_change_are_answered() {
        let mut catalog = Catalog::default();
        catalog.set(T, "a", Some(Bytes::from_static(b"1")));
        let mut server = WholeServer::new("test");
        server.receive(&catalog, ask("", &["b"], None)).unwrap();
        assert_eq!(next(&mut server, &catalog), Some(("1".into(), 0)), "to say that there is none is an answer");
        server.receive(&catalog, ask("1", &["a", "b"], None)).unwrap();
        assert_eq!(next(&mut server, &catalog), Some(("2".into(), 1)));
        server.receive(&catalog, ask("1", &["a"], None)).unwrap();
        assert_eq!(next(&mut server, &catalog), None, "an answer to what was superseded");
        server.receive(&catalog, ask("2", &["a", "b"], None)).unwrap();
        catalog.set(T, "c", Some(Bytes::from_static(b"1")));
        assert_eq!(next(&mut server, &catalog), None, "nobody asked for it");
    }
}

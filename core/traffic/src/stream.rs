//! Routes of whole connections to a service: which one takes a connection that a pod makes.

use crate::directory::PortEntry;
use model::mesh::{ParentTarget, Route, RouteKind};
use model::{Key, Labels};
use std::net::IpAddr;
use std::sync::Arc;

/// What is known of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connection<'a> {
    /// The server name that it asks for in TLS, lower case, or empty; none: it is not TLS, or nobody looked.
    pub name: Option<&'a str>,
    /// The caller's namespace.
    pub namespace: &'a str,
    /// The caller's labels, if they are known and a route asks for them.
    pub labels: Option<&'a Labels>,
    /// The address that it was meant for; none: nobody knows.
    pub to: Option<IpAddr>,
}

impl PortEntry {
    /// Whether a route asks which server's name a connection asks for.
    pub fn asks_name(&self) -> bool {
        self.streams.iter().any(|route| route.kind == RouteKind::Tls && route.ordered)
    }

    /// Whether a route of connections asks for the caller's labels.
    pub fn asks_labels(&self) -> bool {
        let asks = |route: &Arc<Route>| more(route).any(|more| !more.source_labels.is_empty());
        self.streams.iter().any(asks)
    }

    /// The route that takes a connection to this port of `service`: the first that matches. Of Gateway API only TCPRoutes do.
    pub fn stream(&self, service: &Key, connection: Connection<'_>) -> Option<&Arc<Route>> {
        // What is for callers of one namespace goes before what is for all.
        let takes = |of_some: bool| {
            self.streams.iter().find(|route| {
                let kind = match route.kind {
                    RouteKind::Tcp => true,
                    RouteKind::Tls => route.ordered && connection.name.is_some(),
                    _ => false,
                };
                kind && self.hangs_here(route, service, connection, of_some) && callers_match(route, connection)
            })
        };
        takes(true).or_else(|| takes(false))
    }

    fn hangs_here(&self, route: &Route, service: &Key, connection: Connection<'_>, of_some: bool) -> bool {
        let name = connection.name.unwrap_or_default();
        route.parents.iter().any(|parent| {
            let ParentTarget::Service { service: of, port, consumer } = &parent.target else { return false };
            of == service
                && port.is_none_or(|port| port == self.port.port)
                && consumer.as_deref() == of_some.then_some(connection.namespace)
                && (parent.hostnames.is_empty() || parent.hostnames.iter().any(|host| host.matches(name)))
        })
    }
}

fn more(route: &Route) -> impl Iterator<Item = &model::mesh::MatchMore> {
    route.rules.iter().flat_map(|rule| &rule.matches).filter_map(|matched| matched.more.as_deref())
}

fn callers_match(route: &Route, connection: Connection<'_>) -> bool {
    more(route).all(|more| {
        let has = |(name, value)| connection.labels.and_then(|labels| labels.get(name)) == Some(value);
        more.source_namespace.as_deref().is_none_or(|namespace| namespace == connection.namespace)
            && more.source_labels.iter().all(has)
            && (more.destinations.is_empty()
                || connection.to.is_some_and(|to| more.destinations.iter().any(|subnet| subnet.contains(to))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Directory;
    use model::Timestamp;
    use model::mesh::{Hostname, Match, MatchMore, Parent, PathMatch, Resource, Rule, Service, ServicePort, Subnet};

    fn route(name: &str, kind: RouteKind, hosts: &[&str], consumer: Option<&str>, labels: &[(&str, &str)]) -> Resource {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        // Of the last route a block of addresses is asked for.
        let destinations: Vec<Subnet> = Subnet::parse("10.1.0.0/16").into_iter().filter(|_| name == "4").collect();
        let more = MatchMore { source_labels: labels, destinations, ..MatchMore::default() };
        let more = (more != MatchMore::default()).then_some(more);
        let matches =
            more.map(|more| Match { path: PathMatch::Text("".into()), more: Some(Box::new(more)), ..Match::default() });
        let target =
            ParentTarget::Service { service: Key::new("n", "web"), port: None, consumer: consumer.map(Into::into) };
        Resource::Route(Arc::new(Route {
            name: name.into(),
            key: Key::new("n", "vs"),
            kind,
            created: Timestamp(1),
            parents: vec![Parent { target, hostnames: hosts.iter().filter_map(|host| Hostname::new(host)).collect() }],
            rules: vec![Rule { matches: matches.into_iter().collect(), ..Rule::default() }],
            ordered: true,
        }))
    }

    #[test]
    fn the_first_that_matches_takes_a_connection() {
        let key = Key::new("n", "web");
        let mut directory = Directory::new();
        let ports = vec![ServicePort { port: 443, ..ServicePort::default() }];
        directory.set(Resource::Service(Arc::new(Service { key: key.clone(), ports, ..Service::default() })));
        for it in [
            route("0", RouteKind::Tls, &["a.example"], None, &[("app", "x")]),
            route("1", RouteKind::Tls, &["a.example", "*.b.example"], None, &[]),
            route("2", RouteKind::Tcp, &[], None, &[("app", "y")]),
            route("3", RouteKind::Tls, &["a.example"], Some("other"), &[]),
            route("4", RouteKind::Tcp, &[], None, &[]),
        ] {
            directory.set(it);
        }
        let port = &directory.service(&key).unwrap().ports[0];
        assert!(port.asks_name() && port.asks_labels());
        let x: Labels = [("app".into(), "x".into())].into();
        let y: Labels = [("app".into(), "y".into())].into();
        for (name, namespace, labels, to, expect) in [
            (Some("a.example"), "n", Some(&x), "10.1.0.1", "0"),
            (Some("a.example"), "n", None, "", "1"),
            (Some("c.b.example"), "n", Some(&x), "", "1"),
            (Some("b.example"), "n", Some(&x), "", "-"),
            (Some("b.example"), "n", Some(&y), "10.1.0.1", "2"),
            (None, "n", Some(&y), "", "2"),
            (None, "n", Some(&x), "", "-"),
            (None, "n", Some(&x), "10.1.0.1", "4"),
            (None, "n", Some(&x), "10.2.0.1", "-"),
            (Some("b.example"), "n", Some(&x), "10.1.0.1", "4"),
            (Some("a.example"), "other", Some(&x), "", "3"),
            (Some("c.b.example"), "other", Some(&x), "", "1"),
        ] {
            let found = port.stream(&key, Connection { name, namespace, labels, to: to.parse().ok() });
            assert_eq!(found.map_or("-", |route| &route.name), expect, "{name:?} {namespace} {labels:?} {to}");
        }
    }
}

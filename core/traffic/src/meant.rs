//! Which service a connection that a pod makes is for: by its address and port, and where these leave it open by the name that it asks for.

use crate::directory::{Directory, ServiceEntry};
use model::mesh::{AppProtocol, Hostname, Transport};
use std::net::SocketAddr;
use std::sync::Arc;

/// Whose a connection to an address is.
#[derive(Clone, Debug)]
pub enum Meant {
    /// No service's.
    Nobody,
    /// This one's.
    One(Arc<ServiceEntry>),
    /// The name that it asks for says whose.
    ByName(Choice),
}

/// Services among which a name decides.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What is for some namespaces first, then older ones.
    services: Vec<Arc<ServiceEntry>>,
    /// The address is theirs: what asks for none of their names is the first's all the same.
    own: bool,
    port: u16,
}

/// What a connection asks for.
#[derive(Clone, Copy, Debug)]
pub enum Asks<'a> {
    /// A request's host, lower case, without port.
    Host(&'a str),
    /// The server's name of TLS, lower case; may be empty.
    Server(&'a str),
    /// Nothing that could be read.
    Nothing,
}

impl Directory {
    /// Whose a connection of a caller of a namespace is: by address, else by block of addresses (the narrowest), else by name.
    pub fn meant(&self, to: SocketAddr, namespace: &str) -> Meant {
        let port = to.port();
        let seen = |entry: &&Arc<ServiceEntry>| entry.service.is_seen_from(namespace);
        let has = |entry: &&Arc<ServiceEntry>| entry.port(port).is_some_and(|it| it.port.transport == Transport::Tcp);
        let serves = |entry: &&Arc<ServiceEntry>| has(entry) && seen(entry);
        // An address that others alone have takes nothing from the caller's own blocks and names.
        let mut at_address = self.services_at(to.ip()).filter(seen).peekable();
        if at_address.peek().is_some() {
            return Choice::of(at_address.filter(has), true, port);
        }
        let block = |entry: &Arc<ServiceEntry>| {
            let blocks = entry.service.blocks.iter().filter(|block| block.contains(to.ip()));
            blocks.map(|block| block.length()).max()
        };
        let around = self.with_blocks.iter().filter_map(|key| self.service(key)).filter(serves);
        let around: Vec<(u32, &Arc<ServiceEntry>)> = around.filter_map(|entry| Some((block(entry)?, entry))).collect();
        if let Some(narrowest) = around.iter().map(|(length, _)| *length).max() {
            let those = around.into_iter().filter(|(length, _)| *length == narrowest).map(|(_, entry)| entry);
            return Choice::of(those, true, port);
        }
        let named = self.by_name.get(&port).into_iter().flatten();
        Choice::of(named.filter_map(|key| self.service(key)).filter(serves), false, port)
    }
}

impl Choice {
    fn of<'a>(services: impl Iterator<Item = &'a Arc<ServiceEntry>>, own: bool, port: u16) -> Meant {
        let mut services: Vec<Arc<ServiceEntry>> = services.cloned().collect();
        services.sort_by(|a, b| {
            let rank =
                |it: &ServiceEntry| (it.service.export_to.is_empty(), it.service.created, it.service.key.clone());
            rank(a).cmp(&rank(b))
        });
        match services.len() {
            0 => Meant::Nobody,
            1 if own => Meant::One(services.swap_remove(0)),
            _ => Meant::ByName(Choice { services, own, port }),
        }
    }

    fn speaks(&self, entry: &ServiceEntry) -> AppProtocol {
        entry.port(self.port).map_or(AppProtocol::Tcp, |port| port.port.app_protocol)
    }

    /// Whether nothing that is sent has to be looked at: all of them carry opaque bytes.
    pub fn is_opaque(&self) -> bool {
        self.services.iter().all(|entry| self.speaks(entry) == AppProtocol::Tcp)
    }

    /// The service that has a name: its own, else the longest pattern. What asks for no name that is known is for a service of opaque
    /// bytes, if there is one, and else for the first one that has the address. None: it is no service's.
    pub fn asking(&self, asks: Asks<'_>) -> Option<&Arc<ServiceEntry>> {
        let fits = |entry: &ServiceEntry| match (asks, self.speaks(entry)) {
            (_, AppProtocol::Unspecified) => true,
            (Asks::Host(_), protocol) => protocol.is_http(),
            (Asks::Server(_), protocol) => protocol == AppProtocol::Tls,
            (Asks::Nothing, _) => false,
        };
        let named = match asks {
            Asks::Host(name) | Asks::Server(name) => {
                let rank = |entry: &Arc<ServiceEntry>| {
                    let hosts = entry.service.hostnames.iter().filter_map(|host| Hostname::new(host));
                    hosts.filter(|host| host.matches(name)).map(|host| host.specificity()).max()
                };
                let ranked = self.services.iter().filter(|entry| fits(entry)).map(|entry| (rank(entry), entry));
                // Of equals the first: `max_by_key` would take the last.
                let ranked = ranked.filter(|(rank, _)| rank.is_some()).rev();
                ranked.max_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
            }
            Asks::Nothing => None,
        };
        let opaque = || self.services.iter().find(|entry| self.speaks(entry) == AppProtocol::Tcp);
        named.or_else(opaque).or_else(|| self.services.first().filter(|_| self.own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::mesh::{Resource, Service, ServicePort, Subnet};
    use model::{Key, Timestamp};

    struct Told {
        name: &'static str,
        created: i64,
        hosts: &'static [&'static str],
        vips: &'static [&'static str],
        blocks: &'static [&'static str],
        ports: &'static [(u16, AppProtocol)],
        seen: &'static [&'static str],
    }

    const PLAIN: Told = Told { name: "", created: 1, hosts: &[], vips: &[], blocks: &[], ports: &[], seen: &[] };

    fn directory(all: &[Told]) -> Directory {
        let mut directory = Directory::new();
        for it in all {
            let port = |(port, app_protocol): &(u16, AppProtocol)| ServicePort {
                port: *port,
                app_protocol: *app_protocol,
                through: true,
                ..ServicePort::default()
            };
            directory.set(Resource::Service(Arc::new(Service {
                key: Key::new("n", it.name),
                created: Timestamp(it.created),
                hostnames: it.hosts.iter().map(|host| (*host).into()).collect(),
                vips: it.vips.iter().map(|vip| vip.parse().unwrap()).collect(),
                blocks: it.blocks.iter().map(|block| Subnet::parse(block).unwrap()).collect(),
                ports: it.ports.iter().map(port).collect(),
                export_to: it.seen.iter().map(|namespace| (*namespace).into()).collect(),
                ..Service::default()
            })));
        }
        directory
    }

    fn found(directory: &Directory, to: &str, asks: Asks<'_>) -> String {
        let entry = match directory.meant(to.parse().unwrap(), "n") {
            Meant::Nobody => return "-".into(),
            Meant::One(entry) => return format!("{}!", entry.service.key.name),
            Meant::ByName(choice) => choice.asking(asks).cloned(),
        };
        entry.map_or("?".into(), |entry| entry.service.key.name.to_string())
    }

    #[test]
    fn by_address_and_block_and_name() {
        use AppProtocol::{Http, Tcp, Tls};
        use Asks::{Host, Nothing, Server};
        let directory = directory(&[
            Told { name: "web", vips: &["10.0.0.1"], ports: &[(80, Http)], ..PLAIN },
            Told { name: "db", vips: &["10.0.0.1"], ports: &[(5432, Tcp)], ..PLAIN },
            Told { name: "old", hosts: &["a.x"], vips: &["10.0.0.2"], ports: &[(443, Tls)], ..PLAIN },
            Told { name: "new", created: 2, hosts: &["b.x"], vips: &["10.0.0.2"], ports: &[(443, Tls)], ..PLAIN },
            Told { name: "wide", blocks: &["10.0.0.0/8"], ports: &[(443, Tls), (9, Tcp)], ..PLAIN },
            Told { name: "narrow", blocks: &["10.1.0.0/16"], ports: &[(443, Tls)], ..PLAIN },
            Told { name: "some", hosts: &["*.x.example"], ports: &[(80, Http), (443, Tls)], ..PLAIN },
            Told { name: "one", created: 3, hosts: &["a.x.example"], ports: &[(80, Http)], ..PLAIN },
            Told { name: "hidden", hosts: &["c.x.example"], ports: &[(80, Http)], seen: &["other"], ..PLAIN },
            Told { name: "theirs", vips: &["10.0.0.3", "192.0.2.3"], ports: &[(80, Http)], seen: &["other"], ..PLAIN },
            Told { name: "raw", hosts: &["raw.example"], ports: &[(6000, Tcp)], ..PLAIN },
        ]);
        for (to, asks, expect) in [
            // One address, two services: the port says which; a port that none has is nobody's, also where a block would take it.
            ("10.0.0.1:80", Nothing, "web!"),
            ("10.0.0.1:5432", Nothing, "db!"),
            ("10.0.0.1:9", Nothing, "-"),
            // One address and port: the name, else the older one.
            ("10.0.0.2:443", Server("b.x"), "new"),
            ("10.0.0.2:443", Server("a.x"), "old"),
            ("10.0.0.2:443", Server("c.x"), "old"),
            ("10.0.0.2:443", Nothing, "old"),
            // The narrowest block that has the port.
            ("10.1.2.3:443", Nothing, "narrow!"),
            ("10.2.2.3:443", Nothing, "wide!"),
            ("10.1.2.3:9", Nothing, "wide!"),
            // An address of a service that is not for this namespace: as if nobody had it.
            ("10.0.0.3:443", Nothing, "wide!"),
            ("10.0.0.3:80", Nothing, "?"),
            ("192.0.2.3:80", Host("a.x.example"), "one"),
            // No address: names alone.
            ("192.0.2.1:80", Host("a.x.example"), "one"),
            ("192.0.2.1:80", Host("b.x.example"), "some"),
            ("192.0.2.1:80", Host("c.x.example"), "some"),
            ("192.0.2.1:80", Host("x.example"), "?"),
            ("192.0.2.1:80", Server("a.x.example"), "?"),
            ("192.0.2.1:443", Server("a.x.example"), "some"),
            ("192.0.2.1:443", Nothing, "?"),
            ("192.0.2.1:6000", Nothing, "raw"),
            ("192.0.2.1:6000", Host("raw.example"), "raw"),
            ("192.0.2.1:7", Nothing, "-"),
        ] {
            assert_eq!(found(&directory, to, asks), expect, "{to} {asks:?}");
        }
    }

    #[test]
    fn what_is_gone_is_nobodys() {
        let all = [
            Told { name: "a", vips: &["10.0.0.1"], ports: &[(80, AppProtocol::Http)], ..PLAIN },
            Told { name: "b", vips: &["10.0.0.1"], ports: &[(80, AppProtocol::Http)], ..PLAIN },
            Told { name: "c", blocks: &["10.0.0.0/8"], ports: &[(81, AppProtocol::Tcp)], ..PLAIN },
            Told { name: "d", ports: &[(82, AppProtocol::Tcp)], ..PLAIN },
        ];
        let mut directory = directory(&all);
        let told = |directory: &Directory| {
            ["10.0.0.1:80", "10.9.9.9:81", "10.9.9.9:82"].map(|to| found(directory, to, Asks::Nothing)).join(" ")
        };
        assert_eq!(told(&directory), "a c! d");
        directory.remove(model::mesh::ResourceKind::Service, "n/a");
        assert_eq!(told(&directory), "b! c! d");
        for name in ["n/b", "n/c", "n/d"] {
            directory.remove(model::mesh::ResourceKind::Service, name);
        }
        assert_eq!(told(&directory), "- - -");
    }
}

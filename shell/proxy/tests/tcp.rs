//! Opaque bytes from pod to pod: captured with real nftables rules, tunnelled under mutual TLS.
mod support;

use diolkos_proxy::mesh::Change;
use model::Key;
use model::mesh::{
    Action, AppProtocol, AuthorizationPolicy, Health, Operation, PolicyRule, Resource, ResourceKind, Scope,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use support::{Node, address, eventually, inside, serve_tcp, socket, whole};

fn exchange(netns: &str, to: std::net::SocketAddr, bytes: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let talk = move || {
        let mut stream = TcpStream::connect(to)?;
        let mut writer = stream.try_clone()?;
        let sending = std::thread::spawn(move || {
            writer.write_all(&bytes)?;
            writer.shutdown(std::net::Shutdown::Write)
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back)?;
        sending.join().unwrap()?;
        Ok(back)
    };
    inside(netns, talk).join().unwrap()
}

#[test]
fn bytes_to_a_service_and_to_a_pod_go_under_mutual_tls() {
    need_root!("bytes_to_a_service_and_to_a_pod_go_under_mutual_tls");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "server"));
    serve_tcp(&server);
    node.service("server", 50, AppProtocol::Tcp, &[(6, Health::Ready)]);
    let large: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
    for to in [socket(50), std::net::SocketAddr::new(address(6), 8080)] {
        assert_eq!(exchange(&client, to, b"hello".to_vec()).unwrap(), b"hello");
        assert!(exchange(&client, to, large.clone()).unwrap() == large, "every byte, in order");
    }
    eventually("both sides counted, with identities and mTLS", || {
        node.edges()
            .iter()
            .filter(|edge| edge["mtls"] == true && edge["connections_closed"].as_u64() >= Some(2))
            .count()
            >= 3
    });
    let edges = node.edges();
    let source = edges.iter().find(|edge| edge["reporter"] == "source" && edge["service"]["name"] == "server").unwrap();
    assert_eq!(source["source"]["principal"], "spiffe://cluster.local/ns/default/sa/client");
    assert_eq!(source["destination"]["principal"], "spiffe://cluster.local/ns/default/sa/server");
    assert_eq!(source["sent_bytes"], 3_000_005);
}

#[test]
fn a_service_without_endpoints_refuses() {
    need_root!("a_service_without_endpoints_refuses");
    let mut node = Node::start(|_| {});
    let client = node.pod(5, "client");
    node.service("server", 50, AppProtocol::Tcp, &[]);
    assert!(exchange(&client, socket(50), b"hello".to_vec()).is_err());
    // The proxy's own ports lead nowhere.
    assert!(
        exchange(&client, std::net::SocketAddr::new(address(5), 15006), b"hello".to_vec())
            .map_or(true, |it| it.is_empty())
    );
}

#[test]
fn a_changed_policy_ends_connections_that_are_open() {
    need_root!("a_changed_policy_ends_connections_that_are_open");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "server"));
    serve_tcp(&server);
    node.service("server", 50, AppProtocol::Tcp, &[(6, Health::Ready)]);
    let (opened, is_open) = std::sync::mpsc::channel();
    let talk = move || {
        let mut stream = TcpStream::connect(socket(50)).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        opened.send(()).unwrap();
        // Nothing more is said: the connection ends from the other side.
        stream.read(&mut back).map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |read| read == 0)
    };
    let talking = inside(&client, talk);
    is_open.recv().unwrap();
    let deny = AuthorizationPolicy {
        key: Key::new("default", "nobody"),
        scope: Scope::Namespace,
        action: Action::Deny,
        dry_run: false,
        provider: "".into(),
        rules: vec![PolicyRule::default()],
    };
    let deny = Resource::AuthorizationPolicy(Arc::new(deny));
    node.proxy().apply([Change::Set(deny)]);
    assert!(talking.join().unwrap(), "the connection was ended");
    assert!(exchange(&client, socket(50), b"hello".to_vec()).map_or(true, |back| back.is_empty()));
}

/// A VirtualService need not say to which port of a service it leads: the one that the connection came by.
#[test]
fn a_gateways_route_may_name_no_port() {
    need_root!("a_gateways_route_may_name_no_port");
    let mut node = Node::start(|_| {});
    let server = node.pod(6, "server");
    serve_tcp(&server);
    node.service("server", 50, AppProtocol::Tcp, &[(6, Health::Ready)]);
    let mut changes: Vec<Change> = support::gateway(80, "/", "server").into_iter().map(whole).collect();
    for change in &mut changes {
        if let Change::Set(Resource::Route(route)) = change {
            let target = model::mesh::BackendTarget::Service { service: Key::new("default", "server"), port: 0 };
            Arc::make_mut(route).rules[0].backends[0].target = target;
        }
    }
    node.proxy().apply(changes);
    let (host, at) = (node.net.node(), std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
    eventually("it passes bytes", || exchange(&host, at, b"hello".to_vec()).is_ok_and(|back| back == b"hello"));
}

/// A gateway decides about connections that it passes whole, by what is known of them.
#[test]
fn a_gateways_policies_hold_for_connections() {
    need_root!("a_gateways_policies_hold_for_connections");
    let mut node = Node::start(|_| {});
    let server = node.pod(6, "server");
    serve_tcp(&server);
    node.service("server", 50, AppProtocol::Tcp, &[(6, Health::Ready)]);
    node.proxy().apply(support::gateway(25090, "/", "server").into_iter().map(whole));
    let (host, at) = (node.net.node(), std::net::SocketAddr::from(([127, 0, 0, 1], 25090)));
    let passes = || exchange(&host, at, b"hello".to_vec()).is_ok_and(|back| back == b"hello");
    eventually("it passes bytes", passes);
    let policy = |action, to: Operation| {
        Change::Set(Resource::AuthorizationPolicy(Arc::new(AuthorizationPolicy {
            key: Key::new("default", "stream"),
            scope: Scope::Namespace,
            action,
            dry_run: false,
            provider: "".into(),
            rules: vec![PolicyRule { to: vec![to], ..PolicyRule::default() }],
        })))
    };
    let port = |port: &str| Operation { ports: vec![port.into()], ..Operation::default() };
    for (action, to, expect) in [
        (Action::Deny, Operation { methods: vec!["PUT".into()], ..port("25090") }, false),
        (Action::Deny, port("1"), true),
        (Action::Allow, port("1"), false),
        // The pod behind it is of the same namespace.
        (Action::Allow, Operation { ports: vec!["25090".into(), "8080".into()], ..Operation::default() }, true),
    ] {
        node.proxy().apply([policy(action, to.clone())]);
        eventually(&format!("{action:?} {to:?}: {expect}"), || passes() == expect);
    }
    node.proxy().apply([Change::Remove(ResourceKind::AuthorizationPolicy, "default/stream".into())]);
}

//! Peers that begin mutual TLS themselves, as Istio's sidecars and the Envoys that mesh control configures do: straight to the process's port.
mod support;

use diolkos_proxy::identity::LocalIssuer;
use diolkos_proxy::mesh::Change;
use model::mesh::*;
use model::{Key, Timestamp};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use support::tls::client;
use support::{Node, address, eventually, serve_http, serve_tcp, town};

type Peer = StreamOwned<ClientConnection, TcpStream>;

const FRIEND: &str = "spiffe://cluster.local/ns/default/sa/friend";
const SIDECARS: [&[&str]; 3] =
    [&["istio"], &["istio-http/1.1", "istio", "http/1.1"], &["istio-peer-exchange", "istio"]];

/// A connection to a pod's process, under TLS.
fn open(netns: &str, last: u8, config: &Arc<ClientConfig>, name: &str) -> Peer {
    let stream = town::connect(netns, SocketAddr::new(address(last), 8080));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream)
}

/// What a request to the web server comes to; none: nothing.
fn ask(mut peer: Peer, path: &str) -> String {
    let mut answer = Vec::new();
    if write!(peer, "GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").is_ok() {
        // What came before it broke counts.
        let _ = peer.read_to_end(&mut answer);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn mtls(mode: MtlsMode) -> Change {
    Change::Set(Resource::PeerAuthentication(Arc::new(PeerAuthentication {
        key: Key::new("default", "mode"),
        scope: Scope::Namespace,
        mode,
        ports: vec![],
        created: Timestamp(1),
    })))
}

#[test]
fn a_peer_is_who_its_certificate_says() {
    need_root!("a_peer_is_who_its_certificate_says");
    let mut node = Node::start(|_| {});
    let (web, echo, there) = (node.pod(6, "web"), node.pod(7, "echo"), node.net.pod(8));
    serve_http(&web, "web");
    serve_tcp(&echo);
    let friend = |protocols: &[&str]| client(&node.issuer, Some((&node.issuer, FRIEND)), protocols);
    let vouched = format!("identity=By=spiffe://cluster.local/ns/default/sa/web;URI={FRIEND}");
    for protocols in SIDECARS {
        let answer = ask(open(&there, 6, &friend(protocols), "10.250.0.6"), "/a");
        assert!(answer.contains("web GET /a") && answer.contains(&vouched), "{protocols:?}: {answer}");
    }
    let answer = ask(open(&there, 6, &friend(&[]), "outbound_.80_._.web.default.svc.cluster.local"), "/a");
    assert!(answer.contains(&vouched), "a server name of Istio's form: {answer}");
    // A process's own TLS is none of ours: its first message comes as it is.
    let mut own = ClientConnection::new(friend(&["h2"]), ServerName::try_from("web.example").unwrap()).unwrap();
    let mut hello = Vec::new();
    own.write_tls(&mut hello).unwrap();
    let mut stream = town::connect(&there, SocketAddr::new(address(7), 8080));
    let mut back = vec![0; hello.len()];
    stream.write_all(&hello).and_then(|()| stream.read_exact(&mut back)).unwrap();
    assert_eq!(back, hello);
    // Opaque bytes.
    let mut peer = open(&there, 7, &friend(&["istio"]), "10.250.0.7");
    let mut back = [0; 4];
    peer.write_all(b"ping").and_then(|()| peer.read_exact(&mut back)).unwrap();
    assert_eq!(&back, b"ping");
    node.proxy().apply([mtls(MtlsMode::Strict)]);
    for protocols in SIDECARS.into_iter().chain([&["h2", "http/1.1"][..], &[]]) {
        let answer = ask(open(&there, 6, &friend(protocols), "10.250.0.6"), "/strict");
        assert!(answer.contains(&vouched), "STRICT, {protocols:?}: {answer}");
    }
    let mut plain = town::connect(&there, SocketAddr::new(address(6), 8080));
    plain.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
    assert!(!matches!(plain.read(&mut [0]), Ok(1)), "plain text is not taken");
    strangers(&node, &there);
}

/// Who proves no identity of the trust domain gets nowhere.
fn strangers(node: &Node, netns: &str) {
    let (other, ours) = (LocalIssuer::generate(3_600).unwrap(), &*node.issuer);
    for (what, identity) in [
        ("nobody", None),
        ("of another root", Some((&other, FRIEND))),
        ("of another trust domain", Some((ours, "spiffe://elsewhere/ns/default/sa/friend"))),
        ("of another form", Some((ours, "spiffe://cluster.local/friend"))),
    ] {
        let answer = ask(open(netns, 6, &client(ours, identity, &["istio"]), "10.250.0.6"), "/");
        assert_eq!(answer, "", "{what}");
    }
}

#[test]
fn policies_know_it() {
    need_root!("policies_know_it");
    let mut node = Node::start(|_| {});
    let (web, echo, there) = (node.pod(6, "web"), node.pod(7, "echo"), node.net.pod(8));
    serve_http(&web, "web");
    serve_tcp(&echo);
    let named = |name: &str| client(&node.issuer, Some((&node.issuer, name)), &["istio"]);
    let (friend, stranger) = (named(FRIEND), named("spiffe://cluster.local/ns/default/sa/stranger"));
    let policy = |principal: &str| {
        let who = Source { principals: vec![principal.into()], ..Source::default() };
        Change::Set(Resource::AuthorizationPolicy(Arc::new(AuthorizationPolicy {
            key: Key::new("default", "friends"),
            scope: Scope::Namespace,
            action: Action::Allow,
            dry_run: false,
            provider: "".into(),
            rules: vec![PolicyRule { from: vec![who], ..PolicyRule::default() }],
        })))
    };
    node.proxy().apply([mtls(MtlsMode::Strict), policy("cluster.local/ns/default/sa/friend")]);
    assert!(ask(open(&there, 6, &friend, "10.250.0.6"), "/a").starts_with("HTTP/1.1 200"));
    assert!(ask(open(&there, 6, &stranger, "10.250.0.6"), "/a").starts_with("HTTP/1.1 403"));
    let mut peer = open(&there, 7, &friend, "10.250.0.7");
    let mut say = || {
        let mut back = [0; 1];
        peer.write_all(b"x").is_ok() && peer.read_exact(&mut back).is_ok()
    };
    assert!(say());
    // What is open is decided about again.
    node.proxy().apply([policy("cluster.local/ns/default/sa/nobody")]);
    eventually("a connection that is not allowed any more ends", || !say());
}

#[test]
fn a_peer_ends_with_its_root() {
    need_root!("a_peer_ends_with_its_root");
    let mut node = Node::start(|_| {});
    let (web, there) = (node.pod(6, "web"), node.net.pod(8));
    serve_http(&web, "web");
    let friend = client(&node.issuer, Some((&node.issuer, FRIEND)), &["istio"]);
    let mut peer = open(&there, 6, &friend, "10.250.0.6");
    let mut answer = || {
        write!(peer, "GET / HTTP/1.1\r\nHost: web\r\n\r\n").ok()?;
        let mut bytes = vec![0; 4096];
        peer.sock.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let length = peer.read(&mut bytes).ok().filter(|length| *length > 0)?;
        Some(String::from_utf8_lossy(&bytes[..length]).to_ascii_lowercase())
    };
    assert!(answer().is_some_and(|it| !it.contains("connection: close")));
    // The root that this connection rests on goes: so does it.
    let other = LocalIssuer::generate(3_600).unwrap();
    node.proxy().shared.identities.set_roots([other.root_pem()].into_iter());
    eventually("it ends with its root", || answer().is_none());
}

//! Who opened a connection, told by the PROXY protocol: to a gateway's listener, and to endpoints. And sessions, which stay where they began.
mod support;

use diolkos_proxy::mesh::Change;
use http1::proxy_protocol::{self, Ends};
use model::mesh::traffic::ProxyProtocol;
use model::mesh::*;
use model::{Key, Timestamp};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use support::{Node, curl, eventually, inside, listen_in_threads, serve_http, serve_tcp, service, socket};

fn gateway(proxy_protocol: bool) -> Vec<Change> {
    let key = Key::new("default", "edge");
    let listener = |name: &str, port, protocol, tls: bool| Listener {
        name: name.into(),
        port,
        protocol,
        hostname: None,
        certificates: tls.then(|| Key::new("default", "shop")).into_iter().collect(),
        tls: if tls { TlsMode::Terminate } else { TlsMode::None },
        on_nodes: true,
        clients: None,
        proxy_protocol,
    };
    let parent = |name: &str| Parent {
        target: ParentTarget::Listener { gateway: key.clone(), listener: name.into() },
        hostnames: vec![],
    };
    let target = BackendTarget::Service { service: Key::new("default", "web"), port: 80 };
    let route = Route {
        name: "HTTPRoute/default/edge".into(),
        key: key.clone(),
        kind: RouteKind::Http,
        created: Timestamp(1),
        parents: vec![parent("plain"), parent("tls")],
        rules: vec![Rule {
            matches: vec![Match::default()],
            backends: vec![Backend { target, weight: 1, filters: vec![] }],
            ..Rule::default()
        }],
        ordered: false,
    };
    let listeners = vec![
        listener("plain", 25080, ListenerProtocol::Http, false),
        listener("tls", 25443, ListenerProtocol::Https, true),
    ];
    let gateway = Gateway { key, listeners, service_account: "edge".into(), ..Gateway::default() };
    vec![Change::Set(Resource::Gateway(Arc::new(gateway))), Change::Set(Resource::Route(Arc::new(route)))]
}

#[test]
fn a_listener_believes_its_load_balancer() {
    need_root!("a_listener_believes_its_load_balancer");
    let mut node = Node::start(|_| {});
    let server = node.pod(6, "web");
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.shop_certificate();
    node.proxy().apply(gateway(true));
    let host = node.net.node();
    let told = ["-k", "--haproxy-protocol"];
    for url in ["http://127.0.0.1:25080/", "https://127.0.0.1:25443/"] {
        let get = || curl(&host, &[&told[..], &[url]].concat());
        eventually("the gateway listens", || get().starts_with("web GET"));
        assert!(get().contains("forwarded=127.0.0.1\n"), "{url}: {}", get());
        let plain = curl(&host, &["-k", url]);
        assert!(!plain.contains("web GET"), "without the header nobody is served: {plain}");
    }
    // Both versions, in pieces, with the request right behind; and a health check that speaks for itself.
    let ends = Ends { source: "203.0.113.7:4000".parse().unwrap(), destination: "192.0.2.1:80".parse().unwrap() };
    let line = proxy_protocol::encode(proxy_protocol::Version::V1, ends);
    let header = proxy_protocol::encode(proxy_protocol::Version::V2, ends);
    let local = [&header[..12], &[0x20, 0, 0, 0]].concat();
    let told = "forwarded=203.0.113.7";
    for (header, expect) in [(line, told), (header, told), (local, "forwarded=127.0.0.1")] {
        let answer = inside(&host, move || {
            let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 25080))).unwrap();
            stream.write_all(&header[..10]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(50));
            stream.write_all(&header[10..]).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = answer.join().unwrap();
        assert!(answer.contains(expect), "{answer}");
    }
    node.proxy().apply(gateway(false));
    eventually("it is not asked for any more", || curl(&host, &["http://127.0.0.1:25080/"]).starts_with("web GET"));
}

#[test]
fn an_endpoint_is_told_who_opened_the_connection() {
    need_root!("an_endpoint_is_told_who_opened_the_connection");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "tcp"));
    serve_tcp(&server);
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let mut changes = service("tcp", 51, AppProtocol::Tcp, &[(6, Health::Ready)]);
        if let Change::Set(Resource::Service(service)) = &mut changes[0] {
            let mut changed = Service::clone(service);
            let policy = TrafficPolicy { proxy_protocol: Some(version), ..TrafficPolicy::default() };
            changed.ports[0].traffic = Some(Arc::new(policy));
            *service = Arc::new(changed);
        }
        node.proxy().apply(changes);
        let talk = inside(&client, || {
            let mut stream = TcpStream::connect(socket(51)).unwrap();
            stream.write_all(b"mine").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).unwrap();
            (stream.local_addr().unwrap(), back)
        });
        let (own, back) = talk.join().unwrap();
        let header = proxy_protocol::decode(&back).unwrap().expect("a whole header comes first");
        assert_eq!(header.ends.unwrap().source, own, "{version:?}");
        assert_eq!(&back[header.length..], b"mine");
    }
}

/// A process that answers requests with who opened their connection.
fn serve_proxied(netns: &str) {
    listen_in_threads(netns, |mut stream| {
        let (mut buffer, mut source) = (Vec::new(), None);
        loop {
            let mut more = [0; 2048];
            match stream.read(&mut more) {
                Ok(read) if read > 0 => buffer.extend_from_slice(&more[..read]),
                _ => return,
            }
            if source.is_none() {
                let Some(header) = proxy_protocol::decode(&buffer).unwrap() else { continue };
                source = header.ends.map(|ends| ends.source);
                buffer.drain(..header.length);
            }
            if !buffer.ends_with(b"\r\n\r\n") {
                continue;
            }
            buffer.clear();
            let body = format!("{}\n", source.unwrap());
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        }
    });
}

#[test]
fn an_endpoint_of_requests_is_told_who_sent_them() {
    need_root!("an_endpoint_of_requests_is_told_who_sent_them");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_proxied(&server);
    let mut changes = service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    if let Change::Set(Resource::Service(service)) = &mut changes[0] {
        let mut changed = Service::clone(service);
        let policy = TrafficPolicy { proxy_protocol: Some(ProxyProtocol::V2), ..TrafficPolicy::default() };
        changed.ports[0].traffic = Some(Arc::new(policy));
        *service = Arc::new(changed);
    }
    node.proxy().apply(changes);
    for _ in 0..3 {
        let said = curl(&client, &["-w", "%{local_ip}:%{local_port}\n", "http://10.96.0.50/a", "http://10.96.0.50/b"]);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 4, "{said}");
        assert!(lines.iter().all(|line| *line == lines[0]), "{said}");
    }
}

#[test]
fn a_session_stays_where_it_began() {
    need_root!("a_session_stays_where_it_began");
    let mut node = Node::start(|_| {});
    let client = node.pod(5, "client");
    let pods: Vec<(u8, Health)> = [6, 7, 8].map(|last| (last, Health::Ready)).into();
    for (last, _) in &pods {
        let netns = node.pod(*last, "web");
        serve_http(&netns, &format!("web{last}"));
    }
    // Two backends of equal weight: a session keeps its backend, too.
    node.service("web", 50, AppProtocol::Http, &pods[..2]);
    node.proxy().apply(service("other", 52, AppProtocol::Http, &[]));
    let mut other = service("other", 52, AppProtocol::Http, &pods[2..]);
    if let Change::Set(Resource::Endpoints(group)) = &mut other[1] {
        let mut changed = EndpointGroup::clone(group);
        changed.endpoints[0].workload = "pod/default/web-8".into();
        *group = Arc::new(changed);
    }
    node.proxy().apply(other);
    let backend = |name: &str| Backend {
        target: BackendTarget::Service { service: Key::new("default", name), port: 80 },
        weight: 1,
        filters: vec![],
    };
    let route = |header: bool| {
        let session = Session { name: "stay".into(), header, absolute_s: 60, idle_s: 0, permanent: true };
        Change::Set(Resource::Route(Arc::new(Route {
            name: "HTTPRoute/default/r".into(),
            key: Key::new("default", "r"),
            kind: RouteKind::Http,
            created: Timestamp(1),
            parents: vec![Parent {
                target: ParentTarget::Service { service: Key::new("default", "web"), port: None, consumer: None },
                hostnames: vec![],
            }],
            rules: vec![Rule {
                matches: vec![Match::default()],
                backends: vec![backend("web"), backend("other")],
                session: Some(session),
                ..Rule::default()
            }],
            ordered: false,
        })))
    };
    for header in [false, true] {
        node.proxy().apply([route(header)]);
        let name = if header { "stay: " } else { "set-cookie: stay=" };
        let mut met = std::collections::BTreeSet::new();
        for _ in 0..24 {
            let first = curl(&client, &["-i", "http://10.96.0.50/"]);
            let line = first.lines().find_map(|line| line.strip_prefix(name)).expect("a token is made");
            let token = line.split(';').next().unwrap().trim();
            assert!(header || line.contains("Max-Age=60"), "{line}");
            let sent = if header { format!("stay: {token}") } else { format!("cookie: stay={token}") };
            let who = |answer: &str| answer.lines().last().unwrap_or_default().split(' ').next().unwrap().to_owned();
            let began = who(&first);
            for _ in 0..4 {
                let again = curl(&client, &["-i", "-H", &sent, "http://10.96.0.50/"]);
                assert_eq!(who(&again), began, "{again}");
                assert!(!again.contains(name), "it has its token: {again}");
            }
            met.insert(began);
        }
        assert!(met.len() >= 2, "clients are spread: {met:?}");
    }
}

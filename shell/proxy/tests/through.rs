//! Connections that go where they were meant to go (ServiceEntry: resolution NONE), services that share an address, and rules for some callers.
mod support;

use diolkos_proxy::mesh::Change;
use model::mesh::*;
use model::{Key, Labels, Timestamp};
use std::net::IpAddr;
use std::sync::Arc;
use support::{Node, address, curl, inside, serve_http, serve_tcp, service, workload};

/// A service without endpoints that lets connections through.
fn through(name: &str, hosts: &[&str], port: u16, protocol: AppProtocol) -> Service {
    Service {
        key: Key::new("default", name),
        hostnames: hosts.iter().map(|host| (*host).into()).collect(),
        ports: vec![ServicePort {
            port,
            name: "main".into(),
            app_protocol: protocol,
            through: true,
            ..ServicePort::default()
        }],
        outside: true,
        ..Service::default()
    }
}

fn set(service: Service) -> Change {
    Change::Set(Resource::Service(Arc::new(service)))
}

/// A route of a service that answers with a status.
fn answers(service: &str, status: u16) -> Change {
    Change::Set(Resource::Route(Arc::new(Route {
        name: format!("VirtualService/default/{service}").into(),
        key: Key::new("default", service),
        kind: RouteKind::Http,
        created: Timestamp(1),
        parents: vec![Parent {
            target: ParentTarget::Service { service: Key::new("default", service), port: None, consumer: None },
            hostnames: vec![],
        }],
        rules: vec![
            Rule {
                matches: vec![Match { path: PathMatch::Text("/no".into()), ..Match::default() }],
                filters: vec![Filter::Respond(Response { status, body: b"".as_slice().into() })],
                ..Rule::default()
            },
            Rule {
                matches: vec![Match { path: PathMatch::Text("".into()), ..Match::default() }],
                backends: vec![Backend {
                    target: BackendTarget::Service { service: Key::new("default", service), port: 0 },
                    weight: 1,
                    filters: vec![],
                }],
                ..Rule::default()
            },
        ],
        ordered: true,
    })))
}

/// A server at 10.250.0.9:8080 that no proxy knows of.
fn stranger(node: &mut Node) -> String {
    let netns = node.net.pod(9);
    serve_http(&netns, "stranger");
    netns
}

#[test]
fn requests_go_where_they_were_meant_to_go_and_rules_hold() {
    need_root!("requests_go_where_they_were_meant_to_go_and_rules_hold");
    let mut node = Node::start(|_| {});
    let client = node.pod(5, "client");
    stranger(&mut node);
    node.proxy().apply([
        set(through("wild", &["*.far.example"], 8080, AppProtocol::Http)),
        set(through("exact", &["a.far.example"], 8080, AppProtocol::Http)),
        answers("wild", 418),
        answers("exact", 451),
    ]);
    let ask = |host: &str, path: &str| {
        let (url, host) = (format!("http://10.250.0.9:8080{path}"), format!("host: {host}"));
        curl(&client, &["-w", "%{http_code}", "-H", &host, &url])
    };
    let said = |host: &str| {
        let answer = ask(host, "/yes");
        assert!(answer.starts_with("stranger GET /yes "), "{host}: {answer}");
        assert!(answer.contains(&format!("host={host}")), "{host}: {answer}");
    };
    // All of them go to the address; which service's rules hold the host says, request by request.
    ["b.far.example", "a.far.example", "a.far.example:8080", "elsewhere.example"].iter().for_each(|host| said(host));
    assert_eq!(ask("b.far.example", "/no"), "418");
    assert_eq!(ask("a.far.example", "/no"), "451");
    assert!(ask("elsewhere.example", "/no").starts_with("stranger GET /no "), "no service's: as it is");
    let both = curl(
        &client,
        &[
            "-w",
            "%{http_code} ",
            "-H",
            "host: b.far.example",
            "http://10.250.0.9:8080/no",
            "--next",
            "-sS",
            "-w",
            "%{http_code}",
            "-H",
            "host: a.far.example",
            "http://10.250.0.9:8080/no",
        ],
    );
    assert_eq!(both, "418 451");
    let edges = node.edges();
    let told = |name: &str| edges.iter().any(|edge| edge.to_string().contains(name));
    assert!(told("wild") && told("exact"), "{edges:?}");
}

/// Who calls a gateway means the gateway: from there requests go to endpoints, if there are any; those of pods go where they were meant to go.
#[test]
fn at_a_gateway_nothing_else_is_meant() {
    need_root!("at_a_gateway_nothing_else_is_meant");
    let mut node = Node::start(|_| {});
    let (client, far, host) = (node.pod(5, "client"), node.pod(6, "far"), node.net.node());
    serve_http(&far, "selected");
    stranger(&mut node);
    node.proxy().apply([set(through("far", &["far.example"], 8080, AppProtocol::Http))]);
    let mut edge = support::gateway(25_106, "/", "far");
    if let Some(Change::Set(Resource::Route(route))) = edge.last_mut() {
        let target = BackendTarget::Service { service: Key::new("default", "far"), port: 8080 };
        Arc::make_mut(route).rules[0].backends[0].target = target;
    }
    node.proxy().apply(edge);
    let ask = |netns: &str, url: &str| curl(netns, &["-w", " %{http_code}", "-H", "host: far.example", url]);
    let (at_gateway, meant) = ("http://127.0.0.1:25106/a", "http://10.250.0.9:8080/a");
    support::eventually("the gateway answers", || ask(&host, at_gateway) == "no healthy upstream 503");
    assert!(ask(&client, meant).starts_with("stranger GET /a "));
    let endpoints = service("far", 50, AppProtocol::Http, &[(6, Health::Ready)]).pop();
    node.proxy().apply(endpoints);
    let answer = ask(&host, at_gateway);
    assert!(answer.starts_with("selected GET /a "), "{answer}");
    assert!(ask(&client, meant).starts_with("stranger GET /a "));
}

#[test]
fn bytes_go_where_they_were_meant_to_go() {
    need_root!("bytes_go_where_they_were_meant_to_go");
    let mut node = Node::start(|_| {});
    let client = node.pod(5, "client");
    let netns = node.net.pod(9);
    serve_tcp(&netns);
    let other = node.pod(7, "other");
    serve_http(&other, "other");
    node.service("other", 51, AppProtocol::Http, &[(7, Health::Ready)]);
    let blocks = vec![Subnet::parse("10.250.0.8/30").unwrap()];
    node.proxy().apply([set(Service { blocks, ..through("block", &["block.example"], 8080, AppProtocol::Tcp) })]);
    let echo = || {
        let talking = inside(&client, || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(std::net::SocketAddr::new(address(9), 8080)).unwrap();
            stream.write_all(b"hello").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut back = String::new();
            stream.read_to_string(&mut back).map(|_| back).unwrap_or_default()
        });
        talking.join().unwrap()
    };
    assert_eq!(echo(), "hello");
    let counted = || node.edges().iter().any(|edge| edge.to_string().contains("block"));
    support::eventually("it is counted as the service's", counted);
    // A rule of connections holds: they go elsewhere, where nobody understands them.
    node.proxy().apply([Change::Set(Resource::Route(Arc::new(Route {
        name: "VirtualService/default/block#0000.0000".into(),
        key: Key::new("default", "block"),
        kind: RouteKind::Tcp,
        created: Timestamp(1),
        parents: vec![Parent {
            target: ParentTarget::Service { service: Key::new("default", "block"), port: None, consumer: None },
            hostnames: vec![],
        }],
        rules: vec![Rule { backends: vec![support::to("other", 1)], ..Rule::default() }],
        ordered: true,
    })))]);
    assert_ne!(echo(), "hello");
}

#[test]
fn two_services_share_an_address() {
    need_root!("two_services_share_an_address");
    let mut node = Node::start(|_| {});
    let (client, one, two) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "other"));
    serve_http(&one, "one");
    serve_http(&two, "two");
    // The same address: on port 80 told apart by host, on 81 by the port alone.
    let vip: IpAddr = "10.96.0.50".parse().unwrap();
    for (name, last, created, ports) in [("web", 6, 1, &[80][..]), ("other", 7, 2, &[80, 81][..])] {
        let mut changes = service(name, 50, AppProtocol::Http, &[(last, Health::Ready)]);
        if let Change::Set(Resource::Service(service)) = &mut changes[0] {
            let service = Arc::make_mut(service);
            (service.vips, service.created) = (vec![vip], Timestamp(created));
            service.hostnames = vec![format!("{name}.far.example").into()];
            let port = service.ports[0].clone();
            service.ports = ports.iter().map(|number| ServicePort { port: *number, ..port.clone() }).collect();
        }
        node.proxy().apply(changes);
    }
    let who = |host: &str, port: u16| {
        let (url, host) = (format!("http://10.96.0.50:{port}/"), format!("host: {host}"));
        curl(&client, &["-H", &host, &url]).split(' ').next().unwrap_or_default().to_owned()
    };
    assert_eq!(who("web.far.example", 80), "one");
    assert_eq!(who("other.far.example", 80), "two");
    assert_eq!(who("10.96.0.50", 80), "one", "what names none of them is the older one's");
    assert_eq!(who("web.far.example", 81), "two", "the only one with this port");
}

#[test]
fn a_policy_is_for_callers_with_its_labels() {
    use model::mesh::traffic::ConnectionPool;
    need_root!("a_policy_is_for_callers_with_its_labels");
    let mut node = Node::start(|_| {});
    let (chosen, other, server) = (node.pod(5, "client"), node.pod(8, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    let labels: Labels = [("version".into(), "v2".into())].into();
    let mut changes = service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    if let Change::Set(Resource::Service(service)) = &mut changes[0] {
        let policy = TrafficPolicy {
            pool: ConnectionPool { upgrade_to_http2: true, ..ConnectionPool::default() },
            ..TrafficPolicy::default()
        };
        Arc::make_mut(service).ports[0].for_callers = vec![CallerTraffic {
            namespace: "default".into(),
            labels: labels.clone(),
            traffic: Some(Arc::new(policy)),
        }];
    }
    node.proxy().apply(changes);
    let labelled = |labels: Labels| {
        let caller = Workload { labels, ..workload(5, "client") };
        node.proxy().apply([Change::Set(Resource::Workload(Arc::new(caller)))]);
    };
    let speaks = |client: &str| {
        let answer = curl(client, &["http://10.96.0.50/"]);
        answer.split("version=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or(&answer).to_owned()
    };
    assert_eq!((speaks(&chosen), speaks(&other)), ("HTTP/1.1".into(), "HTTP/1.1".into()));
    labelled(labels);
    assert_eq!((speaks(&chosen), speaks(&other)), ("HTTP/2.0".into(), "HTTP/1.1".into()));
    labelled(Labels::default());
    assert_eq!(speaks(&chosen), "HTTP/1.1", "labels are looked at as they are now");
}

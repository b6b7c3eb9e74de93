//! What happens around requests: names, gateways, upgrades, pods that go, certificates that are renewed.
mod support;

use diolkos_proxy::mesh::Change;
use diolkos_proxy::pods::Phase;
use model::mesh::*;
use model::{Key, Timestamp};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Node, curl, eventually, inside, listen_in_threads, serve_http, under_load};

/// A gateway with these listeners, and one route from all of them to the service `web`.
fn gateway(listeners: Vec<Listener>) -> Vec<Change> {
    let key = Key::new("default", "edge");
    let parents = listeners.iter().map(|listener| Parent {
        target: ParentTarget::Listener { gateway: key.clone(), listener: listener.name.clone() },
        hostnames: vec![],
    });
    let target = BackendTarget::Service { service: Key::new("default", "web"), port: 80 };
    let route = Route {
        name: "HTTPRoute/default/edge".into(),
        key: key.clone(),
        kind: RouteKind::Http,
        created: Timestamp(1),
        parents: parents.collect(),
        rules: vec![Rule {
            matches: vec![Match::default()],
            backends: vec![Backend { target, weight: 1, filters: vec![] }],
            ..Rule::default()
        }],
        ordered: false,
    };
    let gateway = Gateway { key, listeners, service_account: "edge".into(), ..Gateway::default() };
    vec![Change::Set(Resource::Gateway(Arc::new(gateway))), Change::Set(Resource::Route(Arc::new(route)))]
}

fn listener(name: &str, port: u16, hostname: Option<&str>, certificate: Option<&str>) -> Listener {
    let tls = certificate.is_some();
    Listener {
        name: name.into(),
        port,
        protocol: if tls { ListenerProtocol::Https } else { ListenerProtocol::Http },
        hostname: hostname.and_then(Hostname::new),
        certificates: certificate.map(|name| Key::new("default", name)).into_iter().collect(),
        tls: if tls { TlsMode::Terminate } else { TlsMode::None },
        on_nodes: true,
        clients: None,
        proxy_protocol: false,
    }
}

#[test]
fn a_gateway_on_host_ports() {
    need_root!("a_gateway_on_host_ports");
    let mut node = Node::start(|_| {});
    let server = node.pod(6, "web");
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.shop_certificate();
    let one = listener("plain", 25080, Some("shop.example"), None);
    node.proxy().apply(gateway(vec![one.clone(), listener("tls", 25443, Some("shop.example"), Some("shop"))]));
    let host = node.net.node();
    let connect = "shop.example::127.0.0.1:";
    let plain = ["--http1.1", "--connect-to", connect, "http://shop.example:25080/a"];
    eventually("the gateway listens", || curl(&host, &plain).starts_with("web GET /a host=shop.example:25080"));
    let vouched = "URI=spiffe://cluster.local/ns/default/sa/edge";
    assert!(curl(&host, &plain).contains(vouched), "the gateway calls under its own name");
    for version in ["--http1.1", "--http2"] {
        let secure = curl(&host, &["-k", version, "--connect-to", connect, "https://shop.example:25443/b"]);
        assert!(secure.starts_with("web GET /b") && secure.contains(vouched), "{secure}");
    }
    let other = ["-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: other.example", "http://127.0.0.1:25080/"];
    assert_eq!(curl(&host, &other), "404");
    // The port goes with its listener, and comes again.
    node.proxy().apply(gateway(vec![listener("tls", 25443, Some("shop.example"), Some("shop"))]));
    eventually("the port is closed", || curl(&host, &plain).contains("Failed to connect"));
    node.proxy().apply(gateway(vec![one]));
    eventually("the port is open again", || curl(&host, &plain).starts_with("web GET"));
}

#[test]
fn names_of_services() {
    need_root!("names_of_services");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let dir = format!("/etc/netns/{client}");
    std::fs::create_dir_all(&dir).unwrap();
    let text =
        "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
    std::fs::write(format!("{dir}/resolv.conf"), text).unwrap();
    for name in ["web", "web.default", "web.default.svc.cluster.local"] {
        let answer = curl(&client, &[&format!("http://{name}/n")]);
        assert!(answer.starts_with(&format!("web GET /n host={name} ")), "{answer}");
    }
    let unknown = curl(&client, &["http://none.default.svc.cluster.local/"]);
    assert!(unknown.contains("Could not resolve host"), "{unknown}");
    std::fs::remove_dir_all(dir).unwrap();
}

/// A server that switches to another protocol, and sends back what it gets.
fn serve_upgrade(netns: &str) {
    listen_in_threads(netns, |mut stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nwelcome";
        stream.write_all(answer.as_bytes()).unwrap();
        let (mut read, mut write) = (&stream, &stream);
        let _ = std::io::copy(&mut read, &mut write);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    });
}

#[test]
fn an_upgraded_connection_carries_anything() {
    need_root!("an_upgraded_connection_carries_anything");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_upgrade(&server);
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let talk = || {
        let mut stream = TcpStream::connect(support::socket(50)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // The first bytes of the new protocol come with the request: they must not get lost.
        let request = "GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x00early";
        stream.write_all(request.as_bytes()).unwrap();
        stream.write_all(b"\xffbytes").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    };
    let all = inside(&client, talk).join().unwrap();
    let text = String::from_utf8_lossy(&all);
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    assert!(all.ends_with(b"welcome\x00early\xffbytes"), "{text}");
}

#[test]
fn a_pod_that_drains_costs_no_request() {
    need_root!("a_pod_that_drains_costs_no_request");
    let mut node = Node::start(|_| {});
    let (client, old, new) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    serve_http(&old, "old");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let stop = Arc::new(AtomicBool::new(false));
    let load = under_load(&client, &stop);
    std::thread::sleep(Duration::from_millis(300));
    // Alone it still serves while it drains.
    node.proxy().shared.pods.drain("uid-6");
    assert_eq!(node.proxy().shared.pods.get("uid-6").unwrap().phase(), Phase::Draining);
    std::thread::sleep(Duration::from_millis(300));
    assert!(curl(&client, &["http://10.96.0.50/a"]).starts_with("old "));
    serve_http(&new, "new");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    eventually("requests go to the other, though nobody but the pod itself said that it drains", || {
        curl(&client, &["http://10.96.0.50/a"; 20]).lines().all(|line| line.starts_with("new "))
    });
    node.proxy().attacher.detach("uid-6");
    std::thread::sleep(Duration::from_millis(300));
    node.service("web", 50, AppProtocol::Http, &[(7, Health::Ready)]);
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let (answers, failures) = load.join().unwrap();
    assert!(failures.is_empty() && answers > 0, "{answers} answers, failures: {failures:?}");
}

#[test]
fn a_process_that_dies_costs_no_request_that_it_did_not_get() {
    need_root!("a_process_that_dies_costs_no_request_that_it_did_not_get");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, first, second) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    // The first ends its connection after every answer, and listens no more after three.
    let (ready, started) = std::sync::mpsc::channel();
    inside(&first, move || {
        let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming().flatten().take(3) {
            let mut head = [0; 4096];
            let _ = (&stream).read(&mut head).unwrap();
            (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfirst\n").unwrap();
        }
    });
    started.recv().unwrap();
    serve_http(&second, "second");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    // Posts, which nobody may send twice unless it is sure that they did not arrive.
    let answers = curl(&client, &[&["-d", "x"][..], &["http://10.96.0.50/a"; 60]].concat());
    let good = answers.lines().filter(|line| *line == "first" || line.starts_with("second POST")).count();
    assert_eq!(good, 60, "{answers}");
}

#[test]
fn changes_of_configuration_cost_no_request() {
    need_root!("changes_of_configuration_cost_no_request");
    let mut node = Node::start(|_| {});
    let (client, one, two) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    serve_http(&one, "one");
    serve_http(&two, "two");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    let stop = Arc::new(AtomicBool::new(false));
    let load = under_load(&client, &stop);
    for step in 0..150 {
        // Endpoints come and go, in every health; the one or the other is always there. So do routes.
        let health = [Health::Ready, Health::Draining, Health::NotReady][step % 3];
        let pods = if step % 2 == 0 { [(6, Health::Ready), (7, health)] } else { [(6, health), (7, Health::Ready)] };
        node.service("web", 50, AppProtocol::Http, &pods);
        let target = BackendTarget::Service { service: Key::new("default", "web"), port: 80 };
        let name = "HTTPRoute/default/r";
        let route = Route {
            name: name.into(),
            key: Key::new("default", "r"),
            kind: RouteKind::Http,
            created: Timestamp(1),
            parents: vec![Parent {
                target: ParentTarget::Service { service: Key::new("default", "web"), port: None, consumer: None },
                hostnames: vec![],
            }],
            rules: vec![Rule {
                matches: vec![Match::default()],
                backends: vec![Backend { target, weight: 1 + step as u32, filters: vec![] }],
                ..Rule::default()
            }],
            ordered: false,
        };
        node.proxy().apply([match step % 4 {
            3 => Change::Remove(ResourceKind::Route, name.into()),
            _ => Change::Set(Resource::Route(Arc::new(route))),
        }]);
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    let (answers, failures) = load.join().unwrap();
    assert!(failures.is_empty() && answers > 0, "{answers} answers, failures: {failures:?}");
}

#[test]
fn certificates_are_renewed_under_load() {
    need_root!("certificates_are_renewed_under_load");
    // They live four seconds: renewed every two, and expired before the test ends.
    let mut node = Node::start_with(4, |_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let stop = Arc::new(AtomicBool::new(false));
    let load = under_load(&client, &stop);
    let first = node.proxy().shared.identities.list();
    std::thread::sleep(Duration::from_secs(6));
    stop.store(true, Ordering::Relaxed);
    let (answers, failures) = load.join().unwrap();
    assert!(failures.is_empty() && answers > 0, "{answers} answers, failures: {failures:?}");
    assert_ne!(first, node.proxy().shared.identities.list());
}

#[test]
fn what_is_counted_can_be_read() {
    need_root!("what_is_counted_can_be_read");
    let mut node = Node::start(|config| config.admin = Some(([127, 0, 0, 1], 25020).into()));
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    curl(&client, &["http://10.96.0.50/a"]);
    let page = |path: &str| {
        let url = format!("http://127.0.0.1:25020{path}");
        let output =
            Command::new("ip").args(["netns", "exec", &node.net.node(), "curl", "-sS", &url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let wanted = [
        "istio_requests_total{",
        "source_workload=\"client\"",
        "destination_workload=\"web\"",
        "response_code=\"200\"",
    ];
    eventually("the request is in the metrics", || {
        page("/metrics").lines().any(|line| wanted.iter().all(|part| line.contains(part)))
    });
    let dump: serde_json::Value = serde_json::from_str(&page("/config_dump")).unwrap();
    assert_eq!(dump["pods"].as_array().unwrap().len(), 2);
    assert_eq!(dump["services"][0]["ports"][0]["endpoints"][0], "10.250.0.6:8080");
}

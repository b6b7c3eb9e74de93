//! A policy that changes holds for connections that are already open: requests are refused, opaque connections end.
mod support;

use bytes::Bytes;
use diolkos_proxy::mesh::Change;
use http_body_util::BodyExt;
use model::Key;
use model::mesh::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use support::{
    Node, address, eventually, gateway, inside, listen_in_threads, serve_http, serve_requests, serve_tcp, service,
    socket, town, whole,
};

/// How soon. What is asserted is that it holds at this time, however slow the machine is in between.
const SOON: Duration = Duration::from_secs(1);

fn deny(ports: &[&str]) -> Change {
    denying(Operation { ports: ports.iter().map(|port| Arc::from(*port)).collect(), ..Operation::default() })
}

fn deny_path(path: &str) -> Change {
    denying(Operation { paths: vec![path.into()], ..Operation::default() })
}

fn denying(to: Operation) -> Change {
    Change::Set(Resource::AuthorizationPolicy(Arc::new(AuthorizationPolicy {
        key: Key::new("default", "deny"),
        scope: Scope::Namespace,
        action: Action::Deny,
        dry_run: false,
        provider: "".into(),
        rules: vec![PolicyRule { to: vec![to], ..PolicyRule::default() }],
    })))
}

/// What an open connection shows: before the change, and after it.
type Seen = (String, String);

/// Sends one request now and one when told, on one connection to `to`.
fn keep_alive(
    client: &str,
    to: SocketAddr,
    changed: mpsc::Receiver<()>,
    opened: mpsc::Sender<()>,
) -> std::thread::JoinHandle<Seen> {
    inside(client, move || {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut ask = || {
            let _ = stream.write_all(b"GET /a HTTP/1.1\r\nhost: web\r\n\r\n");
            let mut bytes = [0; 4_096];
            let length = stream.read(&mut bytes).unwrap_or(0);
            String::from_utf8_lossy(&bytes[..length]).lines().next().unwrap_or_default().to_owned()
        };
        let before = ask();
        opened.send(()).unwrap();
        changed.recv().unwrap();
        (before, ask())
    })
}

/// The same with two streams of one HTTP/2 connection.
fn streams(
    client: &str,
    to: SocketAddr,
    changed: mpsc::Receiver<()>,
    opened: mpsc::Sender<()>,
) -> std::thread::JoinHandle<Seen> {
    inside(client, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let stream = tokio::net::TcpStream::connect(to).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let ask = async |sender: h2::client::SendRequest<Bytes>| {
                let request = http::Request::get("http://web/a").body(()).unwrap();
                let answer = async {
                    let (response, _) = sender.ready().await?.send_request(request, true)?;
                    Ok::<_, h2::Error>(response.await?.status().to_string())
                };
                answer.await.unwrap_or_else(|error| error.to_string())
            };
            let before = ask(sender.clone()).await;
            opened.send(()).unwrap();
            tokio::task::spawn_blocking(move || changed.recv().unwrap()).await.unwrap();
            (before, ask(sender).await)
        })
    })
}

/// Bytes there and back, then waits for the end.
fn opaque(client: &str, opened: mpsc::Sender<()>, ended: mpsc::Sender<Instant>) -> std::thread::JoinHandle<Seen> {
    inside(client, move || {
        let mut stream = TcpStream::connect(socket(51)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"ping").unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        opened.send(()).unwrap();
        let end = match stream.read(&mut [0; 4]) {
            Ok(0) => "the end".to_owned(),
            Ok(_) => "more bytes".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        let _ = ended.send(Instant::now());
        (String::from_utf8_lossy(&bytes).into_owned(), end)
    })
}

#[test]
fn a_changed_policy_holds_for_open_connections() {
    need_root!("a_changed_policy_holds_for_open_connections");
    let mut node = Node::start(|_| {});
    let (client, web, tcp) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "tcp"));
    serve_http(&web, "web");
    serve_tcp(&tcp);
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.proxy().apply(service("tcp", 51, AppProtocol::Tcp, &[(7, Health::Ready)]));
    let (opened, open) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let (tell_h1, told_h1) = mpsc::channel();
    let (tell_h2, told_h2) = mpsc::channel();
    let h1 = keep_alive(&client, socket(50), told_h1, opened.clone());
    let h2 = streams(&client, socket(50), told_h2, opened.clone());
    let raw = opaque(&client, opened, ended);
    (0..3).for_each(|_| open.recv().unwrap());

    // A policy about something else ends nothing.
    node.proxy().apply([deny(&["9999"])]);
    assert!(end.recv_timeout(Duration::from_millis(300)).is_err(), "the connection is nobody's concern yet");
    let changed = Instant::now();
    node.proxy().apply([deny(&["8080"])]);
    let end = end.recv_timeout(Duration::from_secs(10)).expect("the opaque connection ends");
    std::thread::sleep(SOON.saturating_sub(changed.elapsed()));
    tell_h1.send(()).unwrap();
    tell_h2.send(()).unwrap();
    eprintln!("the opaque connection ended after {:?}", end - changed);
    assert_eq!(h1.join().unwrap(), ("HTTP/1.1 200 OK".into(), "HTTP/1.1 403 Forbidden".into()));
    assert_eq!(h2.join().unwrap(), ("200 OK".into(), "403 Forbidden".into()));
    let (echoed, end) = raw.join().unwrap();
    assert_eq!(echoed, "ping");
    assert!(end == "the end" || end == "ConnectionReset", "{end}");
}

#[test]
fn strict_holds_for_open_connections_in_plain_text() {
    need_root!("strict_holds_for_open_connections_in_plain_text");
    let mut node = Node::start(|_| {});
    let (client, web) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&web, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let direct = SocketAddr::new(address(6), 8080);
    let (opened, open) = mpsc::channel();
    let (tell, told): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel()).unzip();
    let mut told = told.into_iter();
    let mut told = || told.next().unwrap();
    let meshed = keep_alive(&client, socket(50), told(), opened.clone());
    let h1 = keep_alive(&node.net.node(), direct, told(), opened.clone());
    let h2 = streams(&node.net.node(), direct, told(), opened);
    (0..3).for_each(|_| open.recv().unwrap());
    node.proxy().apply([strict()]);
    std::thread::sleep(SOON);
    tell.iter().for_each(|tell| tell.send(()).unwrap());
    assert_eq!(meshed.join().unwrap(), ("HTTP/1.1 200 OK".into(), "HTTP/1.1 200 OK".into()));
    for (before, after) in [h1.join().unwrap(), h2.join().unwrap()] {
        assert!(before.contains("200 OK") && !after.contains("200"), "{before}, then {after}");
    }
}

fn strict() -> Change {
    Change::Set(Resource::PeerAuthentication(Arc::new(PeerAuthentication {
        key: Key::new("default", "strict"),
        scope: Scope::Namespace,
        mode: MtlsMode::Strict,
        ports: vec![],
        created: model::Timestamp(1),
    })))
}

/// What was said before anything was decided about it is decided about when it is said.
#[test]
fn a_changed_policy_holds_for_connections_that_have_said_nothing() {
    need_root!("a_changed_policy_holds_for_connections_that_have_said_nothing");
    let mut node = Node::start(|_| {});
    let tcp = node.pod(7, "tcp");
    serve_tcp(&tcp);
    let mut silent = town::connect(&node.net.node(), SocketAddr::new(address(7), 8080));
    let mut other = town::connect(&node.net.node(), SocketAddr::new(address(7), 8080));
    let speak = |stream: &mut TcpStream| {
        let mut bytes = [0; 4];
        stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut bytes)).is_ok()
    };
    assert!(speak(&mut other));
    node.proxy().apply([deny(&["8080"])]);
    assert!(!speak(&mut silent), "it was admitted when all were");
}

/// An endpoint that switches protocols at once, and then sends back what it gets.
fn serve_switching(netns: &str) {
    listen_in_threads(netns, |stream| {
        let (mut read, mut write) = (&stream, &stream);
        let _ = read.read(&mut [0; 4_096]);
        let _ = write.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
        let _ = std::io::copy(&mut read, &mut write);
    });
}

/// A connection that has switched protocols.
fn switched(mut stream: TcpStream) -> TcpStream {
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").unwrap();
    let mut bytes = [0; 4_096];
    let length = stream.read(&mut bytes).unwrap();
    assert!(bytes[..length].starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&bytes[..length]));
    stream
}

/// Whether what it carries comes back.
fn echoes(mut stream: &TcpStream) -> bool {
    stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut [0; 4])).is_ok()
}

#[test]
fn a_changed_policy_holds_for_connections_that_have_switched_protocols() {
    need_root!("a_changed_policy_holds_for_connections_that_have_switched_protocols");
    let mut node = Node::start(|_| {});
    let (client, web) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_switching(&web);
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let stream = switched(town::connect(&client, socket(50)));
    let speaks = || echoes(&stream);
    assert!(speaks());
    // About other requests: what was asked for before may go on.
    node.proxy().apply([deny_path("/b")]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(speaks());
    node.proxy().apply([deny_path("/a")]);
    eventually("it ends", || !speaks());
}

/// A policy is told first, and holds when the gateway is said to list it.
#[test]
fn a_policy_that_a_gateway_is_given_holds_for_what_is_open_there() {
    need_root!("a_policy_that_a_gateway_is_given_holds_for_what_is_open_there");
    let mut node = Node::start(|_| {});
    let (host, web) = (node.net.node(), node.pod(6, "web"));
    serve_switching(&web);
    for (protocol, port) in [(AppProtocol::Http, 25_191), (AppProtocol::Tcp, 25_192)] {
        node.service("web", 50, protocol, &[(6, Health::Ready)]);
        let told: Vec<Change> = match protocol {
            AppProtocol::Http => gateway(port, "/", "web"),
            _ => gateway(port, "/", "web").into_iter().map(whole).collect(),
        };
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        node.proxy().apply(told.clone());
        eventually("it listens", || inside(&host, move || TcpStream::connect(at).is_ok()).join().unwrap());
        let stream = switched(town::connect(&host, at));
        assert!(echoes(&stream));
        let policy = AuthorizationPolicy {
            key: Key::new("default", "deny-all"),
            scope: Scope::Workload,
            action: Action::Deny,
            dry_run: false,
            provider: "".into(),
            rules: vec![PolicyRule::default()],
        };
        node.proxy().apply([Change::Set(Resource::AuthorizationPolicy(Arc::new(policy)))]);
        std::thread::sleep(Duration::from_millis(300));
        assert!(echoes(&stream), "the gateway does not list it");
        node.proxy().apply(told.into_iter().filter_map(|change| match change {
            Change::Set(Resource::Gateway(mut gateway)) => {
                Arc::make_mut(&mut gateway).authorization_policies = vec![Key::new("default", "deny-all")];
                Some(Change::Set(Resource::Gateway(gateway)))
            }
            _ => None,
        }));
        eventually("it ends", || !echoes(&stream));
    }
}

/// A process whose answers do not end.
fn serve_endless(netns: &str, content_type: &'static str) {
    serve_requests(netns, move |_| async move {
        let pieces = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok(hyper::body::Frame::data(Bytes::from_static(b"\0\0\0\0\0"))), ()))
        });
        let body = http_body_util::StreamBody::new(pieces).boxed();
        hyper::Response::builder().header("content-type", content_type).body(body).unwrap()
    });
}

#[test]
fn a_changed_policy_holds_for_calls_that_run() {
    need_root!("a_changed_policy_holds_for_calls_that_run");
    let mut node = Node::start(|_| {});
    let (client, web) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_endless(&web, "application/grpc");
    node.service("web", 50, AppProtocol::Grpc, &[(6, Health::Ready)]);
    let (opened, open) = mpsc::channel();
    let call = std::thread::spawn(move || {
        support::grpc_client(&client, async move |sender| {
            let request = http::Request::post("http://web/a").header("content-type", "application/grpc").body(());
            let (response, _) = sender.ready().await.unwrap().send_request(request.unwrap(), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            body.data().await.unwrap().unwrap();
            opened.send(()).unwrap();
            while let Some(Ok(bytes)) = body.data().await {
                body.flow_control().release_capacity(bytes.len()).unwrap();
            }
        })
    });
    open.recv().unwrap();
    node.proxy().apply([deny_path("/a")]);
    call.join().expect("it ends before its client's patience");
}

#[test]
fn a_changed_policy_holds_for_who_listens_to_events() {
    need_root!("a_changed_policy_holds_for_who_listens_to_events");
    let mut node = Node::start(|_| {});
    let (client, web) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_endless(&web, "text/event-stream");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let mut stream = town::connect(&client, socket(50));
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: web\r\naccept: text/event-stream\r\n\r\n").unwrap();
    let mut bytes = [0; 4_096];
    let length = stream.read(&mut bytes).unwrap();
    assert!(bytes[..length].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&bytes[..length]));
    node.proxy().apply([deny_path("/a")]);
    let begun = Instant::now();
    while stream.read(&mut bytes).is_ok_and(|length| length > 0) {
        assert!(begun.elapsed() < Duration::from_secs(10), "it goes on");
    }
}

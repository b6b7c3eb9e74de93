//! A policy that changes holds for connections that are already open: requests are refused, opaque connections end.
mod support;

use bytes::Bytes;
use diolkos_proxy::mesh::Change;
use model::Key;
use model::mesh::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use support::{Node, inside, serve_http, serve_tcp, service, socket};

/// How soon. What is asserted is that it holds at this time, however slow the machine is in between.
const SOON: Duration = Duration::from_secs(1);

fn deny(ports: &[&str]) -> Change {
    let to = Operation { ports: ports.iter().map(|port| Arc::from(*port)).collect(), ..Operation::default() };
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

/// Sends one request now and one when told, on one connection.
fn keep_alive(client: &str, changed: mpsc::Receiver<()>, opened: mpsc::Sender<()>) -> std::thread::JoinHandle<Seen> {
    inside(client, move || {
        let mut stream = TcpStream::connect(socket(50)).unwrap();
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
fn streams(client: &str, changed: mpsc::Receiver<()>, opened: mpsc::Sender<()>) -> std::thread::JoinHandle<Seen> {
    inside(client, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let stream = tokio::net::TcpStream::connect(socket(50)).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let ask = async |mut sender: h2::client::SendRequest<Bytes>| {
                let request = http::Request::get("http://web/a").body(()).unwrap();
                let (response, _) = sender.send_request(request, true).unwrap();
                response.await.unwrap().status().to_string()
            };
            let before = ask(sender.clone().ready().await.unwrap()).await;
            opened.send(()).unwrap();
            tokio::task::spawn_blocking(move || changed.recv().unwrap()).await.unwrap();
            (before, ask(sender.ready().await.unwrap()).await)
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
    node.service("web", 50, AppProtocol::Unspecified, &[(6, Health::Ready)]);
    node.proxy().apply(service("tcp", 51, AppProtocol::Tcp, &[(7, Health::Ready)]));
    let (opened, open) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let (tell_h1, told_h1) = mpsc::channel();
    let (tell_h2, told_h2) = mpsc::channel();
    let h1 = keep_alive(&client, told_h1, opened.clone());
    let h2 = streams(&client, told_h2, opened.clone());
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

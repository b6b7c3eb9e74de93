//! WebSocket over HTTP/2 (RFC 8441): an extended CONNECT at a gateway and at a pod's service, to processes that speak HTTP/1.1 or HTTP/2; and
//! an upgrade of HTTP/1.1 to the latter.
mod support;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::mesh::*;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use support::frames::*;
use support::{Node, curl, eventually, gateway, listen, listen_in_threads, socket, town};
use tokio::io::AsyncWriteExt;

const PORT: u16 = 25_103;

/// What a process of WebSockets lets a test know and say.
#[derive(Default)]
struct Told {
    /// It reads no more until this is set.
    may_read: AtomicBool,
    /// Connections that broke or ended before they were done.
    broken: AtomicUsize,
}

/// A process that speaks WebSocket, as far as its handshake goes, on some paths; what it gets it sends back.
fn serve_chat(netns: &str) -> Arc<Told> {
    let told = Arc::new(Told::default());
    let known = told.clone();
    listen_in_threads(netns, move |mut stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if !stream.read(&mut byte).is_ok_and(|count| count == 1) {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")))?;
            Some(line[name.len() + 2..].to_owned())
        };
        let path = head.split(' ').nth(1).unwrap();
        let asked = (field("upgrade"), field("connection"), field("sec-websocket-version"));
        if path == "/plain" {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
            return;
        }
        assert_eq!(asked, (Some("websocket".into()), Some("upgrade".into()), Some("13".into())), "{head}");
        let key = field("sec-websocket-key").unwrap();
        assert_eq!(STANDARD.decode(&key).unwrap().len(), 16);
        let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
        let accept = STANDARD.encode(if path == "/wrong" { &[0; 20] } else { sum.as_ref() });
        let answer = match path {
            "/no" => "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_owned(),
            _ => format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\
                 Sec-WebSocket-Protocol: chat\r\n\r\nwelcome"
            ),
        };
        stream.write_all(answer.as_bytes()).unwrap();
        if path == "/no" {
            return;
        }
        while path == "/later" && !known.may_read.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if path == "/break" {
            stream.read_exact(&mut [0]).unwrap();
            // What came and was not read makes a reset of the end.
            std::thread::sleep(Duration::from_millis(100));
            return;
        }
        let (mut read, mut write) = (&stream, &stream);
        match std::io::copy(&mut read, &mut write) {
            Ok(_) => drop(stream.shutdown(std::net::Shutdown::Write)),
            Err(_) => drop(known.broken.fetch_add(1, Ordering::Relaxed)),
        }
    });
    told
}

/// A client of one stream, 1, which reads as much as comes.
struct Chat {
    peer: Peer<TcpStream>,
    /// What it may send: on the connection, on the stream.
    windows: [usize; 2],
    offered: bool,
    got: Vec<u8>,
}

/// What came of it.
#[derive(Debug, PartialEq)]
enum End {
    Ended,
    Reset(u32),
    Silence,
}

impl Chat {
    fn open(stream: TcpStream, fields: &[(&str, &str)]) -> (Self, Result<u16, Outcome>) {
        let mut chat = Self { peer: Peer::open(stream), windows: [65_535; 2], offered: false, got: Vec::new() };
        chat.peer.send(&setting(4, 1 << 30));
        chat.peer.send(&frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes()));
        // RFC 8441, 3: not before the server says that it may.
        while !chat.offered {
            let came = chat.peer.read().expect("settings come");
            chat.note(&came);
        }
        chat.peer.send(&frame(HEADERS, END_HEADERS, 1, &block(fields)));
        loop {
            match chat.peer.read() {
                Ok(came) if came.kind == HEADERS => {
                    let status = status(&came.payload);
                    let text = String::from_utf8_lossy(&came.payload).into_owned();
                    assert!(!text.contains("upgrade"), "a field of HTTP/1.1: {text}");
                    return (chat, Ok(status));
                }
                Ok(came) if came.kind == RST_STREAM => {
                    let code = u32::from_be_bytes(*came.payload.first_chunk().unwrap());
                    return (chat, Err(Outcome::Reset(1, code)));
                }
                Ok(came) => drop(chat.note(&came)),
                Err(outcome) => return (chat, Err(outcome)),
            }
        }
    }

    fn note(&mut self, came: &Came) -> Option<End> {
        let number = || came.payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        match came.kind {
            SETTINGS if came.flags & ACK == 0 => {
                for entry in came.payload.chunks_exact(6) {
                    let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
                    match entry[1] {
                        4 => self.windows[1] = value as usize,
                        8 => self.offered = value == 1,
                        _ => {}
                    }
                }
                self.peer.send(&frame(SETTINGS, ACK, 0, &[]));
            }
            WINDOW_UPDATE => self.windows[usize::from(came.stream != 0)] += number() as usize,
            DATA => {
                self.got.extend_from_slice(&came.payload);
                return (came.flags & END_STREAM != 0).then_some(End::Ended);
            }
            RST_STREAM => return Some(End::Reset(number())),
            _ => {}
        }
        None
    }

    /// Reads until something is over, or `enough`.
    fn read_until(&mut self, enough: impl Fn(&Self) -> bool) -> Option<End> {
        while !enough(self) {
            match self.peer.read() {
                Ok(came) => {
                    if let Some(end) = self.note(&came) {
                        return Some(end);
                    }
                }
                Err(_) => return Some(End::Silence),
            }
        }
        None
    }

    /// Sends as much as it is let.
    fn say(&mut self, bytes: &[u8]) -> usize {
        let most = bytes.len().min(self.windows[0]).min(self.windows[1]).min(16_384);
        if most > 0 {
            self.peer.send(&frame(DATA, 0, 1, &bytes[..most]));
            self.windows = self.windows.map(|window| window - most);
        }
        most
    }

    fn end(&mut self) {
        self.peer.send(&frame(DATA, END_STREAM, 1, &[]));
    }
}

fn connect<'a>(protocol: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":path", path),
        (":authority", "web"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "http://web"),
    ]
}

/// Where clients come in: what it is, from which namespace, and to where.
type Door = (&'static str, String, SocketAddr);

fn start() -> (Node, [Door; 2], Arc<Told>) {
    let mut node = Node::start(|_| {});
    let (client, web, host) = (node.pod(5, "client"), node.pod(6, "web"), node.net.node());
    let told = serve_chat(&web);
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.proxy().apply(gateway(PORT, "/", "web"));
    eventually("the gateway answers", || curl(&host, &[&format!("http://127.0.0.1:{PORT}/plain")]) == "hi");
    let edge = SocketAddr::from(([127, 0, 0, 1], PORT));
    (node, [("gateway", host, edge), ("service", client, socket(50))], told)
}

#[test]
fn a_websocket_carries_anything_both_ways() {
    need_root!("a_websocket_carries_anything_both_ways");
    let (node, doors, told) = start();
    for (door, netns, to) in &doors {
        let (mut chat, status) = Chat::open(town::connect(netns, *to), &connect("websocket", "/chat"));
        assert_eq!(status, Ok(200), "{door}");
        assert_eq!(chat.say(b"hello"), 5);
        assert_eq!(chat.read_until(|chat| chat.got.len() >= 12), None, "{door}");
        assert_eq!(chat.got, b"welcomehello", "{door}");
        chat.end();
        assert_eq!(chat.read_until(|_| false), Some(End::Ended), "{door}: an end is passed on");
    }
    // A process that does not read: the client is let send no more after a while, and nothing is lost.
    let (_, netns, to) = &doors[0];
    let (mut chat, status) = Chat::open(town::connect(netns, *to), &connect("websocket", "/later"));
    assert_eq!(status, Ok(200));
    let (piece, mut said) = (vec![b'x'; 16_384], 0);
    loop {
        let taken = chat.say(&piece);
        said += taken;
        assert!(said < 64 << 20, "nothing slows the client down");
        if taken == 0 && chat.read_until(|chat| chat.windows.iter().all(|window| *window > 0)).is_some() {
            break;
        }
    }
    told.may_read.store(true, Ordering::Relaxed);
    chat.end();
    assert_eq!(chat.read_until(|_| false), Some(End::Ended));
    assert_eq!(chat.got.len(), said + b"welcome".len());
    let requests = || -> u64 {
        let edges = node.edges();
        edges.iter().filter(|edge| edge["reporter"] == "source").filter_map(|edge| edge["requests"].as_u64()).sum()
    };
    eventually("all are counted", || requests() >= 4);
    assert_eq!(requests(), 3 + 1, "each is a request, beside the first one: {:?}", node.edges());
}

#[test]
fn handshakes_that_fail_have_their_codes() {
    need_root!("handshakes_that_fail_have_their_codes");
    let (node, doors, _) = start();
    for (door, netns, to) in &doors {
        for (what, protocol, path, expect) in [
            ("the process refuses", "websocket", "/no", 403),
            ("the process does not switch", "websocket", "/plain", 502),
            ("the process does not know the key", "websocket", "/wrong", 502),
            ("another protocol", "connect-udp", "/chat", 501),
        ] {
            let (_, status) = Chat::open(town::connect(netns, *to), &connect(protocol, path));
            assert_eq!(status, Ok(expect), "{door}: {what}");
        }
    }
    node.service("web", 50, AppProtocol::Http, &[]);
    for (door, netns, to) in &doors {
        let (_, status) = Chat::open(town::connect(netns, *to), &connect("websocket", "/chat"));
        assert_eq!(status, Ok(503), "{door}: nobody there");
    }
}

#[test]
fn what_breaks_on_one_side_breaks_on_the_other() {
    need_root!("what_breaks_on_one_side_breaks_on_the_other");
    let (_node, doors, told) = start();
    for (index, (door, netns, to)) in doors.iter().enumerate() {
        let (mut chat, status) = Chat::open(town::connect(netns, *to), &connect("websocket", "/break"));
        assert_eq!((status, chat.say(b"many bytes")), (Ok(200), 10), "{door}");
        assert_eq!(chat.read_until(|_| false), Some(End::Reset(CANCEL)), "{door}: the process broke it");
        let (mut chat, status) = Chat::open(town::connect(netns, *to), &connect("websocket", "/chat"));
        assert_eq!((status, chat.say(b"x")), (Ok(200), 1), "{door}");
        assert_eq!(chat.read_until(|chat| chat.got.len() >= 8), None, "{door}");
        chat.peer.send(&frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()));
        eventually("the process learns it", || told.broken.load(Ordering::Relaxed) == index + 1);
    }
}

/// A process that speaks both HTTPs, by hyper. It says in which it was asked, then sends back what it gets. `takes`: also extended CONNECT;
/// `streams`: so many on a connection.
fn serve_both(netns: &str, takes: bool, streams: u32) {
    listen(netns, move |stream| async move {
        let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(streams);
        if takes {
            builder.http2().enable_connect_protocol();
        }
        let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(agree)).await;
    });
}

async fn agree(mut request: hyper::Request<hyper::body::Incoming>) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let answer = hyper::Response::builder();
    if request.uri().path() != "/chat" {
        return Ok(answer.status(403).body(Full::default()).unwrap());
    }
    let key = request.headers().get("sec-websocket-key").cloned();
    let protocol = request.extensions().get::<hyper::ext::Protocol>().cloned();
    let answer = match (request.version(), key, protocol) {
        (hyper::Version::HTTP_11, Some(key), None) => {
            assert_eq!(
                (request.method().as_str(), &request.headers()["upgrade"]),
                ("GET", &"websocket".parse().unwrap())
            );
            let whole = [key.as_bytes(), b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
            let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &whole));
            answer
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-accept", accept)
        }
        (hyper::Version::HTTP_2, None, Some(protocol)) => {
            assert_eq!((request.method().as_str(), protocol.as_str()), ("CONNECT", "websocket"));
            answer.status(200)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(request.headers()["sec-websocket-version"], "13");
    let name = format!("{:?} ", request.version());
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        let mut stream = TokioIo::new(upgraded);
        stream.write_all(name.as_bytes()).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    });
    Ok(answer.header("sec-websocket-protocol", "chat").body(Full::default()).unwrap())
}

/// A client of HTTP/1.1 asks for a WebSocket: the head of the answer, in small letters.
fn ask_for_websocket(stream: &mut TcpStream, path: &str) -> String {
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-protocol: chat\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap().to_ascii_lowercase()
}

/// A client of HTTP/1.1: its status, and what comes after it said hello and ended.
fn upgrade(mut stream: TcpStream, path: &str) -> (u16, String) {
    let answer = ask_for_websocket(&mut stream, path);
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    if status != 101 {
        return (status, String::new());
    }
    // RFC 6455, 1.3.
    for field in ["upgrade: websocket", "connection: upgrade", "sec-websocket-protocol: chat"] {
        assert!(answer.contains(&format!("\r\n{field}\r\n")), "{answer}");
    }
    assert_eq!(answer.matches("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n").count(), 1, "{answer}");
    stream.write_all(b"hello").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    (status, said)
}

/// To an endpoint that is said to speak HTTP/2 it goes as extended CONNECT if that takes it, whatever the client speaks; else in HTTP/1.1.
#[test]
fn an_endpoint_is_asked_in_the_http_that_it_takes() {
    need_root!("an_endpoint_is_asked_in_the_http_that_it_takes");
    for (takes, protocol, spoken) in [
        (true, AppProtocol::Http2, "HTTP/2.0"),
        (false, AppProtocol::Http2, "HTTP/1.1"),
        (true, AppProtocol::Http, "HTTP/1.1"),
    ] {
        let mut node = Node::start(|_| {});
        let (client, web, host) = (node.pod(5, "client"), node.pod(6, "web"), node.net.node());
        serve_both(&web, takes, 200);
        node.service("web", 50, protocol, &[(6, Health::Ready)]);
        node.proxy().apply(gateway(PORT + 2, "/", "web"));
        let edge = SocketAddr::from(([127, 0, 0, 1], PORT + 2));
        eventually("the gateway answers", || {
            curl(&host, &["-o", "/dev/null", "-w", "%{http_code}", &format!("http://{edge}/no")]) == "403"
        });
        // Twice: the second finds what the first one learned.
        for (netns, to) in [(&host, edge), (&client, socket(50)), (&host, edge), (&client, socket(50))] {
            let what = format!("{protocol:?}, takes it: {takes}, to {to}");
            assert_eq!(upgrade(town::connect(netns, to), "/chat"), (101, format!("{spoken} hello")), "{what}");
            assert_eq!(upgrade(town::connect(netns, to), "/no").0, 403, "{what}");
            let (mut chat, status) = Chat::open(town::connect(netns, to), &connect("websocket", "/chat"));
            assert_eq!((status, chat.say(b"hello")), (Ok(200), 5), "{what}");
            chat.end();
            assert_eq!(chat.read_until(|_| false), Some(End::Ended), "{what}");
            assert_eq!(String::from_utf8_lossy(&chat.got), format!("{spoken} hello"), "{what}");
            let (_, status) = Chat::open(town::connect(netns, to), &connect("websocket", "/no"));
            assert_eq!(status, Ok(403), "{what}");
        }
    }
}

/// One that stands is one of the streams that its connection may have: who comes then waits for nobody.
#[test]
fn those_that_stand_are_counted() {
    need_root!("those_that_stand_are_counted");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, web) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_both(&web, true, 2);
    node.service("web", 50, AppProtocol::Http2, &[(6, Health::Ready)]);
    let stand: Vec<TcpStream> = std::iter::repeat_with(|| {
        let mut stream = town::connect(&client, socket(50));
        let answer = ask_for_websocket(&mut stream, "/chat");
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        stream
    })
    .take(5)
    .collect();
    let url = "http://10.96.0.50/no";
    let asked = curl(&client, &["--http2-prior-knowledge", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", url]);
    assert_eq!(asked, "403");
    drop(stand);
}

//! Clients of a gateway that stop where it is their turn, and are not waited for without end.
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::frames::*;
use support::{Node, curl, eventually, gateway, inside, listen_in_threads, serve_http, town};

const PORT: u16 = 25096;

/// What the proxy says until it ends the connection. None: it does not.
fn until_the_end(mut stream: TcpStream) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut all, mut space) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut space) {
            Ok(0) => return Some(all),
            Ok(read) => all.extend_from_slice(&space[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Some(all),
            Err(_) => return None,
        }
    }
}

/// A process is not held by a client that asks for much and reads none of it.
#[test]
fn who_does_not_read_is_let_go() {
    need_root!("who_does_not_read_is_let_go");
    let mut node = Node::start(|config| config.public_patience = Duration::from_secs(2));
    let web = node.pod(6, "web");
    let let_go = Arc::new(AtomicUsize::new(0));
    let counted = let_go.clone();
    listen_in_threads(&web, move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        counted.fetch_add(1, Ordering::Relaxed);
    });
    node.service("web", 50, model::mesh::AppProtocol::Http, &[(6, model::mesh::Health::Ready)]);
    node.proxy().apply(gateway(PORT + 1, "/", "web"));
    let (host, at) = (node.net.node(), SocketAddr::from(([127, 0, 0, 1], PORT + 1)));
    eventually("it listens", || inside(&host, move || TcpStream::connect(at).is_ok()).join().unwrap());
    let mut stream = town::connect(&host, at);
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    eventually("the process is let go", || let_go.load(Ordering::Relaxed) == 1);
    drop(stream);
}

#[test]
fn who_stops_in_the_middle_is_let_go() {
    need_root!("who_stops_in_the_middle_is_let_go");
    let mut node = Node::start(|config| config.public_patience = Duration::from_secs(2));
    let web = node.pod(6, "web");
    serve_http(&web, "web");
    node.service("web", 50, model::mesh::AppProtocol::Http, &[(6, model::mesh::Health::Ready)]);
    node.proxy().apply(gateway(PORT, "/", "web"));
    let host = node.net.node();
    let url = format!("http://127.0.0.1:{PORT}/ok");
    eventually("the gateway answers", || curl(&host, &[&url]).starts_with("web GET /ok"));
    let begun = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let silences: [(&str, Vec<u8>); 9] = [
        ("not a word", vec![]),
        ("half a preface", PREFACE[..5].to_vec()),
        ("half a head", b"GET / HTT".to_vec()),
        ("after a request", b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("a small body", b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx".to_vec()),
        ("a large body", b"POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\nx".to_vec()),
        ("chunks", b"POST /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec()),
        ("HTTP/2 without streams", begun.clone()),
        ("HTTP/2, a stream without its end", [&begun[..], &frame(HEADERS, END_HEADERS, 1, POST)].concat()),
    ];
    let silent: Vec<_> = silences
        .into_iter()
        .map(|(what, said)| {
            let ended = inside(&host, move || {
                let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], PORT))).unwrap();
                stream.write_all(&said).unwrap();
                until_the_end(stream)
            });
            (what, ended)
        })
        .collect();
    for (what, ended) in silent {
        let said = ended.join().unwrap().unwrap_or_else(|| panic!("{what}: it is kept"));
        assert!(what != "after a request" || said.starts_with(b"HTTP/1.1 200"), "{what}: it was answered first");
    }
    // Who waits for an answer says nothing for longer, and is served.
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let slow = curl(&host, &["-m", "20", version, &format!("http://127.0.0.1:{PORT}/slow")]);
        assert!(slow.starts_with("web GET /slow"), "{version}: {slow}");
    }
}

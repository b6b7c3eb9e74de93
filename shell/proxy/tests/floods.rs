//! Clients that mean harm: each attack goes on while another client is served, and leaves the proxy no larger.
mod support;

use model::mesh::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::frames::*;
use support::{Node, curl, eventually, gateway, inside, serve_http};

const PORT: u16 = 25095;
/// What a proxy under attack may grow by, all attacks together: windows, queues and the allocator's own.
const GROWTH_BYTES: u64 = 96 << 20;

fn connect() -> TcpStream {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], PORT))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn connect_h2() -> TcpStream {
    let mut stream = connect();
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream
}

/// Writes until the other side has enough, and reads meanwhile. True: it ended the connection.
fn pour(mut stream: TcpStream, mut pieces: impl Iterator<Item = Vec<u8>>) -> bool {
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while reader.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let ended = pieces.any(|piece| stream.write_all(&piece).is_err());
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let _ = reading.join();
    ended
}

/// CVE-2023-44487.
fn rapid_reset() {
    let attack = (0..200_000u32).map(|n| {
        let stream = 2 * n + 1;
        let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        [frame(HEADERS, END_STREAM | END_HEADERS, stream, GET), reset].concat()
    });
    assert!(pour(connect_h2(), attack), "a client that only resets is cut off");
}

/// CVE-2024-27316 and its like.
fn continuations() {
    let first = frame(HEADERS, END_STREAM, 1, GET);
    // A literal field without indexing.
    let field = [&[0u8, 1, b'x', 127, 0][..], &[b'y'; 127]].concat();
    let attack = std::iter::once(first).chain((0..200_000).map(|_| frame(CONTINUATION, 0, 1, &field)));
    assert!(pour(connect_h2(), attack), "a header without end is cut off");
}

/// Answers to these are not read by anybody: what waits of them must not pile up.
fn pings_and_settings() {
    for kind in [PING, SETTINGS] {
        let mut stream = connect_h2();
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let payload: &[u8] = if kind == PING { &[7; 8] } else { &[0, 4, 0, 1, 0, 0] };
        let many = frame(kind, 0, 0, payload).repeat(1000);
        // Either it is cut off, or it has to wait because nobody reads on.
        let _ = (0..2000).try_for_each(|_| stream.write_all(&many));
    }
}

/// They ask for much and read nothing: more of them than fill a tunnel's window, with bodies that the allocator maps and gives back.
fn slow_readers() -> Vec<TcpStream> {
    let ask = |_| {
        let mut stream = connect();
        stream.write_all(b"GET /bytes/34000000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream
    };
    (0..24).map(ask).collect()
}

/// They never finish what they say.
fn slow_writers() -> Vec<TcpStream> {
    let begin = |n: usize| {
        let mut stream = connect();
        let said = [
            &b"GET / HTT"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
            PREFACE,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",
        ];
        stream.write_all(said[n % said.len()]).unwrap();
        stream
    };
    (0..400).map(begin).collect()
}

fn crowd() -> Vec<TcpStream> {
    (0..1500).map(|_| connect()).collect()
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn floods_are_survived_and_others_are_served() {
    need_root!("floods_are_survived_and_others_are_served");
    let mut node = Node::start(|_| {});
    let web = node.pod(6, "web");
    serve_http(&web, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.proxy().apply(gateway(PORT, "/", "web"));
    let host = node.net.node();
    let url = format!("http://127.0.0.1:{PORT}/ok");
    eventually("the gateway answers", || curl(&host, &[&url]).starts_with("web GET /ok"));
    let before = resident_bytes();
    let done = Arc::new(AtomicBool::new(false));
    // Somebody else, all the while: on a new connection each time, the two versions in turn.
    let other = {
        let (host, done, url) = (host.clone(), done.clone(), url.clone());
        std::thread::spawn(move || {
            let (mut served, mut failed) = (0, Vec::new());
            while !done.load(Ordering::Relaxed) {
                let version = if served % 2 == 0 { "--http1.1" } else { "--http2-prior-knowledge" };
                let answer = curl(&host, &["-m", "20", version, &url]);
                served += 1;
                if !answer.starts_with("web GET /ok") {
                    failed.push(answer);
                }
            }
            (served, failed)
        })
    };
    for attack in [rapid_reset as fn(), continuations, pings_and_settings] {
        inside(&host, attack).join().unwrap();
    }
    type Hold = fn() -> Vec<TcpStream>;
    for (name, hold) in [("slow readers", slow_readers as Hold), ("slow writers", slow_writers), ("a crowd", crowd)] {
        let held = inside(&host, hold).join().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let answer = curl(&host, &["-m", "20", &url]);
        assert!(answer.starts_with("web GET /ok"), "{name}: {answer}");
        drop(held);
    }
    done.store(true, Ordering::Relaxed);
    let (served, failed) = other.join().unwrap();
    assert!(served > 0 && failed.is_empty(), "{} of {served} failed: {:?}", failed.len(), failed.first());
    eventually("the memory is given back", || resident_bytes() < before + GROWTH_BYTES);
}

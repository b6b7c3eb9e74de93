//! Callers who do not wait for their answer: the process learns it, through every proxy between them.
mod support;

use model::mesh::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Node, curl, eventually, gateway, inside, listen_in_threads, socket, town};

/// A process on port 8080 that begins every request and ends none: requests that it got, and of these the ones that it saw taken back.
/// `said`: what it answers at once.
fn patient(netns: &str, said: &'static [u8]) -> Arc<[AtomicUsize; 2]> {
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let seen = counts.clone();
    listen_in_threads(netns, move |mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut bytes = [0; 4096];
        if !stream.read(&mut bytes).is_ok_and(|count| count > 0) {
            return;
        }
        seen[0].fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(said);
        loop {
            match stream.read(&mut bytes) {
                Ok(1..) => {}
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        seen[1].fetch_add(1, Ordering::Relaxed);
    });
    counts
}

/// From a pod, and through a gateway, behind which a process is spoken to in HTTP/1.1 whatever its client speaks.
fn everybody_leaves(port: u16, said: &'static [u8]) {
    let mut node = Node::start(|_| {});
    let (client, web, host) = (node.pod(5, "client"), node.pod(6, "web"), node.net.node());
    let counts = patient(&web, said);
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.proxy().apply(gateway(port, "/", "web"));
    let (service, edge) = ("http://10.96.0.50/a".to_owned(), format!("http://127.0.0.1:{port}/a"));
    // More than is kept for another try.
    let long = "x".repeat(100_000);
    let ways: [(&str, &[&str], &str); 9] = [
        (&client, &[], &service),
        (&client, &["-d", "body"], &service),
        (&client, &["-d", "body", "-H", "transfer-encoding: chunked"], &service),
        (&client, &["-d", &long, "-H", "expect:"], &service),
        (&host, &["--http1.1", "-d", "body", "-H", "transfer-encoding: chunked"], &edge),
        (&host, &["--http1.1", "-d", &long, "-H", "expect:"], &edge),
        (&host, &["--http1.1"], &edge),
        (&host, &["--http2-prior-knowledge"], &edge),
        (&host, &["--http2-prior-knowledge", "-d", "body"], &edge),
    ];
    for (index, (netns, args, url)) in ways.into_iter().enumerate() {
        let answer = curl(netns, &[args, &["-m", "2", url]].concat());
        assert!(!answer.contains("HTTP"), "{answer}");
        let now = || [0, 1].map(|which| counts[which].load(Ordering::Relaxed));
        eventually(&format!("the process learns it: {args:?}"), || now() == [index + 1; 2]);
    }
}

/// A caller breaks its connection while a long body waits that the process does not take: nobody reads anything on the way.
#[test]
fn under_a_body_that_nobody_takes() {
    need_root!("under_a_body_that_nobody_takes");
    let mut node = Node::start(|_| {});
    let (client, web, host) = (node.pod(5, "client"), node.pod(6, "web"), node.net.node());
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let seen = counts.clone();
    listen_in_threads(&web, move |mut stream| {
        stream.read_exact(&mut [0; 4]).unwrap();
        seen[0].fetch_add(1, Ordering::Relaxed);
        // Without reading.
        while !stream.take_error().is_ok_and(|error| error.is_some()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        seen[1].fetch_add(1, Ordering::Relaxed);
    });
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.proxy().apply(gateway(25_104, "/", "web"));
    let (service, edge) = (socket(50), SocketAddr::from(([127, 0, 0, 1], 25_104)));
    eventually("the gateway listens", || inside(&host, move || TcpStream::connect(edge).is_ok()).join().unwrap());
    for (index, (netns, to)) in [(&client, service), (&host, edge)].into_iter().enumerate() {
        let mut caller = town::connect(netns, to);
        let head = "POST /a HTTP/1.1\r\nhost: web\r\ncontent-length: 1000000000\r\n\r\n";
        caller.write_all(head.as_bytes()).unwrap();
        caller.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        while caller.write(&[b'x'; 65_536]).is_ok() {}
        assert_eq!([0, 1].map(|which| counts[which].load(Ordering::Relaxed)), [index + 1, index]);
        socket2::SockRef::from(&caller).set_linger(Some(Duration::ZERO)).unwrap();
        drop(caller);
        eventually("the process learns it", || counts[1].load(Ordering::Relaxed) == index + 1);
    }
}

#[test]
fn before_the_answer_begins() {
    need_root!("before_the_answer_begins");
    everybody_leaves(25_101, b"");
}

#[test]
fn within_an_answer() {
    need_root!("within_an_answer");
    everybody_leaves(25_102, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
}

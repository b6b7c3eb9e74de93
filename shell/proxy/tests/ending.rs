//! Every way in which a request can meet a pod that ends. What may be sent again is, to another pod; nobody's client hears of it.
mod support;

use bytes::Bytes;
use model::mesh::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Node, curl, eventually, inside, serve_http};

/// A process on port 8080 of a pod; it counts the connections that it has dealt with.
fn process(netns: &str, mut serve: impl FnMut(TcpStream) + Send + 'static) -> Arc<AtomicUsize> {
    let (ready, started) = std::sync::mpsc::channel();
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    inside(netns, move || {
        let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming().flatten() {
            serve(stream);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    started.recv().unwrap();
    served
}

/// Drops a connection as the kernel does for a process that was killed.
fn kill(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn read_head(stream: &mut TcpStream) -> usize {
    let mut head = [0; 4096];
    stream.read(&mut head).unwrap_or(0)
}

/// Calls in HTTP/2 from a pod, each on a connection of its own; gives the bodies of the answers.
fn http2_calls(
    netns: &str,
    method: &'static str,
    headers: &'static [(&str, &str)],
    body: &'static [u8],
) -> Vec<String> {
    let calls = inside(netns, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let call = async || {
            let stream = tokio::net::TcpStream::connect(support::socket(50)).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let request = http::Request::builder().method(method).uri("http://web/a.B/C");
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            let request = request.body(()).unwrap();
            let (response, mut send) = sender.ready().await.unwrap().send_request(request, body.is_empty()).unwrap();
            if !body.is_empty() {
                send.send_data(Bytes::from_static(body), true).unwrap();
            }
            let response = response.await.unwrap();
            let head = format!("{response:?}");
            let bytes = response.into_body().data().await;
            bytes.map_or(head, |bytes| String::from_utf8_lossy(&bytes.unwrap()).into_owned())
        };
        runtime.block_on(async {
            let mut answers = Vec::new();
            for _ in 0..40 {
                answers.push(call().await);
            }
            answers
        })
    });
    calls.join().unwrap()
}

/// As [`all_go_to_the_second`], in HTTP/2.
fn all_http2_go_to_the_second(
    protocol: AppProtocol,
    (method, headers, body): (&'static str, &'static [(&str, &str)], &'static [u8]),
    bad: impl FnMut(TcpStream) + Send + 'static,
) {
    let mut node = Node::start(|config| config.workers = 1);
    let (client, first, second) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    let met = process(&first, bad);
    serve_http(&second, "second");
    node.service("web", 50, protocol, &[(6, Health::Ready), (7, Health::Ready)]);
    let answers = http2_calls(&client, method, headers, body);
    let length = format!("length={}", body.len());
    let good = |line: &String| line.starts_with(&format!("second {method} ")) && line.contains(&length);
    assert!(answers.iter().all(good), "{answers:?}");
    assert!(met.load(Ordering::Relaxed) > 0);
}

/// Requests from a client pod to a service of two pods, of which the first is bad: all are answered by the second.
fn all_go_to_the_second(protocol: AppProtocol, method: &[&str], bad: impl FnMut(TcpStream) + Send + 'static) -> usize {
    let mut node = Node::start(|config| config.workers = 1);
    let (client, first, second) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    let met = process(&first, bad);
    serve_http(&second, "second");
    node.service("web", 50, protocol, &[(6, Health::Ready), (7, Health::Ready)]);
    let answers = curl(&client, &[method, &["http://10.96.0.50/a"; 40]].concat());
    let good = answers.lines().filter(|line| line.starts_with("second ")).count();
    assert_eq!(good, 40, "{answers}");
    met.load(Ordering::Relaxed)
}

#[test]
fn a_process_that_takes_a_connection_and_dies() {
    need_root!("a_process_that_takes_a_connection_and_dies");
    // As those in the backlog of a process that ends: nothing was read.
    assert!(all_go_to_the_second(AppProtocol::Http, &[], kill) > 0);
}

#[test]
fn a_process_that_reads_a_request_and_dies() {
    need_root!("a_process_that_reads_a_request_and_dies");
    let met = all_go_to_the_second(AppProtocol::Http, &[], |mut stream| {
        read_head(&mut stream);
        kill(stream);
    });
    assert!(met > 0);
}

#[test]
fn a_process_that_reads_a_request_and_ends_in_order() {
    need_root!("a_process_that_reads_a_request_and_ends_in_order");
    let met = all_go_to_the_second(AppProtocol::Http, &["-X", "PUT", "-d", "x"], |mut stream| {
        read_head(&mut stream);
    });
    assert!(met > 0);
}

const GET: (&str, &[(&str, &str)], &[u8]) = ("GET", &[], b"");
const POST: (&str, &[(&str, &str)], &[u8]) = ("POST", &[("content-length", "1")], b"x");
const CALL: (&str, &[(&str, &str)], &[u8]) = ("POST", &[("content-type", "application/grpc")], b"\0\0\0\0\x03abc");

#[test]
fn an_http2_process_that_dies() {
    need_root!("an_http2_process_that_dies");
    all_http2_go_to_the_second(AppProtocol::Http2, GET, |mut stream| {
        read_head(&mut stream);
        kill(stream);
    });
}

/// SETTINGS, and GOAWAY for everything: nothing was processed.
const GOAWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn go_away(mut stream: TcpStream) {
    read_head(&mut stream);
    stream.write_all(GOAWAY).unwrap();
    while read_head(&mut stream) > 0 {}
}

#[test]
fn an_http2_process_that_says_goaway() {
    need_root!("an_http2_process_that_says_goaway");
    // POST: nobody may send it twice, but what was never looked at was not sent.
    all_http2_go_to_the_second(AppProtocol::Http2, POST, go_away);
}

#[test]
fn an_http2_process_that_refuses_streams() {
    need_root!("an_http2_process_that_refuses_streams");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    all_http2_go_to_the_second(AppProtocol::Http2, POST, move |stream| {
        stream.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
        });
    });
}

#[test]
fn a_grpc_call_whose_stream_was_not_looked_at() {
    need_root!("a_grpc_call_whose_stream_was_not_looked_at");
    // A call has no length, so its body is streamed; what was taken of it goes to the other endpoint.
    all_http2_go_to_the_second(AppProtocol::Grpc, CALL, go_away);
}

#[test]
fn a_workload_without_a_proxy_that_dies() {
    need_root!("a_workload_without_a_proxy_that_dies");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, second) = (node.pod(5, "client"), node.pod(7, "web"));
    let bare = node.net.pod(6);
    let met = process(&bare, |mut stream| {
        read_head(&mut stream);
        kill(stream);
    });
    serve_http(&second, "second");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    let answers = curl(&client, &["http://10.96.0.50/a"; 40]);
    assert_eq!(answers.lines().filter(|line| line.starts_with("second ")).count(), 40, "{answers}");
    assert!(met.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_pod_that_is_detached_in_the_middle_of_a_request() {
    need_root!("a_pod_that_is_detached_in_the_middle_of_a_request");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, first, second) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    let met = process(&first, |mut stream| {
        read_head(&mut stream);
        // It never answers, and goes with its pod.
        std::mem::forget(stream);
    });
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let asking = std::thread::spawn(move || curl(&client, &["http://10.96.0.50/a"]));
    eventually("the request is there", || met.load(Ordering::Relaxed) == 1);
    serve_http(&second, "second");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    node.proxy().attacher.detach("uid-6");
    let answer = asking.join().unwrap();
    assert!(answer.starts_with("second GET"), "{answer}");
}

#[test]
fn connections_that_are_there_bring_a_draining_pod_no_request() {
    need_root!("connections_that_are_there_bring_a_draining_pod_no_request");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, old, new) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    serve_http(&old, "old");
    serve_http(&new, "new");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    // Connections to both are made and kept.
    let both = curl(&client, &[&["-Z", "-d", "x"][..], &["http://10.96.0.50/a"; 60]].concat());
    assert!(both.contains("old POST") && both.contains("new POST"), "{both}");
    node.proxy().shared.pods.drain("uid-6");
    // A process that is told to end refuses what it had not read: for a POST that would be a failure.
    let posts = curl(&client, &[&["-d", "x"][..], &["http://10.96.0.50/a"; 60]].concat());
    assert_eq!(posts.lines().filter(|line| line.starts_with("new POST")).count(), 60, "{posts}");
}

#[test]
fn what_is_not_idempotent_is_sent_once() {
    need_root!("what_is_not_idempotent_is_sent_once");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, web) = (node.pod(5, "client"), node.pod(6, "web"));
    let met = process(&web, |mut stream| {
        read_head(&mut stream);
        kill(stream);
    });
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let code =
        ["-o", "/dev/null", "-w", "%{http_code} %header{x-diolkos-unanswered}", "-d", "x", "http://10.96.0.50/a"];
    // What proxies tell each other is not for clients.
    assert_eq!(curl(&client, &code), "503 ");
    assert_eq!(met.load(Ordering::Relaxed), 1);
}

//! Answers arrive as they were given.
mod support;

use diolkos_proxy::mesh::Change;
use http_body_util::{BodyExt, Full};
use model::mesh::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use support::{Node, curl, inside, route, serve_http, serve_requests, socket, to};

fn all_to_web(filters: Vec<Filter>) -> Change {
    route(vec![Rule { matches: vec![Match::default()], filters, backends: vec![to("web", 1)], ..Rule::default() }])
}

#[test]
fn a_length_that_nobody_gave_is_not_announced() {
    need_root!("a_length_that_nobody_gave_is_not_announced");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let head = |path: &str| curl(&client, &["-I", version, &format!("http://10.96.0.50{path}")]).to_lowercase();
        let unknown = head("/chunks");
        assert!(unknown.contains(" 200") && !unknown.contains("content-length"), "{version}: {unknown}");
        assert!(head("/bytes/7").contains("content-length: 7"), "{version}: {}", head("/bytes/7"));
    }
}

#[test]
fn what_an_answer_varies_by_is_added_to() {
    need_root!("what_an_answer_varies_by_is_added_to");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_requests(&server, |_| async {
        let answer = hyper::Response::builder().header("vary", "Accept-Encoding, Cookie");
        answer.header("access-control-allow-origin", "none").body(Full::from("x").boxed()).unwrap()
    });
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let cors = Cors { allow_origins: vec!["https://a.example".into()], ..Cors::default() };
    node.proxy().apply([all_to_web(vec![Filter::Cors(cors)])]);
    let said = curl(&client, &["-i", "-H", "Origin: https://a.example", "http://10.96.0.50/"]).to_lowercase();
    for line in ["vary: accept-encoding, cookie", "vary: origin", "access-control-allow-origin: https://a.example"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("none"), "{said}");
}

/// A client that reads nothing before it has sent everything, as most do.
#[test]
fn an_answer_that_comes_early_is_read() {
    const BODY: usize = 32 << 20;
    need_root!("an_answer_that_comes_early_is_read");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let tea = Filter::Respond(Response { status: 418, body: b"tea".as_slice().into() });
    node.proxy().apply([all_to_web(vec![tea])]);
    let said = inside(&client, || {
        let mut stream = TcpStream::connect(socket(50)).unwrap();
        write!(stream, "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {BODY}\r\n\r\n").unwrap();
        let sent = stream.write_all(&vec![b'x'; BODY]);
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said).map_err(|error| (sent, error))
    });
    let said = said.join().unwrap().unwrap();
    assert!(said.starts_with("HTTP/1.1 418") && said.ends_with("tea"), "{said}");
    // What is no request is told so, however much comes behind it.
    let said = inside(&client, || {
        let mut stream = TcpStream::connect(socket(50)).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
        let _ = stream.write_all(&vec![b'x'; BODY]);
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said)
    });
    assert!(said.join().unwrap().unwrap().starts_with("HTTP/1.1 400"));
}

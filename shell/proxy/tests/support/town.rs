//! A client, a web server and an echo server on one node, and connections between them.
use super::{Node, inside, listen_in_threads, serve_http, socket};
use model::mesh::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Puts them there: services `web` (10.96.0.50) and `echo` (10.96.0.60). The client's namespace.
pub fn settle(node: &mut Node) -> String {
    let (client, server, echo) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "echo"));
    serve_http(&server, "web");
    serve_echo(&echo);
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.service("echo", 60, AppProtocol::Tcp, &[(7, Health::Ready)]);
    client
}

/// A server that sends back what it gets, and speaks first, so that nobody takes it for HTTP.
fn serve_echo(netns: &str) {
    listen_in_threads(netns, |stream| {
        let (mut read, mut write) = (&stream, &stream);
        let _ = write.write_all(b"!");
        let _ = std::io::copy(&mut read, &mut write);
    });
}

/// A connection from a namespace.
pub fn connect(netns: &str, to: SocketAddr) -> TcpStream {
    let open = move || {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    };
    inside(netns, open).join().unwrap()
}

/// A connection to the echo server that has been greeted.
pub fn talk(netns: &str) -> TcpStream {
    let mut stream = connect(netns, socket(60));
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// Whether the echo server answers.
pub fn say(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok() && byte == *b"x"
}

//! A process sees the address of who calls it: under mutual TLS and in plain text, in requests and in opaque bytes.
mod support;

use model::mesh::{AppProtocol, Health};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use support::{Node, address, curl, inside, socket, town};

/// A server that says to each caller which address it sees: in HTTP, on connections that stay; or at once.
fn serve(netns: &str, http: bool) {
    let (ready, started) = std::sync::mpsc::channel();
    inside(netns, move || {
        let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
        ready.send(()).unwrap();
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let seen = stream.peer_addr().unwrap().ip().to_string();
                if !http {
                    return stream.write_all(seen.as_bytes()).unwrap();
                }
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{seen}", seen.len());
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) && stream.write_all(answer.as_bytes()).is_ok()
                {
                }
            });
        }
    });
    started.recv().unwrap();
}

/// What an opaque server says.
fn told(netns: &str, to: SocketAddr) -> String {
    let mut said = String::new();
    town::connect(netns, to).read_to_string(&mut said).unwrap();
    said
}

#[test]
fn processes_see_who_calls() {
    need_root!("processes_see_who_calls");
    let mut node = Node::start(|_| {});
    let (one, two) = (node.pod(5, "one"), node.pod(6, "two"));
    let (web, opaque) = (node.pod(7, "web"), node.pod(8, "opaque"));
    let (outside, home) = (node.net.pod(9), node.net.node());
    serve(&web, true);
    serve(&opaque, false);
    node.service("web", 50, AppProtocol::Http, &[(7, Health::Ready)]);
    node.service("opaque", 60, AppProtocol::Tcp, &[(8, Health::Ready)]);
    let direct = SocketAddr::new(address(7), 8080);
    // Connections to the process are kept: they must not be another caller's.
    for _ in 0..3 {
        for (netns, last) in [(&one, 5), (&two, 6)] {
            for to in [socket(50), direct] {
                assert_eq!(curl(netns, &[&format!("http://{to}/")]), address(last).to_string(), "{to}");
            }
            for to in [socket(60), SocketAddr::new(address(8), 8080)] {
                assert_eq!(told(netns, to), address(last).to_string(), "{to}");
            }
        }
    }
    // In plain text, from no pod of the mesh and from the node.
    for (netns, last) in [(&outside, 9), (&home, 1)] {
        assert_eq!(curl(netns, &[&format!("http://{direct}/")]), address(last).to_string());
        assert_eq!(told(netns, SocketAddr::new(address(8), 8080)), address(last).to_string());
    }
    // A pod that calls itself.
    assert_eq!(curl(&web, &[&format!("http://{}/", socket(50))]), address(7).to_string());
}

/// The caller's own connection, redirected, and the one to the process have the same two addresses: their ports must not meet.
#[test]
fn many_connections_of_one_caller_are_told_apart() {
    need_root!("many_connections_of_one_caller_are_told_apart");
    let mut node = Node::start(|_| {});
    let web = node.pod(7, "web");
    let outside = node.net.pod(9);
    serve(&web, true);
    let to = SocketAddr::new(address(7), 8080);
    let ask = move || {
        let mut open: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(to).unwrap()).collect();
        for stream in &mut open {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
        }
        let seen = address(9).to_string();
        for stream in &mut open {
            stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
            let mut answer = Vec::new();
            let mut piece = [0; 1024];
            while !answer.ends_with(seen.as_bytes()) {
                let read = stream.read(&mut piece).unwrap();
                assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&piece[..read]);
            }
        }
    };
    inside(&outside, ask).join().unwrap();
}

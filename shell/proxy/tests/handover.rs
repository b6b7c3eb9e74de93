//! A proxy's sockets pass to its successor, and nobody notices.
mod support;

use diolkos_proxy::{Config, Proxy, handover};
use model::mesh::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use support::town::{self, connect, say};
use support::{Node, curl, eventually, inside, under_load, workload};
use xds::attach::{AttachOrder, AttachRequest, PodRef, encode};

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("diolkos-{name}-{}.sock", std::process::id()))
}

/// Asks over a connection that is kept; the answer's head.
fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head
}

/// A node with a client, a web server and an echo server.
fn node(socket: &std::path::Path) -> (Node, String) {
    let socket = socket.to_owned();
    let mut node = Node::start(move |config| config.handover_socket = Some(socket));
    let client = town::settle(&mut node);
    (node, client)
}

fn serve_orders(node: &Node, path: &std::path::Path) {
    let attacher = node.proxy().attacher.clone();
    let listener = {
        let _entered = node.proxy().runtime().enter();
        attacher.listen(path).unwrap()
    };
    node.proxy().runtime().spawn(attacher.serve(listener));
}

/// A node agent that gives one order after the other, and comes again when its connection ends.
struct Orders {
    done: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Orders {
    fn start(path: &std::path::Path) -> Self {
        let this = Self { done: Arc::default(), over: Arc::default() };
        let (path, done, over) = (path.to_owned(), this.done.clone(), this.over.clone());
        let order = AttachRequest { id: 1, order: AttachOrder::Drain(PodRef { uid: "none".into() }) };
        let order = encode(&order).unwrap();
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
                let Ok(mut agent) = UnixStream::connect(&path) else { continue };
                while agent.write_all(&order).is_ok() && agent.read(&mut [0; 64]).is_ok_and(|read| read > 0) {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        this
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_successor_takes_over_without_a_failed_request() {
    need_root!("a_successor_takes_over_without_a_failed_request");
    let (socket, attach) = (path("handover"), path("handover-attach"));
    let (mut node, client) = node(&socket);
    serve_orders(&node, &attach);
    let orders = Orders::start(&attach);
    let stop = Arc::new(AtomicBool::new(false));
    let load = under_load(&client, &stop);
    let mut long = connect(&client, support::socket(60));
    assert_eq!(long.read(&mut [0]).unwrap(), 1);
    let mut kept = connect(&client, support::socket(50));
    assert!(!ask(&mut kept).contains("connection: close"));
    // The new one has other workers, and learns all by itself.
    let (issuer, roots, at, attach_at) =
        (node.issuer.clone(), node.issuer.root_pem().to_owned(), socket.clone(), attach.clone());
    let succeeded = inside(&node.net.node(), move || {
        let taken = handover::take(&at).unwrap().expect("somebody is there");
        let config = Config {
            node_name: "node".into(),
            workers: 3,
            handover_socket: Some(at),
            attach_socket: Some(attach_at),
            ..Config::default()
        };
        let successor = Proxy::succeed(config, issuer, taken).unwrap();
        successor.proxy.shared.identities.set_roots([roots.as_str()].into_iter());
        let known = [(5, "client"), (6, "web"), (7, "echo")];
        let known = known.map(|(last, account)| Resource::Workload(Arc::new(workload(last, account))));
        successor.proxy.apply(known.into_iter().map(diolkos_proxy::mesh::Change::Set));
        successor.proxy.apply(support::service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]));
        successor.proxy.apply(support::service("echo", 60, AppProtocol::Tcp, &[(7, Health::Ready)]));
        successor.proxy.shared.set_synced();
        successor.begin(Duration::from_secs(10)).unwrap()
    });
    let old = node.proxy.replace(succeeded.join().unwrap()).unwrap();
    eventually("the old one leaves", || old.shared.is_stopping());
    assert!(!node.proxy().shared.is_stopping());
    assert!(say(&mut long), "what runs goes on");
    assert!(ask(&mut kept).contains("connection: close"), "an idle connection is told to close with its next answer");
    let before = orders.done();
    eventually("the successor takes the node agent's orders", || orders.done() > before + 5);
    std::thread::sleep(Duration::from_secs(1));
    let ended = std::thread::spawn(move || {
        old.runtime().block_on(old.leave(Duration::from_secs(30)));
        old.stop();
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(say(&mut long) && !ended.is_finished(), "it waits for what runs");
    drop((long, kept));
    ended.join().unwrap();
    let before = node.edges().len();
    assert!(curl(&client, &["http://10.96.0.50/a"; 20]).lines().all(|line| line.starts_with("web GET /a")));
    assert!(before > 0, "the successor counts requests");
    stop.store(true, Ordering::Relaxed);
    let (answers, failures) = load.join().unwrap();
    assert!(failures.is_empty() && answers > 0, "{answers} answers, failures: {failures:?}");
    // And it can be succeeded itself.
    let again = handover::take(&socket).unwrap();
    assert_eq!(again.expect("it is there").0.pods.len(), 3);
    assert!(attach.exists());
}

#[test]
fn a_successor_that_dies_leaves_the_old_one_serving() {
    need_root!("a_successor_that_dies_leaves_the_old_one_serving");
    let (socket, attach) = (path("crash"), path("crash-attach"));
    let (node, client) = node(&socket);
    serve_orders(&node, &attach);
    let orders = Orders::start(&attach);
    let stop = Arc::new(AtomicBool::new(false));
    let load = under_load(&client, &stop);
    for _ in 0..3 {
        let taken = handover::take(&socket).unwrap().expect("somebody is there");
        assert_eq!(taken.0.pods.len(), 3);
        std::thread::sleep(Duration::from_millis(100));
        drop(taken);
    }
    // One that comes and says nothing of use.
    let stranger = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
    stranger.connect(&socket2::SockAddr::unix(&socket).unwrap()).unwrap();
    stranger.send(b"{\"take\":{\"version\":99}}").unwrap();
    let mut answer = [0; 512];
    let length = (&stranger).read(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).contains("refused"));
    drop(stranger);
    let before = orders.done();
    eventually("orders are taken again", || orders.done() > before + 5);
    stop.store(true, Ordering::Relaxed);
    let (answers, failures) = load.join().unwrap();
    assert!(failures.is_empty() && answers > 0, "{answers} answers, failures: {failures:?}");
    assert!(!node.proxy().shared.is_stopping());
}

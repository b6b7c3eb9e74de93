//! What a DestinationRule says of connections: TLS to the world outside, how long they are kept, how much they carry.
mod support;

use diolkos_proxy::identity::Issuer;
use diolkos_proxy::mesh::Change;
use futures_util::FutureExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::Key;
use model::mesh::traffic::{ConnectionPool, Keepalive, Pings};
use model::mesh::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use support::{NODE, Node, curl, inside, service, socket};

/// The service `name` at 10.96.0.`vip`:80 whose only endpoint is a server on the node, outside the mesh, with a policy.
fn outside(name: &str, vip: u8, port: u16, protocol: AppProtocol, policy: TrafficPolicy) -> Vec<Change> {
    let mut changes = service(name, vip, protocol, &[]);
    for change in &mut changes {
        match change {
            Change::Set(Resource::Service(service)) => {
                let mut changed = Service::clone(service);
                changed.ports[0].traffic = Some(Arc::new(policy.clone()));
                *service = Arc::new(changed);
            }
            Change::Set(Resource::Endpoints(group)) => {
                let mut changed = EndpointGroup::clone(group);
                changed.ports = vec![("main".into(), port)];
                changed.endpoints = vec![Endpoint::at(NODE.parse().unwrap())];
                *group = Arc::new(changed);
            }
            _ => {}
        }
    }
    changes
}

fn under(tls: BackendTls) -> TrafficPolicy {
    TrafficPolicy { tls: Some(Arc::new(tls)), ..TrafficPolicy::default() }
}

struct Issued {
    certificate: String,
    key: String,
}

/// A certificate authority, and certificates of it.
fn issue(names: &[&str]) -> (String, Vec<Issued>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let one = |name: &&str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![(*name).to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    };
    (root, names.iter().map(one).collect())
}

/// A server under TLS, on the node. It says which name it was asked for, and how many certificates its client showed.
fn serve_tls(netns: &str, port: u16, own: &Issued, clients: &str) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (ready, started) = mpsc::channel();
    inside(netns, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind(("0.0.0.0", port)).await.unwrap();
            ready.send(()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let shown = session.peer_certificates().map_or(0, <[_]>::len);
                    let line = format!("asked for {} shown {shown}\n", session.server_name().unwrap_or("nobody"));
                    let service = service_fn(move |_| {
                        let line = line.clone();
                        async move { Ok::<_, std::convert::Infallible>(hyper::Response::new(line)) }
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    started.recv().unwrap();
}

#[test]
fn tls_is_begun_for_plain_callers() {
    need_root!("tls_is_begun_for_plain_callers");
    let mut node = Node::start(|_| {});
    let client = node.pod(5, "client");
    let (root, issued) = issue(&["api.example", "client.example"]);
    let (other_root, _) = issue(&[]);
    serve_tls(&node.net.node(), 9443, &issued[0], &root);
    node.certificate("client", &issued[1].certificate, &issued[1].key);
    let simple = BackendTls { hostname: "api.example".into(), roots: vec![root.as_str().into()], ..Default::default() };
    let call = |tls: &BackendTls, protocol: AppProtocol| {
        node.proxy().apply(outside("api", 60, 9443, protocol, under(tls.clone())));
        curl(&client, &["-w", "%{http_code}", "http://10.96.0.60/"])
    };
    assert_eq!(call(&simple, AppProtocol::Http), "asked for api.example shown 0\n200");
    let mutual = BackendTls { certificate: Some(Key::new("default", "client")), ..simple.clone() };
    assert_eq!(call(&mutual, AppProtocol::Http), "asked for api.example shown 1\n200");
    let raw = call(&mutual, AppProtocol::Tcp);
    assert_eq!(raw, "asked for api.example shown 1\n200", "a connection that is passed whole, too");
    let named = |name: &str| BackendTls { names: vec![SubjectName::Dns(name.into())], ..simple.clone() };
    assert!(call(&named("api.example"), AppProtocol::Http).ends_with("200"));
    for bad in [
        named("www.example"),
        BackendTls { hostname: "www.example".into(), ..simple.clone() },
        BackendTls { roots: vec![other_root.as_str().into()], ..simple.clone() },
        BackendTls { flaw: "a file".into(), ..simple.clone() },
    ] {
        assert!(call(&bad, AppProtocol::Http).ends_with("503"), "{bad:?}");
    }
    let any = BackendTls { insecure: true, hostname: "www.example".into(), roots: vec![], ..simple };
    assert_eq!(call(&any, AppProtocol::Http), "asked for www.example shown 0\n200");
}

/// ISTIO_MUTUAL with a host outside: both show certificates of the mesh.
#[test]
fn the_meshs_tls_is_begun_with_hosts_outside() {
    need_root!("the_meshs_tls_is_begun_with_hosts_outside");
    let mut node = Node::start(|_| {});
    let client = node.pod(5, "client");
    let identity = "spiffe://cluster.local/ns/far/sa/api";
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let chain = node.issuer.sign(identity, request).now_or_never().unwrap().unwrap();
    let own = Issued { certificate: chain[0].clone(), key: key.serialize_pem() };
    serve_tls(&node.net.node(), 9444, &own, node.issuer.root_pem());
    let (_, strangers) = issue(&["api.example"]);
    serve_tls(&node.net.node(), 9445, &strangers[0], node.issuer.root_pem());
    let mesh = BackendTls { hostname: "outbound_.80_._.api".into(), mesh: true, ..Default::default() };
    let call = |port: u16, tls: &BackendTls, protocol: AppProtocol| {
        node.proxy().apply(outside("api", 60, port, protocol, under(tls.clone())));
        curl(&client, &["-w", "%{http_code}", "http://10.96.0.60/"])
    };
    let shown = format!("asked for outbound_.80_._.api shown {}\n200", chain.len() - 1);
    for protocol in [AppProtocol::Http, AppProtocol::Http2, AppProtocol::Tcp] {
        assert_eq!(call(9444, &mesh, protocol), shown, "{protocol:?}");
    }
    let named = |name: &str| BackendTls { names: vec![SubjectName::Uri(name.into())], ..mesh.clone() };
    assert_eq!(call(9444, &named(identity), AppProtocol::Http), shown);
    let another = named("spiffe://cluster.local/ns/far/sa/another");
    assert!(call(9444, &another, AppProtocol::Http).ends_with("503"), "another identity");
    assert!(call(9445, &mesh, AppProtocol::Http).ends_with("503"), "no certificate of the mesh");
}

/// Answers each request, on connections that stay open; counts connections.
fn serve_counted(netns: &str, port: u16) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let (ready, started) = mpsc::channel();
    inside(netns, move || {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut bytes = [0; 4_096];
                while stream.read(&mut bytes).is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                }
            });
        }
    });
    started.recv().unwrap();
    count
}

/// An HTTP/2 server that answers with the port that its client's connection comes from; to `/together` when four have asked.
fn serve_together(netns: &str, port: u16) {
    let (ready, started) = mpsc::channel();
    inside(netns, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind(("0.0.0.0", port)).await.unwrap();
            let four = Arc::new(tokio::sync::Barrier::new(4));
            ready.send(()).unwrap();
            loop {
                let Ok((stream, from)) = listener.accept().await else { return };
                let four = four.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                        let four = four.clone();
                        async move {
                            if request.uri().path() == "/together" {
                                four.wait().await;
                            }
                            Ok::<_, std::convert::Infallible>(hyper::Response::new(from.port().to_string()))
                        }
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    started.recv().unwrap();
}

#[test]
fn connections_are_kept_as_long_as_the_policy_says() {
    need_root!("connections_are_kept_as_long_as_the_policy_says");
    // One worker: each has connections of its own.
    let mut node = Node::start(|config| config.workers = 1);
    let client = node.pod(5, "client");
    let count = serve_counted(&node.net.node(), 9080);
    let opened = |protocol: AppProtocol, pool: ConnectionPool, pause: Duration| {
        // Another service each time: its connections are its own.
        static NEXT: AtomicUsize = AtomicUsize::new(61);
        let vip = NEXT.fetch_add(1, Ordering::SeqCst) as u8;
        let policy = TrafficPolicy { pool, ..TrafficPolicy::default() };
        node.proxy().apply(outside(&format!("s{vip}"), vip, 9080, protocol, policy));
        let before = count.load(Ordering::SeqCst);
        for _ in 0..4 {
            assert_eq!(curl(&client, &[&format!("http://10.96.0.{vip}/")]), "ok");
            std::thread::sleep(pause);
        }
        count.load(Ordering::SeqCst) - before
    };
    let none = ConnectionPool::default();
    assert_eq!(opened(AppProtocol::Http, none, Duration::ZERO), 1);
    let two = ConnectionPool { max_requests_per_connection: 2, ..none };
    assert_eq!(opened(AppProtocol::Http, two, Duration::ZERO), 2);
    let idle = ConnectionPool { idle_timeout_ms: 50, ..none };
    assert_eq!(opened(AppProtocol::Http, idle, Duration::from_millis(200)), 4);

    // So many streams at once on a connection: the next ones open another.
    serve_together(&node.net.node(), 9081);
    let opened_for = |vip: u8, max_streams: u32| {
        let keepalive = Some(Keepalive { time_s: 60, ..Keepalive::default() });
        let policy =
            TrafficPolicy { pool: ConnectionPool { max_streams, keepalive, ..none }, ..TrafficPolicy::default() };
        node.proxy().apply(outside(&format!("s{vip}"), vip, 9081, AppProtocol::Http2, policy));
        let first = curl(&client, &["--http2-prior-knowledge", &format!("http://10.96.0.{vip}/")]);
        let together = || {
            let (client, url) = (client.clone(), format!("http://10.96.0.{vip}/together"));
            std::thread::spawn(move || curl(&client, &["--http2-prior-knowledge", &url]))
        };
        let running: Vec<_> = (0..4).map(|_| together()).collect();
        let mut ports: BTreeSet<String> = running.into_iter().map(|it| it.join().unwrap()).collect();
        ports.insert(first);
        ports.len()
    };
    assert_eq!(opened_for(81, 0), 1);
    assert!((2..=3).contains(&opened_for(82, 2)), "two and two, or one each for those that found none");

    // A connection that is passed whole ends by itself.
    let pool = ConnectionPool { tcp_idle_timeout_ms: 2_000, connect_timeout_ms: 2_000, ..none };
    let policy = TrafficPolicy { pool, ..TrafficPolicy::default() };
    node.proxy().apply(outside("raw", 70, 9080, AppProtocol::Tcp, policy));
    let ended = inside(&client, || {
        let mut stream = TcpStream::connect(socket(70)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"x").unwrap();
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes);
        (String::from_utf8_lossy(&bytes).contains("ok"), end.map_err(|error| error.kind()))
    });
    let (answered, end) = ended.join().unwrap();
    assert!(answered, "it lived while bytes came");
    assert!(!matches!(end, Err(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)), "{end:?}");
}

/// Servers that speak HTTP/2 and then say nothing more, or answer late, are told apart by PING.
#[test]
fn who_answers_no_ping_is_gone() {
    need_root!("who_answers_no_ping_is_gone");
    let mut node = Node::start(|_| {});
    let client = node.pod(5, "client");
    let slow = node.pod(6, "slow");
    support::serve_http(&slow, "slow");
    let (ready, started) = mpsc::channel();
    inside(&node.net.node(), move || {
        let listener = TcpListener::bind("0.0.0.0:9082").unwrap();
        ready.send(()).unwrap();
        let mut open = Vec::new();
        for stream in listener.incoming().flatten() {
            // SETTINGS, and then silence.
            (&stream).write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
            open.push(stream);
        }
    });
    started.recv().unwrap();
    let policy = |pings| TrafficPolicy {
        pool: ConnectionPool { pings, ..ConnectionPool::default() },
        ..TrafficPolicy::default()
    };
    let often = Pings { interval_ms: 50, timeout_ms: 100 };
    node.proxy().apply(outside("dead", 90, 9082, AppProtocol::Http2, policy(None)));
    node.proxy().apply(outside("asked", 91, 9082, AppProtocol::Http2, policy(Some(often))));
    let mut changes = service("slow", 92, AppProtocol::Http2, &[(6, Health::Ready)]);
    if let Change::Set(Resource::Service(service)) = &mut changes[0] {
        Arc::make_mut(service).ports[0].traffic = Some(Arc::new(policy(Some(Pings { timeout_ms: 2_000, ..often }))));
    }
    node.proxy().apply(changes);
    let status = |vip: u8, path: &str| {
        let url = format!("http://10.96.0.{vip}{path}");
        let patience = if path == "/slow" { "20" } else { "4" };
        let args = ["-m", patience, "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", &url];
        let told = support::curl_output(&client, &args);
        String::from_utf8_lossy(&told.stdout).into_owned()
    };
    assert_eq!(status(90, "/"), "000", "nobody asks: the client gives up first");
    assert_eq!(status(91, "/"), "503", "its connection is over");
    assert_eq!(status(92, "/slow"), "200", "it answers each PING while it works");
}

//! HBONE beside istio/ztunnel: what it sends is taken, what it says is understood, and what nobody should ask for gets nowhere.
mod support;

use bytes::Bytes;
use diolkos_proxy::identity::trust::RootId;
use diolkos_proxy::identity::{LocalIssuer, spiffe};
use model::mesh::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, ServerConfig, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use support::frames::*;
use support::tls::{certificate, client, roots};
use support::{Node, address, curl, eventually, inside, serve_http, town, workload};

type Tunnel = Peer<StreamOwned<ClientConnection, TcpStream>>;

fn open(netns: &str, config: &Arc<ClientConfig>) -> Tunnel {
    let stream = town::connect(netns, SocketAddr::new(address(6), 15_008));
    let name = ServerName::IpAddress(address(6).into());
    Peer::open(StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream))
}

fn head(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(fields))
}

fn to(authority: &str) -> [(&'static str, &str); 2] {
    [(":method", "CONNECT"), (":authority", authority)]
}

/// What a tunnel's head comes to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Status(u16),
    /// Reset, or the connection ended.
    Broken,
}
use Verdict::*;

fn verdict(tunnel: &mut Tunnel, stream: u32, bytes: &[u8]) -> Verdict {
    tunnel.send(bytes);
    match tunnel.head(stream) {
        Ok(status) => Status(status),
        Err(Outcome::Silence) => panic!("no answer"),
        Err(_) => Broken,
    }
}

/// A request and its answer, as one DATA frame each.
fn ask(tunnel: &mut Tunnel, stream: u32) -> String {
    tunnel.send(&frame(DATA, 0, stream, b"GET /through HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    let mut answer = Vec::new();
    loop {
        match tunnel.read() {
            Ok(came) if came.kind == DATA && came.stream == stream => {
                answer.extend_from_slice(&came.payload);
                if came.flags & END_STREAM != 0 {
                    break;
                }
            }
            Ok(came) if came.kind == GOAWAY || came.kind == RST_STREAM => break,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn heads_of_tunnels() {
    need_root!("heads_of_tunnels");
    let mut node = Node::start(|_| {});
    let web = node.pod(6, "web");
    serve_http(&web, "web");
    let zt = node.net.pod(8);
    node.proxy().apply([diolkos_proxy::mesh::Change::Set(Resource::Workload(Arc::new(workload(8, "zt"))))]);
    let config = client(&node.issuer, Some((&node.issuer, "spiffe://cluster.local/ns/default/sa/zt")), &["h2"]);
    let good = to("10.250.0.6:8080");
    let with = |more: &[(&str, &str)]| head(1, &[&good[..], more].concat());
    let long = "x=y,".repeat(5_000);
    for (what, bytes, expect) in [
        (
            "ztunnel's",
            with(&[
                (
                    "baggage",
                    "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.pod.name=zt-8,service.name=zt,service.version=latest",
                ),
                ("forwarded", "for=10.250.0.8;host=web.default.svc.cluster.local;proto=hbone"),
                ("traceparent", "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01"),
            ]),
            Status(200),
        ),
        ("a gateway's of another network", with(&[("x-forwarded-network", "far")]), Status(200)),
        (
            "fields that make no sense",
            with(&[
                ("baggage", "\u{ff}=;;,%zz"),
                ("forwarded", "for=\"[::1\";;host"),
                ("traceparent", "00-x-y"),
                ("x-diolkos-draining", "perhaps"),
            ]),
            Status(200),
        ),
        ("more fields than are read", with(&[("baggage", &long)]), Status(431)),
        ("the same address in IPv6", head(1, &to("[::ffff:10.250.0.6]:8080")), Status(400)),
        ("another's address", head(1, &to("10.250.0.5:8080")), Status(400)),
        ("the node's", head(1, &to("127.0.0.1:15020")), Status(400)),
        ("a name", head(1, &to("web.default.svc.cluster.local:80")), Status(400)),
        ("no port", head(1, &to("10.250.0.6")), Status(400)),
        ("an empty port", head(1, &to("10.250.0.6:")), Status(400)),
        ("a port above all", head(1, &to("10.250.0.6:65536")), Status(400)),
        ("the proxy's own port", head(1, &to("10.250.0.6:15008")), Status(400)),
        ("the proxy's own outbound port", head(1, &to("10.250.0.6:15001")), Status(400)),
        ("somebody's name before it", head(1, &to("me@10.250.0.6:8080")), Status(400)),
        ("an address in octal", head(1, &to("012.250.0.6:8080")), Status(400)),
        ("an empty authority", head(1, &to("")), Broken),
        ("no authority", head(1, &[(":method", "CONNECT")]), Status(400)),
        ("a path", head(1, &[&good[..], &[(":scheme", "http"), (":path", "/")]].concat()), Broken),
        (
            "another protocol",
            head(1, &[&good[..], &[(":protocol", "websocket"), (":scheme", "http"), (":path", "/")]].concat()),
            Broken,
        ),
        ("a request", frame(HEADERS, END_HEADERS, 1, GET), Status(405)),
        ("a name in capitals", with(&[("Baggage", "a")]), Broken),
        ("a line's end", with(&[("baggage", "a\r\nx: y")]), Broken),
    ] {
        let mut tunnel = open(&zt, &config);
        assert_eq!(verdict(&mut tunnel, 1, &bytes), expect, "{what}");
        if expect == Status(200) {
            let answer = ask(&mut tunnel, 1);
            let vouched =
                "identity=By=spiffe://cluster.local/ns/default/sa/web;URI=spiffe://cluster.local/ns/default/sa/zt";
            assert!(answer.contains("web GET /through") && answer.contains(vouched), "{what}: {answer}");
        }
    }
    strangers(&node, &zt);
    authorities(&zt, &config);
}

/// Who proves no identity of the trust domain opens no tunnel.
fn strangers(node: &Node, netns: &str) {
    let other = LocalIssuer::generate(3_600).unwrap();
    let ours = &*node.issuer;
    for (what, identity) in [
        ("nobody", None),
        ("of another root", Some((&other, "spiffe://cluster.local/ns/default/sa/zt"))),
        ("of another trust domain", Some((ours, "spiffe://elsewhere/ns/default/sa/zt"))),
        ("of a longer trust domain", Some((ours, "spiffe://cluster.local.elsewhere/ns/default/sa/zt"))),
        ("without a path", Some((ours, "spiffe://cluster.local"))),
        ("of another form", Some((ours, "spiffe://cluster.local/default/zt"))),
        ("of another scheme", Some((ours, "https://cluster.local/ns/default/sa/zt"))),
    ] {
        let mut tunnel = open(netns, &client(ours, identity, &["h2"]));
        assert_eq!(verdict(&mut tunnel, 1, &head(1, &to("10.250.0.6:8080"))), Broken, "{what}");
    }
}

/// Whatever is asked for: the pod's own process, or nothing.
fn authorities(netns: &str, config: &Arc<ClientConfig>) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(300) });
    let piece =
        prop_oneof!["[!-~]{0,12}", "10\\.250\\.0\\.[0-9]{1,3}", "\\[[0-9a-f:]{0,20}\\]", ":[0-9]{0,6}", "[%@/?#\\\\ ]"];
    let texts = proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat());
    let result = runner.run(&texts, |authority| {
        let verdict = verdict(&mut open(netns, config), 1, &head(1, &to(&authority)));
        let reached = matches!(verdict, Status(200 | 503));
        prop_assert!(!reached || authority.starts_with("10.250.0.6:"), "{:?}: {:?}", authority, verdict);
        Ok(())
    });
    result.unwrap();
}

/// What a proxy that is not ours was asked: by whom, the method and authority, its fields.
type Asked = (String, String, http::HeaderMap);

/// Another's inbound: it takes tunnels for the port 8080 and refuses all others, as ztunnel's policies do.
fn serve_tunnels(netns: &str, issuer: &LocalIssuer) -> mpsc::Receiver<Asked> {
    let (chain, key) = certificate(issuer, "spiffe://cluster.local/ns/default/sa/zt");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots(issuer), provider.clone()).build().unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let ((asked, questions), (ready, started)) = (mpsc::channel(), mpsc::channel());
    inside(netns, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("0.0.0.0:15008").await.unwrap();
            ready.send(()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, asked) = (acceptor.clone(), asked.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let who = chain.first().and_then(spiffe::of_certificate).unwrap_or_default();
                    let Ok(mut tunnel) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = tunnel.accept().await {
                        let what = format!("{} {}", request.method(), request.uri());
                        let _ = asked.send((who.clone(), what, request.headers().clone()));
                        tokio::spawn(tunnelled(request, respond));
                    }
                });
            }
        });
    });
    started.recv().unwrap();
    questions
}

/// One stream: refused, or an answer to whatever comes.
async fn tunnelled(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let mut response = http::Response::new(());
    if request.uri().port_u16() != Some(8080) {
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        let _ = respond.send_response(response, true);
        return;
    }
    response.headers_mut().insert("baggage", "k8s.pod.name=zt-8".parse().unwrap());
    let Ok(mut send) = respond.send_response(response, false) else { return };
    let mut body = request.into_body();
    if let Some(Ok(bytes)) = body.data().await {
        let _ = body.flow_control().release_capacity(bytes.len());
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfrom afar";
        let _ = send.send_data(Bytes::from_static(answer.as_bytes()), false);
        // Until the other side has enough.
        while body.data().await.is_some() {}
    }
}

#[test]
fn a_proxy_that_is_not_ours() {
    need_root!("a_proxy_that_is_not_ours");
    let mut node = Node::start(|_| {});
    let client = node.pod(5, "client");
    let zt = node.net.pod(8);
    node.proxy().apply([diolkos_proxy::mesh::Change::Set(Resource::Workload(Arc::new(workload(8, "zt"))))]);
    let questions = serve_tunnels(&zt, &node.issuer);
    node.service("zt", 70, AppProtocol::Http, &[(8, Health::Ready)]);
    let mut refused = support::service("no", 71, AppProtocol::Http, &[]);
    for change in &mut refused {
        if let diolkos_proxy::mesh::Change::Set(Resource::Endpoints(group)) = change {
            let group = Arc::make_mut(group);
            group.ports = vec![("main".into(), 9090)];
            group.endpoints =
                vec![Endpoint { workload: "pod/default/zt-8".into(), node: "node".into(), ..Endpoint::at(address(8)) }];
        }
    }
    node.proxy().apply(refused);
    assert_eq!(curl(&client, &["http://10.96.0.70/"]), "from afar");
    let (who, what, fields) = questions.recv().unwrap();
    assert_eq!(
        (who.as_str(), what.as_str()),
        ("spiffe://cluster.local/ns/default/sa/client", "CONNECT 10.250.0.8:8080")
    );
    assert!(fields["baggage"].to_str().unwrap().contains("k8s.pod.name=client-5"), "{fields:?}");
    // ztunnel's word for what a policy refuses. It is no reason to call the endpoint unhealthy, nor to ask again.
    let said = curl(&client, &["-w", " %{http_code}", "http://10.96.0.71/"]);
    assert_eq!(said, "RBAC: access denied 403");
    assert_eq!(questions.recv().unwrap().1, "CONNECT 10.250.0.8:9090");
    assert!(questions.try_recv().is_err(), "a refusal is not asked about twice");
}

/// As where a pod's network goes before its connections.
#[test]
fn a_caller_that_vanished_is_let_go() {
    need_root!("a_caller_that_vanished_is_let_go");
    let mut node = Node::start(|_| {});
    let web = node.pod(6, "web");
    serve_http(&web, "web");
    let zt = node.net.pod(8);
    let own = (&*node.issuer, "spiffe://cluster.local/ns/default/sa/zt");
    let mut tunnel = open(&zt, &client(&node.issuer, Some(own), &["h2"]));
    assert_eq!(verdict(&mut tunnel, 1, &head(1, &to("10.250.0.6:8080"))), Status(200));
    let direct = town::connect(&zt, SocketAddr::new(address(6), 8080));
    let session =
        ClientConnection::new(client(&node.issuer, Some(own), &["istio"]), ServerName::IpAddress(address(6).into()));
    let mut direct = StreamOwned::new(session.unwrap(), direct);
    direct.write_all(b"GET /a HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
    assert!(direct.read(&mut [0; 64]).unwrap() > 0);
    let resting =
        || node.proxy().shared.identities.anchors().resting_besides(RootId::of(&CertificateDer::from(vec![])));
    assert_eq!(resting(), 4, "two ends of each");
    // The kernel acknowledges after 40 ms; an answer that was not acknowledged is sent again for a quarter of an hour.
    std::thread::sleep(Duration::from_millis(200));
    let down = Command::new("ip").args(["-n", &zt, "link", "set", "eth0", "down"]).status();
    assert!(down.unwrap().success());
    eventually("both are let go", || resting() == 0);
}

/// As where a machine is off: what waits for the same tunnel waits for it once, and not one after the other.
#[test]
fn a_tunnel_that_does_not_open_is_waited_for_once() {
    need_root!("a_tunnel_that_does_not_open_is_waited_for_once");
    const TOGETHER: usize = 40;
    let mut node = Node::start(|_| {});
    let silent = node.net.pod(9);
    let caller = node.pod(5, "client");
    let _listener = inside(&silent, || TcpListener::bind("0.0.0.0:15008").unwrap()).join().unwrap();
    node.proxy().apply([diolkos_proxy::mesh::Change::Set(Resource::Workload(Arc::new(workload(9, "web"))))]);
    node.proxy().apply(support::service("web", 50, AppProtocol::Http, &[(9, Health::Ready)]));
    let ask = |netns: String| {
        move || curl(&netns, &["-m", "60", "-o", "/dev/null", "-w", "%{http_code}", "http://10.96.0.50/a"])
    };
    // Each tries the only endpoint several times, for 4 s.
    let together: Vec<_> = (0..TOGETHER).map(|_| std::thread::spawn(ask(caller.clone()))).collect();
    assert!(together.into_iter().all(|one| one.join().unwrap() == "503"), "all are told within a minute");
}

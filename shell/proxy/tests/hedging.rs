//! A request that is slow is sent to another endpoint beside the first: the first good answer is passed on, and the other try is cancelled.
mod support;

use bytes::Bytes;
use diolkos_proxy::mesh::Change;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::mesh::attached::{AttachedPolicy, Hedging, PolicyTarget};
use model::mesh::*;
use model::{Key, Timestamp};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Node, curl, inside, service};

/// An answer that is not at once takes so long.
const LATE: Duration = Duration::from_millis(1_500);

/// What a process saw.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
}

/// A process that answers with what `answer` says; None: never. It counts requests.
fn serve(netns: &str, answer: impl Fn() -> Option<(u16, &'static str)> + Send + Sync + 'static) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let (counted, answer) = (seen.clone(), Arc::new(answer));
    let (ready, started) = std::sync::mpsc::channel();
    inside(netns, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await.unwrap();
            ready.send(()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (counted.clone(), answer.clone());
                let service =
                    service_fn(move |_: hyper::Request<hyper::body::Incoming>| reply(seen.clone(), answer.clone()));
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    started.recv().unwrap();
    seen
}

async fn reply(
    seen: Arc<Seen>,
    answer: Arc<impl Fn() -> Option<(u16, &'static str)>>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let Some((status, body)) = answer() else { return std::future::pending().await };
    if status == 200 && body != "good\n" {
        tokio::time::sleep(LATE).await;
    }
    Ok(hyper::Response::builder().status(status).body(Full::from(body)).unwrap())
}

fn hedging(target: PolicyTarget, after_ms: Option<u64>) -> Change {
    let hedging = Some(Hedging { after_ms, most: 1 });
    let key = Key::new("default", "hedging");
    let policy = AttachedPolicy { key, targets: vec![target], hedging, ..AttachedPolicy::default() };
    Change::Set(Resource::AttachedPolicy(Arc::new(policy)))
}

fn on_service() -> PolicyTarget {
    PolicyTarget::Service { service: Key::new("default", "web"), port: "".into() }
}

fn on_route() -> PolicyTarget {
    PolicyTarget::Route { route: "HTTPRoute/default/r".into(), rule: "".into() }
}

/// A route whose tries have so long, and that asks again after 503.
fn route(try_ms: u64) -> Change {
    let service = Key::new("default", "web");
    let target = BackendTarget::Service { service: service.clone(), port: 80 };
    Change::Set(Resource::Route(Arc::new(Route {
        name: "HTTPRoute/default/r".into(),
        key: Key::new("default", "r"),
        kind: RouteKind::Http,
        created: Timestamp(1),
        parents: vec![Parent {
            target: ParentTarget::Service { service, port: None, consumer: None },
            hostnames: vec![],
        }],
        rules: vec![Rule {
            matches: vec![Match::default()],
            backends: vec![Backend { target, weight: 1, filters: vec![] }],
            timeouts: Timeouts { request_ms: None, backend_request_ms: Some(try_ms) },
            retry: Some(Retry { attempts: 1, backoff_ms: Some(1), codes: vec![503] }),
            ..Rule::default()
        }],
        ordered: false,
    })))
}

fn hedges(node: &Node) -> (u64, u64) {
    let text = node.proxy().shared.hedges.prometheus();
    let of = |result: &str| {
        let name = format!("diolkos_proxy_hedges_total{{result=\"{result}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    };
    (of("sent"), of("won"))
}

const URL: &str = "http://10.96.0.50/a";

/// Two endpoints, of which the first never answers and the second does.
fn half_dead(workers: usize) -> (Node, String, Arc<Seen>, Arc<Seen>) {
    let mut node = Node::start(move |config| config.workers = workers);
    let (client, dead, good) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    let (dead, good) = (serve(&dead, || None), serve(&good, || Some((200, "good\n"))));
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    (node, client, dead, good)
}

#[test]
fn the_first_good_answer_wins() {
    need_root!("the_first_good_answer_wins");
    let (node, client, dead, good) = half_dead(2);
    node.proxy().apply([hedging(on_service(), Some(50))]);
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        // One by one: curl does not use an HTTP/2 connection without TLS twice.
        let said: String = (0..12).map(|_| curl(&client, &[protocol, URL])).collect();
        assert_eq!(said.lines().filter(|line| *line == "good").count(), 12, "{protocol}: {said}");
    }
    let (sent, won) = hedges(&node);
    assert!(sent > 0 && sent == won, "{sent} tries beside others, {won} won");
    assert_eq!(won, dead.requests.load(Ordering::SeqCst) as u64, "each that came to the dead one was sent again");
    assert_eq!(good.requests.load(Ordering::SeqCst), 24);
    let edges = node.edges();
    let sum = |reporter: &str, what: &str| -> u64 {
        edges.iter().filter(|edge| edge["reporter"] == reporter).filter_map(|edge| edge[what].as_u64()).sum()
    };
    assert_eq!(sum("source", "requests"), 24, "a request is counted once: {edges:?}");
    // The dead one's proxy is told that nobody waits any longer.
    let errors = (sum("source", "errors"), sum("destination", "errors"));
    assert_eq!(errors, (0, 0), "who does not wait for an answer has not found a fault: {edges:?}");
}

#[test]
fn what_may_not_be_sent_twice_is_sent_once() {
    need_root!("what_may_not_be_sent_twice_is_sent_once");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, one, other) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    let slow = || Some((200, "late\n"));
    let (one, other) = (serve(&one, slow), serve(&other, slow));
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    node.proxy().apply([hedging(on_service(), Some(20))]);
    assert_eq!(curl(&client, &["-X", "POST", URL]), "late\n");
    let requests = || one.requests.load(Ordering::SeqCst) + other.requests.load(Ordering::SeqCst);
    assert_eq!((requests(), hedges(&node).0), (1, 0), "a POST");
    assert_eq!(curl(&client, &[URL]), "late\n");
    assert_eq!((requests(), hedges(&node).0), (3, 1), "a GET");
    // Alone an endpoint is not asked twice.
    node.proxy().apply(service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]));
    assert_eq!(curl(&client, &[URL]), "late\n");
    assert_eq!((requests(), hedges(&node).0), (4, 1));
}

#[test]
fn on_the_time_out_of_a_try() {
    need_root!("on_the_time_out_of_a_try");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, one, other) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    // Both take longer than a try may: time sends a second one and ends neither, and then they have as long again.
    let slow = || Some((200, "late\n"));
    let (one, other) = (serve(&one, slow), serve(&other, slow));
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    node.proxy().apply([route(1_000), hedging(on_route(), None)]);
    assert_eq!(curl(&client, &[URL]), "late\n");
    let requests = || one.requests.load(Ordering::SeqCst) + other.requests.load(Ordering::SeqCst);
    assert_eq!((requests(), hedges(&node)), (2, (1, 0)), "the first was the first to answer");
    node.proxy().apply([Change::Remove(ResourceKind::AttachedPolicy, "default/hedging".into())]);
    let code = curl(&client, &["-o", "/dev/null", "-w", "%{http_code}", URL]);
    assert_eq!(code, "504", "without the policy time ends each try");
}

#[test]
fn a_bad_answer_is_forgotten_while_another_try_runs() {
    need_root!("a_bad_answer_is_forgotten_while_another_try_runs");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, one, other) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    // The second request is answered at once with 503, the first one later with 200.
    let count = Arc::new(AtomicUsize::new(0));
    let answer = move |count: Arc<AtomicUsize>| {
        move || {
            let second = count.fetch_add(1, Ordering::SeqCst) % 2 == 1;
            Some(if second { (503, "bad\n") } else { (200, "late\n") })
        }
    };
    serve(&one, answer(count.clone()));
    serve(&other, answer(count.clone()));
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    node.proxy().apply([route(3_000), hedging(on_route(), Some(200))]);
    assert_eq!(curl(&client, &[URL]), "late\n");
    assert_eq!((count.load(Ordering::SeqCst), hedges(&node)), (2, (1, 0)));
}

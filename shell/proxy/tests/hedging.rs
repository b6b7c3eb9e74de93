//! A request that is slow is sent to another endpoint beside the first: the first good answer is passed on, and the other try is cancelled.
mod support;

use bytes::Bytes;
use diolkos_proxy::mesh::Change;
use h2::client::SendRequest;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use model::Key;
use model::mesh::attached::{AttachedPolicy, GrpcCodes, Hedging, PolicyTarget};
use model::mesh::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Node, curl, eventually, grpc_client, route, serve_requests, service, to};

/// An answer that is not at once takes so long.
const LATE: Duration = Duration::from_millis(2_000);

/// What a process saw.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
}

/// A process that answers with what `answer` says; None: never. It counts requests.
fn serve(netns: &str, answer: impl Fn() -> Option<(u16, &'static str)> + Send + Sync + 'static) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let counted = seen.clone();
    serve_requests(netns, move |request| {
        counted.requests.fetch_add(1, Ordering::SeqCst);
        let said = answer();
        async move {
            let Some((status, body)) = said else { return std::future::pending().await };
            let _ = request.into_body().collect().await;
            if status == 200 && body != "good\n" {
                tokio::time::sleep(LATE).await;
            }
            hyper::Response::builder().status(status).body(Full::from(body).boxed()).unwrap()
        }
    });
    seen
}

fn hedging(target: PolicyTarget, after_ms: Option<u64>) -> Change {
    policy(target, Hedging { after_ms, most: 1, grpc: None })
}

fn policy(target: PolicyTarget, hedging: Hedging) -> Change {
    let hedging = Some(hedging);
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
fn impatient(try_ms: u64) -> Change {
    route(vec![Rule {
        matches: vec![Match::default()],
        backends: vec![to("web", 1)],
        timeouts: Timeouts { request_ms: None, backend_request_ms: Some(try_ms) },
        retry: Some(Retry { attempts: 1, backoff_ms: Some(1), codes: vec![503], ..Retry::default() }),
        ..Rule::default()
    }])
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
    // Where the good one was asked first and this machine stood still for so long, the dead one was asked beside it.
    assert!(won > 0 && won <= sent, "{sent} tries beside others, {won} won");
    assert!(dead.requests.load(Ordering::SeqCst) as u64 <= sent, "each that came to the dead one was sent again");
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
fn a_body_that_came_in_pieces_is_sent_twice() {
    need_root!("a_body_that_came_in_pieces_is_sent_twice");
    let (node, client, _, good) = half_dead(1);
    node.proxy().apply([hedging(on_service(), Some(50))]);
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let put = ["-X", "PUT", "-H", "transfer-encoding: chunked", "-d", "body", protocol, URL];
        let said: String = (0..6).map(|_| curl(&client, &put)).collect();
        assert_eq!(said.lines().filter(|line| *line == "good").count(), 6, "{protocol}: {said}");
    }
    assert!(hedges(&node).1 > 0);
    assert_eq!(good.requests.load(Ordering::SeqCst), 12);
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
    node.proxy().apply([impatient(1_500), hedging(on_route(), None)]);
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
    node.proxy().apply([impatient(3_500), hedging(on_route(), Some(1_000))]);
    assert_eq!(curl(&client, &[URL]), "late\n");
    assert_eq!((count.load(Ordering::SeqCst), hedges(&node)), (2, (1, 0)));
}

/// What a gRPC process says: a status in place of a message, with what its server says of another try; None: never anything.
type Says = Option<(u32, Option<&'static str>)>;

/// Of each call that came: how many bytes, and which try its caller said it is.
type Calls = Arc<Mutex<Vec<(usize, Option<String>)>>>;

/// A gRPC process.
fn serve_calls(netns: &str, answer: impl Fn() -> Says + Send + Sync + 'static) -> Calls {
    let seen = Calls::default();
    let noted = seen.clone();
    serve_requests(netns, move |request| {
        let (says, noted) = (answer(), noted.clone());
        async move {
            let again = request.headers().get("grpc-previous-rpc-attempts");
            let again = again.map(|value| value.to_str().unwrap().to_owned());
            let bytes = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
            noted.lock().unwrap().push((bytes, again));
            let Some((status, pushback)) = says else { return std::future::pending().await };
            let mut head = hyper::Response::builder().header("content-type", "application/grpc");
            if status > 0 {
                head = head.header("grpc-status", status);
                head = pushback.into_iter().fold(head, |head, ms| head.header("grpc-retry-pushback-ms", ms));
                return head.body(Full::default().boxed()).unwrap();
            }
            let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let frames = [Frame::data(Bytes::from_static(MESSAGE)), Frame::trailers(trailers)].map(Ok);
            head.body(StreamBody::new(futures_util::stream::iter(frames)).boxed()).unwrap()
        }
    });
    seen
}

/// Not compressed, of five bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

/// A call of one message, and the status that it comes to. `stays`: its end is sent only so much later.
async fn call(sender: &SendRequest<Bytes>, stays: Duration) -> String {
    let request = http::Request::post("http://10.96.0.50/web.Web/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let mut sender = sender.clone().ready().await.unwrap();
    let (response, mut send) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    send.send_data(Bytes::from_static(MESSAGE), stays.is_zero()).unwrap();
    if !stays.is_zero() {
        tokio::time::sleep(stays).await;
        send.send_data(Bytes::new(), true).unwrap();
    }
    let (head, mut body) = response.await.unwrap().into_parts();
    while let Some(bytes) = body.data().await {
        let _ = body.flow_control().release_capacity(bytes.unwrap().len());
    }
    let trailers = body.trailers().await.unwrap();
    let status = trailers.as_ref().unwrap_or(&head.headers).get("grpc-status");
    status.map_or("none", |status| status.to_str().unwrap()).to_owned()
}

fn grpc(after_ms: u64, most: u32, codes: &[u32]) -> Change {
    let bits = codes.iter().fold(0, |bits, code| bits | 1 << code);
    policy(on_service(), Hedging { after_ms: Some(after_ms), most, grpc: Some(GrpcCodes::from_bits(bits)) })
}

/// Three endpoints of which each says `says` of how many calls came before this one to any; how many came.
fn alike(says: impl Fn(usize) -> Says + Send + Sync + 'static) -> (Node, String, Arc<AtomicUsize>) {
    let mut node = Node::start(|config| config.workers = 1);
    let client = node.pod(5, "client");
    let (count, says) = (Arc::new(AtomicUsize::new(0)), Arc::new(says));
    for last in 6..9 {
        let (count, says) = (count.clone(), says.clone());
        serve_calls(&node.pod(last, "web"), move || says(count.fetch_add(1, Ordering::SeqCst)));
    }
    node.service("web", 50, AppProtocol::Grpc, &[6, 7, 8].map(|last| (last, Health::Ready)));
    (node, client, count)
}

#[test]
fn a_grpc_call_is_hedged_where_its_policy_says_so() {
    need_root!("a_grpc_call_is_hedged_where_its_policy_says_so");
    let mut node = Node::start(|config| config.workers = 1);
    let (client, dead, good) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    let (dead, good) = (serve_calls(&dead, || None), serve_calls(&good, || Some((0, None))));
    node.service("web", 50, AppProtocol::Grpc, &[(6, Health::Ready), (7, Health::Ready)]);
    node.proxy().apply([grpc(50, 1, &[])]);
    let statuses = grpc_client(&client, async |sender| {
        let mut statuses = Vec::new();
        for _ in 0..12 {
            statuses.push(call(&sender, Duration::ZERO).await);
        }
        statuses
    });
    assert_eq!(statuses, ["0"; 12]);
    let (sent, won) = hedges(&node);
    let (dead, good) = (dead.lock().unwrap(), good.lock().unwrap());
    // A good one that is slow once has a try at the dead one beside it, which wins nothing.
    let again = good.iter().filter(|(_, again)| again.as_deref() == Some("1")).count() as u64;
    assert!(sent >= won && won == again && won > 0, "{sent} sent, {won} won, {again} said so");
    assert!(good.len() == 12 && good.iter().chain(dead.iter()).all(|(bytes, _)| *bytes == MESSAGE.len()), "{good:?}");
    let sum = |what: &str| -> u64 {
        let edges = node.edges();
        edges.iter().filter(|edge| edge["reporter"] == "source").filter_map(|edge| edge[what].as_u64()).sum()
    };
    eventually("all are counted", || sum("requests") >= 12);
    assert_eq!((sum("requests"), sum("errors")), (12, 0), "a call is counted once: {:?}", node.edges());
}

#[test]
fn a_grpc_call_is_sent_once_without_its_word_or_its_end() {
    need_root!("a_grpc_call_is_sent_once_without_its_word_or_its_end");
    let (node, client, count) = alike(|_| Some((0, None)));
    node.proxy().apply([hedging(on_service(), Some(20))]);
    let slow = Duration::from_millis(300);
    assert_eq!(grpc_client(&client, async move |sender| call(&sender, slow).await), "0");
    assert_eq!((count.load(Ordering::SeqCst), hedges(&node).0), (1, 0), "nobody says that calls may run twice");
    node.proxy().apply([grpc(20, 1, &[])]);
    assert_eq!(grpc_client(&client, async move |sender| call(&sender, slow).await), "0");
    assert_eq!((count.load(Ordering::SeqCst), hedges(&node).0), (2, 0), "its end came later");
}

/// gRFC A6. Time alone would send nothing within a minute.
#[test]
fn a_grpc_answer_decides_about_the_next_try() {
    need_root!("a_grpc_answer_decides_about_the_next_try");
    let said: Arc<Mutex<Vec<Says>>> = Arc::default();
    let (to_say, minute) = (said.clone(), 60_000);
    let (node, client, count) = alike(move |nth| to_say.lock().unwrap()[nth]);
    let bad = |status, pushback| Some((status, pushback));
    for (what, says, expect, tries) in [
        ("one that is not the last word", vec![bad(14, None), bad(0, None)], "0", 2),
        ("twice", vec![bad(14, None), bad(10, None), bad(0, None)], "0", 3),
        ("as often as is allowed", vec![bad(14, None); 4], "14", 3),
        ("the last word", vec![bad(9, None), bad(0, None)], "9", 1),
        ("the server wants no other try", vec![bad(14, Some("-1")), bad(0, None)], "14", 1),
        ("the server wants it later", vec![bad(14, Some("30")), bad(0, None)], "0", 2),
    ] {
        *said.lock().unwrap() = says;
        count.store(0, Ordering::SeqCst);
        node.proxy().apply([grpc(minute, 2, &[14, 10])]);
        assert_eq!(grpc_client(&client, async |sender| call(&sender, Duration::ZERO).await), expect, "{what}");
        assert_eq!(count.load(Ordering::SeqCst), tries, "{what}");
    }
}

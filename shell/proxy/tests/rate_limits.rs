//! Rate limits: those that a proxy keeps, on routes and at endpoints, and a rate limit service that is asked by gRPC.
mod support;

use diolkos_proxy::mesh::Change;
use model::Key;
use model::mesh::attached::{AttachedPolicy, Descriptor, GlobalLimit, Part, PolicyTarget, RateLimit};
use model::mesh::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Node, curl, route, serve_grpc, serve_http, to};
use xds::ext_authz::HeaderValue;
use xds::rate_limit as rls;

fn limit(per: Vec<Part>, requests: u32, interval_ms: u64) -> RateLimit {
    RateLimit { name: "l".into(), matches: vec![], per, requests, interval_ms, burst: requests }
}

fn policy(name: &str, target: PolicyTarget, limits: Vec<RateLimit>, global: Option<GlobalLimit>) -> Change {
    let key = Key::new("default", name);
    let policy = AttachedPolicy { key, targets: vec![target], limits, global, hedging: None };
    Change::Set(Resource::AttachedPolicy(Arc::new(policy)))
}

fn at_web() -> PolicyTarget {
    PolicyTarget::Service { service: Key::new("default", "web"), port: "".into() }
}

fn on_rewriting() -> PolicyTarget {
    PolicyTarget::Route { route: "HTTPRoute/default/r".into(), rule: "".into() }
}

fn rewriting() -> Change {
    let rewrite = Rewrite { hostname: None, path: Some(PathModifier::ReplaceFull("/rewritten".into())) };
    route(vec![Rule {
        matches: vec![Match::default()],
        filters: vec![Filter::Rewrite(rewrite)],
        backends: vec![to("web", 1)],
        ..Rule::default()
    }])
}

fn code(client: &str, arguments: &[&str]) -> String {
    curl(client, &[&["-o", "/dev/null", "-w", "%{http_code}"], arguments, &["http://10.96.0.50/a"]].concat())
}

fn codes(client: &str, arguments: &[&str], count: usize) -> Vec<String> {
    (0..count).map(|_| code(client, arguments)).collect()
}

/// Four requests in an hour: none comes back while a test runs.
const HOUR_MS: u64 = 3_600_000;

#[test]
fn a_proxy_keeps_limits_for_all_its_workers() {
    need_root!("a_proxy_keeps_limits_for_all_its_workers");
    let mut node = Node::start(|_| {});
    let (client, other, server) = (node.pod(5, "client"), node.pod(7, "other"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.proxy().apply([policy("at", at_web(), vec![limit(vec![Part::Principal], 4, HOUR_MS)], None)]);
    // Each curl is a connection of its own, which any worker may get.
    let many: Vec<_> = (0..12)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || code(&client, &[]))
        })
        .collect();
    let many: Vec<String> = many.into_iter().map(|one| one.join().unwrap()).collect();
    let passed = many.iter().filter(|code| *code == "200").count();
    assert_eq!((passed, many.iter().filter(|code| *code == "429").count()), (4, 8), "{many:?}");
    let refused = curl(&client, &["-i", "http://10.96.0.50/"]);
    for part in ["x-envoy-ratelimited: true", "x-ratelimit-limit: 4, 4;w=3600", "x-ratelimit-remaining: 0"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let grpc = curl(&client, &["-i", "-H", "content-type: application/grpc", "http://10.96.0.50/"]);
    assert!(grpc.contains("grpc-status: 14"), "{grpc}");
    let first = curl(&other, &["-i", "http://10.96.0.50/"]);
    assert!(first.contains(" 200") && first.contains("x-ratelimit-remaining: 3"), "another's tokens: {first}");

    // A limit that stays as it is remembers, also when another is put beside it; one that goes is gone.
    let posts = Match { method: Some("POST".into()), ..Match::default() };
    let beside = RateLimit { matches: vec![posts], ..limit(vec![], 1, HOUR_MS) };
    let both = vec![limit(vec![Part::Principal], 4, HOUR_MS), beside];
    node.proxy().apply([policy("at", at_web(), both, None)]);
    assert_eq!(code(&client, &[]), "429");
    assert_eq!(codes(&other, &["-X", "POST"], 2), ["200", "429"], "only POST counts there");
    assert_eq!(code(&other, &[]), "200");
    node.proxy().apply([Change::Remove(ResourceKind::AttachedPolicy, "default/at".into())]);
    assert_eq!(codes(&client, &[], 3), ["200", "200", "200"]);

    // On a route, at the caller: as the request came, not as the route changed it.
    let by_user = limit(vec![Part::Header("x-user".into()), Part::Path], 1, HOUR_MS);
    node.proxy().apply([rewriting(), policy("on", on_rewriting(), vec![by_user], None)]);
    assert_eq!(codes(&client, &["-H", "x-user: a"], 2), ["200", "429"]);
    assert_eq!(codes(&client, &["-H", "x-user: b"], 2), ["200", "429"]);
    assert_eq!(codes(&client, &[], 3), ["200", "200", "200"], "without the header nothing counts");
    assert!(curl(&client, &["-H", "x-user: a", "http://10.96.0.50/b"]).contains("GET /rewritten"), "another path");
}

#[test]
fn a_rate_limit_service_is_asked() {
    need_root!("a_rate_limit_service_is_asked");
    let mut node = Node::start(|_| {});
    let (client, server, asked) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "rls"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.service("rls", 51, AppProtocol::Grpc, &[(7, Health::Ready)]);
    let questions = Arc::new(Mutex::new(Vec::<rls::RateLimitRequest>::new()));
    let heard = questions.clone();
    serve_grpc(&asked, rls::SHOULD_RATE_LIMIT_PATH, move |question: rls::RateLimitRequest| {
        let value = question.descriptors[0].entries[0].value.clone();
        heard.lock().unwrap().push(question);
        if value == "slow" {
            std::thread::sleep(Duration::from_secs(3));
        }
        if value == "broken" {
            return Err(tonic::Status::internal("no"));
        }
        let over = value == "greedy";
        let code = if over { rls::Code::OverLimit } else { rls::Code::Ok } as i32;
        let header = |key: &str| HeaderValue { key: key.into(), value: "said".into() };
        Ok(rls::RateLimitResponse {
            overall_code: code,
            statuses: vec![rls::DescriptorStatus {
                code,
                current_limit: Some(rls::RateLimit { requests_per_unit: 9, unit: 2, name: "".into() }),
                limit_remaining: if over { 0 } else { 5 },
                duration_until_reset: Some(rls::Duration { seconds: 30, nanos: 1 }),
            }],
            response_headers_to_add: vec![header("X-Answer")],
            request_headers_to_add: vec![header("x-extra")],
            raw_body: if over { "greedy".into() } else { Default::default() },
        })
    });
    let global = |fail_open| GlobalLimit {
        domain: "shop".into(),
        service: Key::new("default", "rls"),
        port: 80,
        timeout_ms: 2_000,
        fail_open,
        descriptors: vec![
            Descriptor {
                matches: vec![],
                entries: vec![
                    ("user".into(), Part::Header("x-user".into())),
                    ("source_principal".into(), Part::Principal),
                    ("generic_key".into(), Part::Fixed("a".into())),
                ],
            },
            Descriptor {
                matches: vec![Match { path: PathMatch::Exact("/never".into()), ..Match::default() }],
                entries: vec![("method".into(), Part::Method)],
            },
        ],
    };
    node.proxy().apply([policy("global", at_web(), vec![], Some(global(false)))]);
    assert_eq!(code(&client, &[]), "200", "no descriptor applies: nobody is asked");
    assert!(questions.lock().unwrap().is_empty());
    let passed = curl(&client, &["-i", "-H", "x-user: me", "http://10.96.0.50/"]);
    for part in [
        " 200",
        "x-ratelimit-limit: 9, 9;w=60",
        "x-ratelimit-remaining: 5",
        "x-ratelimit-reset: 31",
        "x-answer: said",
        "extra=said",
    ] {
        assert!(passed.contains(part), "{part}: {passed}");
    }
    let asked = questions.lock().unwrap().remove(0);
    let entries: Vec<(&str, &str)> =
        asked.descriptors[0].entries.iter().map(|it| (it.key.as_str(), it.value.as_str())).collect();
    let expect = [("user", "me"), ("source_principal", "cluster.local/ns/default/sa/client"), ("generic_key", "a")];
    assert_eq!((asked.domain.as_str(), asked.descriptors.len(), &entries[..]), ("shop", 1, &expect[..]));
    let refused = curl(&client, &["-i", "-H", "x-user: greedy", "http://10.96.0.50/"]);
    for part in [" 429", "x-envoy-ratelimited: true", "x-ratelimit-remaining: 0", "greedy", "x-answer: said"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    for user in ["x-user: slow", "x-user: broken"] {
        assert_eq!(code(&client, &["-H", user]), "500", "fail closed: {user}");
    }
    node.proxy().apply([policy("global", at_web(), vec![], Some(global(true)))]);
    for user in ["x-user: slow", "x-user: broken"] {
        assert_eq!(code(&client, &["-H", user]), "200", "fail open: {user}");
    }
}

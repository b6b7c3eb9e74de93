//! What Istio's kinds ask of a proxy, by real clients: order of rules, faults, answers, hashing, ejection, limits.
mod support;

use diolkos_proxy::mesh::Change;
use model::mesh::traffic::{Balancer, ConnectionPool, HashKey, HashTable, Outlier};
use model::mesh::*;
use model::{Key, Timestamp};
use std::io::{Read, Write};
use std::sync::Arc;
use support::{Node, authorizer, curl, eventually, inside, listen_in_threads, serve_grpc, serve_http};

fn in_order(rules: Vec<Rule>) -> Change {
    let target = ParentTarget::Service { service: Key::new("default", "web"), port: None, consumer: None };
    Change::Set(Resource::Route(Arc::new(Route {
        name: "VirtualService/default/r".into(),
        key: Key::new("default", "r"),
        kind: RouteKind::Http,
        created: Timestamp(1),
        parents: vec![Parent { target, hostnames: vec![] }],
        rules,
        ordered: true,
    })))
}

fn rule(path: &str, filters: Vec<Filter>) -> Rule {
    let target = BackendTarget::Service { service: Key::new("default", "web"), port: 0 };
    Rule {
        matches: vec![Match { path: PathMatch::Text(path.into()), ..Match::default() }],
        filters,
        backends: vec![Backend { target, weight: 1, filters: vec![] }],
        ..Rule::default()
    }
}

/// The service `web` again, with a policy.
fn with_policy(policy: TrafficPolicy, pods: &[u8]) -> Vec<Change> {
    let pods: Vec<(u8, Health)> = pods.iter().map(|last| (*last, Health::Ready)).collect();
    let mut changes = support::service("web", 50, AppProtocol::Http, &pods);
    if let Change::Set(Resource::Service(service)) = &mut changes[0] {
        let mut changed = Service::clone(service);
        changed.ports[0].traffic = Some(Arc::new(policy));
        *service = Arc::new(changed);
    }
    changes
}

fn code(client: &str, arguments: &[&str]) -> String {
    curl(client, &[&["-o", "/dev/null", "-w", "%{http_code}"], arguments].concat())
}

#[test]
fn rules_in_order_with_faults_and_answers() {
    need_root!("rules_in_order_with_faults_and_answers");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let abort = |abort| Filter::Fault(Fault { delay: None, abort: Some((abort, Fraction::ALL)) });
    let delay = Filter::Fault(Fault { delay: Some((300, Fraction::ALL)), abort: None });
    let tea = Filter::Respond(Response { status: 418, body: b"tea".as_slice().into() });
    let rewrite = |path| Filter::Rewrite(Rewrite { hostname: None, path: Some(path) });
    let swap = PathModifier::ReplaceRegex { pattern: "^/swap/([a-z]+)/(.*)$".into(), substitution: "/\\2/\\1".into() };
    let mut not_for_bots = rule("/a", vec![rewrite(PathModifier::ReplaceMatched("/people".into()))]);
    not_for_bots.matches[0].more = Some(Box::new(MatchMore {
        without_headers: vec![ValueMatch { name: "x-bot".into(), value: TextMatch::Present }],
        ignore_case: true,
        ..MatchMore::default()
    }));
    node.proxy().apply([in_order(vec![
        rule("/abort", vec![abort(Abort::Http(503))]),
        rule("/grpc", vec![abort(Abort::Grpc(14))]),
        rule("/delay", vec![delay]),
        rule("/tea", vec![tea]),
        not_for_bots,
        rule("/a", vec![rewrite(PathModifier::ReplaceMatched("/bots".into()))]),
        rule("/swap", vec![rewrite(swap)]),
        rule("", vec![]),
        // Never reached: the one before takes all, though this is more specific.
        rule("/last", vec![abort(Abort::Http(500))]),
    ])]);
    let url = |path: &str| format!("http://10.96.0.50{path}");
    assert_eq!(code(&client, &[&url("/abort")]), "503");
    assert_eq!(curl(&client, &[&url("/abort")]), "fault filter abort");
    assert_eq!(code(&client, &[&url("/grpc")]), "503", "who does not speak gRPC is told in HTTP");
    let grpc = curl(&client, &["-i", "-H", "content-type: application/grpc", &url("/grpc")]);
    assert!(grpc.contains("grpc-status: 14") && grpc.contains("200"), "{grpc}");
    assert_eq!((code(&client, &[&url("/tea")]).as_str(), curl(&client, &[&url("/tea")]).as_str()), ("418", "tea"));
    let took: f64 = curl(&client, &["-o", "/dev/null", "-w", "%{time_total}", &url("/delay")]).parse().unwrap();
    assert!(took >= 0.3, "{took}");
    assert!(curl(&client, &[&url("/Ab/c")]).starts_with("web GET /peopleb/c "));
    assert!(curl(&client, &[&url("/ab/c?q=1")]).starts_with("web GET /peopleb/c?q=1 "), "a text, not an element");
    assert!(curl(&client, &["-H", "x-bot: 1", &url("/a")]).starts_with("web GET /bots "));
    assert!(curl(&client, &[&url("/swap/one/two")]).starts_with("web GET /two/one "));
    assert_eq!(code(&client, &[&url("/last")]), "200");
}

#[test]
fn rules_hold_for_callers_with_labels() {
    need_root!("rules_hold_for_callers_with_labels");
    let mut node = Node::start(|_| {});
    let (client, other, server) = (node.pod(5, "client"), node.pod(7, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let labelled = |last, track: &str| {
        let labels = [("track".into(), track.into()), ("app".into(), "shop".into())].into();
        Change::Set(Resource::Workload(Arc::new(Workload { labels, ..support::workload(last, "client") })))
    };
    let tea = Filter::Respond(Response { status: 418, body: b"tea".as_slice().into() });
    let mut canary = rule("", vec![tea]);
    canary.matches[0].more = Some(Box::new(MatchMore {
        source_labels: [("track".into(), "canary".into()), ("app".into(), "shop".into())].into(),
        ..MatchMore::default()
    }));
    node.proxy().apply([in_order(vec![canary, rule("", vec![])]), labelled(5, "canary"), labelled(7, "stable")]);
    let url = "http://10.96.0.50/";
    assert_eq!((code(&client, &[url]).as_str(), code(&other, &[url]).as_str()), ("418", "200"));
    node.proxy()
        .apply([labelled(7, "canary"), Change::Set(Resource::Workload(Arc::new(support::workload(5, "client"))))]);
    assert_eq!((code(&client, &[url]).as_str(), code(&other, &[url]).as_str()), ("200", "418"), "labels are today's");
}

#[test]
fn what_is_outside_is_called_without_the_meshs_tls() {
    need_root!("what_is_outside_is_called_without_the_meshs_tls");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    let strict = PeerAuthentication {
        key: Key::new("default", "strict"),
        scope: Scope::Namespace,
        mode: MtlsMode::Strict,
        ports: vec![],
        created: Timestamp(1),
    };
    let service = |outside: bool, export_to: &[&str]| {
        let mut changes = support::service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
        if let Change::Set(Resource::Service(service)) = &mut changes[0] {
            let export_to = export_to.iter().map(|to| (*to).into()).collect();
            *service = Arc::new(Service { outside, export_to, ..Service::clone(service) });
        }
        changes
    };
    node.proxy().apply([Change::Set(Resource::PeerAuthentication(Arc::new(strict)))]);
    node.proxy().apply(service(false, &["default"]));
    let url = "http://10.96.0.50/";
    assert_eq!(code(&client, &[url]), "200");
    node.proxy().apply(service(true, &["default"]));
    assert_eq!(code(&client, &[url]), "503", "plain text is refused, and a connection under TLS is not taken for it");
    node.proxy().apply(service(false, &["default"]));
    assert_eq!(code(&client, &[url]), "200");
    node.proxy().apply(service(false, &["elsewhere"]));
    let seen = support::curl_output(&client, &["-m", "1", url]).status.success();
    assert!(!seen, "for a caller who does not see it the address is nobody's");
}

/// A server that answers anything with its name.
fn serve_name(netns: &str, name: &'static str) {
    let (ready, started) = std::sync::mpsc::channel();
    inside(netns, move || {
        let listener = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(name.as_bytes());
        }
    });
    started.recv().unwrap();
}

#[test]
fn connections_under_tls_are_routed_by_the_name_that_they_ask_for() {
    need_root!("connections_under_tls_are_routed_by_the_name_that_they_ask_for");
    let mut node = Node::start(|_| {});
    let (client, one, two) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "other"));
    serve_name(&one, "one");
    serve_name(&two, "two");
    node.service("web", 50, AppProtocol::Tls, &[(6, Health::Ready)]);
    node.service("sniffed", 51, AppProtocol::Unspecified, &[(6, Health::Ready)]);
    node.service("other", 52, AppProtocol::Tls, &[(7, Health::Ready)]);
    let parent = |service: &str| Parent {
        target: ParentTarget::Service { service: Key::new("default", service), port: None, consumer: None },
        hostnames: vec![Hostname::new("*.two.example").unwrap()],
    };
    let target = BackendTarget::Service { service: Key::new("default", "other"), port: 80 };
    node.proxy().apply([Change::Set(Resource::Route(Arc::new(Route {
        name: "VirtualService/default/r#0000.0000".into(),
        key: Key::new("default", "r"),
        kind: RouteKind::Tls,
        created: Timestamp(1),
        parents: vec![parent("web"), parent("sniffed")],
        rules: vec![Rule { backends: vec![Backend { target, weight: 1, filters: vec![] }], ..Rule::default() }],
        ordered: true,
    })))]);
    // An address of its own leads elsewhere.
    let mut changes = support::service("sniffed", 51, AppProtocol::Unspecified, &[(6, Health::Ready)]);
    if let Change::Set(Resource::Service(service)) = &mut changes[0] {
        Arc::make_mut(service).vips.push("10.96.0.53".parse().unwrap());
    }
    node.proxy().apply(changes);
    let more = MatchMore { destinations: Subnet::parse("10.96.0.53/32").into_iter().collect(), ..MatchMore::default() };
    node.proxy().apply([Change::Set(Resource::Route(Arc::new(Route {
        name: "VirtualService/default/s#0000.0000".into(),
        key: Key::new("default", "s"),
        kind: RouteKind::Tcp,
        created: Timestamp(2),
        parents: vec![Parent { hostnames: vec![], ..parent("sniffed") }],
        rules: vec![Rule {
            matches: vec![Match { path: PathMatch::Text("".into()), more: Some(Box::new(more)), ..Match::default() }],
            backends: vec![support::to("other", 1)],
            ..Rule::default()
        }],
        ordered: true,
    })))]);
    let ask = |vip: u8, bytes: Vec<u8>| {
        let asking = inside(&client, move || {
            let mut stream = std::net::TcpStream::connect(support::socket(vip)).unwrap();
            stream.write_all(&bytes).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer).unwrap_or_default()
        });
        asking.join().unwrap()
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let hello = |name: &str| {
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty());
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(config.with_no_client_auth()), name).unwrap();
        let mut bytes = Vec::new();
        tls.write_tls(&mut bytes).unwrap();
        bytes
    };
    for vip in [50, 51] {
        // Of a port that says nothing of what it speaks, whoever is late with the first bytes is passed on as opaque.
        eventually("the name is seen", || ask(vip, hello("a.two.example")) == "two");
        assert_eq!(ask(vip, hello("one.example")), "one", "what no rule takes goes to the service itself");
        assert_eq!(ask(vip, b"hello\n".to_vec()), "one");
    }
    assert_eq!(ask(53, b"hello\n".to_vec()), "two");
}

fn hash(key: HashKey) -> TrafficPolicy {
    let balancer = Balancer::Hash { key, table: HashTable::Maglev { entries: 1_009 } };
    TrafficPolicy { balancer, ..TrafficPolicy::default() }
}

#[test]
fn keys_keep_requests_on_their_endpoint() {
    need_root!("keys_keep_requests_on_their_endpoint");
    let mut node = Node::start(|_| {});
    let (client, one, two) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    serve_http(&one, "one");
    serve_http(&two, "two");
    let who = |arguments: &[&str]| {
        let answer = curl(&client, &[arguments, &["http://10.96.0.50/"]].concat());
        answer.split(' ').next().unwrap_or_default().to_owned()
    };
    node.proxy().apply(with_policy(hash(HashKey::Header("x-user".into())), &[6, 7]));
    let mut met = std::collections::BTreeSet::new();
    for user in 0..16 {
        let header = format!("x-user: {user}");
        let first = who(&["-H", &header]);
        assert!((0..5).all(|_| who(&["-H", &header]) == first), "user {user}");
        met.insert(first);
    }
    assert_eq!(met.len(), 2, "users are spread");

    let cookie = HashKey::Cookie { name: "stick".into(), path: "/".into(), ttl_s: Some(60) };
    node.proxy().apply(with_policy(hash(cookie), &[6, 7]));
    let head = curl(&client, &["-i", "http://10.96.0.50/"]);
    let made =
        head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:")).expect("a cookie is made");
    assert!(made.contains("Max-Age=60") && made.contains("Path=/"), "{made}");
    let value = made.split([':', ';']).nth(1).unwrap().trim().to_owned();
    let first = if head.contains("one GET") { "one" } else { "two" };
    assert!((0..8).all(|_| who(&["-b", &value]) == first));
    assert!(!curl(&client, &["-i", "-b", &value, "http://10.96.0.50/"]).to_ascii_lowercase().contains("set-cookie"));
}

/// Answers everything with 503, one request a connection.
fn serve_failure(netns: &str) {
    listen_in_threads(netns, |mut stream| {
        let mut head = [0; 4_096];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(b"HTTP/1.1 503 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
}

#[test]
fn what_fails_is_ejected() {
    need_root!("what_fails_is_ejected");
    let mut node = Node::start(|_| {});
    let (client, good, bad) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    serve_http(&good, "good");
    serve_failure(&bad);
    let outlier = Outlier { consecutive_5xx: 3, base_ejection_ms: 60_000, ..Outlier::default() };
    let policy = TrafficPolicy { balancer: Balancer::RoundRobin, outlier: Some(outlier), ..TrafficPolicy::default() };
    node.proxy().apply(with_policy(policy, &[6, 7]));
    let codes: Vec<String> = (0..30).map(|_| code(&client, &["http://10.96.0.50/"])).collect();
    let failed = codes.iter().filter(|code| *code == "503").count();
    assert_eq!(failed, 3, "three in a row, then no more: {codes:?}");
    assert!(codes[10..].iter().all(|code| code == "200"), "{codes:?}");
}

#[test]
fn limits_answer_with_overflow() {
    need_root!("limits_answer_with_overflow");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    let pool = ConnectionPool { max_requests: 1, ..ConnectionPool::default() };
    node.proxy().apply(with_policy(TrafficPolicy { pool, ..TrafficPolicy::default() }, &[6]));
    let slow = || {
        let client = client.clone();
        std::thread::spawn(move || curl(&client, &["-m", "20", "-i", "http://10.96.0.50/slow"]))
    };
    // Each takes three seconds: one of two has the only place.
    let answers = [slow(), slow()].map(|slow| slow.join().unwrap());
    let overflown = answers.iter().filter(|answer| answer.contains("x-envoy-overloaded: true")).count();
    assert_eq!((overflown, answers.iter().filter(|answer| answer.contains(" 200")).count()), (1, 1), "{answers:?}");
    assert_eq!(code(&client, &["http://10.96.0.50/"]), "200", "its place is free again");
}

fn policy(name: &str, action: Action, provider: &str, rules: Vec<PolicyRule>) -> Change {
    Change::Set(Resource::AuthorizationPolicy(Arc::new(AuthorizationPolicy {
        key: Key::new("default", name),
        scope: Scope::Namespace,
        action,
        dry_run: false,
        provider: provider.into(),
        rules,
    })))
}

fn on_path(path: &str) -> Operation {
    Operation { paths: vec![path.into()], ..Operation::default() }
}

#[test]
fn tokens_are_verified_and_policies_see_them() {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use base64::Engine;
    need_root!("tokens_are_verified_and_policies_see_them");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let jwks = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}]}}"#, encode(x), encode(y));
    let token = |claims: &str| {
        let signed = format!("{}.{}", encode(br#"{"alg":"ES256"}"#), encode(claims.as_bytes()));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("authorization: Bearer {signed}.{}", encode(signature.as_ref()))
    };
    let rule = JwtRule {
        issuer: "me".into(),
        jwks: jwks.into(),
        claim_headers: vec![("x-extra".into(), "group".into())],
        ..JwtRule::default()
    };
    let admins = PolicyRule {
        from: vec![Source { request_principals: vec!["me/*".into()], ..Source::default() }],
        when: vec![Condition {
            key: "request.auth.claims[group]".into(),
            values: vec!["admin".into()],
            not_values: vec![],
        }],
        ..PolicyRule::default()
    };
    let public = PolicyRule { to: vec![on_path("/public")], ..PolicyRule::default() };
    node.proxy().apply([
        Change::Set(Resource::RequestAuthentication(Arc::new(RequestAuthentication {
            key: Key::new("default", "jwt"),
            scope: Scope::Namespace,
            rules: vec![rule],
            gateways: vec![],
        }))),
        policy("admins", Action::Allow, "", vec![admins, public]),
    ]);
    let url = |path: &str| format!("http://10.96.0.50{path}");
    let admin = token(r#"{"iss":"me","sub":"root","group":["x","admin"]}"#);
    let guest = token(r#"{"iss":"me","sub":"guest","group":"guest"}"#);
    let stale = token(r#"{"iss":"me","sub":"root","group":"admin","exp":1000}"#);
    let stranger = token(r#"{"iss":"you","sub":"root","group":"admin"}"#);
    for (headers, path, expect) in [
        (&[][..], "/public", "200"),
        (&[], "/x", "403"),
        (&["-H", &admin], "/x", "200"),
        (&["-H", &guest], "/x", "403"),
        (&["-H", &stale], "/public", "401"),
        (&["-H", &stranger], "/public", "401"),
        (&["-H", "authorization: Bearer junk"], "/public", "401"),
    ] {
        assert_eq!(code(&client, &[headers, &[&url(path)]].concat()), expect, "{path} {headers:?}");
    }
    assert!(curl(&client, &["-H", &admin, "-H", "x-extra: forged", &url("/x")]).contains("extra=x,admin "));
    assert!(
        curl(&client, &["-H", "x-extra: forged", &url("/public")]).contains("extra=- "),
        "nobody says it of himself"
    );
    assert_eq!(curl(&client, &["-H", &stale, &url("/x")]), "Jwt is expired");
}

#[test]
fn an_external_authorizer_is_asked() {
    need_root!("an_external_authorizer_is_asked");
    let mut node = Node::start(|_| {});
    let (client, server, asker) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "asker"));
    serve_http(&server, "web");
    serve_http(&asker, "asker");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.service("asker", 51, AppProtocol::Http, &[(7, Health::Ready)]);
    let provider = |port: u16, fail_open: bool| {
        let kind = policy::ProviderKind::Http {
            prefix: "".into(),
            send: vec!["x-extra".into()],
            add: vec![],
            upstream: vec!["x-server".into()],
            downstream: vec![],
        };
        Change::Set(Resource::ExtensionProvider(Arc::new(ExtensionProvider { port, fail_open, ..authorizer(kind) })))
    };
    // The authorizer answers `/status/N` with N, and everything else with 200.
    let asks = PolicyRule { to: vec![on_path("/status/*"), on_path("/asked")], ..PolicyRule::default() };
    let only_web = PolicyRule {
        from: vec![Source { principals: vec!["cluster.local/ns/default/sa/client".into()], ..Source::default() }],
        to: vec![Operation { ports: vec!["8080".into()], ..Operation::default() }],
        ..PolicyRule::default()
    };
    let asks = PolicyRule { from: only_web.from.clone(), ..asks };
    node.proxy().apply([policy("ask", Action::Custom, "asker", vec![asks])]);
    let url = |path: &str| format!("http://10.96.0.50{path}");
    assert_eq!(code(&client, &[&url("/free")]), "200", "it is not asked about this");
    assert_eq!(code(&client, &[&url("/asked")]), "403", "no such provider");
    node.proxy().apply([provider(80, false)]);
    assert_eq!(code(&client, &[&url("/asked")]), "200");
    assert_eq!(code(&client, &[&url("/status/401")]), "401");
    let refused = curl(&client, &["-i", &url("/status/403")]);
    assert!(refused.contains("403") && refused.contains("status"), "{refused}");
    node.proxy().apply([provider(81, false)]);
    assert_eq!(code(&client, &[&url("/asked")]), "503", "nobody answers there");
    node.proxy().apply([provider(81, true)]);
    assert_eq!(code(&client, &[&url("/asked")]), "200", "fail open");
}

/// Names of headers have no case, whoever writes them.
#[test]
fn an_external_authorizers_headers_are_listed_in_whichever_case() {
    use std::sync::Mutex;
    need_root!("an_external_authorizers_headers_are_listed_in_whichever_case");
    let mut node = Node::start(|_| {});
    let (client, server, asker) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "asker"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.service("asker", 51, AppProtocol::Http, &[(7, Health::Ready)]);
    let asked = Arc::new(Mutex::new(String::new()));
    let heard = asked.clone();
    listen_in_threads(&asker, move |mut stream| {
        let mut head = [0; 4_096];
        let length = stream.read(&mut head).unwrap_or(0);
        *heard.lock().unwrap() = String::from_utf8_lossy(&head[..length]).to_ascii_lowercase();
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\nX-Extra: checked\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let kind = policy::ProviderKind::Http {
        prefix: "".into(),
        send: vec!["x-token".into()],
        add: vec![],
        upstream: vec!["x-extra".into()],
        downstream: vec![],
    };
    let to = Operation { ports: vec!["8080".into()], paths: vec!["/asked".into()], ..Operation::default() };
    node.proxy().apply([
        Change::Set(Resource::ExtensionProvider(Arc::new(authorizer(kind)))),
        policy(
            "ask",
            Action::Custom,
            "asker",
            vec![PolicyRule {
                from: vec![Source {
                    principals: vec!["cluster.local/ns/default/sa/client".into()],
                    ..Source::default()
                }],
                to: vec![to],
                ..PolicyRule::default()
            }],
        ),
    ]);
    // The question itself is asked with the server's identity, so nobody is asked about it.
    let sent = ["-H", "Authorization: Basic x", "-H", "X-Token: t", "-H", "X-Other: o", "-H", "X-Extra: forged"];
    let passed = curl(&client, &[&sent[..], &["http://10.96.0.50/asked"]].concat());
    assert!(passed.contains("extra=checked "), "what the authorizer says replaces what the caller said: {passed}");
    let asked = asked.lock().unwrap();
    assert!(asked.contains("\r\nauthorization: basic x\r\n") && asked.contains("\r\nx-token: t\r\n"), "{asked}");
    assert!(!asked.contains("x-other"), "{asked}");
}

#[test]
fn an_external_authorizer_is_asked_by_grpc() {
    use std::sync::Mutex;
    use xds::ext_authz as wire;
    need_root!("an_external_authorizer_is_asked_by_grpc");
    let mut node = Node::start(|_| {});
    let (client, server, asker) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "asker"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.service("asker", 51, AppProtocol::Grpc, &[(7, Health::Ready)]);
    let client_only = vec!["cluster.local/ns/default/sa/client".into()];
    let from_client = Source { principals: client_only, ..Source::default() };
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    serve_grpc(&asker, wire::CHECK_PATH, move |question: wire::CheckRequest| {
        let attributes = question.attributes.clone().unwrap_or_default();
        let http = attributes.request.and_then(|it| it.http).unwrap_or_default();
        let source = attributes.source.unwrap_or_default().principal;
        let extra = http.headers.get("x-extra").cloned().unwrap_or_default();
        heard.lock().unwrap().push((source, http.method.clone(), http.path.clone(), http.protocol.clone(), extra));
        let header = |key: &str, value: &str| wire::HeaderValueOption {
            header: Some(wire::HeaderValue { key: key.into(), value: value.into() }),
            append: None,
        };
        let status = |code| Some(wire::Status { code, message: String::new() });
        match http.path.as_str() {
            "/broken" => Err(tonic::Status::unavailable("not now")),
            "/no" => Ok(wire::CheckResponse {
                status: status(7),
                denied: Some(wire::DeniedResponse {
                    status: Some(wire::HttpStatus { code: 418 }),
                    headers: vec![header("x-why", "because")],
                    body: "tea".into(),
                }),
                ok: None,
            }),
            _ => Ok(wire::CheckResponse {
                status: status(0),
                denied: None,
                ok: Some(wire::OkResponse {
                    // The length of a body that does not come: the codec says it, and nobody else.
                    headers: vec![header("x-extra", "checked"), header("Content-Length", "3")],
                    headers_to_remove: vec!["x-secret".into()],
                    response_headers: vec![],
                }),
            }),
        }
    });
    node.proxy().apply([
        Change::Set(Resource::ExtensionProvider(Arc::new(ExtensionProvider {
            timeout_ms: 4_000,
            ..authorizer(policy::ProviderKind::Grpc)
        }))),
        // Not about the proxies' own questions to the authorizer.
        policy("ask", Action::Custom, "asker", vec![PolicyRule { from: vec![from_client], ..PolicyRule::default() }]),
    ]);
    let url = |path: &str| format!("http://10.96.0.50{path}");
    let passed = curl(&client, &["-H", "X-Extra: forged", &url("/yes?q=1")]);
    assert!(passed.contains("GET /yes?q=1 ") && passed.contains("extra=checked"), "{passed}");
    let refused = curl(&client, &["-i", &url("/no")]);
    assert!(["418", "x-why: because", "tea"].iter().all(|part| refused.contains(part)), "{refused}");
    assert_eq!(code(&client, &[&url("/broken")]), "503", "no answer is no permission");
    let asked = asked.lock().unwrap();
    let expect = ["spiffe://cluster.local/ns/default/sa/client", "GET", "/yes?q=1", "HTTP/1.1", "forged"];
    let (source, method, path, protocol, extra) = &asked[0];
    assert_eq!([source, method, path, protocol, extra].map(String::as_str), expect);
}

//! Requests from pod to pod, by real clients: identity, routes, retries, upgrades.
mod support;

use diolkos_proxy::mesh::Change;
use model::mesh::*;
use model::{Key, Timestamp};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use support::{Node, curl, eventually, route, serve_http, to, workload};

fn rule(path: &str, backends: Vec<Backend>) -> Rule {
    let path = PathMatch::Prefix(path.into());
    Rule { matches: vec![Match { path, ..Match::default() }], backends, ..Rule::default() }
}

#[test]
fn http_1_and_2_with_identity() {
    need_root!("http_1_and_2_with_identity");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let vouched = "By=spiffe://cluster.local/ns/default/sa/web;URI=spiffe://cluster.local/ns/default/sa/client";
    let expect = |method: &str, version: &str, length: usize| {
        format!(
            "web {method} /a?b=c host=10.96.0.50 version={version} identity={vouched} extra=- length={length} trace=false forwarded=-\n"
        )
    };
    let url = "http://10.96.0.50/a?b=c";
    assert_eq!(curl(&client, &[url]), expect("GET", "HTTP/1.1", 0));
    // What a client says of its own identity is not passed on.
    assert_eq!(curl(&client, &["-H", "X-Forwarded-Client-Cert: URI=spiffe://x", url]), expect("GET", "HTTP/1.1", 0));
    assert_eq!(curl(&client, &["-d", "hello", url]), expect("POST", "HTTP/1.1", 5));
    assert_eq!(
        curl(&client, &["--http2-prior-knowledge", url]).replace("host=-", "host=10.96.0.50"),
        expect("GET", "HTTP/2.0", 0)
    );
    let file = format!("/tmp/dkp-body-{}", std::process::id());
    std::fs::write(&file, vec![b'z'; 3_000_000]).unwrap();
    let upload = format!("@{file}");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let said = curl(&client, &[version, "--data-binary", &upload, url]);
        assert!(said.contains("length=3000000"), "{version}: {said}");
        let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", &upload, url];
        assert!(curl(&client, &chunked).contains("length=3000000"));
        assert_eq!(curl(&client, &[version, "http://10.96.0.50/bytes/2000000"]).len(), 2_000_000);
    }
    std::fs::remove_file(file).unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge", "--http1.0"] {
        assert_eq!(curl(&client, &[version, "http://10.96.0.50/chunks"]), "piece 0\npiece 1\npiece 2\n", "{version}");
        let head = curl(&client, &["-I", version, "http://10.96.0.50/bytes/10"]);
        assert!(head.contains("content-length: 10"), "{version}: {head}");
    }
    let chunks = ["http://10.96.0.50/chunks"; 2];
    assert_eq!(curl(&client, &chunks), "piece 0\npiece 1\npiece 2\n".repeat(2), "a connection goes on after chunks");
    let heads = curl(&client, &["-I", "http://10.96.0.50/bytes/10", "http://10.96.0.50/bytes/10"]);
    assert_eq!(heads.matches("content-length: 10").count(), 2, "{heads}");
    // The same over one connection, and by the pod's address.
    let twice = curl(&client, &[url, url]);
    assert_eq!(twice, expect("GET", "HTTP/1.1", 0).repeat(2));
    let direct = curl(&client, &["http://10.250.0.6:8080/a?b=c"]);
    assert_eq!(direct.replace("10.250.0.6:8080", "10.96.0.50"), expect("GET", "HTTP/1.1", 0));
    eventually("requests were counted on both sides", || {
        let edges = node.edges();
        ["source", "destination"].iter().all(|reporter| {
            let of = |edge: &&serde_json::Value| edge["reporter"] == *reporter && edge["protocol"] == "http";
            edges.iter().filter(of).map(|edge| edge["requests"].as_u64().unwrap()).sum::<u64>() >= 10
        })
    });
}

#[test]
fn routes() {
    need_root!("routes");
    let mut node = Node::start(|_| {});
    let (client, one, two) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "v2"));
    serve_http(&one, "one");
    serve_http(&two, "two");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.service("v2", 51, AppProtocol::Http, &[(7, Health::Ready)]);
    let add = |name: &str, value: &str| HeaderModifier { set: vec![(name.into(), value.into())], ..Default::default() };
    let mut changed = rule("/changed", vec![to("v2", 1)]);
    changed.filters = vec![
        Filter::RequestHeaders(add("x-extra", "added")),
        Filter::ResponseHeaders(add("x-back", "also")),
        Filter::Rewrite(Rewrite {
            hostname: Some("other".into()),
            path: Some(PathModifier::ReplacePrefix("/new".into())),
        }),
    ];
    let mut moved = rule("/moved", vec![]);
    let elsewhere = Redirect {
        scheme: Some("https".into()),
        hostname: Some("x.example".into()),
        path: None,
        port: None,
        status: 301,
    };
    moved.filters = vec![Filter::Redirect(elsewhere)];
    let mut retried = rule("/status", vec![to("web", 1)]);
    retried.retry = Some(Retry { attempts: 2, backoff_ms: Some(1), codes: vec![503], ..Retry::default() });
    let invalid =
        Backend { target: BackendTarget::Invalid { reason: "BackendNotFound".into() }, weight: 1, filters: vec![] };
    node.proxy().apply([route(vec![
        rule("/split", vec![to("web", 3), to("v2", 1)]),
        changed,
        moved,
        retried,
        rule("/broken", vec![invalid]),
        rule("/one", vec![to("web", 1)]),
    ])]);
    let get = |path: &str, more: &[&str]| {
        let url = format!("http://10.96.0.50{path}");
        curl(&client, &[more, &[url.as_str()]].concat())
    };
    let status = |path: &str| get(path, &["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"]);
    assert!(get("/one", &[]).starts_with("one GET /one "));
    assert!(get("/changed/x?q=1", &[]).starts_with("two GET /new/x?q=1 host=other "));
    assert!(get("/changed/x", &[]).contains("extra=added"));
    assert!(get("/changed/x", &["-i"]).contains("x-back: also"));
    assert_eq!(status("/moved/a"), "301 https://x.example/moved/a");
    assert_eq!(status("/nowhere"), "404 ");
    assert_eq!(status("/broken"), "500 ");
    assert_eq!(status("/status/503"), "503 ", "the last answer is passed on when tries are used up");
    let url = "http://10.96.0.50/split";
    let answers = curl(&client, &[url; 200]);
    let ones = answers.lines().filter(|line| line.starts_with("one ")).count();
    assert_eq!(answers.lines().count(), 200);
    assert!((115..=185).contains(&ones), "{ones} of 200 for a weight of 3 in 4");
}

#[test]
fn time_limits_and_copies() {
    need_root!("time_limits_and_copies");
    let mut node = Node::start(|_| {});
    let (client, one, two) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "v2"));
    serve_http(&one, "one");
    serve_http(&two, "two");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.service("v2", 51, AppProtocol::Http, &[(7, Health::Ready)]);
    let mut limited = rule("/slow", vec![to("web", 1)]);
    limited.timeouts.request_ms = Some(200);
    let mut tries = rule("/slow/tries", vec![to("web", 1)]);
    tries.timeouts.backend_request_ms = Some(100);
    tries.retry = Some(Retry { attempts: 1, backoff_ms: Some(1), codes: vec![], ..Retry::default() });
    let mut mirrored = rule("/mirrored", vec![to("web", 1)]);
    let backend = BackendTarget::Service { service: Key::new("default", "v2"), port: 80 };
    mirrored.filters = vec![Filter::Mirror(Mirror { backend, fraction: Fraction::ALL })];
    node.proxy().apply([route(vec![limited, tries, mirrored])]);
    let status =
        |path: &str| curl(&client, &["-o", "/dev/null", "-w", "%{http_code}", &format!("http://10.96.0.50{path}")]);
    assert_eq!(status("/slow"), "504");
    assert_eq!(status("/slow/tries"), "504");
    assert!(curl(&client, &["-d", "body", "http://10.96.0.50/mirrored"]).starts_with("one POST /mirrored"));
    eventually("the copy arrived", || {
        node.edges().iter().any(|edge| edge["service"]["name"] == "v2" && edge["codes"]["200"] == 1)
    });
}

#[test]
fn a_dead_endpoint_costs_no_request() {
    need_root!("a_dead_endpoint_costs_no_request");
    let mut node = Node::start(|_| {});
    let (client, one, _silent) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    serve_http(&one, "one");
    // Nothing listens in the second pod, and nothing at all is at the third address.
    node.proxy().apply([Change::Set(Resource::Workload(Arc::new(workload(8, "web"))))]);
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    let answers = curl(&client, &["http://10.96.0.50/a"; 50]);
    assert_eq!(answers.lines().filter(|line| line.starts_with("one GET")).count(), 50, "{answers}");
}

#[test]
fn who_may_call() {
    need_root!("who_may_call");
    let mut node = Node::start(|_| {});
    let (friend, stranger, server) = (node.pod(5, "friend"), node.pod(6, "stranger"), node.pod(7, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(7, Health::Ready)]);
    let status = |from: &str, path: &str| {
        curl(from, &["-o", "/dev/null", "-w", "%{http_code}", &format!("http://10.96.0.50{path}")])
    };
    assert_eq!((status(&friend, "/a"), status(&stranger, "/a")), ("200".into(), "200".into()));
    let policy = |rules: Vec<PolicyRule>| {
        Change::Set(Resource::AuthorizationPolicy(Arc::new(AuthorizationPolicy {
            key: Key::new("default", "friends"),
            scope: Scope::Namespace,
            action: Action::Allow,
            dry_run: false,
            provider: "".into(),
            rules,
        })))
    };
    let friends = Source { principals: vec!["cluster.local/ns/default/sa/friend".into()], ..Source::default() };
    let open = Operation { paths: vec!["/open/*".into()], ..Operation::default() };
    node.proxy().apply([policy(vec![
        PolicyRule { from: vec![friends], ..PolicyRule::default() },
        PolicyRule { to: vec![open], ..PolicyRule::default() },
    ])]);
    assert_eq!((status(&friend, "/a"), status(&stranger, "/a")), ("200".into(), "403".into()));
    assert_eq!(status(&stranger, "/open/x"), "200");
    assert_eq!(status(&stranger, "/open/%2e%2e/a"), "403", "what is decided about is what is passed on");
    assert_eq!(curl(&stranger, &["http://10.96.0.50/a"]), "RBAC: access denied", "and not by which policy");
    // The node's own plain text is taken until it is forbidden; probes always are.
    let node_name = node.net.node();
    let plain = ["-o", "/dev/null", "-w", "%{http_code}", "http://10.250.0.7:8080/open/x"];
    assert_eq!(curl(&node_name, &plain), "200");
    node.proxy().apply([Change::Set(Resource::PeerAuthentication(Arc::new(PeerAuthentication {
        key: Key::new("default", "strict"),
        scope: Scope::Namespace,
        mode: MtlsMode::Strict,
        ports: vec![],
        created: Timestamp(1),
    })))]);
    assert!(!support::curl_output(&node_name, &plain).status.success());
    assert_eq!(status(&friend, "/a"), "200");
}

/// Requests in whichever method are requests: nobody says by one who he is.
#[test]
fn a_request_is_known_by_its_form() {
    need_root!("a_request_is_known_by_its_form");
    let mut node = Node::start(|_| {});
    let (declared, other) = (node.pod(6, "web"), node.pod(7, "other"));
    serve_http(&declared, "web");
    serve_http(&other, "other");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let from = node.net.node();
    let ask = |last: u8, pieces: &[&str]| {
        let mut stream = support::town::connect(&from, (support::address(last), 8080).into());
        let rest = " / HTTP/1.1\r\nHost: web\r\nConnection: close\r\nX-Forwarded-Client-Cert: URI=spiffe://x\r\n\r\n";
        for piece in pieces.iter().chain([&rest]) {
            stream.write_all(piece.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    };
    let forms = [&["GET"][..], &["PROPFIND"], &["PROP", "FIND"], &["M-SEARCH"], &["\r\nGET"], &["\r\n", "X_Y".trim()]];
    for last in [6, 7] {
        for form in forms {
            let said = ask(last, form);
            assert!(said.starts_with("HTTP/1.1 200"), "{last} {form:?}: {said}");
            assert!(!said.contains("spiffe://x"), "{last} {form:?}: {said}");
        }
    }
    // Where a service says that it is HTTP, all is.
    for form in [&["get"][..], &["\r\n\r\nGET"], &["propfind"]] {
        let said = ask(6, form);
        assert!(!said.contains("spiffe://x"), "{form:?}: {said}");
    }
}

/// A process may leave a connection on which nothing was asked for long. Who then asks, even what may not be asked twice, is answered.
#[test]
fn a_caller_may_be_silent_for_longer_than_the_process_waits() {
    need_root!("a_caller_may_be_silent_for_longer_than_the_process_waits");
    let mut node = Node::start(|_| {});
    let web = node.pod(6, "web");
    support::listen_in_threads(&web, |mut stream| {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let mut bytes = [0; 4096];
        if stream.read(&mut bytes).is_ok_and(|length| length > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let mut stream = support::town::connect(&node.net.node(), (support::address(6), 8080).into());
    std::thread::sleep(Duration::from_millis(2_500));
    stream.write_all(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes).unwrap();
    let said = String::from_utf8_lossy(&bytes[..length]);
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

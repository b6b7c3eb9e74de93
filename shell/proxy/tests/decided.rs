//! What is decided about a request is what arrives: one path, one host, one set of headers for everybody who looks at it.
mod support;

use diolkos_proxy::mesh::Change;
use http_body_util::{BodyExt, Full};
use model::Key;
use model::mesh::attached::{AttachedPolicy, Part, PolicyTarget, RateLimit};
use model::mesh::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use support::{Node, authorizer, curl, eventually, gateway, inside, route, serve_http, serve_requests, to};

const GATEWAY: &str = "http://127.0.0.1:25180";

fn policy(name: &str, action: Action, scope: Scope, provider: &str, rules: Vec<PolicyRule>) -> Change {
    let key = Key::new("default", name);
    Change::Set(Resource::AuthorizationPolicy(Arc::new(AuthorizationPolicy {
        key,
        scope,
        action,
        dry_run: false,
        provider: provider.into(),
        rules,
    })))
}

fn on_paths(paths: &[&str]) -> PolicyRule {
    let paths = paths.iter().map(|path| (*path).into()).collect();
    PolicyRule { to: vec![Operation { paths, ..Operation::default() }], ..PolicyRule::default() }
}

fn when(key: &str, values: &[&str]) -> PolicyRule {
    let values = values.iter().map(|value| (*value).into()).collect();
    PolicyRule { when: vec![Condition { key: key.into(), values, not_values: vec![] }], ..PolicyRule::default() }
}

/// A gateway on the node with one policy, and a route of a prefix that is cut off.
fn guarded_gateway(deny: PolicyRule, prefix: &str) -> Vec<Change> {
    let mut changes = gateway(25180, prefix, "web");
    for change in &mut changes {
        match change {
            Change::Set(Resource::Gateway(gateway)) => {
                Arc::make_mut(gateway).authorization_policies = vec![Key::new("default", "deny")];
            }
            Change::Set(Resource::Route(route)) => {
                let cut = PathModifier::ReplacePrefix("/".into());
                Arc::make_mut(route).rules[0].filters =
                    vec![Filter::Rewrite(Rewrite { hostname: None, path: Some(cut) })];
            }
            _ => {}
        }
    }
    changes.push(policy("deny", Action::Deny, Scope::Workload, "", vec![deny]));
    changes
}

fn code(client: &str, arguments: &[&str]) -> String {
    curl(client, &[&["--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"], arguments].concat())
}

#[test]
fn who_is_asked_is_told_the_path_that_arrives() {
    need_root!("who_is_asked_is_told_the_path_that_arrives");
    let mut node = Node::start(|_| {});
    let (client, server, asker) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "asker"));
    serve_http(&server, "web");
    serve_requests(&asker, |request| async move {
        let status = if request.uri().path().starts_with("/ask/public") { 200 } else { 403 };
        hyper::Response::builder().status(status).body(Full::default().boxed()).unwrap()
    });
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.service("asker", 51, AppProtocol::Http, &[(7, Health::Ready)]);
    let kind = policy::ProviderKind::Http {
        prefix: "/ask".into(),
        send: vec![],
        add: vec![],
        upstream: vec![],
        downstream: vec![],
    };
    let from_client = Source { principals: vec!["cluster.local/ns/default/sa/client".into()], ..Source::default() };
    node.proxy().apply([
        policy(
            "ask",
            Action::Custom,
            Scope::Namespace,
            "asker",
            vec![PolicyRule { from: vec![from_client], ..PolicyRule::default() }],
        ),
        Change::Set(Resource::ExtensionProvider(Arc::new(authorizer(kind)))),
    ]);
    for (path, expect) in [
        ("/public/a", "200"),
        ("/admin", "403"),
        ("/public/../admin", "403"),
        ("/public/%2e%2E/admin", "403"),
        ("/public/..\\admin", "403"),
        ("/../public", "200"),
        ("/x/../%70ublic/b", "200"),
    ] {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let url = format!("http://10.96.0.50{path}");
            assert_eq!(code(&client, &[version, &url]), expect, "{version} {path}");
        }
    }
}

#[test]
fn policy_route_limit_and_process_see_one_path() {
    need_root!("policy_route_limit_and_process_see_one_path");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.proxy().apply(guarded_gateway(on_paths(&["/admin*"]), "/admin"));
    let host = node.net.node();
    let at_gateway = |path: &str| code(&host, &[&format!("{GATEWAY}{path}")]);
    eventually("the gateway refuses", || at_gateway("/admin/x") == "403");
    for (path, expect) in
        [("/admin/../x", "404"), ("/a/../admin/x", "403"), ("/%61dmin", "403"), ("/a\\..\\admin", "403")]
    {
        assert_eq!(at_gateway(path), expect, "{path}");
    }
    // A route of a service, and a limit on it: both of the path that the process gets.
    let limit = RateLimit {
        name: "l".into(),
        matches: vec![Match { path: PathMatch::Prefix("/orders".into()), ..Match::default() }],
        per: vec![Part::Path],
        requests: 1,
        interval_ms: 3_600_000,
        burst: 1,
    };
    let target = PolicyTarget::Route { route: "HTTPRoute/default/r".into(), rule: "".into() };
    let key = Key::new("default", "limit");
    let limits = AttachedPolicy { key, targets: vec![target], limits: vec![limit], global: None, hedging: None };
    let rule = |prefix: &str, filters| Rule {
        matches: vec![Match { path: PathMatch::Prefix(prefix.into()), ..Match::default() }],
        filters,
        backends: vec![to("web", 1)],
        ..Rule::default()
    };
    let tea = Filter::Respond(Response { status: 418, body: b"tea".as_slice().into() });
    node.proxy().apply([
        route(vec![rule("/tea", vec![tea]), rule("/", vec![])]),
        Change::Set(Resource::AttachedPolicy(Arc::new(limits))),
    ]);
    let at_service = |path: &str| code(&client, &[&format!("http://10.96.0.50{path}")]);
    assert_eq!(at_service("/x/../tea"), "418");
    assert_eq!(at_service("/tea/../x"), "200");
    let said = curl(&client, &["--path-as-is", "http://10.96.0.50/tea/../a%2fb//c?d=/../e"]);
    assert!(said.starts_with("web GET /a%2Fb//c?d=/../e "), "what a path may mean is not guessed: {said}");
    assert_eq!(["/orders", "/%6frders", "/a/../orders"].map(at_service), ["200", "429", "429"]);
}

#[test]
fn fields_that_the_codec_reads_are_seen() {
    need_root!("fields_that_the_codec_reads_are_seen");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let by_header = |name: &str, value: TextMatch, status| Rule {
        matches: vec![Match { headers: vec![ValueMatch { name: name.into(), value }], ..Match::default() }],
        filters: vec![Filter::Respond(Response { status, body: b"matched".as_slice().into() })],
        ..Rule::default()
    };
    node.proxy().apply([route(vec![
        by_header("upgrade", TextMatch::Exact("websocket".into()), 418),
        by_header("host", TextMatch::Exact("tea.example".into()), 419),
        by_header("content-length", TextMatch::Exact("5".into()), 420),
        by_header("te", TextMatch::Exact("trailers".into()), 421),
        Rule { matches: vec![Match::default()], backends: vec![to("web", 1)], ..Rule::default() },
    ])]);
    let url = "http://10.96.0.50/";
    for (arguments, expect) in [
        (&["-H", "Connection: Upgrade", "-H", "Upgrade: websocket"][..], "418"),
        (&["-H", "Host: tea.example"], "419"),
        (&["-d", "hello"], "420"),
        (&["-H", "Connection: TE", "-H", "TE: trailers"], "421"),
        (&["-H", "Upgrade: websocket"], "200"),
        (&["-d", "hello you"], "200"),
    ] {
        assert_eq!(code(&client, &[&["--http1.1"], arguments, &[url]].concat()), expect, "{arguments:?}");
    }
    node.proxy().apply([
        Change::Remove(ResourceKind::Route, "HTTPRoute/default/r".into()),
        policy("deny", Action::Deny, Scope::Namespace, "", vec![when("request.headers[host]", &["tea.example"])]),
    ]);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        assert_eq!(code(&client, &[version, "-H", "Host: tea.example", url]), "403", "{version}");
        assert_eq!(code(&client, &[version, url]), "200", "{version}");
    }
}

#[test]
fn a_host_in_brackets_is_an_address_or_nothing() {
    need_root!("a_host_in_brackets_is_an_address_or_nothing");
    let mut node = Node::start(|_| {});
    let server = node.pod(6, "web");
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let deny =
        Operation { hosts: vec!["admin.example.com".into(), "admin.example.com:*".into()], ..Operation::default() };
    node.proxy().apply(guarded_gateway(PolicyRule { to: vec![deny], ..PolicyRule::default() }, "/"));
    let host = node.net.node();
    let named = |name: &str| code(&host, &["-H", &format!("Host: {name}"), &format!("{GATEWAY}/")]);
    eventually("the gateway refuses", || named("admin.example.com") == "403");
    assert_eq!(named("admin.example.com:80"), "403");
    for name in ["[admin.example.com]", "[::1]admin.example.com", "[::1", "a[::1]", "[::1]:x"] {
        assert_eq!(named(name), "400", "{name}");
    }
    assert_eq!(named("[::1]:25180"), "200");
}

#[test]
fn every_line_of_forwarded_for_goes_on() {
    need_root!("every_line_of_forwarded_for_goes_on");
    let mut node = Node::start(|_| {});
    let server = node.pod(6, "web");
    serve_http(&server, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.proxy().apply(gateway(25180, "/", "web"));
    let host = node.net.node();
    eventually("the gateway serves", || code(&host, &[&format!("{GATEWAY}/")]) == "200");
    // As HAProxy adds its own behind a client's.
    let lines = "X-Forwarded-For: 6.6.6.6\r\nAccept: */*\r\nx-forwarded-for: 203.0.113.7\r\n";
    let said = inside(&host, move || {
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 25180))).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said).unwrap()
    });
    let said = said.join().unwrap();
    assert!(said.contains("forwarded=6.6.6.6, 203.0.113.7, 127.0.0.1\n"), "{said}");
}

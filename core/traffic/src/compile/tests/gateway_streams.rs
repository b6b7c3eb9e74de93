//! `tls` and `tcp` rules of VirtualServices on Gateways.

use super::istio::{istio_status, object, rule_to, to, virtual_service, web};
use super::*;
use model::mesh::Subnet;
use model::mesh::api::istio::{StreamMatch, StreamRule, VirtualService};

fn edge() -> Vec<Object> {
    let with = |name: &str, port: u16, protocol: &str, hostname: &str, mode: Option<&str>| ListenerSpec {
        tls_mode: mode.map(Into::into),
        certificates: vec![reference("", "Secret", "", "cert")],
        allowed_namespaces: AllowedNamespaces::All,
        ..listener(name, port, protocol, hostname)
    };
    let bytes: Arc<[u8]> = b"pem".as_slice().into();
    let secret = TlsSecret {
        key: Key::new("infra", "cert"),
        certificate_chain: bytes.clone(),
        private_key: bytes,
        ..Default::default()
    };
    let mut objects = web();
    objects.push(Object::TlsSecret(secret));
    objects.push(gateway(
        "edge",
        1,
        vec![
            with("db", 9000, "TCP", "", None),
            with("other", 9001, "TCP", "", None),
            with("pass", 9443, "TLS", "*.example", Some("Passthrough")),
            with("ends", 9444, "TLS", "db.example", Some("Terminate")),
            with("web", 8080, "HTTP", "", None),
        ],
    ));
    objects
}

/// Routes as `NAME KIND LISTENER[HOSTS]...`, and the status.
fn told(it: VirtualService) -> (Vec<String>, String) {
    let mut compiler = compiler(edge());
    compiler.set(object(it));
    let output = compiler.take();
    let shown = |route: &Arc<model::mesh::Route>| {
        let parents: Vec<String> = route
            .parents
            .iter()
            .map(|parent| match &parent.target {
                ParentTarget::Listener { listener, .. } => format!("{listener}{:?}", parent.hostnames),
                ParentTarget::Service { service, .. } => format!("{service}{:?}", parent.hostnames),
            })
            .collect();
        assert_eq!(route.rules[0].backends.len(), 1);
        format!("{} {:?} {}", &route.name["VirtualService/apps/vs".len()..], route.kind, parents.join(" "))
    };
    let routes = compiler.told.values().filter_map(|told| match told {
        Resource::Route(route) => Some(shown(route)),
        _ => None,
    });
    (routes.collect(), istio_status(&output, ObjectKind::VirtualService, "vs"))
}

fn with_streams(gateways: &[&str], streams: Vec<StreamRule>) -> VirtualService {
    VirtualService {
        gateways: gateways.iter().map(|name| (*name).into()).collect(),
        streams,
        ..virtual_service("vs", 1, &["web"], Vec::new())
    }
}

fn rule(tls: bool, matches: Vec<StreamMatch>) -> StreamRule {
    StreamRule { tls, matches, destinations: vec![to("web", "")], ..StreamRule::default() }
}

fn on(port: u16, sni: &[&str]) -> StreamMatch {
    StreamMatch { port: Some(port), sni: sni.iter().map(|it| (*it).into()).collect(), ..StreamMatch::default() }
}

#[test]
fn listeners_take_what_their_protocol_can() {
    let check = |it: VirtualService, expect: &[&str], status: &str| {
        assert_eq!(told(it), (expect.iter().map(|it| (*it).to_owned()).collect(), status.to_owned()));
    };
    // All plain listeners of the gateway, when none is named.
    check(with_streams(&["infra/edge"], vec![rule(false, vec![])]), &["@infra/edge#0000.0000 Tcp db[] other[]"], "");
    check(
        with_streams(&["infra/edge"], vec![rule(false, vec![on(9000, &[]), on(9444, &[])])]),
        &["@infra/edge#0000.0000 Tcp db[]", r#"@infra/edge#0000.0001 Tls ends["db.example"]"#],
        "",
    );
    check(
        with_streams(&["infra/edge"], vec![rule(true, vec![on(9443, &["a.example", "b.other"])])]),
        &[r#"@infra/edge#0000.0000 Tls pass["a.example"]"#],
        "",
    );
    // A match for some gateways only, and one for callers that a gateway has not.
    let only = StreamMatch { gateways: vec!["mesh".into()], ..on(80, &[]) };
    let labelled = StreamMatch { labels: labels(&[("app", "x")]), ..on(9000, &[]) };
    let elsewhere = StreamMatch { namespace: Some("apps".into()), ..on(9000, &[]) };
    let own = StreamMatch { namespace: Some("infra".into()), ..on(9001, &[]) };
    check(
        with_streams(&["infra/edge", "mesh"], vec![rule(false, vec![only, labelled, elsewhere, own])]),
        &[
            "#0000.0000 Tcp apps/web[]",
            "#0000.0001 Tcp apps/web[]",
            "#0000.0002 Tcp apps/web[]",
            "#0000.0003 Tcp apps/web[]",
            "@infra/edge#0000.0003 Tcp other[]",
        ],
        "",
    );
    check(with_streams(&["infra/edge"], vec![rule(false, vec![on(7, &[])])]), &[], "Accepted=False/NoMatchingParent");
    check(
        with_streams(&["infra/edge"], vec![rule(true, vec![on(9443, &["a.other"])])]),
        &[],
        "Accepted=False/NoMatchingListenerHostname",
    );
    let block = StreamMatch { destinations: vec![Subnet::parse("10.0.0.0/8").unwrap()], ..on(9000, &[]) };
    check(
        with_streams(&["infra/edge"], vec![rule(false, vec![block])]),
        &[],
        "Accepted=False/UnsupportedValue PartiallyInvalid=True/UnsupportedValue",
    );
    // Requests and connections of one object go to their own listeners.
    let mut both = with_streams(&["infra/edge"], vec![rule(false, vec![on(9000, &[])])]);
    both.http = vec![rule_to(vec![to("web", "")])];
    let (routes, status) = told(both);
    assert_eq!(routes.len(), 2, "{routes:?}");
    assert_eq!(status, "");
}

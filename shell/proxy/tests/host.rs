//! A process on a machine that is no node: called by pods, and calling services, under its own identity.
mod support;

use diolkos_proxy::Proxy;
use diolkos_proxy::host::HostWorkload;
use diolkos_proxy::mesh::Change;
use model::Key;
use model::mesh::*;
use std::sync::Arc;
use support::{Node, address, curl, inside, serve_http, workload};

#[test]
fn a_joined_process_is_called_and_calls() {
    need_root!("a_joined_process_is_called_and_calls");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    let machine = node.net.pod(9);
    serve_http(&machine, "legacy");
    let mut joined = workload(9, "legacy");
    joined.name = "host/default/legacy-9".into();
    let config = diolkos_proxy::Config { workers: 1, gateways: false, ..Default::default() };
    let (signer, root) = (node.issuer.clone(), node.issuer.root_pem().to_owned());
    let host = HostWorkload {
        workload: joined.name.to_string(),
        namespace: "default".into(),
        service_account: "legacy".into(),
        address: address(9),
        port: 8080,
        capture: vec!["10.96.0.0/16".into()],
    };
    let legacy = inside(&machine, move || {
        let proxy = Proxy::start(config, signer).unwrap();
        proxy.shared.identities.set_roots([root.as_str()].into_iter());
        proxy.attacher.attach_host(&host).unwrap();
        proxy
    });
    let legacy = legacy.join().unwrap();
    let mut known = vec![
        Change::Set(Resource::Workload(Arc::new(joined))),
        Change::Set(Resource::Workload(Arc::new(workload(5, "client")))),
        Change::Set(Resource::Workload(Arc::new(workload(6, "web")))),
    ];
    known.extend(support::service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]));
    let key = Key::new("default", "legacy");
    let mut of_legacy = support::service("legacy", 51, AppProtocol::Http, &[]);
    of_legacy[1] = Change::Set(Resource::Endpoints(Arc::new(EndpointGroup {
        key: key.clone(),
        service: key,
        ports: vec![("main".into(), 8080)],
        endpoints: vec![Endpoint {
            address: address(9),
            workload: "host/default/legacy-9".into(),
            health: Health::Ready,
            weight: 1,
            region: "".into(),
            zone: "".into(),
            node: "".into(),
            hostname: "".into(),
        }],
    })));
    known.extend(of_legacy);
    node.proxy().apply(known.clone());
    legacy.apply(known);
    let called = curl(&client, &["http://10.96.0.51/x"]);
    assert!(
        called.starts_with("legacy GET /x") && called.contains("URI=spiffe://cluster.local/ns/default/sa/client"),
        "{called}"
    );
    let calls = curl(&machine, &["http://10.96.0.50/y"]);
    assert!(
        calls.starts_with("web GET /y") && calls.contains("URI=spiffe://cluster.local/ns/default/sa/legacy"),
        "{calls}"
    );
    // By name, whatever name server the machine believes in.
    let named = curl(&machine, &["http://web.default.svc.cluster.local/z"]);
    assert!(named.starts_with("web GET /z"), "{named}");
    // What is not a service's stays as it was.
    assert!(!support::curl_output(&machine, &["http://10.250.0.1:9/"]).status.success());
    legacy.stop();
}

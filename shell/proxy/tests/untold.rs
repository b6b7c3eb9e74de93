//! Before it is known which policies hold nothing comes in: that none were told says nothing.
mod support;

use diolkos_proxy::mesh::Change;
use diolkos_proxy::{Control, ControlPlane};
use model::Key;
use model::mesh::*;
use std::sync::Arc;
use std::time::Duration;
use support::{Net, Node, address, curl, curl_output, eventually, serve_http, workload};

/// A node whose control plane never answers.
fn node() -> Node {
    Node::start(|config| {
        let file = || "/nonexistent".into();
        let (address, server_name) = ("127.0.0.1:1".into(), "plane".into());
        config.control =
            Control::Plane(ControlPlane { address, server_name, ca: file(), certificate: file(), key: file() });
    })
}

fn ask(net: &Net, last: u8) -> String {
    curl(&net.node(), &["-o", "/dev/null", "-w", "%{http_code}", &format!("http://{}:8080/", address(last))])
}

fn is_taken(net: &Net, last: u8) -> bool {
    curl_output(&net.node(), &[&format!("http://{}:8080/", address(last))]).status.success()
}

fn set(workload: Workload) -> Change {
    Change::Set(Resource::Workload(Arc::new(workload)))
}

#[test]
fn nothing_comes_in_before_policies_are_known() {
    need_root!("nothing_comes_in_before_policies_are_known");
    let mut node = node();
    let (web, reused) = (node.net.pod(6), node.net.pod(7));
    serve_http(&web, "web");
    serve_http(&reused, "reused");
    node.attach(6, "web", &web);
    node.attach(7, "web", &reused);
    assert!(!is_taken(&node.net, 6), "nothing was told");
    node.proxy().apply([set(workload(6, "web"))]);
    assert!(!is_taken(&node.net, 6), "policies may be on their way");
    // Who has come already waits, and is served when it is known.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&node.net, 6));
        std::thread::sleep(Duration::from_millis(300));
        node.proxy().shared.set_synced();
        assert_eq!(waiting.join().unwrap(), "200");
    });
    // A pod that is not told yet, at whose address another was: what held for that one says nothing.
    node.proxy().apply([set(Workload { uid: "another".into(), ..workload(7, "web") })]);
    assert!(!is_taken(&node.net, 7));
    node.proxy().apply([set(workload(7, "web"))]);
    assert_eq!(ask(&node.net, 7), "200");
}

#[test]
fn what_was_known_of_a_pod_holds_when_its_object_is_gone() {
    need_root!("what_was_known_of_a_pod_holds_when_its_object_is_gone");
    let mut node = node();
    let web = node.net.pod(6);
    serve_http(&web, "web");
    node.attach(6, "web", &web);
    let strict = PeerAuthentication {
        key: Key::new("default", "strict"),
        scope: Scope::Workload,
        mode: MtlsMode::Strict,
        ports: vec![],
        created: model::Timestamp(1),
    };
    let selected = Workload { peer_authentications: vec![strict.key.clone()], ..workload(6, "web") };
    node.proxy().apply([set(selected.clone())]);
    node.proxy().shared.set_synced();
    assert_eq!(ask(&node.net, 6), "200", "no such policy is told");
    node.proxy().apply([Change::Set(Resource::PeerAuthentication(Arc::new(strict)))]);
    eventually("plain text is refused", || !is_taken(&node.net, 6));
    node.proxy().apply([Change::Remove(ResourceKind::Workload, selected.name.to_string())]);
    assert!(!is_taken(&node.net, 6), "deleted by force, its process still runs");
}

//! A process on a machine that is no node: called by pods, and calling services, under its own identity.
mod support;

use diolkos_proxy::host::HostWorkload;
use diolkos_proxy::mesh::Change;
use diolkos_proxy::{Callers, Config, Proxy, WorkloadApi, handover};
use model::Key;
use model::mesh::*;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::spiffe::Peer;
use support::{Node, address, curl, inside, serve_http, workload};
use xds::workload_api::*;

const WORKLOAD: &str = "host/default/legacy-9";

/// A machine that is no node joins with its process on port 8080.
fn join(node: &Node, machine: &str, configure: impl FnOnce(&mut Config) + Send + 'static) -> Proxy {
    let (signer, root) = (node.issuer.clone(), node.issuer.root_pem().to_owned());
    let host = HostWorkload {
        workload: WORKLOAD.into(),
        namespace: "default".into(),
        service_account: "legacy".into(),
        address: address(9),
        port: 8080,
        capture: vec!["10.96.0.0/16".into()],
    };
    let joined = inside(machine, move || {
        let mut config = Config { workers: 1, gateways: false, ..Config::default() };
        configure(&mut config);
        let proxy = Proxy::start(config, signer).unwrap();
        proxy.shared.identities.set_roots([root.as_str()].into_iter());
        proxy.attacher.attach_host(&host).unwrap();
        proxy
    });
    joined.join().unwrap()
}

/// Both pods, the joined process, and the services `web` (10.96.0.50) and `legacy` (10.96.0.51).
fn known() -> Vec<Change> {
    let mut joined = workload(9, "legacy");
    joined.name = WORKLOAD.into();
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
        endpoints: vec![Endpoint { workload: WORKLOAD.into(), ..Endpoint::at(address(9)) }],
    })));
    known.extend(of_legacy);
    known
}

#[test]
fn a_joined_process_is_called_and_calls() {
    need_root!("a_joined_process_is_called_and_calls");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    let machine = node.net.pod(9);
    serve_http(&machine, "legacy");
    let legacy = join(&node, &machine, |_| {});
    let known = known();
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

/// What a process of such a user, group and supplementary groups is told when it calls a method that there is not: gRPC's status.
fn asks_as(socket: &Path, user: u32, group: u32, groups: &str) -> Option<u32> {
    let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
    let more = if groups.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={groups}") };
    let mut call = Command::new("setpriv");
    call.args([&user, &group, &more]).args(["curl", "-sS", "-m", "5", "-o", "/dev/null", "-D", "-"]);
    call.args(["--http2-prior-knowledge", "-H", "content-type: application/grpc", "-H", "te: trailers"]);
    call.args(["-H", "workload.spiffe.io: true", "--data-raw", "", "--unix-socket"]).arg(socket);
    let said = call.arg("http://localhost/SpiffeWorkloadAPI/Nothing").output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.lines().find_map(|line| line.strip_prefix("grpc-status: ")).and_then(|status| status.trim().parse().ok())
}

#[test]
fn users_and_groups_of_a_joined_host_get_its_identity() {
    need_root!("users_and_groups_of_a_joined_host_get_its_identity");
    let mut node = Node::start(|_| {});
    let machine = node.net.pod(9);
    let socket = std::env::temp_dir().join(format!("diolkos-joined-{}/api.sock", std::process::id()));
    let at = socket.clone();
    let legacy = join(&node, &machine, move |config| {
        let callers = Callers::Users { users: vec![0, 4711], groups: vec![4713] };
        config.workload_api = Some(WorkloadApi { socket: at, callers });
    });
    legacy.apply([support::spiffe::bundle("cluster.local", node.issuer.root_pem())]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let peer = Peer::connect(&socket).await;
        let svids = peer.stream::<_, X509SvidResponse>(FETCH_X509_SVID, Peer::request(X509SvidRequest {})).await;
        let first = svids.unwrap().message().await.unwrap().unwrap();
        assert_eq!(first.svids[0].spiffe_id, "spiffe://cluster.local/ns/default/sa/legacy", "root's process");
    });
    // 12: it may ask, and there is no such method. 7: it may not.
    for (user, group, groups, status) in [
        (4711, 9, "", 12),
        (4712, 4713, "", 12),
        (4712, 9, "8,4713,7", 12),
        (4712, 9, "", 7),
        (4713, 4711, "4711", 7),
        (65534, 65534, "65534", 7),
    ] {
        assert_eq!(asks_as(&socket, user, group, groups), Some(status), "user {user}, group {group}, groups {groups}");
    }
    let many: Vec<String> = (5000..5200).chain([4713]).map(|group| group.to_string()).collect();
    assert_eq!(asks_as(&socket, 4712, 9, &many.join(",")), Some(12), "more groups than a first look has room for");
    legacy.stop();
    let _ = std::fs::remove_dir_all(socket.parent().unwrap());
}

#[test]
fn another_proxy_takes_over_a_joined_process() {
    need_root!("another_proxy_takes_over_a_joined_process");
    let mut node = Node::start(|_| {});
    let (client, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_http(&server, "web");
    let machine = node.net.pod(9);
    serve_http(&machine, "legacy");
    let door = std::env::temp_dir().join(format!("diolkos-joined-handover-{}.sock", std::process::id()));
    let at = door.clone();
    let old = join(&node, &machine, move |config| config.handover_socket = Some(at));
    node.proxy().apply(known());
    old.apply(known());
    assert!(curl(&client, &["http://10.96.0.51/x"]).starts_with("legacy GET /x"));
    let (stop, load) = (Arc::new(AtomicBool::new(false)), machine.clone());
    let load = support::under_load(&load, &stop);
    let (signer, root) = (node.issuer.clone(), node.issuer.root_pem().to_owned());
    let successor = inside(&machine, move || {
        let taken = handover::take(&door).unwrap().expect("somebody is there");
        assert_eq!(taken.0.pods.len(), 1);
        let config =
            Config { workers: 2, gateways: false, handover_socket: Some(door), admin: None, ..Config::default() };
        let successor = Proxy::succeed(config, signer, taken).unwrap();
        successor.proxy.shared.identities.set_roots([root.as_str()].into_iter());
        successor.proxy.apply(known());
        successor.proxy.shared.set_synced();
        successor.begin(Duration::from_secs(10)).unwrap()
    });
    let successor = successor.join().unwrap();
    old.runtime().block_on(old.succeeded());
    assert!(curl(&client, &["http://10.96.0.51/y"; 20]).lines().all(|line| line.starts_with("legacy GET /y")));
    stop.store(true, Ordering::Relaxed);
    old.runtime().block_on(old.leave(Duration::from_secs(30)));
    old.stop();
    let called = curl(&client, &["http://10.96.0.51/z"]);
    assert!(called.contains("legacy GET /z") && called.contains("sa/client"), "without the first one: {called}");
    let calls = curl(&machine, &["http://web.default.svc.cluster.local/z"]);
    assert!(calls.contains("web GET /z") && calls.contains("sa/legacy"), "and what it captured: {calls}");
    let (answers, failures) = load.join().unwrap();
    assert!(failures.is_empty() && answers > 0, "{answers} answers, failures: {failures:?}");
    successor.stop();
}

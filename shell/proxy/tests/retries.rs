//! Where a request that is sent again goes, as VirtualServices' `retries` say.
mod support;

use diolkos_proxy::mesh::Change;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use model::mesh::traffic::Locality;
use model::mesh::*;
use std::sync::Arc;
use support::{Node, curl, route, serve_requests, service, to, workload};

/// The service `web`, whose endpoints are these pods, each in its zone.
fn zoned(pods: &[(u8, &str)], policy: TrafficPolicy) -> Vec<Change> {
    let ready: Vec<(u8, Health)> = pods.iter().map(|(last, _)| (*last, Health::Ready)).collect();
    let mut changes = service("web", 50, AppProtocol::Http, &ready);
    for change in &mut changes {
        match change {
            Change::Set(Resource::Service(service)) => {
                Arc::make_mut(service).ports[0].traffic = Some(Arc::new(policy.clone()));
            }
            Change::Set(Resource::Endpoints(group)) => {
                for (endpoint, (_, zone)) in Arc::make_mut(group).endpoints.iter_mut().zip(pods) {
                    (endpoint.region, endpoint.zone) = ("r".into(), (*zone).into());
                }
            }
            _ => {}
        }
    }
    changes
}

fn always(netns: &str, status: u16) {
    serve_requests(netns, move |_| async move {
        hyper::Response::builder().status(status).body(Full::from(Bytes::from("said\n")).boxed()).unwrap()
    });
}

/// Statuses of so many requests under these retries.
fn statuses(node: &Node, client: &str, count: usize, retry: Retry) -> Vec<String> {
    node.proxy().apply([route(vec![Rule {
        matches: vec![Match::default()],
        backends: vec![to("web", 1)],
        retry: Some(retry),
        ..Rule::default()
    }])]);
    let urls = vec!["http://10.96.0.50/"; count];
    let said = curl(client, &[&["-o", "/dev/null", "-w", "%{http_code}\n"][..], &urls].concat());
    said.lines().filter(|line| line.len() == 3).map(str::to_owned).collect()
}

fn once() -> Retry {
    Retry { attempts: 1, backoff_ms: Some(1), codes: vec![503], ..Retry::default() }
}

#[test]
fn a_try_in_another_locality() {
    need_root!("a_try_in_another_locality");
    let mut node = Node::start(|_| {});
    let client = node.pod(5, "client");
    let (one, two, far) = (node.pod(6, "web"), node.pod(7, "web"), node.pod(8, "web"));
    always(&one, 503);
    always(&two, 503);
    always(&far, 200);
    let here = Workload { region: "r".into(), zone: "a".into(), ..workload(5, "client") };
    node.proxy().apply([Change::Set(Resource::Workload(Arc::new(here)))]);
    let policy =
        TrafficPolicy { locality: Locality { enabled: Some(true), ..Locality::default() }, ..TrafficPolicy::default() };
    node.proxy().apply(zoned(&[(6, "a"), (7, "a"), (8, "b")], policy));
    let near = statuses(&node, &client, 40, once());
    assert_eq!(near.len(), 40);
    assert!(near.iter().any(|status| status == "503"), "the other near one is asked, mostly: {near:?}");
    let far = statuses(&node, &client, 40, Retry { other_localities: true, ..once() });
    assert_eq!(far, ["200"; 40], "the second try is in the other zone");
}

#[test]
fn a_try_where_one_was() {
    need_root!("a_try_where_one_was");
    let mut node = Node::start(|_| {});
    let (client, bad, good) = (node.pod(5, "client"), node.pod(6, "web"), node.pod(7, "web"));
    always(&bad, 503);
    always(&good, 200);
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready), (7, Health::Ready)]);
    assert_eq!(statuses(&node, &client, 60, once()), ["200"; 60], "another endpoint than the one that failed");
    let same = statuses(&node, &client, 60, Retry { same_endpoints: true, ..once() });
    assert_eq!(same.len(), 60);
    assert!(same.iter().any(|status| status == "503"), "of two draws both fell on the bad one: {same:?}");
}

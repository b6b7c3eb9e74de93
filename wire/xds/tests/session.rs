//! Client and server sessions against each other, without any wire: every step that can happen between them, in many orders.

use bytes::Bytes;
use diolkos_xds::catalog::Catalog;
use diolkos_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, SharedDeltaResponse};
use diolkos_xds::session::{Client, Server, SessionError};
use prost::Message;
use std::collections::{BTreeMap, VecDeque};

const A: &str = "type.diolkos.io/mesh.v1.Workload";
const B: &str = "type.diolkos.io/mesh.v1.Service";
const ORDER: [&str; 2] = [A, B];

fn everything(_: &str, _: &str) -> bool {
    true
}

/// What goes over the wire, both ways, and what the client has made of it.
struct Pair {
    catalog: Catalog,
    client: Client,
    server: Option<Server>,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<DeltaDiscoveryResponse>,
    has: BTreeMap<(String, String), Bytes>,
    limit: usize,
    /// Resources of this name are refused.
    refuse: &'static str,
    /// Resources that were sent, for counting.
    sent: usize,
}

fn wire(response: SharedDeltaResponse) -> DeltaDiscoveryResponse {
    // Through bytes: what the server shares must read as what the protocol says.
    DeltaDiscoveryResponse::decode(response.encode_to_vec().as_slice()).expect("the same message")
}

impl Pair {
    fn new() -> Pair {
        let mut catalog = Catalog::default();
        ORDER.into_iter().for_each(|type_url| catalog.declare(type_url));
        let mut client = Client::new(Node { id: "n".into(), ..Default::default() });
        ORDER.into_iter().for_each(|type_url| client.subscribe_all(type_url));
        Pair {
            catalog,
            client,
            server: None,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            has: BTreeMap::new(),
            limit: usize::MAX,
            refuse: "-",
            sent: 0,
        }
    }

    fn set(&mut self, type_url: &'static str, name: &str, value: &str) {
        self.catalog.set(type_url, name, Some(Bytes::from(value.to_owned())));
    }

    fn remove(&mut self, type_url: &'static str, name: &str) {
        self.catalog.set(type_url, name, None);
    }

    fn connect(&mut self) {
        self.server = Some(Server::new("test"));
        self.to_client.clear();
        self.to_server = self.client.connected().into();
    }

    fn cut(&mut self) {
        self.server = None;
        self.to_client.clear();
        self.to_server.clear();
    }

    /// One request reaches the server.
    fn server_reads(&mut self) {
        if let (Some(server), Some(request)) = (&mut self.server, self.to_server.pop_front()) {
            server.receive(&self.catalog, request).expect("a good request");
        }
    }

    /// The server sends what it may.
    fn server_writes(&mut self) {
        while let Some(server) = &mut self.server
            && let Some(response) = server.next(&self.catalog, &ORDER, self.limit, &everything)
        {
            self.sent += response.resources.len();
            self.to_client.push_back(wire(response));
        }
    }

    /// One response reaches the client, which applies and answers it.
    fn client_reads(&mut self) {
        let Some(response) = self.to_client.pop_front() else { return };
        let received = self.client.receive(response).expect("a good response");
        let mut rejected = Vec::new();
        for resource in &received.changed {
            if resource.name == self.refuse {
                rejected.push((resource.name.clone(), "no".to_owned()));
                continue;
            }
            let id = (received.type_url.clone(), resource.name.clone());
            self.has.insert(id, resource.value.clone());
        }
        for name in &received.removed {
            self.has.remove(&(received.type_url.clone(), name.clone()));
        }
        let answer = self.client.finish(&received, &rejected);
        self.to_server.push_back(answer);
    }

    /// Until nothing moves any more.
    fn settle(&mut self) {
        loop {
            self.server_writes();
            if self.to_server.is_empty() && self.to_client.is_empty() {
                return;
            }
            self.server_reads();
            self.server_writes();
            self.client_reads();
        }
    }

    fn truth(&self) -> BTreeMap<(String, String), Bytes> {
        let alive = |type_url: &'static str| {
            self.catalog.since(type_url, 0).filter_map(move |change| {
                let resource = diolkos_xds::discovery::Resource::decode(change.encoded?).expect("our own");
                Some(((type_url.to_owned(), resource.name), resource.resource.expect("a value").value))
            })
        };
        ORDER.into_iter().flat_map(alive).collect()
    }
}

#[test]
fn a_client_learns_everything_and_every_change() {
    let mut pair = Pair::new();
    pair.set(A, "a1", "1");
    pair.set(B, "b1", "1");
    pair.connect();
    pair.settle();
    assert_eq!(pair.has, pair.truth());
    assert!(pair.client.is_complete());
    pair.set(A, "a1", "2");
    pair.set(A, "a2", "1");
    pair.remove(B, "b1");
    pair.settle();
    assert_eq!(pair.has, pair.truth());
    assert_eq!(pair.sent, 4, "nothing is sent twice");
}

#[test]
fn a_type_without_resources_is_complete_too() {
    let mut pair = Pair::new();
    pair.connect();
    assert!(!pair.client.is_complete());
    pair.settle();
    assert!(pair.client.is_complete());
    assert_eq!(pair.sent, 0);
}

#[test]
fn changes_while_an_answer_is_awaited_are_told_together_in_their_last_state() {
    let mut pair = Pair::new();
    pair.connect();
    pair.settle();
    pair.set(A, "a", "1");
    pair.server_writes();
    for value in ["2", "3", "4"] {
        pair.set(A, "a", value);
        pair.server_writes();
    }
    pair.set(A, "b", "1");
    pair.remove(A, "b");
    assert_eq!(pair.to_client.len(), 1, "one response under way");
    pair.settle();
    assert_eq!((pair.has.clone(), pair.sent), (pair.truth(), 2));
}

#[test]
fn who_comes_back_gets_only_what_differs() {
    let mut pair = Pair::new();
    for name in ["kept", "changed", "gone"] {
        pair.set(A, name, "1");
    }
    pair.connect();
    pair.settle();
    pair.cut();
    pair.set(A, "changed", "2");
    pair.set(A, "new", "1");
    pair.remove(A, "gone");
    // A restarted server has another count and no removals to remember.
    let sequence = pair.catalog.sequence();
    pair.catalog.forget(A, sequence);
    pair.sent = 0;
    pair.connect();
    pair.settle();
    assert_eq!((pair.has.clone(), pair.sent), (pair.truth(), 2));
    assert!(pair.client.is_complete());
}

#[test]
fn much_is_told_in_parts() {
    let mut pair = Pair::new();
    pair.limit = 100;
    for index in 0..50 {
        pair.set(A, &format!("a{index}"), "0123456789012345678901234567890123456789");
    }
    pair.connect();
    pair.server_reads();
    pair.server_writes();
    pair.client_reads();
    assert!(pair.has.len() < 5 && !pair.client.is_complete());
    // A change of what was told already and of what was not, in the middle of it.
    pair.set(A, "a0", "x");
    pair.set(A, "a49", "x");
    pair.remove(A, "a1");
    pair.settle();
    assert!(pair.client.is_complete());
    assert_eq!(pair.has, pair.truth());
}

#[test]
fn a_refusal_stays_until_the_resource_changes() {
    let mut pair = Pair::new();
    pair.refuse = "bad";
    pair.set(A, "bad", "1");
    pair.set(A, "good", "1");
    pair.connect();
    pair.settle();
    assert_eq!(pair.has.len(), 1, "the good one is applied");
    let refusal = |pair: &Pair| {
        let progress = pair.server.as_ref().expect("a stream").progress().find(|it| it.type_url == A);
        progress.and_then(|progress| progress.refusal).map(|refusal| refusal.message)
    };
    assert_eq!(refusal(&pair).as_deref(), Some("bad: no"));
    assert_eq!(pair.sent, 2);
    pair.set(A, "other", "1");
    pair.settle();
    assert_eq!(pair.sent, 3, "the refused one is not sent again");
    pair.refuse = "-";
    pair.set(A, "bad", "2");
    pair.settle();
    assert_eq!((pair.has.clone(), refusal(&pair)), (pair.truth(), None));
}

#[test]
fn names_are_told_once_and_followed() {
    let mut pair = Pair::new();
    pair.client = Client::new(Node::default());
    let _ = pair.client.subscribe(A, ["a", "none"]);
    pair.set(A, "a", "1");
    pair.set(A, "b", "1");
    pair.connect();
    pair.settle();
    assert_eq!(pair.has.keys().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["a"]);
    pair.set(A, "none", "1");
    pair.set(A, "b", "2");
    pair.settle();
    assert_eq!(pair.has.len(), 2, "a name that did not exist is followed too");
    let request = pair.client.subscribe(A, ["b"]).expect("a new name");
    pair.to_server.push_back(request);
    pair.settle();
    assert_eq!(pair.has, pair.truth());
    let request = pair.client.unsubscribe(A, ["b"]).expect("a known name");
    assert!(pair.client.unsubscribe(A, ["b"]).is_none() && pair.client.subscribe(A, ["a"]).is_none());
    pair.to_server.push_back(request);
    pair.settle();
    pair.sent = 0;
    pair.set(A, "b", "3");
    pair.settle();
    assert_eq!(pair.sent, 0);
}

#[test]
fn what_a_client_may_not_see_is_not_there() {
    let mut pair = Pair::new();
    pair.set(A, "public", "1");
    pair.set(A, "secret", "1");
    let mut server = Server::new("test");
    for request in pair.client.connected() {
        server.receive(&pair.catalog, request).expect("a good request");
    }
    let hidden = |_: &str, name: &str| name != "secret";
    let response = server.next(&pair.catalog, &ORDER, usize::MAX, &hidden).expect("a response");
    let names: Vec<String> = wire(response).resources.into_iter().map(|resource| resource.name).collect();
    assert_eq!(names, ["public"]);
}

#[test]
fn breaches_of_the_protocol_are_named() {
    let pair = Pair::new();
    let mut server = Server::new("test");
    let unknown = DeltaDiscoveryRequest { type_url: "type.example/X".into(), ..Default::default() };
    let refused = server.receive(&pair.catalog, unknown);
    assert_eq!(refused, Err(SessionError::UnknownType("type.example/X".into())));
    let response = DeltaDiscoveryResponse { type_url: A.into(), ..Default::default() };
    assert_eq!(pair.client.receive(response), Err(SessionError::NoNonce { type_url: A.into() }));
    let response = DeltaDiscoveryResponse { type_url: "x".into(), nonce: "1".into(), ..Default::default() };
    assert_eq!(pair.client.receive(response), Err(SessionError::UnknownType("x".into())));
    // An answer to a response that never was says nothing, and the stream goes on.
    let stale = DeltaDiscoveryRequest { type_url: A.into(), response_nonce: "99".into(), ..Default::default() };
    assert_eq!(server.receive(&pair.catalog, stale), Ok(()));
}

#[test]
fn in_any_order_of_steps_the_client_ends_with_the_truth() {
    let mut state = 11u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for round in 0..3_000 {
        let mut pair = Pair::new();
        pair.limit = [1, 60, usize::MAX][below(3)];
        for _ in 0..60 {
            let type_url = ORDER[below(2)];
            let name = ["w", "x", "y", "z"][below(4)];
            match below(9) {
                0 | 1 => pair.set(type_url, name, ["1", "2", "3"][below(3)]),
                2 => pair.remove(type_url, name),
                3 if below(4) == 0 => pair.connect(),
                3 if below(4) == 0 => pair.cut(),
                4 if pair.server.is_none() => {
                    // With nobody connected everything is told to everybody.
                    let sequence = pair.catalog.sequence();
                    ORDER.into_iter().for_each(|type_url| pair.catalog.forget(type_url, sequence));
                }
                5 => pair.server_reads(),
                6 => pair.server_writes(),
                _ => pair.client_reads(),
            }
        }
        if pair.server.is_none() {
            pair.connect();
        }
        pair.settle();
        assert_eq!(pair.has, pair.truth(), "round {round}");
        assert!(pair.client.is_complete(), "round {round}");
    }
}

#[test]
fn a_resource_comes_once_in_a_response() {
    let mut catalog = Catalog::default();
    ORDER.into_iter().for_each(|type_url| catalog.declare(type_url));
    catalog.set(A, "gone", Some(Bytes::from_static(b"1")));
    let mut server = Server::new("test");
    let ask = |names: &[&str], without: &[&str]| DeltaDiscoveryRequest {
        type_url: A.into(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        resource_names_unsubscribe: without.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    server.receive(&catalog, ask(&["made", "gone"], &[])).unwrap();
    // Both are asked for by name and have changed since.
    catalog.set(A, "made", Some(Bytes::from_static(b"1")));
    catalog.set(A, "gone", None);
    let told = server.next(&catalog, &ORDER, usize::MAX, &everything).map(wire).unwrap();
    let names: Vec<&str> = told.resources.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((names, told.removed_resources), (vec!["made"], vec!["gone".to_owned()]));
}

/// As Envoy: its endpoints are named, and waited for whenever their cluster is told, also when the stream is another one.
#[test]
fn endpoints_follow_their_clusters() {
    const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    let mut catalog = Catalog::default();
    for name in ["a", "b"] {
        catalog.set(CLUSTERS, name, Some(Bytes::from("1")));
        catalog.set(ENDPOINTS, name, Some(Bytes::from("1")));
    }
    let ask = |type_url: &str, names: &[&str], nonce: &str| DeltaDiscoveryRequest {
        type_url: type_url.into(),
        resource_names_subscribe: names.iter().map(|name| (*name).into()).collect(),
        response_nonce: nonce.into(),
        ..DeltaDiscoveryRequest::default()
    };
    let next = |server: &mut Server, catalog: &Catalog| {
        let response = server.next(catalog, &[CLUSTERS, ENDPOINTS], usize::MAX, &everything)?;
        Some((response.type_url, response.nonce, response.resources.len()))
    };
    let mut server = Server::new("test");
    server.receive(&catalog, ask(CLUSTERS, &["*"], "")).unwrap();
    assert_eq!(next(&mut server, &catalog), Some((CLUSTERS.into(), "1".into(), 2)));
    server.receive(&catalog, ask(ENDPOINTS, &["a", "b"], "")).unwrap();
    assert_eq!(next(&mut server, &catalog), Some((ENDPOINTS.into(), "2".into(), 2)), "once");
    server.receive(&catalog, ask(CLUSTERS, &[], "1")).unwrap();
    server.receive(&catalog, ask(ENDPOINTS, &[], "2")).unwrap();
    assert_eq!(next(&mut server, &catalog), None);
    catalog.set(CLUSTERS, "b", Some(Bytes::from("2")));
    assert_eq!(next(&mut server, &catalog), Some((CLUSTERS.into(), "3".into(), 1)));
    assert_eq!(next(&mut server, &catalog), Some((ENDPOINTS.into(), "4".into(), 1)));

    // It comes again with what it had, but for a cluster that changed meanwhile.
    let versions = |of: &str| ["a", "b"].map(|name| (name.into(), catalog.get(of, name).unwrap().sequence.to_string()));
    let had = [versions(CLUSTERS), versions(ENDPOINTS)].map(|had| had.into_iter().collect());
    catalog.set(CLUSTERS, "a", Some(Bytes::from("3")));
    let [clusters, endpoints] = had;
    let mut server = Server::new("test");
    let first = DeltaDiscoveryRequest { initial_resource_versions: clusters, ..ask(CLUSTERS, &["*"], "") };
    server.receive(&catalog, first).unwrap();
    assert_eq!(next(&mut server, &catalog), Some((CLUSTERS.into(), "1".into(), 1)));
    let first = DeltaDiscoveryRequest { initial_resource_versions: endpoints, ..ask(ENDPOINTS, &["a", "b"], "") };
    server.receive(&catalog, first).unwrap();
    assert_eq!(
        next(&mut server, &catalog),
        Some((ENDPOINTS.into(), "2".into(), 1)),
        "those of the other are as they were"
    );
    assert_eq!(next(&mut server, &catalog), None);
}

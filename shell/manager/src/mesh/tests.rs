//! Mesh control against a small API in memory, its clients real: TLS, HTTP/2, gRPC on loopback.

mod api;
mod federation;
mod outside;
mod peer;
mod roots;

use super::{Config, Handle, Mesh};
use crate::informer::Informer;
use crate::mesh::core::now;
use crate::subscriber::Subscriber;
use crate::types;
use api::MemoryApi;
use model::mesh::{Health, Resource, ResourceKind, WorkloadStatus};
use peer::{Certificate, Peer, Pki, Proxy};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use xds::ca::{CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse, JOIN_PATH, JoinRequest, JoinResponse};

/// Mesh control that runs until dropped.
struct Running {
    api: Arc<MemoryApi>,
    pki: Pki,
    address: SocketAddr,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(api: Arc<MemoryApi>, pki: Pki) -> Running {
        Running::start_with(api, pki, SocketAddr::from(([127, 0, 0, 1], 0)), |_| {}).await
    }

    async fn start_with(
        api: Arc<MemoryApi>,
        pki: Pki,
        listen: SocketAddr,
        configure: impl FnOnce(&mut Config),
    ) -> Running {
        let mut config = Config::new(pki.dir().to_owned());
        config.listen = listen;
        config.host_grace = Duration::from_millis(200);
        configure(&mut config);
        let mesh = Mesh::bind(api.clone(), config).await.expect("binds");
        let (address, handle) = (mesh.local_addr().expect("is bound"), mesh.handle());
        follow(api.clone(), mesh.ear());
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(mesh.run(async move {
            let _ = stopped.await;
        }));
        handle.ready().await;
        Running { api, pki, address, handle, stop: Some(stop), done }
    }

    async fn new(api: Arc<MemoryApi>) -> Running {
        Running::start(api, Pki::make()).await
    }

    async fn stop(mut self) -> (Arc<MemoryApi>, Pki) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.done.await;
        (self.api, self.pki)
    }

    async fn node(&self, name: &str) -> Peer {
        let certificate = self.pki.issue(&format!("system:node:{name}"));
        Peer::connect(self.address, &self.pki.ca_pem, Some(certificate)).await
    }
}

/// The informers of what the mesh reads, and nobody else who decides.
fn follow(api: Arc<MemoryApi>, ear: Arc<dyn Subscriber>) {
    let (out, mut changes) = mpsc::channel(16);
    let builtin = types::builtin();
    for (group, _, plural, _) in project::mesh::RESOURCES {
        let resource = builtin.iter().find(|resource| (resource.group, resource.plural) == (*group, *plural));
        let resource = resource.unwrap_or_else(|| panic!("{group}/{plural} is followed by the manager's informers"));
        tokio::spawn(Informer::new(api.clone(), resource, out.clone()).run());
    }
    tokio::spawn(async move {
        while let Some(batch) = changes.recv().await {
            ear.observe(&batch);
        }
    });
}

fn pod(name: &str, node: &str, ip: &str, app: &str) -> Value {
    json!({
        "metadata": { "namespace": "default", "name": name, "uid": format!("uid-{name}"), "labels": { "app": app } },
        "spec": { "nodeName": node, "serviceAccountName": app },
        "status": { "phase": "Running", "podIPs": [{ "ip": ip }] },
    })
}

fn service(name: &str, vip: &str) -> Value {
    json!({
        "metadata": { "namespace": "default", "name": name },
        "spec": { "clusterIPs": [vip], "selector": { "app": name }, "ports": [{ "name": "http", "port": 80 }] },
    })
}

fn slice(name: &str, service: &str, endpoints: &[(&str, &str)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(pod, ip)| json!({ "addresses": [ip], "conditions": { "ready": true }, "targetRef": { "kind": "Pod", "name": pod } }))
        .collect();
    json!({
        "metadata": { "namespace": "default", "name": name, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }],
        "endpoints": endpoints,
    })
}

/// Two pods behind a service, on two nodes.
fn small() -> Arc<MemoryApi> {
    let api = MemoryApi::new();
    let node = |name: &str, ip: &str| json!({ "metadata": { "name": name }, "status": { "addresses": [{ "type": "InternalIP", "address": ip }] } });
    api.put("nodes", node("n1", "192.168.0.1"));
    api.put("nodes", node("n2", "192.168.0.2"));
    api.put("pods", pod("web-1", "n1", "10.244.0.5", "web"));
    api.put("pods", pod("web-2", "n2", "10.244.1.5", "web"));
    api.put("services", service("web", "10.96.0.7"));
    api.put("endpointslices", slice("web-x", "web", &[("web-1", "10.244.0.5"), ("web-2", "10.244.1.5")]));
    api
}

#[tokio::test]
async fn a_proxy_learns_changes_and_what_is_gone() {
    let running = Running::new(small()).await;
    let mut proxy = Proxy::new("n1");
    proxy.connect(running.node("n1").await).await;
    proxy.until("everything", |proxy| proxy.session.is_complete()).await;
    assert_eq!(proxy.names(ResourceKind::Workload), ["pod/default/web-1", "pod/default/web-2"]);
    assert_eq!(proxy.names(ResourceKind::TrustBundle), ["cluster.local"]);
    let endpoints = |proxy: &Proxy| match proxy.get(ResourceKind::Endpoints, "default/web-x") {
        Some(Resource::Endpoints(group)) => group.endpoints.iter().map(|it| it.health).collect::<Vec<_>>(),
        _ => vec![],
    };
    assert_eq!(endpoints(&proxy), [Health::Ready, Health::Ready]);

    // A pod that is to be deleted drains at once, before anybody has touched its slice.
    let mut dying = pod("web-2", "n2", "10.244.1.5", "web");
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    running.api.put("pods", dying);
    proxy.until("draining", |proxy| endpoints(proxy) == [Health::Ready, Health::Draining]).await;
    let Some(Resource::Workload(workload)) = proxy.get(ResourceKind::Workload, "pod/default/web-2") else { panic!() };
    assert_eq!(workload.status, WorkloadStatus::Draining);
    running.api.delete("pods", "default", "web-2");
    proxy.until("gone", |proxy| proxy.get(ResourceKind::Workload, "pod/default/web-2").is_none()).await;

    // The report shows that it has acknowledged everything.
    proxy.until("synced", |_| running.handle.report()["proxies"][0]["state"] == "synced").await;
    assert_eq!(running.handle.report()["proxies"][0]["proxy"], "n1");
}

#[tokio::test]
async fn a_proxy_that_comes_back_gets_only_what_differs() {
    let running = Running::new(small()).await;
    let mut proxy = Proxy::new("n1");
    proxy.connect(running.node("n1").await).await;
    proxy.until("everything", |proxy| proxy.session.is_complete()).await;
    proxy.disconnect();

    // While it is away the world changes, and the control plane restarts.
    running.api.delete("pods", "default", "web-2");
    let (api, pki) = running.stop().await;
    api.put("pods", pod("web-3", "n1", "10.244.0.6", "web"));
    let running = Running::start(api, pki).await;
    proxy.connect(running.node("n1").await).await;
    proxy.until("everything again", |proxy| proxy.session.is_complete()).await;
    assert_eq!(proxy.names(ResourceKind::Workload), ["pod/default/web-1", "pod/default/web-3"]);
}

#[tokio::test]
async fn a_refusal_is_reported_with_its_reason() {
    let running = Running::new(small()).await;
    let mut proxy = Proxy::new("n2");
    proxy.reject = Some(ResourceKind::Service);
    proxy.connect(running.node("n2").await).await;
    let mut report = Value::Null;
    for _ in 0..500 {
        proxy.turn(Duration::from_millis(10)).await;
        report = running.handle.report();
        if report["proxies"][0]["state"] == "refused" {
            break;
        }
    }
    let types = report["proxies"][0]["types"].as_array().expect("types");
    let refused = types.iter().find(|it| it["type"] == "Service").expect("Service");
    assert_eq!(refused["state"], "refused", "{report}");
    assert_eq!(refused["error"], "default/web: not today");
}

#[tokio::test]
async fn certificates_only_for_identities_of_the_asking_node() {
    let running = Running::new(small()).await;
    let peer = running.node("n1").await;
    let ask = |identity: &str| {
        let request = CertificateRequest::on_behalf_of(Certificate::request().1, identity, 60);
        peer.unary::<_, CertificateResponse>(CREATE_CERTIFICATE_PATH, request)
    };
    let chain = ask("spiffe://cluster.local/ns/default/sa/web").await.expect("its own pod").cert_chain;
    assert_eq!(chain.len(), 3, "leaf, intermediate and root");
    assert_eq!(running.handle.trust_bundle()[0], chain[2]);
    assert_eq!(peer::uris(&chain[0]), ["spiffe://cluster.local/ns/default/sa/web"]);
    let lifetime_s = peer::not_after(&chain[0]) - now().as_secs() as i64;
    assert!((30..=60).contains(&lifetime_s), "{lifetime_s}");

    running.api.put("pods", pod("db-1", "n2", "10.244.1.9", "db"));
    let refused = ask("spiffe://cluster.local/ns/default/sa/db").await.expect_err("another node's pod");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    let refused = ask("spiffe://elsewhere/ns/default/sa/web").await.expect_err("another trust domain");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);

    // A pod that was bound a moment ago is waited for.
    let later = running.api.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        later.put("pods", pod("new-1", "n1", "10.244.0.8", "new"));
    });
    ask("spiffe://cluster.local/ns/default/sa/new").await.expect("soon bound");

    let request = CertificateRequest::on_behalf_of("nonsense".into(), "spiffe://cluster.local/ns/default/sa/web", 0);
    let refused = peer.unary::<_, CertificateResponse>(CREATE_CERTIFICATE_PATH, request).await.expect_err("no CSR");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn strangers_get_nothing() {
    let running = Running::new(small()).await;
    let stranger = Peer::connect(running.address, &running.pki.ca_pem, None).await;
    let request =
        CertificateRequest::on_behalf_of(Certificate::request().1, "spiffe://cluster.local/ns/default/sa/web", 60);
    let refused =
        stranger.unary::<_, CertificateResponse>(CREATE_CERTIFICATE_PATH, request).await.expect_err("no certificate");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let admin = running.pki.issue("kubernetes-admin");
    let admin = Peer::connect(running.address, &running.pki.ca_pem, Some(admin)).await;
    let request =
        CertificateRequest::on_behalf_of(Certificate::request().1, "spiffe://cluster.local/ns/default/sa/web", 60);
    assert!(admin.unary::<_, CertificateResponse>(CREATE_CERTIFICATE_PATH, request).await.is_err(), "not a node");
    let refused = join(&stranger, "abcdef.0123456789abcdef").await.expect_err("no such token");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
}

async fn join(peer: &Peer, token: &str) -> Result<(JoinResponse, String), tonic::Status> {
    join_as(peer, token, "inventory", "box1").await
}

async fn join_as(peer: &Peer, token: &str, service: &str, host: &str) -> Result<(JoinResponse, String), tonic::Status> {
    let (key, csr) = Certificate::request();
    let request = JoinRequest {
        token: token.into(),
        service: service.into(),
        namespace: "default".into(),
        port: 9000,
        host: host.into(),
        address: "172.30.0.2".into(),
        csr,
        app_protocol: String::new(),
    };
    peer.unary::<_, JoinResponse>(JOIN_PATH, request).await.map(|response| (response, key))
}

/// The token `ID.0123456789abcdef`, for one service or for any.
fn token(id: &str, service: Option<&str>) -> Value {
    use base64::Engine;
    let encode = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
    let mut token = json!({
        "metadata": { "namespace": "kube-system", "name": format!("bootstrap-token-{id}") },
        "type": "bootstrap.kubernetes.io/token",
        "data": {
            "token-id": encode(id), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-authentication": encode("true"),
        },
    });
    if let Some(service) = service {
        token["data"]["join-service"] = encode(service).into();
    }
    token
}

#[tokio::test]
async fn nobody_becomes_another_by_joining() {
    let api = small();
    api.put("secrets", token("abcdef", None));
    api.put("secrets", token("onlyab", Some("a-b")));
    let running = Running::new(api).await;
    let stranger = Peer::connect(running.address, &running.pki.ca_pem, None).await;
    let (any, scoped) = ("abcdef.0123456789abcdef", "onlyab.0123456789abcdef");
    join_as(&stranger, scoped, "a-b", "c").await.expect("what the token is for");
    let refused = join_as(&stranger, scoped, "a", "c").await.expect_err("another service");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(running.api.get_now("services", "default", "a").is_none());
    // Both names come to the entry `a-b-c`.
    let refused = join_as(&stranger, any, "a", "b-c").await.expect_err("the entry is another's");
    assert_eq!(refused.code(), tonic::Code::AlreadyExists);
    assert!(running.api.get_now("services", "default", "a").is_none(), "and nothing is left behind");
    let entry = running.api.get_now("workloadentries", "default", "a-b-c").expect("the first one's");
    assert_eq!(entry["spec"]["serviceAccount"], "a-b");
    join_as(&stranger, any, "a-b", "c").await.expect("it comes again");
}

#[tokio::test]
async fn nobody_has_the_endpoints_of_another_by_joining() {
    let api = small();
    api.put("secrets", token("abcdef", None));
    let mut written = slice("a-b-x7k2p", "a-b", &[("web-1", "10.244.0.5")]);
    written["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = "endpointslice-controller.k8s.io".into();
    let written = api.put("endpointslices", written);
    let running = Running::new(api).await;
    let stranger = Peer::connect(running.address, &running.pki.ca_pem, None).await;
    let any = "abcdef.0123456789abcdef";
    // A controller's slice of the service `a-b` is called as this host's would be.
    let refused = join_as(&stranger, any, "a", "b-x7k2p").await.expect_err("the slice is another's");
    assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused}");
    assert_eq!(running.api.get_now("endpointslices", "default", "a-b-x7k2p"), Some(written), "it is as it was");
    assert!(running.api.get_now("workloadentries", "default", "a-b-x7k2p").is_none(), "and nothing is left behind");
    assert!(running.api.get_now("services", "default", "a").is_none());

    // A slice that a former entry of the name left is its own.
    join(&stranger, any).await.expect("a good token");
    let mut left = running.api.get_now("endpointslices", "default", "inventory-box1").expect("a slice");
    left["metadata"]["ownerReferences"][0]["uid"] = "of a former one".into();
    left["endpoints"][0]["addresses"][0] = "172.30.0.9".into();
    running.api.put("endpointslices", left);
    running.api.delete("workloadentries", "default", "inventory-box1");
    join(&stranger, any).await.expect("its own");
    let slice = running.api.get_now("endpointslices", "default", "inventory-box1").expect("a slice");
    assert_eq!(slice["endpoints"][0]["addresses"][0], "172.30.0.2");
}

#[tokio::test]
async fn a_host_joins_leaves_and_comes_back() {
    let api = small();
    api.put("secrets", token("abcdef", None));
    let running = Running::new(api).await;
    let stranger = Peer::connect(running.address, &running.pki.ca_pem, None).await;
    let (welcome, key) = join(&stranger, "abcdef.0123456789abcdef").await.expect("a good token");
    assert_eq!(welcome.identity, "spiffe://cluster.local/ns/default/sa/inventory");
    assert_eq!(welcome.workload, "host/default/inventory-box1");
    assert!(running.api.get_now("services", "default", "inventory").is_some(), "the service was made");

    let ready = |api: &MemoryApi| {
        let slice = api.get_now("endpointslices", "default", "inventory-box1").expect("a slice");
        slice["endpoints"][0]["conditions"]["ready"] == true
    };
    assert!(!ready(&running.api), "not before its proxy is there");
    let certificate = Certificate { chain: welcome.cert_chain.concat(), key };
    let peer = Peer::connect(running.address, &welcome.cluster_ca.concat(), Some(certificate.clone())).await;
    // Its own identity and no other.
    let own = CertificateRequest::on_behalf_of(Certificate::request().1, &welcome.identity, 60);
    peer.unary::<_, CertificateResponse>(CREATE_CERTIFICATE_PATH, own).await.expect("its own");
    let other =
        CertificateRequest::on_behalf_of(Certificate::request().1, "spiffe://cluster.local/ns/default/sa/web", 60);
    assert!(peer.unary::<_, CertificateResponse>(CREATE_CERTIFICATE_PATH, other).await.is_err());

    // And a new certificate to talk to us with, of the same name.
    let renew = CertificateRequest::on_behalf_of(Certificate::request().1, "system:host:default:inventory-box1", 60);
    let renewed = peer.unary::<_, CertificateResponse>(CREATE_CERTIFICATE_PATH, renew).await.expect("its own name");
    let own = peer::common_name(&welcome.cert_chain[0]);
    assert!(own.starts_with("system:host:default:inventory-box1:"), "{own}");
    assert_eq!(peer::common_name(&renewed.cert_chain[0]), own);
    let another = CertificateRequest::on_behalf_of(Certificate::request().1, "system:host:default:other", 60);
    assert!(peer.unary::<_, CertificateResponse>(CREATE_CERTIFICATE_PATH, another).await.is_err());

    let mut proxy = Proxy::new("host/default/inventory-box1");
    proxy.connect(peer).await;
    proxy
        .until("its own endpoint ready", |proxy| {
            matches!(proxy.get(ResourceKind::Endpoints, "default/inventory-box1"),
                Some(Resource::Endpoints(group)) if group.endpoints[0].health == Health::Ready)
        })
        .await;
    let Some(Resource::Workload(workload)) = proxy.get(ResourceKind::Workload, &welcome.workload) else { panic!() };
    assert_eq!(workload.identity("cluster.local"), welcome.identity);

    proxy.disconnect();
    api::eventually("not ready after it left", || !ready(&running.api)).await;
    let peer = Peer::connect(running.address, &running.pki.ca_pem, Some(certificate)).await;
    proxy.connect(peer).await;
    api::eventually("ready again", || ready(&running.api)).await;
}

/// What whoever shows a certificate is answered who asks for a certificate of an identity.
async fn ask_as(running: &Running, certificate: &Certificate, identity: &str) -> Result<String, tonic::Code> {
    let peer = Peer::connect(running.address, &running.pki.ca_pem, Some(certificate.clone())).await;
    let request = CertificateRequest::on_behalf_of(Certificate::request().1, identity, 60);
    let answer = peer.unary::<_, CertificateResponse>(CREATE_CERTIFICATE_PATH, request).await;
    answer.map(|response| response.cert_chain[0].clone()).map_err(|refused| refused.code())
}

#[tokio::test]
async fn a_certificate_is_not_worth_who_joins_later_under_its_name() {
    let api = small();
    api.put("secrets", token("abcdef", None));
    let running = Running::new(api).await;
    let stranger = Peer::connect(running.address, &running.pki.ca_pem, None).await;
    let joined = async |service: &str, host: &str| {
        let (welcome, key) = join_as(&stranger, "abcdef.0123456789abcdef", service, host).await.expect("a good token");
        Certificate { chain: welcome.cert_chain.concat(), key }
    };
    let identity = "spiffe://cluster.local/ns/default/sa/inventory";
    let refused = Err(tonic::Code::PermissionDenied);

    // Its key was stolen: it is put out, and joins anew.
    let stolen = joined("inventory", "box1").await;
    let mut thief = Proxy::new("host/default/inventory-box1");
    thief.connect(Peer::connect(running.address, &running.pki.ca_pem, Some(stolen.clone())).await).await;
    thief.until("everything", |proxy| proxy.session.is_complete()).await;
    running.api.delete("workloadentries", "default", "inventory-box1");
    thief.until("the end of the connection", |proxy| !proxy.is_connected()).await;
    let own = joined("inventory", "box1").await;
    ask_as(&running, &own, identity).await.expect("its own");
    assert_eq!(ask_as(&running, &stolen, identity).await, refused);
    let renewal = "system:host:default:inventory-box1";
    assert_eq!(ask_as(&running, &stolen, renewal).await, refused);
    let mut thief = Proxy::new("host/default/inventory-box1");
    thief.connect(Peer::connect(running.address, &running.pki.ca_pem, Some(stolen)).await).await;
    thief.until("the end of the stream", |proxy| !proxy.is_connected()).await;
    assert!(thief.names(ResourceKind::TrustBundle).is_empty(), "it was told nothing");

    // Whoever comes again without being put out has another certificate too.
    let again = joined("inventory", "box1").await;
    ask_as(&running, &again, renewal).await.expect("its own name");
    assert_eq!(ask_as(&running, &own, identity).await, refused);

    // One entry's name may be of one service, and then of another.
    let former = joined("a-b", "c").await;
    running.api.delete("workloadentries", "default", "a-b-c");
    joined("a", "b-c").await;
    assert_eq!(ask_as(&running, &former, "spiffe://cluster.local/ns/default/sa/a").await, refused);
}

/// Who joined before joinings were told apart, and has not joined again.
#[tokio::test]
async fn a_host_that_joined_before_goes_on() {
    let api = small();
    api.put("secrets", token("abcdef", None));
    let running = Running::new(api).await;
    let before = running.pki.issue("system:host:default:inventory-box1");
    let written = json!({
        "metadata": { "namespace": "default", "name": "inventory-box2" },
        "spec": { "address": "172.30.0.2", "ports": { "http": 9000 }, "serviceAccount": "inventory" },
    });
    let mut entry = written.clone();
    entry["metadata"]["name"] = "inventory-box1".into();
    entry["metadata"]["annotations"] = json!({ "diolkos.io/joined": "true", "diolkos.io/service": "inventory" });
    running.api.put("workloadentries", written);
    running.api.put("workloadentries", entry);
    let renewal = "system:host:default:inventory-box1";
    let renewed = ask_as(&running, &before, renewal).await.expect("its own name");
    assert_eq!(peer::common_name(&renewed), renewal);
    let stranger = Peer::connect(running.address, &running.pki.ca_pem, None).await;
    join(&stranger, "abcdef.0123456789abcdef").await.expect("it comes again");
    assert_eq!(ask_as(&running, &before, renewal).await, Err(tonic::Code::PermissionDenied));
    // An entry that somebody wrote is nobody's who joined. (It was seen before the one of the host that came again.)
    let nobody = running.pki.issue("system:host:default:inventory-box2");
    let renewal = "system:host:default:inventory-box2";
    assert_eq!(ask_as(&running, &nobody, renewal).await, Err(tonic::Code::PermissionDenied));
}

#[tokio::test]
async fn gateways_and_routes_get_their_status() {
    let running = Running::new(small()).await;
    api::eventually("the class is made and accepted", || {
        let class = running.api.get_now("gatewayclasses", "", "diolkos").unwrap_or_default();
        class["status"]["conditions"][0]["status"] == "True"
    })
    .await;
    running.api.put(
        "gateways",
        json!({
            "metadata": { "namespace": "default", "name": "front", "generation": 1 },
            "spec": { "gatewayClassName": "diolkos", "listeners": [{ "name": "web", "port": 8080, "protocol": "HTTP" }] },
        }),
    );
    running.api.put(
        "httproutes",
        json!({
            "metadata": { "namespace": "default", "name": "r", "generation": 3 },
            "spec": {
                "parentRefs": [{ "name": "front" }],
                "rules": [{ "backendRefs": [{ "name": "web", "port": 80 }, { "name": "none", "port": 80 }] }],
            },
        }),
    );
    api::eventually("statuses", || {
        let gateway = running.api.get_now("gateways", "default", "front").unwrap_or_default();
        let route = running.api.get_now("httproutes", "default", "r").unwrap_or_default();
        let condition = |value: &Value, kind: &str| {
            let conditions = value["conditions"].as_array().cloned().unwrap_or_default();
            conditions.into_iter().find(|it| it["type"] == kind).unwrap_or_default()
        };
        let parent = &route["status"]["parents"][0];
        condition(&gateway["status"], "Programmed")["status"] == "True"
            && gateway["status"]["listeners"][0]["attachedRoutes"] == 1
            && gateway["status"]["addresses"].as_array().is_some_and(|it| it.len() == 2)
            && condition(parent, "Accepted")["status"] == "True"
            && condition(parent, "ResolvedRefs")["reason"] == "BackendNotFound"
            && condition(parent, "ResolvedRefs")["observedGeneration"] == 3
    })
    .await;
    // Written once, not over and over.
    let revision = running.api.revision();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(running.api.revision(), revision);
}

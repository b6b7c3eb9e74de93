//! A node in network namespaces of its own: a bridge, pods on it, and a proxy that serves them. Needs root.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

pub mod frames;
pub mod servers;
pub mod spiffe;
pub mod tls;
pub mod town;

use diolkos_proxy::identity::LocalIssuer;
use diolkos_proxy::mesh::Change;
use diolkos_proxy::{Config, Proxy};
use model::Key;
use model::mesh::*;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use xds::attach::PodAttachment;

pub use servers::{grpc_client, listen, listen_in_threads, serve_grpc, serve_http, serve_requests, serve_tcp};

/// Why tests that need root cannot run here.
pub fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root");
    }
    let works =
        |program: &str, args: &[&str]| Command::new(program).args(args).output().is_ok_and(|it| it.status.success());
    if !works("nft", &["--version"]) {
        return Some("needs nft");
    }
    if !works("ip", &["-V"]) || !works("curl", &["--version"]) {
        return Some("needs ip and curl");
    }
    None
}

/// The pods of service `asker` as who is asked about requests.
pub fn authorizer(kind: policy::ProviderKind) -> ExtensionProvider {
    ExtensionProvider {
        name: "asker".into(),
        service: "asker.default.svc.cluster.local".into(),
        namespace: "".into(),
        port: 80,
        kind,
        fail_open: false,
        status_on_error: 503,
        timeout_ms: 2_000,
    }
}

/// Returns from the test, and says so, when it cannot run.
#[macro_export]
macro_rules! need_root {
    ($name:expr) => {
        if let Some(why) = support::missing() {
            eprintln!("SKIPPED {}: {why}", $name);
            return;
        }
    };
}

/// Namespaces that go away with the value.
pub struct Net {
    tag: String,
    pods: Vec<String>,
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split_whitespace()).output().expect("ip runs");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The node's address on the bridge.
pub const NODE: &str = "10.250.0.1";

impl Net {
    /// A node without pods.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("dkp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let net = Self { tag, pods: Vec::new() };
        let node = net.node();
        ip(&format!("netns add {node}"));
        ip(&format!("-n {node} link set lo up"));
        ip(&format!("-n {node} link add br0 type bridge"));
        ip(&format!("-n {node} addr add {NODE}/24 dev br0"));
        ip(&format!("-n {node} link set br0 up"));
        net
    }

    /// Name of the node's namespace.
    pub fn node(&self) -> String {
        format!("{}-node", self.tag)
    }

    /// Adds a pod; gives the name of its namespace.
    pub fn pod(&mut self, last: u8) -> String {
        let (node, pod) = (self.node(), format!("{}-p{last}", self.tag));
        ip(&format!("netns add {pod}"));
        ip(&format!("-n {pod} link set lo up"));
        ip(&format!("-n {node} link add v{last} type veth peer name eth0 netns {pod}"));
        ip(&format!("-n {node} link set v{last} master br0 up"));
        ip(&format!("-n {pod} addr add 10.250.0.{last}/24 dev eth0"));
        ip(&format!("-n {pod} link set eth0 up"));
        ip(&format!("-n {pod} route add default via {NODE}"));
        self.pods.push(pod.clone());
        pod
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in self.pods.iter().chain([&self.node()]) {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// Runs `work` in a thread inside a namespace.
pub fn inside<T: Send + 'static>(netns: &str, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    let file = File::open(format!("/var/run/netns/{netns}")).expect("the namespace is there");
    std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
        work()
    })
}

/// A proxy on the node, with a certificate authority of its own.
pub struct Node {
    pub net: Net,
    pub proxy: Option<Proxy>,
    pub issuer: Arc<LocalIssuer>,
}

impl Node {
    /// Starts one.
    pub fn start(configure: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        Self::start_with(3600, configure)
    }

    /// Starts one whose certificates live so long.
    pub fn start_with(lifetime_s: i64, configure: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        let _ = tracing_subscriber::fmt().with_max_level(tracing_level()).with_test_writer().try_init();
        let net = Net::new();
        let issuer = Arc::new(LocalIssuer::generate(lifetime_s).unwrap());
        let (signer, roots) = (issuer.clone(), issuer.root_pem().to_owned());
        let proxy = inside(&net.node(), move || {
            let mut config = Config { node_name: "node".into(), workers: 2, ..Config::default() };
            configure(&mut config);
            let proxy = Proxy::start(config, signer).unwrap();
            proxy.shared.identities.set_roots([roots.as_str()].into_iter());
            proxy
        });
        let proxy = proxy.join().unwrap();
        Self { net, proxy: Some(proxy), issuer }
    }

    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().unwrap()
    }

    /// Adds a pod of a ServiceAccount in namespace `default`, known to the mesh and attached.
    pub fn pod(&mut self, last: u8, account: &str) -> String {
        let netns = self.net.pod(last);
        self.proxy().apply([Change::Set(Resource::Workload(Arc::new(workload(last, account))))]);
        self.attach(last, account, &netns);
        netns
    }

    pub fn attach(&self, last: u8, account: &str, netns: &str) {
        let attachment = PodAttachment {
            uid: format!("uid-{last}"),
            namespace: "default".into(),
            name: format!("{account}-{last}"),
            service_account: account.into(),
            netns: format!("/var/run/netns/{netns}"),
            ips: vec![address(last)],
            node_ip: NODE.parse().unwrap(),
            probe_ports: vec![8081],
            ports: vec![8080],
        };
        self.proxy().attacher.attach(attachment).unwrap();
    }

    /// Tells the proxy a TLS certificate of the namespace `default`, PEM.
    pub fn certificate(&self, name: &str, chain: &str, key: &str) {
        self.proxy().apply([Change::Set(Resource::Secret(Arc::new(TlsSecret {
            key: Key::new("default", name),
            certificate_chain: chain.as_bytes().into(),
            private_key: key.as_bytes().into(),
        })))]);
    }

    /// The certificate `shop`, for `shop.example`, signed by itself. Its PEM.
    pub fn shop_certificate(&self) -> String {
        let certified = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
        let chain = certified.cert.pem();
        self.certificate("shop", &chain, &certified.signing_key.serialize_pem());
        chain
    }

    /// A service at 10.96.0.`vip`:80 over pods' port 8080.
    pub fn service(&self, name: &str, vip: u8, protocol: AppProtocol, pods: &[(u8, Health)]) {
        self.proxy().apply(service(name, vip, protocol, pods));
    }

    /// The service graph as it was counted.
    pub fn edges(&self) -> Vec<serde_json::Value> {
        self.proxy().shared.telemetry.edges_json()["edges"].as_array().unwrap().clone()
    }
}

fn tracing_level() -> tracing::Level {
    std::env::var("DIOLKOS_TEST_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(tracing::Level::ERROR)
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop();
        }
    }
}

pub fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 250, 0, last])
}

pub fn workload(last: u8, account: &str) -> Workload {
    let name = format!("{account}-{last}");
    Workload {
        name: format!("pod/default/{name}").into(),
        uid: format!("uid-{last}").into(),
        key: Key::new("default", name),
        service_account: account.into(),
        node: "node".into(),
        addresses: vec![address(last)],
        status: WorkloadStatus::Running,
        tunnel: Tunnel::Hbone,
        zone: "".into(),
        region: "".into(),
        canonical_name: account.into(),
        canonical_kind: "Deployment".into(),
        app: account.into(),
        revision: "v1".into(),
        authorization_policies: vec![],
        peer_authentications: vec![],
        request_authentications: vec![],
        labels: Default::default(),
    }
}

pub fn service(name: &str, vip: u8, protocol: AppProtocol, pods: &[(u8, Health)]) -> Vec<Change> {
    let key = Key::new("default", name);
    let endpoints = pods.iter().map(|(last, health)| Endpoint {
        workload: format!("pod/default/{name}-{last}").into(),
        health: *health,
        node: "node".into(),
        ..Endpoint::at(address(*last))
    });
    vec![
        Change::Set(Resource::Service(Arc::new(Service {
            key: key.clone(),
            vips: vec![IpAddr::from([10, 96, 0, vip])],
            hostnames: vec![format!("{name}.default.svc.cluster.local").into()],
            ports: vec![ServicePort {
                port: 80,
                name: "main".into(),
                app_protocol: protocol,
                ..ServicePort::default()
            }],
            ..Service::default()
        }))),
        Change::Set(Resource::Endpoints(Arc::new(EndpointGroup {
            key: key.clone(),
            service: key,
            ports: vec![("main".into(), 8080)],
            endpoints: endpoints.collect(),
        }))),
    ]
}

/// Runs curl in a namespace; gives what it printed, or its error.
pub fn curl(netns: &str, args: &[&str]) -> String {
    let output = curl_output(netns, args);
    String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr }).into_owned()
}

pub fn curl_output(netns: &str, args: &[&str]) -> Output {
    Command::new("ip").args(["netns", "exec", netns, "curl", "-sS", "-m", "4"]).args(args).output().unwrap()
}

/// Asks again and again until told to stop; gives the numbers of answers and of failures.
pub fn under_load(netns: &str, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<(usize, Vec<String>)> {
    let (netns, stop) = (netns.to_owned(), stop.clone());
    std::thread::spawn(move || {
        let (mut answers, mut failures) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let urls = ["http://10.96.0.50/a"; 20];
            let said = curl(&netns, &[&["-f"][..], &urls].concat());
            let good = said.lines().filter(|line| line.contains(" GET /a ")).count();
            answers += good;
            if good < urls.len() {
                failures.push(said);
            }
        }
        (answers, failures)
    })
}

/// Waits until `check` holds.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn socket(vip: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, vip], 80))
}

/// The route `r` of service `web`.
pub fn route(rules: Vec<Rule>) -> Change {
    Change::Set(Resource::Route(Arc::new(Route {
        name: "HTTPRoute/default/r".into(),
        key: Key::new("default", "r"),
        kind: RouteKind::Http,
        created: model::Timestamp(1),
        parents: vec![Parent {
            target: ParentTarget::Service { service: Key::new("default", "web"), port: None, consumer: None },
            hostnames: vec![],
        }],
        rules,
        ordered: false,
    })))
}

/// A backend of a rule.
pub fn to(service: &str, weight: u32) -> Backend {
    let target = BackendTarget::Service { service: Key::new("default", service), port: 80 };
    Backend { target, weight, filters: vec![] }
}

/// The same of a gateway that passes connections whole.
pub fn whole(change: Change) -> Change {
    match change {
        Change::Set(Resource::Gateway(gateway)) => {
            let mut gateway = (*gateway).clone();
            gateway.listeners[0].protocol = ListenerProtocol::Tcp;
            Change::Set(Resource::Gateway(Arc::new(gateway)))
        }
        Change::Set(Resource::Route(route)) => {
            let mut route = (*route).clone();
            route.kind = RouteKind::Tcp;
            Change::Set(Resource::Route(Arc::new(route)))
        }
        other => other,
    }
}

/// A gateway for everybody on a port of the node, and one route of a prefix to a service.
pub fn gateway(port: u16, prefix: &str, service: &str) -> Vec<Change> {
    let key = Key::new("default", "edge");
    let listener = Listener {
        name: "plain".into(),
        port,
        protocol: ListenerProtocol::Http,
        hostname: None,
        certificates: vec![],
        tls: TlsMode::None,
        on_nodes: true,
        clients: None,
        proxy_protocol: false,
    };
    let parent = ParentTarget::Listener { gateway: key.clone(), listener: "plain".into() };
    let route = Route {
        name: "HTTPRoute/default/edge".into(),
        key: key.clone(),
        kind: RouteKind::Http,
        created: model::Timestamp(1),
        parents: vec![Parent { target: parent, hostnames: vec![] }],
        rules: vec![Rule {
            matches: vec![Match { path: PathMatch::Prefix(prefix.into()), ..Match::default() }],
            backends: vec![to(service, 1)],
            ..Rule::default()
        }],
        ordered: false,
    };
    let gateway = Gateway { key, listeners: vec![listener], service_account: "edge".into(), ..Gateway::default() };
    vec![Change::Set(Resource::Gateway(Arc::new(gateway))), Change::Set(Resource::Route(Arc::new(route)))]
}

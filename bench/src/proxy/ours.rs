//! Diolkos's proxy, in a process of its own, with a configuration that the bench makes.

use super::net::{Pods, Scratch, on_core};
use super::peers::{BACKEND, Peer, Ports};
use clap::Args;
use model::Key;
use model::mesh::{
    Action, AppProtocol, AuthorizationPolicy, Backend, BackendTarget, ClientValidation, Endpoint, EndpointGroup,
    Gateway, Listener, ListenerProtocol, Match, Operation, Parent, ParentTarget, PolicyRule, Resource, Route,
    RouteKind, Rule, Scope, Service, ServicePort, TlsMode, TlsSecret, Tunnel, Workload, WorkloadStatus,
};
use proxy::identity::LocalIssuer;
use proxy::mesh::Change;
use proxy::{Config, Proxy};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use xds::attach::PodAttachment;

const MTLS_PORT: u16 = 25_911;
const TCP_PORT: u16 = 25_921;
const HTTP_PORT: u16 = 25_901;
/// How another build's ports differ.
const OTHER_SHIFT: u16 = 50;
/// How another build is called.
pub const OTHER: &str = "other";
/// Address of the service in `pod_to_pod`.
pub const VIP: &str = "10.96.0.50";
const VIP_PORT: u16 = 80;

/// What the child does.
#[derive(Args)]
pub struct Options {
    /// Namespaces of two pods, client and server; none: a gateway.
    #[arg(long, num_args = 2)]
    pods: Vec<String>,
    /// Where the certificates of a gateway are.
    #[arg(long)]
    certs: PathBuf,
    /// Added to the ports of a gateway.
    #[arg(long, default_value_t = 0)]
    shift: u16,
    /// How long its worker looks before it sleeps, in microseconds.
    #[arg(long)]
    poll_us: Option<u64>,
}

/// A gateway before the backend, whose worker looks for so many microseconds before it sleeps; none: as it does by itself.
pub fn start(work: &Scratch, poll_us: Option<u64>) -> Result<Peer, String> {
    gateway_of("self", &this()?, work, 0, poll_us)
}

/// The same of another build.
pub fn start_other(work: &Scratch, build: &Path) -> Result<Peer, String> {
    gateway_of(OTHER, build, work, OTHER_SHIFT, None)
}

fn gateway_of(
    name: &'static str,
    build: &Path,
    work: &Scratch,
    shift: u16,
    poll_us: Option<u64>,
) -> Result<Peer, String> {
    let mut command = on_core(0, None);
    command.arg(build).args(["proxy-under-test", "--shift", &shift.to_string()]).arg("--certs").arg(work.path());
    command.args(polling(poll_us));
    let http = HTTP_PORT + shift;
    let ports = Ports { http, http2: Some(http), mtls: Some(MTLS_PORT + shift), tcp: Some(TCP_PORT + shift) };
    Peer::start(name, ports, command, true)
}

fn polling(us: Option<u64>) -> Option<String> {
    us.map(|us| format!("--poll-us={us}"))
}

fn this() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| error.to_string())
}

/// The proxy of a node with two pods.
pub fn start_for_pods(work: &Scratch, pods: &Pods, poll_us: Option<u64>) -> Result<Peer, String> {
    let mut command = on_core(0, Some(&pods.node));
    command.arg(this()?).arg("proxy-under-test");
    command.args(["--pods", &pods.client, &pods.server]).arg("--certs").arg(work.path()).args(polling(poll_us));
    let peer = Peer::start("self", Ports { http: VIP_PORT, ..Ports::default() }, command, false)?;
    // Attaching takes nft's time.
    std::thread::sleep(Duration::from_secs(2));
    Ok(peer)
}

/// The child: serves until it is killed.
pub fn run(options: &Options) -> Result<(), String> {
    let issuer = Arc::new(LocalIssuer::generate(86_400).map_err(|error| error.to_string())?);
    let own = Config::default();
    let polling = options.poll_us.map_or(own.polling, Duration::from_micros);
    let config = Config { workers: 1, gateways: options.pods.is_empty(), polling, ..own };
    let proxy = Proxy::start(config, issuer.clone()).map_err(|error| error.to_string())?;
    proxy.shared.identities.set_roots([issuer.root_pem()].into_iter());
    proxy.apply([Change::Set(Resource::AuthorizationPolicy(Arc::new(policy(TCP_PORT + options.shift))))]);
    match options.pods.as_slice() {
        [client, server] => {
            proxy.apply(service(VIP, [10, 251, 0, 6].into(), 8080, "pod/default/web-6"));
            for (last, account, netns) in [(5, "client", client), (6, "web", server)] {
                proxy.apply([Change::Set(Resource::Workload(Arc::new(workload(last, account))))]);
                proxy.attacher.attach(attachment(last, account, netns)).map_err(|error| error.to_string())?;
            }
        }
        _ => {
            proxy.apply(service("10.96.0.60", [127, 0, 0, 1].into(), BACKEND, ""));
            proxy.apply(gateway(options)?);
        }
    }
    loop {
        std::thread::park();
    }
}

fn service(vip: &str, address: IpAddr, port: u16, workload: &str) -> Vec<Change> {
    let key = Key::new("default", "web");
    let vips = vip.parse().into_iter().collect();
    let ports = vec![ServicePort { port: VIP_PORT, app_protocol: AppProtocol::Http, ..ServicePort::default() }];
    let endpoint = Endpoint { workload: workload.into(), ..Endpoint::at(address) };
    let group = EndpointGroup {
        key: key.clone(),
        service: key.clone(),
        ports: vec![("".into(), port)],
        endpoints: vec![endpoint],
    };
    vec![
        Change::Set(Resource::Service(Arc::new(Service { key, vips, ports, ..Service::default() }))),
        Change::Set(Resource::Endpoints(Arc::new(group))),
    ]
}

/// A hundred rules, of which the last takes the request, and the one before it opaque bytes on a port.
fn policy(tcp: u16) -> AuthorizationPolicy {
    let rule = |index: usize| {
        if index == 98 {
            let to = vec![Operation { ports: vec![tcp.to_string().into()], ..Operation::default() }];
            return PolicyRule { to, ..PolicyRule::default() };
        }
        let (path, method) = if index == 99 { ("/*".into(), "GET") } else { (format!("/private/{index}/*"), "POST") };
        PolicyRule {
            to: vec![Operation { paths: vec![path.into()], methods: vec![method.into()], ..Operation::default() }],
            ..PolicyRule::default()
        }
    };
    AuthorizationPolicy {
        key: policy_name(),
        scope: Scope::Workload,
        action: Action::Allow,
        dry_run: false,
        provider: "".into(),
        rules: (0..100).map(rule).collect(),
    }
}

fn policy_name() -> Key {
    Key::new("default", "hundred")
}

fn secret() -> Key {
    Key::new("default", "bench")
}

/// HTTP, HTTPS for clients with a certificate, and TCP, all to the same service.
fn gateway(Options { certs, shift, .. }: &Options) -> Result<Vec<Change>, String> {
    let read = |name: &str| std::fs::read_to_string(certs.join(name)).map_err(|error| format!("{name}: {error}"));
    let key = Key::new("default", "edge");
    let plain = |name: &str, port: u16, protocol: ListenerProtocol| Listener {
        name: name.into(),
        port,
        protocol,
        hostname: None,
        certificates: vec![],
        tls: TlsMode::None,
        on_nodes: true,
        clients: None,
        proxy_protocol: false,
    };
    let listeners = vec![
        plain("http", HTTP_PORT + shift, ListenerProtocol::Http),
        Listener {
            certificates: vec![secret()],
            tls: TlsMode::Terminate,
            clients: Some(ClientValidation { roots: vec![read("ca.pem")?.into()], insecure_fallback: false }),
            ..plain("mtls", MTLS_PORT + shift, ListenerProtocol::Https)
        },
        plain("tcp", TCP_PORT + shift, ListenerProtocol::Tcp),
    ];
    let route = |name: &str, kind: RouteKind, listeners: &[&str]| {
        let parent = |listener: &&str| Parent {
            target: ParentTarget::Listener { gateway: key.clone(), listener: (*listener).into() },
            hostnames: vec![],
        };
        let backend = BackendTarget::Service { service: Key::new("default", "web"), port: VIP_PORT };
        let rule = Rule {
            matches: vec![Match::default()],
            backends: vec![Backend { target: backend, weight: 1, filters: vec![] }],
            ..Rule::default()
        };
        Change::Set(Resource::Route(Arc::new(Route {
            name: format!("{name}/default/edge").into(),
            key: key.clone(),
            kind,
            created: model::Timestamp(1),
            parents: listeners.iter().map(parent).collect(),
            rules: vec![rule],
            ordered: false,
        })))
    };
    let routes = [route("HTTPRoute", RouteKind::Http, &["http", "mtls"]), route("TCPRoute", RouteKind::Tcp, &["tcp"])];
    let gateway = Gateway {
        key: key.clone(),
        listeners,
        service_account: "edge".into(),
        authorization_policies: vec![policy_name()],
        ..Gateway::default()
    };
    let certificate = TlsSecret {
        key: secret(),
        certificate_chain: read("server.pem")?.into_bytes().into(),
        private_key: read("server.key")?.into_bytes().into(),
    };
    let mut changes =
        vec![Change::Set(Resource::Secret(Arc::new(certificate))), Change::Set(Resource::Gateway(Arc::new(gateway)))];
    changes.extend(routes);
    Ok(changes)
}

fn workload(last: u8, account: &str) -> Workload {
    let name = format!("{account}-{last}");
    Workload {
        name: format!("pod/default/{name}").into(),
        uid: name.as_str().into(),
        key: Key::new("default", name),
        service_account: account.into(),
        node: "node".into(),
        addresses: vec![[10, 251, 0, last].into()],
        status: WorkloadStatus::Running,
        tunnel: Tunnel::Hbone,
        zone: "".into(),
        region: "".into(),
        canonical_name: account.into(),
        canonical_kind: "Deployment".into(),
        app: account.into(),
        revision: "v1".into(),
        authorization_policies: vec![policy_name()],
        peer_authentications: vec![],
        request_authentications: vec![],
        labels: Default::default(),
    }
}

fn attachment(last: u8, account: &str, netns: &str) -> PodAttachment {
    PodAttachment {
        uid: format!("{account}-{last}"),
        namespace: "default".into(),
        name: format!("{account}-{last}"),
        service_account: account.into(),
        netns: format!("/var/run/netns/{netns}"),
        ips: vec![[10, 251, 0, last].into()],
        node_ip: [10, 251, 0, 1].into(),
        probe_ports: vec![],
        ports: vec![8080],
    }
}

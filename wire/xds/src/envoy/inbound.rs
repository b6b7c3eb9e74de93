//! What comes in for a process beside which an Envoy stands: at the process's own ports, and at 15008, where peers come with TLS that names the port, or
//! with a tunnel (HBONE). A tunnel ends in an inner listener of the same Envoy, which is told who called and at what address.
use super::filter::{cors_filter, fault_filter};
use super::listener::{DOWNSTREAM_TLS, MANAGER, TCP_PROXY, TLS_INSPECTOR, router, tcp_proxy};
use super::message::{Message, address, ads, extension};
use super::peer::{OWN_SECRET, ROOTS_SECRET};
use super::rbac::{Rules, Verdict};
use super::route::{HeaderChange, RouteAction, RouteEntry, VirtualHost, route_configuration};
use bytes::Bytes;
use model::mesh::MtlsMode;
use std::net::SocketAddr;

/// Under which name the filter state holds who called, behind a tunnel.
pub(super) const CALLER: &str = "diolkos.caller";
/// And from which address.
pub(super) const ADDRESS: &str = "diolkos.address";
const LOCAL: &str = "envoy.filters.listener.original_dst.local_ip";
const REMOTE: &str = "envoy.filters.listener.original_dst.remote_ip";
const SET_STATE: &str = "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config";
const ORIGINAL_DST: &str = "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
const INTERNAL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport";
const RAW_BUFFER: &str = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const HTTP_OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// What Istio's sidecars and ours offer: TLS of a peer's, and not of the process's own.
const PEERS: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// How long the first bytes of a caller are waited for that may come in plain text to a process that may speak first.
const SILENCE_MS: u64 = 1_000;
const CLIENT_CERTIFICATE: &str = "x-forwarded-client-cert";

/// A port of the process.
#[derive(Clone, Debug)]
pub struct InboundPort {
    /// Its number.
    pub number: u16,
    /// Requests are looked at, and are HTTP/2 if so; none: bytes are passed whole.
    pub http2: Option<bool>,
    /// Server names that peers ask for who mean this port.
    pub server_names: Vec<String>,
    /// Whether plain text is taken.
    pub mode: MtlsMode,
    /// Filters before what is decided (tokens, who is asked), for callers whose certificate is seen here, and for those behind a tunnel.
    pub before: [Vec<Bytes>; 2],
    /// What is decided about requests.
    pub decisions: Vec<Rules>,
    /// What is decided about connections that are passed whole.
    pub whole: Vec<Rules>,
    /// The route of all requests.
    pub route: RouteEntry,
    /// Filters after what is decided (limits).
    pub after: Vec<Bytes>,
}

/// An Envoy beside a process.
#[derive(Clone, Debug)]
pub struct Inbound<'a> {
    /// Names begin with it.
    pub name: &'a str,
    /// Address of the workload.
    pub address: std::net::IpAddr,
    /// Whose certificates are taken.
    pub trust_domain: &'a str,
    /// Identity of the process.
    pub identity: &'a str,
    /// Ports.
    pub ports: &'a [InboundPort],
}

/// How a connection came to a chain of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// In plain text.
    Plain,
    /// Under the mesh's TLS, which ends here.
    Secured,
    /// Through a tunnel that ended here.
    Tunnel,
}

/// The cluster of a port of the process: loopback.
fn process(name: &str, number: u16, http2: bool) -> Bytes {
    let endpoint = Message::new().child(1, Message::new().child(1, address("127.0.0.1", number)));
    // explicit_http_config { http2_protocol_options { allow_connect } | http_protocol_options }
    let explicit = match http2 {
        true => Message::new().child(2, Message::new().number(5, 1)),
        false => Message::new().child(1, Message::new()),
    };
    let options = Message::new().child(3, explicit);
    let options =
        Message::new().text(1, "envoy.extensions.upstreams.http.v3.HttpProtocolOptions").any(2, HTTP_OPTIONS, options);
    one_endpoint(name, endpoint).child(36, options).finish()
}

/// `UpgradeConfig { upgrade_type }`.
fn connect() -> Message {
    Message::new().text(1, "CONNECT")
}

/// A cluster of type STATIC.
fn one_endpoint(name: &str, endpoint: Message) -> Message {
    let load = Message::new().text(1, name).child(2, Message::new().child(2, endpoint));
    // circuit_breakers: Envoy's own limits are 1024 of each, also of tunnels, and a process sets its own.
    let most = [2, 3, 4, 5].into_iter().fold(Message::new(), |most, tag| most.wrapped(tag, u64::from(u32::MAX)));
    let message = Message::new().text(1, name).number(2, 0).duration_ms(4, 4_000).child(33, load);
    message.child(10, Message::new().child(1, most))
}

fn listener_filter(name: &str, type_url: &str) -> Message {
    extension(name, 3, type_url, Message::new())
}

fn tls_inspector() -> Message {
    listener_filter("envoy.filters.listener.tls_inspector", TLS_INSPECTOR)
}

/// `FilterChainMatch` of these protocols.
fn offering(protocols: &[&str]) -> Message {
    protocols.iter().fold(Message::new().text(9, "tls"), |message, it| message.text(10, it))
}

impl InboundPort {
    /// The filters of connections that came in this way, as fields of a chain.
    fn filters(&self, of: &Inbound<'_>, came: Came, chain: Message) -> Message {
        if self.http2.is_some() {
            let manager =
                extension("envoy.filters.network.http_connection_manager", 4, MANAGER, self.manager(of, came));
            return chain.child(3, manager);
        }
        let decisions = self.whole.iter().map(|rules| self.seen(rules, came).network_filter());
        let chain = decisions.fold(chain, |chain, filter| chain.bytes(3, &filter));
        let proxy = tcp_proxy(&[(of.cluster(self.number), 1)], (0, 0));
        chain.child(3, extension("envoy.filters.network.tcp_proxy", 4, TCP_PROXY, proxy))
    }

    fn seen(&self, rules: &Rules, came: Came) -> Rules {
        match came {
            Came::Tunnel => rules.map(|rule| rule.at(self.number).through_tunnel()),
            Came::Plain | Came::Secured => rules.map(|rule| rule.at(self.number)),
        }
    }

    fn manager(&self, of: &Inbound<'_>, came: Came) -> Message {
        let table = of.table(self.number, came);
        // stat_prefix, rds
        let manager = Message::new().text(2, &table).child(3, Message::new().child(1, ads()).text(2, &table));
        let manager = manager.child(5, cors_filter()).child(5, fault_filter());
        let before = &self.before[usize::from(came == Came::Tunnel)];
        let manager = before.iter().fold(manager, |manager, filter| manager.bytes(5, filter));
        let manager = manager.children(5, Verdict::ALL.map(|verdict| Rules::inert(verdict.filter())));
        let manager = self.after.iter().fold(manager, |manager, filter| manager.bytes(5, filter));
        // http_filters; normalize_path; upgrade_configs websocket; server_header_transformation PASS_THROUGH
        let manager = manager.child(5, router()).wrapped(30, 1).child(23, Message::new().text(1, "websocket"));
        // http2_protocol_options { allow_connect }; stream_idle_timeout: none, for streams may be quiet
        let manager = manager.number(34, 2).child(9, Message::new().number(5, 1)).duration_ms(24, 0);
        // access_log
        let manager = manager.child(13, super::record::of_requests(came == Came::Tunnel));
        // forward_client_cert_details SANITIZE_SET, set_current_client_cert_details { uri }
        match came {
            Came::Secured => manager.number(16, 3).child(17, Message::new().number(5, 1)),
            Came::Plain | Came::Tunnel => manager,
        }
    }

    /// The route table for those who came in this way.
    fn table(&self, of: &Inbound<'_>, came: Came) -> Bytes {
        let mut route = self.route.clone();
        route.decisions = self.decisions.iter().map(|rules| self.seen(rules, came)).collect();
        route.action = RouteAction::Clusters(vec![(of.cluster(self.number), 1, HeaderChange::default())]);
        if came == Came::Tunnel {
            let said = format!("By={};URI=%FILTER_STATE({CALLER}:PLAIN)%", of.identity);
            route.request.set.push((CLIENT_CERTIFICATE.to_owned(), said));
        }
        let host = VirtualHost { name: "all".to_owned(), domains: vec!["*".to_owned()], routes: vec![route] };
        route_configuration(&of.table(self.number, came), &[host])
    }
}

impl Inbound<'_> {
    fn cluster(&self, port: u16) -> String {
        format!("inbound|{port}||{}", self.name)
    }

    fn inner(&self) -> String {
        format!("inbound/{}/inner", self.name)
    }

    fn table(&self, port: u16, came: Came) -> String {
        let behind = if came == Came::Tunnel { "/tunnel" } else { "" };
        format!("inbound/{}/{port}{behind}", self.name)
    }

    /// Clusters by name: the process's ports, and the way from a tunnel to the inner listener.
    pub fn clusters(&self) -> Vec<(String, Bytes)> {
        let ports = self.ports.iter().map(|port| {
            let name = self.cluster(port.number);
            let value = process(&name, port.number, port.http2 == Some(true));
            (name, value)
        });
        let name = format!("inbound|tunnel||{}", self.name);
        // envoy_internal_address { server_listener_name }
        let inner = Message::new().child(3, Message::new().text(1, &self.inner()));
        let endpoint = Message::new().child(1, Message::new().child(1, inner));
        let raw = extension("envoy.transport_sockets.raw_buffer", 3, RAW_BUFFER, Message::new());
        let socket = extension("envoy.transport_sockets.internal_upstream", 3, INTERNAL, Message::new().child(3, raw));
        let tunnel = one_endpoint(&name, endpoint).child(24, socket).finish();
        ports.chain([(name, tunnel)]).collect()
    }

    fn tunnel_table(&self) -> String {
        format!("inbound/{}/tunnel", self.name)
    }

    /// Where tunnels may go: the ports. Another port changes this table only, and no tunnel ends.
    fn tunnel_ends(&self) -> Bytes {
        let cluster = format!("inbound|tunnel||{}", self.name);
        // timeout none, upgrade_configs { upgrade_type, connect_config }
        let action = Message::new().text(1, &cluster).duration_ms(8, 0).child(25, connect().child(3, Message::new()));
        // match { connect_matcher }, route
        let route = Message::new().child(1, Message::new().child(12, Message::new())).child(2, action);
        let ports = self.ports.iter().map(|port| SocketAddr::new(self.address, port.number).to_string());
        let host = ports.fold(Message::new().text(1, "ports"), |message, domain| message.text(2, &domain));
        Message::new().text(1, &self.tunnel_table()).child(2, host.child(3, route)).finish()
    }

    /// Route tables by name.
    pub fn tables(&self) -> Vec<(String, Bytes)> {
        let http = self.ports.iter().filter(|port| port.http2.is_some());
        let each = |port: &InboundPort, came: Came| (self.table(port.number, came), port.table(self, came));
        let tunnels = (self.tunnel_table(), self.tunnel_ends());
        http.flat_map(|port| [each(port, Came::Secured), each(port, Came::Tunnel)]).chain([tunnels]).collect()
    }

    /// Listeners by name: for each port one of its own address and one for connections that are captured, what captures them, and what is at 15008.
    pub fn listeners(&self, captured: u16, tunnel: u16) -> Vec<(String, Bytes)> {
        let name = |what: &str| format!("inbound/{}/{what}", self.name);
        let mut out = Vec::new();
        for port in self.ports {
            for (kind, binds) in [("own", 1), ("captured", 0)] {
                let name = name(&format!("{kind}/{}", port.number));
                out.push((name.clone(), self.at_port(&name, port, binds)));
            }
        }
        out.push((name("captured"), self.capturing(&name("captured"), captured)));
        out.push((name("tunnel"), self.at_tunnel(&name("tunnel"), tunnel)));
        out.push((name("inner"), self.behind_tunnel(&name("inner"))));
        out
    }

    /// A listener of a port of the process.
    fn at_port(&self, name: &str, port: &InboundPort, binds: u64) -> Bytes {
        let plain = |matched: Message| port.filters(self, Came::Plain, Message::new().child(1, matched));
        // The process's own TLS is passed whole.
        let opaque = InboundPort { http2: None, ..port.clone() };
        let secured = |matched: Message| {
            let chain = port.filters(self, Came::Secured, Message::new().child(1, matched));
            chain.child(6, self.tls(port.http2.is_some()))
        };
        let chains = match port.mode {
            // The first is that of a permissive port, so a changed mode ends no connection that it allows.
            MtlsMode::Strict => vec![secured(offering(&PEERS)), secured(Message::new().text(9, "tls"))],
            MtlsMode::Disable => vec![plain(Message::new())],
            MtlsMode::Permissive | MtlsMode::Unset => vec![
                secured(offering(&PEERS)),
                opaque.filters(self, Came::Plain, Message::new().child(1, Message::new().text(9, "tls"))),
                plain(Message::new().text(9, "raw_buffer")),
            ],
        };
        let at = address(&self.address.to_string(), port.number);
        let message = Message::new().text(1, name).child(2, at).children(3, chains);
        let message = if port.mode == MtlsMode::Disable { message } else { message.child(9, tls_inspector()) };
        let message = match (port.http2, port.mode) {
            // listener_filters_timeout, continue_on_listener_filters_timeout: a process may speak first.
            (None, MtlsMode::Permissive | MtlsMode::Unset) => message.duration_ms(15, SILENCE_MS).number(17, 1),
            _ => message,
        };
        // bind_to_port, traffic_direction INBOUND
        message.wrapped(26, binds).number(16, 1).finish()
    }

    /// Takes connections that were on their way to ports of the process, and hands them on; others it refuses.
    fn capturing(&self, name: &str, port: u16) -> Bytes {
        let nobody = Rules { name: "diolkos.none", verdict: Verdict::Allow, rules: Some(Vec::new()), tried: None };
        let proxy = tcp_proxy(&[("none".to_owned(), 1)], (0, 0));
        let chain = Message::new().bytes(3, &nobody.network_filter());
        let chain = chain.child(3, extension("envoy.filters.network.tcp_proxy", 4, TCP_PROXY, proxy));
        let message = Message::new().text(1, name).child(2, address("0.0.0.0", port)).child(3, chain);
        // use_original_dst
        message.wrapped(4, 1).number(16, 1).finish()
    }

    /// What joined hosts have at 15008: peers that name the port by the server name that they ask for, and tunnels.
    fn at_tunnel(&self, name: &str, number: u16) -> Bytes {
        let named = self.ports.iter().filter(|port| !port.server_names.is_empty()).map(|port| {
            let names = port.server_names.iter().fold(Message::new(), |message, name| message.text(11, name));
            let chain = port.filters(self, Came::Secured, Message::new().child(1, names));
            chain.child(6, self.tls(port.http2.is_some()))
        });
        let manager = extension("envoy.filters.network.http_connection_manager", 4, MANAGER, self.tunnels());
        let tunnel = Message::new().child(1, Message::new().text(9, "tls")).child(3, manager).child(6, self.tls(true));
        let message = Message::new().text(1, name).child(2, address("0.0.0.0", number));
        message.children(3, named).child(3, tunnel).child(9, tls_inspector()).number(16, 1).finish()
    }

    /// Ends tunnels: `CONNECT ADDRESS:PORT`.
    fn tunnels(&self) -> Message {
        let name = self.tunnel_table();
        // format_string { text_format_source { inline_string } }, shared_with_upstream ONCE
        let state = |key: &str, factory: &str, format: &str| {
            let format = Message::new().child(5, Message::new().text(3, format));
            let value = Message::new().text(1, key).child(2, format).number(4, 1);
            if factory.is_empty() { value } else { value.text(6, factory) }
        };
        let states = [
            state(CALLER, "envoy.string", "%DOWNSTREAM_PEER_URI_SAN%"),
            state(ADDRESS, "envoy.network.ip", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
            state(LOCAL, "", "%REQ(:AUTHORITY)%"),
            state(REMOTE, "", "%DOWNSTREAM_REMOTE_ADDRESS%"),
        ];
        let set = extension("envoy.filters.http.set_filter_state", 4, SET_STATE, Message::new().children(1, states));
        // codec_type HTTP2, stat_prefix, rds, http2_protocol_options { allow_connect }, stream_idle_timeout none
        let table = Message::new().child(1, ads()).text(2, &name);
        let manager = Message::new().number(1, 2).text(2, &name).child(3, table).child(5, set).child(5, router());
        let options = Message::new().number(5, 1);
        manager.child(9, options).child(23, connect()).duration_ms(24, 0)
    }

    /// What is in tunnels.
    fn behind_tunnel(&self, name: &str) -> Bytes {
        let chains = self.ports.iter().map(|port| {
            let at = Message::new().wrapped(8, u64::from(port.number));
            port.filters(self, Came::Tunnel, Message::new().child(1, at))
        });
        let filter = listener_filter("envoy.filters.listener.original_dst", ORIGINAL_DST);
        // internal_listener
        Message::new().text(1, name).children(3, chains).child(9, filter).child(27, Message::new()).finish()
    }

    /// The mesh's TLS, with the process's certificate; callers must show one of the trust domain.
    fn tls(&self, http: bool) -> Message {
        let secret = |name: &str| Message::new().text(1, name).child(2, ads());
        // TLSv1_3
        let params = Message::new().number(1, 4).number(2, 4);
        // match_typed_subject_alt_names { san_type URI, matcher { prefix } }
        let peers = Message::new().text(2, &format!("spiffe://{}/", self.trust_domain));
        let validation = Message::new().child(15, Message::new().number(1, 3).child(2, peers));
        let validation = Message::new().child(1, validation).child(2, secret(ROOTS_SECRET));
        let common = Message::new().child(1, params);
        let common = if http { common.text(4, "h2").text(4, "http/1.1") } else { common };
        let common = common.child(6, secret(OWN_SECRET)).child(8, validation);
        // require_client_certificate
        let context = Message::new().child(1, common).wrapped(2, 1);
        extension("envoy.transport_sockets.tls", 3, DOWNSTREAM_TLS, context)
    }
}

//! Listeners.
use super::filter::{cors_filter, fault_filter, session_filter};
use super::message::{Message, address, ads, extension};
use bytes::Bytes;
use model::mesh::ClientValidation;

pub(super) const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
pub(super) const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
pub(super) const DOWNSTREAM_TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const PROXY_PROTOCOL: &str = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
pub(super) const TLS_INSPECTOR: &str =
    "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";

/// What happens to connections that a listener takes.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// Server names; none: all.
    pub server_names: Vec<String>,
    /// Names of certificates (SDS); none: no TLS.
    pub secrets: Vec<String>,
    /// Name of the route table (RDS) for HTTP; none: bytes go to `cluster`.
    pub routes: Option<String>,
    /// Whose certificates clients must show.
    pub clients: Option<ClientValidation>,
    /// Requests come from outside: who opened the connection is the client, whatever they say.
    pub edge: bool,
    /// Where opaque bytes go, by weight.
    pub clusters: Vec<(String, u32)>,
    /// How long opaque connections may be without bytes, and last at all, in milliseconds; 0: as Envoy has it.
    pub lasting_ms: (u64, u64),
    /// Filters before the router, or before opaque bytes are passed on, encoded.
    pub filters: Vec<Bytes>,
}

pub(super) fn router() -> Message {
    extension("envoy.filters.http.router", 4, ROUTER, Message::new())
}

fn manager(routes: &str, filters: &[Bytes], edge: bool) -> Message {
    // codec_type AUTO, stat_prefix, rds
    let first = Message::new().text(2, routes).child(3, Message::new().child(1, ads()).text(2, routes));
    let before = filters.iter().fold(first.child(5, cors_filter()), |message, filter| message.bytes(5, filter));
    let before = before.child(5, fault_filter()).child(5, session_filter());
    // http_filters; normalize_path; upgrade_configs websocket, over HTTP/2 too; strip_any_host_port is left alone
    let manager = before.child(5, router()).wrapped(30, 1).child(23, Message::new().text(1, "websocket"));
    // http2_protocol_options { allow_connect }
    let manager = manager.child(9, Message::new().number(5, 1));
    // use_remote_address, access_log
    if edge { manager.wrapped(14, 1).child(13, super::record::of_requests(false)) } else { manager }
}

/// `TcpProxy`.
pub(super) fn tcp_proxy(clusters: &[(String, u32)], (idle_ms, most_ms): (u64, u64)) -> Message {
    let name = clusters.first().map_or("", |(name, _)| name);
    let proxy = Message::new().text(1, name);
    let proxy = match clusters {
        [_, _, ..] => {
            let weights =
                clusters.iter().map(|(name, weight)| Message::new().text(1, name).number(2, (*weight).into()));
            proxy.child(10, Message::new().children(1, weights))
        }
        _ => proxy.text(2, name),
    };
    // idle_timeout, max_downstream_connection_duration
    let proxy = if idle_ms > 0 { proxy.duration_ms(8, idle_ms) } else { proxy };
    if most_ms > 0 { proxy.duration_ms(13, most_ms) } else { proxy }
}

impl Door {
    fn chain(&self) -> Message {
        let filter = match &self.routes {
            Some(routes) => {
                let manager = manager(routes, &self.filters, self.edge);
                extension("envoy.filters.network.http_connection_manager", 4, MANAGER, manager)
            }
            None => {
                let proxy = tcp_proxy(&self.clusters, self.lasting_ms);
                extension("envoy.filters.network.tcp_proxy", 4, TCP_PROXY, proxy)
            }
        };
        let names = self.server_names.iter().fold(Message::new(), |message, name| message.text(11, name));
        let chain = Message::new().child(1, names);
        let before = self.filters.iter().filter(|_| self.routes.is_none());
        let chain = before.fold(chain, |chain, filter| chain.bytes(3, filter)).child(3, filter);
        if self.secrets.is_empty() {
            return chain;
        }
        let secrets = self.secrets.iter().map(|name| Message::new().text(1, name).child(2, ads()));
        let common = Message::new();
        let common = if self.routes.is_some() { common.text(4, "h2").text(4, "http/1.1") } else { common };
        // validation_context { trusted_ca { inline_bytes }, trust_chain_verification ACCEPT_UNTRUSTED }
        let validation = self.clients.as_ref().map(|clients| {
            let roots = Message::new().bytes(2, clients.roots.join("\n").as_bytes());
            Message::new().child(1, roots).number(10, u64::from(clients.insecure_fallback))
        });
        let tls = Message::new().child(1, common.children(6, secrets).maybe(3, validation));
        // require_client_certificate
        let must = self.clients.as_ref().is_some_and(|clients| !clients.insecure_fallback);
        let tls = if must { tls.wrapped(2, 1) } else { tls };
        chain.child(6, extension("envoy.transport_sockets.tls", 3, DOWNSTREAM_TLS, tls))
    }
}

/// Whose connections a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Those to its address; it listens itself.
    Own,
    /// The same; each begins with a PROXY header.
    Proxied,
    /// The same, and it hands on those that were on their way to another listener's address.
    Captured,
    /// Those that are handed to it.
    Handed,
}

/// `envoy.config.listener.v3.Listener`.
pub fn listener(name: &str, at: (&str, u16), takes: Takes, doors: &[Door]) -> Bytes {
    let mut message = Message::new().text(1, name).child(2, address(at.0, at.1));
    message = message.children(3, doors.iter().map(Door::chain));
    if takes == Takes::Captured {
        message = message.wrapped(4, 1);
    }
    if takes == Takes::Proxied {
        message =
            message.child(9, extension("envoy.filters.listener.proxy_protocol", 3, PROXY_PROTOCOL, Message::new()));
    }
    if doors.iter().any(|door| !door.server_names.is_empty()) {
        message = message.child(9, extension("envoy.filters.listener.tls_inspector", 3, TLS_INSPECTOR, Message::new()));
    }
    if takes == Takes::Handed {
        message = message.wrapped(26, 0);
    }
    message.finish()
}

/// A listener without a socket: what a gRPC client asks for by the name of its target (gRFC A27).
pub fn api_listener(name: &str, routes: &str) -> Bytes {
    let manager = Message::new().child(3, Message::new().child(1, ads()).text(2, routes)).child(5, router());
    let api = Message::new().any(1, MANAGER, manager);
    Message::new().text(1, name).child(19, api).finish()
}

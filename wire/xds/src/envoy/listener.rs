//! Listeners.
use super::filter::{cors_filter, fault_filter, session_filter};
use super::message::{Message, address, ads, extension};
use bytes::Bytes;

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const DOWNSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const TLS_INSPECTOR: &str = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";

/// What happens to connections that a listener takes.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// Server names; none: all.
    pub server_names: Vec<String>,
    /// Names of certificates (SDS); none: no TLS.
    pub secrets: Vec<String>,
    /// Name of the route table (RDS) for HTTP; none: bytes go to `cluster`.
    pub routes: Option<String>,
    /// Where opaque bytes go.
    pub cluster: String,
    /// How long opaque connections may be without bytes, and last at all, in milliseconds; 0: as Envoy has it.
    pub lasting_ms: (u64, u64),
    /// Filters before the router, encoded by [`rbac_filter`](super::rbac_filter).
    pub filters: Vec<Bytes>,
}

fn router() -> Message {
    extension("envoy.filters.http.router", 4, ROUTER, Message::new())
}

fn manager(routes: &str, filters: &[Bytes]) -> Message {
    // codec_type AUTO, stat_prefix, rds
    let first = Message::new().text(2, routes).child(3, Message::new().child(1, ads()).text(2, routes));
    let before = filters.iter().fold(first.child(5, cors_filter()), |message, filter| message.bytes(5, filter));
    let before = before.child(5, fault_filter()).child(5, session_filter());
    // http_filters; normalize_path; upgrade_configs websocket; strip_any_host_port is left alone
    before.child(5, router()).wrapped(30, 1).child(23, Message::new().text(1, "websocket"))
}

impl Door {
    fn chain(&self) -> Message {
        let filter = match &self.routes {
            Some(routes) => {
                extension("envoy.filters.network.http_connection_manager", 4, MANAGER, manager(routes, &self.filters))
            }
            None => {
                let proxy = Message::new().text(1, &self.cluster).text(2, &self.cluster);
                // idle_timeout, max_downstream_connection_duration
                let (idle_ms, most_ms) = self.lasting_ms;
                let proxy = if idle_ms > 0 { proxy.duration_ms(8, idle_ms) } else { proxy };
                let proxy = if most_ms > 0 { proxy.duration_ms(13, most_ms) } else { proxy };
                extension("envoy.filters.network.tcp_proxy", 4, TCP_PROXY, proxy)
            }
        };
        let names = self.server_names.iter().fold(Message::new(), |message, name| message.text(11, name));
        let chain = Message::new().child(1, names).child(3, filter);
        if self.secrets.is_empty() {
            return chain;
        }
        let secrets = self.secrets.iter().map(|name| Message::new().text(1, name).child(2, ads()));
        let common = Message::new().text(4, "h2").text(4, "http/1.1").children(6, secrets);
        let tls = Message::new().child(1, common);
        chain.child(6, extension("envoy.transport_sockets.tls", 3, DOWNSTREAM_TLS, tls))
    }
}

/// `envoy.config.listener.v3.Listener`. `bound`: whether it listens itself, or only takes connections that another listener was given
/// for this address.
pub fn listener(name: &str, at: (&str, u16), bound: bool, hands_on: bool, doors: &[Door]) -> Bytes {
    let mut message = Message::new().text(1, name).child(2, address(at.0, at.1));
    message = message.children(3, doors.iter().map(Door::chain));
    if hands_on {
        message = message.wrapped(4, 1);
    }
    if doors.iter().any(|door| !door.server_names.is_empty()) {
        message = message.child(9, extension("envoy.filters.listener.tls_inspector", 3, TLS_INSPECTOR, Message::new()));
    }
    if !bound {
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

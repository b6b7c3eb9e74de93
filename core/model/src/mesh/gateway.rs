//! Listeners.

use super::route::Hostname;
use crate::Key;
use std::net::IpAddr;
use std::sync::Arc;

/// Listeners on the host ports of every node that serves it. Resource name: `NAMESPACE/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// The Gateway object.
    pub key: Key,
    /// Listeners that were accepted. Several may share a port: by protocol HTTP they are told apart by Host, by TLS by SNI.
    pub listeners: Vec<Listener>,
    /// ServiceAccount of the identity with which it calls services.
    pub service_account: Arc<str>,
    /// Authorization policies that target it, sorted; those of its namespace and of the mesh apply without being listed.
    pub authorization_policies: Vec<Key>,
    /// Addresses of its own, which no other gateway has: every node that serves it listens on them.
    pub addresses: Vec<IpAddr>,
    /// Name of the TLS secret that backends under TLS are shown.
    pub client_certificate: Option<Key>,
}

/// One accepted listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique in the gateway: its section name, or `NAMESPACE/SET/SECTION` when a ListenerSet adds it.
    pub name: Arc<str>,
    /// Host port.
    pub port: u16,
    /// What it speaks.
    pub protocol: ListenerProtocol,
    /// Only requests (or SNI) for this; none means all. The most specific listener of a port takes a request, and no other does.
    pub hostname: Option<Hostname>,
    /// Names of TLS secrets, the first that fits the SNI is used.
    pub certificates: Vec<Key>,
    /// What happens to TLS.
    pub tls: TlsMode,
    /// Whether it listens on the nodes' addresses too, and not only on the gateway's own.
    pub on_nodes: bool,
    /// Whose certificates its clients must show; none: they need not show any.
    pub clients: Option<ClientValidation>,
    /// Connections must begin with a PROXY header, which says who opened them.
    pub proxy_protocol: bool,
}

/// Which clients a listener takes (frontend TLS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientValidation {
    /// PEM certificates that clients' chains must end in.
    pub roots: Vec<Arc<str>>,
    /// A client without a valid certificate is taken all the same (`AllowInsecureFallback`).
    pub insecure_fallback: bool,
}

/// How a service that ends TLS itself is called: by gateways (BackendTLSPolicy), or by all (DestinationRule).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTls {
    /// Server name that is asked for; without `names` the certificate must be for it.
    pub hostname: Arc<str>,
    /// PEM certificates that the server's chain must end in.
    pub roots: Vec<Arc<str>>,
    /// The host's own trusted certificates count as roots too.
    pub system_roots: bool,
    /// If there are any, the certificate must be for one of them, and need not be for the hostname.
    pub names: Vec<SubjectName>,
    /// Why the policy cannot be used, or empty: with a reason, nothing is sent to the service.
    pub flaw: Arc<str>,
    /// Name of the TLS secret that the service is shown; none: the gateway's own, if it has one.
    pub certificate: Option<Key>,
    /// The certificate is not verified at all.
    pub insecure: bool,
    /// It is the mesh's own TLS, with a host outside of it: the caller shows its own certificate, and the server must have one of the mesh, of `names` if
    /// there are any. Who is reached by a tunnel is not called under it.
    pub mesh: bool,
}

/// A subject alternative name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectName {
    /// A DNS name.
    Dns(Arc<str>),
    /// A URI, such as a SPIFFE id.
    Uri(Arc<str>),
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerProtocol {
    /// HTTP/1.1 and h2c.
    Http,
    /// HTTP under TLS.
    Https,
    /// TLS, routed by SNI.
    Tls,
    /// Opaque bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What a listener does with TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    /// There is none.
    #[default]
    None,
    /// Ended here.
    Terminate,
    /// Passed on whole.
    Passthrough,
}

//! Listeners.

use super::route::Hostname;
use crate::Key;
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
}

/// One accepted listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its section name, unique in the gateway.
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

//! Between `model::mesh` and the messages of [`resources`](crate::resources).
//!
//! Encoding cannot fail. Decoding does not trust its input: an unknown enumeration value, a bad address or a missing part is an error of
//! that one resource, which the client refuses (NACK) and goes on with what it had.

mod attached;
mod gateway;
mod policy;
mod request;
mod route;
mod traffic;
mod workload;

use crate::resources as wire;
use bytes::Bytes;
use model::Key;
use model::mesh::{Resource, ResourceKind, TlsSecret, TrustBundle};
use prost::Message;
use std::net::IpAddr;
use std::sync::Arc;

/// A resource's bytes are not what its type asks for. The control plane's fault (or a version's); the same bytes fail again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the message at all.
    #[error("not a valid message: {0}")]
    Protobuf(String),
    /// A part that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A part that makes no sense.
    #[error("{field} has the unknown value {value}")]
    Unknown {
        /// Which.
        field: &'static str,
        /// What.
        value: String,
    },
}

/// Encodes a resource's message.
pub fn encode(resource: &Resource) -> Bytes {
    let bytes = match resource {
        Resource::Workload(it) => wire::Workload::from(&**it).encode_to_vec(),
        Resource::Service(it) => wire::Service::from(&**it).encode_to_vec(),
        Resource::Endpoints(it) => wire::Endpoints::from(&**it).encode_to_vec(),
        Resource::Route(it) => wire::Route::from(&**it).encode_to_vec(),
        Resource::Gateway(it) => wire::Gateway::from(&**it).encode_to_vec(),
        Resource::AuthorizationPolicy(it) => wire::AuthorizationPolicy::from(&**it).encode_to_vec(),
        Resource::PeerAuthentication(it) => wire::PeerAuthentication::from(&**it).encode_to_vec(),
        Resource::RequestAuthentication(it) => wire::request::RequestAuthentication::from(&**it).encode_to_vec(),
        Resource::ExtensionProvider(it) => wire::request::ExtensionProvider::from(&**it).encode_to_vec(),
        Resource::AttachedPolicy(it) => wire::attached::AttachedPolicy::from(&**it).encode_to_vec(),
        Resource::Secret(it) => wire::Secret {
            key: Some(key_out(&it.key)),
            certificate_chain: Bytes::copy_from_slice(&it.certificate_chain),
            private_key: Bytes::copy_from_slice(&it.private_key),
        }
        .encode_to_vec(),
        Resource::TrustBundle(it) => wire::TrustBundle {
            trust_domain: it.trust_domain.to_string(),
            roots: strings(&it.roots),
            jwks: it.jwks.to_string(),
        }
        .encode_to_vec(),
    };
    Bytes::from(bytes)
}

/// Decodes a resource of a kind.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(kind: ResourceKind, bytes: Bytes) -> Result<Resource, DecodeError> {
    fn message<M: Message + Default>(bytes: Bytes) -> Result<M, DecodeError> {
        M::decode(bytes).map_err(|error| DecodeError::Protobuf(error.to_string()))
    }
    Ok(match kind {
        ResourceKind::Workload => Resource::Workload(Arc::new(message::<wire::Workload>(bytes)?.try_into()?)),
        ResourceKind::Service => Resource::Service(Arc::new(message::<wire::Service>(bytes)?.try_into()?)),
        ResourceKind::Endpoints => Resource::Endpoints(Arc::new(message::<wire::Endpoints>(bytes)?.try_into()?)),
        ResourceKind::Route => Resource::Route(Arc::new(message::<wire::Route>(bytes)?.try_into()?)),
        ResourceKind::Gateway => Resource::Gateway(Arc::new(message::<wire::Gateway>(bytes)?.try_into()?)),
        ResourceKind::AuthorizationPolicy => {
            Resource::AuthorizationPolicy(Arc::new(message::<wire::AuthorizationPolicy>(bytes)?.try_into()?))
        }
        ResourceKind::PeerAuthentication => {
            Resource::PeerAuthentication(Arc::new(message::<wire::PeerAuthentication>(bytes)?.try_into()?))
        }
        ResourceKind::RequestAuthentication => Resource::RequestAuthentication(Arc::new(
            message::<wire::request::RequestAuthentication>(bytes)?.try_into()?,
        )),
        ResourceKind::ExtensionProvider => {
            Resource::ExtensionProvider(Arc::new(message::<wire::request::ExtensionProvider>(bytes)?.try_into()?))
        }
        ResourceKind::AttachedPolicy => {
            Resource::AttachedPolicy(Arc::new(message::<wire::attached::AttachedPolicy>(bytes)?.try_into()?))
        }
        ResourceKind::Secret => {
            let it: wire::Secret = message(bytes)?;
            Resource::Secret(Arc::new(TlsSecret {
                key: key_in(it.key, "key")?,
                certificate_chain: it.certificate_chain[..].into(),
                private_key: it.private_key[..].into(),
            }))
        }
        ResourceKind::TrustBundle => {
            let it: wire::TrustBundle = message(bytes)?;
            if it.trust_domain.is_empty() {
                return Err(DecodeError::Missing("trust_domain"));
            }
            Resource::TrustBundle(Arc::new(TrustBundle {
                trust_domain: it.trust_domain.into(),
                roots: arcs(it.roots),
                jwks: it.jwks.into(),
            }))
        }
    })
}

fn key_out(key: &Key) -> wire::Key {
    wire::Key { namespace: key.namespace.to_string(), name: key.name.to_string() }
}

fn key_in(key: Option<wire::Key>, field: &'static str) -> Result<Key, DecodeError> {
    let key = key.filter(|key| !key.name.is_empty()).ok_or(DecodeError::Missing(field))?;
    Ok(Key::new(key.namespace, key.name))
}

fn keys_out(keys: &[Key]) -> Vec<wire::Key> {
    keys.iter().map(key_out).collect()
}

fn keys_in(keys: Vec<wire::Key>, field: &'static str) -> Result<Vec<Key>, DecodeError> {
    keys.into_iter().map(|key| key_in(Some(key), field)).collect()
}

fn strings(texts: &[Arc<str>]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

fn arcs(texts: Vec<String>) -> Vec<Arc<str>> {
    texts.into_iter().map(Arc::from).collect()
}

fn address_out(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    }
}

fn address_in(bytes: &[u8]) -> Result<IpAddr, DecodeError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes)
        .map(IpAddr::from)
        .map_err(|_| DecodeError::Unknown { field: "address", value: format!("{bytes:?}") })
}

fn port_in(port: u32, field: &'static str) -> Result<u16, DecodeError> {
    u16::try_from(port).map_err(|_| DecodeError::Unknown { field, value: port.to_string() })
}

/// A number's place in a list of alternatives.
fn pick<T: Copy>(number: u32, field: &'static str, among: &[(u32, T)]) -> Result<T, DecodeError> {
    among
        .iter()
        .find(|(value, _)| *value == number)
        .map(|(_, it)| *it)
        .ok_or_else(|| DecodeError::Unknown { field, value: number.to_string() })
}

/// The other way; every alternative is in the list.
fn number<T: Copy + PartialEq>(it: T, among: &[(u32, T)]) -> u32 {
    among.iter().find(|(_, value)| *value == it).map_or(0, |(value, _)| *value)
}

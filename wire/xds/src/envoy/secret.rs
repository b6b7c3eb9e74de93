//! Certificates by SDS.
use super::message::Message;
use bytes::Bytes;

/// The same with roots to verify others by, PEM.
pub fn roots_secret(name: &str, roots: &[u8]) -> Bytes {
    // validation_context { trusted_ca { inline_bytes } }
    let context = Message::new().child(1, Message::new().bytes(2, roots));
    Message::new().text(1, name).child(4, context).finish()
}

/// `envoy.extensions.transport_sockets.tls.v3.Secret` with a PEM chain and its key.
pub fn tls_secret(name: &str, chain: &[u8], key: &[u8]) -> Bytes {
    let inline = |bytes: &[u8]| Message::new().bytes(2, bytes);
    let certificate = Message::new().child(1, inline(chain)).child(2, inline(key));
    Message::new().text(1, name).child(2, certificate).finish()
}

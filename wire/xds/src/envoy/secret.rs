//! Certificates by SDS.
use super::message::Message;
use bytes::Bytes;

/// `envoy.extensions.transport_sockets.tls.v3.Secret` with a PEM chain and its key.
pub fn tls_secret(name: &str, chain: &[u8], key: &[u8]) -> Bytes {
    let inline = |bytes: &[u8]| Message::new().bytes(2, bytes);
    let certificate = Message::new().child(1, inline(chain)).child(2, inline(key));
    Message::new().text(1, name).child(2, certificate).finish()
}

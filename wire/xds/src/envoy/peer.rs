//! Mutual TLS of the mesh, as Envoys and gRPC clients begin it: straight to the process's port, as Istio's sidecars do.
use super::message::{Message, ads, extension};

const UPSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const RAW_BUFFER: &str = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
/// What endpoints are marked with that take the mesh's TLS.
const MARK: (&str, &str) = ("tlsMode", "istio");

/// Names of the secrets of an Envoy's own: its certificate and key, and the roots that it trusts.
pub const OWN_SECRET: &str = "default";
/// See [`OWN_SECRET`].
pub const ROOTS_SECRET: &str = "ROOTCA";

/// Who is called, and how.
#[derive(Clone, Copy, Debug)]
pub struct Peers<'a> {
    /// SPIFFE identities (or, outside of the mesh, names of hosts) of which the other side must have one; none: any identity of the trust domain.
    pub identities: &'a [String],
    /// The trust domain.
    pub trust_domain: &'a str,
    /// The server name that is asked for.
    pub server_name: &'a str,
    /// What is spoken inside.
    pub http2: bool,
}

/// `google.protobuf.Struct` with one text.
fn one_text((name, text): (&str, &str)) -> Message {
    Message::new().child(1, Message::new().text(1, name).child(2, Message::new().text(3, text)))
}

/// `envoy.config.core.v3.Metadata` of an endpoint that takes the mesh's TLS.
pub(super) fn mark() -> Message {
    Message::new().child(1, Message::new().text(1, "envoy.transport_socket_match").child(2, one_text(MARK)))
}

/// Field `transport_socket_matches` of a cluster: TLS to endpoints that are marked, plain text to the others.
pub(super) fn by_mark(message: Message, peers: &Peers<'_>) -> Message {
    let tls = Message::new().text(1, "tlsMode-istio").child(2, one_text(MARK)).child(3, tls(peers));
    let raw = extension("envoy.transport_sockets.raw_buffer", 3, RAW_BUFFER, Message::new());
    let plain = Message::new().text(1, "tlsMode-disabled").child(2, Message::new()).child(3, raw);
    message.child(43, tls).child(43, plain)
}

/// A transport socket whose certificates come by SDS.
fn tls(peers: &Peers<'_>) -> Message {
    let secret = |name: &str| Message::new().text(1, name).child(2, ads());
    // TLSv1_3
    let params = Message::new().number(1, 4).number(2, 4);
    let exact = |identity: &String| Message::new().text(1, identity);
    let any = || Message::new().text(2, &format!("spiffe://{}/", peers.trust_domain));
    // match_typed_subject_alt_names { san_type (DNS 2, URI 3), matcher }
    let typed = |of: u64, matcher: Message| Message::new().number(1, of).child(2, matcher);
    let named = peers.identities.iter().map(|name| typed(if name.contains("://") { 3 } else { 2 }, exact(name)));
    let validation = Message::new().children(15, named);
    let validation = if peers.identities.is_empty() { validation.child(15, typed(3, any())) } else { validation };
    let validation = Message::new().child(1, validation).child(2, secret(ROOTS_SECRET));
    let common = Message::new().child(1, params).text(4, "istio");
    let common = if peers.http2 { common.text(4, "h2") } else { common };
    let common = common.child(6, secret(OWN_SECRET)).child(8, validation);
    extension(
        "envoy.transport_sockets.tls",
        3,
        UPSTREAM_TLS,
        Message::new().child(1, common).text(2, peers.server_name),
    )
}

/// Field `transport_socket` of a cluster for gRPC clients: certificates come from the certificate provider that their bootstrap names (gRFC A29).
pub(super) fn by_provider(message: Message, instance: &str, peers: &Peers<'_>) -> Message {
    let provider = || Message::new().text(1, instance);
    let exact = |identity: &String| Message::new().text(1, identity);
    let any = || Message::new().text(2, &format!("spiffe://{}/", peers.trust_domain));
    // ca_certificate_provider_instance, match_subject_alt_names
    let validation = Message::new().child(13, provider()).children(9, peers.identities.iter().map(exact));
    let validation = if peers.identities.is_empty() { validation.child(9, any()) } else { validation };
    // combined_validation_context { default_validation_context }, tls_certificate_provider_instance
    let common = Message::new().child(8, Message::new().child(1, validation)).child(14, provider());
    let context = Message::new().child(1, common).text(2, peers.server_name);
    message.child(24, extension("envoy.transport_sockets.tls", 3, UPSTREAM_TLS, context))
}

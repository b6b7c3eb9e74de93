//! External authorization: who is asked about requests, Envoy's `ext_authz`. It asks about those requests only that a CUSTOM policy matches: an RBAC filter
//! before it decides nothing and leaves in the request's metadata which of the policies' rules matched.
use super::message::{Message, extension};
use super::rbac::{RbacRule, Verdict, decided};
use bytes::Bytes;
use model::mesh::ExtensionProvider;
use model::mesh::policy::ProviderKind;
use std::sync::Arc;

const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
const EXT_AUTHZ: &str = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";

/// `envoy.config.core.v3.GrpcService`.
pub(super) fn grpc_service(cluster: &str, authority: &str, timeout_ms: u64) -> Message {
    // envoy_grpc { cluster_name, authority }, timeout
    Message::new().child(1, Message::new().text(1, cluster).text(2, authority)).duration_ms(3, timeout_ms)
}

/// `ListStringMatcher`, of exact names, `prefix*` and `*suffix`.
fn names(list: &[Arc<str>]) -> Message {
    let matcher = |pattern: &Arc<str>| match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(""), _) => Message::new().child(5, Message::new().text(2, ".*")),
        (Some(prefix), _) => Message::new().text(2, prefix),
        (None, Some(suffix)) => Message::new().text(3, suffix),
        (None, None) => Message::new().text(1, pattern),
    };
    Message::new().children(1, list.iter().map(matcher))
}

/// Two filters in their order: one that notes which requests `rules` match, and one that asks about them.
pub fn authorizer_filters(provider: &ExtensionProvider, cluster: &str, rules: &[RbacRule]) -> [Bytes; 2] {
    let prefix = format!("ask_{}_", provider.name);
    // shadow_rules { action DENY, policies }, shadow_rules_stat_prefix
    let noted = Message::new().child(2, decided(Verdict::Deny, rules)).text(3, &prefix);
    let notes = extension(&format!("diolkos.rbac.ask/{}", provider.name), 4, RBAC, noted);
    let key = format!("{prefix}shadow_effective_policy_id");
    // MetadataMatcher { filter, path { key }, value { present_match } }
    let matched = Message::new()
        .text(1, "envoy.filters.http.rbac")
        .child(2, Message::new().text(1, &key))
        .child(3, Message::new().number(5, 1));
    let authority = format!("{}:{}", provider.service, provider.port);
    let asks = match &provider.kind {
        ProviderKind::Grpc => Message::new().child(1, grpc_service(cluster, &authority, provider.timeout_ms)),
        ProviderKind::Http { prefix, send, add, upstream, downstream } => {
            let uri = format!("http://{authority}");
            let server = Message::new().text(1, &uri).text(2, cluster).duration_ms(3, provider.timeout_ms);
            let added = add.iter().map(|(name, value)| Message::new().text(1, name).text(2, value));
            // allowed_upstream_headers; allowed_client_headers, without which a caller gets all
            let answer = Message::new().child(1, names(upstream));
            let answer = answer.maybe(2, (!downstream.is_empty()).then(|| names(downstream)));
            // server_uri, path_prefix, authorization_request { headers_to_add }, authorization_response
            let service = Message::new().child(1, server).text(2, prefix);
            let service = service.child(7, Message::new().children(2, added)).child(8, answer);
            Message::new().child(3, service).child(17, names(send))
        }
    };
    // failure_mode_allow, status_on_error { code }, transport_api_version V3, filter_enabled_metadata
    let asks = asks
        .number(2, u64::from(provider.fail_open))
        .child(7, Message::new().number(1, u64::from(provider.status_on_error)))
        .number(12, 2)
        .child(14, matched);
    let asks = extension(&format!("diolkos.ask/{}", provider.name), 4, EXT_AUTHZ, asks);
    [notes.finish(), asks.finish()]
}

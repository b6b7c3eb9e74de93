//! Tokens: Envoy's `jwt_authn` filter, as Istio's RequestAuthentication uses it.
use super::message::{Message, extension};
use bytes::Bytes;
use model::mesh::JwtRule;

const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";

/// `JwtProvider`, with its keys inline.
fn provider(rule: &JwtRule) -> Message {
    let message = rule.audiences.iter().fold(Message::new().text(1, &rule.issuer), |message, it| message.text(2, it));
    let keys = if rule.jwks.is_empty() { "{\"keys\":[]}" } else { &*rule.jwks };
    // local_jwks { inline_string }, forward, from_headers { name, value_prefix }
    let message = message.child(4, Message::new().text(3, keys)).number(5, u64::from(rule.forward));
    let headers = rule.from_headers.iter().map(|(name, before)| Message::new().text(1, name).text(2, before));
    let message = message.children(6, headers);
    let message = rule.from_params.iter().fold(message, |message, it| message.text(7, it));
    // Where policies find its claims: payload_in_metadata.
    let message = message.text(9, super::rbac::PAYLOAD);
    let message = rule.from_cookies.iter().fold(message, |message, it| message.text(13, it));
    let message = if rule.payload_header.is_empty() { message } else { message.text(8, &rule.payload_header) };
    // claim_to_headers { header_name, claim_name }
    message.children(15, rule.claim_headers.iter().map(|(name, claim)| Message::new().text(1, name).text(2, claim)))
}

/// A filter that answers requests whose token does not hold with 401, and passes those that have none.
pub fn jwt_filter<'a>(rules: impl IntoIterator<Item = (String, &'a JwtRule)>) -> Bytes {
    let (mut providers, mut names) = (Vec::new(), Vec::new());
    for (name, rule) in rules {
        providers.push(Message::new().text(1, &name).child(2, provider(rule)));
        names.push(Message::new().text(1, &name));
    }
    // requires_any { requirements { provider_name | allow_missing } }
    names.push(Message::new().child(6, Message::new()));
    let requires = Message::new().child(3, Message::new().children(1, names));
    let rule = Message::new().child(1, Message::new().text(1, "/")).child(2, requires);
    let value = Message::new().children(1, providers).child(2, rule);
    extension("envoy.filters.http.jwt_authn", 4, FILTER, value).finish()
}

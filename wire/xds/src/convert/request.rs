//! Tokens and authorizers.

use super::policy::SCOPE;
use super::{DecodeError, arcs, key_in, key_out, keys_in, keys_out, number, pick, port_in, strings};
use crate::resources::Header;
use crate::resources::request as wire;
use model::mesh::policy::{ExtensionProvider, JwtRule, ProviderKind, RequestAuthentication};
use std::sync::Arc;

/// Pairs of name and value.
type Pairs = Vec<(Arc<str>, Arc<str>)>;

fn pairs_out(pairs: &[(Arc<str>, Arc<str>)]) -> Vec<Header> {
    pairs.iter().map(|(name, value)| Header { name: name.to_string(), value: value.to_string() }).collect()
}

fn pairs_in(pairs: Vec<Header>) -> Pairs {
    pairs.into_iter().map(|it| (it.name.into(), it.value.into())).collect()
}

impl From<&RequestAuthentication> for wire::RequestAuthentication {
    fn from(it: &RequestAuthentication) -> Self {
        let rule = |rule: &JwtRule| wire::JwtRule {
            issuer: rule.issuer.to_string(),
            audiences: strings(&rule.audiences),
            jwks: rule.jwks.to_string(),
            from_headers: pairs_out(&rule.from_headers),
            from_params: strings(&rule.from_params),
            from_cookies: strings(&rule.from_cookies),
            payload_header: rule.payload_header.to_string(),
            claim_headers: pairs_out(&rule.claim_headers),
            forward: rule.forward,
            space_delimited: strings(&rule.space_delimited),
        };
        wire::RequestAuthentication {
            key: Some(key_out(&it.key)),
            scope: number(it.scope, SCOPE),
            rules: it.rules.iter().map(rule).collect(),
            gateways: keys_out(&it.gateways),
        }
    }
}

impl TryFrom<wire::RequestAuthentication> for RequestAuthentication {
    type Error = DecodeError;
    fn try_from(it: wire::RequestAuthentication) -> Result<Self, DecodeError> {
        let rule = |rule: wire::JwtRule| JwtRule {
            issuer: rule.issuer.into(),
            audiences: arcs(rule.audiences),
            jwks: rule.jwks.into(),
            from_headers: pairs_in(rule.from_headers),
            from_params: arcs(rule.from_params),
            from_cookies: arcs(rule.from_cookies),
            payload_header: rule.payload_header.into(),
            claim_headers: pairs_in(rule.claim_headers),
            forward: rule.forward,
            space_delimited: arcs(rule.space_delimited),
        };
        Ok(RequestAuthentication {
            key: key_in(it.key, "key")?,
            scope: pick(it.scope, "scope", SCOPE)?,
            rules: it.rules.into_iter().map(rule).collect(),
            gateways: keys_in(it.gateways, "gateways")?,
        })
    }
}

impl From<&ExtensionProvider> for wire::ExtensionProvider {
    fn from(it: &ExtensionProvider) -> Self {
        let mut out = wire::ExtensionProvider {
            name: it.name.to_string(),
            service: it.service.to_string(),
            namespace: it.namespace.to_string(),
            port: it.port.into(),
            fail_open: it.fail_open,
            status_on_error: it.status_on_error.into(),
            timeout_ms: it.timeout_ms,
            ..Default::default()
        };
        if let ProviderKind::Http { prefix, send, add, upstream, downstream } = &it.kind {
            (out.http, out.prefix, out.add) = (true, prefix.to_string(), pairs_out(add));
            (out.send, out.upstream, out.downstream) = (strings(send), strings(upstream), strings(downstream));
        }
        out
    }
}

impl TryFrom<wire::ExtensionProvider> for ExtensionProvider {
    type Error = DecodeError;
    fn try_from(it: wire::ExtensionProvider) -> Result<Self, DecodeError> {
        if it.name.is_empty() {
            return Err(DecodeError::Missing("name"));
        }
        let kind = match it.http {
            false => ProviderKind::Grpc,
            true => ProviderKind::Http {
                prefix: it.prefix.into(),
                send: arcs(it.send),
                add: pairs_in(it.add),
                upstream: arcs(it.upstream),
                downstream: arcs(it.downstream),
            },
        };
        Ok(ExtensionProvider {
            name: it.name.into(),
            service: it.service.into(),
            namespace: it.namespace.into(),
            port: port_in(it.port, "port")?,
            kind,
            fail_open: it.fail_open,
            status_on_error: port_in(it.status_on_error, "status_on_error")?,
            timeout_ms: it.timeout_ms,
        })
    }
}

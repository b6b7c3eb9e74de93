//! Who sends a request: client certificate, ServiceAccount token, bootstrap token, or nobody.

pub mod certificate;
mod impersonate;
pub mod jwt;
mod service_account;

pub use impersonate::impersonated;
pub use service_account::{Binding, TokenRequest, check_service_account, issue_token};

use crate::core::Core;
use crate::handler::Peer;
use crate::identity::Identity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jwt::TokenError;
use kube::Status;
use serde_json::Value;
use std::sync::atomic::Ordering;

/// Identifies the sender. Credentials that are there and wrong are an error; none at all is the anonymous user.
///
/// # Errors
/// 401.
pub fn authenticate(core: &Core, headers: &HeaderMap, peer: &Peer) -> Result<Identity, Status> {
    if let Some(token) = bearer(headers) {
        return by_token(core, token, std::slice::from_ref(&core.config.issuer)).map_err(|error| {
            core.metrics.unauthenticated.fetch_add(1, Ordering::Relaxed);
            tracing::info!(from = %peer.from, %error, "a bearer token was refused");
            Status::unauthorized()
        });
    }
    Ok(peer.certificate.clone().unwrap_or_else(Identity::anonymous))
}

/// The token of `Authorization: Bearer`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// Whose token it is, for an audience.
///
/// # Errors
/// See [`TokenError`].
pub fn by_token(core: &Core, token: &str, audiences: &[String]) -> Result<Identity, TokenError> {
    if same_secret(token, &core.dashboard_token) {
        return Ok(Identity::user("diolkos-dashboard", [crate::identity::MASTERS.into()]));
    }
    match core.token_key.open(token) {
        Ok(claims) => check_service_account(core, &claims, audiences),
        Err(TokenError::Foreign) => bootstrap(core, token).ok_or(TokenError::Foreign),
        Err(error) => Err(error),
    }
}

/// `abcdef.0123456789abcdef`, kept as Secret `bootstrap-token-abcdef` in kube-system (bootstrap.kubernetes.io/token).
fn bootstrap(core: &Core, token: &str) -> Option<Identity> {
    let (id, secret) = token.split_once('.').filter(|(id, secret)| id.len() == 6 && secret.len() == 16)?;
    let object = core.read("secrets", "kube-system", &format!("bootstrap-token-{id}"))?;
    let data = |key: &str| -> Option<String> {
        let bytes = STANDARD.decode(object["data"][key].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let fits = object["type"] == "bootstrap.kubernetes.io/token"
        && object["metadata"]["deletionTimestamp"].is_null()
        && data("token-id").as_deref() == Some(id)
        && same_secret(&data("token-secret")?, secret)
        && data("usage-bootstrap-authentication").as_deref() == Some("true");
    if !fits {
        return None;
    }
    if let Some(text) = data("expiration") {
        let until: jiff::Timestamp = text.parse().ok()?;
        if until < jiff::Timestamp::now() {
            return None;
        }
    }
    let extra = data("auth-extra-groups").unwrap_or_default();
    // Only groups of this prefix may be given: a Secret must not make masters.
    let extra = extra.split(',').filter(|group| group.starts_with("system:bootstrappers:")).map(Into::into);
    let groups: Vec<_> = std::iter::once("system:bootstrappers".into()).chain(extra).collect();
    Some(Identity::user(format!("system:bootstrap:{id}"), groups))
}

/// Compares without telling by its duration how much was right.
fn same_secret(a: &str, b: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

/// `UserInfo`, as TokenReview and SelfSubjectReview show it.
pub fn user_info(who: &Identity) -> Value {
    let groups: Vec<&str> = who.groups.iter().map(|group| &**group).collect();
    let mut info = serde_json::json!({"username": &*who.name, "groups": groups});
    if !who.uid.is_empty() {
        info["uid"] = who.uid.clone().into();
    }
    if !who.extra.is_empty() {
        info["extra"] = serde_json::to_value(&who.extra).unwrap_or_default();
    }
    info
}

use super::jwt::{TokenError, check_times_and_audience};
use crate::core::{Core, new_uid};
use crate::identity::Identity;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a token's life hangs on besides its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// `pod`, `secret` or `node`: the claim's key.
    pub kind: &'static str,
    /// Name; in the account's namespace (nodes have none).
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// What a token is asked to say.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// The account's namespace.
    pub namespace: &'a str,
    /// The account's name.
    pub name: &'a str,
    /// The account's uid.
    pub uid: &'a str,
    /// For whom; empty means the API server.
    pub audiences: Vec<String>,
    /// How long.
    pub expires_in_s: i64,
    /// Bound to.
    pub binding: Option<Binding>,
    /// The node that a pod's token is used on.
    pub node: Option<(String, String)>,
}

/// Signs a token; gives it with its end in seconds since the epoch.
pub fn issue_token(core: &Core, request: &TokenRequest<'_>, now_s: i64) -> (String, i64) {
    let audiences =
        if request.audiences.is_empty() { vec![core.config.issuer.clone()] } else { request.audiences.clone() };
    let ends = now_s + request.expires_in_s;
    let mut bound = json!({
        "namespace": request.namespace,
        "serviceaccount": {"name": request.name, "uid": request.uid},
    });
    if let Some(Binding { kind, name, uid }) = &request.binding {
        bound[*kind] = json!({"name": name, "uid": uid});
    }
    if let Some((name, uid)) = &request.node {
        bound["node"] = json!({"name": name, "uid": uid});
    }
    let claims = json!({
        "iss": core.config.issuer,
        "sub": format!("system:serviceaccount:{}:{}", request.namespace, request.name),
        "aud": audiences,
        "iat": now_s,
        "nbf": now_s,
        "exp": ends,
        "jti": new_uid(),
        "kubernetes.io": bound,
    });
    (core.token_key.sign(&claims), ends)
}

/// Whose token this is, if the account and what the token is bound to still live.
///
/// # Errors
/// See [`TokenError`].
pub fn check_service_account(core: &Core, claims: &Value, audiences: &[String]) -> Result<Identity, TokenError> {
    if claims["iss"] != core.config.issuer.as_str() {
        return Err(TokenError::Foreign);
    }
    check_times_and_audience(claims, audiences, core.now().secs())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let bound = &claims["kubernetes.io"];
    let namespace = text(&bound["namespace"]);
    let (account, uid) = (text(&bound["serviceaccount"]["name"]), text(&bound["serviceaccount"]["uid"]));
    let lives = |key: &str, namespace: &str, reference: &Value| {
        let object = core.read(key, namespace, reference["name"].as_str().unwrap_or_default());
        object.is_some_and(|object| {
            object["metadata"]["uid"] == reference["uid"] && !long_deleted(&object, core.now().secs())
        })
    };
    if !lives("serviceaccounts", &namespace, &bound["serviceaccount"]) {
        return Err(TokenError::Unbound);
    }
    let mut extra = BTreeMap::new();
    let jti = text(&claims["jti"]);
    extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={jti}")]);
    for (claim, key) in [("pod", "pods"), ("secret", "secrets"), ("node", "nodes")] {
        let reference = &bound[claim];
        if reference.is_null() {
            continue;
        }
        let namespace = if claim == "node" { "" } else { namespace.as_str() };
        // A pod's token names its node for information only; the node may be gone before the pod is.
        if (claim != "node" || bound["pod"].is_null()) && !lives(key, namespace, reference) {
            return Err(TokenError::Unbound);
        }
        extra.insert(format!("authentication.kubernetes.io/{claim}-name"), vec![text(&reference["name"])]);
        extra.insert(format!("authentication.kubernetes.io/{claim}-uid"), vec![text(&reference["uid"])]);
    }
    let groups = ["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}").into()];
    let mut who = Identity::user(format!("system:serviceaccount:{namespace}:{account}"), groups);
    who.uid = uid;
    who.extra = extra;
    Ok(who)
}

/// A deleted object's tokens work a minute longer than its grace period, so that a pod can say goodbye.
fn long_deleted(object: &Value, now_s: i64) -> bool {
    const LEEWAY_S: i64 = 60;
    let at = object["metadata"]["deletionTimestamp"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    at.is_some_and(|at| at.as_second() + LEEWAY_S < now_s)
}

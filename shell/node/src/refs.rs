//! Objects that pods refer to: ConfigMaps, Secrets, claims and tokens.

use crate::{clock, resource};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::{ApiError, BoxFuture, ObjectApi, Resource};
use model::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Why something that a pod refers to cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefError {
    /// It is not there; the pod waits for somebody to make it.
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: &'static str, name: String },
    /// The API server refused or did not answer; tried again.
    #[error("failed to get {kind} {name}: {error}")]
    Api { kind: &'static str, name: String, error: ApiError },
    /// The claim is not bound, or its volume is of a kind that this node cannot mount.
    #[error("{0}")]
    Claim(String),
}

/// Content of a ConfigMap or Secret.
pub type Data = Arc<BTreeMap<String, Vec<u8>>>;

/// Where a pod's environment and volumes get their content from.
pub trait Lookup: Send + Sync {
    /// The data of a `configmap` or `secret`.
    fn data<'a>(
        &'a self,
        kind: &'static str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Data, RefError>>;
}

/// A bound ServiceAccount token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub token: String,
    pub issued: Timestamp,
    pub expires: Timestamp,
}

impl Token {
    /// Whether it is time for a new one: at 80 % of its life, as the kubelet does.
    pub fn is_old(&self, now: Timestamp) -> bool {
        now.since_ms(self.issued) >= self.expires.since_ms(self.issued) * 8 / 10
    }
}

/// Kind, namespace and name to what was read, and when.
type Cache = BTreeMap<(&'static str, String, String), (Instant, Data)>;

/// Asks the API server, and keeps answers for a moment: many containers of a Deployment ask for the same thing at once. An old
/// answer is better than none when the API server is away: a container that crashed must be able to start again.
pub struct Refs {
    api: Arc<dyn ObjectApi>,
    cache: Mutex<Cache>,
}

const FRESH: Duration = Duration::from_secs(1);
const MAX_CACHED: usize = 1000;

impl Refs {
    pub fn new(api: Arc<dyn ObjectApi>) -> Self {
        Refs { api, cache: Mutex::default() }
    }

    async fn fetch(&self, kind: &'static str, namespace: &str, name: &str) -> Result<Data, RefError> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let cached = self.lock().get(&key).cloned();
        if let Some((at, data)) = &cached
            && at.elapsed() < FRESH
        {
            return Ok(data.clone());
        }
        let of = if kind == "secret" { resource::SECRETS } else { resource::CONFIG_MAPS };
        match (self.object(of, kind, namespace, name).await, cached) {
            (Ok(object), _) => {
                let data = Arc::new(data_of(&object));
                let mut cache = self.lock();
                if cache.len() >= MAX_CACHED {
                    cache.retain(|_, (at, _)| at.elapsed() < FRESH);
                }
                cache.insert(key, (Instant::now(), data.clone()));
                Ok(data)
            }
            (Err(RefError::Api { error, .. }), Some((_, data))) if error.is_transient() => Ok(data),
            (Err(error), _) => Err(error),
        }
    }

    /// One object as JSON.
    ///
    /// # Errors
    /// It is not there, or the API server does not answer.
    pub async fn object(
        &self,
        of: Resource,
        kind: &'static str,
        namespace: &str,
        name: &str,
    ) -> Result<Value, RefError> {
        let fail = |error: ApiError| match error.is_not_found() {
            true => RefError::NotFound { kind, name: name.to_owned() },
            false => RefError::Api { kind, name: format!("{namespace}/{name}"), error },
        };
        let bytes = self.api.get(of, namespace, name).await.map_err(fail)?;
        serde_json::from_slice(&bytes).map_err(|error| fail(ApiError::unreachable(format!("no JSON: {error}"))))
    }

    /// The directory on this node that a claim is bound to, and whether it must be made.
    ///
    /// # Errors
    /// The claim is not bound, or not to a directory of the node.
    pub async fn claim(&self, namespace: &str, name: &str) -> Result<(PathBuf, bool), RefError> {
        let claim = self.object(resource::CLAIMS, "persistentvolumeclaim", namespace, name).await?;
        let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
        if volume.is_empty() || claim["status"]["phase"] != "Bound" {
            return Err(RefError::Claim(format!("persistentvolumeclaim \"{name}\" is not bound yet")));
        }
        let volume = self.object(resource::VOLUMES, "persistentvolume", "", volume).await?;
        let spec = &volume["spec"];
        if let Some(path) = spec["hostPath"]["path"].as_str() {
            return Ok((
                path.into(),
                spec["hostPath"]["type"].as_str().unwrap_or("DirectoryOrCreate") == "DirectoryOrCreate",
            ));
        }
        if let Some(path) = spec["local"]["path"].as_str() {
            return Ok((path.into(), false));
        }
        Err(RefError::Claim(format!(
            "persistentvolume of claim \"{name}\" is neither hostPath nor local: not supported here"
        )))
    }

    /// A token of a ServiceAccount, bound to a pod.
    ///
    /// # Errors
    /// The API server refused or did not answer.
    pub async fn token(
        &self,
        namespace: &str,
        account: &str,
        audience: &str,
        expiration_s: i64,
        pod: (&str, &str),
    ) -> Result<Token, RefError> {
        let audiences = if audience.is_empty() { json!([]) } else { json!([audience]) };
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": expiration_s,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.0, "uid": pod.1},
            },
        });
        let issued = clock::now();
        let at = Some((account, "token"));
        let answer = self.api.create(resource::SERVICE_ACCOUNTS, namespace, at, Bytes::from(body.to_string())).await;
        let fail =
            |error| RefError::Api { kind: "token of serviceaccount", name: format!("{namespace}/{account}"), error };
        let value: Value = serde_json::from_slice(&answer.map_err(fail)?)
            .map_err(|error| fail(ApiError::unreachable(format!("no JSON: {error}"))))?;
        let token = value["status"]["token"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            return Err(fail(ApiError::unreachable("the answer has no token")));
        }
        let expires = value["status"]["expirationTimestamp"].as_str().and_then(clock::parse);
        Ok(Token { token, issued, expires: expires.unwrap_or(issued.plus_ms(expiration_s * 1000)) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookup for Refs {
    fn data<'a>(
        &'a self,
        kind: &'static str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Data, RefError>> {
        Box::pin(self.fetch(kind, namespace, name))
    }
}

/// `data` (text in a ConfigMap, base64 in a Secret) and `binaryData`.
fn data_of(object: &Value) -> BTreeMap<String, Vec<u8>> {
    let secret = object["kind"] == "Secret";
    let entries = |field: &str| object[field].as_object().into_iter().flatten();
    let mut out = BTreeMap::new();
    for (key, value) in entries("data") {
        let text = value.as_str().unwrap_or_default();
        let bytes = if secret { STANDARD.decode(text).unwrap_or_default() } else { text.as_bytes().to_vec() };
        out.insert(key.clone(), bytes);
    }
    for (key, value) in entries("binaryData") {
        out.insert(key.clone(), STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_text_and_binary() {
        let map = json!({"kind": "ConfigMap", "data": {"a": "eA=="}, "binaryData": {"b": "eA=="}});
        assert_eq!(data_of(&map), BTreeMap::from([("a".into(), b"eA==".to_vec()), ("b".into(), b"x".to_vec())]));
        assert_eq!(data_of(&json!({"kind": "Secret", "data": {"a": "eA=="}}))["a"], b"x");
    }

    #[test]
    fn tokens_are_renewed_at_four_fifths_of_their_life() {
        let issued = Timestamp::from_secs(0);
        let token = Token { token: String::new(), issued, expires: Timestamp::from_secs(1000) };
        assert!(!token.is_old(Timestamp::from_secs(799)));
        assert!(token.is_old(Timestamp::from_secs(800)));
    }
}

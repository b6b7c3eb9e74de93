//! Getting a container's image here, by its pull policy.

use super::ImageName;
use crate::backoff::Backoff;
use crate::clock;
use crate::runtime::Runtime;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cri::{AuthConfig, Image};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Why an image is not here; `reason` is what a container's `waiting.reason` says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct PullProblem {
    /// `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName` or `ImageInspectError`.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

/// What getting an image came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// The image as the runtime knows it.
    pub image: Image,
    /// How long the pull took; `None` when it was here already.
    pub took: Option<Duration>,
}

/// Pulls images, a few at a time, and waits after failures.
#[derive(Clone, Debug)]
pub struct Puller {
    runtime: Runtime,
    backoff: Arc<Mutex<Backoff>>,
    /// What went wrong last, by the same key: the reason for waiting names it.
    causes: Arc<Mutex<BTreeMap<String, String>>>,
    slots: Arc<Semaphore>,
}

/// More at once only share the same line.
const PULLS_AT_ONCE: usize = 4;

impl Puller {
    pub fn new(runtime: Runtime) -> Self {
        Puller {
            runtime,
            backoff: Arc::default(),
            causes: Arc::default(),
            slots: Arc::new(Semaphore::new(PULLS_AT_ONCE)),
        }
    }

    /// Whether `ensure` would ask a registry: worth an event beforehand.
    pub async fn would_pull(&self, pod: &str, image: &str, policy: &str) -> bool {
        let Ok(name) = ImageName::parse(image) else { return false };
        let policy = effective_policy(policy, &name);
        let waiting = self.is_waiting(&key(pod, image));
        policy == "Always" && !waiting
            || policy == "IfNotPresent" && !waiting && matches!(self.runtime.image_status(image).await, Ok(None))
    }

    /// Makes sure that `image` is here. `pod` is its uid; `policy` is empty when it does not say. `auths` are tried in turn.
    ///
    /// # Errors
    /// The image is not here; the pod's worker tries again, and is told to wait longer each time.
    pub async fn ensure(
        &self,
        pod: &str,
        image: &str,
        policy: &str,
        auths: &[AuthConfig],
    ) -> Result<Pulled, PullProblem> {
        let name = ImageName::parse(image).map_err(|error| PullProblem {
            reason: "InvalidImageName",
            message: format!("Failed to apply default image tag \"{image}\": {error}"),
        })?;
        let inspect = |error: crate::runtime::RuntimeError| PullProblem {
            reason: "ImageInspectError",
            message: format!("Failed to inspect image \"{image}\": {error}"),
        };
        let present = self.runtime.image_status(image).await.map_err(inspect)?;
        match (effective_policy(policy, &name), present) {
            ("Never", None) => Err(PullProblem {
                reason: "ErrImageNeverPull",
                message: format!("Container image \"{image}\" is not present with pull policy of Never"),
            }),
            ("Never" | "IfNotPresent", Some(image)) => Ok(Pulled { image, took: None }),
            _ => self.pull(pod, image, auths).await,
        }
    }

    async fn pull(&self, pod: &str, image: &str, auths: &[AuthConfig]) -> Result<Pulled, PullProblem> {
        if self.is_waiting(&key(pod, image)) {
            return Err(PullProblem {
                reason: "ImagePullBackOff",
                message: match self.causes().get(&key(pod, image)) {
                    Some(cause) => format!("Back-off pulling image \"{image}\": ErrImagePull: {cause}"),
                    None => format!("Back-off pulling image \"{image}\""),
                },
            });
        }
        let begun = tokio::time::Instant::now();
        let _slot = self.slots.acquire().await;
        let mut last = None;
        for auth in auths.iter().cloned().map(Some).chain(auths.is_empty().then_some(None)) {
            match self.runtime.pull_image(image, auth, None).await {
                Ok(id) => {
                    self.lock().forget(&key(pod, image));
                    self.causes().remove(&key(pod, image));
                    let known = self.runtime.image_status(&id).await.ok().flatten();
                    let image = known.unwrap_or(Image { id, ..Image::default() });
                    return Ok(Pulled { image, took: Some(begun.elapsed()) });
                }
                Err(error) => last = Some(error),
            }
        }
        let now = clock::now();
        let mut backoff = self.lock();
        backoff.collect(now);
        backoff.tried_again(&key(pod, image), now, now);
        self.causes().retain(|key, _| backoff.failed_at(key).is_some());
        drop(backoff);
        let message = last.map_or_else(String::new, |error| error.message);
        self.causes().insert(key(pod, image), message.clone());
        Err(PullProblem { reason: "ErrImagePull", message })
    }

    fn causes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.causes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether a pull failed so lately that the next one has to wait.
    fn is_waiting(&self, key: &str) -> bool {
        let backoff = self.lock();
        backoff.failed_at(key).is_some_and(|failed| backoff.until(key, failed, clock::now()).is_some())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Every pod waits for itself: another may have better credentials.
fn key(pod: &str, image: &str) -> String {
    format!("{pod}_{image}")
}

fn effective_policy<'a>(policy: &'a str, name: &ImageName) -> &'a str {
    match policy {
        "" if name.defaults_to_always() => "Always",
        "" => "IfNotPresent",
        given => given,
    }
}

/// Credentials for `image` out of one pull Secret (`kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`).
pub fn registry_auth(secret: &Value, image: &str) -> Vec<AuthConfig> {
    let Ok(name) = ImageName::parse(image) else { return Vec::new() };
    let decode = |key: &str| -> Option<Value> {
        let bytes = STANDARD.decode(secret["data"][key].as_str()?).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let auths = match (decode(".dockerconfigjson"), decode(".dockercfg")) {
        (Some(mut config), _) => config["auths"].take(),
        (None, Some(config)) => config,
        (None, None) => return Vec::new(),
    };
    let path = format!("{}/{}", name.registry, name.repository);
    let mut found: Vec<(&String, &Value)> =
        auths.as_object().into_iter().flatten().filter(|(server, _)| covers(server, &path)).collect();
    // The most exact entry first: a registry may have credentials of its own for one repository.
    found.sort_by_key(|(server, _)| std::cmp::Reverse(server.len()));
    found.into_iter().map(|(_, entry)| auth_of(entry)).collect()
}

fn covers(server: &str, path: &str) -> bool {
    let server = server.trim_start_matches("https://").trim_start_matches("http://");
    let server = server.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2").trim_end_matches('/');
    let server = if server == "index.docker.io" { "docker.io" } else { server };
    let (host, rest) = server.split_once('/').unwrap_or((server, ""));
    let (image_host, image_path) = path.split_once('/').unwrap_or((path, ""));
    let host_matches = match host.strip_prefix("*.") {
        Some(suffix) => image_host.split_once('.').is_some_and(|(_, domain)| domain == suffix),
        None => host == image_host,
    };
    host_matches && (rest.is_empty() || image_path == rest || image_path.starts_with(&format!("{rest}/")))
}

fn auth_of(entry: &Value) -> AuthConfig {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    if username.is_empty()
        && let Ok(bytes) = STANDARD.decode(text("auth"))
        && let Ok(pair) = String::from_utf8(bytes)
        && let Some((user, secret)) = pair.split_once(':')
    {
        username = user.to_owned();
        password = secret.trim_end_matches('\0').to_owned();
    }
    // No server address: the runtime would want a URL there, and the entry was matched to the image already.
    AuthConfig { username, password, ..AuthConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(auths: &Value) -> Value {
        json!({"data": {".dockerconfigjson": STANDARD.encode(json!({"auths": auths}).to_string())}})
    }

    #[test]
    fn the_most_exact_credentials_come_first() {
        let secret = secret(&json!({
            "ghcr.io": {"username": "all", "password": "p"},
            "ghcr.io/team": {"auth": STANDARD.encode("team:secret:with:colons")},
            "ghcr.io/te": {"username": "no", "password": "p"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
        }));
        let users = |image: &str| -> Vec<String> {
            registry_auth(&secret, image).into_iter().map(|auth| auth.username).collect()
        };
        assert_eq!(users("ghcr.io/team/app:1"), ["team", "all"]);
        assert_eq!(users("ghcr.io/other/app:1"), ["all"]);
        assert_eq!(users("nginx"), ["hub"]);
        assert!(users("quay.io/x/y").is_empty());
        assert_eq!(registry_auth(&secret, "ghcr.io/team/app")[0].password, "secret:with:colons");
    }

    #[test]
    fn wildcards_stand_for_one_label() {
        assert!(covers("*.example.com", "a.example.com/x"));
        assert!(!covers("*.example.com", "a.b.example.com/x"));
        assert!(!covers("*.example.com", "example.com/x"));
    }

    #[test]
    fn a_pull_policy_follows_the_tag_when_the_pod_does_not_say() {
        let policy = |given: &'static str, image: &str| effective_policy(given, &ImageName::parse(image).unwrap());
        assert_eq!(policy("", "nginx"), "Always");
        assert_eq!(policy("", "nginx:1"), "IfNotPresent");
        assert_eq!(policy("Never", "nginx"), "Never");
    }
}

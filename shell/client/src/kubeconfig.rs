use crate::tls::{TlsError, client_tls};
use base64::Engine;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A kubeconfig that cannot be used. The file is at fault; no retry helps.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// It is no kubeconfig.
    #[error("{path}: {error}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Place and reason.
        error: serde_yaml_ng::Error,
    },
    /// It names something that is not in it, or holds something unusable.
    #[error("{path}: {what}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Its key material cannot be used.
    #[error("{path}: {error}")]
    Tls {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: TlsError,
    },
}

/// Where an API server is and how to sign in.
#[derive(Clone)]
pub struct Endpoint {
    /// `host:port`, as dialled.
    pub authority: String,
    /// The name that its certificate is checked against.
    pub server_name: String,
    /// Client side of TLS, with the client's certificate if there is one.
    pub tls: std::sync::Arc<rustls::ClientConfig>,
    /// Bearer token.
    pub token: Option<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "current-context", default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<Named<ClusterEntry>>,
    #[serde(default)]
    contexts: Vec<Named<ContextEntry>>,
    #[serde(default)]
    users: Vec<Named<UserEntry>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "context", alias = "user")]
    value: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Deserialize)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct UserEntry {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

impl Endpoint {
    /// Reads the current context of a kubeconfig (certificates, keys and tokens by file or inline; exec plugins are not run).
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn from_kubeconfig(path: &Path) -> Result<Endpoint, ConfigError> {
        let content = |what: String| ConfigError::Content { path: path.into(), what };
        let text = std::fs::read(path).map_err(|error| ConfigError::Read { path: path.into(), error })?;
        let file: File =
            serde_yaml_ng::from_slice(&text).map_err(|error| ConfigError::Parse { path: path.into(), error })?;
        let context = find(&file.contexts, &file.current_context)
            .ok_or_else(|| content(format!("there is no context {:?} (current-context)", file.current_context)))?;
        let cluster = find(&file.clusters, &context.cluster)
            .ok_or_else(|| content(format!("there is no cluster {:?}", context.cluster)))?;
        let nobody = UserEntry::default();
        let user = find(&file.users, &context.user).unwrap_or(&nobody);
        let material = |data: &Option<String>, file: &Option<PathBuf>| material(path, data.as_deref(), file.as_deref());
        let ca = material(&cluster.certificate_authority_data, &cluster.certificate_authority)?;
        let chain = material(&user.client_certificate_data, &user.client_certificate)?;
        let key = material(&user.client_key_data, &user.client_key)?;
        let identity = chain.as_deref().zip(key.as_deref());
        if ca.is_none() && !cluster.insecure_skip_tls_verify {
            return Err(content("the cluster has no certificate-authority".into()));
        }
        let trusted = ca.as_deref().filter(|_| !cluster.insecure_skip_tls_verify);
        let tls = client_tls(trusted, identity, &[]).map_err(|error| ConfigError::Tls { path: path.into(), error })?;
        let (authority, host) = authority(&cluster.server)
            .ok_or_else(|| content(format!("server {:?} is not of the form https://HOST[:PORT]", cluster.server)))?;
        let server_name = cluster.tls_server_name.clone().unwrap_or(host);
        let from_file = user.token_file.as_deref().map(|file| read(path, file)).transpose()?;
        let from_file = from_file.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        Ok(Endpoint { authority, server_name, tls: tls.into(), token: user.token.clone().or(from_file) })
    }
}

fn find<'a, T>(entries: &'a [Named<T>], name: &str) -> Option<&'a T> {
    entries.iter().find(|entry| entry.name == name).map(|entry| &entry.value)
}

fn read(kubeconfig: &Path, file: &Path) -> Result<Vec<u8>, ConfigError> {
    // Relative paths in a kubeconfig are relative to it.
    let path = kubeconfig.parent().unwrap_or(Path::new(".")).join(file);
    std::fs::read(&path).map_err(|error| ConfigError::Read { path, error })
}

fn material(kubeconfig: &Path, data: Option<&str>, file: Option<&Path>) -> Result<Option<Vec<u8>>, ConfigError> {
    match (data, file) {
        (Some(data), _) => base64::engine::general_purpose::STANDARD
            .decode(data.trim())
            .map(Some)
            .map_err(|error| ConfigError::Content { path: kubeconfig.into(), what: format!("inline data: {error}") }),
        (None, Some(file)) => read(kubeconfig, file).map(Some),
        (None, None) => Ok(None),
    }
}

/// `https://host:port/` -> (`host:port`, `host`).
fn authority(server: &str) -> Option<(String, String)> {
    let rest = server.strip_prefix("https://")?.trim_end_matches('/');
    let uri: http::uri::Authority = rest.parse().ok()?;
    let host = uri.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(443);
    Some((format!("{}:{port}", uri.host()), host))
}

#[cfg(test)]
mod tests {
    use super::authority;

    #[test]
    fn servers() {
        for (server, expect) in [
            ("https://127.0.0.1:6443", Some(("127.0.0.1:6443", "127.0.0.1"))),
            ("https://kube.example/", Some(("kube.example:443", "kube.example"))),
            ("https://[::1]:6443", Some(("[::1]:6443", "::1"))),
            ("http://plain", None),
        ] {
            assert_eq!(authority(server), expect.map(|(a, b)| (a.to_owned(), b.to_owned())), "{server}");
        }
    }
}

//! A server of its own for each test: a free port, a directory of its own, gone when dropped.

#![allow(dead_code, reason = "each test file uses a part")]

use bytes::Bytes;
use client::{Endpoint, HttpsApi};
use diolkos_server::{Config, Extension, Server};
use http::Method;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running server.
pub struct Running {
    /// Its data.
    pub dir: PathBuf,
    /// The administrator's client.
    pub admin: HttpsApi,
    /// The in-process client.
    pub local: Arc<dyn client::ObjectApi>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

/// Starts one in a new directory.
pub async fn start(name: &str) -> Running {
    start_with(name, Vec::new()).await
}

/// The same with extensions.
pub async fn start_with(name: &str, extensions: Vec<Arc<dyn Extension>>) -> Running {
    let dir = std::env::temp_dir().join(format!("diolkos-server-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    open(dir, extensions).await
}

/// Starts one on what is in `dir`.
pub async fn open(dir: PathBuf, extensions: Vec<Arc<dyn Extension>>) -> Running {
    let config =
        Config { listen: ([127, 0, 0, 1], 0).into(), dashboard: None, node_name: "n1".to_owned(), ..Config::new(&dir) };
    let server = Server::start(config, extensions).await.expect("a server starts in an empty directory");
    let local = server.in_process();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async {
        let _ = stopped.await;
    }));
    let admin = HttpsApi::from_kubeconfig(&dir.join("admin.kubeconfig")).expect("the kubeconfig that it wrote");
    Running { dir, admin, local, stop: Some(stop), serving: Some(serving) }
}

impl Running {
    /// Stops it and leaves its directory.
    pub async fn stop(mut self) -> PathBuf {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            serving.await.expect("serving ends well");
        }
        std::mem::take(&mut self.dir)
    }

    /// Path of a kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// A client with a token instead of a certificate.
    pub fn with_token(&self, token: &str) -> HttpsApi {
        let admin = self.admin.endpoint();
        let ca = std::fs::read(self.dir.join("pki/ca.crt")).expect("the CA is there");
        let tls = client::client_tls(Some(&ca), None, &[b"h2"]).expect("the CA is usable");
        HttpsApi::new(Endpoint {
            authority: admin.authority.clone(),
            server_name: admin.server_name.clone(),
            tls: Arc::new(tls),
            token: Some(token.to_owned()),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.dir != Path::new("") {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// One call with a JSON body; gives code and decoded answer.
pub async fn call(api: &HttpsApi, method: Method, path: &str, body: Value) -> (u16, Value) {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let answer = api.call(method, path, kind, body).await.expect("an answer comes");
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

/// A GET that must succeed.
pub async fn get(api: &HttpsApi, path: &str) -> Value {
    let (code, value) = call(api, Method::GET, path, Value::Null).await;
    assert_eq!(code, 200, "{path}: {value}");
    value
}

/// A POST that must succeed.
pub async fn post(api: &HttpsApi, path: &str, body: Value) -> Value {
    let (code, value) = call(api, Method::POST, path, body).await;
    assert!((200..300).contains(&code), "{path}: {value}");
    value
}

//! A control plane alone: no node, no containers, no root.

use crate::shell::Check;
use client::{HttpsApi, ListOptions, ObjectApi, Resource};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NAMESPACES: Resource = Resource { group: "", version: "v1", plural: "namespaces" };

/// `diolkos server` without the rest of the platform; killed when dropped.
pub struct Server {
    process: Child,
    dir: PathBuf,
}

impl Server {
    /// Starts it on a data directory, its API on `port` of loopback; the dashboard takes the next port, the mesh control the one after.
    pub fn start(binary: &Path, dir: &Path, port: u16) -> Check<Server> {
        Self::start_with(binary, dir, port, &[])
    }

    /// The same with more settings.
    pub fn start_with(binary: &Path, dir: &Path, port: u16, more: &[String]) -> Check<Server> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("server.log"));
        let log = log.map_err(|error| error.to_string())?;
        let process = Command::new(binary)
            .arg("server")
            .arg(format!("--data-dir={}", dir.display()))
            .arg(format!("--run-dir={}", dir.join("run").display()))
            .arg(format!("--api-listen=127.0.0.1:{port}"))
            .arg(format!("--dashboard-listen=127.0.0.1:{}", port + 1))
            .arg(format!("--mesh-listen={}:{}", if more.is_empty() { "127.0.0.1" } else { "0.0.0.0" }, port + 2))
            .args(["--node-name=alone", "--node-ip=127.0.0.1"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        Ok(Server { process, dir: dir.to_path_buf() })
    }

    /// A client with the administrator's certificate.
    pub fn api(&self) -> Check<HttpsApi> {
        HttpsApi::from_kubeconfig(&self.dir.join("admin.kubeconfig")).map_err(|error| error.to_string())
    }

    /// Waits until it answers a list.
    pub async fn ready(&mut self) -> Check<HttpsApi> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(api) = self.api()
                && api.list(NAMESPACES, ListOptions::default()).await.is_ok()
            {
                return Ok(api);
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                let log = std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
                return Err(format!("the server ended with {status}:\n{}", &log[log.len().saturating_sub(2000)..]));
            }
            if Instant::now() > deadline {
                return Err("the server did not come up within 30 s".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

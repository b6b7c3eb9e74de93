//! The node agent, and the containerd that belongs to it.

use super::{Stop, failed, path, runtime, stop_signal};
use crate::cli::CommandError;
use crate::config::Config;
use crate::notify;
use client::{HttpsApi, ObjectApi};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// The node agent's part of the settings.
pub fn config(config: &Config) -> node::Config {
    let pki = config.data_dir.join("pki");
    let tls =
        node::TlsFiles { certificate: pki.join("node.crt"), key: pki.join("node.key"), client_ca: pki.join("ca.crt") };
    node::Config {
        pod_cidr: config.pod_cidr.to_string(),
        cluster_cidr: config.pod_cidr.to_string(),
        cluster_dns: vec![config.cluster_dns().into()],
        cluster_domain: config.cluster_domain.clone(),
        port: config.node_listen.port(),
        tls: Some(tls),
        labels: config.node_labels.clone().unwrap_or_default(),
        taints: config.node_taints.clone(),
        proxy_socket: Some(config.run_dir.join("proxy.sock")),
        workload_api: Some(config.workload_api_dir()),
        proxy_admin: Config::dial(config.proxy_admin).to_string(),
        api_service: (config.kubernetes_vip().to_string(), 443),
        ..node::Config::new(&config.node_name, config.node_ip, &config.data_dir, &config.run_dir)
    }
}

/// What this machine lacks, each as a line that says how to install it.
pub fn missing(_config: &Config) -> Vec<String> {
    let missing = node::preflight::missing(&path());
    let mut lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
    if !nix::unistd::geteuid().is_root() {
        lines.push("containers, network namespaces and nftables need root: run it with sudo".into());
    }
    if !missing.is_empty() {
        lines.push(format!("all at once: {}", node::preflight::install_command(&missing)));
    }
    lines
}

/// How the node's containerd is started.
pub fn containerd(config: &Config) -> Result<Command, CommandError> {
    node::containerd::containerd_command(&self::config(config), &path()).map_err(failed)
}

/// Whether it answers.
pub async fn containerd_answers(config: &Config) -> bool {
    node::containerd::wait_ready(&self::config(config), Duration::ZERO).await.is_ok()
}

/// Runs the node agent.
pub fn run(config: Config) -> Result<(), CommandError> {
    runtime(2)?.block_on(async {
        let api = HttpsApi::from_kubeconfig(&config.node_kubeconfig()).map_err(failed)?;
        let api: Arc<dyn ObjectApi> = Arc::new(api);
        let stop = stop_signal()?;
        let (told, how) = tokio::sync::oneshot::channel();
        let shutdown = async move {
            let _ = told.send(stop.await);
        };
        let agent = self::config(&config);
        let ready = announce(api.clone(), config.node_name.clone());
        let announcing = tokio::spawn(ready);
        node::run(agent.clone(), api, &path(), shutdown).await.map_err(failed)?;
        announcing.abort();
        if how.await == Ok(Stop::Everything) {
            node::stop_pods(&agent).await.map_err(failed)?;
        }
        Ok(())
    })
}

/// Says that the node is ready once the API server knows it to be.
async fn announce(api: Arc<dyn ObjectApi>, name: String) {
    let nodes = client::Resource { group: "", version: "v1", plural: "nodes" };
    loop {
        if let Ok(bytes) = api.get(nodes, "", &name).await
            && is_ready(&bytes)
        {
            return notify::ready();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_ready(node: &[u8]) -> bool {
    let node: serde_json::Value = serde_json::from_slice(node).unwrap_or_default();
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

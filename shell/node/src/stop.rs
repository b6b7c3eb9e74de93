//! Stopping every pod of the node, when the whole platform stops and nobody will be there to serve their traffic.

use crate::Config;
use crate::runtime::{Runtime, RuntimeError};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// Containers that do not end on SIGTERM get this long: whoever pressed Ctrl-C waits for them.
const GRACE: Duration = Duration::from_secs(10);

/// Stops all containers, side by side, then the sandboxes. The objects in the API stay as they are, so the next start runs them again.
///
/// # Errors
/// The runtime does not answer. A container that will not stop is logged and left to the runtime.
pub async fn stop_pods(config: &Config) -> Result<(), RuntimeError> {
    let runtime = Runtime::connect(&config.containerd_socket());
    let mut stopping = JoinSet::new();
    for container in runtime.list_containers(BTreeMap::new()).await? {
        let runtime = runtime.clone();
        stopping.spawn(async move { (container.id.clone(), runtime.stop_container(&container.id, GRACE).await) });
    }
    report(stopping).await;
    let mut stopping = JoinSet::new();
    for sandbox in runtime.list_sandboxes(BTreeMap::new()).await? {
        let runtime = runtime.clone();
        stopping.spawn(async move { (sandbox.id.clone(), runtime.stop_sandbox(&sandbox.id).await) });
    }
    report(stopping).await;
    // Secrets lie in memory file systems: they go with the pods, and come back with them.
    if let Err(error) = crate::volume::unmount(&config.pod_dir("")) {
        tracing::warn!(%error, "volumes of pods stay mounted");
    }
    Ok(())
}

/// Stops all pods and removes them from the runtime, with their networks.
///
/// # Errors
/// The runtime does not answer.
pub async fn remove_pods(config: &Config) -> Result<(), RuntimeError> {
    stop_pods(config).await?;
    let runtime = Runtime::connect(&config.containerd_socket());
    let mut removing = JoinSet::new();
    for sandbox in runtime.list_sandboxes(BTreeMap::new()).await? {
        let runtime = runtime.clone();
        removing.spawn(async move { (sandbox.id.clone(), runtime.remove_sandbox(&sandbox.id).await) });
    }
    report(removing).await;
    Ok(())
}

async fn report(mut stopping: JoinSet<(String, Result<(), RuntimeError>)>) {
    while let Some(done) = stopping.join_next().await {
        match done {
            Ok((id, Err(error))) if !error.is_not_found() => tracing::warn!(%id, %error, "did not stop"),
            Err(error) => tracing::error!(%error, "stopping a container failed"),
            Ok(_) => {}
        }
    }
}

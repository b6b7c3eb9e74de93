//! `diolkos join`: the joined host's proxy as a process of its own. It is started again when it dies, and another one can take over from it.

use super::child::{Child, Role};
use super::{keep_alive, replace};
use crate::cli::CommandError;
use crate::config::Config;
use crate::notify;
use crate::role::failed;
use crate::role::join::Kept;
use crate::role::proxy::Supervisor;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Has what was kept of joining served, and stays until it is told to stop. To be called on the main thread: the proxy ends with it.
pub fn host(config: &Config, kept: &Kept) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(run(config, kept))
}

async fn run(config: &Config, kept: &Kept) -> Result<(), CommandError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut upgrade = signal(SignalKind::hangup()).map_err(failed)?;
    let mut children = [Child::spawn(config, Role::Host)?];
    let own = Supervisor::join(config);
    let started = tokio::select! {
        ready = children[0].ready(config) => ready.map(|()| true),
        _ = interrupt.recv() => Ok(false),
        _ = terminate.recv() => Ok(false),
    };
    let mut result = started.as_ref().map(|_| ()).map_err(|error| CommandError::Role(error.to_string()));
    if let Ok(true) = started {
        std::fs::write(&own.pid_file, std::process::id().to_string()).map_err(failed)?;
        let (service, namespace, port) = (&kept.service, &kept.namespace, kept.port);
        println!("Ready: calls of {service}.{namespace} come to 127.0.0.1:{port}. Ctrl-C leaves the mesh.");
        notify::ready();
        loop {
            tokio::select! {
                error = keep_alive(&mut children) => {
                    result = Err(error);
                    break;
                }
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = upgrade.recv() => replace(&own, &mut children, Role::Host).await,
            }
        }
        let _ = std::fs::remove_file(&own.pid_file);
    }
    children[0].stop(config, false, proxy::shared::STOP_PATIENCE + Duration::from_secs(5)).await;
    result
}

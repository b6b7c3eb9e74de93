//! The node's proxy.

use super::failed;
use crate::cli::CommandError;
use crate::config::Config;
use crate::notify;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxy::plane::PlaneIssuer;
use proxy::{Callers, Control, ControlPlane, Proxy, WorkloadApi};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs the proxy until it is told to stop.
pub fn run(config: Config) -> Result<(), CommandError> {
    let pki = config.data_dir.join("pki");
    let plane = ControlPlane {
        address: Config::dial(config.mesh_listen).to_string(),
        server_name: "localhost".into(),
        ca: pki.join("ca.crt"),
        certificate: pki.join("node.crt"),
        key: pki.join("node.key"),
    };
    let settings = proxy::Config {
        node_name: config.node_name.clone(),
        workers: config.proxy_workers,
        attach_socket: Some(config.run_dir.join("proxy.sock")),
        handover_socket: Some(config.run_dir.join("proxy-handover.sock")),
        workload_api: Some(WorkloadApi {
            socket: config.workload_api_dir().join(WORKLOAD_API_SOCKET),
            callers: Callers::Pods,
        }),
        admin: Some(config.proxy_admin),
        control: Control::Plane(plane.clone()),
        snapshot: Some(config.data_dir.join("proxy.snapshot")),
        trust_domain: config.cluster_domain.clone(),
        cluster_domain: config.cluster_domain.clone(),
        dns_vips: vec![config.cluster_dns().into()],
        access_log: config.access(),
        tracing: config.tracing(),
        ..proxy::Config::default()
    };
    serve(settings, plane, Duration::from_secs(config.proxy_drain_s))
}

/// Name of the Workload API's socket in its directory.
pub const WORKLOAD_API_SOCKET: &str = "api.sock";
/// How long a successor may take to get ready.
const READY_PATIENCE: Duration = Duration::from_secs(45);

/// Starts the proxy, as the successor of one that runs if there is one, lets it follow the control plane, and stops it in order: on a signal, or
/// when a successor serves.
fn serve(settings: proxy::Config, plane: ControlPlane, drain: Duration) -> Result<(), CommandError> {
    // Fails only when one is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let issuer = Arc::new(PlaneIssuer::new(plane.clone()));
    let taken = settings.handover_socket.as_deref().map(proxy::handover::take).transpose().map_err(failed)?;
    let proxy = match taken.flatten() {
        None => {
            let proxy = Proxy::start(settings, issuer).map_err(failed)?;
            proxy.runtime().spawn(proxy::plane::follow(proxy.shared.clone(), plane));
            proxy
        }
        Some(taken) => {
            let successor = Proxy::succeed(settings, issuer, taken).map_err(failed)?;
            let shared = successor.proxy.shared.clone();
            successor.proxy.runtime().spawn(proxy::plane::follow(shared, plane));
            successor.begin(READY_PATIENCE).map_err(failed)?
        }
    };
    let stop = {
        let _entered = proxy.runtime().enter();
        super::stop_signal()?
    };
    notify::ready();
    proxy.runtime().block_on(async {
        tokio::pin!(stop);
        tokio::select! {
            _ = &mut stop => return,
            () = proxy.succeeded() => {}
        }
        tokio::select! {
            _ = stop => {}
            () = proxy.leave(drain) => {}
        }
    });
    proxy.stop();
    Ok(())
}

/// A running `diolkos up`, and how its proxy was last replaced.
pub fn supervisor_file(config: &Config) -> PathBuf {
    config.run_dir.join("up.pid")
}

/// What the supervisor writes when it has tried.
pub fn outcome_file(config: &Config) -> PathBuf {
    config.run_dir.join("proxy-upgrade")
}

/// Asks the running `diolkos up` to put a proxy of the binary that is on disk now in the place of the one that runs, and waits for the outcome.
pub fn upgrade(config: &Config) -> Result<(), CommandError> {
    let file = supervisor_file(config);
    let pid = std::fs::read_to_string(&file).map_err(|error| {
        failed(format!("{}: {error}; is `diolkos up` running with this --run-dir?", file.display()))
    })?;
    let pid: i32 = pid.trim().parse().map_err(|_| failed(format!("{} holds no process id", file.display())))?;
    let outcome = outcome_file(config);
    match std::fs::remove_file(&outcome) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    kill(Pid::from_raw(pid), Signal::SIGHUP).map_err(|error| failed(format!("`diolkos up` ({pid}): {error}")))?;
    let begun = Instant::now();
    while begun.elapsed() < UPGRADE_PATIENCE {
        match std::fs::read_to_string(&outcome) {
            Ok(text) if text.trim() == "ok" => {
                println!("a new proxy serves; the one before finishes what it has");
                return Ok(());
            }
            Ok(why) if !why.is_empty() => return Err(failed(format!("{}; the proxy that ran serves on", why.trim()))),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    Err(failed("`diolkos up` did not say how it went"))
}

/// Longer than a successor may take.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(75);

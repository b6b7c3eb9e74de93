//! The node's proxy.

use super::failed;
use crate::cli::CommandError;
use crate::config::Config;
use crate::notify;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxy::host::HostWorkload;
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
        polling: Duration::from_micros(config.proxy_poll_us),
        ..proxy::Config::default()
    };
    serve(settings, plane, Duration::from_secs(config.proxy_drain_s), None)
}

/// Name of the Workload API's socket in its directory.
pub const WORKLOAD_API_SOCKET: &str = "api.sock";
/// How long a successor may take to get ready.
const READY_PATIENCE: Duration = Duration::from_secs(45);

/// A joined host, beside what every proxy is.
pub struct Host {
    pub workload: HostWorkload,
    /// The name by which it asks anew for the certificate that it talks to the control plane with.
    pub common_name: String,
}

/// Starts the proxy, as the successor of one that runs if there is one, lets it follow the control plane, and stops it in order: on a signal, or
/// when a successor serves.
pub fn serve(
    settings: proxy::Config,
    plane: ControlPlane,
    drain: Duration,
    host: Option<Host>,
) -> Result<(), CommandError> {
    // Fails only when one is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let issuer = Arc::new(PlaneIssuer::new(plane.clone()));
    let taken = settings.handover_socket.as_deref().map(proxy::handover::take).transpose().map_err(failed)?;
    let proxy = match taken.flatten() {
        None => {
            let proxy = Proxy::start(settings, issuer).map_err(failed)?;
            proxy.runtime().spawn(proxy::plane::follow(proxy.shared.clone(), plane.clone()));
            if let Some(host) = &host {
                proxy.attacher.attach_host(&host.workload).map_err(failed)?;
            }
            proxy
        }
        Some(taken) => {
            let successor = Proxy::succeed(settings, issuer, taken).map_err(failed)?;
            let shared = successor.proxy.shared.clone();
            successor.proxy.runtime().spawn(proxy::plane::follow(shared, plane.clone()));
            successor.begin(READY_PATIENCE).map_err(failed)?
        }
    };
    let stop = {
        let _entered = proxy.runtime().enter();
        super::stop_signal()?
    };
    if let Some(host) = &host {
        renew(&proxy, plane, host.common_name.clone());
    }
    notify::ready();
    let succeeded = proxy.runtime().block_on(async {
        tokio::pin!(stop);
        tokio::select! {
            _ = &mut stop => return false,
            () = proxy.succeeded() => {}
        }
        tokio::select! {
            _ = stop => {}
            () = proxy.leave(drain) => {}
        }
        true
    });
    // A machine whose connections a successor has is not let go of.
    let left = host.filter(|_| !succeeded).map(|host| proxy.attacher.detach_host(&host.workload));
    proxy.stop();
    left.transpose().map(drop).map_err(failed)
}

/// Keeps the certificate fresh until a successor does.
fn renew(proxy: &Proxy, plane: ControlPlane, common_name: String) {
    let shared = proxy.shared.clone();
    proxy.runtime().spawn(async move {
        tokio::select! {
            () = proxy::plane::renew(plane, common_name, shared.identities.clone()) => {}
            () = shared.stopped() => {}
        }
    });
}

/// A command whose proxy can be replaced.
#[derive(Debug)]
pub struct Supervisor {
    command: &'static str,
    /// Where it writes its process id.
    pub pid_file: PathBuf,
    /// Where it writes how its proxy was last replaced.
    pub outcome_file: PathBuf,
}

impl Supervisor {
    /// `diolkos up`.
    pub fn up(config: &Config) -> Self {
        let dir = &config.run_dir;
        Self { command: "up", pid_file: dir.join("up.pid"), outcome_file: dir.join("proxy-upgrade") }
    }

    /// `diolkos join`.
    pub fn join(config: &Config) -> Self {
        let dir = super::join::run_dir(config);
        Self { command: "join", pid_file: dir.join("join.pid"), outcome_file: dir.join("proxy-upgrade") }
    }

    /// Its process, if it runs.
    fn process(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(&self.pid_file).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?);
        kill(pid, None).ok().map(|()| pid)
    }

    fn upgrade(&self, process: Pid) -> Result<(), CommandError> {
        match std::fs::remove_file(&self.outcome_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let command = self.command;
        kill(process, Signal::SIGHUP).map_err(|error| failed(format!("`diolkos {command}` ({process}): {error}")))?;
        let begun = Instant::now();
        while begun.elapsed() < UPGRADE_PATIENCE {
            match std::fs::read_to_string(&self.outcome_file) {
                Ok(text) if text.trim() == "ok" => {
                    println!("a new proxy serves; the one before finishes what it has");
                    return Ok(());
                }
                Ok(why) if !why.is_empty() => {
                    return Err(failed(format!("{}; the proxy that ran serves on", why.trim())));
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        Err(failed(format!("`diolkos {command}` did not say how it went")))
    }
}

/// Asks the running `diolkos up` or `diolkos join` (or both) to put a proxy of the binary that is on disk now in the place of the one that runs,
/// and waits for the outcome.
pub fn upgrade(config: &Config) -> Result<(), CommandError> {
    let running = [Supervisor::up(config), Supervisor::join(config)];
    let mut running = running.iter().filter_map(|it| it.process().map(|pid| (it, pid))).peekable();
    if running.peek().is_none() {
        let dir = config.run_dir.display();
        return Err(failed(format!("neither `diolkos up` nor `diolkos join` runs with --run-dir {dir}")));
    }
    running.try_for_each(|(supervisor, process)| supervisor.upgrade(process))
}

/// Longer than a successor may take.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(75);

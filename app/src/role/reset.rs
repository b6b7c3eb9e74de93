//! `diolkos reset`: leaves the machine as it was before the first `up` on a data directory.

use super::{failed, path, runtime};
use crate::cli::CommandError;
use crate::config::Config;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONTAINERD_PATIENCE: Duration = Duration::from_secs(20);

/// Stops what still runs, unmounts, and removes both directories with everything in them.
pub fn run(config: &Config) -> Result<(), CommandError> {
    if in_use(&config.data_dir) {
        let dir = config.data_dir.display();
        return Err(CommandError::Usage(format!("{dir} is in use: stop `diolkos up` first (Ctrl-C)")));
    }
    if super::join::is_running(config) {
        return Err(CommandError::Usage("this host is joined: stop `diolkos join` first (Ctrl-C)".into()));
    }
    if config.data_dir.join("containerd").exists() && node::preflight::missing(&path()).is_empty() {
        // A platform that was killed leaves containers; only their own containerd knows them all.
        if let Err(error) = stop_leftovers(config) {
            eprintln!("containers may be left: {error}");
        }
    }
    remove_bridge(config);
    remove_gateway_addresses();
    for dir in [&config.run_dir, &config.data_dir] {
        unmount_below(dir)?;
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(format!("{}: {error}", dir.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

fn stop_leftovers(config: &Config) -> Result<(), CommandError> {
    fs::create_dir_all(&config.run_dir).map_err(failed)?;
    let mut containerd = super::node::containerd(config)?;
    containerd
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut process = containerd.spawn().map_err(failed)?;
    let agent = super::node::config(config);
    let outcome = runtime(1)?.block_on(async {
        node::containerd::wait_ready(&agent, CONTAINERD_PATIENCE).await.map_err(failed)?;
        node::remove_pods(&agent).await.map_err(failed)
    });
    let _ = process.kill();
    let _ = process.wait();
    outcome
}

/// The pods' bridge: one that is left keeps a route to addresses that a later platform gives to its own pods.
fn remove_bridge(config: &Config) {
    let agent = super::node::config(config);
    let Ok(range) = node::cni::PodCidr::parse(&agent.pod_cidr) else { return };
    let mut ip =
        std::process::Command::new(node::preflight::find_program("ip", &path()).unwrap_or_else(|| "ip".into()));
    // It fails when there is none, which is what is wanted.
    let _ = ip.args(["link", "delete", &agent.bridge_of(range)]).stderr(std::process::Stdio::null()).status();
}

/// The addresses of gateways, which are routes of the local table with a mark of our own.
fn remove_gateway_addresses() {
    let mut ip =
        std::process::Command::new(node::preflight::find_program("ip", &path()).unwrap_or_else(|| "ip".into()));
    let ip = ip.args(["route", "flush", "table", "local", "proto", proxy::ADDRESS_ROUTES]);
    let _ = ip.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
}

/// Whether a server has the store open: it holds a lock on it as long as it lives.
fn in_use(data_dir: &Path) -> bool {
    let lock = fs::File::open(data_dir.join("store/LOCK"));
    lock.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Unmounts what is mounted below a directory, innermost first.
fn unmount_below(dir: &Path) -> Result<(), CommandError> {
    let table = fs::read_to_string("/proc/self/mounts").map_err(failed)?;
    let mut below: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|escaped| PathBuf::from(escaped.replace("\\040", " ")))
        .filter(|mounted| mounted.starts_with(dir))
        .collect();
    below.sort();
    for mounted in below.iter().rev() {
        nix::mount::umount2(mounted, nix::mount::MntFlags::MNT_DETACH)
            .map_err(|error| failed(format!("{}: {error}", mounted.display())))?;
    }
    Ok(())
}

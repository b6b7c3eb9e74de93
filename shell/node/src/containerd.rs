//! The containerd that belongs to this node: its configuration, how it is started, and when it is ready.
//!
//! It has its own root, state and socket, so that a containerd already on the machine is left alone. The supervisor starts it as
//! a process of its own, so that containers outlive the agent; their shims outlive containerd too.

use crate::cni::{self, CidrError, PodCidr};
use crate::image::PAUSE_IMAGE;
use crate::runtime::{Runtime, RuntimeError};
use crate::{Config, preflight};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Why containerd could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Programs are missing; the text names them and the command that installs them.
    #[error("{}\ninstall with: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"), preflight::install_command(.0))]
    Missing(Vec<preflight::Missing>),
    /// A file could not be written.
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    /// The pod range is wrong.
    #[error(transparent)]
    Cidr(#[from] CidrError),
    /// containerd did not become ready in time.
    #[error("containerd at {socket} is not ready after {waited:?}: {last}")]
    NotReady { socket: PathBuf, waited: Duration, last: String },
}

/// What of the machine shapes the configuration.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The runc binary.
    pub runc: PathBuf,
    /// The directory of the CNI plugins.
    pub cni_dir: PathBuf,
    /// Whether `portmap` and the iptables that it calls are here.
    pub port_maps: bool,
    /// Whether this process may lower `oom_score_adj` (CAP_SYS_RESOURCE): inside a container it often may not, and then every
    /// container start would fail.
    pub may_lower_oom_score: bool,
    /// Whether overlayfs can lie on the data directory's filesystem (it cannot on another overlayfs).
    pub overlay: bool,
}

impl Machine {
    /// Looks at this machine. `path` is the caller's `PATH`.
    ///
    /// # Errors
    /// [`SetupError::Missing`] when a program is not here.
    pub fn inspect(config: &Config, path: &str) -> Result<Self, SetupError> {
        let missing = preflight::missing(path);
        let (Some(runc), Some(cni_dir), []) =
            (preflight::find_program("runc", path), preflight::cni_dir(), missing.as_slice())
        else {
            return Err(SetupError::Missing(missing));
        };
        let port_maps = cni_dir.join("portmap").is_file() && preflight::find_program("iptables", path).is_some();
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|error| SetupError::File { path: config.data_dir.clone(), error })?;
        let overlay = nix::sys::statfs::statfs(&config.data_dir)
            .map_or(true, |fs| fs.filesystem_type() != nix::sys::statfs::OVERLAYFS_SUPER_MAGIC);
        Ok(Machine { runc, cni_dir, port_maps, may_lower_oom_score: has_cap_sys_resource(), overlay })
    }
}

fn has_cap_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .is_some_and(|caps| caps & (1 << CAP_SYS_RESOURCE) != 0)
}

/// containerd's TOML. Version 2 of the format on purpose: 1.6 and 1.7 know no newer one, and 2.x migrates it itself.
pub fn config_toml(config: &Config, machine: &Machine) -> String {
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let containerd = config.data_dir.join("containerd");
    // Snapshotters that only warn at start, and NRI and tracing that nobody here talks to.
    format!(
        r#"version = 2
root = {root}
state = {state}
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[grpc]
  address = {socket}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = {restrict}
  # Loopback only, any free port: the agent asks the runtime for the URL of each stream.
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  max_container_log_line_size = 16384
  # As newer runtimes do for everybody: a process that is not root may listen on port 80 of its own pod.
  enable_unprivileged_ports = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = {runc}
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {cni_bin}
    conf_dir = {cni_conf}
    max_conf_num = 1
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {registries}

[plugins."io.containerd.internal.v1.opt"]
  path = {opt}
"#,
        root = quoted(&containerd.join("root")),
        state = quoted(&config.run_dir.join("containerd")),
        socket = quoted(&config.containerd_socket()),
        restrict = !machine.may_lower_oom_score,
        snapshotter = if machine.overlay { "overlayfs" } else { "native" },
        runc = quoted(&machine.runc),
        cni_bin = quoted(&machine.cni_dir),
        cni_conf = quoted(&containerd.join("cni")),
        registries = quoted(&containerd.join("registries")),
        opt = quoted(&containerd.join("opt")),
    )
}

/// Writes the configuration and returns the command that runs containerd with it; the supervisor starts it.
///
/// # Errors
/// A program is missing, the pod range is wrong, or a file could not be written.
pub fn containerd_command(config: &Config, path: &str) -> Result<Command, SetupError> {
    let machine = Machine::inspect(config, path)?;
    let base = config.data_dir.join("containerd");
    let cidr = PodCidr::parse(&config.pod_cidr)?;
    for dir in [config.run_dir.clone(), base.join("root"), base.join("cni"), base.join("registries")] {
        std::fs::create_dir_all(&dir).map_err(|error| SetupError::File { path: dir.clone(), error })?;
    }
    let toml = base.join("config.toml");
    write(&toml, &config_toml(config, &machine))?;
    write_network(config, &machine, cidr)?;
    let program = preflight::find_program("containerd", path).unwrap_or_else(|| PathBuf::from("containerd"));
    let mut command = Command::new(program);
    // Shims and CNI plugins are looked up in PATH; a service may have been started with a short one.
    command.arg("--config").arg(&toml).arg("--log-level").arg("warn").stdin(Stdio::null());
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    Ok(command)
}

/// Writes the CNI configuration for `cidr`. containerd reads it again when it changes.
///
/// # Errors
/// The file could not be written.
pub fn write_network(config: &Config, machine: &Machine, cidr: PodCidr) -> Result<(), SetupError> {
    let conflist = cni::conflist(cidr, &config.bridge_of(cidr), &config.data_dir.join("node"), machine.port_maps);
    write(&config.data_dir.join("containerd/cni/10-diolkos.conflist"), &format!("{conflist:#}\n"))
}

fn write(path: &Path, text: &str) -> Result<(), SetupError> {
    // An unchanged file is left alone: containerd watches the network configuration.
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|error| SetupError::File { path: path.to_owned(), error })
}

/// Waits until containerd answers and says that it can run containers. Its network may become ready later: that is a condition
/// of the Node, not of the process.
///
/// # Errors
/// [`SetupError::NotReady`] after `patience`, with the last answer.
pub async fn wait_ready(config: &Config, patience: Duration) -> Result<Runtime, SetupError> {
    let socket = config.containerd_socket();
    let runtime = Runtime::connect(&socket);
    let begun = tokio::time::Instant::now();
    loop {
        let last = match runtime.status().await {
            Ok(status) if status.conditions.iter().any(|c| c.r#type == "RuntimeReady" && c.status) => {
                return Ok(runtime);
            }
            Ok(status) => format!("{:?}", status.conditions),
            Err(RuntimeError { message, .. }) => message,
        };
        let waited = begun.elapsed();
        if waited > patience {
            return Err(SetupError::NotReady { socket, waited, last });
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            runc: "/usr/sbin/runc".into(),
            cni_dir: "/usr/lib/cni".into(),
            port_maps: true,
            may_lower_oom_score: false,
            overlay: true,
        }
    }

    #[test]
    fn the_configuration_is_toml_with_everything_of_its_own() {
        let config = Config::new("n", [127, 0, 0, 1].into(), Path::new("/data"), Path::new("/run/d"));
        let text = config_toml(&config, &machine());
        for line in [
            r#"root = "/data/containerd/root""#,
            r#"state = "/run/d/containerd""#,
            r#"address = "/run/d/containerd.sock""#,
            "restrict_oom_score_adj = true",
            r#"snapshotter = "overlayfs""#,
            r#"conf_dir = "/data/containerd/cni""#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        let native = config_toml(&config, &Machine { overlay: false, may_lower_oom_score: true, ..machine() });
        assert!(native.contains(r#"snapshotter = "native""#) && native.contains("restrict_oom_score_adj = false"));
    }
}

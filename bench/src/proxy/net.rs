//! Directories, namespaces, cores and CPU time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory that goes away.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("diolkos-bench-proxy-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Begins a command on one core, in a namespace if one is named, with as many open files as are allowed.
pub fn on_core(core: usize, netns: Option<&str>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n $(ulimit -H -n); exec \"$@\"", "sh"]);
    if let Some(name) = netns {
        command.args(["ip", "netns", "exec", name]);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    command.args(["taskset", "-c", &(core % cores).to_string()]).stdin(Stdio::null());
    command
}

/// Memory that a process has resident.
pub fn resident_bytes(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

/// CPU time that a process and its threads have used. The kernel's own count is in nanoseconds; ticks would be too coarse.
pub fn cpu_us(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    tasks.filter_map(|task| of_task(task.path())).sum::<f64>() / 1000.0
}

/// Why pods cannot be made here.
pub fn missing() -> Option<&'static str> {
    let works = |program: &str, argument: &str| Command::new(program).arg(argument).output().is_ok();
    let root = std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
    match () {
        () if !root => Some("needs root"),
        () if !works("nft", "--version") => Some("needs nft"),
        () if !works("ip", "-V") => Some("needs ip"),
        () => None,
    }
}

/// A node with two pods.
pub struct Pods {
    pub node: String,
    pub client: String,
    pub server: String,
}

impl Pods {
    pub fn new() -> Result<Self, String> {
        let tag = format!("dkb-{}", std::process::id());
        let pods = Self { node: format!("{tag}-n"), client: format!("{tag}-5"), server: format!("{tag}-6") };
        let node = &pods.node;
        ip(&format!("netns add {node}"))?;
        ip(&format!("-n {node} link set lo up"))?;
        ip(&format!("-n {node} link add br0 type bridge"))?;
        ip(&format!("-n {node} addr add 10.251.0.1/24 dev br0"))?;
        ip(&format!("-n {node} link set br0 up"))?;
        for (last, pod) in [(5, &pods.client), (6, &pods.server)] {
            ip(&format!("netns add {pod}"))?;
            ip(&format!("-n {pod} link set lo up"))?;
            ip(&format!("-n {node} link add v{last} type veth peer name eth0 netns {pod}"))?;
            ip(&format!("-n {node} link set v{last} master br0 up"))?;
            ip(&format!("-n {pod} addr add 10.251.0.{last}/24 dev eth0"))?;
            ip(&format!("-n {pod} link set eth0 up"))?;
            ip(&format!("-n {pod} route add default via 10.251.0.1"))?;
        }
        Ok(pods)
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for name in [&self.client, &self.server, &self.node] {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().map_err(|error| error.to_string())?;
    let why = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {}", why.trim())) }
}

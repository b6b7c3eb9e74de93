//! What this machine is and has.

use crate::Config;
use std::path::Path;

/// Facts that do not change while the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the file system of the data directory.
    pub disk: i64,
    pub machine_id: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    pub architecture: &'static str,
}

impl Machine {
    pub fn inspect(config: &Config) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let disk = nix::sys::statvfs::statvfs(&config.data_dir)
            .map_or(0, |fs| i64::try_from(fs.blocks() * fs.fragment_size()).unwrap_or(i64::MAX));
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as i64),
            memory: meminfo("MemTotal").unwrap_or(0),
            disk,
            machine_id: read("/etc/machine-id"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: read("/proc/sys/kernel/osrelease"),
            os_image: os_image(Path::new("/etc/os-release")),
            architecture: crate::image::architecture(),
        }
    }

    /// milli-CPU and bytes of memory that pods may use.
    pub fn allocatable(&self, config: &Config) -> (i64, i64) {
        ((self.cpus * 1000 - config.reserved_cpu_m).max(0), (self.memory - config.reserved_memory).max(0))
    }
}

/// A line of `/proc/meminfo`, in bytes.
pub fn meminfo(name: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok().map(|kib| kib * 1024)
}

/// Nanoseconds that the machine's CPUs have worked since it started.
pub fn cpu_busy_nanos() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; a tick is 10 ms on every Linux that Rust runs on.
    let busy: u64 = ticks.iter().take(8).enumerate().filter(|(at, _)| *at != 3 && *at != 4).map(|(_, n)| n).sum();
    Some(busy * 10_000_000)
}

fn os_image(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

//! Names what the machine lacks, and the command that installs it.

use std::fmt;
use std::path::{Path, PathBuf};

/// A program that the node needs and that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The program.
    pub program: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
    /// The Debian and Ubuntu package that has it.
    pub package: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing ({}): apt-get install -y {}", self.program, self.purpose, self.package)
    }
}

const PROGRAMS: [(&str, &str, &str); 5] = [
    ("containerd", "runs containers", "containerd"),
    ("runc", "makes containers", "runc"),
    ("ctr", "loads images", "containerd"),
    ("nft", "lets pods reach the world and the mesh", "nftables"),
    ("ip", "looks into network namespaces", "iproute2"),
];
const CNI_PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];
/// Debian's directory first, then the one that the plugins' own releases and most distributions use.
const CNI_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// Root's `PATH` in a login shell; a service or a container may have been started with less.
const EXTRA_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything that is missing, empty when a node can run here. `path` is the caller's `PATH`.
pub fn missing(path: &str) -> Vec<Missing> {
    let mut absent: Vec<Missing> = PROGRAMS
        .iter()
        .filter(|(program, ..)| find_program(program, path).is_none())
        .map(|&(program, purpose, package)| Missing { program, purpose, package })
        .collect();
    if cni_dir().is_none() {
        absent.push(Missing {
            program: "the CNI plugins bridge, host-local and loopback",
            purpose: "give pods their network",
            package: "containernetworking-plugins",
        });
    }
    absent
}

/// One command that installs all of `missing`.
pub fn install_command(missing: &[Missing]) -> String {
    let mut packages: Vec<&str> = missing.iter().map(|m| m.package).collect();
    packages.sort_unstable();
    packages.dedup();
    format!("apt-get update && apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// The file that a program name stands for.
pub fn find_program(program: &str, path: &str) -> Option<PathBuf> {
    path.split(':')
        .chain(EXTRA_PATH.split(':'))
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| Path::new(dir).join(program))
        .find(|file| file.is_file())
}

/// The directory with the CNI plugins that a node needs.
pub fn cni_dir() -> Option<PathBuf> {
    CNI_DIRS.iter().map(PathBuf::from).find(|dir| CNI_PLUGINS.iter().all(|plugin| dir.join(plugin).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_installs_everything_once() {
        let all: Vec<Missing> =
            PROGRAMS.iter().map(|&(program, purpose, package)| Missing { program, purpose, package }).collect();
        assert_eq!(
            install_command(&all),
            "apt-get update && apt-get install -y --no-install-recommends containerd iproute2 nftables runc"
        );
        assert_eq!(
            all[3].to_string(),
            "nft is missing (lets pods reach the world and the mesh): apt-get install -y nftables"
        );
    }

    #[test]
    fn finds_programs_outside_a_short_path() {
        assert!(find_program("sh", "").is_some());
        assert_eq!(find_program("no-such-program", "/bin"), None);
    }
}

//! Cgroups of pods: one for each pod, below one for its quality of service. The runtime makes the containers' own below them.

use crate::pod::resources::{PodLimits, Qos};
use std::io;
use std::path::{Path, PathBuf};

/// How this machine counts resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller (a v2 hierarchy without controllers beside them changes nothing).
    V1,
    /// One hierarchy.
    V2,
}

/// The cgroup file system.
#[derive(Clone, Debug)]
pub struct Cgroups {
    mount: PathBuf,
    version: Version,
    root: String,
}

const PERIOD_US: i64 = 100_000;

impl Cgroups {
    /// Looks at `/sys/fs/cgroup`; `root` is the parent of all pods.
    pub fn new(root: &str) -> Self {
        let mount = PathBuf::from("/sys/fs/cgroup");
        let version = if mount.join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 };
        Cgroups { mount, version, root: root.trim_matches('/').to_owned() }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// The cgroup of a pod, as the runtime takes it.
    pub fn pod_path(&self, uid: &str, qos: Qos) -> String {
        let root = &self.root;
        match qos {
            Qos::Guaranteed => format!("/{root}/pod{uid}"),
            Qos::Burstable => format!("/{root}/burstable/pod{uid}"),
            Qos::BestEffort => format!("/{root}/besteffort/pod{uid}"),
        }
    }

    /// Makes a pod's cgroup with its limits. The controllers that need no limit of ours are left to the runtime, which fills in
    /// what a new cgroup of theirs must have.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn make_pod(&self, path: &str, limits: PodLimits) -> io::Result<()> {
        let relative = path.trim_start_matches('/');
        match self.version {
            Version::V1 => {
                let cpu = self.mount.join("cpu").join(relative);
                std::fs::create_dir_all(&cpu)?;
                if relative.contains("/besteffort/") {
                    set(&self.mount.join("cpu").join(&self.root).join("besteffort"), "cpu.shares", 2)?;
                }
                set(&cpu, "cpu.shares", limits.shares)?;
                if limits.quota_us > 0 {
                    set(&cpu, "cpu.cfs_period_us", PERIOD_US)?;
                    set(&cpu, "cpu.cfs_quota_us", limits.quota_us)?;
                }
                let memory = self.mount.join("memory").join(relative);
                std::fs::create_dir_all(&memory)?;
                if limits.memory > 0 {
                    set(&memory, "memory.limit_in_bytes", limits.memory)?;
                }
            }
            Version::V2 => {
                let mut dir = self.mount.clone();
                for step in relative.split('/') {
                    // A controller is on in a cgroup only when its parent hands it down.
                    for controller in ["+cpu", "+memory", "+pids", "+cpuset", "+io"] {
                        let _ = std::fs::write(dir.join("cgroup.subtree_control"), controller);
                    }
                    dir.push(step);
                    std::fs::create_dir_all(&dir)?;
                }
                set(&dir, "cpu.weight", weight(limits.shares))?;
                if limits.quota_us > 0 {
                    std::fs::write(dir.join("cpu.max"), format!("{} {PERIOD_US}", limits.quota_us))?;
                }
                if limits.memory > 0 {
                    set(&dir, "memory.max", limits.memory)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a pod's cgroup. What still has processes stays, and is removed at the next start of the agent.
    pub fn remove_pod(&self, path: &str) {
        let relative = path.trim_start_matches('/');
        match self.version {
            Version::V2 => remove_tree(&self.mount.join(relative)),
            Version::V1 => {
                for hierarchy in std::fs::read_dir(&self.mount).into_iter().flatten().flatten() {
                    remove_tree(&hierarchy.path().join(relative));
                }
            }
        }
    }

    /// Removes the cgroups of pods that are not in `uids`: their agent died between two steps.
    pub fn remove_others(&self, keep: &dyn Fn(&str) -> bool) {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            let sample = self.pod_path("", qos);
            let parent = sample.trim_end_matches("pod").trim_matches('/').to_owned();
            let base = if self.version == Version::V1 { self.mount.join("cpu") } else { self.mount.clone() };
            for entry in std::fs::read_dir(base.join(parent)).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if let Some(uid) = name.to_string_lossy().strip_prefix("pod")
                    && !keep(uid)
                {
                    self.remove_pod(&self.pod_path(uid, qos));
                }
            }
        }
    }
}

/// The v2 weight (1 to 10,000) that stands for v1 shares (2 to 262,144).
fn weight(shares: i64) -> i64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9999) / 262_142
}

fn set(dir: &Path, file: &str, value: i64) -> io::Result<()> {
    std::fs::write(dir.join(file), value.to_string())
}

/// Cgroup directories are removed with `rmdir`, children first; their files cannot be removed.
fn remove_tree(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_weights_meet_at_their_ends() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    #[test]
    fn classes_have_parents_of_their_own() {
        let cgroups = Cgroups { mount: "/nowhere".into(), version: Version::V1, root: "d".into() };
        assert_eq!(cgroups.pod_path("u", Qos::Guaranteed), "/d/podu");
        assert_eq!(cgroups.pod_path("u", Qos::BestEffort), "/d/besteffort/podu");
    }
}

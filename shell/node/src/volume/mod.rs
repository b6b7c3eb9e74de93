//! A pod's volumes: made before its sandbox, kept current while it runs, removed after it.

mod atomic;
mod host;
mod payload;
mod subpath;

pub use payload::TokenCache;

use crate::pod::env::{ConfigError, PodFacts};
use crate::pod::spec::{Pod, Volume};
use crate::refs::{RefError, Refs};
use nix::mount::{MntFlags, MsFlags};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

pub use subpath::open_subpath;

/// Why a volume cannot be mounted; shows as event `FailedMount`. All of them are tried again.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {error}")]
    Ref { volume: String, error: RefError },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {error}")]
    Config { volume: String, error: ConfigError },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {path}: {error}")]
    Io { volume: String, path: PathBuf, error: io::Error },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {why}")]
    Host { volume: String, why: String },
    #[error("volume \"{volume}\" is of kind {kind}, which this node cannot mount")]
    Unsupported { volume: String, kind: String },
}

/// A volume that is ready to be mounted into containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    pub host_path: PathBuf,
    pub read_only: bool,
    /// Whether its content is written by the node: a change shows without a restart.
    pub written: bool,
}

/// What the node gives to every volume.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub refs: &'a Refs,
    pub facts: &'a PodFacts,
    pub tokens: &'a TokenCache,
    /// Files of the pod on this node.
    pub pod_dir: &'a Path,
}

/// Makes every volume of the pod, or brings it up to date.
///
/// # Errors
/// The first that cannot be made.
pub async fn prepare(pod: &Pod, source: Source<'_>) -> Result<BTreeMap<String, Ready>, VolumeError> {
    let mut out = BTreeMap::new();
    for volume in &pod.spec.volumes {
        out.insert(volume.name.clone(), prepare_one(pod, volume, source).await?);
    }
    Ok(out)
}

async fn prepare_one(pod: &Pod, volume: &Volume, source: Source<'_>) -> Result<Ready, VolumeError> {
    let name = &volume.name;
    let group = pod.spec.security_context.fs_group.and_then(|group| u32::try_from(group).ok());
    let failed = |path: &Path, error| VolumeError::Io { volume: name.clone(), path: path.to_owned(), error };
    if let Some(empty) = &volume.empty_dir {
        let dir = source.pod_dir.join("volumes/empty-dir").join(name);
        make_empty(&dir, empty, group).map_err(|error| failed(&dir, error))?;
        return Ok(Ready { host_path: dir, read_only: false, written: false });
    }
    if let Some(host) = &volume.host_path {
        host::check(host).map_err(|why| VolumeError::Host { volume: name.clone(), why })?;
        return Ok(Ready { host_path: host.path.clone().into(), read_only: false, written: false });
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        let (path, make) = source
            .refs
            .claim(&pod.metadata.namespace, &claim.claim_name)
            .await
            .map_err(|error| VolumeError::Ref { volume: name.clone(), error })?;
        if make {
            std::fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
        }
        if let Some(group) = group {
            give_to_group(&path, group).map_err(|error| failed(&path, error))?;
        }
        return Ok(Ready { host_path: path, read_only: claim.read_only, written: false });
    }
    let (payload, secret) = match payload::of(pod, volume, source).await {
        Ok(Some(payload)) => payload,
        Ok(None) => {
            let kind = volume.other.keys().next().cloned().unwrap_or_else(|| "unknown".to_owned());
            return Err(VolumeError::Unsupported { volume: name.clone(), kind });
        }
        Err(error) => return written_before(volume, source, &error).ok_or(error),
    };
    let kind = if secret { "volumes/memory" } else { "volumes/files" };
    let dir = source.pod_dir.join(kind).join(name);
    let made = (|| {
        std::fs::create_dir_all(&dir)?;
        // Secrets never reach a disk.
        if secret && !is_mount_point(&dir) {
            mount_tmpfs(&dir, "mode=755")?;
        }
        atomic::write(&dir, &payload, group)
    })();
    made.map_err(|error| failed(&dir, error))?;
    Ok(Ready { host_path: dir, read_only: true, written: true })
}

/// The API server is away: content that was written before still serves, so that a container that crashed starts again.
fn written_before(volume: &Volume, source: Source<'_>, error: &VolumeError) -> Option<Ready> {
    let (VolumeError::Ref { error, .. } | VolumeError::Config { error: ConfigError::Ref(error), .. }) = error else {
        return None;
    };
    let RefError::Api { error, .. } = error else { return None };
    let dirs = ["volumes/memory", "volumes/files"].map(|kind| source.pod_dir.join(kind).join(&volume.name));
    let host_path = dirs.into_iter().find(|dir| error.is_transient() && dir.join("..data").exists())?;
    Some(Ready { host_path, read_only: true, written: true })
}

fn make_empty(dir: &Path, empty: &crate::pod::spec::EmptyDir, group: Option<u32>) -> io::Result<()> {
    let fresh = !dir.exists();
    std::fs::create_dir_all(dir)?;
    if empty.medium == "Memory" && !is_mount_point(dir) {
        let limit = empty.size_limit.as_ref().and_then(|text| model::Quantity::parse(&text.0).ok());
        let options = limit.map_or_else(|| "mode=777".to_owned(), |limit| format!("mode=777,size={}", limit.units()));
        mount_tmpfs(dir, &options)?;
    }
    if fresh {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))?;
        if let Some(group) = group {
            give_to_group(dir, group)?;
        }
    }
    Ok(())
}

/// Group, group permissions and set-group-id for everything below, so that new files belong to the group too.
fn give_to_group(path: &Path, group: u32) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    chown(path, None, Some(group))?;
    let mode = meta.permissions().mode();
    let more = if meta.is_dir() { 0o2770 } else { 0o660 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | more))?;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_to_group(&entry?.path(), group)?;
        }
    }
    Ok(())
}

fn mount_tmpfs(dir: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options)).map_err(io::Error::from)
}

/// Whether something is mounted at exactly this path.
fn is_mount_point(dir: &Path) -> bool {
    mounts_below(dir).iter().any(|mount| mount == dir)
}

/// Mount points at or below `dir`, deepest first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return Vec::new() };
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    below.reverse();
    below
}

/// The mount table writes space, tab, line feed and backslash as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Unmounts and removes everything that a pod had on this node. What users mounted from elsewhere (hostPath, claims) lies
/// outside of `pod_dir`; sub-path mounts are undone first, so that nothing of theirs is reached through them.
///
/// # Errors
/// Something is still in use; tried again later.
pub fn remove(pod_dir: &Path) -> io::Result<()> {
    unmount(pod_dir)?;
    match std::fs::remove_dir_all(pod_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Unmounts everything at or below `dir`. What is in memory is lost, as it is when a machine restarts.
///
/// # Errors
/// The kernel refused.
pub fn unmount(dir: &Path) -> io::Result<()> {
    for mount in mounts_below(dir) {
        match nix::mount::umount2(&mount, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(nix::errno::Errno::EBUSY) => nix::mount::umount2(&mount, MntFlags::MNT_DETACH)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

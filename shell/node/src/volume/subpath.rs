use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::MsFlags;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Mounts `sub` of `volume` at `target` and returns `target`, which the runtime then mounts into the container.
///
/// A container may swap a directory for a link between the look and the mount, to reach the node's files. So the kernel resolves
/// the path inside the volume (links may not leave it), and what is mounted is the open file, not its name.
///
/// # Errors
/// The path leaves the volume, or the file system refused.
pub fn open_subpath(volume: &Path, sub: &str, target: &Path) -> io::Result<PathBuf> {
    let normal = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if !Path::new(sub).components().all(normal) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("subPath {sub:?} must not contain '..'")));
    }
    if super::is_mount_point(target) {
        return Ok(target.to_owned());
    }
    let root = std::fs::File::open(volume)?;
    let file = match open_in(&root, sub) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dirs(&root, sub)?;
            open_in(&root, sub)?
        }
        other => other?,
    };
    let source = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if std::fs::metadata(&source)?.is_dir() {
        std::fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::File::create(target)?;
    }
    nix::mount::mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(target.to_owned())
}

fn open_in(root: &std::fs::File, sub: &str) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH);
    Ok(openat2(root, sub, how)?)
}

/// A sub-path that is not there becomes a directory; each step is made below the one before.
fn make_dirs(root: &std::fs::File, sub: &str) -> io::Result<()> {
    let mut path = PathBuf::new();
    for component in Path::new(sub).components() {
        path.push(component);
        let parent = match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => open_in(root, &parent.display().to_string())?,
            None => root.try_clone()?.into(),
        };
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o750);
        match nix::sys::stat::mkdirat(&parent, component.as_os_str(), mode) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

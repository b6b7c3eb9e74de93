//! Writes a set of files so that a reader sees all of the old or all of the new.
//!
//! Files live in a directory named by time; `..data` is a link to it, and every name in the volume is a link through `..data`.
//! Renaming a new `..data` over the old one switches every file at once. Programs that watch such volumes know this layout.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

/// One file: content and permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
}

/// Files by relative path.
pub type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";

/// Makes `dir` show exactly `payload`. Returns whether anything changed.
///
/// # Errors
/// The file system refused, or a path leaves the volume.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    if let Some(bad) = payload.keys().find(|path| !is_inside(path)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("path {bad:?} must be relative, without '..'"),
        ));
    }
    let old = std::fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && same(&dir.join(old), payload)
    {
        return Ok(false);
    }
    let stamp = jiff::Timestamp::now().as_nanosecond();
    let name = format!("..{stamp}");
    let fresh = dir.join(&name);
    std::fs::create_dir_all(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let path = fresh.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &file.bytes)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode))?;
        if group.is_some() {
            chown(&path, None, group)?;
        }
    }
    let next = dir.join("..data_tmp");
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&name, &next)?;
    std::fs::rename(&next, dir.join(DATA))?;
    link_names(dir, payload)?;
    if let Some(old) = old.filter(|old| old.components().count() == 1) {
        std::fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

/// Top names are links into `..data`; names that are gone lose theirs after the switch.
fn link_names(dir: &Path, payload: &Payload) -> io::Result<()> {
    let tops: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for top in &tops {
        let link = dir.join(top);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(top), &link)?;
        }
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(name.as_ref()) && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_inside(path: &str) -> bool {
    let components: Vec<Component<'_>> = Path::new(path).components().collect();
    !components.is_empty()
        && !path.starts_with("..")
        && components.iter().all(|component| matches!(component, Component::Normal(_)))
}

fn same(dir: &Path, payload: &Payload) -> bool {
    let mut found = 0;
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else { return false };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                found += 1;
            }
        }
    }
    found == payload.len()
        && payload.iter().all(|(path, file)| {
            let path = dir.join(path);
            std::fs::read(&path).is_ok_and(|bytes| bytes == file.bytes)
                && path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o7777 == file.mode)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o644 };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("diolkos-atomic-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_reader_sees_old_or_new() {
        let dir = dir("switch");
        assert!(write(&dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert_eq!(std::fs::read_to_string(dir.join("sub/b")).unwrap(), "2");
        assert!(!write(&dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap(), "nothing changed");
        let held = std::fs::canonicalize(dir.join("a")).unwrap();
        assert!(write(&dir, &payload(&[("a", "3"), ("c", "4")]), None).unwrap());
        assert_eq!(std::fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert_eq!(std::fs::read_to_string(dir.join("c")).unwrap(), "4");
        assert!(std::fs::symlink_metadata(dir.join("sub")).is_err() && !held.exists());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 4, "a, c, ..data and one directory");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn no_file_leaves_the_volume() {
        let dir = dir("outside");
        for bad in ["../x", "/x", "a/../../x", "", "..data"] {
            assert!(write(&dir, &payload(&[(bad, "1")]), None).is_err(), "{bad}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}

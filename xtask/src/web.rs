//! The dashboard's build.

use crate::paths;
use crate::sh::{self, Result};
use std::process::Command;
use std::time::SystemTime;
use std::{fs, path::Path};

/// Builds web/dist if any source is newer.
pub fn build() -> Result<()> {
    let web = paths::root().join("web");
    if !web.join("package.json").exists() {
        return Ok(());
    }
    let built = fs::metadata(web.join("dist/index.html")).and_then(|meta| meta.modified()).ok();
    if built.is_some_and(|built| newest_in(&web) <= built) {
        return Ok(());
    }
    println!("building the dashboard");
    sh::output(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&web))?;
    sh::output(Command::new("npm").args(["run", "build"]).current_dir(&web)).map(drop)
}

/// When the newest source changed; what the build itself makes does not count.
fn newest_in(dir: &Path) -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let time = if path.is_dir() {
            if name == "node_modules" || name == "dist" { continue } else { newest_in(&path) }
        } else {
            entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        newest = newest.max(time);
    }
    newest
}

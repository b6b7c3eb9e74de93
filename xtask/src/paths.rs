//! Where things are.

use std::path::PathBuf;

/// The workspace.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// Cargo's target folder: the one of the environment, else the workspace's.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// kubectl, Helm and what else the tests drive.
pub fn tools() -> PathBuf {
    target().join("tools")
}

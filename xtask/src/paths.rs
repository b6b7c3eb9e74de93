//! Where things are.

use std::path::PathBuf;

/// The workspace. Cargo says where it runs the program; where it was built may have been another clone with the same target folder.
pub fn root() -> PathBuf {
    let told = std::env::var_os("CARGO_MANIFEST_DIR");
    let manifest = told.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
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

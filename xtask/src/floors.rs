//! The floors: which crate may know which. Read from `cargo metadata`, so that it is the build's own truth.

use crate::paths;
use crate::sh::{self, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Height of a directory: an arrow goes from a higher floor to a lower one.
const FLOORS: &[(&str, u8)] = &[
    ("app", 6),
    ("shell/server", 5),
    ("shell/manager", 5),
    ("shell/node", 5),
    ("shell/proxy", 5),
    ("shell/client", 4),
    ("shell/storage", 4),
    ("sim", 3),
    ("wire", 2),
    ("core", 1),
];
/// Engines: each may know the model and nothing else of ours.
const ENGINES: &[&str] = &["core/placement", "core/scaling", "core/traffic", "core/authz"];
/// Outside the house: these may use the public faces only.
const OUTSIDE: &[&str] = &["xtask", "demo", "tests", "bench"];
/// What the core may use of others' crates: pure ones.
const CORE_MAY_USE: &[&str] = &["regex", "jiff", "bytes", "hashbrown", "smallvec", "indexmap"];
/// What must not appear below the shell.
const SHELL_ONLY: &[&str] =
    &["tokio", "hyper", "hyper-util", "tonic", "h2", "rustls", "tokio-rustls", "socket2", "nix"];

/// An arrow of ours that should not be there.
fn refusal(from: &str, to: &str) -> Option<String> {
    let outside = |dir: &str| OUTSIDE.iter().any(|place| dir.starts_with(place));
    if outside(from) {
        return None;
    }
    if outside(to) {
        return Some(format!("{from} -> {to}: nothing of the platform depends on what tests or shows it"));
    }
    if ENGINES.contains(&from) && to != "core/model" {
        return Some(format!("{from} -> {to}: an engine knows the model only"));
    }
    if from.starts_with("wire") && ENGINES.contains(&to) {
        return Some(format!("{from} -> {to}: wire turns bytes into nouns and decides nothing"));
    }
    if from == "sim" && to.starts_with("shell") {
        return Some(format!("{from} -> {to}: the simulator drives core and wire, never the shell"));
    }
    let height = |dir: &str| FLOORS.iter().find(|(floor, _)| dir.starts_with(floor)).map(|(_, height)| *height);
    match (height(from), height(to)) {
        (Some(from_height), Some(to_height)) if to_height > from_height => {
            Some(format!("{from} -> {to}: an arrow points up"))
        }
        (Some(5), Some(5)) => Some(format!("{from} -> {to}: server, manager, node and proxy never know each other")),
        (None, _) => Some(format!("{from} is on no floor; put it into xtask/src/floors.rs")),
        (_, None) => Some(format!("{to} is on no floor; put it into xtask/src/floors.rs")),
        _ => None,
    }
}

fn foreign_refusal(from: &str, name: &str) -> Option<String> {
    if from.starts_with("core") && !CORE_MAY_USE.contains(&name) {
        return Some(format!("{from} -> {name}: the core is pure; it may use {CORE_MAY_USE:?}"));
    }
    let below = from.starts_with("wire") || from == "sim";
    (below && SHELL_ONLY.contains(&name)).then(|| format!("{from} -> {name}: sockets and runtimes live in the shell"))
}

/// Checks every normal dependency of every crate of the workspace.
pub fn check() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version=1", "--no-deps", "--offline"]).current_dir(paths::root());
    let metadata: Value = serde_json::from_str(&sh::output(&mut cargo)?).map_err(|error| error.to_string())?;
    let refused = refusals(&metadata);
    if refused.is_empty() {
        println!("floors: every arrow points down");
        Ok(())
    } else {
        Err(format!("arrows that must not be:\n  {}", refused.join("\n  ")))
    }
}

fn refusals(metadata: &Value) -> Vec<String> {
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let dir_of = |package: &Value| {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let dir = Path::new(manifest).parent().and_then(|dir| dir.strip_prefix(root).ok());
        dir.map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let dirs: BTreeMap<String, String> =
        packages().map(|package| (package["name"].as_str().unwrap_or_default().to_owned(), dir_of(package))).collect();
    let mut refused = Vec::new();
    for package in packages() {
        let from = dir_of(package);
        let normal = package["dependencies"].as_array().into_iter().flatten().filter(|dep| dep["kind"].is_null());
        for dependency in normal {
            let name = dependency["name"].as_str().unwrap_or_default();
            refused.extend(match dirs.get(name) {
                Some(to) => refusal(&from, to),
                None => foreign_refusal(&from, name),
            });
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_floors() {
        check().unwrap();
    }

    #[test]
    fn what_must_not_be_is_refused() {
        for (from, to) in [
            ("core/model", "wire/kube"),
            ("core/traffic", "core/authz"),
            ("core/placement", "core/control"),
            ("wire/xds", "core/traffic"),
            ("sim", "shell/client"),
            ("shell/server", "shell/manager"),
            ("shell/client", "shell/server"),
            ("app", "xtask"),
            ("attic", "core/model"),
        ] {
            assert!(refusal(from, to).is_some(), "{from} -> {to}");
        }
        for (from, to) in [
            ("core/control", "core/placement"),
            ("shell/node", "shell/client"),
            ("app", "shell/server"),
            ("sim", "core/control"),
            ("xtask", "app"),
        ] {
            assert_eq!(refusal(from, to), None, "{from} -> {to}");
        }
        assert!(foreign_refusal("core/model", "serde").is_some());
        assert!(foreign_refusal("wire/kube", "tokio").is_some());
        assert!(foreign_refusal("wire/kube", "serde").is_none());
    }
}

//! What a node does now and then: rotating logs, removing images.

use crate::agent::Pods;
use crate::image::collect_images;
use crate::runtime::Runtime;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const LOGS: Duration = Duration::from_secs(10);
const IMAGES: Duration = Duration::from_secs(300);

/// For ever.
pub async fn run(pods: Arc<Pods>) {
    let shared = pods.shared().clone();
    let mut last_used = BTreeMap::new();
    let mut images_at = Instant::now();
    loop {
        tokio::time::sleep(LOGS).await;
        rotate_logs(&shared.runtime, shared.config.log_max_bytes, shared.config.log_files).await;
        if images_at.elapsed() >= IMAGES {
            images_at = Instant::now();
            match collect_images(&shared.runtime, &shared.config, &mut last_used).await {
                Ok(removed) if !removed.is_empty() => tracing::info!(count = removed.len(), "removed unused images"),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "images not looked at"),
            }
        }
    }
}

/// Renames logs that are too large and lets the runtime open new ones.
async fn rotate_logs(runtime: &Runtime, max_bytes: u64, files: usize) {
    let Ok(containers) = runtime.list_containers(BTreeMap::new()).await else { return };
    for container in containers.iter().filter(|c| c.state == cri::ContainerState::Running as i32) {
        let Ok(status) = runtime.container_status(&container.id).await else { continue };
        let path = PathBuf::from(status.log_path);
        if !std::fs::metadata(&path).is_ok_and(|meta| meta.len() >= max_bytes) {
            continue;
        }
        match rotate(&path, files, &crate::clock::now().0.to_string()) {
            Ok(()) => {
                if let Err(error) = runtime.reopen_log(&container.id).await {
                    tracing::warn!(%error, path = %path.display(), "a rotated log was not opened again");
                }
            }
            Err(error) => tracing::warn!(%error, path = %path.display(), "a log was not rotated"),
        }
    }
}

/// `0.log` becomes `0.log.STAMP`; the oldest go. Stamps sort by time.
fn rotate(path: &Path, files: usize, stamp: &str) -> std::io::Result<()> {
    let mut old = rotated(path);
    while old.len() + 2 > files.max(2) {
        std::fs::remove_file(old.remove(0))?;
    }
    std::fs::rename(path, format!("{}.{stamp}", path.display()))
}

/// The rotated files of a log, oldest first.
pub fn rotated(path: &Path) -> Vec<PathBuf> {
    let prefix = path.file_name().map(|name| format!("{}.", name.to_string_lossy())).unwrap_or_default();
    let entries = path.parent().and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_logs_go() {
        let dir = std::env::temp_dir().join(format!("diolkos-rotate-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let log = dir.join("0.log");
        for stamp in ["1", "2", "3", "4"] {
            std::fs::write(&log, stamp).unwrap();
            rotate(&log, 3, stamp).unwrap();
        }
        let kept: Vec<String> = rotated(&log).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        assert_eq!(kept, ["3", "4"], "and the one that is written to");
        std::fs::remove_dir_all(dir).unwrap();
    }
}

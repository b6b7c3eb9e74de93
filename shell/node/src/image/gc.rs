//! Removing images that no container uses when the disk fills.

use crate::Config;
use crate::runtime::{Runtime, RuntimeError};
use cri::Image;
use std::collections::{BTreeMap, BTreeSet};

/// The images to remove, oldest use first, until `to_free` bytes are free. `last_used` holds when an image was last seen in use
/// (any growing number); images never seen in use come first. Pinned images and those of `used` stay.
pub fn images_to_remove(
    images: &[Image],
    used: &BTreeSet<String>,
    last_used: &BTreeMap<String, i64>,
    to_free: u64,
) -> Vec<String> {
    let mut idle: Vec<&Image> = images.iter().filter(|image| !image.pinned && !used.contains(&image.id)).collect();
    idle.sort_by_key(|image| (last_used.get(&image.id).copied().unwrap_or(0), image.id.clone()));
    let mut freed = 0;
    let mut out = Vec::new();
    for image in idle {
        if freed >= to_free {
            break;
        }
        freed += image.size;
        out.push(image.id.clone());
    }
    out
}

/// Looks at the disk of the data directory and removes images when it is too full. Returns what was removed.
///
/// # Errors
/// The runtime does not answer.
pub async fn collect_images(
    runtime: &Runtime,
    config: &Config,
    last_used: &mut BTreeMap<String, i64>,
) -> Result<Vec<String>, RuntimeError> {
    let images = runtime.list_images().await?;
    let containers = runtime.list_containers(BTreeMap::new()).await?;
    let mut used: BTreeSet<String> = containers.iter().map(|container| container.image_ref.clone()).collect();
    for image in &images {
        let names = image.repo_tags.iter().chain(&image.repo_digests);
        let pause = image.repo_tags.iter().any(|tag| tag == super::PAUSE_IMAGE);
        if pause || names.into_iter().any(|name| used.contains(name)) {
            used.insert(image.id.clone());
        }
    }
    let now = crate::clock::now().0;
    last_used.retain(|id, _| images.iter().any(|image| image.id == *id));
    for id in &used {
        last_used.insert(id.clone(), now);
    }
    let to_free = over_by(config);
    let mut removed = Vec::new();
    if to_free > 0 {
        for id in images_to_remove(&images, &used, last_used, to_free) {
            runtime.remove_image(&id).await?;
            removed.push(id);
        }
    }
    Ok(removed)
}

/// Bytes to free so that the disk is below the low mark; 0 while it is below the high one.
fn over_by(config: &Config) -> u64 {
    let Ok(fs) = nix::sys::statvfs::statvfs(&config.data_dir) else { return 0 };
    let capacity = fs.blocks() * fs.fragment_size();
    let free = fs.blocks_available() * fs.fragment_size();
    let used_percent = (free * 100).checked_div(capacity).map_or(0, |free| 100 - free);
    if used_percent < config.image_gc_high_percent {
        return 0;
    }
    (capacity * (100 - config.image_gc_low_percent) / 100).saturating_sub(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_go_first_and_only_as_many_as_needed() {
        let image = |id: &str, size, pinned| Image { id: id.into(), size, pinned, ..Image::default() };
        let images = [image("a", 10, false), image("b", 20, false), image("c", 30, false), image("p", 99, true)];
        let used = BTreeSet::from(["b".to_owned()]);
        let last = BTreeMap::from([("a".to_owned(), 7), ("c".to_owned(), 3)]);
        assert_eq!(images_to_remove(&images, &used, &last, 25), ["c"]);
        assert_eq!(images_to_remove(&images, &used, &last, 31), ["c", "a"]);
        assert_eq!(images_to_remove(&images, &used, &last, 1000), ["c", "a"]);
        assert!(images_to_remove(&images, &used, &last, 0).is_empty());
    }
}

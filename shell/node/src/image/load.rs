//! Images from files on this machine: `diolkos image load | list | rm | pull`.

use super::{ImageName, NameError, pause_image};
use crate::Config;
use crate::preflight;
use crate::runtime::{Runtime, RuntimeError};
use std::io::Read;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Why an image could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not there or cannot be read.
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    /// The file is neither an OCI layout nor a `docker save` archive, or names no image.
    #[error("{path} is no image: {why}")]
    NoImage { path: PathBuf, why: &'static str },
    #[error(transparent)]
    Name(#[from] NameError),
    /// containerd refused it.
    #[error("containerd: {0}")]
    Refused(String),
    /// containerd does not answer.
    #[error("{0}; is `diolkos up` running?")]
    Runtime(#[from] RuntimeError),
    #[error("building the sandbox image: {0}")]
    Build(#[from] super::BuildError),
}

/// What a file brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Normalised names, as pods may write them.
    pub names: Vec<String>,
}

/// Loads images into the node's own containerd.
#[derive(Clone, Debug)]
pub struct Loader {
    socket: PathBuf,
    ctr: PathBuf,
    runtime: Runtime,
}

/// Where the CRI keeps its images in containerd.
const NAMESPACE: &str = "k8s.io";

impl Loader {
    /// For the containerd of `config`. `path` is the caller's `PATH`.
    pub fn new(config: &Config, path: &str) -> Self {
        let socket = config.containerd_socket();
        let ctr = preflight::find_program("ctr", path).unwrap_or_else(|| PathBuf::from("ctr"));
        Loader { runtime: Runtime::connect(&socket), ctr, socket }
    }

    /// The runtime that images are loaded into: list, pull and remove go there directly.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Loads every image of an OCI layout tar or a `docker save` tar.
    ///
    /// # Errors
    /// The file is no such tar, or containerd refused it.
    pub async fn load(&self, path: &Path) -> Result<Loaded, LoadError> {
        let owned = path.to_owned();
        let written = tokio::task::spawn_blocking(move || names_in(&owned))
            .await
            .unwrap_or_else(|panic| Err(LoadError::Refused(panic.to_string())))?;
        self.ctr(&["images", "import", "--digests=false", &path.display().to_string()]).await?;
        let mut names = Vec::new();
        for name in written {
            let normal = ImageName::parse(&name)?.to_string();
            if normal != name {
                self.ctr(&["images", "tag", "--force", &name, &normal]).await?;
            }
            self.wait_known(&normal).await?;
            names.push(normal);
        }
        Ok(Loaded { names })
    }

    /// Makes sure that the sandbox image is here.
    ///
    /// # Errors
    /// As [`Loader::load`].
    pub async fn ensure_pause(&self, scratch: &Path) -> Result<(), LoadError> {
        if self.runtime.image_status(super::PAUSE_IMAGE).await?.is_some() {
            return Ok(());
        }
        let fail = |error| LoadError::File { path: scratch.to_owned(), error };
        std::fs::create_dir_all(scratch).map_err(fail)?;
        let tar = scratch.join("pause.tar");
        pause_image()?.write_to(&tar)?;
        let loaded = self.load(&tar).await;
        std::fs::remove_file(&tar).map_err(fail)?;
        loaded.map(drop)
    }

    /// The CRI learns of an import from containerd's events, a moment later.
    async fn wait_known(&self, name: &str) -> Result<(), LoadError> {
        for _ in 0..100 {
            if self.runtime.image_status(name).await?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Err(LoadError::Refused(format!("{name} was imported, but the runtime does not show it")))
    }

    async fn ctr(&self, args: &[&str]) -> Result<(), LoadError> {
        let mut command = Command::new(&self.ctr);
        command.arg("--address").arg(&self.socket).args(["--namespace", NAMESPACE]).args(args).kill_on_drop(true);
        let output = command.output().await.map_err(|error| LoadError::File { path: self.ctr.clone(), error })?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(LoadError::Refused(text.trim().trim_start_matches("ctr: ").to_owned()))
    }
}

/// Index and manifest are small; anything larger is not one.
const MAX_INDEX_BYTES: u64 = 1 << 20;

/// The image names written in a tar, as containerd will store them.
fn names_in(path: &Path) -> Result<Vec<String>, LoadError> {
    let fail = |error| LoadError::File { path: path.to_owned(), error };
    let no_image = |why| LoadError::NoImage { path: path.to_owned(), why };
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    let mut names = Vec::new();
    let mut known = false;
    for entry in archive.entries_with_seek().map_err(fail)? {
        let mut entry = entry.map_err(|_| no_image("it is not a tar file"))?;
        let name = entry.path().map_err(fail)?.display().to_string();
        let read = match name.trim_start_matches("./") {
            "index.json" => names_in_index,
            "manifest.json" => names_in_docker_manifest,
            _ => continue,
        };
        known = true;
        let mut text = String::new();
        entry.by_ref().take(MAX_INDEX_BYTES).read_to_string(&mut text).map_err(fail)?;
        let json = serde_json::from_str(&text).map_err(|_| no_image("its index is not JSON"))?;
        for name in read(&json) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    match (known, names.is_empty()) {
        (false, _) => Err(no_image("it has neither index.json (OCI) nor manifest.json (docker save)")),
        (true, true) => Err(no_image("no image in it has a name")),
        (true, false) => Ok(names),
    }
}

fn names_in_index(index: &serde_json::Value) -> Vec<String> {
    let manifests = index["manifests"].as_array().into_iter().flatten();
    let name = |manifest: &serde_json::Value| {
        let annotations = &manifest["annotations"];
        let whole = annotations["io.containerd.image.name"].as_str();
        // The standard's annotation is often only a tag; then the image has no name of its own.
        let standard = annotations["org.opencontainers.image.ref.name"].as_str().filter(|n| n.contains(['/', ':']));
        whole.or(standard).map(str::to_owned)
    };
    manifests.filter_map(name).collect()
}

fn names_in_docker_manifest(manifest: &serde_json::Value) -> Vec<String> {
    let images = manifest.as_array().into_iter().flatten();
    let tags = images.flat_map(|image| image["RepoTags"].as_array().into_iter().flatten());
    // containerd stores these normalised.
    tags.filter_map(|tag| ImageName::parse(tag.as_str()?).ok()).map(|name| name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_the_names_of_both_formats() {
        let index = json!({"manifests": [
            {"annotations": {"io.containerd.image.name": "docker.io/library/a:1", "org.opencontainers.image.ref.name": "1"}},
            {"annotations": {"org.opencontainers.image.ref.name": "ghcr.io/x/b:2"}},
            {"annotations": {"org.opencontainers.image.ref.name": "latest"}},
            {},
        ]});
        assert_eq!(names_in_index(&index), ["docker.io/library/a:1", "ghcr.io/x/b:2"]);
        let docker = json!([{"RepoTags": ["c:3", "Bad Name"]}, {"RepoTags": null}]);
        assert_eq!(names_in_docker_manifest(&docker), ["docker.io/library/c:3"]);
    }

    #[test]
    fn says_why_a_file_is_no_image() {
        let path = std::env::temp_dir().join(format!("diolkos-no-image-{}", std::process::id()));
        std::fs::write(&path, vec![7; 2048]).unwrap();
        assert!(names_in(&path).unwrap_err().to_string().contains("not a tar file"));
        std::fs::write(&path, vec![0; 1024]).unwrap();
        assert!(names_in(&path).unwrap_err().to_string().contains("neither index.json"));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(names_in(&path), Err(LoadError::File { .. })));
    }
}

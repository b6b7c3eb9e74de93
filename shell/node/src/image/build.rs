//! OCI images from nothing: files in, a tar in OCI image layout out, without a container tool.
//!
//! The same input gives the same bytes (times are zero, order is by path), so an image that did not change keeps its digest.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{ImageName, NameError};

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("writing the image: {0}")]
    Write(#[from] io::Error),
}

/// An image under construction: one layer and its configuration.
#[derive(Clone, Debug)]
pub struct ImageBuilder {
    name: ImageName,
    architecture: &'static str,
    files: BTreeMap<String, (u32, Content)>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    ports: Vec<u16>,
    user: String,
    working_dir: String,
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
    Directory,
    Link(String),
}

impl ImageBuilder {
    /// An empty image for this machine's architecture.
    ///
    /// # Errors
    /// `name` is no image reference.
    pub fn new(name: &str) -> Result<Self, BuildError> {
        Ok(ImageBuilder {
            name: ImageName::parse(name)?,
            architecture: architecture(),
            files: BTreeMap::new(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            ports: Vec::new(),
            user: String::new(),
            working_dir: String::new(),
            labels: BTreeMap::new(),
        })
    }

    /// A file with these bytes; `path` is absolute in the image, `mode` its permissions.
    #[must_use]
    pub fn bytes(mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(relative(path), (mode, Content::Bytes(bytes.into())));
        self
    }

    /// A copy of a file of this machine.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, source: &Path) -> Self {
        self.files.insert(relative(path), (mode, Content::File(source.to_owned())));
        self
    }

    /// An empty directory.
    #[must_use]
    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        self.files.insert(relative(path), (mode, Content::Directory));
        self
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.files.insert(relative(path), (0o777, Content::Link(target.to_owned())));
        self
    }

    #[must_use]
    pub fn entrypoint<S: Into<String>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.entrypoint = argv.into_iter().map(Into::into).collect();
        self
    }

    #[must_use]
    pub fn cmd<S: Into<String>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.cmd = argv.into_iter().map(Into::into).collect();
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Documents a TCP port that the program listens on.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// `uid`, `uid:gid` or a name from the image's passwd file.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    #[must_use]
    pub fn working_dir(mut self, dir: &str) -> Self {
        dir.clone_into(&mut self.working_dir);
        self
    }

    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Writes the image as a tar in OCI image layout.
    ///
    /// # Errors
    /// A source file could not be read, or the tar could not be written.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), BuildError> {
        let layer = self.layer()?;
        let layer_digest = sha256(&layer);
        let config = serde_json::to_vec(&self.config(&layer_digest)).map_err(io::Error::from)?;
        let config_digest = sha256(&config);
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config_digest, config.len()),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer_digest, layer.len())],
        }))
        .map_err(io::Error::from)?;
        let manifest_digest = sha256(&manifest);
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest_digest, manifest.len());
        entry["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        // The first annotation is the one that containerd reads a whole name from; the second is the standard's.
        entry["annotations"] = json!({
            "io.containerd.image.name": self.name.to_string(),
            "org.opencontainers.image.ref.name": self.name.tag.as_deref().unwrap_or("latest"),
        });
        let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]})).map_err(io::Error::from)?;

        let mut tar = tar::Builder::new(out);
        append(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut tar, "index.json", 0o644, &index)?;
        for (digest, bytes) in [(manifest_digest, manifest), (config_digest, config), (layer_digest, layer)] {
            append(&mut tar, &format!("blobs/sha256/{digest}"), 0o644, &bytes)?;
        }
        tar.finish()?;
        Ok(())
    }

    /// Writes the image to a file.
    ///
    /// # Errors
    /// As [`ImageBuilder::write`].
    pub fn write_to(&self, path: &Path) -> Result<(), BuildError> {
        let fail = |error| BuildError::File { path: path.to_owned(), error };
        let mut file = io::BufWriter::new(std::fs::File::create(path).map_err(fail)?);
        self.write(&mut file)?;
        file.flush().map_err(fail)
    }

    fn layer(&self) -> Result<Vec<u8>, BuildError> {
        let mut tar = tar::Builder::new(Vec::new());
        for dir in self.parents() {
            append_special(&mut tar, &format!("{dir}/"), 0o755, tar::EntryType::Directory, None)?;
        }
        for (path, (mode, content)) in &self.files {
            match content {
                Content::Bytes(bytes) => append(&mut tar, path, *mode, bytes)?,
                Content::File(source) => {
                    let bytes =
                        std::fs::read(source).map_err(|error| BuildError::File { path: source.clone(), error })?;
                    append(&mut tar, path, *mode, &bytes)?;
                }
                Content::Directory => {
                    append_special(&mut tar, &format!("{path}/"), *mode, tar::EntryType::Directory, None)?;
                }
                Content::Link(to) => append_special(&mut tar, path, *mode, tar::EntryType::Symlink, Some(to))?,
            }
        }
        Ok(tar.into_inner()?)
    }

    /// Directories that files lie in and that were not asked for, parents first.
    fn parents(&self) -> Vec<String> {
        let mut dirs = std::collections::BTreeSet::new();
        for path in self.files.keys() {
            for (at, _) in path.match_indices('/') {
                if !self.files.contains_key(&path[..at]) {
                    dirs.insert(path[..at].to_owned());
                }
            }
        }
        dirs.into_iter().collect()
    }

    fn config(&self, layer_digest: &str) -> Value {
        let mut config = json!({});
        let mut set = |key: &str, value: Value| {
            let empty = value.as_str() == Some("")
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty);
            if !empty {
                config[key] = value;
            }
        };
        set("Entrypoint", json!(self.entrypoint));
        set("Cmd", json!(self.cmd));
        set("Env", json!(self.env));
        set("User", json!(self.user));
        set("WorkingDir", json!(self.working_dir));
        set("Labels", json!(self.labels));
        set("ExposedPorts", self.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect());
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "diolkos"}],
        })
    }
}

/// This machine's architecture, by the name that images and Nodes use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn relative(path: &str) -> String {
    path.trim_matches('/').to_owned()
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header(mode: u32, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(kind);
    header
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(mode, bytes.len() as u64, tar::EntryType::Regular), path, bytes)
}

fn append_special<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    kind: tar::EntryType,
    link: Option<&str>,
) -> io::Result<()> {
    let mut header = header(mode, 0, kind);
    match link {
        Some(target) => tar.append_link(&mut header, path, target),
        None => tar.append_data(&mut header, path, io::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn entries(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(tar);
        let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        };
        archive.entries().unwrap().map(read).collect()
    }

    fn image() -> Vec<u8> {
        let mut out = Vec::new();
        let builder = ImageBuilder::new("shop/catalog:v1").unwrap().bytes("/app/bin/catalog", 0o755, *b"elf");
        builder.entrypoint(["/app/bin/catalog"]).env("A", "b").port(8080).write(&mut out).unwrap();
        out
    }

    #[test]
    fn blobs_are_named_by_their_digest_and_found_from_the_index() {
        let files = entries(&image());
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "docker.io/shop/catalog:v1");
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let bytes = &files[&format!("blobs/sha256/{digest}")];
            assert_eq!(sha256(bytes), digest);
            assert_eq!(descriptor["size"].as_u64().unwrap(), bytes.len() as u64);
            bytes.clone()
        };
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"][0], "/app/bin/catalog");
        assert_eq!(config["config"]["ExposedPorts"]["8080/tcp"], json!({}));
        let layer = entries(&blob(&manifest["layers"][0]));
        assert_eq!(layer.keys().collect::<Vec<_>>(), ["app/", "app/bin/", "app/bin/catalog"]);
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(image(), image());
    }
}

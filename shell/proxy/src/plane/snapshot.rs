//! The last configuration on disk, so that a proxy that starts while the control plane is away serves what it served before. It holds
//! keys of gateways, so nobody else may read it; and it is only a head start: the control plane's word replaces it.
use bytes::Bytes;
use model::mesh::ResourceKind;
use prost::Message;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use xds::discovery::{Any, DeltaDiscoveryResponse, Resource};
use xds::resources::{kind_of, type_url};

/// What was accepted, as it came.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    resources: BTreeMap<(ResourceKind, String), Bytes>,
}

impl Snapshot {
    pub fn set(&mut self, kind: ResourceKind, name: String, value: Bytes) {
        self.resources.insert((kind, name), value);
    }

    pub fn has(&self, kind: ResourceKind, name: &str) -> bool {
        self.resources.contains_key(&(kind, name.to_owned()))
    }

    pub fn remove(&mut self, kind: ResourceKind, name: &str) {
        self.resources.remove(&(kind, name.to_owned()));
    }

    /// Names of a kind that are not among `kept`: what a file knew and the control plane no longer does.
    pub fn others(&self, kind: ResourceKind, kept: impl Fn(&str) -> bool) -> Vec<String> {
        let of_kind = self.resources.keys().filter(|(of, _)| *of == kind);
        of_kind.map(|(_, name)| name.clone()).filter(|name| !kept(name)).collect()
    }

    /// Resources in the order in which they must be applied.
    pub fn iter(&self) -> impl Iterator<Item = (ResourceKind, &str, &Bytes)> {
        ResourceKind::ALL.into_iter().flat_map(|kind| {
            self.resources
                .iter()
                .filter(move |((of, _), _)| *of == kind)
                .map(move |((_, name), value)| (kind, &**name, value))
        })
    }

    /// Reads a file; one that is not there or not readable is none: the control plane will tell.
    pub fn read(path: &Path) -> Self {
        let mut snapshot = Snapshot::default();
        let Ok(bytes) = fs::read(path) else { return snapshot };
        match DeltaDiscoveryResponse::decode(&*bytes) {
            Ok(file) => {
                for resource in file.resources {
                    let any = resource.resource.unwrap_or_default();
                    if let Some(kind) = kind_of(&any.type_url) {
                        snapshot.set(kind, resource.name, any.value);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, path = %path.display(), "the kept configuration is unreadable"),
        }
        snapshot
    }

    /// Writes the file whole or not at all.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let resource = |(kind, name, value): (ResourceKind, &str, &Bytes)| Resource {
            version: String::new(),
            resource: Some(Any { type_url: type_url(kind).to_owned(), value: value.clone() }),
            name: name.to_owned(),
        };
        let file = DeltaDiscoveryResponse { resources: self.iter().map(resource).collect(), ..Default::default() };
        let temporary = path.with_extension("tmp");
        let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        out.write_all(&file.encode_to_vec())?;
        fs::rename(&temporary, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_in_the_order_of_application() {
        let path = std::env::temp_dir().join(format!("diolkos-snapshot-{}", std::process::id()));
        let mut snapshot = Snapshot::default();
        snapshot.set(ResourceKind::Route, "a/r".into(), Bytes::from_static(b"1"));
        snapshot.set(ResourceKind::TrustBundle, "cluster.local".into(), Bytes::from_static(b"2"));
        snapshot.write(&path).unwrap();
        let read = Snapshot::read(&path);
        let names: Vec<&str> = read.iter().map(|(_, name, _)| name).collect();
        assert_eq!(names, ["cluster.local", "a/r"]);
        assert_eq!(read.others(ResourceKind::Route, |name| name == "a/r"), Vec::<String>::new());
        assert_eq!(read.others(ResourceKind::Route, |_| false), ["a/r"]);
        fs::write(&path, b"\xff\xff").unwrap();
        assert_eq!(Snapshot::read(&path).iter().count(), 0);
        fs::remove_file(&path).unwrap();
    }
}

//! Writes what discovery and OpenAPI answer into a folder, one file for each path, to try clients against without a cluster.

use diolkos_kube::{Registry, discovery, openapi};
use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).expect("usage: documents <folder>");
    let registry = Registry::builtin();
    let write = |path: &str, value: &serde_json::Value| -> std::io::Result<()> {
        let file = Path::new(&folder).join(format!("{}.json", path.replace('/', "_")));
        std::fs::write(file, value.to_string())
    };
    write("api", &discovery::aggregated(&registry, true))?;
    write("apis", &discovery::aggregated(&registry, false))?;
    write("openapi/v2", &openapi::v2(&registry))?;
    write("openapi/v3", &openapi::index(&registry))?;
    for group in registry.groups() {
        for version in &group.versions {
            let path = openapi::path_of(&group.name, &version.name);
            if let Some(list) = discovery::resources(&registry, &group.name, &version.name) {
                write(&path, &list)?;
            }
            if let Some(document) = openapi::v3(&registry, &group.name, &version.name) {
                write(&format!("openapi/v3/{path}"), &document)?;
            }
        }
    }
    Ok(())
}

//! A disk that fills up: the write that does not fit is refused with 507, reads go on, nothing that was acknowledged is lost, and writes go on
//! as soon as there is room, before and after a restart.

use bytes::Bytes;
use client::{HttpsApi, ListOptions, ObjectApi, Resource};
use e2e::{Check, Runner, Server, platform, shell};
use std::path::Path;
use std::process::{Command, ExitCode};

const MAPS: Resource = Resource { group: "", version: "v1", plural: "configmaps" };
const PORT: u16 = 16_454;
/// Bytes of one object's value.
const VALUE: usize = 256 << 10;
/// More objects than the disk holds.
const MORE_THAN_FIT: usize = 400;

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    let name = "full disk::a write is refused, nothing is lost, and it goes on when there is room";
    match platform::binary("DIOLKOS_BIN") {
        None => runner.skip(name, "DIOLKOS_BIN does not name the binary; run it with `cargo xtask test --only e2e`"),
        Some(_) if !platform::is_root() => runner.skip(name, "mounting a small disk needs root"),
        Some(binary) => {
            _ = runner.check(name, || {
                let disk = Disk::mount()?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map_err(|error| error.to_string())?.block_on(run(&binary, &disk))
            })
        }
    }
    runner.finish()
}

/// A memory file system of a fixed size, unmounted when dropped.
struct Disk {
    dir: std::path::PathBuf,
}

impl Disk {
    fn mount() -> Check<Disk> {
        let dir = std::env::temp_dir().join(format!("diolkos-full-disk-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        shell::run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(&dir), None).ok()?;
        Ok(Disk { dir })
    }

    fn resize(&self, size: &str) -> Check {
        shell::run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.dir), None)
            .ok()
            .map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.dir).status();
        let _ = std::fs::remove_dir(&self.dir);
    }
}

async fn run(binary: &Path, disk: &Disk) -> Check {
    let mut server = Server::start(binary, &disk.dir, PORT)?;
    let api = server.ready().await?;
    let fitted = fill(&api).await?;
    println!("    {fitted} objects of {VALUE} bytes fitted");
    there(&api, fitted).await.map_err(|why| format!("with the disk full: {why}"))?;
    server.kill();
    let mut server = Server::start(binary, &disk.dir, PORT)?;
    let api = server.ready().await.map_err(|why| format!("restarted with the disk full: {why}"))?;
    there(&api, fitted).await.map_err(|why| format!("restarted with the disk full: {why}"))?;
    disk.resize("64m")?;
    create(&api, fitted).await.map_err(|error| format!("with room again: {error}"))?;
    server.kill();
    let mut server = Server::start(binary, &disk.dir, PORT)?;
    there(&server.ready().await?, fitted + 1).await.map_err(|why| format!("restarted with room: {why}"))
}

/// Creates objects until one is refused; how many were acknowledged.
async fn fill(api: &HttpsApi) -> Check<usize> {
    for n in 0..MORE_THAN_FIT {
        match create(api, n).await {
            Ok(()) => {}
            Err(error) if error.code == 507 && n > 0 => return Ok(n),
            Err(error) => return Err(format!("object {n} was refused with {} {}: {error}", error.code, error.reason)),
        }
    }
    Err(format!("{MORE_THAN_FIT} objects of {VALUE} bytes fitted"))
}

async fn create(api: &HttpsApi, n: usize) -> Result<(), client::ApiError> {
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("fill-{n}"), "labels": {"fill": "yes"}},
        "data": {"n": n.to_string(), "filler": "x".repeat(VALUE)},
    });
    api.create(MAPS, "default", None, Bytes::from(object.to_string())).await.map(drop)
}

/// Exactly the first `count` objects are there, whole.
async fn there(api: &HttpsApi, count: usize) -> Check {
    let options = ListOptions {
        namespace: Some("default".into()),
        label_selector: Some("fill=yes".into()),
        field_selector: None,
    };
    let list = api.list(MAPS, options).await.map_err(|error| error.to_string())?;
    let mut numbers = Vec::new();
    for item in &list.items {
        let value: serde_json::Value = serde_json::from_slice(item).map_err(|error| error.to_string())?;
        if value["data"]["filler"].as_str().map(str::len) != Some(VALUE) {
            return Err(format!("{} is not whole", value["metadata"]["name"]));
        }
        numbers.push(value["data"]["n"].as_str().and_then(|text| text.parse::<usize>().ok()).unwrap_or(usize::MAX));
    }
    numbers.sort_unstable();
    if numbers.iter().copied().eq(0..count) {
        Ok(())
    } else {
        Err(format!("{count} objects were acknowledged, {} are there", numbers.len()))
    }
}

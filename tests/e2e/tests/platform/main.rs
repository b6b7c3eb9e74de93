//! One platform, driven by the clients that people have: kubectl, Helm, the Python client, a browser.

mod bad_input;
mod dashboard;
mod helm;
mod istio;
mod kubectl;
mod mesh;
mod operations;
mod pods;
mod python;
mod resilience;
mod traffic_policy;
mod workloads;

use e2e::{Platform, Runner};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    if let Some(why) = e2e::platform::obstacle() {
        runner.skip("platform", &why);
        return runner.finish();
    }
    let mut platform = match Platform::start() {
        Ok(platform) => platform,
        Err(why) => {
            runner.always("platform::starts", || Err(why));
            return runner.finish();
        }
    };
    runner.always("images::load", || {
        let bookstore = e2e::platform::binary("BOOKSTORE_BIN").ok_or("no bookstore")?;
        platform.load_image(&bookstore, "bookstore:v1")?;
        platform.load_image(Path::new("/bin/busybox"), "toolbox:v1")?;
        let images = platform.diolkos(&["image", "list"]).ok()?;
        e2e::contains(&images, &["bookstore:v1", "toolbox:v1"])
    });
    kubectl::run(&mut runner, &platform);
    pods::run(&mut runner, &platform);
    workloads::run(&mut runner, &platform);
    helm::run(&mut runner, &platform);
    python::run(&mut runner, &platform);
    bad_input::run(&mut runner, &platform);
    mesh::run(&mut runner, &platform);
    dashboard::run(&mut runner, &platform);
    resilience::run(&mut runner, &mut platform);
    runner.always("platform::stops in order", || platform.stop());
    runner.finish()
}

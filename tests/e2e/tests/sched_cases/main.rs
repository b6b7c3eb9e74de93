//! Scheduling cases through the platform's API: a control plane without node agents, nodes as API objects. Each case says what
//! kube-scheduler does; `tests/e2e/cases` has ours, `DIOLKOS_SCHED_CASES` names more directories (separated by `:`) of cases of that form.
//! `DIOLKOS_SCHED_CONTROLLERS` says which controllers run beside (as `diolkos server --controllers`): cases that were recorded from a scheduler
//! alone have taints and owners that a whole control plane acts on.

/// One home for what the cases expect: the test that plays them without I/O.
#[path = "../../../../sim/tests/sched_cases/expect.rs"]
mod expect;
mod world;

use e2e::{Runner, Server, platform};
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;

const PORT: u16 = 16_464;

fn files() -> Vec<PathBuf> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cases");
    let more = std::env::var("DIOLKOS_SCHED_CASES").unwrap_or_default();
    let directories = more.split(':').filter(|part| !part.is_empty()).map(PathBuf::from);
    let mut files: Vec<PathBuf> = std::iter::once(own)
        .chain(directories)
        .flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files
}

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    let Some(binary) = platform::binary("DIOLKOS_BIN") else {
        runner.skip("sched_cases", "DIOLKOS_BIN does not name the binary; run it with `cargo xtask test --only e2e`");
        return runner.finish();
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let dir = std::env::temp_dir().join(format!("diolkos-sched-cases-{}", std::process::id()));
    let mut started = None;
    runner.always("sched_cases::a control plane comes up", || {
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let controllers = std::env::var("DIOLKOS_SCHED_CONTROLLERS").ok();
        let settings: Vec<String> = controllers.iter().map(|list| format!("--controllers={list}")).collect();
        let mut server = Server::start_with(&binary, &dir, PORT, &settings)?;
        let api = runtime.block_on(server.ready())?;
        started = Some((server, api));
        Ok(())
    });
    if let Some((_server, api)) = &started {
        for path in files() {
            let name = format!("sched_cases::{}", path.file_stem().unwrap_or_default().to_string_lossy());
            runner.check(&name, || {
                let text = std::fs::read(&path).map_err(|error| error.to_string())?;
                let case: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
                runtime.block_on(world::play(api, &case))
            });
        }
    }
    drop(started);
    let _ = std::fs::remove_dir_all(&dir);
    runner.finish()
}

//! Processes on machines that are no nodes: what the mesh gives them, and what they do not notice. A control plane alone, and hosts in network
//! namespaces of their own.

use e2e::network::Network;
use e2e::{Check, Runner, Server, contains, eventually, platform, shell, spiffe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

const PORT: u16 = 16_500;
const MESH_PORT: u16 = PORT + 2;
const PATIENCE: Duration = Duration::from_secs(20);
/// Somebody who may have the host's identity, and somebody who may not.
const FRIEND: u32 = 4711;
const STRANGER: u32 = 4712;

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    let identity = "joined::applications of a host get its identity, and nobody else's";
    let binary = match (platform::binary("DIOLKOS_BIN"), platform::is_root()) {
        (Some(binary), true) => binary,
        (None, _) => {
            runner.skip(identity, "DIOLKOS_BIN does not name the binary; run it with `cargo xtask test --only e2e`");
            return runner.finish();
        }
        _ => {
            runner.skip(identity, "needs root, for network namespaces");
            return runner.finish();
        }
    };
    let world = match World::start(&binary) {
        Ok(world) => world,
        Err(why) => {
            runner.always("joined::a control plane to ask", || Err(why));
            return runner.finish();
        }
    };
    match spiffe::python() {
        Some(python) => drop(runner.check(identity, || world.identity(&python))),
        None => runner.skip(identity, "PYTHON names no Python with spiffe"),
    }
    runner.finish()
}

/// A control plane.
struct World {
    binary: PathBuf,
    dir: PathBuf,
    _server: Server,
}

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A host that has joined.
struct Host {
    dir: PathBuf,
    _join: Running,
    _network: Network,
}

impl World {
    fn start(binary: &Path) -> Check<World> {
        let dir = std::env::temp_dir().join(format!("diolkos-joined-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let mut server = Server::start_with(binary, &dir, PORT, &["--log=info".to_owned()])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(server.ready())?;
        Ok(World { binary: binary.to_owned(), dir, _server: server })
    }

    fn join(&self, service: &str, port: u16, net: u8, more: &[String]) -> Check<Host> {
        let network = Network::new(&format!("dk-j{net}"), net)?;
        let dir = self.dir.join(service);
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let log = std::fs::File::create(dir.join("log")).map_err(|error| error.to_string())?;
        let own = format!("--data-dir={}", self.dir.display());
        let token = shell::run(Command::new(&self.binary).args(["token", "create", &own]), None).ok()?;
        let mut join = network.inside();
        join.arg(&self.binary).args(["join", &format!("--service={service}"), &format!("--port={port}")]);
        join.arg(format!("--address={}", network.address()));
        join.arg(format!("--control={}:{MESH_PORT}", network.outside()));
        join.arg(format!("--ca={}", self.dir.join("pki/ca.crt").display()));
        join.args([format!("--data-dir={}", dir.display()), format!("--run-dir={}", dir.join("run").display())]);
        join.arg(format!("--node-name=host{net}")).args(more).env("DIOLKOS_JOIN_TOKEN", token.trim());
        let out = log.try_clone().map_err(|error| error.to_string())?;
        let child = join.stdin(Stdio::null()).stdout(out).stderr(log).spawn().map_err(|error| error.to_string())?;
        Ok(Host { dir, _join: Running(child), _network: network })
    }

    fn identity(&self, python: &Path) -> Check {
        let host = self.join("inventory", 9090, 247, &[format!("--workload-api-users={FRIEND}")])?;
        let socket = host.dir.join("run/join/workload-api/api.sock");
        eventually(PATIENCE, || {
            if socket.exists() { Ok(()) } else { Err(format!("no {}: {}", socket.display(), host.log())) }
        })?;
        contains(&host.log(), &["joined as host/default/inventory-host247", &format!("unix://{}", socket.display())])?;
        let own = "spiffe://cluster.local/ns/default/sa/inventory";
        let mut asked = Command::new(python);
        asked.args(["-c", spiffe::SCRIPT, own]);
        asked.env("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", socket.display()));
        let said = shell::run(&mut asked, None).ok().map_err(|why| format!("{why}\n{}", host.log()))?;
        contains(&said, &["all good"])?;
        // 12: there is no such method; 7: it may not ask.
        contains(&status_for(FRIEND, &socket)?, &["grpc-status: 12"])?;
        contains(&status_for(STRANGER, &socket)?, &["grpc-status: 7", "no%20identity%20issued"])?;
        contains(&host.log(), &[&format!("user {STRANGER} ")])
    }
}

impl Host {
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        text[text.len().saturating_sub(2_000)..].to_owned()
    }
}

/// What a user's process is answered that calls a method which there is not.
fn status_for(user: u32, socket: &Path) -> Check<String> {
    let mut call = Command::new("setpriv");
    call.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "curl", "-sS", "-m", "5"]);
    call.args(["-o", "/dev/null", "-D", "-", "--http2-prior-knowledge", "-H", "content-type: application/grpc"]);
    call.args(["-H", "workload.spiffe.io: true", "--data-raw", "", "--unix-socket"]).arg(socket);
    shell::run(call.arg("http://localhost/SpiffeWorkloadAPI/Nothing"), None).ok()
}

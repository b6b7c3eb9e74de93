//! Processes on machines that are no nodes: what the mesh gives them, and what they do not notice. A control plane alone, and hosts in network
//! namespaces of their own.

use client::{HttpsApi, ObjectApi, Resource};
use e2e::network::Network;
use e2e::{Check, Runner, Server, contains, eventually, platform, shell, spiffe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 16_500;
const MESH_PORT: u16 = PORT + 2;
const PATIENCE: Duration = Duration::from_secs(20);
const SLICES: Resource = Resource { group: "discovery.k8s.io", version: "v1", plural: "endpointslices" };
/// How long the load lasts, and when the proxies of the two hosts are replaced meanwhile.
const SECONDS: u32 = 20;
const UPGRADES: [(&str, u64); 3] = [("ratings", 3), ("caller", 7), ("ratings", 11)];
/// How long certificates live; when the control plane goes away after hosts have joined, before the first is renewed, and for how long; how long
/// the load lasts that notices nothing: longer than what the hosts were given at first.
const CERTIFICATE_S: u64 = 30;
const GOES_S: u64 = 12;
const AWAY_S: u64 = 10;
const LOAD_S: u32 = 34;
/// What is asked and how, and requests a second.
const LOADS: [(&str, &str, u32); 4] = [
    ("http1", "http://ratings.default.svc.cluster.local:9090/stars", 60),
    ("http2", "http://ratings.default.svc.cluster.local:9090/stars", 40),
    ("grpc", "http://ratings.default.svc.cluster.local:9090/", 40),
    ("stream", "http://ratings.default.svc.cluster.local:9090/", 20),
];
/// Somebody who may have the host's identity, and somebody who may not.
const FRIEND: u32 = 4711;
const STRANGER: u32 = 4712;

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    let identity = "joined::applications of a host get its identity, and nobody else's";
    let upgrade = "joined::no request fails while the proxies of hosts are replaced";
    let again = "joined::a host goes on with what it was given, without a token";
    let away = "joined::hosts serve on while the control plane is away for a third of their certificates' lives";
    let names = [identity, upgrade, again, away];
    let skip = |mut runner: Runner, why: &str| {
        names.iter().for_each(|name| runner.skip(name, why));
        runner.finish()
    };
    let binary = match (platform::binary("DIOLKOS_BIN"), platform::is_root()) {
        (Some(binary), true) => binary,
        (None, _) => {
            return skip(runner, "DIOLKOS_BIN does not name the binary; run it with `cargo xtask test --only e2e`");
        }
        _ => return skip(runner, "needs root, for network namespaces"),
    };
    let mut world = match World::start(&binary) {
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
    runner.check(again, || world.again());
    match platform::binary("BOOKSTORE_BIN") {
        Some(bookstore) => {
            runner.check(upgrade, || world.upgrade(&bookstore));
            runner.check(away, || world.away(&bookstore));
        }
        None => {
            for name in [upgrade, away] {
                runner.skip(name, "BOOKSTORE_BIN does not name the bookstore");
            }
        }
    }
    runner.finish()
}

/// A control plane.
struct World {
    binary: PathBuf,
    dir: PathBuf,
    api: HttpsApi,
    runtime: tokio::runtime::Runtime,
    server: Server,
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
    join: Running,
    network: Network,
}

impl World {
    fn start(binary: &Path) -> Check<World> {
        let dir = std::env::temp_dir().join(format!("diolkos-joined-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let mut server = Self::control(binary, &dir)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let api = runtime.block_on(server.ready())?;
        Ok(World { binary: binary.to_owned(), dir, api, runtime, server })
    }

    fn control(binary: &Path, dir: &Path) -> Check<Server> {
        Server::start_with(binary, dir, PORT, &[format!("--workload-cert-ttl-s={CERTIFICATE_S}")])
    }

    /// A host on a network of its own joins with a token of its own.
    fn join(&self, service: &str, port: u16, net: u8, more: &[String]) -> Check<Host> {
        let network = Network::new(&format!("dk-j{net}"), net)?;
        let own = format!("--data-dir={}", self.dir.display());
        let token = shell::run(Command::new(&self.binary).args(["token", "create", &own]), None).ok()?;
        self.join_from(network, service, port, &[more, &[format!("--token={}", token.trim())]].concat())
    }

    fn join_from(&self, network: Network, service: &str, port: u16, more: &[String]) -> Check<Host> {
        let dir = self.dir.join(service);
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let log = std::fs::File::create(dir.join("log")).map_err(|error| error.to_string())?;
        let mut join = network.inside();
        join.arg(&self.binary).args(["join", &format!("--service={service}"), &format!("--port={port}")]);
        join.arg(format!("--address={}", network.address()));
        join.arg(format!("--control={}:{MESH_PORT}", network.outside()));
        join.arg(format!("--ca={}", self.dir.join("pki/ca.crt").display()));
        join.args([format!("--data-dir={}", dir.display()), format!("--run-dir={}", dir.join("run").display())]);
        join.arg(format!("--node-name={service}-host")).args(more);
        let out = log.try_clone().map_err(|error| error.to_string())?;
        let child = join.stdin(Stdio::null()).stdout(out).stderr(log).spawn().map_err(|error| error.to_string())?;
        Ok(Host { dir, join: Running(child), network })
    }

    fn identity(&self, python: &Path) -> Check {
        let host = self.join("inventory", 9090, 247, &[format!("--workload-api-users={FRIEND}")])?;
        let socket = host.dir.join("run/join/workload-api/api.sock");
        eventually(PATIENCE, || {
            if socket.exists() { Ok(()) } else { Err(format!("no {}: {}", socket.display(), host.log())) }
        })?;
        contains(
            &host.log(),
            &["joined as host/default/inventory-inventory-host", &format!("unix://{}", socket.display())],
        )?;
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

impl World {
    /// The proxies of both are replaced, and who called and who was called notices nothing.
    fn upgrade(&self, bookstore: &Path) -> Check {
        let pair = self.pair(bookstore, 1)?;
        let Pair { ratings, caller, .. } = &pair;
        let told = |why: String| pair.told(&why);
        let loads = pair.loads(bookstore, SECONDS)?;
        let begun = Instant::now();
        for (name, at) in UPGRADES {
            let host = if name == "ratings" { ratings } else { caller };
            std::thread::sleep(Duration::from_secs(at).saturating_sub(begun.elapsed()));
            let before = host.proxies()?;
            let run_dir = format!("--run-dir={}", host.dir.join("run").display());
            shell::run(Command::new(&self.binary).args(["proxy", "upgrade", &run_dir]), None).ok().map_err(told)?;
            if host.proxies()?.last() == before.last() {
                return Err(told(format!("{name}: no other proxy serves than {before:?}")));
            }
        }
        let requests = pair.finish(loads, SECONDS)?;
        println!(
            "    {requests} requests from host to host, none failed, while their proxies were replaced three times"
        );
        for host in [ratings, caller] {
            eventually(Duration::from_secs(40), || match host.proxies()?.as_slice() {
                [_] => Ok(()),
                several => Err(told(format!("the proxies {several:?} run"))),
            })?;
        }
        Ok(())
    }

    /// The control plane is killed and comes back: certificates are renewed, later than they would have been.
    fn away(&mut self, bookstore: &Path) -> Check {
        let pair = self.pair(bookstore, 2)?;
        let loads = pair.loads(bookstore, LOAD_S)?;
        std::thread::sleep(Duration::from_secs(GOES_S).saturating_sub(pair.joined.elapsed()));
        self.server.kill();
        std::thread::sleep(Duration::from_secs(AWAY_S));
        self.server = Self::control(&self.binary, &self.dir)?;
        let requests = pair.finish(loads, LOAD_S)?;
        if pair.joined.elapsed() < Duration::from_secs(CERTIFICATE_S) {
            return Err("the load ended before the certificates".into());
        }
        println!(
            "    {requests} requests from host to host, none failed, while the control plane was away for {AWAY_S} s"
        );
        Ok(())
    }

    /// Two hosts, of which one can call the other, in all protocols.
    fn pair(&self, bookstore: &Path, number: u8) -> Check<Pair> {
        let ratings = self.join("ratings", 9090, 232 + 2 * number, &[])?;
        let caller = self.join("caller", 9091, 233 + 2 * number, &[])?;
        let joined = Instant::now();
        let mut serves = ratings.network.inside();
        serves.arg(bookstore).arg("ratings").env("PORT", "9090").env("BIND", "127.0.0.1");
        let pair = Pair { _serves: start(&mut serves)?, ratings, caller, joined };
        for load in LOADS {
            eventually(PATIENCE, || {
                load_of(bookstore, &pair.caller, load, 1)?.0.wait().map_err(|error| error.to_string())?;
                outcome_of(&pair.caller, load.0).and_then(|(all, failed)| match (all, failed.first()) {
                    (_, Some(first)) => Err(first.clone()),
                    (0, None) => Err("nothing was asked".into()),
                    _ => Ok(()),
                })
            })
            .map_err(|why| pair.told(&format!("{}: {why}", load.0)))?;
        }
        Ok(pair)
    }

    /// Started again without a token it is the same host. A second one beside it, or another service, it is not.
    fn again(&self) -> Check {
        let first = self.join("again", 9092, 246, &[])?;
        self.ready("again-again-host").map_err(|why| format!("{why}\n{}", first.log()))?;
        let command = |more: &[&str]| {
            let mut join = first.network.inside();
            join.arg(&self.binary).args(["join", "--port=9092", "--node-name=again-host"]);
            join.arg(format!("--address={}", first.network.address()));
            join.arg(format!("--control={}:{MESH_PORT}", first.network.outside()));
            join.arg(format!("--data-dir={}", first.dir.display())).args(more);
            join
        };
        let run_dir = format!("--run-dir={}", first.dir.join("run").display());
        let second = shell::run(&mut command(&["--service=again", &run_dir]), None).refused()?;
        contains(&second, &["runs already", "proxy upgrade"])?;
        let other = format!("--run-dir={}", first.dir.join("other").display());
        contains(&shell::run(&mut command(&["--service=other", &other]), None).refused()?, &["token create"])?;
        let Host { join, network, .. } = first;
        // Killed without a word: its proxy lets go of the machine by itself, and must not do so when the next one has taken it.
        drop(join);
        let again = self.join_from(network, "again", 9092, &[])?;
        eventually(PATIENCE, || contains(&again.log(), &["Ready: calls of again.default"]))?;
        self.ready("again-again-host").map_err(|why| format!("{why}\n{}", again.log()))?;
        let rules = shell::run(again.network.inside().args(["nft", "list", "tables"]), None).ok()?;
        contains(&rules, &["diolkos"])
    }

    fn ready(&self, slice: &str) -> Check {
        eventually(PATIENCE, || {
            let got =
                self.runtime.block_on(self.api.get(SLICES, "default", slice)).map_err(|error| error.to_string())?;
            contains(&String::from_utf8_lossy(&got), &["\"ready\":true"])
        })
    }
}

/// Two hosts, of which one calls the other.
struct Pair {
    ratings: Host,
    caller: Host,
    joined: Instant,
    _serves: Running,
}

impl Pair {
    fn told(&self, why: &str) -> String {
        format!("{why}\n--- ratings\n{}--- caller\n{}", self.ratings.log(), self.caller.log())
    }

    fn loads(&self, bookstore: &Path, seconds: u32) -> Check<Vec<Running>> {
        LOADS.into_iter().map(|load| load_of(bookstore, &self.caller, load, seconds)).collect()
    }

    /// Waits for the end of all loads: how many requests there were, none of which failed.
    fn finish(&self, loads: Vec<Running>, seconds: u32) -> Check<usize> {
        let (mut requests, mut failures) = (0, Vec::new());
        for ((name, ..), mut running) in LOADS.into_iter().zip(loads) {
            running.0.wait().map_err(|error| error.to_string())?;
            let (count, failed) = outcome_of(&self.caller, name)?;
            requests += count;
            failures.extend(failed.into_iter().map(|line| format!("{name}: {line}")));
        }
        if !failures.is_empty() {
            let shown: Vec<&str> = failures.iter().take(8).map(String::as_str).collect();
            let why = format!("{} of {requests} requests failed:\n{}", failures.len(), shown.join("\n"));
            return Err(self.told(&why));
        }
        let wanted = LOADS.iter().map(|load| load.2).sum::<u32>() * seconds;
        if requests < wanted as usize * 8 / 10 {
            return Err(format!("only {requests} of {wanted} requests were sent"));
        }
        Ok(requests)
    }
}

fn start(command: &mut Command) -> Check<Running> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.map(Running).map_err(|error| error.to_string())
}

fn output_of(host: &Host, name: &str) -> PathBuf {
    host.dir.join(format!("{name}.jsonl"))
}

/// Asks from a host.
fn load_of(bookstore: &Path, host: &Host, load: (&str, &str, u32), seconds: u32) -> Check<Running> {
    let (protocol, url, rate) = load;
    let mut command = host.network.inside();
    command.arg(bookstore).args(["load", "--protocol", protocol, "--url", url, "--rate", &rate.to_string()]);
    command.args(["--seconds", &seconds.to_string(), "--output"]).arg(output_of(host, protocol));
    start(&mut command)
}

/// Requests, and those of them that failed.
fn outcome_of(host: &Host, name: &str) -> Check<(usize, Vec<String>)> {
    let text = std::fs::read_to_string(output_of(host, name)).map_err(|error| error.to_string())?;
    let failed = text.lines().filter(|line| line.contains("\"error\"")).map(str::to_owned);
    Ok((text.lines().count(), failed.collect()))
}

impl Host {
    /// Its proxies, the one that serves last.
    fn proxies(&self) -> Check<Vec<u32>> {
        let parent = self.join.0.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.map_err(|error| error.to_string())?;
        Ok(children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
    }

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

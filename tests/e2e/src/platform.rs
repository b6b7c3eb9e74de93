//! A platform of the tests' own: `diolkos up` with directories and ports of its own.

use crate::shell::{Check, Ran, eventually, run};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Ports that differ from the defaults, so that a platform of the user's own is left alone.
pub const API: u16 = 16443;
pub const DASHBOARD: u16 = 17070;
const NODE: u16 = 20250;
pub const MESH: u16 = 25012;
pub const PROXY_ADMIN: u16 = 25020;

/// A running platform.
pub struct Platform {
    pub dir: PathBuf,
    run_dir: PathBuf,
    up: Option<Child>,
    /// How long it took from start to Ready.
    pub ready_after: Duration,
}

/// What the environment must name (`cargo xtask test` does).
pub fn binary(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists())
}

/// Whether this process may mount, make network namespaces and the like.
pub fn is_root() -> bool {
    run(Command::new("id").arg("-u"), None).stdout.trim() == "0"
}

/// Why the platform cannot run here, if it cannot.
pub fn obstacle() -> Option<String> {
    if !is_root() {
        return Some("needs root (network namespaces, cgroups, mounts)".into());
    }
    for (variable, what) in [("DIOLKOS_BIN", "the binary"), ("KUBECTL", "kubectl"), ("BOOKSTORE_BIN", "the bookstore")]
    {
        if binary(variable).is_none() {
            return Some(format!("{variable} does not name {what}; run it with `cargo xtask test --only e2e`"));
        }
    }
    let program = |name: &str| run(Command::new("sh").args(["-c", &format!("command -v {name}")]), None).ok;
    let missing: Vec<&str> = ["containerd", "runc", "nft", "ip"].into_iter().filter(|name| !program(name)).collect();
    (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
}

impl Platform {
    /// Starts it on an empty directory.
    pub fn start() -> Check<Platform> {
        let dir = PathBuf::from("/var/lib/diolkos-e2e");
        let run_dir = PathBuf::from("/run/diolkos-e2e");
        let mut platform = Platform { dir, run_dir, up: None, ready_after: Duration::ZERO };
        platform.diolkos(&["reset"]).ok()?;
        platform.up()?;
        Ok(platform)
    }

    /// Starts `diolkos up` on whatever the directory holds, and waits until it says that it is ready.
    pub fn up(&mut self) -> Check {
        let begun = Instant::now();
        let mut command = self.diolkos_command();
        command.arg("up").args([
            format!("--api-listen=0.0.0.0:{API}"),
            format!("--dashboard-listen=127.0.0.1:{DASHBOARD}"),
            format!("--node-listen=0.0.0.0:{NODE}"),
            format!("--mesh-listen=0.0.0.0:{MESH}"),
            format!("--proxy-admin=127.0.0.1:{PROXY_ADMIN}"),
            "--node-name=e2e".into(),
            "--scrape-s=1".into(),
            "--access-log=true".into(),
        ]);
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        self.up = Some(child);
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                println!("  | {line}");
                if line.starts_with("Ready after") {
                    let _ = ready.send(());
                }
            }
        });
        if is_ready.recv_timeout(Duration::from_secs(90)).is_err() {
            return Err(format!("the platform did not become ready:\n{}", self.logs()));
        }
        self.ready_after = begun.elapsed();
        Ok(())
    }

    /// The ends of all logs, for a failing test.
    pub fn logs(&self) -> String {
        let log = |name: &str| {
            let text = fs::read_to_string(self.dir.join("logs").join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        ["server", "node", "proxy", "containerd"].map(log).concat()
    }

    fn diolkos_command(&self) -> Command {
        let mut command = Command::new(binary("DIOLKOS_BIN").unwrap_or_else(|| "diolkos".into()));
        command.arg(format!("--data-dir={}", self.dir.display())).arg(format!("--run-dir={}", self.run_dir.display()));
        command
    }

    /// The platform's own command line.
    pub fn diolkos(&self, arguments: &[&str]) -> Ran {
        run(self.diolkos_command().args(arguments), None)
    }

    /// kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// A client with the administrator's kubeconfig.
    pub fn client(&self, variable: &str) -> Command {
        let mut command = Command::new(binary(variable).unwrap_or_else(|| variable.to_lowercase().into()));
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.dir);
        command
    }

    /// kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Ran {
        run(self.client("KUBECTL").args(arguments), None)
    }

    /// kubectl with something on its standard input.
    pub fn kubectl_in(&self, arguments: &[&str], input: &str) -> Ran {
        run(self.client("KUBECTL").args(arguments), Some(input))
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, manifest: &str) -> Check<String> {
        self.kubectl_in(&["apply", "-f", "-"], manifest).ok()
    }

    /// A namespace for one test, gone afterwards.
    pub fn in_namespace(&self, name: &str, test: impl FnOnce(&str) -> Check) -> Check {
        self.kubectl(&["create", "namespace", name]).ok()?;
        let outcome = test(name);
        if outcome.is_err() {
            let pods = self.kubectl(&["-n", name, "get", "pods,events", "-o", "wide"]).stdout;
            return outcome.map_err(|why| format!("{why}\n{pods}\n{}", self.logs()));
        }
        self.kubectl(&["delete", "namespace", name, "--timeout=60s"]).ok().map(drop)
    }

    /// The process id of a role.
    pub fn role_pid(&self, role: &str) -> Check<u32> {
        self.role_pids(role)?.last().copied().ok_or_else(|| format!("there is no {role} process"))
    }

    /// The process ids of a role, a replaced one's that finishes what it has among them, in the order of their starts.
    pub fn role_pids(&self, role: &str) -> Check<Vec<u32>> {
        let parent = self.up.as_ref().map(Child::id).ok_or("the platform is down")?;
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).map_err(|e| e.to_string())?;
        let is_role = |pid: &u32| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            cmdline.split(|byte| *byte == 0).nth(1).is_some_and(|word| word == role.as_bytes())
        };
        Ok(children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(is_role).collect())
    }

    /// Kills a role without warning and waits until another process has taken its place.
    pub fn kill_role(&self, role: &str) -> Check {
        let before = self.role_pid(role)?;
        run(Command::new("kill").args(["-KILL", &before.to_string()]), None).ok()?;
        eventually(Duration::from_secs(20), || match self.role_pid(role) {
            Ok(pid) if pid != before => Ok(()),
            _ => Err(format!("{role} was not started again")),
        })
    }

    /// Ctrl-C.
    pub fn stop(&mut self) -> Check {
        let Some(mut up) = self.up.take() else { return Ok(()) };
        run(Command::new("kill").args(["-INT", &up.id().to_string()]), None).ok()?;
        let status = up.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("`up` ended with {status}")) }
    }

    /// Makes an image of one static binary and loads it.
    pub fn load_image(&self, binary: &Path, name: &str) -> Check {
        let archive = self.dir.join("image.tar").to_string_lossy().into_owned();
        let source = format!("--binary={}", binary.display());
        self.diolkos(&["image", "build", &source, &format!("--name={name}"), &format!("--output={archive}")]).ok()?;
        self.diolkos(&["image", "load", &archive]).ok().map(drop)
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

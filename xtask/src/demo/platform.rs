//! The platform as the demo sees it: a process, kubectl, and a machine beside it that is no node.

use super::Built;
use crate::sh::{self, Result};
use crate::tools::Tools;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A running platform.
pub struct Platform {
    pub diolkos: PathBuf,
    kubectl: PathBuf,
    data_dir: PathBuf,
    run_dir: PathBuf,
    up: Option<Child>,
    /// Processes of the machine beside the pool.
    guests: Vec<Child>,
    /// From the start of the binary to Ready.
    pub ready_s: f64,
}

impl Platform {
    /// Starts `diolkos up` on an empty data directory and waits until it says that it is ready.
    pub fn start(built: &Built, tools: &Tools, data_dir: &Path) -> Result<Platform> {
        let run_dir = PathBuf::from("/run/diolkos-demo");
        let dirs = [format!("--data-dir={}", data_dir.display()), format!("--run-dir={}", run_dir.display())];
        sh::output(Command::new(&built.diolkos).arg("reset").args(&dirs))?;
        println!("\nstarting the platform");
        let begun = Instant::now();
        let mut up = Command::new(&built.diolkos)
            .arg("up")
            .args(&dirs)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", built.diolkos.display()))?;
        let stdout = up.stdout.take().ok_or("the platform has no standard output")?;
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                println!("  {line}");
                if line.starts_with("Ready after") {
                    let _ = ready.send(());
                }
            }
        });
        let mut platform = Platform {
            diolkos: built.diolkos.clone(),
            kubectl: tools.kubectl.clone(),
            data_dir: data_dir.to_path_buf(),
            run_dir,
            up: Some(up),
            guests: Vec::new(),
            ready_s: 0.0,
        };
        if is_ready.recv_timeout(Duration::from_secs(90)).is_err() {
            platform.stop()?;
            return Err("the platform did not become ready; its logs are in the data directory".into());
        }
        platform.ready_s = begun.elapsed().as_secs_f64();
        Ok(platform)
    }

    /// kubectl as the administrator, in the bookstore's namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with_input(arguments, None)
    }

    /// The same with something on standard input.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        command.arg(format!("--kubeconfig={}", self.data_dir.join("admin.kubeconfig").display()));
        command.args(["--namespace=bookstore"]).args(arguments);
        sh::output_with_input(&mut command, input)
    }

    /// The platform's own commands.
    pub fn diolkos(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.diolkos);
        command.args(arguments).arg(format!("--data-dir={}", self.data_dir.display()));
        command.arg(format!("--run-dir={}", self.run_dir.display()));
        sh::output(&mut command)
    }

    /// Starts a process that lives as long as the demo.
    pub fn guest(&mut self, command: &mut Command, log: &str) -> Result<()> {
        let path = self.data_dir.join("logs").join(log);
        let log = fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.guests.push(child.map_err(|error| format!("{command:?}: {error}"))?);
        Ok(())
    }

    /// Process ids of the roles by name, found among the supervisor's children.
    pub fn role_pid(&self, role: &str) -> Option<u32> {
        let parent = self.up.as_ref()?.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &u32| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            cmdline.split(|byte| *byte == 0).nth(1).is_some_and(|word| word == role.as_bytes())
        })
    }

    /// Resident memory of supervisor, server, node agent and proxy together, in MiB; containerd is not counted.
    pub fn resident_mib(&self) -> f64 {
        let up = self.up.as_ref().map(Child::id);
        let roles = ["server", "node", "proxy"].iter().filter_map(|role| self.role_pid(role));
        let kib = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:").map(str::to_owned));
            line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()).unwrap_or(0.0)
        };
        up.into_iter().chain(roles).map(kib).sum::<f64>() / 1024.0
    }

    /// Where the dashboard is and how to sign in.
    pub fn print_how_to_sign_in(&self) -> Result<()> {
        let token = self.diolkos(&["token", "dashboard"])?;
        println!("\ndashboard  http://127.0.0.1:7070/");
        println!("sign in    {}", token.trim());
        println!("kubectl    export KUBECONFIG={}", self.data_dir.join("admin.kubeconfig").display());
        Ok(())
    }

    /// Gives the process up without stopping it; returns its id.
    pub fn leave(mut self) -> u32 {
        self.guests.clear();
        self.up.take().map_or(0, |up| up.id())
    }

    /// Stops everything, in order, and removes the machine beside the pool.
    pub fn stop(&mut self) -> Result<()> {
        for mut guest in self.guests.drain(..) {
            let _ = guest.kill();
            let _ = guest.wait();
        }
        if let Some(mut up) = self.up.take() {
            sh::run(Command::new("kill").args(["-INT", &up.id().to_string()]))?;
            let status = up.wait().map_err(|error| error.to_string())?;
            if !status.success() {
                return Err(format!("the platform ended with {status}"));
            }
        }
        Ok(())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

use crate::cli::CommandError;
use crate::config::{Config, labels_text, taints_text};
use crate::notify::Listener;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A process of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Containerd,
    Proxy,
    Node,
    /// The proxy of a joined host.
    Host,
}

impl Role {
    /// As a person calls it.
    pub fn title(self) -> &'static str {
        match self {
            Role::Server => "API server and controllers",
            Role::Containerd => "containerd",
            Role::Proxy => "proxy",
            Role::Node => "node agent",
            Role::Host => "proxy",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Containerd => "containerd",
            Role::Proxy => "proxy",
            Role::Node => "node",
            Role::Host => "host",
        }
    }
}

/// Longest wait for a role to become ready at the first start.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A child that lived this long has its back-off forgiven.
const STEADY: Duration = Duration::from_secs(20);
/// A log larger than this is moved aside when its role starts.
const LOG_LIMIT: u64 = 64 << 20;

/// A child process and how it is to be started again.
pub struct Child {
    pub role: Role,
    config: Config,
    process: Option<std::process::Child>,
    /// Processes that a later one has replaced, and that finish what they have.
    leaving: Vec<std::process::Child>,
    /// The binary, once it is not the supervisor's own any more.
    program: Option<PathBuf>,
    notify: Option<Listener>,
    started: Instant,
    backoff: Duration,
    due: Option<Instant>,
}

impl Child {
    pub fn spawn(config: &Config, role: Role) -> Result<Child, CommandError> {
        let fail = |error: std::io::Error| CommandError::Role(format!("{}: {error}", role.title()));
        let notify = match role {
            Role::Containerd => None,
            _ => Some(Listener::bind(&notify_path(config, role)).map_err(fail)?),
        };
        let mut child = Child {
            role,
            config: config.clone(),
            process: None,
            leaving: Vec::new(),
            program: None,
            notify,
            started: Instant::now(),
            backoff: BACKOFF_MIN,
            due: None,
        };
        child.start()?;
        Ok(child)
    }

    fn start(&mut self) -> Result<(), CommandError> {
        self.process = Some(self.launch(self.program.clone())?);
        self.started = Instant::now();
        self.due = None;
        Ok(())
    }

    fn launch(&self, program: Option<PathBuf>) -> Result<std::process::Child, CommandError> {
        let fail = |error: std::io::Error| CommandError::Role(format!("{}: {error}", self.role.title()));
        let mut command = match self.role {
            Role::Containerd => crate::role::node::containerd(&self.config)?,
            _ => {
                // The very file that runs now, also when it has been replaced on disk since.
                let mut command = Command::new(program.unwrap_or_else(|| "/proc/self/exe".into()));
                command.arg0("diolkos").arg(self.role.name()).args(flags(&self.config));
                command.env("NOTIFY_SOCKET", notify_path(&self.config, self.role));
                command
            }
        };
        command.stdin(Stdio::null());
        if let Some(path) = log_path(&self.config, self.role) {
            let log = open_log(&path).map_err(fail)?;
            command.stdout(log.try_clone().map_err(fail)?).stderr(log);
        }
        // A group of its own: Ctrl-C in the terminal is for the supervisor, which stops the children in order.
        command.process_group(0);
        die_with_parent(&mut command);
        command.spawn().map_err(fail)
    }

    /// Starts a process of the binary that is on disk now beside the one that runs, which leaves when the new one is ready.
    ///
    /// # Errors
    /// The new one did not get ready, and is gone; the old one serves on.
    pub async fn replace(&mut self) -> Result<(), CommandError> {
        let Some(old) = self.process.take() else {
            return Err(CommandError::Role(format!("{}: it does not run", self.role.title())));
        };
        let program = std::env::current_exe().map(|path| on_disk(&path)).map_err(crate::role::failed);
        let launched = program.and_then(|program| Ok((self.launch(Some(program.clone()))?, program)));
        let (new, program) = match launched {
            Ok(launched) => launched,
            Err(error) => {
                self.process = Some(old);
                return Err(error);
            }
        };
        // From here on `ready` looks at the new one.
        let begun = std::mem::replace(&mut self.started, Instant::now());
        self.process = Some(new);
        let config = self.config.clone();
        if let Err(error) = self.ready(&config).await {
            if let Some(mut new) = self.process.replace(old) {
                let _ = new.kill();
                let _ = new.wait();
            }
            self.started = begun;
            return Err(error);
        }
        self.leaving.push(old);
        self.program = Some(program);
        Ok(())
    }

    /// Waits until the child says that it is ready.
    pub async fn ready(&mut self, config: &Config) -> Result<(), CommandError> {
        let deadline = self.started + READY_PATIENCE;
        let notify = self.notify.take();
        let outcome = loop {
            let step = Duration::from_millis(20);
            let is_ready = match &notify {
                Some(listener) => tokio::time::timeout(step, listener.ready()).await.is_ok_and(|said| said.is_ok()),
                None => {
                    let answers = crate::role::node::containerd_answers(config).await;
                    if !answers {
                        tokio::time::sleep(step).await;
                    }
                    answers
                }
            };
            if is_ready {
                break Ok(());
            }
            if let Some(ended) = self.poll_exit() {
                break Err(format!("{ended} before it was ready"));
            }
            if Instant::now() > deadline {
                break Err(format!("not ready within {} s", READY_PATIENCE.as_secs()));
            }
        };
        self.notify = notify;
        outcome.map_err(|why| {
            let said = log_path(&self.config, self.role).map(|path| (path.display().to_string(), tail(&path)));
            let said = said.map(|(path, end)| format!("; the end of {path}:\n{end}")).unwrap_or_default();
            CommandError::Role(format!("{}: {why}{said}", self.role.title()))
        })
    }

    /// How the child ended, if it has.
    pub fn poll_exit(&mut self) -> Option<String> {
        self.leaving.retain_mut(|process| matches!(process.try_wait(), Ok(None)));
        let status = self.process.as_mut()?.try_wait().ok().flatten()?;
        self.process = None;
        Some(describe(status))
    }

    /// Decides when it is started again: at once after a steady life, later and later after short ones.
    pub fn restart_later(&mut self) {
        self.backoff = if self.started.elapsed() > STEADY { BACKOFF_MIN } else { (self.backoff * 2).min(BACKOFF_MAX) };
        self.due = Some(Instant::now() + self.backoff);
    }

    pub fn restart_if_due(&mut self) -> Result<(), CommandError> {
        if self.due.is_some_and(|due| due <= Instant::now()) { self.start() } else { Ok(()) }
    }

    /// Asks the child to stop, waits, and kills it if that does not help. Returns whether it went by itself.
    pub async fn stop(&mut self, with_pods: bool, patience: Duration) -> bool {
        for process in &self.leaving {
            let _ = kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM);
        }
        let Some(process) = self.process.as_mut() else { return true };
        let pid = Pid::from_raw(process.id() as i32);
        // The node agent stops the pods on SIGINT and leaves them on SIGTERM.
        let signal = if with_pods { Signal::SIGINT } else { Signal::SIGTERM };
        if kill(pid, signal).is_err() {
            return true;
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !matches!(process.try_wait(), Ok(None)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = process.kill();
        let _ = process.wait();
        false
    }
}

/// What `kubectl get nodes` shows as the role of a machine that runs everything.
fn control_plane() -> [(String, String); 1] {
    [("node-role.kubernetes.io/control-plane".to_owned(), String::new())]
}

/// The settings in force, as flags: a child never reads the file or the environment again, so all roles run the same.
fn flags(config: &Config) -> Vec<String> {
    let mut flags = vec![
        format!("--data-dir={}", config.data_dir.display()),
        format!("--run-dir={}", config.run_dir.display()),
        format!("--log={}", config.log.as_str().to_lowercase()),
        format!("--log-format={}", if config.log_json { "json" } else { "text" }),
        format!("--node-name={}", config.node_name),
        format!("--node-ip={}", config.node_ip),
        format!("--node-labels={}", labels_text(config.node_labels.as_deref().unwrap_or(&control_plane()))),
        format!("--node-taints={}", taints_text(&config.node_taints)),
        format!("--api-listen={}", config.api_listen),
        format!("--dashboard-listen={}", config.dashboard_listen),
        format!("--node-listen={}", config.node_listen),
        format!("--mesh-listen={}", config.mesh_listen),
        format!("--proxy-admin={}", config.proxy_admin),
        format!("--proxy-workers={}", config.proxy_workers),
        format!("--proxy-poll-us={}", config.proxy_poll_us),
        format!("--proxy-drain-s={}", config.proxy_drain_s),
        format!("--access-log={}", config.access_log),
        format!("--service-cidr={}", config.service_cidr),
        format!("--pod-cidr={}", config.pod_cidr),
        format!("--gateway-cidr={}", config.gateway_cidr.map_or_else(|| "none".to_owned(), |range| range.to_string())),
        format!("--cluster-domain={}", config.cluster_domain),
        format!("--workload-cert-ttl-s={}", config.workload_cert_ttl_s),
        format!("--mesh-root-days={}", config.mesh_root_days),
        format!("--controllers={}", config.controllers),
        format!("--scrape-s={}", config.scrape_s),
    ];
    flags.extend(config.access_log_format.as_ref().map(|text| format!("--access-log-format={text}")));
    flags.extend(config.access_log_file.as_ref().map(|path| format!("--access-log-file={}", path.display())));
    flags.extend(config.traces_to.as_ref().map(|text| format!("--traces-to={text}")));
    flags.extend(config.traces_ca.as_ref().map(|path| format!("--traces-ca={}", path.display())));
    flags.extend(config.skywalking_listen.map(|address| format!("--skywalking-listen={address}")));
    flags.extend(config.skywalking_token.as_ref().map(|token| format!("--skywalking-token={token}")));
    flags.push(format!("--trace-sampling={}", config.trace_sampling));
    flags.extend(config.mesh_federation.as_ref().map(|path| format!("--mesh-federation={}", path.display())));
    flags.extend(config.mesh_providers.as_ref().map(|path| format!("--mesh-providers={}", path.display())));
    flags.extend(config.kubeconfig.as_ref().map(|path| format!("--kubeconfig={}", path.display())));
    flags
}

fn notify_path(config: &Config, role: Role) -> PathBuf {
    config.run_dir.join(format!("notify-{}.sock", role.name()))
}

/// Where a child's words go; none: where the supervisor's own go.
fn log_path(config: &Config, role: Role) -> Option<PathBuf> {
    (role != Role::Host).then(|| config.data_dir.join("logs").join(format!("{}.log", role.name())))
}

fn open_log(path: &PathBuf) -> std::io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|found| found.len() > LOG_LIMIT) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

fn tail(path: &PathBuf) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// Where a running binary was found; a file that was put in its place since is there now.
fn on_disk(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    text.strip_suffix(" (deleted)").map_or_else(|| path.to_owned(), PathBuf::from)
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// If the supervisor dies without a word, the children are told to stop; containers keep running and are found by the next start.
#[expect(
    unsafe_code,
    reason = "pre_exec runs between fork and exec; the closure only makes one async-signal-safe system call"
)]
fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and the closure neither allocates nor locks.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
}

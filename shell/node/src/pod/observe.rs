//! What the runtime says of one pod.

use crate::clock;
use crate::runtime::{Runtime, RuntimeError};
use model::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Labels that tie sandboxes and containers to pods, with the names that every CRI client uses (`crictl` reads them too).
pub mod label {
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    /// Annotation: what the container was made from; another value means that it must be made again.
    pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    /// Annotation: where the container may leave its last words.
    pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    /// Annotation: seconds between SIGTERM and SIGKILL when the pod's own wish is not known any more.
    pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: Option<Timestamp>,
}

/// Where a container's process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    Created,
    Running,
    Exited,
}

/// One run of a container: restarts make new ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub id: String,
    pub name: String,
    pub sandbox_id: String,
    pub attempt: u32,
    pub state: RunState,
    pub created_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    /// The name that the runtime knows the image by.
    pub image: String,
    pub image_ref: String,
    /// What it was made from.
    pub hash: String,
    pub log_path: String,
}

impl Run {
    /// From the runtime's answer; reads the container's last words when it has ended.
    pub fn from_status(status: cri::ContainerStatus, sandbox_id: String) -> Self {
        run_of(status, sandbox_id)
    }

    /// The image's name for a status: the runtime's, unless it only knows a digest.
    pub fn image_name<'a>(&'a self, asked: &'a str) -> &'a str {
        if self.image.is_empty() || self.image.starts_with("sha256:") { asked } else { &self.image }
    }
}

/// One pod's sandboxes and runs, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub runs: Vec<Run>,
    /// Addresses of the newest sandbox, when it is ready.
    pub ips: Vec<IpAddr>,
    /// Path of the newest sandbox's network namespace, when it is ready and has one.
    pub netns: Option<String>,
}

impl Observed {
    /// Runs of a container, newest first.
    pub fn runs<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.name == name)
    }

    pub fn latest(&self, name: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.name == name)
    }

    pub fn any_running(&self) -> bool {
        self.runs.iter().any(|run| run.state == RunState::Running)
    }

    /// The sandbox to run in.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }
}

/// Asks the runtime about one pod. Runs that had ended when `before` was taken are not asked about again.
///
/// # Errors
/// The runtime does not answer.
pub async fn observe(runtime: &Runtime, uid: &str, before: &Observed) -> Result<Observed, RuntimeError> {
    let of_pod = BTreeMap::from([(label::POD_UID.to_owned(), uid.to_owned())]);
    let mut sandboxes: Vec<Sandbox> = runtime
        .list_sandboxes(of_pod.clone())
        .await?
        .into_iter()
        .map(|sandbox| Sandbox {
            id: sandbox.id,
            attempt: sandbox.metadata.map_or(0, |meta| meta.attempt),
            ready: sandbox.state == cri::PodSandboxState::Ready as i32,
            created_at: clock::from_nanos(sandbox.created_at),
        })
        .collect();
    sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.created_at, sandbox.attempt)));
    let mut runs = Vec::new();
    for container in runtime.list_containers(of_pod).await? {
        let known = before.runs.iter().find(|run| run.id == container.id && run.state == RunState::Exited);
        if let Some(run) = known {
            runs.push(run.clone());
            continue;
        }
        match settled_status(runtime, &container.id).await {
            Ok(status) => runs.push(run_of(status, container.pod_sandbox_id)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    runs.sort_by(|a, b| (b.created_at, b.attempt).cmp(&(a.created_at, a.attempt)).then_with(|| a.name.cmp(&b.name)));
    let mut observed = Observed { sandboxes, runs, ..Observed::default() };
    if let Some(sandbox) = observed.ready_sandbox().map(|sandbox| sandbox.id.clone()) {
        network(runtime, &sandbox, before, &mut observed).await?;
    }
    Ok(observed)
}

/// Exit code of a process that SIGKILL ended.
const KILLED: i32 = 137;
/// The runtime hears of an exit and of the kernel's want of memory on two ways, and may tell of the first before it knows of the second.
const LATE_REASON: Duration = Duration::from_millis(100);

/// A container's status, with the reason of its end: what is seen of an end is seen once (`observe` keeps it).
async fn settled_status(runtime: &Runtime, id: &str) -> Result<cri::ContainerStatus, RuntimeError> {
    let status = runtime.container_status(id).await?;
    if status.exit_code != KILLED || status.reason == "OOMKilled" {
        return Ok(status);
    }
    tokio::time::sleep(LATE_REASON).await;
    runtime.container_status(id).await
}

/// Address and namespace of a sandbox never change while it is ready.
async fn network(
    runtime: &Runtime,
    sandbox: &str,
    before: &Observed,
    observed: &mut Observed,
) -> Result<(), RuntimeError> {
    if before.ready_sandbox().is_some_and(|old| old.id == sandbox) && !before.ips.is_empty() {
        observed.ips.clone_from(&before.ips);
        observed.netns.clone_from(&before.netns);
        return Ok(());
    }
    let answer = match runtime.sandbox_status(sandbox).await {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    if let Some(network) = answer.status.and_then(|status| status.network) {
        let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
        observed.ips = all.filter_map(|ip| ip.parse().ok()).collect();
    }
    // containerd's own details: the runtime specification names the namespace that the sandbox runs in.
    observed.netns = answer.info.get("info").and_then(|info| {
        let info: serde_json::Value = serde_json::from_str(info).ok()?;
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array()?;
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network")?;
        network["path"].as_str().map(str::to_owned)
    });
    Ok(())
}

/// The last words of a container, at most.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Lines of its log that stand for them when it ended badly and said nothing.
const MESSAGE_LOG_LINES: usize = 80;
const MESSAGE_LOG_BYTES: usize = 2048;

fn run_of(status: cri::ContainerStatus, sandbox_id: String) -> Run {
    let metadata = status.metadata.clone().unwrap_or_default();
    let state = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::Created) => RunState::Created,
        Ok(cri::ContainerState::Running) => RunState::Running,
        // An unknown state is one that the runtime lost sight of: it cannot run on.
        Ok(cri::ContainerState::Exited | cri::ContainerState::Unknown) | Err(_) => RunState::Exited,
    };
    let last_words = if state == RunState::Exited { last_words(&status) } else { None };
    Run {
        id: status.id,
        name: metadata.name,
        sandbox_id,
        attempt: metadata.attempt,
        state,
        created_at: clock::from_nanos(status.created_at),
        started_at: clock::from_nanos(status.started_at),
        finished_at: clock::from_nanos(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: last_words.unwrap_or(status.message),
        image: status.image.map_or_else(String::new, |image| image.image),
        image_ref: status.image_ref,
        hash: status.annotations.get(label::CONTAINER_HASH).cloned().unwrap_or_default(),
        log_path: status.log_path,
    }
}

/// What the container left in its termination message file, or the end of its log.
fn last_words(status: &cri::ContainerStatus) -> Option<String> {
    let path = status.annotations.get(label::MESSAGE_PATH)?;
    let mount = status.mounts.iter().find(|mount| mount.container_path == *path)?;
    let text = read_end(&mount.host_path, MAX_MESSAGE_BYTES).unwrap_or_default();
    if !text.is_empty() {
        return Some(String::from_utf8_lossy(&text).into_owned());
    }
    let wants_log = status.annotations.get(label::MESSAGE_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
    if !wants_log || status.exit_code == 0 {
        return None;
    }
    let log = read_end(&status.log_path, 64 << 10).ok()?;
    let lines: Vec<&[u8]> = log.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
    let mut out = Vec::new();
    for record in lines[lines.len().saturating_sub(MESSAGE_LOG_LINES)..].iter().filter_map(|line| cri::log::parse(line))
    {
        out.extend_from_slice(record.content);
        if record.ends_line {
            out.push(b'\n');
        }
    }
    let keep = out.len().saturating_sub(MESSAGE_LOG_BYTES);
    (!out.is_empty()).then(|| String::from_utf8_lossy(&out[keep..]).into_owned())
}

fn read_end(path: &str, limit: usize) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit as u64)))?;
    let mut out = Vec::new();
    file.take(limit as u64).read_to_end(&mut out)?;
    Ok(out)
}

//! The agent as a whole: what starts, and who hears of what.

use crate::cgroup::Cgroups;
use crate::cni::{self, PodCidr};
use crate::containerd::{self, SetupError};
use crate::events::Recorder;
use crate::image::{LoadError, Loader, Puller};
use crate::machine::Machine;
use crate::mesh::Mesh;
use crate::pod::config::service_env;
use crate::pod::observe::label;
use crate::pod::spec::Pod;
use crate::pod::{Desired, Shared, Worker};
use crate::refs::Refs;
use crate::register::Registrar;
use crate::runtime::{Runtime, RuntimeError};
use crate::{Config, resource, upkeep, volume};
use client::{ApiError, EventKind, ListOptions, ObjectApi, WatchEvent};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Why the agent could not start. It is started again by its supervisor.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("sandbox image: {0}")]
    Pause(#[from] LoadError),
    #[error("nft: {0}")]
    Masquerade(String),
    #[error("HTTPS server: {0}")]
    Serve(#[from] crate::serve::ServeError),
}

const CONTAINERD_PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(250);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// How often the runtime is asked for what changed by itself.
const RELIST: Duration = Duration::from_secs(1);

/// The pods of this node and their workers.
pub struct Pods {
    shared: Arc<Shared>,
    workers: Mutex<BTreeMap<String, Handle>>,
}

struct Handle {
    pod: Arc<Pod>,
    desired: watch::Sender<Desired>,
    wake: Arc<Notify>,
    task: JoinHandle<()>,
}

/// Runs the node agent until `shutdown`; containers run on after it.
///
/// # Errors
/// Something that the node needs is not there.
pub async fn run(
    config: Config,
    api: Arc<dyn ObjectApi>,
    path: &str,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), AgentError> {
    let runtime = containerd::wait_ready(&config, CONTAINERD_PATIENCE).await?;
    Loader::new(&config, path).ensure_pause(&config.data_dir.join("node/scratch")).await?;
    let machine = Machine::inspect(&config);
    let registrar =
        Registrar { config: config.clone(), api: api.clone(), runtime: runtime.clone(), machine: machine.clone() };
    tokio::pin!(shutdown);
    let given = tokio::select! {
        given = registered(&registrar) => given,
        () = &mut shutdown => return Ok(()),
    };
    let cidr = PodCidr::parse(given.as_deref().unwrap_or(&config.pod_cidr)).map_err(SetupError::from)?;
    set_up_network(&config, cidr, path).await?;
    let allocatable = machine.allocatable(&config);
    let shared = Arc::new(Shared {
        cidr,
        refs: Refs::new(api.clone()),
        puller: Puller::new(runtime.clone()),
        recorder: Recorder::start(api.clone(), config.node_name.clone()),
        mesh: config.proxy_socket.clone().map(Mesh::start),
        cgroups: Cgroups::new(&config.cgroup_root),
        node_memory: machine.memory,
        allocatable,
        host_resolv: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        service_env: service_env(&config.api_service.0, config.api_service.1),
        runtime,
        api,
        config,
    });
    let pods = Arc::new(Pods { shared: shared.clone(), workers: Mutex::default() });
    let mut tasks = tokio::task::JoinSet::new();
    if shared.config.tls.is_some() {
        let server = crate::serve::bind(pods.clone()).await?;
        tasks.spawn(server.run());
    }
    tasks.spawn(Arc::new(registrar).keep());
    tasks.spawn(pods.clone().follow());
    tasks.spawn(upkeep::run(pods.clone()));
    shutdown.await;
    tasks.shutdown().await;
    pods.stop();
    Ok(())
}

/// The API server may come up after the node.
async fn registered(registrar: &Registrar) -> Option<String> {
    let mut pause = RETRY;
    loop {
        match registrar.register().await {
            Ok(cidr) => return cidr,
            Err(error) => tracing::warn!(%error, "the node is not registered yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_RETRY);
    }
}

/// The CNI configuration for the range that the node was given, and the way out of it.
async fn set_up_network(config: &Config, cidr: PodCidr, path: &str) -> Result<(), AgentError> {
    let machine = containerd::Machine::inspect(config, path)?;
    containerd::write_network(config, &machine, cidr)?;
    let cluster = PodCidr::parse(&config.cluster_cidr).map_err(SetupError::from)?;
    let rules = cni::masquerade_rules(cidr, cluster, &config.bridge_of(cidr));
    let nft = crate::preflight::find_program("nft", path).unwrap_or_else(|| "nft".into());
    let failed = |error: std::io::Error| AgentError::Masquerade(error.to_string());
    let mut child = tokio::process::Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        tokio::io::AsyncWriteExt::write_all(&mut stdin, rules.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(AgentError::Masquerade(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

impl Pods {
    /// What every worker uses.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The pod of that name, when it is on this node.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let workers = self.lock();
        let mut found = workers
            .values()
            .map(|handle| &handle.pod)
            .filter(|pod| pod.metadata.namespace == namespace && pod.metadata.name == name);
        // A pod that ends may share its name with the next one of a StatefulSet.
        let first = found.next()?;
        Some(found.find(|pod| pod.metadata.deletion_timestamp.is_none()).unwrap_or(first).clone())
    }

    /// Every pod of this node.
    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.lock().values().filter(|handle| !handle.task.is_finished()).map(|handle| handle.pod.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Handle>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workers are dropped where they stand: looking again finds what they did.
    fn stop(&self) {
        for handle in self.lock().values() {
            handle.task.abort();
        }
    }

    /// Hears of pods from the API server and of containers from the runtime, for ever.
    async fn follow(self: Arc<Self>) {
        let synced = Arc::new(Notify::new());
        tokio::join!(self.follow_api(synced.clone()), self.follow_runtime(synced));
    }

    async fn follow_api(&self, synced: Arc<Notify>) {
        let mut pause = RETRY;
        loop {
            match self.list_and_watch(&synced).await {
                Ok(()) => pause = RETRY,
                Err(error) => {
                    tracing::debug!(%error, "pods are not watched");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_RETRY);
                }
            }
        }
    }

    async fn list_and_watch(&self, synced: &Notify) -> Result<(), ApiError> {
        let selector = format!("spec.nodeName={}", self.shared.config.node_name);
        let options = ListOptions { field_selector: Some(selector), ..ListOptions::default() };
        let list = self.shared.api.list(resource::PODS, options.clone()).await?;
        let mut present = BTreeSet::new();
        for bytes in &list.items {
            if let Some(uid) = self.upsert(bytes) {
                present.insert(uid);
            }
        }
        let gone: Vec<String> = self.lock().keys().filter(|uid| !present.contains(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.gone(uid));
        synced.notify_one();
        let mut revision = list.revision;
        loop {
            let mut events = self.shared.api.watch(resource::PODS, options.clone(), revision).await?;
            while let Some(event) = events.next().await {
                revision = self.event(event?).max(revision);
            }
        }
    }

    fn event(&self, event: WatchEvent) -> u64 {
        match event.kind {
            EventKind::Added | EventKind::Modified => drop(self.upsert(&event.object)),
            EventKind::Deleted => {
                if let Ok(pod) = Pod::from_json(&event.object) {
                    self.gone(pod.uid());
                }
            }
            EventKind::Bookmark => {}
        }
        if event.revision > 0 {
            return event.revision;
        }
        let object: serde_json::Value = serde_json::from_slice(&event.object).unwrap_or_default();
        object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// A pod is bound here, or changed. Returns its uid.
    fn upsert(&self, bytes: &[u8]) -> Option<String> {
        let pod = match Pod::from_json(bytes) {
            Ok(pod) => Arc::new(pod),
            Err(error) => {
                tracing::warn!(%error, "a pod of this node is not understood");
                return None;
            }
        };
        let uid = pod.uid().to_owned();
        let mut workers = self.lock();
        if let Some(handle) = workers.get_mut(&uid) {
            handle.pod = pod.clone();
            let _ = handle.desired.send(Desired::Run(pod));
        } else {
            workers.insert(uid.clone(), self.start(pod.clone(), Desired::Run(pod)));
        }
        Some(uid)
    }

    fn start(&self, pod: Arc<Pod>, desired: Desired) -> Handle {
        let (desired, receiver) = watch::channel(desired);
        let wake = Arc::new(Notify::new());
        let worker = Worker::new(self.shared.clone(), pod.clone(), receiver, wake.clone());
        Handle { pod, desired, wake, task: tokio::spawn(worker.run()) }
    }

    /// The API server does not know the pod any more.
    fn gone(&self, uid: &str) {
        let mut workers = self.lock();
        let Some(handle) = workers.get(uid) else { return };
        if handle.task.is_finished() {
            workers.remove(uid);
        } else {
            let _ = handle.desired.send(Desired::Gone);
        }
    }

    /// Wakes the workers whose containers changed by themselves, and ends pods that nobody wants.
    async fn follow_runtime(&self, synced: Arc<Notify>) {
        // Before the first list, every pod would look unwanted.
        synced.notified().await;
        let runtime = self.shared.runtime.clone();
        let mut before = BTreeMap::new();
        let mut tidy = false;
        loop {
            match fingerprints(&runtime).await {
                Ok(now) => {
                    if !std::mem::replace(&mut tidy, true) {
                        self.remove_leftovers(&now);
                    }
                    self.compare(&before, &now);
                    before = now;
                }
                Err(error) => tracing::debug!(%error, "the runtime does not answer"),
            }
            tokio::time::sleep(RELIST).await;
        }
    }

    fn compare(&self, before: &BTreeMap<String, Seen>, now: &BTreeMap<String, Seen>) {
        let mut workers = self.lock();
        workers.retain(|_, handle| !(handle.task.is_finished() && matches!(*handle.desired.borrow(), Desired::Gone)));
        for (uid, seen) in now {
            match workers.get(uid) {
                Some(handle) if before.get(uid).is_none_or(|old| old.hash != seen.hash) => handle.wake.notify_one(),
                Some(_) => {}
                // Seen twice: a worker that just ended may have left the list a moment ago.
                None if before.contains_key(uid) => {
                    tracing::info!(pod = %seen.pod.key(), "ending a pod that the API server does not know");
                    workers.insert(uid.clone(), self.start(seen.pod.clone(), Desired::Gone));
                }
                None => {}
            }
        }
        for uid in before.keys().filter(|uid| !now.contains_key(*uid)) {
            if let Some(handle) = workers.get(uid) {
                handle.wake.notify_one();
            }
        }
    }

    /// Files and cgroups of pods that are no more: the agent was killed while it removed them.
    fn remove_leftovers(&self, running: &BTreeMap<String, Seen>) {
        let workers = self.lock();
        // What still has a sandbox is ended in order, files last.
        let keep = |uid: &str| workers.contains_key(uid) || running.contains_key(uid);
        self.shared.cgroups.remove_others(&keep);
        let pods = self.shared.config.pod_dir("");
        for entry in std::fs::read_dir(&pods).into_iter().flatten().flatten() {
            if !keep(&entry.file_name().to_string_lossy())
                && let Err(error) = volume::remove(&entry.path())
            {
                tracing::warn!(%error, path = %entry.path().display(), "left over");
            }
        }
        let logs = self.shared.config.log_dir("", "", "");
        for entry in logs.parent().and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !keep(name.to_string_lossy().rsplit('_').next().unwrap_or_default()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// A pod as the runtime shows it.
struct Seen {
    hash: u64,
    pod: Arc<Pod>,
}

async fn fingerprints(runtime: &Runtime) -> Result<BTreeMap<String, Seen>, RuntimeError> {
    let (sandboxes, containers) =
        tokio::try_join!(runtime.list_sandboxes(BTreeMap::new()), runtime.list_containers(BTreeMap::new()))?;
    let mut parts: BTreeMap<String, (BTreeSet<(String, i32)>, Pod)> = BTreeMap::new();
    let grace =
        |annotations: &BTreeMap<String, String>| annotations.get(label::GRACE).and_then(|text| text.parse().ok());
    for sandbox in sandboxes {
        let (set, pod) = parts.entry(sandbox.labels.get(label::POD_UID).cloned().unwrap_or_default()).or_default();
        set.insert((sandbox.id, sandbox.state));
        pod.spec.termination_grace_period_seconds = grace(&sandbox.annotations);
        name_pod(pod, &sandbox.labels);
    }
    for container in containers {
        let (set, pod) = parts.entry(container.labels.get(label::POD_UID).cloned().unwrap_or_default()).or_default();
        set.insert((container.id, container.state));
        name_pod(pod, &container.labels);
    }
    // What carries no uid is nobody's pod.
    parts.remove("");
    let seen = |(set, pod): (BTreeSet<(String, i32)>, Pod)| {
        let mut hasher = DefaultHasher::new();
        set.hash(&mut hasher);
        Seen { hash: hasher.finish(), pod: Arc::new(pod) }
    };
    Ok(parts.into_iter().map(|(uid, entry)| (uid, seen(entry))).collect())
}

/// As much of a pod as its containers carry.
fn name_pod(pod: &mut Pod, labels: &BTreeMap<String, String>) {
    let get = |name: &str| labels.get(name).cloned().unwrap_or_default();
    pod.metadata.name = get(label::POD_NAME);
    pod.metadata.namespace = get(label::POD_NAMESPACE);
    pod.metadata.uid = get(label::POD_UID);
}

//! One task for each pod: looks, plans, acts, reports; woken by changes of the pod, of the runtime and of probes.

use super::config;
use super::env::PodFacts;
use super::observe::{Observed, RunState, observe};
use super::phase;
use super::plan::{Plan, Situation, plan};
use super::publish::Publisher;
use super::resources;
use super::spec::{Container, Handler, Pod, RestartPolicy};
use super::status::{Facts, PodStatus, Waiting, container_id, pod_status};
use crate::backoff::Backoff;
use crate::cgroup::Cgroups;
use crate::cni::PodCidr;
use crate::events::{About, Recorder};
use crate::image::Puller;
use crate::mesh::{Mesh, MeshError};
use crate::probe::{Board, Probes, Subject, Target};
use crate::refs::Refs;
use crate::runtime::{Runtime, RuntimeError};
use crate::volume::{self, Ready, TokenCache, VolumeError};
use crate::{Config, clock};
use client::ObjectApi;
use model::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use xds::attach::PodAttachment;

/// What every worker uses.
pub struct Shared {
    pub config: Config,
    pub cidr: PodCidr,
    pub runtime: Runtime,
    pub api: Arc<dyn ObjectApi>,
    pub refs: Refs,
    pub puller: Puller,
    pub recorder: Recorder,
    pub mesh: Option<Mesh>,
    pub cgroups: Cgroups,
    /// Bytes of memory of the node.
    pub node_memory: i64,
    /// milli-CPU and bytes that pods may use.
    pub allocatable: (i64, i64),
    /// The node's `/etc/resolv.conf`.
    pub host_resolv: String,
    /// Environment of every container: where the API server is.
    pub service_env: Vec<(String, String)>,
}

/// What the API server says of a pod.
#[derive(Clone, Debug)]
pub enum Desired {
    /// It is there (perhaps with a deletion timestamp).
    Run(Arc<Pod>),
    /// It is not there any more.
    Gone,
}

impl Desired {
    pub(super) fn is_ending(&self) -> bool {
        match self {
            Desired::Run(pod) => pod.metadata.deletion_timestamp.is_some(),
            Desired::Gone => true,
        }
    }
}

/// Why a look at a pod ended early; the worker tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyncError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Mesh(#[from] MeshError),
    #[error("Failed to create pod sandbox: {0}")]
    Sandbox(String),
    #[error("cgroup of the pod: {0}")]
    Cgroup(std::io::Error),
}

/// The task of one pod.
pub struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) pod: Arc<Pod>,
    pub(super) wake: Arc<Notify>,
    pub(super) observed: Observed,
    pub(super) board: Arc<Board>,
    pub(super) probes: BTreeMap<String, Probes>,
    pub(super) backoff: Backoff,
    /// Why containers could not be started, by name.
    pub(super) problems: BTreeMap<String, Waiting>,
    pub(super) publisher: Publisher,
    pub(super) tokens: TokenCache,
    pub(super) last: PodStatus,
    pub(super) start_time: String,
    /// The namespace that the proxy was told of.
    pub(super) attached: Option<String>,
    /// The handler that its sandbox was made with, of a pod with a RuntimeClass.
    pub(super) handler: Option<String>,
    /// The node ended the pod.
    pub(super) failed: Option<Waiting>,
    retry: Duration,
}

/// A look without a cause, in case a cause was missed.
const RESYNC: Duration = Duration::from_secs(60);
/// Volumes that follow ConfigMaps and Secrets are looked at more often.
const VOLUME_RESYNC: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(10);

impl Worker {
    pub fn new(shared: Arc<Shared>, pod: Arc<Pod>, desired: watch::Receiver<Desired>, wake: Arc<Notify>) -> Self {
        Worker {
            publisher: Publisher::start(shared.api.clone(), &pod),
            last: pod.status.clone(),
            start_time: clock::rfc3339(clock::now()),
            shared,
            desired,
            pod,
            wake,
            observed: Observed::default(),
            board: Arc::default(),
            probes: BTreeMap::new(),
            backoff: Backoff::default(),
            problems: BTreeMap::new(),
            tokens: TokenCache::default(),
            attached: None,
            handler: None,
            failed: None,
            retry: FIRST_RETRY,
        }
    }

    /// Until the pod is gone from the node.
    pub async fn run(mut self) {
        loop {
            let desired = self.desired.borrow_and_update().clone();
            if let Desired::Run(pod) = &desired {
                self.pod = pod.clone();
            }
            if desired.is_ending() {
                self.end().await;
                return;
            }
            // A pull or a hook may take minutes; being deleted ends the wait. Whatever was half done is found by looking again.
            let mut ending = self.desired.clone();
            let next = tokio::select! {
                result = self.sync() => self.next_look(result),
                _ = ending.wait_for(Desired::is_ending) => continue,
            };
            tokio::select! {
                changed = self.desired.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    fn next_look(&mut self, result: Result<Option<Timestamp>, SyncError>) -> Duration {
        match result {
            Ok(wake_at) => {
                let retrying = !self.problems.is_empty();
                self.retry = if retrying { (self.retry * 2).min(MAX_RETRY) } else { FIRST_RETRY };
                let written = self.pod.spec.volumes.iter().any(|v| v.empty_dir.is_none() && v.host_path.is_none());
                let idle = if written { VOLUME_RESYNC } else { RESYNC };
                let until = wake_at.map(|at| at.since_ms(clock::now()).max(1) as u64).map(Duration::from_millis);
                let next = until.map_or(idle, |until| until.min(idle));
                if retrying { next.min(self.retry) } else { next }
            }
            Err(error) => {
                let reason = match &error {
                    SyncError::Volume(_) => "FailedMount",
                    SyncError::Sandbox(_) => "FailedCreatePodSandBox",
                    SyncError::Mesh(_) => "ProxyNotReady",
                    SyncError::Runtime(_) | SyncError::Cgroup(_) => "FailedSync",
                };
                tracing::debug!(pod = %self.pod.key(), %error, reason);
                self.shared.recorder.warning(&self.about(""), reason, error.to_string());
                let pause = self.retry;
                self.retry = (self.retry * 2).min(MAX_RETRY);
                pause
            }
        }
    }

    /// One round: look, plan, act, report.
    async fn sync(&mut self) -> Result<Option<Timestamp>, SyncError> {
        self.look().await?;
        if self.is_over_deadline() {
            self.failed = Some(Waiting {
                reason: "DeadlineExceeded".to_owned(),
                message: "Pod was active on the node longer than the specified deadline".to_owned(),
            });
        }
        if self.failed.is_some() || phase::is_terminal(&self.last.phase) {
            self.stop_everything("Stopping container").await?;
            self.look().await?;
            self.report(&BTreeMap::new());
            return Ok(None);
        }
        let plan = self.make_plan();
        // What was wrong with a container counts until it is tried again, or waits for another reason.
        self.problems.retain(|name, _| plan.start.iter().any(|order| order.name == *name));
        self.report(&plan.waiting);
        let volumes = self.prepare().await?;
        self.attach_running().await;
        self.carry_out(&plan, &volumes).await?;
        if plan != Plan::default() {
            self.look().await?;
        }
        self.report(&plan.waiting);
        if self.is_done(&plan) {
            self.wake.notify_one();
        }
        let deadline = self.deadline();
        Ok(plan.wake_at.into_iter().chain(deadline).min())
    }

    /// Whether something ended meanwhile that the next round has to see to.
    fn is_done(&self, plan: &Plan) -> bool {
        !plan.stop.is_empty()
    }

    pub(super) async fn look(&mut self) -> Result<(), RuntimeError> {
        self.observed = observe(&self.shared.runtime, self.pod.uid(), &self.observed).await?;
        self.follow_probes();
        Ok(())
    }

    fn make_plan(&self) -> Plan {
        let health = self.board.health();
        let started: BTreeSet<String> =
            health.iter().filter(|(_, health)| health.started).map(|(id, _)| id.clone()).collect();
        plan(Situation {
            pod: &self.pod,
            observed: &self.observed,
            unhealthy: &self.board.unhealthy(),
            started: &started,
            backoff: &self.backoff,
            now: clock::now(),
        })
    }

    /// Makes what the pod needs before its sandbox.
    async fn prepare(&mut self) -> Result<BTreeMap<String, Ready>, SyncError> {
        let uid = self.pod.uid().to_owned();
        let dir = self.shared.config.pod_dir(&uid);
        let facts = self.facts();
        let source = volume::Source { refs: &self.shared.refs, facts: &facts, tokens: &self.tokens, pod_dir: &dir };
        let volumes = volume::prepare(&self.pod, source).await?;
        Ok(volumes)
    }

    async fn carry_out(&mut self, plan: &Plan, volumes: &BTreeMap<String, Ready>) -> Result<(), SyncError> {
        if plan.stop_pod {
            self.stop_everything("Stopping container").await?;
        }
        let grace = self.grace();
        for stop in &plan.stop {
            let grace = stop.grace_s.and_then(|s| u64::try_from(s).ok()).map_or(grace, Duration::from_secs);
            self.probes.remove(&stop.id);
            self.stop_container(&stop.name, &stop.id, &stop.why, grace).await?;
        }
        if let Some(attempt) = plan.sandbox {
            self.make_sandbox(attempt).await?;
        }
        if plan.start.is_empty() {
            return Ok(());
        }
        self.attach().await?;
        for order in &plan.start {
            match self.start_container(order, volumes).await {
                Ok(()) => drop(self.problems.remove(&order.name)),
                // It ran, if badly, and will not run again: how it ended is all there is to say.
                Err(why) if why.is_end() && self.pod.spec.restart_policy == RestartPolicy::Never => {}
                Err(why) => drop(self.problems.insert(order.name.clone(), why)),
            }
        }
        self.forget_old_runs().await
    }

    /// The proxy has to know the pod before anything in it can send or receive.
    async fn attach(&mut self) -> Result<(), MeshError> {
        let Some(mesh) = self.shared.mesh.clone().filter(|_| config::in_mesh(&self.pod)) else { return Ok(()) };
        let Some(netns) = self.observed.netns.clone() else { return Ok(()) };
        if self.attached.as_ref() == Some(&netns) {
            return Ok(());
        }
        mesh.attach(self.attachment(&netns)).await?;
        self.attached = Some(netns);
        Ok(())
    }

    /// A pod that ran before this agent did: the proxy is told again, and nothing waits for it.
    async fn attach_running(&mut self) {
        if self.observed.any_running()
            && let Err(error) = self.attach().await
        {
            tracing::debug!(pod = %self.pod.key(), %error, "not attached yet");
        }
    }

    fn attachment(&self, netns: &str) -> PodAttachment {
        let (meta, spec) = (&self.pod.metadata, &self.pod.spec);
        let account = if spec.service_account_name.is_empty() { "default" } else { &spec.service_account_name };
        let mut probe_ports: Vec<u16> = self.pod.all_containers().flat_map(probe_ports).collect();
        probe_ports.sort_unstable();
        probe_ports.dedup();
        PodAttachment {
            uid: meta.uid.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            service_account: account.to_owned(),
            netns: netns.to_owned(),
            ips: self.observed.ips.clone(),
            node_ip: self.shared.cidr.gateway().into(),
            probe_ports,
            ports: self.pod.all_containers().flat_map(|c| &c.ports).map(|port| port.container_port).collect(),
        }
    }

    /// Probes run for running containers, and only for them.
    fn follow_probes(&mut self) {
        let running: Vec<_> = self.observed.runs.iter().filter(|run| run.state == RunState::Running).cloned().collect();
        self.probes.retain(|id, _| running.iter().any(|run| run.id == *id));
        for run in running {
            if self.probes.contains_key(&run.id) {
                continue;
            }
            let Some(container) = self.pod.all_containers().find(|c| c.name == run.name) else { continue };
            let pod_ip = if self.pod.host_network() {
                Some(self.shared.config.node_ip)
            } else {
                self.observed.ips.first().copied()
            };
            let subject = Subject {
                container: container.clone(),
                target: Target { container_id: run.id.clone(), pod_ip },
                about: self.about(&container.name),
                runtime: self.shared.runtime.clone(),
                recorder: self.shared.recorder.clone(),
                changed: self.wake.clone(),
                before: self.health_before(&run.id),
            };
            self.probes.insert(run.id.clone(), Probes::start(self.board.clone(), subject));
        }
    }

    /// What the last published status said of this very run.
    fn health_before(&self, id: &str) -> Option<super::status::Health> {
        let statuses = self.pod.status.container_statuses.iter().chain(&self.pod.status.init_container_statuses);
        let id = container_id(id);
        let mut of_run = statuses.filter(|status| status.container_id == id && status.state.running.is_some());
        let status = of_run.next()?;
        Some(super::status::Health { started: status.started.unwrap_or(false), ready: status.ready })
    }

    /// Computes the status and hands it to the publisher.
    pub(super) fn report(&mut self, waiting: &BTreeMap<String, Waiting>) {
        let mut all = waiting.clone();
        all.extend(self.problems.iter().map(|(name, why)| (name.clone(), why.clone())));
        let facts = Facts {
            health: self.board.health(),
            waiting: all,
            ending: self.desired.borrow().is_ending() || self.failed.is_some(),
            failed: self.failed.clone(),
            host_ip: self.shared.config.node_ip.to_string(),
            start_time: self.start_time.clone(),
            now: clock::now(),
        };
        let status = pod_status(&self.pod, &self.observed, &self.last, &facts);
        self.publisher.publish(&status);
        self.publisher.server_shows(&self.pod.status);
        self.last = status;
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.active_deadline_seconds?;
        let start = if self.last.start_time.is_empty() { &self.start_time } else { &self.last.start_time };
        Some(clock::parse(start)?.plus_ms(seconds.saturating_mul(1000)))
    }

    fn is_over_deadline(&self) -> bool {
        !phase::is_terminal(&self.last.phase) && self.deadline().is_some_and(|deadline| deadline <= clock::now())
    }

    pub(super) fn facts(&self) -> PodFacts {
        PodFacts {
            ips: self.observed.ips.clone(),
            node_name: self.shared.config.node_name.clone(),
            node_ip: self.shared.config.node_ip,
            allocatable: self.shared.allocatable,
        }
    }

    /// The object of an event; `container` may be empty.
    pub(super) fn about(&self, container: &str) -> About {
        let meta = &self.pod.metadata;
        let field = match container {
            "" => String::new(),
            name if self.pod.spec.init_containers.iter().any(|c| c.name == name) => {
                format!("spec.initContainers{{{name}}}")
            }
            name => format!("spec.containers{{{name}}}"),
        };
        let (namespace, name, uid) = (meta.namespace.clone(), meta.name.clone(), meta.uid.clone());
        About { kind: "Pod", namespace, name, uid, field }
    }

    pub(super) fn cgroup(&self) -> String {
        self.shared.cgroups.pod_path(self.pod.uid(), resources::qos(&self.pod))
    }
}

fn probe_ports(container: &Container) -> Vec<u16> {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let hooks = [&container.lifecycle.post_start, &container.lifecycle.pre_stop];
    let handlers = probes.into_iter().flatten().map(|probe| &probe.handler).chain(hooks.into_iter().flatten());
    let port = |handler: &Handler| {
        let http =
            handler.http_get.as_ref().filter(|get| get.host.is_empty()).and_then(|get| container.port(&get.port));
        let tcp =
            handler.tcp_socket.as_ref().filter(|tcp| tcp.host.is_empty()).and_then(|tcp| container.port(&tcp.port));
        http.or(tcp).or(handler.grpc.as_ref().map(|grpc| grpc.port))
    };
    handlers.filter_map(port).collect()
}

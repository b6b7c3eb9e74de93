//! Ending a pod: out of the traffic first, then its hooks, SIGTERM, SIGKILL, and everything it had on this node.

use super::observe::{Run, RunState};
use super::phase;
use super::worker::{Desired, SyncError, Worker};
use crate::probe::{Target, act};
use crate::runtime::RuntimeError;
use crate::{resource, volume};
use client::DeleteOptions;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// After a preStop hook has used up the grace period, the process still gets this long.
const LAST_GRACE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(10);

impl Worker {
    /// How long the pod may take to end.
    pub(super) fn grace(&self) -> Duration {
        let meta = &self.pod.metadata;
        let deletion = meta.deletion_timestamp.as_ref().and(meta.deletion_grace_period_seconds);
        let seconds = deletion.or(self.pod.spec.termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// The pod is being deleted, or is gone already.
    pub(super) async fn end(mut self) {
        self.again("stop", async |worker: &mut Worker| worker.end_processes().await).await;
        self.report(&BTreeMap::new());
        let there = |desired: &Desired| matches!(desired, Desired::Run(_));
        if there(&self.desired.borrow()) {
            // The last status tells controllers how the containers ended: a Job counts it.
            let mut desired = self.desired.clone();
            tokio::select! {
                () = self.publisher.flush() => {}
                _ = desired.wait_for(|desired| !there(desired)) => {}
            }
        }
        self.again("clean up", async |worker: &mut Worker| worker.remove_everything().await).await;
        if there(&self.desired.borrow()) {
            self.delete().await;
        }
    }

    /// Until it works: nothing may be left behind.
    async fn again(&mut self, what: &str, mut act: impl AsyncFnMut(&mut Worker) -> Result<(), SyncError>) {
        let mut pause = RETRY;
        while let Err(error) = act(self).await {
            tracing::warn!(pod = %self.pod.key(), %error, what, "trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_RETRY);
        }
    }

    async fn end_processes(&mut self) -> Result<(), SyncError> {
        self.look().await?;
        if !self.observed.any_running() {
            return Ok(());
        }
        if self.grace() > Duration::ZERO && !phase::is_terminal(&self.last.phase) {
            self.drain().await;
        }
        loop {
            let grace = self.grace();
            let mut desired = self.desired.clone();
            // `kubectl delete --now` after a patient delete: the shorter period takes over.
            let shorter = desired.wait_for(|desired| match desired {
                Desired::Run(pod) => {
                    let wish = pod.metadata.deletion_grace_period_seconds.and_then(|s| u64::try_from(s).ok());
                    wish.is_some_and(|wish| Duration::from_secs(wish) < grace)
                }
                Desired::Gone => false,
            });
            tokio::select! {
                result = self.stop_containers(grace, "Stopping container") => {
                    result?;
                    break;
                }
                pod = shorter => if let Ok(Desired::Run(pod)) = pod.map(|pod| pod.clone()) {
                    self.pod = pod;
                }
            }
        }
        self.probes.clear();
        Ok(self.look().await?)
    }

    /// No new requests: the pod's own proxy is told, and the other proxies get the time to hear of it from the control plane.
    async fn drain(&mut self) {
        let Some(mesh) = self.shared.mesh.clone().filter(|_| self.attached.is_some()) else { return };
        if let Err(error) = mesh.drain(self.pod.uid()).await {
            tracing::warn!(pod = %self.pod.key(), %error, "not drained");
        }
        // The drain comes out of the grace period's first part: what is asked for is when the pod is gone at the latest.
        tokio::time::sleep(self.shared.config.drain_delay.min(self.grace() / 2)).await;
    }

    /// Stops all containers and sandboxes; the pod's files stay.
    pub(super) async fn stop_everything(&mut self, why: &str) -> Result<(), SyncError> {
        self.stop_containers(self.grace(), why).await?;
        let ready: Vec<String> =
            self.observed.sandboxes.iter().filter(|sandbox| sandbox.ready).map(|sandbox| sandbox.id.clone()).collect();
        if ready.is_empty() {
            return Ok(());
        }
        self.detach().await;
        for sandbox in ready {
            self.shared.runtime.stop_sandbox(&sandbox).await?;
        }
        Ok(self.look().await?)
    }

    /// Containers together; then sidecars one after the other, the last started first: others may need them to the end.
    async fn stop_containers(&self, grace: Duration, why: &str) -> Result<(), RuntimeError> {
        let begun = Instant::now();
        let running: Vec<&Run> = self.observed.runs.iter().filter(|run| run.state == RunState::Running).collect();
        let is_sidecar = |run: &Run| self.pod.spec.init_containers.iter().any(|c| c.is_sidecar() && c.name == run.name);
        let (sidecars, main): (Vec<&Run>, Vec<&Run>) = running.into_iter().partition(|run| is_sidecar(run));
        let stop = |run: &Run, grace: Duration| {
            let (name, id) = (run.name.clone(), run.id.clone());
            let why = format!("{why} {name}");
            async move { self.stop_container(&name, &id, &why, grace).await }
        };
        for result in join_all(main.into_iter().map(|run| stop(run, grace))).await {
            result?;
        }
        let order = |run: &Run| self.pod.spec.init_containers.iter().position(|c| c.name == run.name);
        let mut sidecars = sidecars;
        sidecars.sort_by_key(|run| std::cmp::Reverse(order(run)));
        for run in sidecars {
            let rest = grace.saturating_sub(begun.elapsed());
            stop(run, if grace.is_zero() { grace } else { rest.max(LAST_GRACE) }).await?;
        }
        Ok(())
    }

    /// The preStop hook, then SIGTERM, then SIGKILL, all within `grace`.
    pub(super) async fn stop_container(
        &self,
        name: &str,
        id: &str,
        why: &str,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let about = self.about(name);
        self.shared.recorder.normal(&about, "Killing", why);
        let begun = Instant::now();
        let container = self.pod.all_containers().find(|container| container.name == name);
        let hook = container.and_then(|c| Some((c, c.lifecycle.pre_stop.as_ref()?)));
        let mut rest = grace;
        if let Some((container, hook)) = hook.filter(|_| !grace.is_zero()) {
            let target = Target { container_id: id.to_owned(), pod_ip: self.observed.ips.first().copied() };
            let runtime = &self.shared.runtime;
            let asked = tokio::time::timeout(grace, act(hook, container, &target, runtime, grace)).await;
            if let Ok(Err(error)) = asked {
                self.shared.recorder.warning(&about, "FailedPreStopHook", format!("PreStopHook failed: {error}"));
            }
            rest = grace.saturating_sub(begun.elapsed()).max(LAST_GRACE);
        }
        self.shared.runtime.stop_container(id, rest).await
    }

    async fn detach(&mut self) {
        let Some(mesh) = self.shared.mesh.clone().filter(|_| self.attached.take().is_some()) else { return };
        if let Err(error) = mesh.detach(self.pod.uid()).await {
            tracing::warn!(pod = %self.pod.key(), %error, "not detached");
        }
    }

    /// Sandboxes, volumes, cgroup, logs. Every step may be repeated.
    async fn remove_everything(&mut self) -> Result<(), SyncError> {
        self.detach().await;
        self.look().await?;
        for sandbox in &self.observed.sandboxes {
            self.shared.runtime.stop_sandbox(&sandbox.id).await?;
            self.shared.runtime.remove_sandbox(&sandbox.id).await?;
        }
        let meta = &self.pod.metadata;
        let io = |path: std::path::PathBuf, error| {
            SyncError::Volume(volume::VolumeError::Io { volume: "(all)".to_owned(), path, error })
        };
        let dir = self.shared.config.pod_dir(&meta.uid);
        volume::remove(&dir).map_err(|error| io(dir, error))?;
        let logs = self.shared.config.log_dir(&meta.namespace, &meta.name, &meta.uid);
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(logs, error)),
            _ => {}
        }
        self.shared.cgroups.remove_pod(&self.cgroup());
        Ok(())
    }

    /// Lets go of the object: the uid makes sure that it is this pod and not a new one of the same name.
    async fn delete(&mut self) {
        let meta = self.pod.metadata.clone();
        let mut pause = RETRY;
        loop {
            let options = DeleteOptions { grace_s: Some(0), uid: Some(meta.uid.clone()), ..DeleteOptions::default() };
            match self.shared.api.delete(resource::PODS, &meta.namespace, &meta.name, options).await {
                Ok(()) => return,
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) => tracing::debug!(pod = %self.pod.key(), %error, "not deleted yet"),
            }
            if matches!(*self.desired.borrow(), Desired::Gone) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_RETRY);
        }
    }
}

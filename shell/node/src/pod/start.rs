//! Making sandboxes and containers.

use super::config::{self, Inputs};
use super::env::{ConfigError, environment};
use super::observe::RunState;
use super::plan::{Start, backoff_key};
use super::spec::Container;
use super::status::Waiting;
use super::worker::{SyncError, Worker};
use super::{env, resources};
use crate::image::{PullProblem, registry_auth};
use crate::probe::{Target, act};
use crate::refs::RefError;
use crate::volume::{Ready, open_subpath};
use crate::{clock, resource};
use cri::{AuthConfig, CreateContainerRequest, Image, Mount, PodSandboxConfig};
use std::collections::BTreeMap;
use std::time::Duration;

/// A postStart hook holds its container back as long as it likes; this only bounds one that never answers.
const HOOK_PATIENCE: Duration = Duration::from_secs(600);

fn waiting(reason: &str, message: impl Into<String>) -> Waiting {
    Waiting { reason: reason.to_owned(), message: message.into() }
}

impl Worker {
    fn sandbox_config(&self, attempt: u32) -> PodSandboxConfig {
        let shared = &self.shared;
        config::sandbox(&self.pod, attempt, &shared.config, self.cgroup(), &shared.host_resolv)
    }

    pub(super) async fn make_sandbox(&mut self, attempt: u32) -> Result<(), SyncError> {
        let limits = resources::pod_limits(&self.pod);
        self.shared.cgroups.make_pod(&self.cgroup(), limits).map_err(SyncError::Cgroup)?;
        let config = self.sandbox_config(attempt);
        std::fs::create_dir_all(&config.log_directory).map_err(|error| SyncError::Sandbox(error.to_string()))?;
        let handler = self.runtime_handler().await?;
        self.shared.runtime.run_sandbox(config, handler).await.map_err(|error| SyncError::Sandbox(error.message))?;
        self.look().await?;
        if !self.pod.host_network() {
            let hosts = config::hosts_file(&self.pod, &self.shared.config, &self.observed.ips);
            let dir = self.shared.config.pod_dir(self.pod.uid());
            std::fs::create_dir_all(&dir)
                .and_then(|()| std::fs::write(dir.join("etc-hosts"), hosts))
                .map_err(|error| SyncError::Sandbox(error.to_string()))?;
        }
        Ok(())
    }

    /// The handler of the pod's RuntimeClass. A class's never changes, so the one that the pod had serves while the API server is away.
    async fn runtime_handler(&mut self) -> Result<String, SyncError> {
        let name = &self.pod.spec.runtime_class_name;
        if name.is_empty() {
            return Ok(String::new());
        }
        match self.shared.refs.object(resource::RUNTIME_CLASSES, "runtimeclass.node.k8s.io", "", name).await {
            Ok(class) => {
                let handler = class["handler"].as_str().unwrap_or_default().to_owned();
                self.handler = Some(handler.clone());
                Ok(handler)
            }
            Err(RefError::Api { error, .. }) if error.is_transient() && self.handler.is_some() => {
                Ok(self.handler.clone().unwrap_or_default())
            }
            Err(error) => Err(SyncError::Sandbox(error.to_string())),
        }
    }

    /// Starts one container. The error is what its status shows while it waits.
    pub(super) async fn start_container(
        &mut self,
        order: &Start,
        volumes: &BTreeMap<String, Ready>,
    ) -> Result<(), Waiting> {
        let pod = self.pod.clone();
        let container = pod.all_containers().find(|c| c.name == order.name).cloned().unwrap_or_default();
        let about = self.about(&container.name);
        let image = self.image(&container).await?;
        if let Some(failed) = order.failed {
            // Counted only once the image is here: waiting for it is no crash.
            self.backoff.tried_again(&backoff_key(&pod, &container.name), failed, clock::now());
        }
        let made = self.make_container(&container, order.attempt, &image, volumes).await;
        let id = made.inspect_err(|why| {
            self.shared.recorder.warning(&about, "Failed", format!("Error: {}", why.message));
        })?;
        self.shared.recorder.normal(&about, "Created", format!("Container created: {}", container.name));
        if let Err(error) = self.shared.runtime.start_container(&id).await {
            self.shared.recorder.warning(&about, "Failed", format!("Error: {error}"));
            return Err(waiting("RunContainerError", error.message));
        }
        self.shared.recorder.normal(&about, "Started", format!("Container started: {}", container.name));
        self.post_start(&container, &id).await
    }

    async fn post_start(&mut self, container: &Container, id: &str) -> Result<(), Waiting> {
        let Some(hook) = &container.lifecycle.post_start else { return Ok(()) };
        let pod_ip = self.observed.ips.first().copied();
        let target = Target { container_id: id.to_owned(), pod_ip };
        let Err(why) = act(hook, container, &target, &self.shared.runtime, HOOK_PATIENCE).await else { return Ok(()) };
        let about = self.about(&container.name);
        self.shared.recorder.warning(&about, "FailedPostStartHook", format!("PostStartHook failed: {why}"));
        let grace = self.grace();
        let killed = self.stop_container(&container.name, id, "FailedPostStartHook", grace).await;
        if let Err(error) = killed {
            tracing::warn!(%error, "a container whose postStart hook failed was not stopped");
        }
        Err(waiting("PostStartHookError", format!("PostStartHook failed: {why}")))
    }

    async fn image(&mut self, container: &Container) -> Result<Image, Waiting> {
        let about = self.about(&container.name);
        let (image, policy) = (&container.image, &container.image_pull_policy);
        let recorder = self.shared.recorder.clone();
        let pulls = self.shared.puller.would_pull(self.pod.uid(), image, policy).await;
        let auths = if pulls { self.pull_auths(image).await } else { Vec::new() };
        if pulls {
            recorder.normal(&about, "Pulling", format!("Pulling image \"{image}\""));
        }
        match self.shared.puller.ensure(self.pod.uid(), image, policy, &auths).await {
            Ok(pulled) => {
                let message = match pulled.took {
                    None => format!("Container image \"{image}\" already present on machine"),
                    Some(took) => {
                        let took = format!("{:.3}s", took.as_secs_f64());
                        let size = pulled.image.size;
                        format!(
                            "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {size} bytes."
                        )
                    }
                };
                recorder.normal(&about, "Pulled", message);
                Ok(pulled.image)
            }
            Err(PullProblem { reason, message }) => {
                match reason {
                    "ErrImagePull" => {
                        recorder.warning(&about, "Failed", format!("Failed to pull image \"{image}\": {message}"));
                    }
                    "ImagePullBackOff" => {
                        recorder.normal(&about, "BackOff", format!("Back-off pulling image \"{image}\""));
                    }
                    "ErrImageNeverPull" => recorder.warning(&about, "ErrImageNeverPull", message.clone()),
                    _ => recorder.warning(&about, "InspectFailed", message.clone()),
                }
                recorder.warning(&about, "Failed", format!("Error: {reason}"));
                Err(waiting(reason, message))
            }
        }
    }

    async fn pull_auths(&self, image: &str) -> Vec<AuthConfig> {
        let mut out = Vec::new();
        for reference in &self.pod.spec.image_pull_secrets {
            let namespace = &self.pod.metadata.namespace;
            match self.shared.refs.object(resource::SECRETS, "secret", namespace, &reference.name).await {
                Ok(secret) => out.extend(registry_auth(&secret, image)),
                Err(error) => {
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    );
                    tracing::debug!(%error, "pull secret");
                    self.shared.recorder.warning(&self.about(""), "FailedToRetrieveImagePullSecret", message);
                }
            }
        }
        out
    }

    async fn make_container(
        &mut self,
        container: &Container,
        attempt: u32,
        image: &Image,
        volumes: &BTreeMap<String, Ready>,
    ) -> Result<String, Waiting> {
        let sandbox = self
            .observed
            .ready_sandbox()
            .cloned()
            .ok_or_else(|| waiting("CreateContainerError", "the pod's sandbox is gone"))?;
        let config_error = |error: ConfigError| waiting("CreateContainerConfigError", error.to_string());
        let facts = self.facts();
        let own = environment(&self.pod, container, &facts, &self.shared.refs).await.map_err(config_error)?;
        let mut env = self.shared.service_env.clone();
        env.retain(|(name, _)| !own.iter().any(|(given, _)| given == name));
        env.extend(own);
        let (variable, address) = config::WORKLOAD_API_VARIABLE;
        if config::wants_workload_api(&self.pod) && !env.iter().any(|(name, _)| name == variable) {
            env.push((variable.to_owned(), address.to_owned()));
        }
        let mounts = self.mounts(container, attempt, &env, volumes).map_err(config_error)?;
        let inputs = Inputs { attempt, image, env, mounts, node_memory: self.shared.node_memory };
        let config = config::container(&self.pod, container, inputs).map_err(config_error)?;
        let sandbox_config = self.sandbox_config(sandbox.attempt);
        let log_dir = std::path::Path::new(&sandbox_config.log_directory).join(&container.name);
        std::fs::create_dir_all(&log_dir).map_err(|error| waiting("CreateContainerError", error.to_string()))?;
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.id,
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let made = self.shared.runtime.create_container(request).await;
        made.map_err(|error| waiting("CreateContainerError", error.message))
    }

    fn mounts(
        &self,
        container: &Container,
        attempt: u32,
        env: &[(String, String)],
        volumes: &BTreeMap<String, Ready>,
    ) -> Result<Vec<Mount>, ConfigError> {
        let dir = self.shared.config.pod_dir(self.pod.uid());
        let other = |error: std::io::Error| ConfigError::Other(format!("failed to prepare mounts: {error}"));
        let mut out = Vec::new();
        for (at, wish) in container.volume_mounts.iter().enumerate() {
            let volume = volumes
                .get(&wish.name)
                .ok_or_else(|| ConfigError::Other(format!("volume \"{}\" is not mounted", wish.name)))?;
            let sub =
                if wish.sub_path.is_empty() { env::expand(&wish.sub_path_expr, env) } else { wish.sub_path.clone() };
            let path = if sub.is_empty() {
                volume.host_path.clone()
            } else {
                let target = dir.join("volume-subpaths").join(&wish.name).join(&container.name).join(at.to_string());
                open_subpath(&volume.host_path, &sub, &target).map_err(other)?
            };
            let read_only = wish.read_only || volume.read_only;
            out.push(config::mount(&wish.mount_path, &path, read_only, &wish.mount_propagation));
        }
        let has = |path: &str| container.volume_mounts.iter().any(|mount| mount.mount_path == path);
        if !self.pod.host_network() && !has("/etc/hosts") {
            out.push(config::mount("/etc/hosts", &dir.join("etc-hosts"), false, ""));
        }
        if let (Some(api), true) = (&self.shared.config.workload_api, config::wants_workload_api(&self.pod)) {
            std::fs::create_dir_all(api).map_err(other)?;
            out.push(config::mount(config::WORKLOAD_API_DIR, api, true, ""));
        }
        let message = config::message_path(container);
        if !has(message) {
            let words = dir.join("containers").join(&container.name);
            std::fs::create_dir_all(&words).map_err(other)?;
            let file = words.join(format!("message-{attempt}"));
            std::fs::write(&file, "").map_err(other)?;
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
            std::fs::set_permissions(&file, open).map_err(other)?;
            out.push(config::mount(message, &file, false, ""));
        }
        Ok(out)
    }

    /// Keeps, of every container, the newest run and the one before (`kubectl logs --previous`); and sandboxes only while they
    /// hold one of those.
    pub(super) async fn forget_old_runs(&mut self) -> Result<(), SyncError> {
        self.look().await?;
        let runtime = self.shared.runtime.clone();
        for container in self.pod.all_containers() {
            // The newest run may be one that failed to start: then the two before it are kept.
            for old in self.observed.runs(&container.name).skip(2).filter(|run| run.state != RunState::Running) {
                runtime.remove_container(&old.id).await?;
                if !old.log_path.is_empty() {
                    let _ = std::fs::remove_file(&old.log_path);
                }
            }
        }
        for sandbox in self.observed.sandboxes.iter().skip(1).filter(|sandbox| !sandbox.ready) {
            let in_use = |name: &str| self.observed.runs(name).take(2).any(|run| run.sandbox_id == sandbox.id);
            if !self.pod.all_containers().any(|container| in_use(&container.name)) {
                runtime.stop_sandbox(&sandbox.id).await?;
                runtime.remove_sandbox(&sandbox.id).await?;
            }
        }
        Ok(())
    }
}

//! Client of the Container Runtime Interface: unary gRPC over the runtime's Unix socket.

use cri::*;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};

/// A call that the runtime refused or that did not reach it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    /// gRPC's status code.
    pub code: tonic::Code,
    /// The runtime's words.
    pub message: String,
}

impl RuntimeError {
    /// The thing is not there (any more).
    pub fn is_not_found(&self) -> bool {
        self.code == tonic::Code::NotFound
    }

    /// The runtime did not answer; it may have done what it was asked.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.code, tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled)
    }
}

impl From<tonic::Status> for RuntimeError {
    fn from(status: tonic::Status) -> Self {
        RuntimeError { code: status.code(), message: status.message().to_owned() }
    }
}

/// Most calls answer in milliseconds; a sandbox may wait for a slow CNI plugin.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much longer than its limit a command in a container is waited for. The runtime ends it at its limit; but one that begins while its
/// container is killed may hang there, and hold up the kill until nobody waits for it any more.
const EXEC_SLACK: Duration = Duration::from_secs(5);
/// A node full of pods lists some hundreds of containers of some KiB each.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// A connection that opens itself again when the runtime was restarted.
#[derive(Clone, Debug)]
pub struct Runtime {
    channel: Channel,
}

impl Runtime {
    /// Does not wait: the first call connects.
    pub fn connect(socket: &Path) -> Self {
        let socket: PathBuf = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The authority is never resolved: the connector knows the way.
        let channel = Endpoint::from_static("http://runtime").connect_with_connector_lazy(connector);
        Runtime { channel }
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q, patience: Duration) -> Result<A, RuntimeError>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = tokio::time::timeout(patience, async {
            grpc.ready().await.map_err(|error| RuntimeError {
                code: tonic::Code::Unavailable,
                message: format!("the container runtime does not answer: {error}"),
            })?;
            let codec = tonic_prost::ProstCodec::<Q, A>::default();
            let path = PathAndQuery::from_static(path);
            Ok::<_, RuntimeError>(grpc.unary(tonic::Request::new(request), path, codec).await?.into_inner())
        });
        answer.await.unwrap_or_else(|_| {
            Err(RuntimeError {
                code: tonic::Code::DeadlineExceeded,
                message: format!("{path} took longer than {} s", patience.as_secs()),
            })
        })
    }

    pub async fn version(&self) -> Result<VersionResponse, RuntimeError> {
        self.call(path::VERSION, VersionRequest { version: "v1".into() }, PATIENCE).await
    }

    pub async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        let answer: StatusResponse = self.call(path::STATUS, StatusRequest { verbose: false }, PATIENCE).await?;
        Ok(answer.status.unwrap_or_default())
    }

    /// Makes the sandbox, its network namespace and its address. Returns the sandbox's id.
    /// `handler` is a RuntimeClass's; empty for the runtime's default.
    pub async fn run_sandbox(&self, config: PodSandboxConfig, handler: String) -> Result<String, RuntimeError> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
        let answer: PodSandboxId = self.call(path::RUN_POD_SANDBOX, request, PATIENCE * 2).await?;
        Ok(answer.pod_sandbox_id)
    }

    /// Kills what runs in the sandbox and gives its address back. Idempotent.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let request = PodSandboxId { pod_sandbox_id: id.to_owned() };
        gone_is_done(self.call::<_, Empty>(path::STOP_POD_SANDBOX, request, PATIENCE).await)
    }

    /// Removes the sandbox with its containers. Idempotent.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let request = PodSandboxId { pod_sandbox_id: id.to_owned() };
        gone_is_done(self.call::<_, Empty>(path::REMOVE_POD_SANDBOX, request, PATIENCE).await)
    }

    /// The sandbox's state, and the runtime's own details (`info`).
    pub async fn sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse, RuntimeError> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        self.call(path::POD_SANDBOX_STATUS, request, PATIENCE).await
    }

    /// Sandboxes with all of `labels`.
    pub async fn list_sandboxes(&self, labels: BTreeMap<String, String>) -> Result<Vec<PodSandbox>, RuntimeError> {
        let filter = PodSandboxFilter { id: String::new(), label_selector: labels };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        let answer: ListPodSandboxResponse = self.call(path::LIST_POD_SANDBOX, request, PATIENCE).await?;
        Ok(answer.items)
    }

    /// Containers with all of `labels`, running or not.
    pub async fn list_containers(&self, labels: BTreeMap<String, String>) -> Result<Vec<Container>, RuntimeError> {
        let filter = ContainerFilter { label_selector: labels, ..ContainerFilter::default() };
        let request = ListContainersRequest { filter: Some(filter) };
        let answer: ListContainersResponse = self.call(path::LIST_CONTAINERS, request, PATIENCE).await?;
        Ok(answer.containers)
    }

    pub async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer: ContainerStatusResponse = self.call(path::CONTAINER_STATUS, request, PATIENCE).await?;
        answer.status.ok_or_else(|| RuntimeError { code: tonic::Code::Internal, message: "no status".into() })
    }

    pub async fn create_container(&self, request: CreateContainerRequest) -> Result<String, RuntimeError> {
        let answer: ContainerId = self.call(path::CREATE_CONTAINER, request, PATIENCE).await?;
        Ok(answer.container_id)
    }

    /// Goes on when nobody waits for it any longer: a start that is taken back midway leaves a container that containerd can neither start nor remove.
    pub async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let (runtime, request) = (self.clone(), container(id));
        let started =
            tokio::spawn(async move { runtime.call::<_, Empty>(path::START_CONTAINER, request, PATIENCE).await });
        let lost =
            |error: tokio::task::JoinError| RuntimeError { code: tonic::Code::Internal, message: error.to_string() };
        started.await.map_err(lost)?.map(drop)
    }

    /// SIGTERM, and SIGKILL after `grace`. Returns when the container has ended. Idempotent.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = StopContainerRequest { container_id: id.to_owned(), timeout };
        gone_is_done(self.call::<_, Empty>(path::STOP_CONTAINER, request, grace.saturating_add(PATIENCE)).await)
    }

    /// Removes a container that has ended. Idempotent.
    pub async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        gone_is_done(self.call::<_, Empty>(path::REMOVE_CONTAINER, container(id), PATIENCE).await)
    }

    /// The log file was renamed: opens a new one.
    pub async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        self.call::<_, Empty>(path::REOPEN_CONTAINER_LOG, container(id), PATIENCE).await.map(drop)
    }

    /// Runs a command in the container and waits for its end.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        limit: Duration,
    ) -> Result<ExecSyncResponse, RuntimeError> {
        // Whole seconds on the wire: rounded up, so that a limit never becomes 0, which means none.
        let timeout = i64::try_from(limit.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX).max(1);
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        self.call(path::EXEC_SYNC, request, limit.saturating_add(EXEC_SLACK)).await
    }

    /// Prepares an interactive command; its streams are at the URL returned.
    pub async fn exec(&self, request: ExecRequest) -> Result<String, RuntimeError> {
        let answer: StreamUrl = self.call(path::EXEC, request, PATIENCE).await?;
        Ok(answer.url)
    }

    /// Prepares attaching to the container's main process; its streams are at the URL returned.
    pub async fn attach(&self, request: AttachRequest) -> Result<String, RuntimeError> {
        let answer: StreamUrl = self.call(path::ATTACH, request, PATIENCE).await?;
        Ok(answer.url)
    }

    /// CPU and memory of every running container.
    pub async fn container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let answer: ListContainerStatsResponse =
            self.call(path::LIST_CONTAINER_STATS, ListContainerStatsRequest { filter: None }, PATIENCE).await?;
        Ok(answer.stats)
    }

    pub async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        let answer: ListImagesResponse =
            self.call(path::LIST_IMAGES, ListImagesRequest { filter: None }, PATIENCE).await?;
        Ok(answer.images)
    }

    /// The image of that name or id, when it is here.
    pub async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        let answer: ImageStatusResponse = self.call(path::IMAGE_STATUS, image_request(image), PATIENCE).await?;
        Ok(answer.image)
    }

    /// Pulls; returns the image's id. Waits as long as it takes: the runtime gives up on a registry that stalls.
    pub async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String, RuntimeError> {
        let request = PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config };
        let answer: PullImageResponse = self.call(path::PULL_IMAGE, request, Duration::from_secs(24 * 3600)).await?;
        Ok(answer.image_ref)
    }

    /// Removes the image from the node. Idempotent.
    pub async fn remove_image(&self, image: &str) -> Result<(), RuntimeError> {
        gone_is_done(self.call::<_, Empty>(path::REMOVE_IMAGE, image_request(image), PATIENCE).await)
    }
}

fn container(id: &str) -> ContainerId {
    ContainerId { container_id: id.to_owned() }
}

fn image_spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..ImageSpec::default() }
}

fn image_request(image: &str) -> ImageRequest {
    ImageRequest { image: Some(image_spec(image)), verbose: false }
}

fn gone_is_done(answer: Result<Empty, RuntimeError>) -> Result<(), RuntimeError> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

//! Container Runtime Interface v1: the messages that the node agent uses, and the text that a runtime writes as container logs.
//!
//! Messages carry the published field numbers of `runtime.v1`; fields that nothing here reads or writes are left out (a decoder
//! skips them). Byte level only: the gRPC channel lives in `shell/node`.

mod container;
mod image;
pub mod log;
mod sandbox;
mod shared;
pub mod spdy;
mod stats;

pub use container::*;
pub use image::*;
pub use sandbox::*;
pub use shared::*;
pub use stats::*;

/// gRPC paths of the methods, named as in the interface.
pub mod path {
    pub const VERSION: &str = "/runtime.v1.RuntimeService/Version";
    pub const STATUS: &str = "/runtime.v1.RuntimeService/Status";
    pub const RUN_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/RunPodSandbox";
    pub const STOP_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/StopPodSandbox";
    pub const REMOVE_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/RemovePodSandbox";
    pub const POD_SANDBOX_STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
    pub const LIST_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
    pub const CREATE_CONTAINER: &str = "/runtime.v1.RuntimeService/CreateContainer";
    pub const START_CONTAINER: &str = "/runtime.v1.RuntimeService/StartContainer";
    pub const STOP_CONTAINER: &str = "/runtime.v1.RuntimeService/StopContainer";
    pub const REMOVE_CONTAINER: &str = "/runtime.v1.RuntimeService/RemoveContainer";
    pub const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
    pub const CONTAINER_STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";
    pub const REOPEN_CONTAINER_LOG: &str = "/runtime.v1.RuntimeService/ReopenContainerLog";
    pub const EXEC_SYNC: &str = "/runtime.v1.RuntimeService/ExecSync";
    pub const EXEC: &str = "/runtime.v1.RuntimeService/Exec";
    pub const ATTACH: &str = "/runtime.v1.RuntimeService/Attach";
    pub const LIST_CONTAINER_STATS: &str = "/runtime.v1.RuntimeService/ListContainerStats";
    pub const UPDATE_RUNTIME_CONFIG: &str = "/runtime.v1.RuntimeService/UpdateRuntimeConfig";
    pub const LIST_IMAGES: &str = "/runtime.v1.ImageService/ListImages";
    pub const IMAGE_STATUS: &str = "/runtime.v1.ImageService/ImageStatus";
    pub const PULL_IMAGE: &str = "/runtime.v1.ImageService/PullImage";
    pub const REMOVE_IMAGE: &str = "/runtime.v1.ImageService/RemoveImage";
    pub const IMAGE_FS_INFO: &str = "/runtime.v1.ImageService/ImageFsInfo";
}

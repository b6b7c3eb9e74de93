//! Pods and what is stamped into them.

use crate::condition::{self, Condition};
use crate::scheduling::SchedulingSpec;
use crate::taint::Toleration;
use crate::{Doc, Labels, Meta, Quantity, Timestamp, Truth};
use std::sync::Arc;

/// The projection of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Metadata.
    pub meta: Meta,
    /// Spec.
    pub spec: PodSpec,
    /// Status.
    pub status: PodStatus,
}

/// What decisions read of `spec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSpec {
    /// Node that it is bound to, or empty.
    pub node_name: Arc<str>,
    /// Who schedules it; `default-scheduler` when nothing is said.
    pub scheduler_name: Arc<str>,
    /// Resolved priority.
    pub priority: i32,
    /// Whether its containers are started again.
    pub restart_policy: RestartPolicy,
    /// Seconds from deletion to kill.
    pub termination_grace_s: i64,
    /// The pod fails after so many seconds.
    pub active_deadline_s: Option<i64>,
    /// Shares the node's network.
    pub host_network: bool,
    /// Its identity.
    pub service_account: Arc<str>,
    /// Name inside `subdomain`.
    pub hostname: Arc<str>,
    /// Headless service that names it.
    pub subdomain: Arc<str>,
    /// Containers, without init containers.
    pub containers: Vec<Container>,
    /// Init containers (a restartable one is a sidecar).
    pub init_containers: Vec<Container>,
    /// Names of the PersistentVolumeClaims that it mounts.
    pub claims: Vec<Arc<str>>,
    /// Tolerations.
    pub tolerations: Arc<[Toleration]>,
    /// What the scheduler reads.
    pub scheduling: Arc<SchedulingSpec>,
}

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Always.
    #[default]
    Always,
    /// When it failed.
    OnFailure,
    /// Never.
    Never,
}

/// One container of a spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Name.
    pub name: Arc<str>,
    /// Image reference.
    pub image: Arc<str>,
    /// Declared ports.
    pub ports: Vec<ContainerPort>,
    /// `resources.requests`, sorted by name.
    pub requests: Vec<(Arc<str>, Quantity)>,
    /// `restartPolicy: Always` of an init container: a sidecar.
    pub sidecar: bool,
}

impl Container {
    /// The request of one resource.
    pub fn request(&self, resource: &str) -> Option<Quantity> {
        self.requests.iter().find(|(name, _)| &**name == resource).map(|(_, amount)| *amount)
    }
}

/// A declared port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name, or empty.
    pub name: Arc<str>,
    /// Number.
    pub port: u16,
    /// Number on the host (0: none).
    pub host_port: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// A transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Kubernetes' spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }
    /// From Kubernetes' spelling; empty means TCP.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Not all containers have started.
    #[default]
    Pending,
    /// Running.
    Running,
    /// All containers ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// The node does not answer.
    Unknown,
}

impl Phase {
    /// Kubernetes' spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::Unknown => "Unknown",
        }
    }
    /// From Kubernetes' spelling; empty means Pending.
    pub fn parse(text: &str) -> Self {
        match text {
            "Running" => Phase::Running,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            "Unknown" => Phase::Unknown,
            _ => Phase::Pending,
        }
    }
    /// Succeeded or Failed: it will never run again.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

/// What decisions read of `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodStatus {
    /// Phase.
    pub phase: Phase,
    /// `Evicted`, `NodeLost`, ...
    pub reason: Arc<str>,
    /// For a person.
    pub message: Arc<str>,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// First address, or empty.
    pub pod_ip: Arc<str>,
    /// All addresses.
    pub pod_ips: Vec<Arc<str>>,
    /// The node's address.
    pub host_ip: Arc<str>,
    /// When the agent took it.
    pub started: Option<Timestamp>,
    /// Containers.
    pub containers: Vec<ContainerStatus>,
    /// Init containers.
    pub init_containers: Vec<ContainerStatus>,
    /// A node on which the scheduler has made room for it.
    pub nominated_node: Arc<str>,
}

/// The state of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Name.
    pub name: Arc<str>,
    /// Passes its readiness probe.
    pub ready: bool,
    /// How often it was started again.
    pub restarts: i32,
    /// Now.
    pub state: ContainerState,
    /// Before the last restart.
    pub last_state: ContainerState,
}

/// What a container does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ContainerState {
    /// Nothing is known.
    #[default]
    Unknown,
    /// Not running yet, or between restarts.
    Waiting {
        /// `ImagePullBackOff`, `CrashLoopBackOff`, ...
        reason: Arc<str>,
        /// For a person.
        message: Arc<str>,
    },
    /// Running.
    Running {
        /// Since.
        started: Timestamp,
    },
    /// Ended.
    Terminated {
        /// Exit code.
        exit_code: i32,
        /// `Completed`, `Error`, `OOMKilled`, ...
        reason: Arc<str>,
        /// Since.
        finished: Timestamp,
    },
}

impl Pod {
    /// The `Ready` condition holds.
    pub fn is_ready(&self) -> bool {
        condition::find(&self.status.conditions, "Ready").is_some_and(|ready| ready.status == Truth::True)
    }
    /// Ready for at least `min_ready_s`. When it is ready but not for long enough, `Err` says when it will be.
    pub fn available(&self, min_ready_s: i32, now: Timestamp) -> Result<bool, Timestamp> {
        let Some(ready) = condition::find(&self.status.conditions, "Ready").filter(|c| c.status == Truth::True) else {
            return Ok(false);
        };
        let at = ready.last_transition.plus_ms(i64::from(min_ready_s) * 1000);
        if min_ready_s <= 0 || now >= at { Ok(true) } else { Err(at) }
    }
    /// Neither ended nor being deleted.
    pub fn is_active(&self) -> bool {
        !self.status.phase.is_terminal() && !self.meta.is_deleting()
    }
    /// Restarts of all containers together.
    pub fn restarts(&self) -> i32 {
        self.status.containers.iter().chain(&self.status.init_containers).map(|c| c.restarts).sum()
    }
}

/// A pod template: its labels and constraints are read, its body is carried.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodTemplate {
    /// Labels that every pod gets.
    pub labels: Labels,
    /// Annotations that every pod gets.
    pub annotations: Labels,
    /// The whole template (`metadata` and `spec`) as canonical JSON.
    pub body: Doc,
    /// `spec.nodeName`, or empty.
    pub node_name: Arc<str>,
    /// `spec.restartPolicy`.
    pub restart_policy: RestartPolicy,
    /// Tolerations.
    pub tolerations: Arc<[Toleration]>,
    /// What the scheduler would read of a pod made from it.
    pub scheduling: Arc<SchedulingSpec>,
}

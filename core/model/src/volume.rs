//! Storage: claims, volumes, classes.

use crate::{Labels, Meta, Quantity};
use std::sync::Arc;

/// A request for storage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PersistentVolumeClaim {
    /// Metadata.
    pub meta: Meta,
    /// `spec.storageClassName`; None: the default class, empty: none.
    pub class: Option<Arc<str>>,
    /// `spec.volumeName`, or empty.
    pub volume: Arc<str>,
    /// `spec.accessModes`.
    pub access_modes: Vec<Arc<str>>,
    /// `spec.resources.requests.storage`.
    pub request: Quantity,
    /// `spec.selector`.
    pub selector: Option<crate::LabelSelector>,
    /// `spec.volumeMode: Block`.
    pub block: bool,
    /// `status.phase`.
    pub phase: ClaimPhase,
    /// `status.capacity.storage`.
    pub capacity: Option<Quantity>,
}

/// `status.phase` of a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimPhase {
    /// Waits for a volume.
    #[default]
    Pending,
    /// Has one.
    Bound,
    /// Its volume is gone.
    Lost,
}

impl ClaimPhase {
    /// Kubernetes' spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            ClaimPhase::Pending => "Pending",
            ClaimPhase::Bound => "Bound",
            ClaimPhase::Lost => "Lost",
        }
    }
}

/// A piece of storage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PersistentVolume {
    /// Metadata.
    pub meta: Meta,
    /// `spec.storageClassName`.
    pub class: Arc<str>,
    /// `spec.claimRef`: namespace, name and uid (empty until bound).
    pub claim: Option<(Arc<str>, Arc<str>, Arc<str>)>,
    /// `spec.capacity.storage`.
    pub capacity: Quantity,
    /// `spec.accessModes`.
    pub access_modes: Vec<Arc<str>>,
    /// `spec.persistentVolumeReclaimPolicy`.
    pub reclaim: ReclaimPolicy,
    /// `spec.volumeMode: Block`.
    pub block: bool,
    /// `spec.hostPath.path`, or empty.
    pub host_path: Arc<str>,
    /// Nodes that can mount it, from `spec.nodeAffinity.required` terms on `kubernetes.io/hostname`; None: every node.
    pub nodes: Option<Vec<Arc<str>>>,
    /// `status.phase`.
    pub phase: VolumePhase,
}

/// `persistentVolumeReclaimPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReclaimPolicy {
    /// Stays when its claim goes.
    #[default]
    Retain,
    /// Goes with its claim.
    Delete,
}

/// `status.phase` of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VolumePhase {
    /// Not looked at yet.
    #[default]
    Pending,
    /// Free.
    Available,
    /// Belongs to a claim.
    Bound,
    /// Its claim is gone.
    Released,
    /// Could not be reclaimed.
    Failed,
}

impl VolumePhase {
    /// Kubernetes' spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            VolumePhase::Pending => "Pending",
            VolumePhase::Available => "Available",
            VolumePhase::Bound => "Bound",
            VolumePhase::Released => "Released",
            VolumePhase::Failed => "Failed",
        }
    }
}

/// How storage is provisioned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageClass {
    /// Metadata; the annotation `storageclass.kubernetes.io/is-default-class` marks the default.
    pub meta: Meta,
    /// Who provisions.
    pub provisioner: Arc<str>,
    /// Waits for the first pod.
    pub wait_for_consumer: bool,
    /// What becomes of a volume whose claim goes.
    pub reclaim: ReclaimPolicy,
    /// `parameters`.
    pub parameters: Labels,
}

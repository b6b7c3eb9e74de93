//! Orders: what the control wants done to the world. An effect carries the generation (resource version, uid) that it was
//! made from; the shell carries it out without choosing, and a stale one is refused by the API.

use crate::batch::{CronJobStatus, JobStatus};
use crate::cluster::Namespace;
use crate::condition::Condition;
use crate::policy::{AutoscalerStatus, DisruptionStatus};
use crate::scheduling::ReservationStatus;
use crate::service::{AddressType, Endpoint, EndpointPort, EndpointSubset};
use crate::taint::Taint;
use crate::volume::{ClaimPhase, VolumePhase};
use crate::workload::{DaemonSetStatus, DeploymentStatus, ReplicaSetStatus, StatefulSetStatus};
use crate::{Doc, Key, Kind, Labels, Meta, OwnerRef, Quantity, Timestamp};
use std::sync::Arc;

/// An object as it was when the order was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Kind.
    pub kind: Kind,
    /// Name.
    pub key: Key,
    /// Uid: a namesake is not meant.
    pub uid: Arc<str>,
    /// Resource version: a changed object is not meant. 0: whatever its version.
    pub revision: u64,
}

impl Target {
    /// This very version of the object.
    pub fn exactly(kind: Kind, meta: &Meta) -> Self {
        Target { kind, key: meta.key.clone(), uid: meta.uid.clone(), revision: meta.revision }
    }
    /// The object in whatever version.
    pub fn any_version(kind: Kind, meta: &Meta) -> Self {
        Target { revision: 0, ..Target::exactly(kind, meta) }
    }
}

/// Metadata of an object to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMeta {
    /// Namespace and name.
    pub key: Key,
    /// `generateName` that the name was made from, or empty: only told, since names are chosen by the control.
    pub generate_name: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Owners.
    pub owners: Vec<OwnerRef>,
    /// Finalizers.
    pub finalizers: Vec<Arc<str>>,
}

/// An order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make an object.
    Create(NewMeta, Body),
    /// Change fields of spec (or of the whole, for kinds without spec).
    Update(Target, Change),
    /// Write status.
    PatchStatus(Target, Status),
    /// Change metadata.
    PatchMeta(Target, MetaPatch),
    /// Delete.
    Delete {
        /// What.
        target: Target,
        /// `gracePeriodSeconds`; None: the object's own.
        grace_s: Option<i64>,
        /// What becomes of its dependents.
        propagation: Propagation,
    },
    /// Put a pod on a node.
    Bind {
        /// The pod.
        pod: Target,
        /// The node.
        node: Arc<str>,
        /// Annotations that the pod gets with it.
        annotations: Labels,
    },
    /// Delete a pod if its disruption budgets allow it.
    Evict {
        /// The pod.
        pod: Target,
        /// `gracePeriodSeconds`; None: the pod's own.
        grace_s: Option<i64>,
    },
    /// Tell people. Never retried, never waited for.
    Record(Record),
}

/// What an object to be made consists of.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A pod from a template.
    Pod(Box<NewPod>),
    /// A replica set.
    ReplicaSet {
        /// Desired pods.
        replicas: i32,
        /// Seconds of readiness.
        min_ready_s: i32,
        /// The deployment's selector requirements, to which `hash` is added.
        selector: crate::LabelSelector,
        /// Template; the label `pod-template-hash: <hash>` is added to it.
        template: Doc,
        /// Value of `pod-template-hash`.
        hash: Arc<str>,
    },
    /// A recorded template.
    ControllerRevision {
        /// Number.
        number: i64,
        /// Data.
        data: Doc,
    },
    /// A job from a template.
    Job {
        /// The job template.
        template: Doc,
    },
    /// A claim from a StatefulSet's template.
    Claim {
        /// The claim template.
        template: Doc,
    },
    /// A hostPath volume for a claim.
    HostPathVolume {
        /// Path on the node.
        path: Arc<str>,
        /// Node that has it.
        node: Arc<str>,
        /// Size.
        capacity: Quantity,
        /// Access modes.
        access_modes: Vec<Arc<str>>,
        /// Class.
        class: Arc<str>,
        /// Delete with the claim.
        delete: bool,
        /// Block device rather than file system.
        block: bool,
        /// The claim: key and uid.
        claim: (Key, Arc<str>),
    },
    /// A slice.
    EndpointSlice {
        /// Address type.
        address_type: AddressType,
        /// Ports.
        ports: Vec<EndpointPort>,
        /// Endpoints.
        endpoints: Vec<Endpoint>,
    },
    /// The older form.
    Endpoints {
        /// Subsets.
        subsets: Vec<EndpointSubset>,
    },
    /// A namespace's default identity.
    ServiceAccount,
    /// The bundle of the API's certificate authority.
    RootCa {
        /// PEM.
        pem: Arc<str>,
    },
}

/// A pod to be made from a template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewPod {
    /// The whole template.
    pub template: Doc,
    /// `spec.nodeName`, or empty.
    pub node_name: Arc<str>,
    /// Adds a required node affinity to the node of this name (`metadata.name`), as a DaemonSet's pods have.
    pub only_node: Option<Arc<str>>,
    /// Tolerations to add.
    pub tolerations: Vec<crate::taint::Toleration>,
    /// `spec.hostname`, or empty.
    pub hostname: Arc<str>,
    /// `spec.subdomain`, or empty.
    pub subdomain: Arc<str>,
    /// Volumes to put in place of the template's of the same name: volume name and claim.
    pub claims: Vec<(Arc<str>, Arc<str>)>,
    /// Variables for every container: name and value.
    pub env: Vec<(Arc<str>, Arc<str>)>,
    /// Variables for every container from the pod's fields: name and field path.
    pub env_from_field: Vec<(Arc<str>, Arc<str>)>,
}

/// A change of fields that are no status.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A replica set's number and annotations, as its deployment wants them.
    ReplicaSet {
        /// `spec.replicas`.
        replicas: Option<i32>,
        /// `spec.minReadySeconds`.
        min_ready_s: Option<i32>,
        /// Annotations to set.
        annotations: Labels,
    },
    /// A deployment's annotations.
    Annotations(Labels),
    /// Replicas through the `scale` subresource.
    Scale {
        /// `spec.replicas`.
        replicas: i32,
    },
    /// A revision's number.
    RevisionNumber(i64),
    /// A slice's content.
    EndpointSlice {
        /// Ports.
        ports: Vec<EndpointPort>,
        /// Endpoints.
        endpoints: Vec<Endpoint>,
        /// Labels to set.
        labels: Labels,
        /// Annotations to set.
        annotations: Labels,
    },
    /// Content of the older form.
    Endpoints {
        /// Subsets.
        subsets: Vec<EndpointSubset>,
        /// Labels to set.
        labels: Labels,
        /// Annotations to set.
        annotations: Labels,
    },
    /// A node's taints, whole.
    Taints(Vec<Taint>),
    /// A volume's claim; None takes the uid and name away.
    VolumeClaim(Option<(Key, Arc<str>)>),
    /// A claim's volume.
    ClaimVolume {
        /// `spec.volumeName`.
        volume: Arc<str>,
        /// Annotations to set.
        annotations: Labels,
    },
    /// A claim's class, when the default one is given to it.
    ClaimClass(Arc<str>),
    /// Takes `kubernetes` out of a namespace's `spec.finalizers` (subresource `finalize`).
    FinalizeNamespace(Arc<Namespace>),
    /// The bundle.
    RootCa(Arc<str>),
    /// A job's `spec.suspend`.
    Suspend(bool),
}

/// A status to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Of a Deployment.
    Deployment(DeploymentStatus),
    /// Of a ReplicaSet.
    ReplicaSet(ReplicaSetStatus),
    /// Of a StatefulSet.
    StatefulSet(StatefulSetStatus),
    /// Of a DaemonSet.
    DaemonSet(DaemonSetStatus),
    /// Of a Job.
    Job(JobStatus),
    /// Of a CronJob.
    CronJob(CronJobStatus),
    /// Of a PodDisruptionBudget.
    Disruption(DisruptionStatus),
    /// Of a HorizontalPodAutoscaler.
    Autoscaler(AutoscalerStatus),
    /// Of a claim.
    Claim {
        /// Phase.
        phase: ClaimPhase,
        /// `capacity.storage`.
        capacity: Option<Quantity>,
        /// `accessModes`.
        access_modes: Vec<Arc<str>>,
    },
    /// Of a volume.
    Volume {
        /// Phase.
        phase: VolumePhase,
    },
    /// Of a namespace.
    Namespace {
        /// `Terminating`.
        terminating: bool,
        /// Conditions.
        conditions: Vec<Condition>,
    },
    /// A node's conditions: only those given are replaced.
    NodeConditions(Vec<Condition>),
    /// A pod's conditions: only those given are replaced.
    PodConditions {
        /// Conditions.
        conditions: Vec<Condition>,
        /// `nominatedNodeName`, when it is to change; empty clears it.
        nominated_node: Option<Arc<str>>,
    },
    /// Of a Reservation.
    Reservation(ReservationStatus),
    /// A pod's end as seen from outside: phase, reason, message and conditions.
    PodFailed {
        /// `reason`.
        reason: Arc<str>,
        /// `message`.
        message: Arc<str>,
        /// Conditions to set.
        conditions: Vec<Condition>,
    },
}

/// A change of metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaPatch {
    /// Labels to set, or (None) to remove.
    pub labels: Vec<(Arc<str>, Option<Arc<str>>)>,
    /// Annotations to set, or (None) to remove.
    pub annotations: Vec<(Arc<str>, Option<Arc<str>>)>,
    /// All owners.
    pub owners: Option<Vec<OwnerRef>>,
    /// All finalizers.
    pub finalizers: Option<Vec<Arc<str>>>,
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// The kind's default.
    #[default]
    Default,
    /// The collector deletes them afterwards.
    Background,
    /// The object goes when they are gone.
    Foreground,
    /// They stay, without this owner.
    Orphan,
}

impl Propagation {
    /// Kubernetes' spelling; None for the default.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Propagation::Default => None,
            Propagation::Background => Some("Background"),
            Propagation::Foreground => Some("Foreground"),
            Propagation::Orphan => Some("Orphan"),
        }
    }
}

/// A Kubernetes Event object to be recorded; equal ones are aggregated into a count by the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub about: Target,
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: Arc<str>,
    /// For a person.
    pub message: Arc<str>,
    /// `replicaset-controller`, `default-scheduler`, ...
    pub source: &'static str,
    /// When.
    pub at: Timestamp,
}

/// How an order ended. The control holds its hand over a key until it has seen what its orders did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The order.
    pub order: u64,
    /// What came of it.
    pub outcome: Result<Made, Refusal>,
}

/// The object that an order made or changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Its revision afterwards: the control waits until the watch has shown it (0: nothing to wait for).
    pub revision: u64,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status; 0: no answer.
    pub code: u16,
    /// `Status.reason`.
    pub reason: Arc<str>,
    /// `Status.message`.
    pub message: Arc<str>,
}

impl Refusal {
    /// The object changed first, or a namesake exists.
    pub fn is_conflict(&self) -> bool {
        self.code == 409
    }
    /// The object is gone.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }
}

impl Effect {
    /// Kind and name of the object that this is done to (None for a Record).
    pub fn subject(&self) -> Option<(Kind, &Key)> {
        match self {
            Effect::Create(meta, body) => Some((body.kind(), &meta.key)),
            Effect::Update(target, _) | Effect::PatchStatus(target, _) | Effect::PatchMeta(target, _) => {
                Some((target.kind, &target.key))
            }
            Effect::Delete { target, .. } => Some((target.kind, &target.key)),
            Effect::Bind { pod, .. } | Effect::Evict { pod, .. } => Some((pod.kind, &pod.key)),
            Effect::Record(_) => None,
        }
    }
}

impl Body {
    /// The kind that it makes.
    pub fn kind(&self) -> Kind {
        match self {
            Body::Pod(_) => Kind::Pod,
            Body::ReplicaSet { .. } => Kind::ReplicaSet,
            Body::ControllerRevision { .. } => Kind::ControllerRevision,
            Body::Job { .. } => Kind::Job,
            Body::Claim { .. } => Kind::PersistentVolumeClaim,
            Body::HostPathVolume { .. } => Kind::PersistentVolume,
            Body::EndpointSlice { .. } => Kind::EndpointSlice,
            Body::Endpoints { .. } => Kind::Endpoints,
            Body::ServiceAccount => Kind::ServiceAccount,
            Body::RootCa { .. } => Kind::ConfigMap,
        }
    }
}

//! What the scheduler reads of pods, nodes and storage. Everything that two pods may share is in [`SchedulingSpec`]: pods with
//! equal specs, labels and namespace are one class, and are placed by one computation.

use crate::selector::{LabelSelector, Requirement};
use crate::taint::{Taint, Toleration};
use crate::{Condition, Key, Labels, Timestamp, pod::Protocol};
use std::sync::Arc;

/// Amounts by resource name, sorted by name, without zeros: `cpu` in thousandths, everything else in whole units (bytes, pieces).
pub type Amounts = Vec<(Arc<str>, i64)>;

/// `kubernetes.io/hostname`.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// `topology.kubernetes.io/zone`.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The scheduler's view of a pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchedulingSpec {
    /// What the pod asks for: containers, sidecars and init containers as kubelet runs them, pod-level requests, overhead.
    pub requests: Amounts,
    /// Requests with 100m CPU and 200 MB memory in place of what a container leaves out; only scores read it. `(cpu, memory)`.
    pub nominal: (i64, i64),
    /// `spec.nodeSelector`, sorted.
    pub node_selector: Vec<(Arc<str>, Arc<str>)>,
    /// `nodeAffinity.required...`: any of these terms; None: every node. An empty list matches no node.
    pub node_affinity: Option<Vec<NodeTerm>>,
    /// `nodeAffinity.preferred...`: weight and term.
    pub preferred_nodes: Vec<(i32, NodeTerm)>,
    /// `podAffinity.required...`: all of these.
    pub affinity: Vec<PodTerm>,
    /// `podAffinity.preferred...`: weight and term.
    pub preferred_affinity: Vec<(i32, PodTerm)>,
    /// `podAntiAffinity.required...`: none of these.
    pub anti_affinity: Vec<PodTerm>,
    /// `podAntiAffinity.preferred...`: weight and term.
    pub preferred_anti_affinity: Vec<(i32, PodTerm)>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// `topologySpreadConstraints`.
    pub spread: Vec<SpreadConstraint>,
    /// Ports on the host, sorted.
    pub host_ports: Vec<HostPort>,
    /// Resolved priority.
    pub priority: i32,
    /// `preemptionPolicy: Never`.
    pub never_preempts: bool,
    /// In the Guaranteed class: every container's limits of CPU and memory are its requests. Only alignment to NUMA zones reads it.
    pub guaranteed: bool,
    /// `schedulingGates`: while there is one, nobody places the pod.
    pub gates: Vec<Arc<str>>,
    /// PersistentVolumeClaims by name.
    pub claims: Vec<Claim>,
    /// Disks named in the pod itself, of the kinds that cannot be shared freely.
    pub disks: Vec<Disk>,
    /// Images of init containers and containers, with their tag (`:latest` added); one entry a container.
    pub images: Vec<Arc<str>>,
}

/// A claim of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Name of the PersistentVolumeClaim.
    pub name: Arc<str>,
    /// The pod that it is made for, out of its `ephemeral` volume; None: it stands for itself.
    pub made_for: Option<Arc<str>>,
}

impl Claim {
    /// Made out of an `ephemeral` volume.
    pub fn is_ephemeral(&self) -> bool {
        self.made_for.is_some()
    }
}

/// A term of node affinity: all expressions and fields hold. One with neither matches no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeTerm {
    /// `matchExpressions`, on labels.
    pub expressions: Vec<Requirement>,
    /// `matchFields`, on `metadata.name`.
    pub fields: Vec<Requirement>,
}

impl NodeTerm {
    /// Whether a node of this name and these labels matches.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        !(self.expressions.is_empty() && self.fields.is_empty())
            && self.expressions.iter().all(|requirement| requirement.matches(labels))
            && self
                .fields
                .iter()
                .all(|requirement| requirement.matches_value((&*requirement.key == "metadata.name").then_some(name)))
    }
}

/// A term of pod (anti-)affinity. `matchLabelKeys` and `mismatchLabelKeys` are already part of the selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodTerm {
    /// Label of the node that makes the domain.
    pub topology_key: Arc<str>,
    /// Which pods; None matches none.
    pub selector: Option<LabelSelector>,
    /// Their namespaces. When the pod names none and has no namespace selector: its own.
    pub namespaces: Vec<Arc<str>>,
    /// Namespaces by label, besides `namespaces`.
    pub namespace_selector: Option<LabelSelector>,
}

/// One topology spread constraint. `matchLabelKeys` is already part of the selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpreadConstraint {
    /// Label of the node that makes the domain.
    pub topology_key: Arc<str>,
    /// Which pods of the pod's namespace count; None matches none.
    pub selector: Option<LabelSelector>,
    /// Allowed difference to the emptiest domain.
    pub max_skew: i32,
    /// With fewer eligible domains the emptiest counts as empty.
    pub min_domains: i32,
    /// `DoNotSchedule` rather than `ScheduleAnyway`.
    pub hard: bool,
    /// `nodeAffinityPolicy: Honor`: only nodes that the pod's node selector and affinity allow count.
    pub honor_affinity: bool,
    /// `nodeTaintsPolicy: Honor`: only nodes whose taints the pod tolerates count.
    pub honor_taints: bool,
}

impl SpreadConstraint {
    /// Whether a pod of the same namespace with these labels counts among those to be spread. An empty selector counts nobody.
    pub fn counts(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|selector| !selector.is_empty() && selector.matches(labels))
    }
    /// Whether a pod with these labels counts itself when it is placed; here an empty selector means every pod.
    pub fn counts_itself(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// A port taken on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Number.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// Address on the host; `0.0.0.0` is every one.
    pub ip: Arc<str>,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || &*self.ip == "0.0.0.0" || &*other.ip == "0.0.0.0")
    }
}

/// A disk named in a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk {
    /// What it is.
    pub kind: DiskKind,
    /// Identifies it among its kind (RBD: pool and image).
    pub id: Arc<str>,
    /// RBD: the monitors; two disks are the same only when they share one.
    pub monitors: Vec<Arc<str>>,
    /// Mounted read-only.
    pub read_only: bool,
}

/// Kinds of disks that a pod can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskKind {
    /// `gcePersistentDisk`: shared when all mounts are read-only.
    GcePersistentDisk,
    /// `awsElasticBlockStore`: never shared.
    AwsElasticBlockStore,
    /// `iscsi`: shared when all mounts are read-only.
    Iscsi,
    /// `rbd`: shared when all mounts are read-only.
    Rbd,
}

impl Disk {
    /// Whether both cannot be mounted on one node.
    pub fn conflicts(&self, other: &Disk) -> bool {
        let same = self.kind == other.kind
            && self.id == other.id
            && (self.kind != DiskKind::Rbd || self.monitors.iter().any(|m| other.monitors.contains(m)));
        same && (self.kind == DiskKind::AwsElasticBlockStore || !(self.read_only && other.read_only))
    }
}

/// The scheduler's view of a node, besides its metadata and taints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeScheduling {
    /// `status.allocatable`.
    pub allocatable: Amounts,
    /// `status.images`: every name of an image, with its tag, and its size in bytes. Sorted by name.
    pub images: Vec<(Arc<str>, i64)>,
}

/// All that the scheduler reads of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// Allocatable resources and images.
    pub scheduling: Arc<NodeScheduling>,
}

/// The scheduler's view of a PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimFacts {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Being deleted.
    pub deleting: bool,
    /// `spec.volumeName`, or empty.
    pub volume: Arc<str>,
    /// `pv.kubernetes.io/bind-completed` is set: binding is done on both sides.
    pub bind_completed: bool,
    /// `status.phase` is `Lost`.
    pub lost: bool,
    /// `spec.storageClassName`; None: not set.
    pub class: Option<Arc<str>>,
    /// `spec.resources.requests.storage`, bytes.
    pub request: i64,
    /// `spec.accessModes`.
    pub access_modes: Vec<Arc<str>>,
    /// `spec.selector` on volumes' labels.
    pub selector: Option<LabelSelector>,
    /// `spec.volumeMode: Block`.
    pub block: bool,
    /// Annotation `volume.kubernetes.io/selected-node`, or empty.
    pub selected_node: Arc<str>,
    /// Name of the pod that owns it (made from an `ephemeral` volume), or empty.
    pub owner_pod: Arc<str>,
}

impl ClaimFacts {
    /// Bound on both sides.
    pub fn is_bound(&self) -> bool {
        !self.volume.is_empty() && self.bind_completed
    }
}

/// The scheduler's view of a PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeFacts {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Labels: zone and region labels bind it to nodes, and claims select by labels.
    pub labels: Labels,
    /// `spec.storageClassName`.
    pub class: Arc<str>,
    /// `spec.capacity.storage`, bytes.
    pub capacity: i64,
    /// `spec.accessModes`.
    pub access_modes: Vec<Arc<str>>,
    /// `spec.volumeMode: Block`.
    pub block: bool,
    /// `spec.claimRef`: namespace, name, uid (may be empty).
    pub claim: Option<(Arc<str>, Arc<str>, Arc<str>)>,
    /// `spec.nodeAffinity.required`: any of these terms; None: every node.
    pub node_affinity: Option<Vec<NodeTerm>>,
    /// `spec.csi`: driver and volume handle.
    pub csi: Option<(Arc<str>, Arc<str>)>,
    /// `status.phase` is `Available`, or not told yet.
    pub available: bool,
    /// Being deleted.
    pub deleting: bool,
}

/// The scheduler's view of a StorageClass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageClassFacts {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `provisioner`.
    pub provisioner: Arc<str>,
    /// `volumeBindingMode: WaitForFirstConsumer`.
    pub wait_for_consumer: bool,
    /// `allowedTopologies`: any of these; None: everywhere.
    pub allowed: Option<Vec<NodeTerm>>,
}

/// The scheduler's view of a CSINode: how many volumes of each driver its node can attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsiNodeFacts {
    /// Name of the node.
    pub name: Arc<str>,
    /// Driver and `allocatable.count`.
    pub limits: Vec<(Arc<str>, Option<i32>)>,
}

/// The scheduler's view of a PodDisruptionBudget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetFacts {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Which pods; None or empty: none that the scheduler heeds.
    pub selector: Option<LabelSelector>,
    /// `status.disruptionsAllowed`.
    pub allowed: i32,
    /// Names of pods whose eviction is already counted.
    pub disrupted: Vec<Arc<str>>,
}

/// The scheduler's view of an ElasticQuota (scheduling.sigs.k8s.io), with Koordinator's labels for its place in a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaFacts {
    /// Namespace: of pods that name no quota.
    pub namespace: Arc<str>,
    /// Name, by which pods and other quotas name it.
    pub name: Arc<str>,
    /// The quota that it is a part of; None: of the whole pool.
    pub parent: Option<Arc<str>>,
    /// `spec.min`: what it is sure of.
    pub min: Amounts,
    /// `spec.max`: what it may use at most.
    pub max: Amounts,
    /// Its part of what is lent.
    pub weight: u32,
}

/// The scheduler's view of a NodeResourceTopology (topology.node.k8s.io).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyFacts {
    /// The node.
    pub node: Arc<str>,
    /// The Topology Manager's policy, in kubelet's spelling.
    pub policy: Arc<str>,
    /// What each zone has allocatable.
    pub zones: Vec<Amounts>,
}

/// The scheduler's view of a Device (scheduling.koordinator.sh): a node's GPUs, one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuFacts {
    /// The node.
    pub node: Arc<str>,
    /// Minor numbers of those that are healthy.
    pub minors: Vec<i32>,
}

/// What a node really uses, as a NodeMetric (slo.koordinator.sh) reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFacts {
    /// The node.
    pub node: Arc<str>,
    /// CPU in thousandths.
    pub cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// When it was measured.
    pub at: Timestamp,
}

/// Whom a reservation is for: pods that all of what is given means. What names nothing means every pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservationOwner {
    /// Their namespace.
    pub namespace: Option<Arc<str>>,
    /// The pod of this name.
    pub pod: Option<Arc<str>>,
    /// Pods of this controller: kind (`ReplicaSet`, `StatefulSet` or `ReplicationController`) and name.
    pub controller: Option<(Arc<str>, Arc<str>)>,
    /// Pods with such labels.
    pub labels: Option<LabelSelector>,
}

/// Room that is held for pods to come (Koordinator's Reservation), as its owner writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// Name.
    pub name: Arc<str>,
    /// Namespace of the template's rules about other pods.
    pub namespace: Arc<str>,
    /// Labels of the template: for its rules about other pods.
    pub labels: Arc<Labels>,
    /// What is to be held, and where it may be.
    pub template: Arc<SchedulingSpec>,
    /// Whom it is for: any of these; none: nobody.
    pub owners: Vec<ReservationOwner>,
    /// The first pod uses it up, whatever it takes.
    pub allocate_once: bool,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
}

/// A Reservation object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservationFacts {
    /// What is asked for.
    pub reservation: Reservation,
    /// Uid.
    pub uid: Arc<str>,
    /// `status.phase`.
    pub phase: Arc<str>,
    /// `status.nodeName`.
    pub node: Arc<str>,
}

/// `status` of a Reservation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReservationStatus {
    /// `Pending`, `Available`, `Succeeded` or `Failed`.
    pub phase: &'static str,
    /// Where it is held, or empty.
    pub node: Arc<str>,
    /// What is held for its owners.
    pub allocatable: Amounts,
    /// What they have of it: an amount for each resource of `allocatable`.
    pub allocated: Amounts,
    /// Pods that have part of it, with their uids.
    pub owners: Vec<(Key, Arc<str>)>,
    /// Conditions `Scheduled` and `Ready`.
    pub conditions: Vec<Condition>,
}

/// Who selects pods for the default spreading: a Service, ReplicaSet, StatefulSet or ReplicationController.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpreadOwner {
    /// Namespace.
    pub namespace: Arc<str>,
    /// `Service`, `ReplicaSet`, ...
    pub kind: &'static str,
    /// Name.
    pub name: Arc<str>,
    /// Its selector.
    pub selector: LabelSelector,
}

/// A pod as the scheduler keeps it.
#[derive(Clone, Debug, Default)]
pub struct PodFacts {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Uid.
    pub uid: Arc<str>,
    /// Labels.
    pub labels: Arc<Labels>,
    /// Spec.
    pub spec: Arc<SchedulingSpec>,
    /// The controller that owns it: kind and name.
    pub owner: Option<(Arc<str>, Arc<str>)>,
    /// Node that it runs on, or empty.
    pub node: Arc<str>,
    /// Node that it was nominated to, or empty.
    pub nominated: Arc<str>,
    /// Being deleted.
    pub terminating: bool,
    /// `status.startTime`.
    pub started: Option<Timestamp>,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
}

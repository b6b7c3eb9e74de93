//! Deployment, ReplicaSet, StatefulSet, DaemonSet and their revisions.

use crate::condition::{Amount, Condition};
use crate::{Doc, LabelSelector, Meta, PodTemplate};
use std::sync::Arc;

/// A declared rollout of replica sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deployment {
    /// Metadata.
    pub meta: Meta,
    /// Desired pods.
    pub replicas: i32,
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// What they look like.
    pub template: PodTemplate,
    /// How old ones give way to new ones.
    pub strategy: DeploymentStrategy,
    /// Seconds of readiness before a pod counts as available.
    pub min_ready_s: i32,
    /// Old replica sets to keep.
    pub history_limit: Option<i32>,
    /// `spec.paused`.
    pub paused: bool,
    /// `spec.progressDeadlineSeconds`.
    pub progress_deadline_s: Option<i32>,
    /// Status.
    pub status: DeploymentStatus,
}

/// `spec.strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeploymentStrategy {
    /// All old pods go before new ones come.
    Recreate,
    /// Little by little.
    RollingUpdate {
        /// How many pods above the desired number.
        max_surge: Amount,
        /// How many pods may be missing.
        max_unavailable: Amount,
    },
}

impl Default for DeploymentStrategy {
    fn default() -> Self {
        DeploymentStrategy::RollingUpdate { max_surge: Amount::Percent(25), max_unavailable: Amount::Percent(25) }
    }
}

/// `status` of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentStatus {
    /// Generation that this status is about.
    pub observed_generation: i64,
    /// Pods.
    pub replicas: i32,
    /// Pods with the present template.
    pub updated: i32,
    /// Ready pods.
    pub ready: i32,
    /// Available pods.
    pub available: i32,
    /// Desired but not available.
    pub unavailable: i32,
    /// Names that collided.
    pub collisions: Option<i32>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// A number of equal pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaSet {
    /// Metadata.
    pub meta: Meta,
    /// Desired pods.
    pub replicas: i32,
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// What they look like.
    pub template: PodTemplate,
    /// Seconds of readiness before a pod counts as available.
    pub min_ready_s: i32,
    /// Status.
    pub status: ReplicaSetStatus,
}

/// A replica set of the core group, with a map of labels for its selector: what came before ReplicaSet. One concept, two kinds of
/// the API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicationController(pub ReplicaSet);

impl std::ops::Deref for ReplicationController {
    type Target = ReplicaSet;
    fn deref(&self) -> &ReplicaSet {
        &self.0
    }
}

impl std::ops::DerefMut for ReplicationController {
    fn deref_mut(&mut self) -> &mut ReplicaSet {
        &mut self.0
    }
}

/// `status` of a ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSetStatus {
    /// Pods.
    pub replicas: i32,
    /// Pods that have all of the template's labels.
    pub fully_labeled: i32,
    /// Ready pods.
    pub ready: i32,
    /// Available pods.
    pub available: i32,
    /// Generation that this status is about.
    pub observed_generation: i64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// Pods with names and claims of their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatefulSet {
    /// Metadata.
    pub meta: Meta,
    /// Desired pods.
    pub replicas: i32,
    /// First ordinal.
    pub first_ordinal: i32,
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// What they look like.
    pub template: PodTemplate,
    /// Headless service that names the pods.
    pub service_name: Arc<str>,
    /// `podManagementPolicy: Parallel`.
    pub parallel: bool,
    /// `updateStrategy`.
    pub update: StatefulSetUpdate,
    /// Old revisions to keep.
    pub history_limit: Option<i32>,
    /// Seconds of readiness before a pod counts as available.
    pub min_ready_s: i32,
    /// `volumeClaimTemplates`: name and the whole template.
    pub claim_templates: Vec<(Arc<str>, Doc)>,
    /// `persistentVolumeClaimRetentionPolicy.whenDeleted` is `Delete`.
    pub delete_claims_when_deleted: bool,
    /// `persistentVolumeClaimRetentionPolicy.whenScaled` is `Delete`.
    pub delete_claims_when_scaled: bool,
    /// Status.
    pub status: StatefulSetStatus,
}

/// `spec.updateStrategy` of a StatefulSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatefulSetUpdate {
    /// Pods change only when somebody deletes them.
    OnDelete,
    /// From the highest ordinal down to `partition`.
    RollingUpdate {
        /// Ordinals below it stay.
        partition: i32,
        /// How many pods may be missing at once (only with `parallel`, as upstream's beta field).
        max_unavailable: Amount,
    },
}

impl Default for StatefulSetUpdate {
    fn default() -> Self {
        StatefulSetUpdate::RollingUpdate { partition: 0, max_unavailable: Amount::Number(1) }
    }
}

/// `status` of a StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatefulSetStatus {
    /// Generation that this status is about.
    pub observed_generation: i64,
    /// Pods.
    pub replicas: i32,
    /// Ready pods.
    pub ready: i32,
    /// Available pods.
    pub available: i32,
    /// Pods of the current revision.
    pub current: i32,
    /// Pods of the update revision.
    pub updated: i32,
    /// Name of the revision that pods had before the rollout.
    pub current_revision: Arc<str>,
    /// Name of the revision that pods are to have.
    pub update_revision: Arc<str>,
    /// Names that collided.
    pub collisions: Option<i32>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// A pod on every eligible node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DaemonSet {
    /// Metadata.
    pub meta: Meta,
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// What they look like.
    pub template: PodTemplate,
    /// `updateStrategy`.
    pub update: DaemonSetUpdate,
    /// Old revisions to keep.
    pub history_limit: Option<i32>,
    /// Seconds of readiness before a pod counts as available.
    pub min_ready_s: i32,
    /// Status.
    pub status: DaemonSetStatus,
}

/// `spec.updateStrategy` of a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonSetUpdate {
    /// Pods change only when somebody deletes them.
    OnDelete,
    /// Little by little.
    RollingUpdate {
        /// How many nodes may be without.
        max_unavailable: Amount,
        /// How many nodes may have two.
        max_surge: Amount,
    },
}

impl Default for DaemonSetUpdate {
    fn default() -> Self {
        DaemonSetUpdate::RollingUpdate { max_unavailable: Amount::Number(1), max_surge: Amount::Number(0) }
    }
}

/// `status` of a DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonSetStatus {
    /// Nodes that run one and should.
    pub current: i32,
    /// Nodes that run one and should not.
    pub misscheduled: i32,
    /// Nodes that should run one.
    pub desired: i32,
    /// Nodes with a ready one.
    pub ready: i32,
    /// Generation that this status is about.
    pub observed_generation: i64,
    /// Nodes with one of the present template.
    pub updated: i32,
    /// Nodes with an available one.
    pub available: i32,
    /// Nodes that should have an available one and have not.
    pub unavailable: i32,
    /// Names that collided.
    pub collisions: Option<i32>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// A recorded template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControllerRevision {
    /// Metadata.
    pub meta: Meta,
    /// Counts up.
    pub number: i64,
    /// `{"spec":{"template":{...,"$patch":"replace"}}}` as canonical JSON, as upstream records it.
    pub data: Doc,
    /// The template inside of `data`, when there is one.
    pub template: Option<PodTemplate>,
}

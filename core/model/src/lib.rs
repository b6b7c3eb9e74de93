//! Nouns: object metadata, quantities, selectors, generations, effects.
//!
//! Everything above speaks in these. Nothing here knows bytes, clocks or sockets.
#![warn(missing_docs)]

pub mod batch;
pub mod cluster;
pub mod condition;
pub mod doc;
pub mod effect;
pub mod kind;
pub mod latency;
pub mod map;
pub mod mesh;
pub mod meta;
pub mod object;
pub mod pod;
pub mod policy;
pub mod quantity;
pub mod scheduling;
pub mod selector;
pub mod service;
pub mod taint;
pub mod time;
pub mod volume;
pub mod workload;

pub use batch::{CronJob, Job, JobTemplate};
pub use cluster::{ConfigMap, CustomResourceDefinition, Lease, Namespace, Node, ServiceAccount};
pub use condition::{Amount, Condition, Truth};
pub use doc::Doc;
pub use effect::{Effect, Target};
pub use kind::{Kind, ResourceType};
pub use meta::{Key, Labels, Meta, OwnerRef};
pub use object::{Event, Object};
pub use pod::{Phase, Pod, PodTemplate};
pub use policy::{HorizontalPodAutoscaler, PodDisruptionBudget, PriorityClass};
pub use quantity::Quantity;
pub use selector::{LabelSelector, Requirement};
pub use service::{EndpointSlice, Endpoints, Service};
pub use taint::{Taint, Toleration};
pub use time::Timestamp;
pub use volume::{PersistentVolume, PersistentVolumeClaim, StorageClass};
pub use workload::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, ReplicationController, StatefulSet};

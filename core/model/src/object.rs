//! Any object, and what happens to objects.

use crate::batch::{CronJob, Job};
use crate::cluster::{ConfigMap, CustomResourceDefinition, Lease, Namespace, Node, Other, ServiceAccount};
use crate::policy::{HorizontalPodAutoscaler, PodDisruptionBudget, PriorityClass};
use crate::service::{EndpointSlice, Endpoints, Service};
use crate::volume::{PersistentVolume, PersistentVolumeClaim, StorageClass};
use crate::workload::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, ReplicationController, StatefulSet};
use crate::{Key, Kind, Meta, Pod};
use std::sync::Arc;

macro_rules! objects {
    ($($name:ident,)*) => {
        /// A projected object of any kind. Cheap to clone: all who read a change share it.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $(#[doc = concat!("A ", stringify!($name), ".")] $name(Arc<$name>),)*
            /// Only metadata.
            Other(Arc<Other>),
        }

        impl Object {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Object::$name(_) => Kind::$name,)*
                    Object::Other(other) => Kind::Other(other.resource),
                }
            }
            /// Its metadata.
            pub fn meta(&self) -> &Meta {
                match self {
                    $(Object::$name(object) => &object.meta,)*
                    Object::Other(other) => &other.meta,
                }
            }
        }

        $(impl From<$name> for Object {
            fn from(object: $name) -> Self {
                Object::$name(Arc::new(object))
            }
        })*
    };
}

objects! {
    Pod,
    Node,
    Namespace,
    ServiceAccount,
    ConfigMap,
    Service,
    Endpoints,
    EndpointSlice,
    Deployment,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
    DaemonSet,
    ControllerRevision,
    Job,
    CronJob,
    PodDisruptionBudget,
    PriorityClass,
    HorizontalPodAutoscaler,
    PersistentVolumeClaim,
    PersistentVolume,
    StorageClass,
    Lease,
    CustomResourceDefinition,
}

/// A fact about the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object is now as given (it was made or changed).
    Applied(Object),
    /// The object is gone.
    Deleted {
        /// Kind.
        kind: Kind,
        /// Name.
        key: Key,
        /// The uid that is gone; a namesake with another uid is another object.
        uid: Arc<str>,
        /// Revision of the deletion.
        revision: u64,
    },
    /// Everything of this kind that existed when the watch began has been told: absence now means absence.
    Synced(Kind),
    /// An order was carried out or was refused.
    Done(crate::effect::Receipt),
}

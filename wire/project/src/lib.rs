//! Between object bytes and the model: projection of events, rendering of effects.
//!
//! [`project`] reads an object's JSON into the few fields that decisions read; [`render`] writes an order as API calls. What the core
//! does not read (the bodies of templates) goes through as it is, so fields that this program does not know survive.
#![warn(missing_docs)]

mod batch;
mod cluster;
pub mod mesh;
mod meta;
mod pod;
mod policy;
mod read;
mod render;
pub mod scheduling;
mod selector_text;
mod service;
#[cfg(test)]
mod tests;
mod volume;
mod workload;

pub use render::{ApiCall, DeleteOptions, PatchKind, Verb, render};

use model::{Kind, Object, ResourceType};
use serde_json::Value;

/// An object that cannot be read. Retrying does not help: the bytes are what they are.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// Not JSON.
    #[error("{resource}: not JSON: {source}")]
    NotJson {
        /// Plural of the resource.
        resource: &'static str,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// JSON, but without a name.
    #[error("{resource}: an object without metadata.name")]
    Nameless {
        /// Plural of the resource.
        resource: &'static str,
    },
}

/// The kind that a resource projects to.
pub fn kind_of(resource: &'static ResourceType) -> Kind {
    let same = |kind: &&Kind| kind.resource().group == resource.group && kind.resource().plural == resource.plural;
    Kind::TYPED.iter().find(same).copied().unwrap_or(Kind::Other(resource))
}

/// Reads one object of `resource`.
///
/// # Errors
/// The bytes are not JSON or have no name.
pub fn project(resource: &'static ResourceType, bytes: &[u8]) -> Result<Object, ProjectError> {
    let object: Value =
        serde_json::from_slice(bytes).map_err(|source| ProjectError::NotJson { resource: resource.plural, source })?;
    let projected = project_value(resource, &object);
    if projected.meta().key.name.is_empty() {
        return Err(ProjectError::Nameless { resource: resource.plural });
    }
    Ok(projected)
}

/// Reads one object that is decoded already.
pub fn project_value(resource: &'static ResourceType, object: &Value) -> Object {
    match kind_of(resource) {
        Kind::Pod => pod::pod(object).into(),
        Kind::Node => cluster::node(object).into(),
        Kind::Namespace => cluster::namespace(object).into(),
        Kind::ServiceAccount => cluster::service_account(object).into(),
        Kind::ConfigMap => cluster::config_map(object).into(),
        Kind::Service => service::service(object).into(),
        Kind::Endpoints => service::endpoints(object).into(),
        Kind::EndpointSlice => service::endpoint_slice(object).into(),
        Kind::Deployment => workload::deployment(object).into(),
        Kind::ReplicaSet => workload::replica_set(object).into(),
        Kind::ReplicationController => workload::replication_controller(object).into(),
        Kind::StatefulSet => workload::stateful_set(object).into(),
        Kind::DaemonSet => workload::daemon_set(object).into(),
        Kind::ControllerRevision => workload::controller_revision(object).into(),
        Kind::Job => batch::job(object).into(),
        Kind::CronJob => batch::cron_job(object).into(),
        Kind::PodDisruptionBudget => policy::disruption_budget(object).into(),
        Kind::PriorityClass => policy::priority_class(object).into(),
        Kind::HorizontalPodAutoscaler => policy::autoscaler(object).into(),
        Kind::PersistentVolumeClaim => volume::claim(object).into(),
        Kind::PersistentVolume => volume::volume(object).into(),
        Kind::StorageClass => volume::storage_class(object).into(),
        Kind::Lease => cluster::lease(object).into(),
        Kind::CustomResourceDefinition => cluster::custom_resource(object).into(),
        Kind::Other(resource) => Object::Other(std::sync::Arc::new(cluster::other(object, resource))),
    }
}

/// `metadata.resourceVersion` of an object's JSON, without decoding the rest (0: none).
pub fn revision_of(bytes: &[u8]) -> u64 {
    #[derive(serde::Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        metadata: Option<Inner<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Inner<'a> {
        #[serde(borrow, rename = "resourceVersion")]
        resource_version: Option<std::borrow::Cow<'a, str>>,
    }
    let outer: Option<Outer> = serde_json::from_slice(bytes).ok();
    outer.and_then(|o| o.metadata).and_then(|m| m.resource_version).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Reads a `labelSelector` parameter: `a=b,c!=d,e in (f,g),h,!i`.
///
/// # Errors
/// The text is no selector; the message says where.
pub fn parse_selector(text: &str) -> Result<model::LabelSelector, String> {
    selector_text::parse(text)
}

//! CustomResourceDefinitions: reading a definition, the form of its objects, and what is done to them (pruning, defaulting,
//! validation, printer columns).

pub mod columns;
mod compile;
mod definition;
mod expressions;
mod format;
pub mod object;
mod structure;
pub mod validate;

pub use columns::{Column, JsonPath};
pub use definition::{Conditions, CustomResource, NAMES_CONFLICT, names_conflict, update_faults};

pub(crate) use compile::{compile_version, deprecation};

use crate::schema::{NodeId, Schema, Table};

/// One served version of a custom resource.
#[derive(Debug)]
pub struct CustomVersion {
    pub(crate) table: Table,
    pub(crate) root: NodeId,
    pub(crate) columns: Vec<Column>,
    pub(crate) scale: Option<ScalePaths>,
    pub(crate) status: bool,
    pub(crate) deprecation: Option<String>,
    pub(crate) selectable: Vec<String>,
    pub(crate) unevaluated: usize,
    /// Sum of the version's JSON.
    pub(crate) fingerprint: u64,
}

/// Where the scale subresource finds its numbers (`spec.versions[].subresources.scale`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// `.spec.replicas` as keys.
    pub spec_replicas: Vec<String>,
    /// `.status.replicas` as keys.
    pub status_replicas: Vec<String>,
    /// Where the label selector text is, if anywhere.
    pub label_selector: Option<Vec<String>>,
}

impl CustomVersion {
    /// Form of the objects.
    pub fn schema(&self) -> Schema<'_> {
        Schema::at(&self.table, self.root)
    }
    /// Printer columns after `Name`. Without any declared, kubectl's own `Age` column.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }
    /// Paths of the scale subresource.
    pub fn scale(&self) -> Option<&ScalePaths> {
        self.scale.as_ref()
    }
    /// Whether the status subresource is on, so that the main path ignores changes of `.status` and the status path all others.
    pub fn has_status(&self) -> bool {
        self.status
    }
    /// Text of the `Warning` header for a deprecated version.
    pub fn deprecation_warning(&self) -> Option<&str> {
        self.deprecation.as_deref()
    }
    /// Fields beyond `metadata.name` and `metadata.namespace` that field selectors may name, as `spec.color`.
    pub fn selectable_fields(&self) -> &[String] {
        &self.selectable
    }
    /// Text of the `Warning` header that says how many validation expressions are stored and published but not evaluated.
    pub fn expression_warning(&self) -> Option<String> {
        let count = self.unevaluated;
        (count > 0).then(|| format!("{count} x-kubernetes-validations expressions use a library that is not built here and are not evaluated"))
    }
}

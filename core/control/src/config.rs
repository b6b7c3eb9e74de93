//! Settings of the reconcilers; defaults are upstream's.

use std::sync::Arc;

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// PEM bundle of the API's authority, for the ConfigMap that every namespace gets.
    pub root_ca: Option<Arc<str>>,
    /// A node whose lease is older is lost.
    pub node_grace_ms: i64,
    /// Evictions from lost nodes, in a thousandth of a node a second.
    pub node_eviction_milli_per_s: i64,
    /// Ended pods beyond so many are deleted, oldest first.
    pub terminated_pods_max: usize,
    /// A pod on a node that does not exist is deleted after so long.
    pub orphan_quarantine_ms: i64,
    /// Directory on nodes under which hostPath volumes are made.
    pub volume_dir: Arc<str>,
    /// Name of the provisioner that makes them.
    pub provisioner: Arc<str>,
    /// How often autoscalers are looked at.
    pub autoscaler_period_ms: i64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            root_ca: None,
            node_grace_ms: 40_000,
            node_eviction_milli_per_s: 100,
            terminated_pods_max: 12_500,
            orphan_quarantine_ms: 40_000,
            volume_dir: "/var/lib/diolkos/volumes".into(),
            provisioner: "diolkos.io/host-path".into(),
            autoscaler_period_ms: 15_000,
        }
    }
}

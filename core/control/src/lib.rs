//! Reconcilers as pure steps and the order in which they run.
//!
//! [`Control::step`] takes facts in and gives orders out. Each reconciler is a function over the [`world::World`] for one key;
//! nothing here waits, reads a clock or knows how an order is carried out.
#![warn(missing_docs)]

mod adoption;
mod autoscaler;
mod collector;
mod config;
mod control;
mod cron;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoints;
#[cfg(test)]
mod harness;
pub mod imagined;
mod job;
pub mod names;
mod namespace;
mod node_lifecycle;
pub mod plan;
mod pod_collector;
pub mod queue;
mod replica_set;
mod revisions;
mod route;
pub mod scheduler;
mod stateful_set;
mod storage;
mod taint_eviction;
#[cfg(test)]
mod tests;
pub mod trust;
pub mod world;

pub use config::{Config, UnknownController, switched_off};
pub use control::{Control, Counters, Cx, Memory, Order};
pub use deployment::TEMPLATE_HASH;

use plan::Plan;
use queue::{Controller, Item};

/// One look of one reconciler at one object.
fn reconcile(cx: &Cx, memory: &mut Memory, item: &Item) -> Plan {
    let key = &item.key;
    match item.controller {
        Controller::Namespace => namespace::reconcile(cx, key),
        Controller::ServiceAccount => namespace::reconcile_account(cx, key),
        Controller::RootCa => namespace::reconcile_root_ca(cx, key),
        Controller::Deployment => deployment::reconcile(cx, key),
        Controller::ReplicaSet => replica_set::reconcile(cx, item.kind, key),
        Controller::StatefulSet => stateful_set::reconcile(cx, key),
        Controller::DaemonSet => daemon_set::reconcile(cx, key),
        Controller::EndpointSlice => endpoints::reconcile_slices(cx, key),
        Controller::Endpoints => endpoints::reconcile_endpoints(cx, key),
        Controller::Collector => collector::reconcile(cx, memory, item.kind, key),
        Controller::NodeLifecycle => node_lifecycle::reconcile(cx, memory, key),
        Controller::TaintEviction => taint_eviction::reconcile(cx, key),
        Controller::PodCollector => pod_collector::reconcile(cx, key),
        Controller::Disruption => disruption::reconcile(cx, key),
        Controller::Job => job::reconcile(cx, key),
        Controller::CronJob => cron_job::reconcile(cx, key),
        Controller::TtlAfterFinished => cron_job::reconcile_ttl(cx, key),
        Controller::Claim => storage::reconcile_claim(cx, key),
        Controller::Volume => storage::reconcile_volume(cx, key),
        Controller::Autoscaler => autoscaler::reconcile(cx, memory, key),
    }
}

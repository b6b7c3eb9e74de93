//! Deployment: replica sets of successive templates, one giving way to the next.
//!
//! The order of decisions is upstream's (deployment controller): find or make the replica set of the present template; when the
//! number changed, share the change among the sets; else move pods from old sets to the new one within surge and unavailability.

mod rolling;
mod sets;
mod status;

use crate::control::Cx;
use crate::plan::{Plan, Reporter};
use model::effect::{Change, Propagation};
use model::workload::DeploymentStrategy;
use model::{Deployment, Key, Kind, Phase};
use sets::Sets;
use std::sync::Arc;

/// Revision of a replica set, and of the deployment that shows it.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Desired replicas of the deployment when it last scaled the set.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Desired replicas and surge when it last scaled the set.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Earlier revisions that a set had.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Label that tells the sets of one deployment apart.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

const SOURCE: &str = "deployment-controller";

/// One look at one deployment.
struct Look<'a> {
    cx: &'a Cx<'a>,
    deployment: &'a Deployment,
    plan: Plan,
    report: Reporter,
    /// Conditions as they are to be, before the counts are worked out.
    status: model::workload::DeploymentStatus,
}

/// Looks at one deployment.
pub fn reconcile(cx: &Cx, key: &Key) -> Plan {
    let Some(deployment) = cx.world.deployments.get(key) else { return Plan::default() };
    if !cx.world.all_synced(&[Kind::Pod, Kind::ReplicaSet, Kind::Deployment]) {
        return Plan::default();
    }
    let report = Reporter::new(SOURCE, Kind::Deployment, &deployment.meta, cx.now);
    let status = deployment.status.clone();
    let mut look = Look { cx, deployment, plan: Plan::default(), report, status };
    look.run();
    look.plan
}

impl Look<'_> {
    fn run(&mut self) {
        let deployment = self.deployment;
        if deployment.selector.is_empty() {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.plan.record(self.report.warning("SelectingAll", text));
            return;
        }
        let mut sets = Sets::claim(self.cx, deployment, &mut self.plan);
        if deployment.meta.is_deleting() {
            return self.write_status(&sets);
        }
        self.note_pause();
        if deployment.paused || sets.is_scaling_event(deployment) {
            return self.scale_only(&mut sets);
        }
        match deployment.strategy {
            DeploymentStrategy::Recreate => self.recreate(&mut sets),
            DeploymentStrategy::RollingUpdate { .. } => self.roll(&mut sets),
        }
    }

    /// Paused, or the desired number changed in the middle of a rollout: only numbers change, no pods move between sets.
    fn scale_only(&mut self, sets: &mut Sets) {
        self.find_new(sets, false);
        self.share(sets);
        if self.deployment.paused {
            self.clean_up(sets);
        }
        self.write_status(sets);
    }

    fn roll(&mut self, sets: &mut Sets) {
        self.find_new(sets, true);
        if self.grow_new(sets) || self.shrink_old(sets) {
            return self.write_rollout_status(sets);
        }
        if status::is_complete(self.deployment, &self.counts(sets)) {
            self.clean_up(sets);
        }
        self.write_rollout_status(sets);
    }

    fn recreate(&mut self, sets: &mut Sets) {
        self.find_new(sets, false);
        let mut scaled = false;
        for index in sets.old_active() {
            scaled |= self.scale(sets, index, 0);
        }
        if scaled || self.old_pods_run(sets) {
            return self.write_rollout_status(sets);
        }
        match sets.new {
            Some(new) => {
                self.scale(sets, new, self.deployment.replicas);
            }
            None => self.find_new(sets, true),
        }
        if status::is_complete(self.deployment, &self.counts(sets)) {
            self.clean_up(sets);
        }
        self.write_rollout_status(sets);
    }

    /// Whether a pod of an old set is still there in whatever state but an ended one: Recreate waits for it.
    fn old_pods_run(&self, sets: &Sets) -> bool {
        sets.old().any(|index| {
            let uid = &sets.all[index].set.meta.uid;
            self.cx.world.controlled_pods(uid).any(|pod| !matches!(pod.status.phase, Phase::Failed | Phase::Succeeded))
        })
    }

    /// Writes a set's new number and the annotations that record what it was made from. Returns whether the number changes.
    fn scale(&mut self, sets: &mut Sets, index: usize, to: i32) -> bool {
        let deployment = self.deployment;
        let entry = &mut sets.all[index];
        let from = entry.replicas;
        let annotations: model::Labels = scale_annotations(deployment)
            .into_iter()
            .filter(|(key, value)| entry.set.meta.annotations.get(key) != Some(value))
            .collect();
        if from == to && annotations.is_empty() {
            return false;
        }
        entry.replicas = to;
        let change = Change::ReplicaSet { replicas: Some(to), min_ready_s: None, annotations };
        let name = entry.set.meta.key.name.clone();
        let meta = entry.set.meta.clone();
        self.plan.update(Kind::ReplicaSet, &meta, change);
        if from != to {
            let direction = if to > from { "up" } else { "down" };
            let text = format!("Scaled {direction} replica set {name} from {from} to {to}");
            self.plan.note(self.report.normal("ScalingReplicaSet", text));
        }
        from != to
    }

    /// Deletes old sets beyond `revisionHistoryLimit`, oldest revision first.
    fn clean_up(&mut self, sets: &Sets) {
        let Some(limit) = self.deployment.history_limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut old: Vec<_> =
            sets.old().map(|index| &sets.all[index]).filter(|entry| !entry.set.meta.is_deleting()).collect();
        let surplus = old.len() as i64 - i64::from(limit);
        if surplus <= 0 {
            return;
        }
        old.sort_by_key(|entry| {
            (sets::revision(&entry.set.meta), entry.set.meta.created, entry.set.meta.key.name.clone())
        });
        for entry in old.into_iter().take(surplus as usize) {
            let set = &entry.set;
            if set.status.replicas != 0 || entry.replicas != 0 || set.meta.generation > set.status.observed_generation {
                continue;
            }
            self.plan.delete(Kind::ReplicaSet, &set.meta, Propagation::Background);
        }
    }
}

/// The annotations that record the deployment's numbers on its sets.
fn scale_annotations(deployment: &Deployment) -> model::Labels {
    let max = deployment.replicas.saturating_add(rolling::surge(deployment));
    [(DESIRED_REPLICAS, deployment.replicas), (MAX_REPLICAS, max)]
        .into_iter()
        .map(|(key, value)| (Arc::from(key), Arc::from(value.to_string())))
        .collect()
}

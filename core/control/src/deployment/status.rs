//! A deployment's status: counts, and the conditions as upstream words them.

use super::Look;
use super::rolling;
use super::sets::Sets;
use model::effect::Status;
use model::workload::DeploymentStatus;
use model::{Condition, Deployment, Kind, Timestamp, Truth, condition};

const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";

/// All pods are of the present template and available, and no old one is left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let desired = deployment.replicas;
    status.updated == desired
        && status.replicas == desired
        && status.available == desired
        && status.observed_generation >= deployment.meta.generation
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    new.updated > old.updated
        || new.replicas - new.updated < old.replicas - old.updated
        || new.ready > old.ready
        || new.available > old.available
}

/// Puts a condition in unless one with the same status and reason is there (messages alone do not count).
fn put(conditions: &mut Vec<Condition>, mut new: Condition) {
    if let Some(old) = condition::find(conditions, &new.kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition = old.last_transition;
        }
    }
    conditions.retain(|old| old.kind != new.kind);
    conditions.push(new);
}

impl Look<'_> {
    pub(super) fn progressing(&mut self, condition: Condition) {
        put(&mut self.status.conditions, condition);
    }

    /// Tells in the Progressing condition that time does not run while paused.
    pub(super) fn note_pause(&mut self) {
        if self.deployment.progress_deadline_s.is_none() {
            return;
        }
        let reason = condition::find(&self.status.conditions, "Progressing").map(|c| c.reason.clone());
        if reason.as_deref() == Some(TIMED_OUT) {
            return;
        }
        let known = reason.as_deref() == Some("DeploymentPaused");
        let now = self.cx.now;
        if self.deployment.paused && !known {
            self.progressing(Condition::new(
                "Progressing",
                Truth::Unknown,
                "DeploymentPaused",
                "Deployment is paused",
                now,
            ));
        } else if !self.deployment.paused && known {
            self.progressing(Condition::new(
                "Progressing",
                Truth::Unknown,
                "DeploymentResumed",
                "Deployment is resumed",
                now,
            ));
        }
    }

    /// The counts, out of the sets' statuses.
    pub(super) fn counts(&self, sets: &Sets) -> DeploymentStatus {
        let deployment = self.deployment;
        let sum = |field: fn(&model::workload::ReplicaSetStatus) -> i32| {
            sets.all.iter().map(|e| field(&e.set.status)).sum::<i32>()
        };
        let (replicas, ready, available) = (sum(|s| s.replicas), sum(|s| s.ready), sum(|s| s.available));
        let mut status = DeploymentStatus {
            observed_generation: deployment.meta.generation,
            replicas,
            updated: sets.new.map_or(0, |index| sets.all[index].set.status.replicas),
            ready,
            available,
            unavailable: (sets.total() - available).max(0),
            collisions: self.status.collisions,
            conditions: self.status.conditions.clone(),
        };
        let enough = available >= deployment.replicas - rolling::unavailable(deployment);
        let condition = if enough {
            let text = "Deployment has minimum availability.";
            Condition::new("Available", true, "MinimumReplicasAvailable", text, self.cx.now)
        } else {
            let text = "Deployment does not have minimum availability.";
            Condition::new("Available", false, "MinimumReplicasUnavailable", text, self.cx.now)
        };
        put(&mut status.conditions, condition);
        status
    }

    /// Writes the counts only.
    pub(super) fn write_status(&mut self, sets: &Sets) {
        let status = self.counts(sets);
        self.write(status);
    }

    fn write(&mut self, status: DeploymentStatus) {
        // A change of the deployment's own annotations is under way: its event brings the next look, which writes the status.
        let key = &self.deployment.meta.key;
        let changing =
            self.plan.effects.iter().any(|planned| planned.effect.subject() == Some((Kind::Deployment, key)));
        if status != self.deployment.status && !changing {
            self.plan.status(Kind::Deployment, &self.deployment.meta, Status::Deployment(status));
        }
    }

    /// Writes counts and how the rollout is getting on.
    pub(super) fn write_rollout_status(&mut self, sets: &Sets) {
        let mut status = self.counts(sets);
        if let Some(deadline_s) = self.deployment.progress_deadline_s.filter(|s| *s != i32::MAX) {
            self.judge_progress(sets, &mut status, deadline_s);
        }
        let failure = sets
            .new
            .into_iter()
            .chain(sets.old())
            .find_map(|index| condition::find(&sets.all[index].set.status.conditions, "ReplicaFailure"));
        match failure {
            Some(failure) => put(&mut status.conditions, failure.clone()),
            None => status.conditions.retain(|condition| &*condition.kind != "ReplicaFailure"),
        }
        self.write(status);
    }

    fn judge_progress(&mut self, sets: &Sets, status: &mut DeploymentStatus, deadline_s: i32) {
        let deployment = self.deployment;
        let now = self.cx.now;
        let present = condition::find(&status.conditions, "Progressing").cloned();
        let settled =
            present.as_ref().is_some_and(|c| &*c.reason == NEW_SET_AVAILABLE) && status.replicas == status.updated;
        if settled {
            return;
        }
        let subject = match sets.new {
            Some(index) => format!("ReplicaSet \"{}\"", sets.all[index].set.meta.key.name),
            None => format!("Deployment \"{}\"", deployment.meta.key.name),
        };
        if is_complete(deployment, status) {
            let text = format!("{subject} has successfully progressed.");
            put(&mut status.conditions, Condition::new("Progressing", true, NEW_SET_AVAILABLE, text, now));
        } else if has_progressed(&deployment.status, status) {
            let mut new =
                Condition::new("Progressing", true, "ReplicaSetUpdated", format!("{subject} is progressing."), now);
            // Replaced even when nothing but its update time changes: the deadline runs from there.
            if let Some(present) = present.filter(|c| c.status == Truth::True) {
                new.last_transition = present.last_transition;
            }
            status.conditions.retain(|c| &*c.kind != "Progressing");
            status.conditions.push(new);
        } else if let Some(present) = present {
            match deadline(&present, deadline_s) {
                Deadline::Passed => timed_out(status, &subject, now),
                Deadline::At(at) if at < now => timed_out(status, &subject, now),
                // One more second, so that the look is after the deadline and not at it.
                Deadline::At(at) => {
                    self.plan.look_again(at.plus_ms(1000));
                }
                Deadline::None => {}
            }
        }
    }
}

enum Deadline {
    None,
    Passed,
    At(Timestamp),
}

fn deadline(progressing: &Condition, deadline_s: i32) -> Deadline {
    match &*progressing.reason {
        TIMED_OUT => Deadline::Passed,
        NEW_SET_AVAILABLE => Deadline::None,
        _ => Deadline::At(progressing.last_update.plus_ms(i64::from(deadline_s) * 1000)),
    }
}

fn timed_out(status: &mut DeploymentStatus, subject: &str, now: Timestamp) {
    let text = format!("{subject} has timed out progressing.");
    put(&mut status.conditions, Condition::new("Progressing", false, TIMED_OUT, text, now));
}

//! The arithmetic of a rolling update.

use super::Look;
use super::sets::Sets;
use model::Deployment;
use model::workload::DeploymentStrategy;

/// Surge and unavailability in pods. Both nought would never move: then one may be missing.
fn fence_posts(deployment: &Deployment) -> (i32, i32) {
    let DeploymentStrategy::RollingUpdate { max_surge, max_unavailable } = deployment.strategy else { return (0, 0) };
    let surge = max_surge.of(deployment.replicas, true);
    let unavailable = max_unavailable.of(deployment.replicas, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How many pods there may be above the desired number.
pub fn surge(deployment: &Deployment) -> i32 {
    fence_posts(deployment).0
}

/// How many of the desired pods may be missing.
pub fn unavailable(deployment: &Deployment) -> i32 {
    let is_rolling = matches!(deployment.strategy, DeploymentStrategy::RollingUpdate { .. });
    if !is_rolling || deployment.replicas == 0 { 0 } else { fence_posts(deployment).1.min(deployment.replicas) }
}

/// The number that the new set may have now, when it has `present`.
pub fn new_set_replicas(deployment: &Deployment, sets: &Sets, present: i32) -> i32 {
    match deployment.strategy {
        DeploymentStrategy::Recreate => deployment.replicas,
        DeploymentStrategy::RollingUpdate { .. } => {
            let room = deployment.replicas.saturating_add(surge(deployment)) - sets.total();
            if room <= 0 { present } else { present + room.min(deployment.replicas - present) }
        }
    }
}

impl Look<'_> {
    /// Lets the new set grow as far as surge allows. Returns whether it changed.
    pub(super) fn grow_new(&mut self, sets: &mut Sets) -> bool {
        let Some(index) = sets.new else { return false };
        let present = sets.all[index].replicas;
        let desired = self.deployment.replicas;
        if present == desired {
            return false;
        }
        let to = if present > desired { desired } else { new_set_replicas(self.deployment, sets, present) };
        to != present && self.scale(sets, index, to)
    }

    /// Lets old sets shrink as far as availability allows, pods that do not work first. Returns whether one changed.
    pub(super) fn shrink_old(&mut self, sets: &mut Sets) -> bool {
        let old: Vec<usize> = sets.old().collect();
        if old.iter().all(|index| sets.all[*index].replicas == 0) {
            return false;
        }
        let deployment = self.deployment;
        let min_available = deployment.replicas - unavailable(deployment);
        let new_missing = sets.new.map_or(0, |index| sets.all[index].replicas - sets.all[index].set.status.available);
        let room = sets.total() - min_available - new_missing;
        if room <= 0 {
            return false;
        }
        // Planned numbers first, orders afterwards: one set may lose pods in both passes and is to be written once.
        let mut numbers: Vec<i32> = sets.all.iter().map(|entry| entry.replicas).collect();
        let mut cleaned = 0;
        for &index in &old {
            let broken = numbers[index] - sets.all[index].set.status.available;
            if numbers[index] > 0 && broken > 0 && cleaned < room {
                let count = broken.min(room - cleaned);
                numbers[index] -= count;
                cleaned += count;
            }
        }
        let available: i32 = sets.all.iter().map(|entry| entry.set.status.available).sum();
        let mut left = (available - min_available).max(0);
        for &index in &old {
            let count = numbers[index].min(left);
            numbers[index] -= count;
            left -= count;
        }
        let mut scaled = false;
        for index in old {
            if numbers[index] != sets.all[index].replicas {
                scaled |= self.scale(sets, index, numbers[index]);
            }
        }
        scaled
    }
}

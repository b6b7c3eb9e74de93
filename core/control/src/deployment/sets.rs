//! The replica sets of a deployment: which is new, which are old, and what number each is to have.

use super::{
    DESIRED_REPLICAS, Look, MAX_REPLICAS, REVISION, REVISION_HISTORY, TEMPLATE_HASH, rolling, scale_annotations,
};
use crate::control::Cx;
use crate::plan::Plan;
use crate::world::controller_ref;
use crate::{adoption, names};
use model::effect::{Body, Change, NewMeta};
use model::workload::DeploymentStrategy;
use model::{Condition, Deployment, Key, Kind, Labels, Meta, ReplicaSet, condition};
use std::sync::Arc;

/// A set and the number that it is to have after what is planned so far.
pub struct Entry {
    pub set: Arc<ReplicaSet>,
    pub replicas: i32,
}

/// All sets of one deployment, oldest first.
pub struct Sets {
    pub all: Vec<Entry>,
    /// The one that has the present template.
    pub new: Option<usize>,
}

/// The revision that a set's or deployment's annotation says; 0 when it says none.
pub fn revision(meta: &Meta) -> i64 {
    meta.annotation(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn annotation_number(meta: &Meta, key: &str) -> Option<i32> {
    meta.annotation(key)?.parse().ok()
}

impl Sets {
    /// Collects the deployment's sets, adopting and releasing.
    pub fn claim(cx: &Cx, deployment: &Deployment, plan: &mut Plan) -> Self {
        let meta = &deployment.meta;
        let owner = (Kind::Deployment, meta);
        let own = cx.world.dependents_of(&meta.uid, Kind::ReplicaSet).filter_map(|key| cx.world.replica_sets.get(key));
        let mut all: Vec<Entry> = own
            .chain(cx.world.orphan_sets(&meta.key.namespace))
            .filter(|set| {
                let claim = adoption::judge(meta, &deployment.selector, &set.meta);
                adoption::act(claim, owner, Kind::ReplicaSet, &set.meta, plan)
            })
            .map(|set| Entry { set: set.clone(), replicas: set.replicas })
            .collect();
        all.sort_by(|a, b| (a.set.meta.created, &a.set.meta.key.name).cmp(&(b.set.meta.created, &b.set.meta.key.name)));
        // Several sets may have the template (after a collision): the oldest is it, so that the choice never flips.
        let new = all.iter().position(|entry| entry.set.template.body == deployment.template.body);
        Sets { all, new }
    }

    pub fn old(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.all.len()).filter(|index| Some(*index) != self.new)
    }
    pub fn old_active(&self) -> Vec<usize> {
        self.old().filter(|index| self.all[*index].replicas > 0).collect()
    }
    pub fn total(&self) -> i32 {
        self.all.iter().map(|entry| entry.replicas).sum()
    }

    /// Whether the deployment's number changed since its active sets were last scaled.
    pub fn is_scaling_event(&self, deployment: &Deployment) -> bool {
        self.all.iter().filter(|entry| entry.replicas > 0).any(|entry| {
            annotation_number(&entry.set.meta, DESIRED_REPLICAS).is_some_and(|desired| desired != deployment.replicas)
        })
    }

    /// The only set with pods; with none, the newest.
    fn active_or_latest(&self) -> Option<usize> {
        let active: Vec<usize> = (0..self.all.len()).filter(|index| self.all[*index].replicas > 0).collect();
        match active.len() {
            0 => self.new.or_else(|| self.all.len().checked_sub(1)),
            1 => Some(active[0]),
            _ => None,
        }
    }
}

impl Look<'_> {
    /// Brings the new set's annotations and the deployment's revision up to date; makes the set when there is none and `create`.
    pub(super) fn find_new(&mut self, sets: &mut Sets, create: bool) {
        let deployment = self.deployment;
        let max_old = sets.old().map(|index| revision(&sets.all[index].set.meta)).max().unwrap_or(0);
        let number = max_old + 1;
        let Some(index) = sets.new else {
            if create {
                self.make_new(sets, number);
            }
            return;
        };
        let set = sets.all[index].set.clone();
        let annotations = set_annotations(deployment, &set.meta, number);
        let min_ready = (set.min_ready_s != deployment.min_ready_s).then_some(deployment.min_ready_s);
        let shown = annotations.get(REVISION).cloned().or_else(|| set.meta.annotations.get(REVISION).cloned());
        if !annotations.is_empty() || min_ready.is_some() {
            self.plan.update(
                Kind::ReplicaSet,
                &set.meta,
                Change::ReplicaSet { replicas: None, min_ready_s: min_ready, annotations },
            );
        }
        if let Some(shown) = shown
            && deployment.meta.annotation(REVISION) != Some(&*shown)
        {
            self.show_revision(shown);
        }
        if deployment.progress_deadline_s.is_some() && condition::find(&self.status.conditions, "Progressing").is_none()
        {
            let text = format!("Found new replica set \"{}\"", set.meta.key.name);
            self.progressing(Condition::new("Progressing", true, "FoundNewReplicaSet", text, self.cx.now));
        }
    }

    fn show_revision(&mut self, revision: Arc<str>) {
        let annotations = Labels::from([(Arc::from(REVISION), revision)]);
        self.plan.update(Kind::Deployment, &self.deployment.meta, Change::Annotations(annotations));
    }

    fn make_new(&mut self, sets: &mut Sets, number: i64) {
        let deployment = self.deployment;
        let hash = names::template_hash(deployment.template.body.hash(), self.status.collisions);
        let name: Arc<str> = format!("{}-{hash}", deployment.meta.key.name).into();
        let key = Key { namespace: deployment.meta.key.namespace.clone(), name };
        if let Some(other) = self.cx.world.replica_sets.get(&key) {
            // A namesake with another template or owner: count the collision, which makes another name next time.
            if other.meta.controller().is_none_or(|owner| owner.uid != deployment.meta.uid)
                || other.template.body != deployment.template.body
            {
                self.status.collisions = Some(self.status.collisions.unwrap_or(0) + 1);
            }
            return;
        }
        let replicas = rolling::new_set_replicas(deployment, sets, 0);
        let mut annotations = set_annotations(deployment, &Meta::default(), number);
        annotations.extend(scale_annotations(deployment));
        let mut labels = deployment.template.labels.clone();
        labels.insert(TEMPLATE_HASH.into(), hash.as_str().into());
        let meta = NewMeta {
            key: key.clone(),
            labels,
            annotations,
            owners: vec![controller_ref(Kind::Deployment, &deployment.meta)],
            ..NewMeta::default()
        };
        let body = Body::ReplicaSet {
            replicas,
            min_ready_s: deployment.min_ready_s,
            selector: deployment.selector.clone(),
            template: deployment.template.body.clone(),
            hash: hash.into(),
        };
        self.plan.create(meta, body);
        if replicas > 0 {
            let text = format!("Scaled up replica set {} from 0 to {replicas}", key.name);
            self.plan.note(self.report.normal("ScalingReplicaSet", text));
        }
        if deployment.progress_deadline_s.is_some() {
            let text = format!("Created new replica set \"{}\"", key.name);
            self.progressing(Condition::new("Progressing", true, "NewReplicaSetCreated", text, self.cx.now));
        }
    }

    /// The number changed: one set takes it all; a finished rollout drops the old; else it is shared in proportion.
    pub(super) fn share(&mut self, sets: &mut Sets) {
        let deployment = self.deployment;
        if let Some(index) = sets.active_or_latest() {
            if sets.all[index].replicas != deployment.replicas || self.numbers_stale(sets, index) {
                self.scale(sets, index, deployment.replicas);
            }
            return;
        }
        if sets.new.is_some_and(|index| self.is_saturated(&sets.all[index])) {
            for index in sets.old_active() {
                self.scale(sets, index, 0);
            }
            return;
        }
        if !matches!(deployment.strategy, DeploymentStrategy::RollingUpdate { .. }) {
            return;
        }
        for (index, size) in self.proportions(sets) {
            self.scale(sets, index, size);
        }
    }

    fn numbers_stale(&self, sets: &Sets, index: usize) -> bool {
        annotation_number(&sets.all[index].set.meta, DESIRED_REPLICAS)
            .is_some_and(|desired| desired != self.deployment.replicas)
    }

    fn is_saturated(&self, entry: &Entry) -> bool {
        let desired = self.deployment.replicas;
        entry.replicas == desired
            && annotation_number(&entry.set.meta, DESIRED_REPLICAS) == Some(desired)
            && entry.set.status.available == desired
    }

    /// New sizes of the active sets, each in proportion to its present size; what rounding leaves goes to the biggest.
    fn proportions(&self, sets: &Sets) -> Vec<(usize, i32)> {
        let deployment = self.deployment;
        let mut active: Vec<usize> = (0..sets.all.len()).filter(|index| sets.all[*index].replicas > 0).collect();
        let allowed =
            if deployment.replicas > 0 { deployment.replicas.saturating_add(rolling::surge(deployment)) } else { 0 };
        let to_add = allowed - sets.total();
        // Bigger first; of equal ones the newer first when growing, the older first when shrinking.
        active.sort_by(|a, b| {
            let (x, y) = (&sets.all[*a], &sets.all[*b]);
            let age = x.set.meta.created.cmp(&y.set.meta.created);
            y.replicas.cmp(&x.replicas).then(if to_add > 0 { age.reverse() } else { age })
        });
        let mut added = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for index in active {
            let entry = &sets.all[index];
            let share =
                if to_add == 0 || to_add == added { 0 } else { self.share_of(entry, to_add - added, to_add > 0) };
            added += share;
            sizes.push((index, entry.replicas + share));
        }
        if let Some(first) = sizes.first_mut() {
            first.1 = (first.1 + to_add - added).max(0);
        }
        sizes
    }

    fn share_of(&self, entry: &Entry, left: i32, growing: bool) -> i32 {
        let deployment = self.deployment;
        let fraction = if deployment.replicas == 0 {
            -entry.replicas
        } else {
            let max = f64::from(deployment.replicas + rolling::surge(deployment));
            let before = annotation_number(&entry.set.meta, MAX_REPLICAS)
                .filter(|max| *max != 0)
                .unwrap_or(deployment.status.replicas.max(1));
            (f64::from(entry.replicas) * max / f64::from(before)).round() as i32 - entry.replicas
        };
        if growing { fraction.min(left) } else { fraction.max(left) }
    }
}

/// Annotations that the new set lacks: copies of the deployment's, and its revision when that has grown.
fn set_annotations(deployment: &Deployment, set: &Meta, number: i64) -> Labels {
    const NOT_COPIED: [&str; 6] = [
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.revisionTo",
    ];
    let mut changed: Labels = deployment
        .meta
        .annotations
        .iter()
        .filter(|(key, value)| !NOT_COPIED.contains(&&***key) && set.annotations.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let old = revision(set);
    if old < number {
        changed.insert(REVISION.into(), number.to_string().into());
        if old > 0 {
            let history = match set.annotation(REVISION_HISTORY) {
                Some(earlier) if !earlier.is_empty() => format!("{earlier},{old}"),
                _ => old.to_string(),
            };
            changed.insert(REVISION_HISTORY.into(), history.into());
        }
    }
    changed
}

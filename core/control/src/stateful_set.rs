//! StatefulSet: pods with ordinals, names and claims of their own, made and replaced in order.

use crate::adoption;
use crate::control::Cx;
use crate::plan::{Plan, Reporter};
use crate::revisions::{self, POD_REVISION, Revisions};
use crate::world::controller_ref;
use model::effect::{Body, MetaPatch, NewMeta, NewPod, Propagation, Status};
use model::selector::Operator;
use model::workload::{StatefulSetStatus, StatefulSetUpdate};
use model::{Key, Kind, Labels, OwnerRef, Phase, Pod, PodTemplate, StatefulSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SOURCE: &str = "statefulset-controller";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
const REVISION_LABEL: &str = "controller.kubernetes.io/hash";

/// One look at one set.
struct Look<'a> {
    cx: &'a Cx<'a>,
    set: &'a StatefulSet,
    revisions: Revisions,
    /// Name of the revision that pods had before the rollout.
    current: Arc<str>,
    pods: BTreeMap<i32, Arc<Pod>>,
    report: Reporter,
    plan: Plan,
}

/// Looks at one stateful set.
pub fn reconcile(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = cx.world.stateful_sets.get(key) else { return plan };
    if !cx.world.all_synced(&[Kind::Pod, Kind::StatefulSet, Kind::ControllerRevision, Kind::PersistentVolumeClaim]) {
        return plan;
    }
    let prefix = format!("{}-", set.meta.key.name);
    let named = |pod: &Pod| pod.meta.key.name.starts_with(&prefix);
    let owned = adoption::pods(cx.world, (Kind::StatefulSet, &set.meta), &set.selector, named, &mut plan);
    let pods = owned.into_iter().filter_map(|pod| Some((ordinal(&pod, &prefix)?, pod))).collect();
    let owner = (Kind::StatefulSet, &set.meta);
    let revisions = revisions::sync(cx, owner, &set.template, set.status.collisions, REVISION_LABEL, &mut plan);
    let known = |name: &str| revisions.all.iter().any(|revision| *revision.meta.key.name == *name);
    let current =
        if known(&set.status.current_revision) { set.status.current_revision.clone() } else { revisions.name.clone() };
    let report = Reporter::new(SOURCE, Kind::StatefulSet, &set.meta, cx.now);
    let mut look = Look { cx, set, revisions, current, pods, report, plan };
    if !set.meta.is_deleting() {
        look.act();
    }
    look.finish();
    look.plan
}

fn ordinal(pod: &Pod, prefix: &str) -> Option<i32> {
    pod.meta.key.name.strip_prefix(prefix)?.parse().ok()
}

fn revision(pod: &Pod) -> &str {
    pod.meta.label(POD_REVISION).unwrap_or_default()
}

impl Look<'_> {
    fn is_available(&mut self, pod: &Pod) -> bool {
        if pod.status.phase != Phase::Running {
            return false;
        }
        match pod.available(self.set.min_ready_s, self.cx.now) {
            Ok(available) => available,
            Err(at) => {
                self.plan.look_again(at);
                false
            }
        }
    }

    fn range(&self) -> std::ops::Range<i32> {
        self.set.first_ordinal..self.set.first_ordinal.saturating_add(self.set.replicas)
    }

    /// Makes what is missing, takes away what is too much, replaces what is old; in order unless the set is parallel.
    fn act(&mut self) {
        let in_order = !self.set.parallel;
        let mut made = 0;
        for ordinal in self.range() {
            let Some(pod) = self.pods.get(&ordinal).cloned() else {
                if made < self.cx.burst || in_order {
                    self.make(ordinal);
                    made += 1;
                }
                if in_order {
                    return;
                }
                continue;
            };
            if pod.status.phase.is_terminal() {
                if !pod.meta.is_deleting() {
                    let text = format!(
                        "StatefulSet {} is recreating {} Pod {}",
                        self.set.meta.key,
                        pod.status.phase.as_str().to_lowercase(),
                        pod.meta.key.name
                    );
                    self.plan.record(self.report.warning("RecreatingTerminatedPod", text));
                    self.delete(&pod);
                }
                if in_order {
                    return;
                }
                continue;
            }
            self.ensure_claims(ordinal);
            if in_order && (pod.meta.is_deleting() || !self.is_available(&pod)) {
                // Before the next one: but a broken pod of an old revision may still be replaced below.
                if !self.blocks_update(&pod) {
                    return;
                }
                break;
            }
        }
        if self.shrink(in_order) {
            return;
        }
        self.roll();
    }

    /// An unhealthy pod that the update would replace anyway does not hold the update up (upstream needs a hand there; a rollout of a
    /// mended template then goes through by itself).
    fn blocks_update(&self, pod: &Pod) -> bool {
        let StatefulSetUpdate::RollingUpdate { partition, .. } = self.set.update else { return false };
        let ordinal = ordinal(pod, &format!("{}-", self.set.meta.key.name)).unwrap_or(0);
        !pod.meta.is_deleting()
            && revision(pod) != &*self.revisions.name
            && ordinal - self.set.first_ordinal >= partition
    }

    /// Deletes pods outside of the range, highest first. Returns whether nothing else is to be done meanwhile.
    fn shrink(&mut self, in_order: bool) -> bool {
        let range = self.range();
        let condemned: Vec<Arc<Pod>> =
            self.pods.iter().rev().filter(|(o, _)| !range.contains(*o)).map(|(_, p)| p.clone()).collect();
        for pod in condemned {
            if pod.meta.is_deleting() {
                if in_order {
                    return true;
                }
                continue;
            }
            if self.set.delete_claims_when_scaled {
                self.hand_claims_to(&pod);
            }
            self.delete(&pod);
            if in_order {
                return true;
            }
        }
        false
    }

    /// Replaces pods of old revisions, highest first, as many at once as may be missing.
    fn roll(&mut self) {
        let StatefulSetUpdate::RollingUpdate { partition, max_unavailable } = self.set.update else { return };
        if self.revisions.present.is_none() {
            return;
        }
        let mut budget = max_unavailable.of(self.set.replicas, false).max(1);
        let range = self.range();
        let candidates: Vec<Arc<Pod>> = self
            .pods
            .iter()
            .rev()
            .filter(|(ordinal, _)| range.contains(*ordinal) && **ordinal - self.set.first_ordinal >= partition)
            .map(|(_, pod)| pod.clone())
            .collect();
        for pod in candidates {
            if revision(&pod) != &*self.revisions.name && !pod.meta.is_deleting() {
                self.delete(&pod);
                budget -= 1;
            } else if pod.meta.is_deleting() || !self.is_available(&pod) {
                budget -= 1;
            }
            if budget <= 0 {
                return;
            }
        }
    }

    fn delete(&mut self, pod: &Arc<Pod>) {
        let text = format!("delete Pod {} in StatefulSet {} successful", pod.meta.key.name, self.set.meta.key.name);
        self.plan.delete(Kind::Pod, &pod.meta, Propagation::Default).note(self.report.normal("SuccessfulDelete", text));
    }

    /// The template and revision for a new pod: below the partition, what pods had before the rollout.
    fn template(&self, ordinal: i32) -> Option<(PodTemplate, Arc<str>)> {
        let old = match self.set.update {
            StatefulSetUpdate::RollingUpdate { partition, .. } => ordinal - self.set.first_ordinal < partition,
            StatefulSetUpdate::OnDelete => false,
        };
        if old && self.current != self.revisions.name {
            let revision = self.revisions.all.iter().find(|revision| revision.meta.key.name == self.current)?;
            return Some((revision.template.clone()?, self.current.clone()));
        }
        Some((self.set.template.clone(), self.revisions.name.clone()))
    }

    fn make(&mut self, ordinal: i32) {
        // The pod's label must name a revision that exists: its making comes first.
        if self.revisions.present.is_none() {
            return;
        }
        self.ensure_claims(ordinal);
        let Some((template, revision)) = self.template(ordinal) else { return };
        let name: Arc<str> = format!("{}-{ordinal}", self.set.meta.key.name).into();
        let mut labels = template.labels.clone();
        labels.insert(POD_REVISION.into(), revision);
        labels.insert(POD_NAME.into(), name.clone());
        labels.insert(POD_INDEX.into(), ordinal.to_string().into());
        let meta = NewMeta {
            key: self.key(name.clone()),
            generate_name: format!("{}-", self.set.meta.key.name).into(),
            labels,
            annotations: template.annotations.clone(),
            owners: vec![controller_ref(Kind::StatefulSet, &self.set.meta)],
            ..NewMeta::default()
        };
        let claims = self
            .set
            .claim_templates
            .iter()
            .map(|(volume, _)| (volume.clone(), self.claim_name(volume, ordinal)))
            .collect();
        let pod = NewPod {
            template: template.body,
            hostname: name.clone(),
            subdomain: self.set.service_name.clone(),
            claims,
            ..NewPod::default()
        };
        let text = format!("create Pod {name} in StatefulSet {} successful", self.set.meta.key.name);
        self.plan.create(meta, Body::Pod(Box::new(pod))).note(self.report.normal("SuccessfulCreate", text));
        if let Some(refusal) = self.cx.refusal {
            let text = format!(
                "create Pod {name} in StatefulSet {} failed error: {}",
                self.set.meta.key.name, refusal.message
            );
            self.plan.record(self.report.warning("FailedCreate", text));
        }
    }

    fn key(&self, name: Arc<str>) -> Key {
        Key { namespace: self.set.meta.key.namespace.clone(), name }
    }

    fn claim_name(&self, volume: &str, ordinal: i32) -> Arc<str> {
        format!("{volume}-{}-{ordinal}", self.set.meta.key.name).into()
    }

    fn ensure_claims(&mut self, ordinal: i32) {
        for (volume, template) in &self.set.claim_templates {
            let key = self.key(self.claim_name(volume, ordinal));
            if self.cx.world.claims.contains_key(&key) {
                continue;
            }
            let owners: Vec<OwnerRef> = self
                .set
                .delete_claims_when_deleted
                .then(|| controller_ref(Kind::StatefulSet, &self.set.meta))
                .into_iter()
                .collect();
            let text = format!(
                "create Claim {} Pod {}-{ordinal} in StatefulSet {} success",
                key.name, self.set.meta.key.name, self.set.meta.key.name
            );
            let meta = NewMeta { key, labels: match_labels(self.set), owners, ..NewMeta::default() };
            self.plan
                .create(meta, Body::Claim { template: template.clone() })
                .note(self.report.normal("SuccessfulCreate", text));
        }
    }

    /// The claims of a pod that is scaled away go with it.
    fn hand_claims_to(&mut self, pod: &Pod) {
        let Some(ordinal) = ordinal(pod, &format!("{}-", self.set.meta.key.name)) else { return };
        for (volume, _) in &self.set.claim_templates {
            let key = self.key(self.claim_name(volume, ordinal));
            let Some(claim) = self.cx.world.claims.get(&key) else { continue };
            if claim.meta.owners.iter().any(|owner| owner.uid == pod.meta.uid) {
                continue;
            }
            let owner =
                OwnerRef { controller: false, block_owner_deletion: false, ..controller_ref(Kind::Pod, &pod.meta) };
            let owners = Some(vec![owner]);
            self.plan.patch_meta(
                Kind::PersistentVolumeClaim,
                &claim.meta,
                MetaPatch { owners, ..MetaPatch::default() },
            );
        }
    }

    fn finish(&mut self) {
        let status = self.status();
        if status != self.set.status {
            self.plan.status(Kind::StatefulSet, &self.set.meta, Status::StatefulSet(status));
        }
        let mut in_use: BTreeSet<&str> = self.pods.values().map(|pod| revision(pod)).collect();
        in_use.insert(&self.current);
        revisions::clean_up(&self.revisions, self.set.history_limit, &in_use, &mut self.plan);
    }

    fn status(&mut self) -> StatefulSetStatus {
        let mut status = StatefulSetStatus {
            observed_generation: self.set.meta.generation,
            current_revision: self.current.clone(),
            update_revision: self.revisions.name.clone(),
            collisions: self.set.status.collisions,
            conditions: self.set.status.conditions.clone(),
            ..StatefulSetStatus::default()
        };
        if self.revisions.collided {
            status.collisions = Some(status.collisions.unwrap_or(0) + 1);
        }
        for pod in self.pods.values().cloned().collect::<Vec<_>>() {
            status.replicas += 1;
            status.ready += i32::from(pod.status.phase == Phase::Running && pod.is_ready());
            status.available += i32::from(self.is_available(&pod));
            if !pod.meta.is_deleting() {
                status.current += i32::from(revision(&pod) == &*self.current);
                status.updated += i32::from(revision(&pod) == &*self.revisions.name);
            }
        }
        let rolling = matches!(self.set.update, StatefulSetUpdate::RollingUpdate { .. });
        if rolling
            && status.updated == status.replicas
            && status.ready == status.replicas
            && status.replicas == self.set.replicas
        {
            status.current = status.updated;
            status.current_revision = status.update_revision.clone();
        }
        status
    }
}

/// The `matchLabels` part of the set's selector, which its claims carry.
fn match_labels(set: &StatefulSet) -> Labels {
    let exact = set.selector.requirements.iter().filter(|r| r.operator == Operator::In && r.values.len() == 1);
    exact.map(|requirement| (requirement.key.clone(), requirement.values[0].clone())).collect()
}

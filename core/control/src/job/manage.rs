//! How many pods a job has at once.

use super::{INDEX, INDEX_FAILURES, Look, TRACKING, index_of};
use crate::world::controller_ref;
use crate::{names, replica_set};
use model::effect::{Body, NewMeta, NewPod, Propagation};
use model::pod::ContainerState;
use model::{Key, Kind, Phase, Pod, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// First delay after a failure; doubles with each further one.
const BACKOFF_MS: i64 = 10_000;
const BACKOFF_MAX_MS: i64 = 600_000;

/// How often the pod's index had failed before it.
pub fn index_failures(pod: &Pod) -> i32 {
    pod.meta.annotation(INDEX_FAILURES).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn finished(pod: &Pod) -> Timestamp {
    let ends = pod.status.containers.iter().filter_map(|status| match &status.state {
        ContainerState::Terminated { finished, .. } => Some(*finished),
        _ => None,
    });
    ends.max().or(pod.meta.deleting).unwrap_or(pod.meta.created)
}

impl Look<'_> {
    pub(super) fn manage(&mut self, active: &[Arc<Pod>], going: usize) {
        if self.job.meta.is_deleting() {
            return;
        }
        let succeeded = self.succeeded();
        let wanted = match self.job.completions {
            Some(completions) => self.job.parallelism.min((completions - succeeded - self.failed.len() as i32).max(0)),
            None if succeeded > 0 => active.len() as i32,
            None => self.job.parallelism,
        };
        let surplus = active.len() as i64 - i64::from(wanted.max(0));
        if surplus > 0 {
            self.shrink(active, surplus as usize);
            return;
        }
        let held = if self.job.replace_only_failed { going as i64 } else { 0 };
        let missing = (-surplus - held).max(0) as usize;
        if missing == 0 {
            return;
        }
        if let Some(at) = self.backoff().filter(|at| *at > self.cx.now) {
            self.plan.look_again(at);
            return;
        }
        let count = missing.min(self.cx.burst);
        if self.job.indexed {
            for (number, index) in self.free_indexes(active).into_iter().take(count).enumerate() {
                self.make(number, Some(index));
            }
        } else {
            for number in 0..count {
                self.make(number, None);
            }
        }
        if let Some(refusal) = self.cx.refusal {
            self.plan.record(self.report.warning("FailedCreate", format!("Error creating: {}", refusal.message)));
        }
    }

    fn shrink(&mut self, active: &[Arc<Pod>], surplus: usize) {
        let mut pods: Vec<&Arc<Pod>> = active.iter().collect();
        pods.sort_by(|a, b| {
            replica_set::deletion_order((a, 0), (b, 0), self.cx.now).then_with(|| a.meta.key.cmp(&b.meta.key))
        });
        for pod in pods.into_iter().take(surplus) {
            let note = self.report.normal("SuccessfulDelete", format!("Deleted pod: {}", pod.meta.key.name));
            self.plan.delete(Kind::Pod, &pod.meta, Propagation::Default).note(note);
        }
    }

    /// When the next pod may be made after failures with no success between.
    fn backoff(&self) -> Option<Timestamp> {
        let last_success =
            self.pods.iter().filter(|pod| pod.status.phase == Phase::Succeeded).map(|pod| finished(pod)).max();
        let failures: Vec<Timestamp> = self
            .pods
            .iter()
            .filter(|pod| pod.status.phase == Phase::Failed)
            .map(|pod| finished(pod))
            .filter(|at| last_success.is_none_or(|success| *at > success))
            .collect();
        let last = failures.iter().max()?;
        let delay = BACKOFF_MS.saturating_mul(1 << (failures.len() - 1).min(20)).min(BACKOFF_MAX_MS);
        Some(last.plus_ms(delay))
    }

    /// Indexes that neither ended nor run, lowest first.
    fn free_indexes(&self, active: &[Arc<Pod>]) -> Vec<u32> {
        let running: BTreeSet<u32> = active.iter().filter_map(|pod| index_of(pod)).collect();
        let count = self.job.completions.unwrap_or(0).max(0) as u32;
        (0..count)
            .filter(|index| {
                !running.contains(index) && !self.completed.contains(*index) && !self.failed.contains(*index)
            })
            .collect()
    }

    fn make(&mut self, number: usize, index: Option<u32>) {
        let job = &self.job.meta.key;
        let base = match index {
            Some(index) => format!("{}-{index}-", job.name),
            None => format!("{}-", job.name),
        };
        let name = names::generated(&base, self.cx.seed ^ ((number as u64) << 40));
        let mut labels = self.job.template.labels.clone();
        let mut annotations = self.job.template.annotations.clone();
        let mut pod = NewPod { template: self.job.template.body.clone(), ..NewPod::default() };
        if let Some(index) = index {
            let text: Arc<str> = index.to_string().into();
            labels.insert(INDEX.into(), text.clone());
            annotations.insert(INDEX.into(), text);
            if self.job.backoff_limit_per_index.is_some() {
                let of_index =
                    self.pods.iter().filter(|p| index_of(p) == Some(index) && p.status.phase == Phase::Failed);
                let failures = of_index.map(|p| index_failures(p) + 1).max().unwrap_or(0);
                annotations.insert(INDEX_FAILURES.into(), failures.to_string().into());
            }
            pod.hostname = format!("{}-{index}", job.name).into();
            pod.env_from_field.push(("JOB_COMPLETION_INDEX".into(), format!("metadata.annotations['{INDEX}']").into()));
        }
        let meta = NewMeta {
            key: Key { namespace: job.namespace.clone(), name: name.clone() },
            generate_name: base.into(),
            labels,
            annotations,
            owners: vec![controller_ref(Kind::Job, &self.job.meta)],
            finalizers: vec![TRACKING.into()],
        };
        let note = self.report.normal("SuccessfulCreate", format!("Created pod: {name}"));
        self.plan.create(meta, Body::Pod(Box::new(pod))).note(note);
    }
}

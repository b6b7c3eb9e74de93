//! Job: pods that run to completion, each counted once.
//!
//! Every pod has a finalizer until it is counted, so that none vanishes uncounted. An ended pod's uid is first written into
//! `uncountedTerminatedPods`, then its finalizer goes, then it moves into the count: wherever the control stops between two of these
//! writes, it goes on from what the status says.

mod indexes;
mod manage;
mod policy;

use crate::adoption;
use crate::control::Cx;
use crate::plan::{Plan, Reporter};
use crate::world::within;
use indexes::Indexes;
use model::batch::{Job, JobStatus};
use model::effect::{MetaPatch, Status};
use model::{Condition, Key, Kind, Phase, Pod, Truth, condition};
use policy::Verdict;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) const SOURCE: &str = "job-controller";
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";

/// One look at one job.
struct Look<'a> {
    cx: &'a Cx<'a>,
    job: &'a Job,
    pods: Vec<Arc<Pod>>,
    report: Reporter,
    plan: Plan,
    status: JobStatus,
    completed: Indexes,
    failed: Indexes,
    /// A rule that says that the job has failed.
    verdict: Option<String>,
}

/// Whether a job has ended, and well or badly.
pub fn ended(job: &Job) -> Option<bool> {
    let holds = |kind: &str| condition::find(&job.status.conditions, kind).is_some_and(|c| c.status == Truth::True);
    if holds("Complete") { Some(true) } else { holds("Failed").then_some(false) }
}

/// When a job ended.
pub fn ended_at(job: &Job) -> Option<model::Timestamp> {
    let kind = if ended(job)? { "Complete" } else { "Failed" };
    condition::find(&job.status.conditions, kind).map(|condition| condition.last_transition)
}

/// Looks at one job.
pub fn reconcile(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    if !cx.world.all_synced(&[Kind::Pod, Kind::Job]) {
        return plan;
    }
    let found = cx.world.jobs.get(key);
    // A namesake that was only just made may have come after one that is gone; later there is nothing left to release.
    if found.is_none_or(|job| job.status.started.is_none()) {
        release_orphans(cx, key, &mut plan);
    }
    let Some(job) = found else { return plan };
    let pods = adoption::pods(cx.world, (Kind::Job, &job.meta), &job.selector, |_| true, &mut plan);
    plan.cost = pods.len();
    let report = Reporter::new(SOURCE, Kind::Job, &job.meta, cx.now);
    let completed = Indexes::parse(&job.status.completed_indexes);
    let failed = Indexes::parse(job.status.failed_indexes.as_deref().unwrap_or_default());
    let mut look = Look { cx, job, pods, report, plan, status: job.status.clone(), completed, failed, verdict: None };
    look.run();
    look.plan
}

/// Pods of a job that is gone: nobody will count them, so nothing may hold them any longer.
fn release_orphans(cx: &Cx, key: &Key, plan: &mut Plan) {
    let owned = |pod: &&Arc<Pod>| {
        let owner = pod.meta.controller().filter(|owner| &*owner.kind == "Job" && owner.name == key.name);
        owner.is_some_and(|owner| cx.world.by_uid(&owner.uid).is_none())
    };
    for pod in within(&cx.world.pods, &key.namespace).filter(owned).filter(|pod| is_tracked(pod)) {
        release(plan, pod);
    }
}

/// Takes the finalizer off.
fn release(plan: &mut Plan, pod: &Pod) {
    let finalizers = Some(pod.meta.finalizers.iter().filter(|f| &***f != TRACKING).cloned().collect());
    plan.patch_meta(Kind::Pod, &pod.meta, MetaPatch { finalizers, ..MetaPatch::default() });
}

fn is_tracked(pod: &Pod) -> bool {
    pod.meta.finalizers.iter().any(|finalizer| &**finalizer == TRACKING)
}

/// A pod's completion index.
fn index_of(pod: &Pod) -> Option<u32> {
    pod.meta.annotation(INDEX).or_else(|| pod.meta.label(INDEX))?.parse().ok()
}

impl Look<'_> {
    fn run(&mut self) {
        if ended(self.job).is_some() || self.job.meta.is_deleting() {
            return self.release_all();
        }
        if self.status.started.is_none() && !self.job.suspend {
            self.status.started = Some(self.cx.now);
        }
        self.count();
        let active: Vec<Arc<Pod>> = self.pods.iter().filter(|pod| pod.is_active()).cloned().collect();
        let going = self.pods.iter().filter(|pod| pod.meta.is_deleting() && !pod.status.phase.is_terminal()).count();
        self.status.active = active.len() as i32;
        self.status.ready = active.iter().filter(|pod| pod.is_ready()).count() as i32;
        self.status.terminating = going as i32;
        if let Some((reason, message)) = self.failure(&active) {
            self.fail(&active, going, reason, message);
        } else if self.has_succeeded(&active) {
            self.succeed(&active, going);
        } else if self.job.suspend {
            self.suspend(&active);
        } else {
            self.resume();
            self.manage(&active, going);
        }
        self.write();
    }

    /// An ended job's pods are nobody's business any more: what still runs is deleted, finalizers go.
    fn release_all(&mut self) {
        let pods = self.pods.clone();
        for pod in &pods {
            if pod.is_active() && ended(self.job).is_some() {
                self.plan.delete(Kind::Pod, &pod.meta, model::effect::Propagation::Default);
            }
            if is_tracked(pod) {
                self.release(pod);
            }
        }
    }

    fn release(&mut self, pod: &Pod) {
        release(&mut self.plan, pod);
    }

    /// Moves every ended pod one step on: noted, released, counted.
    fn count(&mut self) {
        let stored: BTreeSet<Arc<str>> =
            self.job.status.uncounted_succeeded.iter().chain(&self.job.status.uncounted_failed).cloned().collect();
        let tracked: BTreeSet<Arc<str>> =
            self.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| pod.meta.uid.clone()).collect();
        let (before_s, before_f) = (self.status.uncounted_succeeded.len(), self.status.uncounted_failed.len());
        self.status.uncounted_succeeded.retain(|uid| tracked.contains(uid));
        self.status.uncounted_failed.retain(|uid| tracked.contains(uid));
        self.status.succeeded += (before_s - self.status.uncounted_succeeded.len()) as i32;
        self.status.failed += (before_f - self.status.uncounted_failed.len()) as i32;
        let pods = self.pods.clone();
        for pod in pods.iter().filter(|pod| is_tracked(pod)) {
            if stored.contains(&pod.meta.uid) {
                self.release(pod);
            } else if pod.status.phase == Phase::Succeeded {
                self.note_success(pod);
            } else if pod.status.phase == Phase::Failed || pod.meta.is_deleting() && self.counts_when_deleted(pod) {
                self.note_failure(pod);
            }
        }
        if self.job.indexed {
            self.status.completed_indexes = self.completed.to_string().into();
            self.status.succeeded = self.completed.len() as i32;
            if self.job.backoff_limit_per_index.is_some() {
                self.status.failed_indexes = Some(self.failed.to_string().into());
            }
        }
    }

    /// A pod that is being deleted counts as failed at once, unless it is to be replaced only when it has ended.
    fn counts_when_deleted(&self, pod: &Pod) -> bool {
        !self.job.replace_only_failed && self.job.failure_rules.is_empty() || pod.spec.node_name.is_empty()
    }

    fn note_success(&mut self, pod: &Pod) {
        let in_range = |index: u32| i64::from(index) < i64::from(self.job.completions.unwrap_or(0));
        if self.job.indexed
            && let Some(index) = index_of(pod).filter(|index| in_range(*index))
        {
            self.completed.insert(index);
        }
        self.status.uncounted_succeeded.push(pod.meta.uid.clone());
    }

    fn note_failure(&mut self, pod: &Pod) {
        match policy::judge(&self.job.failure_rules, pod) {
            Verdict::FailJob(message) => self.verdict = Some(message),
            Verdict::Ignore => return self.release(pod),
            Verdict::FailIndex => {
                if let Some(index) = index_of(pod) {
                    self.failed.insert(index);
                }
            }
            Verdict::Count => {
                if let (Some(limit), Some(index)) = (self.job.backoff_limit_per_index, index_of(pod))
                    && manage::index_failures(pod) >= limit
                    && !self.completed.contains(index)
                {
                    self.failed.insert(index);
                }
            }
        }
        self.status.uncounted_failed.push(pod.meta.uid.clone());
    }

    fn succeeded(&self) -> i32 {
        if self.job.indexed {
            self.completed.len() as i32
        } else {
            self.status.succeeded + self.status.uncounted_succeeded.len() as i32
        }
    }

    /// Why the job has failed, if it has.
    fn failure(&mut self, active: &[Arc<Pod>]) -> Option<(&'static str, String)> {
        if let Some(target) =
            condition::find(&self.job.status.conditions, "FailureTarget").filter(|c| c.status == Truth::True)
        {
            let known = [
                "PodFailurePolicy",
                "BackoffLimitExceeded",
                "DeadlineExceeded",
                "MaxFailedIndexesExceeded",
                "FailedIndexes",
            ];
            let reason = known.into_iter().find(|reason| **reason == *target.reason).unwrap_or("BackoffLimitExceeded");
            return Some((reason, target.message.to_string()));
        }
        if let Some(message) = self.verdict.take() {
            return Some(("PodFailurePolicy", message));
        }
        let failed = self.status.failed + self.status.uncounted_failed.len() as i32;
        let restarts: i32 = active.iter().map(|pod| pod.restarts()).sum();
        let by_restarts = self.job.template.restart_policy == model::pod::RestartPolicy::OnFailure
            && if self.job.backoff_limit == 0 { restarts > 0 } else { restarts >= self.job.backoff_limit };
        if self.job.backoff_limit_per_index.is_none() && (failed > self.job.backoff_limit || by_restarts) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
        }
        if let (Some(deadline), Some(started)) = (self.job.active_deadline_s, self.status.started)
            && !self.job.suspend
        {
            let at = started.plus_ms(deadline.clamp(0, i64::from(i32::MAX)) * 1000);
            if self.cx.now >= at {
                return Some(("DeadlineExceeded", "Job was active longer than specified deadline".into()));
            }
            self.plan.look_again(at);
        }
        if self.job.max_failed_indexes.is_some_and(|max| self.failed.len() as i64 > i64::from(max)) {
            return Some((
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes".into(),
            ));
        }
        let all_ended =
            self.job.completions.is_some_and(|n| (self.completed.len() + self.failed.len()) as i64 >= i64::from(n));
        if self.job.indexed && !self.failed.is_empty() && all_ended {
            return Some(("FailedIndexes", "Job has failed indexes".into()));
        }
        None
    }

    fn has_succeeded(&self, active: &[Arc<Pod>]) -> bool {
        match self.job.completions {
            Some(completions) => self.succeeded() >= completions,
            None => self.succeeded() > 0 && active.is_empty(),
        }
    }

    fn set(&mut self, condition: Condition) {
        condition::set(&mut self.status.conditions, condition);
    }

    fn fail(&mut self, active: &[Arc<Pod>], going: usize, reason: &str, message: String) {
        for pod in active {
            self.plan.delete(Kind::Pod, &pod.meta, model::effect::Propagation::Default);
        }
        self.set(Condition::new("FailureTarget", true, reason, message.as_str(), self.cx.now));
        if active.is_empty() && going == 0 && self.all_counted() {
            self.set(Condition::new("Failed", true, reason, message.as_str(), self.cx.now));
            self.plan.record(self.report.warning(reason, message));
        }
        self.status.active = 0;
        self.status.ready = 0;
    }

    fn succeed(&mut self, active: &[Arc<Pod>], going: usize) {
        for pod in active {
            self.plan.delete(Kind::Pod, &pod.meta, model::effect::Propagation::Default);
        }
        let text = "Reached expected number of succeeded pods";
        self.set(Condition::new("SuccessCriteriaMet", true, "CompletionsReached", text, self.cx.now));
        if active.is_empty() && going == 0 && self.all_counted() {
            self.set(Condition::new("Complete", true, "CompletionsReached", text, self.cx.now));
            self.status.completed = Some(self.cx.now);
            self.plan.record(self.report.normal("Completed", "Job completed"));
        }
        self.status.active = 0;
        self.status.ready = 0;
    }

    fn all_counted(&self) -> bool {
        self.status.uncounted_succeeded.is_empty() && self.status.uncounted_failed.is_empty()
    }

    fn suspend(&mut self, active: &[Arc<Pod>]) {
        for pod in active {
            self.plan.delete(Kind::Pod, &pod.meta, model::effect::Propagation::Default);
        }
        let before = self.status.conditions.clone();
        self.set(Condition::new("Suspended", true, "JobSuspended", "Job suspended", self.cx.now));
        if before != self.status.conditions {
            self.plan.record(self.report.normal("Suspended", "Job suspended"));
        }
        self.status.started = None;
    }

    fn resume(&mut self) {
        let suspended = condition::find(&self.status.conditions, "Suspended").is_some_and(|c| c.status == Truth::True);
        if suspended {
            self.set(Condition::new("Suspended", false, "JobResumed", "Job resumed", self.cx.now));
            self.plan.record(self.report.normal("Resumed", "Job resumed"));
            self.status.started = Some(self.cx.now);
        }
    }

    fn write(&mut self) {
        if self.status != self.job.status {
            self.plan.status(Kind::Job, &self.job.meta, Status::Job(self.status.clone()));
        }
    }
}

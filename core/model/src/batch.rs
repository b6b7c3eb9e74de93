//! Job and CronJob.

use crate::condition::Condition;
use crate::{Doc, LabelSelector, Labels, Meta, PodTemplate, Timestamp};
use std::sync::Arc;

/// Pods that run to completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// Metadata.
    pub meta: Meta,
    /// Pods at once.
    pub parallelism: i32,
    /// Successes that are asked for; None: one success ends a work queue.
    pub completions: Option<i32>,
    /// Failures that are borne.
    pub backoff_limit: i32,
    /// Failures borne for each index of an indexed job.
    pub backoff_limit_per_index: Option<i32>,
    /// Indexes that may fail.
    pub max_failed_indexes: Option<i32>,
    /// The job fails after so many seconds.
    pub active_deadline_s: Option<i64>,
    /// The job is deleted so many seconds after its end.
    pub ttl_s: Option<i32>,
    /// `completionMode: Indexed`.
    pub indexed: bool,
    /// `spec.suspend`.
    pub suspend: bool,
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// What they look like.
    pub template: PodTemplate,
    /// `podReplacementPolicy: Failed`: a terminating pod is replaced only when it has ended.
    pub replace_only_failed: bool,
    /// `spec.podFailurePolicy.rules`.
    pub failure_rules: Vec<FailureRule>,
    /// Status.
    pub status: JobStatus,
}

/// A rule of `podFailurePolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRule {
    /// What to do.
    pub action: FailureAction,
    /// `onExitCodes`: container (or any), whether `In` (else `NotIn`), codes.
    pub exit_codes: Option<(Option<Arc<str>>, bool, Vec<i32>)>,
    /// `onPodConditions`: type and whether it must be True, False or Unknown.
    pub conditions: Vec<(Arc<str>, crate::Truth)>,
}

/// `action` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureAction {
    /// The whole job fails.
    FailJob,
    /// The index fails.
    FailIndex,
    /// The failure does not count.
    Ignore,
    /// The failure counts.
    Count,
}

/// `status` of a Job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobStatus {
    /// Conditions: `Complete`, `Failed`, `Suspended`, ...
    pub conditions: Vec<Condition>,
    /// When the controller took it up.
    pub started: Option<Timestamp>,
    /// When it completed.
    pub completed: Option<Timestamp>,
    /// Pods pending or running.
    pub active: i32,
    /// Of these, ready ones.
    pub ready: i32,
    /// Pods being deleted.
    pub terminating: i32,
    /// Pods that succeeded.
    pub succeeded: i32,
    /// Pods that failed.
    pub failed: i32,
    /// Indexes that succeeded: `1,3-5`.
    pub completed_indexes: Arc<str>,
    /// Indexes that failed for good (only with a limit for each index).
    pub failed_indexes: Option<Arc<str>>,
    /// Uids of succeeded pods that are in no count yet, or whose tracking finalizer may still be there.
    pub uncounted_succeeded: Vec<Arc<str>>,
    /// Uids of failed pods, likewise.
    pub uncounted_failed: Vec<Arc<str>>,
}

/// A template of a Job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobTemplate {
    /// Labels for the jobs.
    pub labels: Labels,
    /// Annotations for the jobs.
    pub annotations: Labels,
    /// The whole template (`metadata` and `spec`) as canonical JSON.
    pub body: Doc,
}

/// Jobs by the clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CronJob {
    /// Metadata.
    pub meta: Meta,
    /// Five fields or a macro.
    pub schedule: Arc<str>,
    /// IANA time zone; None: UTC.
    pub time_zone: Option<Arc<str>>,
    /// A start that is late by more seconds is missed.
    pub starting_deadline_s: Option<i64>,
    /// What to do when the previous job still runs.
    pub concurrency: Concurrency,
    /// `spec.suspend`.
    pub suspend: bool,
    /// Ended jobs to keep.
    pub successful_history: i32,
    /// Failed jobs to keep.
    pub failed_history: i32,
    /// What the jobs look like.
    pub template: JobTemplate,
    /// Status.
    pub status: CronJobStatus,
}

/// `spec.concurrencyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// Let both run.
    #[default]
    Allow,
    /// Skip the new one.
    Forbid,
    /// Delete the old one.
    Replace,
}

/// `status` of a CronJob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CronJobStatus {
    /// Running jobs: name and uid, sorted by name.
    pub active: Vec<(Arc<str>, Arc<str>)>,
    /// When the last job was due.
    pub last_schedule: Option<Timestamp>,
    /// When a job last succeeded.
    pub last_success: Option<Timestamp>,
}

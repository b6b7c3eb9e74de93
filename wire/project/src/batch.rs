//! Job and CronJob.

use crate::meta::meta;
use crate::pod::template;
use crate::read::{
    at, conditions, flag, int, items, labels, opt_i32, opt_int, opt_text, path, str_at, text, texts, time,
};
use crate::scheduling::selector;
use model::batch::{Concurrency, CronJob, CronJobStatus, FailureAction, FailureRule, Job, JobStatus, JobTemplate};
use model::{Doc, Truth};
use serde_json::Value;

/// A Job.
pub fn job(object: &Value) -> Job {
    let (meta, spec, status) = (meta(object), at(object, "spec"), at(object, "status"));
    let uncounted = at(status, "uncountedTerminatedPods");
    Job {
        parallelism: int(spec, "parallelism", 1),
        completions: opt_i32(spec, "completions"),
        backoff_limit: int(spec, "backoffLimit", 6),
        backoff_limit_per_index: opt_i32(spec, "backoffLimitPerIndex"),
        max_failed_indexes: opt_i32(spec, "maxFailedIndexes"),
        active_deadline_s: opt_int(spec, "activeDeadlineSeconds"),
        ttl_s: opt_i32(spec, "ttlSecondsAfterFinished"),
        indexed: str_at(spec, "completionMode") == "Indexed",
        suspend: flag(spec, "suspend"),
        selector: selector(at(spec, "selector")).unwrap_or_default(),
        template: template(at(spec, "template"), &meta.key.namespace),
        replace_only_failed: str_at(spec, "podReplacementPolicy") == "Failed",
        failure_rules: items(at(spec, "podFailurePolicy"), "rules").iter().filter_map(failure_rule).collect(),
        status: JobStatus {
            conditions: conditions(status, "lastProbeTime"),
            started: time(status, "startTime"),
            completed: time(status, "completionTime"),
            active: int(status, "active", 0),
            ready: int(status, "ready", 0),
            terminating: int(status, "terminating", 0),
            succeeded: int(status, "succeeded", 0),
            failed: int(status, "failed", 0),
            completed_indexes: text(status, "completedIndexes"),
            failed_indexes: opt_text(status, "failedIndexes"),
            uncounted_succeeded: texts(uncounted, "succeeded"),
            uncounted_failed: texts(uncounted, "failed"),
        },
        meta,
    }
}

fn failure_rule(value: &Value) -> Option<FailureRule> {
    let action = match str_at(value, "action") {
        "FailJob" => FailureAction::FailJob,
        "FailIndex" => FailureAction::FailIndex,
        "Ignore" => FailureAction::Ignore,
        "Count" => FailureAction::Count,
        _ => return None,
    };
    let exit_codes = value.get("onExitCodes").map(|codes| {
        let values =
            items(codes, "values").iter().filter_map(Value::as_i64).filter_map(|code| code.try_into().ok()).collect();
        (opt_text(codes, "containerName"), str_at(codes, "operator") == "In", values)
    });
    let conditions = items(value, "onPodConditions")
        .iter()
        .map(|condition| (text(condition, "type"), Truth::parse(at(condition, "status").as_str().unwrap_or("True"))))
        .collect();
    Some(FailureRule { action, exit_codes, conditions })
}

/// A CronJob.
pub fn cron_job(object: &Value) -> CronJob {
    let (meta, spec, status) = (meta(object), at(object, "spec"), at(object, "status"));
    let template = at(spec, "jobTemplate");
    let mut active: Vec<_> = items(status, "active").iter().map(|job| (text(job, "name"), text(job, "uid"))).collect();
    active.sort();
    CronJob {
        schedule: text(spec, "schedule"),
        time_zone: opt_text(spec, "timeZone"),
        starting_deadline_s: opt_int(spec, "startingDeadlineSeconds"),
        concurrency: match str_at(spec, "concurrencyPolicy") {
            "Forbid" => Concurrency::Forbid,
            "Replace" => Concurrency::Replace,
            _ => Concurrency::Allow,
        },
        suspend: flag(spec, "suspend"),
        successful_history: int(spec, "successfulJobsHistoryLimit", 3),
        failed_history: int(spec, "failedJobsHistoryLimit", 1),
        template: JobTemplate {
            labels: labels(path(template, &["metadata", "labels"])),
            annotations: labels(path(template, &["metadata", "annotations"])),
            body: Doc::new(template.to_string()),
        },
        status: CronJobStatus {
            active,
            last_schedule: time(status, "lastScheduleTime"),
            last_success: time(status, "lastSuccessfulTime"),
        },
        meta,
    }
}

//! CronJob: jobs by the clock; and the time to live of ended jobs.

use crate::control::Cx;
use crate::cron::Schedule;
use crate::job;
use crate::plan::{Plan, Reporter};
use crate::world::controller_ref;
use jiff::tz::TimeZone;
use model::batch::{Concurrency, CronJob, CronJobStatus, Job};
use model::effect::{Body, NewMeta, Propagation, Status};
use model::{Key, Kind, Timestamp};
use std::sync::Arc;

const SOURCE: &str = "cronjob-controller";
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are told to people.
const MISSED_MANY: usize = 100;

/// Looks at one cron job.
pub fn reconcile(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(cron) = cx.world.cron_jobs.get(key) else { return plan };
    if !cx.world.all_synced(&[Kind::CronJob, Kind::Job]) {
        return plan;
    }
    let report = Reporter::new(SOURCE, Kind::CronJob, &cron.meta, cx.now);
    let jobs: Vec<Arc<Job>> = cx
        .world
        .dependents_of(&cron.meta.uid, Kind::Job)
        .filter_map(|key| cx.world.jobs.get(key))
        .filter(|job| job.meta.controller().is_some_and(|owner| owner.uid == cron.meta.uid))
        .cloned()
        .collect();
    let mut status = follow(cron, &jobs, &report, &mut plan);
    drop_history(cron, &jobs, &mut plan);
    if !cron.suspend && !cron.meta.is_deleting() {
        start(cx, cron, &jobs, &mut status, &report, &mut plan);
    }
    if status != cron.status {
        plan.status(Kind::CronJob, &cron.meta, Status::CronJob(status));
    }
    plan
}

/// What runs, and when one last succeeded.
fn follow(cron: &CronJob, jobs: &[Arc<Job>], report: &Reporter, plan: &mut Plan) -> CronJobStatus {
    let mut status = cron.status.clone();
    status.active = jobs
        .iter()
        .filter(|job| job::ended(job).is_none() && !job.meta.is_deleting())
        .map(|job| (job.meta.key.name.clone(), job.meta.uid.clone()))
        .collect();
    status.active.sort();
    for job in jobs {
        let Some(well) = job::ended(job) else { continue };
        if cron.status.active.iter().any(|(_, uid)| *uid == job.meta.uid) {
            let how = if well { "Complete" } else { "Failed" };
            plan.record(
                report.normal("SawCompletedJob", format!("Saw completed job: {}, condition: {how}", job.meta.key.name)),
            );
        }
        if well && job::ended_at(job) > status.last_success {
            status.last_success = job::ended_at(job);
        }
    }
    status
}

/// Deletes ended jobs beyond what is to be kept, oldest first.
fn drop_history(cron: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    for (well, limit) in [(true, cron.successful_history), (false, cron.failed_history)] {
        let mut ended: Vec<&Arc<Job>> =
            jobs.iter().filter(|job| job::ended(job) == Some(well) && !job.meta.is_deleting()).collect();
        ended.sort_by_key(|job| (job.status.started, job.meta.key.name.clone()));
        let surplus = ended.len() as i64 - i64::from(limit);
        for job in ended.into_iter().take(surplus.max(0) as usize) {
            plan.delete(Kind::Job, &job.meta, Propagation::Background);
        }
    }
}

fn start(cx: &Cx, cron: &CronJob, jobs: &[Arc<Job>], status: &mut CronJobStatus, report: &Reporter, plan: &mut Plan) {
    let schedule = match Schedule::parse(&cron.schedule) {
        Ok(schedule) => schedule,
        Err(error) => {
            let text = format!("unparseable schedule: \"{}\" : {error}", cron.schedule);
            plan.record(report.warning("UnparseableSchedule", text));
            return;
        }
    };
    let zone = match cron.time_zone.as_deref().map(TimeZone::get).transpose() {
        Ok(zone) => zone.unwrap_or(TimeZone::UTC),
        Err(_) => {
            let text = format!("invalid timeZone: {:?}", cron.time_zone.as_deref().unwrap_or_default());
            plan.record(report.warning("UnknownTimeZone", text));
            return;
        }
    };
    let Some(due) = due(cx.now, cron, &schedule, &zone, report, plan) else {
        if let Some(next) = schedule.next(cx.now, &zone) {
            plan.look_again(next);
        }
        return;
    };
    if let Some(next) = schedule.next(cx.now, &zone) {
        plan.look_again(next);
    }
    if cron.status.last_schedule.is_some_and(|last| last >= due) {
        return;
    }
    if !status.active.is_empty() {
        match cron.concurrency {
            Concurrency::Allow => {}
            Concurrency::Forbid => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                plan.record(report.normal("JobAlreadyActive", text));
                return;
            }
            Concurrency::Replace => {
                for job in jobs.iter().filter(|job| job::ended(job).is_none() && !job.meta.is_deleting()) {
                    let note = report.normal("SuccessfulDelete", format!("Deleted job {}", job.meta.key.name));
                    plan.delete(Kind::Job, &job.meta, Propagation::Background).note(note);
                }
            }
        }
    }
    let name: Arc<str> = format!("{}-{}", cron.meta.key.name, due.secs() / 60).into();
    let key = Key { namespace: cron.meta.key.namespace.clone(), name: name.clone() };
    if !cx.world.jobs.contains_key(&key) {
        let mut annotations = cron.template.annotations.clone();
        let local = jiff::Timestamp::from_second(due.secs())
            .map(|at| at.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
        annotations.insert(SCHEDULED_AT.into(), local.unwrap_or_default().into());
        let meta = NewMeta {
            key,
            labels: cron.template.labels.clone(),
            annotations,
            owners: vec![controller_ref(Kind::CronJob, &cron.meta)],
            ..NewMeta::default()
        };
        let note = report.normal("SuccessfulCreate", format!("Created job {name}"));
        plan.create(meta, Body::Job { template: cron.template.body.clone() }).note(note);
    }
    status.last_schedule = Some(due);
}

/// The latest time that has come and was not served.
fn due(
    now: Timestamp,
    cron: &CronJob,
    schedule: &Schedule,
    zone: &TimeZone,
    report: &Reporter,
    plan: &mut Plan,
) -> Option<Timestamp> {
    let mut from = cron.status.last_schedule.unwrap_or(cron.meta.created);
    if let Some(deadline) = cron.starting_deadline_s {
        // What is too late counts as missed.
        from = from.max(now.plus_ms(-deadline.clamp(0, i64::from(i32::MAX)) * 1000));
    }
    if from > now {
        return None;
    }
    let mut latest = None;
    let mut missed = 0usize;
    let mut at = schedule.next(from, zone)?;
    while at <= now {
        latest = Some(at);
        missed += 1;
        if missed > MISSED_MANY {
            // After a long outage nobody counts every minute: go near the present in one step.
            plan.record(report.warning(
                "TooManyMissedTimes",
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew",
            ));
            let gap = schedule.next(at, zone)?.since_ms(at).max(60_000);
            let near = now.plus_ms(-2 * gap).max(at);
            at = schedule.next(near, zone)?;
            missed = 0;
            if at <= now && latest.is_some_and(|l| at <= l) {
                break;
            }
            continue;
        }
        at = schedule.next(at, zone)?;
    }
    latest
}

/// Deletes an ended job when its time to live is over.
pub fn reconcile_ttl(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(job) = cx.world.jobs.get(key).filter(|job| !job.meta.is_deleting()) else { return plan };
    let (Some(ttl), Some(ended)) = (job.ttl_s, job::ended_at(job)) else { return plan };
    let at = ended.plus_ms(i64::from(ttl) * 1000);
    if cx.now < at {
        plan.look_again(at);
    } else {
        plan.delete(Kind::Job, &job.meta, Propagation::Foreground);
    }
    plan
}

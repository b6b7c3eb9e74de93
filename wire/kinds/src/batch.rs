//! Jobs and CronJobs.

use crate::behaviour::{Context, Facts, Field, Kind, METADATA, SPEC};
use crate::cause::{Causes, Path};
use crate::cron;
use crate::json::{Members, child, each_object, fill, fill_text, flag, is_empty, same, text};
use crate::pod::{Owner, check_template, defaults};
use crate::table::{self, Column, Row};
use model::Timestamp;
use serde_json::{Value, json};

pub fn find(kind: &str) -> Option<&'static dyn Kind> {
    Some(match kind {
        "Job" => &Job,
        "CronJob" => &CronJob,
        _ => return None,
    })
}

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

pub struct Job;

impl Kind for Job {
    fn facts(&self) -> Facts {
        Facts::reconciled("batch", "Job")
    }

    fn defaults(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        let labels = map.get("spec").map_or(Value::Null, |spec| spec["template"]["metadata"]["labels"].clone());
        if let Some(spec) = child(map, "spec") {
            job_spec(spec);
        }
        if let Some(meta) = child(map, "metadata")
            && !is_empty(&labels)
            && meta.get("labels").is_none_or(is_empty)
        {
            meta.insert("labels".into(), labels);
        }
    }

    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        let (uid, name) = match object.get("metadata") {
            Some(meta) => (text(&meta["uid"]).to_owned(), text(&meta["name"]).to_owned()),
            None => return,
        };
        object.insert("status".into(), json!({}));
        let Some(spec) = child(object, "spec") else { return };
        if spec.get("manualSelector").is_none_or(|manual| !flag(manual)) {
            generate_selector(spec, &uid, &name);
        }
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        if is_empty(&spec["selector"]) {
            causes.required(&SPEC.child("selector"), "");
        }
        check_job(spec, &SPEC, causes);
        let indexed = spec["completionMode"] == "Indexed";
        let name = text(&object["metadata"]["name"]);
        if indexed && name.len() + 1 + spec["completions"].to_string().len() > 63 {
            causes.invalid(&METADATA.child("name"), name, "must be no more than 63 characters");
        }
    }

    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        let (new, before) = (&new["spec"], &old["spec"]);
        let elastic = new["completionMode"] == "Indexed" && new["completions"] == new["parallelism"];
        if !elastic {
            causes.immutable(&SPEC.child("completions"), &new["completions"], &before["completions"]);
        }
        // While it is suspended and has not started, the queue that holds it may still choose where it runs.
        let not_started = flag(&before["suspend"]) && old["status"]["startTime"].is_null();
        let fixed = |template: &Value| {
            let mut template = template.clone();
            if not_started {
                for part in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                    template["spec"].as_object_mut().map(|spec| spec.remove(part));
                }
                template.as_object_mut().map(|template| template.remove("metadata"));
            }
            template
        };
        causes.immutable(&SPEC.child("selector"), &new["selector"], &before["selector"]);
        if !same(&fixed(&new["template"]), &fixed(&before["template"])) {
            causes.invalid(&SPEC.child("template"), new["template"].clone(), "field is immutable");
        }
        for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
            causes.immutable(&SPEC.child(key), &new[key], &before[key]);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::JOB
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::job_row(object, now)
    }
    fn fields(&self) -> &'static [Field] {
        &[Field { path: "status.successful", zero: "0" }]
    }
}

fn job_spec(spec: &mut Members) {
    let absent = |spec: &Members, key: &str| spec.get(key).is_none_or(Value::is_null);
    if absent(spec, "completions") && absent(spec, "parallelism") {
        spec.insert("completions".into(), Value::from(1));
    }
    fill(spec, "parallelism", 1);
    let backoff = if absent(spec, "backoffLimitPerIndex") { 6 } else { i64::from(i32::MAX) };
    fill(spec, "backoffLimit", backoff);
    fill_text(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "podReplacementPolicy", if absent(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" });
    fill(spec, "manualSelector", false);
    if let Some(policy) = crate::json::existing(spec, "podFailurePolicy") {
        for rule in each_object(policy, "rules") {
            for pattern in each_object(rule, "onPodConditions") {
                fill_text(pattern, "status", "True");
            }
        }
    }
    defaults::template(spec, "template");
}

/// The selector that no other job's pods match: by the job's uid. The short label names are those of before 1.27, kept
/// on the pods for old readers.
fn generate_selector(spec: &mut Members, uid: &str, name: &str) {
    if let Some(labels) = child(spec, "template").and_then(|t| child(t, "metadata")).and_then(|m| child(m, "labels")) {
        for (key, value) in [(CONTROLLER_UID, uid), ("controller-uid", uid), (JOB_NAME, name), ("job-name", name)] {
            labels.insert(key.into(), Value::from(value));
        }
    }
    if let Some(labels) = child(spec, "selector").and_then(|selector| child(selector, "matchLabels")) {
        labels.insert(CONTROLLER_UID.into(), Value::from(uid));
    }
}

fn check_job(spec: &Value, path: &Path<'_>, causes: &mut Causes) {
    for key in [
        "parallelism",
        "completions",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        causes.non_negative(&path.child(key), &spec[key]);
    }
    if spec["activeDeadlineSeconds"].as_i64().is_some_and(|s| s < 0) {
        causes.non_negative(&path.child("activeDeadlineSeconds"), &spec["activeDeadlineSeconds"]);
    }
    let mode = text(&spec["completionMode"]);
    if !mode.is_empty() {
        causes.one_of(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    if mode == "Indexed" && spec["completions"].is_null() {
        causes.required(&path.child("completions"), "when completion mode is Indexed");
    }
    check_template(spec, path, Owner::Job, causes);
}

pub struct CronJob;

impl Kind for CronJob {
    fn facts(&self) -> Facts {
        Facts::reconciled("batch", "CronJob")
    }

    fn defaults(&self, object: &mut Value) {
        let Some(spec) = object.as_object_mut().and_then(|map| child(map, "spec")) else { return };
        fill_text(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", 3);
        fill(spec, "failedJobsHistoryLimit", 1);
        if let Some(job) = child(spec, "jobTemplate").and_then(|template| child(template, "spec")) {
            defaults::template(job, "template");
        }
    }

    fn adjust_create(&self, object: &mut Members, _context: &Context<'_>) {
        object.insert("status".into(), json!({}));
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        let spec = &object["spec"];
        let name = text(&object["metadata"]["name"]);
        if name.len() > 52 {
            causes.invalid(&METADATA.child("name"), name, "must be no more than 52 characters");
        }
        let schedule = text(&spec["schedule"]);
        let path = SPEC.child("schedule");
        if schedule.is_empty() {
            causes.required(&path, "");
        } else if let Err(wrong) = cron::check(schedule) {
            causes.invalid(&path, schedule, wrong);
        }
        if schedule.contains("TZ") {
            causes.invalid(&path, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
        if let Some(zone) = spec["timeZone"].as_str() {
            check_zone(zone, causes);
        }
        causes.one_of(
            &SPEC.child("concurrencyPolicy"),
            text(&spec["concurrencyPolicy"]),
            &["Allow", "Forbid", "Replace"],
        );
        for key in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            causes.non_negative(&SPEC.child(key), &spec[key]);
        }
        let job = SPEC.child("jobTemplate");
        check_job(&spec["jobTemplate"]["spec"], &job.child("spec"), causes);
    }

    fn columns(&self) -> &'static [Column] {
        table::CRON_JOB
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::cron_job_row(object, now)
    }
}

fn check_zone(zone: &str, causes: &mut Causes) {
    let path = SPEC.child("timeZone");
    if zone.is_empty() {
        causes.invalid(&path, zone, "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("local") {
        causes.invalid(
            &path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        causes.invalid(&path, zone, format!("unknown time zone {zone}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Value {
        json!({"metadata": {"name": "j", "namespace": "n"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
    }

    fn texts(causes: Vec<kube::Cause>) -> Vec<String> {
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_job_is_selected_by_its_uid() {
        let context = Context { now: Timestamp::from_secs(0), uid: "u-1" };
        let mut object = job();
        Job.defaults(&mut object);
        Job.prepare_create(&mut object, &context);
        assert_eq!(object["spec"]["selector"], json!({"matchLabels": {CONTROLLER_UID: "u-1"}}));
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        assert_eq!(
            labels,
            &json!({"a": "b", CONTROLLER_UID: "u-1", "controller-uid": "u-1", JOB_NAME: "j", "job-name": "j"})
        );
        assert_eq!(object["metadata"]["labels"], json!({"a": "b"}));
        for (key, value) in [
            ("completions", json!(1)),
            ("parallelism", json!(1)),
            ("backoffLimit", json!(6)),
            ("suspend", json!(false)),
        ] {
            assert_eq!(object["spec"][key], value, "{key}");
        }
        assert_eq!(texts(Job.validate_create(&object)), [""; 0]);
        let mut new = object.clone();
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x");
        assert!(texts(Job.validate_update(&new, &object))[0].ends_with("field is immutable"));
    }

    #[test]
    fn a_job_ends() {
        let mut object = job();
        object["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
        object["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
        Job.defaults(&mut object);
        assert_eq!(
            texts(Job.validate_create(&object)),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
    }

    #[test]
    fn cron_jobs() {
        let cron = |change: &dyn Fn(&mut Value)| {
            let mut object = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job()["spec"]}}});
            change(&mut object);
            CronJob.defaults(&mut object);
            texts(CronJob.validate_create(&object))
        };
        assert_eq!(cron(&|_| {}), [""; 0]);
        assert_eq!(
            cron(&|c| c["spec"]["schedule"] = json!("* *")),
            ["spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]"]
        );
        assert_eq!(
            cron(&|c| c["spec"]["timeZone"] = json!("Nowhere/City")),
            ["spec.timeZone: Invalid value: \"Nowhere/City\": unknown time zone Nowhere/City"]
        );
        assert_eq!(cron(&|c| c["spec"]["timeZone"] = json!("Europe/Zurich")), [""; 0]);
        assert_eq!(cron(&|c| c["metadata"]["name"] = json!("x".repeat(53))).len(), 1);
    }
}

use crate::harness::{Cluster, truth};
use model::batch::{Concurrency, CronJob, JobTemplate};
use model::{Doc, Job, Key, Kind, Meta, Object, Phase, Truth};
use std::sync::Arc;

fn job<'a>(cluster: &'a Cluster, name: &str) -> &'a Job {
    match cluster.api.get(Kind::Job, &Key::new("default", name)) {
        Some(Object::Job(job)) => job,
        other => panic!("no job: {other:?}"),
    }
}

#[test]
fn a_job_runs_to_its_completions() {
    let mut cluster = Cluster::new(3);
    let new = cluster.new_job("sum", 2, Some(5));
    cluster.put(new);
    for _ in 0..12 {
        cluster.run(2);
        assert!(cluster.pods().iter().filter(|pod| pod.is_active()).count() <= 2);
        cluster.end_pods(Phase::Succeeded, |_| true);
    }
    let status = &job(&cluster, "sum").status;
    assert_eq!((status.succeeded, status.failed, status.active), (5, 0, 0));
    assert_eq!(truth(&status.conditions, "Complete").0, Truth::True);
    assert!(status.uncounted_succeeded.is_empty());
    assert!(cluster.pods().iter().all(|pod| pod.meta.finalizers.is_empty()), "nobody holds ended pods");
}

#[test]
fn a_pod_that_is_deleted_after_its_end_is_counted() {
    let mut cluster = Cluster::new(3);
    let new = cluster.new_job("sum", 1, Some(2));
    cluster.put(new);
    cluster.run(3);
    cluster.end_pods(Phase::Succeeded, |_| true);
    let name = cluster.pods()[0].meta.key.name.clone();
    cluster.delete(Kind::Pod, "default", &name, model::effect::Propagation::Default);
    cluster.run(3);
    assert_eq!(job(&cluster, "sum").status.succeeded, 1);
}

#[test]
fn failures_beyond_the_limit_end_a_job() {
    let mut cluster = Cluster::new(3);
    let mut new = cluster.new_job("bad", 1, Some(1));
    new.backoff_limit = 2;
    cluster.put(new);
    for _ in 0..60 {
        cluster.run(3);
        cluster.end_pods(Phase::Failed, |_| true);
    }
    let status = &job(&cluster, "bad").status;
    assert_eq!((status.failed, truth(&status.conditions, "Failed")), (3, (Truth::True, "BackoffLimitExceeded".into())));
}

#[test]
fn a_deadline_ends_a_job() {
    let mut cluster = Cluster::new(3);
    let mut new = cluster.new_job("slow", 1, Some(1));
    new.active_deadline_s = Some(10);
    cluster.put(new);
    cluster.run(20);
    let status = &job(&cluster, "slow").status;
    assert_eq!(truth(&status.conditions, "Failed"), (Truth::True, "DeadlineExceeded".into()));
    assert!(cluster.pods().is_empty());
}

#[test]
fn every_index_is_done_once() {
    let mut cluster = Cluster::new(3);
    let mut new = cluster.new_job("parts", 3, Some(4));
    new.indexed = true;
    cluster.put(new);
    cluster.run(4);
    let index = |pod: &model::Pod| pod.meta.annotation("batch.kubernetes.io/job-completion-index").map(str::to_owned);
    cluster.end_pods(Phase::Succeeded, |pod| index(pod).as_deref() == Some("1"));
    cluster.run(4);
    assert_eq!(&*job(&cluster, "parts").status.completed_indexes, "1");
    for _ in 0..5 {
        cluster.run(3);
        cluster.end_pods(Phase::Succeeded, |_| true);
    }
    cluster.run(3);
    let status = &job(&cluster, "parts").status;
    assert_eq!((&*status.completed_indexes, status.succeeded), ("0-3", 4));
    assert_eq!(cluster.pods().len(), 4);
}

#[test]
fn suspending_takes_the_pods_away() {
    let mut cluster = Cluster::new(3);
    let new = cluster.new_job("sum", 2, Some(5));
    cluster.put(new);
    cluster.run(4);
    cluster.edit(Kind::Job, "default", "sum", |object| {
        if let Object::Job(o) = object {
            Arc::make_mut(o).suspend = true;
        }
    });
    cluster.run(4);
    assert!(cluster.pods().is_empty());
    assert_eq!(truth(&job(&cluster, "sum").status.conditions, "Suspended").0, Truth::True);
    cluster.edit(Kind::Job, "default", "sum", |object| {
        if let Object::Job(o) = object {
            Arc::make_mut(o).suspend = false;
        }
    });
    cluster.run(14);
    assert_eq!(cluster.pods().len(), 2);
}

#[test]
fn an_ended_job_lives_as_long_as_it_is_told() {
    let mut cluster = Cluster::new(3);
    let mut new = cluster.new_job("sum", 1, Some(1));
    new.ttl_s = Some(10);
    cluster.put(new);
    cluster.run(3);
    cluster.end_pods(Phase::Succeeded, |_| true);
    cluster.run(5);
    assert_eq!(cluster.count(Kind::Job), 1);
    cluster.run(15);
    assert_eq!((cluster.count(Kind::Job), cluster.pods().len()), (0, 0));
}

fn cron(cluster: &mut Cluster, concurrency: Concurrency) -> CronJob {
    let mut inner = cluster.new_job("tick", 1, Some(1));
    let body = Doc::new("{\"job\":1}");
    inner.meta = Meta::default();
    cluster.api.blueprints.jobs.insert(body.hash(), inner);
    CronJob {
        meta: Meta { key: Key::new("default", "tick"), ..Meta::default() },
        schedule: "* * * * *".into(),
        concurrency,
        successful_history: 2,
        failed_history: 1,
        template: JobTemplate { body, ..JobTemplate::default() },
        ..CronJob::default()
    }
}

#[test]
fn a_cron_job_makes_one_job_each_time_and_keeps_some() {
    let mut cluster = Cluster::new(2);
    let new = cron(&mut cluster, Concurrency::Allow);
    cluster.put(new);
    for _ in 0..100 {
        cluster.run(3);
        cluster.end_pods(Phase::Succeeded, |_| true);
    }
    cluster.run(3);
    assert_eq!(cluster.count(Kind::Job), 2);
    let Some(Object::CronJob(tick)) = cluster.api.list(Kind::CronJob).next() else { panic!("no cron job") };
    assert!(tick.status.last_success.is_some() && tick.status.active.is_empty());
}

#[test]
fn forbid_and_replace_keep_one() {
    for (policy, fresh) in [(Concurrency::Forbid, false), (Concurrency::Replace, true), (Concurrency::Allow, true)] {
        let mut cluster = Cluster::new(2);
        let new = cron(&mut cluster, policy);
        cluster.put(new);
        cluster.run(70);
        let first = cluster.api.list(Kind::Job).next().map(|job| job.meta().uid.clone());
        cluster.run(60);
        let jobs: Vec<_> = cluster.api.list(Kind::Job).map(|job| job.meta().uid.clone()).collect();
        let expect = if policy == Concurrency::Allow { 2 } else { 1 };
        assert_eq!(jobs.len(), expect, "{policy:?}");
        assert_eq!(jobs.last() != first.as_ref(), fresh, "{policy:?}");
    }
}

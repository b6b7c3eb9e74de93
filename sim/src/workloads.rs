//! A pool and a mix of workloads for it, out of a seed.

use crate::cluster::Cluster;
use control::imagined;
use model::batch::{CronJob, JobTemplate};
use model::cluster::Node;
use model::condition::Amount;
use model::pod::{Container, ContainerPort, PodSpec, PodTemplate, RestartPolicy};
use model::policy::PodDisruptionBudget;
use model::scheduling::{NodeScheduling, SchedulingSpec};
use model::service::{Service, ServicePort, TargetPort};
use model::taint::{TaintEffect, Toleration};
use model::workload::{DaemonSet, Deployment, StatefulSet, StatefulSetUpdate};
use model::{Doc, Job, Key, Kind, LabelSelector, Labels, Meta, Object, Quantity};
use std::sync::Arc;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Nodes.
    pub nodes: usize,
    /// Namespaces that the rest is spread over.
    pub namespaces: usize,
    /// Deployments, and the most replicas of one.
    pub deployments: (usize, i64),
    /// Stateful sets, and the most replicas of one.
    pub stateful_sets: (usize, i64),
    /// Daemon sets.
    pub daemon_sets: usize,
    /// Jobs, and the most completions of one.
    pub jobs: (usize, i64),
    /// Cron jobs.
    pub cron_jobs: usize,
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

fn meta(namespace: &str, name: &str) -> Meta {
    Meta { key: Key::new(namespace, name), ..Meta::default() }
}

/// Pods leave a lost node after so many seconds.
const STAY_S: i64 = 60;

fn tolerations() -> Vec<Toleration> {
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .map(|key| Toleration { seconds: Some(STAY_S), ..Toleration::exists(key, TaintEffect::NoExecute) })
        .into()
}

/// A template and what pods of it look like, made known to the API.
pub fn template(cluster: &mut Cluster, app: &str, version: u32, cpu_milli: i64, policy: RestartPolicy) -> PodTemplate {
    let body = Doc::new(format!("{{\"app\":\"{app}\",\"version\":{version}}}"));
    let memory = cpu_milli * 1024 * 1024;
    let scheduling = Arc::new(SchedulingSpec {
        requests: vec![("cpu".into(), cpu_milli), ("memory".into(), memory)],
        nominal: (cpu_milli, memory),
        tolerations: tolerations(),
        ..SchedulingSpec::default()
    });
    let template = PodTemplate {
        labels: labels(&[("app", app)]),
        body: body.clone(),
        restart_policy: policy,
        tolerations: tolerations().into(),
        scheduling: scheduling.clone(),
        ..PodTemplate::default()
    };
    let container = Container {
        name: "main".into(),
        ports: vec![ContainerPort { name: "http".into(), port: 8080, ..ContainerPort::default() }],
        requests: vec![("cpu".into(), Quantity::from_milli(cpu_milli))],
        ..Container::default()
    };
    let spec = PodSpec {
        scheduler_name: "default-scheduler".into(),
        restart_policy: policy,
        termination_grace_s: 30,
        containers: vec![container],
        tolerations: tolerations().into(),
        scheduling,
        ..PodSpec::default()
    };
    cluster.api.blueprints.pods.insert(body.hash(), (template.clone(), spec));
    template
}

/// Nodes of 32 cores in four zones, and namespaces.
pub fn pool(cluster: &mut Cluster, mix: &Mix) {
    for index in 0..mix.namespaces {
        cluster.put(imagined::namespace(&format!("team-{index}")));
    }
    for index in 0..mix.nodes {
        let name = format!("node-{index:04}");
        let mut meta = meta("", &name);
        let zone = format!("zone-{}", index % 4);
        meta.labels = labels(&[("kubernetes.io/hostname", &name), ("topology.kubernetes.io/zone", &zone)]);
        let scheduling = NodeScheduling {
            allocatable: vec![("cpu".into(), 32_000), ("memory".into(), 128 << 30), ("pods".into(), 110)],
            ..NodeScheduling::default()
        };
        cluster.add_node(Node { meta, scheduling: Arc::new(scheduling), ..Node::default() });
    }
}

fn namespace(mix: &Mix, index: usize) -> String {
    format!("team-{}", index % mix.namespaces)
}

fn selector(app: &str) -> LabelSelector {
    LabelSelector::from_labels(&labels(&[("app", app)]))
}

/// Puts everything in over the first minute.
pub fn create(cluster: &mut Cluster, mix: Mix) {
    let wave = |cluster: &mut Cluster| cluster.random.between(0, 60_000);
    for index in 0..mix.daemon_sets {
        let at = wave(cluster);
        cluster.then(at, move |cluster| daemon_set(cluster, &mix, index));
    }
    for index in 0..mix.deployments.0 {
        let at = wave(cluster);
        cluster.then(at, move |cluster| deployment(cluster, &mix, index));
    }
    for index in 0..mix.stateful_sets.0 {
        let at = wave(cluster);
        cluster.then(at, move |cluster| stateful_set(cluster, &mix, index));
    }
    for index in 0..mix.jobs.0 {
        let at = wave(cluster);
        cluster.then(at, move |cluster| job(cluster, &mix, index));
    }
    for index in 0..mix.cron_jobs {
        let at = wave(cluster);
        cluster.then(at, move |cluster| cron_job(cluster, &mix, index));
    }
}

fn deployment(cluster: &mut Cluster, mix: &Mix, index: usize) {
    let (app, namespace) = (format!("web-{index}"), namespace(mix, index));
    let cpu = cluster.random.between(1, 8) * 50;
    let template = template(cluster, &app, 1, cpu, RestartPolicy::Always);
    let replicas = cluster.random.between(1, mix.deployments.1) as i32;
    cluster.put(Deployment {
        meta: meta(&namespace, &app),
        replicas,
        selector: selector(&app),
        template,
        history_limit: Some(2),
        progress_deadline_s: Some(600),
        ..Deployment::default()
    });
    if index.is_multiple_of(5) {
        cluster.put(Service {
            meta: meta(&namespace, &app),
            selector: labels(&[("app", &app)]),
            cluster_ips: vec!["10.96.0.1".into()],
            ports: vec![ServicePort { port: 80, target: TargetPort::Name("http".into()), ..ServicePort::default() }],
            ..Service::default()
        });
        cluster.put(PodDisruptionBudget {
            meta: meta(&namespace, &app),
            max_unavailable: Some(Amount::Percent(20)),
            selector: Some(selector(&app)),
            ..PodDisruptionBudget::default()
        });
    }
}

fn stateful_set(cluster: &mut Cluster, mix: &Mix, index: usize) {
    let (app, namespace) = (format!("db-{index}"), namespace(mix, index));
    let template = template(cluster, &app, 1, 300, RestartPolicy::Always);
    let replicas = cluster.random.between(1, mix.stateful_sets.1) as i32;
    cluster.put(StatefulSet {
        meta: meta(&namespace, &app),
        replicas,
        selector: selector(&app),
        template,
        service_name: app.as_str().into(),
        parallel: index.is_multiple_of(3),
        update: StatefulSetUpdate::default(),
        history_limit: Some(2),
        ..StatefulSet::default()
    });
}

fn daemon_set(cluster: &mut Cluster, mix: &Mix, index: usize) {
    let (app, namespace) = (format!("agent-{index}"), namespace(mix, index));
    let template = template(cluster, &app, 1, 20, RestartPolicy::Always);
    let max_unavailable = Amount::Percent(10);
    cluster.put(DaemonSet {
        meta: meta(&namespace, &app),
        selector: selector(&app),
        template,
        update: model::workload::DaemonSetUpdate::RollingUpdate { max_unavailable, max_surge: Amount::Number(0) },
        history_limit: Some(2),
        ..DaemonSet::default()
    });
}

fn new_job(cluster: &mut Cluster, namespace: &str, app: &str, completions: i32) -> Job {
    let template = template(cluster, app, 1, 200, RestartPolicy::Never);
    Job {
        meta: meta(namespace, app),
        parallelism: 5.min(completions),
        completions: Some(completions),
        backoff_limit: 100,
        selector: selector(app),
        template,
        ..Job::default()
    }
}

fn job(cluster: &mut Cluster, mix: &Mix, index: usize) {
    let completions = cluster.random.between(1, mix.jobs.1) as i32;
    let mut job = new_job(cluster, &namespace(mix, index), &format!("batch-{index}"), completions);
    job.indexed = index.is_multiple_of(2);
    cluster.put(job);
}

fn cron_job(cluster: &mut Cluster, mix: &Mix, index: usize) {
    let (app, namespace) = (format!("tick-{index}"), namespace(mix, index));
    let mut job = new_job(cluster, &namespace, &app, 1);
    job.meta = Meta::default();
    let body = Doc::new(format!("{{\"job\":\"{app}\"}}"));
    cluster.api.blueprints.jobs.insert(body.hash(), job);
    cluster.put(CronJob {
        meta: meta(&namespace, &app),
        schedule: "*/2 * * * *".into(),
        successful_history: 2,
        failed_history: 1,
        template: JobTemplate { body, ..JobTemplate::default() },
        ..CronJob::default()
    });
}

/// Gives a deployment another template.
pub fn roll(cluster: &mut Cluster, mix: &Mix, index: usize, version: u32) {
    let (app, namespace) = (format!("web-{index}"), namespace(mix, index));
    let template = template(cluster, &app, version, 150, RestartPolicy::Always);
    cluster.edit(Kind::Deployment, &Key::new(namespace, app), |object| {
        if let Object::Deployment(deployment) = object {
            Arc::make_mut(deployment).template = template;
        }
    });
}

/// Gives a deployment another number.
pub fn scale(cluster: &mut Cluster, mix: &Mix, index: usize, replicas: i32) {
    let key = Key::new(namespace(mix, index), format!("web-{index}"));
    cluster.edit(Kind::Deployment, &key, |object| {
        if let Object::Deployment(deployment) = object {
            Arc::make_mut(deployment).replicas = replicas;
        }
    });
}

/// Deletes a deployment and its service.
pub fn delete(cluster: &mut Cluster, mix: &Mix, index: usize) {
    let key = Key::new(namespace(mix, index), format!("web-{index}"));
    cluster.delete(Kind::Deployment, &key);
    cluster.delete(Kind::Service, &key);
    cluster.delete(Kind::PodDisruptionBudget, &key);
}

//! A storm: one seed's story of a small cluster, its workloads with all the rules that pods can have, and everything that goes wrong at once.
//!
//! Nodes fail, come back, are drained, join and report late; calls get lost, and so do answers; writes conflict with a rival's; users roll, scale and delete. The
//! checkers ([`crate::check::Watchman`], [`crate::audit::Auditor`]) watch all the time; in the end, when all faults are over, nobody may wait who could be placed.
//! Each seed is played twice, and both traces must be one.

use crate::audit::Checked;
use crate::cluster::{Cluster, Faults, Stats};

pub use crate::cluster::Spoil;
use crate::random::Random;
use control::imagined;
use model::batch::Job;
use model::cluster::Node;
use model::condition::Amount;
use model::pod::{Container, PodSpec, PodTemplate, Protocol, RestartPolicy};
use model::policy::PodDisruptionBudget;
use model::scheduling::{
    HOSTNAME, HostPort, NodeScheduling, PodTerm, QuotaFacts, SchedulingSpec, SpreadConstraint, UsageFacts, ZONE,
};
use model::taint::{Taint, TaintEffect, Toleration};
use model::workload::{DaemonSet, Deployment, StatefulSet};
use model::{Doc, Key, Kind, LabelSelector, Labels, Meta, Object};
use std::fmt;
use std::sync::Arc;

mod parts;
mod rivals;

use parts::Parts;

/// Everything is created within this.
const CREATE_MS: i64 = 40_000;
/// Faults come until then.
const FAULTS_MS: i64 = 180_000;
/// The end: what was lost has been noticed, moved and placed again.
const END_MS: i64 = 480_000;
/// Pods leave a lost node after so many seconds.
const STAY_S: i64 = 30;
/// A device that few nodes have.
const DEVICE: &str = "example.com/device";

/// What a seed came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Counts, and the hash of the trace.
    pub stats: Stats,
    /// What was checked.
    pub checked: Checked,
    /// What was found.
    pub complaints: Vec<String>,
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was found.
    pub complaints: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} failed:", self.seed)?;
        self.complaints.iter().try_for_each(|complaint| writeln!(f, "  {complaint}"))?;
        write!(f, "  replay it: cargo xtask sim --seed {}", self.seed)
    }
}

/// Plays a seed twice.
///
/// # Errors
/// A promise was broken, or the second trace differs from the first.
pub fn check(seed: u64) -> Result<Report, Failure> {
    let report = play(seed, Spoil::default());
    let mut complaints = report.complaints.clone();
    let again = play(seed, Spoil::default());
    if again != report {
        complaints.push(format!("replay: the second run differs: {:?}, then {:?}", report.stats, again.stats));
    }
    if complaints.is_empty() { Ok(report) } else { Err(Failure { seed, complaints }) }
}

/// Plays a seed once. What is spoilt shows that the checkers can fail.
pub fn play(seed: u64, spoil: Spoil) -> Report {
    let faults = Faults { late_reports_milli: 10, ..Faults::default() };
    let mut cluster = Cluster::new(seed, faults);
    cluster.audit();
    cluster.spoil = spoil;
    let mut storm = Storm {
        random: Random::new(seed ^ 0x5707),
        nodes: 0,
        cpu: 0,
        quotas: false,
        machines: Vec::new(),
        parts: Parts::default(),
    };
    storm.choose_parts();
    storm.classes(&mut cluster);
    storm.pool(&mut cluster);
    storm.quotas(&mut cluster);
    storm.loads(&mut cluster);
    storm.workloads(&mut cluster);
    storm.reservations(&mut cluster);
    rivals::rivals(&mut cluster, seed);
    storm.faults(&mut cluster);
    cluster.run(FAULTS_MS);
    cluster.calm();
    cluster.run(END_MS - FAULTS_MS);
    cluster.close_audit();
    Report { stats: cluster.stats, checked: cluster.checked(), complaints: cluster.complaints() }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

fn meta(name: &str) -> Meta {
    Meta { key: Key::new("team", name), ..Meta::default() }
}

fn selector(app: &str) -> LabelSelector {
    LabelSelector::from_labels(&labels(&[("app", app)]))
}

struct Storm {
    random: Random,
    nodes: usize,
    /// CPU of the nodes that there are at first.
    cpu: i64,
    /// Some pods are under quotas.
    quotas: bool,
    /// Nodes that there are at first.
    machines: Vec<Node>,
    parts: Parts,
}

impl Storm {
    fn one_in(&mut self, n: i64) -> bool {
        self.random.between(1, n) == 1
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.between(0, from.len() as i64 - 1) as usize]
    }

    fn pool(&mut self, cluster: &mut Cluster) {
        cluster.put(imagined::namespace("team"));
        for _ in 0..self.random.between(4, 10) {
            let mut node = self.node();
            self.furnish(&mut node).tell(cluster);
            let cpu = node.scheduling.allocatable.iter().find(|(name, _)| **name == *"cpu");
            self.cpu += cpu.map_or(0, |(_, amount)| *amount);
            self.machines.push(node.clone());
            cluster.add_node(node);
        }
    }

    /// What nodes really use, in every third storm: mostly little, sometimes too much. Who reports no more is forgotten in time.
    fn loads(&mut self, cluster: &mut Cluster) {
        if !self.one_in(3) {
            return;
        }
        for at in (10_000..FAULTS_MS).step_by(30_000) {
            for machine in self.machines.clone() {
                let pct = self.pick(&[5, 10, 20, 30, 80]);
                let has = |resource: &str| {
                    let amounts = &machine.scheduling.allocatable;
                    amounts.iter().find(|(name, _)| **name == *resource).map_or(0, |(_, amount)| *amount)
                };
                let (node, cpu, memory) = (machine.meta.key.name.clone(), has("cpu") * pct / 100, has("memory") / 10);
                cluster.then(at, move |cluster| {
                    let at = cluster.now;
                    cluster.usage(UsageFacts { node, cpu, memory, at });
                });
            }
        }
    }

    /// Two quotas that are parts of a third one, in every second storm.
    fn quotas(&mut self, cluster: &mut Cluster) {
        self.quotas = self.one_in(2);
        if !self.quotas {
            return;
        }
        for (name, min, max) in [("org", 4, 8), ("red", 1, 3), ("blue", 2, 8)] {
            let share = |sixteenths: i64| vec![("cpu".into(), self.cpu * sixteenths / 16)];
            cluster.quota(QuotaFacts {
                namespace: "quotas".into(),
                name: name.into(),
                parent: (name != "org").then(|| "org".into()),
                min: share(min),
                max: share(max),
                weight: 1,
            });
        }
    }

    fn node(&mut self) -> Node {
        let name = format!("node-{}", self.nodes);
        let zone = format!("zone-{}", self.nodes % 3);
        self.nodes += 1;
        let mut own = labels(&[(HOSTNAME, &name)]);
        if !self.one_in(10) {
            own.insert(ZONE.into(), zone.into());
        }
        if self.one_in(2) {
            own.insert("disk".into(), "ssd".into());
        }
        let mut allocatable: Vec<(Arc<str>, i64)> = vec![
            ("cpu".into(), self.pick(&[2_000, 4_000, 8_000])),
            ("memory".into(), self.pick(&[4, 8, 16]) << 30),
            ("pods".into(), self.pick(&[8, 16, 110])),
        ];
        if self.one_in(3) {
            allocatable.push((DEVICE.into(), 4));
        }
        allocatable.sort();
        let taints = if self.one_in(6) { vec![Taint::new("dedicated", TaintEffect::NoSchedule)] } else { Vec::new() };
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        let meta = Meta { key: Key::new("", name), labels: own, ..Meta::default() };
        Node { meta, taints, scheduling, ..Node::default() }
    }

    // Workloads.

    fn term(&mut self, app: &str) -> PodTerm {
        PodTerm {
            topology_key: self.pick(&[HOSTNAME, HOSTNAME, ZONE]).into(),
            selector: Some(selector(app)),
            namespaces: vec!["team".into()],
            namespace_selector: None,
        }
    }

    fn spec(&mut self, app: &str) -> SchedulingSpec {
        let (cpu, memory) = (self.pick(&[100, 250, 500, 1_000]), self.pick(&[64, 256, 1024]) << 20);
        let mut requests: Vec<(Arc<str>, i64)> = vec![("cpu".into(), cpu), ("memory".into(), memory)];
        if self.one_in(6) {
            requests.push((DEVICE.into(), self.random.between(1, 2)));
            requests.sort();
        }
        let mut tolerations: Vec<Toleration> = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
            .map(|key| Toleration { seconds: Some(STAY_S), ..Toleration::exists(key, TaintEffect::NoExecute) })
            .into();
        if self.one_in(3) {
            tolerations.push(Toleration { key: "dedicated".into(), exists: true, ..Toleration::default() });
        }
        let spread = SpreadConstraint {
            topology_key: self.pick(&[HOSTNAME, ZONE, ZONE]).into(),
            selector: Some(selector(app)),
            max_skew: self.pick(&[1, 1, 2]),
            min_domains: 1,
            hard: !self.one_in(4),
            honor_affinity: true,
            honor_taints: self.one_in(2),
        };
        let port = HostPort { port: 8080, protocol: Protocol::Tcp, ip: "0.0.0.0".into() };
        let (apart, together) = (self.term(app), self.term(app));
        let mut spec = SchedulingSpec {
            requests,
            nominal: (cpu, memory),
            tolerations,
            node_selector: if self.one_in(6) { vec![("disk".into(), "ssd".into())] } else { Vec::new() },
            spread: if self.one_in(3) { vec![spread] } else { Vec::new() },
            anti_affinity: if self.one_in(5) { vec![apart] } else { Vec::new() },
            affinity: if self.one_in(8) { vec![together] } else { Vec::new() },
            host_ports: if self.one_in(10) { vec![port] } else { Vec::new() },
            priority: self.pick(&[0, 0, 100, 1000]),
            never_preempts: self.one_in(8),
            ..SchedulingSpec::default()
        };
        self.want_parts(&mut spec);
        spec
    }

    fn template(&mut self, cluster: &mut Cluster, app: &str, policy: RestartPolicy) -> PodTemplate {
        let mut spec = self.spec(app);
        if policy == RestartPolicy::Always {
            self.claim(cluster, app, &mut spec);
        }
        let more = self.quota_label();
        labelled(cluster, app, 1, spec, policy, &more)
    }

    fn quota_label(&mut self) -> Vec<(&'static str, String)> {
        if !self.quotas || self.one_in(3) {
            return Vec::new();
        }
        vec![("quota.scheduling.koordinator.sh/name", self.pick(&["red", "blue"]).to_owned())]
    }

    /// A job whose pods are of use only together.
    fn gang(&mut self, cluster: &mut Cluster, app: &str) -> Job {
        let size = self.random.between(2, 7) as i32;
        let least = self.random.between(2, i64::from(size));
        let spec = self.spec(app);
        let mut more = self.quota_label();
        more.push(("pod-group.scheduling.sigs.k8s.io/name", app.to_owned()));
        more.push(("pod-group.scheduling.sigs.k8s.io/min-available", least.to_string()));
        let template = labelled(cluster, app, 1, spec, RestartPolicy::Never, &more);
        Job {
            meta: meta(app),
            parallelism: size,
            completions: Some(size),
            backoff_limit: 50,
            selector: selector(app),
            template,
            ..Job::default()
        }
    }

    fn workloads(&mut self, cluster: &mut Cluster) {
        for index in 0..self.random.between(3, 8) {
            let app = format!("app-{index}");
            let at = self.random.between(0, CREATE_MS);
            let object: Object = match self.random.between(0, 10) {
                0..6 => self.deployment(cluster, &app).into(),
                6 | 7 => {
                    let template = self.template(cluster, &app, RestartPolicy::Always);
                    let replicas = self.random.between(1, 5) as i32;
                    let meta = meta(&app);
                    StatefulSet {
                        meta,
                        replicas,
                        selector: selector(&app),
                        template,
                        service_name: app.as_str().into(),
                        parallel: index % 2 == 0,
                        claim_templates: self.claim_templates(cluster, &app),
                        ..StatefulSet::default()
                    }
                    .into()
                }
                10 => self.gang(cluster, &app).into(),
                8 => {
                    let template = self.template(cluster, &app, RestartPolicy::Never);
                    let completions = self.random.between(1, 8) as i32;
                    Job {
                        meta: meta(&app),
                        parallelism: 4.min(completions),
                        completions: Some(completions),
                        backoff_limit: 50,
                        selector: selector(&app),
                        template,
                        ..Job::default()
                    }
                    .into()
                }
                _ => {
                    let mut spec = self.spec(&app);
                    (spec.affinity, spec.anti_affinity, spec.spread) = (Vec::new(), Vec::new(), Vec::new());
                    let template = template(cluster, &app, 1, spec, RestartPolicy::Always);
                    DaemonSet {
                        meta: meta(&app),
                        selector: selector(&app),
                        template,
                        history_limit: Some(2),
                        ..DaemonSet::default()
                    }
                    .into()
                }
            };
            cluster.then(at, move |cluster| cluster.put(object));
            if self.one_in(2) {
                let least = self.random.between(1, 4) as i32;
                let budget = PodDisruptionBudget {
                    meta: meta(&app),
                    min_available: Some(Amount::Number(least)),
                    selector: Some(selector(&app)),
                    ..PodDisruptionBudget::default()
                };
                cluster.then(at, move |cluster| cluster.put(budget));
            }
        }
    }

    fn deployment(&mut self, cluster: &mut Cluster, app: &str) -> Deployment {
        let template = self.template(cluster, app, RestartPolicy::Always);
        Deployment {
            meta: meta(app),
            replicas: self.random.between(1, 10) as i32,
            selector: selector(app),
            template,
            history_limit: Some(2),
            progress_deadline_s: Some(600),
            ..Deployment::default()
        }
    }

    // Faults.

    fn faults(&mut self, cluster: &mut Cluster) {
        for _ in 0..self.random.between(2, 7) {
            let at = self.random.between(CREATE_MS / 2, FAULTS_MS - 20_000);
            let name = format!("node-{}", self.random.between(0, self.nodes as i64 - 1));
            match self.random.between(0, 9) {
                0 | 1 => {
                    let back = self.random.between(5_000, 120_000);
                    let again = name.clone();
                    cluster.then(at, move |cluster| cluster.kill_node(&name));
                    cluster.then(at + back, move |cluster| cluster.revive_node(&again));
                }
                2 => {
                    let gone = name.clone();
                    cluster.then(at, move |cluster| cluster.kill_node(&name));
                    cluster.then(FAULTS_MS - 1_000, move |cluster| {
                        cluster.delete(Kind::Node, &Key::new("", gone.as_str()))
                    });
                }
                3 | 4 => self.drain(cluster, at, name),
                5 => {
                    let mut node = self.node();
                    let furniture = self.furnish(&mut node);
                    cluster.then(at, move |cluster| {
                        furniture.tell(cluster);
                        cluster.add_node(node);
                    });
                }
                6 => {
                    let app = format!("app-{}", self.random.between(0, 5));
                    let replicas = self.random.between(0, 12) as i32;
                    cluster.then(at, move |cluster| scale(cluster, &app, replicas));
                }
                7 => {
                    let app = format!("app-{}", self.random.between(0, 5));
                    let spec = self.spec(&app);
                    cluster.then(at, move |cluster| roll(cluster, &app, spec));
                }
                8 => {
                    let app = Key::new("team", format!("app-{}", self.random.between(0, 5)));
                    cluster.then(at, move |cluster| cluster.delete(Kind::Deployment, &app));
                }
                _ => {
                    let taint = Taint::new("repair", self.pick(&[TaintEffect::NoSchedule, TaintEffect::NoExecute]));
                    let again = name.clone();
                    cluster.then(at, move |cluster| taints(cluster, &name, Some(taint)));
                    cluster.then(FAULTS_MS - 1_000, move |cluster| taints(cluster, &again, None));
                }
            }
        }
        // A rival writes to the same objects: what was decided on their last version is refused.
        for at in (CREATE_MS / 2..FAULTS_MS).step_by(5_000) {
            cluster.then(at, rival);
        }
    }

    /// Cordons a node and evicts its pods, as far as their budgets let it; then the node is back in use, or gone.
    fn drain(&mut self, cluster: &mut Cluster, at: i64, name: String) {
        let rounds = self.random.between(2, 8);
        for round in 0..rounds {
            let name = name.clone();
            cluster.then(at + round * 4_000, move |cluster| {
                cordon(cluster, &name, true);
                let on = |object: &Object| matches!(object, Object::Pod(pod) if *pod.spec.node_name == *name);
                let pods: Vec<Key> =
                    cluster.api.list(Kind::Pod).filter(|o| on(o)).map(|o| o.meta().key.clone()).collect();
                for pod in pods {
                    cluster.evict(&pod);
                }
            });
        }
        if self.one_in(2) {
            cluster.then(at + rounds * 4_000, move |cluster| cordon(cluster, &name, false));
        } else {
            cluster.then(FAULTS_MS - 1_000, move |cluster| {
                cluster.kill_node(&name);
                cluster.delete(Kind::Node, &Key::new("", name.as_str()));
            });
        }
    }
}

fn template(
    cluster: &mut Cluster,
    app: &str,
    version: u32,
    scheduling: SchedulingSpec,
    policy: RestartPolicy,
) -> PodTemplate {
    labelled(cluster, app, version, scheduling, policy, &[])
}

fn labelled(
    cluster: &mut Cluster,
    app: &str,
    version: u32,
    scheduling: SchedulingSpec,
    policy: RestartPolicy,
    more: &[(&str, String)],
) -> PodTemplate {
    let body = Doc::new(format!("{{\"app\":\"{app}\",\"version\":{version}}}"));
    let mut own = labels(&[("app", app)]);
    own.extend(more.iter().map(|(key, value)| (Arc::from(*key), Arc::from(value.as_str()))));
    let scheduling = Arc::new(scheduling);
    let tolerations: Arc<[Toleration]> = scheduling.tolerations.clone().into();
    let template = PodTemplate {
        labels: own,
        body: body.clone(),
        restart_policy: policy,
        tolerations: tolerations.clone(),
        scheduling: scheduling.clone(),
        ..PodTemplate::default()
    };
    let spec = PodSpec {
        scheduler_name: "default-scheduler".into(),
        priority: scheduling.priority,
        restart_policy: policy,
        termination_grace_s: 30,
        containers: vec![Container { name: "main".into(), ..Container::default() }],
        tolerations,
        claims: scheduling.claims.iter().map(|claim| claim.name.clone()).collect(),
        scheduling,
        ..PodSpec::default()
    };
    cluster.api.blueprints.pods.insert(body.hash(), (template.clone(), spec));
    template
}

fn scale(cluster: &mut Cluster, app: &str, replicas: i32) {
    cluster.edit(Kind::Deployment, &Key::new("team", app), |object| {
        if let Object::Deployment(deployment) = object {
            Arc::make_mut(deployment).replicas = replicas;
        }
    });
}

fn roll(cluster: &mut Cluster, app: &str, spec: SchedulingSpec) {
    let template = template(cluster, app, 2, spec, RestartPolicy::Always);
    cluster.edit(Kind::Deployment, &Key::new("team", app), |object| {
        if let Object::Deployment(deployment) = object {
            Arc::make_mut(deployment).template = template;
        }
    });
}

fn cordon(cluster: &mut Cluster, name: &str, on: bool) {
    cluster.edit(Kind::Node, &Key::new("", name), |object| {
        if let Object::Node(node) = object {
            Arc::make_mut(node).unschedulable = on;
        }
    });
}

fn taints(cluster: &mut Cluster, name: &str, taint: Option<Taint>) {
    let now = cluster.now;
    cluster.edit(Kind::Node, &Key::new("", name), |object| {
        if let Object::Node(node) = object {
            let taints = &mut Arc::make_mut(node).taints;
            taints.retain(|old| &*old.key != "repair");
            taints.extend(taint.map(|taint| Taint { added: Some(now), ..taint }));
        }
    });
}

/// Somebody else annotates a few objects.
fn rival(cluster: &mut Cluster) {
    for kind in [Kind::Pod, Kind::Node, Kind::ReplicaSet, Kind::Deployment] {
        let keys: Vec<Key> = cluster.api.list(kind).map(|object| object.meta().key.clone()).collect();
        if keys.is_empty() {
            continue;
        }
        for _ in 0..2 {
            let key = keys[cluster.random.between(0, keys.len() as i64 - 1) as usize].clone();
            let mark: Arc<str> = cluster.random.number().to_string().into();
            cluster.annotate(kind, &key, "rival", mark);
        }
    }
}

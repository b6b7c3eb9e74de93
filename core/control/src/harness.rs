//! A small cluster for whole stories: an imagined API, a control, and agents that start and end pods a second later.

use crate::imagined::{self, Api, meta_mut};
use crate::{Config, Control};
use model::cluster::{Lease, Node};
use model::effect::{Made, Receipt};
use model::pod::{Container, ContainerPort, ContainerState, ContainerStatus, PodSpec};
use model::workload::{DaemonSet, StatefulSet};
use model::{
    Condition, Deployment, Doc, Effect, Event, Job, Key, Kind, LabelSelector, Labels, Meta, Object, Phase, Pod,
    PodTemplate, Timestamp, Truth, condition,
};
use std::sync::Arc;

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

pub fn meta(namespace: &str, name: &str, revision: u64) -> Meta {
    Meta {
        key: Key::new(namespace, name),
        uid: format!("uid-{namespace}-{name}").into(),
        revision,
        generation: 1,
        ..Meta::default()
    }
}

/// A cluster with agents that work.
pub struct Cluster {
    pub api: Api,
    pub control: Control,
    pub now: Timestamp,
    /// Every order that was given, for those who count.
    pub orders: Vec<Effect>,
    /// Pods whose name contains one of these never become ready.
    pub broken: Vec<String>,
    /// Nodes whose agent is dead.
    pub dead: Vec<String>,
    events: Vec<Event>,
    nodes: usize,
}

impl Cluster {
    pub fn new(nodes: usize) -> Self {
        let mut cluster = Cluster {
            api: Api::default(),
            control: Control::new(Config { root_ca: Some("PEM".into()), ..Config::default() }),
            now: Timestamp::from_secs(1_000_000),
            orders: Vec::new(),
            broken: Vec::new(),
            dead: Vec::new(),
            events: Vec::new(),
            nodes,
        };
        for kind in Kind::TYPED {
            cluster.control.expect(*kind);
            cluster.events.push(Event::Synced(*kind));
        }
        cluster.put(imagined::namespace("default"));
        for index in 0..nodes {
            let name = format!("node-{index}");
            let mut node =
                Node { meta: Meta { key: Key::new("", name.as_str()), ..Meta::default() }, ..Node::default() };
            node.meta.labels = labels(&[("kubernetes.io/hostname", &name)]);
            node.conditions = vec![Condition::new("Ready", true, "KubeletReady", "", cluster.now)];
            cluster.put(node);
        }
        cluster
    }

    pub fn put(&mut self, object: impl Into<Object>) {
        let event = self.api.put(object.into(), self.now);
        self.events.push(event);
    }

    /// Changes an object as a user does.
    pub fn edit(&mut self, kind: Kind, namespace: &str, name: &str, change: impl FnOnce(&mut Object)) {
        let event = self.api.change(kind, &Key::new(namespace, name), |object| {
            change(object);
            meta_mut(object).generation += 1;
        });
        self.events.extend(event);
    }

    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str, propagation: model::effect::Propagation) {
        let object = self.api.get(kind, &Key::new(namespace, name)).expect("it is there").clone();
        let target = model::Target::any_version(kind, object.meta());
        let effect = Effect::Delete { target, grace_s: None, propagation };
        let (events, _) = self.api.execute(&effect, self.now).expect("a deletion");
        self.events.extend(events);
    }

    /// Lets so many seconds go by.
    pub fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now = self.now.plus_ms(1000);
            self.agents();
            self.settle();
        }
    }

    /// Lets the control work until it has nothing more to do now.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let events = std::mem::take(&mut self.events);
            let orders = self.control.step(&events, self.now);
            let due = self.control.next_wakeup().is_some_and(|at| at <= self.now.plus_ms(50));
            if orders.is_empty() && self.events.is_empty() {
                if !due {
                    return;
                }
                self.now = self.now.plus_ms(10);
            }
            for order in orders {
                self.orders.push(order.effect.clone());
                let outcome = self.api.execute(&order.effect, self.now).map(|(events, revision)| {
                    self.events.extend(events);
                    Made { revision }
                });
                if order.id != 0 {
                    self.events.push(Event::Done(Receipt { order: order.id, outcome }));
                }
            }
        }
        panic!("the control does not come to rest: {:?}", self.orders.iter().rev().take(5).collect::<Vec<_>>());
    }

    fn agents(&mut self) {
        for index in 0..self.nodes {
            let name = format!("node-{index}");
            if !self.dead.contains(&name) {
                let meta = Meta { key: Key::new(crate::control::NODE_LEASES, name.as_str()), ..Meta::default() };
                self.put(Lease { meta, renewed: Some(self.now), ..Lease::default() });
            }
        }
        let pods: Vec<Arc<Pod>> = self
            .api
            .list(Kind::Pod)
            .filter_map(|o| if let Object::Pod(p) = o { Some(p.clone()) } else { None })
            .collect();
        for (number, pod) in pods.into_iter().enumerate() {
            let event = self.agent(number, &pod);
            self.events.extend(event);
        }
    }

    fn agent(&mut self, number: usize, pod: &Pod) -> Option<Event> {
        let key = &pod.meta.key;
        if pod.spec.node_name.is_empty() {
            let wanted = pod
                .spec
                .scheduling
                .node_affinity
                .as_ref()
                .and_then(|terms| terms.first()?.fields.first()?.values.first().cloned());
            let node = wanted.unwrap_or_else(|| {
                let alive = (0..self.nodes)
                    .map(|index| format!("node-{}", (index + number) % self.nodes))
                    .find(|name| !self.dead.contains(name));
                alive.unwrap_or_default().into()
            });
            return self.api.change(Kind::Pod, key, |object| {
                if let Object::Pod(pod) = object {
                    Arc::make_mut(pod).spec.node_name = node;
                }
            });
        }
        if self.dead.contains(&pod.spec.node_name.to_string()) {
            return None;
        }
        if pod.meta.is_deleting() {
            return self.api.remove(Kind::Pod, key, self.now);
        }
        if pod.status.phase == Phase::Pending && !self.broken.iter().any(|part| key.name.contains(part)) {
            let (now, ip) = (self.now, format!("10.0.{}.{}", number / 250, number % 250 + 1));
            return self.api.change(Kind::Pod, key, |object| run_pod(object, &ip, now));
        }
        None
    }

    /// Ends pods of a job, well or badly.
    pub fn end_pods(&mut self, phase: Phase, which: impl Fn(&Pod) -> bool) {
        let pods: Vec<Key> = self
            .api
            .list(Kind::Pod)
            .filter_map(|o| if let Object::Pod(p) = o { Some(p) } else { None })
            .filter(|pod| pod.status.phase == Phase::Running && which(pod))
            .map(|pod| pod.meta.key.clone())
            .collect();
        let now = self.now;
        for key in pods {
            let event = self.api.change(Kind::Pod, &key, |object| {
                if let Object::Pod(pod) = object {
                    let pod = Arc::make_mut(pod);
                    pod.status.phase = phase;
                    pod.status.conditions.clear();
                    let exit_code = i32::from(phase == Phase::Failed);
                    let state = ContainerState::Terminated { exit_code, reason: "".into(), finished: now };
                    pod.status.containers = vec![ContainerStatus { state, ..ContainerStatus::default() }];
                }
            });
            self.events.extend(event);
        }
    }

    pub fn pods(&self) -> Vec<&Arc<Pod>> {
        self.api.list(Kind::Pod).filter_map(|o| if let Object::Pod(p) = o { Some(p) } else { None }).collect()
    }

    pub fn deployment(&self, name: &str) -> &Deployment {
        match self.api.get(Kind::Deployment, &Key::new("default", name)) {
            Some(Object::Deployment(deployment)) => deployment,
            other => panic!("no deployment {name}: {other:?}"),
        }
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.api.list(kind).count()
    }

    /// Registers a template and returns it; `version` tells templates apart.
    pub fn template(&mut self, app: &str, version: &str) -> PodTemplate {
        let body = Doc::new(format!(
            "{{\"metadata\":{{\"labels\":{{\"app\":\"{app}\"}}}},\"spec\":{{\"version\":\"{version}\"}}}}"
        ));
        let template = PodTemplate { labels: labels(&[("app", app)]), body, ..PodTemplate::default() };
        let container = Container {
            name: "main".into(),
            ports: vec![ContainerPort { name: "http".into(), port: 8080, ..ContainerPort::default() }],
            requests: vec![("cpu".into(), model::Quantity::from_milli(100))],
            ..Container::default()
        };
        let spec = PodSpec { containers: vec![container], termination_grace_s: 30, ..PodSpec::default() };
        self.api.blueprints.pods.insert(template.body.hash(), (template.clone(), spec));
        template
    }

    pub fn new_deployment(&mut self, name: &str, replicas: i32) -> Deployment {
        let template = self.template(name, "1");
        Deployment {
            meta: Meta { key: Key::new("default", name), ..Meta::default() },
            replicas,
            selector: LabelSelector::from_labels(&labels(&[("app", name)])),
            template,
            history_limit: Some(10),
            progress_deadline_s: Some(600),
            ..Deployment::default()
        }
    }

    pub fn new_stateful_set(&mut self, name: &str, replicas: i32) -> StatefulSet {
        let template = self.template(name, "1");
        StatefulSet {
            meta: Meta { key: Key::new("default", name), ..Meta::default() },
            replicas,
            selector: LabelSelector::from_labels(&labels(&[("app", name)])),
            template,
            service_name: name.into(),
            history_limit: Some(10),
            ..StatefulSet::default()
        }
    }

    pub fn new_daemon_set(&mut self, name: &str) -> DaemonSet {
        let template = self.template(name, "1");
        DaemonSet {
            meta: Meta { key: Key::new("default", name), ..Meta::default() },
            selector: LabelSelector::from_labels(&labels(&[("app", name)])),
            template,
            history_limit: Some(10),
            ..DaemonSet::default()
        }
    }

    pub fn new_job(&mut self, name: &str, parallelism: i32, completions: Option<i32>) -> Job {
        let mut template = self.template(name, "1");
        template.restart_policy = model::pod::RestartPolicy::Never;
        Job {
            meta: Meta { key: Key::new("default", name), ..Meta::default() },
            parallelism,
            completions,
            backoff_limit: 6,
            selector: LabelSelector::from_labels(&labels(&[("app", name)])),
            template,
            ..Job::default()
        }
    }
}

/// What the agent writes when a pod's containers run and are ready.
pub fn run_pod(object: &mut Object, ip: &str, now: Timestamp) {
    if let Object::Pod(pod) = object {
        let pod = Arc::make_mut(pod);
        pod.status.phase = Phase::Running;
        pod.status.pod_ip = ip.into();
        pod.status.pod_ips = vec![ip.into()];
        pod.status.started = Some(now);
        condition::set(&mut pod.status.conditions, Condition::new("Ready", true, "", "", now));
    }
}

/// Whether a condition holds, by its type.
pub fn truth(conditions: &[Condition], kind: &str) -> (Truth, String) {
    condition::find(conditions, kind).map_or((Truth::Unknown, String::new()), |c| (c.status, c.reason.to_string()))
}

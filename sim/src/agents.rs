//! Node agents as a load model: they start and end pods after some time, renew leases, die, and come back.

use crate::cluster::{Action, Cluster};
use model::cluster::{Lease, Node};
use model::pod::{ContainerState, ContainerStatus, RestartPolicy};
use model::{Condition, Event, Key, Kind, Meta, Object, Phase, Pod, Timestamp, Truth, condition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often an agent renews its lease.
const LEASE_MS: i64 = 10_000;
/// A late renewal is late by up to this.
const LATE_MS: i64 = 60_000;
/// Pods of jobs in a thousand that fail.
const FAILING_MILLI: u64 = 50;

/// What an agent does at some time.
pub(crate) enum Act {
    /// Renews its lease, and plans the next.
    Renew(Arc<str>),
    /// A pod's containers run and are ready.
    Start(Key, Arc<str>),
    /// A pod's containers have ended after a deletion.
    Stop(Key, Arc<str>),
    /// A pod's work is done, well or badly.
    Finish(Key, Arc<str>),
}

/// What the agents know.
#[derive(Default)]
pub(crate) struct Agents {
    dead: BTreeSet<Arc<str>>,
    /// Pods that are being started or stopped: uid, and whether stopped.
    seen: BTreeMap<Key, (Arc<str>, bool)>,
    addresses: u32,
}

impl Agents {
    pub(crate) fn is_dead(&self, node: &str) -> bool {
        self.dead.contains(node)
    }
}

impl Cluster {
    /// Adds a node whose agent works.
    pub fn add_node(&mut self, mut node: Node) {
        node.conditions = vec![Condition::new("Ready", true, "KubeletReady", "", self.now)];
        let name = node.meta.key.name.clone();
        self.put(node);
        let first = self.random.between(0, LEASE_MS);
        self.timeline.at(self.now.plus_ms(first), Action::Agent(Act::Renew(name)));
    }

    /// The agent of a node dies: nothing is heard of it, its pods do nothing.
    pub fn kill_node(&mut self, name: &str) {
        self.agents.dead.insert(name.into());
    }

    /// The agent of a node comes back: it says that it is ready, and looks after its pods.
    pub fn revive_node(&mut self, name: &str) {
        if !self.agents.dead.remove(name) {
            return;
        }
        self.timeline.at(self.now, Action::Agent(Act::Renew(name.into())));
        self.speak_up(name);
    }

    /// The agent of a node that was taken for lost says that it is ready, and so are its pods.
    fn speak_up(&mut self, name: &str) {
        let now = self.now;
        let event = self.api.change(Kind::Node, &Key::new("", name), |object| {
            if let Object::Node(node) = object {
                let node = Arc::make_mut(node);
                condition::set(&mut node.conditions, Condition::new("Ready", true, "KubeletReady", "", now));
            }
        });
        self.publish_all(event);
        let pods: Vec<Arc<Pod>> = self
            .api
            .list(Kind::Pod)
            .filter_map(|object| if let Object::Pod(pod) = object { Some(pod.clone()) } else { None })
            .filter(|pod| &*pod.spec.node_name == name)
            .collect();
        for pod in pods {
            self.agents.seen.remove(&pod.meta.key);
            self.look_after(&pod);
            // What ran all the time is ready again.
            if pod.status.phase == Phase::Running && !pod.is_ready() && !pod.meta.is_deleting() {
                let later = self.now.plus_ms(self.random.between(100, 1000));
                self.timeline.at(later, Action::Agent(Act::Start(pod.meta.key.clone(), pod.meta.uid.clone())));
            }
        }
    }

    pub(crate) fn tell_agents(&mut self, event: &Event) {
        match event {
            Event::Applied(Object::Pod(pod)) => self.look_after(pod),
            Event::Deleted { kind: Kind::Pod, key, .. } => {
                self.agents.seen.remove(key);
            }
            _ => {}
        }
    }

    fn look_after(&mut self, pod: &Arc<Pod>) {
        if pod.spec.node_name.is_empty() || self.agents.is_dead(&pod.spec.node_name) {
            return;
        }
        let stopping = pod.meta.is_deleting();
        let known = self
            .agents
            .seen
            .get(&pod.meta.key)
            .is_some_and(|(uid, stopped)| *uid == pod.meta.uid && (*stopped || !stopping));
        if known || !stopping && pod.status.phase != Phase::Pending {
            return;
        }
        self.agents.seen.insert(pod.meta.key.clone(), (pod.meta.uid.clone(), stopping));
        let (key, uid) = (pod.meta.key.clone(), pod.meta.uid.clone());
        if stopping {
            let when = self.now.plus_ms(self.random.between(100, 1500));
            self.timeline.at(when, Action::Agent(Act::Stop(key, uid)));
        } else {
            let when = self.now.plus_ms(self.random.between(300, 3000));
            self.timeline.at(when, Action::Agent(Act::Start(key, uid)));
        }
    }

    pub(crate) fn agent(&mut self, act: Act) {
        match act {
            Act::Renew(node) => self.renew(&node),
            Act::Start(key, uid) => self.start(&key, &uid),
            Act::Stop(key, uid) => {
                if self.works_on(&key, &uid).is_some() {
                    let event = self.api.remove(Kind::Pod, &key, self.now);
                    self.publish_all(event);
                }
            }
            Act::Finish(key, uid) => self.finish(&key, &uid),
        }
    }

    /// The pod, if it is still that one and its agent lives.
    fn works_on(&self, key: &Key, uid: &str) -> Option<Arc<Pod>> {
        let pod = self.api.pod(key).filter(|pod| &*pod.meta.uid == uid)?;
        (!self.agents.is_dead(&pod.spec.node_name)).then(|| pod.clone())
    }

    fn renew(&mut self, node: &Arc<str>) {
        let Some(Object::Node(own)) = self.api.get(Kind::Node, &Key::new("", node.clone())) else { return };
        if self.agents.is_dead(node) {
            return;
        }
        let ready = condition::find(&own.conditions, "Ready").is_some_and(|c| c.status == Truth::True);
        let meta = Meta { key: Key::new("kube-node-lease", node.clone()), ..Meta::default() };
        self.put(Lease { meta, renewed: Some(self.now), ..Lease::default() });
        if !ready {
            self.speak_up(node);
        }
        let late = if self.random.milli(self.faults.late_reports_milli) { self.random.between(0, LATE_MS) } else { 0 };
        self.timeline.at(self.now.plus_ms(LEASE_MS + late), Action::Agent(Act::Renew(node.clone())));
    }

    fn start(&mut self, key: &Key, uid: &str) {
        let Some(pod) =
            self.works_on(key, uid).filter(|pod| !pod.meta.is_deleting() && !pod.status.phase.is_terminal())
        else {
            return;
        };
        self.agents.addresses += 1;
        let number = self.agents.addresses;
        let ip: Arc<str> = format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255).into();
        let now = self.now;
        let event = self.api.change(Kind::Pod, key, |object| run(object, &ip, now));
        self.publish_all(event);
        if pod.spec.restart_policy != RestartPolicy::Always {
            let when = self.now.plus_ms(self.random.between(2_000, 20_000));
            self.timeline.at(when, Action::Agent(Act::Finish(key.clone(), uid.into())));
        }
    }

    fn finish(&mut self, key: &Key, uid: &str) {
        if self.works_on(key, uid).is_none_or(|pod| pod.status.phase != Phase::Running) {
            return;
        }
        let failed = self.random.milli(FAILING_MILLI);
        let now = self.now;
        let event = self.api.change(Kind::Pod, key, |object| end(object, failed, now));
        self.publish_all(event);
    }
}

fn run(object: &mut Object, ip: &Arc<str>, now: Timestamp) {
    let Object::Pod(pod) = object else { return };
    let pod = Arc::make_mut(pod);
    if pod.status.phase == Phase::Pending {
        pod.status.phase = Phase::Running;
        pod.status.pod_ip = ip.clone();
        pod.status.pod_ips = vec![ip.clone()];
        pod.status.started = Some(now);
    }
    condition::set(&mut pod.status.conditions, Condition::new("Ready", true, "", "", now));
}

fn end(object: &mut Object, failed: bool, now: Timestamp) {
    let Object::Pod(pod) = object else { return };
    let pod = Arc::make_mut(pod);
    pod.status.phase = if failed { Phase::Failed } else { Phase::Succeeded };
    condition::set(&mut pod.status.conditions, Condition::new("Ready", false, "PodCompleted", "", now));
    let state = ContainerState::Terminated { exit_code: i32::from(failed), reason: "Completed".into(), finished: now };
    pod.status.containers = vec![ContainerStatus { name: "main".into(), state, ..ContainerStatus::default() }];
}

//! Checkers: what must hold all the time, and what must hold in the end. They read the API's objects, and share no code with the control.

use control::imagined::Api;
use model::cluster::Node;
use model::taint::{TaintEffect, tolerated};
use model::{Event, Key, Kind, Object, Phase, Pod, Timestamp, Truth, condition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// No more complaints than these are kept.
const COMPLAINTS_MAX: usize = 20;

/// What holds all the time: no node holds more than it has, no set has more pods than it ever asked for, nobody is bound twice.
#[derive(Default)]
pub struct Watchman {
    pods: BTreeMap<Key, Arc<Pod>>,
    /// By node: what its pods ask for.
    used: BTreeMap<Arc<str>, BTreeMap<Arc<str>, i64>>,
    /// By owner's uid: living pods, and the most that were ever asked for.
    owned: BTreeMap<Arc<str>, i32>,
    asked: BTreeMap<Arc<str>, i32>,
    complaints: Vec<String>,
}

fn holds_room(pod: &Pod) -> bool {
    !pod.spec.node_name.is_empty() && !pod.status.phase.is_terminal()
}

fn counts(pod: &Pod) -> bool {
    !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

impl Watchman {
    /// What was found.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }
    /// Pods that there are.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    fn complain(&mut self, now: Timestamp, what: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(format!("{}: {what}", now.secs()));
        }
    }

    /// Looks at one change of the truth.
    pub fn see(&mut self, api: &Api, event: &Event, now: Timestamp) {
        match event {
            Event::Applied(Object::ReplicaSet(set)) => {
                let most = self.asked.entry(set.meta.uid.clone()).or_default();
                *most = (*most).max(set.replicas);
            }
            Event::Applied(Object::Pod(pod)) => {
                let old = self.pods.insert(pod.meta.key.clone(), pod.clone());
                if let Some(old) = &old {
                    self.add(old, -1);
                    if old.meta.uid == pod.meta.uid
                        && !old.spec.node_name.is_empty()
                        && old.spec.node_name != pod.spec.node_name
                    {
                        self.complain(
                            now,
                            format!("pod {} went from {} to {}", pod.meta.key, old.spec.node_name, pod.spec.node_name),
                        );
                    }
                }
                self.add(pod, 1);
                if holds_room(pod) && old.is_none_or(|old| !holds_room(&old)) {
                    self.check_node(api, &pod.spec.node_name, now);
                }
                self.check_owner(pod, now);
            }
            Event::Deleted { kind: Kind::Pod, key, .. } => {
                if let Some(old) = self.pods.remove(key) {
                    self.add(&old, -1);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, pod: &Pod, sign: i64) {
        if holds_room(pod) {
            let used = self.used.entry(pod.spec.node_name.clone()).or_default();
            for (resource, amount) in &pod.spec.scheduling.requests {
                *used.entry(resource.clone()).or_default() += sign * amount;
            }
            *used.entry("pods".into()).or_default() += sign;
        }
        if let Some(owner) = pod.meta.controller().filter(|_| counts(pod)) {
            *self.owned.entry(owner.uid.clone()).or_default() += sign as i32;
        }
    }

    fn check_node(&mut self, api: &Api, name: &Arc<str>, now: Timestamp) {
        let Some(Object::Node(node)) = api.get(Kind::Node, &Key::new("", name.clone())) else { return };
        let used = &self.used[name];
        let over: Vec<String> = node
            .scheduling
            .allocatable
            .iter()
            .filter(|(resource, has)| used.get(resource).is_some_and(|used| used > has))
            .map(|(resource, has)| format!("{resource} {} of {has}", used[resource]))
            .collect();
        if !over.is_empty() {
            self.complain(now, format!("node {name} is over-committed: {over:?}"));
        }
    }

    fn check_owner(&mut self, pod: &Pod, now: Timestamp) {
        let Some(owner) = pod.meta.controller() else { return };
        let (Some(have), Some(asked)) = (self.owned.get(&owner.uid), self.asked.get(&owner.uid)) else { return };
        if have > asked {
            let text = format!("{} {} has {have} pods and never asked for more than {asked}", owner.kind, owner.name);
            self.complain(now, text);
        }
    }
}

fn pods_of<'a>(pods: &'a BTreeMap<Arc<str>, Vec<&'a Arc<Pod>>>, uid: &str) -> &'a [&'a Arc<Pod>] {
    pods.get(uid).map_or(&[], Vec::as_slice)
}

/// What must hold in the end; each complaint names the object.
pub fn in_the_end(api: &Api, living: &BTreeSet<Key>) -> Vec<String> {
    let mut complaints = Vec::new();
    let pods: Vec<&Arc<Pod>> =
        api.list(Kind::Pod).filter_map(|o| if let Object::Pod(pod) = o { Some(pod) } else { None }).collect();
    let mut by_owner: BTreeMap<Arc<str>, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in &pods {
        if let Some(owner) = pod.meta.controller() {
            by_owner.entry(owner.uid.clone()).or_default().push(pod);
        }
    }
    for pod in &pods {
        if !pod.spec.node_name.is_empty() && !living.contains(&Key::new("", pod.spec.node_name.clone())) && counts(pod)
        {
            complaints
                .push(format!("pod {} still counts as running on lost node {}", pod.meta.key, pod.spec.node_name));
        }
    }
    deployments(api, &by_owner, &mut complaints);
    stateful_sets(api, &by_owner, &mut complaints);
    daemon_sets(api, &by_owner, living, &mut complaints);
    jobs(api, &mut complaints);
    orphans(api, &mut complaints);
    endpoints(api, &pods, &mut complaints);
    complaints
}

fn deployments(api: &Api, by_owner: &BTreeMap<Arc<str>, Vec<&Arc<Pod>>>, complaints: &mut Vec<String>) {
    let mut sets: BTreeMap<Arc<str>, Vec<&model::ReplicaSet>> = BTreeMap::new();
    for object in api.list(Kind::ReplicaSet) {
        if let Object::ReplicaSet(set) = object
            && let Some(owner) = set.meta.controller()
        {
            sets.entry(owner.uid.clone()).or_default().push(set);
        }
    }
    for object in api.list(Kind::Deployment) {
        let Object::Deployment(deployment) = object else { continue };
        let own = sets.get(&deployment.meta.uid).map_or(&[][..], Vec::as_slice);
        for set in own {
            let living: Vec<_> = pods_of(by_owner, &set.meta.uid).iter().filter(|pod| counts(pod)).collect();
            let present = set.template.body == deployment.template.body;
            let wanted = if present { deployment.replicas } else { 0 };
            let ready = living.iter().filter(|pod| pod.is_ready()).count() as i32;
            if living.len() as i32 != wanted || ready != wanted {
                complaints.push(format!("set {}: {} pods, {ready} ready, wanted {wanted}", set.meta.key, living.len()));
            }
        }
        let status = &deployment.status;
        if deployment.replicas > 0
            && (status.available, status.updated, status.replicas)
                != (deployment.replicas, deployment.replicas, deployment.replicas)
        {
            complaints
                .push(format!("deployment {} says {status:?}, wanted {}", deployment.meta.key, deployment.replicas));
        }
    }
}

fn stateful_sets(api: &Api, by_owner: &BTreeMap<Arc<str>, Vec<&Arc<Pod>>>, complaints: &mut Vec<String>) {
    for object in api.list(Kind::StatefulSet) {
        let Object::StatefulSet(set) = object else { continue };
        let names: BTreeSet<String> = pods_of(by_owner, &set.meta.uid)
            .iter()
            .filter(|pod| pod.is_ready() && counts(pod))
            .map(|pod| pod.meta.key.name.to_string())
            .collect();
        let wanted: BTreeSet<String> =
            (0..set.replicas).map(|ordinal| format!("{}-{ordinal}", set.meta.key.name)).collect();
        if names != wanted {
            complaints.push(format!("stateful set {}: ready {names:?}, wanted {} of them", set.meta.key, set.replicas));
        }
    }
}

/// An independent reading of where daemons belong: every node that lives and has no taint that they do not bear.
fn belongs(set: &model::DaemonSet, node: &Node) -> bool {
    let own_taint = |key: &str| key.starts_with("node.kubernetes.io/");
    let selected =
        set.template.scheduling.node_selector.iter().all(|(key, value)| node.meta.labels.get(key) == Some(value));
    let borne =
        node.taints.iter().filter(|taint| taint.effect != TaintEffect::PreferNoSchedule && !own_taint(&taint.key));
    selected && borne.into_iter().all(|taint| tolerated(&set.template.tolerations, taint))
}

fn daemon_sets(
    api: &Api,
    by_owner: &BTreeMap<Arc<str>, Vec<&Arc<Pod>>>,
    living: &BTreeSet<Key>,
    complaints: &mut Vec<String>,
) {
    for object in api.list(Kind::DaemonSet) {
        let Object::DaemonSet(set) = object else { continue };
        let mut on: BTreeMap<&str, usize> = BTreeMap::new();
        for pod in pods_of(by_owner, &set.meta.uid).iter().filter(|pod| pod.is_ready() && counts(pod)) {
            *on.entry(&pod.spec.node_name).or_default() += 1;
        }
        for node in api.list(Kind::Node) {
            let Object::Node(node) = node else { continue };
            let name = &node.meta.key.name;
            let wanted = usize::from(living.contains(&node.meta.key) && belongs(set, node));
            let have = on.get(&**name).copied().unwrap_or(0);
            if living.contains(&node.meta.key) && have != wanted {
                complaints.push(format!("daemon set {}: {have} ready on {name}, wanted {wanted}", set.meta.key));
            }
        }
    }
}

fn jobs(api: &Api, complaints: &mut Vec<String>) {
    for object in api.list(Kind::Job) {
        let Object::Job(job) = object else { continue };
        let holds = |kind: &str| condition::find(&job.status.conditions, kind).is_some_and(|c| c.status == Truth::True);
        let by_clock = job.meta.controller().is_some();
        if holds("Complete") {
            if let Some(completions) = job.completions
                && job.status.succeeded != completions
            {
                complaints.push(format!("job {}: {} successes of {completions}", job.meta.key, job.status.succeeded));
            }
        } else if holds("Failed") {
            if job.status.failed <= job.backoff_limit {
                complaints.push(format!("job {} failed after {} failures", job.meta.key, job.status.failed));
            }
        } else if !by_clock {
            complaints.push(format!("job {} has not ended: {:?}", job.meta.key, job.status));
        }
    }
}

/// Nothing is left of what was deleted.
fn orphans(api: &Api, complaints: &mut Vec<String>) {
    let mut uids: BTreeSet<Arc<str>> = BTreeSet::new();
    for kind in Kind::TYPED {
        uids.extend(api.list(*kind).map(|object| object.meta().uid.clone()));
    }
    for kind in Kind::TYPED {
        for object in api.list(*kind) {
            let meta = object.meta();
            if meta.owners.iter().any(|owner| !uids.contains(&owner.uid)) {
                complaints.push(format!("{kind} {} outlived its owner", meta.key));
            }
        }
    }
}

/// Every ready pod of a service is a ready endpoint, and no other is.
fn endpoints(api: &Api, pods: &[&Arc<Pod>], complaints: &mut Vec<String>) {
    let mut told: BTreeMap<Key, BTreeSet<Arc<str>>> = BTreeMap::new();
    for object in api.list(Kind::EndpointSlice) {
        let Object::EndpointSlice(slice) = object else { continue };
        let Some(service) = slice.meta.labels.get("kubernetes.io/service-name") else { continue };
        let ready =
            slice.endpoints.iter().filter(|endpoint| endpoint.ready).flat_map(|endpoint| endpoint.addresses.clone());
        told.entry(Key { namespace: slice.meta.key.namespace.clone(), name: service.clone() })
            .or_default()
            .extend(ready);
    }
    let mut by_namespace: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.is_ready() && counts(pod)) {
        by_namespace.entry(&pod.meta.key.namespace).or_default().push(pod);
    }
    for object in api.list(Kind::Service) {
        let Object::Service(service) = object else { continue };
        let wanted: BTreeSet<Arc<str>> = by_namespace
            .get(&*service.meta.key.namespace)
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .filter(|pod| service.selector.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value)))
            .filter(|pod| pod.status.phase == Phase::Running)
            .map(|pod| pod.status.pod_ip.clone())
            .collect();
        let have = told.remove(&service.meta.key).unwrap_or_default();
        if have != wanted {
            complaints.push(format!(
                "service {}: {} ready endpoints, wanted {}",
                service.meta.key,
                have.len(),
                wanted.len()
            ));
        }
    }
}

//! Promises, checked as they are given: what the specs of pods, nodes and budgets say must hold whenever a pod is bound or evicted, and in
//! the end. Reads the API's objects only and shares no code with the engine, the scheduler or the control.
//!
//! A decision is made on what the scheduler had heard of and had ordered, and the truth lags and leads it. Where that matters, a promise
//! counts as broken only if it was broken in every state around the binding: pods that left, or came, within [`LAG_MS`] of it count both
//! as there and as not there.

use control::imagined::Api;
use model::cluster::Node;
use model::condition::Amount;
use model::map::HashMap;
use model::scheduling::{PodTerm, QuotaFacts, SchedulingSpec, SpreadConstraint, UsageFacts};
use model::taint::{Taint, TaintEffect, Toleration};
use model::{Event, Key, Kind, LabelSelector, Object, Phase, Pod, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

mod gangs;
mod parts;

/// What the scheduler decides on is not older than this.
pub const LAG_MS: i64 = 3_000;
/// A pod that waits for so long has been tried again, whatever went wrong before.
const PATIENCE_MS: i64 = 20_000;
/// A report of use counts for so long, and above this share of CPU in per cent a node gets nobody.
const REPORT_MS: i64 = 180_000;
const BUSY_PCT: i64 = 65;
/// A gang of which somebody is bound is whole after so long: lost calls are repeated.
const GANG_PATIENCE_MS: i64 = 60_000;
/// No more complaints than these are kept.
const COMPLAINTS_MAX: usize = 20;

/// What was checked how often: a checker that has seen nothing proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Bindings.
    pub bindings: u64,
    /// Hard spread constraints of bound pods.
    pub spreads: u64,
    /// Required (anti-)affinity terms of bound pods.
    pub terms: u64,
    /// Bindings while a more important pod waited.
    pub priorities: u64,
    /// Evictions under a budget.
    pub evictions: u64,
    /// Pods that wait in the end.
    pub waiting: u64,
    /// Bindings of pods under a quota.
    pub quotas: u64,
    /// Gangs of which somebody was bound.
    pub gangs: u64,
    /// Bindings to nodes that had reported their use.
    pub loads: u64,
    /// Claims of bound pods.
    pub volumes: u64,
    /// Bindings of pods that zones are divided among.
    pub zones: u64,
    /// Bindings of pods that share GPUs.
    pub gpus: u64,
    /// Bindings to nodes on which room is held.
    pub reservations: u64,
    /// Pods that had to go for more important ones.
    pub victims: u64,
    /// Those of them that were of gangs and had to go for others.
    pub gang_victims: u64,
    /// Gangs that wait in the end.
    pub gangs_waiting: u64,
}

/// A binding that is judged when what was under way has arrived.
struct Judged {
    due: Timestamp,
    pod: Arc<Pod>,
    /// Pods when it was bound.
    there: Vec<Arc<Pod>>,
    /// Placed pods that left lately, or came since.
    maybe: Vec<Arc<Pod>>,
    /// Pods that left or began to end since, or were bound just before: the scheduler may have ordered it without them.
    gone: BTreeSet<Key>,
    /// More important pods that had waited for long.
    patient: Vec<Key>,
}

/// Pods as a check sees them: those that are there, and those that may be.
#[derive(Clone, Copy)]
struct View<'a> {
    there: &'a [Arc<Pod>],
    maybe: &'a [Arc<Pod>],
    gone: &'a BTreeSet<Key>,
}

impl Checked {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Checked) {
        self.bindings += other.bindings;
        self.spreads += other.spreads;
        self.terms += other.terms;
        self.priorities += other.priorities;
        self.evictions += other.evictions;
        self.waiting += other.waiting;
        self.quotas += other.quotas;
        self.gangs += other.gangs;
        self.loads += other.loads;
        self.volumes += other.volumes;
        self.zones += other.zones;
        self.gpus += other.gpus;
        self.reservations += other.reservations;
        self.victims += other.victims;
        self.gang_victims += other.gang_victims;
        self.gangs_waiting += other.gangs_waiting;
    }
}

/// Watches promises.
#[derive(Default)]
pub struct Auditor {
    pods: BTreeMap<Key, Arc<Pod>>,
    /// Pods that left their node, began to end, or changed labels: as they were.
    left: VecDeque<(Timestamp, Arc<Pod>)>,
    /// Pods that were bound lately: perhaps on orders that were given after one that arrives later.
    bound: VecDeque<(Timestamp, Key)>,
    nodes: HashMap<Arc<str>, Arc<Node>>,
    /// When nodes last changed in what decides about pods.
    nodes_changed: HashMap<Arc<str>, Timestamp>,
    any_node_changed: Timestamp,
    /// When an answer to the scheduler was last lost: it may believe otherwise for a while.
    doubt: Timestamp,
    /// Since when pods wait.
    waiting: BTreeMap<Key, Timestamp>,
    judged: VecDeque<Judged>,
    /// By budget: when a pod of it was last lost other than by eviction.
    disturbed: BTreeMap<Key, Timestamp>,
    quotas: BTreeMap<Arc<str>, QuotaFacts>,
    gangs: gangs::Gangs,
    /// By node: what it reported, and when that was told.
    used: BTreeMap<Arc<str>, (UsageFacts, Timestamp)>,
    told: parts::Told,
    complaints: Vec<String>,
    checked: Checked,
}

/// Labels of a pod's gang and of its quota.
const GANG: &str = "pod-group.scheduling.sigs.k8s.io/name";
const QUOTA: &str = "quota.scheduling.koordinator.sh/name";

fn gang_of(pod: &Pod) -> Option<Key> {
    let name = pod.meta.labels.get(GANG)?;
    Some(Key { namespace: pod.meta.key.namespace.clone(), name: name.clone() })
}

fn asked(pod: &Pod, resource: &str) -> i64 {
    pod.spec.scheduling.requests.iter().find(|(name, _)| **name == *resource).map_or(0, |(_, amount)| *amount)
}

fn ended(pod: &Pod) -> bool {
    pod.status.phase.is_terminal()
}

fn is_placed(pod: &Pod) -> bool {
    !pod.spec.node_name.is_empty() && !ended(pod)
}

/// Placed and not on its way out.
fn stays(pod: &Pod) -> bool {
    is_placed(pod) && !pod.meta.is_deleting()
}

fn is_healthy(pod: &Pod) -> bool {
    pod.status.phase == Phase::Running && pod.is_ready() && !pod.meta.is_deleting()
}

fn node_of<'a>(api: &'a Api, name: &Arc<str>) -> Option<&'a Node> {
    match api.get(Kind::Node, &Key::new("", name.clone()))? {
        Object::Node(node) => Some(node),
        _ => None,
    }
}

fn nodes(api: &Api) -> impl Iterator<Item = &Node> {
    api.list(Kind::Node).filter_map(|object| if let Object::Node(node) = object { Some(&**node) } else { None })
}

/// Whether two states of a node decide alike about pods.
fn decides_alike(one: &Node, other: &Node) -> bool {
    one.meta.labels == other.meta.labels
        && one.taints == other.taints
        && one.unschedulable == other.unschedulable
        && one.scheduling.allocatable == other.scheduling.allocatable
}

fn bears(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let key = toleration.key.is_empty() && toleration.exists || toleration.key == taint.key;
        let value = toleration.exists || toleration.value == taint.value;
        key && value && toleration.effect.is_none_or(|effect| effect == taint.effect)
    })
}

/// Why a node's standing does not let a pod in.
fn unwelcome(node: &Node, spec: &SchedulingSpec) -> Option<String> {
    let cordon = Taint::new("node.kubernetes.io/unschedulable", TaintEffect::NoSchedule);
    if node.unschedulable && !bears(&spec.tolerations, &cordon) {
        return Some("is cordoned".into());
    }
    let keeps_out = |taint: &&Taint| taint.effect != TaintEffect::PreferNoSchedule && !bears(&spec.tolerations, taint);
    if let Some(taint) = node.taints.iter().find(keeps_out) {
        return Some(format!("has the taint {taint}"));
    }
    (!allows(node, spec)).then(|| "is not among those that its selector and affinity name".into())
}

/// Whether node selector and required node affinity name a node.
fn allows(node: &Node, spec: &SchedulingSpec) -> bool {
    spec.node_selector.iter().all(|(key, value)| node.meta.labels.get(key) == Some(value))
        && spec
            .node_affinity
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|term| term.matches(&node.meta.key.name, &node.meta.labels)))
}

fn means(term: &PodTerm, whose: &Pod, other: &Pod) -> bool {
    let namespace = &other.meta.key.namespace;
    let here = if term.namespaces.is_empty() && term.namespace_selector.is_none() {
        *namespace == whose.meta.key.namespace
    } else {
        term.namespaces.contains(namespace)
    };
    here && term.selector.as_ref().is_some_and(|selector| selector.matches(&other.meta.labels))
}

/// Whether a pod is in the domain of a node, by a label.
fn is_beside(api: &Api, node: &Node, label: &str, other: &Pod) -> bool {
    let domain = node.meta.labels.get(label);
    domain.is_some() && node_of(api, &other.spec.node_name).is_some_and(|n| n.meta.labels.get(label) == domain)
}

/// Required affinity: somebody of that kind is in the domain, or nobody is anywhere and the pod is of the kind itself.
fn alone(api: &Api, pod: &Pod, node: &Node, view: View<'_>) -> Option<String> {
    let others = |pods: &[Arc<Pod>], term: &PodTerm, label: Option<&str>| {
        pods.iter().filter(|other| is_placed(other) && other.meta.key != pod.meta.key && means(term, pod, other)).any(
            |other| match label {
                Some(label) => is_beside(api, node, label, other),
                // Those on nodes without the label are in no domain.
                None => {
                    node_of(api, &other.spec.node_name).is_some_and(|n| n.meta.labels.contains_key(&term.topology_key))
                }
            },
        )
    };
    pod.spec.scheduling.affinity.iter().find_map(|term| {
        let label = Some(&*term.topology_key);
        if others(view.there, term, label) || others(view.maybe, term, label) {
            return None;
        }
        let first = !others(view.there, term, None) && means(term, pod, pod);
        let labelled = node.meta.labels.contains_key(&term.topology_key);
        (!first || !labelled).then(|| format!("nobody that it wants to be with is there by {}", term.topology_key))
    })
}

/// A hard spread constraint: the difference to the emptiest domain, with the pod counted. `there` has the pod where it is.
fn uneven(api: &Api, pod: &Pod, node: &Node, constraint: &SpreadConstraint, view: View<'_>) -> Option<String> {
    let spec = &pod.spec.scheduling;
    let hard: Vec<&Arc<str>> = spec.spread.iter().filter(|other| other.hard).map(|other| &other.topology_key).collect();
    let lets_in = |taint: &Taint| taint.effect == TaintEffect::PreferNoSchedule || bears(&spec.tolerations, taint);
    let takes_part = |node: &&Node| {
        hard.iter().all(|key| node.meta.labels.contains_key(*key))
            && (!constraint.honor_affinity || allows(node, spec))
            && (!constraint.honor_taints || node.taints.iter().all(lets_in))
    };
    let domain = |node: &Node| node.meta.labels.get(&constraint.topology_key).cloned();
    let counted = |other: &Pod| {
        other.meta.key.namespace == pod.meta.key.namespace
            && constraint.selector.as_ref().is_some_and(|selector| selector.matches(&other.meta.labels))
    };
    let Some(own) = domain(node) else { return Some(format!("it has no {}", constraint.topology_key)) };
    if !counted(pod) {
        return None;
    }
    let mut counts: BTreeMap<Arc<str>, i64> =
        nodes(api).filter(takes_part).filter_map(|n| Some((domain(n)?, 0))).collect();
    let domains = counts.len() as i64;
    let mut here = 0;
    for (pods, sure) in [(view.there, true), (view.maybe, false)] {
        for other in pods.iter().filter(|other| stays(other) && counted(other)) {
            let Some(at) = node_of(api, &other.spec.node_name).filter(|node| takes_part(node)).and_then(domain) else {
                continue;
            };
            here += i64::from(at == own && sure && !view.gone.contains(&other.meta.key));
            *counts.entry(at).or_default() += 1;
        }
    }
    let others = counts.iter().filter(|(at, _)| **at != own).map(|(_, count)| *count).min().unwrap_or(i64::MAX);
    let emptiest = if domains < i64::from(constraint.min_domains) { 0 } else { others.min(here - 1) };
    let skew = here - emptiest.max(0);
    (skew > i64::from(constraint.max_skew)).then(|| {
        let key = &constraint.topology_key;
        format!("{skew} more by {key} than in the emptiest domain, and {} are allowed: {counts:?}", constraint.max_skew)
    })
}

/// What is free on a node without one pod.
fn free(node: &Node, without: &Key, view: View<'_>) -> BTreeMap<Arc<str>, i64> {
    let mut free: BTreeMap<Arc<str>, i64> = node.scheduling.allocatable.iter().cloned().collect();
    let here = |pod: &&Arc<Pod>| is_placed(pod) && pod.spec.node_name == node.meta.key.name && pod.meta.key != *without;
    for pod in view.there.iter().chain(view.maybe).filter(here) {
        take(&mut free, pod, -1);
    }
    free
}

fn take(free: &mut BTreeMap<Arc<str>, i64>, pod: &Pod, sign: i64) {
    for (resource, amount) in &pod.spec.scheduling.requests {
        *free.entry(resource.clone()).or_default() += sign * amount;
    }
    *free.entry("pods".into()).or_default() += sign;
}

fn fits(free: &BTreeMap<Arc<str>, i64>, spec: &SchedulingSpec) -> bool {
    let left = |resource: &str| free.get(resource).copied().unwrap_or(0);
    left("pods") > 0 && spec.requests.iter().all(|(resource, amount)| *amount <= left(resource))
}

impl Auditor {
    /// What was found.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }
    /// What was looked at.
    pub fn checked(&self) -> Checked {
        self.checked
    }

    fn complain(&mut self, now: Timestamp, what: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(format!("{}: {what}", now.secs()));
        }
    }

    /// The scheduler may believe what is not so: an answer to it was lost.
    pub(crate) fn doubt(&mut self, now: Timestamp) {
        self.doubt = now;
    }

    /// Looks at one change of the truth.
    pub(crate) fn see(&mut self, api: &Api, event: &Event, now: Timestamp) {
        while self.left.front().is_some_and(|(when, _)| when.plus_ms(LAG_MS) < now) {
            self.left.pop_front();
        }
        while self.bound.front().is_some_and(|(when, _)| when.plus_ms(LAG_MS) < now) {
            self.bound.pop_front();
        }
        if !matches!(event, Event::Applied(Object::Node(_)) | Event::Deleted { kind: Kind::Node, .. }) {
            // The API shows a changed node already: what was bound before is judged when the change has been noted.
            self.judge(api, now);
        }
        self.check_gangs(now, GANG_PATIENCE_MS);
        match event {
            Event::Applied(Object::Node(node)) => {
                let old = self.nodes.insert(node.meta.key.name.clone(), node.clone());
                if old.is_none_or(|old| !decides_alike(&old, node)) {
                    self.nodes_changed.insert(node.meta.key.name.clone(), now);
                    self.any_node_changed = now;
                }
            }
            Event::Deleted { kind: Kind::Node, key, .. } => {
                self.nodes.remove(&key.name);
                self.nodes_changed.insert(key.name.clone(), now);
                self.any_node_changed = now;
            }
            Event::Applied(Object::Pod(pod)) => self.see_pod(api, pod, now),
            Event::Deleted { kind: Kind::Pod, key, .. } => {
                let waited = self.waiting.remove(key).is_some();
                if let Some(old) = self.pods.remove(key) {
                    if waited {
                        self.waits_no_more(&old, now);
                    }
                    self.lost(api, &old, now);
                    self.leaves(old, now);
                }
            }
            _ => {}
        }
    }

    fn see_pod(&mut self, api: &Api, pod: &Arc<Pod>, now: Timestamp) {
        let old = self.pods.insert(pod.meta.key.clone(), pod.clone()).filter(|old| old.meta.uid == pod.meta.uid);
        let was_placed = old.as_ref().is_some_and(|old| !old.spec.node_name.is_empty());
        if pod.spec.node_name.is_empty() && !ended(pod) && !pod.meta.is_deleting() {
            self.waiting.entry(pod.meta.key.clone()).or_insert(now);
        } else if self.waiting.remove(&pod.meta.key).is_some() {
            self.waits_no_more(pod, now);
        }
        self.check_victim(old.as_deref(), pod, now);
        if let Some(old) = old {
            if stays(&old) && !stays(pod) || is_placed(&old) && !is_placed(pod) || old.meta.labels != pod.meta.labels {
                self.leaves(old.clone(), now);
            }
            if is_healthy(&old) && !is_healthy(pod) {
                self.lost(api, &old, now);
            }
        }
        if !was_placed && is_placed(pod) {
            self.checked.bindings += 1;
            self.bound.push_back((now, pod.meta.key.clone()));
            self.check_quota(pod, now);
            self.join(pod, now);
            self.check_load(api, pod, now);
            self.check_parts(api, pod, now);
            self.check_binding(api, pod, now);
        }
    }

    // Quotas and gangs.

    /// A quota is now as given.
    pub(crate) fn quota(&mut self, facts: QuotaFacts) {
        self.quotas.insert(facts.name.clone(), facts);
    }

    /// A node reports what it really uses.
    pub(crate) fn usage(&mut self, facts: UsageFacts, now: Timestamp) {
        self.used.insert(facts.node.clone(), (facts, now));
    }

    /// What a node has reported that the scheduler has heard of for sure, and must still heed.
    fn report(&self, node: &str, now: Timestamp) -> Option<&UsageFacts> {
        let (facts, told) = self.used.get(node)?;
        (told.plus_ms(LAG_MS) < now && now < facts.at.plus_ms(REPORT_MS - LAG_MS)).then_some(facts)
    }

    /// Nobody is bound to a node that is too busy.
    fn check_load(&mut self, api: &Api, pod: &Pod, now: Timestamp) {
        let name = &pod.spec.node_name;
        let Some(node) = node_of(api, name) else { return };
        let Some(cpu) = self.report(name, now).map(|facts| facts.cpu) else { return };
        let has = node.scheduling.allocatable.iter().find(|(n, _)| **n == *"cpu").map_or(1, |(_, amount)| *amount);
        self.checked.loads += 1;
        if cpu * 100 > has * BUSY_PCT {
            self.complain(now, format!("load: pod {} was bound to {name}, which uses {cpu}m of {has}m", pod.meta.key));
        }
    }

    /// The quotas that a pod is under, the nearest first.
    fn quotas_of(&self, pod: &Pod) -> Vec<&QuotaFacts> {
        let mut path: Vec<&QuotaFacts> = Vec::new();
        let mut next = pod.meta.labels.get(QUOTA);
        while let Some(quota) = next.and_then(|name| self.quotas.get(name)) {
            path.push(quota);
            next = quota.parent.as_ref();
        }
        path
    }

    /// What the placed pods under a quota ask for.
    fn used(&self, quota: &QuotaFacts, resource: &str) -> i64 {
        let under = |pod: &&Arc<Pod>| self.quotas_of(pod).iter().any(|other| other.name == quota.name);
        self.pods.values().filter(|pod| is_placed(pod)).filter(under).map(|pod| asked(pod, resource)).sum()
    }

    /// No quota uses more than its max.
    fn check_quota(&mut self, pod: &Pod, now: Timestamp) {
        let mut over = Vec::new();
        for quota in self.quotas_of(pod) {
            for (resource, max) in &quota.max {
                let used = self.used(quota, resource);
                if used > *max {
                    over.push(format!("quota {}: {resource} {used} of {max} with {}", quota.name, pod.meta.key));
                }
            }
        }
        self.checked.quotas += u64::from(pod.meta.labels.contains_key(QUOTA));
        over.into_iter().for_each(|what| self.complain(now, what));
    }

    /// Whether a pod's quotas are sure to have so much for it.
    fn is_sure(&self, api: &Api, pod: &Pod) -> bool {
        // What is promised may be more than there is, when nodes have gone.
        let total = |resource: &str| -> i64 {
            let of =
                |node: &Node| node.scheduling.allocatable.iter().find(|(n, _)| **n == *resource).map_or(0, |(_, a)| *a);
            nodes(api).map(of).sum()
        };
        let kept = |quota: &QuotaFacts| quota.min.iter().all(|(resource, min)| total(resource) >= *min);
        self.quotas.values().filter(|quota| quota.parent.is_none()).all(kept)
            && self.quotas_of(pod).iter().all(|quota| {
                quota.min.iter().all(|(resource, min)| self.used(quota, resource) + asked(pod, resource) <= *min)
            })
    }

    fn leaves(&mut self, old: Arc<Pod>, now: Timestamp) {
        for judged in &mut self.judged {
            judged.gone.insert(old.meta.key.clone());
        }
        self.left.push_back((now, old));
    }

    // Bindings.

    fn check_binding(&mut self, api: &Api, pod: &Arc<Pod>, now: Timestamp) {
        for judged in &mut self.judged {
            judged.maybe.push(pod.clone());
        }
        let name = &pod.spec.node_name;
        let settled = self.nodes_changed.get(name).is_none_or(|when| when.plus_ms(LAG_MS) < now);
        let Some(node) = node_of(api, name).filter(|_| settled) else { return };
        let broken: Vec<String> = [
            unwelcome(node, &pod.spec.scheduling).map(|why| format!("node {name} {why}")),
            self.port_taken(pod, node),
            self.apart(api, pod, node, now),
        ]
        .into_iter()
        .flatten()
        .collect();
        for what in broken {
            self.complain(now, format!("standing: pod {} was bound to {name}: {what}", pod.meta.key));
        }
        let patient: Vec<Key> = self
            .waiting
            .iter()
            .filter(|(_, since)| since.plus_ms(PATIENCE_MS) < now)
            .filter_map(|(key, _)| self.pods.get(key))
            .filter(|other| other.spec.scheduling.priority > pod.spec.scheduling.priority)
            .map(|other| other.meta.key.clone())
            .collect();
        let spec = &pod.spec.scheduling;
        if !patient.is_empty() || !spec.affinity.is_empty() || spec.spread.iter().any(|constraint| constraint.hard) {
            self.judged.push_back(Judged {
                due: now.plus_ms(LAG_MS),
                pod: pod.clone(),
                there: self.pods.values().cloned().collect(),
                maybe: self.left.iter().map(|(_, pod)| pod.clone()).filter(|pod| is_placed(pod)).collect(),
                gone: self.bound.iter().map(|(_, key)| key.clone()).filter(|key| *key != pod.meta.key).collect(),
                patient,
            });
        }
    }

    /// Judges bindings whose time has come.
    fn judge(&mut self, api: &Api, now: Timestamp) {
        while self.judged.front().is_some_and(|judged| judged.due < now) {
            let Some(judged) = self.judged.pop_front() else { return };
            // Between what the scheduler knew and now, nothing happened that it could not have known.
            let unsure = |when: Timestamp| when.plus_ms(3 * LAG_MS) >= judged.due;
            let pod = &judged.pod;
            if unsure(self.any_node_changed) || unsure(self.doubt) {
                continue;
            }
            let Some(node) = node_of(api, &pod.spec.node_name) else { continue };
            let view = View { there: &judged.there, maybe: &judged.maybe, gone: &judged.gone };
            let broken: Vec<String> = self.promises(api, pod, node, view);
            for what in broken {
                self.complain(now, what);
            }
            self.check_priority(&judged, node, view, now);
        }
    }

    /// What a bound pod's hard spread constraints and required affinity say against its node.
    fn promises(&mut self, api: &Api, pod: &Pod, node: &Node, view: View<'_>) -> Vec<String> {
        let spec = &pod.spec.scheduling;
        let hard = || spec.spread.iter().filter(|constraint| constraint.hard);
        self.checked.spreads += hard().count() as u64;
        self.checked.terms += spec.affinity.len() as u64;
        let bound = format!("pod {} was bound to {}", pod.meta.key, node.meta.key.name);
        let uneven = hard().filter_map(|constraint| uneven(api, pod, node, constraint, view));
        let mut broken: Vec<String> = uneven.map(|what| format!("spread: {bound}: {what}")).collect();
        broken.extend(alone(api, pod, node, view).map(|what| format!("affinity: {bound}: {what}")));
        broken
    }

    fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.pods.values().filter(move |pod| is_placed(pod) && *pod.spec.node_name == *node)
    }

    fn port_taken(&self, pod: &Pod, node: &Node) -> Option<String> {
        let ports = &pod.spec.scheduling.host_ports;
        if ports.is_empty() {
            return None;
        }
        let others = self.on(&node.meta.key.name).filter(|other| other.meta.key != pod.meta.key);
        let clash = |other: &&Arc<Pod>| {
            let theirs = &other.spec.scheduling.host_ports;
            ports
                .iter()
                .any(|port| theirs.iter().any(|their| port.port == their.port && port.protocol == their.protocol))
        };
        others.into_iter().find(clash).map(|other| format!("its port is taken by {}", other.meta.key))
    }

    /// Required anti-affinity, of the pod and of those that are there.
    fn apart(&mut self, api: &Api, pod: &Pod, node: &Node, now: Timestamp) -> Option<String> {
        if self.doubt.plus_ms(LAG_MS) >= now {
            return None;
        }
        self.checked.terms += pod.spec.scheduling.anti_affinity.len() as u64;
        for term in &pod.spec.scheduling.anti_affinity {
            let mut others = self.pods.values().filter(|other| is_placed(other) && other.meta.key != pod.meta.key);
            let near = |other: &&Arc<Pod>| means(term, pod, other) && is_beside(api, node, &term.topology_key, other);
            if let Some(other) = others.find(near) {
                return Some(format!("it wants to be apart from {} by {}", other.meta.key, term.topology_key));
            }
        }
        for other in self.pods.values().filter(|other| is_placed(other) && other.meta.key != pod.meta.key) {
            for term in other.spec.scheduling.anti_affinity.iter().filter(|term| means(term, other, pod)) {
                let theirs =
                    node_of(api, &other.spec.node_name).and_then(|node| node.meta.labels.get(&term.topology_key));
                if theirs.is_some() && theirs == node.meta.labels.get(&term.topology_key) {
                    return Some(format!("{} wants to be apart from it by {}", other.meta.key, term.topology_key));
                }
            }
        }
        None
    }

    // Priority.

    /// Whether only resources and the node's standing decide where a pod can go, and nobody wants to be apart from it.
    fn is_plain(&self, pod: &Pod) -> bool {
        gang_of(pod).is_none() && self.is_plain_alone(pod)
    }

    /// The same, whether it is of a gang or not.
    fn is_plain_alone(&self, pod: &Pod) -> bool {
        let spec = &pod.spec.scheduling;
        let avoided = |other: &Arc<Pod>| other.spec.scheduling.anti_affinity.iter().any(|term| means(term, other, pod));
        spec.gates.is_empty()
            && spec.affinity.is_empty()
            && spec.anti_affinity.is_empty()
            && spec.spread.iter().all(|constraint| !constraint.hard)
            && spec.host_ports.is_empty()
            && !self.wants_parts(pod)
            && self.quotas_of(pod).is_empty()
            && !self.pods.values().any(avoided)
    }

    /// Nobody more important, who had waited for long and still does, could have had this place.
    fn check_priority(&mut self, judged: &Judged, node: &Node, view: View<'_>, now: Timestamp) {
        // Whoever is larger may be too much for a node that counts what it really uses.
        if self.used.contains_key(&node.meta.key.name) || self.holds(&node.meta.key.name) {
            return;
        }
        let (pod, room) = (&judged.pod, free(node, &judged.pod.meta.key, view));
        self.checked.priorities += u64::from(!judged.patient.is_empty());
        let still = judged.patient.iter().filter(|key| self.waiting.get(*key).is_some_and(|since| *since < judged.due));
        let passed_over: Vec<String> = still
            .filter_map(|key| self.pods.get(key))
            .filter(|other| {
                let spec = &other.spec.scheduling;
                let nominated = !other.status.nominated_node.is_empty();
                !nominated && unwelcome(node, spec).is_none() && self.is_plain(other) && fits(&room, spec)
            })
            .map(|other| format!("{} ({})", other.meta.key, other.spec.scheduling.priority))
            .collect();
        if !passed_over.is_empty() {
            let priority = pod.spec.scheduling.priority;
            let text = format!("{} ({priority}) was bound to {}", pod.meta.key, node.meta.key.name);
            self.complain(now, format!("priority: pod {text}, and {} waits and fits there", passed_over.join(", ")));
        }
    }

    // Budgets.

    fn budgets(api: &Api, pod: &Pod) -> Vec<(Key, Option<Amount>, LabelSelector)> {
        let matching = |object: &Object| {
            let Object::PodDisruptionBudget(budget) = object else { return None };
            let selector = budget.selector.as_ref()?;
            let meant = budget.meta.key.namespace == pod.meta.key.namespace && selector.matches(&pod.meta.labels);
            meant.then(|| (budget.meta.key.clone(), budget.min_available, selector.clone()))
        };
        api.list(Kind::PodDisruptionBudget).filter_map(matching).collect()
    }

    fn lost(&mut self, api: &Api, pod: &Pod, now: Timestamp) {
        for (budget, ..) in Self::budgets(api, pod) {
            self.disturbed.insert(budget, now);
        }
    }

    /// A pod is about to be evicted with the API's consent: enough of its kind stay healthy.
    pub(crate) fn evicting(&mut self, api: &Api, pod: &Pod, now: Timestamp) {
        for (budget, least, selector) in Self::budgets(api, pod) {
            self.checked.evictions += 1;
            let Some(Amount::Number(least)) = least else { continue };
            if self.disturbed.get(&budget).is_some_and(|when| when.plus_ms(LAG_MS) >= now) || !is_healthy(pod) {
                continue;
            }
            let mine = |other: &&Arc<Pod>| {
                other.meta.key.namespace == pod.meta.key.namespace && selector.matches(&other.meta.labels)
            };
            let stay = self.pods.values().filter(mine).filter(|other| is_healthy(other)).count() as i64 - 1;
            if stay < i64::from(least) {
                self.complain(
                    now,
                    format!("budget: {budget}: {} was evicted, {stay} stay healthy of {least}", pod.meta.key),
                );
            }
        }
    }

    // The end.

    /// When all faults are long over: whoever waits has to.
    pub fn in_the_end(&mut self, api: &Api, now: Timestamp) {
        self.judge(api, now);
        self.check_gangs(now, 0);
        let waiting: Vec<Arc<Pod>> = self.waiting.keys().filter_map(|key| self.pods.get(key).cloned()).collect();
        self.checked.waiting += waiting.len() as u64;
        self.starved_gangs(api, &waiting, now);
        let alone = |pod: &&Arc<Pod>| {
            // When nobody of a gang is left, those that come are another one.
            let left = |key: &Key| self.pods.values().any(|pod| is_placed(pod) && gang_of(pod).as_ref() == Some(key));
            let whole = |key: &Key| self.was_whole(key) && left(key);
            gang_of(pod).is_none_or(|key| whole(&key)) && self.is_sure(api, pod)
        };
        let free: Vec<Arc<Pod>> = waiting.iter().filter(alone).cloned().collect();
        for pod in free.iter().filter(|pod| pod.spec.scheduling.gates.is_empty()) {
            for node in nodes(api) {
                if let Some(how) = self.could_go(api, pod, node, now) {
                    let told = model::condition::find(&pod.status.conditions, "PodScheduled");
                    let told = told.map_or("", |condition| &*condition.message);
                    let text =
                        format!("starved: pod {} waits ({told}), and {} {how}", pod.meta.key, node.meta.key.name);
                    self.complain(now, text);
                    break;
                }
            }
        }
    }

    fn could_go(&mut self, api: &Api, pod: &Arc<Pod>, node: &Node, now: Timestamp) -> Option<&'static str> {
        let spec = &pod.spec.scheduling;
        if unwelcome(node, spec).is_some() {
            return None;
        }
        // The others where they are, and the pod as if it were there.
        let mut there: Vec<Arc<Pod>> =
            self.pods.values().filter(|other| other.meta.key != pod.meta.key).cloned().collect();
        let mut placed = (**pod).clone();
        placed.spec.node_name = node.meta.key.name.clone();
        let placed = Arc::new(placed);
        there.push(placed.clone());
        let view = View { there: &there, maybe: &[], gone: &BTreeSet::new() };
        let mut room = free(node, &pod.meta.key, view);
        if fits(&room, spec) {
            let refused = self.port_taken(pod, node).is_some()
                || self.apart(api, pod, node, now).is_some()
                || !self.parts_suffice(api, pod, node)
                || !self.promises(api, &placed, node, view).is_empty();
            return (!refused).then_some("has room");
        }
        if spec.never_preempts || !self.is_plain(pod) {
            return None;
        }
        for victim in self.on(&node.meta.key.name).filter(|other| other.spec.scheduling.priority < spec.priority) {
            take(&mut room, victim, 1);
        }
        fits(&room, spec).then_some("would have room without less important pods")
    }
}

//! DaemonSet: one pod on every eligible node. The scheduler binds the pods; each has an affinity to its node's name.

use crate::adoption;
use crate::control::Cx;
use crate::names;
use crate::plan::{Plan, Reporter};
use crate::revisions::{self, POD_REVISION, Revisions};
use crate::world::controller_ref;
use model::cluster::Node;
use model::effect::{Body, NewMeta, NewPod, Propagation, Status};
use model::map::HashMap;
use model::selector::Operator;
use model::taint::{TaintEffect, Toleration, tolerated};
use model::workload::{DaemonSetStatus, DaemonSetUpdate};
use model::{DaemonSet, Key, Kind, Phase, Pod, PodTemplate};
use std::collections::BTreeSet;
use std::sync::Arc;

const SOURCE: &str = "daemonset-controller";
/// Creations and deletions in one look.
const BURST: usize = 250;

/// Tolerations that every pod of a DaemonSet has.
const TOLERATED: [(&str, TaintEffect); 6] = [
    ("node.kubernetes.io/not-ready", TaintEffect::NoExecute),
    ("node.kubernetes.io/unreachable", TaintEffect::NoExecute),
    ("node.kubernetes.io/disk-pressure", TaintEffect::NoSchedule),
    ("node.kubernetes.io/memory-pressure", TaintEffect::NoSchedule),
    ("node.kubernetes.io/pid-pressure", TaintEffect::NoSchedule),
    ("node.kubernetes.io/unschedulable", TaintEffect::NoSchedule),
];

/// A node, whether pods are to be made on it and may stay, and those that are there.
struct Place<'a> {
    node: &'a Arc<Node>,
    run: bool,
    stay: bool,
    pods: Vec<Arc<Pod>>,
}

struct Look<'a> {
    cx: &'a Cx<'a>,
    set: &'a DaemonSet,
    revisions: Revisions,
    tolerations: Vec<Toleration>,
    report: Reporter,
    plan: Plan,
    made: usize,
    deleted: usize,
}

/// Looks at one daemon set.
pub fn reconcile(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = cx.world.daemon_sets.get(key) else { return plan };
    if !cx.world.all_synced(&[Kind::Pod, Kind::DaemonSet, Kind::ControllerRevision, Kind::Node]) {
        return plan;
    }
    let owner = (Kind::DaemonSet, &set.meta);
    let owned = adoption::pods(cx.world, owner, &set.selector, |_| true, &mut plan);
    plan.cost = owned.len() + cx.world.nodes.len();
    let mut pods: HashMap<Arc<str>, Vec<Arc<Pod>>> = HashMap::default();
    for pod in owned {
        if let Some(node) = target_node(&pod) {
            pods.entry(node).or_default().push(pod);
        }
    }
    let revisions = revisions::sync(cx, owner, &set.template, set.status.collisions, POD_REVISION, &mut plan);
    let report = Reporter::new(SOURCE, Kind::DaemonSet, &set.meta, cx.now);
    let tolerations = added_tolerations(&set.template);
    let places: Vec<Place> = cx
        .world
        .nodes
        .values()
        .map(|node| {
            let (run, stay) = eligible(&set.template, &tolerations, node);
            Place { node, run, stay, pods: pods.remove(&node.meta.key.name).unwrap_or_default() }
        })
        .collect();
    let mut look = Look { cx, set, revisions, tolerations, report, plan, made: 0, deleted: 0 };
    if !set.meta.is_deleting() && look.revisions.present.is_some() {
        look.place(&places);
        // Pods for nodes that do not exist and are not bound would wait for ever; bound ones are the pod collector's.
        let mut lost: Vec<Arc<Pod>> = pods.into_values().flatten().collect();
        lost.sort_by(|a, b| a.meta.key.cmp(&b.meta.key));
        for pod in lost.iter().filter(|pod| pod.spec.node_name.is_empty() && !pod.meta.is_deleting()) {
            look.delete(pod);
        }
        if look.made == 0 && look.deleted == 0 {
            look.roll(&places);
        }
    }
    look.finish(&places);
    look.plan
}

fn added_tolerations(template: &PodTemplate) -> Vec<Toleration> {
    let mut added: Vec<Toleration> = TOLERATED.iter().map(|(key, effect)| Toleration::exists(key, *effect)).collect();
    if template.body.text().contains("\"hostNetwork\":true") {
        added.push(Toleration::exists("node.kubernetes.io/network-unavailable", TaintEffect::NoSchedule));
    }
    added.retain(|toleration| !template.tolerations.contains(toleration));
    added
}

/// The node that a pod is on, or that its affinity names.
fn target_node(pod: &Pod) -> Option<Arc<str>> {
    if !pod.spec.node_name.is_empty() {
        return Some(pod.spec.node_name.clone());
    }
    let terms = pod.spec.scheduling.node_affinity.as_ref()?;
    let fields = terms.iter().flat_map(|term| &term.fields);
    fields.filter(|f| &*f.key == "metadata.name" && f.operator == Operator::In).find_map(|f| f.values.first().cloned())
}

/// Whether pods of this template are to be made on a node, and whether one that is there may stay.
fn eligible(template: &PodTemplate, added: &[Toleration], node: &Node) -> (bool, bool) {
    let name = &node.meta.key.name;
    let spec = &template.scheduling;
    let selected = spec.node_selector.iter().all(|(key, value)| node.meta.labels.get(key) == Some(value));
    let affine =
        spec.node_affinity.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, &node.meta.labels)));
    let named = template.node_name.is_empty() || template.node_name == *name;
    if !selected || !affine || !named {
        return (false, false);
    }
    let bears = |effects: &[TaintEffect]| {
        let taints = node.taints.iter().filter(|taint| effects.contains(&taint.effect));
        taints.into_iter().all(|taint| tolerated(&template.tolerations, taint) || tolerated(added, taint))
    };
    (bears(&[TaintEffect::NoSchedule, TaintEffect::NoExecute]), bears(&[TaintEffect::NoExecute]))
}

/// Nodes that should have a pod.
fn desired(places: &[Place]) -> i32 {
    places.iter().filter(|place| place.run).count() as i32
}

impl Look<'_> {
    fn is_new(&self, pod: &Pod) -> bool {
        pod.meta.label(POD_REVISION) == Some(&*self.revisions.hash)
    }

    fn is_available(&mut self, pod: &Pod) -> bool {
        match pod.available(self.set.min_ready_s, self.cx.now) {
            Ok(available) => available,
            Err(at) => {
                self.plan.look_again(at);
                false
            }
        }
    }

    /// Makes missing pods, deletes those in the wrong place, those too many, and those that ended.
    fn place(&mut self, places: &[Place]) {
        let surges = match self.set.update {
            DaemonSetUpdate::RollingUpdate { max_surge, .. } => max_surge.of(desired(places), true) > 0,
            DaemonSetUpdate::OnDelete => false,
        };
        for place in places {
            if place.pods.is_empty() {
                if place.run {
                    self.make(&place.node.meta.key.name);
                }
            } else if !place.run && !place.stay {
                for pod in place.pods.iter().filter(|pod| !pod.meta.is_deleting()) {
                    self.delete(pod);
                }
            } else {
                self.tidy(place.node, &place.pods, surges);
            }
        }
    }

    fn tidy(&mut self, node: &Arc<Node>, pods: &[Arc<Pod>], surges: bool) {
        let mut running: Vec<&Arc<Pod>> = Vec::new();
        for pod in pods.iter().filter(|pod| !pod.meta.is_deleting()) {
            match pod.status.phase {
                Phase::Failed => {
                    let text = format!(
                        "Found failed daemon pod {} on node {}, will try to kill it",
                        pod.meta.key, node.meta.key.name
                    );
                    self.plan.record(self.report.warning("FailedDaemonPod", text));
                    self.delete(pod);
                }
                Phase::Succeeded => {
                    let text = format!(
                        "Found succeeded daemon pod {} on node {}, will try to delete it",
                        pod.meta.key, node.meta.key.name
                    );
                    self.plan.record(self.report.normal("SucceededDaemonPod", text));
                    self.delete(pod);
                }
                _ => running.push(pod),
            }
        }
        // Bound ones before waiting ones, then the oldest: the rest are too many.
        running.sort_by_key(|pod| (pod.spec.node_name.is_empty(), pod.meta.created, pod.meta.key.name.clone()));
        let mut kept_new = false;
        let mut kept_old = false;
        for pod in running {
            let new = self.is_new(pod);
            let keep = if surges { if new { !kept_new } else { !kept_old } } else { !kept_new && !kept_old };
            if keep {
                kept_new |= new;
                kept_old |= !new;
            } else {
                self.delete(pod);
            }
        }
    }

    fn make(&mut self, node: &Arc<str>) {
        if self.made >= BURST.min(self.cx.burst) {
            return;
        }
        let base = format!("{}-", self.set.meta.key.name);
        let name = names::generated(&base, self.cx.seed ^ ((self.made as u64) << 40));
        let mut labels = self.set.template.labels.clone();
        labels.insert(POD_REVISION.into(), self.revisions.hash.clone());
        let meta = NewMeta {
            key: Key { namespace: self.set.meta.key.namespace.clone(), name: name.clone() },
            generate_name: base.into(),
            labels,
            annotations: self.set.template.annotations.clone(),
            owners: vec![controller_ref(Kind::DaemonSet, &self.set.meta)],
            ..NewMeta::default()
        };
        let pod = NewPod {
            template: self.set.template.body.clone(),
            only_node: Some(node.clone()),
            tolerations: self.tolerations.clone(),
            ..NewPod::default()
        };
        self.made += 1;
        let note = self.report.normal("SuccessfulCreate", format!("Created pod: {name}"));
        self.plan.create(meta, Body::Pod(Box::new(pod))).note(note);
    }

    fn delete(&mut self, pod: &Arc<Pod>) {
        if self.deleted >= BURST {
            return;
        }
        self.deleted += 1;
        let note = self.report.normal("SuccessfulDelete", format!("Deleted pod: {}", pod.meta.key.name));
        self.plan.delete(Kind::Pod, &pod.meta, Propagation::Default).note(note);
    }

    /// Replaces pods of old revisions within what may be missing or double.
    fn roll(&mut self, places: &[Place]) {
        let DaemonSetUpdate::RollingUpdate { max_unavailable, max_surge } = self.set.update else { return };
        let desired = desired(places);
        let (surge, unavailable) = (max_surge.of(desired, true), max_unavailable.of(desired, true));
        if surge > 0 { self.roll_surging(places, surge) } else { self.roll_in_place(places, unavailable.max(1)) }
    }

    /// Old pods first go, new ones then come by themselves: those that do not work at once, the others as far as may be missing.
    fn roll_in_place(&mut self, places: &[Place], max_unavailable: i32) {
        let mut missing = 0;
        let (mut broken, mut working) = (Vec::new(), Vec::new());
        for Place { pods, .. } in places.iter().filter(|place| place.run) {
            let available = pods.iter().any(|pod| !pod.meta.is_deleting() && self.is_available(pod));
            missing += i32::from(!available);
            for pod in pods.iter().filter(|pod| !pod.meta.is_deleting() && !self.is_new(pod)) {
                if available { working.push(pod.clone()) } else { broken.push(pod.clone()) }
            }
        }
        let room = (max_unavailable - missing).max(0) as usize;
        for pod in broken.iter().chain(working.iter().take(room)) {
            self.delete(pod);
        }
    }

    /// New pods come beside old ones, which go when the new ones are available.
    fn roll_surging(&mut self, places: &[Place], max_surge: i32) {
        let mut surging = 0;
        let (mut at_once, mut in_turn) = (Vec::new(), Vec::new());
        for Place { node, pods, .. } in places.iter().filter(|place| place.run) {
            let alive: Vec<&Arc<Pod>> = pods.iter().filter(|pod| !pod.meta.is_deleting()).collect();
            let new = alive.iter().find(|pod| self.is_new(pod)).map(|pod| (*pod).clone());
            let old = alive.iter().find(|pod| !self.is_new(pod)).map(|pod| (*pod).clone());
            match (new, old) {
                (Some(new), Some(old)) if self.is_available(&new) => self.delete(&old),
                (Some(_), Some(_)) => surging += 1,
                (None, Some(old)) if self.is_available(&old) => in_turn.push(node.meta.key.name.clone()),
                (None, Some(_)) => at_once.push(node.meta.key.name.clone()),
                _ => {}
            }
        }
        let room = (max_surge - surging).max(0) as usize;
        for node in at_once.iter().chain(in_turn.iter().take(room)) {
            self.make(node);
        }
    }

    fn finish(&mut self, places: &[Place]) {
        let status = self.status(places);
        if status != self.set.status {
            self.plan.status(Kind::DaemonSet, &self.set.meta, Status::DaemonSet(status));
        }
        let in_use: BTreeSet<&str> =
            places.iter().flat_map(|place| &place.pods).filter_map(|pod| pod.meta.label(POD_REVISION)).collect();
        revisions::clean_up(&self.revisions, self.set.history_limit, &in_use, &mut self.plan);
    }

    fn status(&mut self, places: &[Place]) -> DaemonSetStatus {
        let mut status = DaemonSetStatus {
            observed_generation: self.set.meta.generation,
            collisions: self.set.status.collisions,
            conditions: self.set.status.conditions.clone(),
            ..DaemonSetStatus::default()
        };
        if self.revisions.collided {
            status.collisions = Some(status.collisions.unwrap_or(0) + 1);
        }
        for Place { run, pods, .. } in places {
            if !run {
                status.misscheduled += i32::from(pods.iter().any(|pod| !pod.meta.is_deleting()));
                continue;
            }
            status.desired += 1;
            // Counted is the oldest of the newest revision that is there.
            let mut alive: Vec<&Arc<Pod>> = pods.iter().collect();
            alive.sort_by_key(|pod| (!self.is_new(pod), pod.meta.is_deleting(), pod.meta.created));
            let Some(pod) = alive.first() else { continue };
            status.current += 1;
            let ready = pods.iter().any(|pod| pod.is_ready());
            let available = pods.iter().any(|pod| pod.is_ready() && self.is_available(pod));
            status.ready += i32::from(ready);
            status.available += i32::from(available);
            status.updated += i32::from(self.is_new(pod));
        }
        status.unavailable = status.desired - status.available;
        status
    }
}

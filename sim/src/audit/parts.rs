//! Promises about what nodes consist of: volumes are where their pods are and no more are attached than can be, pods fit into NUMA zones as
//! kubelet's Topology Manager would have it, no GPU is given twice, and what is reserved is there for those whom it is for.

use super::{Auditor, asked, is_placed, node_of};
use crate::storage::{DRIVER, HANDLE};
use control::imagined::Api;
use model::cluster::Node;
use model::scheduling::{CsiNodeFacts, GpuFacts, HOSTNAME, Reservation, TopologyFacts, ZONE};
use model::volume::{PersistentVolume, PersistentVolumeClaim};
use model::{Key, Kind, Object, Pod, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Per cent of a GPU that a pod asks for, and what says which it got.
const GPU: &str = "koordinator.sh/gpu-core";
const GIVEN: &str = "scheduling.koordinator.sh/device-allocated";

/// What was told of nodes, and of room that is held.
#[derive(Default)]
pub(super) struct Told {
    zones: BTreeMap<Arc<str>, TopologyFacts>,
    gpus: BTreeMap<Arc<str>, GpuFacts>,
    attach: BTreeMap<Arc<str>, i64>,
    held: BTreeMap<Arc<str>, Held>,
}

/// A reservation that somebody says to hold room on a node.
struct Held {
    facts: Reservation,
    node: Arc<str>,
    since: Timestamp,
    /// By uid of a pod that it is for: what that has of it.
    drawn: BTreeMap<Arc<str>, Vec<(Arc<str>, i64)>>,
    used_up: bool,
}

impl Held {
    fn left(&self, resource: &str, living: &BTreeSet<Arc<str>>) -> i64 {
        let whole = self.facts.template.requests.iter().find(|(name, _)| **name == *resource).map_or(0, |(_, a)| *a);
        let of = |taken: &Vec<(Arc<str>, i64)>| {
            taken.iter().find(|(name, _)| **name == *resource).map_or(0, |(_, amount)| *amount)
        };
        let drawn: i64 = self.drawn.iter().filter(|(uid, _)| living.contains(*uid)).map(|(_, taken)| of(taken)).sum();
        if self.used_up { 0 } else { whole - drawn }
    }

    fn is_for(&self, pod: &Pod) -> bool {
        self.facts.owners.iter().any(|owner| owner.labels.as_ref().is_some_and(|own| own.matches(&pod.meta.labels)))
    }
}

fn claim_of<'a>(api: &'a Api, pod: &Pod, name: &Arc<str>) -> Option<&'a PersistentVolumeClaim> {
    let key = Key { namespace: pod.meta.key.namespace.clone(), name: name.clone() };
    match api.get(Kind::PersistentVolumeClaim, &key)? {
        Object::PersistentVolumeClaim(claim) => Some(claim),
        _ => None,
    }
}

fn volume_of<'a>(api: &'a Api, claim: &PersistentVolumeClaim) -> Option<&'a PersistentVolume> {
    match api.get(Kind::PersistentVolume, &Key::new("", claim.volume.clone()))? {
        Object::PersistentVolume(volume) => Some(volume),
        _ => None,
    }
}

/// What keeps a volume from a node.
fn is_elsewhere(volume: &PersistentVolume, node: &Node) -> bool {
    let hostname = node.meta.labels.get(HOSTNAME);
    let on = volume.nodes.as_ref().is_none_or(|nodes| hostname.is_some_and(|hostname| nodes.contains(hostname)));
    let zones = (volume.meta.labels.get(ZONE), node.meta.labels.get(ZONE));
    !on || matches!(zones, (Some(one), Some(other)) if one != other)
}

fn handles(api: &Api, pod: &Pod) -> Vec<Arc<str>> {
    let claims = pod.spec.scheduling.claims.iter().filter_map(|claim| claim_of(api, pod, &claim.name));
    let volumes = claims.filter_map(|claim| volume_of(api, claim));
    volumes.filter_map(|volume| volume.meta.annotations.get(HANDLE).cloned()).collect()
}

fn is_exclusive(claim: &PersistentVolumeClaim) -> bool {
    claim.access_modes.iter().any(|mode| **mode == *"ReadWriteOncePod")
}

/// What a Topology Manager would align of a pod, by resource that zones have.
fn aligned(pod: &Pod, zones: &TopologyFacts) -> BTreeMap<Arc<str>, i64> {
    let whole = asked(pod, "cpu") % 1000 == 0;
    let counts = |name: &str| match name {
        "cpu" => pod.spec.scheduling.guaranteed && whole,
        "memory" => pod.spec.scheduling.guaranteed,
        _ => true,
    };
    let names = zones.zones.iter().flatten().map(|(name, _)| name).filter(|name| counts(name));
    names.map(|name| (name.clone(), asked(pod, name))).filter(|(_, amount)| *amount > 0).collect()
}

/// Whether some division of the pods over the two zones gives each one that fits a zone a zone of its own, and all of them what they ask for.
fn divides(zones: &TopologyFacts, pods: &[BTreeMap<Arc<str>, i64>]) -> bool {
    let single = *zones.policy == *"single-numa-node";
    let [one, other] = &zones.zones[..] else { return true };
    let has = |zone: &[(Arc<str>, i64)], name: &str| zone.iter().find(|(n, _)| **n == *name).map_or(0, |(_, a)| *a);
    let (mut narrow, mut wide) = (Vec::new(), Vec::new());
    for pod in pods {
        let fits = |(name, amount): (&Arc<str>, &i64)| *amount <= has(one, name).max(has(other, name));
        match pod.iter().filter(|need| fits(*need)).count() {
            count if count == pod.len() => narrow.push(pod),
            0 if !single => wide.push(pod),
            // Some of it wants one zone, some wants both: no set is right for all.
            _ => return false,
        }
    }
    let own = |zone: &[(Arc<str>, i64)]| -> BTreeMap<Arc<str>, i64> { zone.iter().cloned().collect() };
    place(&narrow, [own(one), own(other)], &wide)
}

fn place(
    left: &[&BTreeMap<Arc<str>, i64>],
    free: [BTreeMap<Arc<str>, i64>; 2],
    wide: &[&BTreeMap<Arc<str>, i64>],
) -> bool {
    let Some((pod, rest)) = left.split_first() else {
        let spare = |name: &Arc<str>| free.iter().filter_map(|zone| zone.get(name)).sum::<i64>();
        let mut sums: BTreeMap<&Arc<str>, i64> = BTreeMap::new();
        wide.iter().flat_map(|pod| pod.iter()).for_each(|(name, amount)| *sums.entry(name).or_default() += amount);
        return sums.into_iter().all(|(name, sum)| sum <= spare(name));
    };
    (0..2).any(|zone| {
        let fits = pod.iter().all(|(name, amount)| free[zone].get(name).is_some_and(|free| amount <= free));
        let mut after = free.clone();
        for (name, amount) in pod.iter() {
            *after[zone].entry(name.clone()).or_default() -= amount;
        }
        fits && place(rest, after, wide)
    })
}

/// The GPUs that a pod's annotation says it has: minor and per cent.
fn given(pod: &Pod) -> Vec<(i64, i64)> {
    let text = pod.meta.annotations.get(GIVEN).map_or("{}", |text| &**text);
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let core = |gpu: &serde_json::Value| gpu["resources"][GPU].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    value["gpu"].as_array().into_iter().flatten().map(|gpu| (gpu["minor"].as_i64().unwrap_or(-1), core(gpu))).collect()
}

impl Auditor {
    pub(crate) fn zones(&mut self, facts: TopologyFacts) {
        self.told.zones.insert(facts.node.clone(), facts);
    }
    pub(crate) fn gpus(&mut self, facts: GpuFacts) {
        self.told.gpus.insert(facts.node.clone(), facts);
    }
    pub(crate) fn attach_limits(&mut self, facts: &CsiNodeFacts) {
        let limit = facts.limits.iter().find(|(driver, _)| **driver == *DRIVER).and_then(|(_, most)| *most);
        self.told.attach.insert(facts.name.clone(), limit.map_or(i64::MAX, i64::from));
    }

    /// Somebody says that a reservation holds room on a node now.
    pub(crate) fn held(&mut self, facts: Reservation, node: Arc<str>, now: Timestamp) {
        let name = facts.name.clone();
        self.told.held.insert(name, Held { facts, node, since: now, drawn: BTreeMap::new(), used_up: false });
    }
    /// A reservation is gone.
    pub(crate) fn held_no_more(&mut self, name: &str) {
        self.told.held.remove(name);
    }
    /// Whether room is held on a node.
    pub(super) fn holds(&self, node: &str) -> bool {
        self.told.held.values().any(|held| *held.node == *node)
    }

    /// All that a binding promises about the node's parts.
    pub(super) fn check_parts(&mut self, api: &Api, pod: &Arc<Pod>, now: Timestamp) {
        let Some(node) = node_of(api, &pod.spec.node_name) else { return };
        let mut broken = Vec::new();
        self.check_volumes(api, pod, node, &mut broken);
        self.check_zones(pod, &mut broken);
        self.check_gpus(pod, &mut broken);
        self.check_held(pod, node, now, &mut broken);
        for what in broken {
            self.complain(now, format!("{what}: pod {} on {}", pod.meta.key, pod.spec.node_name));
        }
    }

    fn check_volumes(&mut self, api: &Api, pod: &Pod, node: &Node, broken: &mut Vec<String>) {
        for wanted in &pod.spec.scheduling.claims {
            self.checked.volumes += 1;
            let claim = claim_of(api, pod, &wanted.name);
            let Some((claim, volume)) = claim.and_then(|claim| Some((claim, volume_of(api, claim)?))) else {
                broken.push(format!("volume: claim {} has none", wanted.name));
                continue;
            };
            let mutual = volume.claim.as_ref().is_some_and(|(_, name, uid)| {
                **name == *claim.meta.key.name && (uid.is_empty() || *uid == claim.meta.uid)
            });
            if !mutual {
                broken.push(format!("volume: {} is not the claim's {}", volume.meta.key.name, wanted.name));
            }
            if is_elsewhere(volume, node) {
                broken.push(format!("volume: {} is elsewhere", volume.meta.key.name));
            }
            if is_exclusive(claim)
                && let Some(other) = self.user_of(pod, &wanted.name)
            {
                broken.push(format!("volume: {} is used by {other} alone", wanted.name));
            }
        }
        if !pod.spec.scheduling.claims.is_empty() && self.too_many_attached(api, pod, node) {
            broken.push("attached: too many volumes".into());
        }
    }

    /// Another placed pod that uses a claim.
    fn user_of(&self, pod: &Pod, claim: &Arc<str>) -> Option<Key> {
        let uses = |other: &Arc<Pod>| other.spec.scheduling.claims.iter().any(|of| of.name == *claim);
        let mut others = self.pods.values().filter(|other| is_placed(other) && other.meta.key != pod.meta.key);
        others
            .find(|other| uses(other) && other.meta.key.namespace == pod.meta.key.namespace)
            .map(|o| o.meta.key.clone())
    }

    fn too_many_attached(&self, api: &Api, pod: &Pod, node: &Node) -> bool {
        let name = &node.meta.key.name;
        let own = handles(api, pod);
        let mut attached: BTreeSet<Arc<str>> = own.iter().cloned().collect();
        attached
            .extend(self.on(name).filter(|other| other.meta.key != pod.meta.key).flat_map(|other| handles(api, other)));
        !own.is_empty() && self.told.attach.get(name).is_some_and(|most| attached.len() as i64 > *most)
    }

    fn check_zones(&mut self, pod: &Pod, broken: &mut Vec<String>) {
        let Some(zones) = self.told.zones.get(&pod.spec.node_name) else { return };
        if *zones.policy == *"best-effort" || aligned(pod, zones).is_empty() {
            return;
        }
        let there = self.on(&pod.spec.node_name).map(|other| aligned(other, zones)).filter(|needs| !needs.is_empty());
        let there: Vec<BTreeMap<Arc<str>, i64>> = there.collect();
        let divides = divides(zones, &there);
        self.checked.zones += 1;
        if !divides {
            broken.push(format!("zones: {} pods cannot be divided", there.len()));
        }
    }

    fn check_gpus(&mut self, pod: &Pod, broken: &mut Vec<String>) {
        let wants = asked(pod, GPU);
        let Some(facts) = self.told.gpus.get(&pod.spec.node_name).filter(|_| wants > 0) else { return };
        let own = given(pod);
        let each = wants / own.len().max(1) as i64;
        if own.len() as i64 != (wants + 99) / 100 || own.iter().any(|(_, share)| *share != each) {
            broken.push(format!("gpu: {own:?} given of {wants}"));
        }
        let mut used: BTreeMap<i64, i64> = facts.minors.iter().map(|minor| (i64::from(*minor), 0)).collect();
        for (minor, share) in self.on(&pod.spec.node_name).flat_map(|other| given(other)) {
            match used.get_mut(&minor) {
                Some(used) => *used += share,
                None => broken.push(format!("gpu: there is no {minor}")),
            }
        }
        if used.values().any(|used| *used > 100) {
            broken.push(format!("gpu: given twice {used:?}"));
        }
        self.checked.gpus += 1;
    }

    fn check_held(&mut self, pod: &Pod, node: &Node, now: Timestamp, broken: &mut Vec<String>) {
        let name = &node.meta.key.name;
        for held in self.told.held.values_mut().filter(|held| held.node == *name && held.since < now) {
            if held.facts.expires.is_some_and(|at| at <= now) || !held.is_for(pod) || held.used_up {
                continue;
            }
            held.used_up = held.facts.allocate_once;
            let uids: BTreeSet<Arc<str>> =
                self.pods.values().filter(|p| is_placed(p)).map(|p| p.meta.uid.clone()).collect();
            let of = |(resource, _): &(Arc<str>, i64)| {
                (resource.clone(), held.left(resource, &uids).min(asked(pod, resource)))
            };
            let taken = held.facts.template.requests.iter().map(of).collect();
            held.drawn.insert(pod.meta.uid.clone(), taken);
        }
        // What was decided before it was held may arrive later.
        let counts = |held: &&Held| {
            held.node == *name
                && held.since.plus_ms(super::LAG_MS) < now
                && held.facts.expires.is_none_or(|at| now < at)
        };
        if !self.told.held.values().any(|held| counts(&held)) {
            return;
        }
        let living: BTreeSet<Arc<str>> = self.on(name).map(|pod| pod.meta.uid.clone()).collect();
        self.checked.reservations += 1;
        for (resource, has) in node.scheduling.allocatable.iter().filter(|(resource, _)| asked(pod, resource) > 0) {
            let used: i64 = self.on(name).map(|pod| asked(pod, resource)).sum();
            let held: i64 = self.told.held.values().filter(counts).map(|held| held.left(resource, &living)).sum();
            if used + held > *has {
                broken.push(format!("reservation: {resource} {used} used and {held} held of {has}"));
            }
        }
    }

    /// Whether a waiting pod could have a node's parts for sure.
    pub(super) fn parts_suffice(&self, api: &Api, pod: &Pod, node: &Node) -> bool {
        let name = &node.meta.key.name;
        let volumes = pod.spec.scheduling.claims.iter().all(|wanted| {
            let Some(claim) = claim_of(api, pod, &wanted.name) else { return false };
            let taken = is_exclusive(claim) && self.user_of(pod, &wanted.name).is_some();
            let there = volume_of(api, claim).is_some_and(|volume| !is_elsewhere(volume, node));
            // One without a volume may get one anywhere, unless somebody has settled where.
            let late = claim.volume.is_empty() && claim.class.as_deref() == Some("late");
            let settled = claim.meta.annotations.contains_key("volume.kubernetes.io/selected-node");
            !taken && (there || late && !settled)
        });
        let zones = self.told.zones.get(name).is_none_or(|zones| {
            let own = aligned(pod, zones);
            let alone = self.on(name).all(|other| other.meta.key == pod.meta.key || aligned(other, zones).is_empty());
            *zones.policy == *"best-effort" || own.is_empty() || alone && divides(zones, &[own])
        });
        volumes && zones && self.gpu_left(pod, name) && !self.too_many_attached(api, pod, node)
    }

    fn gpu_left(&self, pod: &Pod, node: &Arc<str>) -> bool {
        let wants = asked(pod, GPU);
        let Some(facts) = self.told.gpus.get(node).filter(|_| wants > 0) else { return true };
        let mut free: BTreeMap<i64, i64> = facts.minors.iter().map(|minor| (i64::from(*minor), 100)).collect();
        for (minor, share) in self.on(node).flat_map(|other| given(other)) {
            *free.entry(minor).or_default() -= share;
        }
        free.values().filter(|free| **free >= wants.min(100)).count() as i64 >= (wants + 99) / 100
    }

    /// Whether more than the sums on a node decides about a pod there or elsewhere.
    pub(super) fn wants_parts(&self, pod: &Pod) -> bool {
        let zoned = self.told.zones.values().any(|zones| !aligned(pod, zones).is_empty());
        zoned || asked(pod, GPU) > 0 && !self.told.gpus.is_empty() || !pod.spec.scheduling.claims.is_empty()
    }
}

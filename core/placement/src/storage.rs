//! Claims, volumes, classes and attach limits: which nodes a pod's storage allows, and what is to be bound once it is placed.

use crate::class::ClassKey;
use crate::filter::{Code, Verdict};
use crate::pool::{NodeId, Pool};
use model::Key;
use model::map::{HashMap, HashSet};
use model::scheduling::{Claim, ClaimFacts, CsiNodeFacts, NodeFacts, NodeTerm, StorageClassFacts, VolumeFacts};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Class of volumes that somebody makes by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Labels of a volume that bind it to a zone or region, and the label that a node may carry instead.
const ZONE_LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

/// A change of something that storage rules read.
#[derive(Clone, Debug)]
pub enum StorageChange {
    /// A claim is now as given.
    Claim(ClaimFacts),
    /// A claim is gone.
    ClaimGone(Key),
    /// A volume is now as given.
    Volume(VolumeFacts),
    /// A volume is gone.
    VolumeGone(Arc<str>),
    /// A class is now as given.
    Class(StorageClassFacts),
    /// A class is gone.
    ClassGone(Arc<str>),
    /// A node's attach limits are now as given.
    CsiNode(CsiNodeFacts),
    /// A node's attach limits are gone.
    CsiNodeGone(Arc<str>),
}

/// What is to be done for a pod's unbound claims once its node is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimPlan {
    /// Claims that get an existing volume.
    pub bind: Vec<(Key, Arc<str>)>,
    /// Claims that their provisioner is asked to make a volume for, on the chosen node.
    pub provision: Vec<Key>,
}

impl ClaimPlan {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

/// The storage part of a pool.
#[derive(Default)]
pub(crate) struct Storage {
    claims: HashMap<Key, ClaimFacts>,
    volumes: BTreeMap<Arc<str>, VolumeFacts>,
    classes: HashMap<Arc<str>, StorageClassFacts>,
    limits: HashMap<Arc<str>, CsiNodeFacts>,
    /// Placed pods that use a claim, by node.
    users: HashMap<Key, BTreeMap<NodeId, u32>>,
    /// Volumes promised to claims by decisions that the API has not confirmed yet.
    promised: HashMap<Arc<str>, Key>,
}

/// A class's claims, looked up once for a decision.
#[derive(Default)]
pub(crate) struct Needs<'a> {
    /// Volumes of bound claims; None: the volume does not exist.
    bound: Vec<Option<&'a VolumeFacts>>,
    /// Claims that wait for a consumer, smallest request first.
    delayed: Vec<(&'a ClaimFacts, &'a StorageClassFacts)>,
    /// A ReadWriteOncePod claim is in use.
    exclusive_taken: bool,
    /// Volumes to attach: driver and handle.
    attach: Vec<(Arc<str>, String)>,
}

impl Storage {
    pub(crate) fn apply(&mut self, change: StorageChange) {
        match change {
            StorageChange::Claim(claim) => {
                let key = Key { namespace: claim.namespace.clone(), name: claim.name.clone() };
                self.claims.insert(key, claim);
            }
            StorageChange::ClaimGone(key) => {
                self.claims.remove(&key);
                self.promised.retain(|_, to| *to != key);
            }
            StorageChange::Volume(volume) => {
                if volume.claim.is_some() {
                    self.promised.remove(&volume.name);
                }
                self.volumes.insert(volume.name.clone(), volume);
            }
            StorageChange::VolumeGone(name) => {
                self.volumes.remove(&name);
                self.promised.remove(&name);
            }
            StorageChange::Class(class) => {
                self.classes.insert(class.name.clone(), class);
            }
            StorageChange::ClassGone(name) => {
                self.classes.remove(&name);
            }
            StorageChange::CsiNode(node) => {
                self.limits.insert(node.name.clone(), node);
            }
            StorageChange::CsiNodeGone(name) => {
                self.limits.remove(&name);
            }
        }
    }

    /// Counts a pod of this class on or off a node.
    pub(crate) fn count(&mut self, class: &ClassKey, node: NodeId, by: i64) {
        for claim in &class.spec.claims {
            let users =
                self.users.entry(Key { namespace: class.namespace.clone(), name: claim.name.clone() }).or_default();
            let count = users.entry(node).or_insert(0);
            *count = count.saturating_add_signed(by as i32);
            if *count == 0 {
                users.remove(&node);
            }
        }
    }

    /// Looks a class's claims up, or says why no node can have its pods now. What kube-scheduler's plugins say before they ask any
    /// node, in their order: every claim exists, every claim is whole, none waits for its volume, every volume exists.
    pub(crate) fn needs(&self, class: &ClassKey) -> Result<Needs<'_>, String> {
        let mut needs = Needs::default();
        let claims = &class.spec.claims;
        let key = |claim: &Claim| Key { namespace: class.namespace.clone(), name: claim.name.clone() };
        if let Some(missing) =
            claims.iter().find(|claim| !claim.is_ephemeral() && !self.claims.contains_key(&key(claim)))
        {
            return Err(format!("persistentvolumeclaim \"{}\" not found", missing.name));
        }
        for claim in claims {
            self.whole(&key(claim), claim)?;
        }
        for claim in claims {
            let key = key(claim);
            if let Some(facts) = self.claims.get(&key) {
                self.need(&key, facts, &mut needs)?;
            }
        }
        let volume = |claim: &&Claim| &*self.claims[&key(claim)].volume;
        let asked = claims.iter().filter(|claim| !claim.is_ephemeral() && !volume(claim).is_empty());
        if let Some(missing) = asked.map(|claim| volume(&claim)).find(|name| !self.volumes.contains_key(*name)) {
            return Err(format!("persistentvolume \"{missing}\" not found"));
        }
        needs.delayed.sort_by(|(a, _), (b, _)| (a.request, &a.name).cmp(&(b.request, &b.name)));
        Ok(needs)
    }

    /// Whether a claim can be used at all.
    fn whole(&self, key: &Key, claim: &Claim) -> Result<(), String> {
        let Some(facts) = self.claims.get(key) else {
            return Err(format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{}\"",
                claim.name
            ));
        };
        if facts.lost {
            return Err(format!(
                "persistentvolumeclaim \"{}\" bound to non-existent persistentvolume \"{}\"",
                claim.name, facts.volume
            ));
        }
        if facts.deleting {
            return Err(format!("persistentvolumeclaim \"{}\" is being deleted", claim.name));
        }
        match &claim.made_for {
            Some(pod) if facts.owner_pod != *pod => {
                let namespace = &key.namespace;
                Err(format!(
                    "PVC {namespace}/{} was not created for pod {namespace}/{pod} (pod is not owner)",
                    claim.name
                ))
            }
            _ => Ok(()),
        }
    }

    fn need<'a>(&'a self, key: &Key, claim: &'a ClaimFacts, needs: &mut Needs<'a>) -> Result<(), String> {
        let exclusive = claim.access_modes.iter().any(|mode| &**mode == "ReadWriteOncePod");
        needs.exclusive_taken |= exclusive && self.users.get(key).is_some_and(|users| !users.is_empty());
        if claim.is_bound() {
            let volume = self.volumes.get(&claim.volume);
            if let Some((driver, handle)) = volume.and_then(|volume| volume.csi.as_ref()) {
                needs.attach.push((driver.clone(), handle.to_string()));
            }
            needs.bound.push(volume);
            return Ok(());
        }
        // A class that does not exist is taken for one whose volumes are bound at once.
        let class = claim.class.as_ref().and_then(|name| self.classes.get(name));
        match class.filter(|class| class.wait_for_consumer && claim.volume.is_empty()) {
            Some(class) => {
                needs.attach.push((class.provisioner.clone(), key.to_string()));
                needs.delayed.push((claim, class));
                Ok(())
            }
            None => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
        }
    }

    /// A volume for every waiting claim on this node, or None.
    fn match_claims(&self, needs: &Needs<'_>, node: &NodeFacts) -> Option<ClaimPlan> {
        let mut plan = ClaimPlan::default();
        let mut taken: HashSet<Arc<str>> = HashSet::default();
        for (claim, class) in &needs.delayed {
            let key = Key { namespace: claim.namespace.clone(), name: claim.name.clone() };
            if claim.selected_node.is_empty() {
                if let Some(volume) = self.find_volume(&key, claim, node, &taken) {
                    taken.insert(volume.name.clone());
                    plan.bind.push((key, volume.name.clone()));
                    continue;
                }
            } else if claim.selected_node != node.name {
                return None;
            }
            let allowed = class.allowed.as_ref().is_none_or(|terms| matches_any(terms, node));
            if &*class.provisioner == NO_PROVISIONER || class.provisioner.is_empty() || !allowed {
                return None;
            }
            plan.provision.push(key);
        }
        Some(plan)
    }

    /// The smallest free volume that serves `claim` on `node`; one that is reserved for the claim comes first.
    fn find_volume(
        &self,
        key: &Key,
        claim: &ClaimFacts,
        node: &NodeFacts,
        taken: &HashSet<Arc<str>>,
    ) -> Option<&VolumeFacts> {
        let class = claim.class.as_deref().unwrap_or_default();
        let mut best: Option<&VolumeFacts> = None;
        for volume in self.volumes.values() {
            let fits = volume.capacity >= claim.request
                && volume.block == claim.block
                && claim.access_modes.iter().all(|mode| volume.access_modes.contains(mode))
                && !volume.deleting
                && !taken.contains(&volume.name)
                && self.promised.get(&volume.name).is_none_or(|to| to == key)
                && volume.node_affinity.as_ref().is_none_or(|terms| matches_any(terms, node));
            if !fits {
                continue;
            }
            if let Some((namespace, name, uid)) = &volume.claim {
                let ours = *namespace == key.namespace && *name == key.name && (uid.is_empty() || *uid == claim.uid);
                if ours {
                    return Some(volume);
                }
                continue;
            }
            let selected = claim.selector.as_ref().is_none_or(|selector| selector.matches(&volume.labels));
            let free = volume.available && &*volume.class == class && selected;
            if free && best.is_none_or(|best| volume.capacity < best.capacity) {
                best = Some(volume);
            }
        }
        best
    }

    /// Whether the storage of a class allows a node. `promised`: room is being made there for somebody, who may be counted in.
    pub(crate) fn verdict(
        &self,
        needs: &Needs<'_>,
        node: &NodeFacts,
        promised: bool,
        attached: impl FnOnce() -> HashSet<(Arc<str>, String)>,
    ) -> Verdict {
        if needs.exclusive_taken {
            return Verdict::new(Code::ExclusiveClaim);
        }
        if self.exceeds_limits(needs, node, promised, attached) {
            return Verdict::new(Code::VolumeLimit);
        }
        let mut detail = 0;
        for volume in &needs.bound {
            match volume {
                None => return Verdict::new(Code::VolumeMissing),
                Some(volume) if !volume.node_affinity.as_ref().is_none_or(|terms| matches_any(terms, node)) => {
                    detail |= Verdict::VOLUME_CONFLICT;
                }
                Some(_) => {}
            }
        }
        if !needs.delayed.is_empty() && self.match_claims(needs, node).is_none() {
            detail |= Verdict::NO_VOLUME;
        }
        if detail != 0 {
            return Verdict::with(Code::VolumeBinding, detail);
        }
        if needs.bound.iter().flatten().any(|volume| !zone_fits(volume, node)) {
            return Verdict::new(Code::VolumeZone);
        }
        Verdict::OK
    }

    fn exceeds_limits(
        &self,
        needs: &Needs<'_>,
        node: &NodeFacts,
        promised: bool,
        attached: impl FnOnce() -> HashSet<(Arc<str>, String)>,
    ) -> bool {
        let Some(limits) = self.limits.get(&node.name).filter(|_| !needs.attach.is_empty()) else { return false };
        let limited =
            |driver: &Arc<str>| limits.limits.iter().find(|(name, _)| name == driver).and_then(|(_, count)| *count);
        if !needs.attach.iter().any(|(driver, _)| limited(driver).is_some()) {
            return false;
        }
        let mut volumes = attached();
        let mut new: HashSet<&Arc<str>> = HashSet::default();
        for volume in &needs.attach {
            // Who shares a volume with those that have to go would keep it attached, and they would be in vain.
            if volumes.insert(volume.clone()) || promised {
                new.insert(&volume.0);
            }
        }
        new.into_iter().any(|driver| {
            let count = volumes.iter().filter(|(name, _)| name == driver).count();
            limited(driver).is_some_and(|limit| count as i64 > i64::from(limit))
        })
    }
}

fn matches_any(terms: &[NodeTerm], node: &NodeFacts) -> bool {
    terms.iter().any(|term| term.matches(&node.name, &node.labels))
}

/// Whether the zone labels of a volume and of a node agree. A node without any such label is taken as being everywhere.
fn zone_fits(volume: &VolumeFacts, node: &NodeFacts) -> bool {
    if !ZONE_LABELS.iter().any(|(key, _)| node.labels.contains_key(*key)) {
        return true;
    }
    ZONE_LABELS.iter().all(|(key, general)| {
        let Some(zones) = volume.labels.get(*key) else { return true };
        let here = node.labels.get(*key).or_else(|| node.labels.get(*general));
        // A volume replicated over zones names them all, joined by two underscores.
        here.is_some_and(|here| zones.split("__").any(|zone| zone == &**here))
    })
}

impl Pool {
    /// Claims, volumes, classes or attach limits changed.
    pub fn set_storage(&mut self, change: StorageChange) {
        self.storage.apply(change);
    }

    /// Volumes that the pods of a node have attached: driver and handle.
    pub(crate) fn attached(&self, node: NodeId) -> HashSet<(Arc<str>, String)> {
        let mut volumes = HashSet::default();
        for pod in &self.nodes[node as usize].pods {
            let class = &self.class(self.entry(*pod).class).key;
            for claim in &class.spec.claims {
                let key = Key { namespace: class.namespace.clone(), name: claim.name.clone() };
                let Some(facts) = self.storage.claims.get(&key) else { continue };
                if let Some(volume) = self.storage.volumes.get(&facts.volume) {
                    volumes.extend(volume.csi.as_ref().map(|(driver, handle)| (driver.clone(), handle.to_string())));
                } else if let Some(class) = facts.class.as_ref().and_then(|name| self.storage.classes.get(name)) {
                    volumes.insert((class.provisioner.clone(), key.to_string()));
                }
            }
        }
        volumes
    }

    /// What is to be done for a class's claims on a node.
    pub(crate) fn plan_claims(&self, class: &ClassKey, node: NodeId) -> ClaimPlan {
        if class.spec.claims.is_empty() {
            return ClaimPlan::default();
        }
        let facts = &self.nodes[node as usize].facts;
        self.storage.needs(class).ok().and_then(|needs| self.storage.match_claims(&needs, facts)).unwrap_or_default()
    }

    /// Holds volumes for claims until the API shows them bound.
    pub fn promise_volumes(&mut self, plan: &ClaimPlan) {
        for (claim, volume) in &plan.bind {
            self.storage.promised.insert(volume.clone(), claim.clone());
        }
    }
    /// Lets them go again.
    pub fn release_volumes(&mut self, plan: &ClaimPlan) {
        for (_, volume) in &plan.bind {
            self.storage.promised.remove(volume);
        }
    }
    /// Whether all claims of a pod are bound on both sides.
    pub(crate) fn claims_bound(&self, namespace: &Arc<str>, claims: &[Claim]) -> bool {
        claims.iter().all(|claim| {
            let key = Key { namespace: namespace.clone(), name: claim.name.clone() };
            self.storage.claims.get(&key).is_some_and(ClaimFacts::is_bound)
        })
    }
    /// A volume's facts.
    pub fn volume(&self, name: &str) -> Option<&VolumeFacts> {
        self.storage.volumes.get(name)
    }
    /// A claim's facts.
    pub fn claim(&self, key: &Key) -> Option<&ClaimFacts> {
        self.storage.claims.get(key)
    }
}

//! Promises about gangs and about making room: whoever is of a gang is bound soon when somebody of it is, nobody has to go but for
//! somebody more important, gangs are not left below their minimum for the sake of other gangs, and none waits in the end for whom there is
//! room, or could be made.

use super::{Auditor, LAG_MS, View, fits, free, gang_of, is_placed, nodes, stays, take, unwelcome};
use control::imagined::Api;
use model::cluster::Node;
use model::{Key, Pod, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What is said of pods that have to go for more important ones.
const PREEMPTED: &str = "PreemptionByScheduler";
/// Label of a gang's pods that says how many there have to be.
const LEAST: &str = "pod-group.scheduling.sigs.k8s.io/min-available";

/// Gangs, as far as they bear on promises.
#[derive(Default)]
pub(super) struct Gangs {
    of: BTreeMap<Key, Gang>,
    /// Who waited lately and does no more: when that ended, and priority.
    waited: VecDeque<(Timestamp, i32)>,
    /// Gangs that lose pods to other gangs, by when that is judged.
    losing: BTreeMap<Key, Losing>,
}

/// A gang of which somebody was bound.
#[derive(Default)]
struct Gang {
    least: usize,
    /// Uids of all that were ever bound.
    bound: BTreeSet<Arc<str>>,
    since: Timestamp,
    told: bool,
}

struct Losing {
    due: Timestamp,
    /// Of it when the first had to go, and how many had to since.
    before: usize,
    gone: usize,
    /// Somebody of it left otherwise just before: the scheduler may have counted on him.
    unsure: bool,
}

fn least_of(pod: &Pod) -> usize {
    pod.meta.labels.get(LEAST).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Why a pod has to go, when it does for somebody more important.
fn preempted(pod: &Pod) -> Option<&str> {
    let said = model::condition::find(&pod.status.conditions, "DisruptionTarget")?;
    (&*said.reason == PREEMPTED).then_some(&*said.message)
}

impl Auditor {
    pub(super) fn join(&mut self, pod: &Pod, now: Timestamp) {
        let Some(key) = gang_of(pod) else { return };
        let new = || Gang { least: least_of(pod), since: now, ..Gang::default() };
        self.checked.gangs += u64::from(!self.gangs.of.contains_key(&key));
        // Who comes in place of the first that had to go counts as there when the next has to.
        self.gangs.losing.get_mut(&key).into_iter().for_each(|losing| losing.before += 1);
        self.gangs.of.entry(key).or_insert_with(new).bound.insert(pod.meta.uid.clone());
    }

    /// Whether so many of a gang were ever bound as there have to be.
    pub(super) fn was_whole(&self, key: &Key) -> bool {
        self.gangs.of.get(key).is_some_and(|gang| gang.bound.len() >= gang.least)
    }

    /// Whoever is of a gang is bound soon when somebody of it is.
    pub(super) fn check_gangs(&mut self, now: Timestamp, patience_ms: i64) {
        let mut broken = Vec::new();
        for (key, gang) in &mut self.gangs.of {
            if !gang.told && gang.bound.len() < gang.least && gang.since.plus_ms(patience_ms) < now {
                gang.told = true;
                broken.push(format!("gang: {} of at least {} of {key} were bound", gang.bound.len(), gang.least));
            }
        }
        let due: Vec<Key> = self.gangs.losing.iter().filter(|(_, l)| l.due < now).map(|(key, _)| key.clone()).collect();
        for key in due {
            let Some(losing) = self.gangs.losing.remove(&key) else { continue };
            let least = self.gangs.of.get(&key).map_or(0, |gang| gang.least);
            // Those who were bound meanwhile, and had to go too, come on top of those who were there.
            let left = losing.before.saturating_sub(losing.gone);
            // Orders that were lost are given again: what was meant is not to be seen.
            let sure = !losing.unsure && self.doubt.plus_ms(4 * LAG_MS) < now && !self.left_otherwise(&key);
            if sure && losing.before >= least && left > 0 && left < least {
                broken.push(format!("gang: {key} was left with {left} of at least {least} for another gang"));
            }
        }
        broken.into_iter().for_each(|what| self.complain(now, what));
    }

    /// Whether somebody of a gang left his node lately for another reason than a more important pod.
    fn left_otherwise(&self, key: &Key) -> bool {
        self.left.iter().any(|(_, pod)| preempted(pod).is_none() && gang_of(pod).as_ref() == Some(key))
    }

    /// A pod waits no longer: it was bound, or is gone.
    pub(super) fn waits_no_more(&mut self, pod: &Pod, now: Timestamp) {
        let waited = &mut self.gangs.waited;
        while waited.front().is_some_and(|(when, _)| when.plus_ms(2 * LAG_MS) < now) {
            waited.pop_front();
        }
        waited.push_back((now, pod.spec.scheduling.priority));
    }

    /// A pod that has to go does so for somebody more important, who waits or did a moment ago.
    pub(super) fn check_victim(&mut self, old: Option<&Pod>, pod: &Pod, now: Timestamp) {
        let Some(why) = preempted(pod).filter(|_| old.is_none_or(|old| preempted(old).is_none())) else { return };
        self.checked.victims += 1;
        let priority = pod.spec.scheduling.priority;
        let waits = self.waiting.keys().filter_map(|key| self.pods.get(key));
        let for_somebody = waits.map(|other| other.spec.scheduling.priority).any(|other| other > priority)
            || self.gangs.waited.iter().any(|(when, other)| *other > priority && when.plus_ms(2 * LAG_MS) >= now);
        if !for_somebody {
            let text =
                format!("priority: pod {} ({priority}) had to go, and nobody more important waits", pod.meta.key);
            self.complain(now, text);
        }
        let Some(key) = gang_of(pod).filter(|_| why.ends_with("pod group")) else { return };
        let here = |other: &&Arc<Pod>| {
            other.meta.key != pod.meta.key
                && stays(other)
                && preempted(other).is_none()
                && gang_of(other).as_ref() == Some(&key)
        };
        let before = self.pods.values().filter(here).count() + 1;
        let unsure = self.left_otherwise(&key);
        let new = || Losing { due: now.plus_ms(LAG_MS), before, gone: 0, unsure };
        self.gangs.losing.entry(key).or_insert_with(new).gone += 1;
        self.checked.gang_victims += 1;
    }

    /// In the end no gang waits for which there is room, or could be made.
    pub(super) fn starved_gangs(&mut self, api: &Api, waiting: &[Arc<Pod>], now: Timestamp) {
        let mut gangs: BTreeMap<Key, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in waiting {
            gangs.entry(gang_of(pod).unwrap_or_default()).or_default().push(pod.clone());
        }
        gangs.remove(&Key::default());
        for (key, pods) in gangs {
            let (first, least) = (&pods[0], least_of(&pods[0]));
            let some_left = self.pods.values().any(|pod| is_placed(pod) && gang_of(pod).as_ref() == Some(&key));
            // Rules about others, parts of nodes and quotas are not counted here; who was promised room is waited for.
            let simple = pods.iter().all(|pod| self.is_plain_alone(pod) && pod.status.nominated_node.is_empty());
            if some_left || pods.len() < least || !simple {
                continue;
            }
            let spec = &first.spec.scheduling;
            let may_go = if spec.never_preempts { BTreeSet::new() } else { self.may_go_for(spec.priority) };
            let rooms = [BTreeSet::new(), may_go].map(|gone| -> usize {
                nodes(api).filter(|node| self.counts_only(node)).map(|node| self.copies(first, node, &gone)).sum()
            });
            self.checked.gangs_waiting += 1;
            if rooms.iter().any(|room| *room >= least) {
                let text = format!("starved: gang {key} of {least} waits, and there is room for {} of it", rooms[0]);
                let more = format!("{}, {} without the less important", spec.priority, rooms[1]);
                self.complain(now, format!("{text} ({more})"));
            }
        }
    }

    /// Whether a node refuses by its standing and its sums only.
    fn counts_only(&self, node: &Node) -> bool {
        let name = &node.meta.key.name;
        !self.used.contains_key(name) && !self.holds(name)
    }

    /// Placed pods below a priority, without those of gangs of which somebody is not.
    fn may_go_for(&self, priority: i32) -> BTreeSet<Key> {
        let placed = || self.pods.values().filter(|pod| is_placed(pod));
        let lower = |pod: &&Arc<Pod>| pod.spec.scheduling.priority < priority;
        let mixed: BTreeSet<Key> = placed().filter(|pod| !lower(pod)).filter_map(|pod| gang_of(pod)).collect();
        let may = placed().filter(lower).filter(|pod| gang_of(pod).is_none_or(|gang| !mixed.contains(&gang)));
        may.map(|pod| pod.meta.key.clone()).collect()
    }

    /// How many pods like this a node has room for when some are gone.
    fn copies(&self, pod: &Pod, node: &Node, gone: &BTreeSet<Key>) -> usize {
        if unwelcome(node, &pod.spec.scheduling).is_some() {
            return 0;
        }
        let there: Vec<Arc<Pod>> =
            self.pods.values().filter(|other| !gone.contains(&other.meta.key)).cloned().collect();
        let view = View { there: &there, maybe: &[], gone: &BTreeSet::new() };
        let mut room = free(node, &pod.meta.key, view);
        let mut copies = 0;
        while fits(&room, &pod.spec.scheduling) && copies < 1000 {
            take(&mut room, pod, -1);
            copies += 1;
        }
        copies
    }
}

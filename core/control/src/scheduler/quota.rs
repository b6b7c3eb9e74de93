//! Quotas: a pod of a quota is placed when its tree lets it be; what others borrowed is taken back when they ask for what they are
//! sure of. A pod's quota is the one that its label names, or else the first by name of its namespace.

use super::{NAME, Order, Purpose, Scheduler};
use model::effect::Record;
use model::map::HashMap;
use model::scheduling::{Amounts, QuotaFacts};
use model::{Effect, Key, Timestamp};
use placement::quota::{Borrower, Quota, QuotaError, QuotaTree};
use placement::{PodId, Pool};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Label by which a pod names its quota: Koordinator's.
const QUOTA: &str = "quota.scheduling.koordinator.sh/name";
/// Label by which a pod says that its quota's debts are not its own (`false`): Koordinator's.
const PREEMPTIBLE: &str = "quota.scheduling.koordinator.sh/preemptible";
/// What is taken back is given so long to be gone before more is.
const RECLAIM_MS: i64 = 10_000;

/// What is counted of a pod.
#[derive(Clone, PartialEq)]
struct Account {
    quota: Arc<str>,
    amounts: Amounts,
    placed: bool,
}

/// All quotas, and what is counted against them.
#[derive(Default)]
pub(super) struct Quotas {
    facts: BTreeMap<Key, QuotaFacts>,
    tree: QuotaTree,
    /// Quotas of the tree: the others' parents are missing, or they promise too much.
    valid: BTreeSet<Arc<str>>,
    accounts: HashMap<PodId, Account>,
    /// Pods that their quota refused.
    refused: BTreeSet<PodId>,
    /// Pods that their quota lets in, and no node.
    crowded: BTreeSet<PodId>,
    /// Something became free: who was refused is to be tried again.
    freed: bool,
    nodes_changed: bool,
    /// Nothing is taken back before.
    reclaim_at: Option<Timestamp>,
}

impl Quotas {
    pub(super) fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }
    pub(super) fn nodes_changed(&mut self) {
        self.nodes_changed = true;
    }
    fn over(&self, id: PodId) -> Option<String> {
        let account = self.accounts.get(&id)?;
        self.tree.admits(&account.quota, &account.amounts).err().map(|exceeded| exceeded.to_string())
    }

    fn count_use(&mut self, id: PodId, sign: i64) {
        if let Some(account) = self.accounts.get(&id) {
            self.tree.place(&account.quota, &account.amounts, sign);
        }
    }

    /// Of pods that are to be placed together, those that their quotas let in, in the given order.
    pub(super) fn within(&mut self, pool: &Pool, pods: &[PodId]) -> Vec<PodId> {
        if self.is_empty() {
            return pods.to_vec();
        }
        self.with_promised(pool, pods, |quotas| {
            let mut admitted = Vec::new();
            for id in pods {
                if quotas.over(*id).is_none() {
                    admitted.push(*id);
                    quotas.count_use(*id, 1);
                }
            }
            admitted.iter().for_each(|id| quotas.count_use(*id, -1));
            admitted
        })
    }

    /// Asks as if those were placed for whom room is being made, where they come before `pods`: who has made others go has what they
    /// leave.
    fn with_promised<T>(&mut self, pool: &Pool, pods: &[PodId], ask: impl FnOnce(&mut Self) -> T) -> T {
        let priority = pods.iter().map(|id| pool.pod_priority(*id)).min().unwrap_or(i32::MAX);
        let before = |id: &PodId| pool.pod_priority(*id) >= priority && !pods.contains(id) && !pool.is_placed(*id);
        let promised: Vec<PodId> =
            if self.is_empty() { Vec::new() } else { pool.nominated_pods().filter(before).collect() };
        promised.iter().for_each(|id| self.count_use(*id, 1));
        let answer = ask(self);
        promised.iter().for_each(|id| self.count_use(*id, -1));
        answer
    }

    /// Asks as if those of `candidates` that are on no node now used nothing.
    pub(super) fn without<T>(
        &mut self,
        pool: &Pool,
        candidates: &[PodId],
        ask: impl FnOnce(&mut Self, &Pool) -> T,
    ) -> T {
        let gone: Vec<PodId> = if self.is_empty() {
            Vec::new()
        } else {
            candidates.iter().copied().filter(|id| pool.pod_node(*id).is_none()).collect()
        };
        gone.iter().for_each(|id| self.count_use(*id, -1));
        let answer = ask(self, pool);
        gone.iter().for_each(|id| self.count_use(*id, 1));
        answer
    }

    /// When what was lent may be taken back.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.reclaim_at.filter(|_| !self.crowded.is_empty())
    }
}

impl Scheduler {
    /// A quota is now as given. Returns what is wrong with those that do not count, because their parent is missing or they promise
    /// more than it has.
    pub fn quota(&mut self, facts: QuotaFacts) -> Vec<QuotaError> {
        let key = Key { namespace: facts.namespace.clone(), name: facts.name.clone() };
        if self.quotas.facts.get(&key) == Some(&facts) {
            return Vec::new();
        }
        self.quotas.facts.insert(key, facts);
        self.plant_tree()
    }

    /// A quota is gone.
    pub fn quota_gone(&mut self, key: &Key) -> Vec<QuotaError> {
        if self.quotas.facts.remove(key).is_some() { self.plant_tree() } else { Vec::new() }
    }

    /// Makes the tree anew, and counts every pod.
    fn plant_tree(&mut self) -> Vec<QuotaError> {
        self.quotas.tree = QuotaTree::new(self.pool.capacity());
        self.quotas.valid.clear();
        self.quotas.accounts.clear();
        let mut waiting: Vec<QuotaFacts> = self.quotas.facts.values().cloned().collect();
        let mut errors = Vec::new();
        loop {
            let before = waiting.len();
            errors.clear();
            waiting.retain(|facts| {
                let quota = Quota {
                    name: facts.name.clone(),
                    parent: facts.parent.clone(),
                    min: facts.min.clone(),
                    max: facts.max.clone(),
                    weight: facts.weight,
                };
                match self.quotas.tree.set(quota) {
                    Ok(()) => self.quotas.valid.insert(facts.name.clone()),
                    Err(error) => {
                        errors.push(error);
                        return true;
                    }
                };
                false
            });
            if waiting.len() == before {
                break;
            }
        }
        for pod in self.pool.pods().collect::<Vec<PodId>>() {
            self.account(pod);
        }
        self.quotas.freed = true;
        errors
    }

    /// The quota that a pod is of.
    fn quota_of(&self, id: PodId) -> Option<Arc<str>> {
        let named = self.pool.pod_labels(id).get(QUOTA).filter(|name| self.quotas.valid.contains(*name));
        named.cloned().or_else(|| {
            let from = Key { namespace: self.pool.pod_key(id).namespace.clone(), name: "".into() };
            let here = self.quotas.facts.range(&from..).take_while(|(key, _)| key.namespace == from.namespace);
            let mut names = here.map(|(key, _)| &key.name);
            names.find(|name| self.quotas.valid.contains(*name)).cloned()
        })
    }

    /// Counts a pod as it is now; one that is gone no longer counts.
    pub(super) fn account(&mut self, id: PodId) {
        if self.quotas.is_empty() {
            return;
        }
        let now = (self.pool.is_pod(id) && !self.pool.is_reservation(id)).then(|| {
            let placed = self.pool.is_placed(id);
            self.quota_of(id).map(|quota| Account { quota, amounts: self.pool.pod_requests(id).clone(), placed })
        });
        let now = now.flatten();
        let quotas = &mut self.quotas;
        let before = quotas.accounts.get(&id);
        if before == now.as_ref() {
            return;
        }
        if let Some(old) = before {
            quotas.tree.demand(&old.quota, &old.amounts, -1);
            if old.placed {
                quotas.tree.place(&old.quota, &old.amounts, -1);
            }
            // What it asked for or used may be another's now.
            quotas.freed = true;
        }
        match now {
            Some(new) => {
                quotas.tree.demand(&new.quota, &new.amounts, 1);
                if new.placed {
                    quotas.tree.place(&new.quota, &new.amounts, 1);
                }
                quotas.accounts.insert(id, new);
            }
            None => {
                quotas.accounts.remove(&id);
                quotas.refused.remove(&id);
                quotas.crowded.remove(&id);
            }
        }
    }

    /// Why a pod's quota does not let it be placed now.
    pub(super) fn over_quota(&mut self, id: PodId) -> Option<String> {
        let Scheduler { pool, quotas, .. } = self;
        quotas.with_promised(pool, &[id], |quotas| quotas.over(id))
    }

    /// Of pods that are to be placed together, those that their quotas let in, in the given order.
    pub(super) fn within_quota(&mut self, pods: &[PodId]) -> Vec<PodId> {
        self.quotas.within(&self.pool, pods)
    }

    pub(super) fn count_use(&mut self, id: PodId, sign: i64) {
        self.quotas.count_use(id, sign);
    }

    /// What was kept for somebody is free: who was refused is to be tried again.
    pub(super) fn free_quotas(&mut self) {
        self.quotas.freed = true;
    }

    /// Of pods that may have to go, those that may for the sake of these: of the same quotas, and not marked as such that may not.
    pub(super) fn retain_of_same_quota(&self, may_go: &mut Vec<PodId>, pods: &[PodId]) {
        let of = |id: &PodId| self.quotas.accounts.get(id).map(|account| &account.quota);
        let quotas: BTreeSet<&Arc<str>> = pods.iter().filter_map(of).collect();
        let kept = |id: &PodId| self.pool.pod_labels(*id).get(PREEMPTIBLE).is_some_and(|value| **value == *"false");
        may_go.retain(|id| of(id).is_some_and(|quota| quotas.contains(quota)) && !kept(id));
    }

    /// A pod waits for its quota.
    pub(super) fn wait_for_quota(&mut self, id: PodId) {
        self.queue.postpone(id);
        self.quotas.refused.insert(id);
    }
    /// Its quota lets a pod in, and no node does.
    pub(super) fn wait_for_room(&mut self, id: PodId, now: Timestamp) {
        if self.quotas.accounts.contains_key(&id) {
            self.quotas.crowded.insert(id);
            self.quotas.reclaim_at.get_or_insert(now);
        }
    }

    /// Before decisions: the pool's size, and who is to be tried again.
    pub(super) fn heed_quotas(&mut self) {
        if self.quotas.is_empty() && self.quotas.refused.is_empty() {
            return;
        }
        if std::mem::take(&mut self.quotas.nodes_changed) {
            self.quotas.tree.set_capacity(self.pool.capacity());
            self.quotas.freed = true;
        }
        if std::mem::take(&mut self.quotas.freed) {
            for id in std::mem::take(&mut self.quotas.refused) {
                if self.pool.is_pod(id) && self.queue.contains(id) {
                    self.queue.push(id, self.pool.pod_priority(id));
                }
            }
        }
    }

    /// Takes back what was lent, for pods that their quota is sure to have room for and that no node can have now.
    pub(super) fn reclaim(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        self.quotas.crowded.retain(|id| self.queue.contains(*id));
        if self.quotas.is_empty() || self.quotas.wake_at().is_none_or(|at| at > now) {
            return;
        }
        self.quotas.reclaim_at = Some(now.plus_ms(RECLAIM_MS));
        // Those that are on their way out make room already.
        let placed: Vec<(PodId, Account)> =
            self.quotas.accounts.iter().filter(|(_, a)| a.placed).map(|(id, account)| (*id, account.clone())).collect();
        let leaving: Vec<&(PodId, Account)> = placed.iter().filter(|(id, _)| self.pool.is_terminating(*id)).collect();
        leaving.iter().for_each(|(_, a)| self.quotas.tree.place(&a.quota, &a.amounts, -1));
        let borrowers: Vec<Borrower<Key>> = placed
            .iter()
            .filter(|(id, _)| {
                let kept = self.pool.pod_labels(*id).get(PREEMPTIBLE).is_some_and(|value| **value == *"false");
                !self.pool.is_terminating(*id) && !kept
            })
            .map(|(id, account)| Borrower {
                pod: self.pool.pod_key(*id).clone(),
                quota: account.quota.clone(),
                amounts: account.amounts.clone(),
                priority: self.pool.pod_priority(*id),
                started: self.pool.pod_started(*id),
            })
            .collect();
        let victims = self.quotas.tree.reclaim(&borrowers);
        leaving.iter().for_each(|(_, a)| self.quotas.tree.place(&a.quota, &a.amounts, 1));
        let crowded: BTreeSet<Arc<str>> = {
            let quota = |id: &PodId| self.quotas.accounts.get(id).map(|account| account.quota.clone());
            self.quotas.crowded.iter().filter_map(quota).collect()
        };
        for victim in victims.iter().filter(|victim| crowded.contains(&victim.to)) {
            let Some(id) = self.pool.pod_id(&victim.pod.namespace, &victim.pod.name) else { continue };
            let pod = self.target(id);
            let note = Record {
                about: pod.clone(),
                warning: false,
                reason: "Preempted".into(),
                message: victim.to_string().into(),
                source: NAME,
                at: now,
            };
            let order = self.order(Purpose::Tell, vec![Effect::Evict { pod, grace_s: None }, Effect::Record(note)]);
            orders.push(order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Labels;
    use model::scheduling::{NodeFacts, NodeScheduling, PodFacts, SchedulingSpec};

    fn cpu(milli: i64) -> Amounts {
        vec![("cpu".into(), milli)]
    }

    fn scheduler(nodes: &[i64]) -> Scheduler {
        let mut scheduler = Scheduler::new();
        for (n, milli) in nodes.iter().enumerate() {
            let allocatable = vec![("cpu".into(), *milli), ("pods".into(), 110)];
            let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
            scheduler.node(NodeFacts { name: format!("n{n}").into(), scheduling, ..NodeFacts::default() });
        }
        scheduler
    }

    fn quota(name: &str, namespace: &str, min: i64, max: i64) -> QuotaFacts {
        QuotaFacts {
            namespace: namespace.into(),
            name: name.into(),
            parent: None,
            min: cpu(min),
            max: cpu(max),
            weight: 1,
        }
    }

    fn facts(name: &str, labels: &[(&str, &str)], milli: i64, node: &str) -> PodFacts {
        let labels: Labels = labels.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect();
        PodFacts {
            namespace: "team".into(),
            name: name.into(),
            uid: name.into(),
            labels: Arc::new(labels),
            spec: Arc::new(SchedulingSpec { requests: cpu(milli), ..SchedulingSpec::default() }),
            node: node.into(),
            ..PodFacts::default()
        }
    }

    fn step(scheduler: &mut Scheduler, at: i64) -> Vec<String> {
        let orders = scheduler.step(Timestamp::from_secs(at), 100);
        let tell = |effect: &Effect| match effect {
            Effect::Bind { pod, node, .. } => Some(format!("{} to {node}", pod.key.name)),
            Effect::Evict { pod, .. } => Some(format!("evict {}", pod.key.name)),
            Effect::Record(note) if &*note.reason != "Scheduled" => {
                Some(format!("{}: {}", note.about.key.name, note.message))
            }
            _ => None,
        };
        orders.iter().flat_map(|order| &order.effects).filter_map(tell).collect()
    }

    #[test]
    fn a_pod_waits_for_its_quota_and_no_longer() {
        let mut scheduler = scheduler(&[4000]);
        assert_eq!(scheduler.quota(quota("team", "team", 1000, 2000)), []);
        for name in ["a", "b"] {
            scheduler.pod_facts(&facts(name, &[], 1500, ""), false, true, None);
        }
        let told = step(&mut scheduler, 1);
        assert_eq!(told[0], "a to n0");
        let wanted = "b: 0/1 nodes are available: Insufficient quotas, quotaName: team, cpu: runtime 2000, used 1500, \
                      requested 1500.";
        assert!(told[1].starts_with(wanted), "{told:?}");
        // Others' pods and events are no reason to try again; that of its own quota is.
        let mut other = facts("other", &[], 100, "n0");
        other.namespace = "elsewhere".into();
        scheduler.pod_facts(&other, false, true, None);
        assert_eq!(step(&mut scheduler, 2), Vec::<String>::new());
        scheduler.pod_facts(&facts("a", &[], 1500, "n0"), true, true, None);
        assert_eq!(step(&mut scheduler, 3), ["b to n0"]);
        // Without the quota nothing bounds it.
        scheduler.pod_facts(&facts("c", &[], 1500, ""), false, true, None);
        assert_eq!(step(&mut scheduler, 4).len(), 1);
        assert_eq!(scheduler.quota_gone(&Key::new("team", "team")), []);
        assert_eq!(step(&mut scheduler, 5), ["c to n0"]);
    }

    #[test]
    fn what_was_lent_is_taken_back_when_it_is_asked_for() {
        let mut scheduler = scheduler(&[2000, 2000]);
        scheduler.quota(quota("red", "quotas", 1000, 4000));
        scheduler.quota(quota("blue", "quotas", 3000, 4000));
        let red = [("quota.scheduling.koordinator.sh/name", "red")];
        let blue = [("quota.scheduling.koordinator.sh/name", "blue")];
        for (n, name) in ["r0", "r1", "r2", "r3"].iter().enumerate() {
            let kept = [red[0], ("quota.scheduling.koordinator.sh/preemptible", "false")];
            let labels = if n == 3 { &kept[..] } else { &red[..] };
            let placed = facts(name, labels, 1000, if n < 2 { "n0" } else { "n1" });
            scheduler.pod_facts(
                &PodFacts { started: Some(Timestamp::from_secs(n as i64)), ..placed },
                false,
                true,
                None,
            );
        }
        assert_eq!(step(&mut scheduler, 10), Vec::<String>::new(), "nobody asks for it");
        scheduler.pod_facts(&facts("b0", &blue, 1000, ""), false, true, None);
        scheduler.pod_facts(&facts("b1", &blue, 1000, ""), false, true, None);
        let told = step(&mut scheduler, 11);
        let evicted: Vec<&String> = told.iter().filter(|told| told.starts_with("evict")).collect();
        // r3 keeps what it has; of the others those that started last.
        assert_eq!(evicted, ["evict r2", "evict r1"]);
        assert!(told.contains(&"r2: quota blue takes back what quota red borrowed".to_owned()), "{told:?}");
        // They are on their way out: no more are taken meanwhile, nor after a while.
        for name in ["r1", "r2"] {
            let node = if name == "r1" { "n0" } else { "n1" };
            let leaving = PodFacts { terminating: true, ..facts(name, &red, 1000, node) };
            scheduler.pod_facts(&leaving, false, true, None);
        }
        assert!(step(&mut scheduler, 60).iter().all(|told| !told.starts_with("evict")));
        for name in ["r1", "r2"] {
            let node = if name == "r1" { "n0" } else { "n1" };
            scheduler.pod_facts(&facts(name, &red, 1000, node), true, true, None);
        }
        let mut bound = step(&mut scheduler, 61);
        bound.sort();
        assert_eq!(bound, ["b0 to n0", "b1 to n1"]);
        // The borrower's next pod waits for its quota.
        scheduler.pod_facts(&facts("r4", &red, 1000, ""), false, true, None);
        assert!(step(&mut scheduler, 62)[0].contains("quotaName: red"));
    }

    #[test]
    fn a_gang_fits_its_quota_whole_or_waits() {
        let mut scheduler = scheduler(&[8000]);
        scheduler.quota(quota("red", "quotas", 0, 2500));
        let labels = [
            ("quota.scheduling.koordinator.sh/name", "red"),
            ("pod-group.scheduling.sigs.k8s.io/name", "g"),
            ("pod-group.scheduling.sigs.k8s.io/min-available", "3"),
        ];
        for name in ["a", "b", "c"] {
            scheduler.pod_facts(&facts(name, &labels, 1000, ""), false, true, None);
        }
        let told = step(&mut scheduler, 1);
        let wanted = "0/1 nodes are available: pod group team/g: Insufficient quotas, quotaName: red, cpu: runtime 2500, \
                      used 2000, requested 1000.";
        assert_eq!(told.len(), 3);
        assert!(told.iter().all(|told| told.contains(wanted)), "{told:?}");
        scheduler.quota(quota("red", "quotas", 0, 3000));
        assert_eq!(step(&mut scheduler, 2), ["a to n0", "b to n0", "c to n0"]);
    }

    #[test]
    fn quotas_may_come_in_any_order_and_wrong_ones_are_told() {
        let mut scheduler = scheduler(&[8000]);
        let part = QuotaFacts { parent: Some("org".into()), ..quota("part", "quotas", 1000, 2000) };
        assert_eq!(scheduler.quota(part), [QuotaError::NoParent("org".into())]);
        assert_eq!(scheduler.quota(quota("org", "quotas", 500, 2000)).len(), 1, "its part is sure of more than it");
        assert_eq!(scheduler.quota(quota("org", "quotas", 1000, 2000)), []);
    }
}

//! Which keys are to be looked at: a first-in first-out queue without doubles, timers, and per-key back-off.

use model::map::{HashMap, HashSet};
use model::{Key, Kind, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The reconcilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named as its file")]
pub enum Controller {
    Namespace,
    ServiceAccount,
    RootCa,
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    TtlAfterFinished,
    EndpointSlice,
    Endpoints,
    Collector,
    NodeLifecycle,
    TaintEviction,
    PodCollector,
    Claim,
    Volume,
    Disruption,
    Autoscaler,
}

impl Controller {
    /// All of them, in the order of their declaration.
    pub const ALL: [Controller; 20] = [
        Controller::Namespace,
        Controller::ServiceAccount,
        Controller::RootCa,
        Controller::Deployment,
        Controller::ReplicaSet,
        Controller::StatefulSet,
        Controller::DaemonSet,
        Controller::Job,
        Controller::CronJob,
        Controller::TtlAfterFinished,
        Controller::EndpointSlice,
        Controller::Endpoints,
        Controller::Collector,
        Controller::NodeLifecycle,
        Controller::TaintEviction,
        Controller::PodCollector,
        Controller::Claim,
        Controller::Volume,
        Controller::Disruption,
        Controller::Autoscaler,
    ];

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Controller::Namespace => "namespace",
            Controller::ServiceAccount => "serviceaccount",
            Controller::RootCa => "root-ca",
            Controller::Deployment => "deployment",
            Controller::ReplicaSet => "replicaset",
            Controller::StatefulSet => "statefulset",
            Controller::DaemonSet => "daemonset",
            Controller::Job => "job",
            Controller::CronJob => "cronjob",
            Controller::TtlAfterFinished => "ttl-after-finished",
            Controller::EndpointSlice => "endpointslice",
            Controller::Endpoints => "endpoints",
            Controller::Collector => "garbage-collector",
            Controller::NodeLifecycle => "node-lifecycle",
            Controller::TaintEviction => "taint-eviction",
            Controller::PodCollector => "pod-garbage-collector",
            Controller::Claim => "persistentvolume-binder",
            Controller::Volume => "persistentvolume-reclaimer",
            Controller::Disruption => "disruption",
            Controller::Autoscaler => "horizontal-pod-autoscaler",
        }
    }
}

/// One object for one reconciler to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Who looks.
    pub controller: Controller,
    /// Kind of the object.
    pub kind: Kind,
    /// Its name.
    pub key: Key,
}

impl Item {
    /// An item.
    pub fn new(controller: Controller, kind: Kind, key: &Key) -> Self {
        Item { controller, kind, key: key.clone() }
    }
}

/// First delay after a failure; doubles with each further one.
const BACKOFF_FIRST_MS: i64 = 20;
/// Longest delay between two attempts.
const BACKOFF_MAX_MS: i64 = 60_000;

/// A look through fewer objects needs no pause.
const PAUSE_FROM: usize = 50;
/// Objects looked through that are worth a millisecond of pause.
const OBJECTS_PER_MS: i64 = 10;
/// The longest pause.
const PAUSE_MAX_MS: i64 = 500;

/// The queue.
#[derive(Default)]
pub struct Queue {
    ready: VecDeque<Item>,
    queued: HashSet<Item>,
    timers: BTreeMap<Timestamp, BTreeSet<Item>>,
    timer_of: HashMap<Item, Timestamp>,
    failures: HashMap<Item, u32>,
    held: HashMap<Item, Timestamp>,
    paused: HashMap<Item, Timestamp>,
}

impl Queue {
    /// Puts an item at the end unless it is there; one that is being held back after a failure waits for its time.
    pub fn push(&mut self, item: Item) {
        if let Some(at) = self.held.get(&item).max(self.paused.get(&item)).copied() {
            self.push_at(item, at);
        } else if self.queued.insert(item.clone()) {
            self.ready.push_back(item);
        }
    }
    /// Takes the first.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.ready.pop_front()?;
        self.queued.remove(&item);
        Some(item)
    }
    /// Puts an item in at `at`, instead of at the time said before: every look works out anew when the next one is due.
    pub fn push_at(&mut self, item: Item, at: Timestamp) {
        self.cancel_timer(&item);
        self.timer_of.insert(item.clone(), at);
        self.timers.entry(at).or_default().insert(item);
    }
    /// Takes an item's timer away.
    pub fn cancel_timer(&mut self, item: &Item) {
        if let Some(before) = self.timer_of.remove(item)
            && let Some(items) = self.timers.get_mut(&before)
        {
            items.remove(item);
            if items.is_empty() {
                self.timers.remove(&before);
            }
        }
    }
    /// Moves what is due by `now` into the queue.
    pub fn fire(&mut self, now: Timestamp) {
        while let Some(entry) = self.timers.first_entry() {
            if *entry.key() > now {
                break;
            }
            for item in entry.remove() {
                self.timer_of.remove(&item);
                for waits in [&mut self.held, &mut self.paused] {
                    if waits.get(&item).is_some_and(|at| *at <= now) {
                        waits.remove(&item);
                    }
                }
                self.push(item);
            }
        }
    }
    /// Holds an item back after a failure, for longer each time.
    pub fn fail(&mut self, item: &Item, now: Timestamp) {
        let failures = self.failures.entry(item.clone()).or_default();
        let delay = BACKOFF_FIRST_MS.saturating_mul(1 << (*failures).min(20)).min(BACKOFF_MAX_MS);
        *failures += 1;
        let at = now.plus_ms(delay);
        self.held.insert(item.clone(), at);
        self.push_at(item.clone(), at);
    }
    /// Lets an item rest after a look through `cost` objects.
    pub fn pause(&mut self, item: &Item, cost: usize, now: Timestamp) {
        if cost >= PAUSE_FROM {
            let ms = (cost as i64 / OBJECTS_PER_MS).min(PAUSE_MAX_MS);
            self.paused.insert(item.clone(), now.plus_ms(ms));
        } else {
            self.paused.remove(item);
        }
    }
    /// Forgets an item's failures.
    pub fn succeed(&mut self, item: &Item) {
        self.failures.remove(item);
        self.held.remove(item);
    }
    /// How many are ready.
    pub fn depth(&self) -> usize {
        self.ready.len()
    }
    /// When the next timer is due; `Timestamp(i64::MIN)` when something is ready already.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        if self.ready.is_empty() { self.timers.keys().next().copied() } else { Some(Timestamp(i64::MIN)) }
    }
}

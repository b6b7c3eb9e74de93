//! Runs the pod scheduler on the shared informers: facts in, orders out. It decides nothing itself.

use crate::executor::{Executor, now};
use crate::subscriber::{Change, Subscriber};
use control::scheduler::{Order, Scheduler};
use model::effect::{Made, Receipt};
use model::scheduling::TopologyFacts;
use model::{Event, Key, Kind};
use placement::StorageChange;
use placement::quota::QuotaError;
use project::scheduling::custom;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::mpsc;

/// Decisions between two looks at what has happened meanwhile.
const BATCH: usize = 256;
/// What must be known before the first decision: a pod placed on half a picture is placed wrongly.
const NEEDED: [Kind; 7] = [
    Kind::Pod,
    Kind::Node,
    Kind::Namespace,
    Kind::PodDisruptionBudget,
    Kind::PersistentVolume,
    Kind::PersistentVolumeClaim,
    Kind::StorageClass,
];

/// The scheduler's ear at the informers.
#[derive(Clone)]
pub struct Ear {
    changes: mpsc::UnboundedSender<Vec<Change>>,
}

impl Subscriber for Ear {
    fn observe(&self, changes: &[Change]) {
        // When the scheduler has ended nobody listens: the process is going down.
        let _ = self.changes.send(changes.to_vec());
    }
}

/// The scheduler's loop, to be run on a runtime.
pub struct Loop {
    changes: mpsc::UnboundedReceiver<Vec<Change>>,
    state: State,
}

struct State {
    scheduler: Scheduler,
    executor: Executor,
    done: mpsc::UnboundedSender<(Option<Key>, Receipt)>,
    /// Orders about one object are carried out one after the other: a condition written late must not undo a binding's.
    under_way: HashMap<Key, VecDeque<Order>>,
    awaited: BTreeSet<Kind>,
}

/// A scheduler that carries its orders out through `executor`.
pub fn new(executor: Executor) -> (Ear, Loop) {
    let (sender, changes) = mpsc::unbounded_channel();
    let (done, _) = mpsc::unbounded_channel();
    let state = State {
        scheduler: Scheduler::new(),
        executor,
        done,
        under_way: HashMap::new(),
        awaited: NEEDED.into_iter().collect(),
    };
    (Ear { changes: sender }, Loop { changes, state })
}

impl Loop {
    /// Runs until the informers end.
    pub async fn run(self) {
        let Loop { mut changes, mut state } = self;
        let (done, mut receipts) = mpsc::unbounded_channel();
        state.done = done;
        loop {
            let wait = state.wait();
            tokio::select! {
                heard = changes.recv() => match heard {
                    Some(heard) => state.hear(&heard),
                    None => return,
                },
                Some((key, receipt)) = receipts.recv() => state.settle(key, &receipt),
                () = tokio::time::sleep(wait) => {}
            }
            loop {
                while let Ok(heard) = changes.try_recv() {
                    state.hear(&heard);
                }
                while let Ok((key, receipt)) = receipts.try_recv() {
                    state.settle(key, &receipt);
                }
                if !state.decide() {
                    break;
                }
                // Let the calls that carry the decisions out start before the next batch.
                tokio::task::yield_now().await;
            }
        }
    }
}

impl State {
    /// How long nothing is to be done if nothing happens.
    fn wait(&self) -> Duration {
        let until = self.scheduler.wake_at().map_or(60_000, |at| at.since_ms(now()).clamp(1, 60_000));
        Duration::from_millis(until.unsigned_abs())
    }

    fn hear(&mut self, changes: &[Change]) {
        for change in changes {
            if let Event::Synced(kind) = &change.event {
                self.awaited.remove(kind);
                if self.awaited.is_empty() && NEEDED.contains(kind) {
                    let size = self.scheduler.pool().size();
                    tracing::info!(nodes = size.nodes, pods = size.pods, classes = size.classes, "scheduler is ready");
                }
            }
            if !self.storage(change) && !self.custom(change) {
                self.scheduler.observe(&change.event);
            }
        }
    }

    /// Storage objects are read from their bytes: more of them matters to placement than their projections hold.
    fn storage(&mut self, change: &Change) -> bool {
        let plural = change.resource.plural;
        if !matches!(plural, "persistentvolumes" | "persistentvolumeclaims" | "storageclasses" | "csinodes") {
            return false;
        }
        if let Event::Deleted { key, .. } = &change.event {
            self.scheduler.storage(match plural {
                "persistentvolumes" => StorageChange::VolumeGone(key.name.clone()),
                "persistentvolumeclaims" => StorageChange::ClaimGone(key.clone()),
                "storageclasses" => StorageChange::ClassGone(key.name.clone()),
                _ => StorageChange::CsiNodeGone(key.name.clone()),
            });
            return true;
        }
        let Some(bytes) = &change.bytes else { return true };
        match serde_json::from_slice::<Value>(bytes) {
            Ok(object) => self.scheduler.storage(match plural {
                "persistentvolumes" => StorageChange::Volume(project::scheduling::volume(&object)),
                "persistentvolumeclaims" => StorageChange::Claim(project::scheduling::claim(&object)),
                "storageclasses" => StorageChange::Class(project::scheduling::storage_class(&object)),
                _ => StorageChange::CsiNode(project::scheduling::csi_node(&object)),
            }),
            Err(error) => tracing::warn!(resource = plural, %error, "an object that is no JSON"),
        }
        true
    }

    /// Kinds of the field that somebody has defined here, and that bear on placement.
    fn custom(&mut self, change: &Change) -> bool {
        let resource = change.resource;
        let known = matches!(
            (resource.group, resource.plural),
            ("scheduling.sigs.k8s.io", "elasticquotas")
                | ("scheduling.x-k8s.io" | "scheduling.sigs.k8s.io", "podgroups")
                | ("topology.node.k8s.io", "noderesourcetopologies")
                | ("slo.koordinator.sh", "nodemetrics")
                | ("scheduling.koordinator.sh", "devices" | "reservations")
        );
        if !known {
            return false;
        }
        if let Event::Deleted { key, .. } = &change.event {
            match resource.plural {
                "elasticquotas" => tell_errors(key, &self.scheduler.quota_gone(key)),
                "podgroups" => self.scheduler.pod_group(key, None),
                "noderesourcetopologies" => {
                    let gone = TopologyFacts { node: key.name.clone(), ..TopologyFacts::default() };
                    self.scheduler.topology(&gone);
                }
                "devices" => self.scheduler.gpus(&key.name, None),
                "reservations" => self.scheduler.unreserve(&key.name),
                _ => self.scheduler.usage_gone(&key.name),
            }
            return true;
        }
        let (Some(bytes), Event::Applied(seen)) = (&change.bytes, &change.event) else { return true };
        let key = &seen.meta().key;
        match serde_json::from_slice::<Value>(bytes) {
            Ok(object) => match resource.plural {
                "elasticquotas" => tell_errors(key, &self.scheduler.quota(custom::elastic_quota(&object))),
                "podgroups" => self.scheduler.pod_group(key, custom::least_members(&object)),
                "noderesourcetopologies" => self.scheduler.topology(&custom::node_topology(&object)),
                "devices" => self.scheduler.gpus(&key.name, Some(&custom::gpus(&object))),
                "reservations" => self.scheduler.reserve(Kind::Other(resource), custom::reservation(&object)),
                _ => match custom::node_metric(&object) {
                    Some(usage) => self.scheduler.usage(usage),
                    None => self.scheduler.usage_gone(&key.name),
                },
            },
            Err(error) => tracing::warn!(resource = resource.plural, %error, "an object that is no JSON"),
        }
        true
    }

    /// Decides on a batch. Returns whether there was anything to decide.
    fn decide(&mut self) -> bool {
        if !self.awaited.is_empty() {
            return false;
        }
        let orders = self.scheduler.step(now(), BATCH);
        let any = !orders.is_empty();
        for order in orders {
            let key = order.effects.first().and_then(|effect| effect.subject()).map(|(_, key)| key.clone());
            match key {
                Some(key) => match self.under_way.get_mut(&key) {
                    Some(queued) => queued.push_back(order),
                    None => {
                        self.under_way.insert(key.clone(), VecDeque::new());
                        self.start(Some(key), order);
                    }
                },
                None => self.start(None, order),
            }
        }
        any
    }

    fn start(&self, key: Option<Key>, order: Order) {
        let (executor, done) = (self.executor.clone(), self.done.clone());
        tokio::spawn(async move {
            let mut outcome = Ok(Made::default());
            for effect in &order.effects {
                outcome = executor.execute(order.id, effect).await.outcome;
                // An event that cannot be told changes nothing for the pod.
                if outcome.is_err() && !matches!(effect, model::Effect::Record(_)) {
                    break;
                }
                if matches!(effect, model::Effect::Record(_)) {
                    outcome = Ok(Made::default());
                }
            }
            let _ = done.send((key, Receipt { order: order.id, outcome }));
        });
    }

    fn settle(&mut self, key: Option<Key>, receipt: &Receipt) {
        if let Err(refusal) = &receipt.outcome {
            tracing::warn!(order = receipt.order, code = refusal.code, reason = %refusal.reason, message = %refusal.message, object = ?key, "scheduler's order refused");
        }
        self.scheduler.observe(&Event::Done(receipt.clone()));
        let Some(key) = key else { return };
        match self.under_way.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => self.start(Some(key), next),
            None => {
                self.under_way.remove(&key);
            }
        }
    }
}

/// Quotas that do not count, after one of them changed.
fn tell_errors(changed: &Key, errors: &[QuotaError]) {
    for error in errors {
        tracing::warn!(quota = %changed, %error, "a quota does not count");
    }
}

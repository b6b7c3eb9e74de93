//! The loop: what the informers tell goes to all who follow and into the control; what the control orders is carried out; how that ended
//! goes back in.

use crate::executor::{Executor, now};
use crate::informer::Informer;
use crate::subscriber::{Change, Subscriber};
use crate::types::{self, Types};
use client::ObjectApi;
use control::{Control, Order};
use model::effect::Receipt;
use model::{Effect, Event, Kind, Object, ResourceType};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Messages from informers that may wait; beyond that they wait with their watches.
const BACKLOG: usize = 256;
/// Facts taken in before the control is asked.
const FACTS_MAX: usize = 4096;

/// Settings of the manager.
#[derive(Clone)]
pub struct Config {
    /// Settings of the reconcilers.
    pub control: control::Config,
    /// API calls at once.
    pub concurrency: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { control: control::Config::default(), concurrency: 32 }
    }
}

/// A control that others may look into (dashboard, metrics) between its steps.
pub type SharedControl = Arc<Mutex<Control>>;

/// The manager: build it, add subscribers, run it.
pub struct Manager {
    api: Arc<dyn ObjectApi>,
    executor: Executor,
    control: SharedControl,
    subscribers: Vec<Arc<dyn Subscriber>>,
}

impl Manager {
    /// A manager over `api`.
    pub fn new(api: Arc<dyn ObjectApi>, config: Config) -> Self {
        let executor = Executor::new(api.clone(), config.concurrency);
        let control = Arc::new(Mutex::new(Control::new(config.control)));
        Manager { api, executor, control, subscribers: Vec::new() }
    }
    /// What carries effects out; the scheduler shares it.
    pub fn executor(&self) -> Executor {
        self.executor.clone()
    }
    /// The control, to look into.
    pub fn control(&self) -> SharedControl {
        self.control.clone()
    }
    /// Adds somebody who follows the informers.
    pub fn subscribe(&mut self, subscriber: Arc<dyn Subscriber>) {
        self.subscribers.push(subscriber);
    }

    /// Runs until `shutdown` says true (or its sender is gone). Orders that were given are finished first.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let (changes_in, mut changes) = mpsc::channel(BACKLOG);
        let (receipts_in, mut receipts) = mpsc::unbounded_channel();
        let mut running = Loop {
            informers: Informers { api: self.api, out: changes_in, types: Types::default(), custom: HashMap::new() },
            control: self.control,
            subscribers: self.subscribers,
            executor: self.executor,
            receipts: receipts_in,
        };
        running.start();
        loop {
            let wait = running.wait();
            let mut facts = Vec::new();
            tokio::select! {
                changed = shutdown.changed() => {
                    if changed.is_err() || *shutdown.borrow() {
                        running.informers.stop();
                        return;
                    }
                }
                Some(batch) = changes.recv() => running.hear(batch, &mut facts),
                Some(receipt) = receipts.recv() => facts.push(Event::Done(receipt)),
                () = tokio::time::sleep(wait) => {}
            }
            while facts.len() < FACTS_MAX {
                if let Ok(batch) = changes.try_recv() {
                    running.hear(batch, &mut facts);
                } else if let Ok(receipt) = receipts.try_recv() {
                    facts.push(Event::Done(receipt));
                } else {
                    break;
                }
            }
            running.step(&facts);
            // Other tasks of this thread (the API server in the same process) have their turn.
            tokio::task::yield_now().await;
        }
    }
}

struct Loop {
    informers: Informers,
    control: SharedControl,
    subscribers: Vec<Arc<dyn Subscriber>>,
    executor: Executor,
    receipts: mpsc::UnboundedSender<Receipt>,
}

fn lock(control: &SharedControl) -> std::sync::MutexGuard<'_, Control> {
    // A step that panics leaves keys unlooked at, not objects half written: going on is better than standing still.
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Loop {
    fn start(&mut self) {
        let types = types::builtin();
        let mut control = lock(&self.control);
        for resource in types {
            control.expect(project::kind_of(resource));
            self.informers.start(resource);
        }
    }

    fn wait(&self) -> Duration {
        let until = lock(&self.control).next_wakeup().map_or(60_000, |at| at.since_ms(now()).clamp(1, 60_000));
        Duration::from_millis(until.unsigned_abs())
    }

    fn hear(&mut self, batch: Vec<Change>, facts: &mut Vec<Event>) {
        for subscriber in &self.subscribers {
            subscriber.observe(&batch);
        }
        for change in batch {
            self.definitions(&change.event);
            facts.push(change.event);
        }
    }

    /// Custom resources come and go with their definitions.
    fn definitions(&mut self, event: &Event) {
        match event {
            Event::Applied(Object::CustomResourceDefinition(definition)) => {
                if let Some(resource) = self.informers.types.served_by(definition)
                    && self.informers.follow(&definition.meta.key.name, resource)
                {
                    lock(&self.control).expect(project::kind_of(resource));
                }
            }
            Event::Deleted { kind: Kind::CustomResourceDefinition, key, .. } => {
                if let Some(resource) = self.informers.drop(&key.name) {
                    lock(&self.control).forget(project::kind_of(resource), now());
                }
            }
            _ => {}
        }
    }

    fn step(&mut self, facts: &[Event]) {
        let orders = lock(&self.control).step(facts, now());
        for order in orders {
            self.carry_out(order);
        }
    }

    fn carry_out(&self, order: Order) {
        let (executor, receipts) = (self.executor.clone(), self.receipts.clone());
        tokio::spawn(async move {
            let receipt = executor.execute(order.id, &order.effect).await;
            if let Err(refusal) = &receipt.outcome {
                let subject = order.effect.subject().map(|(kind, key)| format!("{kind} {key}")).unwrap_or_default();
                let (controller, code, reason, message) =
                    (order.controller.name(), refusal.code, &refusal.reason, &refusal.message);
                if matches!(code, 404 | 409) {
                    tracing::debug!(controller, subject, code, %reason, %message, "order refused");
                } else {
                    tracing::warn!(controller, subject, code, %reason, %message, "order refused");
                }
            }
            if !matches!(order.effect, Effect::Record(_)) {
                // When the loop has ended nobody waits for receipts.
                let _ = receipts.send(receipt);
            }
        });
    }
}

struct Informers {
    api: Arc<dyn ObjectApi>,
    out: mpsc::Sender<Vec<Change>>,
    types: Types,
    custom: HashMap<Arc<str>, (&'static ResourceType, JoinHandle<()>)>,
}

impl Informers {
    fn start(&self, resource: &'static ResourceType) -> JoinHandle<()> {
        tokio::spawn(Informer::new(self.api.clone(), resource, self.out.clone()).run())
    }

    /// Follows the type of a definition. Returns whether it is new.
    fn follow(&mut self, definition: &Arc<str>, resource: &'static ResourceType) -> bool {
        if self.custom.get(definition).is_some_and(|(known, _)| *known == resource) {
            return false;
        }
        // Built-in and bundled types have their informers already.
        if types::builtin().iter().any(|known| known.group == resource.group && known.plural == resource.plural) {
            return false;
        }
        let task = self.start(resource);
        if let Some((_, old)) = self.custom.insert(definition.clone(), (resource, task)) {
            old.abort();
        }
        true
    }

    fn drop(&mut self, definition: &str) -> Option<&'static ResourceType> {
        let (resource, task) = self.custom.remove(definition)?;
        task.abort();
        Some(resource)
    }

    fn stop(&mut self) {
        for (_, (_, task)) in self.custom.drain() {
            task.abort();
        }
    }
}

//! The simulated cluster: API, control, scheduler, agents, and the delays and faults between them.

use crate::agents::Agents;
use crate::audit::{Auditor, Checked};
use crate::check::Watchman;
use crate::random::Random;
use crate::timeline::Timeline;
use control::imagined::{Api, Outcome};
use control::scheduler::{self, Scheduler};
use control::{Config, Control};
use model::effect::{Made, Receipt, Refusal};
use model::scheduling::{CsiNodeFacts, GpuFacts, QuotaFacts, Reservation, TopologyFacts, UsageFacts};
use model::{Effect, Event, Key, Kind, Object, Timestamp};
use placement::{ReservationState, StorageChange};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// How unkind the world is.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Longest delay of a watch event, in milliseconds.
    pub watch_delay_ms: i64,
    /// Longest time that a call takes to reach the API, and its answer to come back.
    pub call_delay_ms: i64,
    /// Calls in a thousand that never reach the API.
    pub lost_calls_milli: u64,
    /// Calls in a thousand that are carried out though nobody hears of it.
    pub lost_answers_milli: u64,
    /// Reports of nodes in a thousand that come up to a minute late.
    pub late_reports_milli: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            watch_delay_ms: 200,
            call_delay_ms: 50,
            lost_calls_milli: 2,
            lost_answers_milli: 2,
            late_reports_milli: 0,
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// A hash over every order, outcome and its time.
    pub trace: u64,
    /// Orders that were given.
    pub orders: u64,
    /// Orders that were refused as stale or as existing.
    pub conflicts: u64,
    /// Facts that watches told.
    pub facts: u64,
    /// Pods that were bound.
    pub bindings: u64,
    /// The most pods at one time.
    pub pods_max: usize,
}

/// Who gave an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Giver {
    Control,
    Scheduler,
}

/// What happens at some time.
pub(crate) enum Action {
    /// A watch event reaches the deciders.
    Tell(Event),
    /// A watch event reaches the agents.
    TellAgents(Event),
    /// The control looks at what has come in.
    Control,
    /// The scheduler looks at what has come in.
    Scheduler,
    /// An order reaches the API: its effects, of which the first is next.
    Execute(Giver, u64, VecDeque<Effect>),
    /// A receipt reaches whoever gave the order.
    Answer(Giver, Receipt),
    /// An agent does something.
    Agent(crate::agents::Act),
    /// Somebody does something, as told by the story.
    Story(Story),
}

/// Spoils an order of the scheduler.
pub type Tamper = fn(&mut Effect);

/// What is spoilt, to see the checkers fail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spoil {
    /// The scheduler's orders, on their way.
    pub orders: Option<Tamper>,
    /// The API grants every eviction, whatever the budgets say.
    pub budgets: bool,
    /// The API binds a second time, to another node.
    pub bindings: bool,
    /// Nobody tells the scheduler of quotas.
    pub quotas: bool,
    /// Nobody tells it what nodes really use.
    pub loads: bool,
    /// Nobody tells it where volumes are and how many a node can attach.
    pub volumes: bool,
    /// Nobody tells it of zones.
    pub zones: bool,
    /// It forgets what it has reserved.
    pub reservations: bool,
}

/// A step of the story.
pub(crate) type Story = Box<dyn FnOnce(&mut Cluster)>;

/// Facts that come in while the control is at work wait so long for more.
const GATHER_MS: i64 = 10;
/// Bindings that the scheduler decides at once.
const BATCH: usize = 512;

/// The cluster.
pub struct Cluster {
    /// The truth.
    pub api: Api,
    /// Now.
    pub now: Timestamp,
    /// Chance.
    pub random: Random,
    /// What is counted.
    pub stats: Stats,
    pub(crate) timeline: Timeline<Action>,
    pub(crate) agents: Agents,
    control: Control,
    scheduler: Scheduler,
    pub(crate) faults: Faults,
    pub(crate) spoil: Spoil,
    watchman: Watchman,
    auditor: Option<Auditor>,
    /// When the last event of a kind reached the deciders (0) and the agents (1): later ones do not overtake it.
    told: BTreeMap<(u8, Kind), Timestamp>,
    inbox: Vec<Event>,
    scheduler_inbox: Vec<Event>,
    control_planned: Option<Timestamp>,
    scheduler_planned: Option<Timestamp>,
    /// Orders of the scheduler about one pod are carried out one after the other.
    under_way: BTreeMap<Key, VecDeque<scheduler::Order>>,
    under_way_of: BTreeMap<u64, Key>,
    /// Reservations that wait for their node.
    pending: BTreeMap<Arc<str>, Reservation>,
}

impl Cluster {
    /// An empty cluster at a fixed time.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let mut cluster = Cluster {
            api: Api::default(),
            now: Timestamp::from_secs(1_767_225_600),
            random: Random::new(seed),
            stats: Stats::default(),
            timeline: Timeline::new(),
            agents: Agents::default(),
            control: Control::new(Config {
                root_ca: Some("bundle".into()),
                node_eviction_milli_per_s: 1000,
                ..Config::default()
            }),
            scheduler: Scheduler::new(),
            faults,
            spoil: Spoil::default(),
            watchman: Watchman::default(),
            auditor: None,
            told: BTreeMap::new(),
            inbox: Vec::new(),
            scheduler_inbox: Vec::new(),
            control_planned: None,
            scheduler_planned: None,
            under_way: BTreeMap::new(),
            under_way_of: BTreeMap::new(),
            pending: BTreeMap::new(),
        };
        for kind in Kind::TYPED {
            cluster.control.expect(*kind);
            cluster.inbox.push(Event::Synced(*kind));
        }
        cluster
    }

    /// Plans a step of the story, `after_ms` from now.
    pub fn then(&mut self, after_ms: i64, story: impl FnOnce(&mut Cluster) + 'static) {
        self.timeline.at(self.now.plus_ms(after_ms), Action::Story(Box::new(story)));
    }

    /// Puts an object in, as a user.
    pub fn put(&mut self, object: impl Into<Object>) {
        let event = self.api.put(object.into(), self.now);
        self.publish(event);
    }

    /// Changes an object, as a user.
    pub fn edit(&mut self, kind: Kind, key: &Key, change: impl FnOnce(&mut Object)) {
        let event = self.api.change(kind, key, |object| {
            change(object);
            control::imagined::meta_mut(object).generation += 1;
        });
        self.publish_all(event);
    }

    /// Deletes an object, as a user.
    pub fn delete(&mut self, kind: Kind, key: &Key) {
        let Some(object) = self.api.get(kind, key) else { return };
        let target = model::Target::any_version(kind, object.meta());
        let effect = Effect::Delete { target, grace_s: None, propagation: model::effect::Propagation::Background };
        if let Ok((events, _)) = self.api.execute(&effect, self.now) {
            self.publish_all(events);
        }
    }

    /// Runs for so long.
    pub fn run(&mut self, for_ms: i64) {
        let until = self.now.plus_ms(for_ms);
        self.timeline.at(until, Action::Story(Box::new(|_| {})));
        while let Some((when, action)) = self.timeline.next() {
            self.now = when;
            self.act(action);
            if when >= until {
                break;
            }
        }
    }

    /// What every checker that watches all the time has found.
    pub fn complaints(&self) -> Vec<String> {
        let audited = self.auditor.iter().flat_map(Auditor::complaints);
        self.watchman.complaints().iter().chain(audited).cloned().collect()
    }

    /// Checks promises from now on; each binding looks at all pods, so this is for small clusters.
    pub fn audit(&mut self) {
        self.auditor = Some(Auditor::default());
    }

    /// Checks what must hold in the end.
    pub fn close_audit(&mut self) {
        if let Some(auditor) = &mut self.auditor {
            auditor.in_the_end(&self.api, self.now);
        }
    }

    /// What was audited.
    pub fn checked(&self) -> Checked {
        self.auditor.as_ref().map(Auditor::checked).unwrap_or_default()
    }

    /// No more faults from now on; nodes whose agents are dead come back.
    pub fn calm(&mut self) {
        let quiet = Faults { lost_calls_milli: 0, lost_answers_milli: 0, late_reports_milli: 0, ..self.faults };
        self.faults = quiet;
        let dead: Vec<Key> = {
            let living = self.living_nodes();
            let all = self.api.list(Kind::Node).map(|node| node.meta().key.clone());
            all.filter(|key| !living.contains(key)).collect()
        };
        for node in dead {
            self.revive_node(&node.name);
        }
    }

    /// A quota is now as given.
    pub fn quota(&mut self, facts: QuotaFacts) {
        if let Some(auditor) = &mut self.auditor {
            auditor.quota(facts.clone());
        }
        if !self.spoil.quotas {
            self.scheduler.quota(facts);
        }
    }

    /// A node reports what it really uses.
    pub fn usage(&mut self, facts: UsageFacts) {
        if let Some(auditor) = &mut self.auditor {
            auditor.usage(facts.clone(), self.now);
        }
        if !self.spoil.loads {
            self.scheduler.usage(facts);
            self.plan_scheduler(self.now.plus_ms(GATHER_MS));
        }
    }

    /// A node has these zones.
    pub fn zones(&mut self, facts: TopologyFacts) {
        if !self.spoil.zones {
            self.scheduler.topology(&facts);
        }
        self.auditor.iter_mut().for_each(|auditor| auditor.zones(facts.clone()));
    }

    /// A node has these GPUs.
    pub fn gpus(&mut self, facts: GpuFacts) {
        self.scheduler.gpus(&facts.node, Some(&facts));
        self.auditor.iter_mut().for_each(|auditor| auditor.gpus(facts.clone()));
    }

    /// A node can attach so many volumes.
    pub fn attach_limits(&mut self, facts: CsiNodeFacts) {
        self.auditor.iter_mut().for_each(|auditor| auditor.attach_limits(&facts));
        if !self.spoil.volumes {
            self.scheduler.storage(StorageChange::CsiNode(facts));
        }
    }

    /// Room is to be held.
    pub fn reservation(&mut self, facts: Reservation) {
        self.reservation_gone(&facts.name.clone());
        self.pending.insert(facts.name.clone(), facts.clone());
        self.scheduler.reservation(facts);
        self.plan_scheduler(self.now.plus_ms(GATHER_MS));
    }

    /// Room is to be held no longer.
    pub fn reservation_gone(&mut self, name: &str) {
        self.pending.remove(name);
        self.scheduler.reservation_gone(name);
        self.auditor.iter_mut().for_each(|auditor| auditor.held_no_more(name));
        self.plan_scheduler(self.now.plus_ms(GATHER_MS));
    }

    /// Takes the scheduler at its word: what it says to hold has to be there.
    fn hear_of_reservations(&mut self) {
        let mut held = Vec::new();
        self.pending.retain(|name, facts| {
            let state = self.scheduler.pool().reservation(name).map(|(state, _)| state);
            if let Some(ReservationState::Available(node, _)) = &state {
                held.push((facts.clone(), self.scheduler.pool().node_name(*node).clone()));
            }
            state == Some(ReservationState::Pending)
        });
        for (facts, node) in held {
            if self.spoil.reservations {
                self.scheduler.reservation_gone(&facts.name);
            }
            let now = self.now;
            self.auditor.iter_mut().for_each(|auditor| auditor.held(facts.clone(), node.clone(), now));
        }
    }

    /// Annotates an object, as somebody who knows nothing of the others.
    pub fn annotate(&mut self, kind: Kind, key: &Key, name: &str, value: Arc<str>) {
        let event = self.api.change(kind, key, |object| {
            control::imagined::meta_mut(object).annotations.insert(name.into(), value);
        });
        self.publish_all(event);
    }

    /// Asks the API to evict a pod, as `kubectl drain` does; it refuses what a disruption budget does not allow. Returns whether it
    /// was granted.
    pub fn evict(&mut self, key: &Key) -> bool {
        let Some(pod) = self.api.pod(key).cloned().filter(|pod| !pod.meta.is_deleting()) else { return false };
        let matching = |object: &Object| {
            let Object::PodDisruptionBudget(budget) = object else { return None };
            let selects = budget.selector.as_ref().is_some_and(|selector| selector.matches(&pod.meta.labels));
            (selects && budget.meta.key.namespace == key.namespace).then(|| budget.clone())
        };
        let budgets: Vec<_> = self.api.list(Kind::PodDisruptionBudget).filter_map(matching).collect();
        if budgets.len() > 1 && !self.spoil.budgets {
            return false;
        }
        if let Some(budget) = budgets.first() {
            let status = &budget.status;
            let stale = status.observed_generation < budget.meta.generation;
            // What is not healthy may go when enough others are.
            let unhealthy = !pod.is_ready() && status.current >= status.desired && status.desired > 0;
            if (stale || !unhealthy && status.allowed <= 0) && !self.spoil.budgets {
                return false;
            }
            if !unhealthy {
                let (now, name) = (self.now, key.name.clone());
                let event = self.api.change(Kind::PodDisruptionBudget, &budget.meta.key, |object| {
                    if let Object::PodDisruptionBudget(budget) = object {
                        let status = &mut Arc::make_mut(budget).status;
                        status.allowed -= 1;
                        status.disrupted.push((name, now));
                    }
                });
                self.publish_all(event);
            }
        }
        if let Some(auditor) = &mut self.auditor {
            auditor.evicting(&self.api, &pod, self.now);
        }
        self.delete(Kind::Pod, key);
        true
    }

    pub(crate) fn publish_all(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.publish(event);
        }
    }

    /// Sends a fact to all who watch, each after a delay of its own; facts of one kind stay in order.
    fn publish(&mut self, event: Event) {
        let kind = match &event {
            Event::Applied(object) => object.kind(),
            Event::Deleted { kind, .. } => *kind,
            Event::Synced(_) | Event::Done(_) => return,
        };
        self.watchman.see(&self.api, &event, self.now);
        if let Some(auditor) = &mut self.auditor {
            auditor.see(&self.api, &event, self.now);
        }
        self.stats.facts += 1;
        self.stats.pods_max = self.stats.pods_max.max(self.watchman.pods());
        if matches!(kind, Kind::Pod | Kind::Node) {
            let when = self.delivery(1, kind);
            self.timeline.at(when, Action::TellAgents(event.clone()));
        }
        let when = self.delivery(0, kind);
        self.timeline.at(when, Action::Tell(event));
    }

    fn delivery(&mut self, who: u8, kind: Kind) -> Timestamp {
        // Mostly quick, sometimes slow.
        let longest = if self.random.milli(50) { self.faults.watch_delay_ms } else { self.faults.watch_delay_ms / 20 };
        let when = self.now.plus_ms(self.random.between(0, longest.max(1)));
        let last = self.told.entry((who, kind)).or_default();
        *last = when.max(*last);
        *last
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Tell(event) => {
                if wanted_by_scheduler(&event) {
                    self.scheduler_inbox.push(event.clone());
                    self.plan_scheduler(self.now.plus_ms(GATHER_MS));
                }
                self.inbox.push(event);
                self.plan_control(self.now.plus_ms(GATHER_MS));
            }
            Action::TellAgents(event) => self.tell_agents(&event),
            Action::Control => self.run_control(),
            Action::Scheduler => self.run_scheduler(),
            Action::Execute(giver, id, effects) => self.execute(giver, id, effects),
            Action::Answer(giver, receipt) => self.answer(giver, receipt),
            Action::Agent(act) => self.agent(act),
            Action::Story(story) => story(self),
        }
    }

    fn plan_control(&mut self, when: Timestamp) {
        if self.control_planned.is_none_or(|planned| when < planned) {
            self.control_planned = Some(when);
            self.timeline.at(when, Action::Control);
        }
    }

    fn plan_scheduler(&mut self, when: Timestamp) {
        if self.scheduler_planned.is_none_or(|planned| when < planned) {
            self.scheduler_planned = Some(when);
            self.timeline.at(when, Action::Scheduler);
        }
    }

    fn run_control(&mut self) {
        if self.control_planned.is_none_or(|planned| planned > self.now) {
            // An earlier look has done what this one was planned for.
            return;
        }
        self.control_planned = None;
        let facts = std::mem::take(&mut self.inbox);
        for order in self.control.step(&facts, self.now) {
            if order.id == 0 {
                continue;
            }
            self.stats.orders += 1;
            self.note(order.controller as u64, order.id, &order.effect);
            self.send(Giver::Control, order.id, VecDeque::from([order.effect]));
        }
        if let Some(at) = self.control.next_wakeup() {
            self.plan_control(at.max(self.now.plus_ms(1)));
        }
    }

    fn run_scheduler(&mut self) {
        if self.scheduler_planned.is_none_or(|planned| planned > self.now) {
            return;
        }
        self.scheduler_planned = None;
        for event in std::mem::take(&mut self.scheduler_inbox) {
            match crate::storage::change(&event) {
                Some(StorageChange::Volume(mut volume)) if self.spoil.volumes => {
                    (volume.node_affinity, volume.labels) = (None, model::Labels::new());
                    self.scheduler.storage(StorageChange::Volume(volume));
                }
                Some(change) => self.scheduler.storage(change),
                None => self.scheduler.observe(&event),
            }
        }
        let mut orders = self.scheduler.step(self.now, BATCH);
        self.hear_of_reservations();
        let more = !orders.is_empty();
        if let Some(tamper) = self.spoil.orders {
            orders.iter_mut().flat_map(|order| &mut order.effects).for_each(tamper);
        }
        for order in orders {
            let subject = order.effects.first().and_then(Effect::subject).map(|(_, key)| key.clone());
            self.stats.orders += 1;
            if let Some(effect) = order.effects.first() {
                self.note(1000, order.id, effect);
            }
            match subject {
                Some(key) => match self.under_way.get_mut(&key) {
                    Some(queued) => queued.push_back(order),
                    None => {
                        self.under_way.insert(key.clone(), VecDeque::new());
                        self.under_way_of.insert(order.id, key);
                        self.send(Giver::Scheduler, order.id, order.effects.into());
                    }
                },
                None => self.send(Giver::Scheduler, order.id, order.effects.into()),
            }
        }
        if more {
            self.plan_scheduler(self.now.plus_ms(1));
        } else if let Some(at) = self.scheduler.wake_at() {
            self.plan_scheduler(at.max(self.now.plus_ms(1)));
        }
    }

    fn send(&mut self, giver: Giver, id: u64, effects: VecDeque<Effect>) {
        let when = self.now.plus_ms(self.random.between(1, self.faults.call_delay_ms.max(1)));
        if self.random.milli(self.faults.lost_calls_milli) {
            self.doubt(giver);
            return self.reply(giver, id, Err(lost()));
        }
        self.timeline.at(when, Action::Execute(giver, id, effects));
    }

    /// Carries effects out one after the other until one fails.
    fn execute(&mut self, giver: Giver, id: u64, mut effects: VecDeque<Effect>) {
        let mut outcome = Ok(Made::default());
        while let Some(effect) = effects.pop_front() {
            if matches!(effect, Effect::Record(_)) {
                continue;
            }
            if let Effect::Evict { pod, .. } = &effect {
                outcome = self.grant(pod);
                if outcome.is_err() {
                    break;
                }
                continue;
            }
            let done: Outcome = self.api.execute(&effect, self.now);
            match done {
                Ok((events, revision)) => {
                    self.stats.bindings += u64::from(matches!(effect, Effect::Bind { .. }));
                    self.publish_all(events);
                    self.bind_again(&effect);
                    outcome = Ok(Made { revision });
                }
                Err(refusal) => {
                    self.stats.conflicts += u64::from(refusal.is_conflict());
                    outcome = Err(refusal);
                    break;
                }
            }
        }
        let code = outcome.as_ref().map_or_else(|refusal| u64::from(refusal.code), |_| 200);
        self.mix(code);
        if self.random.milli(self.faults.lost_answers_milli) {
            self.doubt(giver);
            outcome = Err(lost());
        }
        self.reply(giver, id, outcome);
    }

    /// An order to evict, as far as the budgets let it.
    fn grant(&mut self, pod: &model::effect::Target) -> Result<Made, Refusal> {
        let known = self.api.pod(&pod.key).is_some_and(|known| known.meta.uid == pod.uid);
        if known && self.evict(&pod.key) {
            return Ok(Made::default());
        }
        let (code, reason) = if known { (429, "TooManyRequests") } else { (404, "NotFound") };
        Err(Refusal { code, reason: reason.into(), message: "the pod is not evicted".into() })
    }

    /// What an API would do that lets a pod be bound twice.
    fn bind_again(&mut self, effect: &Effect) {
        if let Effect::Bind { pod, node, .. } = effect
            && self.spoil.bindings
            && **node != *"node-1"
        {
            self.edit(Kind::Pod, &pod.key, |object| {
                if let Object::Pod(pod) = object {
                    Arc::make_mut(pod).spec.node_name = "node-1".into();
                }
            });
        }
    }

    fn doubt(&mut self, giver: Giver) {
        if let Some(auditor) = self.auditor.as_mut().filter(|_| giver == Giver::Scheduler) {
            auditor.doubt(self.now);
        }
    }

    fn reply(&mut self, giver: Giver, id: u64, outcome: Result<Made, Refusal>) {
        let when = self.now.plus_ms(self.random.between(1, self.faults.call_delay_ms.max(1)));
        self.timeline.at(when, Action::Answer(giver, Receipt { order: id, outcome }));
    }

    fn answer(&mut self, giver: Giver, receipt: Receipt) {
        match giver {
            Giver::Control => {
                self.inbox.push(Event::Done(receipt));
                self.plan_control(self.now.plus_ms(GATHER_MS));
            }
            Giver::Scheduler => {
                let key = self.under_way_of.remove(&receipt.order);
                self.scheduler_inbox.push(Event::Done(receipt));
                self.plan_scheduler(self.now.plus_ms(GATHER_MS));
                let Some(key) = key else { return };
                match self.under_way.get_mut(&key).and_then(VecDeque::pop_front) {
                    Some(next) => {
                        self.under_way_of.insert(next.id, key);
                        self.send(Giver::Scheduler, next.id, next.effects.into());
                    }
                    None => {
                        self.under_way.remove(&key);
                    }
                }
            }
        }
    }

    /// Takes an order into the trace.
    fn note(&mut self, giver: u64, id: u64, effect: &Effect) {
        let (kind, key) =
            effect.subject().map_or(("", String::new()), |(kind, key)| (kind.resource().plural, key.to_string()));
        let verb = match effect {
            Effect::Create(..) => 1,
            Effect::Update(..) => 2,
            Effect::PatchStatus(..) => 3,
            Effect::PatchMeta(..) => 4,
            Effect::Delete { .. } => 5,
            Effect::Bind { .. } => 6,
            Effect::Evict { .. } => 7,
            Effect::Record(_) => 8,
        };
        for part in [
            self.now.0 as u64,
            giver,
            id,
            verb,
            model::map::stable_hash(kind.as_bytes()),
            model::map::stable_hash(key.as_bytes()),
        ] {
            self.mix(part);
        }
    }

    fn mix(&mut self, part: u64) {
        self.stats.trace = model::map::stable_hash(&[self.stats.trace.to_le_bytes(), part.to_le_bytes()].concat());
    }

    /// Nodes whose agents work.
    pub fn living_nodes(&self) -> BTreeSet<Key> {
        let nodes = self.api.list(Kind::Node).map(|node| node.meta().key.clone());
        nodes.filter(|key| !self.agents.is_dead(&key.name)).collect()
    }
}

fn lost() -> Refusal {
    Refusal { code: 0, reason: "Unreachable".into(), message: "no answer".into() }
}

fn wanted_by_scheduler(event: &Event) -> bool {
    let kind = match event {
        Event::Applied(object) => object.kind(),
        Event::Deleted { kind, .. } => *kind,
        Event::Synced(_) | Event::Done(_) => return false,
    };
    matches!(
        kind,
        Kind::Pod
            | Kind::Node
            | Kind::Namespace
            | Kind::Service
            | Kind::ReplicaSet
            | Kind::StatefulSet
            | Kind::PodDisruptionBudget
            | Kind::PriorityClass
            | Kind::PersistentVolume
            | Kind::PersistentVolumeClaim
            | Kind::StorageClass
    )
}

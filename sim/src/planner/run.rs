//! Plays a scenario under a policy, in virtual time.

use super::fleet::Shared;
use super::ledger::Ledger;
use super::measure::{Fragments, Outcome, Sample, allocated, is_hot, scarce, used, waits};
use super::pooled::Pooled;
use super::scenario::{Arrivals, Policy, Scenario};
use super::usage::Hot;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

/// Samples of a run.
const SAMPLES: i64 = 240;
/// Nodes report their load so often, and not more than so many times in all.
const REPORT_S: i64 = 60;
const REPORTS_MOST: i64 = 2000;
/// The second of the day at which use is measured when pods come one after the other.
const NOON: i64 = 43_200;

/// What the engine did.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A pod was placed on a node, on the GPUs that the bits name (None: any that have room).
    Placed(u32, usize, Option<u32>),
    /// A pod was evicted; it is off its node.
    Evicted(u32),
    /// Nobody can have a pod now.
    Refused(u32),
}

/// An engine that plays.
pub(crate) trait Engine {
    /// A pod comes, or comes again.
    fn arrive(&mut self, pod: u32);
    /// The next thing that it does; None: everything that waits was refused.
    fn next(&mut self) -> Option<Step>;
    /// A pod leaves its seat.
    fn leave(&mut self, pod: u32, seat: (usize, u32));
    /// A pod waits no longer.
    fn withdraw(&mut self, pod: u32);
    /// A node is back.
    fn up(&mut self, node: usize);
    /// A node is gone; its pods have left.
    fn down(&mut self, node: usize);
    /// A node reports what it really uses.
    fn report(&mut self, node: usize, cpu: i64, memory: i64);
}

/// Every pod where it is.
struct AsIs {
    seats: Vec<Option<usize>>,
    arrived: Vec<u32>,
}

impl AsIs {
    fn new(scenario: &Scenario) -> AsIs {
        let names = scenario.node_numbers();
        let seats = scenario.pods.iter().map(|pod| names.get(&*pod.is_at).copied()).collect();
        AsIs { seats, arrived: Vec::new() }
    }
}

impl Engine for AsIs {
    fn arrive(&mut self, pod: u32) {
        self.arrived.push(pod);
    }
    fn next(&mut self) -> Option<Step> {
        let pod = self.arrived.pop()?;
        Some(self.seats[pod as usize].map_or(Step::Refused(pod), |node| Step::Placed(pod, node, None)))
    }
    fn leave(&mut self, _pod: u32, _seat: (usize, u32)) {}
    fn withdraw(&mut self, _pod: u32) {}
    fn up(&mut self, _node: usize) {}
    fn down(&mut self, _node: usize) {}
    fn report(&mut self, _node: usize, _cpu: i64, _memory: i64) {}
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// The policy cannot be played on this scenario.
    Refused(String),
    /// The engine did what it must not: a defect of ours.
    Broken(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Refused(why) => f.write_str(why),
            RunError::Broken(what) => {
                write!(f, "the placement engine broke a rule, which is a defect of Diolkos: {what}")
            }
        }
    }
}

impl std::error::Error for RunError {}

/// What happens at a time; at one time in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    End(u32, u32),
    Up(usize),
    Down(usize),
    Report,
    Arrive(u32),
    Sample,
}

struct Play<'a> {
    scenario: &'a Scenario,
    policy: Policy,
    hot: Hot,
    engine: Box<dyn Engine + 'a>,
    ledger: Ledger,
    fragments: Fragments,
    events: BinaryHeap<Reverse<(i64, Event)>>,
    now: i64,
    /// By pod: how often it was placed, and since when it waits.
    turns: Vec<u32>,
    since: BTreeMap<u32, i64>,
    since_sum: i128,
    waited: Vec<i64>,
    outcome: Outcome,
}

/// Plays `scenario` under `policy`. `progress` hears how much is done, of how much.
///
/// # Errors
/// The policy cannot be played on this scenario, or the engine broke a rule.
pub fn run(
    scenario: &Scenario,
    policy: Policy,
    hot: Hot,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Outcome, RunError> {
    if let Some(why) = scenario.refuses(policy) {
        return Err(RunError::Refused(why));
    }
    let engine: Box<dyn Engine> = match policy {
        Policy::AsIs => Box::new(AsIs::new(scenario)),
        Policy::Fragmentation => Box::new(Shared::new(scenario, policy)),
        Policy::Spread | Policy::Pack if scenario.shares_gpus() => Box::new(Shared::new(scenario, policy)),
        Policy::Spread | Policy::Pack | Policy::LoadAware => Box::new(Pooled::new(scenario, policy, hot)),
    };
    let mut play = Play {
        scenario,
        policy,
        hot,
        engine,
        ledger: Ledger::new(&scenario.nodes, scenario.pods.len()),
        fragments: Fragments::new(scenario),
        events: BinaryHeap::new(),
        now: 0,
        turns: vec![0; scenario.pods.len()],
        since: BTreeMap::new(),
        since_sum: 0,
        waited: Vec::new(),
        outcome: Outcome {
            policy,
            samples: Vec::new(),
            arrived: 0,
            placed: 0,
            left_over: 0,
            preempted: 0,
            lost: 0,
            waits: waits(Vec::new()),
            at_100: None,
        },
    };
    match scenario.arrivals {
        Arrivals::InTime => play.in_time(progress)?,
        Arrivals::Fill => play.fill(progress)?,
    }
    Ok(play.close())
}

impl Play<'_> {
    fn in_time(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), RunError> {
        let end = self.scenario.end_s.max(1);
        for (number, pod) in self.scenario.pods.iter().enumerate().filter(|(_, pod)| pod.arrives_s <= end) {
            self.events.push(Reverse((pod.arrives_s, Event::Arrive(number as u32))));
        }
        for outage in &self.scenario.outages {
            self.events.push(Reverse((outage.from_s, Event::Down(outage.node))));
            self.events.push(Reverse((outage.to_s, Event::Up(outage.node))));
        }
        for sample in 0..=SAMPLES {
            self.events.push(Reverse((end * sample / SAMPLES, Event::Sample)));
        }
        let every = REPORT_S.max(end / REPORTS_MOST);
        if self.policy == Policy::LoadAware {
            (0..=end / every).for_each(|report| self.events.push(Reverse((report * every, Event::Report))));
        }
        let (mut done, mut counted) = (0u64, 0);
        while let Some(Reverse((at, event))) = self.events.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.act(event)?;
            // Everything of one moment comes before the engine's answer to it.
            if self.events.peek().is_none_or(|Reverse((next, event))| *next > at || *event == Event::Sample) {
                self.settle(false)?;
            }
            done += 1;
            if done > counted + 1000 {
                counted = done;
                progress(at as u64, end as u64);
            }
        }
        Ok(())
    }

    fn fill(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), RunError> {
        self.now = NOON;
        let (resource, demand) = scarce(self.scenario);
        let has = self.ledger.has[resource].max(1) as f64;
        let all = demand.iter().sum::<i64>().max(1) as f64;
        let (mut arrived, mut next) = (0.0, 0.0);
        for (number, asked) in demand.iter().enumerate() {
            self.arrive(number as u32);
            self.settle(true)?;
            arrived += *asked as f64;
            let share = arrived * 100.0 / has;
            if arrived >= has && self.outcome.at_100.is_none() {
                self.outcome.at_100 = Some(allocated(&self.ledger)[resource]);
            }
            if share >= next || number + 1 == demand.len() {
                self.report();
                self.sample(share);
                next = share + all * 100.0 / has / SAMPLES as f64;
                progress(number as u64, demand.len() as u64);
            }
        }
        Ok(())
    }

    fn act(&mut self, event: Event) -> Result<(), RunError> {
        match event {
            Event::Arrive(pod) => self.arrive(pod),
            Event::End(pod, turn) => {
                if self.turns[pod as usize] == turn
                    && let Some(seat) = self.stand_up(pod)
                {
                    self.engine.leave(pod, seat);
                }
            }
            Event::Down(node) => {
                let lost = self.ledger.rooms[node].pods.clone();
                for pod in &lost {
                    if let Some(seat) = self.stand_up(*pod) {
                        self.engine.leave(*pod, seat);
                    }
                }
                self.engine.down(node);
                self.ledger.set_up(node, false);
                self.fragments.touch(node);
                self.outcome.lost += lost.len();
                for pod in lost {
                    self.wait(pod);
                    self.engine.arrive(pod);
                }
            }
            Event::Up(node) => {
                self.ledger.set_up(node, true);
                self.engine.up(node);
                self.fragments.touch(node);
            }
            Event::Report => self.report(),
            Event::Sample => self.sample(self.now as f64),
        }
        Ok(())
    }

    fn wait(&mut self, pod: u32) {
        if self.since.insert(pod, self.now).is_none() {
            self.since_sum += i128::from(self.now);
        }
    }

    fn arrive(&mut self, pod: u32) {
        self.outcome.arrived += 1;
        self.wait(pod);
        self.engine.arrive(pod);
    }

    fn stand_up(&mut self, pod: u32) -> Option<(usize, u32)> {
        let seat = self.ledger.leave(pod, &self.scenario.pods[pod as usize])?;
        self.turns[pod as usize] += 1;
        self.fragments.touch(seat.0);
        Some(seat)
    }

    /// Lets the engine place what it can; `drop`: what it refuses goes away.
    fn settle(&mut self, drop: bool) -> Result<(), RunError> {
        while let Some(step) = self.engine.next() {
            match step {
                Step::Placed(pod, node, on) => self.sit_down(pod, node, on)?,
                Step::Evicted(pod) => {
                    self.outcome.preempted += 1;
                    self.stand_up(pod);
                    self.wait(pod);
                    self.engine.arrive(pod);
                }
                Step::Refused(pod) if drop => {
                    self.engine.withdraw(pod);
                    if let Some(since) = self.since.remove(&pod) {
                        self.since_sum -= i128::from(since);
                    }
                    self.outcome.left_over += 1;
                }
                Step::Refused(_) => {}
            }
        }
        Ok(())
    }

    fn sit_down(&mut self, number: u32, node: usize, on: Option<u32>) -> Result<(), RunError> {
        let pod = &self.scenario.pods[number as usize];
        let checked = self.policy != Policy::AsIs && !pod.pinned;
        self.ledger.take(number, pod, node, on, checked).map_err(RunError::Broken)?;
        self.fragments.touch(node);
        self.outcome.placed += 1;
        if let Some(since) = self.since.remove(&number) {
            self.since_sum -= i128::from(since);
            self.waited.push(self.now - since);
        }
        if let Some(lasts) = pod.lasts_s.filter(|_| self.scenario.arrivals == Arrivals::InTime) {
            let turn = self.turns[number as usize];
            self.events.push(Reverse((self.now + lasts.max(1), Event::End(number, turn))));
        }
        Ok(())
    }

    fn report(&mut self) {
        if self.policy != Policy::LoadAware {
            return;
        }
        for node in 0..self.ledger.rooms.len() {
            if self.ledger.rooms[node].up {
                let (cpu, memory) = used(self.scenario, &self.ledger.rooms[node], self.now);
                self.engine.report(node, cpu, memory);
            }
        }
    }

    fn sample(&mut self, at: f64) {
        let up = || self.ledger.rooms.iter().filter(|room| room.up);
        let hot = up().filter(|room| is_hot(self.hot, room, used(self.scenario, room, self.now))).count();
        let empty = up().filter(|room| room.pods.is_empty()).count();
        let waiting = self.since.len();
        let age = if waiting == 0 { 0.0 } else { self.now as f64 - self.since_sum as f64 / waiting as f64 };
        self.outcome.samples.push(Sample {
            at,
            allocated_pct: allocated(&self.ledger),
            fragmentation_pct: self.fragments.per_cent(self.scenario, &self.ledger),
            pending: waiting + if self.scenario.arrivals == Arrivals::Fill { self.outcome.left_over } else { 0 },
            pending_age_s: age,
            hot,
            empty,
        });
    }

    fn close(mut self) -> Outcome {
        self.outcome.left_over += self.since.len();
        let still = self.since.values().map(|since| self.now - since);
        self.waited.extend(still);
        self.outcome.waits = waits(std::mem::take(&mut self.waited));
        self.outcome
    }
}

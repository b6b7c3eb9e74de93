//! Liveness, readiness and startup probes of one running container.

mod act;
mod grpc;

pub use act::{Target, act};

use crate::events::{About, Recorder};
use crate::pod::plan::Unhealthy;
use crate::pod::spec::{Container, Probe};
use crate::pod::status::Health;
use crate::runtime::Runtime;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Thresholds: a pure count of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    success: u32,
    failure: u32,
    holds: bool,
    run: u32,
    last: Option<bool>,
}

impl Counter {
    /// Starts out as `holds` until a threshold is reached.
    pub fn new(probe: &Probe, holds: bool) -> Self {
        let at_least_one = |n: i64, default: u32| if n <= 0 { default } else { u32::try_from(n).unwrap_or(u32::MAX) };
        Counter {
            success: at_least_one(probe.success_threshold, 1),
            failure: at_least_one(probe.failure_threshold, 3),
            holds,
            run: 0,
            last: None,
        }
    }

    /// Takes one answer; returns whether the threshold for it was reached.
    pub fn answer(&mut self, well: bool) -> bool {
        self.run = if self.last == Some(well) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(well);
        let reached = self.run >= if well { self.success } else { self.failure };
        if reached {
            self.holds = well;
        }
        reached
    }

    #[cfg(test)]
    fn holds(&self) -> bool {
        self.holds
    }
}

/// What the probes of a pod's running containers say, by container id.
#[derive(Debug, Default)]
pub struct Board {
    states: Mutex<BTreeMap<String, BoardEntry>>,
}

#[derive(Clone, Debug)]
struct BoardEntry {
    health: Health,
    unhealthy: Option<Unhealthy>,
}

impl Board {
    pub fn health(&self) -> BTreeMap<String, Health> {
        self.lock().iter().map(|(id, entry)| (id.clone(), entry.health)).collect()
    }

    pub fn unhealthy(&self) -> BTreeMap<String, Unhealthy> {
        self.lock().iter().filter_map(|(id, entry)| Some((id.clone(), entry.unhealthy.clone()?))).collect()
    }

    fn set(&self, id: &str, change: impl FnOnce(&mut BoardEntry)) -> bool {
        let mut states = self.lock();
        let Some(entry) = states.get_mut(id) else { return false };
        let before = entry.clone();
        change(entry);
        before.health != entry.health || before.unhealthy != entry.unhealthy
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BoardEntry>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The probes of one container, running until they are dropped.
#[derive(Debug)]
pub struct Probes {
    board: Arc<Board>,
    id: String,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.board.lock().remove(&self.id);
    }
}

/// Everything that probing a container takes.
pub struct Subject {
    pub container: Container,
    pub target: Target,
    pub about: About,
    pub runtime: Runtime,
    pub recorder: Recorder,
    /// Told when something changed.
    pub changed: Arc<Notify>,
    /// What was known before: an agent that restarts must not make a ready pod unready.
    pub before: Option<Health>,
}

impl Probes {
    /// Starts probing.
    pub fn start(board: Arc<Board>, subject: Subject) -> Self {
        let id = subject.target.container_id.clone();
        let c = &subject.container;
        let fresh = Health { started: c.startup_probe.is_none(), ready: c.readiness_probe.is_none() };
        let health = subject.before.map_or(fresh, |before| Health {
            started: fresh.started || before.started,
            ready: fresh.ready || before.ready,
        });
        board.lock().insert(id.clone(), BoardEntry { health, unhealthy: None });
        let any = c.startup_probe.is_some() || c.readiness_probe.is_some() || c.liveness_probe.is_some();
        let task = any.then(|| tokio::spawn(run(board.clone(), subject, health)));
        Probes { board, id, task }
    }
}

async fn run(board: Arc<Board>, subject: Subject, health: Health) {
    let container = &subject.container;
    if let Some(probe) = container.startup_probe.as_ref().filter(|_| !health.started) {
        let gave_up = watch(&subject, probe, "Startup", false, |well| {
            if well {
                subject.note(&board, |entry| entry.health.started = true);
                return false;
            }
            subject.give_up(&board, "startup", probe);
            false
        });
        gave_up.await;
        if board.unhealthy().contains_key(&subject.target.container_id) {
            return;
        }
    }
    let readiness = async {
        let Some(probe) = &container.readiness_probe else { return };
        watch(&subject, probe, "Readiness", health.ready, |well| {
            subject.note(&board, |entry| entry.health.ready = well);
            true
        })
        .await;
    };
    let liveness = async {
        let Some(probe) = &container.liveness_probe else { return };
        watch(&subject, probe, "Liveness", true, |well| {
            if !well {
                subject.give_up(&board, "liveness", probe);
            }
            well
        })
        .await;
    };
    tokio::join!(readiness, liveness);
}

/// While a container has not been well once, it is asked more often than the period says: 100 ms, 200 ms, ... up to the period.
/// These extra questions only find out sooner that it is well; a failure counts only at the period's pace, so the thresholds
/// mean what they say. The kubelet would let a pod that is up after 0.3 s wait for its period of 10 s.
const FIRST_ASK_AGAIN: Duration = Duration::from_millis(100);

/// Asks for ever; `reached` is told of every threshold reached, and ends it by returning false.
async fn watch(subject: &Subject, probe: &Probe, word: &str, holds: bool, mut reached: impl FnMut(bool) -> bool) {
    let seconds =
        |n: i64, default: u64| Duration::from_secs(u64::try_from(n).ok().filter(|n| *n > 0).unwrap_or(default));
    let (period, limit) = (seconds(probe.period_seconds, 10), seconds(probe.timeout_seconds, 1));
    tokio::time::sleep(Duration::from_secs(u64::try_from(probe.initial_delay_seconds).unwrap_or(0))).await;
    let mut counter = Counter::new(probe, holds);
    let mut counted = tokio::time::Instant::now();
    let mut eager = (!holds && probe.handler.exec.is_none()).then_some(FIRST_ASK_AGAIN);
    // Its port is rarely open within a millisecond of its start: the first question is an extra one too.
    let mut extra = eager.is_some();
    loop {
        let begun = tokio::time::Instant::now();
        let answer = act(&probe.handler, &subject.container, &subject.target, &subject.runtime, limit).await;
        match answer {
            Ok(()) => {
                eager = None;
                if counter.answer(true) && !reached(true) {
                    return;
                }
            }
            // Refused while it starts: neither counted nor worth an event.
            Err(_) if extra => {}
            Err(why) => {
                subject.recorder.warning(&subject.about, "Unhealthy", format!("{word} probe failed: {why}"));
                if counter.answer(false) && !reached(false) {
                    return;
                }
            }
        }
        if !extra {
            counted = begun;
        }
        let next = counted + period;
        let soon = eager.map(|pause| tokio::time::Instant::now() + pause);
        extra = soon.is_some_and(|soon| soon < next);
        eager = eager.map(|pause| pause * 2);
        tokio::time::sleep_until(if extra { soon.unwrap_or(next) } else { next }).await;
    }
}

impl Subject {
    fn note(&self, board: &Board, change: impl FnOnce(&mut BoardEntry)) {
        if board.set(&self.target.container_id, change) {
            self.changed.notify_one();
        }
    }

    fn give_up(&self, board: &Board, probe: &'static str, settings: &Probe) {
        let unhealthy = Unhealthy { probe, grace_s: settings.termination_grace_period_seconds };
        self.note(board, |entry| entry.unhealthy = Some(unhealthy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let probe = Probe { success_threshold: 2, failure_threshold: 3, ..Probe::default() };
        let mut counter = Counter::new(&probe, false);
        let mut seen = Vec::new();
        for well in [true, false, true, true, false, false, true, false, false, false] {
            counter.answer(well);
            seen.push(counter.holds());
        }
        assert_eq!(seen, [false, false, false, true, true, true, true, true, true, false]);
    }

    #[test]
    fn unset_thresholds_are_one_and_three() {
        let mut counter = Counter::new(&Probe::default(), true);
        assert!(!counter.answer(false) && !counter.answer(false) && counter.answer(false));
        assert!(!counter.holds() && counter.answer(true) && counter.holds());
    }
}

//! Counters. One worker writes, others read: plain loads and stores, no read-modify-write and no shared line.
use super::edge::Edge;
use super::outcome::{Outcome, OutcomeKey};
pub use model::latency::BOUNDS_US as BUCKETS_US;
use model::map::HashMap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets of bodies in bytes: those of Istio's proxies.
pub const BUCKETS_BYTES: [u64; 18] = [
    1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000,
    3_600_000,
];

/// Edges of one worker. What comes after so many is counted together as `other`: labels come from the cluster, whose size is
/// not ours to choose.
const MAX_EDGES: usize = 2000;
/// Outcomes of one edge; statuses come from processes, who may invent any.
const MAX_OUTCOMES: usize = 32;

/// The counters of one worker.
#[derive(Debug, Default)]
pub struct Cells {
    edges: Mutex<HashMap<Edge, Arc<EdgeCells>>>,
}

impl Cells {
    /// The counters of an edge. Looked up once for a connection (or for a route's backend), not for a request.
    pub fn edge(&self, edge: &Edge) -> Arc<EdgeCells> {
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cells) = edges.get(edge) {
            return cells.clone();
        }
        let edge = if edges.len() < MAX_EDGES { edge.clone() } else { Edge::other(edge.carries) };
        edges.entry(edge).or_default().clone()
    }

    pub(super) fn list(&self) -> Vec<(Edge, Arc<EdgeCells>)> {
        let edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        edges.iter().map(|(edge, cells)| (edge.clone(), cells.clone())).collect()
    }
}

/// A request that is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// From its head to the end of its answer.
    pub took: Duration,
    /// Bytes of its body.
    pub sent: u64,
    /// Bytes of its answer's body.
    pub received: u64,
    /// gRPC messages there and back.
    pub messages: (u64, u64),
}

/// The counters of one edge on one worker.
#[derive(Debug, Default)]
pub struct EdgeCells {
    outcomes: OnceLock<Box<OutcomeCells>>,
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// The counters of an edge's requests that ended alike; a list, of which the first is the usual one.
#[derive(Debug)]
struct OutcomeCells {
    key: OutcomeKey,
    requests: AtomicU64,
    errors: AtomicU64,
    duration: [AtomicU64; BUCKETS_US.len() + 1],
    duration_us: AtomicU64,
    sent: [AtomicU64; BUCKETS_BYTES.len() + 1],
    sent_bytes: AtomicU64,
    received: [AtomicU64; BUCKETS_BYTES.len() + 1],
    received_bytes: AtomicU64,
    messages: [AtomicU64; 2],
    next: OnceLock<Box<OutcomeCells>>,
}

fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

fn bump_bucket(buckets: &[AtomicU64], bounds: &[u64], value: u64) {
    bump(&buckets[bounds.partition_point(|bound| *bound < value)], 1);
}

impl OutcomeCells {
    fn new(key: OutcomeKey) -> Box<Self> {
        Box::new(Self {
            key,
            requests: AtomicU64::default(),
            errors: AtomicU64::default(),
            duration: Default::default(),
            duration_us: AtomicU64::default(),
            sent: Default::default(),
            sent_bytes: AtomicU64::default(),
            received: Default::default(),
            received_bytes: AtomicU64::default(),
            messages: Default::default(),
            next: OnceLock::new(),
        })
    }

    fn take(&self, ended: &Ended) {
        bump(&self.requests, 1);
        bump(&self.errors, u64::from(ended.outcome.is_failure()));
        let us = ended.took.as_micros() as u64;
        bump_bucket(&self.duration, &BUCKETS_US, us);
        bump(&self.duration_us, us);
        bump_bucket(&self.sent, &BUCKETS_BYTES, ended.sent);
        bump(&self.sent_bytes, ended.sent);
        bump_bucket(&self.received, &BUCKETS_BYTES, ended.received);
        bump(&self.received_bytes, ended.received);
        if ended.messages != (0, 0) {
            bump(&self.messages[0], ended.messages.0);
            bump(&self.messages[1], ended.messages.1);
        }
    }
}

impl EdgeCells {
    /// A request is over.
    pub fn request(&self, ended: &Ended) {
        self.outcome(ended.outcome.into()).take(ended);
    }

    fn outcome(&self, key: OutcomeKey) -> &OutcomeCells {
        let mut slot = &self.outcomes;
        for _ in 0..MAX_OUTCOMES {
            let cells = slot.get_or_init(|| OutcomeCells::new(key));
            if cells.key == key {
                return cells;
            }
            slot = &cells.next;
        }
        slot.get_or_init(|| OutcomeCells::new(OutcomeKey::OTHER))
    }

    /// Opaque bytes that went to the destination and came from it.
    pub fn bytes(&self, sent: u64, received: u64) {
        bump(&self.sent, sent);
        bump(&self.received, received);
    }

    pub(super) fn open(&self) {
        bump(&self.opened, 1);
    }

    pub(super) fn close(&self, failed: bool) {
        bump(&self.closed, 1);
        bump(&self.failed, u64::from(failed));
    }
}

/// Sums of one outcome over workers.
#[derive(Clone, Debug, Default)]
pub struct OutcomeTotals {
    pub requests: u64,
    pub errors: u64,
    pub duration: [u64; BUCKETS_US.len() + 1],
    pub duration_us: u64,
    pub sent: [u64; BUCKETS_BYTES.len() + 1],
    pub sent_bytes: u64,
    pub received: [u64; BUCKETS_BYTES.len() + 1],
    pub received_bytes: u64,
    pub messages: [u64; 2],
}

/// Sums over workers.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub outcomes: BTreeMap<OutcomeKey, OutcomeTotals>,
    pub opened: u64,
    pub closed: u64,
    pub failed: u64,
    pub sent: u64,
    pub received: u64,
}

fn add(sum: &mut u64, cell: &AtomicU64) {
    *sum += cell.load(Ordering::Relaxed);
}

fn add_all(sums: &mut [u64], cells: &[AtomicU64]) {
    sums.iter_mut().zip(cells).for_each(|(sum, cell)| add(sum, cell));
}

impl OutcomeTotals {
    fn take(&mut self, cells: &OutcomeCells) {
        for (sum, cell) in [
            (&mut self.requests, &cells.requests),
            (&mut self.errors, &cells.errors),
            (&mut self.duration_us, &cells.duration_us),
            (&mut self.sent_bytes, &cells.sent_bytes),
            (&mut self.received_bytes, &cells.received_bytes),
        ] {
            add(sum, cell);
        }
        add_all(&mut self.duration, &cells.duration);
        add_all(&mut self.sent, &cells.sent);
        add_all(&mut self.received, &cells.received);
        add_all(&mut self.messages, &cells.messages);
    }
}

impl Totals {
    pub(super) fn add(&mut self, cells: &EdgeCells) {
        for (sum, cell) in [
            (&mut self.opened, &cells.opened),
            (&mut self.closed, &cells.closed),
            (&mut self.failed, &cells.failed),
            (&mut self.sent, &cells.sent),
            (&mut self.received, &cells.received),
        ] {
            add(sum, cell);
        }
        let mut slot = &cells.outcomes;
        while let Some(cells) = slot.get() {
            self.outcomes.entry(cells.key).or_default().take(cells);
            slot = &cells.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Carries, Flag, Grpc};

    fn ended(status: u16, us: u64) -> Ended {
        let outcome = Outcome { status, ..Outcome::default() };
        Ended { outcome, took: Duration::from_micros(us), sent: 5, received: 4_000_000, messages: (0, 0) }
    }

    fn totals(cells: &EdgeCells) -> Totals {
        let mut totals = Totals::default();
        totals.add(cells);
        totals
    }

    #[test]
    fn outcomes_and_buckets() {
        let cells = EdgeCells::default();
        for (status, us) in [(200, 250), (200, 251), (418, 1), (503, 99_000_000), (0, 1), (599, 1)] {
            cells.request(&ended(status, us));
        }
        cells.request(&Ended {
            outcome: Outcome { status: 200, flag: Flag::None, grpc: Grpc::Status(13) },
            messages: (3, 2),
            ..ended(200, 1)
        });
        let totals = totals(&cells);
        let sum = |of: fn(&OutcomeTotals) -> u64| totals.outcomes.values().map(of).sum::<u64>();
        assert_eq!((sum(|it| it.requests), sum(|it| it.errors), sum(|it| it.messages[0])), (7, 4, 3));
        let ok = &totals.outcomes[&OutcomeKey::from(Outcome { status: 200, ..Outcome::default() })];
        assert_eq!((ok.duration[0], ok.duration[1], ok.requests), (1, 1, 2));
        assert_eq!((ok.sent[1], ok.sent_bytes, ok.received[BUCKETS_BYTES.len()]), (2, 10, 2));
        assert!(BUCKETS_US.is_sorted() && BUCKETS_BYTES.is_sorted());
    }

    #[test]
    fn series_are_bounded() {
        let cells = Cells::default();
        for number in 0..MAX_EDGES + 100 {
            let mut edge = Edge::other(Carries::Requests);
            edge.service = number.to_string().into();
            cells.edge(&edge).request(&ended(200, 0));
        }
        assert_eq!(cells.list().len(), MAX_EDGES + 1);
        let edge = EdgeCells::default();
        (0..1000).for_each(|status| edge.request(&ended(status, 1)));
        let totals = totals(&edge);
        assert_eq!(totals.outcomes.len(), MAX_OUTCOMES + 1);
        assert_eq!(totals.outcomes[&OutcomeKey::OTHER].requests, 1000 - MAX_OUTCOMES as u64);
    }
}

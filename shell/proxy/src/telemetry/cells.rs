//! Counters. One worker writes, others read: plain loads and stores, no read-modify-write and no shared line.
use super::edge::Edge;
use model::map::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the latency buckets in microseconds; one more bucket takes what is above.
pub const BUCKETS_US: [u64; 24] = [
    250, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000, 25_000, 35_000, 50_000, 75_000, 100_000,
    150_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Status codes with a counter of their own; any other is counted in its class.
pub const CODES: [u16; 22] =
    [0, 101, 200, 201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 408, 409, 429, 500, 501, 502, 503, 504];
const CLASSES: usize = 5;
/// Label of a counter of [`EdgeCells::codes`].
pub fn code_label(index: usize) -> String {
    match CODES.get(index) {
        Some(code) => code.to_string(),
        None => format!("{}xx", index - CODES.len() + 1),
    }
}

/// Edges of one worker. What comes after so many is counted together as `other`: labels come from the cluster, whose size is
/// not ours to choose.
const MAX_EDGES: usize = 2000;

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
        let edge = if edges.len() < MAX_EDGES { edge.clone() } else { Edge::other(edge.protocol) };
        edges.entry(edge).or_default().clone()
    }

    pub(super) fn list(&self) -> Vec<(Edge, Arc<EdgeCells>)> {
        let edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        edges.iter().map(|(edge, cells)| (edge.clone(), cells.clone())).collect()
    }
}

/// The counters of one edge on one worker.
#[derive(Debug, Default)]
pub struct EdgeCells {
    codes: [AtomicU64; CODES.len() + CLASSES],
    grpc_errors: AtomicU64,
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    duration_us: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl EdgeCells {
    /// A request was answered (status 0: it was not) after `took`.
    pub fn request(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, CLASSES) - 1;
        let index = CODES.binary_search(&status).unwrap_or(CODES.len() + class);
        bump(&self.codes[index], 1);
        let us = took.as_micros() as u64;
        bump(&self.buckets[BUCKETS_US.partition_point(|bound| *bound < us)], 1);
        bump(&self.duration_us, us);
    }

    /// A gRPC call ended with a status that is the server's fault, whatever its HTTP status.
    pub fn grpc_error(&self) {
        bump(&self.grpc_errors, 1);
    }

    /// Bytes that went to the destination and came from it.
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

/// Sums over workers.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub codes: [u64; CODES.len() + CLASSES],
    pub grpc_errors: u64,
    pub buckets: [u64; BUCKETS_US.len() + 1],
    pub duration_us: u64,
    pub opened: u64,
    pub closed: u64,
    pub failed: u64,
    pub sent: u64,
    pub received: u64,
}

impl Totals {
    pub(super) fn add(&mut self, cells: &EdgeCells) {
        let add = |sum: &mut u64, cell: &AtomicU64| *sum += cell.load(Ordering::Relaxed);
        self.codes.iter_mut().zip(&cells.codes).for_each(|(sum, cell)| add(sum, cell));
        self.buckets.iter_mut().zip(&cells.buckets).for_each(|(sum, cell)| add(sum, cell));
        for (sum, cell) in [
            (&mut self.grpc_errors, &cells.grpc_errors),
            (&mut self.duration_us, &cells.duration_us),
            (&mut self.opened, &cells.opened),
            (&mut self.closed, &cells.closed),
            (&mut self.failed, &cells.failed),
            (&mut self.sent, &cells.sent),
            (&mut self.received, &cells.received),
        ] {
            add(sum, cell);
        }
    }

    /// Requests in all.
    pub fn requests(&self) -> u64 {
        self.codes.iter().sum()
    }

    /// Requests that failed: not answered, answered 5xx, or a gRPC status that is the server's fault.
    pub fn errors(&self) -> u64 {
        let failed = |index: usize| match CODES.get(index) {
            Some(code) => *code == 0 || *code >= 500,
            None => index - CODES.len() + 1 == 5,
        };
        let answered = self.codes.iter().enumerate().filter(|(index, _)| failed(*index));
        answered.map(|(_, count)| count).sum::<u64>() + self.grpc_errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Protocol;

    #[test]
    fn codes_and_buckets() {
        let cells = EdgeCells::default();
        for (status, us) in [(200, 250), (200, 251), (418, 1), (503, 99_000_000), (0, 1), (599, 1)] {
            cells.request(status, Duration::from_micros(us));
        }
        let mut totals = Totals::default();
        totals.add(&cells);
        assert_eq!((totals.requests(), totals.errors()), (6, 3));
        assert_eq!((totals.buckets[0], totals.buckets[1], totals.buckets[BUCKETS_US.len()]), (4, 1, 1));
        assert_eq!(code_label(CODES.len() + 3), "4xx");
        assert!(CODES.is_sorted() && BUCKETS_US.is_sorted());
    }

    #[test]
    fn series_are_bounded() {
        let cells = Cells::default();
        for number in 0..MAX_EDGES + 100 {
            let mut edge = Edge::other(Protocol::Http);
            edge.service = number.to_string().into();
            cells.edge(&edge).request(200, Duration::ZERO);
        }
        assert_eq!(cells.list().len(), MAX_EDGES + 1);
    }
}

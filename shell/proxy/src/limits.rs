//! What a service's policy needs to remember between requests: failures of endpoints, how long each is known, requests under way.
//! One for each port of a service, shared by all workers: five failures in a row are five whoever saw them.
use crate::upstream::Port;
use model::Key;
use model::map::HashMap;
use model::mesh::traffic::{ConnectionPool, Outlier};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use traffic::outlier::{self, Outcome, Record};

/// What is remembered of an endpoint.
#[derive(Debug)]
pub struct Health {
    first_seen_ms: u64,
    ejected_until_ms: AtomicU64,
    /// Nothing bad is remembered: a good answer changes nothing, and need not take the lock.
    clean: AtomicBool,
    record: Mutex<Record>,
}

impl Health {
    fn new(now_ms: u64) -> Self {
        Self {
            first_seen_ms: now_ms,
            ejected_until_ms: AtomicU64::new(0),
            clean: AtomicBool::new(true),
            record: Mutex::default(),
        }
    }

    /// Whether it is left out now.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until_ms.load(Ordering::Relaxed) > now_ms
    }

    /// For how long it is known.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.first_seen_ms)
    }
}

/// Address and workload: an address can be another workload's tomorrow.
type Endpoint = (SocketAddr, Arc<str>);

/// What is remembered of a port.
#[derive(Debug, Default)]
pub struct PortState {
    healths: Mutex<HashMap<Endpoint, Arc<Health>>>,
    /// No endpoint is ejected after this.
    last_ejection_ends_ms: AtomicU64,
    requests: AtomicU32,
    retries: AtomicU32,
    waiting: AtomicU32,
    /// How many connections there may be, and those that there are not.
    connections: Mutex<Option<(u32, Arc<Semaphore>)>>,
}

/// A request that was let in; it counts until this is dropped.
#[derive(Debug, Default)]
pub struct Admitted {
    request: Option<Arc<PortState>>,
    _connection: Option<OwnedSemaphorePermit>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(state) = &self.request {
            state.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A request that is tried again; it counts until this is dropped.
#[derive(Debug)]
pub struct Retrying(Arc<PortState>);

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.retries.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request waits.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The port has as many requests as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

impl PortState {
    /// What is remembered of an endpoint; a new one is known from now.
    pub fn health(&self, address: SocketAddr, workload: &Arc<str>, now_ms: u64) -> Arc<Health> {
        let mut healths = self.healths.lock().unwrap_or_else(PoisonError::into_inner);
        healths.entry((address, workload.clone())).or_insert_with(|| Arc::new(Health::new(now_ms))).clone()
    }

    /// Whether any endpoint may be ejected now: else nobody need look.
    pub fn has_ejected(&self, now_ms: u64) -> bool {
        self.last_ejection_ends_ms.load(Ordering::Relaxed) > now_ms
    }

    /// Notes how a request to an endpoint ended. `ejected`: how many of the port's `endpoints` are out.
    pub fn report(
        &self,
        policy: &Outlier,
        health: &Health,
        outcome: Outcome,
        (ejected, endpoints): (usize, usize),
        now_ms: u64,
    ) -> bool {
        let good = matches!(outcome, Outcome::Status(status) if !outlier::is_failure(policy, status));
        if good && health.clean.load(Ordering::Relaxed) {
            return false;
        }
        let mut record = health.record.lock().unwrap_or_else(PoisonError::into_inner);
        // What was under way when it was ejected says nothing new.
        let out = record.note(policy, outcome) && !record.is_ejected(now_ms);
        let out = out && outlier::may_eject(policy, ejected, endpoints);
        if out {
            record.eject(policy, now_ms);
            health.ejected_until_ms.store(record.ejected_until_ms(), Ordering::Relaxed);
            self.last_ejection_ends_ms.fetch_max(record.ejected_until_ms(), Ordering::Relaxed);
        }
        health.clean.store(record.is_clean(), Ordering::Relaxed);
        out
    }

    /// A place among `most` requests that are tried again.
    pub fn retry(self: &Arc<Self>, most: u32) -> Option<Retrying> {
        let retrying = Retrying(self.clone());
        (self.retries.fetch_add(1, Ordering::Relaxed) < most).then_some(retrying)
    }

    /// Lets a request in, at once or when a connection is free. `streams`: it shares its connection with others.
    pub async fn admit(self: &Arc<Self>, pool: ConnectionPool, streams: bool) -> Result<Admitted, Overflow> {
        let under_way = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut admitted = Admitted { request: Some(self.clone()), _connection: None };
        if pool.max_requests > 0 && under_way >= pool.max_requests {
            return Err(Overflow);
        }
        if streams || pool.max_connections == 0 {
            return Ok(admitted);
        }
        let connections = self.connections(pool.max_connections);
        if let Ok(permit) = connections.clone().try_acquire_owned() {
            admitted._connection = Some(permit);
            return Ok(admitted);
        }
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if pool.max_pending > 0 && waiting >= pool.max_pending {
            return Err(Overflow);
        }
        // The semaphore is never closed.
        admitted._connection = connections.acquire_owned().await.ok();
        Ok(admitted)
    }

    /// When the limit changes, those that hold a place under the old one keep it.
    fn connections(&self, limit: u32) -> Arc<Semaphore> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        match &*connections {
            Some((of, semaphore)) if *of == limit => semaphore.clone(),
            _ => connections.insert((limit, Arc::new(Semaphore::new(limit as usize)))).1.clone(),
        }
    }
}

/// The states of all ports.
#[derive(Debug, Default)]
pub struct States {
    ports: Mutex<HashMap<(Key, u16, usize), Arc<PortState>>>,
}

impl States {
    /// The state of a port as some callers call it (0: all that have no policy of their own), a new one if it has none.
    pub fn get(&self, service: &Key, port: u16, variant: usize) -> Arc<PortState> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.entry((service.clone(), port, variant)).or_default().clone()
    }

    /// Forgets ports that nobody calls, and endpoints that are no port's any more.
    pub fn sweep(&self) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.retain(|_, state| Arc::strong_count(state) > 1);
        for state in ports.values() {
            let mut healths = state.healths.lock().unwrap_or_else(PoisonError::into_inner);
            healths.retain(|_, health| Arc::strong_count(health) > 1);
        }
    }
}

/// Notes how a try ended at the port that it was made for.
pub fn report(port: &Port, address: SocketAddr, outcome: Outcome, now_ms: u64) {
    let Some((policy, health, counts)) = port.watched(address, now_ms) else { return };
    if port.state().report(policy, &health, outcome, counts, now_ms) {
        let service = port.service().service.known_as();
        let until_ms = health.ejected_until_ms.load(Ordering::Relaxed) - now_ms;
        tracing::warn!(target: "outlier", %service, %address, for_ms = until_ms, "an endpoint is ejected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn limits_are_kept() {
        let state = Arc::new(PortState::default());
        let pool = ConnectionPool { max_connections: 1, max_pending: 1, ..Default::default() };
        let first = state.admit(pool, false).await.expect("the first");
        let waits = tokio::spawn({
            let state = state.clone();
            async move { state.admit(pool, false).await.map(drop) }
        });
        while state.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(state.admit(pool, false).await.is_err(), "one waits already");
        assert!(state.admit(pool, true).await.is_ok(), "a stream needs no connection of its own");
        drop(first);
        assert_eq!(waits.await.expect("no panic"), Ok(()));
        assert_eq!(state.requests.load(Ordering::Relaxed), 0);

        let pool = ConnectionPool { max_requests: 2, ..Default::default() };
        let held = (state.admit(pool, true).await, state.admit(pool, true).await);
        assert!(held.0.is_ok() && held.1.is_ok() && state.admit(pool, true).await.is_err());
    }

    #[test]
    fn retries_are_counted() {
        let state = Arc::new(PortState::default());
        let first = state.retry(1);
        assert!(first.is_some() && state.retry(1).is_none() && state.retry(2).is_some());
        drop(first);
        assert!(state.retry(1).is_some());
    }

    #[test]
    fn ejection_is_seen_by_all_and_ends() {
        let state = PortState::default();
        let policy = Outlier { consecutive_5xx: 2, base_ejection_ms: 1_000, ..Outlier::default() };
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let health = state.health(address, &"w".into(), 5);
        assert!(!state.report(&policy, &health, Outcome::Status(500), (0, 2), 10));
        assert!(!state.report(&policy, &health, Outcome::Status(200), (0, 2), 10));
        assert!(!state.report(&policy, &health, Outcome::Local, (0, 2), 10));
        assert!(state.report(&policy, &health, Outcome::Status(503), (0, 2), 10));
        assert!(state.has_ejected(1_009) && !state.has_ejected(1_010));
        let same = state.health(address, &"w".into(), 900);
        assert!(same.is_ejected(1_009) && !same.is_ejected(1_010) && same.age_ms(105) == 100);
    }
}

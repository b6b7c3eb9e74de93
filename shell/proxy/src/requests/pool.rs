//! Connections to endpoints that wait for the next request.
use super::conn::{Reader, Writer};
use crate::hbone::pool::Leaving;
use crate::telemetry::EdgeCells;
use bytes::Bytes;
use h2::client::SendRequest;
use model::map::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shorter than most servers keep an idle connection, so that it is rarely them who close.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections to one endpoint.
const MAX_IDLE: usize = 256;

/// Which connections are alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Serial of the origin: connections are never shared between identities.
    pub origin: u64,
    /// The process.
    pub address: SocketAddr,
    /// An address can be another workload's tomorrow.
    pub workload: Arc<str>,
    /// The service that it was reached by, for telemetry.
    pub service: Option<model::Key>,
    /// It was opened to an endpoint that drains or failed, for want of another: the endpoint serves requests on such a one alone.
    pub last_resort: bool,
    /// Which TLS policy it is under: its address in memory while it is in force, 0 for none.
    pub tls: usize,
}

/// An HTTP/1.1 connection to an endpoint.
#[derive(Debug)]
pub struct H1Connection {
    key: PoolKey,
    pub reader: Reader,
    pub writer: Writer,
    /// Where its requests are counted.
    pub cells: Arc<EdgeCells>,
    /// It carried a request before: that it fails at once says nothing about the endpoint.
    pub reused: bool,
    idle_since: Instant,
}

impl H1Connection {
    /// One that nothing was sent on; `waited`: it is not fresh all the same.
    pub fn new(key: PoolKey, (reader, writer): (Reader, Writer), cells: Arc<EdgeCells>, waited: bool) -> Self {
        Self { key, reader, writer, cells, reused: waited, idle_since: Instant::now() }
    }
}

/// An HTTP/2 connection to an endpoint.
#[derive(Clone, Debug)]
pub struct H2Connection {
    pub sender: SendRequest<Bytes>,
    pub cells: Arc<EdgeCells>,
    pub closed: Arc<AtomicBool>,
    /// The state of the tunnel that it runs in, if it does.
    pub leaving: Option<Leaving>,
    pub reused: bool,
}

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct HttpPool {
    h1: Mutex<HashMap<PoolKey, Vec<H1Connection>>>,
    h2: Mutex<HashMap<PoolKey, (Instant, H2Connection)>>,
}

impl HttpPool {
    /// The connection that was used last, if its peer has not closed it meanwhile.
    pub fn take_h1(&self, key: &PoolKey) -> Option<H1Connection> {
        let mut pool = lock(&self.h1);
        let idle = pool.get_mut(key)?;
        while let Some(mut connection) = idle.pop() {
            if !connection.reader.is_leaving() && connection.reader.is_quiet() {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub fn put_h1(&self, mut connection: H1Connection) {
        connection.idle_since = Instant::now();
        let mut pool = lock(&self.h1);
        match pool.get_mut(&connection.key) {
            Some(idle) if idle.len() < MAX_IDLE => idle.push(connection),
            Some(_) => {}
            None => drop(pool.insert(connection.key.clone(), vec![connection])),
        }
    }

    /// A connection that takes more streams.
    pub fn h2(&self, key: &PoolKey) -> Option<H2Connection> {
        let mut pool = lock(&self.h2);
        let (used, connection) = pool.get_mut(key)?;
        let leaving = connection.leaving.as_ref().is_some_and(Leaving::is_so);
        if leaving || connection.closed.load(Ordering::Relaxed) {
            pool.remove(key);
            return None;
        }
        *used = Instant::now();
        Some(H2Connection { reused: true, ..connection.clone() })
    }

    /// Shares a connection.
    pub fn put_h2(&self, key: PoolKey, connection: H2Connection) {
        lock(&self.h2).insert(key, (Instant::now(), connection));
    }

    /// Puts no more streams on a connection.
    pub fn retire_h2(&self, key: &PoolKey) {
        lock(&self.h2).remove(key);
    }

    /// Closes what was idle for long.
    pub fn sweep(&self) {
        let now = Instant::now();
        let fresh = |since: Instant| now.duration_since(since) < IDLE;
        lock(&self.h1).retain(|_, idle| {
            idle.retain(|connection| fresh(connection.idle_since));
            !idle.is_empty()
        });
        // Streams that run keep their connection; only the pool lets go of it.
        lock(&self.h2).retain(|_, (used, connection)| !connection.closed.load(Ordering::Relaxed) && fresh(*used));
    }

    /// Forgets the connections of an origin that is gone.
    pub fn forget(&self, origin: u64) {
        lock(&self.h1).retain(|key, _| key.origin != origin);
        lock(&self.h2).retain(|key, _| key.origin != origin);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

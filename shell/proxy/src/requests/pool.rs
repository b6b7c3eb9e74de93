//! Connections to endpoints that wait for the next request.
use super::conn::{self, Reader, Writer};
use crate::hbone::pool::Leaving;
use crate::telemetry::EdgeCells;
use crate::upstream::Load;
use bytes::Bytes;
use h2::client::SendRequest;
use model::map::HashMap;
use model::mesh::BackendTls;
use model::mesh::traffic::{ConnectionPool, Pings};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shorter than most servers keep an idle connection, so that it is rarely them who close.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections to one endpoint.
const MAX_IDLE: usize = 256;

/// Which connections are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolKey {
    /// Serial of the origin: connections are never shared between identities.
    pub origin: u64,
    /// The process: an endpoint has one load as long as anybody knows it.
    pub load: ByPlace<Load>,
    /// The service that it was reached by, for telemetry.
    pub service: Option<model::Key>,
    /// It was opened to an endpoint that drains or failed, for want of another: the endpoint serves requests on such a one alone.
    pub last_resort: bool,
    /// The service is outside of the mesh.
    pub outside: bool,
    /// Which TLS policy it is under. It is held: by its address alone a later policy could be taken for it, and other names for verified.
    pub tls: Option<ByPlace<BackendTls>>,
    /// The client that its other end knows of, where that is so: by a PROXY header, or by its address (then of no port).
    pub client: Option<SocketAddr>,
}

/// For how long a connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Without requests.
    idle: Duration,
    /// Requests that it may carry; 0 for any number.
    most_uses: u32,
    /// Streams that it carries at once, if it is HTTP/2; 0 for any number.
    most_streams: u32,
    /// How its other end is asked whether it is there, if it is HTTP/2.
    pub pings: Option<Pings>,
}

impl Life {
    /// As a service's policy has it.
    pub fn of(pool: Option<&ConnectionPool>) -> Self {
        let idle = pool.map(|pool| pool.idle_timeout_ms).filter(|ms| *ms > 0);
        let idle = idle.map_or(IDLE, Duration::from_millis);
        let of = |limit: fn(&ConnectionPool) -> u32| pool.map_or(0, limit);
        let pings = pool.and_then(|pool| pool.pings);
        let most_uses = of(|pool| pool.max_requests_per_connection);
        Self { idle, most_uses, most_streams: of(|pool| pool.max_streams), pings }
    }

    fn is_used_up(self, uses: u32) -> bool {
        self.most_uses > 0 && uses >= self.most_uses
    }
}

impl Hash for PoolKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The rest rarely differs.
        (self.origin, Arc::as_ptr(&self.load.0) as usize).hash(state);
        if let Some(client) = self.client {
            client.hash(state);
        }
    }
}

/// Something that is equal to itself alone.
#[derive(Debug)]
pub struct ByPlace<T>(pub Arc<T>);

impl<T> Clone for ByPlace<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> PartialEq for ByPlace<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for ByPlace<T> {}

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
    life: Life,
    uses: u32,
}

impl H1Connection {
    /// One that nothing was sent on; `waited`: it is not fresh all the same.
    pub fn new(
        key: PoolKey,
        (reader, writer): (Reader, Writer),
        cells: Arc<EdgeCells>,
        waited: bool,
        life: Life,
    ) -> Self {
        Self { key, reader, writer, cells, reused: waited, idle_since: Instant::now(), life, uses: 0 }
    }

    /// Drops it so that its other end sees a failure, also one that reads nothing.
    pub fn abort(self) {
        if let Some(stream) = conn::join(self.reader, self.writer) {
            stream.abort();
        }
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
    pub life: Life,
    /// Requests that it carried or carries, the first one included.
    pub uses: u32,
    /// Whether its other end takes extended CONNECT (RFC 8441), if it was waited for what that says.
    pub extended: Option<bool>,
}

impl H2Connection {
    /// Whether its other end takes extended CONNECT, as far as that is known.
    pub fn takes_extended_connect(&self) -> Option<bool> {
        self.extended.or(self.sender.is_extended_connect_protocol_enabled().then_some(true))
    }

    /// Whether it carries as many streams as it may: by our policy, and by what its other end takes (RFC 9113, 5.1.2; one more would wait, unseen,
    /// until another ends). Each holds a clone of it; so do the pool and, of `closed`, who drives it.
    fn is_full(&self) -> bool {
        let under_way = Arc::strong_count(&self.closed).saturating_sub(2);
        let most = self.life.most_streams as usize;
        under_way > 0 && (under_way >= self.sender.current_max_send_streams() || (most > 0 && under_way >= most))
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.closed, &other.closed)
    }
}

/// A connection that carries several requests at once, and when it was last asked for.
#[derive(Debug)]
struct Shared {
    used: Instant,
    connection: H2Connection,
}

impl Shared {
    fn is_of_use(&self, now: Instant) -> bool {
        let H2Connection { leaving, closed, life, .. } = &self.connection;
        let leaving = leaving.as_ref().is_some_and(Leaving::is_so);
        !leaving && !closed.load(Ordering::Relaxed) && now.duration_since(self.used) < life.idle
    }
}

/// The connections of one worker.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "a connection goes from here into requests and back: a pointer of it, not a copy")]
pub struct HttpPool {
    h1: Mutex<HashMap<PoolKey, Vec<Box<H1Connection>>>>,
    h2: Mutex<HashMap<PoolKey, Vec<Shared>>>,
}

impl HttpPool {
    /// The connection that was used last, if its peer has not closed it meanwhile.
    pub fn take_h1(&self, key: &PoolKey) -> Option<Box<H1Connection>> {
        let mut pool = lock(&self.h1);
        let idle = pool.get_mut(key)?;
        while let Some(mut connection) = idle.pop() {
            let fresh = connection.idle_since.elapsed() < connection.life.idle;
            if fresh && !connection.reader.is_leaving() && connection.reader.is_quiet() {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub fn put_h1(&self, mut connection: Box<H1Connection>) {
        connection.idle_since = Instant::now();
        connection.uses += 1;
        if connection.life.is_used_up(connection.uses) {
            return;
        }
        let mut pool = lock(&self.h1);
        match pool.get_mut(&connection.key) {
            Some(idle) if idle.len() < MAX_IDLE => idle.push(connection),
            Some(_) => {}
            None => drop(pool.insert(connection.key.clone(), vec![connection])),
        }
    }

    /// A connection that takes more streams: the oldest, so that those that a crowd needed end when it is gone.
    pub fn h2(&self, key: &PoolKey) -> Option<H2Connection> {
        let mut pool = lock(&self.h2);
        let shared = pool.get_mut(key)?;
        let now = Instant::now();
        // Streams that run keep a connection that is of no more use here.
        shared.retain(|it| it.is_of_use(now));
        let at = shared.iter().position(|it| !it.connection.is_full())?;
        let it = &mut shared[at];
        it.used = now;
        it.connection.uses += 1;
        let found = H2Connection { reused: true, ..it.connection.clone() };
        if found.life.is_used_up(found.uses) {
            // Streams that run keep it; no more are put on it.
            shared.remove(at);
        }
        Some(found)
    }

    /// Shares a connection, in place of those that take streams still: of it most is known.
    pub fn put_h2(&self, key: PoolKey, connection: H2Connection) {
        if connection.life.is_used_up(connection.uses) {
            return;
        }
        let mut pool = lock(&self.h2);
        let shared = pool.entry(key).or_default();
        let now = Instant::now();
        shared.retain(|it| it.is_of_use(now) && it.connection.is_full());
        if shared.len() < MAX_IDLE {
            shared.push(Shared { used: now, connection });
        }
    }

    /// Puts no more streams on a connection.
    pub fn retire_h2(&self, key: &PoolKey, connection: &H2Connection) {
        if let Some(shared) = lock(&self.h2).get_mut(key) {
            shared.retain(|it| !it.connection.is_same(connection));
        }
    }

    /// Closes what was idle for long.
    pub fn sweep(&self) {
        let now = Instant::now();
        let fresh = |since: Instant, life: Life| now.duration_since(since) < life.idle;
        lock(&self.h1).retain(|_, idle| {
            idle.retain(|connection| fresh(connection.idle_since, connection.life) && !connection.reader.is_leaving());
            !idle.is_empty()
        });
        // Streams that run keep their connection; only the pool lets go of it.
        lock(&self.h2).retain(|_, shared| {
            shared.retain(|it| it.is_of_use(now));
            !shared.is_empty()
        });
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

//! What all threads of the process share.
use crate::access::AccessLog;
use crate::config::{Config, Control};
use crate::dns::forward::Forwarder;
use crate::handover::{Lent, Places};
use crate::identity::Identities;
use crate::limits::States;
use crate::mesh::Mesh;
use crate::pods::Pods;
use crate::polling;
use crate::requests::Hedges;
use crate::telemetry::Telemetry;
use crate::trace::Tracer;
use model::mesh::Workload;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use traffic::balance::locality::Place;

/// How long connections may take to finish when the process is told to stop.
pub const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// When a successor serves, idle connections of clients have so long for one more request, which is told to close. Closed at once, one of
/// them could just be sending it.
const IDLE_GRACE: Duration = Duration::from_secs(15);
/// A process that was told to leave stays at least for so long: what was accepted last is not counted yet.
const LEAVE_LEAST: Duration = Duration::from_secs(2);

/// What must finish first, by where it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A connection that a pod opened.
    Outbound,
    /// A connection to a pod, not through a tunnel.
    Inbound,
    /// A stream of a tunnel that ends here.
    Tunnelled,
    /// A connection of a gateway's client.
    Gateway,
    /// A request in HTTP/2.
    Request,
}

impl Work {
    const ALL: [Work; 5] = [Work::Outbound, Work::Inbound, Work::Tunnelled, Work::Gateway, Work::Request];
}

/// How far the process is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    /// It serves.
    Not,
    /// Nothing new is accepted; what there is is asked to go elsewhere.
    Leaving,
    /// Connections that wait for a request are closed too.
    Closing,
}

/// Shared by the control thread and the workers.
#[derive(Debug)]
pub struct Shared {
    /// As started.
    pub config: Config,
    /// What is known.
    pub mesh: Mesh,
    /// Who we speak for.
    pub identities: Arc<Identities>,
    /// Who is attached.
    pub pods: Pods,
    /// What was counted.
    pub telemetry: Telemetry,
    /// Makes spans.
    pub tracer: Tracer,
    /// Each request, if that is wanted.
    pub access_log: Option<AccessLog>,
    /// Asks about the world outside.
    pub forwarder: Forwarder,
    /// What services' policies remember.
    pub states: States,
    /// Tries that were made beside others.
    pub hedges: Hedges,
    /// How long workers looked for more to do.
    pub polled: Arc<polling::Spent>,
    /// When the process began.
    pub started: Instant,
    versions: Mutex<BTreeMap<String, String>>,
    /// Duplicates of listening sockets, for a successor.
    pub lent: Lent,
    /// Sockets of gateways that a predecessor left.
    pub places: Places,
    ending: watch::Sender<Ending>,
    /// The node agent's orders wait: they are for the successor.
    orders_held: watch::Sender<bool>,
    /// The control plane has told everything.
    synced: watch::Sender<bool>,
    /// Which policies there are is known: told, kept from when they were, or put in by whoever has no control plane.
    informed: watch::Sender<bool>,
    busy: [AtomicUsize; Work::ALL.len()],
}

/// Something that must finish before the process ends.
#[derive(Debug)]
pub struct Busy(Arc<Shared>, Work);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Nothing known, nobody attached.
    pub fn new(config: Config, identities: Arc<Identities>, access_log: Option<AccessLog>) -> Self {
        let local = matches!(config.control, Control::Local);
        Self {
            tracer: Tracer::new(&config.tracing),
            access_log,
            forwarder: Forwarder::new(config.resolv_conf.clone()),
            lent: Lent::new(config.handover_socket.is_some()),
            places: Places::default(),
            config,
            mesh: Mesh::default(),
            identities,
            pods: Pods::default(),
            telemetry: Telemetry::default(),
            states: States::default(),
            hedges: Hedges::default(),
            polled: Arc::default(),
            started: Instant::now(),
            versions: Mutex::default(),
            ending: watch::Sender::new(Ending::Not),
            orders_held: watch::Sender::new(false),
            synced: watch::Sender::new(false),
            informed: watch::Sender::new(local),
            busy: Default::default(),
        }
    }

    /// Notes which version of each resource type is run.
    pub fn set_versions(&self, versions: BTreeMap<String, String>) {
        *self.versions.lock().unwrap_or_else(PoisonError::into_inner) = versions;
    }

    /// Which version of each resource type is run.
    pub fn versions(&self) -> BTreeMap<String, String> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins to stop: listeners close, tunnels say GOAWAY, keep-alive connections end after their request or now.
    pub fn stop(&self) {
        self.ending.send_replace(Ending::Closing);
    }

    /// A successor serves: as [`stop`](Self::stop), but that connections which wait for a request are left to wait for a while.
    pub fn leave(&self) {
        self.ending.send_if_modified(|ending| {
            let first = *ending == Ending::Not;
            *ending = Ending::Leaving.max(*ending);
            first
        });
    }

    /// Whether the process is about to end.
    pub fn is_stopping(&self) -> bool {
        *self.ending.borrow() >= Ending::Leaving
    }

    /// Waits until the process is told to stop or leave.
    pub async fn stopped(&self) {
        self.reached(Ending::Leaving).await;
    }

    /// Waits until connections that wait for a request are closed.
    pub async fn closing(&self) {
        self.reached(Ending::Closing).await;
    }

    async fn reached(&self, wanted: Ending) {
        let mut ending = self.ending.subscribe();
        // The sender lives as long as self.
        let _ = ending.wait_for(|ending| *ending >= wanted).await;
    }

    /// Lets the node agent's orders wait, or go on.
    pub fn hold_orders(&self, hold: bool) {
        self.orders_held.send_replace(hold);
    }

    /// Waits until the node agent's orders are held, or are not.
    pub async fn orders_held(&self, held: bool) {
        let mut now = self.orders_held.subscribe();
        // The sender lives as long as self.
        let _ = now.wait_for(|now| *now == held).await;
    }

    /// The control plane has told everything.
    pub fn set_synced(&self) {
        self.set_informed();
        self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    /// Which policies there are is known, as of now or of when this proxy last ran.
    pub fn set_informed(&self) {
        self.informed.send_if_modified(|informed| !std::mem::replace(informed, true));
    }

    /// Whether it is known which policies there are. Until it is, that there are none means nothing.
    pub fn is_informed(&self) -> bool {
        *self.informed.borrow()
    }

    /// Waits until it is known which policies there are.
    pub async fn informed(&self) {
        let mut informed = self.informed.subscribe();
        // The sender lives as long as self.
        let _ = informed.wait_for(|informed| *informed).await;
    }

    /// Waits until the control plane has told everything.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as self.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// After [`leave`](Self::leave): waits until nothing runs any more, or patience ends.
    pub async fn left(&self, patience: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if begun.elapsed() >= IDLE_GRACE {
                self.stop();
            }
            if begun.elapsed() >= LEAVE_LEAST && !self.is_busy() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.cut();
    }

    /// Marks something that must finish first.
    pub fn busy(self: &Arc<Self>, what: Work) -> Busy {
        self.busy[what as usize].fetch_add(1, Ordering::Relaxed);
        Busy(self.clone(), what)
    }

    fn is_busy(&self) -> bool {
        self.busy.iter().any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Says what is cut.
    fn cut(&self) {
        let counts = Work::ALL.map(|what| (what, self.busy[what as usize].load(Ordering::Relaxed)));
        let open: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} {what:?}").to_ascii_lowercase())
            .collect();
        tracing::warn!(open = open.join(", "), "connections are cut: they did not end in time");
    }

    /// Milliseconds since the process began.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The same at an instant.
    pub fn ms_at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.started).as_millis() as u64
    }

    /// Where this proxy's callers are: its first pod's place, which is its node's.
    pub fn place(&self) -> Place {
        let address = self.pods.list().first().and_then(|pod| pod.origin.addresses.first().copied());
        let workload = address.and_then(|address| self.mesh.workload_at(address));
        let place =
            |it: Arc<Workload>| Place { region: it.region.clone(), zone: it.zone.clone(), node: it.node.clone() };
        workload.map(place).unwrap_or_default()
    }

    /// Waits until nothing is busy, or patience ends.
    pub async fn finished(&self) {
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.is_busy() {
            if Instant::now() >= deadline {
                return self.cut();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

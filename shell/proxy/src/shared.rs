//! What all threads of the process share.
use crate::access::AccessLog;
use crate::config::Config;
use crate::dns::forward::Forwarder;
use crate::identity::Identities;
use crate::limits::States;
use crate::mesh::Mesh;
use crate::pods::Pods;
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
    /// When the process began.
    pub started: Instant,
    versions: Mutex<BTreeMap<String, String>>,
    stopping: watch::Sender<bool>,
    busy: AtomicUsize,
}

/// Something that must finish before the process ends.
#[derive(Debug)]
pub struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Nothing known, nobody attached.
    pub fn new(config: Config, identities: Arc<Identities>, access_log: Option<AccessLog>) -> Self {
        Self {
            tracer: Tracer::new(&config.tracing),
            access_log,
            forwarder: Forwarder::new(config.resolv_conf.clone()),
            config,
            mesh: Mesh::default(),
            identities,
            pods: Pods::default(),
            telemetry: Telemetry::default(),
            states: States::default(),
            started: Instant::now(),
            versions: Mutex::default(),
            stopping: watch::Sender::new(false),
            busy: AtomicUsize::new(0),
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

    /// Begins to stop: listeners close, tunnels say GOAWAY, keep-alive connections end after their request.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether the process is about to end.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until the process is told to stop.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as self.
        let _ = stopping.wait_for(|stop| *stop).await;
    }

    /// Marks something that must finish first.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Milliseconds since the process began.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
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
        while self.busy.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

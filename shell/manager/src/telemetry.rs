//! What runs and what it uses, measured: scrapes every node's agent, keeps a bounded window, and answers `metrics.k8s.io` and the
//! dashboard.

mod agents;
mod metrics;
mod pool;
mod routes;
mod scrape;
pub mod skywalking;
mod traffic;
mod workloads;

use crate::manager::SharedControl;
use crate::subscriber::{Change, Subscriber};
use bytes::Bytes;
use control::Control;
use model::{Event, Key, Timestamp};
use scaling::Graph;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Where the reconcilers' counters are told, as Prometheus text.
pub const COUNTERS: &str = "/metrics/controllers";
/// Rates are over this window.
const WINDOW_MS: i64 = 60_000;
/// Points of the pool's history that are kept.
const HISTORY_MAX: usize = 360;
/// Events that are told.
const EVENTS_TOLD: usize = 200;
/// Events that are kept to choose from.
const EVENTS_KEPT: usize = 2000;
/// Where a service's traffic is told: NAMESPACE/NAME follows.
const TRAFFIC: &str = "/diolkos/v1/traffic/";

/// Settings of the telemetry.
#[derive(Clone)]
pub struct Config {
    /// How to speak TLS to node agents (client certificate, authority); server name is the node's name.
    pub agent_tls: Arc<rustls::ClientConfig>,
    /// How often agents are asked.
    pub period: Duration,
}

/// The telemetry.
pub struct Telemetry {
    control: SharedControl,
    config: Config,
    state: Mutex<State>,
    agents: Mutex<agents::Agents>,
}

#[derive(Default)]
struct State {
    graph: Graph,
    history: VecDeque<pool::Point>,
    /// Versions of node agents, which the projection leaves out.
    versions: HashMap<Arc<str>, String>,
    /// Routes as they are written, by resource, namespace and name.
    routes: BTreeMap<(&'static str, Key), Bytes>,
    events: HashMap<Key, Told>,
    traffic: traffic::Traffic,
}

/// An Event object as it is told.
struct Told {
    at_s: i64,
    json: Value,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change of the state is whole by itself: a panic between two leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer that may be asked for before there is anybody to give it: the server starts before the manager.
#[derive(Clone, Default)]
pub struct Answers {
    telemetry: Arc<OnceLock<Arc<Telemetry>>>,
}

impl Answers {
    /// Whether this path is answered here.
    pub fn takes(&self, path: &str) -> bool {
        path.starts_with(metrics::PREFIX)
            || path.starts_with(TRAFFIC)
            || matches!(
                path.strip_prefix("/diolkos/v1/"),
                Some("pool" | "workloads" | "graph" | "routes" | "events" | "agents")
            )
    }
    /// Answers a path with a status and JSON; `label_selector` is the query's parameter of that name. None: not ours.
    pub fn handle(&self, path: &str, label_selector: Option<&str>) -> Option<(u16, Bytes)> {
        if !self.takes(path) {
            return None;
        }
        match self.telemetry.get() {
            Some(telemetry) => telemetry.handle(path, label_selector),
            None => {
                Some((503, metrics::status(503, "ServiceUnavailable", "the platform is starting").to_string().into()))
            }
        }
    }
    /// From now on `telemetry` answers.
    pub fn give_to(&self, telemetry: Arc<Telemetry>) {
        // A second manager in one process would be a mistake of the wiring; the first keeps answering.
        let _ = self.telemetry.set(telemetry);
    }
}

impl Telemetry {
    /// A telemetry over the manager's control. Subscribe it to the informers and spawn [`Telemetry::run`].
    pub fn new(control: SharedControl, config: Config) -> Arc<Self> {
        Arc::new(Telemetry { control, config, state: Mutex::default(), agents: Mutex::default() })
    }

    /// Asks agents until `shutdown` says true.
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.config.period) => self.scrape().await,
                changed = shutdown.changed() => {
                    if changed.is_err() || *shutdown.borrow() {
                        return;
                    }
                }
            }
        }
    }

    /// Answers a path. None: not ours.
    pub fn handle(&self, path: &str, label_selector: Option<&str>) -> Option<(u16, Bytes)> {
        let now = crate::executor::now();
        let ok = |value: Value| Some((200, Bytes::from(value.to_string())));
        if let Some(rest) = path.strip_prefix(metrics::PREFIX) {
            let (code, value) = metrics::answer(&self.control(), rest, label_selector);
            return Some((code, value.to_string().into()));
        }
        if path == COUNTERS {
            return Some((200, self.prometheus().into()));
        }
        if let Some((namespace, name)) = path.strip_prefix(TRAFFIC).and_then(|rest| rest.split_once('/')) {
            let state = self.state();
            let key = Key::new(namespace, name);
            let mut answer = state.traffic.answer(&key);
            let growth = state.graph.growth(now, WINDOW_MS, true);
            let calls = growth.iter().filter(|it| *it.key.service == *name && *it.key.service_namespace == *namespace);
            answer["callers"] = calls.map(|it| edge(&state.graph.rate_of(it))).collect();
            return ok(answer);
        }
        match path.strip_prefix("/diolkos/v1/")? {
            "pool" => ok(pool::answer(&self.control(), &self.state(), now)),
            "workloads" => ok(workloads::answer(&self.control(), now)),
            "graph" => ok(graph(&self.state(), now)),
            "routes" => ok(routes::answer(&self.control(), &self.state(), now)),
            "events" => ok(events(&self.state())),
            "agents" => ok(agents(&lock(&self.agents), now)),
            _ => None,
        }
    }

    /// The reconcilers' counters as Prometheus text.
    fn prometheus(&self) -> String {
        let control = self.control();
        let (ready, open) = control.load();
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, u64)>| {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
            for (labels, value) in rows {
                text.push_str(&format!("{name}{labels} {value}\n"));
            }
        };
        let rows = |of: fn(&control::Counters) -> u64| -> Vec<(String, u64)> {
            let all = control.counters().iter();
            all.map(|(controller, counters)| (format!("{{controller=\"{}\"}}", controller.name()), of(counters)))
                .collect()
        };
        family(
            "diolkos_control_reconciled_total",
            "counter",
            "Looks at one object by one reconciler.",
            rows(|c| c.reconciled),
        );
        family("diolkos_control_orders_total", "counter", "Orders given.", rows(|c| c.orders));
        family("diolkos_control_refused_total", "counter", "Orders that the API refused.", rows(|c| c.refused));
        family(
            "diolkos_control_queue_depth",
            "gauge",
            "Keys that are ready to be looked at.",
            vec![(String::new(), ready as u64)],
        );
        family(
            "diolkos_control_orders_open",
            "gauge",
            "Orders whose outcome was not seen yet.",
            vec![(String::new(), open as u64)],
        );
        text
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn edge(rate: &scaling::EdgeRate) -> Value {
    let peer = |peer: &scaling::Peer| json!({ "namespace": &*peer.namespace, "workload": &*peer.workload });
    json!({
        "source": peer(&rate.key.source), "destination": peer(&rate.key.destination),
        "service": &*rate.key.service, "service_namespace": &*rate.key.service_namespace,
        "protocol": &*rate.key.protocol, "mtls": rate.key.mtls,
        "requests_per_s": rate.requests_per_s, "error_share": rate.error_share,
        "p50_ms": rate.p50_ms, "p99_ms": rate.p99_ms, "bytes_per_s": rate.bytes_per_s,
    })
}

fn graph(state: &State, now: Timestamp) -> Value {
    let edges: Vec<Value> = state.graph.rates(now, WINDOW_MS).iter().map(edge).collect();
    json!({ "window_s": WINDOW_MS / 1000, "edges": edges })
}

fn agents(agents: &agents::Agents, now: Timestamp) -> Value {
    let instance = |(service, instance, it): (&str, &str, &agents::Instance)| {
        let workload = it.workload.as_ref().map(|of| json!({ "namespace": &*of.namespace, "workload": &*of.workload }));
        let silent_s = (now.0 - it.seen_ms) / 1000;
        json!({ "service": service, "instance": instance, "language": &*it.language, "workload": workload, "silent_s": silent_s })
    };
    let instances: Vec<Value> = agents.instances().map(instance).collect();
    json!({ "instances": instances, "segments": agents.segments, "calls_left_out": agents.left_out })
}

fn events(state: &State) -> Value {
    let mut all: Vec<(&Key, &Told)> = state.events.iter().collect();
    all.sort_by(|(a, x), (b, y)| (y.at_s, a).cmp(&(x.at_s, b)));
    let told: Vec<&Value> = all.into_iter().take(EVENTS_TOLD).map(|(_, told)| &told.json).collect();
    json!({ "events": told })
}

impl Subscriber for Telemetry {
    fn observe(&self, changes: &[Change]) {
        for change in changes {
            match (change.resource.group, change.resource.plural) {
                ("", "events") => self.state().take_event(change),
                ("", "nodes") => self.state().take_node(change),
                ("gateway.networking.k8s.io", "httproutes" | "grpcroutes") => self.state().take_route(change),
                _ => {}
            }
        }
    }
}

fn parse(bytes: Option<&Bytes>) -> Option<Value> {
    serde_json::from_slice(bytes?).ok()
}

fn seconds(value: &Value) -> Option<i64> {
    value.as_str()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

impl State {
    fn take_event(&mut self, change: &Change) {
        match &change.event {
            Event::Applied(object) => {
                let Some(event) = parse(change.bytes.as_ref()) else { return };
                let meta = object.meta();
                let about = &event["involvedObject"];
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (kind, namespace, name) = (text(&about["kind"]), text(&about["namespace"]), text(&about["name"]));
                let object =
                    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") };
                let at_s = seconds(&event["lastTimestamp"])
                    .or_else(|| seconds(&event["series"]["lastObservedTime"]))
                    .or_else(|| seconds(&event["eventTime"]))
                    .unwrap_or(meta.created.secs());
                let count = event["count"].as_i64().or_else(|| event["series"]["count"].as_i64()).unwrap_or(1);
                let json = json!({
                    "at_s": at_s, "type": event["type"], "reason": event["reason"], "object": object,
                    "message": event["message"].as_str().or(event["note"].as_str()).unwrap_or_default(), "count": count,
                });
                self.events.insert(meta.key.clone(), Told { at_s, json });
                if self.events.len() > EVENTS_KEPT {
                    self.forget_old_events();
                }
            }
            Event::Deleted { key, .. } => {
                self.events.remove(key);
            }
            _ => {}
        }
    }

    /// Keeps the newer half.
    fn forget_old_events(&mut self) {
        let mut times: Vec<i64> = self.events.values().map(|told| told.at_s).collect();
        times.sort_unstable();
        let from = times[times.len() / 2];
        self.events.retain(|_, told| told.at_s > from);
    }

    fn take_node(&mut self, change: &Change) {
        match &change.event {
            Event::Applied(object) => {
                // Heartbeats change a node every few minutes: decoding it again costs nothing that matters.
                let version = parse(change.bytes.as_ref())
                    .map(|node| node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default().to_owned());
                self.versions.insert(object.meta().key.name.clone(), version.unwrap_or_default());
            }
            Event::Deleted { key, .. } => {
                self.versions.remove(&key.name);
            }
            _ => {}
        }
    }

    fn take_route(&mut self, change: &Change) {
        match &change.event {
            Event::Applied(object) => {
                if let Some(bytes) = &change.bytes {
                    self.routes.insert((change.resource.kind, object.meta().key.clone()), bytes.clone());
                }
            }
            Event::Deleted { key, .. } => {
                self.routes.remove(&(change.resource.kind, key.clone()));
            }
            _ => {}
        }
    }
}

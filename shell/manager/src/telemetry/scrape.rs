//! Asks node agents what their pods use and what their proxies saw.

use super::{HISTORY_MAX, Telemetry, WINDOW_MS, lock, pool, traffic};
use crate::executor::now;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use model::{Key, Timestamp, Truth, condition};
use rustls::pki_types::ServerName;
use scaling::{ContainerUsage, Counters, EdgeKey, Peer, Sample};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// An agent that takes longer is left out of this round.
const TIMEOUT: Duration = Duration::from_secs(4);
const BODY_MAX: usize = 64 << 20;
/// Who reports what language agents tell.
const AGENTS: &str = "agents";
/// Agents that are asked at once.
const AT_ONCE: usize = 64;
/// Port of an agent that tells none.
const AGENT_PORT: u16 = 10_250;
/// Usage of what was not measured for so long is forgotten.
const FORGET_MS: i64 = 120_000;

struct Agent {
    node: Arc<str>,
    address: String,
    port: u16,
}

struct Answer {
    node: Arc<str>,
    at: Timestamp,
    summary: Option<Value>,
    telemetry: Option<Value>,
}

impl Telemetry {
    /// One round over all nodes that are ready.
    pub(super) async fn scrape(&self) {
        let mut waiting = self.agents().into_iter();
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < AT_ONCE
                && let Some(agent) = waiting.next()
            {
                asking.spawn(ask(self.config.agent_tls.clone(), agent));
            }
            match asking.join_next().await {
                Some(Ok(answer)) => self.take(&answer),
                Some(Err(error)) => tracing::error!(%error, "asking a node agent failed"),
                None => break,
            }
        }
        self.close_round();
    }

    fn agents(&self) -> Vec<Agent> {
        let control = self.control();
        let ready =
            |node: &model::Node| condition::find(&node.conditions, "Ready").is_some_and(|c| c.status == Truth::True);
        let nodes = control.world().nodes.values().filter(|node| ready(node));
        nodes
            .filter_map(|node| {
                let port = if node.agent_port == 0 { AGENT_PORT } else { node.agent_port };
                Some(Agent { node: node.meta.key.name.clone(), address: node.address("InternalIP")?.to_owned(), port })
            })
            .collect()
    }

    fn take(&self, answer: &Answer) {
        if let Some(summary) = &answer.summary {
            take_usage(self.control().usage_mut(), answer, summary);
        }
        if let Some(telemetry) = &answer.telemetry {
            let bounds: Vec<f64> = array(&telemetry["latency_bounds_ms"]).iter().filter_map(Value::as_f64).collect();
            let edges = array(&telemetry["edges"]).iter().map(edge).collect();
            self.state().graph.observe(&answer.node, answer.at, &bounds, edges);
        }
    }

    fn close_round(&self) {
        let now = now();
        let point = {
            let mut control = self.control();
            control.usage_mut().forget(now.plus_ms(-FORGET_MS));
            pool::point(&control, now)
        };
        let told = {
            let mut agents = lock(&self.agents);
            agents.forget(now.0);
            agents.edges()
        };
        let mut state = self.state();
        if !told.is_empty() {
            state.graph.observe(&Arc::from(AGENTS), now, &model::latency::bounds_ms(), told);
        }
        state.graph.forget(now.plus_ms(-2 * WINDOW_MS));
        if state.traffic.is_due(now) {
            // A period that is longer than a slot: what grew between the last two answers.
            let window_ms = traffic::SLOT_MS.max(self.config.period.as_millis() as i64);
            let growth = state.graph.growth(now, window_ms, true);
            state.traffic.close(now, &growth);
        }
        if state.history.len() == HISTORY_MAX {
            state.history.pop_front();
        }
        state.history.push_back(point);
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> Arc<str> {
    value.as_str().unwrap_or_default().into()
}

fn sample(value: &Value, at: Timestamp) -> Sample {
    Sample {
        at,
        cpu_nano: value["cpu"]["usageNanoCores"].as_u64().unwrap_or(0),
        memory_bytes: value["memory"]["workingSetBytes"].as_u64().unwrap_or(0),
    }
}

fn take_usage(window: &mut scaling::Window, answer: &Answer, summary: &Value) {
    window.observe_node(answer.node.clone(), sample(&summary["node"], answer.at));
    for pod in array(&summary["pods"]) {
        let key = Key { namespace: text(&pod["podRef"]["namespace"]), name: text(&pod["podRef"]["name"]) };
        let containers = array(&pod["containers"])
            .iter()
            .map(|one| ContainerUsage { name: text(&one["name"]), sample: sample(one, answer.at) })
            .collect();
        window.observe_pod(key, answer.at, containers);
    }
}

fn edge(value: &Value) -> (EdgeKey, bool, Counters) {
    let peer = |side: &Value| Peer { namespace: text(&side["namespace"]), workload: text(&side["workload"]) };
    let number = |field: &str| value[field].as_u64().unwrap_or(0);
    let key = EdgeKey {
        source: peer(&value["source"]),
        destination: peer(&value["destination"]),
        service: text(&value["service"]["name"]),
        service_namespace: text(&value["service"]["namespace"]),
        protocol: text(&value["protocol"]),
        mtls: value["mtls"].as_bool().unwrap_or(false),
    };
    let counters = Counters {
        requests: number("requests"),
        errors: number("errors"),
        buckets: array(&value["latency_buckets"]).iter().filter_map(Value::as_u64).collect(),
        bytes: number("sent_bytes").saturating_add(number("received_bytes")),
    };
    (key, value["reporter"] == "source", counters)
}

async fn ask(tls: Arc<rustls::ClientConfig>, agent: Agent) -> Answer {
    let at = now();
    let mut answer = Answer { node: agent.node.clone(), at, summary: None, telemetry: None };
    let result = tokio::time::timeout(TIMEOUT, async {
        let mut sender = connect(tls, &agent).await?;
        answer.summary = Some(get(&mut sender, &agent, "/stats/summary").await?);
        answer.telemetry = Some(get(&mut sender, &agent, "/telemetry").await?);
        Ok::<(), String>(())
    })
    .await;
    match result {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::debug!(node = %agent.node, why, "an agent tells less than it should"),
        Err(_) => tracing::debug!(node = %agent.node, "an agent does not answer in time"),
    }
    answer
}

type Sender = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;

async fn connect(tls: Arc<rustls::ClientConfig>, agent: &Agent) -> Result<Sender, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let socket = TcpStream::connect((agent.address.as_str(), agent.port)).await.map_err(|e| failed(&e))?;
    let name = ServerName::try_from(agent.node.to_string()).map_err(|e| failed(&e))?;
    let stream = TlsConnector::from(tls).connect(name, socket).await.map_err(|e| failed(&e))?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to a node agent ended");
        }
    });
    Ok(sender)
}

async fn get(sender: &mut Sender, agent: &Agent, path: &str) -> Result<Value, String> {
    sender.ready().await.map_err(|error| error.to_string())?;
    let request =
        Request::get(path).header("host", &*agent.node).body(Empty::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body =
        Limited::new(answer.into_body(), BODY_MAX).collect().await.map_err(|error| error.to_string())?.to_bytes();
    if !status.is_success() {
        return Err(format!("{path}: {status}"));
    }
    serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))
}

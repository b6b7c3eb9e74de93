//! The succession of roots, carried out: reports of proxies come in, `control::trust` decides, the authority does it, everybody is told.

use super::ca::CaError;
use super::core::{Core, now};
use super::hosts;
use super::identity::Caller;
use control::trust::{Event, Lag, Report, Reports, RootId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tonic::{Request, Response, Status};
use xds::trust::{REASONS_LIMIT, ROOTS_LIMIT, TrustReport, TrustReportResponse};

/// How often is looked whether it can go on.
const LOOK: Duration = Duration::from_millis(500);
/// So much of what a proxy says for people is kept.
const REASON_CHARS: usize = 300;

/// What proxies say.
#[derive(Default)]
pub struct Heard(Mutex<Reports>);

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks now and then, for ever.
pub async fn run(core: Arc<Core>) {
    core.ready().await;
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = look(&core) {
            tracing::error!(%error, "mesh: the succession of roots does not go on; trying again");
        }
    }
}

fn look(core: &Core) -> Result<(), CaError> {
    let now_s = now().as_secs();
    core.ca.renew_intermediate(false, now_s)?;
    let event = Event::Looked(core.ca.standing(behind(core).is_empty()));
    if core.ca.advance(event, now_s)? {
        told(core);
    }
    Ok(())
}

/// Begins with another root.
///
/// # Errors
/// It is being replaced already, or cannot be.
pub fn rotate_root(core: &Core) -> Result<(), CaError> {
    if core.ca.advance(Event::Asked, now().as_secs())? {
        told(core);
    }
    Ok(())
}

/// Proxies are told of the roots, and what they said about the old ones counts no longer.
fn told(core: &Core) {
    core.heard.lock().clear();
    core.publish_trust();
}

/// The proxies that the succession waits for.
fn behind(core: &Core) -> BTreeMap<Arc<str>, Lag> {
    let Some((old, next)) = core.ca.old_and_next() else { return BTreeMap::new() };
    let expected: BTreeSet<Arc<str>> = core.objects(|objects| {
        let hosts = objects.joined_hosts().map(|entry| host(&entry.key.namespace, &entry.key.name));
        objects.nodes().cloned().chain(hosts).collect()
    });
    core.heard.lock().behind(core.ca.phase(), &expected, &old, &next, now().as_secs())
}

fn host(namespace: &str, name: &str) -> Arc<str> {
    Caller::host(namespace, name, "").proxy().into()
}

/// For `mesh status`.
pub fn report(core: &Core) -> Value {
    use control::trust::Phase;
    let roots: Vec<Value> = core
        .ca
        .root_infos()
        .iter()
        .map(|root| json!({ "sha256": root.id, "madeUnixS": root.made_s, "notAfterUnixS": root.not_after_s }))
        .collect();
    let (phase, since_s) = match core.ca.phase() {
        Phase::Steady => ("steady", None),
        Phase::Announced { since_s } => ("announced", Some(since_s)),
        Phase::Switched { since_s } => ("switched", Some(since_s)),
    };
    let waiting = behind(core);
    let waiting: Vec<Value> =
        waiting.iter().map(|(proxy, lag)| json!({ "proxy": **proxy, "why": lag.to_string() })).collect();
    json!({ "phase": phase, "sinceUnixS": since_s, "roots": roots, "waitingFor": waiting })
}

/// Takes reports of one connection.
#[derive(Clone)]
pub struct Listener {
    pub core: Arc<Core>,
    pub caller: Caller,
}

impl tonic::server::UnaryService<TrustReport> for Listener {
    type Response = TrustReportResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<TrustReportResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<TrustReport>) -> Self::Future {
        let heard = self.hear(request.into_inner()).map(Response::new);
        Box::pin(std::future::ready(heard))
    }
}

impl Listener {
    fn hear(&self, report: TrustReport) -> Result<TrustReportResponse, Status> {
        if self.caller == Caller::Anonymous {
            return Err(Status::unauthenticated("a client certificate is needed"));
        }
        if !hosts::is_current(&self.core, &self.caller) {
            return Err(hosts::put_out());
        }
        if report.trusted.len().max(report.rests_on.len()) > ROOTS_LIMIT {
            return Err(Status::invalid_argument(format!("more than {ROOTS_LIMIT} roots")));
        }
        let set = |roots: Vec<String>| roots.into_iter().map(RootId::from).collect();
        let shortened = |text: String| text.chars().take(REASON_CHARS).collect();
        let because = report.because.into_iter().take(REASONS_LIMIT).map(shortened).collect();
        let said = Report { trusted: set(report.trusted), rests_on: set(report.rests_on), because };
        self.core.heard.lock().take(self.caller.proxy().into(), report.process, said, now().as_secs());
        Ok(TrustReportResponse {})
    }
}

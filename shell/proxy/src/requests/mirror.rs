//! Copies of requests, whose answers nobody waits for.
use super::attempt;
use super::exchange::{Body, Exchange};
use super::plan::{Plan, Target};
use super::reply::{Caller, Responder};
use super::upstream;
use crate::upstream::Asker;
use crate::worker::Worker;
use bytes::Bytes;
use http1::RequestHead;
use model::mesh::BackendTarget;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// A mirror that does not answer must not pile up copies.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends the copies that the rule asks for. A request whose body is streamed is not copied: to keep up with the slower of two
/// readers would make the mirror part of the service.
pub fn send_copies(exchange: &Exchange<'_>, head: &RequestHead, body: &Body<'_>) {
    let Body::Whole(bytes) = body else { return };
    for mirror in exchange.plan.mirrors() {
        let BackendTarget::Service { service, port } = &mirror.backend else { continue };
        let worker = exchange.worker;
        let own = exchange.plan.target.port().filter(|_| *port == 0);
        let to = match &exchange.site.place {
            super::Place::Service { to, .. } => *to,
            super::Place::Gateway(..) | super::Place::Process { .. } => None,
        };
        let asker = Asker { origin: &exchange.plan.origin, to };
        let Some(port) = worker.ports.get(&worker.shared, service, own.unwrap_or(*port), asker) else { continue };
        let own = Plan::new(exchange.plan.origin.clone(), Target::Port(port));
        let plan = Plan { gateway: exchange.plan.gateway.clone(), ..own };
        let copy = send(worker.clone(), plan, head.clone(), bytes.clone(), exchange.site.client, exchange.grpc);
        tokio::spawn(async move { tokio::time::timeout(PATIENCE, copy).await });
    }
}

async fn send(worker: Arc<Worker>, plan: Plan, mut head: RequestHead, bytes: Bytes, client: SocketAddr, grpc: bool) {
    let Target::Port(port) = &plan.target else { return };
    let site = super::Site::service(&plan.origin, port, (client, None));
    let http2 = port.app_protocol().is_http2();
    let Some(upstream) = port.choose(&[], None, worker.now_ms()) else { return };
    let started = Instant::now();
    let exchange = Exchange {
        worker: &worker,
        site: &site,
        plan,
        http2,
        extended: false,
        grpc,
        started,
        deadline: None,
        idempotent: false,
        replayable: AtomicBool::new(false),
        tries: 1,
        affinity: None,
        record: Mutex::default(),
        retrying: OnceLock::new(),
        racing: AtomicU32::new(0),
        caller: Caller::Unseen,
    };
    let Ok(connected) = upstream::connect(&exchange, &upstream).await else { return };
    let mut responder = Some(Responder::Nobody);
    let mut body = Body::Whole(bytes);
    head.set_upgrade(None);
    let tried = attempt::once(&exchange, &mut head, &mut body, &mut responder, connected, &upstream, None).await;
    if let attempt::Tried::Finished(finished) = tried {
        finished.cells.request(&exchange.over(&finished));
    }
}

//! Tries that race: a request that is slow is sent to another endpoint beside the first, and the first good answer is passed on.
//! The tries that lose are dropped, which closes their connections or resets their streams.
use super::Site;
use super::attempt::{self, Tried};
use super::exchange::{Body, Exchange, Unreached};
use super::plan::{Plan, Target};
use super::reply::{Prize, Responder};
use crate::upstream::Upstream;
use crate::worker::Worker;
use bytes::Bytes;
use http1::RequestHead;
use model::mesh::attached::{Hedging, PolicyTarget};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use traffic::hedge::{Overdue, Race};
use traffic::retry::Failure;

/// Tries that were made beside others.
#[derive(Debug, Default)]
pub struct Counted {
    sent: AtomicU64,
    won: AtomicU64,
}

impl Counted {
    /// As Prometheus reads it.
    pub fn prometheus(&self) -> String {
        let (sent, won) = (self.sent.load(Ordering::Relaxed), self.won.load(Ordering::Relaxed));
        format!(
            "# HELP diolkos_proxy_hedges_total Tries that were made beside slow ones, and those of them whose answer was passed on.\n\
             # TYPE diolkos_proxy_hedges_total counter\n\
             diolkos_proxy_hedges_total{{result=\"sent\"}} {sent}\ndiolkos_proxy_hedges_total{{result=\"won\"}} {won}\n"
        )
    }
}

/// What a TrafficPolicy says about slow requests: on the route, else on the service, else on the gateway.
pub fn wanted(worker: &Worker, site: &Site, came: &RequestHead, plan: &Plan) -> Option<Hedging> {
    let Target::Port(port) = &plan.target else { return None };
    let known = worker.shared.mesh.known();
    let of =
        |target: PolicyTarget, section: &str| known.attached.of(&target, section).find_map(|held| held.policy.hedging);
    let on_route = plan.on_route().and_then(|(target, rule)| of(target, rule));
    let on_service = || {
        let service = port.service().service.known_as().clone();
        of(PolicyTarget::Service { service, port: "".into() }, &port.entry().port.name)
    };
    let on_gateway = || plan.on_gateway(site, came).and_then(|(target, listener)| of(target, &listener));
    on_route.or_else(on_service).or_else(on_gateway)
}

/// The race that a request's next try begins, if its policy wants one and it may be sent twice.
pub fn race(exchange: &Exchange<'_>, head: &RequestHead, body: &Body<'_>) -> Option<Race> {
    let hedging = exchange.plan.hedging?;
    let whole = matches!(body, Body::Whole(_)) && head.upgrade().is_none();
    whole.then(|| Race::new(hedging, exchange.try_ms(), exchange.attempt()))?
}

/// How a race ended.
pub struct Raced {
    /// As a single try ends: the one that won, or the last one that failed.
    pub ended: Result<(Tried, Upstream), Unreached>,
    /// Tries made beside the first.
    pub beside: u32,
}

type Ended = Result<Tried, Unreached>;

struct Running<'t> {
    upstream: Upstream,
    /// It was not the first.
    beside: bool,
    ends: Pin<Box<dyn Future<Output = Ended> + Send + 't>>,
}

enum Event {
    Ended(usize, Ended),
    /// Its answer is being passed on.
    Won(usize),
    Overdue,
}

/// Runs a race to its end. Endpoints that were asked in vain join `tried`.
pub async fn run<'r>(
    exchange: &Exchange<'_>,
    mut race: Race,
    head: &RequestHead,
    body: &Body<'_>,
    responder: &mut Option<Responder<'r>>,
    tried: &mut Vec<SocketAddr>,
) -> Raced {
    let bytes = match body {
        Body::Whole(bytes) => bytes.clone(),
        Body::Stream(_) => Bytes::new(),
    };
    let prize: Prize<'r> = Arc::new(Mutex::new(responder.take().map(Box::new)));
    let first = match exchange.choose(tried) {
        Ok(upstream) => upstream,
        Err(unreached) => {
            *responder = taken(&prize);
            return Raced { ended: Err(unreached), beside: 0 };
        }
    };
    let begin = |upstream: Upstream, race: &mut Race, beside: bool| {
        race.begin();
        exchange.racing.store(race.running(), Ordering::Relaxed);
        let try_ms = exchange.try_ms().filter(|_| !race.ends_tries_together());
        let ends =
            Box::pin(one(exchange, head.clone(), bytes.clone(), prize.clone(), upstream.clone(), beside, try_ms));
        Running { upstream, beside, ends }
    };
    let mut running = vec![begin(first, &mut race, false)];
    let mut beside = 0;
    let wait = Duration::from_millis(race.wait_ms());
    let mut alarm = Some(Box::pin(sleep_until(Instant::now() + wait)));
    let ended = loop {
        let event = next(&mut running, alarm.as_mut().map(|it| it.as_mut()), &prize).await;
        match event {
            Event::Won(index) => {
                // The others are cancelled here.
                let winner = running.swap_remove(index);
                running.clear();
                count_won(exchange, &winner);
                break winner.ends.await.map(|tried| (tried, winner.upstream));
            }
            Event::Ended(index, ended) => {
                let one = running.swap_remove(index);
                let over = is_won(&prize);
                if over {
                    count_won(exchange, &one);
                }
                if over || !race.failed() {
                    break ended.map(|tried| (tried, one.upstream));
                }
                exchange.racing.store(race.running(), Ordering::Relaxed);
                report(exchange, &one.upstream, ended);
                tried.push(one.upstream.address);
            }
            Event::Overdue => {
                if race.ends_tries_together()
                    && let Some(last) = running.last()
                {
                    exchange.report(&last.upstream, Some(Failure::TryTimeout));
                }
                match another(exchange, &mut race, &running, tried) {
                    (Overdue::Send, Some(upstream)) => {
                        beside += 1;
                        exchange.worker.shared.hedges.sent.fetch_add(1, Ordering::Relaxed);
                        running.push(begin(upstream, &mut race, true));
                        alarm = Some(Box::pin(sleep_until(Instant::now() + wait)));
                    }
                    (Overdue::Fail, _) => {
                        let last = running.swap_remove(0);
                        tried.extend(running.drain(..).map(|it| it.upstream.address));
                        let (failure, why) = (Failure::TryTimeout, "timed out".to_owned());
                        break Ok((Tried::Failed { failure, why, stale: false }, last.upstream));
                    }
                    _ => alarm = None,
                }
            }
        }
    };
    drop(running);
    exchange.racing.store(0, Ordering::Relaxed);
    *responder = taken(&prize);
    Raced { ended, beside }
}

/// One of the tries.
async fn one(
    exchange: &Exchange<'_>,
    mut head: RequestHead,
    bytes: Bytes,
    prize: Prize<'_>,
    upstream: Upstream,
    beside: bool,
    try_ms: Option<u64>,
) -> Ended {
    // The first is let in already; the service's limits count the others as well.
    let _admitted = match beside {
        false => None,
        true => match exchange.admit().await {
            Ok(admitted) => Some(admitted),
            Err(_) => return Err(Unreached { address: None, why: "too many requests".into(), last: None }),
        },
    };
    let connected = exchange.reach(&upstream).await?;
    let mut body = Body::Whole(bytes);
    let mut responder = Some(Responder::Raced(prize));
    Ok(attempt::once(exchange, &mut head, &mut body, &mut responder, connected, &upstream, try_ms).await)
}

/// What happens next.
async fn next(
    running: &mut [Running<'_>],
    mut alarm: Option<Pin<&mut tokio::time::Sleep>>,
    prize: &Prize<'_>,
) -> Event {
    poll_fn(|cx| {
        for (index, one) in running.iter_mut().enumerate() {
            match one.ends.as_mut().poll(cx) {
                Poll::Ready(ended) => return Poll::Ready(Event::Ended(index, ended)),
                Poll::Pending if is_won(prize) => return Poll::Ready(Event::Won(index)),
                Poll::Pending => {}
            }
        }
        match alarm.as_mut().map(|alarm| alarm.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Event::Overdue),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Whether another try begins, and where.
fn another(
    exchange: &Exchange<'_>,
    race: &mut Race,
    running: &[Running<'_>],
    tried: &[SocketAddr],
) -> (Overdue, Option<Upstream>) {
    let Target::Port(port) = &exchange.plan.target else { return (Overdue::Wait, None) };
    let asked: Vec<SocketAddr> = running.iter().map(|it| it.upstream.address).chain(tried.iter().copied()).collect();
    let other = exchange.choose(&asked).ok().filter(|it| !asked.contains(&it.address));
    let other = other.filter(|_| exchange.may_retry());
    (port.with_budget(|budget| race.overdue(other.is_some(), exchange.attempt(), budget)), other)
}

/// What the service's policy is told of a try that failed while another runs.
fn report(exchange: &Exchange<'_>, upstream: &Upstream, ended: Ended) {
    match ended {
        Ok(Tried::Failed { failure, .. }) => exchange.report(upstream, Some(failure)),
        Ok(Tried::Again { status, .. }) => exchange.report(upstream, Some(Failure::Status(status))),
        // Who was not reached is reported already.
        Ok(Tried::Finished(_)) | Err(_) => {}
    }
}

fn count_won(exchange: &Exchange<'_>, one: &Running<'_>) {
    if one.beside {
        exchange.worker.shared.hedges.won.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_won(prize: &Prize<'_>) -> bool {
    prize.lock().unwrap_or_else(PoisonError::into_inner).is_none()
}

fn taken<'r>(prize: &Prize<'r>) -> Option<Responder<'r>> {
    prize.lock().unwrap_or_else(PoisonError::into_inner).take().map(|boxed| *boxed)
}

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
use http1::{Framing, RequestHead, ResponseHead};
use model::mesh::attached::{GrpcCodes, Hedging, PolicyTarget};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use traffic::hedge::{Overdue, Pushback, Race};
use traffic::retry::{Attempt, Failure};

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
pub fn race(exchange: &Exchange<'_>, head: &RequestHead) -> Option<Race> {
    let hedging = exchange.plan.hedging?;
    if head.upgrade().is_some() {
        return None;
    }
    let idempotent = exchange.idempotent || grpc_codes(exchange).is_some();
    Race::new(hedging, exchange.try_ms(), Attempt { idempotent, ..exchange.attempt() })
}

/// The statuses that are not the last word, if it is a gRPC call that may be sent twice.
fn grpc_codes(exchange: &Exchange<'_>) -> Option<GrpcCodes> {
    exchange.plan.hedging.filter(|_| exchange.grpc && exchange.http2)?.grpc
}

/// Whether an answer says that a gRPC call failed in a way that does not end its race (gRFC A6).
pub fn is_not_the_last_word(exchange: &Exchange<'_>, answer: &ResponseHead) -> bool {
    // Where the status is among trailers a message may have come before it.
    let racing = exchange.racing.load(Ordering::Relaxed) > 0 && answer.framing == Framing::Empty;
    let Some(codes) = grpc_codes(exchange).filter(|_| racing) else { return false };
    let code = answer.fields.get_str("grpc-status").and_then(|code| code.parse().ok());
    code.is_some_and(|code| codes.has(code))
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
    /// Nobody waits any longer.
    Gone,
}

/// What a try sends.
enum Sends<'b, 'a> {
    /// The request's own body, as it comes.
    Own(&'b mut Body<'a>),
    /// All of it, once more.
    Whole(Bytes),
}

/// Runs a race to its end. Endpoints that were asked in vain join `tried`.
pub async fn run<'r>(
    exchange: &Exchange<'_>,
    mut race: Race,
    head: &RequestHead,
    body: &mut Body<'_>,
    responder: &mut Option<Responder<'r>>,
    tried: &mut Vec<SocketAddr>,
) -> Raced {
    let first = match exchange.choose(tried) {
        Ok(upstream) => upstream,
        Err(unreached) => return Raced { ended: Err(unreached), beside: 0 },
    };
    let prize: Prize<'r> = Arc::new(Mutex::new(responder.take().map(Box::new)));
    // Others are sent what the first sends, if all of it is here when their time comes.
    let whole = match body {
        Body::Whole(bytes) => Arc::new(OnceLock::from(bytes.clone())),
        Body::Stream(kept) => kept.want(&exchange.replayable).await,
    };
    let begin = |upstream: Upstream, race: &mut Race, sends| {
        let (mut head, beside) = (head.clone(), matches!(sends, Sends::Whole(_)));
        race.begin();
        if beside && exchange.grpc {
            let _ = head.fields.set("grpc-previous-rpc-attempts", race.beside().to_string().as_bytes());
        }
        exchange.racing.store(race.running(), Ordering::Relaxed);
        let try_ms = exchange.try_ms().filter(|_| !race.ends_tries_together());
        let ends = Box::pin(one(exchange, head, sends, prize.clone(), upstream.clone(), try_ms));
        Running { upstream, beside, ends }
    };
    let mut running = vec![begin(first, &mut race, Sends::Own(body))];
    let mut beside = 0;
    let wait = Duration::from_millis(race.wait_ms());
    let alarm_in = |wait| Some(Box::pin(sleep_until(Instant::now() + wait)));
    let mut alarm = alarm_in(wait);
    // The last try that failed, when none runs and another is to begin.
    let mut last: Option<(Ended, Upstream)> = None;
    let (ended, upstream) = loop {
        match next(exchange, &mut running, alarm.as_mut().map(|it| it.as_mut()), &prize).await {
            Event::Won(index) => {
                // The others are cancelled here.
                let winner = running.swap_remove(index);
                running.clear();
                count_won(exchange, &winner);
                break (winner.ends.await, winner.upstream);
            }
            Event::Ended(index, ended) => {
                let one = running.swap_remove(index);
                if is_won(&prize) {
                    count_won(exchange, &one);
                    break (ended, one.upstream);
                }
                let others = race.failed();
                exchange.racing.store(race.running(), Ordering::Relaxed);
                let another = not_the_last_word(exchange, &ended)
                    .and_then(|pushback| race.goes_on(pushback, exchange.attempt().remaining_ms));
                tried.push(one.upstream.address);
                match another {
                    Some(ms) => alarm = alarm_in(Duration::from_millis(ms)),
                    None if !others => break (ended, one.upstream),
                    None => {}
                }
                if others {
                    report(exchange, &one.upstream, &ended);
                } else {
                    last = Some((ended, one.upstream));
                }
            }
            Event::Overdue => {
                if race.ends_tries_together()
                    && let Some(last) = running.last()
                {
                    exchange.report(&last.upstream, Some(Failure::TryTimeout));
                }
                match (another(exchange, &mut race, &running, tried, whole.get()), last.take()) {
                    ((Overdue::Send, Some((upstream, bytes))), failed) => {
                        if let Some((ended, upstream)) = failed {
                            report(exchange, &upstream, &ended);
                        }
                        beside += 1;
                        exchange.worker.shared.hedges.sent.fetch_add(1, Ordering::Relaxed);
                        running.push(begin(upstream, &mut race, Sends::Whole(bytes)));
                        alarm = alarm_in(wait);
                    }
                    (_, Some(failed)) => break failed,
                    ((Overdue::Fail, _), None) => {
                        let last = running.swap_remove(0);
                        tried.extend(running.drain(..).map(|it| it.upstream.address));
                        let (failure, why) = (Failure::TryTimeout, "timed out".to_owned());
                        break (Ok(Tried::Failed { failure, why, stale: false }), last.upstream);
                    }
                    _ => alarm = None,
                }
            }
            Event::Gone => match last.take() {
                Some(failed) => break failed,
                None => alarm = None,
            },
        }
    };
    drop(running);
    exchange.racing.store(0, Ordering::Relaxed);
    *responder = taken(&prize);
    let ended = match ended {
        Ok(Tried::Held(held)) => Ok(held.pass_on(exchange, responder).await),
        other => other,
    };
    Raced { ended: ended.map(|tried| (tried, upstream)), beside }
}

/// One of the tries.
async fn one(
    exchange: &Exchange<'_>,
    mut head: RequestHead,
    sends: Sends<'_, '_>,
    prize: Prize<'_>,
    upstream: Upstream,
    try_ms: Option<u64>,
) -> Ended {
    let mut again;
    // The first is let in already; the service's limits count the others as well.
    let (body, _admitted) = match sends {
        Sends::Own(body) => (body, None),
        Sends::Whole(bytes) => match exchange.admit().await {
            Ok(admitted) => {
                again = Body::Whole(bytes);
                (&mut again, Some(admitted))
            }
            Err(_) => return Err(Unreached { address: None, why: "too many requests".into(), last: None }),
        },
    };
    let connected = exchange.reach(&upstream).await?;
    let mut responder = Some(Responder::Raced(prize));
    Ok(attempt::once(exchange, &mut head, body, &mut responder, connected, &upstream, try_ms).await)
}

/// Whether another try of a gRPC call may begin as this one has failed, and what its server says of that.
fn not_the_last_word(exchange: &Exchange<'_>, ended: &Ended) -> Option<Pushback> {
    match ended {
        Ok(Tried::Held(held)) => Some(held.pushback()),
        // No answer at all is told as this one.
        Ok(Tried::Failed { .. }) | Err(_) => {
            grpc_codes(exchange).filter(|codes| codes.has(GrpcCodes::UNAVAILABLE)).map(|_| Pushback::None)
        }
        Ok(Tried::Finished(_) | Tried::Again { .. }) => None,
    }
}

/// What happens next.
async fn next(
    exchange: &Exchange<'_>,
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
        // Those that run look for themselves.
        if running.is_empty() && exchange.caller.poll_gone(cx, true).is_ready() {
            return Poll::Ready(Event::Gone);
        }
        match alarm.as_mut().map(|alarm| alarm.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Event::Overdue),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Whether another try begins, and where; with what it sends.
fn another(
    exchange: &Exchange<'_>,
    race: &mut Race,
    running: &[Running<'_>],
    tried: &[SocketAddr],
    whole: Option<&Bytes>,
) -> (Overdue, Option<(Upstream, Bytes)>) {
    let Target::Port(port) = &exchange.plan.target else { return (Overdue::Wait, None) };
    let asked: Vec<SocketAddr> = running.iter().map(|it| it.upstream.address).chain(tried.iter().copied()).collect();
    let other = whole.and_then(|bytes| {
        let upstream = exchange.choose(&asked).ok().filter(|it| !asked.contains(&it.address))?;
        exchange.may_retry().then(|| (upstream, bytes.clone()))
    });
    (port.with_budget(|budget| race.overdue(other.is_some(), exchange.attempt(), budget)), other)
}

/// What the service's policy is told of a try that failed and is not the last.
fn report(exchange: &Exchange<'_>, upstream: &Upstream, ended: &Ended) {
    match ended {
        Ok(Tried::Failed { failure, .. }) => exchange.report(upstream, Some(*failure)),
        Ok(Tried::Again { status, .. }) => exchange.report(upstream, Some(Failure::Status(*status))),
        // Who was not reached is reported already.
        Ok(Tried::Finished(_) | Tried::Held(_)) | Err(_) => {}
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

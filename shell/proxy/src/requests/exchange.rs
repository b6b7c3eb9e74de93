//! One request and its answer: decided, tried, tried again, counted.
use super::attempt::{self, Finished, Tried};
use super::body::{Kept, REPLAY_BYTES, Source};
use super::conn::Piece;
use super::plan::{self, Plan, Target};
use super::pool::{ByPlace, Life, PoolKey};
use super::record::Record;
use super::reply::{Caller, Reply, Responder, UNANSWERED, is_grpc, unanswered};
use super::standing::{self, Standing};
use super::upstream::{self, Connected};
use super::{Place, Site, affinity, guard, hedge, ratelimit, websocket};
use crate::limits::{self, Admitted, Retrying};
use crate::pods::Phase;
use crate::random;
use crate::stream::Stream;
use crate::telemetry::{Carries, Ended as Over, Flag, Grpc, Messages, Outcome as How, Peers};
use crate::trace::Went;
use crate::upstream::{Asker, InFlight, Upstream};
use crate::worker::Worker;
use authz::mesh::normalize_path;
use bytes::{Bytes, BytesMut};
use http1::{Framing, RequestHead, ResponseHead};
use model::mesh::Retry;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use traffic::outlier::Outcome as Ended;
use traffic::retry::{Attempt, Budget, Failure, decide};

/// Pooled connections that may turn out closed before a request fails: as many as a restarted endpoint leaves behind.
const STALE_RETRIES: u32 = 8;

/// What becomes of the client's connection.
#[derive(Debug)]
pub enum Outcome {
    /// It may send the next request.
    Keep,
    /// It ends.
    Close,
    /// It speaks another protocol with the endpoint from now on, as long as policy lets the request stand.
    Switched(Stream, Option<Box<Standing>>),
}

/// A request body as it can be sent.
#[derive(Debug)]
pub enum Body<'a> {
    /// All of it is here.
    Whole(Bytes),
    /// It comes piece by piece.
    Stream(Kept<'a>),
}

/// No connection.
#[derive(Debug)]
pub struct Unreached {
    /// The endpoint; none: there is none to ask.
    pub address: Option<SocketAddr>,
    pub why: String,
    /// No other endpoint would be reached either: what the request comes to.
    pub last: Option<Failure>,
}

/// What a request's tries share.
pub struct Exchange<'a> {
    pub worker: &'a Arc<Worker>,
    pub site: &'a Site,
    pub plan: Plan,
    pub http2: bool,
    /// It goes as extended CONNECT to an endpoint that takes that, else in HTTP/1.1.
    pub extended: bool,
    pub grpc: bool,
    pub started: Instant,
    pub deadline: Option<Instant>,
    pub idempotent: bool,
    /// What was taken of the body is kept, and no answer has begun.
    pub replayable: AtomicBool,
    /// Tries begun.
    pub tries: u32,
    /// What keeps it on its endpoint.
    pub affinity: Option<u64>,
    /// Who is told of it at the end.
    pub record: Mutex<Option<Box<Record>>>,
    /// Its place among the requests that are tried again, where there are only so many.
    pub retrying: OnceLock<Retrying>,
    /// Tries that run beside each other.
    pub racing: AtomicU32,
    /// Who waits for the answer.
    pub caller: Caller<'a>,
}

/// Serves one request.
pub async fn run<'a>(
    worker: &'a Arc<Worker>,
    site: &'a Site,
    head: &mut RequestHead,
    mut source: Source<'a>,
    responder: Responder<'_>,
    caller: Caller<'a>,
) -> Outcome {
    let started = Instant::now();
    let came_in_http2 = caller.speaks_http2();
    let mut grpc = is_grpc(&head.fields);
    normalize(head);
    let record = Record::begin(worker, site, head, came_in_http2);
    if belongs_elsewhere(site, head, grpc) {
        let reply = Reply::new(503, "the pod drains").with(UNANSWERED, unanswered::DRAINING.to_owned());
        return Box::pin(answer(worker, responder, &reply, grpc, source, record, started)).await;
    }
    let came = ratelimit::original(worker, head);
    let changes = standing::follow(worker, site, head, grpc);
    let mut standing = None;
    let ground = guard::Ground::of(worker, site, head);
    let guarded = match ground.to_check() {
        None => Ok(guard::Guarded::default()),
        // Apart, so that requests that nobody is asked about do not carry room for asking.
        Some(rules) => Box::pin(guard::check(worker, site, rules, head, came_in_http2)).await,
    };
    let mut planned = match guarded {
        Ok(guarded) => {
            standing = changes.map(|changes| Standing::new(head, &guarded, changes));
            plan::plan(worker, site, head, &ground, &guarded)
        }
        Err(reply) => Err(reply),
    };
    if let (Ok(plan), Some(came)) = (&mut planned, came) {
        plan.hedging = hedge::wanted(worker, site, &came, plan);
        if let Err(reply) = Box::pin(ratelimit::check(worker, site, &came, head, plan)).await {
            planned = Err(reply);
        }
    }
    let mut exchange = match planned {
        Ok(mut plan) => {
            let affinity = affinity_of(site, head, &mut plan);
            grpc |= plan.chosen.as_ref().is_some_and(plan::Chosen::is_grpc);
            let http2 = plan.http2(site, came_in_http2) && head.upgrade().is_none();
            let extended = websocket::is_opening(head) && plan.is_said_to_speak_http2(came_in_http2);
            let limit = plan.timeouts().request_ms.filter(|ms| *ms > 0);
            let deadline = limit.map(|ms| started + Duration::from_millis(ms));
            let idempotent = head.is_idempotent();
            let replayable = AtomicBool::new(true);
            let (tries, record) = (0, Mutex::new(record));
            Exchange {
                worker,
                site,
                plan,
                http2,
                extended,
                grpc,
                started,
                deadline,
                idempotent,
                replayable,
                tries,
                affinity,
                record,
                retrying: OnceLock::new(),
                racing: AtomicU32::new(0),
                caller,
            }
        }
        Err(reply) => {
            pause(reply.after_ms).await;
            count_unsent(worker, site, None, head, grpc, &reply, started);
            return Box::pin(answer(worker, responder, &reply, grpc, source, record, started)).await;
        }
    };
    let body = match keep_small(head, &mut source).await {
        Ok(Some(bytes)) => {
            if let Source::H1(reader, _) = source {
                exchange.caller = Caller::H1(Mutex::new(reader));
            }
            Body::Whole(bytes)
        }
        Ok(None) => {
            if let Source::H1(reader, _) = &source {
                exchange.caller = Caller::Reading(reader.watch());
            }
            Body::Stream(Kept::new(source))
        }
        Err(()) => return Outcome::Close,
    };
    let _admitted = match exchange.admit().await {
        Ok(admitted) => admitted,
        Err(limits::Overflow) => {
            let source = match body {
                Body::Whole(_) => Source::Empty,
                Body::Stream(kept) => kept.rest(),
            };
            let reply = overflow();
            count_unsent(worker, site, Some(&exchange.plan), head, grpc, &reply, started);
            return Box::pin(answer(worker, responder, &reply, grpc, source, exchange.take_record(), started)).await;
        }
    };
    super::mirror::send_copies(&exchange, head, &body);
    pause(exchange.plan.delay_ms).await;
    match standing {
        None => exchange.run_tries(head, body, responder).await,
        // Apart, so that requests that are soon over carry no room for it.
        Some(standing) => Box::pin(exchange.run_standing(head, body, responder, standing)).await,
    }
}

/// Gives the path its normal form, before anybody looks at it: limits, tokens, authorizers, policies, routes, rewrites, the log and whoever
/// gets the request must mean the same path by it.
fn normalize(head: &mut RequestHead) {
    let Cow::Owned(normal) = normalize_path(head.path()) else { return };
    let target = match head.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal,
    };
    head.set_target(&target);
}

fn affinity_of(site: &Site, head: &RequestHead, plan: &mut Plan) -> Option<u64> {
    let Target::Port(port) = &plan.target else { return None };
    let port = port.clone();
    affinity::of_request(&port, site, head, plan)
}

/// In Envoy's words, which people look for.
fn overflow() -> Reply {
    Reply::new(503, "upstream connect error or disconnect/reset before headers. reset reason: overflow")
        .with("x-envoy-overloaded", "true".to_owned())
        .flagged(Flag::Overflow)
}

/// A delay that is made on purpose.
async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Takes a small body whole, so that a retry can send it again.
async fn keep_small(head: &mut RequestHead, source: &mut Source<'_>) -> Result<Option<Bytes>, ()> {
    let length = match head.framing {
        Framing::Empty => return Ok(Some(Bytes::new())),
        Framing::Length(length) if length <= REPLAY_BYTES as u64 => length,
        // How long it will be nobody knows: it is streamed.
        _ => return Ok(None),
    };
    let mut body = BytesMut::new();
    loop {
        match source.piece().await {
            Ok(Piece::Data(bytes)) if body.is_empty() && bytes.len() as u64 == length => {
                // The usual case: it came in one piece and is not copied.
                return match source.piece().await {
                    Ok(Piece::End(_)) => Ok(Some(bytes)),
                    _ => Err(()),
                };
            }
            Ok(Piece::Data(bytes)) if (body.len() + bytes.len()) as u64 <= length => body.extend_from_slice(&bytes),
            Ok(Piece::End(_)) if body.len() as u64 == length => return Ok(Some(body.freeze())),
            _ => return Err(()),
        }
    }
}

impl Exchange<'_> {
    /// Until policy says that it is to end.
    async fn run_standing(
        &mut self,
        head: &mut RequestHead,
        body: Body<'_>,
        responder: Responder<'_>,
        mut standing: Box<Standing>,
    ) -> Outcome {
        let (worker, site) = (self.worker, self.site);
        let over = tokio::select! {
            biased;
            outcome = self.run_tries(head, body, responder) => Some(outcome),
            () = standing.revoked(worker, site) => None,
        };
        match over {
            Some(Outcome::Switched(upstream, _)) => Outcome::Switched(upstream, Some(standing)),
            Some(outcome) => outcome,
            None => {
                let reply = Reply::denied();
                count_unsent(worker, site, Some(&self.plan), head, self.grpc, &reply, self.started);
                if let Some(record) = self.take_record() {
                    let details = Went { details: reply.why, ..Went::default() };
                    record.end(worker, &over_with(&reply, self.grpc, 0, self.started), details);
                }
                Outcome::Close
            }
        }
    }

    async fn run_tries(&mut self, head: &mut RequestHead, mut body: Body<'_>, responder: Responder<'_>) -> Outcome {
        let mut responder = Some(responder);
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut stale_left = STALE_RETRIES;
        if let Target::Port(port) = &self.plan.target {
            port.with_budget(Budget::earn);
        }
        loop {
            self.tries += 1;
            if self.tries > 1 {
                self.look_again();
            }
            let ended = match hedge::race(self, head) {
                Some(race) => {
                    // Apart, so that requests that do not race carry no room for it.
                    let raced = Box::pin(hedge::run(self, race, head, &mut body, &mut responder, &mut tried)).await;
                    self.tries += raced.beside;
                    raced.ended
                }
                None => match self.connect(&tried).await {
                    Ok((connected, upstream)) => {
                        let try_ms = self.try_ms();
                        let once = attempt::once(self, head, &mut body, &mut responder, connected, &upstream, try_ms);
                        Ok((once.await, upstream))
                    }
                    Err(unreached) => Err(unreached),
                },
            };
            let (failure, why) = match ended {
                Ok((tried_once, upstream)) => {
                    match tried_once {
                        Tried::Finished(finished) => {
                            self.report(&upstream, Some(Failure::Status(finished.status)));
                            return self.finish(finished, head, &upstream);
                        }
                        Tried::Again { pause, status } => {
                            self.report(&upstream, Some(Failure::Status(status)));
                            tried.extend(self.left_out(&upstream, Failure::Status(status)));
                            tokio::time::sleep(Duration::from_millis(pause)).await;
                            continue;
                        }
                        // Races pass on what they held.
                        Tried::Held(_) => return Outcome::Close,
                        Tried::Failed { failure, why, stale } => {
                            if stale && stale_left > 0 && self.may_repeat(failure) {
                                // The endpoint closed an idle connection as we used it: no try was made.
                                stale_left -= 1;
                                self.tries -= 1;
                                continue;
                            }
                            self.report(&upstream, Some(failure));
                            tried.extend(self.left_out(&upstream, failure));
                            (failure, why)
                        }
                    }
                }
                Err(Unreached { address, why, last }) => {
                    tried.extend(address);
                    if let Some(last) = last {
                        return Box::pin(self.give_up(&mut responder, head, body, why, last)).await;
                    }
                    (Failure::NotSent, why)
                }
            };
            let Some(pause) = self.again(failure) else {
                return Box::pin(self.give_up(&mut responder, head, body, why, failure)).await;
            };
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    /// The endpoint of a try, if the next one is to go elsewhere. One that is not reached never gets it.
    fn left_out(&self, upstream: &Upstream, failure: Failure) -> Option<SocketAddr> {
        let same = self.plan.retry().is_some_and(|retry| retry.same_endpoints && !retry.other_localities);
        (failure == Failure::NotSent || !same).then_some(upstream.address)
    }

    /// The endpoints may be others by now: what failed is sent to those that are there.
    fn look_again(&mut self) {
        if let Target::Port(port) = &mut self.plan.target
            && let Some(now) = {
                let asker = Asker { origin: &self.plan.origin, to: port.through() };
                let (service, number) = (&port.service().service.key, port.entry().port.port);
                self.worker.ports.get(&self.worker.shared, service, number, asker)
            }
        {
            *port = now;
        }
    }

    /// How long a try may take by the route, if it says so.
    pub fn try_ms(&self) -> Option<u64> {
        self.plan.timeouts().backend_request_ms.filter(|ms| *ms > 0)
    }

    /// What is known of it when it has to be decided whether it is sent again.
    pub fn attempt(&self) -> Attempt {
        let remaining_ms = self.deadline.map(|at| at.saturating_duration_since(Instant::now()).as_millis() as u64);
        let replayable = self.replayable.load(Ordering::Relaxed);
        Attempt { tries: self.tries, idempotent: self.idempotent, replayable, remaining_ms }
    }

    /// Whether an answer is not passed on, and after which pause another try is made in its place. Another try that
    /// runs beside this one is made already.
    pub fn instead(&self, retry: &Retry, answer: &ResponseHead) -> Option<u64> {
        // A call that failed before it had an answer says so in the head.
        let grpc = answer.fields.get_str("grpc-status").filter(|_| !retry.grpc.is_empty());
        let grpc = grpc.and_then(|status| status.parse().ok()).filter(|status| retry.grpc.contains(status));
        if self.racing.load(Ordering::Relaxed) > 1 {
            return (grpc.is_some() || retry.codes.contains(&answer.status)).then_some(0);
        }
        self.again(grpc.map_or(Failure::Status(answer.status), Failure::Grpc))
    }

    /// Whether to try again, and after which pause.
    pub fn again(&self, failure: Failure) -> Option<u64> {
        let attempt = self.attempt();
        let Target::Port(port) = &self.plan.target else { return None };
        let pause = port.with_budget(|budget| decide(self.plan.retry(), failure, attempt, budget, random::u32()))?;
        (failure == Failure::NotSent || self.may_retry()).then_some(pause)
    }

    /// Whether the service's policy lets one more request be under way that is tried again. It counts from then on.
    pub fn may_retry(&self) -> bool {
        let Target::Port(port) = &self.plan.target else { return true };
        let most = port.policy().map_or(0, |policy| policy.pool.max_retries);
        if most == 0 || self.retrying.get().is_some() {
            return true;
        }
        port.state().retry(most).is_some_and(|retrying| self.retrying.set(retrying).is_ok())
    }

    /// Which connections the request may use, and for how long they are kept.
    pub fn life(&self) -> Life {
        match &self.plan.target {
            Target::Port(port) => Life::of(port.policy().map(|policy| &policy.pool)),
            Target::Process(_) => Life::of(None),
        }
    }

    /// Whether a request that failed on a stale connection may be sent again as if nothing had been.
    fn may_repeat(&self, failure: Failure) -> bool {
        self.replayable.load(Ordering::Relaxed) && (failure == Failure::NotSent || self.idempotent)
    }

    async fn connect(&self, tried: &[SocketAddr]) -> Result<(Connected, Upstream), Unreached> {
        let upstream = self.choose(tried)?;
        self.reach(&upstream).await.map(|connected| (connected, upstream))
    }

    /// An endpoint that is not among `tried`, unless all are.
    pub fn choose(&self, tried: &[SocketAddr]) -> Result<Upstream, Unreached> {
        match &self.plan.target {
            Target::Process(address) => Ok(Upstream {
                address: *address,
                workload: "".into(),
                load: self.worker.ports.load(*address),
                last_resort: true,
                outside: false,
            }),
            Target::Port(port) => {
                let now_ms = if self.tries > 1 { self.worker.now_ms() } else { self.worker.shared.ms_at(self.started) };
                let nobody = || Unreached {
                    address: None,
                    why: "no endpoint is ready".to_owned(),
                    last: Some(Failure::Status(503)),
                };
                let far = self.plan.retry().is_some_and(|retry| retry.other_localities);
                let near = if far { tried } else { &[] };
                port.choose_beyond(near, tried, self.affinity, now_ms).ok_or_else(nobody)
            }
        }
    }

    /// A connection to an endpoint.
    pub async fn reach(&self, upstream: &Upstream) -> Result<Connected, Unreached> {
        upstream::connect(self, upstream).await.map_err(|error| {
            tracing::debug!(%error, address = %upstream.address, "an endpoint is not reached");
            let last = match (error.is_refusal(), error.is_retriable()) {
                // An answer: the endpoint is as healthy as before, for others.
                (true, _) => Some(Failure::Status(403)),
                (false, false) => Some(Failure::NotSent),
                (false, true) => None,
            };
            if !error.is_refusal() {
                self.report(upstream, Some(Failure::NotSent));
            }
            Unreached { address: Some(upstream.address), why: error.to_string(), last }
        })
    }

    /// Tells the service's policy how a try at an endpoint ended.
    pub fn report(&self, upstream: &Upstream, failure: Option<Failure>) {
        let Target::Port(port) = &self.plan.target else { return };
        let outcome = match failure {
            // The client went away: the endpoint is not to blame.
            Some(Failure::Status(0)) | None => return,
            Some(Failure::Status(status)) => Ended::Status(status),
            Some(Failure::Grpc(_)) => Ended::Status(200),
            Some(Failure::NotSent | Failure::Reset | Failure::TryTimeout) => Ended::Local,
        };
        if port.policy().is_some() {
            limits::report(port, upstream.address, outcome, self.worker.now_ms());
        }
    }

    /// Waits until the service's limits let the request in.
    pub async fn admit(&self) -> Result<Admitted, limits::Overflow> {
        let Target::Port(port) = &self.plan.target else { return Ok(Admitted::default()) };
        match port.policy().map(|policy| policy.pool) {
            Some(pool) if pool.max_requests > 0 || pool.max_connections > 0 => {
                port.state().admit(pool, self.http2).await
            }
            _ => Ok(Admitted::default()),
        }
    }

    /// The client, where each has connections of its own: the service's policy wants its endpoints to be told who opened them, or the process sees
    /// it by their address.
    fn seen_client(&self) -> Option<SocketAddr> {
        match (&self.plan.target, &self.site.place) {
            (Target::Port(port), _) => port.policy().and_then(|policy| policy.proxy_protocol).map(|_| self.site.client),
            (Target::Process(address), Place::Process { pod, caller, .. }) => {
                pod.seen_as(caller.address, *address).map(|client| SocketAddr::new(client, 0))
            }
            (Target::Process(_), _) => None,
        }
    }

    /// Key of the connections that this request may use.
    pub fn pool_key(&self, upstream: &Upstream) -> PoolKey {
        PoolKey {
            origin: self.plan.origin.serial,
            load: ByPlace(upstream.load.clone()),
            service: self.plan.service().cloned(),
            last_resort: upstream.last_resort,
            outside: upstream.outside,
            tls: self.plan.backend_tls().cloned().map(ByPlace),
            client: self.seen_client(),
        }
    }

    /// Who is told of it, once.
    fn take_record(&self) -> Option<Box<Record>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// An answer is about to be passed on.
    pub fn answered(&self, answer: &ResponseHead) {
        if let Some(record) = self.record.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            record.answered(self.worker, answer);
        }
    }

    /// Counts a stream's messages, if it is a gRPC call.
    pub fn messages(&self) -> Option<Messages> {
        self.grpc.then(Messages::default)
    }

    /// What telemetry is told of a request that was answered.
    pub fn over(&self, finished: &Finished) -> Over {
        let grpc = if self.grpc { finished.grpc } else { Grpc::No };
        Over {
            outcome: How { status: finished.status, flag: finished.flag, grpc },
            took: self.started.elapsed(),
            sent: finished.sent,
            received: finished.received,
            messages: finished.messages,
        }
    }

    fn finish(&self, finished: Finished, head: &RequestHead, upstream: &Upstream) -> Outcome {
        let over = self.over(&finished);
        match self.site.process_cells(self.worker, head.authority()) {
            Some(cells) => cells.request(&over),
            None => finished.cells.request(&over),
        }
        if let Some(record) = self.take_record() {
            let route = self.plan.chosen.as_ref().map_or("", plan::Chosen::name);
            let service = self.plan.service();
            record.end(self.worker, &over, Went { upstream: Some(upstream.address), service, route, details: "" });
        }
        finished.outcome
    }

    async fn give_up(
        &self,
        responder: &mut Option<Responder<'_>>,
        head: &RequestHead,
        body: Body<'_>,
        why: String,
        failure: Failure,
    ) -> Outcome {
        tracing::debug!(from = %self.plan.origin.name, service = ?self.plan.service(), why, "a request failed");
        let reply = self.apology(failure);
        count_unsent(self.worker, self.site, Some(&self.plan), head, self.grpc, &reply, self.started);
        // The answer has begun: all that is left is to break it off.
        let Some(responder) = responder.take() else { return Outcome::Close };
        let source = match body {
            Body::Whole(_) => Source::Empty,
            Body::Stream(kept) => kept.rest(),
        };
        answer(self.worker, responder, &reply, self.grpc, source, self.take_record(), self.started).await
    }

    fn apology(&self, failure: Failure) -> Reply {
        let before_process = matches!(self.plan.target, Target::Process(_));
        let (reply, word) = match failure {
            Failure::TryTimeout => return Reply::new(504, "upstream request timeout").flagged(Flag::Timeout),
            Failure::Status(400) => return Reply::new(400, "bad request").flagged(Flag::DownstreamProtocolError),
            Failure::Status(403) => return Reply::denied(),
            Failure::Status(502) => {
                return Reply::new(502, "upstream answered what is no HTTP").flagged(Flag::ProtocolError);
            }
            Failure::Status(status) | Failure::Grpc(status) => {
                return Reply::new(status, "no healthy upstream").flagged(Flag::NoHealthyUpstream);
            }
            Failure::Reset => {
                let reply = Reply::new(503, "upstream connection broken before an answer");
                (reply.flagged(Flag::ConnectionTermination), unanswered::RESET)
            }
            Failure::NotSent if before_process => {
                let reply = Reply::new(503, "the process does not answer");
                (reply.flagged(Flag::ConnectionFailure), unanswered::NOT_SENT)
            }
            Failure::NotSent => {
                (Reply::new(503, "upstream connect error").flagged(Flag::ConnectionFailure), unanswered::NOT_SENT)
            }
        };
        if before_process { reply.with(UNANSWERED, word.to_owned()) } else { reply }
    }
}

/// Whether a request that came to a pod that drains is better sent elsewhere, by a caller who can: one that could still be under way
/// when the process is told to end.
fn belongs_elsewhere(site: &Site, head: &RequestHead, grpc: bool) -> bool {
    let Place::Process { pod, caller, .. } = &site.place else { return false };
    let can_be_sent_again = match head.framing {
        Framing::Empty => true,
        Framing::Length(length) => length <= REPLAY_BYTES as u64,
        _ => grpc,
    };
    caller.elsewhere && pod.phase() >= Phase::Draining && can_be_sent_again
}

/// Counts a request that reached no endpoint.
fn count_unsent(
    worker: &Worker,
    site: &Site,
    plan: Option<&Plan>,
    head: &RequestHead,
    grpc: bool,
    reply: &Reply,
    started: Instant,
) {
    let cells = site.process_cells(worker, head.authority()).unwrap_or_else(|| {
        let service = plan.and_then(Plan::service).or(site.service_key());
        let origin = plan.map_or(&site.origin, |plan| &plan.origin);
        worker.cells.edge(&Peers::outbound(worker, origin, None, service, Carries::Requests, false))
    });
    cells.request(&over_with(reply, grpc, 0, started));
}

/// What telemetry is told of an answer of the proxy's own.
fn over_with(reply: &Reply, grpc: bool, received: u64, started: Instant) -> Over {
    let grpc = if grpc { Grpc::Status(reply.grpc_status()) } else { Grpc::No };
    let outcome = How { status: reply.status, flag: reply.flag, grpc };
    Over { outcome, took: started.elapsed(), received, ..Over::default() }
}

/// Sends an answer of the proxy's own.
async fn answer(
    worker: &Worker,
    responder: Responder<'_>,
    reply: &Reply,
    grpc: bool,
    mut source: Source<'_>,
    record: Option<Box<Record>>,
    started: Instant,
) -> Outcome {
    let (mut head, bytes) = reply.render(grpc);
    let length = bytes.len() as u64;
    let Ok((mut sink, keep)) = responder.start(&mut head) else { return Outcome::Close };
    if head.framing == Framing::Empty && length > 0 {
        // HEAD: the length is announced, the body is not sent.
        sink = match sink {
            super::body::Sink::H1(writer, _) => super::body::Sink::H1(writer, Framing::Empty),
            other => other,
        };
    }
    let mut body = if head.framing == Framing::Empty { Source::Empty } else { Source::Bytes(bytes) };
    let sent = super::body::pump(&mut body, &mut sink, None).await;
    if let Some(record) = record {
        let details = Went { details: reply.why, ..Went::default() };
        record.end(worker, &over_with(reply, grpc, length, started), details);
    }
    if sent.is_err() || !keep {
        return Outcome::Close;
    }
    // The client may still be sending: its connection is of use only if the rest is little.
    match timeout(Duration::from_millis(200), drain(&mut source)).await {
        Ok(true) => Outcome::Keep,
        _ => Outcome::Close,
    }
}

async fn drain(source: &mut Source<'_>) -> bool {
    let mut left = REPLAY_BYTES;
    loop {
        match source.piece().await {
            Ok(Piece::Data(bytes)) if bytes.len() <= left => left -= bytes.len(),
            Ok(Piece::End(_)) => return true,
            _ => return false,
        }
    }
}

/// A request is under way at its endpoint.
pub fn in_flight(upstream: &Upstream) -> InFlight {
    InFlight::begin(&upstream.load)
}

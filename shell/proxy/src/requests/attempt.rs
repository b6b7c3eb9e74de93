//! One try: the request goes out and the answer comes back, both at once if need be.
use super::body::{PumpError, Pumped, Sink, Source, pump};
use super::conn::{self, ReadError};
use super::exchange::{Body, Exchange, Outcome, in_flight};
use super::plan::Target;
use super::pool::{H1Connection, H2Connection};
use super::reply::{Caller, Responder, UNANSWERED, unanswered};
use super::upstream::Connected;
use super::{convert, hedge, websocket};
use crate::hbone::stream::HboneStream;
use crate::stream::{Io, Stream};
use crate::telemetry::{EdgeCells, Flag, Grpc};
use crate::upstream::Upstream;
use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;
use http1::{BodyDecoder, Fields, Framing, RequestHead, RequestKind, ResponseHead};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};
use traffic::hedge::Pushback;
use traffic::retry::Failure;

/// How a try ended.
#[derive(Debug)]
pub enum Tried {
    /// An answer was passed on (or the client is gone).
    Finished(Finished),
    /// The answer is one that the rule wants tried again.
    Again { pause: u64, status: u16 },
    /// The answer is one that does not end a race while another try may begin.
    Held(Box<Held>),
    /// Nothing was answered.
    Failed {
        failure: Failure,
        why: String,
        /// It failed on a pooled connection before a byte of an answer.
        stale: bool,
    },
}

/// A request that was answered.
#[derive(Debug)]
pub struct Finished {
    pub outcome: Outcome,
    pub status: u16,
    pub sent: u64,
    pub received: u64,
    /// gRPC messages there and back.
    pub messages: (u64, u64),
    pub grpc: Grpc,
    pub flag: Flag,
    pub cells: Arc<EdgeCells>,
}

/// An answer without a body that was not passed on yet.
#[derive(Debug)]
pub struct Held {
    answer: ResponseHead,
    sent: Option<Result<Pumped, PumpError>>,
    cells: Arc<EdgeCells>,
}

impl Held {
    /// What its sender says of another try.
    pub fn pushback(&self) -> Pushback {
        Pushback::of(self.answer.fields.get("grpc-retry-pushback-ms"))
    }

    /// Passes it on all the same.
    pub async fn pass_on(mut self, exchange: &Exchange<'_>, responder: &mut Option<Responder<'_>>) -> Tried {
        match pass(exchange, &mut self.answer, Source::Empty, responder).await {
            Ok(passed) => finished(passed, self.sent, &self.answer, self.cells),
            Err(broken) => broke(broken, self.sent, &self.answer, self.cells, responder, false),
        }
    }
}

/// How the receiving half ended.
enum Received {
    /// The answer has a status that the rule wants tried again, after a pause; nothing was passed on.
    TryAgain(u64),
    /// It does not end the race that the try is in; nothing was passed on.
    Held,
    /// The answer was passed on.
    Passed(Passed),
    /// The endpoint switches protocols.
    Switched,
}

struct Passed {
    bytes: u64,
    messages: u64,
    keep_client: bool,
    trailers: Option<Fields>,
}

enum Broken {
    /// No answer came.
    NoAnswer(Failure, String),
    /// The proxy before the process says that none came: the connection to that proxy is sound.
    Unanswered(Failure),
    /// It came and broke off.
    Midway(String),
    /// The client is gone.
    ClientGone(String),
}

thread_local! {
    /// Heads whose memory the next answers use.
    static HEADS: RefCell<Vec<ResponseHead>> = const { RefCell::new(Vec::new()) };
}
const SPARE_HEADS: usize = 64;

/// A head with memory that an earlier answer left.
struct SpareHead(ResponseHead);

impl SpareHead {
    fn take() -> Self {
        Self(HEADS.with_borrow_mut(Vec::pop).unwrap_or_default())
    }
}

impl Drop for SpareHead {
    fn drop(&mut self) {
        let mut head = std::mem::take(&mut self.0);
        HEADS.with_borrow_mut(|heads| {
            if heads.len() < SPARE_HEADS {
                head.clear();
                heads.push(head);
            }
        });
    }
}

/// Makes one try, which may take so long.
pub async fn once<'r>(
    exchange: &Exchange<'_>,
    head: &mut RequestHead,
    body: &mut Body<'_>,
    responder: &mut Option<Responder<'r>>,
    connected: Connected,
    upstream: &Upstream,
    try_ms: Option<u64>,
) -> Tried {
    let _in_flight = in_flight(upstream);
    let mut answer = SpareHead::take();
    let per_try = try_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
    let until = [exchange.deadline, per_try].into_iter().flatten().min();
    match connected {
        Connected::H1(connection) => {
            once_h1(exchange, head, body, responder, connection, upstream, &mut answer.0, until).await
        }
        Connected::H2(connection) if exchange.extended => {
            // Apart, so that other requests carry no room for it.
            Box::pin(once_extended(exchange, head, responder, connection, upstream, &mut answer.0, until)).await
        }
        Connected::H2(connection) => {
            once_h2(exchange, head, body, responder, connection, upstream, &mut answer.0, until).await
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the state of one try, used nowhere else")]
async fn once_h1<'r>(
    exchange: &Exchange<'_>,
    head: &mut RequestHead,
    body: &mut Body<'_>,
    responder: &mut Option<Responder<'r>>,
    mut connection: Box<H1Connection>,
    upstream: &Upstream,
    answer: &mut ResponseHead,
    until: Option<Instant>,
) -> Tried {
    if let (Body::Whole(bytes), Framing::Chunked) = (&*body, head.framing) {
        head.framing = if bytes.is_empty() { Framing::Empty } else { Framing::Length(bytes.len() as u64) };
    }
    http1::encode_request(head, &mut connection.writer.out);
    let kind = if head.method() == "HEAD" { RequestKind::Head } else { RequestKind::Other };
    let (reader, writer) = (&mut connection.reader, &mut connection.writer);
    if let Some(Responder::H1 { writer: client, .. }) = responder {
        reader.reads_heads_alone(client);
    }
    let (framing, upgrade) = (head.framing, head.upgrade().is_some());
    let (sent, received) = {
        let mut send = pin!(async {
            match body {
                Body::Whole(bytes) => {
                    writer.flush_with(&[bytes]).await.map_err(PumpError::Sink)?;
                    Ok(Pumped { bytes: bytes.len() as u64, ..Pumped::default() })
                }
                Body::Stream(kept) => kept.pump(&mut Sink::H1(writer, framing), &exchange.replayable, None).await,
            }
        });
        let mut receive = pin!(async {
            loop {
                match reader.response(kind, answer).await {
                    Ok(Some(())) if answer.is_interim() => {}
                    Ok(Some(())) => break,
                    Ok(None) => {
                        return Err(Broken::NoAnswer(Failure::Reset, "the connection ended before an answer".into()));
                    }
                    Err(ReadError::Head(error)) => {
                        return Err(Broken::NoAnswer(Failure::Status(502), error.to_string()));
                    }
                    Err(error) => return Err(Broken::NoAnswer(Failure::Reset, error.to_string())),
                }
            }
            if answer.status == 101 {
                return Ok(Received::Switched);
            }
            if upgrade && websocket::would_agree(answer, responder.as_ref()) {
                let why = "the endpoint did not switch protocols".into();
                return Err(Broken::NoAnswer(Failure::Status(502), why));
            }
            unanswered(exchange, upstream, answer)?;
            if let Some(instead) = instead(exchange, answer) {
                return Ok(instead);
            }
            let source = Source::H1(reader, BodyDecoder::new(answer.framing));
            pass(exchange, answer, source, responder).await.map(Received::Passed)
        });
        both(send.as_mut(), receive.as_mut(), until, &exchange.caller).await
    };
    let reused = connection.reused;
    let cells = connection.cells.clone();
    let whole = sent.as_ref().is_some_and(Result::is_ok);
    let again = answer.keep_alive && whole;
    match received {
        Ok(Received::Held) => held(answer, sent, cells),
        Ok(Received::Switched) => {
            let H1Connection { reader, writer, .. } = *connection;
            let stream = conn::join(reader, writer).filter(|_| upgrade);
            Box::pin(switch(exchange, head, answer, responder, stream, cells)).await
        }
        Ok(Received::TryAgain(pause)) => Tried::Again { pause, status: answer.status },
        Ok(Received::Passed(passed)) => {
            if again {
                exchange.worker.http.put_h1(connection);
            }
            finished(passed, sent, answer, cells)
        }
        Err(broken) => {
            if let (Broken::ClientGone(_), None) = (&broken, &sent) {
                // What was sent may wait before a process that does not read: an end behind it would say nothing.
                connection.abort();
            }
            broke(broken, sent, answer, cells, responder, reused)
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the state of one try, used nowhere else")]
async fn once_h2<'r>(
    exchange: &Exchange<'_>,
    head: &mut RequestHead,
    body: &mut Body<'_>,
    responder: &mut Option<Responder<'r>>,
    connection: H2Connection,
    upstream: &Upstream,
    answer: &mut ResponseHead,
    until: Option<Instant>,
) -> Tried {
    let Some(request) = convert::http2_request(head) else {
        return failed(Failure::Status(400), "the request cannot be said in HTTP/2".into(), false);
    };
    let ended = match &*body {
        Body::Whole(bytes) => bytes.is_empty(),
        Body::Stream(kept) => kept.is_empty(),
    };
    let (response, stream) = match open(exchange, upstream, &connection, request, ended).await {
        Ok(opened) => opened,
        Err(tried) => return tried,
    };
    let (sent, received) = {
        let mut send = pin!(async {
            let mut sink = if ended { Sink::Ended } else { Sink::H2(stream) };
            match body {
                Body::Whole(bytes) => pump(&mut Source::Bytes(bytes.clone()), &mut sink, exchange.messages()).await,
                Body::Stream(kept) => kept.pump(&mut sink, &exchange.replayable, exchange.messages()).await,
            }
        });
        let head_request = head.method() == "HEAD";
        let mut receive = pin!(async {
            let response = response.await.map_err(no_answer)?;
            let ended = response.body().is_end_stream();
            *answer = convert::response(&response, ended, head_request);
            unanswered(exchange, upstream, answer)?;
            if let Some(instead) = instead(exchange, answer) {
                return Ok(instead);
            }
            pass(exchange, answer, Source::H2(response.into_body()), responder).await.map(Received::Passed)
        });
        both(send.as_mut(), receive.as_mut(), until, &exchange.caller).await
    };
    let cells = connection.cells.clone();
    match received {
        Ok(Received::Switched) => failed(Failure::Reset, "a switch of protocols in HTTP/2".into(), false),
        Ok(Received::TryAgain(pause)) => Tried::Again { pause, status: answer.status },
        Ok(Received::Held) => held(answer, sent, cells),
        Ok(Received::Passed(passed)) => finished(passed, sent, answer, cells),
        Err(broken) => {
            if matches!(broken, Broken::NoAnswer(..)) {
                exchange.worker.http.retire_h2(&exchange.pool_key(upstream), &connection);
            }
            broke(broken, sent, answer, cells, responder, connection.reused)
        }
    }
}

/// Opens a stream.
async fn open(
    exchange: &Exchange<'_>,
    upstream: &Upstream,
    connection: &H2Connection,
    request: http::Request<()>,
    ended: bool,
) -> Result<(ResponseFuture, SendStream<Bytes>), Tried> {
    let opened = async {
        let mut sender = connection.sender.clone().ready().await?;
        sender.send_request(request, ended)
    };
    opened.await.map_err(|error: h2::Error| {
        // The connection takes no more streams; those that run may finish.
        exchange.worker.http.retire_h2(&exchange.pool_key(upstream), connection);
        failed(Failure::NotSent, error.to_string(), connection.reused)
    })
}

fn no_answer(error: h2::Error) -> Broken {
    let failure = if is_unprocessed(&error) { Failure::NotSent } else { Failure::Reset };
    Broken::NoAnswer(failure, error.to_string())
}

/// Asks for a WebSocket by extended CONNECT (RFC 8441).
async fn once_extended<'r>(
    exchange: &Exchange<'_>,
    head: &RequestHead,
    responder: &mut Option<Responder<'r>>,
    connection: H2Connection,
    upstream: &Upstream,
    answer: &mut ResponseHead,
    until: Option<Instant>,
) -> Tried {
    let Some(request) = websocket::extended_connect(head) else {
        return failed(Failure::Status(400), "the request cannot be said in HTTP/2".into(), false);
    };
    let (response, stream) = match open(exchange, upstream, &connection, request, false).await {
        Ok(opened) => opened,
        Err(tried) => return tried,
    };
    let mut switched = None;
    let (sent, received) = {
        let mut receive = pin!(async {
            let response = response.await.map_err(no_answer)?;
            *answer = convert::response(&response, response.body().is_end_stream(), false);
            unanswered(exchange, upstream, answer)?;
            if response.status().is_success() {
                switched = Some(response.into_body());
                return Ok(Received::Switched);
            }
            if let Some(instead) = instead(exchange, answer) {
                return Ok(instead);
            }
            pass(exchange, answer, Source::H2(response.into_body()), responder).await.map(Received::Passed)
        });
        let mut send = pin!(std::future::ready(Ok(Pumped::default())));
        both(send.as_mut(), receive.as_mut(), until, &exchange.caller).await
    };
    let cells = connection.cells.clone();
    match received {
        Ok(Received::Switched) => {
            websocket::switched(head, answer);
            // It is one of the connection's streams as long as it stands.
            let of = |receive| HboneStream::of_endpoint(stream, receive, connection.closed.clone());
            let opened = switched.map(|receive| Io::Hbone(Box::new(of(receive))).into());
            switch(exchange, head, answer, responder, opened, cells).await
        }
        Ok(Received::TryAgain(pause)) => Tried::Again { pause, status: answer.status },
        Ok(Received::Held) => held(answer, sent, cells),
        Ok(Received::Passed(passed)) => finished(passed, sent, answer, cells),
        Err(broken) => {
            if matches!(broken, Broken::NoAnswer(..)) {
                exchange.worker.http.retire_h2(&exchange.pool_key(upstream), &connection);
            }
            broke(broken, sent, answer, cells, responder, connection.reused)
        }
    }
}

/// Runs both halves. The answer decides when it is over: an endpoint may answer before it has read everything. A caller who leaves ends it,
/// so that the endpoint learns that nobody waits any longer.
async fn both<S, R>(
    mut send: Pin<&mut S>,
    mut receive: Pin<&mut R>,
    until: Option<Instant>,
    caller: &Caller<'_>,
) -> (Option<Result<Pumped, PumpError>>, Result<Received, Broken>)
where
    S: Future<Output = Result<Pumped, PumpError>>,
    R: Future<Output = Result<Received, Broken>>,
{
    let mut timer = until.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
    let mut sent = None;
    let received = poll_fn(|cx| {
        if sent.is_none()
            && let Poll::Ready(result) = send.as_mut().poll(cx)
        {
            if let Err(PumpError::Source(error)) = &result {
                let gone = Broken::ClientGone(format!("the client: {error}"));
                sent = Some(result);
                return Poll::Ready(Err(gone));
            }
            sent = Some(result);
        }
        if let Poll::Ready(received) = receive.as_mut().poll(cx) {
            return Poll::Ready(received);
        }
        if caller.poll_gone(cx, sent.is_some()).is_ready() {
            return Poll::Ready(Err(Broken::ClientGone("the client is gone".into())));
        }
        match timer.as_mut().map(|timer| Pin::new(timer).poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(Broken::NoAnswer(Failure::TryTimeout, "timed out".into()))),
            _ => Poll::Pending,
        }
    })
    .await;
    (sent, received)
}

/// Whether the peer says that it has not looked at the request (RFC 9113, 8.7): a stream above the last one of its GOAWAY, or one that
/// it refused. A GOAWAY with an error ends streams that were begun, too.
fn is_unprocessed(error: &h2::Error) -> bool {
    let orderly = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    orderly || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// The proxy before the process says that the process gave no answer: as good as no connection, or a broken one.
fn unanswered(exchange: &Exchange<'_>, upstream: &Upstream, answer: &mut ResponseHead) -> Result<(), Broken> {
    // A process that says so itself says it to its own proxy, which takes it off.
    if !matches!(exchange.plan.target, Target::Port(_)) {
        answer.fields.remove(UNANSWERED);
        return Ok(());
    }
    let failure = match answer.fields.get(UNANSWERED) {
        None => return Ok(()),
        Some(word) if word == unanswered::RESET.as_bytes() => Failure::Reset,
        Some(word) => {
            if word == unanswered::DRAINING.as_bytes() {
                upstream.load.mark_draining(exchange.worker.now_ms());
            }
            Failure::NotSent
        }
    };
    Err(Broken::Unanswered(failure))
}

/// What is done with an answer in place of passing it on.
fn instead(exchange: &Exchange<'_>, answer: &ResponseHead) -> Option<Received> {
    if let Some(pause) = exchange.plan.retry().and_then(|retry| exchange.instead(retry, answer)) {
        return Some(Received::TryAgain(pause));
    }
    (exchange.plan.hedging.is_some() && hedge::is_not_the_last_word(exchange, answer)).then_some(Received::Held)
}

/// Passes an answer on.
async fn pass(
    exchange: &Exchange<'_>,
    answer: &mut ResponseHead,
    mut source: Source<'_>,
    responder: &mut Option<Responder<'_>>,
) -> Result<Passed, Broken> {
    exchange.plan.finish(answer);
    exchange.answered(answer);
    exchange.replayable.store(false, Ordering::Relaxed);
    let Some(responder) = responder.take() else { return Err(Broken::Midway("answered twice".into())) };
    let started = responder.start(answer);
    let (mut sink, keep_client) = started.map_err(|error| Broken::ClientGone(format!("the client: {error}")))?;
    match pump(&mut source, &mut sink, exchange.messages()).await {
        Ok(Pumped { bytes, messages, trailers }) => Ok(Passed { bytes, messages, keep_client, trailers }),
        Err(error) => {
            if let Sink::Served(mut half) = sink {
                half.reset(http2::Code::INTERNAL_ERROR);
            }
            Err(match error {
                PumpError::Source(error) => Broken::Midway(error.to_string()),
                PumpError::Sink(error) => Broken::ClientGone(error.to_string()),
            })
        }
    }
}

fn held(answer: &mut ResponseHead, sent: Option<Result<Pumped, PumpError>>, cells: Arc<EdgeCells>) -> Tried {
    Tried::Held(Box::new(Held { answer: std::mem::take(answer), sent, cells }))
}

fn failed(failure: Failure, why: String, stale: bool) -> Tried {
    Tried::Failed { failure, why, stale }
}

fn finished(
    passed: Passed,
    sent: Option<Result<Pumped, PumpError>>,
    answer: &ResponseHead,
    cells: Arc<EdgeCells>,
) -> Tried {
    // A client that was still sending when the answer ended: where its next request begins is not known.
    let whole = matches!(sent, Some(Ok(_)));
    let outcome = if passed.keep_client && whole { Outcome::Keep } else { Outcome::Close };
    let sent = sent.and_then(Result::ok);
    Tried::Finished(Finished {
        outcome,
        status: answer.status,
        received: passed.bytes,
        messages: (sent.as_ref().map_or(0, |pumped| pumped.messages), passed.messages),
        sent: sent.map_or(0, |pumped| pumped.bytes),
        grpc: Grpc::of_text(passed.trailers.as_ref().unwrap_or(&answer.fields).get("grpc-status")),
        flag: Flag::None,
        cells,
    })
}

fn broke(
    broken: Broken,
    sent: Option<Result<Pumped, PumpError>>,
    answer: &ResponseHead,
    cells: Arc<EdgeCells>,
    responder: &Option<Responder<'_>>,
    reused: bool,
) -> Tried {
    match broken {
        Broken::Unanswered(failure) => failed(failure, "the process gave its proxy no answer".into(), false),
        Broken::NoAnswer(failure, why) if responder.is_some() => {
            failed(failure, why, reused && matches!(failure, Failure::Reset | Failure::NotSent))
        }
        Broken::NoAnswer(_, ref why) | Broken::Midway(ref why) | Broken::ClientGone(ref why) => {
            tracing::debug!(why, "an answer broke off");
            let client = matches!(broken, Broken::ClientGone(_));
            Tried::Finished(Finished {
                outcome: Outcome::Close,
                status: if responder.is_some() { 0 } else { answer.status },
                sent: sent.and_then(Result::ok).map_or(0, |pumped| pumped.bytes),
                received: 0,
                messages: (0, 0),
                grpc: Grpc::Unknown,
                flag: if client { Flag::DownstreamTermination } else { Flag::ConnectionTermination },
                cells,
            })
        }
    }
}

/// Answers `101`, or what says it in HTTP/2, and hands the endpoint's connection over. `stream`: none, if nobody asked for it.
async fn switch(
    exchange: &Exchange<'_>,
    head: &RequestHead,
    answer: &mut ResponseHead,
    responder: &mut Option<Responder<'_>>,
    stream: Option<Stream>,
    cells: Arc<EdgeCells>,
) -> Tried {
    exchange.plan.finish(answer);
    let said = match (responder.as_mut(), &stream) {
        (Some(Responder::H1 { writer, version, .. }), Some(_)) => {
            http1::encode_response(answer, RequestKind::Other, *version, true, &mut writer.out);
            writer.flush().await.map(|()| true)
        }
        (Some(Responder::Served { half, .. }), Some(_)) => websocket::agree(head, answer, half),
        _ => Ok(false),
    };
    let outcome = match (said, stream) {
        (Ok(true), Some(stream)) => Outcome::Switched(stream, None),
        (Ok(_), _) => return failed(Failure::Status(502), "the switch of protocols was not agreed on".into(), false),
        (Err(_), _) => Outcome::Close,
    };
    *responder = None;
    let (flag, grpc, status) = (Flag::None, Grpc::No, answer.status);
    Tried::Finished(Finished { outcome, status, sent: 0, received: 0, messages: (0, 0), grpc, flag, cells })
}

//! Steady load: an open loop, so a slow answer does not slow the asking down. One JSON line for each request, in order of their ends.
//!
//! `http1` and `http2` (prior knowledge) get the URL, over connections that are kept; `grpc` checks the server's health; `stream` opens a few gRPC
//! streams at the start, which last to the end, and each message that has to come back counts as a request.
//!
//! What the server says it has not looked at (HTTP/2's GOAWAY above the last stream) is asked again, as every client of gRPC does (RFC 9113, 8.7).

use bytes::Bytes;
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use std::convert::Infallible;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

const TIMEOUT: Duration = Duration::from_secs(15);

/// How often a request that was refused unseen is sent again.
const UNSEEN_AGAIN: u32 = 3;

/// Streams of a `stream` load.
const STREAMS: u32 = 4;

type Asking = Client<HttpConnector, BoxBody<Bytes, Infallible>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    Grpc,
    Stream,
}

struct Arguments {
    protocol: Protocol,
    url: String,
    host: Option<String>,
    rate: u32,
    seconds: u64,
    output: String,
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).cloned()
    };
    let needed = |name: &str| value(name).ok_or_else(|| format!("{name} is missing"));
    let number = |name: &str| needed(name)?.parse::<u32>().map_err(|_| format!("{name} is no number"));
    let (rate, seconds) = (number("--rate")?, u64::from(number("--seconds")?));
    if !(1..=20_000).contains(&rate) || !(1..=3600).contains(&seconds) {
        return Err("--rate is 1 to 20000 and --seconds 1 to 3600".into());
    }
    let protocol = match value("--protocol").as_deref().unwrap_or("http1") {
        "http1" => Protocol::Http1,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "stream" => Protocol::Stream,
        other => return Err(format!("--protocol {other} is none of http1, http2, grpc, stream")),
    };
    Ok(Arguments { protocol, url: needed("--url")?, host: value("--host"), rate, seconds, output: needed("--output")? })
}

pub async fn run(arguments: &[String]) -> Result<(), String> {
    let Arguments { protocol, url, host, rate, seconds, output } = parse(arguments)?;
    let client: Asking = Client::builder(TokioExecutor::new()).http2_only(protocol != Protocol::Http1).build_http();
    let file = File::create(&output).map_err(|error| format!("{output}: {error}"))?;
    let (report, mut reports) = mpsc::unbounded_channel::<serde_json::Value>();
    let writer = tokio::spawn(async move {
        let mut out = BufWriter::new(file);
        while let Some(line) = reports.recv().await {
            writeln!(out, "{line}")?;
            if reports.is_empty() {
                out.flush()?;
            }
        }
        out.flush()
    });
    if protocol == Protocol::Stream {
        let mut streams = tokio::task::JoinSet::new();
        for _ in 0..STREAMS {
            let (every, report) = (Duration::from_secs_f64(f64::from(STREAMS) / f64::from(rate)), report.clone());
            streams.spawn(stream(client.clone(), url.clone(), every, Duration::from_secs(seconds), report));
        }
        drop(report);
        streams.join_all().await;
        return writer.await.map_err(|error| error.to_string())?.map_err(|error| format!("{output}: {error}"));
    }
    let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / f64::from(rate)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    for _ in 0..u64::from(rate) * seconds {
        tick.tick().await;
        let (client, url, host, report) = (client.clone(), url.clone(), host.clone(), report.clone());
        tokio::spawn(async move {
            let sample = Sample::begin();
            let asked = async {
                match protocol {
                    Protocol::Grpc => check(&client, &url).await,
                    _ => one(&client, &url, host).await,
                }
            };
            let outcome = tokio::time::timeout(TIMEOUT, asked).await;
            let _ = report.send(sample.end(outcome.unwrap_or_else(|_| Err("no answer in time".into()))));
        });
    }
    drop(report);
    writer.await.map_err(|error| error.to_string())?.map_err(|error| format!("{output}: {error}"))
}

/// One request as it is reported.
struct Sample {
    begun_ms: u64,
    begun: Instant,
}

impl Sample {
    fn begin() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { begun_ms: since.as_millis() as u64, begun: Instant::now() }
    }

    fn end(&self, outcome: Result<serde_json::Value, String>) -> serde_json::Value {
        let latency_us = self.begun.elapsed().as_micros() as u64;
        match outcome {
            Ok(hops) => json!({"at_ms": self.begun_ms, "us": latency_us, "hops": hops}),
            Err(error) => json!({"at_ms": self.begun_ms, "us": latency_us, "error": error}),
        }
    }
}

/// Sends a request, again if nobody looked at it.
async fn ask(
    client: &Asking,
    request: impl Fn() -> Result<Request<BoxBody<Bytes, Infallible>>, String>,
) -> Result<hyper::Response<Incoming>, String> {
    let mut left = UNSEEN_AGAIN;
    loop {
        match client.request(request()?).await {
            Err(error) if left > 0 && is_unseen(&error) => left -= 1,
            other => return other.map_err(|error| format!("{error:?}")),
        }
    }
}

/// Whether the server never looked at it: a stream above the last one of an orderly GOAWAY, or one that was not opened any more.
fn is_unseen(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        // The connection's task ended before it took the request.
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user) {
            return true;
        }
        cause = error.source();
    }
    false
}

async fn one(client: &Asking, url: &str, host: Option<String>) -> Result<serde_json::Value, String> {
    let request = || {
        let request = Request::get(url);
        let request = match &host {
            Some(host) => request.header("host", host),
            None => request,
        };
        request.body(Empty::new().boxed()).map_err(|error| error.to_string())
    };
    let response = ask(client, request).await?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)])));
    }
    let body: serde_json::Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(body["hops"].clone())
}

fn grpc(
    url: &str,
    path: &str,
    body: BoxBody<Bytes, Infallible>,
) -> Result<Request<BoxBody<Bytes, Infallible>>, String> {
    let request = Request::post(format!("{}{path}", url.trim_end_matches('/')));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    request.body(body).map_err(|error| error.to_string())
}

/// A gRPC call: is the server well?
async fn check(client: &Asking, url: &str) -> Result<serde_json::Value, String> {
    let nothing = || Full::new(Bytes::from_static(&[0; 5])).boxed();
    let response = ask(client, || grpc(url, crate::health::PATH, nothing())).await?;
    let status = response.status();
    let headers = response.headers().clone();
    let body = response.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
    let code = body.trailers().and_then(|trailers| trailers.get("grpc-status")).or(headers.get("grpc-status")).cloned();
    match code {
        Some(code) if status.is_success() && code == "0" && !body.to_bytes().is_empty() => Ok(json!([])),
        code => Err(format!("{status}, grpc-status {code:?}")),
    }
}

/// Messages as they are sent.
struct Outgoing(mpsc::UnboundedReceiver<Bytes>);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}

/// A stream that lasts; one that breaks is a failure, and another takes its place.
async fn stream(
    client: Asking,
    url: String,
    every: Duration,
    lasts: Duration,
    report: mpsc::UnboundedSender<serde_json::Value>,
) {
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        let sample = Sample::begin();
        if let Err(error) = converse(&client, &url, every, end, &report).await {
            let _ = report.send(sample.end(Err(format!("a stream: {error}"))));
            tokio::time::sleep(every).await;
        }
    }
}

async fn converse(
    client: &Asking,
    url: &str,
    every: Duration,
    end: Instant,
    report: &mpsc::UnboundedSender<serde_json::Value>,
) -> Result<(), String> {
    let (say, messages) = mpsc::unbounded_channel();
    let request = grpc(url, crate::echo::PATH, Outgoing(messages).boxed())?;
    let message = Bytes::from_static(b"\0\0\0\0\x04echo");
    let late = |_| "no answer in time".to_owned();
    // The answer's head may come before the first message or with it.
    let _ = say.send(message.clone());
    let sample = Sample::begin();
    let response = tokio::time::timeout(TIMEOUT, client.request(request)).await.map_err(late)?;
    let response = response.map_err(|error| format!("{error:?}"))?;
    if !response.status().is_success() {
        return Err(response.status().to_string());
    }
    let mut body = response.into_body();
    tokio::time::timeout(TIMEOUT, hear(&mut body, message.len())).await.map_err(late)??;
    let _ = report.send(sample.end(Ok(json!([]))));
    let mut tick = tokio::time::interval(every);
    while Instant::now() < end {
        tick.tick().await;
        let sample = Sample::begin();
        let _ = say.send(message.clone());
        tokio::time::timeout(TIMEOUT, hear(&mut body, message.len())).await.map_err(late)??;
        let _ = report.send(sample.end(Ok(json!([]))));
    }
    drop(say);
    let rest = tokio::time::timeout(TIMEOUT, body.collect()).await.map_err(late)?;
    let rest = rest.map_err(|error| format!("{error:?}"))?;
    match rest.trailers().and_then(|trailers| trailers.get("grpc-status")) {
        Some(code) if code == "0" => Ok(()),
        code => Err(format!("it ended with grpc-status {code:?}")),
    }
}

/// Takes so many bytes.
async fn hear(body: &mut Incoming, mut length: usize) -> Result<(), String> {
    while length > 0 {
        let frame = body.frame().await.ok_or("it ended")?.map_err(|error| format!("{error:?}"))?;
        let data = frame.into_data().map_err(|_| "trailers where a message should be")?;
        length = length.checked_sub(data.len()).ok_or("more came back than was sent")?;
    }
    Ok(())
}

//! Steady load: an open loop, so a slow answer does not slow the asking down. One JSON line for each request, in order of their ends.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

const TIMEOUT: Duration = Duration::from_secs(15);

struct Arguments {
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
    Ok(Arguments { url: needed("--url")?, host: value("--host"), rate, seconds, output: needed("--output")? })
}

pub async fn run(arguments: &[String]) -> Result<(), String> {
    let Arguments { url, host, rate, seconds, output } = parse(arguments)?;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
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
    let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / f64::from(rate)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    for _ in 0..u64::from(rate) * seconds {
        tick.tick().await;
        let (client, url, host, report) = (client.clone(), url.clone(), host.clone(), report.clone());
        tokio::spawn(async move {
            let begun_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            let begun = Instant::now();
            let outcome = tokio::time::timeout(TIMEOUT, one(client, &url, host)).await;
            let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".into()));
            let latency_us = begun.elapsed().as_micros() as u64;
            let line = match outcome {
                Ok(hops) => json!({"at_ms": begun_ms, "us": latency_us, "hops": hops}),
                Err(error) => json!({"at_ms": begun_ms, "us": latency_us, "error": error}),
            };
            let _ = report.send(line);
        });
    }
    drop(report);
    writer.await.map_err(|error| error.to_string())?.map_err(|error| format!("{output}: {error}"))
}

async fn one(
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Empty<Bytes>>,
    url: &str,
    host: Option<String>,
) -> Result<serde_json::Value, String> {
    let mut request = Request::get(url);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
    let response = client.request(request).await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)])));
    }
    let body: serde_json::Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(body["hops"].clone())
}

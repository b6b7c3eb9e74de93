//! Sends spans, in batches, to every collector.
use super::connect;
use crate::config::{Exporter, Speaks};
use crate::grpc::Channel;
use crate::shared::Shared;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use prost::Message;
use spans::{Span, otlp, skywalking};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic_prost::ProstCodec;

/// Spans sent at once.
const BATCH: usize = 512;
/// How long a span waits for others.
const PERIOD: Duration = Duration::from_secs(1);
/// A collector that takes longer is given up for this batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a batch is tried, and how long is waited between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
const ANSWER_BYTES: usize = 64 << 10;

/// Sends until the process ends.
pub async fn run(shared: Arc<Shared>) {
    let Some(mut waiting) = shared.tracer.take_waiting() else { return };
    let mut collectors: Vec<Collector> = shared.tracer.exporters.iter().cloned().map(Collector::new).collect();
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let until = Instant::now() + PERIOD;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            match timeout_at(until, waiting.recv_many(&mut batch, room)).await {
                Ok(count) if count > 0 => {}
                _ => break,
            }
        }
        let sends = collectors.iter_mut().map(|collector| collector.send(&shared, &batch));
        futures_util::future::join_all(sends).await;
        batch.clear();
    }
}

/// One collector and the connection to it.
struct Collector {
    exporter: Exporter,
    grpc: Option<Channel>,
}

impl Collector {
    fn new(exporter: Exporter) -> Self {
        Self { exporter, grpc: None }
    }

    async fn send(&mut self, shared: &Shared, batch: &[Span]) {
        let counts = shared.tracer.counts();
        let mut why = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * attempt).await;
            }
            match tokio::time::timeout(TIMEOUT, self.try_send(shared, batch)).await {
                Ok(Ok(refused)) => {
                    counts.sent.fetch_add(batch.len() as u64 - refused, Ordering::Relaxed);
                    counts.failed.fetch_add(refused, Ordering::Relaxed);
                    return;
                }
                Ok(Err(error)) => why = error,
                Err(_) => "no answer in time".clone_into(&mut why),
            }
            self.grpc = None;
        }
        counts.failed.fetch_add(batch.len() as u64, Ordering::Relaxed);
        tracing::warn!(collector = %self.exporter, spans = batch.len(), why, "spans are lost");
    }

    /// Gives how many spans the collector refused.
    async fn try_send(&mut self, shared: &Shared, batch: &[Span]) -> Result<u64, String> {
        match self.exporter.speaks {
            Speaks::OtlpGrpc => {
                let request = otlp::request(batch, env!("CARGO_PKG_VERSION"));
                let mut grpc = self.grpc(shared).await?;
                let path = http::uri::PathAndQuery::from_static(otlp::EXPORT_PATH);
                let codec = ProstCodec::<otlp::ExportRequest, otlp::ExportResponse>::default();
                let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
                let answer = answer.map_err(|status| status.to_string())?.into_inner();
                Ok(refused(&answer, batch.len()))
            }
            Speaks::OtlpHttp => {
                let body = otlp::request(batch, env!("CARGO_PKG_VERSION")).encode_to_vec();
                let answer = self.post(shared, body).await?;
                let answer = otlp::ExportResponse::decode(answer).map_err(|error| error.to_string())?;
                Ok(refused(&answer, batch.len()))
            }
            Speaks::SkyWalking => {
                let segments: Vec<_> = batch.iter().filter_map(skywalking::segment).collect();
                let mut grpc = self.grpc(shared).await?;
                let path = http::uri::PathAndQuery::from_static(skywalking::COLLECT_PATH);
                let codec = ProstCodec::<skywalking::SegmentObject, skywalking::Commands>::default();
                let request = tonic::Request::new(tokio_stream::iter(segments));
                grpc.client_streaming(request, path, codec).await.map_err(|status| status.to_string())?;
                Ok(0)
            }
        }
    }

    async fn grpc(&mut self, shared: &Shared) -> Result<tonic::client::Grpc<Channel>, String> {
        let (host, port) = (&self.exporter.host, self.exporter.port);
        let connection = match self.grpc.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => connect::grpc(shared, &self.exporter).await?,
        };
        self.grpc = Some(connection.clone());
        let scheme = if self.exporter.tls { "https" } else { "http" };
        let origin = http::Uri::try_from(format!("{scheme}://{host}:{port}")).map_err(|error| error.to_string())?;
        let mut grpc = tonic::client::Grpc::with_origin(connection, origin);
        grpc.ready().await.map_err(|error| error.to_string())?;
        Ok(grpc)
    }

    /// A connection for each batch: there is one a second at most.
    async fn post(&self, shared: &Shared, body: Vec<u8>) -> Result<Bytes, String> {
        let Exporter { host, port, path, .. } = &self.exporter;
        let stream = connect::link(shared, &self.exporter).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let request = http::Request::post(path)
            .header("host", format!("{host}:{port}"))
            .header("content-type", "application/x-protobuf")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await.map_err(|error| error.to_string())?;
        connection.abort();
        if status.is_success() { Ok(body.to_bytes()) } else { Err(format!("it answers {status}")) }
    }
}

fn refused(answer: &otlp::ExportResponse, sent: usize) -> u64 {
    let refused = answer.partial_success.as_ref().map_or(0, |partial| partial.rejected_spans);
    u64::try_from(refused).unwrap_or(0).min(sent as u64)
}

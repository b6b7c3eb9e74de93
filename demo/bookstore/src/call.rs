//! Calls from one service to another: plain HTTP to a Service's name. Identity, encryption, balancing and retries are the mesh's work.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 1 << 20;
/// Headers that a service hands on, so that traces and tests can follow a request.
const HANDED_ON: [&str; 4] = ["traceparent", "tracestate", "x-request-id", "x-user"];

/// A client with a connection pool.
#[derive(Clone)]
pub struct Caller {
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Caller {
    pub fn new() -> Self {
        Caller { client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// GETs JSON; an error is a sentence that names the URL.
    pub async fn get(&self, url: &str, from: &HeaderMap) -> Result<Value, String> {
        let mut request = Request::get(url);
        for name in HANDED_ON {
            if let Some(value) = from.get(name) {
                request = request.header(name, value);
            }
        }
        let request = request.body(Empty::new()).map_err(|error| format!("{url}: {error}"))?;
        let work = async {
            let response = self.client.request(request).await.map_err(|error| format!("{url}: {error:?}"))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| format!("{url}: {error}"))?.to_bytes();
            if status != StatusCode::OK {
                return Err(format!("{url}: {status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)])));
            }
            serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
        };
        tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(format!("{url}: no answer in time")))
    }
}

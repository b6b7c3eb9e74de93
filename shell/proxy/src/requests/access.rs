//! A line of JSON for each request.
use super::Site;
use http1::RequestHead;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

/// What is known when a request comes; the rest when it is answered.
#[derive(Debug)]
pub struct Entry {
    line: serde_json::Map<String, serde_json::Value>,
}

impl Entry {
    /// A request that came.
    pub fn new(site: &Site, head: &RequestHead) -> Self {
        let mut line = serde_json::Map::new();
        let text = |name: &str| head.fields.get_str(name).map_or(serde_json::Value::Null, Into::into);
        for (name, value) in [
            ("method", json!(head.method())),
            ("authority", json!(head.authority())),
            ("path", json!(head.target())),
            ("client", json!(site.client.to_string())),
            ("origin", json!(&*site.origin.identity.name)),
            ("user_agent", text("user-agent")),
            ("traceparent", text("traceparent")),
        ] {
            line.insert(name.to_owned(), value);
        }
        Self { line }
    }

    /// It was answered.
    pub fn write(
        mut self,
        status: u16,
        took: Duration,
        upstream: Option<SocketAddr>,
        route: &str,
        details: &str,
        bytes: u64,
    ) {
        for (name, value) in [
            ("status", json!(status)),
            ("duration_ms", json!(took.as_secs_f64() * 1000.0)),
            ("upstream", json!(upstream.map(|address| address.to_string()))),
            ("route", json!(route)),
            ("details", json!(details)),
            ("bytes", json!(bytes)),
        ] {
            self.line.insert(name.to_owned(), value);
        }
        tracing::info!(target: "access", "{}", serde_json::Value::Object(self.line));
    }
}

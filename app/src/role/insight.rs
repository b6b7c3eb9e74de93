//! What only this platform can tell: `/diolkos/v1/*`, answered by those who know it.

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use manager::telemetry::COUNTERS;
use server::{Body, Extension, ExtensionRequest};
use std::sync::{Arc, OnceLock};

/// The mesh's trust bundle, which other trust domains fetch without credentials: it holds public keys only.
pub const BUNDLE: &str = "/diolkos/v1/mesh/bundle";

/// Answers a path (and the query's label selector) with status and JSON, or does not know it.
pub type Teller = Arc<dyn Fn(&str, Option<&str>) -> Option<(u16, Bytes)> + Send + Sync>;

/// Carries out an order (POST) to a path, or does not know it.
pub type Doer = Arc<dyn Fn(&str) -> Option<(u16, Bytes)> + Send + Sync>;

/// The extension is hung into the server before those who answer exist: they need the server's own API.
#[derive(Clone, Default)]
pub struct Insight {
    tellers: Arc<OnceLock<Vec<Teller>>>,
    doers: Arc<OnceLock<Vec<Doer>>>,
}

impl Insight {
    /// Who answers from now on, asked in order.
    pub fn told_by(&self, tellers: Vec<Teller>) {
        // Set once, at start; a second call would be a defect of this crate and is ignored.
        let _ = self.tellers.set(tellers);
    }

    /// Who carries out orders from now on, asked in order.
    pub fn done_by(&self, doers: Vec<Doer>) {
        // As above.
        let _ = self.doers.set(doers);
    }

    fn answer(&self, method: &Method, path: &str, selector: Option<&str>) -> (u16, Bytes) {
        let missing = || (404, status(404, "NotFound", "the server could not find the requested resource"));
        if method == Method::POST {
            let doers = self.doers.get().map_or(&[][..], Vec::as_slice);
            return doers.iter().find_map(|doer| doer(path)).unwrap_or_else(missing);
        }
        if method != Method::GET {
            return (405, status(405, "MethodNotAllowed", "only GET and POST are answered here"));
        }
        let Some(tellers) = self.tellers.get() else {
            return (503, status(503, "ServiceUnavailable", "the platform is starting"));
        };
        tellers.iter().find_map(|teller| teller(path, selector)).unwrap_or_else(missing)
    }
}

/// A Status of the API.
pub fn status(code: u16, reason: &str, message: &str) -> Bytes {
    let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    Bytes::from(status.to_string())
}

impl Extension for Insight {
    fn is_public(&self, path: &str) -> bool {
        path == BUNDLE
    }

    fn takes(&self, path: &str, _dashboard: bool) -> bool {
        path.starts_with("/diolkos/v1/") || path.starts_with("/apis/metrics.k8s.io/v1beta1/") || path == COUNTERS
    }

    fn call(&self, request: ExtensionRequest) -> client::BoxFuture<'_, Response<Body>> {
        Box::pin(async move {
            let (code, body) = self.answer(&request.method, &request.info.path, request.query.get("labelSelector"));
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let kind = if request.info.path == COUNTERS { "text/plain; version=0.0.4" } else { "application/json" };
            let response = Response::builder().status(code).header(header::CONTENT_TYPE, kind);
            response.body(Body::from(body)).expect("status and header are valid")
        })
    }
}
